from __future__ import annotations

from typing import Any

import numpy as np

from psysim import ops
from psysim.ops import reference

from .base import Case, tensor


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


# 1e-5 of the peak is the bound of the golden files' README; quotients and limiter are float32. A compensated float32
# state is handed on as one float64 number; its last bit can turn the rounding of a later float32 increment, which is
# below 2^-6 of the state: 2^-30.
CASE = Case(
    "adaptation_loops",
    ops.adaptation_loops,
    reference.adaptation_loops,
    adaptation_inputs,
    ("x", "decay", "minimum"),
    1e-5,
    options=({}, {"limit": 0.0}, {"limit": 1.5}),
    tame=adaptation_tame,
    state_size=lambda inputs: len(inputs["decay"]),
    make_state=lambda rng, shape, _: tensor(rng.uniform(0.05, 0.9, shape)),
    handed_on_error=2.0**-30,
)
