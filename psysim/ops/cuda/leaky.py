"""Triton kernels of `leaky`. Coefficients, states and arithmetic are float64 whatever the dtype of the signal.

The way forth keeps the state before every eighth sample; the way back recomputes eight samples at a time from it and
holds them in registers.
"""

# mypy: disable-error-code="no-untyped-def, assignment"
# ruff: noqa: RUF005
# Compiled functions are typed by Triton, which cannot unpack into a tuple.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from psysim.ops.cuda import chunked
from psysim.ops.cuda.tiles import launch, read_rows, read_samples, write_rows, write_samples

__all__ = ["backward", "forward"]


@triton.jit
def _advance(tile, y, coef, COUNT: tl.constexpr):
    """Integrate ``COUNT`` samples: the outputs, and with the state before them in front."""
    values = (y,)
    for i in tl.static_range(COUNT):
        y = coef[0] * y + coef[1] * tile[i].to(tl.float64)
        values = values + (y,)
    return values


@triton.jit
def _pass(source, target, t, mask, y, coef, COUNT: tl.constexpr):
    """Integrate ``COUNT`` samples from ``t`` on; returns the state after them."""
    values = _advance(read_samples(source, t, mask, COUNT, 1), y, coef, COUNT)
    write_samples(target, t, mask, values[1:], COUNT, 1)
    return values[COUNT]


@triton.jit
def _forward(x, coef, begin, out, end, samples, channels, rows, BLOCK: tl.constexpr):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = row < rows
    c = read_rows(coef, row % channels, mask, 2)
    y = read_rows(begin, row, mask, 1)[0]
    source, target = x + row.to(tl.int64) * samples, out + row.to(tl.int64) * samples
    whole = samples // 8 * 8
    for t in range(0, whole, 8):
        y = _pass(source, target, t, mask, y, c, 8)
    for t in range(whole, samples):
        y = _pass(source, target, t, mask, y, c, 1)
    write_rows(end, row, mask, (y,), 1)


def _run(x: Tensor, coef: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Run the operator on CUDA in one pass; ``coef`` (1 or F, 2)."""
    out, end = torch.empty(x.shape, dtype=x.dtype, device=x.device), torch.empty_like(state)
    batch, channels, samples = x.shape
    launch(_forward, batch * channels, x, coef, state, out, end, samples, len(coef))
    return out, end


@triton.jit
def _retreat(source, slopes, target, kept, t, mask, lam, sums, coef, COUNT: tl.constexpr, LEARN: tl.constexpr):
    """Go back over ``COUNT`` samples from ``t`` on; ``kept``: the state before sample ``t``."""
    grads = read_samples(slopes, t, mask, COUNT, 1)
    tile, before = grads, grads
    if LEARN:
        tile = read_samples(source, t, mask, COUNT, 1)
        before = _advance(tile, tl.load(kept, mask=mask, other=0.0), coef, COUNT)
    values = ()
    of_decay, of_gain = sums
    for i in tl.static_range(COUNT - 1, -1, -1):
        lam = grads[i].to(tl.float64) + lam
        if LEARN:
            of_decay += lam * before[i]
            of_gain += lam * tile[i].to(tl.float64)
        values = (coef[1] * lam,) + values
        lam = coef[0] * lam
    write_samples(target, t, mask, values, COUNT, 1)
    return lam, (of_decay, of_gain)


@triton.jit
def _backward(
    x, coef, begin, grad, grad_end, grad_x, grad_coef, grad_begin, starts, samples, channels, rows,
    LEARN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = row < rows
    c = read_rows(coef, row % channels, mask, 2)
    source, slopes = x + row.to(tl.int64) * samples, grad + row.to(tl.int64) * samples
    target, kept = grad_x + row.to(tl.int64) * samples, starts + row
    stride = tl.cast(rows, tl.int64)
    whole = samples // 8 * 8
    if LEARN:  # states before every block of eight samples, and before every single sample after them
        y = read_rows(begin, row, mask, 1)[0]
        for t in range(0, whole, 8):
            tl.store(kept + t // 8 * stride, y, mask=mask)
            y = _advance(read_samples(source, t, mask, 8, 1), y, c, 8)[8]
        for t in range(whole, samples):
            tl.store(kept + (whole // 8 + t - whole) * stride, y, mask=mask)
            y = _advance(read_samples(source, t, mask, 1, 1), y, c, 1)[1]
    lam = read_rows(grad_end, row, mask, 1)[0]
    sums = (tl.zeros((BLOCK,), tl.float64), tl.zeros((BLOCK,), tl.float64))
    for back in range(samples - whole):
        t = samples - 1 - back
        place = kept + (whole // 8 + t - whole) * stride
        lam, sums = _retreat(source, slopes, target, place, t, mask, lam, sums, c, 1, LEARN)
    for back in range(whole // 8):
        t = whole - 8 - 8 * back
        lam, sums = _retreat(source, slopes, target, kept + t // 8 * stride, t, mask, lam, sums, c, 8, LEARN)
    write_rows(grad_begin, row, mask, (lam,), 1)
    if LEARN:
        write_rows(grad_coef, row, mask, sums, 2)


def _run_back(
    grad: Tensor, grad_end: Tensor, x: Tensor, coef: Tensor, state: Tensor, learn: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients with respect to ``x``, if ``learn`` to ``coef``, and to ``state``."""
    batch, channels, samples = x.shape
    rows = batch * channels
    grad_x, grad_begin = torch.empty(x.shape, dtype=x.dtype, device=x.device), torch.empty_like(state)
    grad_coef = torch.zeros((batch, channels, 2), dtype=torch.float64, device=x.device)
    starts = state.new_empty((samples // 8 + samples % 8 if learn else 0, rows))
    arrays = x, coef, state, grad, grad_end, grad_x, grad_coef, grad_begin, starts
    launch(_backward, rows, *arrays, samples, len(coef), LEARN=learn)
    total = grad_coef.sum(0)
    return grad_x, total if len(coef) > 1 else total.sum(0, keepdim=True), grad_begin


forward, backward = chunked.in_chunks(_run, _run_back)
