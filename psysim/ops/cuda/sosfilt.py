"""Triton kernels of `sosfilt`. Coefficients, states and arithmetic are float64 whatever the dtype of the signal."""

# mypy: disable-error-code="no-untyped-def, assignment"
# ruff: noqa: RUF005
# Compiled functions are typed by Triton, which cannot unpack into a tuple.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from psysim.ops.cuda import chunked
from psysim.ops.cuda.tiles import TILE, add, launch, read_rows, read_tile, write_rows, write_tile, zeros

__all__ = ["backward", "forward"]


@triton.jit
def sections_step(u, state, coef, S: tl.constexpr):
    """Pass one sample through the cascade; returns the output, the new state and the inputs of all sections."""
    after, inputs = (), ()
    for s in tl.static_range(S):
        b0, b1, b2, a1, a2 = coef[5 * s], coef[5 * s + 1], coef[5 * s + 2], coef[5 * s + 3], coef[5 * s + 4]
        y = b0 * u + state[2 * s]
        after = after + ((b1 * u + state[2 * s + 1]) - a1 * y, b2 * u - a2 * y)
        inputs = inputs + (u,)
        u = y
    return u, after, inputs


@triton.jit
def sections_back(g, adjoint, coef, S: tl.constexpr):
    """Go one sample back through the cascade: the gradient at the input, and that at the state before."""
    before = ()
    for reverse in tl.static_range(S):
        b0, b1, b2 = coef[5 * (S - 1 - reverse)], coef[5 * (S - 1 - reverse) + 1], coef[5 * (S - 1 - reverse) + 2]
        a1, a2 = coef[5 * (S - 1 - reverse) + 3], coef[5 * (S - 1 - reverse) + 4]
        lam1, lam2 = adjoint[2 * (S - 1 - reverse)], adjoint[2 * (S - 1 - reverse) + 1]
        lam = (g - a2 * lam2) - a1 * lam1
        g = b0 * lam + b1 * lam1 + b2 * lam2
        before = (lam, lam1) + before
    return g, before


@triton.jit
def _forward(x, coef, begin, out, end, samples, channels, rows, S: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = row < rows
    c = read_rows(coef, row % channels, mask, 5 * S)
    state = read_rows(begin, row, mask, 2 * S)
    source, target = x + row.to(tl.int64) * samples, out + row.to(tl.int64) * samples
    whole = samples // 8 * 8
    for t in range(0, whole, 8):
        tile = read_tile(source, t, mask)
        values = ()
        for i in tl.static_range(8):
            y, state, _inputs = sections_step(tile[i].to(tl.float64), state, c, S)
            values = values + (y,)
        write_tile(target, t, mask, values)
    for t in range(whole, samples):
        u = tl.load(source + t, mask=mask, other=0.0).to(tl.float64)
        y, state, _inputs = sections_step(u, state, c, S)
        tl.store(target + t, y.to(out.dtype.element_ty), mask=mask)
    write_rows(end, row, mask, state, 2 * S)


def _run(x: Tensor, coef: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Run the operator on CUDA in one pass; ``coef`` (1 or F, S, 5)."""
    out, end = torch.empty(x.shape, dtype=x.dtype, device=x.device), torch.empty_like(state)
    batch, channels, samples = x.shape
    launch(_forward, batch * channels, x, coef, state, out, end, samples, len(coef), S=coef.shape[1])
    return out, end


@triton.jit
def _backward(
    x, coef, begin, grad, grad_end, grad_x, grad_coef, grad_begin, starts, history, samples, channels, rows,
    S: tl.constexpr, LEARN: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = row < rows
    c = read_rows(coef, row % channels, mask, 5 * S)
    source, slopes = x + row.to(tl.int64) * samples, grad + row.to(tl.int64) * samples
    target = grad_x + row.to(tl.int64) * samples
    adjoint = read_rows(grad_end, row, mask, 2 * S)
    sums = zeros(BLOCK, 5 * S)
    tiles = (samples + TILE - 1) // TILE
    # history (tile sample, section 0 ... S, row): the inputs of the sections and the output, for one tile at a time
    kept = history + row
    stride = tl.cast(rows, tl.int64)
    if LEARN:  # states at the start of every tile, so that the way back can recompute a tile at a time
        state = read_rows(begin, row, mask, 2 * S)
        for i in range(tiles):
            write_rows(starts + i * stride * 2 * S, row, mask, state, 2 * S)
            for t in range(i * TILE, min((i + 1) * TILE, samples)):
                u = tl.load(source + t, mask=mask, other=0.0).to(tl.float64)
                _y, state, _inputs = sections_step(u, state, c, S)
    for back in range(tiles):
        i = tiles - 1 - back
        first = i * TILE
        count = min(TILE, samples - first)
        if LEARN:
            state = read_rows(starts + i * stride * 2 * S, row, mask, 2 * S)
            for t in range(count):
                u = tl.load(source + first + t, mask=mask, other=0.0).to(tl.float64)
                y, state, inputs = sections_step(u, state, c, S)
                for s in tl.static_range(S):
                    tl.store(kept + (t * (S + 1) + s) * stride, inputs[s], mask=mask)
                tl.store(kept + (t * (S + 1) + S) * stride, y, mask=mask)
        for step in range(count):
            t = count - 1 - step
            g = tl.load(slopes + first + t, mask=mask, other=0.0).to(tl.float64)
            g, before = sections_back(g, adjoint, c, S)
            if LEARN:
                more = ()
                for s in tl.static_range(S):
                    u = tl.load(kept + (t * (S + 1) + s) * stride, mask=mask, other=0.0)
                    y = tl.load(kept + (t * (S + 1) + s + 1) * stride, mask=mask, other=0.0)
                    lam, lam1, lam2 = before[2 * s], adjoint[2 * s], adjoint[2 * s + 1]
                    more = more + (lam * u, lam1 * u, lam2 * u, -lam1 * y, -lam2 * y)
                sums = add(sums, more, 5 * S)
            adjoint = before
            tl.store(target + first + t, g.to(grad_x.dtype.element_ty), mask=mask)
    write_rows(grad_begin, row, mask, adjoint, 2 * S)
    if LEARN:
        write_rows(grad_coef, row, mask, sums, 5 * S)


def _run_back(
    grad: Tensor, grad_end: Tensor, x: Tensor, coef: Tensor, state: Tensor, learn: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients with respect to ``x``, if ``learn`` to ``coef``, and to ``state``."""
    batch, channels, samples = x.shape
    rows, sections = batch * channels, coef.shape[1]
    grad_x, grad_begin = torch.empty(x.shape, dtype=x.dtype, device=x.device), torch.empty_like(state)
    grad_coef = torch.zeros((batch, channels, *coef.shape[1:]), dtype=torch.float64, device=x.device)
    tiles = triton.cdiv(samples, TILE) if learn else 0
    starts = state.new_empty((tiles, rows, 2 * sections))
    history = state.new_empty((TILE if learn else 0, sections + 1, rows))
    arrays = x, coef, state, grad, grad_end, grad_x, grad_coef, grad_begin, starts, history
    launch(_backward, rows, *arrays, samples, len(coef), S=sections, LEARN=learn, TILE=TILE)
    total = grad_coef.sum(0)
    return grad_x, total if len(coef) > 1 else total.sum(0, keepdim=True), grad_begin


forward, backward = chunked.in_chunks(_run, _run_back)
