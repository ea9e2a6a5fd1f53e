from __future__ import annotations

from typing import Any

import numpy as np

from psysim import ops
from psysim.ops import reference

from .base import Case, tensor


def sections(rng: np.random.Generator, channels: int, count: int) -> np.ndarray:
    radius, angle = rng.uniform(0.5, 0.95, (channels, count)), rng.uniform(0.1, 2.5, (channels, count))
    a = np.stack([np.ones_like(radius), -2 * radius * np.cos(angle), radius**2], -1)
    return np.concatenate([rng.uniform(-1, 1, (channels, count, 3)), a], -1)


def drnl_inputs(rng: np.random.Generator, batch: int, channels: int, samples: int, dtype: Any) -> dict[str, Any]:
    linear = rng.uniform(0.5, 2.0, channels)
    linear[1::4] = 0.0  # an impaired listener's channel
    return {
        "x": tensor(rng.standard_normal((batch, samples)), dtype),
        "linear_sos": tensor(sections(rng, channels, 2)),
        "before_sos": tensor(sections(rng, channels, 2)),
        "linear": tensor(linear),
        "gain": tensor(rng.uniform(0.3, 1.0, channels)),
        "exponent": tensor(rng.uniform(0.2, 0.9, 1)),
        "after_sos": tensor(sections(rng, channels, 1)),
    }


# The float32 compression is right to 5e-7 of its output (tests/ops/test_compress.py); the section after it has a
# response whose absolute sum is less than 4 times the largest output in units of the largest input.
CASE = Case(
    "drnl",
    ops.drnl,
    reference.drnl,
    drnl_inputs,
    ("x", "linear_sos", "before_sos", "linear", "gain", "exponent", "after_sos"),
    2e-6,
    state_size=lambda inputs: 2 * sum(inputs[f"{name}_sos"].shape[1] for name in ("linear", "before", "after")),
)
