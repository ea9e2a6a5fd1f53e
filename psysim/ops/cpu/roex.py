"""Numba kernels of `roex_spread`: a block is `LANES` spectra, the loops run over filters and components.

The way forth is computed in the dtype of the spectrum, the way back in float64.
"""

# mypy: disable-error-code="no-untyped-def"
# Compiled functions are typed by numba.

from __future__ import annotations

from torch import Tensor

from psysim.ops.cpu.exp import exp, exp2
from psysim.ops.cpu.simd import LANES, load, select, splat, store
from psysim.ops.cpu.tiles import blocks_of, empty, flat, kernel, lane_rows, read_tile, run_blocks, scratch, write_tile

__all__ = ["backward", "forward"]


LN2 = 0.6931471805599453


@kernel
def _forward(block, x, slope, distance, floor, count, components, filters, out):
    rows = lane_rows(block, x.size // components)
    intensity, steep = scratch(components * LANES, x), scratch(components * LANES, x)
    total = scratch(filters * LANES, x)
    read_tile(x, rows * components, 0, components, intensity)
    read_tile(slope, rows * components, 0, components, steep)
    for j in range(filters):
        lowest = splat(x, floor[j])
        acc = splat(x, 0.0)
        for k in range(count[j]):
            s = load(steep, k * LANES)
            y = select(s < lowest, lowest, s) * distance[j * components + k]  # in this order NaN stays
            acc = acc + (1.0 - LN2 * y) * exp2(y) * load(intensity, k * LANES)
        store(total, j * LANES, acc)
    write_tile(out, rows * filters, 0, filters, total)


def forward(x: Tensor, slope: Tensor, distance: Tensor, floor: Tensor, count: Tensor) -> Tensor:
    """Run the operator on the CPU."""
    out = empty((x.shape[0], len(distance)), x.dtype)
    arrays = flat(x), flat(slope), flat((distance / -LN2).to(x.dtype)), flat(floor.to(x.dtype)), flat(count)
    run_blocks(_forward, blocks_of(len(x)), *arrays, x.shape[1], len(distance), flat(out))
    return out


@kernel
def _backward(block, grad, x, slope, across, floor, count, components, filters, grad_x, grad_slope):
    rows = lane_rows(block, x.size // components)
    intensity, steep = scratch(components * LANES, across), scratch(components * LANES, across)
    weight = scratch(filters * LANES, across)
    read_tile(x, rows * components, 0, components, intensity)
    read_tile(slope, rows * components, 0, components, steep)
    read_tile(grad, rows * filters, 0, filters, weight)
    for k in range(components):
        s = load(steep, k * LANES)
        of_x, of_slope = splat(across, 0.0), splat(across, 0.0)
        for j in range(filters):
            if k < count[j]:
                u = across[k * filters + j]
                lowest = splat(across, floor[j])
                z = select(s < lowest, lowest, s) * u
                share = load(weight, j * LANES) * exp(-z)
                of_x = of_x + share * (1.0 + z)
                of_slope = of_slope - select(s < lowest, 0.0, share * z * u)
        store(steep, k * LANES, of_slope * load(intensity, k * LANES))
        store(intensity, k * LANES, of_x)
    write_tile(grad_x, rows * components, 0, components, intensity)
    write_tile(grad_slope, rows * components, 0, components, steep)


def backward(
    grad: Tensor, x: Tensor, slope: Tensor, distance: Tensor, floor: Tensor, count: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients with respect to ``x`` and ``slope``."""
    grad_x, grad_slope = empty(x.shape, x.dtype), empty(slope.shape, x.dtype)
    arrays = flat(grad), flat(x), flat(slope), flat(distance.T), flat(floor), flat(count)
    targets = flat(grad_x), flat(grad_slope)
    run_blocks(_backward, blocks_of(len(x)), *arrays, x.shape[1], len(distance), *targets)
    return grad_x, grad_slope
