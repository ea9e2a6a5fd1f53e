"""ROC curves, bias and lapses against counts, the area theorem and their definitions."""

import numpy as np
import pytest
from scipy.special import ndtr, ndtri
from scipy.stats import mannwhitneyu, norm

from psysim.errors import SpecError
from psysim.procedures.roc import (
    bias_relative,
    d_a,
    likelihood_ratio_bias,
    roc_area,
    roc_area_gaussian,
    roc_curve,
    roc_gaussian,
    roc_points,
    with_lapses,
    without_lapses,
)
from psysim.procedures.sdt import criterion_yes_no, d_prime_yes_no, proportion_correct_mafc


def test_the_curve_counts_answers():
    rng = np.random.default_rng(3)
    target, reference = rng.integers(0, 9, 40) + 1, rng.integers(0, 9, 60)
    false_alarms, hits, criterion = roc_curve(target, reference)
    for f, h, c in zip(false_alarms, hits, criterion, strict=True):
        assert f == np.mean(reference >= c)
        assert h == np.mean(target >= c)
    assert (false_alarms[-1], hits[-1]) == (1.0, 1.0)


def test_the_area_is_that_under_the_curve_and_the_share_of_pairs():
    rng = np.random.default_rng(5)
    target, reference = rng.integers(0, 9, 40) + 2, rng.integers(0, 9, 60)
    area, error = roc_area(target, reference)
    false_alarms, hits, _ = roc_curve(target, reference)
    assert area == pytest.approx(np.trapezoid(hits, false_alarms), rel=1e-12)
    assert area == pytest.approx(mannwhitneyu(target, reference).statistic / (40 * 60), rel=1e-12)
    assert 0 < error < 0.1


def test_the_standard_error_is_the_spread_of_areas():
    rng = np.random.default_rng(7)
    found = np.array([roc_area(rng.standard_normal(50) + 1, rng.standard_normal(80)) for _ in range(2000)])
    assert found[:, 0].std() == pytest.approx(np.sqrt(np.mean(found[:, 1] ** 2)), rel=0.05)
    assert found[:, 0].mean() == pytest.approx(float(roc_area_gaussian(1.0)), abs=0.004)


def test_the_area_theorem():
    """Area of an equal-variance observer = proportion correct in two intervals (Green & Swets, 1966)."""
    d = np.array([0.0, 0.7, 2.0])
    np.testing.assert_allclose(roc_area_gaussian(d), proportion_correct_mafc(d, 2), rtol=1e-12)
    grid = np.linspace(0, 1, 20001)
    area = np.trapezoid(roc_gaussian(1.2, grid, 1.5), grid)
    assert area == pytest.approx(float(roc_area_gaussian(1.2, 1.5)), abs=1e-4)


def test_ratings():
    target, reference = np.array([[5, 10, 25, 60], [1, 0, 0, 0]]), np.array([[50, 30, 15, 5], [0, 0, 0, 2]])
    false_alarms, hits = roc_points(target, reference)
    np.testing.assert_allclose(hits[0], [0, 0.6, 0.85, 0.95, 1])
    np.testing.assert_allclose(false_alarms[0], [0, 0.05, 0.2, 0.5, 1])
    assert hits[1].tolist() == [0, 0, 0, 0, 1]


def test_sensitivity_and_bias():
    d, c, s = 1.3, 0.4, 0.8
    hits, false_alarms = ndtr(d / 2 - c), ndtr(-d / 2 - c)
    assert float(d_a(hits, false_alarms)) == pytest.approx(float(d_prime_yes_no(hits, false_alarms)))
    assert float(likelihood_ratio_bias(hits, false_alarms)) == pytest.approx(c * d)
    density = norm.pdf(ndtri(hits)) / norm.pdf(ndtri(false_alarms))
    assert np.exp(likelihood_ratio_bias(hits, false_alarms)) == pytest.approx(density)
    criterion = criterion_yes_no(hits, false_alarms)
    assert float(bias_relative(hits, false_alarms)) == pytest.approx(float(criterion) / d)
    # every point of one ROC has the same d_a: mean difference over the rms of the two deviations
    points = np.array([0.05, 0.3, 0.6])
    found = d_a(roc_gaussian(d, points, 1 / s), points, slope=s)
    np.testing.assert_allclose(found, d / np.sqrt((1 + s**-2) / 2), rtol=1e-10)


def test_lapses():
    p = np.array([0.5, 0.8, 1.0])
    lapsed = with_lapses(p, 0.1, 0.5)
    np.testing.assert_allclose(lapsed, 0.9 * p + 0.05)
    np.testing.assert_allclose(without_lapses(lapsed, 0.1, 0.5), p)
    assert np.isnan(without_lapses(0.99, 0.1, 0.5))


@pytest.mark.parametrize(
    "call",
    [
        lambda: roc_curve([], [1.0]),
        lambda: roc_area([np.nan], [1.0]),
        lambda: roc_points([0, 0], [1, 1]),
        lambda: roc_points([-1, 2], [1, 1]),
        lambda: roc_gaussian(1.0, 1.5),
        lambda: roc_area_gaussian(1.0, 0.0),
        lambda: d_a(0.5, 0.5, slope=-1.0),
        lambda: with_lapses(0.5, 1.2, 0.5),
    ],
)
def test_bad_input(call):
    with pytest.raises(SpecError):
        call()
