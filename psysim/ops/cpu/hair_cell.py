"""Numba kernels of `hair_cell`, in the form of `psysim.ops._hair_cell.circuit_coefficients`.

Forward in the dtype of the signal, backward in float64.
"""

# mypy: disable-error-code="no-untyped-def"
# Compiled functions are typed by numba.

from __future__ import annotations

import torch
from torch import Tensor

from psysim.ops.cpu.exp import expm1
from psysim.ops.cpu.simd import LANES, absolute, load, select, store
from psysim.ops.cpu.tiles import (
    TILE,
    blocks_of,
    empty,
    flat,
    flush,
    kernel,
    lane_rows,
    read_state,
    read_tile,
    run_blocks,
    scratch,
    write_state,
    write_tile,
)

__all__ = ["SIZE", "advance", "backward", "forward"]

SIZE = 8  # coefficients
_KEPT = 3  # vectors kept per sample on the way back: voltage before, both exponentials
_SHUT, _OPEN = 40.0, -80.0  # outside, the channels are shut to 1e-17, open to 1e-34; exp(2 * 40) is still a float32
_STILL = 1e-30  # volt; a smaller voltage becomes 0 between tiles, long before float32 runs into denormal numbers


@kernel
def advance(tile, count, lanes, state, out, history):
    """Turn a tile into voltages, in ``out``; keep what the way back needs if there is room."""
    c0, c1, a, b = load(lanes, 0), load(lanes, LANES), load(lanes, 2 * LANES), load(lanes, 3 * LANES)
    scale, total = load(lanes, 4 * LANES), load(lanes, 5 * LANES)
    offset, drive = load(lanes, 6 * LANES), load(lanes, 7 * LANES)
    both = a + b
    keep = history.size > LANES
    voltage = load(state, 0)
    for t in range(count):
        v = load(tile, t * LANES)
        z1, z0 = c1 * v, c0 * v
        z1 = select(z1 > _SHUT, _SHUT, z1)  # in this order NaN stays, until the exponential makes it a number
        z1 = select(z1 < _OPEN, _OPEN, z1)
        m1, m0 = expm1(z1), expm1(select(z0 > _SHUT, _SHUT, z0))
        p1, p0 = 1.0 + m1, 1.0 + m0
        ratio = (both * m1 + (b * p1) * m0) / (1.0 + p1 * (a + b * p0)) + 0.0 * z1
        q = scale * ratio
        if keep:
            store(history, t * _KEPT * LANES, voltage)
            store(history, (t * _KEPT + 1) * LANES, p1)
            store(history, (t * _KEPT + 2) * LANES, p0)
        voltage = voltage + ((q - offset) * drive - (total - q) * voltage)
        store(out, t * LANES, voltage)
    store(state, 0, select(absolute(voltage) < _STILL, 0.0, voltage))


@kernel
def _retreat(tile, grad, count, lanes, adjoint, history, sums):
    """Backwards over a tile: ``grad`` holds the gradient at the output, then at the input; ``tile`` is the input."""
    c0, c1, a, b = load(lanes, 0), load(lanes, LANES), load(lanes, 2 * LANES), load(lanes, 3 * LANES)
    scale, total = load(lanes, 4 * LANES), load(lanes, 5 * LANES)
    offset, drive = load(lanes, 6 * LANES), load(lanes, 7 * LANES)
    silent = 1.0 + (a + b)
    lam = load(adjoint, 0)
    for back in range(count):
        t = count - 1 - back
        at = t * _KEPT * LANES
        v, voltage = load(tile, t * LANES), load(history, at)
        p1, p0 = load(history, at + LANES), load(history, at + 2 * LANES)
        w1, w0 = p1 * a, p1 * (b * p0)
        part = 1.0 / (1.0 + (w1 + w0))
        level = silent * part
        ratio = 1.0 - level
        q = scale * ratio
        lam = load(grad, t * LANES) + lam
        of_q = lam * (voltage + drive)
        h = (scale * of_q) * part
        of_z0 = h * (level * w0)
        of_z1 = h * (level * w1) + of_z0
        _add(sums, 0, of_z0 * v)
        _add(sums, 1, of_z1 * v)
        _add(sums, 2, h * (level * p1 - 1.0))
        _add(sums, 3, h * (level * (p1 * p0) - 1.0))
        _add(sums, 4, of_q * ratio)
        _add(sums, 5, -(lam * voltage))
        _add(sums, 6, -(lam * drive))
        _add(sums, 7, lam * (q - offset))
        store(grad, t * LANES, c1 * of_z1 + c0 * of_z0)
        lam = lam - (total - q) * lam
    store(adjoint, 0, lam)


@kernel
def _add(sums, k, value):
    store(sums, k * LANES, load(sums, k * LANES) + value)


@kernel
def _forward(block, x, coef, channels, samples, begin, out, end):
    rows = lane_rows(block, x.size // samples)
    lanes = read_state(coef, rows % channels, SIZE, x)
    state = read_state(begin, rows, 1, x)
    offsets = rows * samples
    tile, none = scratch(TILE * LANES, x), scratch(LANES, x)
    for start in range(0, samples, TILE):
        count = min(TILE, samples - start)
        read_tile(x, offsets, start, count, tile)
        advance(tile, count, lanes, state, tile, none)
        write_tile(out, offsets, start, count, tile)
    write_state(end, rows, 1, state)


def forward(x: Tensor, coef: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Run the operator on the CPU; ``coef`` (1 or F, 8)."""
    out, end = empty(x.shape, x.dtype), torch.empty(state.shape, dtype=state.dtype)
    arrays = flat(x), flat(coef), len(coef), x.shape[2], flat(state), flat(out), flat(end)
    run_blocks(_forward, blocks_of(x.shape[0] * x.shape[1]), *arrays)
    return out, end


@kernel
def _backward(block, x, coef, channels, samples, begin, grad, grad_end, grad_x, grad_coef, grad_begin):
    rows = lane_rows(block, x.size // samples)
    lanes = read_state(coef, rows % channels, SIZE, coef)
    offsets = rows * samples
    tile, voltages, slopes = scratch(TILE * LANES, coef), scratch(TILE * LANES, coef), scratch(TILE * LANES, coef)
    state, adjoint = read_state(begin, rows, 1, coef), read_state(grad_end, rows, 1, coef)
    sums, none = scratch(SIZE * LANES, coef), scratch(LANES, coef)
    history = scratch(TILE * _KEPT * LANES, coef)
    tiles = (samples + TILE - 1) // TILE
    starts = scratch(tiles * LANES, coef)
    for i in range(tiles):  # states at the start of every tile, so that the way back can recompute a tile at a time
        starts[i * LANES : (i + 1) * LANES] = state
        count = min(TILE, samples - i * TILE)
        read_tile(x, offsets, i * TILE, count, tile)
        advance(tile, count, lanes, state, voltages, none)
    for back in range(tiles):
        i = tiles - 1 - back
        first, count = i * TILE, min(TILE, samples - i * TILE)
        read_tile(x, offsets, first, count, tile)
        read_tile(grad, offsets, first, count, slopes)
        state[:] = starts[i * LANES : (i + 1) * LANES]
        advance(tile, count, lanes, state, voltages, history)
        _retreat(tile, slopes, count, lanes, adjoint, history, sums)
        flush(adjoint)
        write_tile(grad_x, offsets, first, count, slopes)
    write_state(grad_begin, rows, 1, adjoint)
    write_state(grad_coef, rows, SIZE, sums)


def backward(grad: Tensor, grad_end: Tensor, x: Tensor, coef: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients with respect to ``x``, ``coef`` and ``state``."""
    batch, channels, samples = x.shape
    grad_x, grad_begin = empty(x.shape, x.dtype), torch.empty(state.shape, dtype=state.dtype)
    grad_coef = torch.empty((batch, channels, SIZE), dtype=torch.float64)
    arrays = flat(x), flat(coef), len(coef), samples, flat(state), flat(grad), flat(grad_end)
    run_blocks(_backward, blocks_of(batch * channels), *arrays, flat(grad_x), flat(grad_coef), flat(grad_begin))
    total = grad_coef.sum(0)
    return grad_x, total if len(coef) > 1 else total.sum(0, keepdim=True), grad_begin
