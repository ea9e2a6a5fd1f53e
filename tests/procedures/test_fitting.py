"""Fits of psychometric functions: against general-purpose optimisers, closed forms, and data that determine nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import betabinom, binom, kstest

from psysim.errors import SpecError
from psysim.procedures.fit_intervals import bootstrap_fits
from psysim.procedures.fitting import FitPrior, FitStatus, fit_psychometric
from psysim.procedures.psychometric import SHAPES, psychometric_function

LEVELS = np.array([-14.0, -11.0, -8.0, -5.0, -2.0, 1.0])
GUESS = 1 / 3


def axis(shape):
    """Return levels, threshold and slope that give all families about the same data."""
    if SHAPES[shape].log_axis:
        return np.exp(LEVELS / 8), float(np.exp(-0.8)), 0.7
    return LEVELS, -6.4, 0.08


def simulated(shape, n, trials=60, harder=-1, seed=4):
    levels, threshold, slope = axis(shape)
    p = psychometric_function(levels, threshold, -harder * slope, GUESS, 0.02, shape=shape)
    return levels, np.random.default_rng(seed).binomial(trials, p, (n, len(levels)))


def negative_log_likelihood(parameters, levels, counts, trials, shape, sign):
    """Written out anew: threshold, log slope, lapse rate (optional), overdispersion (optional)."""
    threshold, log_slope, *rest = parameters
    threshold = np.exp(threshold) if SHAPES[shape].log_axis else threshold
    lapse, eta = [*rest, *(0.02, 0.0)[len(rest) :]]
    if not (0 <= lapse <= 0.1 and 0 <= eta < 0.99):
        return 1e9
    p = psychometric_function(levels, threshold, sign * np.exp(log_slope), GUESS, lapse, shape=shape)
    p = np.clip(p, 1e-12, 1 - 1e-12)
    if eta < 1e-4:
        return -binom.logpmf(counts, trials, p).sum()
    nu = 1 / eta**2 - 1
    return -betabinom.logpmf(counts, trials, p * nu, (1 - p) * nu).sum()


@pytest.mark.parametrize("harder", [-1, 1])
@pytest.mark.parametrize("shape", SHAPES)
def test_no_optimiser_finds_a_better_likelihood(shape, harder):
    """Nelder-Mead from the fit and from the truth: at most 1e-7 better, and the same parameters."""
    levels, counts = simulated(shape, 6, harder=harder)
    fits = fit_psychometric(levels, counts, 60, guess_rate=GUESS, lapse_rate=0.02, shape=shape, harder=harder)
    assert fits.converged.all()
    _, threshold, slope = axis(shape)
    wrap = np.log if SHAPES[shape].log_axis else np.asarray
    for i in range(6):
        args = (levels, counts[i], 60, shape, -harder)
        for start in (threshold, slope), (float(fits.threshold[i]), abs(float(fits.slope[i]))):
            found = minimize(
                negative_log_likelihood,
                [wrap(start[0]), np.log(start[1])],
                args,
                method="Nelder-Mead",
                options={"xatol": 1e-8, "fatol": 1e-12, "maxiter": 2000},
            )
            assert -found.fun == pytest.approx(fits.log_likelihood[i], abs=1e-7)
            assert found.x[0] == pytest.approx(wrap(fits.threshold[i]), abs=2e-5)
            assert np.exp(found.x[1]) == pytest.approx(-harder * fits.slope[i], rel=2e-5)


def test_free_lapse_rate_and_overdispersion():
    """The same with four parameters on overdispersed counts, from several starts."""
    rng = np.random.default_rng(11)
    p = psychometric_function(LEVELS, -6.4, 0.08, GUESS, 0.05)
    nu = 1 / 0.3**2 - 1
    counts = rng.binomial(60, rng.beta(p * nu, (1 - p) * nu, (5, 6)))
    fits = fit_psychometric(LEVELS, counts, 60, guess_rate=GUESS, lapse_rate="free", overdispersion="free")
    assert set(fits.n_free) == {4}
    assert fits.converged.sum() >= 4
    for i in np.flatnonzero(fits.converged):
        best = min(
            minimize(
                negative_log_likelihood,
                [-6.4, np.log(slope), lapse, 0.2],
                (LEVELS, counts[i], 60, "logistic", 1),
                method="Nelder-Mead",
                options={"xatol": 1e-7, "fatol": 1e-11, "maxiter": 4000},
            ).fun
            for slope in (0.05, 0.15)
            for lapse in (0.01, 0.08)
        )
        assert fits.log_likelihood[i] >= -best - 1e-6
        here = [fits.threshold[i], np.log(fits.slope[i]), fits.lapse_rate[i], fits.overdispersion[i]]
        there = negative_log_likelihood(here, LEVELS, counts[i], 60, "logistic", 1)
        assert fits.log_likelihood[i] == pytest.approx(-there, abs=1e-7)


def test_overdispersion_vanishes_where_the_counts_do_not_show_any():
    """Counts on the curve itself: the beta-binomial fit is the binomial one."""
    p = psychometric_function(LEVELS, -6.4, 0.08, GUESS, 0.02)
    counts = np.round(1000 * p)
    plain = fit_psychometric(LEVELS, counts, 1000, guess_rate=GUESS, lapse_rate=0.02)
    free = fit_psychometric(LEVELS, counts, 1000, guess_rate=GUESS, lapse_rate=0.02, overdispersion="free")
    assert free.overdispersion == 0
    assert free.threshold == pytest.approx(float(plain.threshold), abs=1e-6)
    assert plain.threshold == pytest.approx(-6.4, abs=0.05)
    assert plain.slope == pytest.approx(0.08, abs=0.002)


def test_free_guess_rate_of_a_yes_no_task():
    p = psychometric_function(LEVELS, -6.4, 0.15, 0.12, 0.0)
    fit = fit_psychometric(LEVELS, np.round(4000 * p), 4000, guess_rate="free", lapse_rate=0.0)
    assert fit.guess_rate == pytest.approx(0.12, abs=0.005)
    assert fit.threshold == pytest.approx(-6.4, abs=0.05)


def test_recovery_at_many_trials():
    """Twelve thousand trials: within 4 standard errors of the truth, which are small."""
    levels, counts = simulated("logistic", 40, trials=2000)
    fits = fit_psychometric(levels, counts, 2000, guess_rate=GUESS, lapse_rate=0.02)
    error = fits.standard_error
    assert np.all(np.abs(fits.threshold + 6.4) < 4 * error[:, 0])
    assert np.all(np.abs(fits.slope - 0.08) < 4 * error[:, 1])
    assert error[:, 0].max() < 0.15
    spread = np.std(fits.threshold, ddof=1) / np.mean(error[:, 0])
    assert 0.65 < spread < 1.4  # 40 values: standard deviation of the ratio 0.11


def test_threshold_and_slope_anywhere():
    levels, counts = simulated("weibull", 3)
    fits = fit_psychometric(levels, counts, 60, guess_rate=GUESS, lapse_rate=0.02, shape="weibull")
    at = fits.threshold_at(0.75)
    np.testing.assert_allclose(fits.proportion_correct(at[:, None])[:, 0], 0.75, rtol=1e-12)
    h = 1e-6
    ends = fits.proportion_correct(np.stack([at - h, at + h], axis=-1))
    np.testing.assert_allclose(fits.slope_at(0.75), np.diff(ends)[:, 0] / (2 * h), rtol=1e-6)
    natural = GUESS + (1 - GUESS - 0.02) * SHAPES["weibull"].at_threshold
    np.testing.assert_allclose(fits.slope_at(natural), fits.slope, rtol=1e-9)
    assert np.isnan(fits.threshold_at(0.3)).all()
    assert fits.function(1).inverse(0.75) == pytest.approx(at[1])


def test_data_sets_do_not_influence_each_other():
    levels, counts = simulated("gumbel", 40)
    together = fit_psychometric(levels, counts, 60, guess_rate=GUESS, shape="gumbel")
    for i in (0, 17, 39):
        alone = fit_psychometric(levels, counts[i], 60, guess_rate=GUESS, shape="gumbel")
        assert alone.threshold.shape == ()
        assert alone.status == together.status[i]
        assert alone.threshold == pytest.approx(together.threshold[i], rel=1e-9, nan_ok=True)
    shaped = fit_psychometric(levels, counts.reshape(4, 10, 6), 60, guess_rate=GUESS, shape="gumbel")
    np.testing.assert_array_equal(shaped.threshold.ravel(), together.threshold)
    assert shaped.covariance.shape == (4, 10, 5, 5)


def test_levels_without_trials_count_nothing():
    counts = [20, 24, 33, 45, 56, 59]
    plain = fit_psychometric(LEVELS, counts, 60, guess_rate=GUESS, lapse_rate=0.02)
    padded = fit_psychometric(
        [*LEVELS, 40.0, np.nan], [*counts, 0, 0], [60] * 6 + [0, 7], guess_rate=GUESS, lapse_rate=0.02
    )
    assert padded.threshold == pytest.approx(float(plain.threshold), rel=1e-9)
    assert padded.deviance == pytest.approx(float(plain.deviance), rel=1e-9)
    assert padded.degrees_of_freedom == plain.degrees_of_freedom == 4


def test_deviance():
    """Twice the log-likelihood ratio to the saturated model, written out; and 0 for two levels and two parameters."""
    counts = np.array([20, 22, 36, 45, 56, 59])
    fit = fit_psychometric(LEVELS, counts, 60, guess_rate=GUESS, lapse_rate=0.02)
    saturated = binom.logpmf(counts, 60, counts / 60).sum()
    assert fit.deviance == pytest.approx(2 * (saturated - float(fit.log_likelihood)), rel=1e-9)
    np.testing.assert_array_equal(
        np.sign(fit.deviance_residuals), np.sign(counts / 60 - fit.proportion_correct(LEVELS))
    )
    exact = fit_psychometric([-9.0, -4.0], [30, 50], 60, guess_rate=GUESS, lapse_rate=0.0)
    assert exact.deviance == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("shape", ["logistic", "cumulative_gaussian", "gumbel", "log_quick"])
@pytest.mark.parametrize(
    ("counts", "status"),
    [
        ([20, 20, 20, 60, 60, 60], FitStatus.SEPARATED),
        ([20, 20, 40, 60, 60, 60], FitStatus.SEPARATED),
        ([60, 60, 60, 60, 60, 60], FitStatus.FLAT),
        ([20, 20, 20, 20, 20, 20], FitStatus.FLAT),
        ([0, 0, 0, 0, 0, 0], FitStatus.FLAT),
        ([40, 40, 40, 40, 40, 40], FitStatus.FLAT),
        ([60, 55, 45, 33, 24, 20], FitStatus.FLAT),
    ],
)
def test_data_that_determine_nothing_say_so(shape, counts, status):
    fit = fit_psychometric(LEVELS, counts, 60, guess_rate=GUESS, lapse_rate=0.0, shape=shape)
    assert FitStatus(int(fit.status)) is status
    assert not fit.converged
    assert np.isnan(fit.covariance).all()
    if status is FitStatus.SEPARATED:
        assert fit.slope == np.inf
        assert -8.0 - 1e-6 <= fit.threshold <= -5.0  # -8 itself: the level half-way up
        low, high = fit.interval("slope")
        assert 0 < low < high == np.inf
    else:
        assert np.isnan(fit.threshold)
        assert np.isnan(fit.threshold_at(0.75))
        assert fit.interval() == (-np.inf, np.inf)
        assert fit.interval("slope") == (0.0, np.inf)
        with pytest.raises(SpecError, match="constant fits as well"):
            fit.function()


def test_a_step_has_its_threshold_in_its_middle():
    fit = fit_psychometric(LEVELS, [20, 20, 20, 60, 60, 60], 60, guess_rate=GUESS, lapse_rate=0.0)
    assert fit.threshold == pytest.approx(-6.5, abs=1e-9)


def test_one_level_is_not_enough():
    fits = fit_psychometric([[-5.0, np.nan], [-5.0, -5.0]], 30, 60, guess_rate=GUESS, lapse_rate=0.0)
    assert set(fits.status) == {FitStatus.NO_DATA}
    assert np.isnan(fits.threshold).all()
    assert np.isnan(fits.guess_rate).all()


def test_a_prior_makes_the_fit_of_a_step_finite():
    counts = [20, 20, 20, 60, 60, 60]
    fit = fit_psychometric(LEVELS, counts, 60, guess_rate=GUESS, lapse_rate=0.0, prior="weak")
    assert fit.converged
    assert 0.05 < fit.slope < 10
    assert -8 < fit.threshold < -5


def test_a_strong_prior_wins_and_a_weak_one_hardly_matters():
    levels, counts = simulated("logistic", 5)
    plain = fit_psychometric(levels, counts, 60, guess_rate=GUESS, lapse_rate=0.02)
    weak = fit_psychometric(levels, counts, 60, guess_rate=GUESS, lapse_rate=0.02, prior="weak")
    assert np.all(np.abs(weak.threshold - plain.threshold) < 0.2 * plain.standard_error[:, 0])
    prior = FitPrior(threshold=(-9.0, 1e-3), log_slope=(np.log(0.2), 1e-3))
    strong = fit_psychometric(levels, counts, 60, guess_rate=GUESS, lapse_rate=0.02, prior=prior)
    np.testing.assert_allclose(strong.threshold, -9.0, atol=1e-3)
    np.testing.assert_allclose(strong.slope, 0.2, rtol=2e-2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": "logistik"}, "Did you mean 'logistic'"),
        ({"n_correct": [10, 61]}, "more than n_trials = 60"),
        ({"n_correct": [10, 10.5]}, "whole number"),
        ({"n_correct": [10, -1]}, "whole number"),
        ({"n_correct": [1, 2, 3]}, "do not fit together"),
        ({"levels": -3.0, "n_correct": 3}, "last axis over levels"),
        ({"levels": [-3.0, np.inf]}, "must be finite"),
        ({"shape": "weibull"}, "above 0 for shape = 'weibull'"),
        ({"guess_rate": "fre"}, "Did you mean 'free'"),
        ({"guess_rate": 1.0}, "below 1, or 'free'"),
        ({"guess_rate": 0.7, "lapse_rate": 0.4}, "sum must be below 1"),
        ({"guess_rate": [0.1, 0.2]}, "data sets have"),
        ({"harder": 2}, "harder = 2"),
        ({"prior": "strong"}, "'weak'"),
        ({"prior": 3}, "FitPrior"),
        ({"max_rate": 0.6}, "max_rate"),
        ({"overdispersion": 1.0}, "overdispersion"),
    ],
)
def test_bad_input(change, message):
    arguments = {"levels": [-6.0, -3.0], "n_correct": [30, 50], "n_trials": 60, "guess_rate": 0.5} | change
    with pytest.raises(SpecError, match=message):
        fit_psychometric(**arguments)


def test_bad_priors():
    with pytest.raises(SpecError, match="standard deviation above 0"):
        FitPrior(threshold=(0.0, 0.0))
    with pytest.raises(SpecError, match="lapse_beta"):
        FitPrior(lapse_beta=0.5)


@pytest.mark.parametrize("shape", ["logistic", "cumulative_gaussian", "gumbel", "log_quick"])
def test_a_step_beside_a_better_fit_is_not_taken(shape):
    """Counts for which scoring from one start ends at the step between -14 and -11, 10 units of likelihood below."""
    levels, correct = np.arange(-23.0, -4.0, 3.0), [32, 38, 39, 56, 97, 100, 100]
    fit = fit_psychometric(levels, correct, 100, guess_rate=GUESS, lapse_rate=0.0, shape=shape)
    assert fit.converged
    best = np.inf
    for threshold in np.arange(-16.0, -8.0, 0.5):
        for log_slope in (-4.0, -2.0, 0.0):
            args = (levels, np.array(correct), 100, shape, 1)
            without_lapse = lambda x: negative_log_likelihood([*x, 0.0], *args)  # noqa: B023, E731
            best = min(best, minimize(without_lapse, [threshold, log_slope], method="Nelder-Mead").fun)
    assert -float(fit.log_likelihood) < best + 1e-4


PSIGNIFIT = json.loads((Path(__file__).parent / "data" / "psignifit_4.json").read_text())["cases"]


@pytest.mark.parametrize("case", PSIGNIFIT, ids=lambda c: f"{c['shape']}-{c['rates']}-{c['choices']}-{c['n_trials']}")
def test_fits_lie_within_psignifits_credible_intervals(case):
    """Threshold (F = 1/2) and width (F from 0.05 to 0.95) of psignifit 4.3 on the same data, with 95 % intervals.

    Written by ``benchmarks/peer_psignifit.py --golden``. Its fits have priors; the fit here has none where rates are
    fixed, and the weak one where they are free. With fixed rates the ends of the threshold intervals agree within a
    fifth of the interval's length.
    """
    free = {"lapse_rate": "free", "overdispersion": "free", "prior": "weak"}
    rates = free if case["rates"] == "free" else {"lapse_rate": 0.02}
    guess, shape = 1 / case["choices"], case["shape"]
    fit = fit_psychometric(
        case["levels"], case["n_correct"], case["n_trials"], guess_rate=guess, shape=shape, **rates
    )  # fmt: skip
    span = 1 - guess - float(fit.lapse_rate)
    low, middle, high = (float(fit.threshold_at(guess + share * span)) for share in (0.05, 0.5, 0.95))
    assert case["threshold_interval"][0] < middle < case["threshold_interval"][1]
    assert case["width_interval"][0] < high - low < case["width_interval"][1]
    if case["rates"] == "free":
        assert case["lapse_rate_interval"][0] - 1e-3 <= float(fit.lapse_rate) <= case["lapse_rate_interval"][1]
        assert float(fit.overdispersion) <= case["overdispersion_interval"][1]
    else:
        ends = [float(end) for end in fit.interval("threshold", proportion=guess + 0.5 * span)]
        length = case["threshold_interval"][1] - case["threshold_interval"][0]
        np.testing.assert_allclose(ends, case["threshold_interval"], atol=0.2 * length)


@pytest.mark.parametrize("shape", ["logistic", "cumulative_gaussian", "gumbel"])
def test_intervals_cover_the_truth_as_often_as_they_say(shape):
    """2,000 simulated data sets: coverage of 95 % profile intervals of threshold and slope within 93 to 97 %."""
    levels, counts = simulated(shape, 2000, seed=11)
    _, threshold, slope = axis(shape)
    fits = fit_psychometric(levels, counts, 60, guess_rate=GUESS, lapse_rate=0.02, shape=shape)
    for quantity, truth in (("threshold", threshold), ("slope", slope)):
        low, high = fits.interval(quantity)
        assert 0.93 < np.mean((low <= truth) & (truth <= high)) < 0.97


def test_bootstrap_intervals_agree_with_profiles_and_p_values_are_uniform():
    levels, counts = simulated("logistic", 150, seed=13)
    fits = fit_psychometric(levels, counts, 60, guess_rate=GUESS, lapse_rate=0.02)
    boot = bootstrap_fits(fits, 200, seed=2)
    profile, percentile = fits.interval("threshold"), boot.interval("threshold")
    length = profile[1] - profile[0]
    for one, other in zip(profile, percentile, strict=True):
        assert np.median(np.abs(one - other) / length) < 0.1
    assert kstest(boot.p_value, "uniform").pvalue > 0.001


def test_p_value_is_small_where_the_function_does_not_fit():
    """A listener who is at chance at the easiest level: no rising function fits."""
    counts = [20, 25, 40, 55, 59, 20]
    fit = fit_psychometric(LEVELS, counts, 60, guess_rate=GUESS, lapse_rate=0.0)
    assert float(bootstrap_fits(fit, 300, seed=3).p_value) < 0.01


def test_covariance_is_that_of_a_numerical_hessian():
    levels, counts = simulated("logistic", 1, seed=17)
    fit = fit_psychometric(levels, counts[0], 60, guess_rate=GUESS, lapse_rate=0.02)
    at = np.array([float(fit.threshold), float(fit.slope)])

    def objective(x):
        p = psychometric_function(levels, x[0], x[1], GUESS, 0.02)
        return -binom.logpmf(counts[0], 60, p).sum()

    h = np.diag([1e-3, 1e-3 * at[1]])
    hessian = np.array(
        [
            [
                (objective(at + h[i] + h[j]) - objective(at + h[i] - h[j]) - objective(at - h[i] + h[j])
                 + objective(at - h[i] - h[j])) / (4 * h[i, i] * h[j, j])
                for j in range(2)
            ]
            for i in range(2)
        ]
    )  # fmt: skip
    np.testing.assert_allclose(fit.covariance[:2, :2], np.linalg.inv(hessian), rtol=1e-4)


def test_beta_binomial_coverage_and_recovery():
    """Counts with correlated trials: the overdispersion is found, and intervals still cover; binomial ones do not."""
    rng, eta = np.random.default_rng(19), 0.25
    p = psychometric_function(LEVELS, -6.4, 0.08, GUESS, 0.0)
    nu = 1 / eta**2 - 1
    levels = np.tile(LEVELS, 4)
    counts = rng.binomial(60, rng.beta(np.tile(p, 4) * nu, np.tile(1 - p, 4) * nu, (500, 24)))
    fits = fit_psychometric(levels, counts, 60, guess_rate=GUESS, lapse_rate=0.0, overdispersion="free")
    assert abs(np.median(fits.overdispersion) - eta) < 0.02
    plain = fit_psychometric(levels, counts, 60, guess_rate=GUESS, lapse_rate=0.0)
    covered = [np.mean((f.interval()[0] <= -6.4) & (f.interval()[1] >= -6.4)) for f in (fits, plain)]
    assert covered[0] > 0.9
    assert covered[1] < 0.75


def test_threads_change_nothing(monkeypatch):
    """A thousand data sets fitted in parts by several threads: the same numbers as one after the other."""
    levels, counts = simulated("logistic", 1000, seed=23)
    fits, intervals = [], []
    for rows in (64, 10_000):
        monkeypatch.setattr("psysim.procedures._fit_core.ROWS_PER_THREAD", rows)
        fits.append(fit_psychometric(levels, counts, 60, guess_rate=GUESS, lapse_rate="free", prior="weak"))
        intervals.append(fits[-1].interval("slope"))
    np.testing.assert_array_equal(fits[0].theta, fits[1].theta)
    np.testing.assert_array_equal(*intervals)
