"""Observers with a hearing aid: the sounds of their trials are what the aid gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from psysim.errors import SpecError
from psysim.experiments import load, loads, run
from psysim.experiments.sounds import Sounds
from psysim.experiments.spec import ExperimentSpec
from psysim.hearing.aids import CandidateError, LinearAid, load_aid

TEXT = """
title = "Absolute threshold, aided and unaided"
[stimulus]
kind = "tone"
duration_s = 0.1
ramp_s = 0.01
frequency_hz = 1000.0
[procedure]
tracks = "level_db_spl"
level_start = 60.0
level_min = -20.0
level_max = 110.0
steps = [8.0, 4.0, 2.0]
n_reversals = 2
[[observers]]
name = "unaided"
model = "moore2016"
decision = "loudness"
audiogram = "N4"
[[observers]]
name = "aided"
model = "moore2016"
decision = "loudness"
audiogram = "N4"
aid = {aid}
[run]
fs = 32000
n_tracks = 2
"""
FILE = 'kind = "linear"\nprescription = "NAL-R"\n'


def experiment(tmp_path: Path, aid: str = '"nal_r.toml"') -> ExperimentSpec:
    (tmp_path / "nal_r.toml").write_text(FILE, encoding="utf-8")
    (tmp_path / "experiment.toml").write_text(TEXT.format(aid=aid), encoding="utf-8")
    return load(tmp_path / "experiment.toml")


def trial(sounds: Sounds) -> Tensor:
    zero = torch.zeros(1, dtype=torch.int64)
    keys = sounds.keys(zero, zero, zero)
    level = torch.tensor([65.0], dtype=torch.float64)
    return sounds.make_intervals(zero, level, sounds.draw_target(zero, level, keys), keys)


def test_the_sounds_are_those_of_the_aid_with_its_delay(tmp_path: Path) -> None:
    spec = experiment(tmp_path)
    unaided, aided = Sounds(spec, 0), Sounds(spec, 1)
    assert unaided.aid is None
    assert isinstance(aided.aid, LinearAid)
    device = load_aid(tmp_path / "nal_r.toml", 32000.0, audiogram="N4")
    assert aided.n_samples == unaided.n_samples + device.delay
    x, y = trial(unaided), trial(aided)
    levels = [float(10 * torch.log10(s.square().sum(-1).amax())) for s in (x, y)]
    assert levels[1] - levels[0] == pytest.approx(0.31 * 55 + 9 - 0.05 * 5 + 1, abs=0.3)  # NAL-R of N4 at 1 kHz
    assert aided.target(torch.zeros(2, dtype=torch.int64), torch.arange(2), 65.0).shape == (2, aided.n_samples)


def test_an_aid_in_the_file_itself_is_the_same(tmp_path: Path) -> None:
    inline = Sounds(experiment(tmp_path, '{ kind = "linear", prescription = "NAL-R" }'), 1)
    named = Sounds(experiment(tmp_path), 1)
    assert torch.equal(trial(inline), trial(named))


def test_the_aided_threshold_is_lower(tmp_path: Path) -> None:
    """Functional gain: the insertion gain at 1 kHz, 26 dB, within the last step of the tracks and a half."""
    dataset = run(experiment(tmp_path))
    thresholds = dataset["threshold"].mean("track").sel(condition=0)
    gain = float(thresholds.sel(observer="unaided") - thresholds.sel(observer="aided"))
    assert gain == pytest.approx(0.31 * 55 + 9 - 0.25 + 1, abs=3.0)


@pytest.mark.parametrize(
    ("aid", "message"),
    [
        ('"nal_s.toml"', "Did you mean 'nal_r.toml'"),
        ('{ kind = "liner" }', "Did you mean 'linear'"),
        ('{ kind = "gain", gain = 3.0 }', "Did you mean 'gain_db'"),
        ('{ kind = "directional" }', "target and noise apart"),
        ("3.0", "An aid is a table"),
    ],
)
def test_a_wrong_aid_is_named(tmp_path: Path, aid: str, message: str) -> None:
    with pytest.raises(SpecError, match=r"observers\[1\].aid") as error:
        experiment(tmp_path, aid)
    assert message in str(error.value)


def test_a_prescription_needs_the_observers_audiogram() -> None:
    text = TEXT.format(aid='{ kind = "linear", prescription = "NAL-R" }').replace('audiogram = "N4"\n', "")
    with pytest.raises(SpecError, match="needs an audiogram"):
        loads(text)


def test_an_observer_that_hears_nothing_takes_no_aid() -> None:
    text = TEXT.format(aid='{ kind = "gain" }')
    start = text.index("[[observers]]")
    listener = '[[observers]]\ndecision = "simulated_listener"\naid = { kind = "gain" }\n[run]\nfs = 32000\n'
    with pytest.raises(SpecError, match="hears no sound"):
        loads(text[:start] + listener)


def test_checking_a_description_runs_no_candidate(tmp_path: Path) -> None:
    """The program would leave a trace; its failure in a run is told as what it is."""
    spec = experiment(
        tmp_path, '{ kind = "command", command = ["sh", "-c", "touch ran; exit 3", "{input}", "{output}"] }'
    )
    assert not (tmp_path / "ran").exists()
    with pytest.raises(CandidateError, match="status 3") as error:
        trial(Sounds(spec, 1))
    assert error.value.reason == "crash"
    assert (tmp_path / "ran").exists()


def test_what_the_files_of_an_aid_and_an_ear_hold_belongs_to_the_description(tmp_path: Path) -> None:
    (tmp_path / "ear.csv").write_text("frequency_hz,level_db_hl\n500,20\n4000,60\n", encoding="utf-8")
    text = TEXT.replace('audiogram = "N4"\naid', 'audiogram = { file = "ear.csv" }\naid')
    (tmp_path / "experiment.toml").write_text(text.replace("{aid}", '"nal_r.toml"'), encoding="utf-8")
    (tmp_path / "nal_r.toml").write_text(FILE, encoding="utf-8")
    before = load(tmp_path / "experiment.toml").to_toml()
    assert 'prescription = "NAL-R"' in before
    assert loads(before).to_toml() == before  # without the files
    (tmp_path / "nal_r.toml").write_text(FILE.replace("NAL-R", "half-gain"), encoding="utf-8")
    assert load(tmp_path / "experiment.toml").to_toml() != before
    (tmp_path / "nal_r.toml").write_text(FILE, encoding="utf-8")
    assert load(tmp_path / "experiment.toml").to_toml() == before
    (tmp_path / "ear.csv").write_text("frequency_hz,level_db_hl\n500,25\n4000,60\n", encoding="utf-8")
    assert load(tmp_path / "experiment.toml").to_toml() != before
