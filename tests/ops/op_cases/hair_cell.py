from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from psysim import ops
from psysim.ops import reference
from psysim.ops._hair_cell import HairCellCircuit

from .base import Case, tensor


def hair_cell_inputs(
    rng: np.random.Generator, batch: int, channels: int, samples: int, dtype: Any, shared: bool = True
) -> dict[str, Any]:
    published = HairCellCircuit().tensor().numpy()
    return {
        "x": tensor(3e-3 * rng.standard_normal((batch, channels, samples)), dtype),
        "constants": tensor(published * rng.uniform(0.9, 1.1, 12 if shared else (channels, 12))),
        "fs": 44100.0,
    }


def hair_cell_tame(inputs: dict[str, Any]) -> dict[str, Any]:
    """A circuit in other units, whose numbers a step of 1e-6 hardly changes."""
    numbers = tensor([0.5, 0.3, 0.2, 0.8, 1.1, 1.0, 0.05, 0.2, 0.3, 0.9, -0.7, -0.8])
    constants = numbers.expand(inputs["constants"].shape).clone()
    return inputs | {"x": 300.0 * inputs["x"], "constants": constants, "fs": 2.0}


# Float32: exponentials, products, quotient and step are each rounded by 2^-24, about 16 in all; measured 3e-7 (module
# docstring). A card's quotient and exponential are approximate, to 2^-22.
CASE = Case(
    "hair_cell",
    ops.hair_cell,
    reference.hair_cell,
    hair_cell_inputs,
    ("x", "constants"),
    2.0**-20,
    tame=hair_cell_tame,
    state_size=lambda inputs: 1,  # noqa: ARG005
    make_state=lambda rng, shape, inputs: tensor(0.01 * rng.standard_normal(shape)),  # noqa: ARG005
)
PER_CHANNEL = replace(CASE, name="hair_cell, per channel", inputs=partial(hair_cell_inputs, shared=False))
