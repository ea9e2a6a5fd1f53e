"""Amplitude modulation of a tone beside other modulation: modulation masking, and discrimination of depths."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from psysim.rng import Keys, Purpose, uniform
from psysim.stimuli.am import ModulationParameters, am_tone, modulation_arguments
from psysim.stimuli.base import GatedParameters, GatedStimulus, TrackedVariable, register
from psysim.stimuli.batch import Rows
from psysim.stimuli.gating import check_ramps, gate
from psysim.stimuli.levels import MAX_LEVEL_DB_SPL
from psysim.stimuli.tones import check_times, sine
from psysim.units import db_spl_to_pascal

__all__ = ["AmDepth", "MaskedModulation"]


@register("am_depth_tone")
class AmDepth(GatedStimulus):
    """A modulated tone whose depth is raised."""

    class Parameters(GatedParameters, ModulationParameters):
        """Parameters of a modulated tone, and what is added to its depth."""

        depth_db: float = Field(-18.0, le=0, description="Modulation depth 20 log10 m in dB of the standard.")
        depth_increment_db: float = Field(0.0, ge=0, le=60, description="Modulation depth in dB added.")
        carrier_hz: float = Field(5000.0, gt=0, le=100e3, description="Carrier frequency in Hz.")
        level_db_spl: float = Field(70.0, le=MAX_LEVEL_DB_SPL, description="Level in dB SPL of the steady part.")
        carrier_phase_rad: float = Field(0.0, ge=-1e6, le=1e6, description="Starting phase in radians of the carrier.")

    description: ClassVar[str] = "Amplitude-modulated tone: discrimination of the modulation depth"
    tracked: ClassVar[Mapping[str, TrackedVariable]] = {
        "depth_increment_db": TrackedVariable("dB", "Increment of the modulation depth (dB)", 0.0, 0.0, 60.0, -1),
    }

    def waveform(self, p: Rows, keys: Keys, fs: float) -> Tensor:
        """Return the tones, (B, T) float64. A depth above 0 dB is refused."""
        arguments = modulation_arguments(p, keys)
        arguments["depth_db"] = p["depth_db"] + arguments.pop("depth_increment_db")
        return am_tone(**arguments, fs=fs, dtype=torch.float64)


@register("masked_am_tone")
class MaskedModulation(GatedStimulus):
    """A tone with two sinusoidal modulators: the one to be detected, and one that masks it."""

    class Parameters(GatedParameters):
        """Parameters of a tone with a signal and a masker modulation."""

        carrier_hz: float = Field(5000.0, gt=0, le=100e3, description="Carrier frequency in Hz.")
        level_db_spl: float = Field(70.0, le=MAX_LEVEL_DB_SPL, description="Level in dB SPL of the modulated tone.")
        rate_hz: float = Field(16.0, gt=0, le=20e3, description="Frequency in Hz of the signal modulation.")
        depth_db: float = Field(
            -6.020599913279624, le=-6, description="Depth 20 log10 m in dB of the signal modulation."
        )
        masker_rate_hz: float = Field(16.0, gt=0, le=20e3, description="Frequency in Hz of the masker modulation.")
        masker_depth_db: float = Field(
            -6.020599913279624, le=-6, description="Depth 20 log10 m in dB of the masker modulation; -inf: none."
        )

    description: ClassVar[str] = "Tone with two modulators, one at a random phase: modulation masking"
    tracked: ClassVar[Mapping[str, TrackedVariable]] = {
        "depth_db": TrackedVariable("dB", "Modulation depth, 20 log m (dB)", -math.inf, -100.0, -6.0205, -1),
    }

    def waveform(self, p: Rows, keys: Keys, fs: float) -> Tensor:
        """Return the tones, (B, T) float64.

        The envelope is 1 + m sin(2 pi f t) + m_m sin(2 pi f_m t + phase), with a phase drawn in every interval. The
        level is that of the modulated tone on average over phases, so that it is no cue.
        """
        check_times(p, fs)
        p.values["carrier_hz + both rates"] = p["carrier_hz"] + torch.maximum(p["rate_hz"], p["masker_rate_hz"])
        p.check("carrier_hz + both rates", 0.0, fs / 2, "Hz")
        length, n_ramp = p.length(fs), p.length(fs, "ramp_s")
        check_ramps(length, n_ramp)
        n = int(length.max())
        depth, masker = (10.0 ** (p[name] / 20.0) for name in ("depth_db", "masker_depth_db"))
        turn = 2.0 * math.pi * uniform(keys, Purpose.PHASE, 1)[..., 0]
        envelope = 1.0 + depth[:, None] * sine(p["rate_hz"], torch.zeros_like(turn), n, fs)
        envelope += masker[:, None] * sine(p["masker_rate_hz"], turn, n, fs)
        amplitude = math.sqrt(2.0) * db_spl_to_pascal(p["level_db_spl"]) / (1.0 + (depth**2 + masker**2) / 2.0).sqrt()
        wave = sine(p["carrier_hz"], torch.zeros_like(turn), n, fs).mul_(envelope).mul_(amplitude[:, None])
        return wave.mul_(gate(length, n_ramp, p["ramp_shape"]))
