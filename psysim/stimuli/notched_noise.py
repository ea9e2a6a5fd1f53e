"""A tone in notched noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from psysim.rng import Keys, Purpose
from psysim.stimuli.base import GatedParameters, GatedStimulus, TrackedVariable, register
from psysim.stimuli.batch import Number, Rows
from psysim.stimuli.levels import MAX_LEVEL_DB_SPL
from psysim.stimuli.masking import SILENT_SIGNAL, signal_onset
from psysim.stimuli.mixing import mix
from psysim.stimuli.noise import noise
from psysim.stimuli.tones import tone

__all__ = ["NotchedNoiseTone", "notched_noise"]


def notched_noise(
    keys: Keys,
    *,
    centre_hz: Number,
    notch_lower_relative: Number,
    notch_upper_relative: Number,
    band_width_relative: Number = 0.4,
    spectrum_level_db_spl: Number,
    duration_s: Number = 0.5,
    fs: float,
    ramp_s: Number = 0.0,
    ramp_shape: str = "raised_cosine",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return two independent bands of Gaussian noise around a notch.

    Bands: fc (1 - lower - width) to fc (1 - lower), and fc (1 + upper) to fc (1 + upper + width); the lower one is cut
    at 0 Hz. They are made as in `psysim.stimuli.noise`.

    Level: ``spectrum_level_db_spl`` is the level in a 1-Hz band inside both bands, on average over tokens, before the
    ramps.

    Parameters
    ----------
    keys : Keys
        Random keys, (B,) or ().
    centre_hz : float or (B,)
        Frequency fc in Hz that the notch refers to.
    notch_lower_relative, notch_upper_relative : float or (B,)
        Distance of the near edges from fc, re fc, 0 .. 1 (0: no notch on that side).
    band_width_relative : float or (B,)
        Width of each band re fc.
    spectrum_level_db_spl : float or (B,)
        Level in dB SPL in a 1-Hz band.
    duration_s : float or (B,)
        Duration in s, ramps included.
    fs : float
        Sampling rate in Hz.
    ramp_s, ramp_shape
        Ramps, see `psysim.stimuli.gating.ramp`.
    dtype : torch.dtype
        Type of the result; computed in float64.

    Returns
    -------
    Tensor
        (B, T) pascal on the device of the keys.

    Raises
    ------
    SpecError
        If a parameter is out of range or a band does not lie below fs/2.

    References
    ----------
    Patterson (1976), J. Acoust. Soc. Am. 59, 640-654; relative notch widths: Glasberg and Moore (1990), Hear. Res. 47.

    Examples
    --------
    >>> keys = Keys.make(seed=1)
    >>> notched_noise(
    ...     keys, centre_hz=1000.0, notch_lower_relative=[0.0, 0.2], notch_upper_relative=0.2,
    ...     spectrum_level_db_spl=40.0, duration_s=0.1, fs=16000
    ... ).shape
    torch.Size([2, 1600])
    """
    p = Rows(
        {
            "centre_hz": centre_hz,
            "notch_lower_relative": notch_lower_relative,
            "notch_upper_relative": notch_upper_relative,
            "band_width_relative": band_width_relative,
        },
        keys,
    )
    p.check("centre_hz", 0.0, fs / 2, "Hz", low_open=True)
    p.check("notch_lower_relative", 0.0, 1.0)
    p.check("notch_upper_relative", 0.0, 10.0)
    p.check("band_width_relative", 0.0, 10.0, low_open=True)
    centre, width = p["centre_hz"], p["band_width_relative"]
    lower = centre * (1.0 - p["notch_lower_relative"])
    upper = centre * (1.0 + p["notch_upper_relative"])
    common = {
        "spectrum_level_db_spl": spectrum_level_db_spl,
        "duration_s": duration_s,
        "ramp_s": ramp_s,
        "ramp_shape": ramp_shape,
        "fs": fs,
        "dtype": torch.float64,
    }
    bands = (
        ((lower - centre * width).clamp(min=0.0), lower, Purpose.MASKER),
        (upper, upper + centre * width, Purpose.SECOND_MASKER),
    )
    below, above = (noise(p.keys, low_hz=a, high_hz=b, purpose=use, **common) for a, b, use in bands)  # type: ignore[arg-type]
    return below.add_(above).to(dtype)


@register("notched_noise_tone")
class NotchedNoiseTone(GatedStimulus):
    """A tone in notched noise."""

    class Parameters(GatedParameters):
        """Parameters of a tone in notched noise; duration and ramps without prefix are those of the noise."""

        signal_hz: float = Field(1000.0, gt=0, le=100e3, description="Frequency in Hz of the tone and of the notch.")
        signal_level_db_spl: float = Field(60.0, le=MAX_LEVEL_DB_SPL, description="Level in dB SPL of the tone.")
        signal_duration_s: float = Field(0.3, gt=0, le=60, description="Duration in s of the tone, ramps included.")
        signal_ramp_s: float = Field(0.02, ge=0, le=30, description="Duration in s of each ramp of the tone.")
        signal_delay_s: float | None = Field(None, ge=0, le=60, description="Onset in s in the noise; none: centred.")
        spectrum_level_db_spl: float = Field(40.0, le=MAX_LEVEL_DB_SPL, description="Level in dB SPL in a 1-Hz band.")
        notch_lower_relative: float = Field(0.2, ge=0, le=1, description="Lower edge distance re signal_hz.")
        notch_upper_relative: float = Field(0.2, ge=0, le=10, description="Upper edge distance re signal_hz.")
        band_width_relative: float = Field(0.4, gt=0, le=10, description="Width of each band re signal_hz.")

    description: ClassVar[str] = "Tone in notched noise: auditory-filter shapes"
    tracked: ClassVar[Mapping[str, TrackedVariable]] = {
        "signal_level_db_spl": TrackedVariable("dB SPL", "Signal level (dB SPL)", -math.inf, -60.0, 120.0, -1),
        "spectrum_level_db_spl": TrackedVariable(
            "dB SPL", "Masker spectrum level (dB SPL)", None, -60.0, 90.0, 1, reference_also=SILENT_SIGNAL
        ),
    }

    def waveform(self, p: Rows, keys: Keys, fs: float) -> Tensor:
        """Return tone and noise, (B, T) float64."""
        names = (
            "notch_lower_relative",
            "notch_upper_relative",
            "band_width_relative",
            "spectrum_level_db_spl",
            "duration_s",
            "ramp_s",
            "ramp_shape",
        )
        masker = notched_noise(
            keys, centre_hz=p["signal_hz"], **{name: p[name] for name in names}, fs=fs, dtype=torch.float64
        )
        signal = tone(
            frequency_hz=p["signal_hz"],
            level_db_spl=p["signal_level_db_spl"],
            duration_s=p["signal_duration_s"],
            ramp_s=p["signal_ramp_s"],
            ramp_shape=p["ramp_shape"],
            fs=fs,
            dtype=torch.float64,
        )
        onset = signal_onset(p, p["signal_duration_s"], p["duration_s"], "signal_delay_s")
        return mix([masker, signal], [0.0, onset], fs, duration_s=p["duration_s"])
