"""Stimuli: batched generators of sounds in pascal, and the kinds of stimuli that experiments name.

Generators take physical parameters, each a number or one per row, and return (B, T). Kinds are found by name.

Examples
--------
>>> registry.names()[:4]
['am_depth_tone', 'am_noise', 'am_tone', 'click']
"""

from __future__ import annotations

from psysim.stimuli.am import am_noise, am_tone
from psysim.stimuli.base import (
    GatedParameters,
    GatedStimulus,
    Stimulus,
    StimulusParameters,
    TrackedVariable,
    register,
    registry,
)
from psysim.stimuli.batch import Rows, round_samples
from psysim.stimuli.clicks import clicks
from psysim.stimuli.complexes import harmonic_complex, tone_complex
from psysim.stimuli.corpus import Corpus, Sentence, material_folder
from psysim.stimuli.files import from_file, read_recording
from psysim.stimuli.fm import fm_tone, quasi_fm_tone
from psysim.stimuli.gap import gap_window
from psysim.stimuli.gating import gate, ramp
from psysim.stimuli.labelled import LabelledStimulus
from psysim.stimuli.manifest import load_corpus
from psysim.stimuli.mixing import mix, scale_to_snr
from psysim.stimuli.noise import noise
from psysim.stimuli.notched_noise import notched_noise
from psysim.stimuli.speech import from_folder, matrix_sentence
from psysim.stimuli.speech_maskers import speech_shaped_noise
from psysim.stimuli.tones import silence, tone
from psysim.stimuli.vocoder import vocode, vocoder_edges

__all__ = [
    "Corpus",
    "GatedParameters",
    "GatedStimulus",
    "LabelledStimulus",
    "Rows",
    "Sentence",
    "Stimulus",
    "StimulusParameters",
    "TrackedVariable",
    "am_noise",
    "am_tone",
    "clicks",
    "fm_tone",
    "from_file",
    "from_folder",
    "gap_window",
    "gate",
    "harmonic_complex",
    "load_corpus",
    "material_folder",
    "matrix_sentence",
    "mix",
    "noise",
    "notched_noise",
    "quasi_fm_tone",
    "ramp",
    "read_recording",
    "register",
    "registry",
    "round_samples",
    "scale_to_snr",
    "silence",
    "speech_shaped_noise",
    "tone",
    "tone_complex",
    "vocode",
    "vocoder_edges",
]
