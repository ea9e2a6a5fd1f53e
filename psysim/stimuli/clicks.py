"""Clicks: rectangular pulses, alone or in trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from psysim.errors import SpecError
from psysim.rng import Keys
from psysim.stimuli.base import GatedStimulus, StimulusParameters, TrackedVariable, register
from psysim.stimuli.batch import Number, Rows, by_blocks, round_samples
from psysim.units import db_to_amplitude

__all__ = ["Click", "clicks"]

P_PEAK_REF = 20e-6


def clicks(
    *,
    pressure_pa: Number,
    width_s: Number = 100e-6,
    n_clicks: Number = 1,
    rate_hz: Number = 100.0,
    delay_s: Number = 0.0,
    duration_s: Number = 0.05,
    alternating: bool = False,
    fs: float,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return rectangular pulses of constant pressure.

    Level: nothing is normalised; each pulse has ``pressure_pa`` at each of its samples.

    Parameters
    ----------
    pressure_pa : float or (B,)
        Pressure of a pulse in Pa, positive: condensation, negative: rarefaction.
    width_s : float or (B,)
        Width in s, rounded to samples, at least one.
    n_clicks : int or (B,)
        Number of pulses.
    rate_hz : float or (B,)
        Pulses per second; each onset is rounded to the nearest sample.
    delay_s : float or (B,)
        Onset in s of the first pulse.
    duration_s : float or (B,)
        Duration in s of the sound, delay included.
    alternating : bool
        Whether every second pulse has the opposite sign.
    fs : float
        Sampling rate in Hz.
    dtype : torch.dtype
        Type of the result.
    device : device, optional
        Where to compute; default: where the first tensor given is.

    Returns
    -------
    Tensor
        (B, T) pascal; T is the longest duration.

    Raises
    ------
    SpecError
        If a parameter is out of range, pulses overlap, or the last one ends after the sound.

    Examples
    --------
    >>> click = clicks(pressure_pa=0.2, width_s=4 / 44100, delay_s=0.01, fs=44100)
    >>> click.nonzero()[:, 1].tolist()
    [441, 442, 443, 444]
    """
    p = Rows(
        {
            "pressure_pa": pressure_pa,
            "width_s": width_s,
            "n_clicks": n_clicks,
            "rate_hz": rate_hz,
            "delay_s": delay_s,
            "duration_s": duration_s,
        },
        device=device,
    )
    p.check("pressure_pa", -2e3, 2e3, "Pa")
    p.check("width_s", 0.0, 1.0, "s", low_open=True)
    p.check("n_clicks", 1, 1e6)
    p.check("rate_hz", 0.0, fs, "Hz", low_open=True)
    p.check("delay_s", 0.0, 3600.0, "s")
    p.check("duration_s", 0.0, 3600.0, "s", low_open=True)
    width = p.length(fs, "width_s").clamp(min=1)
    _check_train(p, width, fs)

    def make(rows: Rows) -> Tensor:
        sound = torch.zeros(len(rows), int(rows.length(fs).max()), dtype=torch.float64, device=rows.device)
        widths = rows.length(fs, "width_s").clamp(min=1).tolist()
        counts = rows["n_clicks"].tolist()
        for row, (count, wide) in enumerate(zip(counts, widths, strict=True)):
            number = torch.arange(int(count), dtype=torch.float64, device=rows.device)
            onset = round_samples(rows["delay_s"][row] + number / rows["rate_hz"][row], fs)
            sign = 1.0 - 2.0 * (number % 2) if alternating else torch.ones_like(number)
            index = (onset[:, None] + torch.arange(wide, device=rows.device)).reshape(-1)
            sound[row, index] = (sign * rows["pressure_pa"][row]).repeat_interleave(wide)
        return sound

    return by_blocks(make, p, int(p.length(fs).max()), dtype)


def _check_train(p: Rows, width: Tensor, fs: float) -> None:
    """Refuse pulses that overlap or do not fit."""
    overlap = (p["n_clicks"] > 1) & (width + 1 > fs / p["rate_hz"])
    if bool(overlap.any()):
        row = int(overlap.nonzero()[0])
        raise SpecError(
            f"The clicks overlap (row {row}): {int(width[row])} samples wide at {float(p['rate_hz'][row]):g} clicks "
            f"per second. Allowed: width_s below 1/rate_hz."
        )
    end = round_samples(p["delay_s"] + (p["n_clicks"] - 1) / p["rate_hz"], fs) + width
    late = end > p.length(fs)
    if bool(late.any()):
        row = int(late.nonzero()[0])
        raise SpecError(
            f"The last click ends at {float(end[row]) / fs:g} s, after the sound of "
            f"{float(p['duration_s'][row]):g} s (row {row}). Lengthen duration_s."
        )


@register("click")
class Click(GatedStimulus):
    """A click or a train of clicks."""

    class Parameters(StimulusParameters):
        """Parameters of a click or a train of clicks."""

        peak_level_db_spl: float = Field(
            80.0, le=160, description="Peak level in dB: 20 log10 of the pulse's pressure over 20 uPa."
        )
        width_s: float = Field(100e-6, gt=0, le=1, description="Width in s of a pulse, rounded to samples.")
        n_clicks: int = Field(1, ge=1, le=100000, description="Number of clicks.")
        rate_hz: float = Field(100.0, gt=0, le=20e3, description="Clicks per second.")
        rate_increment_hz: float = Field(0.0, ge=-10e3, le=10e3, description="Clicks per second added.")
        alternating: bool = Field(False, description="Whether every second click has the opposite sign.")
        silence_before_s: float = Field(0.01, ge=0, le=60, description="Silence in s before the first click.")
        silence_after_s: float = Field(0.04, ge=0, le=60, description="Silence in s after the last period.")

    description: ClassVar[str] = "Click or train of clicks: detection, rate discrimination"
    tracked: ClassVar[Mapping[str, TrackedVariable]] = {
        "peak_level_db_spl": TrackedVariable("dB", "Peak level (dB re 20 uPa)", float("-inf"), -40.0, 140.0, -1),
        "rate_increment_hz": TrackedVariable("Hz", "Click-rate increment (Hz)", 0.0, 0.0, 10000.0, -1),
    }

    def sound_s(self, parameters: Mapping[str, Any]) -> Any:
        """Return the duration in s of the train: one period (of the reference) per click."""
        return parameters["n_clicks"] / parameters["rate_hz"]

    def waveform(self, p: Rows, keys: Keys, fs: float) -> Tensor:
        """Return the clicks, (B, T) float64."""
        return clicks(
            pressure_pa=P_PEAK_REF * db_to_amplitude(p["peak_level_db_spl"]),
            width_s=p["width_s"],
            n_clicks=p["n_clicks"],
            rate_hz=p["rate_hz"] + p["rate_increment_hz"],
            duration_s=self.sound_s(p.values),
            alternating=p["alternating"],
            fs=fs,
            dtype=torch.float64,
        )
