"""QUEST, the maximum-likelihood procedure and its update, each against a plain definition; their formulae."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from psysim.procedures import MLP, UML, Psi, Quest, QuestPlusGrid
from psysim.procedures.candidates import least_variance_proportion
from psysim.procedures.quest import quest_quantile
from psysim.procedures.uml import sweet_points

GRID = {"level_min": -40.0, "level_max": 0.0, "level_step": 1.0}
ANSWERS = np.random.default_rng(9).random((30, 12)) < 0.8


def tracks(rule, answers=ANSWERS):
    """Return the levels presented (trials, lanes)."""
    state, levels = rule.init(answers.shape[1]), []
    for row in answers:
        levels.append(rule.next_level(state))
        state = rule.record(state, row)
    return np.array(levels)


def nearest(level):
    """The level of GRID nearest to it, the lower one if two are."""
    return max(-40.0, min(0.0, math.ceil(level - 0.5)))


# -- QUEST -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("placement", ["mode", "mean", "quantile"])
def test_quest_is_its_definition(placement):
    """Watson and Pelli (1983): log posterior as a sum, one lane at a time."""
    thresholds = np.linspace(-45.0, 5.0, 101)
    rule = Quest(
        **GRID, guess_rate=0.5, lapse_rate=0.01, threshold=thresholds.tolist(), threshold_prior_mean=-18.0,
        threshold_prior_sd=9.0, placement=placement, n_trials=40,
    )  # fmt: skip
    given = tracks(rule)
    best = minimize_scalar(
        lambda x: (
            (p := 0.99 - 0.49 * math.exp(-(10 ** (3.5 * x / 20))))
            * (1 - p)
            / (0.49 * math.exp(-(10 ** (3.5 * x / 20))) * 10 ** (3.5 * x / 20)) ** 2
        ),
        bounds=(-3, 5),
        method="bounded",
        options={"xatol": 1e-10},
    ).x
    assert rule.target_proportion == pytest.approx(0.99 - 0.49 * math.exp(-(10 ** (3.5 * best / 20))), abs=1e-6)
    order = quest_quantile(0.5, 0.01)
    differences = 0
    for lane in range(ANSWERS.shape[1]):
        log_posterior = -0.5 * ((thresholds + 18.0) / 9.0) ** 2
        for level, right in zip(given[:, lane], ANSWERS[:, lane], strict=True):
            weights = np.exp(log_posterior - log_posterior.max())
            weights /= weights.sum()
            if placement == "mode":
                value = thresholds[np.argmax(weights)]
            elif placement == "mean":
                value = float(weights @ thresholds)
            else:
                value = float(np.interp(order, np.cumsum(weights) - weights / 2, thresholds))
            assert abs(level - np.clip(value + best, -40.0, 0.0)) <= 0.5 + 1e-6
            differences += level != nearest(value + best)
            p = 0.99 - 0.49 * np.exp(-(10 ** (3.5 * (level - thresholds) / 20)))
            log_posterior = log_posterior + np.log(p if right else 1 - p)
    assert differences == 0


def test_quest_quantile_is_the_capacity_of_the_channel():
    """The answer tells most about the side of the threshold; found by brute force."""

    def h(p):
        return -p * math.log(p) - (1 - p) * math.log(1 - p)

    for guess, lapse in ((0.5, 0.01), (1 / 3, 0.02), (0.1, 0.02), (0.02, 0.02)):
        low, high = guess, 1 - lapse
        best = minimize_scalar(
            lambda q, low=low, high=high: (1 - q) * h(low) + q * h(high) - h((1 - q) * low + q * high),
            bounds=(0.01, 0.99),
            method="bounded",
            options={"xatol": 1e-10},
        )
        assert quest_quantile(guess, lapse) == pytest.approx(best.x, abs=1e-6)


def test_quest_reaches_the_published_efficiency():
    """Placement at the mode uses most of the information there is: above 0.75 of it after 128 trials."""
    rule = Quest(
        **GRID, guess_rate=0.5, lapse_rate=0.01, threshold={"min": -50.0, "max": 10.0, "n": 121}, placement="mode",
        threshold_prior_mean=-15.0, threshold_prior_sd=15.0, n_trials=128,
    )  # fmt: skip
    rng, state = np.random.default_rng(3), rule.init(1500)
    while not state.done.all():
        p = 0.99 - 0.49 * np.exp(-(10 ** (3.5 * (rule.next_level(state) + 20.3) / 20)))
        state = rule.record(state, rng.random(1500) < p)
    threshold = rule.summary(state).threshold
    shift = rule.candidate_thresholds[0] - rule.candidates.thresholds[0]
    assert abs(np.nanmean(threshold) - (-20.3 + shift)) < 0.05
    x = np.linspace(-5, 5, 2001)
    miss = 0.49 * np.exp(-(10 ** (3.5 * x / 20)))
    slope = miss * 10 ** (3.5 * x / 20) * 3.5 * math.log(10) / 20
    sweat = np.min((0.99 - miss) * (0.01 + miss) / slope**2)
    assert 0.75 < sweat / 128 / np.nanvar(threshold) < 1.0


# -- maximum likelihood ----------------------------------------------------------------------------------------------


def test_sweet_point_of_green():
    """Green (1993) for the logistic: 0.809 in two intervals, 0.5 without guessing."""
    for g in (0.0, 0.1, 0.25, 1 / 3, 0.5):
        root = math.sqrt(1 + 8 * g)
        wanted = (2 * g + 1 + root) / (3 + root)
        # a minimum is found to about the root of the precision of a numerical derivative
        assert least_variance_proportion("logistic", g) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("rates", [[0.5], [0.0, 0.1, 0.2, 0.3, 0.4]])
def test_mlp_is_its_definition(rates):
    """The likeliest of all candidates after every answer, one lane at a time."""
    rule = MLP(**GRID, slope=0.5, guess_rate=rates, lapse_rate=0.0, n_trials=40, level_start=-3.0)
    given = tracks(rule)
    p = np.mean(rates)
    root = math.sqrt(1 + 8 * p)
    target = (2 * p + 1 + root) / (3 + root)
    assert rule.target_proportion == pytest.approx(target, abs=1e-5)
    for lane in range(ANSWERS.shape[1]):
        assert given[0, lane] == -3.0
        likelihood = {(m, g): 1.0 for m in range(-40, 1) for g in rates}
        for k in range(len(ANSWERS) - 1):
            for (m, g), value in likelihood.items():
                yes = g + (1 - g) / (1 + math.exp(-0.5 * (given[k, lane] - m)))
                likelihood[m, g] = value * (yes if ANSWERS[k, lane] else 1 - yes)
            m, g = max(likelihood, key=likelihood.get)
            share = (target - g) / (1 - g)
            assert given[k + 1, lane] == nearest(m + math.log(share / (1 - share)) / 0.5)


# -- updated maximum likelihood --------------------------------------------------------------------------------------


def test_sweet_points_minimise_the_variances():
    """Shen and Richards (2012): variances with the derivatives of the logistic written out."""
    g, lapse = 0.5, 0.03

    def variance(z, parameter):
        f = 1 / (1 + math.exp(-z))
        p = g + (1 - g - lapse) * f
        rise = (1 - g - lapse) * f * (1 - f) * (z if parameter == "slope" else 1.0)
        return p * (1 - p) / rise**2

    low, middle, high = sweet_points("logistic", g, lapse)
    for found, parameter, bounds in (
        (low, "slope", (-6, -0.1)),
        (middle, "threshold", (-6, 6)),
        (high, "slope", (0.1, 6)),
    ):
        best = minimize_scalar(
            lambda z, parameter=parameter: variance(z, parameter),
            bounds=bounds,
            method="bounded",
            options={"xatol": 1e-9},
        )
        assert found == pytest.approx(best.x, abs=0.01)
    assert low < middle < high


@pytest.mark.parametrize("estimate", ["mean", "mode"])
def test_uml_is_its_definition(estimate):
    """Posterior, estimates, up-down rule on the sweet points: one lane at a time."""
    slopes, lapses = [0.2, 0.4, 0.8, 1.6], [0.0, 0.04, 0.08]
    rule = UML(**GRID, guess_rate=0.5, slope=slopes, lapse_rate=lapses, estimate=estimate, n_trials=40)
    given = tracks(rule)
    a, b, c = (v.ravel() for v in np.meshgrid(np.arange(-40.0, 1.0), slopes, lapses, indexing="ij"))
    for lane in range(3):
        weights, point, streak = np.ones(len(a)), 3, 0
        for k in range(len(ANSWERS) - 1):
            right = ANSWERS[k, lane]
            p = np.clip(0.5 + (0.5 - c) / (1 + np.exp(-b * (given[k, lane] - a))), 1e-12, 1 - 1e-12)
            weights = weights * (p if right else 1 - p)
            weights /= weights.sum()
            streak = streak + 1 if right else 0
            if not right:
                point = min(point + 1, 3)
            elif streak == 2:
                point, streak = max(point - 1, 0), 0
            best = np.argmax(weights)
            if estimate == "mean":
                threshold, slope, lapse = weights @ a, math.exp(weights @ np.log(b)), weights @ c
            else:
                threshold, slope, lapse = a[best], b[best], c[best]
            if point == 3:
                assert given[k + 1, lane] == 0.0
            else:
                level = threshold + sweet_points("logistic", 0.5, lapse)[point] / slope
                assert abs(given[k + 1, lane] - np.clip(level, -40.0, 0.0)) <= 0.5 + 0.02 / slope


def test_uml_draws_from_its_sweet_points():
    settings = GRID | {"guess_rate": 0.5, "slope": [0.3, 0.6], "lapse_rate": [0.0, 0.05], "n_trials": 40}
    rule = UML(**settings, choice="random", sweet_points=["slope_low", "threshold", "lapse_rate"])
    state, counts = rule.init(400), np.zeros(3)
    for row in np.random.default_rng(0).random((20, 400)) < 0.8:
        state = rule.record(state, row)
        counts += np.bincount(state.sweet_point, minlength=3)
    late = counts / counts.sum()
    np.testing.assert_allclose(late, 1 / 3, atol=0.05)
    assert "at random" in rule.describe()
    only = UML(**settings, sweet_points=["threshold"])
    assert set(tracks(only).ravel()) - {0.0}
    assert only.init(1).sweet_point[0] == 0


def test_uml_finds_threshold_slope_and_lapse_rate():
    """200 trials per track, as in Shen and Richards (2012)."""
    rule = UML(
        **GRID, guess_rate=0.5, threshold={"min": -40.0, "max": 0.0, "n": 41},
        slope={"min": 0.1, "max": 2.0, "n": 9, "spacing": "log"}, lapse_rate=[0.0, 0.02, 0.04, 0.08, 0.12],
        n_trials=200,
    )  # fmt: skip
    rng, state = np.random.default_rng(1), rule.init(100)
    while not state.done.all():
        p = 0.5 + 0.46 / (1 + np.exp(-0.5 * (rule.next_level(state) + 20.0)))
        state = rule.record(state, rng.random(100) < p)
    estimates = rule.estimates(state)
    assert abs(estimates["threshold"][0].mean() + 20.0) < 0.6
    assert 0.4 < np.median(estimates["slope"][0]) < 0.75
    assert abs(estimates["lapse_rate"][0].mean() - 0.04) < 0.015
    assert estimates["threshold"][0].std() < 1.3


# -- psi -------------------------------------------------------------------------------------------------------------


def test_psi_reaches_the_published_precision():
    """Kontsevich and Tyler (1999): the threshold to 2 dB within 30 trials, the slope as well after about 300 (2AFC)."""
    from scipy.special import ndtr

    def right(stimulus, parameter):
        """Log d' is a straight line of the level in dB, of slope 3 in the listener below."""
        d_prime = 10 ** (parameter["slope"] * (stimulus["level"] - parameter["threshold"]) / 20)
        return 0.02 + 0.96 * ndtr(np.minimum(d_prime, 30.0) / math.sqrt(2.0))

    slopes = np.geomspace(0.7, 12.0, 13)
    rule = QuestPlusGrid(
        right, stimuli={"level": np.arange(-40.0, 0.5, 1.0)},
        parameters={"threshold": np.arange(-40.0, 0.5, 1.0), "slope": slopes}, n_trials=300, max_trials=300,
    )  # fmt: skip
    rng, state = np.random.default_rng(2), rule.init(100)
    truth = {"threshold": -17.3, "slope": 3.0}
    for trial in range(300):
        chance = right({"level": rule.next_level(state)}, truth)
        state = rule.record(state, rng.random(100) < chance)
        if trial == 29:
            early = rule.estimates(state)["threshold"][0] - truth["threshold"]
    assert math.sqrt(np.mean(early**2)) < 2.0
    log_slope = rule.grid.marginal(rule.posterior(state), 1) @ np.log10(slopes)
    assert math.sqrt(np.mean((20 * (log_slope - math.log10(3.0))) ** 2)) < 2.6
    assert abs(rule.estimates(state)["threshold"][0].mean() - truth["threshold"]) < 0.15


def test_psi_measures_the_slope():
    rule = Psi(**GRID, guess_rate=0.5, slope={"min": 0.1, "max": 1.6, "n": 9, "spacing": "log"}, n_trials=200)
    from scipy.special import ndtr

    rng, state = np.random.default_rng(5), rule.init(80)
    while not state.done.all():
        p = 0.5 + 0.48 * ndtr(0.3 * (rule.next_level(state) + 21.0))
        state = rule.record(state, rng.random(80) < p)
    mean, sd = rule.estimates(state)["slope"]
    assert abs(np.median(mean) - 0.3) < 0.05
    assert np.mean(np.abs(mean - 0.3) < 2 * sd) > 0.85
