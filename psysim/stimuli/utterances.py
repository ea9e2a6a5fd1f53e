"""Which sentence of a corpus is heard, drawn from keys or given, and its sound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from psysim.errors import SpecError
from psysim.rng import Purpose, uniform
from psysim.stimuli.batch import Rows
from psysim.stimuli.corpus import Corpus

__all__ = ["Utterance", "check_choice", "choose", "longest_s", "render"]

JOIN_S = 0.004
"""Cross-fade in s where two recordings are joined; most joints lie in a stop's closure or between words."""


@dataclass(frozen=True)
class Utterance:
    """What is said: one recording, or excerpts of several, joined.

    Attributes
    ----------
    parts : tuple of (int, float, float)
        Position in the corpus, start and end in s of each excerpt.
    labels : tuple of int
        Label of the word at each place, -1 if there is none.
    onset_s, offset_s : tuple of float
        Start and end in s of each word; empty if not known.
    span_s : (float, float)
        Start and end in s of the speech.
    """

    parts: tuple[tuple[int, float, float], ...]
    labels: tuple[int, ...]
    onset_s: tuple[float, ...]
    offset_s: tuple[float, ...]
    span_s: tuple[float, float]


def check_choice(parameters: Mapping[str, Any], corpus: Corpus) -> None:
    """Raise `SpecError` if the choice of sentences (options, and numbers given for the whole batch) is not usable."""
    given = [name for name in ("sentence", "sentence_list", "words") if parameters.get(name) is not None]
    if parameters["combine"] and given:
        raise SpecError(f"combine draws every word: {given[0]} cannot be given too.")
    if len(given) > 1:
        raise SpecError(f"Give only one of {' and '.join(given)}.")
    corpus.select(parameters["speaker"])
    if parameters["words"] is not None:
        labels = corpus.numbers(parameters["words"])
        for speaker in _speakers(parameters, corpus):
            _said(corpus, speaker, labels)
    if parameters["combine"]:
        for speaker in _speakers(parameters, corpus):
            _check_transitions(corpus, speaker)
    for name in ("sentence", "sentence_list"):
        if isinstance(number := parameters[name], int | float):
            _eligible(corpus, parameters["speaker"], **{name: number})


def _speakers(parameters: Mapping[str, Any], corpus: Corpus) -> tuple[str, ...]:
    return corpus.speakers if parameters["speaker"] is None else (parameters["speaker"],)


def _eligible(
    corpus: Corpus, speaker: str | None, sentence: float | None = None, sentence_list: float | None = None
) -> list[int]:
    """Return the positions from which one is drawn."""
    for name, number in (("sentence", sentence), ("sentence_list", sentence_list)):
        if number is not None and number != int(number):
            raise SpecError(f"{name} = {number:g} must be a whole number.")
    found = corpus.select(speaker, None if sentence_list is None else int(sentence_list))
    if sentence is None:
        return found
    if not 0 <= sentence < len(found):
        raise SpecError(f"sentence = {sentence:g} does not exist in '{corpus.folder}'. Allowed: 0 to {len(found) - 1}.")
    return [found[int(sentence)]]


def choose(p: Rows, corpus: Corpus) -> list[Utterance]:
    """Return the utterance of each row.

    One number decides on the sentence (or the speaker), and one more per word if words are drawn.
    """
    draws = uniform(p.keys, Purpose.TOKEN, 1 + len(corpus.columns)).cpu().tolist()
    speakers = _speakers(p.values, corpus)
    given = None if p["words"] is None else corpus.numbers(p["words"])
    numbers = {name: None if p[name] is None else p[name].tolist() for name in ("sentence", "sentence_list")}
    out = []
    for row, (first, *rest) in enumerate(draws):
        if given is None and not p["combine"]:
            number = {name: None if values is None else values[row] for name, values in numbers.items()}
            found = _eligible(corpus, p["speaker"], **number)
            out.append(_whole(corpus, found[int(first * len(found))]))
            continue
        speaker = speakers[int(first * len(speakers))]
        labels = given or tuple(int(u * len(column)) for u, column in zip(rest, corpus.columns, strict=True))
        out.append(_said(corpus, speaker, labels))
    return out


def _whole(corpus: Corpus, index: int) -> Utterance:
    sentence = corpus.sentences[index]
    labels = tuple(corpus.labels[index].tolist())
    return Utterance(((index, 0.0, sentence.duration_s),), labels, sentence.onset_s, sentence.offset_s, sentence.span_s)


def _said(corpus: Corpus, speaker: str, labels: tuple[int, ...]) -> Utterance:
    """Return an utterance of given words: a recording, or joined from recordings of neighbouring words."""
    if (speaker, labels) in corpus.recordings:
        return _whole(corpus, corpus.recordings[speaker, labels])
    parts: list[tuple[int, float, float]] = []
    onset: list[float] = []
    offset: list[float] = []
    clock, pairs = 0.0, max(1, len(labels) - 1)
    for place in range(pairs):
        index = corpus.transitions.get((speaker, place, *labels[place : place + 2]))
        if index is None:
            words = [corpus.columns[k][label] for k, label in enumerate(labels)][place : place + 2]
            raise SpecError(
                f"'{' '.join(words)}' is not in '{corpus.folder}': no recording of '{speaker}' with the times of its "
                "words has this at its place, so the sentence cannot be put together."
            )
        sentence, last = corpus.sentences[index], place == pairs - 1
        start = 0.0 if place == 0 else sentence.onset_s[place]
        stop = sentence.duration_s if last else sentence.onset_s[place + 1]
        for k in (place, place + 1) if last else (place,):
            onset.append(clock + sentence.onset_s[k] - start)
            offset.append(clock + sentence.offset_s[k] - start)
        parts.append((index, start, stop))
        clock += stop - start
    return Utterance(tuple(parts), labels, tuple(onset), tuple(offset), (onset[0], offset[-1]))


def _check_transitions(corpus: Corpus, speaker: str) -> None:
    """Raise `SpecError` unless every sentence can be put together."""
    for place in range(len(corpus.columns) - 1):
        for a, word in enumerate(corpus.columns[place]):
            for b, following in enumerate(corpus.columns[place + 1]):
                if (speaker, place, a, b) not in corpus.transitions:
                    raise SpecError(
                        f"combine needs every pair of neighbouring words with its times: '{word} {following}' of "
                        f"'{speaker}' is not in '{corpus.folder}'."
                    )


def longest_s(parameters: Mapping[str, Any], corpus: Corpus) -> float:
    """Return the duration in s of the longest sentence that the options allow (numbers of sentences do not matter)."""
    found = [corpus.sentences[i] for i in corpus.select(parameters["speaker"])]
    if parameters["words"] is not None:
        labels = corpus.numbers(parameters["words"])
        said = [_said(corpus, speaker, labels) for speaker in _speakers(parameters, corpus)]
        return max(sum(stop - start for _, start, stop in one.parts) for one in said)
    if not parameters["combine"]:
        return max(s.duration_s for s in found)
    places = len(corpus.columns)
    first = max(s.onset_s[1] for s in found)
    middle = sum(max(s.onset_s[k + 1] - s.onset_s[k] for s in found) for k in range(1, places - 2))
    return first + middle + max(s.duration_s - s.onset_s[places - 2] for s in found)


def render(utterance: Utterance, corpus: Corpus, fs: float) -> Tensor:
    """Return the sound of an utterance at a sampling rate, (T,) float64 in units of full scale."""
    if len(utterance.parts) == 1:
        return corpus.sound(utterance.parts[0][0], fs).double()
    half = max(1, round(JOIN_S * fs / 2))
    rise = (torch.arange(2 * half, dtype=torch.float64) + 0.5) / (2 * half)
    out = torch.zeros(0, dtype=torch.float64)
    for place, (index, start, stop) in enumerate(utterance.parts):
        sound = corpus.sound(index, fs).double()
        first, end = round(start * fs), round(stop * fs)
        if place == 0:
            out = sound[: end + half].clone()
            continue
        last = place == len(utterance.parts) - 1
        piece = sound[first - half : len(sound) if last else end + half].clone()
        joint = out[-2 * half :] * rise.flip(0) + piece[: 2 * half] * rise
        out = torch.cat([out[: -2 * half], joint, piece[2 * half :]])
    return out
