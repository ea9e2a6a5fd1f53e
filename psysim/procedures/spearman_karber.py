"""Thresholds without a shape: proportions made monotone, and their mean by Spearman and Karber."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from psysim.errors import SpecError
from psysim.procedures.base import FloatArray

__all__ = ["isotonic", "spearman_karber"]


def isotonic(n_correct: ArrayLike, n_trials: ArrayLike) -> FloatArray:
    """Return proportions correct made to rise along the last axis, each weighted by its trials.

    The maximum-likelihood estimate under the order alone: ``max over a <= i of min over b >= i`` of the proportion
    correct of levels a to b together.

    Parameters
    ----------
    n_correct, n_trials : array_like, shape (B, L)
        Correct answers and trials at each level, from the hardest to the easiest; trials at least 1.

    Returns
    -------
    ndarray, shape (B, L)

    References
    ----------
    Ayer, M., Brunk, H. D., Ewing, G. M., Reid, W. T., and Silverman, E. (1955). An empirical distribution function for
    sampling with incomplete information. Ann. Math. Stat. 26, 641-647.

    Examples
    --------
    >>> isotonic([[1, 3, 2, 4]], [[4, 4, 4, 4]])
    array([[0.25 , 0.625, 0.625, 1.   ]])
    """
    right, trials = np.asarray(n_correct, dtype=np.float64), np.asarray(n_trials, dtype=np.float64)
    zero = np.zeros((*right.shape[:-1], 1))
    sums = [np.concatenate([zero, np.cumsum(a, axis=-1)], axis=-1) for a in (right, trials)]
    n_levels = right.shape[-1]
    smooth = np.full(right.shape, -np.inf)
    for a in range(n_levels):  # over levels, not over lanes
        pooled = (sums[0][..., a + 1 :] - sums[0][..., a : a + 1]) / (sums[1][..., a + 1 :] - sums[1][..., a : a + 1])
        lowest = np.minimum.accumulate(pooled[..., ::-1], axis=-1)[..., ::-1]
        smooth[..., a:] = np.maximum(smooth[..., a:], lowest)
    return smooth


def spearman_karber(
    levels: ArrayLike, n_correct: ArrayLike, n_trials: ArrayLike, guess_rate: float = 0.0, lapse_rate: float = 0.0
) -> tuple[FloatArray, FloatArray]:
    """Return the mean of the psychometric function, seen as a distribution over levels, and its standard error.

    The mean is the level half-way between ``guess_rate`` and ``1 - lapse_rate`` if the function is symmetric. The
    proportions are made monotone, freed of guesses and lapses, and continued by one more spacing to 0 and to 1 at the
    ends (Miller and Ulrich, 2001). The levels must reach far enough for that to be nearly true; what is cut off biases
    the mean.

    Parameters
    ----------
    levels : array_like, shape (L,)
        Levels from the hardest to the easiest (ascending or descending), at least two.
    n_correct, n_trials : array_like, shape (B, L)
        Correct answers and trials at each level; trials at least 1.
    guess_rate, lapse_rate : float
        Proportion correct far on the hard side; 1 minus the proportion far on the easy side.

    Returns
    -------
    threshold, threshold_sem : ndarray, shape (B,)
        In the unit of the levels. The error is that of binomial answers; it is NaN if a level has one trial only.

    Raises
    ------
    SpecError
        If the levels do not ascend or descend.

    References
    ----------
    Miller, J., and Ulrich, R. (2001). On the analysis of psychometric functions: the Spearman-Karber method. Percept.
    Psychophys. 63, 1399-1420.

    Examples
    --------
    >>> spearman_karber([-2.0, 0.0, 2.0], [[0, 5, 10]], [[10, 10, 10]])
    (array([0.]), array([0.33333333]))
    """
    x = np.asarray(levels, dtype=np.float64)
    steps = np.diff(x)
    if x.ndim != 1 or len(x) < 2 or not (np.all(steps > 0) or np.all(steps < 0)):
        raise SpecError(f"levels = {x.tolist()} must ascend or descend, from the hardest to the easiest.")
    right, trials = np.atleast_2d(np.asarray(n_correct)), np.atleast_2d(np.asarray(n_trials))
    span = 1.0 - guess_rate - lapse_rate
    q = np.clip((isotonic(right, trials) - guess_rate) / span, 0.0, 1.0)
    x = np.concatenate([[x[0] - steps[0]], x, [x[-1] + steps[-1]]])
    q = np.concatenate([np.zeros((len(q), 1)), q, np.ones((len(q), 1))], axis=1)
    threshold = (np.diff(q, axis=1) * (x[:-1] + x[1:]) / 2).sum(axis=1)
    p = right / trials
    with np.errstate(divide="ignore", invalid="ignore"):
        variance: NDArray[Any] = p * (1 - p) / (trials - 1)
        sem = np.sqrt((((x[2:] - x[:-2]) / 2 / span) ** 2 * variance).sum(axis=1))
    return threshold, np.where(np.isfinite(sem), sem, np.nan)
