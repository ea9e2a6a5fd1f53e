from __future__ import annotations

import math

import numpy as np
import pytest

from psysim.errors import SpecError
from psysim.results import STATUS, bootstrap_interval, empty_dataset, thresholds, tracks

CONVERGED, AT_CEILING, INVALID = (STATUS.index(s) for s in ("converged", "at_ceiling", "invalid_output"))


@pytest.fixture
def run():
    """Return two conditions, two observers, four tracks with thresholds and outcomes known by hand."""
    ds = empty_dataset({"rate_hz": [4, 8]}, ["a", "b"], 4, 10, 3, "dB", "Modulation depth")
    ds["threshold"].values[0, 0] = [-20, -22, -24, -30]
    ds["status"].values[0, 0] = CONVERGED
    ds["threshold"].values[0, 1] = [-10, -14, -1, np.nan]
    ds["status"].values[0, 1] = [CONVERGED, CONVERGED, AT_CEILING, INVALID]
    ds["threshold"].values[1, 0] = [-5, 0, 0, 0]
    ds["status"].values[1, 0] = [CONVERGED, AT_CEILING, AT_CEILING, AT_CEILING]
    ds["status"].values[1, 1] = AT_CEILING
    ds["n_trials"].values[0, 0] = [4, 6, 8, 10]
    return ds


def test_thresholds_by_hand(run):
    table = thresholds(run)
    assert table[["condition", "rate_hz", "observer"]].values.tolist() == [
        [0, 4, "a"],
        [0, 4, "b"],
        [1, 8, "a"],
        [1, 8, "b"],
    ]
    first, second, third, fourth = (row for _, row in table.iterrows())
    # -20, -22, -24, -30: mean -24, deviations 4, 2, 0, -6, variance 56 / 3
    assert first["threshold"] == -24
    assert first["threshold_median"] == -23
    assert first["threshold_sd"] == pytest.approx(math.sqrt(56 / 3))
    assert first["threshold_sem"] == pytest.approx(math.sqrt(56 / 3) / 2)
    assert (first["n_tracks"], first["n_converged"], first["mean_trials"]) == (4, 4, 7)
    assert -30 <= first["ci_low"] < -24 < first["ci_high"] <= -20
    # only converged tracks count; the others are reported
    assert second["threshold"] == -12
    assert second["threshold_sd"] == pytest.approx(math.sqrt(8))
    assert (second["n_converged"], second["n_at_ceiling"], second["n_invalid_output"]) == (2, 1, 1)
    # one track has a mean but no spread, none has neither
    assert third["threshold"] == -5
    assert np.isnan([third["threshold_sd"], third["threshold_sem"], third["ci_low"], third["ci_high"]]).all()
    assert math.isnan(fourth["threshold"])
    assert fourth["n_at_ceiling"] == 4
    counts = [f"n_{s}" for s in STATUS if s != "converged"]
    assert (table["n_converged"] + table[counts].sum(axis=1) == table["n_tracks"]).all()


def test_units_and_method_are_in_the_attributes(run):
    attrs = thresholds(run).attrs
    assert attrs["units"]["threshold"] == attrs["units"]["ci_low"] == "dB"
    assert attrs["units"]["rate_hz"] == "Hz"
    assert attrs["ci_level"] == 0.95
    assert "bootstrap over tracks, 2000 resamples, seed 0" in attrs["ci_method"]


def test_intervals_depend_on_the_cell_and_the_seed_only(run):
    table = thresholds(run)
    part = thresholds(run.isel(condition=[0], observer=[1]))
    assert part["ci_low"].item() == table["ci_low"][1]
    turned = thresholds(run.isel(condition=[1, 0], observer=[1, 0])).sort_values(["condition", "observer"])
    assert turned["ci_high"].equals(turned["ci_high"].astype(float))
    np.testing.assert_array_equal(turned["ci_high"], table["ci_high"])
    np.testing.assert_array_equal(thresholds(run)["ci_low"], table["ci_low"])


def test_streams_differ_between_cells_and_seeds():
    values = np.arange(9.0) ** 2
    one = bootstrap_interval(values, n_resamples=200)
    assert one == bootstrap_interval(values, n_resamples=200)
    assert one != bootstrap_interval(values, n_resamples=200, seed=1)
    assert one != bootstrap_interval(values, n_resamples=200, stream=1)


def test_bootstrap_interval_of_two_values_is_their_range():
    """With two values t(1) is so wide that the interval reaches both ends, the most a bootstrap can say."""
    assert bootstrap_interval([-1.0, 3.0]) == (-1.0, 3.0)
    assert bootstrap_interval([-1.0, 3.0, np.nan]) == (-1.0, 3.0)


@pytest.mark.parametrize("values", [[], [1.0], [np.nan, 2.0]])
def test_bootstrap_interval_needs_two_values(values):
    assert np.isnan(bootstrap_interval(values)).all()


def test_bootstrap_interval_matches_normal_theory_for_many_values():
    """For n = 400 the interval is mean +- 1.96 sem; quantiles of 20000 resamples are within 3 % of that width."""
    values = np.random.default_rng(0).normal(-20, 3, 400)
    low, high = bootstrap_interval(values, n_resamples=20000)
    sem = values.std(ddof=1) / 20
    assert (high - low) / (2 * 1.96 * sem) == pytest.approx(1.0, abs=0.03)
    assert (low + high) / 2 == pytest.approx(values.mean(), abs=0.05 * sem)


def test_coverage_for_eight_tracks():
    """Of 1000 samples of eight normal values the 95 % interval holds the mean in 92 to 97 %.

    The standard error of that share is 0.7 %; the plain percentile interval would give about 88 %.
    """
    rng = np.random.default_rng(1)
    hits = 0
    for i in range(1000):
        low, high = bootstrap_interval(rng.normal(0, 1, 8), n_resamples=500, stream=i)
        hits += low <= 0 <= high
    assert 920 <= hits <= 970


@pytest.mark.parametrize("level", [0.0, 1.5, math.nan])
def test_a_level_outside_its_range_is_refused(run, level):
    with pytest.raises(SpecError, match="level"):
        thresholds(run, level=level)


def test_tracks_is_long(run):
    table = tracks(run)
    assert len(table) == 16
    row = table[(table.rate_hz == 4) & (table.observer == "b") & (table.track == 2)].iloc[0]
    assert (row["threshold"], row["status"]) == (-1.0, "at_ceiling")
    assert list(table.columns) == [
        "condition",
        "rate_hz",
        "observer",
        "track",
        "threshold",
        "threshold_sem",
        "n_trials",
        "status",
    ]
    assert table.attrs["units"]["threshold"] == "dB"
