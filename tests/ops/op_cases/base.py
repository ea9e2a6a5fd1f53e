"""What a case says of an operator, so that properties all operators share are tested once, over all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """An operator, its definition, and how to make arguments for it.

    ``inputs(rng, batch, channels, samples, dtype)`` gives the keyword arguments; the signal is ``x``, batch first.
    """

    name: str
    run: Callable[..., Any]
    reference: Callable[..., Any]
    inputs: Callable[..., dict[str, Any]]
    differentiable: tuple[str, ...]
    # Largest error of the float32 form in units of the largest output, and why
    float32_error: float
    per_row: tuple[str, ...] = ()  # arguments besides x that have one entry per row of the batch
    options: tuple[dict[str, Any], ...] = ({},)
    tame: Callable[[dict[str, Any]], dict[str, Any]] = lambda inputs: inputs  # for finite differences
    # Size of the state of a row, given the arguments (None: no state); and a state to start tests from
    state_size: Callable[[dict[str, Any]], int] | None = None
    make_state: Callable[[np.random.Generator, tuple[int, ...], dict[str, Any]], Tensor] = (
        lambda rng, shape, inputs: tensor(rng.standard_normal(shape))  # noqa: ARG005
    )
    causal: bool = True  # output sample t shows input sample t, and none after it
    handed_on_error: float = 0.0  # of the end state after blocks in float32, in units of the largest state, and why

    @property
    def op(self) -> str:
        """Name of the operator; the name of the case may say more after a comma."""
        return self.name.partition(",")[0]


def tensor(values: Any, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.as_tensor(np.asarray(values)).to(dtype)
