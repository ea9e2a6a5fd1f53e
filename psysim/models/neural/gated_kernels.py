"""CPU kernels of the recurrent cells: a few rows of a batch at a time, vectors of hidden units.

All sizes are multiples of `LANES`: the caller pads units with zeros, which stay zero. The input's share of a cell comes
in ready, (B, T, G H) for G gates; a matrix W (K, J) of K inputs and J outputs is packed as
(J / LANES, K, LANES), so that it is read in one stream. What the way back needs is kept: the gates, and the states are
the output itself.
"""

# mypy: disable-error-code="no-untyped-def"
# Compiled functions are typed by numba.

from __future__ import annotations

from psysim.ops.cpu.exp import exp, expm1
from psysim.ops.cpu.simd import LANES, fma, load, splat, store
from psysim.ops.cpu.tiles import kernel, scratch

__all__ = [
    "ROWS",
    "gru_backward",
    "gru_forward",
    "lmu_backward",
    "lmu_forward",
    "lstm_backward",
    "lstm_forward",
    "rnn_backward",
    "rnn_forward",
]

ROWS = 4  # rows of a batch that share a read of the matrices


@kernel
def _sigmoid(x):
    return 1.0 / (1.0 + exp(-x))


@kernel
def _tanh(x):
    e = expm1(x * -2.0)
    return -e / (e + 2.0)


@kernel
def _matvec(matrix, inputs, outputs, vector, at, out, to, add):
    """out[to + j] (+)= sum_k W[k, j] vector[at + k] for a packed matrix; ``inputs`` is a multiple of four."""
    for j in range(0, outputs, LANES):
        a = load(out, to + j) if add else splat(out, 0.0)
        b, c, d = splat(out, 0.0), splat(out, 0.0), splat(out, 0.0)
        for k in range(0, inputs, 4):
            place = j * inputs + k * LANES
            a = fma(load(matrix, place), splat(out, vector[at + k]), a)
            b = fma(load(matrix, place + LANES), splat(out, vector[at + k + 1]), b)
            c = fma(load(matrix, place + 2 * LANES), splat(out, vector[at + k + 2]), c)
            d = fma(load(matrix, place + 3 * LANES), splat(out, vector[at + k + 3]), d)
        store(out, to + j, (a + b) + (c + d))


@kernel
def _matvec4(matrix, inputs, outputs, vector, at, pitch, out, to, stride, add):
    """`_matvec` for four vectors, ``pitch`` apart, and their outputs, ``stride`` apart: the matrix is read once.

    Every row sums in the order of `_matvec`: its result does not depend on the rows beside it.
    """
    at1, at2, at3 = at + pitch, at + 2 * pitch, at + 3 * pitch
    to1, to2, to3 = to + stride, to + 2 * stride, to + 3 * stride
    for j in range(0, outputs, LANES):
        a0 = load(out, to + j) if add else splat(out, 0.0)
        a1 = load(out, to1 + j) if add else splat(out, 0.0)
        a2 = load(out, to2 + j) if add else splat(out, 0.0)
        a3 = load(out, to3 + j) if add else splat(out, 0.0)
        b0, b1, b2, b3 = splat(out, 0.0), splat(out, 0.0), splat(out, 0.0), splat(out, 0.0)
        c0, c1, c2, c3 = splat(out, 0.0), splat(out, 0.0), splat(out, 0.0), splat(out, 0.0)
        d0, d1, d2, d3 = splat(out, 0.0), splat(out, 0.0), splat(out, 0.0), splat(out, 0.0)
        for k in range(0, inputs, 4):
            place = j * inputs + k * LANES
            w = load(matrix, place)
            a0, a1 = fma(w, splat(out, vector[at + k]), a0), fma(w, splat(out, vector[at1 + k]), a1)
            a2, a3 = fma(w, splat(out, vector[at2 + k]), a2), fma(w, splat(out, vector[at3 + k]), a3)
            w = load(matrix, place + LANES)
            b0, b1 = fma(w, splat(out, vector[at + k + 1]), b0), fma(w, splat(out, vector[at1 + k + 1]), b1)
            b2, b3 = fma(w, splat(out, vector[at2 + k + 1]), b2), fma(w, splat(out, vector[at3 + k + 1]), b3)
            w = load(matrix, place + 2 * LANES)
            c0, c1 = fma(w, splat(out, vector[at + k + 2]), c0), fma(w, splat(out, vector[at1 + k + 2]), c1)
            c2, c3 = fma(w, splat(out, vector[at2 + k + 2]), c2), fma(w, splat(out, vector[at3 + k + 2]), c3)
            w = load(matrix, place + 3 * LANES)
            d0, d1 = fma(w, splat(out, vector[at + k + 3]), d0), fma(w, splat(out, vector[at1 + k + 3]), d1)
            d2, d3 = fma(w, splat(out, vector[at2 + k + 3]), d2), fma(w, splat(out, vector[at3 + k + 3]), d3)
        store(out, to + j, (a0 + b0) + (c0 + d0))
        store(out, to1 + j, (a1 + b1) + (c1 + d1))
        store(out, to2 + j, (a2 + b2) + (c2 + d2))
        store(out, to3 + j, (a3 + b3) + (c3 + d3))


@kernel
def _matvecs(rows, matrix, inputs, outputs, vector, at, pitch, out, to, stride, add):
    """Multiply for one to four rows."""
    if rows == ROWS:
        _matvec4(matrix, inputs, outputs, vector, at, pitch, out, to, stride, add)
    else:
        for row in range(rows):
            _matvec(matrix, inputs, outputs, vector, at + row * pitch, out, to + row * stride, add)


@kernel
def rnn_forward(block, given, matrix, units, frames, begin, out):
    """H = tanh(given + h W)."""
    first = block * ROWS
    rows = min(ROWS, begin.size // units - first)
    state = begin[first * units : (first + rows) * units].copy()
    long = frames * units
    for t in range(frames):
        at = first * long + t * units
        for row in range(rows):
            here = at + row * long
            out[here : here + units] = given[here : here + units]
        _matvecs(rows, matrix, units, units, state, 0, units, out, at, long, True)
        for row in range(rows):
            for j in range(0, units, LANES):
                h = _tanh(load(out, at + row * long + j))
                store(out, at + row * long + j, h)
                store(state, row * units + j, h)


@kernel
def rnn_backward(block, grad, matrix, units, frames, out, slope, grad_begin):
    """``matrix`` is transposed here; ``slope`` becomes the gradient of ``given``."""
    first, long = block * ROWS, frames * units
    rows = min(ROWS, grad_begin.size // units - first)
    carry = scratch(rows * units, grad)
    for back in range(frames):
        at = first * long + (frames - 1 - back) * units
        for row in range(rows):
            for j in range(0, units, LANES):
                here = at + row * long + j
                h = load(out, here)
                store(slope, here, (load(grad, here) + load(carry, row * units + j)) * (1.0 - h * h))
        _matvecs(rows, matrix, units, units, slope, at, long, carry, 0, units, False)
    grad_begin[first * units : (first + rows) * units] = carry


@kernel
def gru_forward(block, given, matrix, bias, units, frames, begin, out, gates):
    """r, z = sigmoid(given + h W), q = h W_n + bias, n = tanh(given_n + r q), h = (1 - z) n + z h; kept: r, z, n, q."""
    first, long = block * ROWS, frames * units
    rows = min(ROWS, begin.size // units - first)
    state = begin[first * units : (first + rows) * units].copy()
    drive = scratch(3 * rows * units, given)
    for t in range(frames):
        at = first * long + t * units
        for row in range(rows):
            here, k = 3 * (at + row * long), 3 * row * units
            drive[k + 2 * units : k + 3 * units] = bias
            drive[k : k + 2 * units] = given[here : here + 2 * units]
        _matvecs(rows, matrix, units, 3 * units, state, 0, units, drive, 0, 3 * units, True)
        for row in range(rows):
            here = at + row * long
            for j in range(0, units, LANES):
                k = 3 * row * units + j
                r, z = _sigmoid(load(drive, k)), _sigmoid(load(drive, k + units))
                q = load(drive, k + 2 * units)
                n = _tanh(load(given, 3 * here + 2 * units + j) + r * q)
                h = n + z * (load(state, row * units + j) - n)
                store(state, row * units + j, h)
                store(out, here + j, h)
                store(gates, 4 * here + j, r)
                store(gates, 4 * here + units + j, z)
                store(gates, 4 * here + 2 * units + j, n)
                store(gates, 4 * here + 3 * units + j, q)


@kernel
def gru_backward(block, grad, matrix, units, frames, begin, out, gates, slope, slope_q, grad_begin):
    """``slope``: gradient of ``given``; ``slope_q``: of q."""
    first, long = block * ROWS, frames * units
    rows = min(ROWS, grad_begin.size // units - first)
    carry, inner = scratch(rows * units, grad), scratch(3 * rows * units, grad)
    for back in range(frames):
        t = frames - 1 - back
        for row in range(rows):
            at = (first + row) * long + t * units
            for j in range(0, units, LANES):
                r, z = load(gates, 4 * at + j), load(gates, 4 * at + units + j)
                n, q = load(gates, 4 * at + 2 * units + j), load(gates, 4 * at + 3 * units + j)
                before = load(out, at - units + j) if t > 0 else load(begin, (first + row) * units + j)
                dh = load(grad, at + j) + load(carry, row * units + j)
                dn = dh * (1.0 - z) * (1.0 - n * n)
                dr, dz, dq = dn * q * r * (1.0 - r), dh * (before - n) * z * (1.0 - z), dn * r
                store(slope, 3 * at + j, dr)
                store(slope, 3 * at + units + j, dz)
                store(slope, 3 * at + 2 * units + j, dn)
                store(slope_q, at + j, dq)
                k = 3 * row * units + j
                store(inner, k, dr)
                store(inner, k + units, dz)
                store(inner, k + 2 * units, dq)
                store(carry, row * units + j, dh * z)
        _matvecs(rows, matrix, 3 * units, units, inner, 0, 3 * units, carry, 0, units, True)
    grad_begin[first * units : (first + rows) * units] = carry


@kernel
def lstm_forward(block, given, matrix, units, frames, begin, begin_cell, out, cells, gates):
    """i, f, g, o from given + h W; c = f c + i g, h = o tanh(c)."""
    first, long = block * ROWS, frames * units
    rows = min(ROWS, begin.size // units - first)
    state = begin[first * units : (first + rows) * units].copy()
    cell = begin_cell[first * units : (first + rows) * units].copy()
    for t in range(frames):
        at = first * long + t * units
        for row in range(rows):
            here = 4 * (at + row * long)
            gates[here : here + 4 * units] = given[here : here + 4 * units]
        _matvecs(rows, matrix, units, 4 * units, state, 0, units, gates, 4 * at, 4 * long, True)
        for row in range(rows):
            here = at + row * long
            for j in range(0, units, LANES):
                k = 4 * here + j
                i, f = _sigmoid(load(gates, k)), _sigmoid(load(gates, k + units))
                g, o = _tanh(load(gates, k + 2 * units)), _sigmoid(load(gates, k + 3 * units))
                c = f * load(cell, row * units + j) + i * g
                h = o * _tanh(c)
                store(cell, row * units + j, c)
                store(cells, here + j, c)
                store(state, row * units + j, h)
                store(out, here + j, h)
                store(gates, k, i)
                store(gates, k + units, f)
                store(gates, k + 2 * units, g)
                store(gates, k + 3 * units, o)


@kernel
def lstm_backward(
    block, grad, grad_cell, matrix, units, frames, begin_cell, cells, gates, slope, grad_begin, grad_first
):
    """``slope``: gradient of ``given``; ``grad_cell`` is that of the last cell state, ``grad_first`` of the first."""
    first, long = block * ROWS, frames * units
    rows = min(ROWS, grad_begin.size // units - first)
    carry = scratch(rows * units, grad)
    along = grad_cell[first * units : (first + rows) * units].copy()
    for back in range(frames):
        t = frames - 1 - back
        for row in range(rows):
            at = (first + row) * long + t * units
            for j in range(0, units, LANES):
                k, m = 4 * at + j, row * units + j
                i, f = load(gates, k), load(gates, k + units)
                g, o = load(gates, k + 2 * units), load(gates, k + 3 * units)
                before = load(cells, at - units + j) if t > 0 else load(begin_cell, (first + row) * units + j)
                shape = _tanh(load(cells, at + j))
                dh = load(grad, at + j) + load(carry, m)
                dc = load(along, m) + dh * o * (1.0 - shape * shape)
                store(slope, k, dc * g * i * (1.0 - i))
                store(slope, k + units, dc * before * f * (1.0 - f))
                store(slope, k + 2 * units, dc * i * (1.0 - g * g))
                store(slope, k + 3 * units, dh * shape * o * (1.0 - o))
                store(along, m, dc * f)
        at = 4 * (first * long + t * units)
        _matvecs(rows, matrix, 4 * units, units, slope, at, 4 * long, carry, 0, units, False)
    grad_begin[first * units : (first + rows) * units] = carry
    grad_first[first * units : (first + rows) * units] = along


@kernel
def _dot(a, at, b, to, size):
    total = 0.0
    for k in range(size):
        total += a[at + k] * b[to + k]
    return total


@kernel
def lmu_forward(row, given, share, a, b, e_h, e_m, w_h, w_m, units, order, frames, begin, begin_memory, out, memory):
    """U = share + e_h h + e_m m, m = A m + b u, h = tanh(given + h W_h + m W_m)."""
    state = begin[row * units : (row + 1) * units].copy()
    past = begin_memory[row * order : (row + 1) * order].copy()
    for t in range(frames):
        at, to = (row * frames + t) * units, (row * frames + t) * order
        u = share[row * frames + t] + _dot(e_h, 0, state, 0, units) + _dot(e_m, 0, past, 0, order)
        for j in range(0, order, LANES):
            store(memory, to + j, load(b, j) * splat(memory, u))
        _matvec(a, order, order, past, 0, memory, to, True)
        past[:] = memory[to : to + order]
        out[at : at + units] = given[at : at + units]
        _matvec(w_h, units, units, state, 0, out, at, True)
        _matvec(w_m, order, units, past, 0, out, at, True)
        for j in range(0, units, LANES):
            h = _tanh(load(out, at + j))
            store(out, at + j, h)
            store(state, j, h)


@kernel
def lmu_backward(
    row, grad, grad_memory, a, b, e_h, e_m, w_h, w_m, units, order, frames, out, slope, slope_u, grad_begin, grad_past
):
    """Matrices are transposed here; ``slope`` and ``slope_u`` become the gradients of ``given`` and of u."""
    carry = scratch(units, grad)
    along = grad_memory[row * order : (row + 1) * order].copy()
    other = scratch(order, grad)
    for back in range(frames):
        at = (row * frames + frames - 1 - back) * units
        for j in range(0, units, LANES):
            h = load(out, at + j)
            store(slope, at + j, (load(grad, at + j) + load(carry, j)) * (1.0 - h * h))
        _matvec(w_m, units, order, slope, at, along, 0, True)
        u = _dot(b, 0, along, 0, order)
        slope_u[row * frames + frames - 1 - back] = u
        for j in range(0, order, LANES):
            store(other, j, load(e_m, j) * splat(other, u))
        _matvec(a, order, order, along, 0, other, 0, True)
        along[:] = other
        for j in range(0, units, LANES):
            store(carry, j, load(e_h, j) * splat(carry, u))
        _matvec(w_h, units, units, slope, at, carry, 0, True)
    grad_begin[row * units : (row + 1) * units] += carry
    grad_past[row * order : (row + 1) * order] += along
