"""A trained network as the observer of an experiment: detection, discrimination, identification, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import psysim
from psysim.errors import SpecError
from psysim.evaluation.recipe import loads_recipe
from psysim.evaluation.training import train
from psysim.experiments.sounds import Sounds
from psysim.experiments.spec import SpecProblems, loads
from psysim.observers.network import NetworkObserver, trained_networks, trained_path
from psysim.procedures.tasks_closed_set import confusion_matrix

SHARED = """
fs = 4000
layers = [
  { type = "conv2d", filters = 4, kernel_size = [1, 5], strides = [1, 5] },
  { type = "relu" },
  { type = "batchnormalization" },
  { type = "flatten" },
]
[nerve]
limit_hz = 300
fs_out = 1000
num_cf = 8
max_cf = 1900
[training]
batch = 16
n_steps = 60
learning_rate = 0.02
validate_every = 30
n_validation = 32
n_test = 32
[stimulus]
kind = "tone"
duration_s = 0.05
ramp_s = 0.005
"""
FREQUENCY = f"""
title = "Frequency"
{SHARED}
[vary]
frequency_hz = {{ low = 200.0, high = 1600.0, scale = "log" }}
level_db_spl = {{ low = 50.0, high = 60.0 }}
[heads.frequency]
kind = "value"
parameter = "frequency_hz"
n_classes = 12
"""
PRESENCE = f"""
title = "Tone in quiet"
{SHARED}
frequency_hz = 500.0
[vary]
level_db_spl = {{ low = 10.0, high = 60.0 }}
[heads.tone]
kind = "present"
tracks = "level_db_spl"
"""
EXPERIMENT = """
title = "Tones"
[stimulus]
kind = "tone"
duration_s = 0.05
ramp_s = 0.005
STIMULUS
[task]
TASK
[procedure]
tracks = "TRACKS"
level_start = START
steps = [8.0, 4.0, 2.0]
n_up = 1
n_down = 2
n_reversals = 6
[[observers]]
decision = "network"
path = "PATH"
[run]
n_tracks = 6
fs = FS
"""


@pytest.fixture(scope="module")
def frequency(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("frequency")
    train(loads_recipe(FREQUENCY), out)
    return out / "model.safetensors"


@pytest.fixture(scope="module")
def presence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("presence")
    train(loads_recipe(PRESENCE), out)
    return out / "model.safetensors"


def experiment(path: Path, **changes: str) -> psysim.ExperimentSpec:
    text = EXPERIMENT.replace("PATH", str(path))
    for name, value in {
        "STIMULUS": "level_db_spl = 55.0\nfrequency_hz = 500.0",
        "TASK": 'kind = "afc"\nn_intervals = 3',
        "TRACKS": "frequency_increment_hz",
        "START": "400.0",
        "FS": "4000",
        **changes,
    }.items():
        text = text.replace(name, value)
    return loads(text)


def discrimination(path: Path, **changes: str) -> xr.Dataset:
    return psysim.run(experiment(path, **changes))


def test_the_highest_frequency_is_heard_out(frequency: Path) -> None:
    run = discrimination(frequency)
    assert bool((run["status"] == 1).all())
    threshold = float(run["threshold"].mean())
    assert 1.0 < threshold < 200.0
    facts = json.loads(run.attrs["provenance"])["calibration"]["network"]
    assert facts["status"].endswith("of the trained network")
    assert facts["test"]["accuracy"]["frequency"] > 0.25
    other_rate = float(discrimination(frequency, FS="8000")["threshold"].mean())
    assert other_rate == pytest.approx(threshold, rel=0.6)  # other random numbers, the same network


def test_the_lowest_may_be_asked_for(frequency: Path) -> None:
    observer = NetworkObserver(NetworkObserver.Settings(path=str(frequency)))
    reverse = NetworkObserver(NetworkObserver.Settings(path=str(frequency), choose="lowest"))
    sounds = Sounds(experiment(frequency))
    zero = torch.zeros(20, dtype=torch.int64)
    keys = sounds.keys(zero, torch.arange(20), zero)
    level = torch.full((20,), 700.0, dtype=torch.float64)
    target = sounds.draw_target(zero, level, keys)
    intervals = sounds.make_intervals(zero, level, target, keys)
    trial = psysim.observers.Trial(intervals, zero, level, target, keys, sounds.task)
    observer.prepare(sounds)
    reverse.prepare(sounds)
    heard, lowest = observer.respond(trial), reverse.respond(trial)
    assert float((heard.choice == target).double().mean()) > 0.9
    assert not bool((lowest.choice == target).any())
    torch.testing.assert_close(lowest.decision_variable, -heard.decision_variable, rtol=0, atol=0)


def test_answers_do_not_depend_on_the_batch(frequency: Path) -> None:
    whole = discrimination(frequency)
    parts = psysim.run(loads(experiment(frequency).to_toml(), overrides={"engine.batch": 2}))
    np.testing.assert_array_equal(whole["response"], parts["response"])
    np.testing.assert_allclose(whole["decision_variable"], parts["decision_variable"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("task", ['kind = "afc"\nn_intervals = 2', 'kind = "yes_no"'])
def test_a_tone_is_detected(presence: Path, task: str) -> None:
    run = psysim.run(
        experiment(presence, STIMULUS="frequency_hz = 500.0", TASK=task, TRACKS="level_db_spl", START="60.0")
    )
    assert bool((run["status"] == 1).all())
    assert 0.0 < float(run["threshold"].mean()) < 40.0


def test_classes_by_name_are_log_odds(frequency: Path) -> None:
    settings = NetworkObserver.Settings(path=str(frequency), head="frequency")
    observer = NetworkObserver(settings)
    names = observer.network.labels["frequency"]
    some = NetworkObserver(settings.model_copy(update={"target": names[3:5]}))
    sounds = Sounds(experiment(frequency))
    zero = torch.zeros(4, dtype=torch.int64)
    keys = sounds.keys(zero, torch.arange(4), zero)
    level = torch.full((4,), 100.0, dtype=torch.float64)
    target = sounds.draw_target(zero, level, keys)
    intervals = sounds.make_intervals(zero, level, target, keys)
    trial = psysim.observers.Trial(intervals, zero, level, target, keys, sounds.task)
    some.prepare(sounds)
    found = some.respond(trial).decision_variable
    p = observer.logits(intervals.flatten(0, 1), keys.flatten())["frequency"].softmax(-1)[:, 3:5].sum(-1)
    torch.testing.assert_close(found.flatten(), (p / (1 - p)).log(), rtol=1e-6, atol=1e-6)


def test_what_does_not_fit_is_refused(frequency: Path) -> None:
    with pytest.raises(SpecProblems, match="either network"):
        loads(EXPERIMENT_WITHOUT_SOURCE)
    with pytest.raises(SpecProblems, match="no trained network 'tone_in_nose'"):
        loads(EXPERIMENT_WITHOUT_SOURCE.replace('"network"', '"network"\nnetwork = "tone_in_nose"'))
    with pytest.raises(SpecError, match=r"takes 0\.05 s"):
        discrimination(frequency, STIMULUS="level_db_spl = 55.0\nsilence_after_s = 0.1")
    observer = NetworkObserver(NetworkObserver.Settings(path=str(frequency), head="frequncy"))
    with pytest.raises(SpecError, match="has the heads frequency"):
        observer._head({"frequency": torch.zeros(1, 2)})
    with pytest.raises(SpecError, match="no head that names 10 labels at place 3"):
        observer._named({"frequency": torch.zeros(1, 12)}, torch.tensor([2]), 10)
    with pytest.raises(SpecError, match="respond"):
        observer.decision_variable(torch.zeros(1, 1, 100), torch.zeros(1, dtype=torch.int64))


EXPERIMENT_WITHOUT_SOURCE = """
title = "x"
[stimulus]
kind = "tone"
[procedure]
tracks = "level_db_spl"
level_start = 50.0
steps = [4.0]
[[observers]]
decision = "network"
"""

WORDS = """
title = "Words"
[stimulus]
kind = "speech_in_noise"
lead_s = 0.1
lag_s = 0.1
[task]
kind = "identification"
n_alternatives = 10
PLACE
[procedure]
kind = "constant_stimuli"
tracks = "snr_db"
levels = [9.9, 10.1]
n_per_level = 6
level_start = 10.0
[[observers]]
OBSERVER
[run]
n_tracks = 5
fs = 20000
"""


def test_a_word_is_named_by_a_simulated_listener_as_often_as_it_should() -> None:
    text = WORDS.replace("OBSERVER", 'decision = "simulated_listener"\nthreshold = 10.0\nslope = 0.1')
    run = psysim.run(loads(text.replace("PLACE", "").replace("n_per_level = 6", "n_per_level = 50")))
    assert run.attrs["n_labels"] == 10
    assert float(run["correct"].mean()) == pytest.approx(0.55, abs=0.08)  # halfway between 1/10 and 1
    counts = confusion_matrix(run["target_interval"].values.ravel(), run["response"].values.ravel(), 10)
    assert counts.sum() == 500
    assert (counts.sum(axis=1) > 20).all()
    assert (counts.sum(axis=0) > 20).all()


@pytest.mark.parametrize("place", [None, 3])
def test_the_label_is_that_of_the_sound(place: int | None) -> None:
    text = WORDS.replace("OBSERVER", 'decision = "simulated_listener"\nthreshold = 10.0\nslope = 0.1')
    spec = loads(text.replace("PLACE", "" if place is None else f"place = {place}"))
    sounds = Sounds(spec)
    zero = torch.zeros(40, dtype=torch.int64)
    keys = sounds.keys(zero, torch.arange(40), zero)
    level = torch.full((40,), 10.0, dtype=torch.float64)
    places = sounds.place(keys)
    assert set(places.tolist()) == (set(range(5)) if place is None else {2})
    target = sounds.draw_target(zero, level, keys, places)
    stimulus = psysim.stimuli.registry.get("speech_in_noise")()
    labels = stimulus.labels({**spec.stimulus, "snr_db": level}, keys[:, 0])
    assert target.tolist() == [int(row[where]) for row, where in zip(labels, places, strict=True)]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("n_alternatives = 10", "n_alternatives = 9", "task.n_alternatives: = 9, but the sounds have 10"),
        ("PLACE", "place = 6", "task.place: = 6, but the sounds have 5"),
        ('"speech_in_noise"\nlead_s = 0.1\nlag_s = 0.1', '"tone_in_noise"', "needs a stimulus with labels"),
        ("OBSERVER", 'decision = "optimal_detector"\nmodel = "dau1997"', "cannot name what it hears"),
    ],
)
def test_mistakes_of_an_identification(old: str, new: str, message: str) -> None:
    text = WORDS.replace(old, new).replace("PLACE", "")
    text = text.replace("OBSERVER", 'decision = "simulated_listener"\nthreshold = 10.0')
    with pytest.raises(SpecError, match=message):
        psysim.run(loads(text))


def test_the_shipped_networks_have_observers() -> None:
    for name in trained_networks():
        observer = NetworkObserver(NetworkObserver.Settings(network=name))
        assert observer.calibration["test"]["accuracy"]
        assert trained_path(name).is_file()
