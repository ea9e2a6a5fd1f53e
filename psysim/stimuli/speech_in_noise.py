"""Sentences in noise, in modulated noise and in babble."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from psysim.errors import SpecError, check_option
from psysim.rng import Keys, Purpose, uniform
from psysim.stimuli.base import TrackedVariable, register
from psysim.stimuli.batch import Rows, groups, place, round_samples
from psysim.stimuli.corpus import Corpus
from psysim.stimuli.gating import check_ramps, gate, steady_part
from psysim.stimuli.levels import MAX_LEVEL_DB_SPL, token_gain
from psysim.stimuli.manifest import load_corpus
from psysim.stimuli.modulation import am_factor, check_am
from psysim.stimuli.speech import SpeechParameters, SpeechStimulus, spoken
from psysim.stimuli.speech_maskers import speech_modulated_noise, talkers, unit_shaped_noise

__all__ = ["SpeechInNoise", "SpeechInNoiseParameters"]

SNR = TrackedVariable("dB", "Signal-to-noise ratio (dB)", -math.inf, -100.0, 100.0, -1)


class SpeechInNoiseParameters(SpeechParameters):
    """Parameters of a sentence in a masker."""

    path: str | None = Field(None, description="Folder of your own corpus with a manifest.csv; none: matrix sentences.")
    snr_db: float = Field(0.0, le=200, description="Level in dB of the sentence re the masker; -inf: masker alone.")
    fixed: Literal["masker", "speech"] = Field("masker", description="Which of the two has level_db_spl.")
    level_db_spl: float = Field(65.0, le=MAX_LEVEL_DB_SPL, description="Level in dB SPL of the one that is fixed.")
    masker: Literal["stationary", "modulated", "speech_modulated", "babble"] = Field(
        "stationary",
        description="Noise with the speaker's long-term spectrum, with sinusoidal modulation or a talker's envelope, "
        "or a number of talkers.",
    )
    rate_hz: float = Field(8.0, gt=0, le=1000, description="Modulation frequency in Hz of modulated noise.")
    depth_db: float = Field(0.0, le=0, description="Modulation depth 20 log10 m in dB of modulated noise.")
    n_talkers: int = Field(4, ge=1, le=64, description="Number of talkers in the babble.")
    masker_speaker: str | None = Field(
        None, description="Speaker of the babble or of the talker whose envelope is used; none: any, at random."
    )
    lead_s: float = Field(0.5, ge=0, le=60, description="Duration in s of the masker before the sentence.")
    lag_s: float = Field(0.5, ge=0, le=60, description="Duration in s of the masker after the longest sentence.")
    ramp_s: float = Field(0.05, ge=0, le=30, description="Duration in s of each ramp of the masker.")
    ramp_shape: Literal["raised_cosine", "linear"] = Field("raised_cosine", description="Shape of the ramps.")

    @model_validator(mode="after")
    def _masker_there(self) -> SpeechInNoiseParameters:
        if self.masker_speaker is not None:
            check_option("masker_speaker", self.masker_speaker, load_corpus(self.path).speakers)
        return self


@register("speech_in_noise")
class SpeechInNoise(SpeechStimulus):
    """A sentence in noise or babble.

    The masker lasts from ``lead_s`` before the sentence to ``lag_s`` after the longest sentence that could be drawn, so
    its duration tells nothing. Levels are rms: of the sentence from its first onset to its last offset, of each masker
    token between its ramps. So the ratio is exact in every sound.
    """

    Parameters = SpeechInNoiseParameters
    description: ClassVar[str] = "Sentence in speech-shaped or modulated noise or babble: speech reception threshold"
    tracked: ClassVar[Mapping[str, TrackedVariable]] = {"snr_db": SNR}

    def onset_s(self, p: Rows) -> Any:
        """Return the start in s of the sentence in the masker."""
        return p["lead_s"]

    def sound_s(self, parameters: Mapping[str, Any]) -> Any:
        """Return the duration in s of the masker."""
        return parameters["lead_s"] + super().sound_s(parameters) + parameters["lag_s"]

    def waveform(self, p: Rows, keys: Keys, fs: float) -> Tensor:
        """Return sentence and masker, (B, T) float64."""
        sentence, masker = self.components(p, fs)
        return sentence + masker

    def components(self, p: Rows, fs: float) -> tuple[Tensor, Tensor]:
        """Return the sentence and the masker apart, (B, T) float64 each; their sum is the sound.

        Parameters
        ----------
        p : Rows
            Completed parameters with keys.
        fs : float
            Sampling rate in Hz.
        """
        p.check("snr_db", high=200.0, unit="dB")
        for name in ("lead_s", "lag_s"):
            p.check(name, 0.0, 60.0, "s")
        p.check("ramp_s", 0.0, 30.0, "s")
        p.check("level_db_spl", high=MAX_LEVEL_DB_SPL, unit="dB SPL")
        level, fixed = p["level_db_spl"], p["fixed"] == "speech"
        if fixed and not bool((p["snr_db"] > -math.inf).all()):
            raise SpecError("snr_db = -inf (no speech) needs fixed = 'masker': the speech has a level here.")
        speech_level, masker_level = (level, level - p["snr_db"]) if fixed else (level + p["snr_db"], level)
        corpus = self.corpus(p.values)
        length = round_samples(torch.as_tensor(self.sound_s(p.values)).expand(len(p)), fs)
        own = p.take(slice(None))
        own.values["level_db_spl"] = speech_level
        sentence, chosen = spoken(own, corpus, fs)
        onset = p.length(fs, "lead_s")
        total = int(length.max())
        speakers = [corpus.sentences[utterance.parts[0][0]].speaker for utterance in chosen]
        masker = self._masker(p, corpus, speakers, length, fs)
        check_ramps(length, n_ramp := p.length(fs, "ramp_s"))
        gain = token_gain(masker, masker_level, *steady_part(length, n_ramp))
        return place(sentence, onset, total), masker * gain[:, None] * gate(length, n_ramp, p["ramp_shape"], total)

    @staticmethod
    def _masker(p: Rows, corpus: Corpus, speakers: list[str], length: Tensor, fs: float) -> Tensor:
        """Return the masker (B, T) float64 before levels and ramps."""
        if p["masker"] == "babble":
            p.check("n_talkers", 1, 64)
            speaker = p["masker_speaker"]
            return talkers(
                p.keys, corpus, length, p["n_talkers"], fs, speaker=speaker, purpose=Purpose.SECOND_MASKER
            ).to(p.device)
        out = torch.zeros(len(p), int(length.max()), dtype=torch.float64, device=p.device)
        number = torch.tensor([corpus.speakers.index(name) for name in speakers], device=p.device)
        for index, (which,) in groups(number):
            rows, n, spectrum = p.take(index), length[index], corpus.spectrum(corpus.speakers[which])
            if p["masker"] == "speech_modulated":
                noise = speech_modulated_noise(rows.keys, corpus, spectrum, n, fs, speaker=p["masker_speaker"])
            else:
                noise = unit_shaped_noise(rows.keys, spectrum, n, fs, Purpose.MASKER)
            out[index, : noise.shape[1]] = noise
        if p["masker"] == "modulated":
            out *= am_factor(_modulation(p, fs), out.shape[1], fs)
        index = torch.arange(out.shape[1], device=p.device)
        return torch.where(index < length[:, None], out, 0.0)


def _modulation(p: Rows, fs: float) -> Rows:
    """Return the parameters of the modulator, its phase drawn from the keys."""
    phase = 2.0 * math.pi * uniform(p.keys, Purpose.MODULATOR, 1)[:, 0]
    values = {
        "rate_hz": p["rate_hz"],
        "depth_db": p["depth_db"],
        "modulator_phase_rad": phase,
        "modulation_delay_s": 0.0,
        "modulation_duration_s": None,
        "modulation_ramp_s": 0.0,
    }
    rows = Rows(values, p.keys)
    check_am(rows, fs)
    return rows
