"""Numba kernels of `compress`, and the vector functions that `drnl` uses.

The way forth is computed in the dtype of the signal, the way back in float64, so that the sums for the coefficients are
exact. There is nothing to carry from sample to sample, so the vectors run along time and a block is `LANES` whole rows.
"""

# mypy: disable-error-code="no-untyped-def"
# Compiled functions are typed by numba.

from __future__ import annotations

import math

import torch
from torch import Tensor

from psysim.ops.cpu.log import log, power, split_exponent
from psysim.ops.cpu.simd import LANES, absolute, convert, load, select, splat, store
from psysim.ops.cpu.tiles import blocks_of, empty, flat, kernel, run_blocks, scratch

__all__ = ["backward", "compressed", "forward", "slopes", "split_coefficients"]

_INFINITY = math.inf


@kernel
def compressed(x, linear, gain, high, low):
    """Compress a vector of samples; the exponent in the two parts of `split_exponent`."""
    size = absolute(x)
    straight, bent = linear * size, gain * power(size, high, low)
    # The mean of the two where neither is smaller: they are equal, or one is NaN, which must not get lost
    y = select(straight < bent, straight, select(bent < straight, bent, 0.5 * (straight + bent)))
    return select(size > 0.0, select(x < 0.0, -y, y), x)


@kernel
def slopes(x, linear, gain, exponent):
    """Differentiate `compressed` with respect to its four arguments, in float64."""
    size = absolute(x)
    root = power(size, exponent, 0.0)
    bent = gain * root
    is_straight, is_zero = linear * size < bent, size < 5e-324  # the smallest number above 0
    at_zero = select(exponent > 1.0, 0.0, select(linear < _INFINITY, linear, 0.0))
    by_x = select(is_zero, at_zero, select(is_straight, linear, exponent * bent / size))
    by_linear = select(is_straight, x, 0.0)
    by_gain = select(is_straight, 0.0, select(x < 0.0, -root, root))
    by_exponent = select(is_zero, 0.0, by_gain * gain * log(size))
    return by_x, by_linear, by_gain, by_exponent


@kernel
def _copy(source, start, target, place, count):
    for i in range(count):
        target[place + i] = source[start + i]


@kernel
def _forward(block, x, coef, channels, samples, out):
    whole = samples // LANES * LANES
    rest = scratch(LANES, x)
    for row in range(block * LANES, min((block + 1) * LANES, x.size // samples)):
        c, start = 4 * (row % channels), row * samples
        linear, gain = splat(x, coef[c]), splat(x, coef[c + 1])
        high, low = splat(x, coef[c + 2]), splat(x, coef[c + 3])
        for t in range(start, start + whole, LANES):
            store(out, t, compressed(load(x, t), linear, gain, high, low))
        if whole < samples:
            _copy(x, start + whole, rest, 0, samples - whole)
            store(rest, 0, compressed(load(rest, 0), linear, gain, high, low))
            _copy(rest, 0, out, start + whole, samples - whole)


def split_coefficients(coef: Tensor) -> Tensor:
    """Return linear, gain and the two parts of the exponent, (..., 4), for coefficients (..., 3)."""
    return torch.stack([coef[..., 0], coef[..., 1], *split_exponent(coef[..., 2])], -1)


def forward(x: Tensor, coef: Tensor) -> Tensor:
    """Run the operator on the CPU; ``coef`` (1 or F, 3): linear, gain, exponent."""
    out = empty(x.shape, x.dtype)
    blocks = blocks_of(x.shape[0] * x.shape[1])
    run_blocks(_forward, blocks, flat(x), flat(split_coefficients(coef)), coef.shape[0], x.shape[2], flat(out))
    return out


@kernel
def _retreat(x, grad, place, lanes, sums, grad_x):
    """Gradient of one vector of samples; adds to the sums for the coefficients."""
    linear, gain, exponent = load(lanes, 0), load(lanes, LANES), load(lanes, 2 * LANES)
    g = convert(load(grad, place), lanes)
    by_x, by_linear, by_gain, by_exponent = slopes(convert(load(x, place), lanes), linear, gain, exponent)
    store(sums, 0, load(sums, 0) + g * by_linear)
    store(sums, LANES, load(sums, LANES) + g * by_gain)
    store(sums, 2 * LANES, load(sums, 2 * LANES) + g * by_exponent)
    store(grad_x, place, convert(g * by_x, grad_x))


@kernel
def _backward(block, x, coef, channels, samples, grad, grad_x, grad_coef):
    whole = samples // LANES * LANES
    lanes, sums = scratch(3 * LANES, coef), scratch(3 * LANES, coef)
    for row in range(block * LANES, min((block + 1) * LANES, x.size // samples)):
        start = row * samples
        for k in range(3):
            lanes[k * LANES : (k + 1) * LANES] = coef[3 * (row % channels) + k]
        sums[:] = 0.0
        for t in range(start, start + whole, LANES):
            _retreat(x, grad, t, lanes, sums, grad_x)
        if whole < samples:
            rest, slope = scratch(LANES, x), scratch(LANES, x)  # zeros beyond the end add nothing to the sums
            _copy(x, start + whole, rest, 0, samples - whole)
            _copy(grad, start + whole, slope, 0, samples - whole)
            _retreat(rest, slope, 0, lanes, sums, rest)
            _copy(rest, 0, grad_x, start + whole, samples - whole)
        for k in range(3):
            grad_coef[3 * row + k] = sums[k * LANES : (k + 1) * LANES].sum()


def backward(grad: Tensor, x: Tensor, coef: Tensor, learn: bool) -> tuple[Tensor, Tensor]:  # noqa: ARG001 - no dearer
    """Gradients with respect to ``x`` and ``coef``."""
    batch, channels, samples = x.shape
    grad_x = empty(x.shape, x.dtype)
    grad_coef = torch.empty((batch, channels, 3), dtype=torch.float64)
    arrays = flat(x), flat(coef), coef.shape[0], samples, flat(grad)
    run_blocks(_backward, blocks_of(batch * channels), *arrays, flat(grad_x), flat(grad_coef))
    total = grad_coef.sum(0)
    return grad_x, total if coef.shape[0] > 1 else total.sum(0, keepdim=True)
