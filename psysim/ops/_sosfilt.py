from __future__ import annotations

import torch
from torch import Tensor

from psysim.ops.base import check_coefficient, check_signal

__all__ = ["reference", "sosfilt"]


def sosfilt(x: Tensor, sos: Tensor) -> Tensor:
    """Cascade of second-order sections."""
    check_signal("sosfilt", x, ("B", "F", "T"))
    check_coefficient("sosfilt", "sos", sos, [(-1, 6), (x.shape[1], -1, 6)], x)
    return reference(x, sos)


def reference(x: Tensor, sos: Tensor) -> Tensor:
    """Definition of `sosfilt`: a loop over time, differentiable, slow."""
    sos = sos / sos[..., 3:4]
    y = x.to(torch.float64)
    for s in range(sos.shape[-2]):
        b0, b1, b2, _, a1, a2 = sos[..., s, :].unbind(-1)
        w1 = w2 = torch.zeros_like(y[..., 0])
        out = []
        for u in y.unbind(-1):
            v = b0 * u + w1
            w1, w2 = b1 * u - a1 * v + w2, b2 * u - a2 * v
            out.append(v)
        y = torch.stack(out, -1)
    return y.to(x.dtype)
