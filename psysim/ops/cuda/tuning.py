"""The shape of a program (rows and warps), found once per kernel, number of rows and card, and kept on disk.

A kernel is run with each of a few shapes on the caller's own arguments and the fastest is kept, here and in a file of
the user's cache folder. Every row is computed alone by the same instructions, so the shape changes the speed, not the
result. Triton itself keeps the compiled kernels on disk.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["SHAPES", "Shape", "fastest"]


@dataclass(frozen=True)
class Shape:
    """Rows per program and warps that share them."""

    block: int
    warps: int


SHAPES = (Shape(32, 1), Shape(64, 1), Shape(64, 2), Shape(128, 4))
REPEATS = 3

_known: dict[str, Shape] = {}


def fastest(kernel: Any, rows: int, args: Sequence[Any], constants: Mapping[str, Any]) -> Shape:
    """Return the fastest shape for about this many rows, measuring it the first time."""
    dtypes = ",".join(str(arg.dtype) for arg in args if isinstance(arg, Tensor))
    settings = ",".join(f"{name}={value}" for name, value in sorted(constants.items()))
    card = torch.cuda.get_device_name()
    key = f"{card}|{kernel.__module__}.{kernel.__name__}|{dtypes}|{settings}|rows<2^{rows.bit_length()}"
    if not _known:
        _known.update(_stored())
    if key not in _known:
        _known[key] = min(SHAPES, key=lambda shape: _milliseconds(kernel, shape, rows, args, constants))
        _store()
    return _known[key]


def _milliseconds(kernel: Any, shape: Shape, rows: int, args: Sequence[Any], constants: Mapping[str, Any]) -> float:
    from psysim.ops.cuda.tiles import start

    start(kernel, shape, rows, args, constants)  # compiles
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    begin.record()
    for _ in range(REPEATS):
        start(kernel, shape, rows, args, constants)
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)


@cache
def _file() -> Path:
    import platformdirs

    return Path(os.environ.get("PSYSIM_CACHE_DIR") or platformdirs.user_cache_dir("psysim")) / "cuda_shapes.json"


def _stored() -> dict[str, Shape]:
    try:
        return {key: Shape(*value) for key, value in json.loads(_file().read_text()).items()}
    except (OSError, ValueError, TypeError):
        return {}  # absent or unreadable: measured again


def _store() -> None:
    try:
        _file().parent.mkdir(parents=True, exist_ok=True)
        temporary = _file().with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps({key: astuple(value) for key, value in _known.items()}, indent=1))
        temporary.replace(_file())
    except OSError:
        pass  # a read-only home: measured again in the next process
