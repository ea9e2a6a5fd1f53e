"""What the numba kernels share: tiles of time x lanes, and the threads that work through blocks of rows.

A signal ``(..., T)`` is worked on in blocks of `LANES` rows. A kernel call does one block: it copies `TILE` samples
of its rows into a small buffer with the lanes contiguous, runs the recurrence there, and copies the result back
time-last. Lanes past the last row repeat that row: they write the same numbers to the same place.

The threads are Python's, one kernel call per block with the GIL released, as many as `torch.get_num_threads`.
Numba's own parallel loops were not used: its built-in thread layer aborts the process when two Python threads call
it at once, the OpenMP layer when a process forks after using it, and TBB is an extra package.
"""

# mypy: disable-error-code="no-untyped-def"
# Compiled functions are typed by numba.

from __future__ import annotations

import math
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from psysim.ops.cpu.simd import LANES, absolute, load, load_transposed, select, store, store_transposed

__all__ = [
    "LANES",
    "TILE",
    "blocks_of",
    "empty",
    "flat",
    "flush",
    "kernel",
    "lane_rows",
    "read_state",
    "read_tile",
    "run_blocks",
    "scratch",
    "write_state",
    "write_tile",
]

TILE = 64  # samples; 16 lanes of float64 make 8 KiB, so that a few tiles stay in the first-level cache
TINY = 1e-290  # states below are set to zero between tiles: a decaying tail must not crawl through denormal numbers
_ALIGN = 64 // 4
_LINE = 64  # bytes of a cache line

# Numba compares only the kernel's own file with its cache; an edit of any other kernel file must count as well.
_SOURCES = tuple(sorted((path.name, path.stat().st_mtime_ns) for path in Path(__file__).parent.glob("*.py")))


def kernel(function: Callable[..., Any]) -> Any:
    """Compile for the CPU when first called, keep the machine code on disk, release the GIL."""
    compiled = njit(nogil=True, cache=True, error_model="numpy")(function)
    index: Any = getattr(getattr(compiled, "_cache", None), "_cache_file", None)
    if hasattr(index, "_source_stamp"):
        index._source_stamp = (index._source_stamp, _SOURCES)
    return compiled


@kernel
def scratch(size, like):
    """Make zeros in the dtype of ``like``, aligned to a cache line."""
    buffer = np.zeros(size + _ALIGN, like.dtype)
    shift = (-(buffer.ctypes.data // buffer.itemsize)) % _ALIGN
    return buffer[shift : shift + size]


@kernel
def lane_rows(block, rows):
    """List the row of each lane of a block; lanes past the end repeat the last row."""
    out = np.empty(LANES, np.int64)
    for lane in range(LANES):
        out[lane] = min(block * LANES + lane, rows - 1)
    return out


@kernel
def read_tile(array, offsets, start, count, tile):
    """Copy ``count`` samples of the rows at ``offsets`` to ``tile``, lanes contiguous, in the dtype of the tile."""
    whole = count // LANES * LANES
    for t in range(0, whole, LANES):
        load_transposed(array, offsets, start + t, tile, t * LANES)
    for t in range(whole, count):
        for lane in range(LANES):
            tile[t * LANES + lane] = array[offsets[lane] + start + t]


@kernel
def write_tile(array, offsets, start, count, tile):
    """Copy a tile back: the inverse of `read_tile`."""
    whole = count // LANES * LANES
    for t in range(0, whole, LANES):
        store_transposed(array, offsets, start + t, tile, t * LANES)
    for t in range(whole, count):
        for lane in range(LANES):
            array[offsets[lane] + start + t] = tile[t * LANES + lane]


@kernel
def read_state(array, rows, size, like):
    """Copy the states ``(rows, size)`` of a block's rows to vectors over the lanes, in the dtype of ``like``."""
    out = scratch(size * LANES, like)
    for lane in range(LANES):
        for k in range(size):
            out[k * LANES + lane] = array[rows[lane] * size + k]
    return out


@kernel
def write_state(array, rows, size, state):
    """Copy vectors over the lanes back to the states of a block's rows: the inverse of `read_state`."""
    for lane in range(LANES):
        for k in range(size):
            array[rows[lane] * size + k] = state[k * LANES + lane]


@kernel
def flush(state):
    """Set magnitudes below `TINY` to zero; NaN stays."""
    for k in range(0, state.size, LANES):
        value = load(state, k)
        store(state, k, select(absolute(value) < TINY, 0.0, value))


def flat(x: Tensor) -> np.ndarray[Any, Any]:
    """View the tensor as a one-dimensional array; copied only if it is not contiguous."""
    return x.detach().resolve_conj().resolve_neg().contiguous().reshape(-1).numpy()


_KEPT_FROM, _KEPT_BYTES = 1 << 23, 1 << 28  # buffers of at least 8 MiB are kept for the next call, 256 MiB in all
_IDLE_REFERENCES = 3  # of a buffer: the list, the loop's variable, the argument of getrefcount
_kept: list[np.ndarray[Any, Any]] = []
_lock = threading.Lock()


def empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Uninitialised CPU tensor; the memory of large ones is used again once nothing refers to it.

    The operating system gives fresh memory filled with zeros, page by page at the first touch, which takes longer than
    a second-order filter on two threads needs for its samples. A buffer that no tensor, view or saved gradient
    refers to any more is handed out again instead. Its pages are huge ones where Linux allows it (numpy asks).
    """
    size = math.prod(shape) * dtype.itemsize
    if not _KEPT_FROM <= size <= _KEPT_BYTES:
        return torch.empty(tuple(shape), dtype=dtype)
    with _lock:
        buffer = _kept_buffer(size)
    begin = -buffer.ctypes.data % _LINE
    return torch.from_numpy(buffer[begin : begin + size]).view(dtype).reshape(tuple(shape))


def _kept_buffer(size: int) -> np.ndarray[Any, Any]:
    """Return an idle buffer of about this size, or a new one; forget the oldest that are too many."""
    idle = []
    for buffer in _kept:
        if sys.getrefcount(buffer) == _IDLE_REFERENCES:
            idle.append(id(buffer))
            if size + _LINE <= buffer.size <= size + size // 4:
                return buffer
    made = np.empty(size + _LINE, np.uint8)
    room = _KEPT_BYTES - size
    for k in range(len(_kept) - 1, -1, -1):  # from the newest to the oldest
        room -= _kept[k].size if id(_kept[k]) in idle else 0
        if room < 0 and id(_kept[k]) in idle:
            del _kept[k]
    _kept.append(made)
    return made


def blocks_of(rows: int) -> int:
    """Return the number of blocks that ``rows`` rows make."""
    return -(-rows // LANES)


_pool: ThreadPoolExecutor | None = None


def _threads() -> ThreadPoolExecutor:
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="psysim-ops")
        return _pool


def _forget_threads() -> None:
    """Threads do not survive a fork: the child makes its own at its first call."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)


def run_blocks(function: Callable[..., Any], count: int, *args: Any) -> None:
    """Call ``function(block, *args)`` for every block, on as many threads as torch would use."""
    todo = deque(range(count))

    def work() -> None:
        while True:
            try:
                block = todo.popleft()
            except IndexError:
                return
            function(block, *args)

    helpers = [_threads().submit(work) for _ in range(min(torch.get_num_threads(), count) - 1)]
    try:
        work()
    finally:
        for helper in helpers:
            if not helper.cancel():
                helper.result()
