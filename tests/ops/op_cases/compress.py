from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from psysim import ops
from psysim.ops import reference

from .base import Case, tensor


def compress_inputs(
    rng: np.random.Generator, batch: int, channels: int, samples: int, dtype: Any, shared: bool = False
) -> dict[str, Any]:
    size = 1 if shared else channels
    linear = rng.uniform(0.5, 2.0, size)
    linear[1::4] = 0.0  # an impaired listener's channel
    x = rng.standard_normal((batch, channels, samples)) * 10.0 ** rng.uniform(-6, 2, (batch, channels, 1))
    return {
        "x": tensor(np.where(rng.random(x.shape) < 0.1, 0.0, x), dtype),
        "linear": tensor(linear),
        "gain": tensor(rng.uniform(0.05, 2.0, size)),
        "exponent": tensor(rng.uniform(0.2, 0.9, size)),
    }


def compress_tame(inputs: dict[str, Any]) -> dict[str, Any]:
    """Samples on both sides of the knee at 1, far from it and from 0 by more than the steps."""
    samples = np.resize([0.02, -0.5, 3.0, -40.0, 0.9, 1.1, -0.3], inputs["x"].shape)
    ones = tensor(np.ones(len(inputs["linear"])))
    return inputs | {"x": tensor(samples), "linear": ones * 1.5, "gain": ones * 1.5, "exponent": ones * 0.3}


# The float32 power is right to 3e-7 (tests/ops/test_log.py); gain and output are rounded by 2^-24 each.
CASE = Case(
    "compress",
    ops.compress,
    reference.compress,
    compress_inputs,
    ("x", "linear", "gain", "exponent"),
    3e-7 + 2.0**-23,
    tame=compress_tame,
)
SHARED = replace(CASE, name="compress, shared", inputs=partial(compress_inputs, shared=True))
POWER = replace(
    SHARED,
    name="compress, power law",
    differentiable=("x", "gain", "exponent"),
    options=({"linear": tensor([math.inf])},),
)
