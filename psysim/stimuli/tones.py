"""Pure tones, and silence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from psysim.errors import check_range
from psysim.rng import Keys
from psysim.stimuli.base import GatedParameters, GatedStimulus, TrackedVariable, register
from psysim.stimuli.batch import Number, Rows, by_blocks, time_s
from psysim.stimuli.gating import check_ramps, gate
from psysim.stimuli.levels import MAX_LEVEL_DB_SPL
from psysim.units import db_spl_to_pascal

__all__ = ["Tone", "check_times", "silence", "sine", "tone"]


def check_times(p: Rows, fs: float) -> None:
    """Check sampling rate, duration and ramps, common to all gated generators."""
    check_range("fs", float(fs), 0.0, 1e9, unit="Hz", low_open=True)
    p.check("duration_s", 0.0, 3600.0, "s", low_open=True)
    p.check("ramp_s", 0.0, 1800.0, "s")


def sine(frequency_hz: Tensor, phase_rad: Tensor, n: int, fs: float) -> Tensor:
    """Return (B, n) float64 sin(2 pi f t + phase), t = n/fs."""
    wave = (2.0 * math.pi * frequency_hz)[:, None] * time_s(n, fs, frequency_hz.device)
    return wave.add_(phase_rad[:, None]).sin_()


def tone(
    *,
    frequency_hz: Number,
    level_db_spl: Number,
    duration_s: Number = 0.5,
    fs: float,
    phase_rad: Number = 0.0,
    ramp_s: Number = 0.0,
    ramp_shape: str = "raised_cosine",
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return pure tones, A sin(2 pi f t + phase) with t = n/fs.

    Level: A is sqrt(2) times the rms pressure of ``level_db_spl``, so that whole periods between the ramps have
    exactly that level. Nothing is measured on the sampled tone.

    Parameters
    ----------
    frequency_hz : float or (B,)
        Frequency in Hz, above 0 and below fs/2.
    level_db_spl : float or (B,)
        Level in dB SPL of the steady part; -inf gives silence.
    duration_s : float or (B,)
        Duration in s, ramps included; halves of a sample round up.
    fs : float
        Sampling rate in Hz.
    phase_rad : float or (B,)
        Phase in radians at the first sample.
    ramp_s : float or (B,)
        Duration in s of each ramp, 0 for none; at most half the duration.
    ramp_shape : str
        "raised_cosine" or "linear", see `psysim.stimuli.gating.ramp`.
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
    >>> tone(frequency_hz=1000.0, level_db_spl=[60.0, 70.0], duration_s=0.1, ramp_s=0.01, fs=44100).shape
    torch.Size([2, 4410])
    """
    p = Rows(
        {
            "frequency_hz": frequency_hz,
            "level_db_spl": level_db_spl,
            "duration_s": duration_s,
            "phase_rad": phase_rad,
            "ramp_s": ramp_s,
        },
        device=device,
    )
    check_times(p, fs)
    p.check("frequency_hz", 0.0, fs / 2, "Hz", low_open=True)
    p.check("level_db_spl", high=MAX_LEVEL_DB_SPL, unit="dB SPL")
    p.check("phase_rad", -1e6, 1e6, "rad")
    check_ramps(p.length(fs), p.length(fs, "ramp_s"))

    def make(rows: Rows) -> Tensor:
        length = rows.length(fs)
        sound = sine(rows["frequency_hz"], rows["phase_rad"], int(length.max()), fs)
        amplitude = math.sqrt(2.0) * db_spl_to_pascal(rows["level_db_spl"])
        return sound.mul_(amplitude[:, None]).mul_(gate(length, rows.length(fs, "ramp_s"), ramp_shape))

    return by_blocks(make, p, int(p.length(fs).max()), dtype)


def silence(
    *,
    duration_s: Number,
    fs: float,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return silence.

    Parameters
    ----------
    duration_s : float or (B,)
        Duration in s.
    fs : float
        Sampling rate in Hz.
    dtype : torch.dtype
        Type of the result.
    device : device, optional
        Where the result lives.

    Returns
    -------
    Tensor
        (B, T) zeros; T is the longest duration.

    Raises
    ------
    SpecError
        If the duration is out of range.

    Examples
    --------
    >>> silence(duration_s=0.01, fs=16000).shape
    torch.Size([1, 160])
    """
    p = Rows({"duration_s": duration_s}, device=device)
    p.check("duration_s", 0.0, 3600.0, "s")
    return torch.zeros(len(p), int(p.length(fs).max()), dtype=dtype, device=p.device)


@register("tone")
class Tone(GatedStimulus):
    """A pure tone: detection in quiet, level and frequency discrimination."""

    class Parameters(GatedParameters):
        """Parameters of a pure tone."""

        frequency_hz: float = Field(1000.0, gt=0, le=100e3, description="Frequency in Hz.")
        level_db_spl: float = Field(60.0, le=MAX_LEVEL_DB_SPL, description="Level in dB SPL of the steady part.")
        level_increment_db: float = Field(0.0, ge=-100, le=100, description="Level in dB added to level_db_spl.")
        frequency_increment_hz: float = Field(0.0, ge=-50e3, le=50e3, description="Frequency in Hz added.")
        frequency_increment_percent: float = Field(
            0.0, ge=-90, le=1000, description="Frequency added, in per cent of frequency_hz."
        )
        phase_rad: float = Field(0.0, ge=-1e6, le=1e6, description="Starting phase in radians.")

    description: ClassVar[str] = "Pure tone: absolute threshold, level or frequency discrimination"
    tracked: ClassVar[Mapping[str, TrackedVariable]] = {
        "level_db_spl": TrackedVariable("dB SPL", "Level (dB SPL)", -math.inf, -60.0, 120.0, -1),
        "level_increment_db": TrackedVariable("dB", "Level increment (dB)", 0.0, 0.0, 60.0, -1),
        "frequency_increment_hz": TrackedVariable("Hz", "Frequency increment (Hz)", 0.0, 0.0, 20000.0, -1),
        "frequency_increment_percent": TrackedVariable("%", "Frequency increment (%)", 0.0, 0.0, 1000.0, -1),
    }

    def waveform(self, p: Rows, keys: Keys, fs: float) -> Tensor:
        """Return the tones, (B, T) float64."""
        frequency = p["frequency_hz"] * (1.0 + p["frequency_increment_percent"] / 100.0) + p["frequency_increment_hz"]
        return tone(
            frequency_hz=frequency,
            level_db_spl=p["level_db_spl"] + p["level_increment_db"],
            duration_s=p["duration_s"],
            phase_rad=p["phase_rad"],
            ramp_s=p["ramp_s"],
            ramp_shape=p["ramp_shape"],
            fs=fs,
            dtype=torch.float64,
        )
