"""Triton kernels of `iirfilt`. Coefficients, states and arithmetic are float64 whatever the dtype of the signal."""

# mypy: disable-error-code="no-untyped-def, assignment"
# ruff: noqa: RUF005
# Compiled functions are typed by Triton, which cannot unpack into a tuple.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from psysim.ops.cuda import chunked
from psysim.ops.cuda.tiles import TILE, launch, read_rows, read_samples, write_rows, write_samples, zeros

__all__ = ["backward", "forward"]


@triton.jit
def _step(u, state, coef, S: tl.constexpr, K: tl.constexpr):
    """Pass one sample through the cascade: the new state, and the inputs of all sections with the output behind them.

    ``coef``: b0 ... bK, a1 ... aK of each section; ``state``: K values per section.
    """
    after, signals = (), (u,)
    for s in tl.static_range(S):
        y = coef[(2 * K + 1) * s] * u + state[K * s]
        for k in tl.static_range(1, K):
            bk, ak = coef[(2 * K + 1) * s + k], coef[(2 * K + 1) * s + K + k]
            after = after + ((bk * u + state[K * s + k]) - ak * y,)
        after = after + (coef[(2 * K + 1) * s + K] * u - coef[(2 * K + 1) * s + 2 * K] * y,)
        signals = signals + (y,)
        u = y
    return after, signals


@triton.jit
def _step_back(g, adjoint, coef, S: tl.constexpr, K: tl.constexpr):
    """Go one sample back through the cascade: the gradient at the input, and that at the state before."""
    before = ()
    for s in tl.static_range(S - 1, -1, -1):
        lam, later = g, coef[(2 * K + 1) * s + K] * adjoint[K * s + K - 1]
        for k in tl.static_range(K, 0, -1):
            lam = lam - coef[(2 * K + 1) * s + K + k] * adjoint[K * s + k - 1]
            if k < K:
                later = later + coef[(2 * K + 1) * s + k] * adjoint[K * s + k - 1]
        g = later + coef[(2 * K + 1) * s] * lam
        before = (lam,) + adjoint[K * s : K * s + K - 1] + before
    return g, before


@triton.jit
def _add_products(sums, before, adjoint, kept, stride, mask, S: tl.constexpr, K: tl.constexpr):
    """Add the gradients at the coefficients that come from one sample; ``kept``: its signals, as of `_step`."""
    after = ()
    for s in tl.static_range(S):
        u = tl.load(kept + s * stride, mask=mask, other=0.0)
        y = tl.load(kept + (s + 1) * stride, mask=mask, other=0.0)
        after = after + (sums[(2 * K + 1) * s] + before[K * s] * u,)
        for k in tl.static_range(1, K + 1):
            after = after + (sums[(2 * K + 1) * s + k] + adjoint[K * s + k - 1] * u,)
        for k in tl.static_range(1, K + 1):
            after = after + (sums[(2 * K + 1) * s + K + k] - adjoint[K * s + k - 1] * y,)
    return after


@triton.jit
def _advance(source, target, t, mask, state, coef, S: tl.constexpr, K: tl.constexpr, COUNT: tl.constexpr):
    """Filter ``COUNT`` samples from ``t`` on."""
    tile = read_samples(source, t, mask, COUNT, 1)
    values = ()
    for i in tl.static_range(COUNT):
        state, signals = _step(tile[i].to(tl.float64), state, coef, S, K)
        values = values + (signals[S],)
    write_samples(target, t, mask, values, COUNT, 1)
    return state


@triton.jit
def _forward(x, coef, begin, out, end, samples, channels, rows, S: tl.constexpr, K: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = row < rows
    c = read_rows(coef, row % channels, mask, (2 * K + 1) * S)
    state = read_rows(begin, row, mask, K * S)
    source, target = x + row.to(tl.int64) * samples, out + row.to(tl.int64) * samples
    whole = samples // 8 * 8
    for t in range(0, whole, 8):
        state = _advance(source, target, t, mask, state, c, S, K, 8)
    for t in range(whole, samples):
        state = _advance(source, target, t, mask, state, c, S, K, 1)
    write_rows(end, row, mask, state, K * S)


def _run(x: Tensor, coef: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Run the operator on CUDA in one pass; ``coef`` (1 or F, S, 2 K + 1)."""
    out, end = torch.empty(x.shape, dtype=x.dtype, device=x.device), torch.empty_like(state)
    batch, channels, samples = x.shape
    sizes = {"S": coef.shape[1], "K": coef.shape[2] // 2}
    launch(_forward, batch * channels, x, coef, state, out, end, samples, len(coef), **sizes)
    return out, end


@triton.jit
def _backward(
    x, coef, begin, grad, grad_end, grad_x, grad_coef, grad_begin, starts, history, samples, channels, rows,
    S: tl.constexpr, K: tl.constexpr, LEARN: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = row < rows
    c = read_rows(coef, row % channels, mask, (2 * K + 1) * S)
    source, slopes = x + row.to(tl.int64) * samples, grad + row.to(tl.int64) * samples
    target = grad_x + row.to(tl.int64) * samples
    adjoint, sums = read_rows(grad_end, row, mask, K * S), zeros(BLOCK, (2 * K + 1) * S)
    tiles = (samples + TILE - 1) // TILE
    # history (tile sample, section 0 ... S, row): the inputs of the sections and the output, for one tile at a time
    kept, stride = history + row, tl.cast(rows, tl.int64)
    if LEARN:  # states at the start of every tile, so that the way back can recompute a tile at a time
        state = read_rows(begin, row, mask, K * S)
        for i in range(tiles):
            write_rows(starts + i * stride * K * S, row, mask, state, K * S)
            for t in range(i * TILE, min((i + 1) * TILE, samples)):
                u = tl.load(source + t, mask=mask, other=0.0).to(tl.float64)
                state, _signals = _step(u, state, c, S, K)
    for back in range(tiles):
        i = tiles - 1 - back
        first = i * TILE
        count = min(TILE, samples - first)
        if LEARN:
            tl.debug_barrier()
            state = read_rows(starts + i * stride * K * S, row, mask, K * S)
            for t in range(count):
                u = tl.load(source + first + t, mask=mask, other=0.0).to(tl.float64)
                state, signals = _step(u, state, c, S, K)
                for s in tl.static_range(S + 1):
                    tl.store(kept + (t * (S + 1) + s) * stride, signals[s], mask=mask)
            tl.debug_barrier()
        for step in range(count):
            t = count - 1 - step
            g = tl.load(slopes + first + t, mask=mask, other=0.0).to(tl.float64)
            g, before = _step_back(g, adjoint, c, S, K)
            if LEARN:
                sums = _add_products(sums, before, adjoint, kept + t * (S + 1) * stride, stride, mask, S, K)
            adjoint = before
            tl.store(target + first + t, g.to(grad_x.dtype.element_ty), mask=mask)
    write_rows(grad_begin, row, mask, adjoint, K * S)
    if LEARN:
        write_rows(grad_coef, row, mask, sums, (2 * K + 1) * S)


def _run_back(
    grad: Tensor, grad_end: Tensor, x: Tensor, coef: Tensor, state: Tensor, learn: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients with respect to ``x``, if ``learn`` to ``coef``, and to ``state``."""
    batch, channels, samples = x.shape
    rows, sections = batch * channels, coef.shape[1]
    grad_x, grad_begin = torch.empty(x.shape, dtype=x.dtype, device=x.device), torch.empty_like(state)
    grad_coef = torch.zeros((batch, channels, *coef.shape[1:]), dtype=torch.float64, device=x.device)
    starts = state.new_empty((triton.cdiv(samples, TILE) if learn else 0, *state.shape))
    history = state.new_empty((TILE if learn else 0, sections + 1, rows))
    arrays = x, coef, state, grad, grad_end, grad_x, grad_coef, grad_begin, starts, history
    sizes = {"S": sections, "K": coef.shape[2] // 2}
    launch(_backward, rows, *arrays, samples, len(coef), **sizes, LEARN=learn, TILE=TILE)
    total = grad_coef.sum(0)
    return grad_x, total if len(coef) > 1 else total.sum(0, keepdim=True), grad_begin


forward, backward = chunked.in_chunks(_run, _run_back)
