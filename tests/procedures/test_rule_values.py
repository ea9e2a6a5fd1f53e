"""The rules against values that are known: asymptotic variances, exact distributions, and each other."""

import math

import numpy as np
import pytest

from psysim.errors import SpecError
from psysim.procedures import (
    AFC,
    Adjustment,
    Asa,
    Bekesy,
    ConstantStimuli,
    MethodOfLimits,
    Pest,
    PsychometricFunction,
    Status,
    TransformedWeightedUpDown,
    UpDown,
    WeightedUpDown,
    asa_asymptotic_sd,
    expected_threshold,
    isotonic,
    spearman_karber,
)
from psysim.testing import assert_same_state, run_tracks

#: "Do you hear it": no guesses, no lapses; symmetric around the threshold.
YES_NO = PsychometricFunction(threshold=-14.0, slope=0.1)
FORCED_CHOICE = PsychometricFunction(threshold=-14.0, slope=0.1, guess_rate=1 / 3)


def unbiased(threshold, level, extra=0.0):
    """Whether the mean lies within 4.5 standard errors, and ``extra``, of a level."""
    return abs(threshold.mean() - level) < extra + 4.5 * threshold.std() / math.sqrt(len(threshold))


# -- transformed and weighted -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_down", "target"), [(1, 0.75), (2, 0.75), (3, 0.6), (2, 2**-0.5)])
def test_transformed_and_weighted_is_up_down_with_that_ratio(n_down, target):
    """Garcia-Perez (1998): p**n = r / (1 + r), so r = p**n / (1 - p**n)."""
    common = {"level_start": 0.0, "steps": [4.0, 1.0], "n_reversals": 6}
    mine = TransformedWeightedUpDown(n_down=n_down, target_proportion=target, **common)
    rules = [UpDown(n_up=1, n_down=n_down, step_up_ratio=target**n_down / (1 - target**n_down), **common)]
    if n_down == 1:
        rules.append(WeightedUpDown(target_proportion=target, **common))
    answers = np.random.default_rng(1).random((100, 20)) < target
    for rule in rules:
        assert rule.target_proportion == pytest.approx(target, abs=1e-12)
        states = [mine.init(20), rule.init(20)]
        for row in answers:
            states = [r.record(s, row) for r, s in zip((mine, rule), states, strict=True)]
        np.testing.assert_allclose(states[0].level, states[1].level, rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(states[0].status, states[1].status)


# -- stochastic approximation -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "gain"), [("robbins_monro", 15.0), ("robbins_monro", 40.0), ("accelerated", 8.0)])
@pytest.mark.parametrize("target", [0.5, 0.75])
def test_asa_has_its_asymptotic_spread(method, gain, target):
    """Sacks (1958), Kesten (1958): 3000 tracks of 1500 trials; the standard deviation is known to 1.3 %.

    The variance is asymptotic; terms of order 1/n and the number of shifts, random in Kesten's rule, leave 3 % at this
    length. The test would see a wrong factor of sqrt(2), or a gain that is not divided by 2 p (1 - p).
    """
    level = float(YES_NO.inverse(target))
    rule = Asa(method=method, gain=gain, target_proportion=target, level_start=level, n_trials=1500, max_trials=1500)
    summary = run_tracks(rule, AFC(n_intervals=2), YES_NO, 3000, seed=3)
    slope = 4 * 0.1 * target * (1 - target)  # of the logistic function
    expected = asa_asymptotic_sd(1500, gain, slope, target, accelerated=method == "accelerated")
    assert np.all(summary.status == Status.CONVERGED)
    assert summary.threshold.std() == pytest.approx(expected, rel=0.03 + 3 * 0.013)
    assert unbiased(summary.threshold, level, extra=0.02)


def test_the_best_gain_reaches_the_bound():
    """Gain 1/slope (2 p (1 - p)/slope for the accelerated rule): p (1 - p) / (n slope**2), the information bound."""
    p, slope = 0.7, 0.08
    bound = math.sqrt(p * (1 - p) / 50) / slope
    assert asa_asymptotic_sd(50, 1 / slope, slope, p, accelerated=False) == pytest.approx(bound)
    assert asa_asymptotic_sd(50, 2 * p * (1 - p) / slope, -slope, p) == pytest.approx(bound)
    for factor in (0.6, 0.9, 1.1, 2.0):
        assert asa_asymptotic_sd(50, factor / slope, slope, p, accelerated=False) > bound
    assert asa_asymptotic_sd(50, 0.5 / slope, slope, p, accelerated=False) == math.inf


@pytest.mark.parametrize("target", [0.6, 0.75, 0.9])
def test_asa_settles_at_any_target(target):
    rule = Asa(target_proportion=target, gain=10.0, level_start=-4.0, n_trials=400)
    summary = run_tracks(rule, AFC(n_intervals=3), FORCED_CHOICE, 2000, seed=4)
    # 0.1 dB: what is left of the curvature after 400 trials, of the order of the variance times curvature over slope
    assert unbiased(summary.threshold, float(expected_threshold(FORCED_CHOICE, rule)), extra=0.1)


# -- PEST -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("harder", [-1, 1])
@pytest.mark.parametrize("target", [0.6, 0.75, 0.9])
def test_pest_settles_near_any_target(target, harder):
    """Taylor and Creelman (1967) give no exact bias; a wrong bound or direction would miss by several dB."""
    listener = PsychometricFunction(threshold=14.0 * harder, slope=-0.1 * harder, guess_rate=1 / 3)
    rule = Pest(
        target_proportion=target,
        level_start=4.0 * harder,
        step_start=8.0,
        step_min=0.25,
        harder=harder,
        max_trials=2000,
    )
    summary = run_tracks(rule, AFC(n_intervals=3), listener, 2000, seed=5)
    assert np.mean(summary.status == Status.CONVERGED) > 0.999
    assert abs(np.nanmean(summary.threshold) - float(expected_threshold(listener, rule))) < 0.5


# -- Bekesy, adjustment, limits ---------------------------------------------------------------------------------------


def test_bekesy_is_one_up_one_down():
    """The same answers give the levels and the threshold of a 1-up 1-down rule with one step size."""
    common = {"level_start": 0.0, "n_reversals": 10, "level_min": -30.0, "level_max": 20.0}
    mine = Bekesy(rate=1.0, n_skip=0, **common)
    theirs = UpDown(n_up=1, n_down=1, steps=[1.0], max_trials=500, **common)
    answers = np.random.default_rng(2).random((200, 50)) < 0.5
    a, b = mine.init(50), theirs.init(50)
    for row in answers:
        a, b = mine.record(a, row), theirs.record(b, row)
        np.testing.assert_array_equal(a.level, b.level)
        np.testing.assert_array_equal(a.last_reversal, b.last_reversal)
    left, right = mine.summary(a), theirs.summary(b)
    np.testing.assert_array_equal(left.status, right.status)
    np.testing.assert_allclose(left.threshold, right.threshold, rtol=1e-13)
    np.testing.assert_allclose(left.threshold_sem, right.threshold_sem, rtol=1e-12)


def test_bekesy_and_adjustment_settle_at_one_half():
    """Without a start on one side, symmetry makes both unbiased."""
    bekesy = Bekesy(level_start=-14.0, rate=1.0, n_skip=30, n_reversals=20)
    adjustment = Adjustment(level_start=-14.0, steps=[4.0, 1.0], setting_range=20.0, level_start_range=20.0)
    for rule in (bekesy, adjustment):
        summary = run_tracks(rule, AFC(n_intervals=2), YES_NO, 3000, seed=6)
        assert np.all(summary.status == Status.CONVERGED)
        assert summary.threshold.std() < 1.5
        assert unbiased(summary.threshold, -14.0)


def test_settings_give_an_honest_standard_error():
    """The settings of a track are independent, so its standard error is that of repeated tracks."""
    rule = Adjustment(level_start=-14.0, steps=[4.0, 1.0], setting_range=20.0, level_start_range=20.0)
    summary = run_tracks(rule, AFC(n_intervals=2), YES_NO, 3000, seed=7)
    assert np.sqrt((summary.threshold_sem**2).mean()) == pytest.approx(summary.threshold.std(), rel=0.05)


def series(levels, p_open):
    """Return the exact distribution of the crossing of one series: midpoints and chances.

    The series visits ``levels`` in turn and ends with the first answer that is not the opening one; ``p_open`` is the
    chance of the opening answer at each level. Series that start with another answer are left out (chance 1e-9 here).
    """
    alive = np.cumprod(p_open)
    return (levels[:-1] + levels[1:]) / 2, alive[:-1] * (1 - p_open[1:])


def test_limits_have_the_exact_mean_and_spread():
    """Mean and standard deviation of a threshold from one pair of series follow from products of probabilities."""
    listener = PsychometricFunction(threshold=-14.0, slope=0.25)
    down, up = np.arange(8.0, -40.0, -1.0), np.arange(-36.5, 13.0, 1.0)
    (x, p), (y, q) = series(down, listener(down)), series(up, 1 - listener(up))
    assert p.sum() == pytest.approx(1, abs=1e-8)
    assert q.sum() == pytest.approx(1, abs=1e-8)
    means = (p * x).sum(), (q * y).sum()
    variance = (p * x**2).sum() - means[0] ** 2 + (q * y**2).sum() - means[1] ** 2
    rule = MethodOfLimits(level_start=8.0, level_start_hard=-36.5, step=1.0, n_series=2)
    threshold = run_tracks(rule, AFC(n_intervals=2), listener, 20_000, seed=8).threshold
    assert unbiased(threshold, (means[0] + means[1]) / 2)
    assert threshold.std() == pytest.approx(math.sqrt(variance) / 2, rel=4.5 / math.sqrt(2 * 20_000))
    # the errors of the two kinds of series are opposite, as the page says
    assert means[0] + 14 == pytest.approx(-(means[1] + 14), abs=0.02)
    assert abs(means[0] + 14) > 0.2


# -- constant stimuli -------------------------------------------------------------------------------------------------

LEVELS = [-29.0, -26.0, -23.0, -20.0, -17.0, -14.0, -11.0, -8.0, -5.0, -2.0, 1.0]


@pytest.mark.parametrize("order", ["random_blocks", "random", "as_given"])
def test_every_level_has_its_trials(order):
    rule = ConstantStimuli(levels=[-8.0, -20.0, -14.0], n_per_level=6, order=order, seed=2)
    state, seen = rule.init(40), []
    while not state.done.all():
        seen.append(rule.next_level(state))
        state = rule.record(state, np.ones(40, bool))
    seen = np.array(seen)
    assert seen.shape == (18, 40)
    for level in (-8.0, -14.0, -20.0):
        assert np.all((seen == level).sum(axis=0) == 6)
    assert np.all(state.n_presented == 6)
    if order == "as_given":
        assert np.all(seen[:6].T == [-8.0, -20.0, -14.0, -8.0, -20.0, -14.0])
    else:
        assert len(np.unique(seen.T, axis=0)) > 30
    if order == "random_blocks":
        assert np.all(np.sort(seen.reshape(6, 3, 40), axis=1) == np.array([-20.0, -14.0, -8.0])[:, np.newaxis])


@pytest.mark.parametrize(
    ("harder", "right", "status"),
    [(-1, True, "AT_FLOOR"), (-1, False, "AT_CEILING"), (1, True, "AT_CEILING"), (1, False, "AT_FLOOR")],
)
def test_levels_that_miss_the_threshold_are_reported(harder, right, status):
    rule = ConstantStimuli(levels=[1.0, 2.0, 3.0], n_per_level=4, harder=harder, guess_rate=0.25)
    state = rule.init(1)
    for _ in range(12):
        state = rule.record(state, np.array([right]))
    assert Status(state.status[0]).name == status
    assert np.isnan(rule.summary(state).threshold).all()


def test_counts_and_unusable_answers():
    rule = ConstantStimuli(levels=[1.0, 2.0], n_per_level=2, order="as_given", threshold_from="spearman_karber")
    state = rule.init(2)
    for right, bad in ((False, False), (True, False), (True, True), (True, False)):
        state = rule.record(state, np.full(2, right), invalid=np.array([False, bad]))
    assert state.n_correct.tolist() == [[1, 2], [0, 1]]
    assert state.status.tolist() == [Status.CONVERGED, Status.INVALID_OUTPUT]
    assert state.n_trials.tolist() == [4, 3]
    # proportions 0.5 and 1, continued to 0 at level 0: 0.5 * 0.5 + 0.5 * 1.5
    assert rule.summary(state).threshold[0] == pytest.approx(1.0)


@pytest.mark.parametrize("harder", [-1, 1])
def test_spearman_karber_is_the_mean_with_its_spread(harder):
    levels = [-harder * x for x in LEVELS]
    listener = PsychometricFunction(threshold=14.0 * harder, slope=-0.1 * harder)
    rule = ConstantStimuli(levels=levels, n_per_level=20, threshold_from="spearman_karber", harder=harder)
    summary = run_tracks(rule, AFC(n_intervals=2), listener, 3000, seed=9)
    assert rule.target_proportion == 0.5
    assert np.all(summary.status == Status.CONVERGED)
    assert unbiased(summary.threshold, 14.0 * harder, extra=0.02)  # what lies beyond the outer levels
    # monotone proportions spread a little less than binomial ones
    assert np.sqrt((summary.threshold_sem**2).mean()) == pytest.approx(summary.threshold.std(), rel=0.06)


@pytest.mark.parametrize(
    ("shape", "target", "harder"), [("logistic", 0.75, -1), ("cumulative_gaussian", 0.6, -1), ("gumbel", 0.8, 1)]
)
def test_the_fit_finds_the_target_level_with_its_spread(shape, target, harder):
    listener = PsychometricFunction(threshold=14.0 * harder, slope=-0.1 * harder, guess_rate=1 / 3, shape=shape)
    levels = [-harder * x for x in (-23.0, -20.0, -17.0, -14.0, -11.0, -8.0, -5.0)]
    rule = ConstantStimuli(
        levels=levels, n_per_level=100, guess_rate=1 / 3, target_proportion=target, shape=shape, harder=harder
    )
    summary = run_tracks(rule, AFC(n_intervals=3), listener, 1500, seed=10)
    assert np.all(summary.status == Status.CONVERGED)
    # 700 trials: maximum likelihood is unbiased but for a term of order 1/n
    # (a fit that stops at a second maximum gives no threshold; seen once in 4500)
    given = np.isfinite(summary.threshold)
    assert given.mean() > 0.998
    threshold, sem = summary.threshold[given], summary.threshold_sem[given]
    assert unbiased(threshold, float(listener.inverse(target)), extra=0.02)
    assert np.sqrt((sem**2).mean()) == pytest.approx(threshold.std(), rel=0.08)


def test_answers_that_are_a_step():
    """All wrong up to -17, all correct from -14: the threshold lies between, and there is no standard error."""
    rule = ConstantStimuli(levels=LEVELS, n_per_level=4, guess_rate=0.25, target_proportion=0.7)
    state = rule.init(2)
    while not state.done.all():
        state = rule.record(state, state.level > -15.0)
    summary = rule.summary(state)
    assert np.all((summary.threshold > -17) & (summary.threshold < -14))
    assert np.isnan(summary.threshold_sem).all()
    assert summary.status.tolist() == [Status.CONVERGED] * 2


def test_spearman_karber_by_hand():
    """Proportions 0, 1/4, 3/4, 1 at 1, 2, 3, 4: steps of 1/4, 1/2, 1/4 at the midpoints 1.5, 2.5, 3.5."""
    threshold, sem = spearman_karber([1.0, 2.0, 3.0, 4.0], [[0, 1, 3, 4]], [[4, 4, 4, 4]])
    assert threshold[0] == pytest.approx(2.5)
    assert sem[0] == pytest.approx(math.sqrt(2 * (1 / 4 * 3 / 4 / 3)))
    guessed, _ = spearman_karber([1.0, 2.0, 3.0], [[2, 3, 4]], [[4, 4, 4]], guess_rate=0.5)
    assert guessed[0] == pytest.approx(2.0)
    with pytest.raises(SpecError, match="must ascend or descend"):
        spearman_karber([1.0, 3.0, 2.0], [[0, 1, 2]], [[2, 2, 2]])


def test_isotonic_is_the_constrained_optimum():
    """Against pooling of adjacent violators, one row at a time."""
    rng = np.random.default_rng(4)
    trials = rng.integers(1, 9, (200, 6))
    right = rng.integers(0, trials + 1)
    for row, (r, n) in zip(isotonic(right, trials), zip(right, trials, strict=True), strict=True):
        blocks = [[a, b, 1] for a, b in zip(r.tolist(), n.tolist(), strict=True)]
        k = 0
        while k < len(blocks) - 1:
            if blocks[k][0] / blocks[k][1] > blocks[k + 1][0] / blocks[k + 1][1]:
                blocks[k] = [a + b for a, b in zip(blocks[k], blocks.pop(k + 1), strict=True)]
                k = max(k - 1, 0)
            else:
                k += 1
        np.testing.assert_allclose(row, np.concatenate([[a / b] * c for a, b, c in blocks]), rtol=1e-12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"levels": [1.0]}, r"procedure\.levels"),
        ({"levels": [1.0, 1.0]}, r"names a level twice"),
        ({"levels": [1.0, 2.0], "level_max": 1.5}, r"levels: 2 is outside the limits: .* to 1\.5 \(level_max\)"),
        ({"levels": [1.0, 2.0], "target_proportion": 0.3, "guess_rate": 0.5}, r"must lie between guess_rate \(0\.5\)"),
        (
            {"levels": [1.0, 2.0], "target_proportion": 0.7, "threshold_from": "spearman_karber"},
            r"does not fit threshold_from = 'spearman_karber', which finds 0\.5",
        ),
        ({"levels": [0.0, 2.0], "shape": "weibull"}, r"levels must be above 0 for shape = 'weibull'"),
        ({"levels": [1.0, 2.0], "guess_rate": 0.6, "lapse_rate": 0.5}, r"must have a sum below 1"),
        ({"levels": [1.0, 2.0], "n_per_level": 100_000}, r"at most 100000 trials"),
    ],
)
def test_constant_stimuli_that_cannot_work(settings, message):
    with pytest.raises(SpecError, match=message):
        ConstantStimuli(**settings)


def test_constant_stimuli_have_no_start():
    with pytest.raises(SpecError, match="constant stimuli have no starting level"):
        ConstantStimuli(levels=[1.0, 2.0]).init(2, level_start=[1.0, 1.0])
    assert ConstantStimuli(levels=[1.0, 2.0]).settings.level_start == 2.0
    assert ConstantStimuli(levels=[1.0, 2.0], harder=1).settings.level_start == 1.0
    one, two = (ConstantStimuli(levels=[1.0, 2.0, 3.0], seed=s).init(2) for s in (1, 1))
    assert_same_state(one, two)
    other = ConstantStimuli(levels=[1.0, 2.0, 3.0], seed=2).init(2)
    assert not np.array_equal(one.order, other.order)
