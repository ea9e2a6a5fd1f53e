"""Signal detection theory: from sensitivity to proportion correct and back.

All functions take scalars or arrays, work element by element, and return float64 arrays (0-d for scalars).
Observers are unbiased and their decision variables independent, normal and of equal variance unless said otherwise.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from psysim.errors import SpecError

__all__ = [
    "criterion_yes_no",
    "d_prime_mafc",
    "d_prime_yes_no",
    "log_linear_rates",
    "proportion_correct_large_m",
    "proportion_correct_mafc",
    "proportion_correct_yes_no",
    "rates_yes_no",
]

FloatArray = NDArray[np.float64]

N_NODES = 64
M_GAUSS = 16
"""Largest number of alternatives for which 64 nodes are good to 2e-9 (to 3e-11 up to 10 alternatives)."""

M_MAX = 100_000
"""Largest number of alternatives; from 17 on, an equidistant grid takes the place of the nodes (error below 1e-11)."""
GRID_STEP, GRID_END = 1.0 / 32.0, 9.5

D_PRIME_BOUND = 16.0
"""Beyond it proportions correct are 0 or 1 in double precision."""


@cache
def _nodes(m: int) -> tuple[FloatArray, FloatArray]:
    """Return nodes and weights of the standard normal density, for the power m - 1 of the distribution function."""
    if m > M_GAUSS:
        grid: FloatArray = np.arange(-GRID_END, GRID_END + GRID_STEP, GRID_STEP, dtype=np.float64)
        return grid, GRID_STEP * np.exp(-0.5 * grid**2) / np.sqrt(2.0 * np.pi)
    x, weight = np.polynomial.hermite.hermgauss(N_NODES)
    return np.sqrt(2.0) * x, weight / weight.sum()


def _check_alternatives(m: int, largest: int = M_MAX) -> None:
    if not 2 <= m <= largest or int(m) != m:
        remedy = " For more, proportion_correct_large_m is an approximation."
        raise SpecError(f"m = {m!r} alternatives are not possible here: use an integer from 2 to {largest}.{remedy}")


def proportions_checked(name: str, values: ArrayLike) -> FloatArray:
    """Return ``values`` as an array, or raise `SpecError` if one is outside 0 to 1 (NaN passes)."""
    array = np.asarray(values, dtype=np.float64)
    bad = (array < 0) | (array > 1)
    if bad.any():
        raise SpecError(f"{name} = {array[bad].flat[0]:g} is out of range: it must be a proportion from 0 to 1.")
    return array


def proportion_correct_mafc(d_prime: ArrayLike, m: int) -> FloatArray:
    """Return the proportion correct in an m-alternative forced-choice task.

    The integral ``P = int phi(x - d') Phi(x)**(m - 1) dx`` is taken by 64-node Gauss-Hermite quadrature: exact to
    3e-11 for m up to 10 and to 2e-9 for m up to 16; above, on an equidistant grid, to 1e-11. For m = 2 it is
    ``Phi(d' / sqrt(2))``.

    Parameters
    ----------
    d_prime : array_like
        Sensitivity d', distance of the target's mean from the others in standard deviations.
    m : int
        Number of alternatives, 2 to 100 000.

    Raises
    ------
    SpecError
        If ``m`` is outside its range.

    References
    ----------
    Green, D. M., and Dai, H. (1991). Probability of being correct with 1 of M orthogonal signals.
    Percept. Psychophys. 49, 100-101. Hacker, M. J., and Ratcliff, R. (1979). Percept. Psychophys. 26, 168-170.

    Examples
    --------
    >>> proportion_correct_mafc([0.0, 1.0], 3).round(4)
    array([0.3333, 0.6337])
    """
    _check_alternatives(m)
    d = np.asarray(d_prime, dtype=np.float64)
    if m == 2:
        return np.asarray(ndtr(d / np.sqrt(2.0)))
    u, weight = _nodes(m)
    return np.asarray((weight * ndtr(u + d[..., np.newaxis]) ** (m - 1)).sum(axis=-1))


def _slope_mafc(d: FloatArray, m: int) -> FloatArray:
    """Return the derivative of `proportion_correct_mafc` with respect to d'."""
    u, weight = _nodes(m)
    x = u + d[..., np.newaxis]
    density = np.exp(-0.5 * x * x) / np.sqrt(2.0 * np.pi)
    return np.asarray((m - 1) * (weight * density * ndtr(x) ** (m - 2)).sum(axis=-1))


def d_prime_mafc(proportion_correct: ArrayLike, m: int) -> FloatArray:
    """Return the sensitivity d' that gives a proportion correct in an m-alternative forced-choice task.

    Parameters
    ----------
    proportion_correct : array_like
        From 0 to 1; below chance d' is negative, 0 gives -inf, 1 gives inf, NaN gives NaN.
    m : int
        Number of alternatives, 2 to 100 000.

    Raises
    ------
    SpecError
        If a proportion or ``m`` is outside its range.

    See Also
    --------
    proportion_correct_mafc : the inverse.

    Examples
    --------
    >>> d_prime_mafc([0.5**0.5, 0.75], 3).round(4)
    array([1.2648, 1.4338])
    """
    _check_alternatives(m)
    p = proportions_checked("proportion_correct", proportion_correct)
    if m == 2:
        return np.asarray(np.sqrt(2.0) * ndtri(p))
    inside = np.asarray((p > 0) & (p < 1))
    d = np.where(p == 1, np.inf, np.where(p == 0, -np.inf, np.nan))
    d[inside] = _solve_mafc(p[inside], m)
    return d


def _solve_mafc(p: FloatArray, m: int) -> FloatArray:
    """Return d' for proportions strictly between 0 and 1: Newton steps, bisection where they leave the bracket."""
    low, high = np.full(p.shape, -D_PRIME_BOUND), np.full(p.shape, D_PRIME_BOUND)
    d = np.zeros(p.shape)
    for _ in range(80):
        error = proportion_correct_mafc(d, m) - p
        low, high = np.where(error < 0, d, low), np.where(error > 0, d, high)
        newton = d - error / np.maximum(_slope_mafc(d, m), 1e-300)
        inside = (newton > low) & (newton < high)
        step = np.where(error == 0, 0.0, np.where(inside, newton, 0.5 * (low + high)) - d)
        d = d + step
        if np.all(np.abs(step) < 1e-14 * np.maximum(1.0, np.abs(d))):
            break
    return d


def proportion_correct_large_m(d_prime: ArrayLike, m: int, signal_std: ArrayLike = 1.0) -> FloatArray:
    """Return the approximate proportion correct for a choice among many alternatives, such as words.

    The largest of the m - 1 others is taken as normal with mean ``U + 0.577 / U`` and standard deviation
    ``1.28255 / U``, ``U = Phi**-1(1 - 1 / m)``. It is wrong by up to 0.017 for m = 1000 and 0.011 for m = 8000, worst
    near chance; `proportion_correct_mafc` has the exact integral for a target of equal variance.

    Parameters
    ----------
    d_prime : array_like
        Sensitivity d'.
    m : int
        Number of alternatives, at least 3.
    signal_std : array_like
        Standard deviation of the target's decision variable, in units of that of the others.

    References
    ----------
    Green, D. M., and Birdsall, T. G. (1964), in Swets, Signal Detection and Recognition by Human Observers;
    as used by Jorgensen, S., and Dau, T. (2011). J. Acoust. Soc. Am. 130, 1475-1487.
    """
    if m < 3 or int(m) != m:
        raise SpecError(f"m = {m!r} alternatives are not possible here: use an integer of at least 3.")
    upper = ndtri(1.0 - 1.0 / m)
    mean, std = upper + 0.577 / upper, 1.28255 / upper
    spread = np.sqrt(np.asarray(signal_std, dtype=np.float64) ** 2 + std**2)
    return np.asarray(ndtr((np.asarray(d_prime, dtype=np.float64) - mean) / spread))


def d_prime_yes_no(hit_rate: ArrayLike, false_alarm_rate: ArrayLike) -> FloatArray:
    """Return the sensitivity d' = z(H) - z(F) of a yes/no task.

    Parameters
    ----------
    hit_rate, false_alarm_rate : array_like
        Proportion of "yes" with and without a target. Rates of 0 or 1 give infinite values: see `log_linear_rates`.

    Raises
    ------
    SpecError
        If a rate is outside 0 to 1.

    References
    ----------
    Green, D. M., and Swets, J. A. (1966). Signal Detection Theory and Psychophysics. Wiley.

    Examples
    --------
    >>> float(d_prime_yes_no(0.84, 0.16).round(3))
    1.989
    """
    hits = proportions_checked("hit_rate", hit_rate)
    false_alarms = proportions_checked("false_alarm_rate", false_alarm_rate)
    with np.errstate(invalid="ignore"):
        return np.asarray(ndtri(hits) - ndtri(false_alarms))


def criterion_yes_no(hit_rate: ArrayLike, false_alarm_rate: ArrayLike) -> FloatArray:
    """Return the criterion c = -(z(H) + z(F)) / 2 of a yes/no task: 0 is unbiased, positive says "no" too often.

    Parameters
    ----------
    hit_rate, false_alarm_rate : array_like
        Proportion of "yes" with and without a target.

    Raises
    ------
    SpecError
        If a rate is outside 0 to 1.

    References
    ----------
    Macmillan, N. A., and Creelman, C. D. (2005). Detection Theory: A User's Guide, 2nd ed., Eq. 2.1.
    """
    hits = proportions_checked("hit_rate", hit_rate)
    false_alarms = proportions_checked("false_alarm_rate", false_alarm_rate)
    with np.errstate(invalid="ignore"):
        return np.asarray(-0.5 * (ndtri(hits) + ndtri(false_alarms)))


def rates_yes_no(d_prime: ArrayLike, criterion: ArrayLike = 0.0) -> tuple[FloatArray, FloatArray]:
    """Return hit rate and false-alarm rate of a yes/no task, the inverse of `d_prime_yes_no` and `criterion_yes_no`.

    Parameters
    ----------
    d_prime : array_like
        Sensitivity d'.
    criterion : array_like
        Distance of the criterion from the unbiased point, in standard deviations.
    """
    d, c = np.asarray(d_prime, dtype=np.float64), np.asarray(criterion, dtype=np.float64)
    return np.asarray(ndtr(0.5 * d - c)), np.asarray(ndtr(-0.5 * d - c))


def proportion_correct_yes_no(d_prime: ArrayLike, criterion: ArrayLike = 0.0, p_target: float = 0.5) -> FloatArray:
    """Return the proportion of correct answers in a yes/no task; ``Phi(d' / 2)`` without bias.

    Parameters
    ----------
    d_prime : array_like
        Sensitivity d'.
    criterion : array_like
        See `criterion_yes_no`.
    p_target : float
        Proportion of trials with a target; of no influence without bias.
    """
    hits, false_alarms = rates_yes_no(d_prime, criterion)
    return np.asarray(p_target * hits + (1.0 - p_target) * (1.0 - false_alarms))


def log_linear_rates(
    hits: ArrayLike, n_target: ArrayLike, false_alarms: ArrayLike, n_reference: ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Return hit and false-alarm rates with the log-linear correction, which keeps them off 0 and 1.

    Half a response is added to each count and one trial to each number of trials.

    Parameters
    ----------
    hits, n_target : array_like of int
        "Yes" answers among the trials with a target.
    false_alarms, n_reference : array_like of int
        "Yes" answers among the trials without.

    Raises
    ------
    SpecError
        If a count is negative or more than its number of trials.

    References
    ----------
    Hautus, M. J. (1995). Corrections for extreme proportions and their biasing effects on estimated values of d'.
    Behav. Res. Methods Instrum. Comput. 27, 46-51.

    Examples
    --------
    >>> [float(rate) for rate in log_linear_rates(19, 19, 0, 19)]
    [0.975, 0.025]
    """
    rates = []
    for name, count, trials in (("hits", hits, n_target), ("false_alarms", false_alarms, n_reference)):
        yes, n = np.asarray(count, dtype=np.float64), np.asarray(trials, dtype=np.float64)
        if np.any((yes < 0) | (yes > n)):
            raise SpecError(f"{name} must be from 0 to the number of trials; got {yes} of {n}.")
        rates.append(np.asarray((yes + 0.5) / (n + 1.0)))
    return rates[0], rates[1]
