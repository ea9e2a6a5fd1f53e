from __future__ import annotations

from typing import Any

import numpy as np
import torch

from psysim import ops
from psysim.ops import reference

from .base import Case, tensor


def roex_inputs(rng: np.random.Generator, batch: int, channels: int, samples: int, dtype: Any) -> dict[str, Any]:
    """Return spectra over 80 dB, slopes on both sides of the floor, and filters that take none to all components."""
    count = rng.integers(0, samples + 1, channels)
    count[0] = samples
    return {
        "x": tensor(10.0 ** rng.uniform(-3, 5, (batch, samples)), dtype),
        "slope": tensor(rng.uniform(-0.2, 2.0, (batch, samples)), dtype),
        "distance": tensor(rng.uniform(0.0, 30.0, (channels, samples))),
        "floor": tensor(rng.choice([0.1, 0.01, -np.inf], channels)),
        "count": tensor(count, torch.int64),
    }


def roex_tame(inputs: dict[str, Any]) -> dict[str, Any]:
    """Components of one size, slopes away from the floor."""
    slope = np.resize([0.3, 0.9, 1.4, 0.02, 0.6], inputs["slope"].shape)
    distance = inputs["distance"] / 10.0
    x, floor = inputs["x"], inputs["floor"]
    changed = {"x": 1.0 + x / x.max(), "slope": tensor(slope), "distance": distance, "floor": floor.clamp(min=0.1)}
    return inputs | changed


# float32: distance and slope rounded by 2^-24 each are up to 60 * 2^-23 = 7e-6 in exp(-z) for z = 60, where the weight
# is 1e-25; at z = 5, weight 0.04, it is 6e-7, as much as the rounding of a sum of some hundred terms.
CASE = Case(
    "roex_spread",
    ops.roex_spread,
    reference.roex_spread,
    roex_inputs,
    ("x", "slope"),
    3e-6,
    per_row=("slope",),
    tame=roex_tame,
    causal=False,
)
