"""Triton kernels of `compress`. Arithmetic is float64 whatever the dtype of the signal.

The way forth treats every sample alone; on the way back a lane is a row, so that the sums for the coefficients always
have the same order.
"""

# mypy: disable-error-code="no-untyped-def, assignment"
# ruff: noqa: RUF005
# Compiled functions are typed by Triton, which cannot unpack into a tuple.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from psysim.ops.cuda.tiles import launch, read_rows, read_samples, write_rows, write_samples, zeros

__all__ = ["backward", "compressed", "forward", "slopes"]


@triton.jit
def _power(size, exponent):
    """Raise to a power; what is not above 0 stays."""
    return tl.where(size > 0, tl.exp(exponent * tl.log(tl.where(size > 0, size, 1.0))), size)


@triton.jit
def compressed(x, linear, gain, exponent):
    """Compress a float64 sample of every row."""
    size = tl.abs(x)
    straight, bent = linear * size, gain * _power(size, exponent)
    # The mean of the two where neither is smaller: they are equal, or one is NaN, which must not get lost
    y = tl.where(straight < bent, straight, tl.where(bent < straight, bent, 0.5 * (straight + bent)))
    return tl.where(size > 0, tl.where(x < 0, -y, y), x)


@triton.jit
def slopes(x, linear, gain, exponent):
    """Differentiate `compressed` with respect to its four arguments."""
    size = tl.abs(x)
    is_zero = x == 0
    some = tl.where(is_zero, 1.0, size)
    root = _power(some, exponent)
    bent = gain * root
    is_straight = linear * some < bent
    at_zero = tl.where((exponent > 1) | (linear == float("inf")), 0.0, linear)
    by_x = tl.where(is_zero, at_zero, tl.where(is_straight, linear, exponent * bent / some))
    by_linear = tl.where(is_straight, x, 0.0)
    by_gain = tl.where(is_straight | is_zero, 0.0, tl.where(x < 0, -root, root))
    return by_x, by_linear, by_gain, by_gain * gain * tl.log(some)


@triton.jit
def _forward(x, coef, out, samples, channels, rows, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = place < rows
    linear, gain, exponent = read_rows(coef, place // samples % channels, mask, 3)
    sample = tl.load(x + place, mask=mask, other=0.0).to(tl.float64)
    tl.store(out + place, compressed(sample, linear, gain, exponent).to(out.dtype.element_ty), mask=mask)


def forward(x: Tensor, coef: Tensor) -> Tensor:
    """Run the operator on CUDA; ``coef`` (1 or F, 3): linear, gain, exponent."""
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    launch(_forward, x.numel(), x, coef, out, x.shape[2], len(coef))
    return out


@triton.jit
def _retreat(source, given, target, t, mask, coef, sums, COUNT: tl.constexpr):
    """Treat ``COUNT`` samples from ``t`` on."""
    linear, gain, exponent = coef
    s0, s1, s2 = sums
    tile, grads = read_samples(source, t, mask, COUNT, 1), read_samples(given, t, mask, COUNT, 1)
    values = ()
    for i in tl.static_range(COUNT):
        g = grads[i].to(tl.float64)
        by_x, by_linear, by_gain, by_exponent = slopes(tile[i].to(tl.float64), linear, gain, exponent)
        s0, s1, s2 = s0 + g * by_linear, s1 + g * by_gain, s2 + g * by_exponent
        values = values + (g * by_x,)
    write_samples(target, t, mask, values, COUNT, 1)
    return s0, s1, s2


@triton.jit
def _backward(grad, x, coef, grad_x, grad_coef, samples, channels, rows, BLOCK: tl.constexpr):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = row < rows
    c = read_rows(coef, row % channels, mask, 3)
    start = row.to(tl.int64) * samples
    sums = zeros(BLOCK, 3)
    whole = samples // 8 * 8
    for t in range(0, whole, 8):
        sums = _retreat(x + start, grad + start, grad_x + start, t, mask, c, sums, 8)
    for t in range(whole, samples):
        sums = _retreat(x + start, grad + start, grad_x + start, t, mask, c, sums, 1)
    write_rows(grad_coef, row, mask, sums, 3)


def backward(grad: Tensor, x: Tensor, coef: Tensor, learn: bool) -> tuple[Tensor, Tensor]:  # noqa: ARG001 - no dearer
    """Gradients with respect to ``x`` and ``coef``."""
    batch, channels, samples = x.shape
    grad_x = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    grad_coef = torch.empty((batch, channels, 3), dtype=torch.float64, device=x.device)
    launch(_backward, batch * channels, grad, x, coef, grad_x, grad_coef, samples, len(coef))
    total = grad_coef.sum(0)
    return grad_x, total if len(coef) > 1 else total.sum(0, keepdim=True)
