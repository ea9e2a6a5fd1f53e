"""Numba kernels of `drnl`. Filter states and arithmetic are float64 whatever the dtype of the signal.

The compression on the way forth is computed in the dtype of the signal: half of the time of the float64 power, which
would be as dear as the eleven biquads of a channel. The way back is float64 throughout.
"""

# mypy: disable-error-code="no-untyped-def"
# Compiled functions are typed by numba.

from __future__ import annotations

import torch
from torch import Tensor

from psysim.ops.cpu.compress import compressed, slopes, split_coefficients
from psysim.ops.cpu.gammatone import _sum_channels as sum_channels
from psysim.ops.cpu.simd import LANES, convert, load, store
from psysim.ops.cpu.sosfilt import lane_coefficients, sections_advance, sections_retreat
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

__all__ = ["advance", "backward", "forward"]


@kernel
def _compress(tile, count, stick):
    """Compress a tile in place, in the dtype of ``stick``: linear, gain and the two parts of the exponent."""
    linear, gain = load(stick, 0), load(stick, LANES)
    high, low = load(stick, 2 * LANES), load(stick, 3 * LANES)
    for t in range(count):
        v = convert(load(tile, t * LANES), stick)
        store(tile, t * LANES, convert(compressed(v, linear, gain, high, low), tile))


@kernel
def _add(tile, other, count):
    for t in range(count):
        store(tile, t * LANES, load(tile, t * LANES) + load(other, t * LANES))


@kernel
def advance(straight, bent, count, lanes, state, compression, first, second, none):
    """Pass a tile of sound, in ``straight``, through both paths; the sum of their outputs replaces it."""
    a, b = first * LANES, (first + second) * LANES  # where the cascades before and after the compression begin
    bent[:] = straight
    sections_advance(straight, count, lanes[: 5 * a], state[: 2 * a], none)
    sections_advance(bent, count, lanes[5 * a : 5 * b], state[2 * a : 2 * b], none)
    _compress(bent, count, compression)
    sections_advance(bent, count, lanes[5 * b :], state[2 * b :], none)
    _add(straight, bent, count)


@kernel
def _forward(block, x, coef, stick, channels, sections, first, second, samples, begin, out, end):
    rows = lane_rows(block, out.size // samples)
    lanes, compression = lane_coefficients(coef, rows, channels, sections), read_state(stick, rows % channels, 4, x)
    source, target = rows // channels * samples, rows * samples
    straight, bent, none = scratch(TILE * LANES, coef), scratch(TILE * LANES, coef), scratch(LANES, coef)
    state = read_state(begin, rows, 2 * sections, coef)
    for start in range(0, samples, TILE):
        count = min(TILE, samples - start)
        read_tile(x, source, start, count, straight)
        advance(straight, bent, count, lanes, state, compression, first, second, none)
        flush(state)
        write_tile(out, target, start, count, straight)
    write_state(end, rows, 2 * sections, state)


def forward(
    x: Tensor, sections: Tensor, compression: Tensor, state: Tensor, count_linear: int, count_before: int
) -> tuple[Tensor, Tensor]:
    """Run the operator on the CPU; ``sections`` (F, S, 5) of the three cascades, ``compression`` (F, 3)."""
    batch, channels, samples = x.shape[0], sections.shape[0], x.shape[1]
    out, end = empty((batch, channels, samples), x.dtype), torch.empty(state.shape, dtype=state.dtype)
    coefficients = flat(sections), flat(split_coefficients(compression))
    sizes = channels, sections.shape[1], count_linear, count_before, samples
    arrays = flat(x), *coefficients, *sizes, flat(state), flat(out), flat(end)
    run_blocks(_forward, blocks_of(batch * channels), *arrays)
    return out, end


@kernel
def _compress_back(grad, tile, count, stick, sums):
    """Multiply a tile of gradients by the slopes of the compression at the samples of ``tile``; sum for ``stick``."""
    linear, gain, exponent = load(stick, 0), load(stick, LANES), load(stick, 2 * LANES)
    s0, s1, s2 = load(sums, 0), load(sums, LANES), load(sums, 2 * LANES)
    for t in range(count):
        g = load(grad, t * LANES)
        by_v, by_linear, by_gain, by_exponent = slopes(load(tile, t * LANES), linear, gain, exponent)
        store(grad, t * LANES, g * by_v)
        s0, s1, s2 = s0 + g * by_linear, s1 + g * by_gain, s2 + g * by_exponent
    store(sums, 0, s0)
    store(sums, LANES, s1)
    store(sums, 2 * LANES, s2)


@kernel
def _backward(
    block,
    x,
    coef,
    stick,
    parts,
    channels,
    sections,
    first,
    second,
    samples,
    begin,
    grad,
    grad_end,
    learn,
    grad_rows,
    grad_coef,
    grad_stick,
    grad_begin,
):
    rows = lane_rows(block, grad.size // samples)
    lanes, compression = lane_coefficients(coef, rows, channels, sections), read_state(stick, rows % channels, 3, coef)
    split = read_state(parts, rows % channels, 4, coef)
    source, target = rows // channels * samples, rows * samples
    straight, v, u = scratch(TILE * LANES, coef), scratch(TILE * LANES, coef), scratch(TILE * LANES, coef)
    through, around = scratch(TILE * LANES, coef), scratch(TILE * LANES, coef)
    size = 2 * sections * LANES
    state, adjoint = read_state(begin, rows, 2 * sections, coef), read_state(grad_end, rows, 2 * sections, coef)
    sums, stick_sums = scratch(5 * sections * LANES, coef), scratch(3 * LANES, coef)
    tiles = (samples + TILE - 1) // TILE
    a, b = first * LANES, (first + second) * LANES
    one, two, three = lanes[: 5 * a], lanes[5 * a : 5 * b], lanes[5 * b :]
    none = scratch(LANES, coef)
    history = scratch(sections * TILE * LANES if learn else 3 * LANES, coef)
    ha, hb = (a * TILE, b * TILE) if learn else (LANES, 2 * LANES)
    starts = scratch(tiles * size, coef)
    for i in range(tiles):  # states at the start of every tile, so that the way back can recompute a tile at a time
        starts[i * size : (i + 1) * size] = state
        count = min(TILE, samples - i * TILE)
        read_tile(x, source, i * TILE, count, v)
        if learn:
            straight[:] = v
            sections_advance(straight, count, one, state[: 2 * a], none)
        sections_advance(v, count, two, state[2 * a : 2 * b], none)
        if learn:
            _compress(v, count, split)
            sections_advance(v, count, three, state[2 * b :], none)
        flush(state)
    for back in range(tiles):
        i = tiles - 1 - back
        start, count = i * TILE, min(TILE, samples - i * TILE)
        state[:] = starts[i * size : (i + 1) * size]
        read_tile(x, source, start, count, v)
        if learn:
            straight[:] = v
            sections_advance(straight, count, one, state[: 2 * a], history[:ha])
        sections_advance(v, count, two, state[2 * a : 2 * b], history[ha:hb])
        if learn:
            u[:] = v
            _compress(u, count, split)
            sections_advance(u, count, three, state[2 * b :], history[hb:])
        read_tile(grad, target, start, count, around)
        through[:] = around
        sections_retreat(around, straight, count, one, adjoint[: 2 * a], history[:ha], sums[: 5 * a])
        sections_retreat(through, u, count, three, adjoint[2 * b :], history[hb:], sums[5 * b :])
        _compress_back(through, v, count, compression, stick_sums)
        sections_retreat(through, v, count, two, adjoint[2 * a : 2 * b], history[ha:hb], sums[5 * a : 5 * b])
        _add(around, through, count)
        flush(adjoint)
        write_tile(grad_rows, target, start, count, around)
    write_state(grad_begin, rows, 2 * sections, adjoint)
    write_state(grad_coef, rows, 5 * sections, sums)
    write_state(grad_stick, rows, 3, stick_sums)


def backward(
    grad: Tensor,
    grad_end: Tensor,
    x: Tensor,
    sections: Tensor,
    compression: Tensor,
    state: Tensor,
    count_linear: int,
    count_before: int,
    learn: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients with respect to ``x``, if ``learn`` to ``sections`` and ``compression``, and to ``state``."""
    batch, channels, samples = grad.shape
    rows, grad_begin = empty(grad.shape, x.dtype), torch.empty(state.shape, dtype=state.dtype)
    grad_sections = torch.empty((batch, *sections.shape), dtype=torch.float64)
    grad_stick = torch.empty((batch, *compression.shape), dtype=torch.float64)
    coefficients = flat(sections), flat(compression), flat(split_coefficients(compression))
    sizes = channels, sections.shape[1], count_linear, count_before, samples
    arrays = flat(x), *coefficients, *sizes, flat(state), flat(grad), flat(grad_end), learn
    results = flat(rows), flat(grad_sections), flat(grad_stick), flat(grad_begin)
    run_blocks(_backward, blocks_of(batch * channels), *arrays, *results)
    grad_x = empty(x.shape, x.dtype)
    run_blocks(sum_channels, batch, flat(rows), channels, samples, flat(grad_x))
    return grad_x, grad_sections.sum(0), grad_stick.sum(0), grad_begin
