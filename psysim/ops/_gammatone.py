from __future__ import annotations

import torch
from torch import Tensor

from psysim.errors import check_range
from psysim.ops.base import check_coefficient, check_signal

__all__ = ["gammatone", "reference"]


def gammatone(x: Tensor, decay: Tensor, angle: Tensor, order: int = 4, complex_output: bool = False) -> Tensor:
    """Gammatone filterbank."""
    check_signal("gammatone", x, ("B", "T"))
    check_coefficient("gammatone", "decay", decay, [(-1,)], x)
    check_coefficient("gammatone", "angle", angle, [tuple(decay.shape)], x)
    check_range("ops.gammatone: order", order, 1)
    return reference(x, decay, angle, order, complex_output)


def reference(x: Tensor, decay: Tensor, angle: Tensor, order: int = 4, complex_output: bool = False) -> Tensor:
    """Definition of `gammatone`: a loop over time, differentiable, slow."""
    gain = 1.0 - decay
    pole = decay * torch.exp(torch.complex(torch.zeros_like(angle), -angle))
    state = [torch.zeros(len(x), len(decay), dtype=pole.dtype) for _ in range(order)]
    y = []
    for sample in x.to(torch.float64).unbind(-1):
        value = sample[:, None]
        for k in range(order):
            value = state[k] = gain * value + pole * state[k]
        y.append(value)
    out = torch.stack(y, -1)
    real = x.dtype
    return out.to(torch.complex64 if real == torch.float32 else torch.complex128) if complex_output else (2 * out.real).to(real)
