"""Receiver operating characteristics, measures of bias, and lapses of attention.

Arrays are over the last axis where a curve or a list of ratings is meant, element by element elsewhere.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata

from psysim.errors import SpecError, check_range
from psysim.procedures.sdt import proportions_checked

__all__ = [
    "bias_relative",
    "d_a",
    "likelihood_ratio_bias",
    "roc_area",
    "roc_area_gaussian",
    "roc_curve",
    "roc_gaussian",
    "roc_points",
    "with_lapses",
    "without_lapses",
]

FloatArray = NDArray[np.float64]


def _sample(name: str, values: ArrayLike) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0 or np.isnan(array).any():
        raise SpecError(f"{name} must be a list of at least one number, without NaN; got shape {array.shape}.")
    return array


def roc_curve(target: ArrayLike, reference: ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the empirical ROC of decision variables or ratings: all criteria, from the strictest to the laxest.

    Parameters
    ----------
    target, reference : array_like, shape (N,)
        Decision variables of trials with and without target; higher is more target-like.

    Returns
    -------
    false_alarm_rate, hit_rate, criterion : ndarray, shape (K + 1,)
        One point per different value, "yes" being said from the criterion upwards; the first is (0, 0) at infinity.

    Raises
    ------
    SpecError
        If a list is empty or has NaN.

    Examples
    --------
    >>> false_alarms, hits, criterion = roc_curve([3.0, 2.0, 2.0], [1.0, 2.0])
    >>> [float(h.round(3)) for h in hits], false_alarms.tolist()
    ([0.0, 0.333, 1.0, 1.0], [0.0, 0.0, 0.5, 1.0])
    """
    with_target, without = _sample("target", target), _sample("reference", reference)
    criterion = np.unique(np.concatenate([with_target, without]))[::-1]
    rates = []
    for values in (without, with_target):
        below = np.searchsorted(np.sort(values), criterion, side="left")
        rates.append(np.concatenate([[0.0], (values.size - below) / values.size]))
    return rates[0], rates[1], np.concatenate([[np.inf], criterion])


def roc_points(target_counts: ArrayLike, reference_counts: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return the points of a rating experiment's ROC from the counts of each rating.

    Parameters
    ----------
    target_counts, reference_counts : array_like of int, shape (..., R)
        Trials with and without target at each rating, from "surely not" to "surely a target".

    Returns
    -------
    false_alarm_rate, hit_rate : ndarray, shape (..., R + 1)
        From (0, 0) to (1, 1), strictest criterion first.

    Raises
    ------
    SpecError
        If a count is negative or a row has no trials.

    References
    ----------
    Macmillan, N. A., and Creelman, C. D. (2005). Detection Theory: A User's Guide, 2nd ed., ch. 3.

    Examples
    --------
    >>> false_alarms, hits = roc_points([1, 2, 7], [6, 3, 1])
    >>> hits.tolist(), false_alarms.tolist()
    ([0.0, 0.7, 0.9, 1.0], [0.0, 0.1, 0.4, 1.0])
    """
    rates = []
    for name, counts in (("reference_counts", reference_counts), ("target_counts", target_counts)):
        n = np.asarray(counts, dtype=np.float64)
        if n.ndim == 0 or not np.all(n >= 0) or not np.all(n.sum(axis=-1) > 0):
            raise SpecError(f"{name} must be counts of at least 0 for each rating, with at least one trial.")
        total = np.cumsum(n[..., ::-1], axis=-1) / n.sum(axis=-1, keepdims=True)
        rates.append(np.concatenate([np.zeros((*n.shape[:-1], 1)), total], axis=-1))
    return rates[0], rates[1]


def roc_area(target: ArrayLike, reference: ArrayLike) -> tuple[float, float]:
    """Return the area under the empirical ROC and its standard error.

    The area is the probability that a target's decision variable is above a reference's (half of ties counted): the
    proportion correct of the same observer in two intervals, whatever the distributions.

    Parameters
    ----------
    target, reference : array_like, shape (N,)
        Decision variables of trials with and without target.

    Returns
    -------
    area, standard_error : float
        The latter NaN for fewer than two trials of a kind.

    Raises
    ------
    SpecError
        If a list is empty or has NaN.

    References
    ----------
    Green, D. M., and Swets, J. A. (1966), p. 45 (area theorem). DeLong, E. R., DeLong, D. M., and Clarke-Pearson, D. L.
    (1988). Biometrics 44, 837-845 (standard error).

    Examples
    --------
    >>> area, error = roc_area([3.0, 2.0, 2.0], [1.0, 2.0])
    >>> round(area, 4), round(error, 4)
    (0.8333, 0.1863)
    """
    x, y = _sample("target", target), _sample("reference", reference)
    m, n = x.size, y.size
    ranks = rankdata(np.concatenate([x, y]))
    above = (ranks[:m] - rankdata(x)) / n  # share of references below each target
    below = 1.0 - (ranks[m:] - rankdata(y)) / m
    if m < 2 or n < 2:
        return float(above.mean()), float("nan")
    return float(above.mean()), float(np.sqrt(above.var(ddof=1) / m + below.var(ddof=1) / n))


def roc_gaussian(d_prime: ArrayLike, false_alarm_rate: ArrayLike, target_std: ArrayLike = 1.0) -> FloatArray:
    """Return the hit rates of a normal observer at given false-alarm rates.

    Parameters
    ----------
    d_prime : array_like
        Distance of the means in standard deviations of the reference.
    false_alarm_rate : array_like
        0 to 1.
    target_std : array_like
        Standard deviation of the target's decision variable, in units of the reference's; above 0.

    Raises
    ------
    SpecError
        If a rate or a standard deviation is out of range.

    Examples
    --------
    >>> roc_gaussian(1.0, [0.0, 0.1, 0.5, 1.0]).round(3)
    array([0.   , 0.389, 0.841, 1.   ])
    """
    false_alarms, std = proportions_checked("false_alarm_rate", false_alarm_rate), _std(target_std)
    return np.asarray(ndtr((ndtri(false_alarms) + np.asarray(d_prime, dtype=np.float64)) / std))


def roc_area_gaussian(d_prime: ArrayLike, target_std: ArrayLike = 1.0) -> FloatArray:
    """Return the area under the ROC of a normal observer, ``Phi(d' / sqrt(1 + s**2))``.

    Parameters
    ----------
    d_prime, target_std
        See `roc_gaussian`.

    Raises
    ------
    SpecError
        If a standard deviation is out of range.

    Examples
    --------
    >>> float(roc_area_gaussian(1.0).round(4))
    0.7602
    """
    return np.asarray(ndtr(np.asarray(d_prime, dtype=np.float64) / np.sqrt(1.0 + _std(target_std) ** 2)))


def d_a(hit_rate: ArrayLike, false_alarm_rate: ArrayLike, slope: ArrayLike = 1.0) -> FloatArray:
    """Return the sensitivity d_a of an observer with unequal variances, in units of the rms of the two deviations.

    Parameters
    ----------
    hit_rate, false_alarm_rate : array_like
        A point of the ROC.
    slope : array_like
        Slope s of the ROC in z-coordinates, the reference's standard deviation over the target's. With 1 it is d'.

    Raises
    ------
    SpecError
        If a rate or the slope is out of range.

    References
    ----------
    Macmillan, N. A., and Creelman, C. D. (2005). Detection Theory: A User's Guide, 2nd ed., Eq. 3.4:
    ``d_a = sqrt(2 / (1 + s**2)) (z(H) - s z(F))``.

    Examples
    --------
    >>> float(d_a(0.84, 0.16, slope=0.8).round(3))
    1.977
    """
    hits, false_alarms = (
        proportions_checked("hit_rate", hit_rate),
        proportions_checked("false_alarm_rate", false_alarm_rate),
    )
    s = _std(slope, "slope")
    with np.errstate(invalid="ignore"):
        return np.asarray(np.sqrt(2.0 / (1.0 + s**2)) * (ndtri(hits) - s * ndtri(false_alarms)))


def likelihood_ratio_bias(hit_rate: ArrayLike, false_alarm_rate: ArrayLike) -> FloatArray:
    """Return ln(beta), the logarithm of the likelihood ratio at the criterion: c d', 0 without bias.

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
    Macmillan, N. A., and Creelman, C. D. (2005). Detection Theory: A User's Guide, 2nd ed., Eq. 2.8.

    Examples
    --------
    >>> float(likelihood_ratio_bias(0.6, 0.1).round(3))
    0.789
    """
    hits = ndtri(proportions_checked("hit_rate", hit_rate))
    false_alarms = ndtri(proportions_checked("false_alarm_rate", false_alarm_rate))
    with np.errstate(invalid="ignore"):
        return np.asarray(0.5 * (false_alarms**2 - hits**2))


def bias_relative(hit_rate: ArrayLike, false_alarm_rate: ArrayLike) -> FloatArray:
    """Return c' = c / d', the criterion in units of the sensitivity; NaN or infinite without sensitivity.

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
    Macmillan, N. A., and Creelman, C. D. (2005). Detection Theory: A User's Guide, 2nd ed., Eq. 2.4.

    Examples
    --------
    >>> float(bias_relative(0.6, 0.1).round(3))
    0.335
    """
    hits = ndtri(proportions_checked("hit_rate", hit_rate))
    false_alarms = ndtri(proportions_checked("false_alarm_rate", false_alarm_rate))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(-0.5 * (hits + false_alarms) / (hits - false_alarms))


def with_lapses(proportion_correct: ArrayLike, lapse_probability: float, chance_level: float) -> FloatArray:
    """Return the proportion correct of a listener who answers at random in some of the trials.

    Parameters
    ----------
    proportion_correct : array_like
        Without lapses.
    lapse_probability : float
        Share of the trials answered at random, 0 to 1. The psychometric function's lapse rate, 1 minus its upper
        asymptote, is ``lapse_probability * (1 - chance_level)``.
    chance_level : float
        Proportion correct of such answers.

    Raises
    ------
    SpecError
        If a proportion is out of range.

    Examples
    --------
    >>> with_lapses([0.5, 1.0], lapse_probability=0.04, chance_level=0.5)
    array([0.5 , 0.98])
    """
    check_range("lapse_probability", lapse_probability, 0.0, 1.0)
    check_range("chance_level", chance_level, 0.0, 1.0)
    p = proportions_checked("proportion_correct", proportion_correct)
    return np.asarray((1.0 - lapse_probability) * p + lapse_probability * chance_level)


def without_lapses(proportion_correct: ArrayLike, lapse_probability: float, chance_level: float) -> FloatArray:
    """Return the proportion correct in the trials that were not answered at random, the inverse of `with_lapses`.

    Parameters
    ----------
    proportion_correct : array_like
        With lapses; NaN where so many lapses cannot give it.
    lapse_probability : float
        Share of the trials answered at random, below 1.
    chance_level : float
        Proportion correct of such answers.

    Raises
    ------
    SpecError
        If a proportion is out of range.

    Examples
    --------
    >>> without_lapses([0.5, 0.98, 0.99], lapse_probability=0.04, chance_level=0.5).round(6)
    array([0.5, 1. , nan])
    """
    check_range("lapse_probability", lapse_probability, 0.0, 1.0 - 1e-9)
    check_range("chance_level", chance_level, 0.0, 1.0)
    p = proportions_checked("proportion_correct", proportion_correct)
    clean = (p - lapse_probability * chance_level) / (1.0 - lapse_probability)
    near = np.clip(clean, 0.0, 1.0)
    return np.asarray(np.where(np.abs(clean - near) < 1e-12, near, np.nan))


def _std(values: ArrayLike, name: str = "target_std") -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if not np.all(array > 0):
        raise SpecError(f"{name} = {values!r} is out of range: it must be above 0.")
    return array
