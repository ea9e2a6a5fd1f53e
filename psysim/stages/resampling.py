"""Resampling of a representation: by cutting or padding its spectrum, or by a whole factor with a filter."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from psysim import ops
from psysim.errors import SpecError, check_range
from psysim.ops.steps import Decimate, Step
from psysim.stages.base import AuditoryModule, check_sample_rate, per_row

__all__ = ["Decimator", "FFTResampler", "fft_resample", "resampled_length"]


def resampled_length(n_samples: int, fs: float, fs_out: float) -> int:
    """Return the number of samples after resampling: n_samples / fs * fs_out, halves rounded up."""
    return math.floor(n_samples / fs * fs_out + 0.5)


def fft_resample(x: Tensor, n_out: int) -> Tensor:
    """Resample ``x`` (..., T) to ``n_out`` samples.

    The half spectrum is cut, or padded with zeros, to n_out // 2 + 1 bins, transformed back and multiplied by
    n_out / T. The signal is treated as periodic: its end leaks into its beginning. The bin at half the rate of an even
    ``n_out`` is taken as it is, without its imaginary part. Computed in float64.

    Parameters
    ----------
    x : Tensor (..., T)
        Real signal.
    n_out : int
        Number of samples to return, at least 1.

    Returns
    -------
    Tensor (..., n_out)
        In the dtype of ``x``.

    References
    ----------
    The rule of the Auditory Modeling Toolbox for the option ``subfs`` of several models.

    Examples
    --------
    >>> import torch
    >>> fft_resample(torch.ones(2, 441), 160).shape
    torch.Size([2, 160])
    """
    n = x.shape[-1]
    spectrum = torch.fft.rfft(x.double())
    bins = n_out // 2 + 1
    spectrum = torch.nn.functional.pad(spectrum, (0, max(0, bins - spectrum.shape[-1])))[..., :bins]
    return (torch.fft.irfft(spectrum, n=n_out) * (n_out / n)).to(x.dtype)


class FFTResampler(AuditoryModule):
    """Resample a representation (..., T) from ``fs`` to ``fs_out``; see `fft_resample`.

    Parameters
    ----------
    fs, fs_out : float
        Sampling rates before and after, Hz.
    dtype : torch.dtype
        torch.float32 or torch.float64.

    Examples
    --------
    >>> import torch
    >>> FFTResampler(fs=44100.0, fs_out=4000.0)(torch.zeros(1, 31, 441)).shape
    torch.Size([1, 31, 40])
    """

    def __init__(self, fs: float, fs_out: float, dtype: torch.dtype | str = torch.float32) -> None:
        super().__init__(fs, dtype=dtype)
        self.fs_out = check_sample_rate(fs_out)

    def forward(self, x: Tensor) -> Tensor:
        """Resample ``x`` ((T,), (F, T) or (B, F, T)) along time."""
        x = self.enter(x, (1, 2, 3), "(T,), (F, T) or (B, F, T)")
        n_out = resampled_length(x.shape[-1], self.fs, self.fs_out)
        if n_out == x.shape[-1]:
            return x
        if n_out < 1:
            raise SpecError(f"x has {x.shape[-1]} samples at {self.fs:g} Hz: none would be left at {self.fs_out:g} Hz.")
        if x.ndim < 3:
            return fft_resample(x, n_out)
        return per_row(lambda row: fft_resample(row, n_out), x)


class Decimator(AuditoryModule):
    """Lower the rate of a representation (..., T) by a whole factor: lowpass, then every ``factor``-th sample.

    The filter is a sinc under a Kaiser window (`psysim.ops.resampling_taps`), centred: no delay. T // factor samples
    come out, the first at the place of the first.

    Parameters
    ----------
    fs : float
        Sampling rate before, Hz.
    factor : int
        Ratio of the rates, at least 2.
    dtype : torch.dtype
        torch.float32 or torch.float64.

    Attributes
    ----------
    taps : Tensor (20 factor + 1,)
        Impulse response.
    fs_out : float
        Sampling rate after, Hz.

    References
    ----------
    As MATLAB's ``resample`` with its defaults, which Paulick, Relano-Iborra & Dau (2024) use.

    Examples
    --------
    >>> import torch
    >>> Decimator(fs=44100.0)(torch.zeros(1, 50, 442)).shape
    torch.Size([1, 50, 110])
    """

    taps: Tensor

    def __init__(self, fs: float, factor: int = 4, dtype: torch.dtype | str = torch.float32) -> None:
        super().__init__(fs, dtype=dtype)
        if isinstance(factor, bool) or int(factor) != factor:
            raise SpecError(f"factor = {factor!r} is not a ratio of rates: it must be a whole number.")
        check_range("factor", factor, 2, 1000)
        self.factor = int(factor)
        self.fs_out = self.fs / self.factor
        self.constant("taps", ops.resampling_taps(1, self.factor))

    def forward(self, x: Tensor) -> Tensor:
        """Lower the rate of ``x`` ((T,), (F, T) or (B, F, T)) along time."""
        x = self.enter(x, (1, 2, 3), "(T,), (F, T) or (B, F, T)")
        n_out = x.shape[-1] // self.factor
        if n_out < 1:
            raise SpecError(f"x has {x.shape[-1]} samples: at least {self.factor} are needed for one at a lower rate.")
        y = self.steps()[0].run(x.reshape((1,) * (3 - x.ndim) + tuple(x.shape)))
        return y.reshape(*x.shape[:-1], n_out)

    def steps(self) -> list[Step]:
        """Return the decimation as a step."""
        return [Decimate(self.taps, self.factor)]
