"""Butterworth bandpasses for the modulation filterbank: an extension, with no published counterpart in that bank.

The form of the bandpass is that of King, Varnet & Lorenzi (2019), JASA 145, 2277-2293: a second-order prototype (four
poles) between two edges whose geometric mean is the centre frequency and whose distance is the bandwidth.
"""

from __future__ import annotations

import torch
from scipy import signal
from torch import Tensor

from psysim import ops
from psysim.errors import SpecError
from psysim.stages.base import per_row
from psysim.stages.filters import analytic_signal

__all__ = ["butterworth_bandpasses", "filter_butterworth"]


def butterworth_bandpasses(centre_hz: Tensor, width_hz: Tensor, fs: float) -> Tensor:
    """Return the second-order sections of one bandpass per centre frequency, (len(centre_hz), 2, 6), float64."""
    sections = []
    for centre, width in zip(centre_hz.tolist(), width_hz.tolist(), strict=True):
        middle = (centre**2 + width**2 / 4.0) ** 0.5
        low, high = middle - width / 2.0, middle + width / 2.0
        if high >= fs / 2:
            raise SpecError(
                f"The modulation filter at {centre:g} Hz reaches up to {high:g} Hz, but fs = {fs:g} Hz: lower max_mfc."
            )
        sections.append(torch.as_tensor(signal.butter(2, [low, high], "bandpass", fs=fs, output="sos")))
    return torch.stack(sections) if sections else torch.empty(0, 2, 6, dtype=torch.float64)


def filter_butterworth(
    x: Tensor, lowpass_sos: Tensor, bandpass_sos: Tensor, valid: Tensor, envelope: Tensor | None, scale: Tensor
) -> Tensor:
    """Return the dense output (B, F, M, T) of ``x`` (B, F, T); where ``envelope`` is True, the FFT envelope."""
    columns = [torch.where(valid[:, :1], ops.sosfilt(x, lowpass_sos), 0.0)]
    for m, sos in enumerate(bandpass_sos.unbind(0)):
        index = valid[:, m + 1].nonzero().squeeze(1)
        y = ops.sosfilt(x.index_select(1, index), sos)
        if envelope is not None and bool(envelope[m]):
            y = per_row(lambda row: analytic_signal(row.double()).abs().to(row.dtype), y)
        y = y * scale[m].to(y.dtype)
        columns.append(torch.zeros_like(x).index_copy(1, index, y))
    return torch.stack(columns, dim=2)
