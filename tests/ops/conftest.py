"""Fixtures of the operators' tests; the operators and their arguments are in op_cases."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
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


@pytest.fixture(scope="session", autouse=True)
def lighter_interpreter() -> Iterator[None]:
    """Spare Triton's interpreter what costs most of its time and changes no result.

    It patches ``triton.language`` anew in every call inside a kernel; once per launch is enough. And a lane of
    `template_product` goes through its whole piece of a chunk, however short the row.
    """
    if os.environ.get("TRITON_INTERPRET") != "1":
        yield
        return
    import triton.language as tl
    from triton.runtime import interpreter

    from psysim.ops.cuda import template

    def call(function: Any, *args: Any, **kwargs: Any) -> Any:
        return function.rewrite()(*args, **kwargs)

    both = SimpleNamespace(__globals__={"tl": tl, "core": tl.core})  # for functions of ours, and of triton.language
    patch_lang = interpreter._patch_lang
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "_patch_lang", lambda _: patch_lang(both))
        patch.setattr(interpreter.InterpretedFunction, "__call__", call)
        patch.setattr(template, "CHUNK", 1 << 10)
        yield


@pytest.fixture(scope="session", params=sorted(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(scope="session", params=sorted(name for name, case in CASES.items() if case.state_size is not None))
def stateful(request: pytest.FixtureRequest) -> Case:
    """A case whose operator has a state to start from and to hand on."""
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
