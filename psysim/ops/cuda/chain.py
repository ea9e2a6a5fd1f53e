"""Triton form of `chain_products`: the steps one by one, then the modulation bank with its sums in one kernel.

A bandpass of a row is a lane (as in `psysim.ops.cuda.modulation`), which is twelve times as many lanes as there are
rows: splitting the chain in front of the bank keeps a card busier than one lane for all filters would, at the price of
(B, F, T) in memory. The representation (B, F, M, T), twelve times as large, is never written.
"""

# mypy: disable-error-code="no-untyped-def, assignment"
# ruff: noqa: RUF005
# Compiled functions are typed by Triton, which cannot unpack into a tuple.

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import triton
import triton.language as tl
from torch import Tensor

from psysim.ops import steps as kinds
from psysim.ops._modulation import pole_coefficients
from psysim.ops._sosfilt import section_coefficients
from psysim.ops.cpu.template import check_index
from psysim.ops.cuda import sosfilt
from psysim.ops.cuda.modulation import GROUP, band_step, lane_of, lanes_of
from psysim.ops.cuda.tiles import launch, read_rows, read_samples, zeros

__all__ = ["forward", "products"]


@triton.jit
def _add(y, templates, t, step, mask, sums, KEPT: tl.constexpr, MOMENTS: tl.constexpr):
    """Add sample ``t`` of the representation, times each template, to the sums."""
    value = y.to(tl.float64)
    after = ()
    for k in tl.static_range(KEPT):
        after = after + (sums[k] + value * tl.load(templates + k * step + t, mask=mask, other=0.0).to(tl.float64),)
    if MOMENTS:
        after = after + (sums[KEPT] + value, sums[KEPT + 1] + value * value)
    return after


@triton.jit
def _store(out, sums, mask, OUT: tl.constexpr):
    for k in tl.static_range(OUT):
        tl.store(out + k, sums[k], mask=mask)


@triton.jit
def _lowpass_products(
    y, templates, index, valid, out, samples, channels, filters, rows,
    KEPT: tl.constexpr, MOMENTS: tl.constexpr, OUT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = row < rows
    channel = row % channels
    mask = mask & (tl.load(valid + channel * filters, mask=mask, other=0) != 0)
    step = tl.cast(samples, tl.int64) * filters * channels
    place = templates + tl.load(index + row // channels, mask=mask, other=0) * (KEPT * step)
    place += channel * filters * samples
    sums = zeros(BLOCK, OUT)
    for t in range(samples):
        value = tl.load(y + row * samples + t, mask=mask, other=0.0)
        sums = _add(value, place, t, step, mask, sums, KEPT, MOMENTS)
    _store(out + row * filters * OUT, sums, mask, OUT)


@triton.jit
def _advance(
    source, place, t, step, present, envelope, state, coef, sums, kind: tl.constexpr,
    KEPT: tl.constexpr, MOMENTS: tl.constexpr, COUNT: tl.constexpr,
):  # fmt: skip
    tile = read_samples(source, t, present, COUNT, 1)
    scale = coef[3].to(kind)
    for i in tl.static_range(COUNT):
        state = band_step(tile[i].to(tl.float64), state, coef)
        re, im = state[0].to(kind), state[1].to(kind)
        y = scale * tl.where(envelope, tl.sqrt(re * re + im * im), re)
        sums = _add(y, place, t + i, step, present, sums, KEPT, MOMENTS)
    return state, sums


@triton.jit
def _band_products(
    x, bands, envelope, valid, templates, index, out, samples, batch, channels, filters, rows,
    GROUP: tl.constexpr, KEPT: tl.constexpr, MOMENTS: tl.constexpr, OUT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    band, row, mask, present = lane_of(valid, batch, channels, filters, rows, GROUP, BLOCK)
    c = read_rows(bands, band, present, 4)
    magnitude = tl.load(envelope + band, mask=mask, other=0) != 0
    step = tl.cast(samples, tl.int64) * filters * channels
    place = templates + tl.load(index + row // channels, mask=present, other=0) * (KEPT * step)
    place += (row % channels * filters + band + 1) * samples
    state, sums = zeros(BLOCK, 2), zeros(BLOCK, OUT)
    kind: tl.constexpr = x.dtype.element_ty
    source = x + row * samples
    needed = samples * tl.max(present.to(tl.int32), axis=0)  # nothing if no row of the program has the filter
    whole = needed // 8 * 8
    for t in range(0, whole, 8):
        state, sums = _advance(source, place, t, step, present, magnitude, state, c, sums, kind, KEPT, MOMENTS, 8)
    for t in range(whole, needed):
        state, sums = _advance(source, place, t, step, present, magnitude, state, c, sums, kind, KEPT, MOMENTS, 1)
    _store(out + (row * filters + band + 1) * OUT, sums, present, OUT)


def forward(x: Tensor, steps: Sequence[kinds.Step], shape: tuple[int, int, int]) -> Tensor:  # noqa: ARG001
    """Run `chain_forward` on CUDA: the representation is written anyway, and takes longer than what is before it."""
    for step in steps:
        x = step.run(x)
    return x.contiguous()


def products(x: Tensor, steps: Sequence[kinds.Step], templates: Tensor, index: Tensor, moments: bool) -> Tensor:
    """Run `chain_products` on CUDA."""
    check_index("chain_products", index, len(templates))
    for step in steps[:-1]:
        x = step.run(x)
    bank = cast(kinds.Bank, steps[-1])
    batch, channels, samples = x.shape
    filters, kept = bank.valid.shape[1], templates.shape[1]
    out = torch.zeros((batch, channels, filters, kept + 2 * moments), dtype=torch.float64, device=x.device)
    low = section_coefficients(bank.lowpass_sos)
    y, _ = sosfilt.forward(x, low[None], x.new_zeros((batch, channels, 2 * len(low)), dtype=torch.float64))
    constants = {"KEPT": kept, "MOMENTS": moments, "OUT": out.shape[-1]}
    launch(
        _lowpass_products,
        batch * channels,
        y,
        templates,
        index,
        bank.valid,
        out,
        samples,
        channels,
        filters,
        **constants,
    )
    if filters > 1:
        poles = pole_coefficients(bank.decay, bank.angle, bank.scale)
        arrays = x, poles, bank.envelope, bank.valid, templates, index, out
        rows = lanes_of(batch, channels, filters)
        launch(_band_products, rows, *arrays, samples, batch, channels, filters, GROUP=GROUP, **constants)
    return out
