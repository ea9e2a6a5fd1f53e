"""From the running spectrum to the excitation pattern: level per ERB, and filters whose slope follows it."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from psysim import ops
from psysim.errors import SpecError, check_range
from psysim.stages.base import check_signal, per_row
from psysim.stages.loudness_channels import LoudnessChannels
from psysim.stages.loudness_spectrum import N_BINS, N_FFT
from psysim.units import (
    P_REF,
    erb_hz_glasberg1990_program,
    erb_number_glasberg1990_program_to_hz,
)

__all__ = ["DB_PER_ERB", "FLOOR_DB", "ERBIntegration", "ExcitationPattern", "excitation_level_db"]

FLOOR_DB = -100.0
"""Lowest level per ERB and excitation level of the published rule, dB: also what silence has."""
DB_PER_ERB = 10.0 * math.log10(math.e)
"""Asymptotic slope in dB/ERB of a rounded exponential filter, per unit of p ERB/fc: 4 makes 17.372 dB/ERB."""
LEVEL_SLOPE = 0.35
"""Change of p below the centre frequency, per dB, at 1 kHz."""
REFERENCE_DB = 51.0
FAR = 1e9  # distance of what is not on this side of the filter
LOWEST_P = 0.1
"""The filter becomes no shallower than this; it matters above about 135 dB."""


class ERBIntegration(LoudnessChannels):
    """Level in a rectangular band of one ERB around every channel: what the slopes of the filters follow.

    Parameters
    ----------
    fs : int
        32000 Hz.
    f_min, f_max : float
        Centre frequencies of the first and last channel, Hz.
    erb_step : float
        Distance of channels in Cam (ERB numbers). 50 to 15000 Hz in steps of 0.25 makes 150 channels 0.2491 Cam apart.
    learnable : bool
        Make ``integration_weights`` trainable.
    n_bands : int, optional
        Number of channels, in place of what ``erb_step`` says.
    bandwidth_scale : float
        Width of the bands, ERB.
    dtype : torch.dtype
        torch.float32 or torch.float64.
    rule : str
        ``"published"`` or ``"amt"`` (149 channels, a density in place of a level, no floor): for comparison only.

    Attributes
    ----------
    fc_erb : Tensor (F,)
        Centre frequencies, Hz.
    integration_weights : Tensor (F, 1025)
        Which bins count for which channel, 0 or 1.
    n_erb_bands : int
        F.

    Raises
    ------
    SpecError
        If an argument is out of range.

    References
    ----------
    Glasberg & Moore (2002), J. Audio Eng. Soc. 50, 331-342.

    Examples
    --------
    >>> import torch
    >>> bands = ERBIntegration()
    >>> bands(torch.full((1, 2, 1025), 1e-8)).shape, [round(f, 1) for f in bands.fc_erb[[0, 1, -1]].tolist()]
    (torch.Size([1, 2, 150]), [50.0, 57.6, 15000.0])
    """

    fc_erb: Tensor
    integration_weights: Tensor

    def __init__(
        self,
        fs: int = 32000,
        f_min: float = 50.0,
        f_max: float = 15000.0,
        erb_step: float = 0.25,
        learnable: bool = False,
        *,
        n_bands: int | None = None,
        bandwidth_scale: float = 1.0,
        dtype: torch.dtype | str = torch.float32,
        rule: str = "published",
    ) -> None:
        super().__init__(fs, f_min, f_max, erb_step, learnable, n_bands, dtype, rule)
        check_range("bandwidth_scale", bandwidth_scale, 0.0, 10.0, low_open=True)
        self.bandwidth_scale = float(bandwidth_scale)
        half = 0.5 * self.bandwidth_scale
        low, high = (erb_number_glasberg1990_program_to_hz(self.erb_number + d) for d in (-half, half))
        if rule == "amt":
            first, last = (amt_bin(f) - 1 for f in (low, high))
        else:
            first, last = np.ceil(low * (N_FFT / self.fs)), np.floor(high * (N_FFT / self.fs))
            nearest = np.floor(self.frequency_hz * (N_FFT / self.fs) + 0.5)
            first, last = np.where(first > last, nearest, first), np.where(first > last, nearest, last)
        bins = np.arange(N_BINS)
        self.constant("integration_weights", (bins >= first[:, None]) & (bins <= last[:, None]))

    def forward(self, psd: Tensor, freqs: Tensor | None = None) -> Tensor:
        """Return levels per ERB for a density ``psd`` (B, frames, 1025) in Pa^2/Hz, as `MultiResolutionFFT` gives it.

        Returns
        -------
        Tensor (B, frames, F)
            dB re 20 uPa, at least -100 dB.
        """
        psd = _check_psd(psd, freqs)
        return self.levels(psd).to(self.dtype)

    def levels(self, psd: Tensor) -> Tensor:
        """Return the levels in float64, row by row."""
        return per_row(self.band_levels, psd.double())

    def band_levels(self, psd: Tensor) -> Tensor:
        """Return the levels (frames, F) of one row, psd (frames, 1025) in float64."""
        power = psd @ self.integration_weights.T / P_REF**2
        if self.rule == "amt":
            return 10.0 * torch.log10(power)
        return 10.0 * torch.log10((power * (self.fs / N_FFT)).clamp(min=10.0 ** (FLOOR_DB / 10.0)))


class ExcitationPattern(LoudnessChannels):
    """Excitation level of every channel: rounded exponential filters, on the low side shallower at high levels.

    A filter centred at fc weighs a component at the relative distance g by (1 + p g) exp(-p g), with p = 4 fc/ERB on
    the upper side and p (1 - 0.35 (X - 51)/p(1 kHz)) on the lower side, X the level per ERB at the component. The
    slopes are given by their asymptotes in dB/ERB, 17.372 for p = 4 fc/ERB.

    Parameters
    ----------
    fs : int
        32000 Hz.
    f_min, f_max, erb_step, n_bands : float
        Channels, as for `ERBIntegration`.
    learnable : bool
        Make the four slopes trainable.
    upper_slope_base, lower_slope_base : float, optional
        Slope at 51 dB above and below the centre frequency of the filter, dB/ERB; 17.372.
    upper_slope_per_db, lower_slope_per_db : float, optional
        Its change per dB; 0 and -0.2013.
    dtype : torch.dtype
        torch.float32 or torch.float64.
    rule : str
        ``"published"`` or ``"amt"`` (for comparison only).

    Attributes
    ----------
    fc_erb : Tensor (F,)
        Centre frequencies, Hz.

    Raises
    ------
    SpecError
        If an argument is out of range.

    References
    ----------
    Moore, Glasberg & Baer (1997), J. Audio Eng. Soc. 45, 224-240, equations 3 and 4; Glasberg & Moore (2002).

    Examples
    --------
    >>> import torch
    >>> psd = torch.zeros(1, 1, 1025)
    >>> psd[..., 64] = 4e-4 / 15.625  # 1 kHz, 60 dB
    >>> levels = ExcitationPattern()(ERBIntegration()(psd), psd)
    >>> levels.shape, round(levels.max().item(), 1)
    (torch.Size([1, 1, 150]), 59.9)
    """

    fc_erb: Tensor
    upper_slope_base: Tensor
    upper_slope_per_db: Tensor
    lower_slope_base: Tensor
    lower_slope_per_db: Tensor
    _lower: Tensor
    _upper: Tensor
    _lowest: Tensor
    _count: Tensor
    _count_upper: Tensor
    _below: Tensor
    _share: Tensor

    def __init__(
        self,
        fs: int = 32000,
        f_min: float = 50.0,
        f_max: float = 15000.0,
        erb_step: float = 0.25,
        learnable: bool = False,
        *,
        n_bands: int | None = None,
        upper_slope_base: float = 4.0 * DB_PER_ERB,
        upper_slope_per_db: float = 0.0,
        lower_slope_base: float = 4.0 * DB_PER_ERB,
        lower_slope_per_db: float | None = None,
        dtype: torch.dtype | str = torch.float32,
        rule: str = "published",
    ) -> None:
        super().__init__(fs, f_min, f_max, erb_step, learnable, n_bands, dtype, rule)
        if lower_slope_per_db is None:
            lower_slope_per_db = -LEVEL_SLOPE * 4.0 * DB_PER_ERB / (4.0 * 1000.0 / erb_hz_glasberg1990_program(1000.0))
        for name, value in (("upper_slope_base", upper_slope_base), ("lower_slope_base", lower_slope_base)):
            check_range(name, value, 0.0, 1000.0, unit="dB/ERB", low_open=True)
        for name, value in (("upper_slope_per_db", upper_slope_per_db), ("lower_slope_per_db", lower_slope_per_db)):
            check_range(name, value, -10.0, 10.0, unit="dB/ERB per dB")
        self.constant("upper_slope_base", float(upper_slope_base))
        self.constant("upper_slope_per_db", float(upper_slope_per_db))
        self.constant("lower_slope_base", float(lower_slope_base))
        self.constant("lower_slope_per_db", float(lower_slope_per_db))
        self._place()
        self._interpolate()

    def _place(self) -> None:
        """Tabulate the distances of the components from the channels, for slopes of 1 dB/ERB."""
        fc, frequency = self.frequency_hz[:, None], np.arange(N_BINS) * (self.fs / N_FFT)
        rate = fc / erb_hz_glasberg1990_program(fc) / DB_PER_ERB
        distance = rate * np.abs(frequency - fc) / fc
        count = (amt_bin(fc) if self.rule == "amt" else np.ceil(fc * (N_FFT / self.fs)))[:, 0]
        self.table("_count", count, torch.int64)
        # The upper side runs from the last component down: there the first ones are those above the channel.
        self.table("_count_upper", N_BINS - count, torch.int64)
        self.table("_lower", np.where(np.arange(N_BINS) < count[:, None], distance, 0.0))
        self.table("_upper", np.where(np.arange(N_BINS) < count[:, None], FAR, distance))
        lowest = -np.inf if self.rule == "amt" else LOWEST_P / rate[:, 0]
        self.table("_lowest", np.broadcast_to(lowest, len(fc)).copy())

    def _interpolate(self) -> None:
        """Tabulate the interpolation over Hz of levels at the channels, with the least of them at 0 Hz and 16 kHz."""
        nodes = np.concatenate([[0.0], self.frequency_hz, [self.fs / 2]])
        frequency = np.arange(N_BINS) * (self.fs / N_FFT)
        below = np.clip(np.searchsorted(nodes, frequency, side="right") - 1, 0, len(nodes) - 2)
        self.table("_below", below, torch.int64)
        self.table("_share", (frequency - nodes[below]) / (nodes[below + 1] - nodes[below]))

    def get_spreading_slopes(self, level_db: Tensor) -> tuple[Tensor, Tensor]:
        """Return the slopes above and below the centre frequency in dB/ERB where the level per ERB is ``level_db``."""
        above = level_db - REFERENCE_DB
        upper = self.upper_slope_base + self.upper_slope_per_db * above
        return upper, self.lower_slope_base + self.lower_slope_per_db * above

    def forward(self, erb_level_db: Tensor, psd: Tensor | None = None) -> Tensor:
        """Return excitation levels.

        Parameters
        ----------
        erb_level_db : Tensor (B, frames, F)
            Levels per ERB, dB, from `ERBIntegration`: they set the slopes.
        psd : Tensor (B, frames, 1025)
            Power spectral density, Pa^2/Hz, from `MultiResolutionFFT`: what is summed.

        Returns
        -------
        Tensor (B, frames, F)
            dB re the excitation by a 1-kHz tone of 0 dB SPL, at least -100 dB.

        Raises
        ------
        SpecError
            If ``psd`` is missing or the shapes do not fit.
        """
        levels = self.enter(erb_level_db, (3,), "(B, frames, F)", "erb_level_db")
        if psd is None:
            raise SpecError(
                "psd is missing: levels per ERB only set the slopes of the filters, the spectrum is what they sum."
            )
        psd = _check_psd(psd)
        if levels.shape != (*psd.shape[:2], self.n_erb_bands):
            raise SpecError(
                f"erb_level_db has shape {tuple(levels.shape)}, but for this psd must have "
                f"{(*psd.shape[:2], self.n_erb_bands)}."
            )
        excitation = self.excite(levels.double(), psd.double())
        return per_row(lambda row: excitation_level_db(row, self.rule), excitation)

    def excite(self, levels: Tensor, psd: Tensor) -> Tensor:
        """Return the excitation, a power ratio, (B, frames, F), in the dtype of the module; arguments in float64."""
        weights = self.upper_weights()
        return torch.stack([self.spread(a, b, weights) for a, b in zip(levels, psd, strict=True)])

    def upper_weights(self) -> tuple[Tensor, Tensor | None] | None:
        """Return the weights (1025, F) of the upper sides, or None if these follow the level.

        Also, where they could learn to follow it, the derivative of the weights with respect to the slope.
        """
        if bool(self.upper_slope_per_db):
            return None
        z = self.upper_slope_base * self._upper
        # exp(-230) is -1000 dB: what is less would be denormal soon, and make the product eight times as slow.
        inside = z < 230.0
        z = torch.where(inside, z, 0.0)
        decay = torch.where(inside, torch.exp(-z), 0.0)
        weights = ((1.0 + z) * decay).T.contiguous()
        if not self.learnable:
            return weights, None
        return weights, (-z * decay * torch.where(inside, self._upper, 0.0)).T.contiguous()

    def spread(self, levels: Tensor, psd: Tensor, weights: tuple[Tensor, Tensor | None] | None) -> Tensor:
        """Return the excitation (frames, F) of one row; ``weights`` as `upper_weights` gives them."""
        intensity = psd * ((1.0 if self.rule == "amt" else self.fs / N_FFT) / P_REF**2)
        x, level = intensity.to(self.dtype), self._at_components(levels)
        upper, lower = self.get_spreading_slopes(level)
        low = ops.roex_spread(x, lower.to(self.dtype), self._lower, self._lowest, self._count)
        if weights is None:
            # Above the channel the components are taken from the highest down.
            turned = self._upper.flip(1).contiguous()
            sides = x.flip(1).contiguous(), upper.to(self.dtype).flip(1).contiguous()
            return low + ops.roex_spread(*sides, turned, self._lowest, self._count_upper)
        # In float64 also for float32, where most weights far from the channel would be denormal.
        high = intensity @ weights[0]
        if weights[1] is not None:  # a slope per dB of 0 changes nothing, but has a gradient
            high = high + self.upper_slope_per_db * ((intensity * (level - REFERENCE_DB)) @ weights[1])
        return low + high.to(self.dtype)

    def _at_components(self, levels: Tensor) -> Tensor:
        """Return the levels per ERB (frames, 1025) at the bins for levels (frames, F) at the channels."""
        levels = torch.where(levels > -1e4, levels, levels.clamp(min=-1e4))  # silence in AMT's rule; NaN stays
        least = levels.amin(-1, keepdim=True)
        nodes = torch.cat([least, levels, least], dim=-1)
        low, high = nodes[:, self._below], nodes[:, self._below + 1]
        return low + self._share * (high - low)


def excitation_level_db(excitation: Tensor, rule: str = "published") -> Tensor:
    """Return levels in dB of power ratios, at least -100 dB with the published rule."""
    if rule == "amt":
        return 10.0 * torch.log10(excitation)
    return 10.0 * torch.log10(excitation.clamp(min=10.0 ** (FLOOR_DB / 10.0)))


def amt_bin(frequency_hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the number that the Auditory Modeling Toolbox gives to the bin at a frequency."""
    return np.floor(frequency_hz * (2050.0 / 32000.0) + 0.5)


def _check_psd(psd: object, freqs: Tensor | None = None) -> Tensor:
    psd = check_signal(psd, (3,), f"(B, frames, {N_BINS})", "psd")
    if psd.shape[-1] != N_BINS or (freqs is not None and freqs.shape != (N_BINS,)):
        raise SpecError(f"psd must have {N_BINS} bins, those of MultiResolutionFFT, but has shape {tuple(psd.shape)}.")
    return psd
