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
    except Exception as error:  # Triton needs a driver, a compiler and a place for its cache: any may be missing
        return f"the operators do not run on it ({error})"
    return None


def pick(name: str) -> str:
    """Return "cpu" or "cuda" for "auto", "cpu" or "cuda".

    Raises
    ------
    SpecError
        If "cuda" is asked for and there is no CUDA device, or the operators do not run on it.
    """
    if name == "cpu":
        return "cpu"
    reason = cuda_reason()
    if name == "cuda" and reason is not None:
        raise SpecError(f"device = 'cuda' cannot be used: {reason}. Use --device cpu; 'psysim doctor' says more.")
    return "cpu" if reason is not None else "cuda"
