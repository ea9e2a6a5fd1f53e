"""CPU kernels of the LayerNorm over channels, along the positions: two passes over memory in all instead of twenty.

Arrays are flat, (O, C, I): the norm is over C, and plain loops over `TILE` neighbouring positions become vectors.
"""

# mypy: disable-error-code="no-untyped-def"
# Compiled functions are typed by numba.

from __future__ import annotations

import numpy as np

from psysim.ops.cpu.tiles import kernel, scratch

__all__ = ["norm_backward", "norm_forward"]

TILE = 128


@kernel
def norm_forward(outer, x, weight, bias, channels, positions, eps, y, means, scales):
    """Y = (x - mean) scale weight + bias, scale = 1 / sqrt(variance + eps); means and scales (O, I) are kept."""
    mean, total = scratch(TILE, x), scratch(TILE, x)
    part = x.dtype.type(1.0 / channels)
    small = x.dtype.type(eps)
    for start in range(0, positions, TILE):
        count = min(TILE, positions - start)
        base = outer * channels * positions + start
        mean[:] = 0
        total[:] = 0
        for c in range(channels):
            at = base + c * positions
            for i in range(count):
                mean[i] += x[at + i]
        for i in range(count):
            mean[i] *= part
        for c in range(channels):
            at = base + c * positions
            for i in range(count):
                centred = x[at + i] - mean[i]
                total[i] += centred * centred
        for i in range(count):
            total[i] = x.dtype.type(1.0) / np.sqrt(total[i] * part + small)
            means[outer * positions + start + i] = mean[i]
            scales[outer * positions + start + i] = total[i]
        for c in range(channels):
            at, w, b = base + c * positions, weight[c], bias[c]
            for i in range(count):
                y[at + i] = (x[at + i] - mean[i]) * total[i] * w + b


@kernel
def norm_backward(outer, grad, x, weight, channels, positions, means, scales, slope, of_weight, of_bias):
    """``slope`` becomes the gradient of x; ``of_weight`` and ``of_bias`` (O, C) those of the others."""
    first, second = scratch(TILE, x), scratch(TILE, x)
    sums, plain = scratch(channels * TILE, x), scratch(channels * TILE, x)
    part = x.dtype.type(1.0 / channels)
    for start in range(0, positions, TILE):
        count = min(TILE, positions - start)
        base, place = outer * channels * positions + start, outer * positions + start
        first[:] = 0
        second[:] = 0
        for c in range(channels):
            at, w, k = base + c * positions, weight[c], c * TILE
            for i in range(count):
                g = grad[at + i]
                product = g * ((x[at + i] - means[place + i]) * scales[place + i])
                sums[k + i] += product
                plain[k + i] += g
                first[i] += g * w
                second[i] += product * w
        for i in range(count):
            first[i] *= part
            second[i] *= part
        for c in range(channels):
            at, w = base + c * positions, weight[c]
            for i in range(count):
                normal = (x[at + i] - means[place + i]) * scales[place + i]
                slope[at + i] = (grad[at + i] * w - first[i] - normal * second[i]) * scales[place + i]
    for c in range(channels):
        of_weight[outer * channels + c] = sums[c * TILE : (c + 1) * TILE].sum()
        of_bias[outer * channels + c] = plain[c * TILE : (c + 1) * TILE].sum()
