"""Binomial numbers by inversion of the distribution function: a CPU kernel and the same in torch, bit by bit.

From the smaller of p and 1 - p, called q, and a uniform u with 53 bits: P(0) = (1 - q)^n by repeated squaring,
P(k + 1) = P(k) q/(1 - q) (n - k)/(k + 1), and the count is the first k with P(0) + ... + P(k) > u. With q <= 1/2 and n
up to 1000 the first probability is at least 9e-302: nothing underflows. The expected number of steps is n q + 1; for
nerve fibres, n q is at most 10. Only +, -, *, / in a fixed order: CPU and CUDA give the same counts.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from numba import njit
from torch import Tensor

__all__ = ["MAX_TRIALS", "binomial_cpu", "binomial_torch"]

MAX_TRIALS = 1000


@njit(nogil=True, cache=True, error_model="numpy")
def binomial_cpu(words: Any, p: Any, n: int, out: Any) -> None:
    """Fill ``out`` (N,) with counts of ``n`` trials with probabilities ``p`` (N,) from ``words`` (2 N,) int64."""
    for i in range(len(p)):
        prob = p[i]
        if math.isnan(prob):
            out[i] = prob
            continue
        upper = prob > 0.5
        q = 1.0 - prob if upper else prob
        u = (float(words[2 * i] >> 5) * 67108864.0 + float(words[2 * i + 1] >> 6) + 0.5) * 1.1102230246251565e-16
        rest = 1.0 - q
        odds = q / rest
        mass = 1.0
        square = rest
        bits = n
        while bits > 0:
            if bits & 1:
                mass *= square
            square *= square
            bits >>= 1
        total = mass
        k = 0
        while total <= u and k < n:
            mass = mass * odds * (float(n - k) / float(k + 1))
            k += 1
            total += mass
        out[i] = n - k if upper else k


def binomial_torch(words: Tensor, p: Tensor, n: int) -> Tensor:
    """Return what `binomial_cpu` writes, float64 (N,), by torch operations on any device."""
    upper = p > 0.5
    q = torch.where(upper, 1.0 - p, p)
    pairs = words.reshape(-1, 2)
    u = ((pairs[:, 0] >> 5).double() * 67108864.0 + (pairs[:, 1] >> 6).double() + 0.5) * 2.0**-53
    square = 1.0 - q
    odds, mass, bits = q / square, torch.ones_like(q), n
    while bits > 0:
        if bits & 1:
            mass = mass * square
        square = square * square
        bits >>= 1
    total, count = mass, torch.zeros_like(q)
    for k in range(n):
        more = total <= u
        if not bool(more.any()):
            break
        mass = mass * odds * (float(n - k) / float(k + 1))
        count = count + more
        total = torch.where(more, total + mass, total)
    return torch.where(p.isnan(), p, torch.where(upper, n - count, count))
