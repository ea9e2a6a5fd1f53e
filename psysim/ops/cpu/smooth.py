"""Numba kernels of `smooth`. States and arithmetic are float64 whatever the dtype of the signal."""

# mypy: disable-error-code="no-untyped-def"
# Compiled functions are typed by numba.

from __future__ import annotations

import torch
from torch import Tensor

from psysim.ops.cpu.simd import LANES, load, select, store
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

__all__ = ["backward", "forward"]


@kernel
def _advance(tile, count, lanes, state, out):
    """Smooth a tile; ``out`` may be the tile itself."""
    attack, release = load(lanes, 0), load(lanes, LANES)
    y = load(state, 0)
    for t in range(count):
        step = load(tile, t * LANES) - y
        y = y + select(step > 0.0, attack, release) * step
        store(out, t * LANES, y)
    store(state, 0, y)


@kernel
def _retreat(tile, kept, start, grad, count, lanes, adjoint, sums):
    """Backwards over a tile: ``grad`` holds the gradient at the output, then at the input.

    ``tile`` is the input, ``kept`` the output, ``start`` the state before the tile.
    """
    attack, release = load(lanes, 0), load(lanes, LANES)
    lam = load(adjoint, 0)
    of_attack, of_release = load(sums, 0), load(sums, LANES)
    for back in range(count):
        t = count - 1 - back
        step = load(tile, t * LANES) - (load(kept, (t - 1) * LANES) if t > 0 else load(start, 0))
        rises = step > 0.0
        lam = load(grad, t * LANES) + lam
        slope = lam * step
        of_attack = of_attack + select(rises, slope, 0.0)
        of_release = of_release + select(rises, 0.0, slope)
        share = select(rises, attack, release) * lam
        store(grad, t * LANES, share)
        lam = lam - share
    store(adjoint, 0, lam)
    store(sums, 0, of_attack)
    store(sums, LANES, of_release)


@kernel
def _forward(block, x, coef, channels, samples, begin, out, end):
    rows = lane_rows(block, x.size // samples)
    lanes = read_state(coef, rows % channels, 2, coef)
    offsets = rows * samples
    tile = scratch(TILE * LANES, coef)
    state = read_state(begin, rows, 1, coef)
    for start in range(0, samples, TILE):
        count = min(TILE, samples - start)
        read_tile(x, offsets, start, count, tile)
        _advance(tile, count, lanes, state, tile)
        flush(state)
        write_tile(out, offsets, start, count, tile)
    write_state(end, rows, 1, state)


def forward(x: Tensor, coef: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Run the operator on the CPU; ``coef`` (1 or F, 2)."""
    out, end = empty(x.shape, x.dtype), torch.empty(state.shape, dtype=state.dtype)
    arrays = flat(x), flat(coef), len(coef), x.shape[2], flat(state), flat(out), flat(end)
    run_blocks(_forward, blocks_of(x.shape[0] * x.shape[1]), *arrays)
    return out, end


@kernel
def _backward(block, x, coef, channels, samples, begin, grad, grad_end, grad_x, grad_coef, grad_begin):
    rows = lane_rows(block, x.size // samples)
    lanes = read_state(coef, rows % channels, 2, coef)
    offsets = rows * samples
    tile, kept, slopes = scratch(TILE * LANES, coef), scratch(TILE * LANES, coef), scratch(TILE * LANES, coef)
    state, adjoint = read_state(begin, rows, 1, coef), read_state(grad_end, rows, 1, coef)
    sums = scratch(2 * LANES, coef)
    tiles = (samples + TILE - 1) // TILE
    starts = scratch(tiles * LANES, coef)
    for i in range(tiles):  # states at the start of every tile, so that the way back can recompute a tile at a time
        starts[i * LANES : (i + 1) * LANES] = state
        count = min(TILE, samples - i * TILE)
        read_tile(x, offsets, i * TILE, count, tile)
        _advance(tile, count, lanes, state, tile)
        flush(state)
    for back in range(tiles):
        i = tiles - 1 - back
        first, count = i * TILE, min(TILE, samples - i * TILE)
        start = starts[i * LANES : (i + 1) * LANES]
        read_tile(x, offsets, first, count, tile)
        read_tile(grad, offsets, first, count, slopes)
        state[:] = start
        _advance(tile, count, lanes, state, kept)
        _retreat(tile, kept, start, slopes, count, lanes, adjoint, sums)
        flush(adjoint)
        write_tile(grad_x, offsets, first, count, slopes)
    write_state(grad_begin, rows, 1, adjoint)
    write_state(grad_coef, rows, 2, sums)


def backward(grad: Tensor, grad_end: Tensor, x: Tensor, coef: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients with respect to ``x``, ``coef`` and ``state``."""
    batch, channels, samples = x.shape
    grad_x, grad_begin = empty(x.shape, x.dtype), torch.empty(state.shape, dtype=state.dtype)
    grad_coef = torch.empty((batch, channels, 2), dtype=torch.float64)
    arrays = flat(x), flat(coef), len(coef), samples, flat(state), flat(grad), flat(grad_end)
    run_blocks(_backward, blocks_of(batch * channels), *arrays, flat(grad_x), flat(grad_coef), flat(grad_begin))
    total = grad_coef.sum(0)
    return grad_x, total if len(coef) > 1 else total.sum(0, keepdim=True), grad_begin
