"""Numba kernels of `adaptation_loops`.

Forward in the dtype of the signal. States are updated by increments, s + gain (t - s); in float32 each carries the
part that its last additions rounded away. Without it a state stops moving when gain (t - s) is less than half a step
of float32: at 44.1 kHz the slowest loop would end up to 7e-4 from its goal (measured: 0.11 model units in the silence
after a sound). Backward in float64 throughout: at an onset the derivative runs through five divisions by states of
1e-3, whose product overflows float32.
"""

# mypy: disable-error-code="no-untyped-def"
# Compiled functions are typed by numba.

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from psysim.ops.cpu.exp import exp
from psysim.ops.cpu.simd import LANES, any_lane, load, select, splat, store
from psysim.ops.cpu.tiles import (
    TILE,
    blocks_of,
    empty,
    flat,
    kernel,
    lane_rows,
    read_state,
    read_tile,
    run_blocks,
    scratch,
    write_state,
    write_tile,
)

__all__ = ["PER_LOOP", "advance", "backward", "forward", "lane_coefficients"]

PER_LOOP = 5  # vectors of coefficients per loop: gain, 2/M, 2M, M - 1, M (M: ceiling of the limiter)
_KEPT = 4  # vectors kept per loop and sample on the way back: state before, quotient, limited quotient, exponential


@kernel
def lane_coefficients(gain, table, rows, channels, like):
    """Minimum, rest and factor; then `PER_LOOP` vectors per loop."""
    loops = gain.size
    width = 3 + loops
    lanes = scratch((3 + PER_LOOP * loops) * LANES, like)
    for lane in range(LANES):
        row = rows[lane] % channels * width
        for k in range(3):
            lanes[k * LANES + lane] = table[row + k]
        for j in range(loops):
            ceiling = table[row + 3 + j]
            at = (3 + PER_LOOP * j) * LANES + lane
            lanes[at] = gain[j]
            lanes[at + LANES] = 2.0 / ceiling
            lanes[at + 2 * LANES] = 2.0 * ceiling
            lanes[at + 3 * LANES] = ceiling - 1.0
            lanes[at + 4 * LANES] = ceiling
    return lanes


@kernel
def _start(begin, rows, loops, gain, like):
    """States at the start in the dtype of ``like``, and the part of them that it cannot hold."""
    exact = read_state(begin, rows, loops, gain)
    state, carry = scratch(exact.size, like), scratch(exact.size, like)
    for k in range(exact.size):
        state[k] = exact[k]
        carry[k] = exact[k] - state[k]
    return exact, state, carry


@kernel
def advance(tile, count, lanes, state, carry, limited, history):
    """Run the loops over a tile in place, up to the last quotient; keep what the way back needs if there is room."""
    loops = state.size // LANES
    keep = history.size > LANES
    single = tile.itemsize == 4
    minimum = load(lanes, 0)
    for t in range(count):
        value = load(tile, t * LANES)
        value = select(value < minimum, minimum, value)
        for j in range(loops):
            s = load(state, j * LANES)
            quotient = value / s
            value = quotient
            e = splat(tile, 0.0)
            at = (3 + PER_LOOP * j) * LANES
            if limited:
                over = quotient > 1.0
                if any_lane(over):
                    e = exp((1.0 - quotient) * load(lanes, at + LANES))
                    bent = load(lanes, at + 2 * LANES) / (1.0 + e) - load(lanes, at + 3 * LANES)
                    value = select(over, bent, quotient)
            if keep:
                to = (t * loops + j) * _KEPT * LANES
                store(history, to, s)
                store(history, to + LANES, quotient)
                store(history, to + 2 * LANES, value)
                store(history, to + 3 * LANES, e)
            if single:  # compensated addition; the carry is what s lacks
                rest = load(carry, j * LANES) + load(lanes, at) * (value - s)
                moved = s + rest
                store(carry, j * LANES, rest - (moved - s))
                store(state, j * LANES, moved)
            else:
                store(state, j * LANES, s + load(lanes, at) * (value - s))
        store(tile, t * LANES, value)


@kernel
def _forward(block, x, gain, table, channels, samples, limited, begin, out, end):
    rows = lane_rows(block, x.size // samples)
    lanes = lane_coefficients(gain, table, rows, channels, x)
    exact, state, carry = _start(begin, rows, gain.size, gain, x)
    offsets = rows * samples
    tile, none = scratch(TILE * LANES, x), scratch(LANES, x)
    rest, factor = load(lanes, LANES), load(lanes, 2 * LANES)
    for start in range(0, samples, TILE):
        count = min(TILE, samples - start)
        read_tile(x, offsets, start, count, tile)
        advance(tile, count, lanes, state, carry, limited, none)
        for t in range(count):
            store(tile, t * LANES, (load(tile, t * LANES) - rest) * factor)
        write_tile(out, offsets, start, count, tile)
    for k in range(exact.size):
        exact[k] = np.float64(state[k]) + np.float64(carry[k])
    write_state(end, rows, gain.size, exact)


def forward(x: Tensor, gain: Tensor, table: Tensor, state: Tensor, limited: bool) -> tuple[Tensor, Tensor]:
    """Run the operator on the CPU; ``gain`` (N,), ``table`` (1 or F, 3 + N)."""
    out, end = empty(x.shape, x.dtype), torch.empty(state.shape, dtype=state.dtype)
    arrays = flat(x), flat(gain), flat(table), len(table), x.shape[2], limited, flat(state), flat(out), flat(end)
    run_blocks(_forward, blocks_of(x.shape[0] * x.shape[1]), *arrays)
    return out, end


@kernel
def _retreat(tile, kept, grad, count, lanes, adjoint, limited, history, sums):
    """Backwards over a tile: ``grad`` holds the gradient at the output, then at the input.

    ``tile`` is the input, ``kept`` the last quotient. ``sums``: minimum, rest, factor, ceiling, gain.
    """
    loops = adjoint.size // LANES
    minimum, rest, factor = load(lanes, 0), load(lanes, LANES), load(lanes, 2 * LANES)
    for step in range(count):
        t = count - 1 - step
        g = load(grad, t * LANES)
        store(sums, LANES, load(sums, LANES) - g * factor)
        store(sums, 2 * LANES, load(sums, 2 * LANES) + g * (load(kept, t * LANES) - rest))
        g = g * factor
        for back in range(loops):
            j = loops - 1 - back
            at, to = (3 + PER_LOOP * j) * LANES, (t * loops + j) * _KEPT * LANES
            s, quotient, value = load(history, to), load(history, to + LANES), load(history, to + 2 * LANES)
            lam, gain = load(adjoint, j * LANES), load(lanes, at)
            place = (3 + loops + j) * LANES
            store(sums, place, load(sums, place) + lam * (value - s))
            g = g + gain * lam
            if limited:
                over = quotient > 1.0
                if any_lane(over):
                    e = load(history, to + 3 * LANES)
                    sigma = 1.0 / (1.0 + e)
                    slope = 4.0 * ((e * sigma) * sigma)
                    bend = (2.0 * sigma - 1.0) - slope * (quotient - 1.0) * (0.5 * load(lanes, at + LANES))
                    place = (3 + j) * LANES
                    store(sums, place, load(sums, place) + select(over, g * bend, 0.0))
                    g = select(over, g * slope, g)
            g = g / s
            store(adjoint, j * LANES, (lam - gain * lam) - g * quotient)
        below = load(tile, t * LANES) < minimum
        store(sums, 0, load(sums, 0) + select(below, g, 0.0))
        store(grad, t * LANES, select(below, 0.0, g))


@kernel
def _backward(
    block, x, gain, table, channels, samples, limited, begin, grad, grad_end, grad_x, grad_gain, grad_table, grad_begin
):
    count_rows = x.size // samples
    rows = lane_rows(block, count_rows)
    loops = gain.size
    lanes = lane_coefficients(gain, table, rows, channels, gain)
    state, adjoint = read_state(begin, rows, loops, gain), read_state(grad_end, rows, loops, gain)
    offsets, size = rows * samples, state.size
    tile, kept, slopes = scratch(TILE * LANES, gain), scratch(TILE * LANES, gain), scratch(TILE * LANES, gain)
    sums, none = scratch((3 + 2 * loops) * LANES, gain), scratch(LANES, gain)
    history = scratch(TILE * loops * _KEPT * LANES, gain)
    tiles = (samples + TILE - 1) // TILE
    starts = scratch(tiles * size, gain)
    for i in range(tiles):  # states at the start of every tile, so that the way back can recompute a tile at a time
        starts[i * size : (i + 1) * size] = state
        count = min(TILE, samples - i * TILE)
        read_tile(x, offsets, i * TILE, count, tile)
        advance(tile, count, lanes, state, none, limited, none)
    for back in range(tiles):
        i = tiles - 1 - back
        start, count = i * TILE, min(TILE, samples - i * TILE)
        read_tile(x, offsets, start, count, tile)
        read_tile(grad, offsets, start, count, slopes)
        kept[:] = tile
        state[:] = starts[i * size : (i + 1) * size]
        advance(kept, count, lanes, state, none, limited, history)
        _retreat(tile, kept, slopes, count, lanes, adjoint, limited, history, sums)
        write_tile(grad_x, offsets, start, count, slopes)
    write_state(grad_begin, rows, loops, adjoint)
    for lane in range(LANES):
        for k in range(3 + loops):
            grad_table[rows[lane] * (3 + loops) + k] = sums[k * LANES + lane]
        for j in range(loops):
            grad_gain[rows[lane] * loops + j] = sums[(3 + loops + j) * LANES + lane]


def backward(
    grad: Tensor, grad_end: Tensor, x: Tensor, gain: Tensor, table: Tensor, state: Tensor, limited: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients with respect to ``x``, ``gain``, ``table`` and ``state``."""
    batch, channels, samples = x.shape
    grad_x, grad_begin = empty(x.shape, x.dtype), torch.empty(state.shape, dtype=state.dtype)
    grad_gain = torch.zeros((batch * channels, len(gain)), dtype=torch.float64)
    grad_table = torch.zeros((batch, channels, table.shape[1]), dtype=torch.float64)
    arrays = flat(x), flat(gain), flat(table), len(table), samples, limited, flat(state), flat(grad), flat(grad_end)
    results = flat(grad_x), flat(grad_gain), flat(grad_table), flat(grad_begin)
    run_blocks(_backward, blocks_of(batch * channels), *arrays, *results)
    total = grad_table.sum(0)
    return grad_x, grad_gain.sum(0), total if len(table) > 1 else total.sum(0, keepdim=True), grad_begin
