"""Matching in experiments: a variable sound against a standard of its own parameters."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import psysim
from psysim.errors import SpecError
from psysim.experiments import loads
from psysim.experiments.sounds import Sounds
from psysim.procedures import Matching

EXPERIMENT = """
title = "Matching"
[stimulus]
kind = "tone"
duration_s = 0.1
ramp_s = 0.01
[conditions]
standard_level_db_spl = [40.0, 70.0]
frequency_hz = [250.0, 1000.0]
[task]
kind = "matching"
[standard]
frequency_hz = 1000.0
[procedure]
kind = "interleaved"
tracks = "level_db_spl"
level_min = 0.0
level_max = 100.0
[[procedure.rules]]
kind = "up_down"
n_up = 1
n_down = 1
level_start = 80.0
steps = [8.0, 4.0, 2.0]
n_reversals = 6
[[procedure.rules]]
kind = "up_down"
n_up = 1
n_down = 1
level_start = 30.0
steps = [8.0, 4.0, 2.0]
n_reversals = 6
[[observers]]
{observer}
[run]
n_tracks = {tracks}
seed = 2
fs = 32000
"""
SIMULATED = 'decision = "simulated_listener"\nthreshold = 55.0\nslope = 0.1'
LOUDNESS = 'model = "moore2016"\ndecision = "loudness"'


def experiment(observer: str = SIMULATED, tracks: int = 50, **changes: str) -> psysim.ExperimentSpec:
    text = EXPERIMENT.format(observer=observer, tracks=tracks)
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return loads(text)


def level_db_spl(sound: torch.Tensor) -> float:
    """Level of the middle half, where no ramp is."""
    n = len(sound)
    return float(20 * torch.log10(sound[n // 4 : 3 * n // 4].square().mean().sqrt() / 20e-6))


def crossings(sound: torch.Tensor) -> int:
    return int((sound[1:] * sound[:-1] < 0).sum())


@pytest.mark.parametrize("order", ["random", "first"])
def test_the_standard_has_its_own_parameters_and_the_variable_sound_those_of_the_condition(order: str) -> None:
    sounds = Sounds(experiment(**{'kind = "matching"': f'kind = "matching"\nstandard = "{order}"'}))
    condition = torch.arange(4).repeat(8)
    track = torch.arange(32)
    keys = sounds.keys(condition, track, torch.zeros(32, dtype=torch.int64))
    levels = torch.full((32,), 50.0, dtype=torch.float64)
    target = sounds.draw_target(condition, levels, keys)
    assert set(target.tolist()) == ({0, 1} if order == "random" else {1})
    trials = sounds.make_intervals(condition, levels, target, keys)
    for c, place, (first, second) in zip(condition, target, trials, strict=True):
        variable, standard = (second, first) if place else (first, second)
        assert level_db_spl(variable) == pytest.approx(50.0, abs=0.05)
        assert level_db_spl(standard) == pytest.approx([40.0, 40.0, 70.0, 70.0][c], abs=0.05)
        assert crossings(variable) == pytest.approx([50, 200][c % 2], abs=3)
        assert crossings(standard) == pytest.approx(200, abs=3)


def test_tracks_settle_at_the_point_of_subjective_equality() -> None:
    dataset = psysim.run(experiment())
    assert bool((dataset["status"] == 1).all())
    assert dataset["threshold"].mean().item() == pytest.approx(55.0, abs=0.5)
    assert dataset["standard_level_db_spl"].values.tolist() == [40.0, 40.0, 70.0, 70.0]
    share = (dataset["response"] == dataset["target_interval"]).where(dataset["response"] >= 0).mean().item()
    assert share == pytest.approx(0.5, abs=0.03)


def test_a_tone_is_as_loud_as_itself_and_a_low_one_must_be_stronger() -> None:
    spec = experiment(LOUDNESS, tracks=2)
    measured = psysim.run(spec)["threshold"].mean("track").values[:, 0]
    predicted = psysim.predict_threshold(spec)["threshold"].values[:, 0, 0]
    assert predicted[[1, 3]] == pytest.approx([40.0, 70.0], abs=0.1)
    assert np.all(predicted[[0, 2]] > [45.0, 72.0])
    assert measured == pytest.approx(predicted, abs=1.5)


def test_the_standard_in_the_methods() -> None:
    from psysim.reports.methods import methods

    text = methods(psysim.run(experiment(tracks=2)))
    assert "before or after the standard, at random, was matched to a standard" in text
    assert "The standard had frequency 1000 Hz." in text


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"standard_level_db_spl = [40.0, 70.0]": ""}, "standard.level_db_spl: is missing"),
        ({"standard_level_db_spl": "standard_level_db"}, "conditions.standard_level_db: unknown key"),
        ({"[standard]": "[standard]\nlevel_db_spl = 40.0"}, "standard.level_db_spl: is also in [conditions]"),
        ({"[standard]": "[standard]\nduration = 1.0"}, "standard.duration: unknown key. Use 'duration_s'"),
        ({"[standard]": "[standard]\nduration_s = 0.0"}, "standard.duration_s: = 0.0 should be greater than 0"),
        ({"[standard]": '[standard]\nramp_shape = "linear"'}, "standard.ramp_shape: = 'linear' must be a number"),
        ({'kind = "matching"': 'kind = "afc"'}, "standard.frequency_hz: the task 'afc' has no standard"),
    ],
)
def test_mistakes_are_named(changes: dict[str, str], expected: str) -> None:
    with pytest.raises(SpecError, match=None) as error:
        experiment(**changes)
    assert expected in str(error.value)


def test_the_rule_counts_the_variable_sound_as_correct() -> None:
    task = Matching()
    assert task.correct([0, 1, 1], target=[0, 0, 1]).tolist() == [True, False, True]
    assert task.answer([True, False], target=[1, 1], uniform=[0.2, 0.2]).tolist() == [1, 0]
    assert float(task.proportion_correct(0.0)) == pytest.approx(0.5)
