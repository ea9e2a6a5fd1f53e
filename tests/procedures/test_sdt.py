"""Signal detection theory against tables, closed forms and independent integration."""

from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from psysim.errors import SpecError
from psysim.procedures.sdt import (
    criterion_yes_no,
    d_prime_mafc,
    d_prime_yes_no,
    log_linear_rates,
    proportion_correct_large_m,
    proportion_correct_mafc,
    proportion_correct_yes_no,
    rates_yes_no,
)

DATA = Path(__file__).parents[1] / "reference" / "data"


def table(name):
    return np.genfromtxt(DATA / name, delimiter=",", names=True, dtype=None, encoding="utf-8")


@pytest.mark.parametrize("m", [2, 3, 4, 5, 6, 8, 10])
def test_proportion_correct_against_the_table(m):
    """The table has ten digits: half a unit of the last, and 3e-11 for the quadrature at 10 alternatives."""
    golden = table("mafc_percent_correct.csv")
    np.testing.assert_allclose(
        proportion_correct_mafc(golden["d_prime"], m), golden[f"pc_{m}afc"], rtol=0, atol=0.5e-10 + 3e-11
    )


@pytest.mark.parametrize("m", [2, 3, 4, 5, 6, 8, 10])
def test_d_prime_against_the_table(m):
    """The table has eight digits."""
    golden = table("mafc_dprime_at_target.csv")
    expected = golden[f"dprime_{m}afc"]
    here = np.isfinite(expected)  # chance in two intervals has no entry
    np.testing.assert_allclose(d_prime_mafc(golden["target_pc"], m)[here], expected[here], rtol=0, atol=0.6e-8)
    assert here.sum() == (5 if m == 2 else 6)


@pytest.mark.parametrize(
    ("m", "tolerance"), [(3, 1e-11), (6, 1e-11), (10, 5e-11), (16, 2e-9), (17, 1e-11), (50, 1e-11), (8000, 1e-11)]
)
def test_quadrature_against_adaptive_integration(m, tolerance):
    """Between and beyond the entries of the table; the tolerances are those stated in the docstring."""
    for d in (-3.0, -0.5, 0.15, 0.77, 2.345, 6.0, 9.0):
        exact, _ = quad(
            lambda x, d=d: norm.pdf(x - d) * norm.cdf(x) ** (m - 1), d - 12, d + 12, epsabs=1e-13, limit=500
        )
        assert abs(float(proportion_correct_mafc(d, m)) - exact) < tolerance


@pytest.mark.parametrize("m", range(2, 17))
def test_d_prime_is_the_inverse(m):
    d = np.linspace(-1.0, 5.0, 61)
    # where the function is flat (0.9998 correct at d' = 5), a rounding of 1e-16 in P is some 1e-12 in d'
    np.testing.assert_allclose(d_prime_mafc(proportion_correct_mafc(d, m), m), d, rtol=0, atol=1e-10)


@pytest.mark.parametrize("m", [2, 3, 8])
def test_chance_and_the_ends(m):
    assert proportion_correct_mafc(0.0, m) == pytest.approx(1 / m, abs=3e-11)
    assert d_prime_mafc(1 / m, m) == pytest.approx(0.0, abs=1e-9)
    np.testing.assert_array_equal(d_prime_mafc([0.0, 1.0, np.nan], m), [-np.inf, np.inf, np.nan])
    np.testing.assert_allclose(proportion_correct_mafc([-np.inf, np.inf], m), [0.0, 1.0], atol=1e-15)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 0)])
def test_shapes(shape):
    d = np.linspace(0.1, 2.0, int(np.prod(shape))).reshape(shape)
    p = proportion_correct_mafc(d, 3)
    assert p.shape == shape
    assert d_prime_mafc(p, 3).shape == shape
    assert p.dtype == np.float64
    for index in np.ndindex(shape):
        assert p[index] == proportion_correct_mafc(d[index], 3)


@pytest.mark.parametrize("m", [1, 2.5, 100_001, 0])
def test_alternatives_are_checked(m):
    with pytest.raises(SpecError, match=r"integer from 2 to 100000.*proportion_correct_large_m"):
        proportion_correct_mafc(1.0, m)
    with pytest.raises(SpecError, match="integer from 2 to 100000"):
        d_prime_mafc(0.5, m)


@pytest.mark.parametrize("call", [lambda p: d_prime_mafc(p, 3), lambda p: d_prime_yes_no(p, 0.1)])
@pytest.mark.parametrize("p", [-0.1, 70.7])
def test_proportions_are_checked(call, p):
    with pytest.raises(SpecError, match=f"= {p:g} is out of range: it must be a proportion from 0 to 1"):
        call(p)


@pytest.mark.parametrize(("m", "error"), [(1000, 0.018), (8000, 0.012)])
def test_large_m_is_as_good_as_it_says(m, error):
    d = np.linspace(0.0, 8.0, 33)
    exact = [quad(lambda x, d=d: norm.pdf(x - d) * norm.cdf(x) ** (m - 1), d - 10, d + 10, limit=500)[0] for d in d]
    worst = np.abs(proportion_correct_large_m(d, m) - exact).max()
    assert 0.5 * error < worst < error
    with pytest.raises(SpecError, match="at least 3"):
        proportion_correct_large_m(1.0, 2)


def test_large_m_with_a_variable_target():
    """Worked out: U = z(0.999) = 3.0902, mean U + 0.577/U = 3.2770, standard deviation 1.28255/U = 0.41503."""
    expected = norm.cdf((5.0 - 3.27695) / np.hypot(0.6, 0.41503))
    assert proportion_correct_large_m(5.0, 1000, signal_std=0.6) == pytest.approx(expected, abs=1e-5)


def test_yes_no():
    """Macmillan and Creelman's worked case H = 0.84, F = 0.16: z = +-0.99446."""
    assert d_prime_yes_no(0.84, 0.16) == pytest.approx(2 * 0.994458, abs=1e-6)
    assert criterion_yes_no(0.84, 0.16) == pytest.approx(0.0, abs=1e-12)
    assert criterion_yes_no(0.6, 0.1) > 0  # says "no" too often


def test_rates_are_the_inverse():
    d, c = np.meshgrid(np.linspace(-1, 4, 11), np.linspace(-1, 1, 5))
    hits, false_alarms = rates_yes_no(d, c)
    np.testing.assert_allclose(d_prime_yes_no(hits, false_alarms), d, atol=1e-12)
    np.testing.assert_allclose(criterion_yes_no(hits, false_alarms), c, atol=1e-12)


def test_extreme_rates_are_infinite_and_the_correction_keeps_them_finite():
    assert d_prime_yes_no(1.0, 0.2) == np.inf
    assert np.isnan(criterion_yes_no(1.0, 0.0))
    assert d_prime_yes_no(*log_linear_rates(20, 20, 0, 20)) == pytest.approx(2 * norm.ppf(20.5 / 21), rel=1e-12)
    with pytest.raises(SpecError, match="hits must be from 0 to the number of trials"):
        log_linear_rates(21, 20, 0, 20)


def test_proportion_correct_yes_no():
    d = np.linspace(0, 4, 9)
    np.testing.assert_allclose(proportion_correct_yes_no(d), norm.cdf(d / 2), rtol=1e-14)
    np.testing.assert_allclose(proportion_correct_yes_no(d, p_target=0.9), norm.cdf(d / 2), rtol=1e-14)
    # all "yes": as often correct as there is a target
    assert proportion_correct_yes_no(1.0, criterion=-20.0, p_target=0.3) == pytest.approx(0.3, abs=1e-12)
