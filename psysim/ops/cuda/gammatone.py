"""Triton kernels of `gammatone`. States and arithmetic are float64 whatever the dtype of the signal.

The way forth keeps the states of every eighth sample; the way back recomputes eight samples at a time from them and
holds what it needs of these in registers.
"""

# mypy: disable-error-code="no-untyped-def, assignment"
# ruff: noqa: RUF005
# Compiled functions are typed by Triton, which cannot unpack into a tuple.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from psysim.ops.base import complex_of
from psysim.ops.cuda import chunked
from psysim.ops.cuda.tiles import (
    launch,
    read_again,
    read_rows,
    read_samples,
    sum_middle,
    write_rows,
    write_samples,
    zeros,
)

__all__ = ["backward", "forward"]


@triton.jit
def stages_step(u, state, coef, ORDER: tl.constexpr):
    """Pass one sample through the cascade: the new state, whose last two numbers are the output."""
    gain, pole_re, pole_im = coef
    after = ()
    for k in tl.static_range(ORDER):
        re, im = state[2 * k], state[2 * k + 1]
        if k == 0:
            after = after + ((gain * u + pole_re * re) - pole_im * im, pole_re * im + pole_im * re)
        else:
            out_re = (gain * after[2 * k - 2] + pole_re * re) - pole_im * im
            out_im = (gain * after[2 * k - 1] + pole_re * im) + pole_im * re
            after = after + (out_re, out_im)
    return after


@triton.jit
def _advance(source, target, t, mask, state, coef, ORDER: tl.constexpr, COUNT: tl.constexpr, WIDTH: tl.constexpr):
    """Filter ``COUNT`` samples from ``t`` on."""
    tile = read_samples(source, t, mask, COUNT, 1)
    values = ()
    for i in tl.static_range(COUNT):
        state = stages_step(tile[i].to(tl.float64), state, coef, ORDER)
        if WIDTH == 2:
            values = values + (state[2 * ORDER - 2], state[2 * ORDER - 1])
        else:
            values = values + (2.0 * state[2 * ORDER - 2],)
    write_samples(target, t, mask, values, COUNT, WIDTH)
    return state


@triton.jit
def _forward(
    x, coef, begin, out, end, samples, channels, rows, ORDER: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = row < rows
    c = read_rows(coef, row % channels, mask, 3)
    state = read_rows(begin, row, mask, 2 * ORDER)
    source, target = x + (row // channels).to(tl.int64) * samples, out + row.to(tl.int64) * samples * WIDTH
    whole = samples // 8 * 8
    for t in range(0, whole, 8):
        state = _advance(source, target, t, mask, state, c, ORDER, 8, WIDTH)
    for t in range(whole, samples):
        state = _advance(source, target, t, mask, state, c, ORDER, 1, WIDTH)
    write_rows(end, row, mask, state, 2 * ORDER)


def _run(x: Tensor, coef: Tensor, state: Tensor, order: int, complex_output: bool) -> tuple[Tensor, Tensor]:
    """Run the operator on CUDA in one pass; ``coef`` (3, F): gain, real and imaginary part of the pole."""
    (batch, samples), channels = x.shape, coef.shape[1]
    kind = complex_of(x.dtype) if complex_output else x.dtype
    out = torch.empty((batch, channels, samples), dtype=kind, device=x.device)
    end = torch.empty_like(state)
    numbers = torch.view_as_real(out) if complex_output else out
    arrays = x, coef.t(), state, numbers, end
    launch(_forward, batch * channels, *arrays, samples, channels, ORDER=order, WIDTH=2 if complex_output else 1)
    return out, end


@triton.jit
def _stages_back(re, im, adjoint, sums, coef, u, history, i, ORDER: tl.constexpr, LEARN: tl.constexpr):
    """Go one sample back: the gradient at the input, that at the states before, and the sums for the coefficients.

    ``adjoint`` is the gradient at the states after sample ``i`` of a block, ``history`` the states before and after
    every sample of it.
    """
    gain, pole_re, pole_im = coef
    before = ()
    s0, s1, s2 = sums
    for k in tl.static_range(ORDER - 1, -1, -1):
        re, im = re + adjoint[2 * k], im + adjoint[2 * k + 1]
        if LEARN:
            y_re, y_im = history[2 * (ORDER * i + k)], history[2 * (ORDER * i + k) + 1]
            if k == 0:
                s0 += re * u
            else:
                below_re, below_im = history[2 * (ORDER * (i + 1) + k) - 2], history[2 * (ORDER * (i + 1) + k) - 1]
                s0 += re * below_re + im * below_im
            s1 += re * y_re + im * y_im
            s2 += im * y_re - re * y_im
        before = (pole_re * re + pole_im * im, pole_re * im - pole_im * re) + before
        re, im = gain * re, gain * im
    return re, before, (s0, s1, s2)


@triton.jit
def _retreat(
    source, slopes, target, kept, t, row, mask, adjoint, sums, coef,
    ORDER: tl.constexpr, COUNT: tl.constexpr, PART: tl.constexpr, WIDTH: tl.constexpr, LEARN: tl.constexpr,
):  # fmt: skip
    """Go back over ``COUNT`` samples from ``t`` on, ``PART`` at a time; ``kept``: the states before sample ``t``."""
    tile, grads = read_samples(source, t, mask, COUNT, 1), read_samples(slopes, t, mask, COUNT, WIDTH)
    values = ()
    for first in tl.static_range(COUNT - PART, -1, -PART):
        history = ()
        if LEARN:
            state = read_rows(kept, row, mask, 2 * ORDER) if first > 0 else read_again(kept, row, mask, 2 * ORDER)
            for i in tl.static_range(first + PART):
                if i >= first:
                    history = history + state
                state = stages_step(tile[i].to(tl.float64), state, coef, ORDER)
            history = history + state
        for i in tl.static_range(PART - 1, -1, -1):
            re = grads[WIDTH * (first + i)].to(tl.float64)
            if WIDTH == 2:
                im = grads[WIDTH * (first + i) + 1].to(tl.float64)
            else:
                re, im = 2.0 * re, tl.zeros_like(re)
            u = tile[first + i].to(tl.float64)
            re, adjoint, sums = _stages_back(re, im, adjoint, sums, coef, u, history, i, ORDER, LEARN)
            values = (re,) + values
    write_samples(target, t, mask, values, COUNT, 1)
    return adjoint, sums


@triton.jit
def _backward(
    x, coef, begin, grad, grad_end, grad_rows, grad_coef, grad_begin, starts, samples, channels, rows,
    ORDER: tl.constexpr, WIDTH: tl.constexpr, LEARN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = row < rows
    c = read_rows(coef, row % channels, mask, 3)
    source, target = x + (row // channels).to(tl.int64) * samples, grad_rows + row.to(tl.int64) * samples
    slopes = grad + row.to(tl.int64) * samples * WIDTH
    whole = samples // 8 * 8
    size = tl.cast(rows, tl.int64) * 2 * ORDER
    if LEARN:  # states at the start of every block of eight samples, and of every single sample after them
        state = read_rows(begin, row, mask, 2 * ORDER)
        for t in range(0, whole, 8):
            write_rows(starts + t // 8 * size, row, mask, state, 2 * ORDER)
            tile = read_samples(source, t, mask, 8, 1)
            for i in tl.static_range(8):
                state = stages_step(tile[i].to(tl.float64), state, c, ORDER)
        for t in range(whole, samples):
            write_rows(starts + (whole // 8 + t - whole) * size, row, mask, state, 2 * ORDER)
            state = stages_step(tl.load(source + t, mask=mask, other=0.0).to(tl.float64), state, c, ORDER)
    tl.debug_barrier()
    adjoint, sums = read_rows(grad_end, row, mask, 2 * ORDER), zeros(BLOCK, 3)
    for back in range(samples - whole):
        t = samples - 1 - back
        kept = starts + (whole // 8 + t - whole) * size
        adjoint, sums = _retreat(
            source, slopes, target, kept, t, row, mask, adjoint, sums, c, ORDER, 1, 1, WIDTH, LEARN
        )
    for back in range(whole // 8):
        t = whole - 8 - 8 * back
        kept = starts + t // 8 * size
        adjoint, sums = _retreat(
            source, slopes, target, kept, t, row, mask, adjoint, sums, c, ORDER, 8, 4, WIDTH, LEARN
        )
    write_rows(grad_begin, row, mask, adjoint, 2 * ORDER)
    if LEARN:
        write_rows(grad_coef, row, mask, sums, 3)


def _run_back(
    grad: Tensor, grad_end: Tensor, x: Tensor, coef: Tensor, state: Tensor, order: int, learn: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients with respect to ``x``, if ``learn`` to ``coef``, and to ``state``."""
    batch, channels, samples = grad.shape
    width = 2 if grad.is_complex() else 1
    slopes = torch.view_as_real(grad.resolve_conj()) if grad.is_complex() else grad
    grad_rows = torch.empty((batch, channels, samples), dtype=x.dtype, device=x.device)
    grad_coef = torch.zeros((batch, channels, 3), dtype=torch.float64, device=x.device)
    grad_begin = torch.empty_like(state)
    starts = state.new_empty((samples // 8 + samples % 8 if learn else 0, *state.shape))
    arrays = x, coef.t(), state, slopes, grad_end, grad_rows, grad_coef, grad_begin, starts
    launch(_backward, batch * channels, *arrays, samples, channels, ORDER=order, WIDTH=width, LEARN=learn)
    return sum_middle(grad_rows), grad_coef.sum(0).t().contiguous(), grad_begin


def forward(x: Tensor, coef: Tensor, state: Tensor, order: int, complex_output: bool) -> tuple[Tensor, Tensor]:
    """Run the operator on CUDA; ``coef`` (3, F): gain, real and imaginary part of the pole."""
    return chunked.forward(lambda u, s: _run(u, coef, s, order, complex_output), x, state, coef.shape[1])


def backward(
    grad: Tensor, grad_end: Tensor, x: Tensor, coef: Tensor, state: Tensor, order: int, learn: bool
) -> tuple[Tensor, ...]:
    """Gradients with respect to ``x``, if ``learn`` to ``coef``, and to ``state``."""

    def run(u: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        return _run(u, coef, s, order, complex_output=False)

    def back(g: Tensor, at_end: Tensor, u: Tensor, s: Tensor, learn: bool) -> tuple[Tensor, ...]:
        return _run_back(g, at_end, u, coef, s, order, learn)

    return chunked.backward(run, back, grad, grad_end, x, state, learn, coef.shape[1])
