from __future__ import annotations

from typing import Any

import numpy as np

from psysim import ops
from psysim.ops import reference

from .base import Case, tensor


def gammatone_inputs(rng: np.random.Generator, batch: int, channels: int, samples: int, dtype: Any) -> dict[str, Any]:
    return {
        "x": tensor(rng.standard_normal((batch, samples)), dtype),
        "decay": tensor(rng.uniform(0.8, 0.995, channels)),
        "angle": tensor(rng.uniform(0.01, 3.0, channels)),
    }


# Computed in float64: float32 differs from the definition only where a value lies between two float32 numbers and is
# rounded the other way (2^-23 of the value).
CASE = Case(
    "gammatone",
    ops.gammatone,
    reference.gammatone,
    gammatone_inputs,
    ("x", "decay", "angle"),
    2.0**-23,
    options=({}, {"order": 1}, {"order": 3, "complex_output": True}),
    state_size=lambda inputs: 2 * inputs.get("order", 4),
)
