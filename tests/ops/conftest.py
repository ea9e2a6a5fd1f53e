"""Fixtures of the operators' tests; the operators and their arguments are in op_cases."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    # Without a GPU the Triton forms run in Triton's interpreter; it must know before they are imported.
    os.environ["TRITON_INTERPRET"] = "1"

sys.path.insert(0, str(Path(__file__).parent))

from op_cases import CASES
from op_cases.base import Case

from psysim.ops.base import using


@pytest.fixture(scope="session", params=sorted(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture
def case_names() -> set[str]:
    return {case.op for case in CASES.values()}


@pytest.fixture(params=["numba", "triton"])
def form(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test with this form of the operators: on the CPU, Triton means its interpreter."""
    if request.param == "triton" and os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("Triton's interpreter is off because there is a GPU: tests/ops/test_cuda.py runs the real kernels")
    with using(request.param):
        yield request.param


@pytest.fixture(scope="session", params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Any]:
    """Read a golden file by name, for instance ``golden("gammatone")``."""
    folder = Path(__file__).parents[1] / "reference" / "data"
    return lambda name: np.load(folder / f"common_{name}.npz")
