"""What the benchmarks share: sounds, durations, memory at the peak, and the JSON files.

The scripts run alone (``python benchmarks/bench_ops.py``); under asv put this folder on ``PYTHONPATH``.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import re
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe
from torch import Tensor

__all__ = ["FS", "alone", "best_of", "duration", "noise", "peak_memory", "write_json"]

FS = 44100.0


def noise(rows: int, samples: int, dtype: torch.dtype, rms: float, device: str = "cpu") -> Tensor:
    """White noise, (rows, samples), the same at every call."""
    values = np.random.default_rng(1).standard_normal((rows, samples))
    return torch.from_numpy(rms * values).to(device, dtype)


def _wait() -> None:
    """Wait for the card, if one is in use: its work goes on after a call has returned."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def duration(function: Callable[[], Any]) -> float:
    """Return the seconds of one call; what it returns is freed after the clock has stopped."""
    _wait()
    begin = time.perf_counter()
    result = function()
    _wait()
    took = time.perf_counter() - begin
    del result
    return took


def best_of(function: Callable[[], Any], repeats: int = 7, budget: float = 10.0) -> float:
    """Return the shortest duration in seconds of up to ``repeats`` calls; no new call after ``budget`` seconds."""
    best, end = duration(function), time.perf_counter() + budget
    for _ in range(repeats - 1):
        if time.perf_counter() > end:
            break
        best = min(best, duration(function))
    return best


def _status() -> dict[str, int]:
    lines = re.findall(r"^(VmHWM|VmRSS):\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return {name: 1024 * int(number) for name, number in lines}


def peak_memory(function: Callable[[], Any]) -> int | None:
    """Return by how many bytes the process grows at most while ``function`` runs, its result included.

    Call the function once on a small input first: compiled code and threads are not part of the answer. On Linux the
    kernel's high-water mark of resident memory is set back (``5`` to ``/proc/self/clear_refs``), and VmHWM after the
    call compared with VmRSS before it. Memory that the allocator keeps after a free would hide growth, so it is given
    back first (``malloc_trim``); for numbers that matter use `alone`. On a card: torch's own high-water mark.
    """
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return torch.cuda.max_memory_allocated() - before
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):  # not Linux, or a container that forbids it
        return None
    resident = _status()["VmRSS"]
    result = function()
    peak = _status()["VmHWM"] - resident
    del result
    return peak


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return ``function(*arguments)`` of a fresh Python process: nothing that ran before touches its memory."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def write_json(path: Path | None, packages: tuple[str, ...] = (), **content: Any) -> None:
    """Write the machine's description and ``content``; nothing without a path."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"machine": describe(*packages), **content}, indent=1) + "\n")
