from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from psysim import ops
from psysim.ops import reference

from .base import Case, tensor


def sosfilt_inputs(
    rng: np.random.Generator, batch: int, channels: int, samples: int, dtype: Any, shared: bool = True
) -> dict[str, Any]:
    shape = (2,) if shared else (channels, 2)
    radius, angle = rng.uniform(0.5, 0.98, shape), rng.uniform(0.05, 3.0, shape)
    a = np.stack([np.ones(shape), -2 * radius * np.cos(angle), radius**2], -1)
    sos = np.concatenate([rng.uniform(-1, 1, (*shape, 3)), a], -1)
    return {"x": tensor(rng.standard_normal((batch, channels, samples)), dtype), "sos": tensor(sos)}


# Computed in float64: float32 differs by the rounding of the output (2^-23 of the value).
CASE = Case(
    "sosfilt",
    ops.sosfilt,
    reference.sosfilt,
    sosfilt_inputs,
    ("x", "sos"),
    2.0**-23,
    state_size=lambda inputs: 2 * inputs["sos"].shape[-2],
)
PER_CHANNEL = replace(CASE, name="sosfilt, per channel", inputs=partial(sosfilt_inputs, shared=False))
