"""CPU kernels of linear state spaces: one row of a batch at a time, vectors of channels.

The channels C are padded to a multiple of `LANES`. Arrays are flat: signals (B, T, C); states (B, N, C); what all
channels of a row share, (B, T, N). The way back recomputes the states of `STRETCH` frames at a time from kept ones.
"""

# mypy: disable-error-code="no-untyped-def"
# Compiled functions are typed by numba.

from __future__ import annotations

from psysim.ops.cpu.exp import exp
from psysim.ops.cpu.simd import LANES, fma, load, splat, store
from psysim.ops.cpu.tiles import kernel, scratch

__all__ = ["diagonal_backward", "diagonal_forward", "selective_backward", "selective_forward"]

STRETCH = 32


@kernel
def selective_forward(row, u, dt, a, b, c, channels, order, frames, begin, y, end):
    """H = exp(dt a) h + dt u b, y = c . h; ``a`` (N, C), ``b`` and ``c`` (B, T, N)."""
    state = scratch(order * LANES, u)
    for j in range(0, channels, LANES):
        for n in range(order):
            store(state, n * LANES, load(begin, (row * order + n) * channels + j))
        for t in range(frames):
            at, shared = (row * frames + t) * channels + j, (row * frames + t) * order
            step = load(dt, at)
            push, total = step * load(u, at), splat(y, 0.0)
            for n in range(order):
                h = exp(step * load(a, n * channels + j)) * load(state, n * LANES)
                h = fma(push, splat(u, b[shared + n]), h)
                store(state, n * LANES, h)
                total = fma(h, splat(u, c[shared + n]), total)
            store(y, at, total)
        for n in range(order):
            store(end, (row * order + n) * channels + j, load(state, n * LANES))


@kernel
def _selective_stretch(row, u, dt, a, b, channels, order, frames, j, first, last, state, kept):
    """Compute the states of frames ``first`` to ``last - 1``; ``kept`` holds those before each frame, and the last."""
    for n in range(order):
        store(kept, n * LANES, load(state, n * LANES))
    for t in range(first, last):
        at, shared = (row * frames + t) * channels + j, (row * frames + t) * order
        step = load(dt, at)
        push = step * load(u, at)
        for n in range(order):
            place = ((t - first) * order + n) * LANES
            h = exp(step * load(a, n * channels + j)) * load(kept, place)
            store(kept, place + order * LANES, fma(push, splat(u, b[shared + n]), h))
    for n in range(order):
        store(state, n * LANES, load(kept, ((last - first) * order + n) * LANES))


@kernel
def selective_backward(
    row, grad, grad_end, u, dt, a, b, c, channels, order, frames, begin, of_u, of_dt, of_a, of_b, of_c, of_begin
):
    """Gradients; ``of_a`` is (B, N, C), ``of_b`` and ``of_c`` are (B, T, N, LANES), to be summed over the lanes."""
    state, along = scratch(order * LANES, u), scratch(order * LANES, u)
    kept = scratch((STRETCH + 1) * order * LANES, u)
    stretches = (frames + STRETCH - 1) // STRETCH
    starts = scratch(stretches * order * LANES, u)
    size = order * LANES
    for j in range(0, channels, LANES):
        for n in range(order):
            place = (row * order + n) * channels + j
            store(state, n * LANES, load(begin, place))
            store(along, n * LANES, load(grad_end, place))
        for i in range(stretches):
            starts[i * size : (i + 1) * size] = state
            last = min((i + 1) * STRETCH, frames)
            _selective_stretch(row, u, dt, a, b, channels, order, frames, j, i * STRETCH, last, state, kept)
        for back in range(stretches):
            i = stretches - 1 - back
            first, last = i * STRETCH, min((i + 1) * STRETCH, frames)
            state[:] = starts[i * size : (i + 1) * size]
            _selective_stretch(row, u, dt, a, b, channels, order, frames, j, first, last, state, kept)
            for backwards in range(last - first):
                t = last - 1 - backwards
                at, shared = (row * frames + t) * channels + j, (row * frames + t) * order
                step, given, dy = load(dt, at), load(u, at), load(grad, at)
                du, ddt = splat(u, 0.0), splat(u, 0.0)
                for n in range(order):
                    place = ((t - first) * order + n) * LANES
                    slot = (shared + n) * LANES
                    rate, earlier = load(a, n * channels + j), load(kept, place)
                    share = splat(u, b[shared + n])
                    g = fma(dy, splat(u, c[shared + n]), load(along, n * LANES))
                    store(of_c, slot, fma(dy, load(kept, place + size), load(of_c, slot)))
                    store(of_b, slot, fma(g, step * given, load(of_b, slot)))
                    decay = exp(step * rate)
                    passed = g * decay * earlier
                    du = fma(g, share, du)
                    ddt = fma(passed, rate, fma(g, share * given, ddt))
                    spot = (row * order + n) * channels + j
                    store(of_a, spot, fma(passed, step, load(of_a, spot)))
                    store(along, n * LANES, g * decay)
                store(of_u, at, du * step)
                store(of_dt, at, ddt)
        for n in range(order):
            store(of_begin, (row * order + n) * channels + j, load(along, n * LANES))


@kernel
def diagonal_forward(row, x, ar, ai, cr, ci, channels, order, frames, begin_r, begin_i, y, end_r, end_i):
    """H = a h + x, y = Re(sum c h), a and c complex, (N, C)."""
    size = order * LANES
    real, imag = scratch(size, x), scratch(size, x)
    for j in range(0, channels, LANES):
        for n in range(order):
            store(real, n * LANES, load(begin_r, (row * order + n) * channels + j))
            store(imag, n * LANES, load(begin_i, (row * order + n) * channels + j))
        for t in range(frames):
            at = (row * frames + t) * channels + j
            given, plus, minus = load(x, at), splat(y, 0.0), splat(y, 0.0)
            for n in range(order):
                k = n * channels + j
                hr, hi, p, q = load(real, n * LANES), load(imag, n * LANES), load(ar, k), load(ai, k)
                new_r, new_i = given + p * hr - q * hi, p * hi + q * hr
                store(real, n * LANES, new_r)
                store(imag, n * LANES, new_i)
                plus, minus = fma(load(cr, k), new_r, plus), fma(load(ci, k), new_i, minus)
            store(y, at, plus - minus)
        for n in range(order):
            store(end_r, (row * order + n) * channels + j, load(real, n * LANES))
            store(end_i, (row * order + n) * channels + j, load(imag, n * LANES))


@kernel
def _diagonal_stretch(row, x, ar, ai, channels, order, frames, j, first, last, state, kept):
    """Compute the states of a stretch; ``state`` and ``kept`` hold real and imaginary parts of each order in turn."""
    for m in range(2 * order):
        store(kept, m * LANES, load(state, m * LANES))
    for t in range(first, last):
        given = load(x, (row * frames + t) * channels + j)
        for n in range(order):
            k = n * channels + j
            place = ((t - first) * order + n) * 2 * LANES
            hr, hi, p, q = load(kept, place), load(kept, place + LANES), load(ar, k), load(ai, k)
            store(kept, place + 2 * order * LANES, given + p * hr - q * hi)
            store(kept, place + 2 * order * LANES + LANES, p * hi + q * hr)
    for m in range(2 * order):
        store(state, m * LANES, load(kept, ((last - first) * 2 * order + m) * LANES))


@kernel
def diagonal_backward(
    row, grad, grad_r, grad_i, x, ar, ai, cr, ci, channels, order, frames, begin_r, begin_i, of_x, of_matrices, of_begin
):
    """Gradients; ``of_matrices`` (B, 4, N, C): of ar, ai, cr, ci; ``of_begin`` (2, B, N, C)."""
    size = 2 * order * LANES
    state, along, sums = scratch(size, x), scratch(size, x), scratch(2 * size, x)
    kept = scratch((STRETCH + 1) * size, x)
    stretches = (frames + STRETCH - 1) // STRETCH
    starts = scratch(stretches * size, x)
    half = begin_r.size
    for j in range(0, channels, LANES):
        sums[:] = 0.0
        for n in range(order):
            spot = (row * order + n) * channels + j
            store(state, 2 * n * LANES, load(begin_r, spot))
            store(state, (2 * n + 1) * LANES, load(begin_i, spot))
            store(along, 2 * n * LANES, load(grad_r, spot))
            store(along, (2 * n + 1) * LANES, load(grad_i, spot))
        for i in range(stretches):
            starts[i * size : (i + 1) * size] = state
            last = min((i + 1) * STRETCH, frames)
            _diagonal_stretch(row, x, ar, ai, channels, order, frames, j, i * STRETCH, last, state, kept)
        for back in range(stretches):
            i = stretches - 1 - back
            first, last = i * STRETCH, min((i + 1) * STRETCH, frames)
            state[:] = starts[i * size : (i + 1) * size]
            _diagonal_stretch(row, x, ar, ai, channels, order, frames, j, first, last, state, kept)
            for backwards in range(last - first):
                t = last - 1 - backwards
                at = (row * frames + t) * channels + j
                dy, dx = load(grad, at), splat(x, 0.0)
                for n in range(order):
                    k, place, m = n * channels + j, ((t - first) * order + n) * 2 * LANES, 4 * n * LANES
                    gr = fma(dy, load(cr, k), load(along, 2 * n * LANES))
                    gi = load(along, (2 * n + 1) * LANES) - dy * load(ci, k)
                    hr, hi, p, q = load(kept, place), load(kept, place + LANES), load(ar, k), load(ai, k)
                    store(sums, m, load(sums, m) + gr * hr + gi * hi)
                    store(sums, m + LANES, load(sums, m + LANES) + gi * hr - gr * hi)
                    store(sums, m + 2 * LANES, fma(dy, load(kept, place + size), load(sums, m + 2 * LANES)))
                    store(sums, m + 3 * LANES, load(sums, m + 3 * LANES) - dy * load(kept, place + size + LANES))
                    dx = dx + gr
                    store(along, 2 * n * LANES, p * gr + q * gi)
                    store(along, (2 * n + 1) * LANES, p * gi - q * gr)
                store(of_x, at, dx)
        for n in range(order):
            spot = (row * order + n) * channels + j
            store(of_begin, spot, load(along, 2 * n * LANES))
            store(of_begin, half + spot, load(along, (2 * n + 1) * LANES))
            for m in range(4):
                store(of_matrices, ((row * 4 + m) * order + n) * channels + j, load(sums, (4 * n + m) * LANES))
