"""Stimuli: batched generators of sounds in pascal, and the kinds of stimuli that experiments name."""

from __future__ import annotations

from psysim.stimuli.am import am_noise, am_tone
from psysim.stimuli.base import GatedParameters, GatedStimulus, Stimulus, TrackedVariable, register, registry
from psysim.stimuli.batch import round_samples
from psysim.stimuli.noise import noise
from psysim.stimuli.tones import silence, tone

__all__ = [
    "GatedParameters",
    "GatedStimulus",
    "Stimulus",
    "TrackedVariable",
    "am_noise",
    "am_tone",
    "noise",
    "register",
    "registry",
    "round_samples",
    "silence",
    "tone",
]
