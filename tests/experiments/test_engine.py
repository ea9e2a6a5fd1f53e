"""The engine: results depend on the description alone, nothing recorded is lost, tracks end."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from psysim.errors import StoreError
from psysim.experiments import load, loads
from psysim.experiments.engine import run
from psysim.experiments.prediction import predict_threshold
from psysim.experiments.recording import open_result
from psysim.experiments.sounds import Sounds
from psysim.models import Dau1997
from psysim.results import store
from psysim.results.tables import thresholds
from psysim.rng import Keys
from psysim.testing import assert_same_run

SIMULATED = """
title = "Simulated listener"
[stimulus]
kind = "tone"
frequency_hz = 1000.0
duration_s = 0.05
[conditions]
ramp_s = [0.01, 0.02]
[task]
kind = "afc"
n_intervals = 3
[procedure]
tracks = "level_db_spl"
level_start = 30.0
steps = [4.0, 2.0, 1.0]
n_reversals = 8
[[observers]]
decision = "simulated_listener"
threshold = 12.0
slope = 0.1
[run]
n_tracks = 12
seed = 3
fs = 8000
"""

# Small but real: two auditory channels, running noise, both kinds of randomness (carrier and internal noise)
MODELLED = """
title = "AM detection, small"
[stimulus]
kind = "am_noise"
level_db_spl = 65.0
duration_s = 0.06
ramp_s = 0.005
[conditions]
rate_hz = [32, 64]
[task]
kind = "afc"
n_intervals = 3
[procedure]
tracks = "depth_db"
level_start = -3.0
steps = [4.0, 2.0]
n_reversals = 4
max_trials = 60
[[observers]]
model = "dau1997"
decision = "optimal_detector"
template_tokens = 4
template_level = -3.0
internal_noise_std = 3.0
[observers.model_options]
flow = 900.0
fhigh = 1100.0
[run]
n_tracks = 6
seed = 3
fs = 8000
"""


@pytest.mark.parametrize("text", [SIMULATED, MODELLED], ids=["simulated", "modelled"])
def test_the_batch_size_changes_nothing(text: str) -> None:
    runs = [run(loads(text, overrides={"engine.batch": batch})) for batch in (1, 5, 64)]
    assert_same_run(runs[0], runs[1])
    assert_same_run(runs[0], runs[2])
    assert np.isfinite(runs[0]["threshold"]).all()


def test_a_standard_is_heard_first_and_never_chosen() -> None:
    """Three intervals with a standard are the task of two: the same prediction, and tracks within four errors."""
    cued, plain = ({"task.n_intervals": n, "task.standard": s} for n, s in ((3, "first"), (2, "none")))
    predicted = [predict_threshold(loads(MODELLED, overrides=text))["threshold"] for text in (cued, plain)]
    np.testing.assert_array_equal(*predicted)
    runs = [run(loads(MODELLED, overrides=text | {"run.n_tracks": 40})) for text in (cued, plain)]
    for name in ("response", "target_interval"):
        assert set(np.unique(runs[0][name])) == {-1, 1, 2}
    error = np.hypot(*(float(ds["threshold"].std() / np.sqrt(80)) for ds in runs))
    assert abs(float(runs[0]["threshold"].mean() - runs[1]["threshold"].mean())) < 4 * error


def test_one_pass_gives_the_same_tracks_as_the_representation_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    one_pass = run(loads(MODELLED))
    monkeypatch.setattr(Dau1997, "fused", lambda *_: None)
    in_memory = run(loads(MODELLED))
    for name in ("threshold", "level", "response"):
        np.testing.assert_array_equal(one_pass[name], in_memory[name])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_run_on_a_card_finds_the_thresholds_of_the_cpu() -> None:
    on_cpu, on_card = (run(loads(MODELLED), device=device)["threshold"] for device in ("cpu", "cuda"))
    # float32 rounding can turn a single answer of a track, never the mean of six by a step
    np.testing.assert_allclose(on_card.mean("track"), on_cpu.mean("track"), atol=2.0)


def test_more_tracks_leave_the_first_ones_as_they_were() -> None:
    few = run(loads(SIMULATED, overrides={"run.n_tracks": 3}))
    many = run(loads(SIMULATED))
    np.testing.assert_array_equal(few["threshold"], many["threshold"][..., :3])


def test_another_seed_gives_other_tracks() -> None:
    one, other = run(loads(SIMULATED)), run(loads(SIMULATED, overrides={"run.seed": 4}))
    assert not np.array_equal(one["threshold"], other["threshold"])


def test_a_simulated_listener_returns_its_threshold() -> None:
    """2-down 1-up settles at 70.7 %; the listener's function gives the level (logistic between 1/3 and 1)."""
    result = run(loads(SIMULATED, overrides={"run.n_tracks": 400, "procedure.n_reversals": 20}))
    share = (2**-0.5 - 1 / 3) / (2 / 3)
    expected = 12.0 + np.log(share / (1 - share)) / (4 * 0.1 / (2 / 3))
    mean = float(result["threshold"].mean())
    sem = float(result["threshold"].std() / np.sqrt(result["threshold"].size))
    # steps of 1 dB bias a 2-down 1-up track by less than 0.4 dB here; 4 standard errors are 0.2 dB
    assert abs(mean - expected) < 0.4 + 4 * sem


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path) -> None:
    spec = loads(MODELLED, overrides={"engine.batch": 4})
    whole = run(spec, tmp_path / "whole.zarr")
    steps = 0

    def interrupt(_: object) -> None:
        nonlocal steps
        steps += 1
        if steps % 7 == 0:
            raise KeyboardInterrupt

    out = tmp_path / "parts.zarr"
    for _ in range(100):
        try:
            parts = run(spec, out, resume=out.with_name("parts.zarr.partial").exists(), progress=interrupt)
            break
        except KeyboardInterrupt:
            unfinished = open_result(out)
            assert unfinished.attrs["complete"] == 0
            assert int(unfinished["n_trials"].sum()) > 0
    assert steps > 14
    assert_same_run(whole, parts)
    assert_same_run(store.load(tmp_path / "whole.zarr"), store.load(out))


def test_kill_9_loses_no_finished_trial(tmp_path: Path) -> None:
    """Killed at three random moments and resumed: the dataset of an uninterrupted run."""
    file = tmp_path / "am.toml"
    file.write_text(MODELLED)
    whole = run(load(file))
    out = tmp_path / "killed.zarr"
    journal = store.partial_path(out) / "journal.bin"
    command = [sys.executable, "-m", "psysim", "run", str(file), "--out", str(out), "--resume"]
    command += ["--set", "engine.batch=2"]
    chance = random.Random(11)
    killed = 0
    for _ in range(3):
        before = journal.stat().st_size if journal.exists() else 0
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        enough = before + chance.randrange(1, 40) * 42  # bytes: 42 for each trial of three intervals
        while process.poll() is None and not (journal.exists() and journal.stat().st_size > enough):
            time.sleep(0.002)
        time.sleep(chance.random() * 0.01)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.wait()
        assert store.state_of(out) == "complete" or journal.stat().st_size >= enough
    assert killed == 3
    subprocess.run(command, check=True, capture_output=True)
    assert_same_run(whole, store.load(out))
    assert not journal.exists()


def test_a_complete_result_is_never_replaced(tmp_path: Path) -> None:
    spec = loads(SIMULATED, overrides={"run.n_tracks": 2})
    first = run(spec, tmp_path / "a.zarr")
    with pytest.raises(StoreError, match="another --out"):
        run(spec, tmp_path / "a.zarr")
    assert_same_run(first, run(spec, tmp_path / "a.zarr", resume=True))
    with pytest.raises(StoreError, match="another experiment"):
        run(loads(SIMULATED), tmp_path / "a.zarr", resume=True)


def test_an_unfinished_run_is_not_continued_with_another_description(tmp_path: Path) -> None:
    def interrupt(progress: object) -> None:
        if progress.trials_new > 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(loads(SIMULATED), tmp_path / "a.zarr", progress=interrupt)
    with pytest.raises(StoreError, match="--resume"):
        run(loads(SIMULATED), tmp_path / "a.zarr")
    with pytest.raises(StoreError, match="another experiment description"):
        run(loads(SIMULATED, overrides={"run.seed": 9}), tmp_path / "a.zarr", resume=True)


def test_target_positions_are_uniform() -> None:
    spec = loads(SIMULATED)
    sounds = Sounds(spec)
    n = 10_000
    zero = torch.zeros(n, dtype=torch.int64)
    keys = sounds.keys(zero, zero, torch.arange(n))
    counts = np.bincount(sounds.draw_target(zero, zero.double(), keys).numpy(), minlength=3)
    assert ((counts - n / 3) ** 2 / (n / 3)).sum() < 13.8  # chi-square, 2 degrees of freedom, p = 0.001


FLOOR = {
    "procedure.level_start": -80.0,  # nothing can be heard: no modulation to speak of
    "procedure.level_min": -80.5,
    "procedure.level_max": -79.5,
    "procedure.steps": [0.1],
    "procedure.stop": "trials",
    "procedure.n_trials": 60,
    "procedure.limit_trials": 1000,
    "observers.0.template_level": -3.0,
    "run.n_tracks": 84,
    "engine.batch": 84,
}


def test_choices_at_floor_level_are_uniform() -> None:
    """A model observer that hears nothing chooses every interval equally often, whatever the target's place."""
    result = run(loads(MODELLED.replace("n_reversals = 4\n", ""), overrides=FLOOR))
    response, target = result["response"].values.ravel(), result["target_interval"].values.ravel()
    response, target = response[response >= 0], target[target >= 0]
    n = len(response)
    assert n >= 10_000
    for values in (response, target):
        counts = np.bincount(values, minlength=3)
        assert ((counts - n / 3) ** 2 / (n / 3)).sum() < 13.8  # chi-square, 2 degrees of freedom, p = 0.001
    together = np.bincount(3 * target + response, minlength=9)
    assert ((together - n / 9) ** 2 / (n / 9)).sum() < 26.1  # 8 degrees of freedom, p = 0.001


@pytest.mark.parametrize(
    ("threshold", "expected"), [(500.0, "at_ceiling"), (-500.0, "at_floor")], ids=["deaf", "all-hearing"]
)
def test_a_track_that_cannot_converge_ends_with_its_status(threshold: float, expected: str) -> None:
    limits = {"procedure.level_min": 0.0, "procedure.level_max": 60.0, "observers.0.threshold": threshold}
    start = {"procedure.level_start": 56.0 if threshold > 0 else 4.0, "observers.0.slope": 1.0}
    result = run(loads(SIMULATED, overrides={**limits, **start}))
    names = result["status"].attrs["flag_meanings"].split()
    assert {names[s] for s in result["status"].values.ravel()} == {expected}
    assert np.isnan(result["threshold"]).all()
    assert int(result["n_trials"].max()) <= 200
    table = thresholds(result)
    assert (table["n_converged"] == 0).all()


def test_max_trials_ends_a_track() -> None:
    result = run(loads(SIMULATED, overrides={"procedure.max_trials": 9}))
    names = result["status"].attrs["flag_meanings"].split()
    assert {names[s] for s in result["status"].values.ravel()} == {"max_trials"}


def test_an_observer_that_fails_numerically_is_named() -> None:
    """A model output that is not finite ends the track with the status invalid_output."""
    from psysim.observers import Observer, registry

    class Broken(Observer):
        needs_model = False

        def decision_variable(self, intervals, condition):
            return torch.full(intervals.shape[:2], torch.nan)

    registry._load()
    registry._items["broken_for_test"] = Broken
    try:
        text = SIMULATED.replace('"simulated_listener"\nthreshold = 12.0\nslope = 0.1', '"broken_for_test"')
        result = run(loads(text))
    finally:
        del registry._items["broken_for_test"]
    names = result["status"].attrs["flag_meanings"].split()
    assert {names[s] for s in result["status"].values.ravel()} == {"invalid_output"}


YES_NO = SIMULATED.replace('kind = "afc"\nn_intervals = 3', 'kind = "yes_no"')


def test_yes_no_trials() -> None:
    result = run(loads(YES_NO))
    target = result["target_interval"].values[result["response"].values >= 0]
    assert set(np.unique(target)) == {-2, 0}
    correct, response = (result[name].values[result["response"].values >= 0] for name in ("correct", "response"))
    np.testing.assert_array_equal(correct == 1, (response == 1) == (target == 0))


def test_yes_no_with_a_model() -> None:
    text = MODELLED.replace('kind = "afc"\nn_intervals = 3', 'kind = "yes_no"')
    result = run(loads(text))
    response = result["response"].values
    assert set(np.unique(response[response >= 0])) == {0, 1}


def test_frozen_noise_is_the_same_in_all_intervals_and_trials() -> None:
    spec = loads(MODELLED, overrides={"task.noise": "frozen"})
    sounds = Sounds(spec)
    index = torch.arange(2)
    keys = sounds.keys(torch.zeros_like(index), index, index)
    silent = torch.full((2,), -torch.inf, dtype=torch.float64)
    made = sounds.make_intervals(torch.zeros_like(index), silent, torch.zeros_like(index), keys)
    assert torch.equal(made, made[:1, :1].expand_as(made))
    running = Sounds(loads(MODELLED)).make_intervals(torch.zeros_like(index), silent, torch.zeros_like(index), keys)
    assert not torch.equal(running[0, 0], running[0, 1])


def test_rove_moves_the_level_of_intervals_or_trials() -> None:
    for per, same in (("interval", False), ("trial", True)):
        spec = loads(SIMULATED, overrides={"task.rove_db": 10.0, "task.rove_per": per})
        sounds = Sounds(spec, dtype=torch.float64)
        n = 200
        zero = torch.zeros(n, dtype=torch.int64)
        keys = sounds.keys(zero, zero, torch.arange(n))
        spec_reference = Sounds(loads(SIMULATED), dtype=torch.float64)
        level = torch.full((n,), 30.0, dtype=torch.float64)
        made = sounds.make_intervals(zero, level, zero, keys)[:, 0]
        plain = spec_reference.make_intervals(zero, level, zero, keys)[:, 0]
        rove = 20 * torch.log10(made.norm(dim=1) / plain.norm(dim=1))
        assert float(rove.min()) >= -5
        assert float(rove.max()) <= 5
        assert float(rove.std()) == pytest.approx(10 / 12**0.5, rel=0.15)
        drawn = sounds._rove(keys).reshape(n, 3)
        assert bool((drawn[:, 0] == drawn[:, 1]).all()) is same


def test_training_sounds_never_meet_those_of_trials() -> None:
    sounds = Sounds(loads(MODELLED), dtype=torch.float64)
    zero = torch.zeros(1, dtype=torch.int64)
    trained = sounds.reference(zero, zero)
    keys = sounds.keys(zero, zero, zero)
    heard = sounds.make_intervals(zero, torch.full((1,), -torch.inf, dtype=torch.float64), zero, keys)
    assert not any(torch.equal(trained[0], heard[0, i]) for i in range(3))
    assert isinstance(keys, Keys)
