"""FIR filterbanks in front of auditory-nerve models, and a learnable FIR filter."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from psysim import ops
from psysim.errors import SpecError, check_range
from psysim.rng import Keys, Purpose, uniform
from psysim.stages.base import per_row
from psysim.stages.fir import FIRModule, complex_dtype, fft_length
from psysim.units import erb_number, erb_number_to_hz, gammatone_bandwidth_hz

__all__ = ["AudioFIR", "FIRFilterbank", "GammatoneFIRFilterbank", "SlaneyFIRFilterbank", "erb_spaced", "whole_taps"]

MAX_TAPS = 2**20


def erb_spaced(low_hz: float, high_hz: float, count: int) -> Tensor:
    """Return ``count`` centre frequencies (F,), Hz, equally spaced in ERB number from ``low_hz`` to ``high_hz``."""
    check_range("lowest centre frequency", low_hz, 0.0, unit="Hz", low_open=True)
    check_range("highest centre frequency", high_hz, low_hz, unit="Hz")
    check_range("number of centre frequencies", count, 1, 10_000)
    numbers = np.linspace(erb_number(float(low_hz)), erb_number(float(high_hz)), int(count))
    return torch.from_numpy(np.asarray(erb_number_to_hz(numbers)))


def whole_taps(fir_dur: float, fs: float) -> float:
    """Return ``fir_dur`` times ``fs``, checked: the duration of an impulse response in samples."""
    check_range("fir_dur", fir_dur, 0.0, unit="s", low_open=True)
    samples = fir_dur * fs
    check_range("fir_dur x fs", samples, 1.0, MAX_TAPS, unit="samples")
    return samples


def per_channel(name: str, value: object, count: int) -> Tensor:
    """Return one number for each of ``count`` channels, from one for all or one for each; each must be above 0."""
    tensor = torch.as_tensor(value, dtype=torch.float64).detach().reshape(-1)
    if len(tensor) not in (1, count):
        raise SpecError(f"{name} has {len(tensor)} values, but there are {count} channels: give one, or one for each.")
    if not bool(((tensor > 0) & tensor.isfinite()).all()):
        raise SpecError(f"{name} = {tensor.tolist()} is out of range: each value must be above 0.")
    return tensor.expand(count)


class FIRFilterbank(FIRModule):
    """A bank of causal FIR filters: sound (B, T) to one signal per channel (B, F, T), y[t] = sum_k h[k] x[t - k].

    The constants are ``fc`` and ``bandwidth_hz``; a subclass makes the impulse responses of them.

    Parameters
    ----------
    fc : Tensor or sequence (F,)
        Centre frequencies, Hz, above 0 and below fs/2.
    bandwidth_hz : Tensor (F,)
        What the filters' bandwidths follow from, Hz.
    fs : float
        Sampling rate, Hz.
    fir_dur : float
        Duration of the impulse responses, s.
    learnable : bool
        Make the constants trainable.
    dtype : torch.dtype
        torch.float32 or torch.float64.
    """

    fc: Tensor
    bandwidth_hz: Tensor

    def __init__(
        self,
        fc: Tensor,
        bandwidth_hz: Tensor,
        fs: float,
        fir_dur: float,
        learnable: bool,
        dtype: torch.dtype | str,
    ) -> None:
        super().__init__(fs, learnable=learnable, dtype=dtype)
        self.fir_dur = float(fir_dur)
        whole_taps(self.fir_dur, self.fs)
        self.constant("fc", fc)
        self.constant("bandwidth_hz", bandwidth_hz)

    @staticmethod
    def _centres(fc: Tensor | Sequence[float], fs: float) -> Tensor:
        centres = torch.as_tensor(fc, dtype=torch.float64).detach().reshape(-1)
        if len(centres) == 0:
            raise SpecError("fc is empty: a filterbank needs at least one centre frequency.")
        outside = ~((centres > 0) & (centres < fs / 2))
        if bool(outside.any()):
            raise SpecError(
                f"fc = {float(centres[outside][0]):g} Hz is out of range at fs = {fs:g} Hz: centre frequencies must be "
                f"above 0 Hz and below fs/2 = {fs / 2:g} Hz."
            )
        return centres

    @property
    @abstractmethod
    def n_taps(self) -> int:
        """Length of the impulse responses in samples."""

    @property
    def num_channels(self) -> int:
        """Number of channels F."""
        return len(self.fc)

    def forward(self, x: Tensor) -> Tensor:
        """Filter sound ``x`` (T,) or (B, T) into (F, T) or (B, F, T)."""
        x = self.enter(x, (1, 2), "(T,) or (B, T)")
        y = per_row(self._row, x.unsqueeze(0) if x.ndim == 1 else x)
        return y.squeeze(0) if x.ndim == 1 else y

    def _row(self, x: Tensor) -> Tensor:
        response = self.response(fft_length(x.shape[-1] + self.n_taps - 1))
        return self.channels(self.spectrum(x), response, x.shape[-1])

    def spectrum(self, x: Tensor) -> Tensor:
        """Return the spectrum of one sound (T,) for `channels`."""
        n_fft = fft_length(x.shape[-1] + self.n_taps - 1)
        # One transform for all channels: in float64 it costs nothing and keeps the noise floor of quiet channels
        return torch.fft.rfft(x.double(), n_fft).to(complex_dtype(self.dtype))

    def channels(self, spectrum: Tensor, responses: Tensor, n_samples: int) -> Tensor:
        """Return the outputs (F', n_samples) of the filters with ``responses`` (F', bins)."""
        return torch.fft.irfft(spectrum * responses, 2 * (responses.shape[-1] - 1))[..., :n_samples]


class GammatoneFIRFilterbank(FIRFilterbank):
    r"""Gammatone filters by their formula: sound (B, T) to (B, F, T).

    :math:`h(t) = a\,t^{N-1} e^{-bt} \cos(2\pi f t)` for 0 <= t < fir_dur with b = 2 pi bw_mult (24.7 + f/9.265) and a
    such that the gain at f is 1 (0.9935 at 80 Hz: the response is cut).

    Parameters
    ----------
    fc : Tensor or sequence (F,)
        Centre frequencies f, Hz, above 0 and below fs/2.
    fs : float
        Sampling rate, Hz.
    fir_dur : float
        Duration of the impulse responses, s.
    order : int
        N, 1 to 16.
    bw_mult : float or sequence, optional
        Factor on the ERB, one for all or (F,). Default: the one with which the filter's ERB is the formula's, 1.0186
        for N = 4.
    learnable : bool
        Make ``fc`` and ``bandwidth_hz`` (bw_mult times the ERB) trainable.
    dtype : torch.dtype
        torch.float32 or torch.float64.

    Raises
    ------
    SpecError
        If a centre frequency is not below fs/2, or an argument is out of range.

    References
    ----------
    Saddler (2025), tutorial on differentiable auditory models. Patterson et al. (1987); Glasberg & Moore (1990).

    Examples
    --------
    >>> import torch
    >>> GammatoneFIRFilterbank([500.0, 1000.0], fs=20000.0)(torch.zeros(3, 200)).shape
    torch.Size([3, 2, 200])
    """

    def __init__(
        self,
        fc: Tensor | Sequence[float],
        fs: float,
        fir_dur: float = 0.05,
        order: int = 4,
        bw_mult: float | Sequence[float] | Tensor | None = None,
        learnable: bool = False,
        dtype: torch.dtype | str = torch.float32,
    ) -> None:
        if isinstance(order, bool) or int(order) != order:
            raise SpecError(f"order = {order!r} is not a filter order: it must be a whole number.")
        check_range("order", order, 1, 16)
        self_centres = self._centres(fc, fs)
        n = int(order) - 1
        if bw_mult is None:
            bw_mult = math.factorial(n) ** 2 / (math.pi * math.factorial(2 * n) * 2.0 ** (-2 * n))
        factor = per_channel("bw_mult", bw_mult, len(self_centres))
        super().__init__(
            self_centres, factor * gammatone_bandwidth_hz(self_centres), fs, fir_dur, learnable=learnable, dtype=dtype
        )
        self.order = int(order)

    @property
    def n_taps(self) -> int:
        """Length of the impulse responses: the samples before ``fir_dur``."""
        return len(np.arange(0.0, self.fir_dur, 1.0 / self.fs))

    @property
    def taps(self) -> Tensor:
        """Impulse responses (F, N), float64."""
        t = torch.arange(self.n_taps, dtype=torch.float64, device=self.device) / self.fs
        n = self.order
        b, w = 2.0 * math.pi * self.bandwidth_hz, 2.0 * math.pi * self.fc
        size = (b ** (-n) + torch.complex(b, 2.0 * w) ** (-n)).abs()
        gain = 2.0 / (math.factorial(n - 1) * self.fs * size)
        b, w, gain = b[:, None], w[:, None], gain[:, None]
        return gain * t ** (n - 1) * torch.exp(-b * t) * torch.cos(w * t)


class SlaneyFIRFilterbank(FIRFilterbank):
    """Gammatone filters as a cascade of four sections, cut after ``fir_dur``: sound (B, T) to (B, F, T).

    The four second-order sections share their poles and differ in one zero; the gain of the uncut cascade at its
    centre frequency is 1. Cut at 50 ms the 60-Hz channel has a gain of 0.989.

    Parameters
    ----------
    fc : Tensor or sequence (F,)
        Centre frequencies, Hz, above 0 and below fs/2.
    fs : float
        Sampling rate, Hz.
    fir_dur : float
        Duration of the impulse responses, s.
    ear_q, min_bw, erb_order : float
        ERB = ((f/ear_q)^o + min_bw^o)^(1/o) Hz with o = ``erb_order``; the bandwidth of the filter is 1.019 ERB.
    bw_mult : float or sequence
        Factor on the bandwidth, one for all or (F,): above 1 for the broader tuning of impaired ears.
    learnable : bool
        Make ``fc`` and ``bandwidth_hz`` (1.019 bw_mult ERB) trainable.
    dtype : torch.dtype
        torch.float32 or torch.float64.

    Raises
    ------
    SpecError
        If a centre frequency is not below fs/2, or an argument is out of range.

    References
    ----------
    Slaney (1998), Auditory Toolbox. Saddler & McDermott (2024), Nat. Commun. 15, 10590.

    Examples
    --------
    >>> import torch
    >>> SlaneyFIRFilterbank([500.0, 1000.0], fs=20000.0)(torch.zeros(3, 200)).shape
    torch.Size([3, 2, 200])
    """

    def __init__(
        self,
        fc: Tensor | Sequence[float],
        fs: float,
        fir_dur: float = 0.05,
        ear_q: float = 9.2644,
        min_bw: float = 24.7,
        erb_order: float = 1.0,
        bw_mult: float | Sequence[float] | Tensor = 1.0,
        learnable: bool = False,
        dtype: torch.dtype | str = torch.float32,
    ) -> None:
        check_range("ear_q", ear_q, 0.0, low_open=True)
        check_range("min_bw", min_bw, 0.0, unit="Hz")
        check_range("erb_order", erb_order, 0.0, low_open=True)
        centres = self._centres(fc, fs)
        erb = ((centres / ear_q) ** erb_order + min_bw**erb_order) ** (1.0 / erb_order)
        bandwidth = 1.019 * per_channel("bw_mult", bw_mult, len(centres)) * erb
        super().__init__(centres, bandwidth, fs, fir_dur, learnable=learnable, dtype=dtype)
        self.ear_q, self.min_bw, self.erb_order = float(ear_q), float(min_bw), float(erb_order)

    @property
    def n_taps(self) -> int:
        """Length of the impulse responses: the whole part of ``fir_dur`` times ``fs``."""
        return int(self.fir_dur * self.fs)

    @property
    def sections(self) -> Tensor:
        """The second-order sections of the cascades (F, 4, 6), float64."""
        period = 1.0 / self.fs
        w = 2.0 * math.pi * period * self.fc
        decay = torch.exp(-2.0 * math.pi * period * self.bandwidth_hz)
        cos, sin = torch.cos(w), torch.sin(w)
        slopes = [sign * math.sqrt(3.0 + second * 2.0**1.5) for second in (1.0, -1.0) for sign in (1.0, -1.0)]
        z = torch.polar(torch.ones_like(w), w)
        pole_part = -2.0 * decay**2 - 2.0 * z**2 + 2.0 * (1.0 + z**2) * decay
        gain = torch.ones_like(w)
        for s in slopes:
            gain = gain * ((-2.0 * z**2 + 2.0 * decay * z * (cos + s * sin)) * period / pole_part).abs()
        one, zero = torch.ones_like(w), torch.zeros_like(w)
        sections = []
        for i, s in enumerate(slopes):
            scale = period / gain if i == 0 else period * one
            b1 = -scale * decay * (cos + s * sin)
            sections.append(torch.stack([scale, b1, zero, one, -2.0 * cos * decay, decay**2], dim=-1))
        return torch.stack(sections, dim=1)

    @property
    def taps(self) -> Tensor:
        """Impulse responses (F, N), float64."""
        impulse = torch.zeros(1, self.num_channels, self.n_taps, dtype=torch.float64, device=self.device)
        impulse[..., 0] = 1.0
        return ops.sosfilt(impulse, self.sections)[0]


class AudioFIR(FIRModule):
    """A learnable causal FIR filter, the same for all signals: (..., T) to (..., T).

    Parameters
    ----------
    fs : float
        Sampling rate, Hz.
    fir_dur : float
        Duration of the impulse response, s; not used if ``taps`` are given.
    taps : Tensor or sequence (N,), optional
        The impulse response to start from. Default: uniform random numbers within 1/sqrt(N).
    seed : int
        Seed of the random taps.
    learnable : bool
        Make the taps trainable: the default.
    dtype : torch.dtype
        torch.float32 or torch.float64.

    Raises
    ------
    SpecError
        If the taps are no list of finite numbers, or the duration is out of range.

    References
    ----------
    Saddler (2025), tutorial on differentiable auditory models.

    Examples
    --------
    >>> import torch
    >>> AudioFIR(fs=20000.0, taps=[0.0, 2.0])(torch.tensor([1.0, 2.0, 3.0])).round(decimals=4).tolist()
    [0.0, 2.0, 4.0]
    """

    impulse_response: Tensor

    def __init__(
        self,
        fs: float,
        fir_dur: float = 0.01,
        taps: Tensor | Sequence[float] | None = None,
        seed: int = 0,
        learnable: bool = True,
        dtype: torch.dtype | str = torch.float32,
    ) -> None:
        super().__init__(fs, learnable=learnable, dtype=dtype)
        if taps is None:
            count = int(whole_taps(fir_dur, self.fs))
            draws = uniform(Keys.make(seed=seed), Purpose.INITIAL_WEIGHTS, count)
            taps = (2.0 * draws - 1.0) / math.sqrt(count)
        start = torch.as_tensor(taps, dtype=torch.float64).detach()
        if start.ndim != 1 or len(start) == 0 or not bool(start.isfinite().all()):
            raise SpecError(f"taps of shape {tuple(start.shape)} must be a list of finite numbers.")
        self.constant("impulse_response", start)

    @property
    def taps(self) -> Tensor:
        """Impulse response (N,), float64."""
        return self.impulse_response

    def forward(self, x: Tensor) -> Tensor:
        """Filter signals ``x`` (T,), (B, T) or (B, C, T) along time."""
        x = self.enter(x, (1, 2, 3), "(T,), (B, T) or (B, C, T)")
        n_fft = fft_length(x.shape[-1] + len(self.impulse_response) - 1)
        response = self.response(n_fft)

        def row(signal: Tensor) -> Tensor:
            return torch.fft.irfft(torch.fft.rfft(signal, n_fft) * response, n_fft)[..., : x.shape[-1]]

        return row(x.clone(memory_format=torch.contiguous_format)) if x.ndim == 1 else per_row(row, x)
