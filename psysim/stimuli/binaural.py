"""Sounds for two ears: a tone in noise with interaural phases, a tone with an interaural time or level difference."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from psysim.rng import Keys
from psysim.stimuli.base import GatedParameters, Stimulus, TrackedVariable, register
from psysim.stimuli.levels import MAX_LEVEL_DB_SPL
from psysim.stimuli.masking import ToneInNoise
from psysim.stimuli.tones import Tone

__all__ = ["DichoticTone", "DichoticToneInNoise"]

_SIGNS = {"N0S0": (1.0, 1.0), "N0Spi": (1.0, -1.0), "NpiS0": (-1.0, 1.0), "NpiSpi": (-1.0, -1.0)}
"""Factors of noise and tone in the right ear; in the left ear both are 1."""


@register("dichotic_tone_in_noise")
class DichoticToneInNoise(Stimulus):
    """A tone in noise, each in phase or out of phase at the two ears."""

    class Parameters(ToneInNoise.Parameters):
        """Parameters of a tone in noise, and the interaural phases; levels are those of each ear."""

        interaural_condition: Literal["N0S0", "N0Spi", "NpiS0", "NpiSpi"] = Field(
            "N0Spi", description="Phase difference between the ears of noise (N) and signal (S): 0 or pi."
        )

    n_ears: ClassVar[int] = 2
    description: ClassVar[str] = "Tone in noise for two ears, in or out of phase: binaural masking level difference"
    tracked: ClassVar[Mapping[str, TrackedVariable]] = ToneInNoise.tracked

    def generate(
        self,
        parameters: Mapping[str, Tensor | float | str | bool | None],
        keys: Keys,
        fs: float,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Return the sounds, (B, 2, T): see `psysim.stimuli.Stimulus.generate`."""
        p = self.complete(parameters)
        noise_sign, tone_sign = _SIGNS[str(p.pop("interaural_condition"))]
        one_ear = ToneInNoise()
        left = one_ear.generate(p, keys, fs, torch.float64)
        if noise_sign == tone_sign:
            return torch.stack([left, noise_sign * left], dim=1).to(dtype)
        silent = {"signal_level_db_spl": -math.inf, "snr_db": None, "signal_re_spectrum_level_db": None}
        noise = one_ear.generate({**p, **silent}, keys, fs, torch.float64)
        return torch.stack([left, noise_sign * noise + tone_sign * (left - noise)], dim=1).to(dtype)

    def duration_s(self, parameters: Mapping[str, Any]) -> float:
        """Return the total duration in s, silence included, of the longest row."""
        return ToneInNoise().duration_s({k: v for k, v in parameters.items() if k != "interaural_condition"})


@register("dichotic_tone")
class DichoticTone(Stimulus):
    """A tone with an interaural difference of time or level."""

    class Parameters(GatedParameters):
        """Parameters of a tone for two ears."""

        frequency_hz: float = Field(500.0, gt=0, le=100e3, description="Frequency in Hz.")
        level_db_spl: float = Field(70.0, le=MAX_LEVEL_DB_SPL, description="Level in dB SPL, the mean of both ears.")
        itd_us: float = Field(
            0.0,
            ge=-1e5,
            le=1e5,
            description="Lead in microseconds of the left ear; its ramps do not lead.",
        )
        ild_db: float = Field(0.0, ge=-100, le=100, description="Level in dB of the left ear re the right ear.")
        phase_rad: float = Field(0.0, ge=-1e6, le=1e6, description="Starting phase in radians, the mean of both ears.")

    n_ears: ClassVar[int] = 2
    description: ClassVar[str] = "Tone for two ears: interaural time and level discrimination"
    tracked: ClassVar[Mapping[str, TrackedVariable]] = {
        "itd_us": TrackedVariable("us", "Interaural time difference (us)", 0.0, 0.0, 1e5, -1),
        "ild_db": TrackedVariable("dB", "Interaural level difference (dB)", 0.0, 0.0, 100.0, -1),
    }

    def generate(
        self,
        parameters: Mapping[str, Tensor | float | str | bool | None],
        keys: Keys,
        fs: float,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Return the sounds, (B, 2, T): see `psysim.stimuli.Stimulus.generate`."""
        p: dict[str, Any] = self.complete(parameters)
        half_phase = math.pi * 1e-6 * p["frequency_hz"] * p.pop("itd_us")
        half_level, phase, level = p.pop("ild_db") / 2.0, p["phase_rad"], p["level_db_spl"]
        ears = [
            Tone().generate(
                {**p, "phase_rad": phase + side * half_phase, "level_db_spl": level + side * half_level},
                keys,
                fs,
                dtype,
            )
            for side in (1.0, -1.0)
        ]
        return torch.stack(ears, dim=1)

    def duration_s(self, parameters: Mapping[str, Any]) -> float:
        """Return the total duration in s, silence included, of the longest row."""
        return Tone().duration_s({k: v for k, v in parameters.items() if k not in ("itd_us", "ild_db")})
