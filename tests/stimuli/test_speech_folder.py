"""The user's own corpus: a folder with a manifest."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from psysim.errors import SpecError
from psysim.rng import Keys
from psysim.stimuli import from_folder, load_corpus, registry

F64 = torch.float64
FS = 16000
HEADER = "file,speaker,list,words,onset_s,offset_s"
LINES = (
    "a.wav,ann,1,big dogs,0.1 0.3,0.3 0.5",
    "b.wav,ann,1,small cats,0.1 0.25,0.2 0.5",
    "c.wav,bob,2,big cats,0.1 0.3,0.3 0.5",
    "d.wav,bob,2,small dogs,0.1 0.3,0.3 0.45",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i, name in enumerate("abcd"):
        x = np.zeros((int(0.6 * FS), 2))
        x[1600:8000, 0] = 0.02 * (i + 1) * np.random.default_rng(i).standard_normal(6400)
        soundfile.write(tmp_path / f"{name}.wav", x, FS, subtype="DOUBLE")
    write(tmp_path, HEADER, *LINES)
    return tmp_path


def write(folder: Path, *lines: str) -> None:
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def keys(n: int) -> Keys:
    return Keys.make(seed=2, trial=torch.arange(n))


def level(x: torch.Tensor) -> float:
    return 10 * float(torch.log10(x.square().mean())) + 20 * np.log10(1 / 2e-5)


def test_levels(folder: Path) -> None:
    number = torch.arange(4)
    x = from_folder(folder, keys(4), sentence=number, level_db_spl=70.0, fs=FS, dtype=F64)
    kept = from_folder(folder, keys(4), sentence=number, level_db_spl=None, fs=FS, dtype=F64)
    given = from_folder(folder, keys(4), sentence=number, level_db_spl=None, full_scale_db_spl=90.0, fs=FS, dtype=F64)
    for i, stop in enumerate((8000, 8000, 8000, 7200)):
        assert level(x[i, 1600:stop]) == pytest.approx(70.0, abs=1e-4)
        assert level(kept[i, 1600:8000]) == pytest.approx(100 + 20 * np.log10(0.02 * (i + 1)), abs=0.2)
        torch.testing.assert_close(given[i], kept[i] * 10**-0.5, rtol=1e-9, atol=0)
    (folder / "corpus.toml").write_text("full_scale_db_spl = 94.0\n")
    write(folder, HEADER, *LINES, "")  # a manifest that changed is read again
    again = from_folder(folder, keys(4), sentence=number, level_db_spl=None, fs=FS, dtype=F64)
    torch.testing.assert_close(again, kept * 10 ** (-6 / 20), rtol=1e-9, atol=0)


def test_words_and_times(folder: Path) -> None:
    kind = registry.get("from_folder")()
    parameters = {"path": str(folder), "sentence": torch.arange(4)}
    assert kind.alternatives(parameters) == (("big", "small"), ("cats", "dogs"))
    assert kind.labels(parameters, keys(4)).tolist() == [[0, 1], [1, 0], [0, 0], [1, 1]]
    assert kind.label_times_s(parameters, keys(4))[1].tolist() == [[0.1, 0.2], [0.25, 0.5]]
    assert {tuple(row) for row in kind.labels({"path": str(folder), "speaker": "bob"}, keys(30)).tolist()} == {
        (0, 0),
        (1, 1),
    }
    (folder / "corpus.toml").write_text('columns = [["small", "big", "huge"], ["dogs", "cats"]]\n')
    write(folder, HEADER, *LINES, "")
    assert kind.alternatives(parameters) == (("small", "big", "huge"), ("dogs", "cats"))
    assert kind.labels(parameters, keys(4)).tolist() == [[1, 0], [0, 1], [1, 1], [0, 0]]


def test_words_of_unequal_number_and_none(folder: Path) -> None:
    kind = registry.get("from_folder")()
    write(folder, "file,words", "a.wav,no", "b.wav,yes please")
    path = {"path": str(folder), "sentence": torch.arange(2)}
    assert kind.labels(path, keys(2)).tolist() == [[0, -1], [1, 0]]
    assert bool(kind.label_times_s(path, keys(2)).isnan().all())
    write(folder, "file", "a.wav", "b.wav", "c.wav")
    assert kind.generate(path, keys(2), FS).shape == (2, 9600)
    with pytest.raises(SpecError, match="has no labels: its manifest has no column 'words'"):
        kind.labels(path, keys(2))


def test_other_rates_and_maskers_from_the_folder(folder: Path) -> None:
    x = from_folder(folder, keys(2), fs=44100)
    assert x.shape == (2, 26460)
    noisy = registry.get("speech_in_noise")()
    for masker in ("stationary", "speech_modulated", "babble"):
        y = noisy.generate({"path": str(folder), "masker": masker}, keys(2), FS)
        assert bool(torch.isfinite(y).all())
    vocoded = registry.get("vocoded_speech")().generate({"path": str(folder / "a.wav")}, keys(2), FS)
    assert vocoded.shape == (2, 9600)
    assert not torch.equal(vocoded[0], vocoded[1])  # one sound, other carriers


def test_checksums(folder: Path) -> None:
    known = hashlib.sha256((folder / "a.wav").read_bytes()).hexdigest()
    write(folder, "file,sha256", f"a.wav,{known}", "b.wav,")
    load_corpus(folder).verify()
    write(folder, "file,sha256", f"a.wav,{known}", f"b.wav,{known}", "")
    with pytest.raises(SpecError, match=r"b.wav' is not the file of the manifest"):
        load_corpus(folder).verify()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["file,spaker", "a.wav,x"], r"manifest.csv', line 1: 'spaker' is not a column .* Did you mean 'speaker'"),
        (["words", "big"], r"line 1: the column 'file' is missing. Columns: words"),
        (["file,words,onset_s", "a.wav,x,0.1"], r"line 1: onset_s and offset_s go together"),
        (["file"], r"lists no recording"),
        ([HEADER, LINES[0], "e.wav,x,1,big,0,1"], r"line 3: there is no sound file '.*e.wav'"),
        ([HEADER, "a.wav,x,1,big dogs,0.1,0.3"], r"line 2, onset_s: 1 times for 2 words"),
        ([HEADER, "a.wav,x,1,big dogs,0.1 0.4,0.45 0.5"], r"line 2: onsets and offsets must follow one another"),
        ([HEADER, "a.wav,x,1,big,0.1,0.9"], r"line 2: words from 0.1 s to 0.9 s, but the file lasts 0.6 s"),
        ([HEADER, "a.wav,x,1,big,nought,0.9"], r"line 2, onset_s: 'nought' must be numbers"),
        ([HEADER, "a.wav,x,1,big,0.1,inf"], r"line 2, offset_s: 'inf' must be finite"),
        ([HEADER, "a.wav,x,one,big,0.1,0.2"], r"line 2, list: 'one' must be numbers"),
        ([HEADER, "a.wav,x,1.5,big,0.1,0.2"], r"line 2, list: '1.5' must be one whole number"),
        ([HEADER, "a.wav,x,1,big"], r"line 2: it has more or fewer fields than the header"),
        ([HEADER, "a.wav,x,1,big,0.1,0.2,7"], r"line 2: it has more or fewer fields than the header"),
        ([HEADER, "manifest.csv,x,1,big,,"], r"line 2: the sound file '.*manifest.csv' cannot be read"),
    ],
)
def test_a_wrong_manifest(folder: Path, lines: list[str], message: str) -> None:
    write(folder, *lines)
    with pytest.raises(SpecError, match=message):
        load_corpus(folder)


def test_a_wrong_folder(folder: Path) -> None:
    with pytest.raises(SpecError, match=r"The speech corpus '.*nowhere' does not exist"):
        load_corpus(folder / "nowhere")
    (folder / "empty").mkdir()
    with pytest.raises(SpecError, match=r"'.*empty' has no manifest.csv"):
        load_corpus(folder / "empty")
    (folder / "manifest.csv").write_bytes(b"file\n\xff\xfe.wav\n")
    with pytest.raises(SpecError, match="is not a text in UTF-8"):
        load_corpus(folder)


@pytest.mark.parametrize(
    ("sheet", "message"),
    [
        ("full_scale = 94.0", r"corpus.toml': 'full_scale' is not known. .* Did you mean 'full_scale_db_spl'"),
        ("full_scale_db_spl = 'loud'", r"full_scale_db_spl = 'loud' must be a number from 0 to 200"),
        ("columns = [['big'], ['dogs', 'cats']]", r"the word 'small' of 'b.wav' is not in place 1"),
        ("title = ", r"corpus.toml' is not a TOML file"),
    ],
)
def test_a_wrong_sheet(folder: Path, sheet: str, message: str) -> None:
    (folder / "corpus.toml").write_text(sheet)
    with pytest.raises(SpecError, match=message):
        load_corpus(folder)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"speaker": "an"}, "speaker = 'an' is not known. Allowed: 'ann', 'bob'. Did you mean 'ann'"),
        ({"sentence": 4}, "sentence = 4 does not exist .* Allowed: 0 to 3"),
        ({"sentence_list": 3}, "sentence_list = 3 does not exist .* Allowed: 1 to 2"),
        ({"words": "big mice"}, "'mice' is not a word of place 2"),
        ({"words": "big cats", "speaker": "ann"}, "'big cats' is not in .* no recording of 'ann'"),
        ({"combine": True}, "combine needs every pair of neighbouring words .* 'big cats' of 'ann'"),
    ],
)
def test_what_is_not_there(folder: Path, choice, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        from_folder(folder, keys(2), fs=FS, **choice)


def test_a_silent_recording(folder: Path) -> None:
    soundfile.write(folder / "silent.wav", np.zeros(1600), FS)
    write(folder, "file", "silent.wav")
    with pytest.raises(SpecError, match="The level of row 0 cannot be set: the sound is silent"):
        from_folder(folder, keys(1), fs=FS)
    with pytest.raises(SpecError, match="silent"):
        registry.get("speech_in_noise")().generate({"path": str(folder)}, keys(1), FS)
