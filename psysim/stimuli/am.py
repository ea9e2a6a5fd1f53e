"""Amplitude-modulated tones and noises."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from psysim.errors import check_option
from psysim.rng import Keys, Purpose, normal, uniform
from psysim.stimuli.bands import BandParameters, Grid, band_edges, band_spectrum, grids, limit_band
from psysim.stimuli.base import GatedParameters, GatedStimulus, TrackedVariable, register
from psysim.stimuli.batch import Number, Rows, by_blocks
from psysim.stimuli.fourier import inverse_real
from psysim.stimuli.gating import check_ramps, gate, steady_part
from psysim.stimuli.levels import MAX_LEVEL_DB_SPL, NORMALISE, am_power, level_gain
from psysim.stimuli.modulation import am_factor, check_am
from psysim.stimuli.tones import check_times, sine

__all__ = ["AmNoise", "AmTone", "am_noise", "am_tone"]

BAND_LIMITS = ("before", "after", "both")


def _finish(
    p: Rows, carrier: Tensor, modulated: Tensor, fs: float, *, compensate: bool, normalise: str, power: Tensor
) -> Tensor:
    """Set the level and apply the ramps; ``power`` is the expected mean square of what the level refers to."""
    length, n_ramp = p.length(fs), p.length(fs, "ramp_s")
    start, stop = steady_part(length, n_ramp)
    measured = modulated if compensate else carrier
    gain = level_gain(measured, p["level_db_spl"], start, stop, normalise=normalise, expected_power=power)
    return modulated.mul_(gain[:, None]).mul_(gate(length, n_ramp, p["ramp_shape"]))


def _check_common(p: Rows, fs: float) -> None:
    check_times(p, fs)
    p.check("level_db_spl", high=MAX_LEVEL_DB_SPL, unit="dB SPL")
    check_option("normalise", p["normalise"], NORMALISE)
    check_am(p, fs)
    check_ramps(p.length(fs), p.length(fs, "ramp_s"))


def am_tone(
    *,
    carrier_hz: Number,
    rate_hz: Number,
    depth_db: Number = 0.0,
    level_db_spl: Number,
    duration_s: Number = 0.5,
    fs: float,
    compensate_level: bool = False,
    normalise: str = "expected",
    carrier_phase_rad: Number = 0.0,
    modulator_phase_rad: Number = 0.0,
    modulation_delay_s: Number = 0.0,
    modulation_duration_s: Number | None = None,
    modulation_ramp_s: Number = 0.0,
    ramp_s: Number = 0.0,
    ramp_shape: str = "raised_cosine",
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return sinusoidally amplitude-modulated tones, A sin(2 pi fc t + phase) [1 + m sin(2 pi rate t + phase)].

    Level: without ``compensate_level`` ``level_db_spl`` is that of the unmodulated carrier (A is sqrt(2) times its rms
    pressure), so modulation raises the level by 10 log10(1 + m^2/2). With it, the modulated tone has ``level_db_spl``:
    by the factor (1 + m^2/2)^-1/2 (``normalise="expected"``), or exactly, by the rms of the sampled tone over the
    steady part between the ramps ("token").

    Parameters
    ----------
    carrier_hz : float or (B,)
        Carrier frequency in Hz; carrier + rate must be below fs/2.
    rate_hz : float or (B,)
        Modulation frequency in Hz.
    depth_db : float or (B,)
        Modulation depth 20 log10 m in dB, at most 0; -inf gives exactly the unmodulated tone.
    level_db_spl : float or (B,)
        Level in dB SPL of the steady part, see above.
    duration_s : float or (B,)
        Duration in s, ramps included.
    fs : float
        Sampling rate in Hz.
    compensate_level : bool
        Whether the level is that of the modulated tone.
    normalise : str
        "expected" or "token".
    carrier_phase_rad, modulator_phase_rad : float or (B,)
        Phases in radians at the start (of the modulation, if that is delayed).
    modulation_delay_s : float or (B,)
        Start of the modulation in s after the start of the tone.
    modulation_duration_s : float or (B,), optional
        Duration in s of the modulation; default: to the end.
    modulation_ramp_s : float or (B,)
        Raised-cosine ramps in s of the modulation itself (with ``modulation_duration_s`` only).
    ramp_s, ramp_shape
        Ramps of the tone, see `psysim.stimuli.gating.ramp`.
    dtype : torch.dtype
        Type of the result; computed in float64.
    device : device, optional
        Where to compute; default: where the first tensor given is.

    Returns
    -------
    Tensor
        (B, T) pascal; T is the longest duration, zeros after the end of shorter rows.

    Raises
    ------
    SpecError
        If a parameter is out of range (a depth above 0 dB is overmodulation) or the batch lengths differ.

    Examples
    --------
    >>> am_tone(carrier_hz=4000.0, rate_hz=16.0, depth_db=[-20.0, -10.0, 0.0], level_db_spl=60.0, fs=44100).shape
    torch.Size([3, 22050])
    """
    p = Rows(
        {
            "carrier_hz": carrier_hz,
            "rate_hz": rate_hz,
            "depth_db": depth_db,
            "level_db_spl": level_db_spl,
            "duration_s": duration_s,
            "normalise": normalise,
            "carrier_phase_rad": carrier_phase_rad,
            "modulator_phase_rad": modulator_phase_rad,
            "modulation_delay_s": modulation_delay_s,
            "modulation_duration_s": modulation_duration_s,
            "modulation_ramp_s": modulation_ramp_s,
            "ramp_s": ramp_s,
            "ramp_shape": ramp_shape,
        },
        device=device,
    )
    _check_common(p, fs)
    p.check("carrier_hz", 0.0, fs / 2, "Hz", low_open=True)
    p.check("carrier_phase_rad", -1e6, 1e6, "rad")
    p.values["carrier_hz + rate_hz"] = p["carrier_hz"] + p["rate_hz"]
    p.check("carrier_hz + rate_hz", 0.0, fs / 2, "Hz")

    def make(rows: Rows) -> Tensor:
        n = int(rows.length(fs).max())
        carrier = sine(rows["carrier_hz"], rows["carrier_phase_rad"], n, fs)
        power = 0.5 * (am_power(rows["depth_db"]) if compensate_level else torch.ones_like(rows["depth_db"]))
        modulated = carrier * am_factor(rows, n, fs)
        return _finish(rows, carrier, modulated, fs, compensate=compensate_level, normalise=normalise, power=power)

    return by_blocks(make, p, int(p.length(fs).max()), dtype)


def _carriers(p: Rows, fs: float, band_limit: str, purpose: int, *, carrier_needed: bool) -> tuple[Tensor, Tensor]:
    """Return unmodulated (zeros unless needed) and modulated noise, (B, T) each, of unit carrier power."""
    length = p.length(fs)
    n = int(length.max())
    edges = band_edges(p, fs)
    if edges is None:
        carrier = normal(p.keys, purpose, n)
        return carrier, carrier * am_factor(p, n, fs)
    carrier = torch.zeros(len(p), n, dtype=torch.float64, device=p.device)
    modulated = torch.zeros_like(carrier)
    for grid in grids(length, *edges, fs, p["min_period_s"]):
        rows = p.take(grid.index)
        x = _period(rows, grid, fs, band_limit, purpose)
        y = x * am_factor(rows, grid.n_fft, fs)
        if band_limit != "before":
            y = inverse_real(limit_band(y, grid), grid.n_fft)
        if band_limit == "after" and carrier_needed:
            x = inverse_real(limit_band(x, grid), grid.n_fft)
        carrier[grid.index, : grid.n] = x[:, : grid.n]
        modulated[grid.index, : grid.n] = y[:, : grid.n]
    return carrier, modulated


def _period(rows: Rows, grid: Grid, fs: float, band_limit: str, purpose: int) -> Tensor:
    """Return one period (R, n_fft) of the carrier before modulation, with unit power in the band."""
    if band_limit != "after":
        return inverse_real(band_spectrum(rows.keys, purpose, grid, fs), grid.n_fft)
    # white noise: n_fft/2 lines share the mean square, n_bins of them will be left
    return normal(rows.keys, purpose, grid.n_fft) * math.sqrt(grid.n_fft / (2.0 * grid.n_bins))


def am_noise(
    keys: Keys,
    *,
    rate_hz: Number,
    depth_db: Number = 0.0,
    level_db_spl: Number,
    duration_s: Number = 0.5,
    fs: float,
    low_hz: Number | None = None,
    high_hz: Number | None = None,
    centre_hz: Number | None = None,
    bandwidth_hz: Number | None = None,
    band_limit: str = "before",
    compensate_level: bool = True,
    normalise: str = "expected",
    modulator_phase_rad: Number = 0.0,
    modulation_delay_s: Number = 0.0,
    modulation_duration_s: Number | None = None,
    modulation_ramp_s: Number = 0.0,
    ramp_s: Number = 0.0,
    ramp_shape: str = "raised_cosine",
    min_period_s: Number | None = None,
    purpose: int = Purpose.CARRIER,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return Gaussian noise modulated sinusoidally in amplitude, noise x [1 + m sin(2 pi rate t + phase)].

    Without a band the carrier is white, 0 to fs/2. With a band (made as in `psysim.stimuli.noise`),
    ``band_limit`` says when it is cut out: "before": band noise is modulated (the sidebands reach beyond the
    band); "after": white noise is modulated, then limited to the band (no spectral cue; the modulation of the band
    is kept); "both": band noise is modulated and limited to the band again (no spectral cue; fast
    modulation of a narrow band is lost). Limiting sets the lines outside low <= f < high of the period to zero.
    The carrier depends on the keys and the band only: a depth of -inf dB gives the carrier of the modulated token.

    Level: with ``compensate_level`` it is that of the modulated noise: by the expected power, factor (1 + m^2/2)^-1/2
    ("both": 1 + m^2/2 max(0, 1 - rate/bandwidth)), with ``normalise="expected"``; or exactly, by the token's own rms
    over the steady part between the ramps after modulation and band-limiting, with "token". Without it, it is
    that of the unmodulated, band-limited carrier: on average over tokens, or the token's own rms.

    Parameters
    ----------
    keys : Keys
        Random keys, (B,) or (); a row depends on its own key and parameters only.
    rate_hz : float or (B,)
        Modulation frequency in Hz.
    depth_db : float or (B,)
        Modulation depth 20 log10 m in dB, at most 0; -inf gives exactly the unmodulated carrier.
    level_db_spl : float or (B,)
        Level in dB SPL of the steady part, see above.
    duration_s : float or (B,)
        Duration in s, ramps included.
    fs : float
        Sampling rate in Hz.
    low_hz, high_hz, centre_hz, bandwidth_hz, min_period_s : float or (B,), optional
        Band of the carrier and its frequency grid, see `psysim.stimuli.noise`.
    band_limit : str
        "before", "after" or "both", see above.
    compensate_level : bool
        Whether the level is that of the modulated noise.
    normalise : str
        "expected" or "token".
    modulator_phase_rad : float or (B,)
        Phase in radians of the modulator at its start.
    modulation_delay_s, modulation_duration_s, modulation_ramp_s : float or (B,)
        Gating of the modulation, see `am_tone`.
    ramp_s, ramp_shape
        Ramps of the noise, see `psysim.stimuli.gating.ramp`.
    purpose : Purpose
        Random stream of the carrier.
    dtype : torch.dtype
        Type of the result; computed in float64.

    Returns
    -------
    Tensor
        (B, T) pascal on the device of the keys; T is the longest duration, zeros after the end of shorter rows.

    Raises
    ------
    SpecError
        If a parameter is out of range or the band is not usable.

    References
    ----------
    Viemeister (1979), J. Acoust. Soc. Am. 66, 1364-1380 (broadband); Dau, Kollmeier and Kohlrausch (1997),
    J. Acoust. Soc. Am. 102, 2892-2905 (narrow bands).

    Examples
    --------
    >>> keys = Keys.make(seed=1, interval=torch.arange(3))
    >>> am_noise(keys, rate_hz=8.0, depth_db=[-10.0, -float("inf"), -float("inf")], level_db_spl=70.0, fs=44100).shape
    torch.Size([3, 22050])
    """
    p = Rows(
        {
            "rate_hz": rate_hz,
            "depth_db": depth_db,
            "level_db_spl": level_db_spl,
            "duration_s": duration_s,
            "low_hz": low_hz,
            "high_hz": high_hz,
            "centre_hz": centre_hz,
            "bandwidth_hz": bandwidth_hz,
            "normalise": normalise,
            "modulator_phase_rad": modulator_phase_rad,
            "modulation_delay_s": modulation_delay_s,
            "modulation_duration_s": modulation_duration_s,
            "modulation_ramp_s": modulation_ramp_s,
            "ramp_s": ramp_s,
            "ramp_shape": ramp_shape,
            "min_period_s": min_period_s,
        },
        keys,
    )
    _check_common(p, fs)
    p.check("min_period_s", 0.0, 3600.0, "s", optional=True)
    check_option("band_limit", band_limit, BAND_LIMITS)
    needed = normalise == "token" and not compensate_level
    band_edges(p, fs)  # refuses a band that is not usable before any work is done

    def make(rows: Rows) -> Tensor:
        carrier, modulated = _carriers(rows, fs, band_limit, purpose, carrier_needed=needed)
        power = _expected_power(rows, fs, band_limit) if compensate_level else torch.ones_like(rows["depth_db"])
        return _finish(rows, carrier, modulated, fs, compensate=compensate_level, normalise=normalise, power=power)

    return by_blocks(make, p, int(p.length(fs).max()), dtype)


def _expected_power(p: Rows, fs: float, band_limit: str) -> Tensor:
    """Return the mean square (B,) of modulated noise, on average over tokens, for a carrier of mean square 1."""
    power = am_power(p["depth_db"])
    edges = band_edges(p, fs)
    if band_limit != "both" or edges is None:
        return power
    kept = (1.0 - p["rate_hz"] / (edges[1] - edges[0])).clamp(min=0.0)
    return 1.0 + (power - 1.0) * kept


class ModulationParameters(BaseModel):
    """Parameters of a sinusoidal amplitude modulation."""

    rate_hz: float = Field(16.0, gt=0, le=20e3, description="Modulation frequency in Hz.")
    depth_db: float = Field(0.0, le=0, description="Modulation depth 20 log10 m in dB; -inf: none.")
    rate_increment_hz: float = Field(0.0, ge=-10e3, le=10e3, description="Modulation frequency in Hz added.")
    modulator_phase_rad: float = Field(0.0, ge=-1e6, le=1e6, description="Starting phase in radians of the modulator.")
    modulator_phase_random: bool = Field(
        False, description="Whether a random phase, another one in every interval, is added to modulator_phase_rad."
    )
    modulation_delay_s: float = Field(0.0, ge=0, le=60, description="Start in s of the modulation in the sound.")
    modulation_duration_s: float | None = Field(
        None, gt=0, le=60, description="Duration in s of the modulation; none: to the end of the sound."
    )
    modulation_ramp_s: float = Field(
        0.0, ge=0, le=30, description="Raised-cosine ramps in s of the modulation, with modulation_duration_s."
    )
    compensate_level: bool = Field(True, description="Whether the level is that of the modulated sound.")
    normalise: Literal["expected", "token"] = Field(
        "expected", description="Level on average over tokens, or each token's own rms."
    )


def modulation_arguments(p: Rows, keys: Keys) -> dict[str, Any]:
    """Return the arguments of a generator: the rate with its increment, and the phase, random if that is wanted."""
    arguments = p.without("rate_increment_hz", "silence_before_s", "silence_after_s", "modulator_phase_random")
    arguments["rate_hz"] = p["rate_hz"] + p["rate_increment_hz"]
    if p["modulator_phase_random"]:
        turn = 2.0 * math.pi * uniform(keys, Purpose.PHASE, 1)[..., 0]
        arguments["modulator_phase_rad"] = p["modulator_phase_rad"] + turn
    return arguments


DEPTH = TrackedVariable("dB", "Modulation depth, 20 log m (dB)", float("-inf"), -100.0, 0.0, -1)
RATE = TrackedVariable("Hz", "Modulation-frequency increment (Hz)", 0.0, 0.0, 10000.0, -1)


@register("am_tone")
class AmTone(GatedStimulus):
    """A sinusoidally amplitude-modulated tone."""

    class Parameters(GatedParameters, ModulationParameters):
        """Parameters of an amplitude-modulated tone."""

        carrier_hz: float = Field(5000.0, gt=0, le=100e3, description="Carrier frequency in Hz.")
        level_db_spl: float = Field(70.0, le=MAX_LEVEL_DB_SPL, description="Level in dB SPL of the steady part.")
        carrier_phase_rad: float = Field(0.0, ge=-1e6, le=1e6, description="Starting phase in radians of the carrier.")

    description: ClassVar[str] = "Sinusoidally amplitude-modulated tone: modulation detection, rate discrimination"
    tracked: ClassVar[Mapping[str, TrackedVariable]] = {"depth_db": DEPTH, "rate_increment_hz": RATE}

    def waveform(self, p: Rows, keys: Keys, fs: float) -> Tensor:
        """Return the tones, (B, T) float64."""
        return am_tone(**modulation_arguments(p, keys), fs=fs, dtype=torch.float64)


@register("am_noise")
class AmNoise(GatedStimulus):
    """A sinusoidally amplitude-modulated noise."""

    class Parameters(GatedParameters, BandParameters, ModulationParameters):
        """Parameters of an amplitude-modulated noise."""

        duration_s: float = Field(0.5, gt=0, le=60, description="Duration in s, ramps included, silence excluded.")
        ramp_s: float = Field(0.05, ge=0, le=30, description="Duration in s of the onset ramp, and of the offset ramp.")
        level_db_spl: float = Field(70.0, le=MAX_LEVEL_DB_SPL, description="Level in dB SPL of the steady part.")
        band_limit: Literal["before", "after", "both"] = Field(
            "before", description="Whether the band is cut out before or after modulation, or both."
        )
        min_period_s: float | None = Field(None, ge=0, le=3600, description="Smallest period in s of band noise.")

    description: ClassVar[str] = "Sinusoidally amplitude-modulated noise, broadband or band-limited: TMTF"
    tracked: ClassVar[Mapping[str, TrackedVariable]] = {"depth_db": DEPTH, "rate_increment_hz": RATE}

    def waveform(self, p: Rows, keys: Keys, fs: float) -> Tensor:
        """Return the noise, (B, T) float64."""
        return am_noise(keys, **modulation_arguments(p, keys), fs=fs, dtype=torch.float64)
