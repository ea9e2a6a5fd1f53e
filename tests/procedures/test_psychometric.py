"""Psychometric functions: definitions, slopes, asymptotes, inverses."""

import math

import numpy as np
import pytest

from psysim.errors import SpecError
from psysim.procedures.psychometric import (
    SHAPES,
    PsychometricFunction,
    inverse_psychometric_function,
    psychometric_function,
)

AT_THRESHOLD = {
    "logistic": 0.5,
    "cumulative_gaussian": 0.5,
    "log_quick": 0.5,
    "weibull": 1 - math.exp(-1),
    "gumbel": 1 - math.exp(-1),
    "quick": 0.5,
    "log_logistic": 0.5,
    "log_gaussian": 0.5,
}
PARAMETERS = {"threshold": 5.0, "guess_rate": 0.25, "lapse_rate": 0.02}


def test_all_families_are_tested():
    assert set(SHAPES) == set(AT_THRESHOLD)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("slope", [0.3, -0.3])
def test_threshold_and_slope(shape, slope):
    """The value at the threshold, and the derivative there by central differences (error about h**2)."""
    h = 1e-5
    below, at, above = psychometric_function(
        [5.0 - h, 5.0, 5.0 + h], 5.0, slope, guess_rate=0.25, lapse_rate=0.02, shape=shape
    )
    assert at == pytest.approx(0.25 + 0.73 * AT_THRESHOLD[shape], rel=1e-14)
    assert (above - below) / (2 * h) == pytest.approx(slope, rel=1e-7)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("slope", [0.3, -0.3])
def test_asymptotes_and_direction(shape, slope):
    low = 0.0 if SHAPES[shape].log_axis else -np.inf
    level = np.array([low, 1.0, 4.0, 5.0, 6.0, 20.0, np.inf])
    p = psychometric_function(level, slope=slope, shape=shape, **PARAMETERS)
    ends = [0.25, 0.98] if slope > 0 else [0.98, 0.25]
    np.testing.assert_allclose(p[[0, -1]], ends, rtol=1e-14)
    assert np.all(np.sign(np.diff(p[1:5])) == np.sign(slope))
    assert np.all((p >= 0.25) & (p <= 0.98))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("slope", [0.1, -0.1])
def test_inverse(shape, slope):
    p = np.linspace(0.26, 0.97, 30)
    level = inverse_psychometric_function(p, slope=slope, shape=shape, **PARAMETERS)
    np.testing.assert_allclose(psychometric_function(level, slope=slope, shape=shape, **PARAMETERS), p, rtol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_no_level_gives_what_lies_beyond_the_asymptotes(shape):
    ends = inverse_psychometric_function([0.2, 0.25, 0.98, 0.99], slope=0.1, shape=shape, **PARAMETERS)
    low = 0.0 if SHAPES[shape].log_axis else -np.inf
    np.testing.assert_array_equal(ends, [np.nan, low, np.inf, np.nan])


@pytest.mark.parametrize(
    ("shape", "formula"),
    [
        ("logistic", lambda x: 1 / (1 + np.exp(-4 * 0.2 * (x - 5)))),
        ("gumbel", lambda x: 1 - np.exp(-np.exp(math.e * 0.2 * (x - 5)))),
        ("weibull", lambda x: 1 - np.exp(-((x / 5) ** (math.e * 0.2 * 5)))),
        ("log_quick", lambda x: 1 - 2 ** (-(10 ** (0.4 / math.log(2) / math.log(10) * (x - 5))))),
        ("cumulative_gaussian", lambda x: np.vectorize(_normal)((x - 5) * 0.2 * math.sqrt(2 * math.pi))),
    ],
)
def test_formulas(shape, formula):
    x = np.linspace(1, 9, 17)
    np.testing.assert_allclose(psychometric_function(x, 5.0, 0.2, shape=shape), formula(x), rtol=1e-12)


def _normal(z):
    return 0.5 * math.erfc(-z / math.sqrt(2))


def test_arguments_broadcast():
    level = np.zeros((4, 1))
    p = psychometric_function(level, threshold=[-1.0, 0.0, 1.0], slope=0.25, guess_rate=0.5)
    assert p.shape == (4, 3)
    assert p[0, 1] == 0.75
    assert psychometric_function(0.0, 0.0, 1.0).shape == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": "logistik"}, r"shape = 'logistik' is not known\..*Did you mean 'logistic'"),
        ({"guess_rate": 0.5, "lapse_rate": 0.5}, "sum below 1"),
        ({"guess_rate": -0.1}, "at least 0"),
        ({"slope": 0.0}, "slope = 0.0 must be finite and not 0"),
        ({"slope": np.nan}, "must be finite"),
        ({"shape": "weibull", "threshold": -5.0}, "threshold = -5.0 must be above 0.*for levels in dB use 'gumbel'"),
        (
            {"shape": "weibull", "threshold": 5.0, "level": -1.0},
            "level = -1 is negative.*for levels in dB use 'gumbel'",
        ),
    ],
)
def test_impossible_parameters(arguments, message):
    with pytest.raises(SpecError, match=message):
        psychometric_function(**({"level": 0.0, "threshold": 1.0, "slope": 1.0} | arguments))


def test_function_with_its_parameters():
    function = PsychometricFunction(threshold=-14.0, slope=0.1, guess_rate=1 / 3, lapse_rate=0.02)
    assert function(-14.0) == pytest.approx(1 / 3 + (1 - 1 / 3 - 0.02) / 2, rel=1e-14)
    assert function.inverse(function(-9.0)) == pytest.approx(-9.0, rel=1e-12)
    with pytest.raises(SpecError, match="slope"):
        PsychometricFunction(threshold=0.0, slope=0.0)
