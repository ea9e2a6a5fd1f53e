from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from psysim import ops
from psysim.ops import reference

from .base import Case, tensor


def leaky_inputs(
    rng: np.random.Generator, batch: int, channels: int, samples: int, dtype: Any, shared: bool = False
) -> dict[str, Any]:
    units = 1 if shared else channels
    return {
        "x": tensor(rng.standard_normal((batch, channels, samples)), dtype),
        "decay": tensor(rng.uniform(0.5, 0.99, units)),
        "gain": tensor(rng.uniform(-1.0, 1.0, units)),
    }


# Computed in float64: float32 differs by the rounding of the output (2^-23 of the value).
CASE = Case(
    "leaky",
    ops.leaky,
    reference.leaky,
    leaky_inputs,
    ("x", "decay", "gain"),
    2.0**-23,
    state_size=lambda inputs: 1,  # noqa: ARG005
)
SHARED = replace(CASE, name="leaky, shared", inputs=partial(leaky_inputs, shared=True))
