"""Every Triton kernel compiles for a card without one: the interpreter accepts more than the compiler."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("compile_cuda.py")


@pytest.fixture(scope="module")
def kernels() -> list[dict[str, Any]]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, SCRIPT], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_cuda_module_is_compiled(kernels: list[dict[str, Any]]) -> None:
    from psysim.ops import cuda

    modules = {path.stem for path in Path(cuda.__file__).parent.glob("*.py")}
    assert {kernel["kernel"].partition(".")[0] for kernel in kernels} >= modules - {"__init__", "tuning"}


def test_registers_suffice(kernels: list[dict[str, Any]]) -> None:
    """What does not fit into registers is kept in memory, for which a loop over time waits at every sample.

    A few numbers may lie there, in kernels of hundreds of instructions per sample: 64 bytes are eight float64.
    """
    assert [kernel for kernel in kernels if kernel["stack"] > 64] == []
