"""Categorical loudness scaling: what a listener says of sounds on the scale from "inaudible" to "too loud"."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from psysim.errors import SpecError, check_range
from psysim.observers.loudness import LoudnessObserver
from psysim.procedures import category_levels
from psysim.rng import Keys, Purpose, normal

__all__ = ["CATEGORIES", "LoudnessScaling", "category_boundaries", "scale_loudness"]

CATEGORIES = (
    "inaudible",
    "very soft",
    "between very soft and soft",
    "soft",
    "between soft and medium",
    "medium",
    "between medium and loud",
    "loud",
    "between loud and very loud",
    "very loud",
    "too loud",
)
"""The scale of ISO 16832; category k counts 5 k categorical units (CU)."""


def category_boundaries(too_loud_sone: float) -> NDArray[np.float64]:
    """Return the loudness at which each category begins, from "very soft" on, (10,) sone.

    Loudness in sone grows with the third power of that in categorical units (Heeren et al. 2013, for 1 kHz); category
    k, of 5 k CU, begins half-way, at 5 k - 2.5 CU.

    Parameters
    ----------
    too_loud_sone : float
        Loudness at the middle of "too loud", 50 CU.

    References
    ----------
    Heeren, Hohmann, Appell & Verhey (2013), J. Acoust. Soc. Am. 133, EL314-EL319; ISO 16832 (2006).

    Examples
    --------
    >>> category_boundaries(100.0).round(3).tolist()
    [0.013, 0.337, 1.562, 4.287, 9.112, 16.638, 27.463, 42.188, 61.412, 85.737]
    """
    check_range("too_loud_sone", too_loud_sone, 0.0, unit="sone", low_open=True)
    units = 5.0 * np.arange(1, len(CATEGORIES)) - 2.5
    return np.asarray(too_loud_sone * (units / 50.0) ** 3)


@dataclass(frozen=True)
class LoudnessScaling:
    """Judgements of a listener on the scale.

    Attributes
    ----------
    level_db : ndarray (L,)
        Levels presented.
    sone : ndarray (L,)
        Loudness of the sounds, without internal noise.
    category : ndarray (L, n) of int
        Judgements, positions in `CATEGORIES`.
    boundary_level_db : ndarray (10,)
        Level from which on half of the judgements are in category 1, 2, ... or above; NaN where the levels presented do
        not reach from none to all.
    """

    level_db: NDArray[np.float64]
    sone: NDArray[np.float64]
    category: NDArray[np.int64]
    boundary_level_db: NDArray[np.float64]

    @property
    def categorical_units(self) -> NDArray[np.float64]:
        """Mean judgement at each level, (L,) CU."""
        return np.asarray(5.0 * self.category.mean(axis=1))


def scale_loudness(
    observer: LoudnessObserver,
    sound: Callable[[Tensor], Tensor],
    level_db: ArrayLike,
    *,
    n_trials: int = 10,
    too_loud_db_spl: float = 105.0,
    seed: int = 1,
) -> LoudnessScaling:
    """Return the judgements of a loudness observer on the categorical scale.

    The listener compares the loudness, with the internal noise of the observer, with the boundaries of the categories,
    which are those of normal hearing; with a hearing loss the same categories lie within fewer decibels (recruitment).
    Where "too loud" lies is a setting: listeners differ, and the models do not say it.

    Parameters
    ----------
    observer : LoudnessObserver
        Calibrated (`LoudnessObserver.calibrate`), with the listener's model.
    sound : callable
        Levels (L,) in dB, float64, to sounds (L, T) in pascal at the model's rate, heard by both ears.
    level_db : array_like (L,)
        Levels to present, rising.
    n_trials : int
        Judgements at each level.
    too_loud_db_spl : float
        Level of a 1-kHz tone that normal hearing finds too loud (50 CU), dB SPL.
    seed : int
        Seed of the internal noise.

    Returns
    -------
    LoudnessScaling

    Raises
    ------
    SpecError
        If the levels do not rise, or there are no trials.

    References
    ----------
    ISO 16832 (2006); Heeren, Hohmann, Appell & Verhey (2013), J. Acoust. Soc. Am. 133, EL314-EL319. 105 dB SPL is
    psysim's number: with it 1 kHz is "medium" (25 CU) at 75 dB SPL.
    """
    levels = np.atleast_1d(np.asarray(level_db, dtype=np.float64))
    if levels.ndim != 1 or not len(levels) or not bool((np.diff(levels) > 0).all()):
        raise SpecError("level_db must hold levels that rise.")
    check_range("n_trials", n_trials, 1, 10**6)
    loudness, loudest = observer.loudness_of(sound, levels), observer.loudness_of_tone(too_loud_db_spl)
    keys = Keys.make(seed, track=torch.arange(len(levels)), interval=0)
    noise = normal(keys, Purpose.INTERNAL_NOISE, n_trials).numpy() * observer.internal_noise_std
    heard = np.log(loudness + observer.floor_sone)[:, None] + noise
    edges = np.log(category_boundaries(loudest) + observer.floor_sone)
    category = (heard[..., None] >= edges).sum(axis=-1)
    every = np.broadcast_to(levels[:, None], category.shape)
    found = category_levels(every.ravel(), category.ravel(), len(CATEGORIES))
    return LoudnessScaling(levels, loudness, category.astype(np.int64), found)
