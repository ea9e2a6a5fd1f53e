"""Triton kernels of `adaptation_loops`.

Forward in the dtype of the signal; in float32 each state carries the part that its last additions rounded away, as in
the CPU form. Backward in float64 throughout: at an onset the derivative runs through five divisions by states of 1e-3,
whose product overflows float32. The way back keeps only the states before each sample of a tile and passes the sample
through the loops once more when its turn comes.

Quotients are rounded as IEEE 754 says: Triton's ``/`` of float32 is the processor's approximate division, wrong by up
to two units in the last place. The approximate exponential of float32 is exact enough: its relative error is |z| 2^-24
at the argument z, and the limiter sees 1 + exp(z) with z < 0, where that is 0.4 roundings of the sum at most.
"""

# mypy: disable-error-code="no-untyped-def, assignment"
# ruff: noqa: RUF005
# Compiled functions are typed by Triton, which cannot unpack into a tuple.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from psysim.ops.cuda.tiles import TILE, add, launch, read_rows, read_samples, write_rows, write_samples, zeros

__all__ = ["backward", "forward"]


@triton.jit
def _quotient(a, b):
    if b.dtype == tl.float32:
        return tl.div_rn(a, b)
    return a / b


@triton.jit
def _coefficients(gain, table, row, mask, kind: tl.constexpr, N: tl.constexpr):
    """Minimum, rest and factor; then per loop gain, 2/M, 2 M, M - 1 (M: ceiling of the limiter)."""
    values = read_rows(table, row, mask, 3 + N)
    coef = (values[0].to(kind), values[1].to(kind), values[2].to(kind))
    for j in tl.static_range(N):
        ceiling = values[3 + j]
        step = tl.load(gain + j).to(kind)
        coef = coef + (step, (2.0 / ceiling).to(kind), (2.0 * ceiling).to(kind), (ceiling - 1.0).to(kind))
    return coef


@triton.jit
def loops_step(value, state, coef, N: tl.constexpr, LIMITED: tl.constexpr):
    """Pass one sample through the loops: per loop the quotient, the limited quotient and the limiter's exponential."""
    value = tl.where(value < coef[0], coef[0], value)  # in this order NaN stays
    steps = ()
    for j in tl.static_range(N):
        quotient = _quotient(value, state[j])
        value, e = quotient, tl.zeros_like(quotient)
        if LIMITED:
            e = tl.exp(
                tl.minimum((1.0 - quotient) * coef[4 * j + 4], 80.0)
            )  # finite; more makes no difference of 1e-34
            bent = _quotient(coef[4 * j + 5] + tl.zeros_like(e), 1.0 + e) - coef[4 * j + 6]
            value = tl.where(quotient > 1.0, bent, quotient)
        steps = steps + (quotient, value, e)
    return steps


@triton.jit
def loops_move(state, steps, coef, N: tl.constexpr):
    """Move the states towards the limited quotients; float32 states are followed by what they lack of the sum."""
    moved, carries = (), ()
    for j in tl.static_range(N):
        s = state[j]
        change = coef[4 * j + 3] * (steps[3 * j + 1] - s)
        if s.dtype == tl.float32:
            change = state[N + j] + change
            carries = carries + (change - ((s + change) - s),)
        moved = moved + (s + change,)
    return moved + carries


@triton.jit
def _read_states(array, row, mask, kind: tl.constexpr, N: tl.constexpr):
    values = read_rows(array, row, mask, N)
    state, carries = (), ()
    for j in tl.static_range(N):
        s = values[j].to(kind)
        state = state + (s,)
        if kind == tl.float32:
            carries = carries + ((values[j] - s.to(tl.float64)).to(kind),)
    return state + carries


@triton.jit
def _write_states(array, row, mask, state, N: tl.constexpr):
    for j in tl.static_range(N):
        s = state[j].to(tl.float64)
        if state[j].dtype == tl.float32:
            s = s + state[N + j].to(tl.float64)
        tl.store(array + row.to(tl.int64) * N + j, s, mask=mask)


@triton.jit
def _advance(
    source, target, t, mask, state, coef, N: tl.constexpr, LIMITED: tl.constexpr, COUNT: tl.constexpr
):  # fmt: skip
    """Pass ``COUNT`` samples from ``t`` on through the loops."""
    tile = read_samples(source, t, mask, COUNT, 1)
    values = ()
    for i in tl.static_range(COUNT):
        steps = loops_step(tile[i], state, coef, N, LIMITED)
        state = loops_move(state, steps, coef, N)
        values = values + ((steps[3 * N - 2] - coef[1]) * coef[2],)
    write_samples(target, t, mask, values, COUNT, 1)
    return state


@triton.jit
def _forward(
    x, gain, table, begin, out, end, samples, channels, rows,
    N: tl.constexpr, LIMITED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    lane = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = lane < rows
    row = tl.minimum(lane, rows - 1)  # lanes past the end work on good numbers: 0/0 would take the slow way
    kind: tl.constexpr = x.dtype.element_ty
    c = _coefficients(gain, table, row % channels, row < rows, kind, N)
    state = _read_states(begin, row, row < rows, kind, N)
    source, target = x + row.to(tl.int64) * samples, out + row.to(tl.int64) * samples
    whole = samples // 8 * 8
    for t in range(0, whole, 8):
        state = _advance(source, target, t, mask, state, c, N, LIMITED, 8)
    for t in range(whole, samples):
        state = _advance(source, target, t, mask, state, c, N, LIMITED, 1)
    _write_states(end, row, mask, state, N)


def forward(x: Tensor, gain: Tensor, table: Tensor, state: Tensor, limited: bool) -> tuple[Tensor, Tensor]:
    """Run the operator on CUDA; ``gain`` (N,), ``table`` (1 or F, 3 + N): minimum, rest, factor, ceilings."""
    batch, channels, samples = x.shape
    out, end = torch.empty(x.shape, dtype=x.dtype, device=x.device), torch.empty_like(state)
    arrays = x, gain, table, state, out, end
    launch(_forward, batch * channels, *arrays, samples, len(table), N=len(gain), LIMITED=limited)
    return out, end


@triton.jit
def _loops_back(x, g, state, adjoint, coef, N: tl.constexpr, LIMITED: tl.constexpr):
    """Go one sample back: the gradient at the input, at the states before, and at table and gains (2 N + 3 numbers).

    ``state``: before the sample; ``adjoint``: gradient at the states after it.
    """
    steps = loops_step(x, state, coef, N, LIMITED)
    at_rest, at_factor = -g * coef[2], g * (steps[3 * N - 2] - coef[1])
    g = g * coef[2]
    before, ceilings, gains = (), (), ()
    for j in tl.static_range(N - 1, -1, -1):
        quotient, value, e = steps[3 * j], steps[3 * j + 1], steps[3 * j + 2]
        gains = (adjoint[j] * (value - state[j]),) + gains
        g = g + coef[4 * j + 3] * adjoint[j]
        at_ceiling = tl.zeros_like(g)
        if LIMITED:
            over = quotient > 1.0
            sigma = 1.0 / (1.0 + e)
            slope = 4.0 * ((e * sigma) * sigma)
            bend = (2.0 * sigma - 1.0) - slope * (quotient - 1.0) * (0.5 * coef[4 * j + 4])
            at_ceiling = tl.where(over, g * bend, 0.0)
            g = tl.where(over, g * slope, g)
        ceilings = (at_ceiling,) + ceilings
        g = g / state[j]
        before = ((adjoint[j] - coef[4 * j + 3] * adjoint[j]) - g * quotient,) + before
    below = x < coef[0]
    at_minimum = tl.where(below, g, 0.0)
    return tl.where(below, 0.0, g), before, (at_minimum, at_rest, at_factor) + ceilings + gains


@triton.jit
def _backward(
    x, gain, table, begin, grad, grad_end, grad_x, grad_begin, grad_sums, starts, history, samples, channels, rows,
    N: tl.constexpr, LIMITED: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    lane = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = lane < rows
    row = tl.minimum(lane, rows - 1)  # lanes past the end work on good numbers, as in the forward pass
    every = row < rows
    c = _coefficients(gain, table, row % channels, every, tl.float64, N)
    source, slopes = x + row.to(tl.int64) * samples, grad + row.to(tl.int64) * samples
    target = grad_x + row.to(tl.int64) * samples
    tiles = (samples + TILE - 1) // TILE
    size = tl.cast(rows, tl.int64) * N
    state = read_rows(begin, row, every, N)
    for i in range(tiles):  # states at the start of every tile, so that the way back can recompute a tile at a time
        write_rows(starts + i * size, row, mask, state, N)
        for t in range(i * TILE, min((i + 1) * TILE, samples)):
            steps = loops_step(tl.load(source + t).to(tl.float64), state, c, N, LIMITED)
            state = loops_move(state, steps, c, N)
    adjoint, sums = read_rows(grad_end, row, every, N), zeros(BLOCK, 3 + 2 * N)
    for back in range(tiles):
        i = tiles - 1 - back
        first = i * TILE
        count = min(TILE, samples - first)
        tl.debug_barrier()
        state = read_rows(starts + i * size, row, every, N)
        for t in range(count):
            write_rows(history + t * size, row, mask, state, N)
            steps = loops_step(tl.load(source + first + t).to(tl.float64), state, c, N, LIMITED)
            state = loops_move(state, steps, c, N)
        tl.debug_barrier()
        for step in range(count):
            t = count - 1 - step
            before = read_rows(history + t * size, row, every, N)
            u, g = tl.load(source + first + t).to(tl.float64), tl.load(slopes + first + t).to(tl.float64)
            g, adjoint, more = _loops_back(u, g, before, adjoint, c, N, LIMITED)
            sums = add(sums, more, 3 + 2 * N)
            tl.store(target + first + t, g.to(grad_x.dtype.element_ty), mask=mask)
    write_rows(grad_begin, row, mask, adjoint, N)
    write_rows(grad_sums, row, mask, sums, 3 + 2 * N)


def backward(
    grad: Tensor, grad_end: Tensor, x: Tensor, gain: Tensor, table: Tensor, state: Tensor, limited: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients with respect to ``x``, ``gain``, ``table`` and ``state``."""
    (batch, channels, samples), loops = x.shape, len(gain)
    grad_x, grad_begin = torch.empty(x.shape, dtype=x.dtype, device=x.device), torch.empty_like(state)
    sums = state.new_empty((batch, channels, 3 + 2 * loops))
    starts = state.new_empty((triton.cdiv(samples, TILE), *state.shape))
    history = state.new_empty((TILE, *state.shape))
    arrays = x, gain, table, state, grad, grad_end, grad_x, grad_begin, sums, starts, history
    launch(_backward, batch * channels, *arrays, samples, len(table), N=loops, LIMITED=limited, TILE=TILE)
    total = sums.sum(0)
    grad_table = total[:, : 3 + loops]
    return grad_x, total[:, 3 + loops :].sum(0), grad_table if len(table) > 1 else grad_table.sum(0, True), grad_begin
