"""Triton kernels of `hair_cell`, in the form of `psysim.ops._hair_cell.circuit_coefficients`.

Forward in the dtype of the signal, backward in float64. The way forth keeps the voltage before every fourth sample; the
way back recomputes four samples at a time from it: eight would not fit into the registers.
"""

# mypy: disable-error-code="no-untyped-def, assignment"
# ruff: noqa: RUF005
# Compiled functions are typed by Triton, which cannot unpack into a tuple.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from psysim.ops.cuda.tiles import add, launch, read_rows, read_samples, write_rows, write_samples, zeros

__all__ = ["backward", "forward"]


@triton.jit
def _expm1(z):
    """Exponential function minus 1: the series below 0.35, where the difference would lose digits."""
    terms: tl.constexpr = 8 if z.dtype == tl.float32 else 14  # the first left out is below 2^-25, 2^-55 of the sum
    series = tl.zeros_like(z) + 1.0
    for n in tl.static_range(terms, 1, -1):
        series = 1.0 + (z * series) * (1.0 / n)
    return tl.where(tl.abs(z) < 0.35, z * series, tl.exp(z) - 1.0)


@triton.jit
def _conductance(v, coef):
    """Exponentials of the two gates, and what the conductance has lost since silence, in units of ``scale``."""
    z0, z1, a, b = coef[0] * v, coef[1] * v, coef[2], coef[3]
    z1, z0 = tl.where(z1 > 40.0, 40.0, z1), tl.where(z0 > 40.0, 40.0, z0)  # in this order NaN stays; then it is shut
    m1, m0 = _expm1(z1), _expm1(z0)
    p1, p0 = 1.0 + m1, 1.0 + m0
    return p1, p0, ((a + b) * m1 + (b * p1) * m0) / (1.0 + p1 * (a + b * p0))


@triton.jit
def _advance(tile, voltage, coef, COUNT: tl.constexpr):
    """Turn ``COUNT`` samples into voltages, with the one before them in front."""
    values = (voltage,)
    for i in tl.static_range(COUNT):
        _p1, _p0, ratio = _conductance(tile[i].to(voltage.dtype), coef)
        q = coef[4] * ratio
        voltage = voltage + ((q - coef[6]) * coef[7] - (coef[5] - q) * voltage)
        values = values + (voltage,)
    return values


@triton.jit
def _pass(source, target, t, mask, voltage, coef, COUNT: tl.constexpr):
    """Turn ``COUNT`` samples from ``t`` on into voltages; returns the last."""
    values = _advance(read_samples(source, t, mask, COUNT, 1), voltage, coef, COUNT)
    write_samples(target, t, mask, values[1:], COUNT, 1)
    return values[COUNT]


@triton.jit
def _forward(x, coef, begin, out, end, samples, channels, rows, BLOCK: tl.constexpr):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = row < rows
    kind: tl.constexpr = x.dtype.element_ty
    exact = read_rows(coef, row % channels, mask, 8)
    c = ()
    for k in tl.static_range(8):
        c = c + (exact[k].to(kind),)
    voltage = read_rows(begin, row, mask, 1)[0].to(kind)
    source, target = x + row.to(tl.int64) * samples, out + row.to(tl.int64) * samples
    whole = samples // 8 * 8
    for t in range(0, whole, 8):
        voltage = _pass(source, target, t, mask, voltage, c, 8)
    for t in range(whole, samples):
        voltage = _pass(source, target, t, mask, voltage, c, 1)
    write_rows(end, row, mask, (voltage.to(tl.float64),), 1)


def forward(x: Tensor, coef: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Run the operator on CUDA; ``coef`` (1 or F, 8)."""
    out, end = torch.empty(x.shape, dtype=x.dtype, device=x.device), torch.empty_like(state)
    batch, channels, samples = x.shape
    launch(_forward, batch * channels, x, coef, state, out, end, samples, len(coef))
    return out, end


@triton.jit
def _step_back(v, g, voltage, lam, coef):
    """Go one sample back: the gradients at the input, at the voltage before and at the coefficients."""
    c0, c1, a, b, scale, total, offset, drive = coef
    p1, p0, ratio = _conductance(v, coef)
    w1, w0 = p1 * a, p1 * (b * p0)
    part = 1.0 / (1.0 + (w1 + w0))
    level = (1.0 + (a + b)) * part
    q = scale * ratio
    lam = g + lam
    of_q = lam * (voltage + drive)
    h = (scale * of_q) * part
    of_z0 = h * (level * w0)
    of_z1 = h * (level * w1) + of_z0
    of_a, of_b = h * (level * p1 - 1.0), h * (level * (p1 * p0) - 1.0)
    more = (of_z0 * v, of_z1 * v, of_a, of_b, of_q * ratio, -lam * voltage, -lam * drive, lam * (q - offset))
    return c1 * of_z1 + c0 * of_z0, lam - (total - q) * lam, more


@triton.jit
def _retreat(source, slopes, target, kept, stride, t, mask, lam, sums, coef, COUNT: tl.constexpr, PART: tl.constexpr):
    """Go back over ``COUNT`` samples from ``t`` on, ``PART`` at a time; ``kept``: the voltages before each part."""
    grads, tile = read_samples(slopes, t, mask, COUNT, 1), read_samples(source, t, mask, COUNT, 1)
    values = ()
    for first in tl.static_range(COUNT - PART, -1, -PART):
        start = tl.load(kept + first // PART * stride, mask=mask, other=0.0)
        before = _advance(tile[first : first + PART], start, coef, PART)
        for i in tl.static_range(PART - 1, -1, -1):
            v, g = tile[first + i].to(tl.float64), grads[first + i].to(tl.float64)
            g, lam, more = _step_back(v, g, before[i], lam, coef)
            sums = add(sums, more, 8)
            values = (g,) + values
    write_samples(target, t, mask, values, COUNT, 1)
    return lam, sums


@triton.jit
def _backward(
    x, coef, begin, grad, grad_end, grad_x, grad_coef, grad_begin, starts, samples, channels, rows, BLOCK: tl.constexpr
):
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = row < rows
    c = read_rows(coef, row % channels, mask, 8)
    source, slopes = x + row.to(tl.int64) * samples, grad + row.to(tl.int64) * samples
    target, kept = grad_x + row.to(tl.int64) * samples, starts + row
    stride = tl.cast(rows, tl.int64)
    whole = samples // 8 * 8
    voltage = read_rows(begin, row, mask, 1)[0]
    for t in range(0, whole, 8):  # voltages before every fourth sample, and before every single one after the last 8
        values = _advance(read_samples(source, t, mask, 8, 1), voltage, c, 8)
        tl.store(kept + t // 4 * stride, voltage, mask=mask)
        tl.store(kept + (t // 4 + 1) * stride, values[4], mask=mask)
        voltage = values[8]
    for t in range(whole, samples):
        tl.store(kept + (whole // 4 + t - whole) * stride, voltage, mask=mask)
        voltage = _advance(read_samples(source, t, mask, 1, 1), voltage, c, 1)[1]
    lam, sums = read_rows(grad_end, row, mask, 1)[0], zeros(BLOCK, 8)
    for back in range(samples - whole):
        t = samples - 1 - back
        place = kept + (whole // 4 + t - whole) * stride
        lam, sums = _retreat(source, slopes, target, place, stride, t, mask, lam, sums, c, 1, 1)
    for back in range(whole // 8):
        t = whole - 8 - 8 * back
        place = kept + t // 4 * stride
        lam, sums = _retreat(source, slopes, target, place, stride, t, mask, lam, sums, c, 8, 4)
    write_rows(grad_begin, row, mask, (lam,), 1)
    write_rows(grad_coef, row, mask, sums, 8)


def backward(grad: Tensor, grad_end: Tensor, x: Tensor, coef: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients with respect to ``x``, ``coef`` and ``state``."""
    batch, channels, samples = x.shape
    rows = batch * channels
    grad_x, grad_begin = torch.empty(x.shape, dtype=x.dtype, device=x.device), torch.empty_like(state)
    grad_coef = torch.empty((batch, channels, 8), dtype=torch.float64, device=x.device)
    starts = state.new_empty((samples // 8 * 2 + samples % 8, rows))
    arrays = x, coef, state, grad, grad_end, grad_x, grad_coef, grad_begin, starts
    launch(_backward, rows, *arrays, samples, len(coef))
    total = grad_coef.sum(0)
    return grad_x, total if len(coef) > 1 else total.sum(0, keepdim=True), grad_begin
