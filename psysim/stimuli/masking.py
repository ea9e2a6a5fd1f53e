"""Tones in and beside maskers: tone in noise; simultaneous, forward and backward masking."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from psysim.errors import SpecError
from psysim.rng import Keys, Purpose
from psysim.stimuli.bands import band_problem
from psysim.stimuli.base import GatedStimulus, StimulusParameters, TrackedVariable, register
from psysim.stimuli.batch import Rows
from psysim.stimuli.complexes import harmonic_complex
from psysim.stimuli.levels import MAX_LEVEL_DB_SPL
from psysim.stimuli.mixing import mix
from psysim.stimuli.noise import NoiseParameters, noise, noise_arguments, overall_level
from psysim.stimuli.tones import tone

__all__ = ["ForwardMasking", "MaskedTone", "ToneInNoise"]

SILENT_SIGNAL = {"signal_level_db_spl": -math.inf}
SILENT_PROBE = {"probe_level_db_spl": -math.inf}


def signal_onset(p: Rows, signal_s: Tensor, masker_s: Tensor, delay_name: str) -> Tensor:
    """Return the onset in s (B,) of a signal in a masker: the delay given, or centred; refuse what does not fit."""
    onset = (masker_s - signal_s) / 2 if p[delay_name] is None else p[delay_name]
    bad = (onset < -1e-9) | (onset + signal_s > masker_s + 1e-9)
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise SpecError(
            f"The signal of {float(signal_s[row]):g} s starting at {float(onset[row]):g} s does not lie within the "
            f"masker of {float(masker_s[row]):g} s (row {row})."
        )
    return onset.clamp(min=0.0)


@register("tone_in_noise")
class ToneInNoise(GatedStimulus):
    """A tone in noise."""

    class Parameters(NoiseParameters):
        """Parameters of a tone in noise; level, duration and band without prefix are those of the noise."""

        signal_hz: float = Field(1000.0, gt=0, le=100e3, description="Frequency in Hz of the tone.")
        signal_level_db_spl: float = Field(60.0, le=MAX_LEVEL_DB_SPL, description="Level in dB SPL of the tone.")
        snr_db: float | None = Field(
            None, le=200, description="Level in dB of the tone re the overall level of the noise; overrides its level."
        )
        signal_re_spectrum_level_db: float | None = Field(
            None, le=200, description="Level in dB of the tone re the noise in a 1-Hz band; overrides its level."
        )
        signal_duration_s: float = Field(0.3, gt=0, le=60, description="Duration in s of the tone, ramps included.")
        signal_ramp_s: float = Field(0.02, ge=0, le=30, description="Duration in s of each ramp of the tone.")
        signal_delay_s: float | None = Field(None, ge=0, le=60, description="Onset in s in the noise; none: centred.")
        signal_phase_rad: float = Field(0.0, ge=-1e6, le=1e6, description="Starting phase in radians of the tone.")

    description: ClassVar[str] = "Tone in noise: detection"
    tracked: ClassVar[Mapping[str, TrackedVariable]] = {
        "signal_level_db_spl": TrackedVariable("dB SPL", "Signal level (dB SPL)", -math.inf, -60.0, 120.0, -1),
        "snr_db": TrackedVariable("dB", "Signal-to-noise ratio (dB)", -math.inf, -100.0, 100.0, -1),
        "signal_re_spectrum_level_db": TrackedVariable(
            "dB", "Signal level re spectrum level (dB)", -math.inf, -60.0, 120.0, -1
        ),
    }

    def waveform(self, p: Rows, keys: Keys, fs: float) -> Tensor:
        """Return tone and noise, (B, T) float64."""
        arguments = noise_arguments(p)
        masker = noise(keys, **arguments, purpose=Purpose.MASKER, fs=fs, dtype=torch.float64)
        level = p["signal_level_db_spl"]
        if p["snr_db"] is not None:
            level = overall_level(Rows(arguments, keys), fs, p["spectrum"]) + p["snr_db"]
        if p["signal_re_spectrum_level_db"] is not None:
            if p["snr_db"] is not None:
                raise SpecError("Give snr_db (re the overall level) or signal_re_spectrum_level_db, not both.")
            per_hertz = {**arguments, "level_db_spl": None, "spectrum_level_db_spl": 0.0}
            width_db = overall_level(Rows(per_hertz, keys), fs, p["spectrum"])
            level = overall_level(Rows(arguments, keys), fs, p["spectrum"]) - width_db
            level = level + p["signal_re_spectrum_level_db"]
        signal = tone(
            frequency_hz=p["signal_hz"],
            level_db_spl=level,
            duration_s=p["signal_duration_s"],
            ramp_s=p["signal_ramp_s"],
            ramp_shape=p["ramp_shape"],
            phase_rad=p["signal_phase_rad"],
            fs=fs,
            dtype=torch.float64,
        )
        onset = signal_onset(p, p["signal_duration_s"], p["duration_s"], "signal_delay_s")
        return mix([masker, signal], [0.0, onset], fs, duration_s=p["duration_s"])


class MaskerParameters(StimulusParameters):
    """Parameters of a masker and a probe tone."""

    probe_hz: float = Field(1000.0, gt=0, le=100e3, description="Frequency in Hz of the probe tone.")
    probe_level_db_spl: float = Field(60.0, le=MAX_LEVEL_DB_SPL, description="Level in dB SPL of the probe.")
    probe_duration_s: float = Field(0.02, gt=0, le=60, description="Duration in s of the probe, ramps included.")
    probe_ramp_s: float = Field(0.01, ge=0, le=30, description="Duration in s of each ramp of the probe.")
    probe_phase_rad: float = Field(0.0, ge=-1e6, le=1e6, description="Starting phase in radians of the probe.")
    gap_s: float = Field(
        0.01, ge=0, le=10, description="Time in s from the end of the first sound to the start of the second."
    )
    masker: Literal["noise", "tone", "complex"] = Field("tone", description="Kind of masker.")
    masker_level_db_spl: float = Field(60.0, le=MAX_LEVEL_DB_SPL, description="Overall level in dB SPL of the masker.")
    masker_duration_s: float = Field(0.25, gt=0, le=60, description="Duration in s of the masker, ramps included.")
    masker_ramp_s: float = Field(0.01, ge=0, le=30, description="Duration in s of each ramp of the masker.")
    masker_hz: float = Field(1000.0, gt=0, le=100e3, description="Frequency in Hz of a tone masker.")
    masker_phase_rad: float = Field(0.0, ge=-1e6, le=1e6, description="Starting phase in radians of a tone masker.")
    masker_low_hz: float | None = Field(None, ge=0, le=100e3, description="Lower edge in Hz of a noise masker.")
    masker_high_hz: float | None = Field(None, gt=0, le=100e3, description="Upper edge in Hz of a noise masker.")
    masker_centre_hz: float | None = Field(None, gt=0, le=100e3, description="Centre in Hz of a noise masker.")
    masker_bandwidth_hz: float | None = Field(None, gt=0, le=100e3, description="Width in Hz of a noise masker.")
    masker_statistics: Literal["gaussian", "low_noise"] = Field("gaussian", description="Statistics of a noise masker.")
    masker_normalise: Literal["expected", "token"] = Field("expected", description="Level rule of a noise masker.")
    masker_f0_hz: float = Field(100.0, gt=0, le=20e3, description="Fundamental in Hz of a complex masker.")
    masker_lowest_harmonic: int = Field(2, ge=1, le=2000, description="Lowest harmonic of a complex masker.")
    masker_highest_harmonic: int = Field(20, ge=1, le=2000, description="Highest harmonic of a complex masker.")
    masker_phase: Literal["schroeder", "random", "sine", "cosine", "alternating"] = Field(
        "schroeder", description="Component phases of a complex masker."
    )
    masker_curvature: float = Field(1.0, ge=-1, le=1, description="Schroeder curvature of a complex masker.")
    ramp_shape: Literal["raised_cosine", "linear"] = Field("raised_cosine", description="Shape of all ramps.")
    silence_before_s: float = Field(0.0, ge=0, le=60, description="Silence in s before the sound.")
    silence_after_s: float = Field(0.02, ge=0, le=60, description="Silence in s after the sound.")

    @model_validator(mode="after")
    def _band(self) -> MaskerParameters:
        problem = band_problem(self.masker_low_hz, self.masker_high_hz, self.masker_centre_hz, self.masker_bandwidth_hz)
        if problem:
            raise ValueError(problem)
        return self


@register("masked_tone")
class MaskedTone(GatedStimulus):
    """A probe tone during, after or before a masker."""

    class Parameters(MaskerParameters):
        """Parameters of a masked tone."""

        masking: Literal["simultaneous", "forward", "backward"] = Field(
            "simultaneous", description="Whether the probe is within, after or before the masker."
        )
        probe_delay_s: float | None = Field(
            None, ge=0, le=60, description="Onset in s of a simultaneous probe in the masker; none: centred."
        )

    description: ClassVar[str] = "Probe tone with a noise, tone or complex masker: simultaneous, forward, backward"
    tracked: ClassVar[Mapping[str, TrackedVariable]] = {
        "probe_level_db_spl": TrackedVariable("dB SPL", "Probe level (dB SPL)", -math.inf, -60.0, 120.0, -1),
        "masker_level_db_spl": TrackedVariable(
            "dB SPL", "Masker level (dB SPL)", None, -60.0, 120.0, 1, reference_also=SILENT_PROBE
        ),
        "gap_s": TrackedVariable("s", "Masker-probe interval (s)", None, 0.0, 10.0, -1, reference_also=SILENT_PROBE),
    }

    def _masking(self, parameters: Mapping[str, Any]) -> str:
        return str(parameters["masking"])

    def sound_s(self, parameters: Mapping[str, Any]) -> Any:
        """Return the duration in s from the start of the first sound to the end of the last."""
        if self._masking(parameters) == "simultaneous":
            return parameters["masker_duration_s"]
        return parameters["masker_duration_s"] + parameters["gap_s"] + parameters["probe_duration_s"]

    def waveform(self, p: Rows, keys: Keys, fs: float) -> Tensor:
        """Return masker and probe, (B, T) float64."""
        masker_s, probe_s, masking = p["masker_duration_s"], p["probe_duration_s"], self._masking(p.values)
        p.check("gap_s", 0.0, 3600.0, "s")
        zero = torch.zeros_like(probe_s)
        if masking == "simultaneous":
            onsets = [zero, signal_onset(p, probe_s, masker_s, "probe_delay_s")]
        elif masking == "forward":
            onsets = [zero, masker_s + p["gap_s"]]
        else:
            onsets = [probe_s + p["gap_s"], zero]
        probe = tone(
            frequency_hz=p["probe_hz"],
            level_db_spl=p["probe_level_db_spl"],
            duration_s=probe_s,
            ramp_s=p["probe_ramp_s"],
            ramp_shape=p["ramp_shape"],
            phase_rad=p["probe_phase_rad"],
            fs=fs,
            dtype=torch.float64,
        )
        return mix([self._masker(p, keys, fs), probe], onsets, fs)

    def _masker(self, p: Rows, keys: Keys, fs: float) -> Tensor:
        common = {
            "level_db_spl": p["masker_level_db_spl"],
            "duration_s": p["masker_duration_s"],
            "ramp_s": p["masker_ramp_s"],
            "ramp_shape": p["ramp_shape"],
            "fs": fs,
            "dtype": torch.float64,
        }
        if p["masker"] == "tone":
            return tone(frequency_hz=p["masker_hz"], phase_rad=p["masker_phase_rad"], **common)
        if p["masker"] == "complex":
            return harmonic_complex(
                keys,
                f0_hz=p["masker_f0_hz"],
                lowest_harmonic=p["masker_lowest_harmonic"],
                highest_harmonic=p["masker_highest_harmonic"],
                phase=p["masker_phase"],
                curvature=p["masker_curvature"],
                **common,
            )
        band = {name: p[f"masker_{name}"] for name in ("low_hz", "high_hz", "centre_hz", "bandwidth_hz")}
        return noise(
            keys,
            **band,
            statistics=p["masker_statistics"],
            normalise=p["masker_normalise"],
            purpose=Purpose.MASKER,
            **common,
        )


@register("forward_masking")
class ForwardMasking(MaskedTone):
    """A probe tone after a masker."""

    class Parameters(MaskerParameters):
        """Parameters of forward masking."""

    description: ClassVar[str] = "Probe tone after a masker: forward masking, temporal masking curves"

    def _masking(self, parameters: Mapping[str, Any]) -> str:
        return "forward"
