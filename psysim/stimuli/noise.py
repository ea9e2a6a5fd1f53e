"""Gaussian and low-noise noise: broadband, band-limited, with a spectral slope."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from psysim.errors import SpecError, check_option, check_range
from psysim.rng import Keys, Purpose, normal
from psysim.stimuli.bands import BandParameters, band_edges, band_spectrum, grids, lower_noise
from psysim.stimuli.base import GatedParameters, GatedStimulus, TrackedVariable, register
from psysim.stimuli.batch import Number, Rows, by_blocks
from psysim.stimuli.fourier import inverse_real
from psysim.stimuli.gating import check_ramps, gate, steady_part
from psysim.stimuli.levels import MAX_LEVEL_DB_SPL, level_gain
from psysim.stimuli.tones import check_times

__all__ = ["STATISTICS", "Noise", "noise", "unit_noise"]

STATISTICS = ("gaussian", "low_noise")


def unit_noise(
    p: Rows, length: Tensor, fs: float, purpose: int, *, spectrum: str, statistics: str, n_iterations: int
) -> Tensor:
    """Return (B, T) float64 noise of mean square 1 (on average; low-noise noise: over its period), without ramps.

    What lies beyond the end of shorter rows is not cleared.
    """
    check_option("statistics", statistics, STATISTICS)
    edges = band_edges(p, fs)
    total = int(length.max())
    if edges is None and spectrum == "white" and statistics == "gaussian":
        return normal(p.keys, purpose, total)
    zero = torch.zeros(len(p), dtype=torch.float64, device=p.device)
    low, high = (zero, zero + fs / 2) if edges is None else edges
    out = torch.zeros(len(p), total, dtype=torch.float64, device=p.device)
    for grid in grids(length, low, high, fs, p["min_period_s"]):
        lines = band_spectrum(p.keys[grid.index], purpose, grid, fs, spectrum)
        if statistics == "low_noise":
            out[grid.index, : grid.n] = lower_noise(lines, grid, n_iterations)[:, : grid.n]
        else:
            out[grid.index, : grid.n] = inverse_real(lines, grid.n_fft)[:, : grid.n]
    return out


def overall_level(p: Rows, fs: float, spectrum: str) -> Tensor:
    """Return the overall level (B,) from ``level_db_spl`` or ``spectrum_level_db_spl``, exactly one of them given."""
    if (p["level_db_spl"] is None) == (p["spectrum_level_db_spl"] is None):
        raise SpecError("Give exactly one of level_db_spl (overall) and spectrum_level_db_spl (in a 1-Hz band).")
    p.check("level_db_spl", high=MAX_LEVEL_DB_SPL, unit="dB SPL", optional=True)
    p.check("spectrum_level_db_spl", high=MAX_LEVEL_DB_SPL, unit="dB SPL", optional=True)
    if p["level_db_spl"] is not None:
        return p["level_db_spl"]
    if spectrum != "white":
        raise SpecError(f"spectrum_level_db_spl needs spectrum = 'white', but '{spectrum}' has no single density.")
    edges = band_edges(p, fs)
    width = torch.full_like(p["spectrum_level_db_spl"], fs / 2) if edges is None else edges[1] - edges[0]
    return p["spectrum_level_db_spl"] + 10.0 * torch.log10(width)


def noise(
    keys: Keys,
    *,
    level_db_spl: Number | None = None,
    spectrum_level_db_spl: Number | None = None,
    duration_s: Number = 0.5,
    fs: float,
    low_hz: Number | None = None,
    high_hz: Number | None = None,
    centre_hz: Number | None = None,
    bandwidth_hz: Number | None = None,
    spectrum: str = "white",
    statistics: str = "gaussian",
    n_iterations: int = 10,
    normalise: str = "expected",
    ramp_s: Number = 0.0,
    ramp_shape: str = "raised_cosine",
    min_period_s: Number | None = None,
    purpose: int = Purpose.CARRIER,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return noise: Gaussian or low-noise, broadband or in a band with exact edges.

    Broadband white noise (no band given) consists of independent Gaussian samples, 0 to fs/2.
    A band is made in the frequency domain: independent complex Gaussian lines at the multiples of fs/N that lie in
    low <= f < high, nothing elsewhere. N is the duration in samples, raised to the next length without prime factors
    above 7 (or to ``min_period_s``), so lines are 1/duration apart: a 3-Hz band lasting 1 s at 44.1 kHz has 3 lines. If
    N equals the duration, the token is periodic and its spectrum is exactly zero outside the band; if N is
    larger, the token is a cut from a longer period and the cut spreads the spectrum a little.

    Low-noise noise starts from such a Gaussian noise; its Hilbert envelope is divided out and the band restored,
    ``n_iterations`` times.

    Level: with ``normalise="expected"`` the level holds on average over tokens (single tokens vary, much in narrow
    bands; low-noise noise: over the period N of each token). With "token" each token's own rms over the steady part
    (between the ramps; the whole sound if nothing is between) is set to the level, before the ramps are applied.

    Parameters
    ----------
    keys : Keys
        Random keys, (B,) or (); a row depends on its own key and parameters only.
    level_db_spl : float or (B,), optional
        Overall level in dB SPL; -inf gives silence. Exactly one level must be given.
    spectrum_level_db_spl : float or (B,), optional
        Level in dB SPL in a 1-Hz band (white spectrum only).
    duration_s : float or (B,)
        Duration in s, ramps included.
    fs : float
        Sampling rate in Hz.
    low_hz, high_hz : float or (B,), optional
        Edges of the band in Hz; one alone gives a highpass (to fs/2) or lowpass (from 0) noise.
    centre_hz, bandwidth_hz : float or (B,), optional
        Centre and width of the band in Hz, instead of the edges.
    spectrum : str
        "white"; "pink" (power density falls as 1/f); "equal_per_erb" (density falls as 1/ERB(f)).
    statistics : str
        "gaussian" or "low_noise".
    n_iterations : int
        Iterations of low-noise noise, 0 .. 1000.
    normalise : str
        "expected" or "token".
    ramp_s, ramp_shape
        Ramps, see `psysim.stimuli.gating.ramp`.
    min_period_s : float or (B,), optional
        Smallest period in s of band noise: line spacing is at most its inverse.
    purpose : Purpose
        Random stream; sounds that are mixed need different ones.
    dtype : torch.dtype
        Type of the result; computed in float64.

    Returns
    -------
    Tensor
        (B, T) pascal on the device of the keys; T is the longest duration, zeros after the end of shorter rows.

    Raises
    ------
    SpecError
        If a parameter is out of range, the band is not usable, or not exactly one level is given.

    References
    ----------
    Low-noise noise: Pumplin (1985), J. Acoust. Soc. Am. 78, 100-104; iteration: Kohlrausch et al. (1997), Acta
    Acustica 83, 659-669, method 1.

    Examples
    --------
    >>> keys = Keys.make(seed=1, trial=torch.arange(4))
    >>> noise(keys, level_db_spl=70.0, centre_hz=5000.0, bandwidth_hz=314.0, duration_s=0.2, fs=44100).shape
    torch.Size([4, 8820])
    """
    p = Rows(
        {
            "level_db_spl": level_db_spl,
            "spectrum_level_db_spl": spectrum_level_db_spl,
            "duration_s": duration_s,
            "ramp_s": ramp_s,
            "low_hz": low_hz,
            "high_hz": high_hz,
            "centre_hz": centre_hz,
            "bandwidth_hz": bandwidth_hz,
            "min_period_s": min_period_s,
        },
        keys,
    )
    check_times(p, fs)
    p.check("min_period_s", 0.0, 3600.0, "s", optional=True)
    check_range("n_iterations", n_iterations, 0, 1000)
    check_ramps(p.length(fs), p.length(fs, "ramp_s"))
    p.values["level"] = overall_level(p, fs, spectrum)

    def make(rows: Rows) -> Tensor:
        length, n_ramp = rows.length(fs), rows.length(fs, "ramp_s")
        sound = unit_noise(
            rows, length, fs, purpose, spectrum=spectrum, statistics=statistics, n_iterations=n_iterations
        )
        start, stop = steady_part(length, n_ramp)
        gain = level_gain(
            sound, rows["level"], start, stop, normalise=normalise, expected_power=torch.ones_like(rows["level"])
        )
        return sound.mul_(gain[:, None]).mul_(gate(length, n_ramp, ramp_shape))

    return by_blocks(make, p, int(p.length(fs).max()), dtype)


class NoiseParameters(GatedParameters, BandParameters):
    """Parameters of a noise that others share."""

    level_db_spl: float | None = Field(
        None, le=MAX_LEVEL_DB_SPL, description="Overall level in dB SPL (70 if no level is given)."
    )
    spectrum_level_db_spl: float | None = Field(
        None, le=MAX_LEVEL_DB_SPL, description="Level in dB SPL in a 1-Hz band, instead of level_db_spl."
    )
    spectrum: Literal["white", "pink", "equal_per_erb"] = Field("white", description="Spectral shape in the band.")
    statistics: Literal["gaussian", "low_noise"] = Field("gaussian", description="Gaussian or low-noise noise.")
    normalise: Literal["expected", "token"] = Field(
        "expected", description="Level on average over tokens, or each token's own rms."
    )
    min_period_s: float | None = Field(None, ge=0, le=3600, description="Smallest period in s of band noise.")

    @model_validator(mode="after")
    def _one_level(self) -> NoiseParameters:
        if self.level_db_spl is not None and self.spectrum_level_db_spl is not None:
            raise ValueError("Give level_db_spl (overall) or spectrum_level_db_spl (in a 1-Hz band), not both.")
        return self


NOISE_ARGUMENTS = (
    "level_db_spl",
    "spectrum_level_db_spl",
    "duration_s",
    "ramp_s",
    "ramp_shape",
    "low_hz",
    "high_hz",
    "centre_hz",
    "bandwidth_hz",
    "spectrum",
    "statistics",
    "normalise",
    "min_period_s",
)


def noise_arguments(p: Rows) -> dict[str, Any]:
    """Return the keyword arguments of `noise` in ``p``; no level at all means 70 dB SPL."""
    arguments = {name: p[name] for name in NOISE_ARGUMENTS}
    if arguments["level_db_spl"] is None and arguments["spectrum_level_db_spl"] is None:
        arguments["level_db_spl"] = 70.0
    return arguments


@register("noise")
class Noise(GatedStimulus):
    """Noise: level discrimination, and maskers heard alone."""

    class Parameters(NoiseParameters):
        """Parameters of a noise."""

        level_increment_db: float = Field(0.0, ge=-100, le=100, description="Level in dB added to the level.")

    description: ClassVar[str] = (
        "Gaussian or low-noise noise, broadband or band-limited: threshold, level discrimination"
    )
    tracked: ClassVar[Mapping[str, TrackedVariable]] = {
        "level_db_spl": TrackedVariable("dB SPL", "Level (dB SPL)", -math.inf, -60.0, 120.0, -1),
        "level_increment_db": TrackedVariable("dB", "Level increment (dB)", 0.0, 0.0, 60.0, -1),
    }

    def waveform(self, p: Rows, keys: Keys, fs: float) -> Tensor:
        """Return the noise, (B, T) float64."""
        arguments = noise_arguments(p)
        name = "level_db_spl" if arguments["level_db_spl"] is not None else "spectrum_level_db_spl"
        arguments[name] = arguments[name] + p["level_increment_db"]
        return noise(keys, **arguments, fs=fs, dtype=torch.float64)
