"""Triton kernels of `template_product`: float64 partial sums over pieces of fixed length, added in order.

A row is cut into chunks of `CHUNK` values and a chunk into `SPLIT` pieces of every ``SPLIT``-th value; a lane sums one
piece. Consecutive lanes read consecutive values, and no sum depends on the shape of the programs or on other rows.
"""

# mypy: disable-error-code="no-untyped-def"
# Compiled functions are typed by Triton.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from psysim.ops.cpu.template import check_index
from psysim.ops.cuda.tiles import launch, sum_middle

__all__ = ["backward", "forward"]

SPLIT = 32  # a warp reads 128 bytes of float32 at once
CHUNK = 1 << 13  # values: 256 per lane, so that setting out costs little; a row of the 1997 model makes 2000 chunks
STEP = 8  # values that a lane asks for before it waits for the first


@triton.jit
def _lane(chunks, CHUNK: tl.constexpr, SPLIT: tl.constexpr, BLOCK: tl.constexpr):
    """Give the number of each lane, its row and first value; lanes are ordered by row, chunk, piece."""
    lane = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    chunk = lane // SPLIT
    return lane, chunk // chunks, chunk % chunks * CHUNK + lane % SPLIT


@triton.jit
def _forward(
    x, templates, index, sums, width, chunks, rows,
    CHUNK: tl.constexpr, SPLIT: tl.constexpr, STEP: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    lane, row, first = _lane(chunks, CHUNK, SPLIT, BLOCK)
    mask = lane < rows
    a, b = x + row * width, templates + tl.load(index + row, mask=mask, other=0) * width
    total = tl.zeros((BLOCK,), tl.float64)
    for n in range(0, CHUNK, STEP * SPLIT):
        for k in tl.static_range(STEP):
            at = first + (n + k * SPLIT)
            inside = mask & (at < width)
            value = tl.load(a + at, mask=inside, other=0.0).to(tl.float64)
            total += value * tl.load(b + at, mask=inside, other=0.0).to(tl.float64)
    tl.store(sums + lane, total, mask=mask)


def forward(x: Tensor, templates: Tensor, index: Tensor) -> Tensor:
    """Run the operator on CUDA."""
    check_index("template_product", index, len(templates))
    batch, width = x.shape
    chunks = triton.cdiv(width, CHUNK)
    sums = torch.empty((batch, chunks, SPLIT), dtype=torch.float64, device=x.device)
    constants = {"CHUNK": CHUNK, "SPLIT": SPLIT, "STEP": STEP}
    launch(_forward, sums.numel(), x, templates, index, sums, width, chunks, **constants)
    return sum_middle(sum_middle(sums)[:, :, None])[:, 0]


@triton.jit
def _backward_x(
    grad, templates, index, out, width, chunks, rows, CHUNK: tl.constexpr, SPLIT: tl.constexpr, BLOCK: tl.constexpr
):
    lane, row, first = _lane(chunks, CHUNK, SPLIT, BLOCK)
    mask = lane < rows
    factor = tl.load(grad + row, mask=mask, other=0.0)
    source = templates + tl.load(index + row, mask=mask, other=0) * width
    for n in range(0, CHUNK, SPLIT):
        inside = mask & (first + n < width)
        value = factor * tl.load(source + first + n, mask=inside, other=0.0).to(tl.float64)
        tl.store(out + row * width + first + n, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _backward_templates(grad, x, index, out, width, batch, rows, BLOCK: tl.constexpr):
    lane = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = lane < rows
    which, place = lane // width, lane % width
    total = tl.zeros((BLOCK,), tl.float64)
    for row in range(batch):
        mine = mask & (tl.load(index + row) == which)
        value = tl.load(x + tl.cast(row, tl.int64) * width + place, mask=mine, other=0.0).to(tl.float64)
        total += tl.where(mine, tl.load(grad + row) * value, 0.0)
    tl.store(out + lane, total.to(out.dtype.element_ty), mask=mask)


def backward(
    grad: Tensor, x: Tensor, templates: Tensor, index: Tensor, learn: bool, learn_templates: bool
) -> tuple[Tensor, Tensor]:
    """Gradients with respect to ``x`` and ``templates``; an empty tensor for the one that is not wanted."""
    batch, width = x.shape
    chunks = triton.cdiv(width, CHUNK)
    grad_x = torch.empty(x.shape if learn else (0,), dtype=x.dtype, device=x.device)
    grad_templates = torch.empty(templates.shape if learn_templates else (0,), dtype=templates.dtype, device=x.device)
    if learn:
        arrays = grad, templates, index, grad_x
        launch(_backward_x, batch * chunks * SPLIT, *arrays, width, chunks, CHUNK=CHUNK, SPLIT=SPLIT)
    if learn_templates:
        launch(_backward_templates, grad_templates.numel(), grad, x, index, grad_templates, width, batch)
    return grad_x, grad_templates
