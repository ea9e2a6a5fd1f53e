"""Numba kernel of `chain_products`: a tile of samples goes through all steps while it is in the first-level cache.

A block is 16 rows of one auditory channel where the batch allows it, ordered by condition, so that its rows mostly
share a template and one number read serves 16 lanes. After every step the tile is rounded to the dtype of the sound, as
if it had been in memory: the representation has the same bits as that of the steps run one by one. Sums are float64.
"""

# mypy: disable-error-code="no-untyped-def"
# Compiled functions are typed by numba.

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from psysim.ops import steps as kinds
from psysim.ops._adaptation import tables
from psysim.ops._gammatone import pole_coefficients as gammatone_poles
from psysim.ops._modulation import pole_coefficients as bank_poles
from psysim.ops._sosfilt import section_coefficients
from psysim.ops.cpu import adaptation, gammatone, sosfilt
from psysim.ops.cpu.modulation import output_step, pole_step
from psysim.ops.cpu.simd import LANES, convert, load, select, splat, store
from psysim.ops.cpu.template import check_index
from psysim.ops.cpu.tiles import TILE, blocks_of, flat, flush, kernel, read_tile, run_blocks, scratch

__all__ = ["forward"]

# Kinds in the plan of a chain. A row of the plan: kind, where its constants begin in the table, where its vectors begin
# among the float64 coefficients, the float64 states, and those in the dtype of the sound; then up to three sizes.
READ, GAMMATONE, HALFWAVE, SECTIONS, LOOPS, BANK = range(6)
WIDTH = 8


def _plan_gammatone(step: kinds.Gammatone) -> tuple[Any, ...]:
    order = int(step.order)
    return GAMMATONE, [gammatone_poles(step.decay, step.angle)], 3, 2 * order, 0, (order, len(step.decay))


def _plan_sections(step: kinds.Sections) -> tuple[Any, ...]:
    coef = section_coefficients(step.sos if step.sos.ndim == 3 else step.sos[None])
    return SECTIONS, [coef], 5 * coef.shape[1], 2 * coef.shape[1], 0, (coef.shape[1], len(coef))


def _plan_loops(step: kinds.Loops) -> tuple[Any, ...]:
    gain, table, start = tables(step.decay, step.minimum, step.limit)
    loops = len(gain)
    soft = 3 + (adaptation.PER_LOOP + 2) * loops
    return LOOPS, [gain, table, start], 0, 0, soft, (loops, len(table), int(step.limit > 1.0))


def _plan_bank(step: kinds.Bank) -> tuple[Any, ...]:
    low, poles = section_coefficients(step.lowpass_sos), bank_poles(step.decay, step.angle, step.scale)
    channels, filters = step.valid.shape
    states = 2 * (len(low) + len(poles))
    parts = [low, poles, step.envelope.double(), step.valid.double()]
    return BANK, parts, 5 * len(low) + filters, states, 0, (len(low), filters, channels)


_PLANS: dict[type[kinds.Step], Callable[[Any], tuple[Any, ...]]] = {
    kinds.Gammatone: _plan_gammatone,
    kinds.HalfWave: lambda step: (HALFWAVE, [], 0, 0, 0, ()),  # noqa: ARG005
    kinds.Sections: _plan_sections,
    kinds.Loops: _plan_loops,
    kinds.Bank: _plan_bank,
}


def _plan(steps: Sequence[kinds.Step]) -> tuple[np.ndarray[Any, Any], Tensor, np.ndarray[Any, Any]]:
    """Return the plan (steps, `WIDTH`), the table of constants, and how many vectors of each sort there are."""
    rows, table, vectors = [], [], np.zeros(3, np.int64)
    size = 0
    if not steps[0].source:
        rows.append([READ] + [0] * (WIDTH - 1))
    for step in steps:
        kind, parts, *counts, sizes = _PLANS[type(step)](step)
        rows.append([kind, size, *vectors.tolist(), *sizes, *[0] * (3 - len(sizes))])
        vectors += np.array(counts)
        table += [part.detach().double().reshape(-1) for part in parts]
        size += sum(part.numel() for part in parts)
    return np.array(rows, np.int64), torch.cat(table), vectors


@kernel
def _set_up(row, table, channel, coef, soft):
    """Write the coefficients of a step, one number per lane, and its states in the dtype of the sound."""
    kind, base = row[0], row[1]
    at, soft_at = row[2] * LANES, row[4] * LANES
    if kind == GAMMATONE:
        channels = row[6]
        lanes = gammatone.lane_coefficients(table[base : base + 3 * channels], channel, channels)
        coef[at : at + lanes.size] = lanes
    elif kind == SECTIONS:
        sections, channels = row[5], row[6]
        lanes = sosfilt.lane_coefficients(table[base : base + 5 * sections * channels], channel, channels, sections)
        coef[at : at + lanes.size] = lanes
    elif kind == LOOPS:
        loops, channels = row[5], row[6]
        gain, rest = table[base : base + loops], table[base + loops :]
        lanes = adaptation.lane_coefficients(gain, rest, channel, channels, soft)
        soft[soft_at : soft_at + lanes.size] = lanes
        starts = rest[channels * (3 + loops) :]
        for j in range(loops):
            for lane in range(LANES):
                place = soft_at + lanes.size + j * LANES + lane
                soft[place] = starts[channel[lane] % channels * loops + j]
    elif kind == BANK:
        sections, filters = row[5], row[6]
        for k in range(5 * sections):
            coef[at + k * LANES : at + (k + 1) * LANES] = table[base + k]
        valid = table[base + 5 * sections + 5 * (filters - 1) :]
        for m in range(filters):
            for lane in range(LANES):
                coef[at + (5 * sections + m) * LANES + lane] = valid[channel[lane] * filters + m]


@kernel
def _widen(tile, count, wide):
    for t in range(count):
        store(wide, t * LANES, convert(load(tile, t * LANES), wide))


@kernel
def _narrow(wide, count, tile):
    for t in range(count):
        store(tile, t * LANES, convert(load(wide, t * LANES), tile))


@kernel
def _advance(row, count, coef, state, soft, tile, wide, none, soft_none):
    """Pass a tile through one step that is neither the first nor the last."""
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
    elif row[0] == LOOPS:
        loops = row[5]
        begin = soft_at + (3 + adaptation.PER_LOOP * loops) * LANES
        states, carry = soft[begin : begin + loops * LANES], soft[begin + loops * LANES : begin + 2 * loops * LANES]
        adaptation.advance(tile, count, soft[soft_at:begin], states, carry, row[7] > 0, soft_none)
        rest, factor = load(soft, soft_at + LANES), load(soft, soft_at + 2 * LANES)
        for t in range(count):
            store(tile, t * LANES, (load(tile, t * LANES) - rest) * factor)


@kernel
def _accumulate(real, count, values, sums, at):
    """Add a filter's output times its template to two sums: even and odd samples, so that additions overlap."""
    even, odd = load(sums, at), load(sums, at + LANES)
    for t in range(count):
        even, odd = odd, even + convert(load(real, t * LANES), sums) * convert(load(values, t * LANES), sums)
    if count % 2:
        even, odd = odd, even
    store(sums, at, even)
    store(sums, at + LANES, odd)


@kernel
def _accumulate_shared(real, count, template, start, sums, at):
    """Do the same with one template for all lanes: one number serves them all."""
    even, odd = load(sums, at), load(sums, at + LANES)
    for t in range(count):
        even, odd = odd, even + convert(load(real, t * LANES), sums) * splat(sums, template[start + t])
    if count % 2:
        even, odd = odd, even
    store(sums, at, even)
    store(sums, at + LANES, odd)


@kernel
def _band_shared(tile, count, coef, mode, present, state, at, real, template, start, sums, to):
    """Bandpass and `_accumulate_shared` in one loop, a quarter faster: the way of the one-template observers."""
    b, p, w, c = splat(tile, coef[0]), splat(tile, 1.0 - coef[1]), splat(tile, coef[2]), splat(real, coef[3])
    re, im = load(state, at), load(state, at + LANES)
    even, odd = load(sums, to), load(sums, to + LANES)
    for t in range(count):
        re, im = pole_step(re, im, load(tile, t * LANES), b, p, w)
        y = output_step(convert(re, real), convert(im, real), mode, c, present)
        even, odd = odd, even + convert(y, sums) * splat(sums, template[start + t])
    if count % 2:
        even, odd = odd, even
    store(state, at, re)
    store(state, at + LANES, im)
    store(sums, to, even)
    store(sums, to + LANES, odd)


@kernel
def _add_moments(real, count, sums, at):
    first, second = load(sums, at), load(sums, at + 2 * LANES)
    for t in range(count):
        value = convert(load(real, t * LANES), sums)
        first, second = first + value, second + value * value
    store(sums, at, first)
    store(sums, at + 2 * LANES, second)


@kernel
def _band(tile, count, coef, mode, present, state, at, real):
    """Bandpass over a tile: its output in ``real``."""
    b, p, w, c = splat(tile, coef[0]), splat(tile, 1.0 - coef[1]), splat(tile, coef[2]), splat(real, coef[3])
    re, im = load(state, at), load(state, at + LANES)
    for t in range(count):
        re, im = pole_step(re, im, load(tile, t * LANES), b, p, w)
        store(real, t * LANES, output_step(convert(re, real), convert(im, real), mode, c, present))
    store(state, at, re)
    store(state, at + LANES, im)


@kernel
def _bank(row, count, start, table, coef, state, tile, wide, low, real, templates, places, shared, values,
          per_filter, moments, sums, none):  # fmt: skip
    """Run all filters on a tile and add their outputs to the sums."""
    sections, filters = row[5], row[6]
    at, begin = row[2] * LANES, row[3] * LANES
    has = coef[at + 5 * sections * LANES : at + (5 * sections + filters) * LANES]
    bands = table[row[1] + 5 * sections :]
    cut = begin + 2 * sections * LANES
    kept = places.shape[0]
    width = 2 * (kept + (2 if moments else 0)) * LANES
    _widen(tile, count, wide)
    for m in range(filters):
        if not has[m * LANES : (m + 1) * LANES].any():
            continue
        present = load(has, m * LANES) > 0.5
        to, first = m * width, m * per_filter + start
        if m == 0:
            low[:] = wide
            sosfilt.sections_advance(low, count, coef[at : at + 5 * sections * LANES], state[begin:cut], none)
            for t in range(count):
                store(real, t * LANES, convert(select(present, load(low, t * LANES), 0.0), real))
        else:
            mode, c, s = bands[4 * (filters - 1) + m - 1], bands[4 * (m - 1) : 4 * m], cut + 2 * (m - 1) * LANES
            if shared and kept == 1 and not moments:
                _band_shared(wide, count, c, mode, present, state, s, real, templates, places[0, 0] + first, sums, to)
                continue
            _band(wide, count, c, mode, present, state, s, real)
        for k in range(kept):
            if shared:
                _accumulate_shared(real, count, templates, places[k, 0] + first, sums, to + 2 * k * LANES)
            else:
                read_tile(templates, places[k] + m * per_filter, start, count, values)
                _accumulate(real, count, values, sums, to + 2 * k * LANES)
        if moments:
            _add_moments(real, count, sums, to + 2 * kept * LANES)


@kernel
def _lanes_of(block, batch, channels, order):
    """Channel and batch row of every lane of a block."""
    channel, item = np.empty(LANES, np.int64), np.empty(LANES, np.int64)
    for lane in range(LANES):
        place = min(block * LANES + lane, batch * channels - 1)
        channel[lane], item[lane] = place // batch, order[place % batch]
    return channel, item


@kernel
def _forward(block, x, plan, table, vectors, templates, index, order, sizes, moments, out):
    channels, samples, filters, kept, frames = sizes
    batch = index.size
    channel, item = _lanes_of(block, batch, channels, order)
    coef, state = scratch(max(1, vectors[0]) * LANES, table), scratch(max(1, vectors[1]) * LANES, table)
    soft = scratch(max(1, vectors[2]) * LANES, x)
    for i in range(plan.shape[0]):
        _set_up(plan[i], table, channel, coef, soft)
    per_filter = frames
    places = np.empty((kept, LANES), np.int64)  # where the template of every lane's first filter begins
    shared = True
    for lane in range(LANES):
        for k in range(kept):
            places[k, lane] = ((index[item[lane]] * kept + k) * channels + channel[lane]) * filters * frames
        shared = shared and places[0, lane] == places[0, 0]
    source = item * samples if plan[0, 0] == GAMMATONE else (item * channels + channel) * samples
    outputs = kept + 2 if moments else kept
    sums = scratch(2 * outputs * filters * LANES, table)
    tile, real, values = scratch(TILE * LANES, x), scratch(TILE * LANES, x), scratch(TILE * LANES, templates)
    wide, low, none = scratch(TILE * LANES, table), scratch(TILE * LANES, table), scratch(LANES, table)
    real64, imag64, soft_none = scratch(TILE * LANES, table), scratch(TILE * LANES, table), scratch(LANES, x)
    last = plan.shape[0] - 1
    for start in range(0, samples, TILE):
        count = min(TILE, samples - start)
        if plan[0, 0] == GAMMATONE:
            read_tile(x, source, start, count, wide)
            at, state_at, stages = plan[0, 2] * LANES, plan[0, 3] * LANES, plan[0, 5]
            lanes, states = coef[at : at + 3 * LANES], state[state_at : state_at + 2 * stages * LANES]
            gammatone.advance(wide, count, lanes, states, stages, real64, imag64, none)
            for t in range(count):
                store(tile, t * LANES, convert(2.0 * load(real64, t * LANES), tile))
        else:
            read_tile(x, source, start, count, tile)
        for i in range(1, last):
            _advance(plan[i], count, coef, state, soft, tile, wide, none, soft_none)
        _bank(plan[last], count, start, table, coef, state, tile, wide, low, real, templates, places, shared,
              values, per_filter, moments, sums, none)  # fmt: skip
        flush(state)
    for lane in range(LANES):
        for k in range(filters * outputs):
            both = sums[2 * k * LANES + lane] + sums[(2 * k + 1) * LANES + lane]
            out[(item[lane] * channels + channel[lane]) * filters * outputs + k] = both


def forward(
    x: Tensor,
    kind_numbers: Sequence[int],
    tensors: Sequence[Tensor],
    numbers: Sequence[float],
    templates: Tensor,
    index: Tensor,
    moments: bool,
) -> Tensor:
    """Run the operator on the CPU."""
    check_index("chain_products", index, len(templates))
    plan, table, vectors = _plan(kinds.rebuild(kind_numbers, tensors, numbers))
    _, kept, channels, filters, frames = templates.shape
    out = torch.zeros((len(x), channels, filters, kept + 2 * moments), dtype=torch.float64)
    order = flat(torch.argsort(index, stable=True))
    sizes = channels, x.shape[-1], filters, kept, frames
    arrays = flat(x), plan, flat(table), vectors, flat(templates), flat(index), order, sizes, moments, flat(out)
    run_blocks(_forward, blocks_of(len(x) * channels), *arrays)
    return out
