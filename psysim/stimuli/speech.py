"""Sentences: psysim's own matrix sentences, and the user's corpora."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from psysim.errors import SpecError
from psysim.rng import Keys
from psysim.stimuli.base import StimulusParameters, TrackedVariable, register
from psysim.stimuli.batch import Number, Rows, by_blocks, round_samples
from psysim.stimuli.corpus import Corpus
from psysim.stimuli.labelled import LabelledStimulus
from psysim.stimuli.levels import MAX_LEVEL_DB_SPL, token_gain
from psysim.stimuli.manifest import load_corpus
from psysim.stimuli.utterances import Utterance, check_choice, choose, longest_s, render
from psysim.units import db_spl_to_pascal

__all__ = ["FromFolder", "MatrixSentence", "SpeechParameters", "SpeechStimulus", "from_folder", "matrix_sentence"]

LEVEL = TrackedVariable("dB SPL", "Speech level (dB SPL)", -math.inf, -60.0, 120.0, -1)


def spoken(p: Rows, corpus: Corpus, fs: float) -> tuple[Tensor, list[Utterance]]:
    """Return sentences (B, T) float64 in pascal at the levels of ``p``, and which they are.

    With a level, the rms from the first onset to the last offset becomes it; without one, the corpus's calibration is
    kept.
    """
    chosen = choose(p, corpus)
    sounds = [render(utterance, corpus, fs) for utterance in chosen]
    out = torch.zeros(len(p), max(len(sound) for sound in sounds), dtype=torch.float64)
    for row, sound in enumerate(sounds):
        out[row, : len(sound)] = sound
    out = out.to(p.device)
    if p["level_db_spl"] is None:
        full_scale = p.values.get("full_scale_db_spl")
        level = torch.full((len(p),), corpus.full_scale_db_spl) if full_scale is None else full_scale
        return out * db_spl_to_pascal(level.double().to(p.device))[:, None], chosen
    span = torch.tensor([utterance.span_s for utterance in chosen], dtype=torch.float64, device=p.device)
    start, stop = round_samples(span[:, 0], fs), round_samples(span[:, 1], fs).clamp(max=out.shape[1])
    return out * token_gain(out, p["level_db_spl"], start, stop)[:, None], chosen


def _speech(path: str | Path | None, values: dict[str, Any], keys: Keys, fs: float, dtype: torch.dtype) -> Tensor:
    """Return sentences (B, T) of a corpus."""
    corpus = load_corpus(path)
    p = Rows(values, keys)
    p.check("level_db_spl", high=MAX_LEVEL_DB_SPL, unit="dB SPL", optional=True)
    check_choice(values, corpus)
    total = int(round_samples(torch.tensor(longest_s(values, corpus), dtype=torch.float64), fs))
    with torch.no_grad():
        return by_blocks(lambda rows: spoken(rows, corpus, fs)[0], p, total, dtype)


def matrix_sentence(
    keys: Keys,
    *,
    level_db_spl: Number = 65.0,
    speaker: str | None = None,
    sentence: Number | None = None,
    sentence_list: Number | None = None,
    combine: bool = False,
    words: str | None = None,
    fs: float,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return matrix sentences (name, verb, number, adjective, noun) of psysim's own synthetic material.

    The sentence is drawn from the keys unless it is given by its number or its words. Level: the rms of each sentence
    from the first onset to the last offset.

    Parameters
    ----------
    keys : Keys
        Random keys, (B,) or (); a row depends on its own key and parameters only.
    level_db_spl : float or (B,)
        Level in dB SPL.
    speaker : str, optional
        "low", "middle" or "high"; default: any, drawn from the keys.
    sentence : int or (B,), optional
        Number of the sentence among those of the speaker, from 0.
    sentence_list : int or (B,), optional
        Number of the list, 1 to 10, from which the sentence is drawn. Each list has every word once.
    combine : bool
        Draw each word on its own (100,000 sentences), put together from recordings in which the neighbouring words
        follow one another. Otherwise one of the 100 recorded sentences of a speaker.
    words : str, optional
        The words, separated by spaces.
    fs : float
        Sampling rate in Hz.
    dtype : torch.dtype
        Type of the result; computed in float64 from recordings of 16 bit.

    Returns
    -------
    Tensor
        (B, T) pascal; T is that of the longest sentence that could occur, zeros after the end of the others.

    Raises
    ------
    SpecError
        If a speaker, number or word does not exist.

    Examples
    --------
    >>> keys = Keys.make(seed=1, trial=torch.arange(3))
    >>> matrix_sentence(keys, speaker="low", words="Kate lends nine soft hats", fs=20000).shape[0]
    3
    """
    values = {
        "level_db_spl": level_db_spl,
        "speaker": speaker,
        "sentence": sentence,
        "sentence_list": sentence_list,
        "combine": combine,
        "words": words,
    }
    return _speech(None, values, keys, fs, dtype)


def from_folder(
    path: str | Path,
    keys: Keys,
    *,
    level_db_spl: Number | None = 65.0,
    full_scale_db_spl: Number | None = None,
    speaker: str | None = None,
    sentence: Number | None = None,
    sentence_list: Number | None = None,
    combine: bool = False,
    words: str | None = None,
    fs: float,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return sentences of the user's own corpus: a folder of sound files with a manifest.

    `psysim.stimuli.corpus` describes the folder. Sentences are chosen as in `matrix_sentence`.

    Parameters
    ----------
    path : str or Path
        Folder with ``manifest.csv``, the manifest itself, or one sound file.
    keys : Keys
        Random keys, (B,) or ().
    level_db_spl : float or (B,), optional
        Level in dB SPL of each sentence from its first onset to its last offset (of the whole file if the manifest
        has no times); None keeps the corpus's calibration.
    full_scale_db_spl : float or (B,), optional
        Level in dB SPL of a signal whose rms is 1 in the files, used without a level; default: what corpus.toml says,
        else 100.
    speaker, sentence, sentence_list, combine, words
        See `matrix_sentence`.
    fs : float
        Sampling rate in Hz; other rates of the files are converted.
    dtype : torch.dtype
        Type of the result.

    Returns
    -------
    Tensor
        (B, T) pascal, as of `matrix_sentence`.

    Raises
    ------
    SpecError
        If the folder or its manifest is wrong (file, line and column are named), or what was asked for is not there.
    """
    values = {
        "level_db_spl": level_db_spl,
        "full_scale_db_spl": full_scale_db_spl,
        "speaker": speaker,
        "sentence": sentence,
        "sentence_list": sentence_list,
        "combine": combine,
        "words": words,
    }
    return _speech(path, values, keys, fs, dtype)


class SpeechParameters(StimulusParameters):
    """Which sentence is presented."""

    speaker: str | None = Field(None, description="Name of the speaker; none: any, at random.")
    sentence: int | None = Field(
        None, ge=0, lt=2**31, description="Number of the sentence among the speaker's, from 0; none: at random."
    )
    sentence_list: int | None = Field(
        None, ge=0, lt=2**31, description="Number of the list from which the sentence is drawn; none: all lists."
    )
    combine: bool = Field(False, description="Whether every word is drawn on its own, or recorded sentences only.")
    words: str | None = Field(None, description="The words of the sentence, separated by spaces; none: at random.")
    silence_before_s: float = Field(0.0, ge=0, le=60, description="Silence in s before the sound.")
    silence_after_s: float = Field(0.0, ge=0, le=60, description="Silence in s after the sound.")

    @model_validator(mode="after")
    def _there(self) -> SpeechParameters:
        values = self.model_dump()
        check_choice(values, load_corpus(values.get("path")))
        return self


class SpeechStimulus(LabelledStimulus):
    """A kind that presents sentences of a corpus, psysim's own if it has no parameter ``path``."""

    def corpus(self, parameters: Mapping[str, Any]) -> Corpus:
        """Return the corpus of the parameters."""
        return load_corpus(parameters.get("path"))

    def onset_s(self, p: Rows) -> Any:
        """Return the start in s of the sentence in the sound without silence: a number or one per row."""
        return 0.0

    def sound_s(self, parameters: Mapping[str, Any]) -> Any:
        """Return the duration in s of the longest sentence that may be drawn."""
        return longest_s(parameters, self.corpus(parameters))

    def alternatives(self, parameters: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
        """Return the words of each place of the sentence."""
        return self.corpus(parameters).columns

    def _chosen(self, parameters: Mapping[str, Any], keys: Keys) -> tuple[Rows, list[Utterance]]:
        p = Rows(self.complete(parameters), keys)
        corpus = self.corpus(p.values)
        if not corpus.columns:
            raise SpecError(f"The corpus '{corpus.folder}' has no labels: its manifest has no column 'words'.")
        return p, choose(p, corpus)

    def labels(self, parameters: Mapping[str, Any], keys: Keys) -> Tensor:
        """Return the labels of the words, (B, C) int64; see `LabelledStimulus.labels`."""
        p, chosen = self._chosen(parameters, keys)
        return torch.tensor([utterance.labels for utterance in chosen], dtype=torch.int64, device=p.device)

    def label_times_s(self, parameters: Mapping[str, Any], keys: Keys) -> Tensor:
        """Return start and end in s of each word, (B, C, 2); see `LabelledStimulus.label_times_s`."""
        p, chosen = self._chosen(parameters, keys)
        times = torch.full((len(p), len(self.alternatives(p.values)), 2), math.nan, dtype=torch.float64)
        for row, utterance in enumerate(chosen):
            for side, values in enumerate((utterance.onset_s, utterance.offset_s)):
                times[row, : len(values), side] = torch.tensor(values, dtype=torch.float64)
        shift = torch.as_tensor(self.onset_s(p) + p["silence_before_s"], dtype=torch.float64, device=p.device)
        return times.to(p.device) + shift[:, None, None]

    def waveform(self, p: Rows, keys: Keys, fs: float) -> Tensor:
        """Return the sentences, (B, T) float64."""
        return spoken(p, self.corpus(p.values), fs)[0]


@register("matrix_sentence")
class MatrixSentence(SpeechStimulus):
    """A matrix sentence in quiet."""

    class Parameters(SpeechParameters):
        """Parameters of a matrix sentence."""

        level_db_spl: float = Field(65.0, le=MAX_LEVEL_DB_SPL, description="Level in dB SPL of the sentence.")

    description: ClassVar[str] = "Matrix sentence of five words in quiet: speech reception threshold"
    tracked: ClassVar[Mapping[str, TrackedVariable]] = {"level_db_spl": LEVEL}


@register("from_folder")
class FromFolder(SpeechStimulus):
    """A sentence of the user's own corpus."""

    class Parameters(SpeechParameters):
        """Parameters of a sentence of a corpus."""

        path: str = Field(description="Folder with sound files and a manifest.csv.")
        level_db_spl: float | None = Field(
            65.0, le=MAX_LEVEL_DB_SPL, description="Level in dB SPL of the sentence; none: the corpus's calibration."
        )
        full_scale_db_spl: float | None = Field(
            None, ge=0, le=200, description="Level in dB SPL of an rms of 1 in the files, without level_db_spl."
        )

    description: ClassVar[str] = "Sentence of your own corpus in quiet: speech reception threshold"
    tracked: ClassVar[Mapping[str, TrackedVariable]] = {"level_db_spl": LEVEL}
