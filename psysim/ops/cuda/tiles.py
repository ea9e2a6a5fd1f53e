"""What the Triton kernels share: tiles of samples x rows, states and coefficients as tuples, and the launch.

Rows are time-last in memory, so a load of one sample for each of 32 rows would touch 32 sectors of 32 bytes and use
4 bytes of each. `read_tile` loads 8 consecutive samples per row, which fill a sector (float32), and splits the tile
into vectors over the rows; `write_tile` is its inverse.
"""

# mypy: disable-error-code="no-untyped-def, assignment"
# ruff: noqa: RUF005
# Compiled functions are typed by Triton, which cannot unpack into a tuple.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from psysim.ops.cuda.tuning import Shape, fastest

__all__ = [
    "TILE",
    "add",
    "launch",
    "read_again",
    "read_rows",
    "read_samples",
    "read_tile",
    "start",
    "sum_middle",
    "write_rows",
    "write_samples",
    "write_tile",
    "zeros",
]

TILE = 64  # samples between two kept states on the way back


@triton.jit
def read_tile(rows, t, mask):
    """Load samples ``t ... t + 7`` of every row (``rows``: pointers (BLOCK,)); a tuple of 8 vectors over the rows."""
    columns = tl.arange(0, 8)
    tile = tl.load((rows + t)[:, None] + columns[None, :], mask=mask[:, None], other=0.0)
    count: tl.constexpr = tile.shape[0]
    even, odd = tl.split(tl.reshape(tile, (count, 4, 2)))
    s04_26_0, s04_26_1 = tl.split(tl.reshape(even, (count, 2, 2)))
    s15_37_0, s15_37_1 = tl.split(tl.reshape(odd, (count, 2, 2)))
    s0, s4 = tl.split(s04_26_0)
    s2, s6 = tl.split(s04_26_1)
    s1, s5 = tl.split(s15_37_0)
    s3, s7 = tl.split(s15_37_1)
    return s0, s1, s2, s3, s4, s5, s6, s7


@triton.jit
def write_tile(rows, t, mask, samples):
    """Store 8 vectors over the rows as samples ``t ... t + 7`` of every row: the inverse of `read_tile`."""
    s0, s1, s2, s3, s4, s5, s6, s7 = samples
    count: tl.constexpr = s0.shape[0]
    even = tl.reshape(tl.join(tl.join(s0, s4), tl.join(s2, s6)), (count, 4))
    odd = tl.reshape(tl.join(tl.join(s1, s5), tl.join(s3, s7)), (count, 4))
    tile = tl.reshape(tl.join(even, odd), (count, 8))
    columns = tl.arange(0, 8)
    kind = rows.dtype.element_ty
    tl.store((rows + t)[:, None] + columns[None, :], tile.to(kind), mask=mask[:, None])


@triton.jit
def read_samples(rows, t, mask, COUNT: tl.constexpr, WIDTH: tl.constexpr):
    """Load ``COUNT`` (8 or 1) samples of ``WIDTH`` numbers (2: complex), from sample ``t`` on, as a flat tuple."""
    values = ()
    for w in tl.static_range(WIDTH):
        if COUNT == 8:
            values = values + read_tile(rows, WIDTH * t + 8 * w, mask)
        else:
            values = values + (tl.load(rows + (WIDTH * t + w), mask=mask, other=0.0),)
    return values


@triton.jit
def write_samples(rows, t, mask, values, COUNT: tl.constexpr, WIDTH: tl.constexpr):
    """Store a flat tuple of ``COUNT`` samples of ``WIDTH`` numbers: the inverse of `read_samples`."""
    for w in tl.static_range(WIDTH):
        if COUNT == 8:
            part = ()
            for i in tl.static_range(8):
                part = part + (values[8 * w + i],)
            write_tile(rows, WIDTH * t + 8 * w, mask, part)
        else:
            tl.store(rows + (WIDTH * t + w), values[w].to(rows.dtype.element_ty), mask=mask)


@triton.jit
def read_rows(array, row, mask, size: tl.constexpr):
    """Load ``size`` numbers of every row of ``array`` (rows, size): a tuple of vectors, float64."""
    values = ()
    for k in tl.static_range(size):
        values = values + (tl.load(array + row.to(tl.int64) * size + k, mask=mask, other=0.0).to(tl.float64),)
    return values


@triton.jit
def read_again(array, row, mask, size: tl.constexpr):
    """Load float64 rows that `read_rows` has loaded before, for computing anew what followed from them.

    The cache modifier is the default one by name. It only keeps the compiler from recognising the same load: it would
    hold on to everything that was computed from the first, and run out of registers.
    """
    values = ()
    for k in tl.static_range(size):
        place = array + row.to(tl.int64) * size + k
        values = values + (tl.load(place, mask=mask, other=0.0, cache_modifier=".ca"),)
    return values


@triton.jit
def write_rows(array, row, mask, values, size: tl.constexpr):
    """Store a tuple of vectors as the rows of ``array`` (rows, size): the inverse of `read_rows`."""
    for k in tl.static_range(size):
        tl.store(array + row.to(tl.int64) * size + k, values[k], mask=mask)


@triton.jit
def zeros(BLOCK: tl.constexpr, size: tl.constexpr):
    """Make a tuple of ``size`` vectors of float64 zeros."""
    values = ()
    for _k in tl.static_range(size):
        values = values + (tl.zeros((BLOCK,), tl.float64),)
    return values


@triton.jit
def add(first, second, size: tl.constexpr):
    """Add two tuples of ``size`` vectors, one by one."""
    values = ()
    for k in tl.static_range(size):
        values = values + (first[k] + second[k],)
    return values


@triton.jit
def _sum_middle(array, out, count, inner, rows, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = place < rows
    step = tl.cast(inner, tl.int64)
    source = array + place // step * (step * count) + place % step
    total = tl.zeros((BLOCK,), tl.float64)
    for k in range(count):
        total += tl.load(source + k * step, mask=mask, other=0.0).to(tl.float64)
    tl.store(out + place, total.to(out.dtype.element_ty), mask=mask)


def sum_middle(array: Tensor) -> Tensor:
    """Sum (A, K, T) over K in float64, from the first to the last whatever A is: (A, T), the dtype of ``array``.

    `torch.sum` chooses its order by the shape, so that a row would depend on how many others there are.
    """
    outer, count, inner = array.shape
    out = torch.empty((outer, inner), dtype=array.dtype, device=array.device)
    launch(_sum_middle, outer * inner, array, out, count, inner)
    return out


def launch(kernel: Any, rows: int, *args: Any, **constants: Any) -> None:
    """Run ``kernel`` over all rows: ``kernel[grid](*args, rows, **constants, BLOCK=...)``.

    ``rows`` becomes the last argument before the constants. Kernels write to arrays of their own and leave their inputs
    alone, so that `psysim.ops.cuda.tuning` may run them several times to find the fastest shape of a program.
    """
    tensors = [arg.contiguous() if isinstance(arg, Tensor) else arg for arg in args]
    device = next(arg.device for arg in tensors if isinstance(arg, Tensor))
    if device.type == "cuda":
        with torch.cuda.device(device):
            start(kernel, fastest(kernel, rows, tensors, constants), rows, tensors, constants)
    else:
        start(kernel, Shape(16, 1), rows, tensors, constants)


def start(kernel: Any, shape: Shape, rows: int, args: Sequence[Any], constants: Mapping[str, Any]) -> None:
    """Start the kernel with programs of the given shape."""
    grid = (triton.cdiv(rows, shape.block),)
    kernel[grid](*args, rows, **constants, BLOCK=shape.block, num_warps=shape.warps)
