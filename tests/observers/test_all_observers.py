"""What every observer with a model promises: it runs in every task, and nothing depends on the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from psysim.errors import SpecError
from psysim.experiments import loads
from psysim.experiments.engine import make_observer, run
from psysim.experiments.sounds import Sounds
from psysim.models import registry as models
from psysim.observers import registry
from psysim.testing import assert_same_run

OBSERVERS = [name for name in registry.names() if registry.get(name).needs_model]

# Modulation detection with running noise, and discrimination of the level of a tone: small, but with every kind of
# randomness (carrier, internal noise, ties)
DETECTION = """
title = "AM detection, small"
[stimulus]
kind = "am_noise"
level_db_spl = 65.0
duration_s = 0.06
ramp_s = 0.005
[conditions]
rate_hz = [32, 64]
[procedure]
tracks = "depth_db"
level_start = -3.0
n_up = 1
n_down = 2
steps = [4.0, 2.0]
n_reversals = 4
max_trials = 30
"""
DISCRIMINATION = """
title = "Level discrimination, small"
[stimulus]
kind = "tone"
frequency_hz = 1000.0
level_db_spl = 60.0
duration_s = 0.06
ramp_s = 0.005
[procedure]
tracks = "level_increment_db"
level_start = 6.0
n_up = 1
n_down = 2
steps = [2.0, 1.0]
n_reversals = 4
max_trials = 30
"""
SETTINGS = {
    "optimal_detector": "internal_noise_std = 3.0\ntemplate_tokens = 4",
    "casp": 'n_down = 2\ncorrelation = "covariance"\ninternal_noise_var = 9.0\ntemplate_tokens = 4',
    "king2019": "additive_noise_std = 300.0\nmemory_noise_std = 30.0\ntemplate_tokens = 4",
    "decision_variable": "internal_noise_std = 1.0",
    "loudness": "internal_noise_std = 0.1\nquantity = 'short_term'",
    "binaural": "monaural_noise_std = 3.0\nbinaural_noise_std = 0.04\ntemplate_tokens = 4",
    "two_templates": "internal_noise_std = 1.0\ntemplate_tokens = 4\ncriterion_tokens = 5",
}
MODEL = """
[[observers]]
decision = "{name}"
{model}
{settings}
[run]
n_tracks = 2
seed = 3
fs = 8000
"""
AFC = "[task]\nkind = 'afc'\nn_intervals = {}\n"
YES_NO = "[task]\nkind = 'yes_no'\n"


def experiment(name: str, sounds: str = DETECTION, task: str = AFC.format(3)) -> str:
    """Return an experiment for one observer; the one that cannot answer yes or no by its default rule draws answers."""
    settings = SETTINGS[name]
    if name == "casp" and task == YES_NO:
        settings = settings.replace("n_down = 2", 'response_rule = "drawn"')
    model = 'model = "dau1997"\nmodel_options = { flow = 900.0, fhigh = 1100.0 }'
    if name == "loudness":
        model = 'model = "glasberg2002"'
    return sounds + task + MODEL.format(name=name, settings=settings, model=model)


def test_every_observer_is_here() -> None:
    assert set(OBSERVERS) == set(SETTINGS)


TASKS = {"2": AFC.format(2), "3": AFC.format(3), "4": AFC.format(4), "yes_no": YES_NO}
CASES = [pytest.param(DETECTION, task, id=f"detection-{name}") for name, task in TASKS.items()]
CASES += [pytest.param(DISCRIMINATION, TASKS[name], id=f"discrimination-{name}") for name in ("2", "yes_no")]


@pytest.mark.parametrize(("sounds", "task"), CASES)
@pytest.mark.parametrize("name", OBSERVERS)
def test_runs_in_every_task_whatever_the_batch(name: str, sounds: str, task: str) -> None:
    text = experiment(name, sounds, task)
    one, all_at_once = (run(loads(text, overrides={"engine.batch": batch})) for batch in (1, 64))
    assert_same_run(one, all_at_once)
    values = one["decision_variable"].values[one["response"].values >= 0]
    assert np.isfinite(values).all()
    assert values.std() > 0
    correct = one["correct"].values[one["response"].values >= 0]
    assert 0 < correct.mean() < 1


@pytest.mark.parametrize("name", OBSERVERS)
def test_more_tracks_leave_the_first_ones_as_they_were(name: str) -> None:
    few, many = (run(loads(experiment(name), overrides={"run.n_tracks": n})) for n in (1, 2))
    np.testing.assert_array_equal(few["level"], many["level"][:, :, :1, : few.sizes["trial"]])


@pytest.mark.parametrize("name", OBSERVERS)
def test_one_pass_gives_the_tracks_of_the_representation_in_memory(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one_pass = run(loads(experiment(name)))
    monkeypatch.setattr(models.get("dau1997"), "fused", lambda *_: None)
    in_memory = run(loads(experiment(name)))
    for variable in ("threshold", "level", "response"):
        np.testing.assert_array_equal(one_pass[variable], in_memory[variable])
    # of sums up to 1e4 times as large as their difference from the reference
    np.testing.assert_allclose(one_pass["decision_variable"], in_memory["decision_variable"], rtol=1e-6, atol=1e-7)


def prepared(name: str) -> tuple[object, Sounds, Tensor]:
    """Return an observer that is ready, its sounds, and trials (4, 3, T)."""
    spec = loads(experiment(name))
    observer = make_observer(spec, 0)
    sounds = Sounds(spec)
    observer.prepare(sounds)
    condition = torch.tensor([0, 1, 1, 0])
    keys = sounds.keys(condition, torch.arange(4), torch.zeros(4, dtype=torch.int64))
    levels = torch.full((4,), -3.0, dtype=torch.float64)
    return observer, sounds, sounds.make_intervals(condition, levels, torch.tensor([0, 1, 2, 0]), keys)


@pytest.mark.parametrize("name", OBSERVERS)
def test_the_decision_variable_is_differentiable_and_the_same_in_any_batch(name: str) -> None:
    observer, _, intervals = prepared(name)
    condition = torch.tensor([0, 1, 1, 0])
    with torch.no_grad():
        values = observer.decision_variable(intervals, condition)
        assert values.shape == (4, 3)
        assert values.dtype == torch.float64
        for order in ([2], [3, 0], [0, 1, 2, 3] * 3):
            assert torch.equal(observer.decision_variable(intervals[order], condition[order]), values[order])
    x = intervals[:1].clone().requires_grad_()
    with_gradient = observer.decision_variable(x, condition[:1])
    torch.testing.assert_close(with_gradient.detach(), values[:1], rtol=1e-6, atol=1e-6)
    (slope,) = torch.autograd.grad(with_gradient.sum(), x)
    assert slope.isfinite().all()
    assert slope.abs().amax(-1).gt(0).all()


@pytest.mark.parametrize("name", OBSERVERS)
def test_a_sample_that_is_not_finite_spoils_its_interval_only(name: str) -> None:
    observer, _, intervals = prepared(name)
    condition = torch.tensor([0, 1, 1, 0])
    with torch.no_grad():
        clean = observer.evaluate(intervals, condition)[0]
        intervals[1, 2, 50] = torch.nan
        spoilt = observer.evaluate(intervals, condition)[0]
    assert spoilt[1, 2].isnan()
    spoilt[1, 2] = clean[1, 2]
    assert torch.equal(spoilt, clean)


@pytest.mark.parametrize("name", OBSERVERS)
def test_memory_does_not_change_the_templates(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    observer, _, intervals = prepared(name)
    monkeypatch.setattr("psysim.observers.template.CHUNK_BYTES", 1)
    monkeypatch.setattr("psysim.observers.decision_variable.CHUNK_BYTES", 1)
    other, *_ = prepared(name)
    condition = torch.tensor([0, 1, 1, 0])
    with torch.no_grad():
        for a, b in zip(observer.evaluate(intervals, condition), other.evaluate(intervals, condition), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("name", OBSERVERS)
def test_a_model_is_needed(name: str) -> None:
    kind = registry.get(name)
    required = {"casp": {"n_down": 2}}.get(name, {})
    with pytest.raises(SpecError, match="needs an auditory model"):
        kind(kind.Settings(**required), None)


@pytest.mark.parametrize("name", OBSERVERS)
def test_the_calibration_says_how_the_noise_was_set(name: str) -> None:
    observer, *_ = prepared(name)
    assert observer.calibration["status"] == "given"
