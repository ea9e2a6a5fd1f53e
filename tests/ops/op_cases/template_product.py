from __future__ import annotations

from typing import Any

import numpy as np
import torch

from psysim import ops
from psysim.ops import reference

from .base import Case, tensor


def template_inputs(rng: np.random.Generator, batch: int, channels: int, samples: int, dtype: Any) -> dict[str, Any]:
    return {
        "x": tensor(rng.standard_normal((batch, channels * samples)), dtype),
        "templates": tensor(rng.standard_normal((3, channels * samples)), dtype),
        "index": tensor(rng.integers(0, 3, batch), torch.int64),
    }


# Computed in float64.
CASE = Case(
    "template_product",
    ops.template_product,
    reference.template_product,
    template_inputs,
    ("x", "templates"),
    1e-12,
    per_row=("index",),
)
