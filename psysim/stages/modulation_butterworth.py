"""Butterworth bandpasses for the modulation filterbank: an extension, with no published counterpart in that bank.

The form of the bandpass is that of King, Varnet & Lorenzi (2019), JASA 145, 2277-2293: a second-order prototype (four
poles) between two edges whose geometric mean is the centre frequency and whose distance is the bandwidth.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from psysim import ops
from psysim.errors import SpecError
from psysim.stages.base import per_row
from psysim.stages.filters import analytic_signal

__all__ = ["butterworth_bandpasses", "check_edges", "filter_butterworth"]


def _edges(centre_hz: Tensor, width_hz: Tensor) -> tuple[Tensor, Tensor]:
    middle = torch.sqrt(centre_hz**2 + width_hz**2 / 4.0)
    return middle - width_hz / 2.0, middle + width_hz / 2.0


def check_edges(centre_hz: Tensor, width_hz: Tensor, fs: float) -> None:
    """Raise `SpecError` if the upper edge of a bandpass is not below fs/2."""
    for centre, high in zip(centre_hz.tolist(), _edges(centre_hz, width_hz)[1].tolist(), strict=True):
        if high >= fs / 2:
            raise SpecError(
                f"The modulation filter at {centre:g} Hz reaches up to {high:g} Hz, but fs = {fs:g} Hz: lower max_mfc."
            )


def butterworth_bandpasses(centre_hz: Tensor, width_hz: Tensor, fs: float) -> Tensor:
    """Return two second-order sections per bandpass, (M, 2, 6), float64, differentiable.

    Bilinear transform with both edges prewarped; the gain is 1 at the centre (of the warped axis).
    """
    low, high = (torch.tan(math.pi * edge / fs) for edge in _edges(centre_hz, width_hz))
    squared_centre = low * high
    half = (high - low) / 2.0 * math.sqrt(0.5) * torch.tensor(-1.0 + 1.0j, dtype=torch.complex128, device=low.device)
    root = torch.sqrt(half * half - squared_centre)
    poles = torch.stack([half + root, half - root], dim=-1)  # (M, 2); their conjugates are the other two
    poles = (1.0 + poles) / (1.0 - poles)
    a1, a2 = -2.0 * poles.real, poles.real**2 + poles.imag**2
    angle = 2.0 * torch.atan(torch.sqrt(squared_centre)).unsqueeze(-1)
    delay = torch.polar(torch.ones_like(angle), -angle)
    b0 = ((1.0 + a1 * delay + a2 * delay * delay) / (1.0 - delay * delay)).abs()
    zero, one = torch.zeros_like(a1), torch.ones_like(a1)
    return torch.stack([b0, zero, -b0, one, a1, a2], dim=-1)


def _fft_envelope(row: Tensor) -> Tensor:
    return analytic_signal(row.double()).abs().to(row.dtype)


def filter_butterworth(
    x: Tensor, lowpass_sos: Tensor, bandpass_sos: Tensor, valid: Tensor, envelope: Tensor | None, scale: Tensor
) -> Tensor:
    """Return the dense output (B, F, M, T) of ``x`` (B, F, T); where ``envelope`` is True, the FFT envelope."""
    columns = [torch.where(valid[:, :1], ops.sosfilt(x, lowpass_sos), 0.0)]
    for m, sos in enumerate(bandpass_sos.unbind(0)):
        index = valid[:, m + 1].nonzero().squeeze(1)
        y = ops.sosfilt(x.index_select(1, index), sos)
        if envelope is not None and bool(envelope[m]):
            y = per_row(_fft_envelope, y)
        y = y * scale[m].to(y.dtype)
        columns.append(torch.zeros_like(x).index_copy(1, index, y))
    return torch.stack(columns, dim=2)
