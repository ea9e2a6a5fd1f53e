from __future__ import annotations

from typing import Any

import numpy as np

from psysim import ops
from psysim.ops import reference

from .base import Case, tensor


def resample_inputs(rng: np.random.Generator, batch: int, channels: int, samples: int, dtype: Any) -> dict[str, Any]:
    return {
        "x": tensor(rng.standard_normal((batch, channels, samples)), dtype),
        "up": 3,
        "down": 2,
        "taps": tensor(rng.uniform(-1, 1, 31)),
    }


# Computed in float64: float32 differs by the rounding of the output (2^-23 of the value).
# Blocks have lengths of their own: their tests are in tests/ops/test_resample.py.
CASE = Case(
    "resample",
    ops.resample,
    reference.resample,
    resample_inputs,
    ("x", "taps"),
    2.0**-23,
    options=({}, {"up": 1, "down": 4}, {"up": 5, "down": 1, "taps": tensor([0.5, -1.0, 0.25])}),
    causal=False,
)
