"""Frequency-modulated and quasi-frequency-modulated tones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from psysim.errors import check_option
from psysim.rng import Keys, Purpose, uniform
from psysim.stimuli.am import DEPTH, RATE
from psysim.stimuli.base import GatedParameters, GatedStimulus, TrackedVariable, register
from psysim.stimuli.batch import Number, Rows, by_blocks, time_s
from psysim.stimuli.gating import check_ramps, gate, steady_part
from psysim.stimuli.levels import MAX_LEVEL_DB_SPL, NORMALISE, am_power, level_gain
from psysim.stimuli.modulation import am_factor, check_am
from psysim.stimuli.tones import check_times, sine
from psysim.units import depth_db_to_m

__all__ = ["FmTone", "QuasiFmTone", "fm_tone", "quasi_fm_tone"]


def _check_common(p: Rows, fs: float) -> None:
    check_times(p, fs)
    p.check("carrier_hz", 0.0, fs / 2, "Hz", low_open=True)
    p.check("rate_hz", 0.0, fs / 2, "Hz", low_open=True)
    p.check("level_db_spl", high=MAX_LEVEL_DB_SPL, unit="dB SPL")
    p.check("carrier_phase_rad", -1e6, 1e6, "rad")
    p.check("modulator_phase_rad", -1e6, 1e6, "rad")
    check_option("normalise", p["normalise"], NORMALISE)
    check_ramps(p.length(fs), p.length(fs, "ramp_s"))


def _finish(rows: Rows, sound: Tensor, carrier: Tensor, depth_db: Tensor, fs: float) -> Tensor:
    """Set the level of modulated tones (unit amplitude of the carrier) and apply the ramps."""
    length, n_ramp = rows.length(fs), rows.length(fs, "ramp_s")
    start, stop = steady_part(length, n_ramp)
    power = 0.5 * (am_power(depth_db) if rows["compensate_level"] else torch.ones_like(depth_db))
    measured = sound if rows["compensate_level"] else carrier
    gain = level_gain(measured, rows["level_db_spl"], start, stop, normalise=rows["normalise"], expected_power=power)
    return (sound * gain[:, None]).mul_(gate(length, n_ramp, rows["ramp_shape"]))


def fm_tone(
    *,
    carrier_hz: Number,
    rate_hz: Number,
    deviation_hz: Number,
    level_db_spl: Number,
    duration_s: Number = 0.5,
    fs: float,
    carrier_phase_rad: Number = 0.0,
    modulator_phase_rad: Number = 0.0,
    am_depth_db: Number = -math.inf,
    am_rate_hz: Number | None = None,
    am_phase_rad: Number = 0.0,
    compensate_level: bool = False,
    normalise: str = "expected",
    ramp_s: Number = 0.0,
    ramp_shape: str = "raised_cosine",
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return sinusoidally frequency-modulated tones, optionally with amplitude modulation on top.

    The instantaneous frequency is fc + deviation sin(2 pi rate t + phase); so the sound is
    A sin(2 pi fc t + (deviation/rate) [cos(phase) - cos(2 pi rate t + phase)] + carrier phase).

    Level: A is sqrt(2) times the rms pressure of ``level_db_spl`` (FM leaves the level alone). With added amplitude
    modulation and ``compensate_level`` the level is that of the modulated tone, by (1 + m^2/2)^-1/2; with
    ``normalise="token"`` by the rms of the sampled tone over the steady part between the ramps.

    Parameters
    ----------
    carrier_hz : float or (B,)
        Mean frequency in Hz; carrier + deviation must be below fs/2.
    rate_hz : float or (B,)
        Modulation frequency in Hz.
    deviation_hz : float or (B,)
        Peak deviation in Hz (half the peak-to-peak excursion), 0 to the carrier frequency.
    level_db_spl : float or (B,)
        Level in dB SPL of the steady part.
    duration_s : float or (B,)
        Duration in s, ramps included.
    fs : float
        Sampling rate in Hz.
    carrier_phase_rad, modulator_phase_rad : float or (B,)
        Phases in radians at the first sample.
    am_depth_db : float or (B,)
        Depth 20 log10 m in dB of added amplitude modulation, at most 0; -inf: none.
    am_rate_hz : float or (B,), optional
        Its rate in Hz; default: ``rate_hz``.
    am_phase_rad : float or (B,)
        Its phase in radians at the first sample.
    compensate_level : bool
        Whether the level is that of the amplitude-modulated tone.
    normalise : str
        "expected" or "token".
    ramp_s, ramp_shape
        Ramps, see `psysim.stimuli.gating.ramp`.
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
        If a parameter is out of range or the batch lengths differ.

    Examples
    --------
    >>> fm_tone(carrier_hz=500.0, rate_hz=5.0, deviation_hz=[0.0, 5.0], level_db_spl=70.0, fs=44100).shape
    torch.Size([2, 22050])
    """
    p = Rows(
        {
            "carrier_hz": carrier_hz,
            "rate_hz": rate_hz,
            "deviation_hz": deviation_hz,
            "level_db_spl": level_db_spl,
            "duration_s": duration_s,
            "carrier_phase_rad": carrier_phase_rad,
            "modulator_phase_rad": modulator_phase_rad,
            "am_depth_db": am_depth_db,
            "am_rate_hz": rate_hz if am_rate_hz is None else am_rate_hz,
            "am_phase_rad": am_phase_rad,
            "compensate_level": compensate_level,
            "normalise": normalise,
            "ramp_s": ramp_s,
            "ramp_shape": ramp_shape,
        },
        device=device,
    )
    _check_common(p, fs)
    p.check("deviation_hz", 0.0, fs / 2, "Hz")
    p.values["carrier_hz + deviation_hz"] = p["carrier_hz"] + p["deviation_hz"]
    p.check("carrier_hz + deviation_hz", 0.0, fs / 2, "Hz")
    p.values["carrier_hz - deviation_hz"] = p["carrier_hz"] - p["deviation_hz"]
    p.check("carrier_hz - deviation_hz", 0.0, unit="Hz")
    p.check("am_depth_db", high=0.0, unit="dB")
    p.check("am_rate_hz", 0.0, fs / 2, "Hz", low_open=True)
    p.check("am_phase_rad", -1e6, 1e6, "rad")

    def make(rows: Rows) -> Tensor:
        n = int(rows.length(fs).max())
        carrier = _fm_carrier(rows, n, fs)
        modulator = Rows(
            {
                "rate_hz": rows["am_rate_hz"],
                "depth_db": rows["am_depth_db"],
                "modulator_phase_rad": rows["am_phase_rad"],
                "modulation_delay_s": torch.zeros_like(rows["am_rate_hz"]),
                "modulation_duration_s": None,
                "modulation_ramp_s": None,
            }
        )
        modulated = bool((rows["am_depth_db"] > -math.inf).any())
        sound = carrier * am_factor(modulator, n, fs) if modulated else carrier
        return _finish(rows, sound, carrier, rows["am_depth_db"], fs)

    return by_blocks(make, p, int(p.length(fs).max()), dtype)


def _fm_carrier(rows: Rows, n: int, fs: float) -> Tensor:
    """Return (B, n) sin of the modulated phase; a deviation of 0 gives exactly the tone of `psysim.stimuli.tone`."""
    phase = rows["modulator_phase_rad"][:, None]
    index = (rows["deviation_hz"] / rows["rate_hz"])[:, None]
    t = time_s(n, fs, rows.device)
    swing = ((2.0 * math.pi * rows["rate_hz"])[:, None] * t).add_(phase).cos_()
    swing = (torch.cos(phase) - swing).mul_(index)
    angle = (2.0 * math.pi * rows["carrier_hz"])[:, None] * t
    return angle.add_(rows["carrier_phase_rad"][:, None]).add_(swing).sin_()


def quasi_fm_tone(
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
    ramp_s: Number = 0.0,
    ramp_shape: str = "raised_cosine",
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return quasi-FM tones: an AM tone whose carrier component is shifted by a quarter of a period.

    A [sin(2 pi fc t + phase) + m cos(2 pi fc t + phase) sin(2 pi rate t + phase)]: the amplitude spectrum of the AM
    tone with the same m, an almost flat envelope (1 + m^2 sin^2)^1/2, and for small m an FM of index m.

    Level: as for `psysim.stimuli.am_tone`; the modulation raises the power by 1 + m^2/2.

    Parameters
    ----------
    carrier_hz : float or (B,)
        Carrier frequency in Hz; carrier + rate must be below fs/2.
    rate_hz : float or (B,)
        Modulation frequency in Hz.
    depth_db : float or (B,)
        20 log10 m in dB, at most 0; -inf gives exactly the unmodulated tone.
    level_db_spl : float or (B,)
        Level in dB SPL of the steady part (carrier, or modulated tone with ``compensate_level``).
    duration_s : float or (B,)
        Duration in s, ramps included.
    fs : float
        Sampling rate in Hz.
    compensate_level : bool
        Whether the level is that of the modulated tone.
    normalise : str
        "expected" or "token".
    carrier_phase_rad, modulator_phase_rad : float or (B,)
        Phases in radians at the first sample.
    ramp_s, ramp_shape
        Ramps, see `psysim.stimuli.gating.ramp`.
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
        If a parameter is out of range or the batch lengths differ.

    Examples
    --------
    >>> quasi_fm_tone(carrier_hz=2000.0, rate_hz=20.0, depth_db=-10.0, level_db_spl=70.0, fs=44100).shape
    torch.Size([1, 22050])
    """
    p = Rows(
        {
            "carrier_hz": carrier_hz,
            "rate_hz": rate_hz,
            "depth_db": depth_db,
            "level_db_spl": level_db_spl,
            "duration_s": duration_s,
            "carrier_phase_rad": carrier_phase_rad,
            "modulator_phase_rad": modulator_phase_rad,
            "modulation_delay_s": 0.0,
            "modulation_duration_s": None,
            "modulation_ramp_s": 0.0,
            "compensate_level": compensate_level,
            "normalise": normalise,
            "ramp_s": ramp_s,
            "ramp_shape": ramp_shape,
        },
        device=device,
    )
    _check_common(p, fs)
    check_am(p, fs)
    p.values["carrier_hz + rate_hz"] = p["carrier_hz"] + p["rate_hz"]
    p.check("carrier_hz + rate_hz", 0.0, fs / 2, "Hz")

    def make(rows: Rows) -> Tensor:
        n = int(rows.length(fs).max())
        carrier = sine(rows["carrier_hz"], rows["carrier_phase_rad"], n, fs)
        quadrature = sine(rows["carrier_hz"], rows["carrier_phase_rad"] + math.pi / 2, n, fs)
        modulator = sine(rows["rate_hz"], rows["modulator_phase_rad"], n, fs)
        sidebands = quadrature.mul_(modulator).mul_(depth_db_to_m(rows["depth_db"])[:, None])
        return _finish(rows, carrier + sidebands, carrier, rows["depth_db"], fs)

    return by_blocks(make, p, int(p.length(fs).max()), dtype)


class _ToneParameters(GatedParameters):
    carrier_hz: float = Field(500.0, gt=0, le=100e3, description="Carrier frequency in Hz.")
    rate_hz: float = Field(5.0, gt=0, le=20e3, description="Modulation frequency in Hz.")
    rate_increment_hz: float = Field(0.0, ge=-10e3, le=10e3, description="Modulation frequency in Hz added.")
    level_db_spl: float = Field(70.0, le=MAX_LEVEL_DB_SPL, description="Level in dB SPL of the steady part.")
    carrier_phase_rad: float = Field(0.0, ge=-1e6, le=1e6, description="Starting phase in radians of the carrier.")
    modulator_phase_rad: float = Field(0.0, ge=-1e6, le=1e6, description="Starting phase in radians of the modulator.")
    compensate_level: bool = Field(True, description="Whether the level is that of the amplitude-modulated tone.")
    normalise: Literal["expected", "token"] = Field(
        "expected", description="Level by the expected power, or by the rms of the sampled tone."
    )


@register("fm_tone")
class FmTone(GatedStimulus):
    """A sinusoidally frequency-modulated tone, optionally with amplitude modulation."""

    class Parameters(_ToneParameters):
        """Parameters of a frequency-modulated tone."""

        deviation_hz: float = Field(5.0, ge=0, le=50e3, description="Peak frequency deviation in Hz.")
        am_depth_db: float = Field(-math.inf, le=0, description="Depth 20 log10 m in dB of added AM; -inf: none.")
        am_rate_hz: float | None = Field(None, gt=0, le=20e3, description="Rate in Hz of added AM; none: rate_hz.")
        am_phase_rad: float = Field(0.0, ge=-1e6, le=1e6, description="Starting phase in radians of added AM.")
        am_phase_random: bool = Field(
            False, description="Whether a random phase, another one in every interval, is added to am_phase_rad."
        )

    description: ClassVar[str] = "Sinusoidally frequency-modulated tone: modulation detection"
    tracked: ClassVar[Mapping[str, TrackedVariable]] = {
        "deviation_hz": TrackedVariable("Hz", "Peak frequency deviation (Hz)", 0.0, 0.0, 20000.0, -1),
        "rate_increment_hz": RATE,
    }

    def waveform(self, p: Rows, keys: Keys, fs: float) -> Tensor:
        """Return the tones, (B, T) float64."""
        arguments = p.without("rate_increment_hz", "silence_before_s", "silence_after_s", "am_phase_random")
        arguments["rate_hz"] = p["rate_hz"] + p["rate_increment_hz"]
        if p["am_phase_random"]:
            arguments["am_phase_rad"] = p["am_phase_rad"] + 2.0 * math.pi * uniform(keys, Purpose.PHASE, 1)[..., 0]
        return fm_tone(**arguments, fs=fs, dtype=torch.float64)


@register("quasi_fm_tone")
class QuasiFmTone(GatedStimulus):
    """A quasi-frequency-modulated tone."""

    class Parameters(_ToneParameters):
        """Parameters of a quasi-frequency-modulated tone."""

        depth_db: float = Field(0.0, le=0, description="Depth 20 log10 m in dB; -inf: none.")

    description: ClassVar[str] = "Quasi-FM tone (AM with the carrier in quadrature): modulation detection"
    tracked: ClassVar[Mapping[str, TrackedVariable]] = {"depth_db": DEPTH, "rate_increment_hz": RATE}

    def waveform(self, p: Rows, keys: Keys, fs: float) -> Tensor:
        """Return the tones, (B, T) float64."""
        arguments = p.without("rate_increment_hz", "silence_before_s", "silence_after_s")
        arguments["rate_hz"] = p["rate_hz"] + p["rate_increment_hz"]
        return quasi_fm_tone(**arguments, fs=fs, dtype=torch.float64)
