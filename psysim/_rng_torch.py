"""Torch forms of the keyed random numbers, for any device: the Philox4x32 generator and Box-Muller normals.

The same bits as the CPU kernels of `psysim._rng_cpu`; `psysim.rng` says what the numbers are for.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["box_muller", "philox", "philox4x32"]

_MASK = 0xFFFFFFFF


def philox4x32(counter: Tensor, key: Tensor, rounds: int = 10) -> Tensor:
    """Return the Philox4x32 random words of counters under keys.

    Parameters
    ----------
    counter : Tensor
        int64 (..., 4), values 0 .. 2^32 - 1.
    key : Tensor
        int64 (..., 2), values 0 .. 2^32 - 1; broadcasts against ``counter``.
    rounds : int
        Number of rounds, 10 in this library.

    Returns
    -------
    Tensor
        int64 (..., 4), values 0 .. 2^32 - 1; the same on every device.

    References
    ----------
    Salmon et al. (2011), Parallel random numbers: as easy as 1, 2, 3. Proc. SC11.

    Examples
    --------
    >>> [f"{w:08x}" for w in philox4x32(torch.zeros(4, dtype=torch.int64), torch.zeros(2, dtype=torch.int64)).tolist()]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    c0, c1, c2, c3 = counter.unbind(-1)
    k0, k1 = key.unbind(-1)
    shape = torch.broadcast_shapes(c0.shape, k0.shape)  # type: ignore[no-untyped-call]
    return torch.stack([w.expand(shape) for w in philox(c0, c1, c2, c3, k0, k1, rounds)], dim=-1)


def philox(
    c0: Tensor, c1: Tensor, c2: Tensor, c3: Tensor, k0: Tensor | int, k1: Tensor | int, rounds: int = 10
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the four words of each block, given the words of counters and keys apart; see `philox4x32`."""
    for _ in range(rounds):
        # int64 products wrap modulo 2^64; their upper and lower words are still right after masking
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        h0, h1 = (p0 >> 32) & _MASK, (p1 >> 32) & _MASK
        c0, c1, c2, c3 = h1 ^ c1 ^ k0, p1 & _MASK, h0 ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + 0x9E3779B9) & _MASK, (k1 + 0xBB67AE85) & _MASK
    return c0, c1, c2, c3


def _sqrt(x: Tensor) -> Tensor:
    """Return the correctly rounded square root; torch's own on the CPU is off by one unit in 1 of 120 values (MKL)."""
    return torch.from_numpy(np.sqrt(x.numpy())) if x.device.type == "cpu" else x.sqrt()


def box_muller(words: Tensor) -> Tensor:
    """Turn words (R, 4 k) into normals of the same shape: the operations of psysim._rng_cpu, one by one."""
    from psysim._rng_cpu import ANGLE_STEP, COS_SERIES, LN2, LOG_SERIES, SIN_SERIES

    def horner(series: tuple[float, ...], q: Tensor) -> Tensor:
        p = q * series[-1] + series[-2]
        for coefficient in series[-3::-1]:
            p = p * q + coefficient
        return p

    radius, angle = words.reshape(words.shape[0], -1, 2).unbind(-1)
    bits = ((radius.double() + 0.5) * 2.0**-32).view(torch.int64)
    fraction = bits & 0xFFFFFFFFFFFFF
    halve = (fraction > 0x6A09E667F3BCD).to(torch.int64)
    exponent = ((bits >> 52) - 1023 + halve).double()
    m = (fraction | ((1023 - halve) << 52)).view(torch.float64)
    s = (m - 1.0) / (m + 1.0)
    r = _sqrt((exponent * LN2 + s * horner(LOG_SERIES, s * s)) * -2.0)
    quarter = (angle + (1 << 29)) >> 30
    t = ((angle - (quarter << 30)).double() + 0.5) * ANGLE_STEP
    q = t * t
    s, c = horner(SIN_SERIES, q) * t, horner(COS_SERIES, q)
    swap = (quarter & 1) == 1
    cosine, sine = torch.where(swap, s, c), torch.where(swap, c, s)
    cosine = torch.where(((quarter + 1) & 2) != 0, -cosine, cosine)
    sine = torch.where((quarter & 2) != 0, -sine, sine)
    return torch.stack([r * cosine, r * sine], dim=-1).reshape(words.shape)
