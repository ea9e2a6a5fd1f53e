from __future__ import annotations

import torch
from torch import Tensor

from psysim.ops import _sosfilt
from psysim.ops.base import check_coefficient, check_signal

__all__ = ["modulation_bank", "reference"]


def modulation_bank(
    x: Tensor,
    lowpass_sos: Tensor,
    decay: Tensor,
    angle: Tensor,
    envelope: Tensor,
    scale: Tensor,
    valid: Tensor,
    phase_insensitive: bool = True,
) -> Tensor:
    """Modulation filterbank."""
    op = "modulation_bank"
    check_signal(op, x, ("B", "F", "T"))
    check_coefficient(op, "lowpass_sos", lowpass_sos, [(-1, 6)], x)
    check_coefficient(op, "decay", decay, [(-1,)], x)
    n = len(decay)
    check_coefficient(op, "angle", angle, [(n,)], x)
    check_coefficient(op, "envelope", envelope, [(n,)], x, torch.bool)
    check_coefficient(op, "scale", scale, [(n,)], x)
    check_coefficient(op, "valid", valid, [(x.shape[1], n + 1)], x, torch.bool)
    return reference(x, lowpass_sos, decay, angle, envelope, scale, valid, phase_insensitive)


def reference(
    x: Tensor,
    lowpass_sos: Tensor,
    decay: Tensor,
    angle: Tensor,
    envelope: Tensor,
    scale: Tensor,
    valid: Tensor,
    phase_insensitive: bool = True,
) -> Tensor:
    """Definition of `modulation_bank`: a loop over time, differentiable, slow."""
    x64 = x.to(torch.float64)
    low = _sosfilt.reference(x64, lowpass_sos)[:, :, None]
    pole = decay * torch.exp(torch.complex(torch.zeros_like(angle), angle))
    z = torch.zeros(*x.shape[:2], len(decay), dtype=pole.dtype)
    band = []
    for sample in x64.unbind(-1):
        z = (1.0 - decay) * sample[..., None] + pole * z
        band.append(z)
    bands = torch.stack(band, -1) * scale[:, None]
    if phase_insensitive:
        bands = torch.where(envelope[:, None], bands.abs(), bands.real)
        real = x.dtype
    else:
        real = torch.complex64 if x.dtype == torch.float32 else torch.complex128
    out = torch.cat([low.to(bands.dtype), bands], dim=2)
    return torch.where(valid[:, :, None], out, torch.zeros((), dtype=out.dtype)).to(real)
