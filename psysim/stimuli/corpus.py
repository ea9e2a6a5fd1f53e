"""Speech corpora: folders of recordings with a manifest that says who says which words, and when.

A corpus is a folder with ``manifest.csv``, one recording per line:

==============  ========================================================================================
column          content
==============  ========================================================================================
file            sound file, relative to the folder (needed)
words           the words, separated by spaces
speaker         name of the speaker
list            number of the list that the sentence belongs to
onset_s         start in s of each word in the file, separated by spaces
offset_s        end in s of each word in the file, separated by spaces
level_db_spl    level in dB SPL from the first onset to the last offset, at the corpus's full scale
duration_s      duration in s of the file; measured if it is not given
sha256          checksum of the file
==============  ========================================================================================

Beside it may lie ``corpus.toml`` (``title``, ``licence``, ``full_scale_db_spl``: level of a signal whose rms is 1, and
``columns``: the words of each place of the sentence, in the order that numbers them) and ``spectrum.csv`` (long-term
spectrum of each speaker); without them the words are numbered alphabetically and the spectrum is measured.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from psysim.errors import SpecError, check_option, did_you_mean
from psysim.stimuli.files import read_recording

__all__ = ["Corpus", "Sentence", "long_term_spectrum", "material_folder", "recorded"]

SPECTRUM_FFT = 4096
_KEPT = 512  # sounds kept in memory: 2 s at 44.1 kHz in float32 are 0.35 MB


def material_folder() -> Path:
    """Return the folder of psysim's own speech material.

    ``$PSYSIM_STIMULI_DIR`` if it is set, else what was installed with the package, else ``stimuli/`` of the checkout.

    Raises
    ------
    SpecError
        If there is none.
    """
    if chosen := os.environ.get("PSYSIM_STIMULI_DIR"):
        return Path(chosen)
    package = Path(str(files("psysim.stimuli")))
    for folder in (package / "material", package.parents[1] / "stimuli"):
        if (folder / "matrix" / "manifest.csv").is_file():
            return folder
    raise SpecError(
        "psysim's speech material was not found: it was not installed with the package. Set PSYSIM_STIMULI_DIR to a "
        "copy of the folder stimuli/ of the sources."
    )


@dataclass(frozen=True)
class Sentence:
    """One recording of a corpus.

    Attributes
    ----------
    file : Path
        The sound file.
    duration_s : float
        Its duration in s.
    speaker : str
        Name of the speaker, "" if the manifest names none.
    words : tuple of str
        The words; empty if the manifest names none.
    onset_s, offset_s : tuple of float
        Start and end in s of each word; empty if not known.
    number_of_list : int or None
        The list that the sentence belongs to.
    sha256 : str
        Checksum of the file, "" if not known.
    """

    file: Path
    duration_s: float
    speaker: str = ""
    words: tuple[str, ...] = ()
    onset_s: tuple[float, ...] = ()
    offset_s: tuple[float, ...] = ()
    number_of_list: int | None = None
    sha256: str = ""

    @property
    def span_s(self) -> tuple[float, float]:
        """Start and end in s of the speech: first onset to last offset, or the whole file."""
        return (self.onset_s[0], self.offset_s[-1]) if self.onset_s else (0.0, self.duration_s)


@dataclass(frozen=True, eq=False)
class Corpus:
    """Recorded sentences. Build with `psysim.stimuli.load_corpus`.

    Attributes
    ----------
    folder : Path
        Where it lies.
    sentences : tuple of Sentence
        In the order of the manifest.
    full_scale_db_spl : float
        Level in dB SPL of a signal whose rms is 1 in the files.
    columns : tuple of tuple of str
        For each place of the sentence its words; their positions are the labels.
    spectra : mapping of str to array
        Stored long-term spectra by speaker: (2, n), frequency in Hz and relative power density.
    """

    folder: Path
    sentences: tuple[Sentence, ...]
    full_scale_db_spl: float = 100.0
    columns: tuple[tuple[str, ...], ...] = ()
    spectra: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    @cached_property
    def speakers(self) -> tuple[str, ...]:
        """Names of the speakers, in the order of the manifest."""
        return tuple(dict.fromkeys(s.speaker for s in self.sentences))

    @cached_property
    def labels(self) -> Tensor:
        """(N, C) int64: the label of each word of each sentence, -1 behind the last word of shorter sentences."""
        out = torch.full((len(self.sentences), len(self.columns)), -1, dtype=torch.int64)
        for i, sentence in enumerate(self.sentences):
            for k, word in enumerate(sentence.words):
                out[i, k] = self.columns[k].index(word)
        return out

    @cached_property
    def recordings(self) -> dict[tuple[str, tuple[int, ...]], int]:
        """Positions of the sentences by speaker and labels."""
        rows = zip(self.sentences, self.labels.tolist(), strict=True)
        return {(s.speaker, tuple(labels)): i for i, (s, labels) in reversed(list(enumerate(rows)))}

    @cached_property
    def transitions(self) -> dict[tuple[str | int, ...], int]:
        """Positions of the sentences, by speaker, place, label there and label at the next place.

        Only sentences with a word at every place and the times of the words are in it.
        """
        out: dict[tuple[str | int, ...], int] = {}
        for i, (sentence, labels) in enumerate(zip(self.sentences, self.labels.tolist(), strict=True)):
            for place in range(len(labels) - 1):
                if sentence.onset_s and min(labels) >= 0:
                    out.setdefault((sentence.speaker, place, labels[place], labels[place + 1]), i)
        return out

    def select(self, speaker: str | None = None, number_of_list: int | None = None) -> list[int]:
        """Return the positions of the sentences of a speaker and a list; None stands for all.

        Raises
        ------
        SpecError
            If the speaker or the list does not exist.
        """
        if speaker is not None:
            check_option("speaker", speaker, self.speakers)
        found = [i for i, s in enumerate(self.sentences) if speaker in (None, s.speaker)]
        if number_of_list is None:
            return found
        lists = sorted({n for i in found if (n := self.sentences[i].number_of_list) is not None})
        if number_of_list not in lists:
            known = f"Allowed: {lists[0]} to {lists[-1]}." if lists else "The manifest has no column 'list'."
            raise SpecError(f"sentence_list = {number_of_list} does not exist in '{self.folder}'. {known}")
        return [i for i in found if self.sentences[i].number_of_list == number_of_list]

    def numbers(self, words: str | Sequence[str]) -> tuple[int, ...]:
        """Return the labels of given words, one per place.

        Raises
        ------
        SpecError
            If there are too many or too few, or one is not a word of its place.
        """
        given = words.split() if isinstance(words, str) else list(words)
        if len(given) != len(self.columns):
            raise SpecError(f"words = '{' '.join(given)}': {len(given)} words, but a sentence has {len(self.columns)}.")
        out = []
        for k, (word, column) in enumerate(zip(given, self.columns, strict=True)):
            known = {w.lower(): i for i, w in enumerate(column)}
            if word.lower() not in known:
                raise SpecError(
                    f"'{word}' is not a word of place {k + 1}. Allowed: {', '.join(column)}."
                    f"{did_you_mean(word, column)}"
                )
            out.append(known[word.lower()])
        return tuple(out)

    def sound(self, index: int, fs: float) -> Tensor:
        """Return a recording at a sampling rate, (T,) float32, in units of full scale."""
        return recorded(self.sentences[index].file, fs)

    def spectrum(self, speaker: str) -> NDArray[np.float64]:
        """Return the long-term spectrum of a speaker, (2, n): frequency in Hz, power density (1/Hz, mean square 1)."""
        if speaker not in self.spectra:
            self.spectra[speaker] = long_term_spectrum([self.sentences[i] for i in self.select(speaker)])
        return self.spectra[speaker]

    def verify(self) -> None:
        """Compare every file that has a checksum with it.

        Raises
        ------
        SpecError
            If a file was changed.
        """
        for sentence in self.sentences:
            found = hashlib.sha256(sentence.file.read_bytes()).hexdigest()
            if sentence.sha256 and found != sentence.sha256:
                raise SpecError(f"'{sentence.file}' is not the file of the manifest: its checksum is {found}.")


def recorded(file: Path, fs: float) -> Tensor:
    """Return a whole sound file at a sampling rate, (T,) float32 in units of full scale."""
    stat = file.stat()
    return _recorded(str(file), stat.st_mtime_ns, stat.st_size, float(fs))


@lru_cache(maxsize=_KEPT)
def _recorded(path: str, _changed_ns: int, _size: int, fs: float) -> Tensor:
    return read_recording(path, fs).float()


def long_term_spectrum(sentences: Sequence[Sentence], fs: float | None = None) -> NDArray[np.float64]:
    """Return the power density of sentences, each with the weight of its duration.

    Periodograms of `SPECTRUM_FFT` samples (Hann window, half overlapping) from the first onset to the last offset.

    Parameters
    ----------
    sentences : sequence of Sentence
        Each is brought to the same rms before.
    fs : float, optional
        Sampling rate in Hz; default: that of the first file.

    Returns
    -------
    ndarray
        (2, SPECTRUM_FFT // 2 + 1): frequency in Hz, density in 1/Hz whose integral is 1.
    """
    import soundfile

    fs = float(soundfile.info(str(sentences[0].file)).samplerate) if fs is None else fs
    window = np.hanning(SPECTRUM_FFT + 1)[:-1]
    total = np.zeros(SPECTRUM_FFT // 2 + 1)
    for sentence in sentences:
        start, stop = (round(t * fs) for t in sentence.span_s)
        x = recorded(sentence.file, fs).double().numpy()[start:stop]
        power = float(np.mean(x**2)) if len(x) else 0.0
        if power == 0.0:
            raise SpecError(f"'{sentence.file}' is silent, so its spectrum cannot be measured.")
        half = SPECTRUM_FFT // 2
        x = np.pad(x, half)  # all samples but those of the margins are in two windows
        frames = np.lib.stride_tricks.sliding_window_view(np.pad(x, (0, -len(x) % half)), SPECTRUM_FFT)[::half]
        total += (np.abs(np.fft.rfft(frames * window)) ** 2).sum(0) / power
    frequency = np.arange(len(total)) * fs / SPECTRUM_FFT
    return np.stack([frequency, total / (total.sum() * fs / SPECTRUM_FFT)])
