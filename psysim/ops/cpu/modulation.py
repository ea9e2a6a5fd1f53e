"""Numba kernels of `modulation_bank`.

States are float64 whatever the dtype of the signal. At 44.1 kHz the 5-Hz filter has |1 - p| = 8e-4; a float32 pole
would move its bandwidth by 1e-4 and a float32 state stop 1e-4 from its goal, for a fifth less time. Backward is float64
throughout. Rows are ordered channel by channel (all of the batch for the first channel, then the second ...), so that
the lanes of a block mostly have the same filters and missing filters are skipped.
"""

# mypy: disable-error-code="no-untyped-def"
# Compiled functions are typed by numba.

from __future__ import annotations

import torch
from torch import Tensor

from psysim.ops.cpu.simd import LANES, convert, fma, load, select, splat, sqrt, store
from psysim.ops.cpu.sosfilt import sections_advance, sections_retreat
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

__all__ = ["backward", "forward", "magnitude", "pole_step"]

REAL, ENVELOPE, COMPLEX = 0, 1, 2  # what a bandpass puts out


@kernel
def _lane_setup(block, batch, channels, valid, lowpass):
    """Row of each lane in memory, 1.0 where it has a filter (else 0.0), per filter whether any has, lowpass lanes."""
    filters = valid.size // channels
    rows = lane_rows(block, batch * channels)
    has = scratch(filters * LANES, lowpass)
    used = scratch(filters, valid)
    for lane in range(LANES):
        channel = rows[lane] // batch
        rows[lane] = rows[lane] % batch * channels + channel
        for m in range(filters):
            has[m * LANES + lane] = 1.0 if valid[channel * filters + m] else 0.0
            used[m] = used[m] or valid[channel * filters + m]
    lanes = scratch(lowpass.size * LANES, lowpass)
    for k in range(lowpass.size):
        lanes[k * LANES : (k + 1) * LANES] = lowpass[k]
    return rows, has, used, lanes


@kernel
def _keep_missing(begin, rows, sections, has, state):
    """Give the states of filters that a lane lacks back the value they began with."""
    size = state.size // LANES
    for lane in range(LANES):
        for k in range(size):
            m = 0 if k < 2 * sections else 1 + (k - 2 * sections) // 2
            if has[m * LANES + lane] < 0.5:
                state[k * LANES + lane] = begin[rows[lane] * size + k]


@kernel
def pole_step(re, im, x, b, p, w):
    """One sample of a complex pole p + i w: z = (p + i w) z + b x."""
    return fma(-w, im, fma(p, re, b * x)), fma(p, im, w * re)


@kernel
def magnitude(re, im):
    """Magnitude of a complex number."""
    return sqrt(fma(re, re, im * im))


@kernel
def _band_advance(tile, count, coef, state, at, real, imag):
    """Run a bandpass's pole over a tile."""
    b, p, w = splat(tile, coef[0]), splat(tile, 1.0 - coef[1]), splat(tile, coef[2])
    re, im = load(state, at), load(state, at + LANES)
    for t in range(count):
        re, im = pole_step(re, im, load(tile, t * LANES), b, p, w)
        store(real, t * LANES, convert(re, real))
        store(imag, t * LANES, convert(im, imag))
    store(state, at, re)
    store(state, at + LANES, im)


@kernel
def _band_output(count, mode, scale, present, real, imag):
    """Turn the pole's values into the filter's output."""
    c = splat(real, scale)
    if mode == ENVELOPE:
        for t in range(count):
            y = c * magnitude(load(real, t * LANES), load(imag, t * LANES))
            store(real, t * LANES, select(present, y, 0.0))
    else:
        for t in range(count):
            store(real, t * LANES, select(present, c * load(real, t * LANES), 0.0))
    if mode == COMPLEX:
        for t in range(count):
            store(imag, t * LANES, select(present, c * load(imag, t * LANES), 0.0))


@kernel
def _forward(block, x, lowpass, bands, modes, valid, batch, channels, samples, begin, out_re, out_im, end):
    rows, has, used, lanes = _lane_setup(block, batch, channels, valid, lowpass)
    filters = used.size
    source = rows * samples
    low, tile = scratch(TILE * LANES, lowpass), scratch(TILE * LANES, lowpass)
    real, imag = scratch(TILE * LANES, x), scratch(TILE * LANES, x)
    sections = lowpass.size // 5
    state = read_state(begin, rows, 2 * (sections + filters - 1), lowpass)
    low_state, band_state = state[: 2 * sections * LANES], state[2 * sections * LANES :]
    none = scratch(LANES, lowpass)
    blank = scratch(TILE * LANES, x)
    for start in range(0, samples, TILE):
        count = min(TILE, samples - start)
        read_tile(x, source, start, count, tile)
        for m in range(filters):
            target = (rows * filters + m) * samples
            if not used[m]:
                write_tile(out_re, target, start, count, blank)
                if out_im.size > 0:
                    write_tile(out_im, target, start, count, blank)
            elif m == 0:
                present = load(has, 0) > 0.5
                low[:] = tile
                sections_advance(low, count, lanes, low_state, none)
                for t in range(count):
                    store(low, t * LANES, select(present, load(low, t * LANES), 0.0))
                write_tile(out_re, target, start, count, low)
                if out_im.size > 0:
                    write_tile(out_im, target, start, count, blank)
            else:
                coef, at = bands[4 * (m - 1) : 4 * m], 2 * (m - 1) * LANES
                _band_advance(tile, count, coef, band_state, at, real, imag)
                _band_output(count, modes[m - 1], coef[3], load(has, m * LANES) > 0.5, real, imag)
                write_tile(out_re, target, start, count, real)
                if out_im.size > 0:
                    write_tile(out_im, target, start, count, imag)
        flush(state)
    _keep_missing(begin, rows, sections, has, state)
    write_state(end, rows, 2 * (sections + filters - 1), state)


def _modes(envelope: Tensor, complex_output: bool) -> Tensor:
    return torch.full_like(envelope, COMPLEX, dtype=torch.int64) if complex_output else envelope.to(torch.int64)


def forward(
    x: Tensor, lowpass: Tensor, bands: Tensor, envelope: Tensor, valid: Tensor, state: Tensor, complex_output: bool
) -> tuple[Tensor, Tensor]:
    """Run the operator on the CPU; ``lowpass`` (S, 5), ``bands`` (M - 1, 4): gain, 1 - Re p, Im p, scale."""
    batch, channels, samples = x.shape
    shape = (batch, channels, valid.shape[1], samples)
    real = empty(shape, x.dtype)
    imag = empty(shape if complex_output else (0,), x.dtype)
    end = torch.empty(state.shape, dtype=state.dtype)
    arrays = flat(x), flat(lowpass), flat(bands), flat(_modes(envelope, complex_output)), flat(valid)
    results = flat(real), flat(imag), flat(end)
    run_blocks(_forward, blocks_of(batch * channels), *arrays, batch, channels, samples, flat(state), *results)
    return torch.complex(real, imag) if complex_output else real, end


@kernel
def _band_retreat(tile, count, coef, mode, before, real, imag, grad, grad_im, adjoint, at, sums, total):
    """Backwards over a tile for one bandpass: add the gradient at the input to ``total``.

    ``real``, ``imag`` hold the pole's values, ``before`` those just before the tile. ``adjoint``: the gradient at the
    state, the pole's value one sample before. ``sums``: gain, 1 - Re p, Im p, scale.
    """
    b, d, w, c = splat(tile, coef[0]), splat(tile, coef[1]), splat(tile, coef[2]), splat(tile, coef[3])
    old_lam_re, old_lam_im = load(adjoint, at), load(adjoint, at + LANES)
    s0, s1, s2, s3 = load(sums, 0), load(sums, LANES), load(sums, 2 * LANES), load(sums, 3 * LANES)
    zero = splat(tile, 0.0)
    for step in range(count):
        t = count - 1 - step
        g, h = load(grad, t * LANES), zero
        re, im = load(real, t * LANES), load(imag, t * LANES)
        if mode == ENVELOPE:
            size = sqrt(re * re + im * im)
            s3 = s3 + g * size
            g = c * g / select(size > 0.0, size, 1.0)
            g, h = g * re, g * im
        elif mode == COMPLEX:
            h = load(grad_im, t * LANES)
            s3 = s3 + g * re + h * im
            g, h = c * g, c * h
        else:
            s3 = s3 + g * re
            g = c * g
        lam_re, lam_im = g + old_lam_re, h + old_lam_im
        old_lam_re, old_lam_im = (lam_re - d * lam_re) + w * lam_im, (lam_im - d * lam_im) - w * lam_re
        if t > 0:
            old_re, old_im = load(real, (t - 1) * LANES), load(imag, (t - 1) * LANES)
        else:
            old_re, old_im = load(before, 0), load(before, LANES)
        s0 = s0 + lam_re * load(tile, t * LANES)
        s1 = s1 - (lam_re * old_re + lam_im * old_im)
        s2 = s2 + (lam_im * old_re - lam_re * old_im)
        store(total, t * LANES, load(total, t * LANES) + b * lam_re)
    store(adjoint, at, old_lam_re)
    store(adjoint, at + LANES, old_lam_im)
    store(sums, 0, s0)
    store(sums, LANES, s1)
    store(sums, 2 * LANES, s2)
    store(sums, 3 * LANES, s3)


@kernel
def _read_gradient(grad, offsets, start, count, has, at, tile):
    read_tile(grad, offsets, start, count, tile)
    present = load(has, at) > 0.5
    for t in range(count):
        store(tile, t * LANES, select(present, load(tile, t * LANES), 0.0))


@kernel
def _starts(x, source, samples, bands, used, lanes, sections, state):
    """States of lowpass and bandpasses at the start of every tile."""
    filters = used.size
    size = state.size
    tiles = (samples + TILE - 1) // TILE
    tile, real, imag = scratch(TILE * LANES, bands), scratch(TILE * LANES, bands), scratch(TILE * LANES, bands)
    starts, none = scratch(tiles * size, bands), scratch(LANES, bands)
    low_state, band_state = state[: 2 * sections * LANES], state[2 * sections * LANES :]
    for i in range(tiles):
        starts[i * size : (i + 1) * size] = state
        count = min(TILE, samples - i * TILE)
        read_tile(x, source, i * TILE, count, tile)
        for m in range(1, filters):
            if used[m]:
                _band_advance(tile, count, bands[4 * (m - 1) : 4 * m], band_state, 2 * (m - 1) * LANES, real, imag)
        sections_advance(tile, count, lanes, low_state, none)
        flush(state)
    return starts


@kernel
def _backward(
    block,
    x,
    lowpass,
    bands,
    modes,
    valid,
    batch,
    channels,
    samples,
    begin,
    grad_re,
    grad_im,
    grad_end,
    grad_x,
    grad_low,
    grad_bands,
    grad_begin,
):
    rows, has, used, lanes = _lane_setup(block, batch, channels, valid, lowpass)
    filters, sections = used.size, lowpass.size // 5
    source = rows * samples
    tile, total, low = scratch(TILE * LANES, bands), scratch(TILE * LANES, bands), scratch(TILE * LANES, bands)
    real, imag = scratch(TILE * LANES, bands), scratch(TILE * LANES, bands)
    slope, slope_im = scratch(TILE * LANES, bands), scratch(TILE * LANES, bands)
    history = scratch(sections * TILE * LANES, bands)
    cut, width = 2 * sections * LANES, 2 * (sections + filters - 1)
    size = width * LANES
    state, adjoint = read_state(begin, rows, width, bands), read_state(grad_end, rows, width, bands)
    for lane in range(LANES):  # a filter that is missing hands its state on: nothing of it may reach the sums
        for k in range(width):
            m = 0 if k < 2 * sections else 1 + (k - 2 * sections) // 2
            if has[m * LANES + lane] < 0.5:
                adjoint[k * LANES + lane] = 0.0
    low_sums, band_sums = scratch(lowpass.size * LANES, bands), scratch(4 * filters * LANES, bands)
    starts = _starts(x, source, samples, bands, used, lanes, sections, state)
    tiles = (samples + TILE - 1) // TILE
    for backwards in range(tiles):
        i = tiles - 1 - backwards
        start, count = i * TILE, min(TILE, samples - i * TILE)
        read_tile(x, source, start, count, tile)
        low[:] = tile
        state[:] = starts[i * size : (i + 1) * size]
        total[:] = 0.0
        if used[0]:
            _read_gradient(grad_re, rows * filters * samples, start, count, has, 0, total)
            sections_advance(low, count, lanes, state[:cut], history)
            sections_retreat(total, low, count, lanes, adjoint[:cut], history, low_sums)
        for m in range(1, filters):
            if used[m]:
                coef, at = bands[4 * (m - 1) : 4 * m], cut + 2 * (m - 1) * LANES
                target = (rows * filters + m) * samples
                _read_gradient(grad_re, target, start, count, has, m * LANES, slope)
                if grad_im.size > 0:
                    _read_gradient(grad_im, target, start, count, has, m * LANES, slope_im)
                _band_advance(tile, count, coef, state, at, real, imag)
                before, sums = starts[i * size + at : i * size + at + 2 * LANES], band_sums[4 * m * LANES :]
                mode = modes[m - 1]
                _band_retreat(tile, count, coef, mode, before, real, imag, slope, slope_im, adjoint, at, sums, total)
        flush(adjoint)
        write_tile(grad_x, source, start, count, total)
    _keep_missing(grad_end, rows, sections, has, adjoint)
    write_state(grad_begin, rows, width, adjoint)
    for lane in range(LANES):
        for k in range(lowpass.size):
            grad_low[rows[lane] * lowpass.size + k] = low_sums[k * LANES + lane]
        for k in range(4 * (filters - 1)):
            grad_bands[rows[lane] * 4 * (filters - 1) + k] = band_sums[(4 + k) * LANES + lane]


def backward(
    grad: Tensor,
    grad_end: Tensor,
    x: Tensor,
    lowpass: Tensor,
    bands: Tensor,
    envelope: Tensor,
    valid: Tensor,
    state: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients with respect to ``x``, ``lowpass``, ``bands`` and ``state``."""
    batch, channels, samples = x.shape
    if grad.is_complex():
        parts = torch.view_as_real(grad.resolve_conj())
        grad_re, grad_im = flat(parts[..., 0]), flat(parts[..., 1])
    else:
        grad_re, grad_im = flat(grad), flat(x.new_empty(0))
    modes = _modes(envelope, grad.is_complex())
    grad_x, grad_begin = empty(x.shape, x.dtype), torch.empty(state.shape, dtype=state.dtype)
    grad_low = torch.zeros((batch * channels, *lowpass.shape), dtype=torch.float64)
    grad_bands = torch.zeros((batch * channels, *bands.shape), dtype=torch.float64)
    arrays = flat(x), flat(lowpass), flat(bands), flat(modes), flat(valid), batch, channels, samples, flat(state)
    results = flat(grad_x), flat(grad_low), flat(grad_bands), flat(grad_begin)
    run_blocks(_backward, blocks_of(batch * channels), *arrays, grad_re, grad_im, flat(grad_end), *results)
    return grad_x, grad_low.sum(0), grad_bands.sum(0), grad_begin
