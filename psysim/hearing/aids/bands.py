"""Frequency bands of hearing aids: linear-phase analytic filters that add up to a pure delay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from psysim.errors import SpecError, check_range
from psysim.hearing.aids.base import HearingAid, filtered
from psysim.hearing.aids.linear import odd_taps
from psysim.units import P_REF

__all__ = ["BandAid", "analytic_bands", "per_band"]

FLOOR_DB_SPL = 0.0
"""Added to the power of a band, so that its level in silence is a number."""


def analytic_bands(fs: float, crossovers_hz: Sequence[float], n_taps: int, octaves: float = 0.25) -> Tensor:
    """Return analytic impulse responses (F, n_taps), complex, of the bands between crossover frequencies.

    The real parts are the bands, linear phase, and add up to one click at (n_taps - 1) / 2 samples; the imaginary parts
    are their Hilbert transforms, so that the magnitude of the output is the envelope. Amplitudes cross over as a raised
    cosine over log frequency, within ``octaves`` to both sides of a crossover frequency.
    """
    n_fft = 2 ** math.ceil(math.log2(8 * n_taps))
    f = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * (fs / n_fft)
    log_f = torch.log2(f.clamp_min(1e-3))
    place = (log_f - torch.log2(torch.tensor(list(crossovers_hz), dtype=torch.float64))[:, None]) / octaves
    above = 0.5 + 0.5 * torch.sin(0.5 * math.pi * place.clamp(-1.0, 1.0))
    above = torch.cat([torch.ones(1, len(f), dtype=torch.float64), above, torch.zeros(1, len(f), dtype=torch.float64)])
    bands = above[:-1] - above[1:]
    one_sided = torch.zeros(len(bands), n_fft, dtype=torch.complex128)
    one_sided[:, : len(f)] = 2.0 * bands
    one_sided[:, [0, n_fft // 2]] *= 0.5
    h = torch.fft.ifft(one_sided)
    half = n_taps // 2
    window = torch.hann_window(n_taps + 2, periodic=False, dtype=torch.float64)[1:-1]
    return torch.cat([h[:, n_fft - half :], h[:, : half + 1]], -1) * window


def per_band(name: str, value: float | Sequence[float] | Tensor, n_bands: int) -> Tensor:
    """Return one number for each band (F,), float64, of one number or a sequence."""
    values = torch.as_tensor(value, dtype=torch.float64).detach()
    if values.ndim > 1 or (values.ndim == 1 and len(values) not in (1, n_bands)):
        raise SpecError(f"{name} has shape {tuple(values.shape)}: give one number, or one for each of {n_bands} bands.")
    return values.expand(n_bands).clone()


class BandAid(HearingAid):
    """What aids that work in frequency bands share: the bands, their levels and their sum.

    Parameters
    ----------
    fs : float
        Sampling rate, Hz.
    crossovers_hz : sequence of float
        Frequencies between neighbouring bands, Hz, rising, below fs / 2; empty: one band.
    duration_s : float
        Length of the impulse responses, s, 0.002 to 0.1.
    learnable : bool
        Make the settings trainable.
    dtype : torch.dtype
        torch.float32 or torch.float64.
    """

    def __init__(
        self, fs: float, crossovers_hz: Sequence[float], duration_s: float, learnable: bool, dtype: torch.dtype | str
    ) -> None:
        super().__init__(fs, learnable=learnable, dtype=dtype)
        check_range("duration_s", duration_s, 0.002, 0.1, unit="s")
        self.crossovers_hz = [float(f) for f in crossovers_hz]
        for frequency in self.crossovers_hz:
            check_range("crossovers_hz", frequency, 0.0, self.fs / 2, unit="Hz", low_open=True)
        if (np.diff(self.crossovers_hz) <= 0).any():
            raise SpecError(f"crossovers_hz must be rising, but is {self.crossovers_hz}.")
        self.duration_s = float(duration_s)
        self.n_taps = odd_taps(self.fs, self.duration_s)
        self.register_buffer("_taps", analytic_bands(self.fs, self.crossovers_hz, self.n_taps), persistent=False)
        self._constants.append("_taps")

    @property
    def n_bands(self) -> int:
        """Number of bands F."""
        return len(self.crossovers_hz) + 1

    @property
    def delay(self) -> int:
        """Samples by which the output lags the input."""
        return self.n_taps // 2

    @property
    def centres_hz(self) -> list[float]:
        """Centre of each band on a log scale, Hz; the outer bands are an octave wide, or end at fs / 2."""
        c = self.crossovers_hz
        if not c:
            return [min(1000.0, self.fs / 4)]
        edges = [c[0] / 2, *c, min(2 * c[-1], self.fs / 2)]
        return [math.sqrt(a * b) for a, b in pairwise(edges)]

    def _split(self, x: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return bands (B, E, F, T), their powers re 20 uPa of the envelope / sqrt(2), and the past for the next."""
        taps = self._taps
        assert isinstance(taps, Tensor)
        z, past = filtered(x, taps, past)
        power = (z.real.square() + z.imag.square()) / (2.0 * P_REF**2) + 10.0 ** (FLOOR_DB_SPL / 10.0)
        return z.real, power, past
