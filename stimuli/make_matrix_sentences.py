"""Make the matrix sentences: synthesise, cut, calibrate, and write the manifest.

    python stimuli/make_matrix_sentences.py [FOLDER]

writes stimuli/matrix/ (or FOLDER): a folder of sound files per speaker, manifest.csv, corpus.toml, spectrum.csv, and
one noise file per speaker. It needs psysim and eSpeak NG 1.51 (``apt-get install espeak-ng``), whose library it calls
as a tool; nothing else in psysim does. Two runs write the same files, byte for byte, given the same versions of eSpeak
NG, SciPy and libsndfile.

Sentences. Each speaker says 100 sentences, which form 10 lists of 10. In every list each of the 50 words occurs once.
In the 100 sentences each pair of words at neighbouring places occurs exactly once, so any of the 100,000 possible
sentences can be put together from recordings in which every word is followed by the right one.
"""

from __future__ import annotations

import csv
import ctypes
import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from scipy.signal import resample_poly

FS = 20000
FULL_SCALE_DB_SPL = 110.0
LEVEL_DB_SPL = 65.0
WORDS_PER_MINUTE = 170
LEAD_S, LAG_S, FADE_S = 0.02, 0.03, 0.01  # silence around the words, and the ramps in it
NOISE_S = 10.0

COLUMNS = (
    ("Claire", "Frank", "Grace", "Hugh", "James", "Joan", "Kate", "Mark", "Rose", "Sean"),
    ("brings", "draws", "found", "hides", "lends", "lost", "mends", "moves", "packs", "paints"),
    ("four", "five", "six", "seven", "nine", "ten", "twelve", "twenty", "thirty", "eighty"),
    ("bright", "brown", "clean", "cold", "flat", "round", "soft", "strong", "tall", "wet"),
    ("bags", "bowls", "coats", "drums", "forks", "hats", "jars", "kites", "lamps", "ropes"),
)


@dataclass(frozen=True)
class Voice:
    """A voice of eSpeak NG: its name, and its pitch setting (0 to 99)."""

    name: str
    pitch: int


SPEAKERS = {"low": Voice("gmw/en+m1", 30), "middle": Voice("gmw/en+m3", 45), "high": Voice("gmw/en+f2", 50)}


def lists() -> np.ndarray:
    """Return the labels of the sentences, (10 lists, 10 sentences, 5 places).

    The word at the next place is a Latin square of the list and the word: so every list has each word once, and every
    pair of neighbours occurs in one list. The squares are those of addition modulo 10 with rows, columns and symbols in
    a random order.
    """
    random = np.random.default_rng(5)
    out = np.zeros((10, 10, 5), dtype=int)
    out[:, :, 0] = np.arange(10)
    for place in range(1, 5):
        row, column, symbol = (random.permutation(10) for _ in range(3))
        before = out[:, :, place - 1]
        out[:, :, place] = symbol[(row[:, None] + column[before]) % 10]
    for one in out:
        random.shuffle(one)
    return out


class _Event(ctypes.Structure):
    """``espeak_EVENT`` of speak_lib.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


class Synthesiser:
    """eSpeak NG: text to samples, with the sample at which each word begins."""

    _RETRIEVAL, _PHONEME_EVENTS = 2, 1
    _END_OF_LIST, _WORD, _PHONEME = 0, 1, 7
    _RATE, _PITCH = 1, 3

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libespeak-ng.so.1")
        self.fs = self._library.espeak_Initialize(self._RETRIEVAL, 0, None, self._PHONEME_EVENTS)
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
        self._callback = kind(self._receive)  # kept: the library calls it later
        self._library.espeak_SetSynthCallback(self._callback)
        self._samples: list[np.ndarray] = []
        self._begins: list[int] = []
        self._end = 0

    def _receive(self, samples: ctypes._Pointer, n: int, events: ctypes._Pointer) -> int:
        if n > 0:
            self._samples.append(np.ctypeslib.as_array(samples, (n,)).copy())
        i = 0
        while events[i].type != self._END_OF_LIST:
            if events[i].type == self._WORD and not self._end:
                self._begins.append(events[i].sample)
            elif events[i].type == self._PHONEME and events[i].id.startswith(b"_") and not self._end:
                self._end = events[i].sample  # the pause after the last word
            i += 1
        return 0

    def say(self, voice: Voice, text: str) -> tuple[np.ndarray, list[int]]:
        """Return the samples (T,), full scale 1, and the samples at which words begin and the last one ends."""
        self._samples, self._begins, self._end = [], [], 0
        if self._library.espeak_SetVoiceByName(voice.name.encode()) != 0:
            raise SystemExit(f"This eSpeak NG has no voice {voice.name}.")
        self._library.espeak_SetParameter(self._RATE, WORDS_PER_MINUTE, 0)
        self._library.espeak_SetParameter(self._PITCH, voice.pitch, 0)
        data = text.encode() + b"\0"
        self._library.espeak_Synth(data, len(data), 0, 0, 0, 1, None, None)
        self._library.espeak_Synchronize()
        return np.concatenate(self._samples) / 32768.0, [*self._begins, self._end]


def record(synthesiser: Synthesiser, voice: Voice, text: str) -> tuple[np.ndarray, np.ndarray]:
    """Return one calibrated sentence as 16-bit integers (T,), and the times in s of its 6 word boundaries in it."""
    raw, boundaries = synthesiser.say(voice, text)
    sound = resample_poly(raw, FS, synthesiser.fs)
    edges = np.round(np.array(boundaries) * FS / synthesiser.fs).astype(int)
    lead, lag, fade = (round(t * FS) for t in (LEAD_S, LAG_S, FADE_S))
    sound = np.pad(sound, (lead, lag))[edges[0] : edges[-1] + lead + lag]  # starts `lead` before the first word
    edges = edges - edges[0] + lead
    ramp = 0.5 - 0.5 * np.cos(np.pi * np.arange(fade) / fade)
    sound[:fade] *= ramp
    sound[-fade:] *= ramp[::-1]
    wanted = 10 ** ((LEVEL_DB_SPL - FULL_SCALE_DB_SPL) / 20)
    sound *= wanted / np.sqrt(np.mean(sound[edges[0] : edges[-1]] ** 2))
    return np.round(sound * 32768).astype(np.int16), edges / FS


def write_speakers(folder: Path) -> None:
    """Write the sentences and their manifest."""
    synthesiser = Synthesiser()
    header = ("file", "speaker", "list", "words", "onset_s", "offset_s", "level_db_spl", "duration_s", "sha256")
    rows = []
    for speaker, voice in SPEAKERS.items():
        (folder / speaker).mkdir(parents=True, exist_ok=True)
        for number, one_list in enumerate(lists(), start=1):
            for position, labels in enumerate(one_list, start=1):
                words = [column[label] for column, label in zip(COLUMNS, labels, strict=True)]
                sound, times = record(synthesiser, voice, " ".join(words) + ".")
                file = folder / speaker / f"{number:02d}_{position:02d}.flac"
                soundfile.write(file, sound, FS, subtype="PCM_16", compression_level=1.0)
                span = sound[round(times[0] * FS) : round(times[-1] * FS)] / 32768
                level = FULL_SCALE_DB_SPL + 10 * np.log10(np.mean(span**2))
                name = file.relative_to(folder).as_posix()
                rows.append([name, speaker, number, " ".join(words)])
                rows[-1] += [" ".join(f"{t:.4f}" for t in part) for part in (times[:-1], times[1:])]
                checksum = hashlib.sha256(file.read_bytes()).hexdigest()
                rows[-1] += [f"{level:.3f}", f"{len(sound) / FS:.5f}", checksum]
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as text:
        csv.writer(text, lineterminator="\n").writerows([header, *rows])
    columns = ",\n".join("    [" + ", ".join(f'"{word}"' for word in column) + "]" for column in COLUMNS)
    (folder / "corpus.toml").write_text(
        'title = "Matrix sentences of psysim, synthetic speech"\nlicence = "CC0-1.0"\n'
        f"full_scale_db_spl = {FULL_SCALE_DB_SPL:.1f} # level of a signal whose rms is 1 in the files\n"
        f"columns = [\n{columns},\n]\n",
        encoding="utf-8",
    )


def write_noise(folder: Path) -> None:
    """Write the long-term spectra of the speakers, and a noise with each of them."""
    from psysim.rng import Keys
    from psysim.stimuli import load_corpus, speech_shaped_noise
    from psysim.stimuli.corpus import long_term_spectrum

    (folder / "spectrum.csv").unlink(missing_ok=True)
    corpus = load_corpus(folder)
    spectra = [long_term_spectrum([corpus.sentences[i] for i in corpus.select(speaker)]) for speaker in SPEAKERS]
    with (folder / "spectrum.csv").open("w", encoding="utf-8", newline="") as text:
        rows = [[f"{f:.6f}", *(f"{s[1, i]:.6e}" for s in spectra)] for i, f in enumerate(spectra[0][0])]
        csv.writer(text, lineterminator="\n").writerows([["frequency_hz", *SPEAKERS], *rows])
    for i, (speaker, spectrum) in enumerate(zip(SPEAKERS, spectra, strict=True)):
        noise = speech_shaped_noise(
            Keys.make(seed=1, track=i),
            spectrum=spectrum,
            level_db_spl=LEVEL_DB_SPL - FULL_SCALE_DB_SPL + 20 * np.log10(1 / 20e-6),
            duration_s=NOISE_S,
            fs=FS,
            dtype=torch.float64,
        )
        samples = np.round(noise[0].numpy() * 32768).astype(np.int16)
        soundfile.write(folder / f"noise_{speaker}.flac", samples, FS, subtype="PCM_16", compression_level=1.0)


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent / "matrix"
    write_speakers(target)
    write_noise(target)
