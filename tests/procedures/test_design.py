"""Simulated designs: the numbers against the tracks they come from, exact distributions and analysis."""

import numpy as np
import pytest

from psysim.errors import SpecError
from psysim.procedures import (
    AFC,
    Design,
    PsychometricFunction,
    Quest,
    Status,
    UpDown,
    compare_designs,
    registry,
    simulate_design,
    track_distribution,
)
from psysim.testing import run_tracks

LISTENER = PsychometricFunction(threshold=-14.0, slope=0.1, guess_rate=1 / 3)
SETTINGS = {"n_down": 3, "level_start": -4.0, "steps": [4.0, 2.0, 1.0]}


def test_three_down_against_its_exact_distribution() -> None:
    exact = track_distribution(UpDown(**SETTINGS), LISTENER)
    design = simulate_design(SETTINGS, LISTENER, n_tracks=10_000, seed=1)
    assert abs(design.bias - exact.bias) < 4.5 * exact.std / 100
    assert design.std == pytest.approx(exact.std, rel=4.5 * 0.0085)
    assert abs(design.mean_trials - exact.n_trials) < 4.5 * exact.n_trials_std / 100
    for percent in (10, 50, 90):
        at_most = np.cumsum(exact.trial_probability)
        n = int(design.trials_percentile(percent))
        assert at_most[n - 1] - 0.02 < percent / 100 < at_most[n] + 0.02


def test_the_numbers_are_those_of_the_converged_tracks() -> None:
    status = np.array(
        [Status.CONVERGED, Status.CONVERGED, Status.CONVERGED, Status.MAX_TRIALS, Status.AT_FLOOR], np.int8
    )
    threshold = np.array([1.0, 2.0, 6.0, np.nan, np.nan])
    n_trials = np.array([10, 20, 30, 40, 50], np.int32)
    design = Design(UpDown(**SETTINGS), 2.0, threshold, n_trials, status)
    assert design.n_converged == 3
    assert design.bias == pytest.approx(1.0)
    assert design.std == pytest.approx(np.sqrt((4 + 1 + 9) / 2))
    assert design.rmse == pytest.approx(np.sqrt((1 + 0 + 16) / 3))
    assert design.sem(4) == pytest.approx(design.std / 2)
    assert design.bias_sem == pytest.approx(design.std / np.sqrt(3))
    assert design.mean_trials == 30.0
    assert (design.trials_percentile(10), design.trials_percentile(60), design.trials_percentile(90)) == (10, 30, 50)
    assert design.shares == {"converged": 0.6, "max_trials": 0.2, "at_floor": 0.2}
    with pytest.raises(SpecError, match="at least 1"):
        design.sem(0)


def test_no_track_converges() -> None:
    design = simulate_design(SETTINGS | {"max_trials": 9}, LISTENER, n_tracks=50)
    assert design.shares == {"max_trials": 1.0}
    assert all(np.isnan(v) for v in (design.bias, design.std, design.rmse, design.bias_sem, design.sem(3)))
    assert design.mean_trials == 9


def test_a_track_depends_on_the_seed_and_its_number_only() -> None:
    few, many = (simulate_design(SETTINGS, LISTENER, n_tracks=n, seed=5) for n in (40, 90))
    np.testing.assert_array_equal(few.threshold, many.threshold[:40])
    other = simulate_design(SETTINGS, LISTENER, n_tracks=40, seed=6)
    assert (other.threshold != few.threshold).any()


def test_bayesian_rules_in_parts_are_the_same_tracks(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = dict(registry.get("quest").example_settings) | {"kind": "quest", "level_start": -10.0}
    whole = simulate_design(settings, LISTENER, n_tracks=30)
    monkeypatch.setattr("psysim.procedures.design.BAYES_LANES", 7)
    parts = simulate_design(settings, LISTENER, n_tracks=30)
    assert isinstance(parts.procedure, Quest)
    np.testing.assert_array_equal(parts.threshold, whole.threshold)
    np.testing.assert_array_equal(parts.status, whole.status)


@pytest.mark.parametrize("kind", registry.names())
def test_every_rule_has_a_design(kind: str) -> None:
    """With the example settings, on a listener in the middle of their levels."""
    rule = registry.get(kind)(**registry.get(kind).example_settings)
    guess = 0.0 if rule.target_proportion <= 0.5 else 1 / 3
    slope = -0.1 if rule.settings.harder > 0 else 0.1
    design = simulate_design(rule, PsychometricFunction(-14.0, slope, guess), n_tracks=20)
    assert len(design.threshold) == 20
    assert sum(design.shares.values()) == pytest.approx(1.0)
    assert (np.isfinite(design.threshold) <= (design.status == Status.CONVERGED)).all()


def test_rules_side_by_side_hear_the_same_luck() -> None:
    designs = compare_designs({"a": SETTINGS, "b": SETTINGS, "c": SETTINGS | {"n_down": 2}}, LISTENER, n_tracks=60)
    assert list(designs) == ["a", "b", "c"]
    np.testing.assert_array_equal(designs["a"].threshold, designs["b"].threshold)
    assert designs["c"].mean_trials < designs["a"].mean_trials


def test_factors_are_judged_in_db() -> None:
    """A listener in log level and steps in dB give the same tracks as levels in dB."""
    in_db = simulate_design(SETTINGS, LISTENER, n_tracks=200)
    slope = 0.1 / 10 ** (-14 / 20) * 20 / np.log(10)
    listener = PsychometricFunction(10 ** (-14 / 20), slope, 1 / 3, shape="log_logistic")
    factors = simulate_design(SETTINGS | {"level_start": 10 ** (-4 / 20), "step_unit": "db"}, listener, n_tracks=200)
    assert factors.in_db
    assert factors.level_target == pytest.approx(10 ** (in_db.level_target / 20))
    assert (factors.bias, factors.std, factors.rmse) == pytest.approx((in_db.bias, in_db.std, in_db.rmse))


def test_the_same_tracks_as_the_testing_helper_in_distribution() -> None:
    design = simulate_design(SETTINGS, LISTENER, n_tracks=4000, seed=2)
    other = run_tracks(UpDown(**SETTINGS), AFC(n_intervals=3), LISTENER, 4000, seed=2)
    error = np.sqrt(2) * design.std / np.sqrt(4000)
    assert abs(np.nanmean(design.threshold) - other.threshold.mean()) < 4.5 * error


@pytest.mark.parametrize(
    ("settings", "changes", "words"),
    [
        (SETTINGS, {"n_tracks": 1}, "n_tracks = 1 must be a whole number of at least 2"),
        (SETTINGS, {"n_tracks": 10.5}, "n_tracks = 10.5"),
        (SETTINGS, {"seed": -1}, "seed = -1"),
        (SETTINGS | {"kind": "up_dwn"}, {}, "Did you mean 'up_down'"),
        (SETTINGS | {"n_dwn": 2}, {}, "Did you mean 'n_down'"),
        (SETTINGS | {"n_down": 1}, {"listener": PsychometricFunction(-14.0, 0.1, 0.6)}, "never reaches"),
        (SETTINGS, {"listener": PsychometricFunction(-14.0, -0.1, 1 / 3)}, "harder = -1"),
        (SETTINGS, {"listener": PsychometricFunction(np.array([-14.0, -10.0]), 0.1)}, "one listener, not 2"),
    ],
)
def test_wrong_calls(settings: dict, changes: dict, words: str) -> None:
    with pytest.raises(SpecError) as error:
        simulate_design(settings, **{"listener": LISTENER} | changes)
    assert words in str(error.value)
