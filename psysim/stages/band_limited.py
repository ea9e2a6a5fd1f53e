"""Change of the sampling rate of sound with a filter that is flat and cuts off sharply."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from psysim import ops
from psysim.errors import SpecError, check_range
from psysim.stages.base import AuditoryModule, check_sample_rate

__all__ = ["BandLimitedResampler", "band_limited_taps", "rate_ratio"]


def rate_ratio(fs: float, fs_out: float) -> tuple[int, int]:
    """Return ``up`` and ``down`` with fs_out = fs up/down, in lowest terms; refuse rates without a small ratio."""
    ratio = Fraction(fs_out / fs).limit_denominator(20_000)
    if ratio.numerator == 0 or abs(float(ratio) * fs - fs_out) > 1e-9 * fs_out:
        raise SpecError(f"fs = {fs:g} Hz cannot be resampled to {fs_out:g} Hz: their ratio is no fraction of integers.")
    return ratio.numerator, ratio.denominator


def band_limited_taps(up: int, down: int, passband: float = 0.913, attenuation_db: float = 180.0) -> Tensor:
    """Return a Kaiser-windowed sinc for `psysim.ops.resample`.

    Parameters
    ----------
    up, down : int
        Ratio of the rates in lowest terms.
    passband : float
        End of the passband, in parts of half of the lower rate; the stopband begins at 1.
    attenuation_db : float
        Attenuation in the stopband, and ripple in the passband relative to 1, dB.

    Returns
    -------
    Tensor (N,)
        float64; gain 1 at 0 Hz (the taps sum to ``up``).

    Examples
    --------
    >>> round(float(band_limited_taps(1, 5).sum()), 12)
    1.0
    """
    check_range("passband", passband, 0.0, 0.999, low_open=True)
    check_range("attenuation_db", attenuation_db, 50.0, 300.0, unit="dB")
    rate = max(up, down)
    half = math.ceil((attenuation_db - 7.95) / (2.285 * (1.0 - passband) * math.pi / rate) / 2.0)
    n = np.arange(-half, half + 1)
    taps = np.sinc((1.0 + passband) / 2.0 * n / rate) * np.kaiser(len(n), 0.1102 * (attenuation_db - 8.7))
    return torch.from_numpy(up * taps / taps.sum())


class BandLimitedResampler(AuditoryModule):
    """Sound at another rate: flat to 0.913 of half of the lower rate, silent (-180 dB) above half of it; no delay.

    Parameters
    ----------
    fs, fs_out : float
        Sampling rates before and after, Hz; their ratio must be one of whole numbers.
    dtype : torch.dtype
        torch.float32 or torch.float64.

    Raises
    ------
    SpecError
        If the ratio is not of whole numbers.

    Examples
    --------
    >>> import torch
    >>> BandLimitedResampler(fs=44100.0, fs_out=20000.0)(torch.zeros(2, 441)).shape
    torch.Size([2, 200])
    """

    taps: Tensor

    def __init__(self, fs: float, fs_out: float, dtype: torch.dtype | str = torch.float32) -> None:
        super().__init__(fs, dtype=dtype)
        self.fs_out = check_sample_rate(fs_out)
        self.up, self.down = rate_ratio(self.fs, self.fs_out)
        self.constant("taps", band_limited_taps(self.up, self.down))

    def forward(self, x: Tensor) -> Tensor:
        """Resample ``x`` (T,), (B, T) or (B, C, T) to (..., ceil(T fs_out/fs))."""
        x = self.enter(x, (1, 2, 3), "(T,), (B, T) or (B, C, T)")
        if self.up == self.down:
            return x
        y = ops.resample(x.reshape(-1, 1, x.shape[-1]).contiguous(), self.up, self.down, self.taps)
        return y.reshape(*x.shape[:-1], -1)
