"""Filter designs that several stages share; float64, and differentiable with respect to the cutoff."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from psysim.errors import SpecError

__all__ = ["analytic_signal", "butterworth_lowpass", "check_below_nyquist"]


def check_below_nyquist(parameter: str, frequency_hz: float, fs: float) -> None:
    """Raise `SpecError` unless ``0 < frequency_hz < fs / 2``."""
    if not 0.0 < frequency_hz < fs / 2:
        raise SpecError(
            f"{parameter} = {frequency_hz:g} Hz is out of range at fs = {fs:g} Hz: "
            f"it must be above 0 Hz and below fs/2 = {fs / 2:g} Hz."
        )


def butterworth_lowpass(cutoff_hz: Tensor, fs: float, order: int = 1) -> Tensor:
    """Return one second-order section (1, 6) of a Butterworth lowpass of order 1 or 2.

    Bilinear transform with prewarping, K = tan(pi cutoff / fs), with the published rounding: one last bit of a1 changes
    the gain at 0 Hz of the 2.5-Hz lowpass at 44.1 kHz by 2e-9, and so the golden coefficients are met to the bit.

    Parameters
    ----------
    cutoff_hz : Tensor
        -3-dB frequency in Hz, a float64 scalar; may require gradients.
    fs : float
        Sampling rate, Hz.
    order : int
        1 or 2.

    Examples
    --------
    >>> import torch
    >>> sos = butterworth_lowpass(torch.tensor(1000.0, dtype=torch.float64), fs=16000.0)
    >>> [round(v, 6) for v in sos[0].tolist()]
    [0.165911, 0.165911, 0.0, 1.0, -0.668179, 0.0]
    """
    k = torch.tan(math.pi * cutoff_hz / fs)
    one, zero = torch.ones_like(k), torch.zeros_like(k)
    if order == 1:
        b0 = k / (1 + k)
        return torch.stack([b0, b0, zero, one, (k - 1) / (k + 1), zero]).unsqueeze(0)
    if order == 2:
        u = k * math.sqrt(0.5)
        ratio = u / (1 + u)  # the pole is (1 + s) / (1 - s), s = -u + iu, divided by Smith's rule
        size = (1 + u) + u * ratio
        real, imag = ((1 - u) - u * ratio) / size, (u + (1 - u) * ratio) / size
        b0 = k * k / ((1 + u) ** 2 + u * u)
        return torch.stack([b0, 2 * b0, b0, one, -2 * real, real * real + imag * imag]).unsqueeze(0)
    raise SpecError(f"order = {order!r} of a Butterworth lowpass is not available. Allowed: 1, 2.")


def analytic_signal(x: Tensor) -> Tensor:
    """Return the analytic signal of ``x`` (..., T) along time, by the FFT of the whole signal (so not causal)."""
    n = x.shape[-1]
    spectrum = torch.fft.rfft(x)
    weight = torch.full((spectrum.shape[-1],), 2.0, dtype=x.dtype, device=x.device)
    weight[0] = 1.0
    if n % 2 == 0:
        weight[-1] = 1.0
    full = torch.nn.functional.pad(spectrum * weight, (0, n - spectrum.shape[-1]))
    return torch.fft.ifft(full)
