"""Filter designs that several stages share; float64, and differentiable with respect to the cutoff."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from psysim.errors import SpecError

__all__ = ["analytic_signal", "butterworth_lowpass", "butterworth_sections", "check_below_nyquist"]


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


def butterworth_sections(cutoff_hz: Tensor, fs: float, order: int, btype: str) -> Tensor:
    """Return the second-order sections (..., S, 6) of a Butterworth filter of any order.

    Bilinear transform with every cutoff prewarped; the gain is 1 at 0 Hz (low, stop), fs/2 (high) or the centre of the
    warped band (band). Poles and gains come from the analogue poles without cancellation, so that narrow bands far
    below fs are exact. Bandpass and bandstop have twice as many poles as ``order`` says.

    Parameters
    ----------
    cutoff_hz : Tensor (..., 1) or (..., 2)
        -3-dB frequencies in Hz, rising, float64; may require gradients.
    fs : float
        Sampling rate, Hz.
    order : int
        Order of the lowpass prototype.
    btype : str
        ``"low"``, ``"high"`` (one cutoff), ``"band"`` or ``"stop"`` (two).

    Examples
    --------
    >>> import torch
    >>> sos = butterworth_sections(torch.tensor([2.0, 5.0], dtype=torch.float64), fs=44100.0, order=2, btype="band")
    >>> sos.shape
    torch.Size([2, 6])
    """
    edges = torch.tan(math.pi / fs * cutoff_hz)
    angles = [math.pi * (2 * k + order + 1) / (2 * order) for k in range(order // 2)]
    upper = torch.polar(edges.new_ones(len(angles)), edges.new_tensor(angles))  # the others are conjugates, and -1
    last = upper.new_full((order % 2,), -1.0)
    first, one = edges[..., :1], torch.ones_like(edges[..., :1])
    if btype in ("low", "high"):
        sign, scale = (1.0, first) if btype == "low" else (-1.0, one)
        poles, single = (first * upper, first * last) if btype == "low" else (first / upper, first / last)
        # A second pole at s = -1, in z at 0, makes the single one a section of first order.
        return torch.cat(
            [
                _sections(poles, poles.conj(), (scale**2, 2.0 * sign * scale**2, scale**2)),
                _sections(single, torch.full_like(single, -1.0), (2.0 * scale, 2.0 * sign * scale, 0.0 * scale)),
            ],
            dim=-2,
        )
    width, squared_centre = edges[..., 1:] - first, first * edges[..., 1:]
    numerator = (width, 0.0 * width, -width)
    if btype == "stop":
        numerator = (1.0 + squared_centre, 2.0 * (squared_centre - 1.0), 1.0 + squared_centre)
    half, half_last = (width / 2.0 * p if btype == "band" else width / 2.0 / p for p in (upper, last))
    root, root_last = (torch.sqrt(h * h - squared_centre) for h in (half, half_last))
    poles = torch.cat([half + root, half - root], dim=-1)
    return torch.cat(
        [
            _sections(poles, poles.conj(), numerator),
            _sections(half_last + root_last, half_last - root_last, numerator),
        ],
        dim=-2,
    )


def _sections(first: Tensor, second: Tensor, numerator: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Return sections (..., S, 6) with the analogue poles ``first`` and ``second`` (..., S) and numerators (..., 1)."""
    size = ((1.0 - first) * (1.0 - second)).real
    one, two = (1.0 + first) / (1.0 - first), (1.0 + second) / (1.0 - second)
    b = [n / size for n in numerator]
    return torch.stack([*b, torch.ones_like(size), -(one + two).real, (one * two).real], dim=-1)


def analytic_signal(x: Tensor) -> Tensor:
    """Return the analytic signal of ``x`` (..., T) along time, by the FFT of the whole signal (so not causal)."""
    n = x.shape[-1]
    quarter_turn = torch.full((n // 2 + 1,), -1.0j, dtype=torch.complex128, device=x.device)
    quarter_turn[0] = 0.0
    if n % 2 == 0:
        quarter_turn[-1] = 0.0
    spectrum = torch.fft.rfft(x)
    return torch.complex(x, torch.fft.irfft(spectrum * quarter_turn.to(spectrum.dtype), n=n))
