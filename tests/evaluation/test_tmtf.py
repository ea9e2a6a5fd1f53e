from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psysim.errors import SpecError
from psysim.evaluation import bootstrap_lowpass, fit_lowpass, fit_tmtf, lowpass_db
from psysim.evaluation.tmtf import _profile
from psysim.results import STATUS, empty_dataset

RATES = np.array([4.0, 8, 16, 32, 64, 128, 256, 512])


def test_the_curve_by_hand():
    # at the cutoff the power has doubled, at three times the cutoff it is tenfold
    np.testing.assert_allclose(lowpass_db([0, 60, 180], -25, 60), [-25, -25 + 10 * math.log10(2), -15], rtol=1e-14)


@given(peak=st.floats(-60, 0), cutoff=st.floats(4.5, 500))
@settings(max_examples=40, deadline=None)
def test_a_curve_without_noise_is_recovered(peak, cutoff):
    fit = fit_lowpass(RATES, lowpass_db(RATES, peak, cutoff))
    assert fit.peak_sensitivity_db == pytest.approx(peak, abs=1e-5)
    assert fit.cutoff_hz == pytest.approx(cutoff, rel=1e-5)
    assert fit.rms_residual_db < 1e-5
    assert fit.cutoff_in_range
    assert fit.note == ""
    np.testing.assert_allclose(fit.curve([1000.0]), lowpass_db([1000.0], peak, cutoff), atol=1e-4)


def test_the_published_curve_gives_its_published_parameters():
    """The rows are rounded to 0.01 dB, which moves the fit by less than 0.01 dB and 0.2 Hz."""
    from psysim import human

    table = human.as_thresholds("tmtf_parameters")
    fit = fit_lowpass(table["rate_hz"], table["value"])
    assert fit.peak_sensitivity_db == pytest.approx(-22.6, abs=0.01)
    assert fit.cutoff_hz == pytest.approx(127.3, abs=0.2)


def test_the_fit_is_the_least_squares_one():
    """No point of a fine grid around the solution has a smaller sum of weighted squares."""
    rng = np.random.default_rng(0)
    threshold = lowpass_db(RATES, -25, 60) + rng.normal(0, 2, 8)
    weights = rng.uniform(0.5, 2, 8)

    def cost(peak, cutoff):
        return float((weights * (threshold - lowpass_db(RATES, peak, cutoff)) ** 2).sum())

    fit = fit_lowpass(RATES, threshold, weights)
    best = cost(fit.peak_sensitivity_db, fit.cutoff_hz)
    assert fit.rms_residual_db == pytest.approx(math.sqrt(best / weights.sum()))
    for peak in fit.peak_sensitivity_db + np.linspace(-1, 1, 21):
        for cutoff in fit.cutoff_hz * 2 ** np.linspace(-3, 3, 61):
            assert cost(peak, cutoff) >= best - 1e-9


def test_weights_pull_the_fit():
    threshold = lowpass_db(RATES, -25, 60)
    threshold[0] += 6
    light = fit_lowpass(RATES, threshold, [1e-9, *[1.0] * 7])
    assert light.peak_sensitivity_db == pytest.approx(-25, abs=1e-3)
    assert fit_lowpass(RATES, threshold).peak_sensitivity_db > -24.5


def test_the_first_two_numbers_of_residuals_by_hand():
    """Three equal rates' worth of data: residuals of +1, -1 around an exact curve give an rms of sqrt(2 / 3)."""
    rates = np.array([4.0, 4, 64, 64, 512, 512])
    threshold = lowpass_db(rates, -20, 50) + np.array([1, -1, 1, -1, 0, 0])
    fit = fit_lowpass(rates, threshold)
    assert fit.peak_sensitivity_db == pytest.approx(-20, abs=1e-5)
    assert fit.rms_residual_db == pytest.approx(math.sqrt(4 / 6))


def test_missing_thresholds_are_left_out():
    threshold = lowpass_db(RATES, -25, 60)
    threshold[[1, 5]] = np.nan
    fit = fit_lowpass(RATES, threshold)
    assert len(fit.rate_hz) == 6
    assert fit.cutoff_hz == pytest.approx(60, rel=1e-5)


@pytest.mark.parametrize(
    ("threshold", "note"),
    [
        (np.full(8, -25.0), "cutoff above the highest measured rate (512 Hz)"),
        (
            -25 - 2 * np.log2(RATES),
            "cutoff above the highest measured rate",
        ),  # falls with the rate, as resolved sidebands
        (lowpass_db(RATES, -40, 1.0), "cutoff below the lowest measured rate (4 Hz)"),
    ],
)
def test_a_cutoff_outside_the_measured_rates_is_flagged(threshold, note):
    fit = fit_lowpass(RATES, threshold)
    assert not fit.cutoff_in_range
    assert fit.note.startswith(note)
    assert RATES.min() / 100 <= fit.cutoff_hz <= RATES.max() * 100 * (1 + 1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([4, 8], [-20, -20]), "at least three rates .* got 2"),
        (([4, 8, 16], [-20, np.nan, -20]), "at least three rates"),
        (([4, 4, 8, 8], [-20, -20, -20, -20]), "at least three rates"),
        (([0, 8, 16], [-20, -20, -20]), "rate_hz must be numbers above 0"),
        (([4, 8, 16], [-20, -20]), "same length"),
        (([4, 8, 16], [-20, -20, -20], [1, 0, 1]), "weights must be numbers above 0"),
    ],
)
def test_what_cannot_be_fitted_is_refused(arguments, message):
    with pytest.raises(SpecError, match=message):
        fit_lowpass(*arguments)


def test_the_bootstraps_fast_fit_agrees_with_the_slow_one():
    """The grid has 400 points per decade; its parabola must come within 0.1 % of the cutoff and 0.001 dB."""
    rng = np.random.default_rng(1)
    thresholds = lowpass_db(RATES, -25, 60) + rng.normal(0, 1, (20, 8))
    peak, cutoff = _profile(RATES, thresholds, np.ones(8))
    for i, row in enumerate(thresholds):
        fit = fit_lowpass(RATES, row)
        assert cutoff[i] == pytest.approx(fit.cutoff_hz, rel=1e-3)
        assert peak[i] == pytest.approx(fit.peak_sensitivity_db, abs=1e-3)


# ------------------------------------------------------------ intervals
def test_tracks_without_spread_give_an_interval_without_width():
    tracks = np.repeat(lowpass_db(RATES, -25, 60)[:, None], 4, axis=1)
    interval = bootstrap_lowpass(RATES, tracks, n_resamples=50)
    assert interval["peak_sensitivity_db"] == pytest.approx((-25, -25), abs=1e-3)
    assert interval["cutoff_hz"] == pytest.approx((60, 60), rel=1e-3)


def test_intervals_depend_on_the_arguments_only():
    tracks = lowpass_db(RATES, -25, 60)[:, None] + np.random.default_rng(0).normal(0, 2, (8, 6))
    one = bootstrap_lowpass(RATES, tracks, n_resamples=100)
    assert one == bootstrap_lowpass(RATES, tracks, n_resamples=100)
    assert one != bootstrap_lowpass(RATES, tracks, n_resamples=100, seed=1)
    assert one != bootstrap_lowpass(RATES, tracks, n_resamples=100, stream=1)


def test_a_rate_without_tracks_is_left_out_and_one_track_has_no_interval():
    tracks = lowpass_db(RATES, -25, 60)[:, None] + np.array([-1.0, 0.0, 1.0])
    missing = tracks.copy()
    missing[3] = np.nan
    kept = np.delete(np.arange(8), 3)
    assert bootstrap_lowpass(RATES, missing) == bootstrap_lowpass(RATES[kept], tracks[kept])
    single = tracks.copy()
    single[3, 1:] = np.nan
    assert np.isnan(list(bootstrap_lowpass(RATES, single).values())).all()


def test_coverage_with_twelve_tracks():
    """Of 200 simulated runs the 95 % interval holds the true peak in 89 to 99 %.

    1000 runs gave 93.8 %; three standard errors of a share of 200 are 5 %.
    """
    rng = np.random.default_rng(2)
    hits = 0
    for i in range(200):
        tracks = lowpass_db(RATES, -25, 60)[:, None] + rng.normal(0, 2, (8, 12))
        low, high = bootstrap_lowpass(RATES, tracks, n_resamples=200, stream=i)["peak_sensitivity_db"]
        hits += low <= -25 <= high
    assert 178 <= hits <= 198


# ------------------------------------------------------------ whole runs
def run(rates=RATES, levels=(50, 70), n_tracks=3):
    conditions = {"rate_hz": list(np.repeat(rates, len(levels))), "level_db_spl": list(levels) * len(rates)}
    ds = empty_dataset(conditions, ["a", "b"], n_tracks, 10, 3, "dB", "Modulation depth")
    for c in range(ds.sizes["condition"]):
        rate, level = float(ds.rate_hz[c]), float(ds.level_db_spl[c])
        for o in range(2):
            tracks = np.linspace(-1, 1, n_tracks) if n_tracks > 1 else 0.0
            ds["threshold"].values[c, o] = lowpass_db(rate, -25 + 2 * o, level) + tracks
    ds["status"].values[...] = 1
    return ds


def test_one_fit_per_observer_and_other_factors():
    table = fit_tmtf(run())
    assert table[["level_db_spl", "observer"]].values.tolist() == [[50, "a"], [50, "b"], [70, "a"], [70, "b"]]
    np.testing.assert_allclose(table["peak_sensitivity_db"], [-25, -23, -25, -23], atol=1e-5)
    np.testing.assert_allclose(table["cutoff_hz"], [50, 50, 70, 70], rtol=1e-5)
    assert table["cutoff_in_range"].all()
    assert (table["peak_ci_low"] < table["peak_sensitivity_db"]).all()
    assert (table["cutoff_ci_high"] > table["cutoff_hz"]).all()
    part = fit_tmtf(run().isel(observer=[1]))
    np.testing.assert_array_equal(part["peak_ci_low"], table["peak_ci_low"][table["observer"] == "b"])


def test_only_converged_tracks_count():
    ds = run()
    ds["threshold"].values[:, :, 0] = 0.0
    ds["status"].values[:, :, 0] = STATUS.index("at_ceiling")
    np.testing.assert_allclose(fit_tmtf(ds)["peak_sensitivity_db"], [-24.5, -22.5, -24.5, -22.5], atol=1e-5)


def test_too_few_rates_give_a_note_instead_of_numbers():
    table = fit_tmtf(run(rates=RATES[:2]))
    assert table["peak_sensitivity_db"].isna().all()
    assert set(table["note"]) == {"fewer than three rates with a converged track"}
    assert set(table["n_rates"]) == {2}


def test_a_run_without_rates_is_refused():
    with pytest.raises(SpecError, match="no factor 'fm_hz'; its factors are rate_hz, level_db_spl"):
        fit_tmtf(run(), rate="fm_hz")
