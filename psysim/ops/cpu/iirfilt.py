"""Numba kernels of `iirfilt`. States and arithmetic are float64 whatever the dtype of the signal."""

# mypy: disable-error-code="no-untyped-def"
# Compiled functions are typed by numba.

from __future__ import annotations

import torch
from torch import Tensor

from psysim.ops.cpu import sosfilt
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

_BIQUAD = 5  # coefficients of a section of order 2, the same filter and states as those of `sosfilt`


@kernel
def _advance(tile, count, lanes, state, order, history):
    """Filter a tile in place; keep every section's input in ``history`` if it has room.

    ``lanes``: b0 ... bK, a1 ... aK of each section; ``state``: K values per section.
    """
    keep = history.size > LANES
    for s in range(state.size // (order * LANES)):
        c, w = (2 * order + 1) * s * LANES, order * s * LANES
        last = w + (order - 1) * LANES
        for t in range(count):
            u = load(tile, t * LANES)
            y = load(lanes, c) * u + load(state, w)
            for k in range(1, order):
                bk, ak = load(lanes, c + k * LANES), load(lanes, c + (order + k) * LANES)
                store(state, w + (k - 1) * LANES, (bk * u + load(state, w + k * LANES)) - ak * y)
            store(state, last, load(lanes, c + order * LANES) * u - load(lanes, c + 2 * order * LANES) * y)
            if keep:
                store(history, (s * TILE + t) * LANES, u)
            store(tile, t * LANES, y)


@kernel
def _retreat(grad, output, count, lanes, adjoint, order, ahead, history, sums):
    """Run the adjoint filter backwards over a tile of gradients, in place.

    With ``lam`` the gradient filtered anticausally by 1/A: the gradient at the input is B applied to ``lam``, that
    with respect to b_i is sum lam[n+i] u[n], with respect to a_i it is -sum lam[n+i] y[n]. ``ahead`` holds ``lam`` of
    the tile and of the K samples after it; these are ``adjoint`` for each section.
    """
    sections = adjoint.size // (order * LANES)
    for back in range(sections):
        s = sections - 1 - back
        c, w = (2 * order + 1) * s * LANES, order * s * LANES
        ahead[count * LANES : (count + order) * LANES] = adjoint[w : w + order * LANES]
        for step in range(count):
            t = count - 1 - step
            lam, g = load(grad, t * LANES), load(lanes, c + order * LANES) * load(ahead, (t + order) * LANES)
            for past in range(order):
                k = order - past
                later = load(ahead, (t + k) * LANES)
                lam = lam - load(lanes, c + (order + k) * LANES) * later
                if k < order:
                    g = g + load(lanes, c + k * LANES) * later
            store(ahead, t * LANES, lam)
            store(grad, t * LANES, g + load(lanes, c) * lam)
        adjoint[w : w + order * LANES] = ahead[: order * LANES]
        if history.size > LANES:
            for k in range(order + 1):
                total = load(sums, c + k * LANES)
                for t in range(count):
                    total = total + load(ahead, (t + k) * LANES) * load(history, (s * TILE + t) * LANES)
                store(sums, c + k * LANES, total)
            for k in range(1, order + 1):
                total = load(sums, c + (order + k) * LANES)
                for t in range(count):
                    total = total - load(ahead, (t + k) * LANES) * load(output, t * LANES)
                store(sums, c + (order + k) * LANES, total)
            output[: count * LANES] = history[s * TILE * LANES : (s * TILE + count) * LANES]


@kernel
def _lane_coefficients(coef, rows, channels, size):
    lanes = scratch(size * LANES, coef)
    for lane in range(LANES):
        for k in range(size):
            lanes[k * LANES + lane] = coef[(rows[lane] % channels) * size + k]
    return lanes


@kernel
def _forward(block, x, coef, channels, sections, order, samples, begin, out, end):
    rows = lane_rows(block, x.size // samples)
    lanes = _lane_coefficients(coef, rows, channels, sections * (2 * order + 1))
    offsets = rows * samples
    tile, none = scratch(TILE * LANES, coef), scratch(LANES, coef)
    state = read_state(begin, rows, sections * order, coef)
    for start in range(0, samples, TILE):
        count = min(TILE, samples - start)
        read_tile(x, offsets, start, count, tile)
        _advance(tile, count, lanes, state, order, none)
        flush(state)
        write_tile(out, offsets, start, count, tile)
    write_state(end, rows, sections * order, state)


def forward(x: Tensor, coef: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Run the operator on the CPU; ``coef`` (1 or F, S, 2 K + 1)."""
    if coef.shape[2] == _BIQUAD:
        return sosfilt.forward(x, coef, state)
    out, end = empty(x.shape, x.dtype), torch.empty(state.shape, dtype=state.dtype)
    sizes = coef.shape[0], coef.shape[1], coef.shape[2] // 2, x.shape[2]
    blocks = blocks_of(x.shape[0] * x.shape[1])
    run_blocks(_forward, blocks, flat(x), flat(coef), *sizes, flat(state), flat(out), flat(end))
    return out, end


@kernel
def _backward(
    block, x, coef, channels, sections, order, samples, begin, grad, grad_end, learn, grad_x, grad_coef, grad_begin
):
    rows = lane_rows(block, grad.size // samples)
    width = sections * (2 * order + 1)
    lanes = _lane_coefficients(coef, rows, channels, width)
    offsets = rows * samples
    tile, output = scratch(TILE * LANES, coef), scratch(TILE * LANES, coef)
    ahead = scratch((TILE + order) * LANES, coef)
    size = sections * order * LANES
    state = read_state(begin, rows, sections * order, coef)
    adjoint = read_state(grad_end, rows, sections * order, coef)
    sums = scratch(width * LANES, coef)
    tiles = (samples + TILE - 1) // TILE
    history = scratch(sections * TILE * LANES if learn else LANES, coef)
    starts = scratch(tiles * size if learn else LANES, coef)
    if learn:  # states at the start of every tile, so that the way back can recompute a tile at a time
        none = scratch(LANES, coef)
        for i in range(tiles):
            starts[i * size : (i + 1) * size] = state
            count = min(TILE, samples - i * TILE)
            read_tile(x, offsets, i * TILE, count, tile)
            _advance(tile, count, lanes, state, order, none)
            flush(state)
    for back in range(tiles):
        i = tiles - 1 - back
        start, count = i * TILE, min(TILE, samples - i * TILE)
        if learn:
            read_tile(x, offsets, start, count, output)
            state[:] = starts[i * size : (i + 1) * size]
            _advance(output, count, lanes, state, order, history)
        read_tile(grad, offsets, start, count, tile)
        _retreat(tile, output, count, lanes, adjoint, order, ahead, history, sums)
        flush(adjoint)
        write_tile(grad_x, offsets, start, count, tile)
    write_state(grad_begin, rows, sections * order, adjoint)
    write_state(grad_coef, rows, width, sums)


def backward(
    grad: Tensor, grad_end: Tensor, x: Tensor, coef: Tensor, state: Tensor, learn: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients with respect to ``x``, if ``learn`` to ``coef``, and to ``state``."""
    if coef.shape[2] == _BIQUAD:
        return sosfilt.backward(grad, grad_end, x, coef, state, learn)
    batch, channels, samples = x.shape
    grad_x, grad_begin = empty(x.shape, x.dtype), torch.empty(state.shape, dtype=state.dtype)
    grad_coef = torch.zeros((batch, channels, *coef.shape[1:]), dtype=torch.float64)
    sizes = coef.shape[0], coef.shape[1], coef.shape[2] // 2, samples
    arrays = flat(x), flat(coef), *sizes, flat(state), flat(grad), flat(grad_end), learn
    run_blocks(_backward, blocks_of(batch * channels), *arrays, flat(grad_x), flat(grad_coef), flat(grad_begin))
    total = grad_coef.sum(0)
    return grad_x, total if coef.shape[0] > 1 else total.sum(0, keepdim=True), grad_begin
