"""Choice of the device on which models run."""

from __future__ import annotations

import torch

from psysim import ops
from psysim.errors import SpecError

__all__ = ["cuda_reason", "pick"]


def cuda_reason() -> str | None:
    """Return why CUDA cannot be used, or None if it can."""
    if not torch.cuda.is_available():
        return "PyTorch sees no CUDA device"
    try:
        ops.template_product(
            torch.ones(1, 1, device="cuda"),
            torch.ones(1, 1, device="cuda"),
            torch.zeros(1, dtype=torch.int64, device="cuda"),
        )
    except SpecError as error:
        return f"the operators have no CUDA form yet ({error})"
    return None


def pick(name: str) -> str:
    """Return "cpu" or "cuda" for "auto", "cpu" or "cuda".

    Raises
    ------
    SpecError
        If "cuda" is asked for and no CUDA device, or no CUDA form of the operators, is available.
    """
    if name == "cpu":
        return "cpu"
    reason = cuda_reason()
    if name == "cuda" and reason is not None:
        raise SpecError(f"device = 'cuda' cannot be used: {reason}. Use --device cpu; 'psysim doctor' says more.")
    return "cpu" if reason is not None else "cuda"
