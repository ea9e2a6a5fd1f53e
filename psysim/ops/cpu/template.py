"""Numba kernels of `template_product`: float64 partial sums over chunks of fixed length, added in order."""

# mypy: disable-error-code="no-untyped-def"
# Compiled functions are typed by numba.

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from psysim.errors import SpecError
from psysim.ops.cpu.simd import LANES, convert, load, splat, store
from psysim.ops.cpu.tiles import empty, flat, kernel, run_blocks, scratch

__all__ = ["backward", "check_index", "forward"]

CHUNK = 1 << 16  # values; long enough to hide the call, short enough that one row keeps two cores busy
STEP = 4 * LANES  # values per loop pass: four independent sums hide the latency of the addition


@kernel
def _forward(block, x, templates, index, width, chunks, sums):
    row, chunk = block // chunks, block % chunks
    begin, end = chunk * CHUNK, min((chunk + 1) * CHUNK, width)
    a, b = row * width + begin, index[row] * width + begin
    zero = splat(sums, 0.0)
    s0, s1, s2, s3 = zero, zero, zero, zero
    whole = (end - begin) // STEP * STEP
    for n in range(0, whole, STEP):
        s0 = s0 + convert(load(x, a + n), sums) * convert(load(templates, b + n), sums)
        n1, n2, n3 = n + LANES, n + 2 * LANES, n + 3 * LANES
        s1 = s1 + convert(load(x, a + n1), sums) * convert(load(templates, b + n1), sums)
        s2 = s2 + convert(load(x, a + n2), sums) * convert(load(templates, b + n2), sums)
        s3 = s3 + convert(load(x, a + n3), sums) * convert(load(templates, b + n3), sums)
    lanes = scratch(LANES, sums)
    store(lanes, 0, (s0 + s1) + (s2 + s3))
    total = 0.0
    for lane in range(LANES):
        total += lanes[lane]
    for n in range(whole, end - begin):
        total += np.float64(x[a + n]) * np.float64(templates[b + n])
    sums[block] = total


@kernel
def _finish(sums, chunks, out):
    for row in range(out.size):
        total = 0.0
        for chunk in range(chunks):
            total += sums[row * chunks + chunk]
        out[row] = total


def check_index(op: str, index: Tensor, count: int) -> None:
    """Raise `SpecError` unless every index is in 0 ... count - 1."""
    low, high = int(index.min()), int(index.max())
    if low < 0 or high >= count:
        raise SpecError(f"ops.{op}: index holds {low if low < 0 else high}; allowed: 0 ... {count - 1}.")


def forward(x: Tensor, templates: Tensor, index: Tensor) -> Tensor:
    """Run the operator on the CPU."""
    check_index("template_product", index, len(templates))
    batch, width = x.shape
    chunks = -(-width // CHUNK)
    sums = flat(torch.empty(batch * chunks, dtype=torch.float64))
    out = torch.empty(batch, dtype=torch.float64)
    run_blocks(_forward, batch * chunks, flat(x), flat(templates), flat(index), width, chunks, sums)
    _finish(sums, chunks, flat(out))
    return out


@kernel
def _backward_x(block, grad, templates, index, width, chunks, out):
    row, chunk = block // chunks, block % chunks
    begin, end = chunk * CHUNK, min((chunk + 1) * CHUNK, width)
    factor = grad[row]
    for n in range(begin, end):
        out[row * width + n] = factor * templates[index[row] * width + n]


@kernel
def _backward_templates(block, grad, x, index, width, chunks, out):
    which, chunk = block // chunks, block % chunks
    begin, end = chunk * CHUNK, min((chunk + 1) * CHUNK, width)
    total = np.zeros(end - begin)
    for row in range(grad.size):
        if index[row] == which:
            factor, start = grad[row], row * width + begin
            for n in range(end - begin):
                total[n] += factor * x[start + n]
    for n in range(end - begin):
        out[which * width + begin + n] = total[n]


def backward(
    grad: Tensor, x: Tensor, templates: Tensor, index: Tensor, learn: bool, learn_templates: bool
) -> tuple[Tensor, Tensor]:
    """Gradients with respect to ``x`` and ``templates``; an empty tensor for the one that is not wanted."""
    batch, width = x.shape
    chunks = -(-width // CHUNK)
    grad_x = empty(x.shape if learn else (0,), x.dtype)
    grad_templates = empty(templates.shape if learn_templates else (0,), templates.dtype)
    factors, which = flat(grad), flat(index)
    if learn:
        run_blocks(_backward_x, batch * chunks, factors, flat(templates), which, width, chunks, flat(grad_x))
    if learn_templates:
        blocks = len(templates) * chunks
        run_blocks(_backward_templates, blocks, factors, flat(x), which, width, chunks, flat(grad_templates))
    return grad_x, grad_templates
