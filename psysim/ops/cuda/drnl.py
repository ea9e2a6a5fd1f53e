"""Triton kernels of `drnl`. Filters, compression and states are float64 whatever the dtype of the signal.

The way back treats a tile of samples cascade after cascade and keeps in memory what is between them: the coefficients,
adjoint states and sums of all eleven sections of a usual channel do not fit into the registers at once. The memory of
a program is in the order (number, lane), so that neighbouring lanes read neighbouring places and the distances are
known when the kernel is compiled: with (number, row) their addresses alone would fill the registers.
"""

# mypy: disable-error-code="no-untyped-def, assignment"
# ruff: noqa: RUF005
# Compiled functions are typed by Triton, which cannot unpack into a tuple.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from psysim.ops.cuda.compress import compressed, slopes
from psysim.ops.cuda.sosfilt import sections_back, sections_step
from psysim.ops.cuda.tiles import (
    TILE,
    add,
    launch,
    read_rows,
    read_samples,
    sum_middle,
    write_rows,
    write_samples,
    zeros,
)
from psysim.ops.cuda.tuning import SHAPES

__all__ = ["backward", "forward"]

MOST = max(shape.block for shape in SHAPES)


@triton.jit
def _read(place, mask, size: tl.constexpr, STRIDE: tl.constexpr):
    """Load ``size`` float64 numbers, ``STRIDE`` apart, of every lane; ``place``: pointers to the first."""
    values = ()
    for k in tl.static_range(size):
        values = values + (tl.load(place + k * STRIDE, mask=mask, other=0.0),)
    return values


@triton.jit
def _write(place, mask, values, size: tl.constexpr, STRIDE: tl.constexpr):
    """Store a tuple of vectors ``STRIDE`` apart: the inverse of `_read`."""
    for k in tl.static_range(size):
        tl.store(place + k * STRIDE, values[k], mask=mask)


@triton.jit
def _bend(v, stick):
    linear, gain, exponent = stick
    return compressed(v, linear, gain, exponent)


@triton.jit
def _step(u, state, coef, stick, A: tl.constexpr, B: tl.constexpr, C: tl.constexpr):
    """Pass one sample through both paths: the new state, and the inputs of the sections of each cascade and its output.

    ``A``, ``B``, ``C``: numbers of sections in the linear path, before and after the compression.
    """
    straight, one, of_one = sections_step(u, state[: 2 * A], coef[: 5 * A], A)
    v, two, of_two = sections_step(u, state[2 * A : 2 * A + 2 * B], coef[5 * A : 5 * A + 5 * B], B)
    bent, three, of_three = sections_step(_bend(v, stick), state[2 * A + 2 * B :], coef[5 * A + 5 * B :], C)
    return one + two + three, of_one + (straight,) + of_two + (v,) + of_three + (bent,)


@triton.jit
def _advance(
    source, target, t, mask, state, coef, stick,
    A: tl.constexpr, B: tl.constexpr, C: tl.constexpr, COUNT: tl.constexpr,
):  # fmt: skip
    """Filter ``COUNT`` samples from ``t`` on."""
    tile = read_samples(source, t, mask, COUNT, 1)
    values = ()
    for i in tl.static_range(COUNT):
        state, signals = _step(tile[i].to(tl.float64), state, coef, stick, A, B, C)
        values = values + (signals[A] + signals[A + B + C + 2],)
    write_samples(target, t, mask, values, COUNT, 1)
    return state


@triton.jit
def _forward(
    x, coef, stick, begin, out, end, samples, channels, rows,
    A: tl.constexpr, B: tl.constexpr, C: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = row < rows
    c = read_rows(coef, row % channels, mask, 5 * (A + B + C))
    bend = read_rows(stick, row % channels, mask, 3)
    state = read_rows(begin, row, mask, 2 * (A + B + C))
    source, target = x + (row // channels).to(tl.int64) * samples, out + row.to(tl.int64) * samples
    whole = samples // 8 * 8
    for t in range(0, whole, 8):
        state = _advance(source, target, t, mask, state, c, bend, A, B, C, 8)
    for t in range(whole, samples):
        state = _advance(source, target, t, mask, state, c, bend, A, B, C, 1)
    write_rows(end, row, mask, state, 2 * (A + B + C))


def forward(
    x: Tensor, sections: Tensor, compression: Tensor, state: Tensor, count_linear: int, count_before: int
) -> tuple[Tensor, Tensor]:
    """Run the operator on CUDA; ``sections`` (F, S, 5) of the three cascades, ``compression`` (F, 3)."""
    (batch, samples), channels = x.shape, len(sections)
    out, end = torch.empty((batch, channels, samples), dtype=x.dtype, device=x.device), torch.empty_like(state)
    arrays = x, sections, compression, state, out, end
    launch(_forward, batch * channels, *arrays, samples, channels, **_counts(sections, count_linear, count_before))
    return out, end


def _counts(sections: Tensor, count_linear: int, count_before: int) -> dict[str, int]:
    return {"A": count_linear, "B": count_before, "C": sections.shape[1] - count_linear - count_before}


@triton.jit
def _step_before(u, state, coef, A: tl.constexpr, B: tl.constexpr):
    """Pass one sample through the nonlinear path up to the compression, as `_step`; the other states stay."""
    v, two, _inputs = sections_step(u, state[2 * A : 2 * A + 2 * B], coef[5 * A : 5 * A + 5 * B], B)
    return state[: 2 * A] + two + state[2 * A + 2 * B :], (v,)


@triton.jit
def _forth(
    source, first, count, mask, state, coef, stick, kept, A: tl.constexpr, B: tl.constexpr, C: tl.constexpr,
    KEPT: tl.constexpr, LEARN: tl.constexpr, KEEP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Pass ``count`` samples through what the way back needs; store their ``KEPT`` signals if ``KEEP``."""
    for t in range(count):
        u = tl.load(source + first + t, mask=mask, other=0.0).to(tl.float64)
        if LEARN:
            state, signals = _step(u, state, coef, stick, A, B, C)
        else:
            state, signals = _step_before(u, state, coef, A, B)
        if KEEP:
            _write(kept + t * ((KEPT + 2) * BLOCK), mask, signals, KEPT, BLOCK)
    return state


@triton.jit
def _add_products(sums, before, adjoint, kept, mask, S: tl.constexpr, BLOCK: tl.constexpr):
    """Add the gradients at the coefficients that come from one sample; ``kept``: inputs of the sections, and output."""
    after = ()
    for s in tl.static_range(S):
        u, y = _read(kept + s * BLOCK, mask, 2, BLOCK)
        lam, lam1, lam2 = before[2 * s], adjoint[2 * s], adjoint[2 * s + 1]
        more = (lam * u, lam1 * u, lam2 * u, -lam1 * y, -lam2 * y)
        after = after + add(sums[5 * s : 5 * s + 5], more, 5)
    return after


@triton.jit
def _retreat(
    gradients, count, mask, coef, adjoints, totals, kept,
    S: tl.constexpr, PITCH: tl.constexpr, LEARN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Go back over ``count`` samples of a cascade, from the gradients at its output to those at its input, in place.

    All pointers are to the first number of every lane; samples lie ``PITCH`` apart in ``gradients`` and ``kept``.
    """
    c, adjoint = _read(coef, mask, 5 * S, 1), _read(adjoints, mask, 2 * S, BLOCK)
    if LEARN:
        sums = _read(totals, mask, 5 * S, BLOCK)
    for step in range(count):
        t = count - 1 - step
        g, before = sections_back(tl.load(gradients + t * PITCH, mask=mask, other=0.0), adjoint, c, S)
        if LEARN:
            sums = _add_products(sums, before, adjoint, kept + t * PITCH, mask, S, BLOCK)
        adjoint = before
        tl.store(gradients + t * PITCH, g, mask=mask)
    _write(adjoints, mask, adjoint, 2 * S, BLOCK)
    if LEARN:
        _write(totals, mask, sums, 5 * S, BLOCK)


@triton.jit
def _bend_back(gradients, count, mask, stick, totals, v, PITCH: tl.constexpr, BLOCK: tl.constexpr):
    """Go back over ``count`` samples of the compression, in place; ``v``: its input."""
    linear, gain, exponent = stick
    s0, s1, s2 = _read(totals, mask, 3, BLOCK)
    for t in range(count):
        g = tl.load(gradients + t * PITCH, mask=mask, other=0.0)
        sample = tl.load(v + t * PITCH, mask=mask, other=0.0)
        by_v, by_linear, by_gain, by_exponent = slopes(sample, linear, gain, exponent)
        s0, s1, s2 = s0 + g * by_linear, s1 + g * by_gain, s2 + g * by_exponent
        tl.store(gradients + t * PITCH, g * by_v, mask=mask)
    _write(totals, mask, (s0, s1, s2), 3, BLOCK)


@triton.jit
def _tile_back(
    around, through, count, mask, coef, stick, adjoints, totals, kept, v,
    A: tl.constexpr, B: tl.constexpr, C: tl.constexpr, PITCH: tl.constexpr, LEARN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Go back over a tile; ``around``, ``through``: gradients of the linear and of the nonlinear path, in place."""
    AB: tl.constexpr = A + B
    _retreat(
        through, count, mask, coef + 5 * AB, adjoints + 2 * AB * BLOCK, totals + 5 * AB * BLOCK,
        kept + (AB + 2) * BLOCK, C, PITCH, LEARN, BLOCK,
    )  # fmt: skip
    _bend_back(through, count, mask, stick, totals + 5 * (AB + C) * BLOCK, v, PITCH, BLOCK)
    _retreat(
        through, count, mask, coef + 5 * A, adjoints + 2 * A * BLOCK, totals + 5 * A * BLOCK, kept + (A + 1) * BLOCK,
        B, PITCH, LEARN, BLOCK,
    )  # fmt: skip
    _retreat(around, count, mask, coef, adjoints, totals, kept, A, PITCH, LEARN, BLOCK)


@triton.jit
def _backward(
    x, coef, stick, begin, grad, grad_end, grad_rows, grad_coef, grad_stick, grad_begin, starts, work,
    samples, channels, rows,
    A: tl.constexpr, B: tl.constexpr, C: tl.constexpr, LEARN: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    program, lane = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    row = tl.program_id(0) * BLOCK + lane
    mask = row < rows
    S: tl.constexpr = A + B + C
    source, given = x + (row // channels).to(tl.int64) * samples, grad + row.to(tl.int64) * samples
    target, own = grad_rows + row.to(tl.int64) * samples, coef + row % channels * (5 * S)
    bend = read_rows(stick, row % channels, mask, 3)
    # work: gradients at the states, at the coefficients and at the compression, and of every sample of a tile what
    # `_forth` keeps and the gradients of the linear and the nonlinear path
    KEPT: tl.constexpr = S + 3 if LEARN else 1
    PITCH: tl.constexpr = (KEPT + 2) * BLOCK
    adjoints = work + program * ((7 * S + 3) * BLOCK + TILE * PITCH) + lane
    totals = adjoints + 2 * S * BLOCK
    kept = totals + (5 * S + 3) * BLOCK
    around, through = kept + KEPT * BLOCK, kept + (KEPT + 1) * BLOCK
    v = kept + (A + B + 1) * BLOCK if LEARN else kept
    _write(adjoints, mask, read_rows(grad_end, row, mask, 2 * S), 2 * S, BLOCK)
    _write(totals, mask, zeros(BLOCK, 5 * S + 3), 5 * S + 3, BLOCK)
    tiles = (samples + TILE - 1) // TILE
    place = starts + program * tiles * (2 * S * BLOCK) + lane
    state, c = read_rows(begin, row, mask, 2 * S), _read(own, mask, 5 * S, 1)
    for i in range(tiles):  # states at the start of every tile, so that the way back can recompute a tile at a time
        _write(place + tl.cast(i, tl.int64) * (2 * S * BLOCK), mask, state, 2 * S, BLOCK)
        count = min(TILE, samples - i * TILE)
        state = _forth(source, i * TILE, count, mask, state, c, bend, kept, A, B, C, KEPT, LEARN, False, BLOCK)
    for back in range(tiles):
        i = tiles - 1 - back
        first, count = i * TILE, min(TILE, samples - i * TILE)
        tl.debug_barrier()
        state, c = _read(place + tl.cast(i, tl.int64) * (2 * S * BLOCK), mask, 2 * S, BLOCK), _read(own, mask, 5 * S, 1)
        _forth(source, first, count, mask, state, c, bend, kept, A, B, C, KEPT, LEARN, True, BLOCK)
        for t in range(count):
            g = tl.load(given + first + t, mask=mask, other=0.0).to(tl.float64)
            _write(around + t * PITCH, mask, (g, g), 2, BLOCK)
        tl.debug_barrier()
        _tile_back(around, through, count, mask, own, bend, adjoints, totals, kept, v, A, B, C, PITCH, LEARN, BLOCK)
        for t in range(count):
            g0, g1 = _read(around + t * PITCH, mask, 2, BLOCK)
            tl.store(target + first + t, (g0 + g1).to(grad_rows.dtype.element_ty), mask=mask)
    write_rows(grad_begin, row, mask, _read(adjoints, mask, 2 * S, BLOCK), 2 * S)
    write_rows(grad_coef, row, mask, _read(totals, mask, 5 * S, BLOCK), 5 * S)
    write_rows(grad_stick, row, mask, _read(totals + 5 * S * BLOCK, mask, 3, BLOCK), 3)


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
    (batch, channels, samples), count = grad.shape, sections.shape[1]
    grad_rows, grad_begin = torch.empty(grad.shape, dtype=x.dtype, device=x.device), torch.empty_like(state)
    grad_coef, grad_stick = (value.new_empty((batch, *value.shape)) for value in (sections, compression))
    lanes = triton.cdiv(batch * channels, MOST) * MOST  # whole programs
    starts = state.new_empty((lanes, triton.cdiv(samples, TILE), 2 * count))
    work = state.new_empty((lanes, 7 * count + 3 + TILE * ((count + 3 if learn else 1) + 2)))
    results = grad_rows, grad_coef, grad_stick, grad_begin
    arrays = x, sections, compression, state, grad, grad_end, *results, starts, work
    counts = _counts(sections, count_linear, count_before)
    launch(_backward, batch * channels, *arrays, samples, channels, **counts, LEARN=learn, TILE=TILE)
    return sum_middle(grad_rows), grad_coef.sum(0), grad_stick.sum(0), grad_begin
