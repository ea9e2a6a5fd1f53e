from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from psysim import ops
from psysim.ops import reference

from .base import Case, tensor


def modulation_inputs(rng: np.random.Generator, batch: int, channels: int, samples: int, dtype: Any) -> dict[str, Any]:
    mfc = np.array([5.0, 10.0, 16.7, 46.3, 214.0])
    bandwidth = np.where(mfc < 10, 5.0, mfc / 2)
    valid = np.arange(6) < rng.integers(1, 7, channels)[:, None]
    valid[-1] = True
    return {
        "x": tensor(10.0 * rng.standard_normal((batch, channels, samples)), dtype),
        "lowpass_sos": tensor([[3.844634e-06, 7.689267e-06, 3.844634e-06, 1.0, -1.994446, 0.994462]]),
        "decay": tensor(np.exp(-math.pi * bandwidth / 4000)),
        "angle": tensor(2 * math.pi * mfc / 4000),
        "envelope": tensor(mfc > 10, torch.bool),
        "scale": tensor(np.where(mfc > 10, math.sqrt(2.0), 2.0)),
        "valid": tensor(valid, torch.bool),
    }


# Filters in float64; the squares, sum, root and factor of the magnitude are float32, each rounded by 2^-24.
CASE = Case(
    "modulation_bank",
    ops.modulation_bank,
    reference.modulation_bank,
    modulation_inputs,
    ("x", "lowpass_sos", "decay", "angle", "scale"),
    2.0**-21,
    options=({}, {"phase_insensitive": False}),
    state_size=lambda inputs: 2 * (len(inputs["lowpass_sos"]) + len(inputs["decay"])),
)
