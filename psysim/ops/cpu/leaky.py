"""Numba kernels of `leaky`. States and arithmetic are float64 whatever the dtype of the signal."""

# mypy: disable-error-code="no-untyped-def"
# Compiled functions are typed by numba.

from __future__ import annotations

import torch
from torch import Tensor

from psysim.ops.cpu.simd import LANES, load, store
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
    """Integrate a tile; ``out`` may be the tile itself."""
    decay, gain = load(lanes, 0), load(lanes, LANES)
    y = load(state, 0)
    for t in range(count):
        y = decay * y + gain * load(tile, t * LANES)
        store(out, t * LANES, y)
    store(state, 0, y)


@kernel
def _retreat(tile, kept, start, grad, count, lanes, adjoint, learn, sums):
    """Backwards over a tile: ``grad`` holds the gradient at the output, then at the input.

    ``tile`` is the input and ``kept`` the output, read only if ``learn``; ``start`` the state before the tile.
    """
    decay, gain = load(lanes, 0), load(lanes, LANES)
    lam = load(adjoint, 0)
    of_decay, of_gain = load(sums, 0), load(sums, LANES)
    for step in range(count):
        t = count - 1 - step
        lam = load(grad, t * LANES) + lam
        store(grad, t * LANES, gain * lam)
        if learn:
            before = load(kept, (t - 1) * LANES) if t > 0 else load(start, 0)
            of_decay, of_gain = of_decay + lam * before, of_gain + lam * load(tile, t * LANES)
        lam = decay * lam
    store(adjoint, 0, lam)
    store(sums, 0, of_decay)
    store(sums, LANES, of_gain)


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
def _backward(block, x, coef, channels, samples, begin, grad, grad_end, learn, grad_x, grad_coef, grad_begin):
    rows = lane_rows(block, x.size // samples)
    lanes = read_state(coef, rows % channels, 2, coef)
    offsets = rows * samples
    tile, kept, slopes = scratch(TILE * LANES, coef), scratch(TILE * LANES, coef), scratch(TILE * LANES, coef)
    state, adjoint = read_state(begin, rows, 1, coef), read_state(grad_end, rows, 1, coef)
    sums = scratch(2 * LANES, coef)
    tiles = (samples + TILE - 1) // TILE
    starts = scratch(tiles * LANES if learn else LANES, coef)
    if learn:  # states at the start of every tile, so that the way back can recompute a tile at a time
        for i in range(tiles):
            starts[i * LANES : (i + 1) * LANES] = state
            count = min(TILE, samples - i * TILE)
            read_tile(x, offsets, i * TILE, count, tile)
            _advance(tile, count, lanes, state, tile)
            flush(state)
    for back in range(tiles):
        i = tiles - 1 - back
        first, count = i * TILE, min(TILE, samples - i * TILE)
        start = starts[i * LANES : (i + 1) * LANES] if learn else starts
        if learn:
            read_tile(x, offsets, first, count, tile)
            state[:] = start
            _advance(tile, count, lanes, state, kept)
        read_tile(grad, offsets, first, count, slopes)
        _retreat(tile, kept, start, slopes, count, lanes, adjoint, learn, sums)
        flush(adjoint)
        write_tile(grad_x, offsets, first, count, slopes)
    write_state(grad_begin, rows, 1, adjoint)
    write_state(grad_coef, rows, 2, sums)


def backward(
    grad: Tensor, grad_end: Tensor, x: Tensor, coef: Tensor, state: Tensor, learn: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients with respect to ``x``, if ``learn`` to ``coef``, and to ``state``."""
    batch, channels, samples = x.shape
    grad_x, grad_begin = empty(x.shape, x.dtype), torch.empty(state.shape, dtype=state.dtype)
    grad_coef = torch.zeros((batch, channels, 2), dtype=torch.float64)
    arrays = flat(x), flat(coef), len(coef), samples, flat(state), flat(grad), flat(grad_end), learn
    run_blocks(_backward, blocks_of(batch * channels), *arrays, flat(grad_x), flat(grad_coef), flat(grad_begin))
    total = grad_coef.sum(0)
    return grad_x, total if len(coef) > 1 else total.sum(0, keepdim=True), grad_begin
