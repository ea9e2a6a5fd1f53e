"""One case per operator, so that properties all operators share are tested once, over all of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from psysim import ops
from psysim.ops import reference

F64 = torch.float64


@dataclass(frozen=True)
class Case:
    """An operator, its definition, and how to make arguments for it.

    ``inputs(rng, batch, channels, samples, dtype)`` gives the keyword arguments; the signal is ``x``, batch first.
    """

    name: str
    run: Callable[..., Tensor]
    reference: Callable[..., Tensor]
    inputs: Callable[..., dict[str, Any]]
    differentiable: tuple[str, ...]
    # Largest error of the float32 form in units of the largest output, and why
    float32_error: float
    per_row: tuple[str, ...] = ()  # arguments besides x that have one entry per row of the batch
    options: tuple[dict[str, Any], ...] = ({},)
    tame: Callable[[dict[str, Any]], dict[str, Any]] = lambda inputs: inputs  # for finite differences


def tensor(values: Any, dtype: torch.dtype = F64) -> Tensor:
    return torch.as_tensor(np.asarray(values)).to(dtype)


def gammatone_inputs(rng: np.random.Generator, batch: int, channels: int, samples: int, dtype: Any) -> dict[str, Any]:
    return {
        "x": tensor(rng.standard_normal((batch, samples)), dtype),
        "decay": tensor(rng.uniform(0.8, 0.995, channels)),
        "angle": tensor(rng.uniform(0.01, 3.0, channels)),
    }


def sosfilt_inputs(
    rng: np.random.Generator, batch: int, channels: int, samples: int, dtype: Any, shared: bool = True
) -> dict[str, Any]:
    shape = (2,) if shared else (channels, 2)
    radius, angle = rng.uniform(0.5, 0.98, shape), rng.uniform(0.05, 3.0, shape)
    a = np.stack([np.ones(shape), -2 * radius * np.cos(angle), radius**2], -1)
    sos = np.concatenate([rng.uniform(-1, 1, (*shape, 3)), a], -1)
    return {"x": tensor(rng.standard_normal((batch, channels, samples)), dtype), "sos": tensor(sos)}


def adaptation_inputs(
    rng: np.random.Generator, batch: int, channels: int, samples: int, dtype: Any, shared: bool = True
) -> dict[str, Any]:
    return {
        "x": tensor(np.abs(rng.standard_normal((batch, channels, samples))) ** 3 * 0.05, dtype),
        "decay": tensor(np.exp(-1.0 / (16000 * np.array([0.005, 0.05, 0.129, 0.253, 0.5])))),
        "minimum": tensor([1e-5] if shared else rng.uniform(1e-6, 1e-3, channels)),
        "limit": 10.0,
    }


def adaptation_tame(inputs: dict[str, Any]) -> dict[str, Any]:
    """Far from the kink at the minimum on both sides, and a minimum that a step of 1e-6 hardly changes."""
    x = 0.05 + 2.0 * inputs["x"]
    x[..., 2] = 0.005
    return inputs | {"x": x, "decay": tensor([0.9, 0.96]), "minimum": tensor([0.02])}


def modulation_inputs(rng: np.random.Generator, batch: int, channels: int, samples: int, dtype: Any) -> dict[str, Any]:
    mfc = np.array([5.0, 10.0, 16.7, 46.3, 214.0])
    bandwidth = np.where(mfc < 10, 5.0, mfc / 2)
    valid = np.arange(6) < rng.integers(1, 7, channels)[:, None]
    valid[-1] = True
    return {
        "x": tensor(10.0 * rng.standard_normal((batch, channels, samples)), dtype),
        "lowpass_sos": tensor([[3.844634e-06, 7.689267e-06, 3.844634e-06, 1.0, -1.994446, 0.994462]]),
        "decay": tensor(np.exp(-math.pi * bandwidth / 4000)),
        "angle": tensor(2 * math.pi * mfc / 4000),
        "envelope": tensor(mfc > 10, torch.bool),
        "scale": tensor(np.where(mfc > 10, math.sqrt(2.0), 2.0)),
        "valid": tensor(valid, torch.bool),
    }


def template_inputs(rng: np.random.Generator, batch: int, channels: int, samples: int, dtype: Any) -> dict[str, Any]:
    return {
        "x": tensor(rng.standard_normal((batch, channels * samples)), dtype),
        "templates": tensor(rng.standard_normal((3, channels * samples)), dtype),
        "index": tensor(rng.integers(0, 3, batch), torch.int64),
    }


# Gammatone, sosfilt and template_product compute in float64: float32 differs from the definition only where a value
# lies between two float32 numbers and is rounded the other way (2^-23 of the value). Modulation: in addition the
# squares, sum, root and factor of the magnitude are float32, each rounded by 2^-24. Adaptation: 1e-5 of the peak is
# the bound of the golden files' README; quotients and limiter are float32 there.
CASES = {
    case.name: case
    for case in (
        Case(
            "gammatone",
            ops.gammatone,
            reference.gammatone,
            gammatone_inputs,
            ("x", "decay", "angle"),
            2.0**-23,
            options=({}, {"order": 1}, {"order": 3, "complex_output": True}),
        ),
        Case("sosfilt", ops.sosfilt, reference.sosfilt, sosfilt_inputs, ("x", "sos"), 2.0**-23),
        Case(
            "adaptation_loops",
            ops.adaptation_loops,
            reference.adaptation_loops,
            adaptation_inputs,
            ("x", "decay", "minimum"),
            1e-5,
            options=({}, {"limit": 0.0}, {"limit": 1.5}),
            tame=adaptation_tame,
        ),
        Case(
            "modulation_bank",
            ops.modulation_bank,
            reference.modulation_bank,
            modulation_inputs,
            ("x", "lowpass_sos", "decay", "angle", "scale"),
            2.0**-21,
            options=({}, {"phase_insensitive": False}),
        ),
        Case(
            "template_product",
            ops.template_product,
            reference.template_product,
            template_inputs,
            ("x", "templates"),
            1e-12,
            per_row=("index",),
        ),
    )
}


@pytest.fixture(scope="session", params=sorted(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture
def case_names() -> set[str]:
    return set(CASES)


@pytest.fixture(scope="session", params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Any]:
    """Read a golden file by name, for instance ``golden("gammatone")``."""
    from pathlib import Path

    folder = Path(__file__).parents[1] / "reference" / "data"
    return lambda name: np.load(folder / f"common_{name}.npz")
