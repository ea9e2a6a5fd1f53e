"""Bands of noise on a frequency grid: which lines are drawn, with which power, and low-noise noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel, Field, model_validator
from torch import Tensor

from psysim.errors import SpecError, check_option
from psysim.rng import Keys, normal
from psysim.stimuli.batch import Rows, groups, round_samples, sum_rows
from psysim.stimuli.fourier import fast_length, inverse_real, real_spectrum, unit_envelope
from psysim.units import gammatone_bandwidth_hz

__all__ = ["SPECTRA", "BandParameters", "Grid", "band_edges", "band_spectrum", "grids", "limit_band", "lower_noise"]

SPECTRA = ("white", "pink", "equal_per_erb")


class BandParameters(BaseModel):
    """The band of a noise: edges, or centre and width, or nothing for broadband (0 to fs/2)."""

    low_hz: float | None = Field(None, ge=0, le=100e3, description="Lower edge of the band in Hz (0 if only high_hz).")
    high_hz: float | None = Field(None, gt=0, le=100e3, description="Upper edge in Hz (fs/2 if only low_hz).")
    centre_hz: float | None = Field(None, gt=0, le=100e3, description="Centre of the band in Hz, with bandwidth_hz.")
    bandwidth_hz: float | None = Field(None, gt=0, le=100e3, description="Width of the band in Hz, with centre_hz.")

    @model_validator(mode="after")
    def _band(self) -> BandParameters:
        problem = band_problem(self.low_hz, self.high_hz, self.centre_hz, self.bandwidth_hz)
        if problem:
            raise ValueError(problem)
        if self.low_hz is not None and self.high_hz is not None and self.low_hz >= self.high_hz:
            raise ValueError(f"low_hz = {self.low_hz:g} Hz must be below high_hz = {self.high_hz:g} Hz.")
        return self


def band_problem(low: Any, high: Any, centre: Any, width: Any) -> str:
    """Say what is wrong with a choice of band parameters (each None or given), or return an empty string."""
    if (centre is None) != (width is None):
        return "centre_hz and bandwidth_hz go together: give both or neither."
    if centre is not None and (low is not None or high is not None):
        return "Give the band either as low_hz and high_hz or as centre_hz and bandwidth_hz, not both."
    return ""


def band_edges(p: Rows, fs: float) -> tuple[Tensor, Tensor] | None:
    """Return the lower and upper edges (B,) in Hz from the band parameters of ``p``; None for broadband.

    Raises
    ------
    SpecError
        If the choice of parameters is incomplete, or the band does not lie in 0 .. fs/2.
    """
    low, high, centre, width = (p[name] for name in ("low_hz", "high_hz", "centre_hz", "bandwidth_hz"))
    problem = band_problem(low, high, centre, width)
    if problem:
        raise SpecError(problem)
    if centre is not None:
        low, high = centre - width / 2, centre + width / 2
    elif low is None and high is None:
        return None
    low = torch.zeros_like(high) if low is None else low
    high = torch.full_like(low, fs / 2) if high is None else high
    bad = ~((low >= 0) & (low < high) & (high <= fs / 2))
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise SpecError(
            f"The band {float(low[row]):g} to {float(high[row]):g} Hz is not usable (row {row}): it must rise and lie "
            f"between 0 and fs/2 = {fs / 2:g} Hz."
        )
    return low, high


@dataclass(frozen=True)
class Grid:
    """The frequency grid of rows that share it: ``n_bins`` lines from line ``first`` on, spaced fs/``n_fft``."""

    index: Any
    n: int
    n_fft: int
    first: int
    n_bins: int


def grids(length: Tensor, low: Tensor, high: Tensor, fs: float, min_period_s: Tensor | None) -> Iterator[Grid]:
    """Yield the groups of rows with one grid; lines low <= f < high, without 0 Hz and fs/2."""
    shortest = length if min_period_s is None else torch.maximum(length, round_samples(min_period_s, fs))
    n_fft = torch.tensor([fast_length(n) for n in shortest.tolist()], device=length.device)
    step = fs / n_fft.double()
    # 1e-6 of a line: an edge on the grid up to rounding counts as on the grid
    first = torch.ceil(low / step - 1e-6).to(torch.int64).clamp(min=1)
    end = torch.minimum(torch.ceil(high / step - 1e-6).to(torch.int64), (n_fft + 1) // 2)
    empty = end <= first
    if bool(empty.any()):
        row = int(empty.nonzero()[0])
        raise SpecError(
            f"The band {float(low[row]):g} to {float(high[row]):g} Hz holds no line of the frequency grid, which is "
            f"{float(step[row]):g} Hz apart (row {row}). Lengthen the noise or set min_period_s above "
            f"{1 / float(high[row] - low[row]):g} s."
        )
    for index, (n, period, k, stop) in groups(length, n_fft, first, end):
        yield Grid(index, n, period, k, stop - k)


def spectral_weights(spectrum: str, frequency_hz: Tensor) -> Tensor:
    """Return the relative power per line of a spectral shape."""
    check_option("spectrum", spectrum, SPECTRA)
    if spectrum == "white":
        return torch.ones_like(frequency_hz)
    return 1.0 / (frequency_hz if spectrum == "pink" else gammatone_bandwidth_hz(frequency_hz))


def band_spectrum(keys: Keys, purpose: int, grid: Grid, fs: float, spectrum: str = "white") -> Tensor:
    """Draw the one-sided spectrum (R, n_fft // 2 + 1) of band noise whose mean square is 1 on average."""
    n_rows = keys.shape[0]
    draws = torch.view_as_complex(normal(keys, purpose, 2 * grid.n_bins).reshape(n_rows, grid.n_bins, 2))
    lines = torch.arange(grid.first, grid.first + grid.n_bins, dtype=torch.float64, device=keys.device)
    weights = spectral_weights(spectrum, lines * (fs / grid.n_fft))
    scale = grid.n_fft / 2.0 * (weights / weights.sum()).sqrt()
    out = torch.zeros(n_rows, grid.n_fft // 2 + 1, dtype=torch.complex128, device=keys.device)
    out[:, grid.first : grid.first + grid.n_bins] = draws * scale
    return out


def limit_band(x: Tensor, grid: Grid) -> Tensor:
    """Return the spectrum of (R, n_fft) with all lines outside the band of ``grid`` set to zero."""
    spectrum = real_spectrum(x)
    spectrum[:, : grid.first] = 0.0
    spectrum[:, grid.first + grid.n_bins :] = 0.0
    return spectrum


def lower_noise(spectrum: Tensor, grid: Grid, n_iterations: int) -> Tensor:
    """Return (R, n_fft) low-noise noise of mean square 1 over its period from the spectrum of Gaussian noise."""
    for _ in range(n_iterations):
        spectrum = limit_band(unit_envelope(spectrum, grid.n_fft), grid)
    band = spectrum[:, grid.first : grid.first + grid.n_bins]
    power = sum_of_squares(band) * (2.0 / grid.n_fft**2)
    return inverse_real(spectrum, grid.n_fft) / power.sqrt()[:, None]


def sum_of_squares(spectrum: Tensor) -> Tensor:
    """Return the summed squared magnitude (R,), in an order that does not depend on the batch."""
    return sum_rows(spectrum.real**2 + spectrum.imag**2)
