"""The sentences that lie in stimuli/: what the manifest says is so."""

from __future__ import annotations

import csv
import importlib.util
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from scipy.signal import welch

from psysim.errors import SpecError
from psysim.rng import Keys
from psysim.stimuli import load_corpus, material_folder, speech_shaped_noise
from psysim.stimuli.corpus import long_term_spectrum
from psysim.units import pascal_to_db_spl

FS = 20000
ROOT = Path(__file__).parents[2]
VOICELESS_STOPS = set("ckpt")  # first letters of words that begin so in this material, except "thirty"
THIRD_OCTAVES = 1000.0 * 10 ** (np.arange(-10, 10) / 10)  # 100 Hz to 8 kHz


@pytest.fixture(scope="module")
def corpus():
    return load_corpus()


def speech(corpus, speaker: str) -> np.ndarray:
    """All sentences of a speaker end to end, without the silence around them."""
    parts = []
    for i in corpus.select(speaker):
        start, stop = (round(t * FS) for t in corpus.sentences[i].span_s)
        parts.append(corpus.sound(i, FS).double().numpy()[start:stop])
    return np.concatenate(parts)


def third_octaves_db(x: np.ndarray) -> np.ndarray:
    """Levels of third-octave bands re the sum of all."""
    f, density = welch(x, FS, nperseg=8192)
    bands = [density[(f >= c * 10**-0.05) & (f < c * 10**0.05)].sum() for c in THIRD_OCTAVES]
    return 10 * np.log10(bands / np.sum(bands))


def test_every_file_is_that_of_the_manifest(corpus) -> None:
    corpus.verify()
    assert set(corpus.folder.glob("*/*.flac")) == {s.file for s in corpus.sentences}
    assert sum(f.stat().st_size for f in material_folder().rglob("*") if f.is_file()) < 10e6


def test_format_duration_and_level(corpus) -> None:
    """16 bit, mono, 20 kHz; 65 dB SPL from first onset to last offset, with full scale as the sheet says."""
    assert corpus.full_scale_db_spl == 110.0
    with (corpus.folder / "manifest.csv").open(newline="") as file:
        stated = [float(row["level_db_spl"]) for row in csv.DictReader(file)]
    for sentence, level in zip(corpus.sentences, stated, strict=True):
        x, fs = soundfile.read(sentence.file)
        info = soundfile.info(sentence.file)
        assert (fs, x.ndim, info.subtype) == (FS, 1, "PCM_16")
        assert sentence.duration_s == pytest.approx(len(x) / fs, abs=1e-9)
        start, stop = (round(t * fs) for t in sentence.span_s)
        own = 110.0 + 10 * np.log10(np.mean(x[start:stop] ** 2))
        assert own == pytest.approx(65.0, abs=0.01)  # rounding of the samples to 16 bit: 1e-3 dB; of the times: 5e-3
        assert own == pytest.approx(level, abs=0.01)
        assert np.abs(x).max() < 0.5


def test_lists_are_balanced(corpus) -> None:
    assert [len(column) for column in corpus.columns] == [10] * 5
    assert len({word for column in corpus.columns for word in column}) == 50
    for speaker in corpus.speakers:
        labels = corpus.labels[corpus.select(speaker)]
        assert labels.shape == (100, 5)
        for number in range(1, 11):
            one = corpus.labels[corpus.select(speaker, number)]
            assert one.sort(dim=0).values.tolist() == [[w] * 5 for w in range(10)]
        for place in range(4):  # every pair of neighbours once
            assert len({tuple(pair) for pair in labels[:, place : place + 2].tolist()}) == 100


def test_words_lie_where_the_manifest_says(corpus) -> None:
    """Silence around the speech, sound in every word, and a closure right after the onset of a word with a stop."""
    closures = []
    for i, sentence in enumerate(corpus.sentences):
        x = corpus.sound(i, FS).double().numpy()
        energy = np.concatenate([[0.0], np.cumsum(x**2)])
        total = energy[-1]
        first, last = (round(t * FS) for t in sentence.span_s)
        assert energy[first - 100] < 1e-4 * total  # 5 ms before the first onset; measured: 2 ms at most
        assert total - energy[last + 400] < 2e-3 * total  # what is left 20 ms after the last offset
        assert sentence.offset_s[:-1] == sentence.onset_s[1:]
        assert all(0.12 < b - a < 0.7 for a, b in pairwise((*sentence.onset_s, sentence.offset_s[-1])))
        for word, onset, offset in zip(sentence.words, sentence.onset_s, sentence.offset_s, strict=True):
            a, b = round(onset * FS), round(offset * FS)
            density = (energy[b] - energy[a]) / (b - a)
            assert density > 0.03 * total / (last - first), word  # the weakest word: -13 dB re the sentence; measured
            if onset != sentence.onset_s[0] and word[0] in VOICELESS_STOPS and word != "thirty":
                closures.append((energy[a + 360] - energy[a + 60]) / 300 / (total / (last - first)))
    assert len(closures) == 300  # 10 of the 40 words that can follow another one
    # 3 to 18 ms after the onset: silence, but for what is left of a nasal or a released stop before it
    assert np.mean(np.array(closures) < 1e-4) > 0.75  # measured: 0.78
    assert max(closures) < 0.02


def words_as_numbers(corpus, speaker: str, place: int) -> tuple[np.ndarray, np.ndarray]:
    """Log energy of each word in 15 bands and 10 equal parts of its time, (100, 150), and the words' labels."""
    edges = np.geomspace(150.0, 9000.0, 16)
    rows = []
    for i in corpus.select(speaker):
        sentence = corpus.sentences[i]
        a, b = round(sentence.onset_s[place] * FS), round(sentence.offset_s[place] * FS)
        parts = np.array_split(corpus.sound(i, FS).double().numpy()[a:b], 10)
        power = np.stack([np.abs(np.fft.rfft(part, 1024)) ** 2 for part in parts])
        which = np.digitize(np.fft.rfftfreq(1024, 1 / FS), edges)
        rows.append([np.log(power[:, which == k].sum(1) + 1e-7) for k in range(1, 16)])
    return np.array(rows).reshape(100, -1), corpus.labels[corpus.select(speaker), place].numpy()


def test_the_labels_are_what_is_heard(corpus) -> None:
    """Words cut out at their times are told apart by the mean spectrogram of the other nine of the same label."""
    correct = []
    for speaker in corpus.speakers:
        for place in range(5):
            x, labels = words_as_numbers(corpus, speaker, place)
            means = np.stack([x[labels == k].mean(0) for k in range(10)])
            own = means[labels]
            distance = ((x[:, None] - means) ** 2).sum(-1)
            distance[np.arange(100), labels] = ((x - (10 * own - x) / 9) ** 2).sum(-1)  # without itself
            correct.append((distance.argmin(1) == labels).mean())
    assert min(correct) > 0.9  # chance: 0.1
    assert np.mean(correct) > 0.95


def test_stored_spectrum_is_that_of_the_files(corpus) -> None:
    for speaker in corpus.speakers:
        own = long_term_spectrum([corpus.sentences[i] for i in corpus.select(speaker)])
        np.testing.assert_allclose(own, corpus.spectrum(speaker), rtol=2e-5, atol=1e-9)
        assert own[1].sum() * (own[0, 1] - own[0, 0]) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("speaker", ["low", "middle", "high"])
def test_noise_has_the_long_term_spectrum_of_the_speech(corpus, speaker: str) -> None:
    keys = Keys.make(seed=3, trial=torch.arange(40))
    made = speech_shaped_noise(
        keys, spectrum=corpus.spectrum(speaker), level_db_spl=65.0, duration_s=4.0, fs=FS, dtype=torch.float64
    )
    stored, _ = soundfile.read(corpus.folder / f"noise_{speaker}.flac")
    wanted = third_octaves_db(speech(corpus, speaker))
    # harmonics are smeared by the window of the stored spectrum (20 Hz wide): 1.1 dB in a band 37 dB down
    bound = np.where(wanted > -30.0, 0.6, 1.5)
    assert (np.abs(third_octaves_db(made.flatten().numpy()) - wanted) < bound).all()
    # 10 s: the level of a band of 23 Hz (100 Hz) varies with a standard deviation of 4.34/sqrt(230) = 0.3 dB
    assert (np.abs(third_octaves_db(stored) - wanted) < bound + 1.0).all()
    level = pascal_to_db_spl(float(made.square().mean().sqrt()))
    assert level == pytest.approx(65.0, abs=0.1)
    assert 110 + 10 * np.log10(np.mean(stored**2)) == pytest.approx(65.0, abs=0.3)


def test_the_voices_differ(corpus) -> None:
    """Fundamentals near 84, 105 and 202 Hz, by the autocorrelation of what is voiced."""
    for speaker, expected in {"low": 84.0, "middle": 105.0, "high": 202.0}.items():
        x = speech(corpus, speaker)[: 60 * FS].reshape(-1, 1000)
        spectrum = np.abs(np.fft.rfft(x * np.hanning(1000), 4000)) ** 2
        correlation = np.fft.irfft(spectrum)[:, :400]
        lag = 60 + correlation[:, 60:300].argmax(axis=1)
        voiced = correlation[np.arange(len(lag)), lag] > 0.4 * correlation[:, 0]
        assert np.median(FS / lag[voiced]) == pytest.approx(expected, rel=0.03)


def test_the_lists_of_the_script_are_those_of_the_manifest(corpus) -> None:
    location = ROOT / "stimuli" / "make_matrix_sentences.py"
    described = importlib.util.spec_from_file_location("make_matrix_sentences", location)
    script = importlib.util.module_from_spec(described)
    sys.modules[described.name] = script  # dataclasses look their module up
    try:
        described.loader.exec_module(script)
        assert corpus.columns == script.COLUMNS
        labels = corpus.labels.reshape(3, 10, 10, 5).numpy()
        assert all((labels[i] == script.lists()).all() for i in range(3))
    finally:
        del sys.modules[described.name]


def test_another_place_of_the_material(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (material_folder() / "README.md").is_file()
    assert (material_folder() / "LICENSE").is_file()
    monkeypatch.setenv("PSYSIM_STIMULI_DIR", str(tmp_path))
    assert material_folder() == tmp_path
    with pytest.raises(SpecError, match=r"The speech corpus '.*matrix' does not exist"):
        load_corpus()
