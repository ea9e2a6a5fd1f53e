"""Triton kernels of `modulation_bank`: its bandpasses; the lowpass is `sosfilt`.

States are float64 whatever the dtype of the signal, updated by increments, as in the CPU form. Every bandpass of every
row is a lane of its own. 32 lanes in sequence are one filter of 32 rows, in the order channel by channel, so that a
warp mostly has the same filter, which it either needs or skips; the next 32 are the next filter of the same rows, whose
sound is still in the cache. A filter's gradient at the input is written for itself and summed over filters afterwards,
in their order: memory for it is as large as the gradient that comes in.
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
from psysim.ops.cuda import chunked, sosfilt
from psysim.ops.cuda.tiles import (
    add,
    launch,
    read_rows,
    read_samples,
    sum_middle,
    write_rows,
    write_samples,
    zeros,
)

__all__ = ["GROUP", "backward", "band_step", "forward", "lane_of", "lanes_of"]

GROUP = 32  # lanes with the same filter: a warp


@triton.jit
def band_step(u, state, coef):
    """Pass one sample through p z + gain x, written as an increment of z."""
    gain, back, turn, _scale = coef
    re, im = state
    return (re - back * re) + (gain * u - turn * im), (im - back * im) + turn * re


@triton.jit
def lane_of(valid, batch, channels, filters, rows, GROUP: tl.constexpr, BLOCK: tl.constexpr):
    """Bandpass and row of each lane, whether the lane is one, and whether its channel has the filter.

    Coefficients, states and sounds of missing filters are loaded as zeros, so that all that follows is zero.
    """
    lane = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    group = lane // GROUP
    band = group % (filters - 1)
    place = group // (filters - 1) * GROUP + lane % GROUP
    mask = (lane < rows) & (place < tl.cast(batch, tl.int64) * channels)
    channel = place // batch
    present = mask & (tl.load(valid + channel * filters + band + 1, mask=mask, other=0) != 0)
    return band, place % batch * channels + channel, mask, present


@triton.jit
def _read_state(array, row, band, width, first, mask):
    place = array + row * width + first + 2 * band
    return tl.load(place, mask=mask, other=0.0), tl.load(place + 1, mask=mask, other=0.0)


@triton.jit
def _write_state(array, row, band, width, first, mask, state):
    place = array + row * width + first + 2 * band
    tl.store(place, state[0], mask=mask)
    tl.store(place + 1, state[1], mask=mask)


@triton.jit
def _write_blank(target, t, mask, COUNT: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    write_samples(target, t, mask, zeros(BLOCK, COUNT * WIDTH), COUNT, WIDTH)


@triton.jit
def _advance(
    source, target, t, mask, present, envelope, state, coef, kind: tl.constexpr,
    COUNT: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Filter ``COUNT`` samples from ``t`` on; magnitude and scaling in the dtype of the signal."""
    tile = read_samples(source, t, present, COUNT, 1)
    scale = coef[3].to(kind)
    values = ()
    for i in tl.static_range(COUNT):
        state = band_step(tile[i].to(tl.float64), state, coef)
        re, im = state[0].to(kind), state[1].to(kind)
        if WIDTH == 2:
            values = values + (scale * re, scale * im)
        else:
            values = values + (scale * tl.where(envelope, tl.sqrt(re * re + im * im), re),)
    write_samples(target, t, mask, values, COUNT, WIDTH)
    return state


@triton.jit
def _forward(
    x, bands, envelope, valid, begin, out, end, samples, batch, channels, filters, width, rows,
    GROUP: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    band, row, mask, present = lane_of(valid, batch, channels, filters, rows, GROUP, BLOCK)
    first = width - 2 * (filters - 1)
    c = read_rows(bands, band, present, 4)
    magnitude = tl.load(envelope + band, mask=mask, other=0) != 0
    state = _read_state(begin, row, band, width, first, present)
    source, target = x + row * samples, out + (row * filters + band + 1) * samples * WIDTH
    kind: tl.constexpr = x.dtype.element_ty
    whole = samples // 8 * 8
    needed = whole * tl.max(present.to(tl.int32), axis=0)  # nothing if no row of the program has the filter
    for t in range(0, needed, 8):
        state = _advance(source, target, t, mask, present, magnitude, state, c, kind, 8, WIDTH)
    for t in range(needed, whole, 8):
        _write_blank(target, t, mask, 8, WIDTH, BLOCK)
    for t in range(whole, samples):
        state = _advance(source, target, t, mask, present, magnitude, state, c, kind, 1, WIDTH)
    _write_state(end, row, band, width, first, present, state)


def lanes_of(batch: int, channels: int, filters: int) -> int:
    """Return the number of lanes, the empty ones of the last group included."""
    return triton.cdiv(batch * channels, GROUP) * GROUP * (filters - 1)


def _run(
    x: Tensor, low: Tensor, bands: Tensor, envelope: Tensor, valid: Tensor, state: Tensor, complex_output: bool
) -> tuple[Tensor, Tensor]:
    """Run the operator on CUDA in one pass; ``low`` (S, 5), ``bands`` (M - 1, 4): gain, 1 - Re p, Im p, scale."""
    (batch, channels, samples), filters, cut = x.shape, valid.shape[1], 2 * len(low)
    kind = complex_of(x.dtype) if complex_output else x.dtype
    out = torch.empty((batch, channels, filters, samples), dtype=kind, device=x.device)
    end = state.clone()  # states of filters that a channel lacks stay
    y, low_end = sosfilt.forward(x, low[None], state[..., :cut])
    out[:, :, 0] = torch.where(valid[:, :1], y, 0.0)
    end[..., :cut] = torch.where(valid[:, :1], low_end, state[..., :cut])
    if filters > 1:
        arrays = x, bands, envelope, valid, state, torch.view_as_real(out) if complex_output else out, end
        sizes = samples, batch, channels, filters, state.shape[-1]
        width = 2 if complex_output else 1
        launch(_forward, lanes_of(batch, channels, filters), *arrays, *sizes, GROUP=GROUP, WIDTH=width)
    return out, end


@triton.jit
def _band_back(grad, grad_im, envelope, state, before, adjoint, sums, u, coef, WIDTH: tl.constexpr):
    """Go one sample back: the gradient at the input, that at the state before, and the sums for the coefficients."""
    gain, back, turn, scale = coef
    re, im = state
    old_re, old_im = before
    if WIDTH == 2:
        at_scale, g, h = grad * re + grad_im * im, scale * grad, scale * grad_im
    else:
        square = re * re + im * im
        inverse = tl.rsqrt(tl.where(square > 0.0, square, 1.0))  # the gradient of the magnitude at zero is 0
        at_scale = grad * tl.where(envelope, square * inverse, re)
        g = scale * grad
        g, h = tl.where(envelope, (g * inverse) * re, g), tl.where(envelope, (g * inverse) * im, 0.0)
    lam_re, lam_im = adjoint[0] + g, adjoint[1] + h
    more = lam_re * u, -(lam_re * old_re + lam_im * old_im), lam_im * old_re - lam_re * old_im, at_scale
    adjoint = (lam_re - back * lam_re) + turn * lam_im, (lam_im - back * lam_im) - turn * lam_re
    return gain * lam_re, adjoint, add(sums, more, 4)


@triton.jit
def _retreat(
    source, slopes, target, kept, lane, t, mask, present, envelope, adjoint, sums, coef,
    COUNT: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Go back over ``COUNT`` samples from ``t`` on; ``kept``: the states before sample ``t``."""
    tile = read_samples(source, t, present, COUNT, 1)
    state = read_rows(kept, lane, present, 2)
    history = (state,)
    for i in tl.static_range(COUNT):
        state = band_step(tile[i].to(tl.float64), state, coef)
        history = history + (state,)
    grads = read_samples(slopes, t, present, COUNT, WIDTH)
    values = ()
    for i in tl.static_range(COUNT - 1, -1, -1):
        g, h = grads[WIDTH * i].to(tl.float64), grads[WIDTH * i + WIDTH - 1].to(tl.float64)
        u, now, before = tile[i].to(tl.float64), history[i + 1], history[i]
        g, adjoint, sums = _band_back(g, h, envelope, now, before, adjoint, sums, u, coef, WIDTH)
        values = (g,) + values
    write_samples(target, t, mask, values, COUNT, 1)
    return adjoint, sums


@triton.jit
def _backward(
    x, bands, envelope, valid, begin, grad, grad_end, grad_rows, grad_bands, grad_begin, starts,
    samples, batch, channels, filters, width, rows,
    GROUP: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    band, row, mask, present = lane_of(valid, batch, channels, filters, rows, GROUP, BLOCK)
    first = width - 2 * (filters - 1)
    c = read_rows(bands, band, present, 4)
    magnitude = tl.load(envelope + band, mask=mask, other=0) != 0
    lane = row * (filters - 1) + band
    source, target = x + row * samples, grad_rows + (row * filters + band + 1) * samples
    slopes = grad + (row * filters + band + 1) * samples * WIDTH
    size = tl.cast(batch, tl.int64) * channels * (filters - 1) * 2
    whole = samples // 8 * 8
    needed = whole * tl.max(present.to(tl.int32), axis=0)  # nothing if no row of the program has the filter
    # states at the start of every block of eight samples, and of every single sample after them
    state = _read_state(begin, row, band, width, first, present)
    for t in range(0, needed, 8):
        write_rows(starts + t // 8 * size, lane, present, state, 2)
        tile = read_samples(source, t, present, 8, 1)
        for i in tl.static_range(8):
            state = band_step(tile[i].to(tl.float64), state, c)
    for t in range(whole, samples):
        write_rows(starts + (whole // 8 + t - whole) * size, lane, present, state, 2)
        state = band_step(tl.load(source + t, mask=present, other=0.0).to(tl.float64), state, c)
    tl.debug_barrier()
    adjoint = _read_state(grad_end, row, band, width, first, present)
    sums = zeros(BLOCK, 4)
    for back in range(samples - whole):
        t = samples - 1 - back
        kept = starts + (whole // 8 + t - whole) * size
        adjoint, sums = _retreat(
            source, slopes, target, kept, lane, t, mask, present, magnitude, adjoint, sums, c, 1, WIDTH
        )
    for back in range(needed // 8):
        t = whole - 8 - 8 * back
        kept = starts + t // 8 * size
        adjoint, sums = _retreat(
            source, slopes, target, kept, lane, t, mask, present, magnitude, adjoint, sums, c, 8, WIDTH
        )
    for t in range(needed, whole, 8):
        _write_blank(target, t, mask, 8, 1, BLOCK)
    _write_state(grad_begin, row, band, width, first, present, adjoint)
    write_rows(grad_bands, lane, mask, sums, 4)


def _low_gradients(
    grad: Tensor, grad_end: Tensor, x: Tensor, low: Tensor, has: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by way of the lowpass; ``has`` (F, 1): channels that have it."""
    slopes, at_end = torch.where(has, grad, 0.0), torch.where(has, grad_end, 0.0)
    grad_x, grad_low, grad_begin = sosfilt.backward(slopes, at_end, x, low[None], state, True)
    return grad_x, grad_low[0], torch.where(has, grad_begin, grad_end)


def _run_back(
    grad: Tensor,
    grad_end: Tensor,
    x: Tensor,
    low: Tensor,
    bands: Tensor,
    envelope: Tensor,
    valid: Tensor,
    state: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients with respect to ``x``, ``low``, ``bands`` and ``state``."""
    (batch, channels, samples), filters, cut = x.shape, valid.shape[1], 2 * len(low)
    grad_begin = grad_end.clone(memory_format=torch.contiguous_format)  # states of missing filters stay
    grad_rows = torch.empty((batch, channels, filters, samples), dtype=x.dtype, device=x.device)
    grad_bands = state.new_empty((batch, channels, *bands.shape))
    low_grad = grad[:, :, 0].real if grad.is_complex() else grad[:, :, 0]
    ends = grad_end[..., :cut], x, low, valid[:, :1], state[..., :cut]
    grad_rows[:, :, 0], grad_low, grad_begin[..., :cut] = _low_gradients(low_grad, *ends)
    if filters > 1:
        starts = state.new_empty((samples // 8 + samples % 8, batch, channels, filters - 1, 2))
        slopes = torch.view_as_real(grad.resolve_conj()) if grad.is_complex() else grad
        arrays = x, bands, envelope, valid, state, slopes, grad_end, grad_rows, grad_bands, grad_begin, starts
        sizes = samples, batch, channels, filters, state.shape[-1]
        width = 2 if grad.is_complex() else 1
        launch(_backward, lanes_of(batch, channels, filters), *arrays, *sizes, GROUP=GROUP, WIDTH=width)
    grad_x = sum_middle(grad_rows.flatten(0, 1)).reshape(x.shape)
    return grad_x, grad_low, grad_bands.sum((0, 1)), grad_begin


def forward(
    x: Tensor, low: Tensor, bands: Tensor, envelope: Tensor, valid: Tensor, state: Tensor, complex_output: bool
) -> tuple[Tensor, Tensor]:
    """Run the operator on CUDA; ``low`` (S, 5), ``bands`` (M - 1, 4): gain, 1 - Re p, Im p, scale."""
    return chunked.forward(
        lambda u, s: _run(u, low, bands, envelope, valid, s, complex_output), x, state, valid.numel()
    )


def backward(
    grad: Tensor,
    grad_end: Tensor,
    x: Tensor,
    low: Tensor,
    bands: Tensor,
    envelope: Tensor,
    valid: Tensor,
    state: Tensor,
) -> tuple[Tensor, ...]:
    """Gradients with respect to ``x``, ``low``, ``bands`` and ``state``."""

    def run(u: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        return _run(u, low, bands, envelope, valid, s, grad.is_complex())

    def back(g: Tensor, at_end: Tensor, u: Tensor, s: Tensor, learn: bool) -> tuple[Tensor, ...]:  # noqa: ARG001
        return _run_back(g, at_end, u, low, bands, envelope, valid, s)

    return chunked.backward(run, back, grad, grad_end, x, state, True, valid.numel())
