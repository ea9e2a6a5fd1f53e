"""The public helpers for tests."""

import json
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

from psysim.procedures import AFC, PsychometricFunction, UpDown, YesNo
from psysim.testing import assert_same_run, assert_same_state, run_tracks, simulated_responder

LISTENER = PsychometricFunction(threshold=-14.0, slope=0.1, guess_rate=1 / 3)
RULE = UpDown(level_start=-4.0, level_max=0.0, steps=[4.0, 2.0, 1.0])


def some_run(**provenance):
    return xr.Dataset(
        {"level": (("observer", "trial"), [[0.0, -4.0, np.nan]], {"units": "dB"})},
        coords={"observer": np.array(["model"])},
        attrs={"title": "a run", "provenance": json.dumps({"seed": 1, "created": "Monday"} | provenance)},
    )


def test_runs_may_differ_in_their_times():
    assert_same_run(some_run(), some_run(created="Tuesday", elapsed_s=3.0))


def test_texts_may_be_stored_in_any_string_type():
    as_objects = some_run().assign_coords(observer=np.array(["model"], dtype=object))
    as_strings = some_run().assign_coords(observer=np.array(["model"], dtype=np.dtypes.StringDType()))
    assert_same_run(some_run(), as_objects)
    assert_same_run(as_strings, as_objects)


@pytest.mark.parametrize(
    "change",
    [
        lambda run: run.assign(level=run.level + 1e-12),
        lambda run: run.assign(level=run.level.astype(np.float32)),
        lambda run: run.assign(level=run.level.assign_attrs(units="dB SPL")),
        lambda run: run.assign_coords(observer=["other"]),
        lambda run: run.assign_attrs(title="another run"),
        lambda _: some_run(seed=2),
        lambda run: run.isel(trial=[0, 1]),
        lambda run: run.rename(level="depth"),
    ],
)
def test_runs_that_differ_otherwise_are_not_the_same(change):
    with pytest.raises(AssertionError):
        assert_same_run(some_run(), change(some_run()))


def test_states_that_differ_are_not_the_same():
    assert_same_state(RULE.init(2), RULE.init(2))
    with pytest.raises(AssertionError, match="n_trials"):
        assert_same_state(RULE.init(2), RULE.record(RULE.init(2), np.array([True, True])))
    with pytest.raises(AssertionError):
        assert_same_state(RULE.init(2), RULE.init(3))


# -- simulated listeners ---------------------------------------------------------------------------------------------


def test_answers_depend_on_seed_lane_and_trial_only():
    responder = simulated_responder(-14.0, 0.1, guess_rate=1 / 3, seed=5)
    lane, trial = np.meshgrid(np.arange(40), np.arange(30))
    lane, trial = lane.ravel(), trial.ravel()
    level = np.full(lane.shape, -14.0)
    everything = responder(level, lane, trial)
    order = np.random.default_rng(0).permutation(len(lane))[:200]
    np.testing.assert_array_equal(responder(level[order], lane[order], trial[order]), everything[order])
    other = simulated_responder(-14.0, 0.1, guess_rate=1 / 3, seed=6)(level, lane, trial)
    # two independent listeners with 2/3 correct agree in 5/9 of 1200 answers, within 4.5 standard errors
    assert abs(np.mean(other == everything) - 5 / 9) < 4.5 * np.sqrt(5 / 9 * 4 / 9 / 1200)


def test_answers_follow_the_psychometric_function():
    """20000 answers at each level: within 4.5 standard errors of the function."""
    responder, n = simulated_responder(-14.0, 0.1, guess_rate=1 / 3, lapse_rate=0.02, seed=7), 20_000
    function = PsychometricFunction(-14.0, 0.1, 1 / 3, 0.02)
    for trial, level in enumerate([-25.0, -14.0, -10.0, 10.0]):
        p = float(function(level))
        share = responder(np.full(n, level), np.arange(n), trial).mean()
        assert abs(share - p) < 4.5 * np.sqrt(p * (1 - p) / n)


def test_tracks_of_lanes_do_not_depend_on_their_number():
    few, many = (run_tracks(RULE, AFC(n_intervals=3), LISTENER, n, seed=9) for n in (20, 300))
    np.testing.assert_array_equal(few.threshold, many.threshold[:20])
    np.testing.assert_array_equal(few.n_trials, many.n_trials[:20])
    assert len(np.unique(many.threshold)) > 20


def test_tracks_find_the_threshold():
    summary = run_tracks(RULE, AFC(n_intervals=3), LISTENER, 2000, seed=10)
    assert np.all(summary.status == 1)
    # half the smallest step; the standard error of the mean of 2000 tracks is 0.02 dB
    assert abs(summary.threshold.mean() - LISTENER.inverse(2**-0.5)) < 0.5


def test_yes_no_tracks():
    listener = PsychometricFunction(threshold=-14.0, slope=0.1, guess_rate=0.5)
    summary = run_tracks(RULE, YesNo(p_target=0.5), listener, 500, seed=11)
    assert abs(summary.threshold.mean() - listener.inverse(2**-0.5)) < 0.5


def test_the_module_needs_neither_hypothesis_nor_torch():
    code = "import sys, psysim.testing; sys.exit(bool({'hypothesis', 'torch', 'xarray'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
