"""Numba kernels of `gammatone`. States and arithmetic are float64 whatever the dtype of the signal."""

# mypy: disable-error-code="no-untyped-def"
# Compiled functions are typed by numba.

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from psysim.ops.cpu.simd import LANES, load, splat, store
from psysim.ops.cpu.tiles import (
    TILE,
    blocks_of,
    empty,
    flat,
    flush,
    kernel,
    lane_rows,
    read_state,
    read_tile,
    run_blocks,
    scratch,
    write_state,
    write_tile,
)

__all__ = ["advance", "backward", "forward", "lane_coefficients"]


@kernel
def lane_coefficients(coef, rows, channels):
    """Gain, real and imaginary part of the pole, each for all lanes."""
    lanes = scratch(3 * LANES, coef)
    for lane in range(LANES):
        for k in range(3):
            lanes[k * LANES + lane] = coef[k * channels + rows[lane] % channels]
    return lanes


@kernel
def advance(tile, count, lanes, state, order, real, imag, history):
    """Run the cascade over a tile: output in ``real``, ``imag``; all stages in ``history`` if it has room."""
    gain, pole_re, pole_im = load(lanes, 0), load(lanes, LANES), load(lanes, 2 * LANES)
    keep = history.size > LANES
    for t in range(count):
        in_re, in_im = load(tile, t * LANES), splat(tile, 0.0)
        for k in range(order):
            at = 2 * k * LANES
            re, im = load(state, at), load(state, at + LANES)
            out_re = gain * in_re + pole_re * re - pole_im * im
            out_im = gain * in_im + pole_re * im + pole_im * re
            store(state, at, out_re)
            store(state, at + LANES, out_im)
            if keep:
                to = ((t + 1) * order + k) * 2 * LANES
                store(history, to, out_re)
                store(history, to + LANES, out_im)
            in_re, in_im = out_re, out_im
        store(real, t * LANES, in_re)
        store(imag, t * LANES, in_im)


@kernel
def _forward(block, x, coef, order, channels, samples, begin, out_re, out_im, end):
    rows = lane_rows(block, out_re.size // samples)
    lanes = lane_coefficients(coef, rows, channels)
    source, target = rows // channels * samples, rows * samples
    tile, real, imag = scratch(TILE * LANES, coef), scratch(TILE * LANES, coef), scratch(TILE * LANES, coef)
    state = read_state(begin, rows, 2 * order, coef)
    none = scratch(LANES, coef)
    for start in range(0, samples, TILE):
        count = min(TILE, samples - start)
        read_tile(x, source, start, count, tile)
        advance(tile, count, lanes, state, order, real, imag, none)
        flush(state)
        if out_im.size > 0:
            write_tile(out_im, target, start, count, imag)
        else:
            for t in range(count):
                store(real, t * LANES, 2.0 * load(real, t * LANES))
        write_tile(out_re, target, start, count, real)
    write_state(end, rows, 2 * order, state)


def forward(x: Tensor, coef: Tensor, state: Tensor, order: int, complex_output: bool) -> tuple[Tensor, Tensor]:
    """Run the operator on the CPU; ``coef`` (3, F): gain, real and imaginary part of the pole."""
    shape = (x.shape[0], coef.shape[1], x.shape[1])
    real = empty(shape, x.dtype)
    imag = empty(shape if complex_output else (0,), x.dtype)
    end = torch.empty(state.shape, dtype=state.dtype)
    arrays = flat(x), flat(coef), order, shape[1], shape[2], flat(state), flat(real), flat(imag), flat(end)
    run_blocks(_forward, blocks_of(shape[0] * shape[1]), *arrays)
    return torch.complex(real, imag) if complex_output else real, end


@kernel
def _retreat(tile, real, imag, count, lanes, adjoint, order, history, sums):
    """Run the adjoint cascade backwards over a tile: ``real``, ``imag`` hold the gradient, then that at the input.

    ``adjoint``: the gradient at the state, the stages' outputs one sample before.
    """
    gain, pole_re, pole_im = load(lanes, 0), load(lanes, LANES), load(lanes, 2 * LANES)
    learn = history.size > LANES
    for step in range(count):
        t = count - 1 - step
        re, im = load(real, t * LANES), load(imag, t * LANES)
        for stage in range(order):
            k = order - 1 - stage
            at = 2 * k * LANES
            old_re, old_im = load(adjoint, at), load(adjoint, at + LANES)
            re, im = re + old_re, im + old_im
            store(adjoint, at, pole_re * re + pole_im * im)
            store(adjoint, at + LANES, pole_re * im - pole_im * re)
            if learn:
                before = (t * order + k) * 2 * LANES
                y_re, y_im = load(history, before), load(history, before + LANES)
                if k > 0:
                    below = ((t + 1) * order + k - 1) * 2 * LANES
                    u_re, u_im = load(history, below), load(history, below + LANES)
                else:
                    u_re, u_im = load(tile, t * LANES), splat(tile, 0.0)
                store(sums, 0, load(sums, 0) + re * u_re + im * u_im)
                store(sums, LANES, load(sums, LANES) + re * y_re + im * y_im)
                store(sums, 2 * LANES, load(sums, 2 * LANES) + im * y_re - re * y_im)
            re, im = gain * re, gain * im
        store(real, t * LANES, re)


@kernel
def _backward(
    block,
    x,
    coef,
    order,
    channels,
    samples,
    begin,
    grad_re,
    grad_im,
    grad_end,
    learn,
    grad_rows,
    grad_coef,
    grad_begin,
):
    count_rows = grad_re.size // samples
    rows = lane_rows(block, count_rows)
    lanes = lane_coefficients(coef, rows, channels)
    source, target = rows // channels * samples, rows * samples
    tile, real, imag = scratch(TILE * LANES, coef), scratch(TILE * LANES, coef), scratch(TILE * LANES, coef)
    size = 2 * order * LANES
    state, adjoint = read_state(begin, rows, 2 * order, coef), read_state(grad_end, rows, 2 * order, coef)
    sums = scratch(3 * LANES, coef)
    tiles = (samples + TILE - 1) // TILE
    history = scratch((TILE + 1) * size if learn else LANES, coef)
    starts = scratch(tiles * size if learn else LANES, coef)
    if learn:  # states at the start of every tile, so that the way back can recompute a tile at a time
        none = scratch(LANES, coef)
        for i in range(tiles):
            starts[i * size : (i + 1) * size] = state
            count = min(TILE, samples - i * TILE)
            read_tile(x, source, i * TILE, count, tile)
            advance(tile, count, lanes, state, order, real, imag, none)
            flush(state)
    for back in range(tiles):
        i = tiles - 1 - back
        start, count = i * TILE, min(TILE, samples - i * TILE)
        if learn:
            read_tile(x, source, start, count, tile)
            state[:] = starts[i * size : (i + 1) * size]
            history[:size] = state
            advance(tile, count, lanes, state, order, real, imag, history)
        read_tile(grad_re, target, start, count, real)
        if grad_im.size > 0:
            read_tile(grad_im, target, start, count, imag)
        else:
            imag[:] = 0.0
            for t in range(count):
                store(real, t * LANES, 2.0 * load(real, t * LANES))
        _retreat(tile, real, imag, count, lanes, adjoint, order, history, sums)
        flush(adjoint)
        write_tile(grad_rows, target, start, count, real)
    write_state(grad_begin, rows, 2 * order, adjoint)
    for lane in range(LANES):
        for k in range(3):
            grad_coef[k * count_rows + rows[lane]] = sums[k * LANES + lane]


@kernel
def _sum_channels(row, grad_rows, channels, samples, grad_x):
    """Sum over channels, always in the same order."""
    total = np.zeros(samples)
    for c in range(channels):
        start = (row * channels + c) * samples
        for t in range(samples):
            total[t] += grad_rows[start + t]
    for t in range(samples):
        grad_x[row * samples + t] = total[t]


def backward(
    grad: Tensor, grad_end: Tensor, x: Tensor, coef: Tensor, state: Tensor, order: int, learn: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients with respect to ``x``, if ``learn`` to ``coef``, and to ``state``."""
    batch, channels, samples = grad.shape
    if grad.is_complex():
        parts = torch.view_as_real(grad.resolve_conj())
        grad_re, grad_im = flat(parts[..., 0]), flat(parts[..., 1])
    else:
        grad_re, grad_im = flat(grad), flat(x.new_empty(0))
    rows = empty((batch, channels, samples), x.dtype)
    grad_coef = torch.zeros((3, batch, channels), dtype=torch.float64)
    grad_begin = torch.empty(state.shape, dtype=state.dtype)
    arrays = flat(x), flat(coef), order, channels, samples, flat(state), grad_re, grad_im, flat(grad_end), learn
    run_blocks(_backward, blocks_of(batch * channels), *arrays, flat(rows), flat(grad_coef), flat(grad_begin))
    grad_x = empty((batch, samples), x.dtype)
    run_blocks(_sum_channels, batch, flat(rows), channels, samples, flat(grad_x))
    return grad_x, grad_coef.sum(1), grad_begin
