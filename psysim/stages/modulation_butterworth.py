"""Butterworth bandpasses for the modulation filterbank: an extension, with no published counterpart in that bank.

The form of the bandpass is that of King, Varnet & Lorenzi (2019), JASA 145, 2277-2293: a second-order prototype (four
poles) between two edges whose geometric mean is the centre frequency and whose distance is the bandwidth.
"""

from __future__ import annotations

import torch
from torch import Tensor

from psysim import ops
from psysim.errors import SpecError
from psysim.stages.base import per_row
from psysim.stages.filters import analytic_signal, butterworth_sections

__all__ = ["butterworth_bandpasses", "check_edges", "filter_butterworth"]


def _edges(centre_hz: Tensor, width_hz: Tensor) -> Tensor:
    """Return lower and upper edge (M, 2), Hz: their geometric mean is the centre, their distance the width."""
    middle = torch.sqrt(centre_hz**2 + width_hz**2 / 4.0)
    return torch.stack([middle - width_hz / 2.0, middle + width_hz / 2.0], dim=-1)


def check_edges(centre_hz: Tensor, width_hz: Tensor, fs: float, parameter: str = "max_mfc") -> None:
    """Raise `SpecError` if the upper edge of a bandpass is not below fs/2; ``parameter`` is what to lower then."""
    for centre, high in zip(centre_hz.tolist(), _edges(centre_hz, width_hz)[:, 1].tolist(), strict=True):
        if high >= fs / 2:
            raise SpecError(
                f"The modulation filter at {centre:g} Hz reaches up to {high:g} Hz, but fs = {fs:g} Hz: "
                f"lower {parameter}."
            )


def butterworth_bandpasses(centre_hz: Tensor, width_hz: Tensor, fs: float) -> Tensor:
    """Return two second-order sections per bandpass, (M, 2, 6), float64, differentiable; gain 1 at the centre."""
    return butterworth_sections(_edges(centre_hz, width_hz), fs, 2, "band")


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
