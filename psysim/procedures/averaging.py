"""Averages over the reversals of many tracks at once: the threshold of a track and its standard error."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psysim.procedures.base import BoolArray, FloatArray

__all__ = ["average_reversals"]

MEDIAN_SEM_FACTOR = math.sqrt(math.pi / 2)
"""Standard error of a median over that of a mean, for normal data."""


def average_reversals(
    levels: FloatArray,
    n: NDArray[np.integer[Any]],
    newest_is_upper: BoolArray,
    statistic: str = "mean",
    upper_weight: float | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Return the threshold of each track and its standard error.

    Successive reversals alternate between upper and lower ones and so are not independent. The standard error
    therefore comes from their pairs: the standard deviation of the pairs' midpoints over the root of the number of
    pairs (for a median times 1.2533, the value for normal data). With fewer than two pairs it is NaN.
    Neighbouring pairs are correlated too, so it is still too small: 0.51 dB where thresholds of repeated tracks spread
    by 0.97 dB (2-down 1-up, eight reversals at 1 dB, docs/explanation/tracking_rules.md).

    Parameters
    ----------
    levels : ndarray, shape (B, R)
        Levels at the reversals, the newest first.
    n : ndarray of int, shape (B,)
        How many of them to average; 0 gives NaN.
    newest_is_upper : ndarray of bool, shape (B,)
        Whether the newest reversal is an upper one (from rising to falling levels).
    statistic : {"mean", "median"}
        How to average.
    upper_weight : float, optional
        Weight, from 0 to 1, of the average of the upper reversals against that of the lower ones. Default: all
        reversals are averaged together.

    Returns
    -------
    threshold, threshold_sem : ndarray, shape (B,)

    References
    ----------
    Wetherill, G. B., and Levitt, H. (1965). Sequential estimation of points on a psychometric function.
    Br. J. Math. Stat. Psychol. 18, 1-10 (midpoints of successive reversals).

    Examples
    --------
    >>> import numpy as np
    >>> levels = np.array([[-8.0, -12.0, -6.0, -12.0]])
    >>> average_reversals(levels, np.array([4]), np.array([True]))
    (array([-9.5]), array([0.5]))
    """
    average = _median if statistic == "median" else _mean
    pairs = levels.shape[1] // 2
    newer, older = levels[:, : 2 * pairs : 2], levels[:, 1 : 2 * pairs : 2]
    column = newest_is_upper[:, np.newaxis]
    upper, lower = np.where(column, newer, older), np.where(column, older, newer)
    n_pairs = n // 2
    in_pairs = np.arange(pairs) < n_pairs[:, np.newaxis]
    if upper_weight is None:
        threshold = average(levels, np.arange(levels.shape[1]) < n[:, np.newaxis])
        midpoints = (upper + lower) / 2
    else:
        threshold = upper_weight * average(upper, in_pairs) + (1.0 - upper_weight) * average(lower, in_pairs)
        midpoints = upper_weight * upper + (1.0 - upper_weight) * lower
    deviations = np.where(in_pairs, midpoints - _mean(midpoints, in_pairs)[:, np.newaxis], 0.0)
    enough = n_pairs >= 2
    variance = (deviations**2).sum(axis=1) / np.where(enough, n_pairs - 1, 1)
    sem = np.where(enough, np.sqrt(variance / np.where(enough, n_pairs, 1)), np.nan)
    return threshold, sem * (MEDIAN_SEM_FACTOR if statistic == "median" else 1.0)


def _mean(values: FloatArray, used: BoolArray) -> FloatArray:
    """Return the mean of the used entries of each row; NaN where there is none."""
    n = used.sum(axis=1)
    total = np.where(used, values, 0.0).sum(axis=1)
    return np.where(n > 0, total / np.maximum(n, 1), np.nan)


def _median(values: FloatArray, used: BoolArray) -> FloatArray:
    """Return the median of the used entries of each row; NaN where there is none."""
    n = used.sum(axis=1)
    ordered = np.sort(np.where(used, values, np.inf), axis=1)
    middle = np.stack([np.maximum(n - 1, 0) // 2, np.minimum(n // 2, values.shape[1] - 1)], axis=1)
    return np.where(n > 0, np.take_along_axis(ordered, middle, axis=1).mean(axis=1), np.nan)
