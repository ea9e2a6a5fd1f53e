"""Numba kernel of `chain_forward` and `chain_products`: a tile of samples goes through all steps in the L1 cache.

A block is 16 rows of one auditory channel where the batch allows it, ordered by condition, so that its rows mostly
share a template and one number read serves 16 lanes. After every step the tile is rounded to the dtype of the sound, as
if it had been in memory: the representation has the same bits as that of the steps run one by one. Sums are float64.
"""

# mypy: disable-error-code="no-untyped-def"
# Compiled functions are typed by numba.

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from psysim.ops import steps as kinds
from psysim.ops.cpu import adaptation, drnl, gammatone, hair_cell, sosfilt
from psysim.ops.cpu.chain_plan import (
    DECIMATE,
    DRNL,
    GAMMATONE,
    HAIR_CELL,
    HALFWAVE,
    LOOPS,
    SECTIONS,
    SQUARE,
    plan_of,
    set_up,
)
from psysim.ops.cpu.modulation import magnitude, pole_step
from psysim.ops.cpu.resample import two_outputs
from psysim.ops.cpu.simd import LANES, convert, fma, load, select, splat, store
from psysim.ops.cpu.template import check_index
from psysim.ops.cpu.tiles import TILE, blocks_of, empty, flat, flush, kernel, read_tile, run_blocks, scratch, write_tile

__all__ = ["forward", "products"]


@kernel
def _widen(tile, count, wide):
    for t in range(count):
        store(wide, t * LANES, convert(load(tile, t * LANES), wide))


@kernel
def _narrow(wide, count, tile):
    for t in range(count):
        store(tile, t * LANES, convert(load(wide, t * LANES), tile))


@kernel
def _source(row, x, offsets, start, count, coef, state, soft, tile, wide, more, none):
    """Read a tile of sound and turn it into channels, or read a tile of channels."""
    at, state_at = row[2] * LANES, row[3] * LANES
    if row[0] == GAMMATONE:
        order = row[5]
        lanes, states = coef[at : at + 3 * LANES], state[state_at : state_at + 2 * order * LANES]
        read_tile(x, offsets, start, count, wide)
        gammatone.advance(wide, count, lanes, states, order, more[0], more[1], none)
        for t in range(count):
            store(tile, t * LANES, convert(2.0 * load(more[0], t * LANES), tile))
    elif row[0] == DRNL:
        sections, first, second = row[5], row[6], row[7]
        lanes, states = coef[at : at + 5 * sections * LANES], state[state_at : state_at + 2 * sections * LANES]
        read_tile(x, offsets, start, count, wide)
        drnl.advance(wide, more[0], count, lanes, states, soft[row[4] * LANES :], first, second, none)
        _narrow(wide, count, tile)
    else:
        read_tile(x, offsets, start, count, tile)


@kernel
def _advance(row, count, coef, state, soft, tile, wide, none, soft_none):
    """Pass a tile through one step between the source and the bank."""
    at, state_at, soft_at = row[2] * LANES, row[3] * LANES, row[4] * LANES
    if row[0] == HALFWAVE:
        for t in range(count):
            value = load(tile, t * LANES)
            store(tile, t * LANES, select(value < 0.0, 0.0, value))
    elif row[0] == SECTIONS:
        sections = row[5]
        _widen(tile, count, wide)
        lanes, states = coef[at : at + 5 * sections * LANES], state[state_at : state_at + 2 * sections * LANES]
        sosfilt.sections_advance(wide, count, lanes, states, none)
        _narrow(wide, count, tile)
    elif row[0] == SQUARE:
        gain = load(soft, soft_at)
        for t in range(count):
            value = load(tile, t * LANES) * gain
            store(tile, t * LANES, value * value)
    elif row[0] == HAIR_CELL:
        begin = soft_at + hair_cell.SIZE * LANES
        hair_cell.advance(tile, count, soft[soft_at:begin], soft[begin : begin + LANES], tile, soft_none)
    elif row[0] == LOOPS:
        loops = row[5]
        begin = soft_at + (3 + adaptation.PER_LOOP * loops) * LANES
        states, carry = soft[begin : begin + loops * LANES], soft[begin + loops * LANES : begin + 2 * loops * LANES]
        adaptation.advance(tile, count, soft[soft_at:begin], states, carry, row[7] > 0, soft_none)
        rest, factor = load(soft, soft_at + LANES), load(soft, soft_at + 2 * LANES)
        for t in range(count):
            store(tile, t * LANES, (load(tile, t * LANES) - rest) * factor)


@kernel
def _decimate(row, table, tile, received, emitted, frames, line, out):
    """Take in a tile, put out the samples whose inputs are all there; returns how many.

    ``line`` holds the inputs from ``emitted * down - half`` to ``received``, of which this tile is the last.
    """
    down, half = row[5], row[6]
    weights = table[row[1] : row[1] + 2 * half + 1]
    base = emitted * down - half
    for t in range(TILE):
        store(line, (received + t - base) * LANES, convert(load(tile, t * LANES), line))
    received += TILE
    count = max(0, min((received - 1 - half) // down + 1, frames) - emitted)
    for i in range(0, count, 2):
        more = weights.size if i + 1 < count else 0
        two_outputs(line, i * down, down if more else 0, weights, 0, weights.size, 0, more, out, i)
    shift = count * down
    for t in range(received - base - shift):
        store(line, t * LANES, load(line, (t + shift) * LANES))
    _narrow(out, count, tile)
    return count


@kernel
def _weight(templates, one, other, t, mask, like):
    """Template at sample ``t``: the lanes of a block have one or two different ones, which begin at the two places."""
    return select(mask, splat(like, templates[other + t]), splat(like, templates[one + t]))


@kernel
def _band_real(tile, count, coef, state, at, real, templates, one, other, mask, sums, to):
    """Run a bandpass over a tile: its real part times the template to a sum, or to ``real`` if there is no template."""
    b, p, w, c = splat(tile, coef[0]), splat(tile, 1.0 - coef[1]), splat(tile, coef[2]), splat(real, coef[3])
    re, im, total = load(state, at), load(state, at + LANES), load(sums, to)
    if templates.size:
        for t in range(count):
            re, im = pole_step(re, im, load(tile, t * LANES), b, p, w)
            y = c * convert(re, real)
            total = fma(convert(y, sums), _weight(templates, one, other, t, mask, sums), total)
    else:
        for t in range(count):
            re, im = pole_step(re, im, load(tile, t * LANES), b, p, w)
            store(real, t * LANES, c * convert(re, real))
    store(state, at, re)
    store(state, at + LANES, im)
    store(sums, to, total)


@kernel
def _band_magnitude(tile, count, coef, state, at, real, templates, one, other, mask, sums, to):
    """Do the same as `_band_real` with the magnitude."""
    b, p, w, c = splat(tile, coef[0]), splat(tile, 1.0 - coef[1]), splat(tile, coef[2]), splat(real, coef[3])
    re, im, total = load(state, at), load(state, at + LANES), load(sums, to)
    if templates.size:
        for t in range(count):
            re, im = pole_step(re, im, load(tile, t * LANES), b, p, w)
            y = c * magnitude(convert(re, real), convert(im, real))
            total = fma(convert(y, sums), _weight(templates, one, other, t, mask, sums), total)
    else:
        for t in range(count):
            re, im = pole_step(re, im, load(tile, t * LANES), b, p, w)
            store(real, t * LANES, c * magnitude(convert(re, real), convert(im, real)))
    store(state, at, re)
    store(state, at + LANES, im)
    store(sums, to, total)


@kernel
def _accumulate(real, count, values, sums, at):
    """Add a filter's output times its template, of every lane its own."""
    total = load(sums, at)
    for t in range(count):
        total = fma(convert(load(real, t * LANES), sums), convert(load(values, t * LANES), sums), total)
    store(sums, at, total)


@kernel
def _add_moments(real, count, sums, at):
    first, second = load(sums, at), load(sums, at + LANES)
    for t in range(count):
        value = convert(load(real, t * LANES), sums)
        first, second = first + value, fma(value, value, second)
    store(sums, at, first)
    store(sums, at + LANES, second)


@kernel
def _bank(row, table, count, start, coef, state, tile, real, wide, low, values, none, templates, places, second, used,
          frames, moments, sums, target, out):  # fmt: skip
    """Run all filters on a tile; add their outputs to the sums, or write them to ``out`` if there is one.

    A lane whose channel lacks a filter computes it as well if another lane of the block has it; its sums are left out
    by `_forward`, its output is written as zeros.
    """
    sections, filters = row[5], row[6]
    at, begin = row[2] * LANES, row[3] * LANES
    has = coef[at + 5 * sections * LANES : at + (5 * sections + filters) * LANES]
    bands = table[row[1] + 5 * sections :]
    cut = begin + 2 * sections * LANES
    kept = places.shape[0]
    width = (kept + (2 if moments else 0)) * LANES
    at_once = second.size > 0 and kept == 1 and not moments
    weights = templates if at_once else templates[:0]
    mask = load(second if at_once else has, 0) > 0.5
    _widen(tile, count, wide)
    for m in range(filters):
        anywhere = used[m] > 0
        to, first = m * width, m * frames + start
        if not anywhere:
            real[:] = 0.0
        elif m == 0:
            low[:] = wide
            sosfilt.sections_advance(low, count, coef[at : at + 5 * sections * LANES], state[begin:cut], none)
            _narrow(low, count, real)
        else:
            c, s = bands[4 * (m - 1) : 4 * m], cut + 2 * (m - 1) * LANES
            one, other = (places[0, 0] + first, places[0, LANES - 1] + first) if at_once else (0, 0)
            if bands[4 * (filters - 1) + m - 1] > 0.0:
                _band_magnitude(wide, count, c, state, s, real, weights, one, other, mask, sums, to)
            else:
                _band_real(wide, count, c, state, s, real, weights, one, other, mask, sums, to)
            if at_once:
                continue
        if out.size:
            _write_band(real, count, has, m * LANES, out, target + m * frames, start)
        if not anywhere:
            continue
        for k in range(kept):
            read_tile(templates, places[k] + m * frames, start, count, values)
            _accumulate(real, count, values, sums, to + k * LANES)
        if moments:
            _add_moments(real, count, sums, to + kept * LANES)


@kernel
def _write_band(real, count, has, at, out, target, start):
    if not has[at : at + LANES].all():
        present = load(has, at) > 0.5
        for t in range(count):
            store(real, t * LANES, select(present, load(real, t * LANES), 0.0))
    write_tile(out, target, start, count, real)


@kernel
def _lanes_of(block, batch, channels, order):
    """Channel and batch row of every lane of a block."""
    channel, item = np.empty(LANES, np.int64), np.empty(LANES, np.int64)
    for lane in range(LANES):
        place = min(block * LANES + lane, batch * channels - 1)
        channel[lane], item[lane] = place // batch, order[place % batch]
    return channel, item


@kernel
def _places_of(kept, index, item, channel, channels, size, like):
    """Where the templates of every lane's channel begin; and 1 for the lanes with the last lane's template, else 0.

    The latter is empty if there are more than two different ones.
    """
    places, second, few = np.empty((kept, LANES), np.int64), scratch(LANES, like), kept > 0
    for lane in range(LANES):
        for k in range(kept):
            places[k, lane] = ((index[item[lane]] * kept + k) * channels + channel[lane]) * size
    for lane in range(LANES if kept > 0 else 0):
        second[lane] = 1.0 if places[0, lane] == places[0, LANES - 1] else 0.0
        few = few and (second[lane] > 0.5 or places[0, lane] == places[0, 0])
    return places, second if few else second[:0]


@kernel
def _used_of(row, coef):
    """Which filters of the bank any lane has."""
    has, used = coef[(row[2] + 5 * row[5]) * LANES :], np.zeros(row[6], np.int64)
    for m in range(row[6]):
        used[m] = has[m * LANES : (m + 1) * LANES].any()
    return used


@kernel
def _forward(block, x, plan, table, vectors, templates, index, order, sizes, moments, sums_out, out):
    channels, samples, filters, kept, frames = sizes
    channel, item = _lanes_of(block, index.size, channels, order)
    places, second = _places_of(kept, index, item, channel, channels, filters * frames, table)
    coef, state, soft = (
        scratch(vectors[0] * LANES, table),
        scratch(vectors[1] * LANES, table),
        scratch(vectors[2] * LANES, x),
    )
    cut, half = -1, 0
    for i in range(plan.shape[0]):
        set_up(plan[i], table, channel, coef, soft)
        if plan[i, 0] == DECIMATE:
            cut, half = i, plan[i, 6]
    used = _used_of(plan[-1], coef)
    outputs = kept + 2 if moments else kept
    sums = scratch(max(1, outputs * filters) * LANES, table)
    tile, real, values = scratch(TILE * LANES, x), scratch(TILE * LANES, x), scratch(TILE * LANES, templates)
    wide, low, none = scratch(TILE * LANES, table), scratch(TILE * LANES, table), scratch(LANES, table)
    more = scratch(TILE * LANES, table), scratch(TILE * LANES, table)
    line, soft_none = scratch((2 * half + 2 * TILE) * LANES if cut >= 0 else LANES, table), scratch(LANES, x)
    rows = item * channels + channel
    offsets = (item if plan[0, 0] == GAMMATONE or plan[0, 0] == DRNL else rows) * samples
    last, emitted, start = plan.shape[0] - 1, 0, 0
    while emitted < frames:
        count = min(TILE, samples - start)
        tile[max(0, count) * LANES :] = 0.0
        if count > 0:
            _source(plan[0], x, offsets, start, count, coef, state, soft, tile, wide, more, none)
        for i in range(1, last):
            if i == cut:
                count = _decimate(plan[i], table, tile, start, emitted, frames, line, wide)
            elif count > 0:
                _advance(plan[i], count, coef, state, soft, tile, wide, none, soft_none)
        if count > 0:
            _bank(plan[last], table, count, emitted, coef, state, tile, real, wide, low, values, none, templates,
                  places, second, used, frames, moments, sums, rows * (filters * frames), out)  # fmt: skip
            emitted += count
        flush(state)
        start += TILE
    _write_sums(plan[last], coef, rows, outputs, sums, sums_out)


@kernel
def _write_sums(row, coef, rows, outputs, sums, out):
    filters = row[6]
    has = coef[(row[2] + 5 * row[5]) * LANES :]
    for lane in range(LANES):
        for m in range(filters):
            if has[m * LANES + lane] > 0.5:
                for k in range(outputs):
                    out[(rows[lane] * filters + m) * outputs + k] = sums[(m * outputs + k) * LANES + lane]


def _run(
    x: Tensor, steps: Sequence[kinds.Step], templates: Tensor, index: Tensor, moments: bool, sums: Tensor, out: Tensor
) -> None:
    plan, table, vectors = plan_of(steps)
    _, kept, channels, filters, frames = templates.shape
    order = flat(torch.argsort(index, stable=True))
    sizes = channels, x.shape[-1], filters, kept, frames
    arrays = (
        flat(x),
        plan,
        flat(table),
        vectors,
        flat(templates),
        flat(index),
        order,
        sizes,
        moments,
        flat(sums),
        flat(out),
    )
    run_blocks(_forward, blocks_of(len(x) * channels), *arrays)


def forward(x: Tensor, steps: Sequence[kinds.Step], shape: tuple[int, int, int]) -> Tensor:
    """Run `chain_forward` on the CPU; ``shape`` (F, M, T')."""
    out = empty((len(x), *shape), x.dtype)
    nothing = x.new_empty(0, dtype=torch.float64)
    _run(x, steps, x.new_empty((1, 0, *shape)), torch.zeros(len(x), dtype=torch.int64), False, nothing, out)
    return out


def products(x: Tensor, steps: Sequence[kinds.Step], templates: Tensor, index: Tensor, moments: bool) -> Tensor:
    """Run `chain_products` on the CPU."""
    check_index("chain_products", index, len(templates))
    _, kept, channels, filters, _ = templates.shape
    sums = torch.zeros((len(x), channels, filters, kept + 2 * moments), dtype=torch.float64)
    _run(x, steps, templates, index, moments, sums, x.new_empty(0))
    return sums
