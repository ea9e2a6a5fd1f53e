"""Triton kernels of `roex_spread`: a lane is a filter (forth) or a component (back) of one spectrum.

The way forth is computed in the dtype of the spectrum, the way back in float64. Neighbouring lanes read neighbouring
distances and share the rest.
"""

# mypy: disable-error-code="no-untyped-def"
# Compiled functions are typed by Triton.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from psysim.ops.cuda.tiles import launch

__all__ = ["backward", "forward"]


@triton.jit
def _forward(x, slope, across, floor, count, out, components, filters, rows, BLOCK: tl.constexpr):
    lane = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = lane < rows
    start, j = lane // filters * components, lane % filters
    lowest = tl.load(floor + j, mask=mask, other=0.0)
    taken = tl.load(count + j, mask=mask, other=0)
    total = tl.zeros((BLOCK,), out.dtype.element_ty)
    for k in range(components):
        inside = mask & (k < taken)
        s = tl.load(slope + start + k, mask=inside, other=0.0)
        z = tl.where(s < lowest, lowest, s) * tl.load(across + k * filters + j, mask=inside, other=0.0)
        total += tl.where(inside, (1.0 + z) * tl.exp(-z) * tl.load(x + start + k, mask=inside, other=0.0), 0.0)
    tl.store(out + lane, total, mask=mask)


def forward(x: Tensor, slope: Tensor, distance: Tensor, floor: Tensor, count: Tensor) -> Tensor:
    """Run the operator on CUDA."""
    out = torch.empty((x.shape[0], len(distance)), dtype=x.dtype, device=x.device)
    across = distance.T.contiguous().to(x.dtype)
    launch(_forward, out.numel(), x, slope, across, floor.to(x.dtype), count, out, x.shape[1], len(distance))
    return out


@triton.jit
def _backward(
    grad, x, slope, distance, floor, count, grad_x, grad_slope, components, filters, rows, BLOCK: tl.constexpr
):
    lane = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = lane < rows
    start, k = lane // components * filters, lane % components
    s = tl.load(slope + lane, mask=mask, other=0.0).to(tl.float64)
    of_x, of_slope = tl.zeros((BLOCK,), tl.float64), tl.zeros((BLOCK,), tl.float64)
    for j in range(filters):
        inside = mask & (k < tl.load(count + j))
        u = tl.load(distance + j * components + k, mask=inside, other=0.0)
        lowest = tl.load(floor + j)
        z = tl.where(s < lowest, lowest, s) * u
        share = tl.load(grad + start + j, mask=inside, other=0.0).to(tl.float64) * tl.exp(-z)
        of_x += tl.where(inside, share * (1.0 + z), 0.0)
        of_slope -= tl.where(inside & (s >= lowest), share * z * u, 0.0)
    of_slope *= tl.load(x + lane, mask=mask, other=0.0).to(tl.float64)
    tl.store(grad_x + lane, of_x.to(grad_x.dtype.element_ty), mask=mask)
    tl.store(grad_slope + lane, of_slope.to(grad_slope.dtype.element_ty), mask=mask)


def backward(
    grad: Tensor, x: Tensor, slope: Tensor, distance: Tensor, floor: Tensor, count: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients with respect to ``x`` and ``slope``."""
    grad_x, grad_slope = torch.empty_like(x), torch.empty_like(slope)
    arrays = grad, x, slope, distance, floor, count, grad_x, grad_slope
    launch(_backward, x.numel(), *arrays, x.shape[1], len(distance))
    return grad_x, grad_slope
