"""Numba kernels of `resample`. Sums are float64 whatever the dtype of the signal.

A lane is a segment of a row. All segments begin with the first phase, so that all lanes use the same tap at the same
time; every output is the same sum of products, each rounded once, whatever the segment it lies in.
"""

# mypy: disable-error-code="no-untyped-def"
# Compiled functions are typed by numba.

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from psysim.ops._resample import phases_of
from psysim.ops.cpu.simd import LANES, fma, load, load_transposed, splat, store, store_transposed
from psysim.ops.cpu.tiles import blocks_of, empty, flat, kernel, run_blocks, scratch

__all__ = ["backward", "forward", "polyphase"]

SEGMENT = 512  # samples of the denser side: with their lanes and float64 64 KiB, twice that with the other side


@kernel
def _lanes(block, rows, segments):
    """List row and segment of each lane; lanes past the end repeat the last."""
    row, segment = np.empty(LANES, np.int64), np.empty(LANES, np.int64)
    for lane in range(LANES):
        item = min(block * LANES + lane, rows * segments - 1)
        row[lane], segment[lane] = item // segments, item % segments
    return row, segment


@kernel
def _read_window(array, row, begin, samples, count, tile):
    """Copy ``count`` samples from ``begin`` on, one place per lane, to the tile; zeros outside the row."""
    offsets = row * samples + begin
    low, high = -begin.min(), samples - begin.max()
    t = 0
    while t < count:
        if t >= low and t + LANES <= high and t + LANES <= count:
            load_transposed(array, offsets, t, tile, t * LANES)
            t += LANES
        else:
            for lane in range(LANES):
                inside = 0 <= begin[lane] + t < samples
                tile[t * LANES + lane] = array[offsets[lane] + t] if inside else 0.0
            t += 1


@kernel
def _write_window(array, row, begin, samples, count, tile):
    """Copy the tile back, as far as it lies in the row: the inverse of `_read_window` for ``begin`` >= 0."""
    offsets = row * samples + begin
    high = samples - begin.max()
    t = 0
    while t < count:
        if t + LANES <= high and t + LANES <= count:
            store_transposed(array, offsets, t, tile, t * LANES)
            t += LANES
        else:
            for lane in range(LANES):
                if begin[lane] + t < samples:
                    array[offsets[lane] + t] = tile[t * LANES + lane]
            t += 1


@kernel
def two_outputs(tile, place, shift, weights, first, taps_first, second, taps_second, out, at):
    """Two outputs at once: the inputs of the second begin ``shift`` samples after ``place``, where the first's do.

    One sum alone would wait for itself (4 cycles for each product on 2 units); what both need is loaded once.
    """
    a = splat(tile, 0.0)
    b = splat(tile, 0.0)
    common = max(min(shift, taps_first), 0)
    for t in range(common):
        a = fma(splat(tile, weights[first + t]), load(tile, (place + t) * LANES), a)
    for t in range(common, min(taps_first, shift + taps_second)):
        x = load(tile, (place + t) * LANES)
        a = fma(splat(tile, weights[first + t]), x, a)
        b = fma(splat(tile, weights[second + t - shift]), x, b)
    for t in range(max(taps_first - shift, 0), taps_second):
        b = fma(splat(tile, weights[second + t]), load(tile, (place + shift + t) * LANES), b)
    for t in range(max(common, shift + taps_second), taps_first):
        a = fma(splat(tile, weights[first + t]), load(tile, (place + t) * LANES), a)
    store(out, at * LANES, a)
    store(out, (at + 1) * LANES, b)


@kernel
def polyphase(tile, weights, first, taps, up, down, count, out):
    """Compute ``count`` outputs of a window of inputs, which begins with the first input of output 0.

    ``out`` has room for one vector more than there are outputs. Every output is one sum from its first input to its
    last, so that its bits do not depend on the window.
    """
    width = weights.size // up
    phase = shift = 0
    for i in range(0, count, 2):
        place = shift + first[phase] - first[0]
        after, shift_after = (phase + 1, shift) if phase + 1 < up else (0, shift + down)
        last = i + 1 == count
        step = 0 if last else shift_after + first[after] - first[0] - place
        n = 0 if last else taps[after]
        two_outputs(tile, place, step, weights, phase * width, taps[phase], after * width, n, out, i)
        phase, shift = (after + 1, shift_after) if after + 1 < up else (0, shift_after + down)


@kernel
def _forward(block, x, samples, weights, first, taps, up, down, periods, segments, out, outputs):
    row, segment = _lanes(block, x.size // samples, segments)
    width = weights.size // up
    count = min(periods * up, outputs)
    reach = (periods - 1) * down + first[up - 1] + width - first[0]
    tile, result = scratch(reach * LANES, weights), scratch((count + 1) * LANES, weights)
    _read_window(x, row, segment * (periods * down) + first[0], samples, reach, tile)
    polyphase(tile, weights, first, taps, up, down, count, result)
    _write_window(out, row, segment * (periods * up), outputs, count, result)


def _segments(outputs: int, up: int, down: int) -> tuple[int, int]:
    """Return how many periods (``up`` outputs) a segment has, and how many segments a row."""
    total = -(-outputs // up)
    segments = -(-total // max(1, SEGMENT // max(up, down)))
    periods = -(-total // segments)
    return periods, -(-total // periods)


def forward(x: Tensor, taps: Tensor, up: int, down: int, start: int, count: int) -> Tensor:
    """Run the operator on the CPU."""
    phases = phases_of(taps, up, down, start)
    out = empty((*x.shape[:2], count), x.dtype)
    periods, segments = _segments(count, up, down)
    table = flat(phases.weights), flat(phases.first), flat(phases.size)
    blocks = blocks_of(x.shape[0] * x.shape[1] * segments)
    run_blocks(_forward, blocks, flat(x), x.shape[2], *table, up, down, periods, segments, flat(out), count)
    return out


@kernel
def _sum_lanes(value, spare):
    """Add the lanes of a vector, in pairs."""
    store(spare, 0, value)
    size = LANES // 2
    while size > 0:
        for lane in range(size):
            spare[lane] += spare[lane + size]
        size //= 2
    return spare[0]


@kernel
def _correlate(block, x, samples, grad, outputs, first, taps, up, down, width, periods, segments, sums):
    rows = x.size // samples
    row, segment = _lanes(block, rows, segments)
    count = periods * up
    reach = (periods - 1) * down + first[up - 1] + width + 1 - first[0]
    tile, slopes, spare = scratch(reach * LANES, sums), scratch(count * LANES, sums), scratch(LANES, sums)
    _read_window(x, row, segment * (periods * down) + first[0], samples, reach, tile)
    begin = segment * (periods * up)
    for lane in range(LANES):
        if block * LANES + lane >= rows * segments:
            begin[lane] = outputs  # the repeated lanes must not count again
    _read_window(grad, row, begin, outputs, count, slopes)
    for phase in range(up):
        for j in range(0, taps[phase], 2):  # two taps share what is loaded
            a, b = splat(sums, 0.0), splat(sums, 0.0)
            place = first[phase] - first[0] + j
            for q in range(periods):
                g = load(slopes, (q * up + phase) * LANES)
                a = fma(g, load(tile, (q * down + place) * LANES), a)
                b = fma(g, load(tile, (q * down + place + 1) * LANES), b)
            at = (block * up + phase) * width + j
            sums[at] = _sum_lanes(a, spare)
            if j + 1 < width:
                sums[at + 1] = _sum_lanes(b, spare)


def backward(
    grad: Tensor, x: Tensor, taps: Tensor, up: int, down: int, start: int, learn: bool
) -> tuple[Tensor, Tensor]:
    """Gradients with respect to ``x`` (the transposed filter: ``up`` and ``down`` change places) and ``taps``."""
    samples, outputs = x.shape[2], grad.shape[2]
    grad_x = forward(grad, taps.flip(0), down, up, -start, samples)
    if not learn:
        return grad_x, torch.zeros_like(taps)
    phases = phases_of(taps, up, down, start)
    width = phases.weights.shape[1]
    periods, segments = _segments(outputs, up, down)
    blocks = blocks_of(x.shape[0] * x.shape[1] * segments)
    sums = torch.zeros((blocks, up, width), dtype=torch.float64)
    arrays = flat(x), samples, flat(grad), outputs, flat(phases.first), flat(phases.size)
    run_blocks(_correlate, blocks, *arrays, up, down, width, periods, segments, flat(sums))
    return grad_x, phases.taps(sums.sum(0), len(taps))
