from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from psysim import ops
from psysim.ops import reference

from .base import Case, tensor


def smooth_inputs(
    rng: np.random.Generator, batch: int, channels: int, samples: int, dtype: Any, shared: bool = False
) -> dict[str, Any]:
    size = 1 if shared else channels
    return {
        "x": tensor(rng.standard_normal((batch, channels, samples)), dtype),
        "attack": tensor(rng.uniform(0.1, 0.9, size)),
        "release": tensor(rng.uniform(0.001, 0.2, size)),
    }


# Computed in float64: float32 differs by the rounding of the output (2^-23 of the value).
CASE = Case(
    "smooth",
    ops.smooth,
    reference.smooth,
    smooth_inputs,
    ("x", "attack", "release"),
    2.0**-23,
    state_size=lambda inputs: 1,  # noqa: ARG005
)
SHARED = replace(CASE, name="smooth, shared", inputs=partial(smooth_inputs, shared=True))
