from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from psysim import ops
from psysim.ops import reference

from .base import Case, tensor


def stable(rng: np.random.Generator, order: int) -> np.ndarray:
    """A polynomial with random zeros inside the unit circle: pairs, and a real one if the order is odd."""
    pairs = rng.uniform(0.5, 0.9, order // 2) * np.exp(1j * rng.uniform(0.2, 3.0, order // 2))
    return np.poly([*pairs, *pairs.conj(), *rng.uniform(-0.9, 0.9, order % 2)]).real


def iirfilt_inputs(
    rng: np.random.Generator,
    batch: int,
    channels: int,
    samples: int,
    dtype: Any,
    sections: int = 2,
    order: int = 4,
    shared: bool = True,
) -> dict[str, Any]:
    shape = (1 if shared else channels, sections)
    a = np.array([stable(rng, order) for _ in range(shape[0] * shape[1])]).reshape(*shape, order + 1)
    b = rng.uniform(-1, 1, a.shape)
    scale = rng.uniform(0.5, 2.0, (*shape, 1))
    b, a = (value * scale for value in (b, a))
    return {
        "x": tensor(rng.standard_normal((batch, channels, samples)), dtype),
        "b": tensor(b[0] if shared else b),
        "a": tensor(a[0] if shared else a),
    }


# Computed in float64: float32 differs by the rounding of the output (2^-23 of the value).
CASE = Case(
    "iirfilt",
    ops.iirfilt,
    reference.iirfilt,
    iirfilt_inputs,
    ("x", "b", "a"),
    2.0**-23,
    state_size=lambda inputs: inputs["b"].shape[-2] * (inputs["b"].shape[-1] - 1),
)
PER_CHANNEL = replace(
    CASE, name="iirfilt, per channel", inputs=partial(iirfilt_inputs, sections=1, order=3, shared=False)
)
