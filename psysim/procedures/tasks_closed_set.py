"""Closed sets of answers: identification of words or places with confusion matrices, and categorical scaling."""

from __future__ import annotations

from typing import ClassVar, cast

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from psysim.errors import SpecError
from psysim.procedures.sdt import M_MAX
from psysim.procedures.tasks import ChoiceTask, FloatArray, IntArray, TaskSettings, register

__all__ = ["Identification", "category_levels", "confusion_matrix", "transmitted_information"]


class _IdentificationSettings(TaskSettings):
    n_alternatives: int = Field(ge=2, le=M_MAX, description="size of the set: words, places, ...")
    place: int | None = Field(
        default=None,
        ge=1,
        le=255,
        description="number of the label that is asked for, from 1 (of a word in the sentence); none: one at random in "
        "every trial",
    )


@register("identification")
class Identification(ChoiceTask):
    """Identification: which of a closed set was it? Target and response are numbers of the set, from 0.

    d' is that of equally distinct (orthogonal) alternatives, where the largest of independent likelihoods wins: the
    integral of m-alternative forced choice. In experiments the stimulus has the labels (`LabelledStimulus`); each place
    of it that may be asked for has ``n_alternatives``.

    Parameters
    ----------
    **settings
        ``n_alternatives`` : int, at least 2.
        ``place`` : int from 1, optional: which label of the sound is asked for; default: one at random in every trial.

    Examples
    --------
    >>> task = Identification(n_alternatives=10)
    >>> task.chance_level, task.correct([3, 4], target=[3, 3]).tolist()
    (0.1, [True, False])
    >>> confusion_matrix([3, 3, 5], [3, 4, 5], 10)[3].tolist()
    [0, 0, 0, 1, 1, 0, 0, 0, 0, 0]
    """

    description: ClassVar[str] = "identification in a closed set"
    identifies: ClassVar[bool] = True
    Settings = _IdentificationSettings
    n_intervals = 1

    @property
    def place(self) -> int | None:
        """Number of the label that is asked for, from 1; None: any."""
        return cast(_IdentificationSettings, self.settings).place

    @property
    def n_alternatives(self) -> int:
        """Size of the set."""
        return cast(_IdentificationSettings, self.settings).n_alternatives


def confusion_matrix(target: ArrayLike, response: ArrayLike, n_alternatives: int) -> IntArray:
    """Return how often each response was given to each target.

    Parameters
    ----------
    target, response : array_like of int, shape (..., N)
        Trials along the last axis; pairs with a negative number (trials that were not run) are left out.
    n_alternatives : int
        Size K of the set.

    Returns
    -------
    ndarray of int, shape (..., K, K)
        Counts, targets along the last axis but one, responses along the last.

    Raises
    ------
    SpecError
        If the shapes differ or a number is not in the set.

    Examples
    --------
    >>> confusion_matrix([0, 1, 1, -1], [0, 0, 1, -1], 2).tolist()
    [[1, 0], [1, 1]]
    """
    shown, chosen = np.asarray(target), np.asarray(response)
    if shown.shape != chosen.shape or shown.ndim == 0:
        raise SpecError(f"target and response must have the same shape (..., N); got {shown.shape} and {chosen.shape}.")
    run = (shown >= 0) & (chosen >= 0)
    for name, values in (("target", shown), ("response", chosen)):
        if np.any(values[run] >= n_alternatives):
            raise SpecError(f"{name} = {values[run].max()} is not in a set of {n_alternatives} (numbers from 0).")
    lanes = int(np.prod(shown.shape[:-1], dtype=np.int64))
    lane = np.broadcast_to(np.arange(lanes).reshape(*shown.shape[:-1], 1), shown.shape)
    place = (lane[run] * n_alternatives + shown[run]) * n_alternatives + chosen[run]
    counts = np.bincount(place.astype(np.int64), minlength=lanes * n_alternatives**2)
    return counts.reshape(*shown.shape[:-1], n_alternatives, n_alternatives).astype(np.int64)


def transmitted_information(counts: ArrayLike) -> FloatArray:
    """Return the information about the target in the response, in bits, from confusion matrices.

    The estimate from counts is too large by about ``(K - 1)**2 / (2 N ln 2)`` bits for N trials and K alternatives.

    Parameters
    ----------
    counts : array_like, shape (..., K, K)
        See `confusion_matrix`.

    References
    ----------
    Miller, G. A., and Nicely, P. E. (1955). J. Acoust. Soc. Am. 27, 338-352.

    Examples
    --------
    >>> float(transmitted_information([[10, 0], [0, 10]])), float(transmitted_information([[5, 5], [5, 5]]))
    (1.0, 0.0)
    """
    n = np.asarray(counts, dtype=np.float64)
    p = n / n.sum(axis=(-2, -1), keepdims=True)
    independent = p.sum(axis=-1, keepdims=True) * p.sum(axis=-2, keepdims=True)
    terms = np.where(p > 0, p * np.log2(np.where(p > 0, p / np.where(p > 0, independent, 1.0), 1.0)), 0.0)
    return np.asarray(terms.sum(axis=(-2, -1)))


def category_levels(levels: ArrayLike, categories: ArrayLike, n_categories: int) -> FloatArray:
    """Return the level at which each category begins, from judgements on a scale ("soft", "medium", "loud", ...).

    The level of a boundary is the Spearman-Karber mean of the share of judgements at or above it: no shape is
    assumed, judgements are made monotone over level first. All boundaries use the same judgements.

    Parameters
    ----------
    levels : array_like, shape (N,)
        Level of each trial, any unit.
    categories : array_like of int, shape (N,)
        Judgement of each trial, 0 (lowest) to ``n_categories - 1``.
    n_categories : int
        Categories of the scale.

    Returns
    -------
    ndarray, shape (n_categories - 1,)
        Levels from which on half of the judgements are in category 1, 2, ... or above; NaN where the levels do not
        reach from none to all.

    Raises
    ------
    SpecError
        If the shapes differ or a category is not on the scale.

    Examples
    --------
    >>> category_levels([20, 40, 60, 80, 20, 40, 60, 80], [0, 1, 2, 2, 0, 1, 1, 2], 3)
    array([30., 60.])
    """
    from psysim.procedures.spearman_karber import isotonic

    x, judged = np.asarray(levels, dtype=np.float64), np.asarray(categories)
    if x.shape != judged.shape or x.ndim != 1:
        raise SpecError(f"levels and categories must both have shape (N,); got {x.shape} and {judged.shape}.")
    if np.any((judged < 0) | (judged >= n_categories)):
        raise SpecError(f"categories must be from 0 to {n_categories - 1}.")
    places, which = np.unique(x, return_inverse=True)
    trials = np.bincount(which)
    above = np.array([np.bincount(which, judged >= k, minlength=len(places)) for k in range(1, n_categories)])
    share = isotonic(above, np.broadcast_to(trials, above.shape))
    mean = (np.diff(share, axis=-1) * 0.5 * (places[1:] + places[:-1])).sum(axis=-1)
    return np.where((share[:, 0] == 0.0) & (share[:, -1] == 1.0), mean, np.nan)
