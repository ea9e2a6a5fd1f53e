"""Sensitivity in comparison tasks: same-different, ABX, and oddity (the triangle of three intervals).

Two ways to decide are covered. With *independent observation* the listener knows both sounds, judges each interval on
its own and combines the judgements as well as possible: sounds are fixed, or nearly. With *differencing* only
differences between intervals are used, as when levels rove from trial to trial. The same proportion correct stands for
different d' under the two, so each function has a ``rule``. Observers are unbiased, observations normal with equal
variance. Unlike forced choice, none of these tasks can be worse than chance for any d': a proportion below chance has
no d' and gives NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from psysim.errors import check_option
from psysim.procedures.sdt import proportions_checked

__all__ = [
    "COMPARISON_RULES",
    "criterion_same_different",
    "d_prime_abx",
    "d_prime_oddity",
    "d_prime_same_different",
    "d_prime_same_different_rates",
    "proportion_correct_abx",
    "proportion_correct_oddity",
    "proportion_correct_same_different",
    "rates_same_different",
]

FloatArray = NDArray[np.float64]
Rule = Literal["differencing", "independent_observation"]

COMPARISON_RULES = ("differencing", "independent_observation")
LARGEST = 60.0
"""All proportions correct are 1 in double precision for smaller d' than this."""
N_NODES = 96
RANGE = 9.5
"""The normal density is below 1e-20 beyond."""


@cache
def _half_line() -> tuple[FloatArray, FloatArray]:
    """Return nodes and weights from 0 to `RANGE` (Gauss-Legendre)."""
    x, weight = np.polynomial.legendre.leggauss(N_NODES)
    return 0.5 * RANGE * (x + 1.0), 0.5 * RANGE * weight


def _density(x: FloatArray) -> FloatArray:
    return np.exp(-0.5 * np.square(x)) / np.sqrt(2.0 * np.pi)


def _invert(function: Callable[[FloatArray], FloatArray], p: FloatArray, chance: float) -> FloatArray:
    """Return d' >= 0 with ``function(d') = p`` for a function that rises from chance to 1, by bisection."""
    low, high = np.zeros(p.shape), np.full(p.shape, LARGEST)
    for _ in range(60):
        middle = 0.5 * (low + high)
        below = function(middle) < p
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    d = np.where(p == chance, 0.0, 0.5 * (low + high))
    return np.asarray(np.where(p == 1.0, np.inf, np.where(p >= chance, d, np.nan)))


def criterion_same_different(d_prime: ArrayLike) -> FloatArray:
    """Return the difference between two observations above which "different" is the better answer.

    Where both kinds of pair are equally likely, for the differencing rule:
    ``k = (2 / d') arccosh(exp(d'**2 / 4))``, which is sqrt(2) for d' near 0.

    Parameters
    ----------
    d_prime : array_like
        Sensitivity d', the sign of no influence.

    Examples
    --------
    >>> criterion_same_different([0.0, 2.0]).round(4)
    array([1.4142, 1.6575])
    """
    d = np.abs(np.asarray(d_prime, dtype=np.float64))
    with np.errstate(over="ignore", invalid="ignore"):
        e = np.square(d) / 4.0
        # arccosh(exp(e)) = e + log(1 + sqrt(1 - exp(-2 e))), good for large e; by its series for small d'
        exact = 2.0 / np.maximum(d, 1e-300) * (e + np.log1p(np.sqrt(-np.expm1(-2.0 * e))))
    return np.asarray(np.where(d < 1e-4, np.sqrt(2.0), exact))


def rates_same_different(d_prime: ArrayLike, criterion: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return the rates of "different" for different and for same pairs, with the differencing rule.

    Parameters
    ----------
    d_prime : array_like
        Sensitivity d'.
    criterion : array_like
        "Different" is said if two observations differ by more than this, in standard deviations of one of them.

    References
    ----------
    Macmillan, N. A., and Creelman, C. D. (2005). Detection Theory: A User's Guide, 2nd ed., ch. 9.
    Noreen, D. L. (1981). Optimal decision rules for some common psychophysical paradigms. SIAM-AMS Proc. 13, 237-279.

    Examples
    --------
    >>> [float(rate.round(4)) for rate in rates_same_different(2.0, 1.4)]
    [0.6724, 0.3222]
    """
    d, k = np.asarray(d_prime, dtype=np.float64), np.asarray(criterion, dtype=np.float64)
    root = np.sqrt(2.0)
    hits = ndtr((d - k) / root) + ndtr((-d - k) / root)
    return np.asarray(hits), np.asarray(2.0 * ndtr(-k / root))


def d_prime_same_different_rates(hit_rate: ArrayLike, false_alarm_rate: ArrayLike) -> FloatArray:
    """Return d' from the rates of "different" for different and same pairs: differencing rule, any criterion.

    Parameters
    ----------
    hit_rate, false_alarm_rate : array_like
        Proportion of "different" for different and for same pairs. NaN results where the first is the smaller one.

    Raises
    ------
    SpecError
        If a rate is outside 0 to 1.

    Examples
    --------
    >>> float(d_prime_same_different_rates(0.6724, 0.3222).round(2))
    2.0
    """
    hits = proportions_checked("hit_rate", hit_rate)
    false_alarms = proportions_checked("false_alarm_rate", false_alarm_rate)
    hits, false_alarms = (np.asarray(a) for a in np.broadcast_arrays(hits, false_alarms))
    with np.errstate(invalid="ignore", over="ignore"):
        k = -np.sqrt(2.0) * ndtri(0.5 * false_alarms)
        finite = np.isfinite(k)
        k = np.where(finite, k, 0.0)
        low, high = np.zeros(hits.shape), np.full(hits.shape, LARGEST)
        for _ in range(60):
            middle = 0.5 * (low + high)
            below = rates_same_different(middle, k)[0] < hits
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        d = np.where(hits == false_alarms, 0.0, 0.5 * (low + high))
        d = np.where(hits >= false_alarms, d, np.nan)
    d = np.where((hits == 1.0) & (false_alarms < 1.0), np.inf, d)
    unbounded = ~finite | (false_alarms == 1.0)
    return np.asarray(np.where(unbounded, np.where((false_alarms == 0.0) & (hits > 0.0), np.inf, np.nan), d))


def proportion_correct_same_different(d_prime: ArrayLike, rule: Rule = "differencing") -> FloatArray:
    """Return the proportion correct in a same-different task with equally many same and different pairs.

    Parameters
    ----------
    d_prime : array_like
        Sensitivity d' between the two sounds.
    rule : {"differencing", "independent_observation"}
        How the listener decides: a criterion on the difference (the best, see `criterion_same_different`), or on the
        likelihood of the two classified sounds, ``Phi(d'/2)**2 + Phi(-d'/2)**2``.

    Raises
    ------
    SpecError
        If the rule is not known.

    References
    ----------
    Macmillan, N. A., and Creelman, C. D. (2005). Detection Theory: A User's Guide, 2nd ed., ch. 9, Eq. 9.4.
    Noreen, D. L. (1981). SIAM-AMS Proc. 13, 237-279.

    Examples
    --------
    >>> proportion_correct_same_different([0.0, 2.0], rule="independent_observation").round(4)
    array([0.5  , 0.733])
    """
    check_option("rule", rule, COMPARISON_RULES)
    d = np.asarray(d_prime, dtype=np.float64)
    if rule == "independent_observation":
        return np.asarray(ndtr(0.5 * d) ** 2 + ndtr(-0.5 * d) ** 2)
    hits, false_alarms = rates_same_different(d, criterion_same_different(d))
    return np.asarray(0.5 * (hits + 1.0 - false_alarms))


def d_prime_same_different(proportion_correct: ArrayLike, rule: Rule = "differencing") -> FloatArray:
    """Return d' from the proportion correct of an unbiased listener in a same-different task.

    Parameters
    ----------
    proportion_correct : array_like
        0.5 to 1; NaN below, infinite at 1.
    rule : {"differencing", "independent_observation"}
        See `proportion_correct_same_different`.

    Raises
    ------
    SpecError
        If a proportion is outside 0 to 1 or the rule is not known.

    Examples
    --------
    >>> float(d_prime_same_different(0.75, rule="independent_observation").round(4))
    2.1036
    """
    check_option("rule", rule, COMPARISON_RULES)
    p = proportions_checked("proportion_correct", proportion_correct)
    if rule == "independent_observation":
        with np.errstate(invalid="ignore"):
            return np.asarray(2.0 * ndtri(0.5 * (1.0 + np.sqrt(2.0 * p - 1.0))))
    return _invert(lambda d: proportion_correct_same_different(d, rule), p, 0.5)


def proportion_correct_abx(d_prime: ArrayLike, rule: Rule = "differencing") -> FloatArray:
    """Return the proportion correct in an ABX task (is the third sound the first or the second?).

    ``Phi(d'/sqrt(2)) Phi(d'/c) + Phi(-d'/sqrt(2)) Phi(-d'/c)`` with c = sqrt(6) for differencing, 2 for independent
    observation.

    Parameters
    ----------
    d_prime : array_like
        Sensitivity d' between the two sounds.
    rule : {"differencing", "independent_observation"}
        How the listener decides.

    Raises
    ------
    SpecError
        If the rule is not known.

    References
    ----------
    Macmillan, N. A., and Creelman, C. D. (2005). Detection Theory: A User's Guide, 2nd ed., ch. 9.

    Examples
    --------
    >>> proportion_correct_abx([0.0, 2.0]).round(4)
    array([0.5   , 0.7468])
    """
    check_option("rule", rule, COMPARISON_RULES)
    d = np.asarray(d_prime, dtype=np.float64)
    first = d / np.sqrt(2.0)
    second = d / (np.sqrt(6.0) if rule == "differencing" else 2.0)
    return np.asarray(ndtr(first) * ndtr(second) + ndtr(-first) * ndtr(-second))


def d_prime_abx(proportion_correct: ArrayLike, rule: Rule = "differencing") -> FloatArray:
    """Return d' from the proportion correct of an unbiased listener in an ABX task.

    Parameters
    ----------
    proportion_correct : array_like
        0.5 to 1; NaN below, infinite at 1.
    rule : {"differencing", "independent_observation"}
        See `proportion_correct_abx`.

    Raises
    ------
    SpecError
        If a proportion is outside 0 to 1 or the rule is not known.

    Examples
    --------
    >>> float(d_prime_abx(0.7468).round(2))
    2.0
    """
    check_option("rule", rule, COMPARISON_RULES)
    p = proportions_checked("proportion_correct", proportion_correct)
    return _invert(lambda d: proportion_correct_abx(d, rule), p, 0.5)


def proportion_correct_oddity(d_prime: ArrayLike, rule: Rule = "differencing") -> FloatArray:
    """Return the proportion correct in a three-interval oddity (triangle) task (which one differs?).

    Either sound may be the odd one. Differencing chooses the observation farthest from the mean of all (Frijters);
    independent observation chooses the interval that is most likely the odd one, both sounds being known: the highest
    observation if the middle one lies below the midpoint between the sounds, else the lowest.

    Parameters
    ----------
    d_prime : array_like
        Sensitivity d' between the two sounds.
    rule : {"differencing", "independent_observation"}
        How the listener decides.

    Raises
    ------
    SpecError
        If the rule is not known.

    References
    ----------
    Frijters, J. E. R. (1979). The paradox of discriminatory nondiscriminators resolved. Chem. Senses 4, 355-358.
    Versfeld, N. J., Dai, H., and Green, D. M. (1996). The optimum decision rules for the oddity task.
    Percept. Psychophys. 58, 10-21.

    Examples
    --------
    >>> proportion_correct_oddity([0.0, 1.0, 2.0]).round(4)
    array([0.3333, 0.418 , 0.6048])
    """
    check_option("rule", rule, COMPARISON_RULES)
    d = np.abs(np.asarray(d_prime, dtype=np.float64))[..., None]
    x, weight = _half_line()
    if rule == "differencing":
        shift = d * np.sqrt(2.0 / 3.0)
        inner = ndtr(shift - np.sqrt(3.0) * x) + ndtr(-shift - np.sqrt(3.0) * x)
        return np.asarray(2.0 * (weight * inner * _density(x)).sum(axis=-1))
    half = 0.5 * d
    below = (weight * _density(x + half) * ndtr(half - x) ** 2).sum(axis=-1)  # the odd one high, all below the midpoint
    above = (weight * _density(x - half) * ndtr(-x - half) ** 2).sum(axis=-1)  # the odd one the lowest, all above
    return np.asarray(below + above + ndtr(half[..., 0]) ** 3 + ndtr(-half[..., 0]) ** 3)


def d_prime_oddity(proportion_correct: ArrayLike, rule: Rule = "differencing") -> FloatArray:
    """Return d' from the proportion correct of an unbiased listener in a three-interval oddity task.

    Parameters
    ----------
    proportion_correct : array_like
        1/3 to 1; NaN below, infinite at 1.
    rule : {"differencing", "independent_observation"}
        See `proportion_correct_oddity`.

    Raises
    ------
    SpecError
        If a proportion is outside 0 to 1 or the rule is not known.

    Examples
    --------
    >>> float(d_prime_oddity(0.6048).round(2))
    2.0
    """
    check_option("rule", rule, COMPARISON_RULES)
    p = proportions_checked("proportion_correct", proportion_correct)
    return _invert(lambda d: proportion_correct_oddity(d, rule), p, 1.0 / 3.0)
