"""Triton kernels of `resample`: a lane per output, and per tap for the gradient. Sums are float64."""

# mypy: disable-error-code="no-untyped-def"
# Compiled functions are typed by Triton.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from psysim.ops._resample import phases_of
from psysim.ops.cuda.tiles import launch

__all__ = ["backward", "forward"]

PIECE = 1024  # periods in one partial sum of the gradient of a tap; more pieces would cost memory


@triton.jit
def _forward(x, weights, first, taps, out, samples, outputs, up, down, width, rows, BLOCK: tl.constexpr):
    lane = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = lane < rows
    i = lane % outputs
    phase = i % up
    begin = i // up * down + tl.load(first + phase, mask=mask, other=0)
    end = tl.minimum(tl.load(taps + phase, mask=mask, other=0), samples - begin).to(tl.int32)
    inside_from = tl.maximum(-begin, 0).to(tl.int32)
    source, weight = x + lane // outputs * samples + begin, weights + phase
    total = tl.zeros((BLOCK,), tl.float64)
    for j in range(width):
        inside = mask & (j >= inside_from) & (j < end)
        total += tl.load(weight, mask=inside, other=0.0) * tl.load(source, mask=inside, other=0.0).to(tl.float64)
        source += 1
        weight += up
    tl.store(out + lane, total.to(out.dtype.element_ty), mask=mask)


def forward(x: Tensor, taps: Tensor, up: int, down: int, start: int, count: int) -> Tensor:
    """Run the operator on CUDA."""
    phases = phases_of(taps, up, down, start)
    width = phases.weights.shape[1]
    out = torch.empty((*x.shape[:2], count), dtype=x.dtype, device=x.device)
    table = phases.weights.t(), phases.first, phases.size  # neighbouring outputs are neighbouring phases
    launch(_forward, out.numel(), x, *table, out, x.shape[2], count, up, down, width)
    return out


@triton.jit
def _correlate(x, grad, first, sums, samples, outputs, up, down, width, pieces, piece, rows, BLOCK: tl.constexpr):
    """Sum the products of a tap over the periods of a piece; lanes are ordered by row, piece, phase, tap."""
    lane = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = lane < rows
    phase = lane // width % up
    item = lane // width // up
    row = item // pieces
    q = item % pieces * piece
    i = q * up + phase
    n = q * down + tl.load(first + phase, mask=mask, other=0) + lane % width
    source, slopes = x + row * samples, grad + row * outputs
    total = tl.zeros((BLOCK,), tl.float64)
    for _k in range(piece):
        inside = mask & (i < outputs) & (n >= 0) & (n < samples)
        g = tl.load(slopes + i, mask=inside, other=0.0).to(tl.float64)
        total += g * tl.load(source + n, mask=inside, other=0.0).to(tl.float64)
        i += up
        n += down
    tl.store(sums + lane, total, mask=mask)


def backward(
    grad: Tensor, x: Tensor, taps: Tensor, up: int, down: int, start: int, learn: bool
) -> tuple[Tensor, Tensor]:
    """Gradients with respect to ``x`` (the transposed filter: ``up`` and ``down`` change places) and ``taps``."""
    samples, outputs = x.shape[2], grad.shape[2]
    grad_x = forward(grad, taps.flip(0), down, up, -start, samples)
    if not learn:
        return grad_x, torch.zeros_like(taps)
    phases = phases_of(taps, up, down, start)
    width = phases.weights.shape[1]
    periods = triton.cdiv(outputs, up)
    pieces = triton.cdiv(periods, PIECE)
    sums = torch.empty((x.shape[0] * x.shape[1] * pieces, up, width), dtype=torch.float64, device=x.device)
    sizes = samples, outputs, up, down, width, pieces, min(PIECE, periods)
    launch(_correlate, sums.numel(), x, grad, phases.first, sums, *sizes)
    return grad_x, phases.taps(sums.sum(0), len(taps))
