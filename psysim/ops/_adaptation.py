from __future__ import annotations

import torch
from torch import Tensor

from psysim.ops.base import check_coefficient, check_signal

__all__ = ["adaptation_loops", "reference"]


def adaptation_loops(x: Tensor, decay: Tensor, minimum: Tensor, limit: float | Tensor) -> Tensor:
    """Adaptation loops."""
    check_signal("adaptation_loops", x, ("B", "F", "T"))
    check_coefficient("adaptation_loops", "decay", decay, [(-1,)], x)
    check_coefficient("adaptation_loops", "minimum", minimum, [(1,), (x.shape[1],)], x)
    return reference(x, decay, minimum, limit)


def reference(x: Tensor, decay: Tensor, minimum: Tensor, limit: float | Tensor) -> Tensor:
    """Definition of `adaptation_loops`: a loop over time, differentiable, slow."""
    n = len(decay)
    start = [minimum ** (0.5 ** (j + 1)) for j in range(n)]
    ceiling = [(1.0 - s * s) * limit - 1.0 for s in start]
    limited = float(limit) > 1.0
    state = [s.expand(x.shape[:2]) for s in start]
    y = []
    for sample in x.to(torch.float64).unbind(-1):
        t = torch.where(sample < minimum, minimum, sample)
        for j in range(n):
            t = t / state[j]
            if limited:
                m = ceiling[j]
                t = torch.where(t > 1.0, 2.0 * m * torch.sigmoid(2.0 * (t - 1.0) / m) - (m - 1.0), t)
            state[j] = state[j] + (1.0 - decay[j]) * (t - state[j])
        y.append(t)
    rest = start[-1][:, None]
    return ((torch.stack(y, -1) - rest) * (100.0 / (1.0 - rest))).to(x.dtype)
