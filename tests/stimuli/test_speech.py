from __future__ import annotations

import math

import pytest
import torch

from psysim.errors import SpecError
from psysim.rng import Keys
from psysim.stimuli import LabelledStimulus, load_corpus, matrix_sentence, registry
from psysim.units import pascal_to_db_spl

F64 = torch.float64
KIND = registry.get("matrix_sentence")()


def keys(n: int, seed: int = 1) -> Keys:
    return Keys.make(seed, trial=torch.arange(n))


def level(x: torch.Tensor) -> float:
    return float(pascal_to_db_spl(x.square().mean().sqrt()))


@pytest.mark.parametrize("fs", [16000, 20000, 44100])
@pytest.mark.parametrize("combine", [False, True])
def test_level_from_first_onset_to_last_offset(fs: int, combine: bool) -> None:
    wanted = torch.linspace(40.0, 80.0, 8, dtype=F64)
    parameters = {"level_db_spl": wanted, "combine": combine}
    x = KIND.generate(parameters, keys(8), fs, F64)
    times = KIND.label_times_s(parameters, keys(8))
    for row in range(8):
        start, stop = round(float(times[row, 0, 0]) * fs), round(float(times[row, -1, 1]) * fs)
        assert level(x[row, start:stop]) == pytest.approx(float(wanted[row]), abs=0.02)  # one sample at each end
        outside = x[row].square().sum() - x[row, start:stop].square().sum()
        assert float(outside) < 0.01 * float(x[row].square().sum())


def test_no_level_is_silence() -> None:
    assert not KIND.generate({"level_db_spl": -math.inf}, keys(2), 20000).any()


def test_sound_is_the_recording_at_its_level() -> None:
    corpus = load_corpus()
    x = matrix_sentence(keys(1), speaker="middle", sentence=17, level_db_spl=65.0, fs=20000, dtype=F64)
    index = corpus.select("middle")[17]
    recorded = corpus.sound(index, 20000).double() * 2e-5 * 10 ** (110 / 20)
    torch.testing.assert_close(x[0, : len(recorded)], recorded, rtol=1e-3, atol=0)  # 0.01 dB
    assert not x[0, len(recorded) :].any()


def test_labels_are_those_of_the_words() -> None:
    assert isinstance(KIND, LabelledStimulus)
    columns = KIND.alternatives(KIND.complete({}))
    assert [len(column) for column in columns] == [10] * 5
    for number in range(0, 100, 9):
        given = {"speaker": "high", "sentence": number}
        words = load_corpus().sentences[load_corpus().select("high")[number]].words
        labels = KIND.labels(given, keys(1))
        assert labels.shape == (1, 5)
        assert labels.dtype == torch.int64
        assert tuple(column[int(i)] for column, i in zip(columns, labels[0], strict=True)) == words
        again = {"speaker": "high", "words": " ".join(words).upper()}
        assert torch.equal(KIND.labels(again, keys(3)), labels.expand(3, 5))
        sound = KIND.generate(again, keys(1), 20000)[0]
        assert torch.equal(sound, KIND.generate(given, keys(1), 20000)[0, : len(sound)])


def test_draws_are_uniform_and_depend_on_the_keys_only() -> None:
    many = keys(6000)
    labels = KIND.labels({}, many)
    for place in range(5):
        counts = torch.bincount(labels[:, place], minlength=10).double()
        assert float(((counts - 600) ** 2 / 600).sum()) < 33.7  # chi-square, 9 degrees of freedom, p = 1e-4
    combined = KIND.labels({"combine": True}, many)
    assert len({tuple(row) for row in combined.tolist()}) > 5500  # of 100,000
    assert len({tuple(row) for row in labels.tolist()}) == 100
    assert torch.equal(KIND.labels({}, many[[5, 3000]]), labels[[5, 3000]])
    assert torch.equal(KIND.labels({"combine": True}, many[[5, 3000]]), combined[[5, 3000]])
    others = KIND.labels({"combine": True}, keys(6000, seed=2))
    assert float((others == combined).double().mean()) == pytest.approx(0.1, abs=0.01)


def test_a_list_gives_its_sentences_only() -> None:
    lists = torch.arange(1, 11, dtype=F64).repeat_interleave(40)
    labels = KIND.labels({"speaker": "low", "sentence_list": lists}, keys(400))
    corpus = load_corpus()
    for number in range(1, 11):
        allowed = {tuple(row) for row in corpus.labels[corpus.select("low", number)].tolist()}
        found = {tuple(row) for row in labels[lists == number].tolist()}
        assert found <= allowed
        assert len(found) >= 8  # each of 10 is missed by 40 draws with probability 0.015


def test_joined_sentences_are_made_of_the_right_recordings() -> None:
    """Between the joints every sample is that of the recording in which the word is followed by the next one."""
    corpus = load_corpus()
    fs = 20000
    parameters = {"combine": True, "speaker": "low"}
    x = KIND.generate(parameters, keys(20), fs, F64)
    labels, times = KIND.labels(parameters, keys(20)).tolist(), KIND.label_times_s(parameters, keys(20))
    for row in range(20):
        gains = []
        for place in range(4):
            index = corpus.transitions["low", place, labels[row][place], labels[row][place + 1]]
            sentence = corpus.sentences[index]
            assert sentence.words[place] == corpus.columns[place][labels[row][place]]
            here, there = float(times[row, place, 0]), sentence.onset_s[place]
            n = round((sentence.onset_s[place + 1] - there) * fs) - 200
            piece = x[row, round(here * fs) + 100 :][:n]
            original = corpus.sound(index, fs).double()[round(there * fs) + 100 :][:n]
            shifts = [(piece[2:-2] @ original[2 + s : len(original) - 2 + s]) for s in (-2, -1, 0, 1, 2)]
            best = max(range(5), key=lambda i: float(shifts[i])) - 2  # rounding of the times to samples
            moved = original[2 + best : len(original) - 2 + best]
            gain = float((piece[2:-2] @ moved) / (moved @ moved))
            torch.testing.assert_close(piece[2:-2], gain * moved, rtol=0, atol=1e-9)
            gains.append(gain)
        assert max(gains) == pytest.approx(min(gains), rel=1e-9)
        torch.testing.assert_close(times[row, 1:, 0], times[row, :-1, 1], rtol=0, atol=1e-9)  # no gaps between words


def test_joints_do_not_click() -> None:
    """No step between samples is larger than the largest of the recordings at the same level."""
    fs = 20000
    recorded = KIND.generate({"speaker": "high"}, keys(100), fs, F64).diff(dim=1).abs().max()
    joined = KIND.generate({"speaker": "high", "combine": True}, keys(100), fs, F64).diff(dim=1).abs().max()
    assert float(joined) < 1.5 * float(recorded)


def test_words_sound_the_same_from_any_batch_and_rate() -> None:
    whole = KIND.generate({"combine": True}, keys(40), 20000, F64)
    alone = KIND.generate({"combine": True}, keys(40)[31], 20000, F64)
    assert torch.equal(alone[0], whole[31])
    assert torch.equal(KIND.labels({"combine": True}, keys(40)), KIND.labels({"combine": True}, keys(40)))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"speaker": "hi"}, r"speaker = 'hi' is not known. Allowed: 'low', 'middle', 'high'. Did you mean 'high'"),
        ({"sentence": 300}, r"sentence = 300 does not exist .* Allowed: 0 to 299"),
        ({"speaker": "low", "sentence": 100}, r"Allowed: 0 to 99"),
        ({"sentence": [0, 0.5]}, r"sentence = 0.5 must be a whole number"),
        ({"sentence_list": 11}, r"sentence_list = 11 does not exist .* Allowed: 1 to 10"),
        ({"words": "Kate lends nine soft"}, r"4 words, but a sentence has 5"),
        ({"words": "Kate lends nine soft hat"}, r"'hat' is not a word of place 5. .* Did you mean 'hats'"),
        ({"words": "Kate lends nine soft hats", "sentence": 1}, r"only one of sentence and words"),
        ({"combine": True, "sentence": 1}, r"combine draws every word: sentence cannot be given"),
        ({"level_db_spl": 200.0}, r"level_db_spl = 200 dB SPL is out of range"),
    ],
)
def test_errors(parameters, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        matrix_sentence(keys(2), fs=20000, **parameters)


def test_wrong_words_are_found_before_anything_runs() -> None:
    with pytest.raises(ValueError, match="'hat' is not a word of place 5"):
        KIND.Parameters.model_validate({"words": "Kate lends nine soft hat"})
