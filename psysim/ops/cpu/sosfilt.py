"""Numba kernels of `sosfilt`, and the tile functions that `modulation_bank` uses for its lowpass.

States and arithmetic are float64 whatever the dtype of the signal.
"""

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

__all__ = ["backward", "forward", "lane_coefficients", "sections_advance", "sections_retreat"]


@kernel
def sections_advance(tile, count, lanes, state, history):
    """Filter a tile in place; keep every section's input in ``history`` if it has room.

    ``lanes``: b0, b1, b2, a1, a2 of each section; ``state``: two values per section.
    """
    keep = history.size > LANES
    for s in range(state.size // (2 * LANES)):
        c = 5 * s * LANES
        b0, b1, b2 = load(lanes, c), load(lanes, c + LANES), load(lanes, c + 2 * LANES)
        a1, a2 = load(lanes, c + 3 * LANES), load(lanes, c + 4 * LANES)
        w1, w2 = load(state, 2 * s * LANES), load(state, (2 * s + 1) * LANES)
        for t in range(count):
            u = load(tile, t * LANES)
            y = b0 * u + w1
            w1 = (b1 * u + w2) - a1 * y
            w2 = b2 * u - a2 * y
            if keep:
                store(history, (s * TILE + t) * LANES, u)
            store(tile, t * LANES, y)
        store(state, 2 * s * LANES, w1)
        store(state, (2 * s + 1) * LANES, w2)


@kernel
def sections_retreat(grad, output, count, lanes, adjoint, history, sums):
    """Run the adjoint filter backwards over a tile of gradients, in place.

    With ``lam`` the gradient filtered anticausally by 1/A: the gradient at the input is B applied to ``lam``, that
    with respect to b_i is sum lam[n+i] u[n], with respect to a_i it is -sum lam[n+i] y[n].
    """
    learn = history.size > LANES
    sections = adjoint.size // (2 * LANES)
    for back in range(sections):
        s = sections - 1 - back
        c = 5 * s * LANES
        b0, b1, b2 = load(lanes, c), load(lanes, c + LANES), load(lanes, c + 2 * LANES)
        a1, a2 = load(lanes, c + 3 * LANES), load(lanes, c + 4 * LANES)
        lam1, lam2 = load(adjoint, 2 * s * LANES), load(adjoint, (2 * s + 1) * LANES)
        s0, s1, s2 = load(sums, c), load(sums, c + LANES), load(sums, c + 2 * LANES)
        s3, s4 = load(sums, c + 3 * LANES), load(sums, c + 4 * LANES)
        for step in range(count):
            t = count - 1 - step
            lam = (load(grad, t * LANES) - a2 * lam2) - a1 * lam1
            store(grad, t * LANES, b0 * lam + b1 * lam1 + b2 * lam2)
            if learn:
                u = load(history, (s * TILE + t) * LANES)
                y = load(history, ((s + 1) * TILE + t) * LANES) if s + 1 < sections else load(output, t * LANES)
                s0, s1, s2 = s0 + lam * u, s1 + lam1 * u, s2 + lam2 * u
                s3, s4 = s3 - lam1 * y, s4 - lam2 * y
            lam2 = lam1
            lam1 = lam
        store(adjoint, 2 * s * LANES, lam1)
        store(adjoint, (2 * s + 1) * LANES, lam2)
        store(sums, c, s0)
        store(sums, c + LANES, s1)
        store(sums, c + 2 * LANES, s2)
        store(sums, c + 3 * LANES, s3)
        store(sums, c + 4 * LANES, s4)


@kernel
def lane_coefficients(coef, rows, channels, sections):
    """b0, b1, b2, a1, a2 of every section, each for all lanes."""
    lanes = scratch(5 * sections * LANES, coef)
    for lane in range(LANES):
        for k in range(5 * sections):
            lanes[k * LANES + lane] = coef[(rows[lane] % channels) * 5 * sections + k]
    return lanes


@kernel
def _forward(block, x, coef, channels, sections, samples, begin, out, end):
    rows = lane_rows(block, x.size // samples)
    lanes = lane_coefficients(coef, rows, channels, sections)
    offsets = rows * samples
    tile, none = scratch(LANES * LANES, coef), scratch(LANES, coef)
    state = read_state(begin, rows, 2 * sections, coef)
    # so few samples at a time that the processor transposes the next ones while it filters these
    for start in range(0, samples, LANES):
        count = min(LANES, samples - start)
        read_tile(x, offsets, start, count, tile)
        sections_advance(tile, count, lanes, state, none)
        flush(state)
        write_tile(out, offsets, start, count, tile)
    write_state(end, rows, 2 * sections, state)


def forward(x: Tensor, coef: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Run the operator on the CPU; ``coef`` (1 or F, S, 5)."""
    out, end = empty(x.shape, x.dtype), torch.empty(state.shape, dtype=state.dtype)
    sizes = coef.shape[0], coef.shape[1], x.shape[2]
    blocks = blocks_of(x.shape[0] * x.shape[1])
    run_blocks(_forward, blocks, flat(x), flat(coef), *sizes, flat(state), flat(out), flat(end))
    return out, end


@kernel
def _backward(block, x, coef, channels, sections, samples, begin, grad, grad_end, learn, grad_x, grad_coef, grad_begin):
    count_rows = grad.size // samples
    rows = lane_rows(block, count_rows)
    lanes = lane_coefficients(coef, rows, channels, sections)
    offsets = rows * samples
    tile, output = scratch(TILE * LANES, coef), scratch(TILE * LANES, coef)
    size = 2 * sections * LANES
    state, adjoint = read_state(begin, rows, 2 * sections, coef), read_state(grad_end, rows, 2 * sections, coef)
    sums = scratch(5 * sections * LANES, coef)
    tiles = (samples + TILE - 1) // TILE
    history = scratch(sections * TILE * LANES if learn else LANES, coef)
    starts = scratch(tiles * size if learn else LANES, coef)
    if learn:  # states at the start of every tile, so that the way back can recompute a tile at a time
        none = scratch(LANES, coef)
        for i in range(tiles):
            starts[i * size : (i + 1) * size] = state
            count = min(TILE, samples - i * TILE)
            read_tile(x, offsets, i * TILE, count, tile)
            sections_advance(tile, count, lanes, state, none)
            flush(state)
    for back in range(tiles):
        i = tiles - 1 - back
        start, count = i * TILE, min(TILE, samples - i * TILE)
        if learn:
            read_tile(x, offsets, start, count, output)
            state[:] = starts[i * size : (i + 1) * size]
            sections_advance(output, count, lanes, state, history)
        read_tile(grad, offsets, start, count, tile)
        sections_retreat(tile, output, count, lanes, adjoint, history, sums)
        flush(adjoint)
        write_tile(grad_x, offsets, start, count, tile)
    write_state(grad_begin, rows, 2 * sections, adjoint)
    for lane in range(LANES):
        for k in range(5 * sections):
            grad_coef[rows[lane] * 5 * sections + k] = sums[k * LANES + lane]


def backward(
    grad: Tensor, grad_end: Tensor, x: Tensor, coef: Tensor, state: Tensor, learn: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients with respect to ``x``, if ``learn`` to ``coef``, and to ``state``."""
    batch, channels, samples = x.shape
    grad_x, grad_begin = empty(x.shape, x.dtype), torch.empty(state.shape, dtype=state.dtype)
    grad_coef = torch.zeros((batch, channels, *coef.shape[1:]), dtype=torch.float64)
    sizes = coef.shape[0], coef.shape[1], samples
    arrays = flat(x), flat(coef), *sizes, flat(state), flat(grad), flat(grad_end), learn
    run_blocks(_backward, blocks_of(batch * channels), *arrays, flat(grad_x), flat(grad_coef), flat(grad_begin))
    total = grad_coef.sum(0)
    return grad_x, total if coef.shape[0] > 1 else total.sum(0, keepdim=True), grad_begin
