"""A chain of steps as arrays that the fused kernel can read: the plan, the constants, and their set-up per block.

Every row of the plan is a step: its kind; where its constants begin in the table; where its vectors begin among the
float64 coefficients, the float64 states, and those in the dtype of the sound; then up to four sizes of its own.
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
from psysim.ops._hair_cell import circuit_coefficients
from psysim.ops._modulation import pole_coefficients as bank_poles
from psysim.ops._resample import phases_of
from psysim.ops._sosfilt import section_coefficients
from psysim.ops.cpu import adaptation, gammatone, hair_cell, sosfilt
from psysim.ops.cpu.compress import split_coefficients
from psysim.ops.cpu.simd import LANES
from psysim.ops.cpu.tiles import kernel, read_state

__all__ = [
    "BANK",
    "DECIMATE",
    "DRNL",
    "GAMMATONE",
    "HAIR_CELL",
    "HALFWAVE",
    "LOOPS",
    "READ",
    "SECTIONS",
    "SQUARE",
    "plan_of",
    "set_up",
]

READ, GAMMATONE, DRNL, HALFWAVE, SECTIONS, HAIR_CELL, LOOPS, DECIMATE, BANK, SQUARE = range(10)
WIDTH = 9

Part = tuple[int, list[Tensor], tuple[int, int, int], tuple[int, ...]]
"""Kind, constants, numbers of vectors (coefficients, states, in the dtype of the sound), sizes."""


def _gammatone(step: kinds.Gammatone) -> Part:
    order = int(step.order)
    return GAMMATONE, [gammatone_poles(step.decay, step.angle)], (3, 2 * order, 0), (order, len(step.decay))


def _drnl(step: kinds.Drnl) -> Part:
    coef = section_coefficients(torch.cat([step.linear_sos, step.before_sos, step.after_sos], 1))
    channels, sections = coef.shape[:2]
    stick = [value.expand(channels) for value in (step.linear, step.gain, step.exponent)]
    compression = split_coefficients(torch.stack(stick, -1))
    sizes = sections, step.linear_sos.shape[1], step.before_sos.shape[1], channels
    return DRNL, [coef, compression], (5 * sections, 2 * sections, 4), sizes


def _sections(step: kinds.Sections) -> Part:
    coef = section_coefficients(step.sos if step.sos.ndim == 3 else step.sos[None])
    sections = coef.shape[1]
    return SECTIONS, [coef], (5 * sections, 2 * sections, 0), (sections, len(coef))


def _hair_cell(step: kinds.HairCell) -> Part:
    coef = circuit_coefficients(step.constants if step.constants.ndim == 2 else step.constants[None], step.fs)
    return HAIR_CELL, [coef], (0, 0, hair_cell.SIZE + 1), (len(coef),)


def _loops(step: kinds.Loops) -> Part:
    gain, table, start = tables(step.decay, step.minimum, step.limit)
    loops = len(gain)
    vectors = 3 + (adaptation.PER_LOOP + 2) * loops
    return LOOPS, [gain, table, start], (0, 0, vectors), (loops, len(table), int(step.limit > 1.0))


def _decimate(step: kinds.Decimate) -> Part:
    weights = phases_of(step.taps, 1, int(step.down), 0).weights
    return DECIMATE, [weights], (0, 0, 0), (int(step.down), len(step.taps) // 2)


def _bank(step: kinds.Bank) -> Part:
    low, poles = section_coefficients(step.lowpass_sos), bank_poles(step.decay, step.angle, step.scale)
    channels, filters = step.valid.shape
    constants = [low, poles, step.envelope.double(), step.valid.double()]
    return BANK, constants, (5 * len(low) + filters, 2 * (len(low) + len(poles)), 0), (len(low), filters, channels)


_PARTS: dict[type[kinds.Step], Callable[[Any], Part]] = {
    kinds.Gammatone: _gammatone,
    kinds.Drnl: _drnl,
    kinds.HalfWave: lambda step: (HALFWAVE, [], (0, 0, 0), ()),  # noqa: ARG005
    kinds.Sections: _sections,
    kinds.Square: lambda step: (SQUARE, [step.gain], (0, 0, 1), (len(step.gain),)),
    kinds.HairCell: _hair_cell,
    kinds.Loops: _loops,
    kinds.Decimate: _decimate,
    kinds.Bank: _bank,
}


def plan_of(steps: Sequence[kinds.Step]) -> tuple[np.ndarray[Any, Any], Tensor, np.ndarray[Any, Any]]:
    """Return the plan (steps, `WIDTH`), the table of constants, and how many vectors of each sort there are."""
    rows, table, vectors, size = [], [torch.zeros(1, dtype=torch.float64)], np.zeros(3, np.int64), 1
    if not steps[0].source:
        rows.append([READ] + [0] * (WIDTH - 1))
    for step in steps:
        kind, constants, counts, sizes = _PARTS[type(step)](step)
        rows.append([kind, size, *vectors.tolist(), *sizes, *[0] * (4 - len(sizes))])
        vectors += np.array(counts)
        table += [part.detach().double().reshape(-1) for part in constants]
        size += sum(part.numel() for part in constants)
    return np.array(rows, np.int64), torch.cat(table), np.maximum(vectors, 1)


@kernel
def set_up(row, table, channel, coef, soft):
    """Write the coefficients of a step, one number per lane, and its states in the dtype of the sound."""
    kind, constants = row[0], table[row[1] :]
    at, soft_at = row[2] * LANES, row[4] * LANES
    if kind == GAMMATONE:
        lanes = gammatone.lane_coefficients(constants, channel, row[6])
        coef[at : at + lanes.size] = lanes
    elif kind == DRNL:
        sections, channels = row[5], row[8]
        lanes = sosfilt.lane_coefficients(constants, channel, channels, sections)
        coef[at : at + lanes.size] = lanes
        stick = read_state(constants[5 * sections * channels :], channel, 4, soft)
        soft[soft_at : soft_at + stick.size] = stick
    elif kind == SECTIONS:
        lanes = sosfilt.lane_coefficients(constants, channel, row[6], row[5])
        coef[at : at + lanes.size] = lanes
    elif kind == SQUARE:
        soft[soft_at : soft_at + LANES] = read_state(constants, channel % row[5], 1, soft)
    elif kind == HAIR_CELL:
        lanes = read_state(constants, channel % row[5], hair_cell.SIZE, soft)
        soft[soft_at : soft_at + lanes.size] = lanes
    elif kind == LOOPS:
        _set_up_loops(row, constants, channel, soft, soft_at)
    elif kind == BANK:
        sections, filters = row[5], row[6]
        for k in range(5 * sections):
            coef[at + k * LANES : at + (k + 1) * LANES] = constants[k]
        valid = constants[5 * sections + 5 * (filters - 1) :]
        for m in range(filters):
            for lane in range(LANES):
                coef[at + (5 * sections + m) * LANES + lane] = valid[channel[lane] * filters + m]


@kernel
def _set_up_loops(row, constants, channel, soft, soft_at):
    loops, channels = row[5], row[6]
    gain, table = constants[:loops], constants[loops:]
    lanes = adaptation.lane_coefficients(gain, table, channel, channels, soft)
    soft[soft_at : soft_at + lanes.size] = lanes
    starts = table[channels * (3 + loops) :]
    for j in range(loops):
        for lane in range(LANES):
            soft[soft_at + lanes.size + j * LANES + lane] = starts[channel[lane] % channels * loops + j]
