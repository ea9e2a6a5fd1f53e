"""Comparison tasks against Monte-Carlo runs of the decisions themselves, and their inverses."""

import numpy as np
import pytest

from psysim.errors import SpecError
from psysim.procedures.sdt_comparison import (
    COMPARISON_RULES,
    criterion_same_different,
    d_prime_abx,
    d_prime_oddity,
    d_prime_same_different,
    d_prime_same_different_rates,
    proportion_correct_abx,
    proportion_correct_oddity,
    proportion_correct_same_different,
    rates_same_different,
)

N = 400_000
TASKS = {
    "same_different": (proportion_correct_same_different, d_prime_same_different, 0.5),
    "abx": (proportion_correct_abx, d_prime_abx, 0.5),
    "oddity": (proportion_correct_oddity, d_prime_oddity, 1 / 3),
}


def log_ratio(x, d):
    """Return the logarithm of the likelihood ratio of the sound with mean d to the one with mean 0."""
    return d * x - 0.5 * d * d


def same_different(rng, d, rule):
    first, second = rng.integers(0, 2, (2, N))
    x, y = first * d + rng.standard_normal(N), second * d + rng.standard_normal(N)
    if rule == "differencing":
        return (np.abs(x - y) > criterion_same_different(d)) == (first != second)
    return ((x > d / 2) != (y > d / 2)) == (first != second)


def abx(rng, d, rule):
    swapped, third = rng.integers(0, 2, (2, N))
    a, b = (np.where(swapped, 1 - k, k) * d + rng.standard_normal(N) for k in (0, 1))
    x = np.where(third, 1 - swapped, swapped) * d + rng.standard_normal(N)
    # independent observation: the order of the first two, and which sound the third is, by the larger likelihood each
    answer = np.abs(x - b) < np.abs(x - a) if rule == "differencing" else (b > a) == (x > d / 2)
    return answer == third


def oddity(rng, d, rule):
    high, odd = rng.integers(0, 2, N), rng.integers(0, 3, N)
    means = np.where((np.arange(3) == odd[:, None]) == high[:, None], d, 0.0)
    x = means + rng.standard_normal((N, 3))
    if rule == "differencing":
        return np.abs(x - x.mean(axis=1, keepdims=True)).argmax(axis=1) == odd
    ratio = log_ratio(x, d)  # odd one high: its ratio alone; odd one low: those of the two others; equally likely
    likelihood = np.exp(ratio) + np.exp(ratio.sum(axis=1, keepdims=True) - ratio)
    return likelihood.argmax(axis=1) == odd


@pytest.mark.parametrize("rule", COMPARISON_RULES)
@pytest.mark.parametrize("decide", [same_different, abx, oddity])
@pytest.mark.parametrize("d", [0.5, 1.0, 2.0, 3.5])
def test_the_integral_is_the_share_of_right_decisions(decide, rule, d):
    correct = decide(np.random.default_rng(round(10 * d)), d, rule).mean()
    expected = float(TASKS[decide.__name__][0](d, rule))
    assert abs(correct - expected) < 4 * np.sqrt(expected * (1 - expected) / N)


def test_the_criterion_is_the_best_one():
    choices = np.linspace(0.5, 3.0, 11)
    for d in (0.5, 1.0, 2.0, 3.0):
        hits, false_alarms = rates_same_different(d, choices)
        best = proportion_correct_same_different(d, "differencing")
        assert np.all(0.5 * (hits + 1 - false_alarms) <= best + 1e-12)


@pytest.mark.parametrize("rule", COMPARISON_RULES)
@pytest.mark.parametrize("task", TASKS)
def test_d_prime_is_the_inverse(task, rule):
    forward, inverse, chance = TASKS[task]
    d = np.array([0.3, 1.0, 2.0, 4.0])
    np.testing.assert_allclose(inverse(forward(d, rule), rule), d, rtol=1e-6)
    np.testing.assert_allclose(forward(-d, rule), forward(d, rule), rtol=1e-12)
    ends = inverse([chance, 1.0, chance - 0.1], rule)
    assert ends[0] == pytest.approx(0.0, abs=1e-6)
    assert np.isinf(ends[1])
    assert np.isnan(ends[2])


@pytest.mark.parametrize("d", [0.5, 1.0, 2.5])
@pytest.mark.parametrize("criterion", [0.5, 1.4, 3.0])
def test_d_prime_from_rates_with_any_criterion(d, criterion):
    hits, false_alarms = rates_same_different(d, criterion)
    assert float(d_prime_same_different_rates(hits, false_alarms)) == pytest.approx(d, rel=1e-8)
    assert np.isnan(d_prime_same_different_rates(false_alarms - 0.01, false_alarms))


@pytest.mark.parametrize("task", TASKS)
def test_bad_input(task):
    forward, inverse, _ = TASKS[task]
    with pytest.raises(SpecError, match="diferencing"):
        forward(1.0, "diferencing")
    with pytest.raises(SpecError, match="proportion_correct"):
        inverse(1.2)
