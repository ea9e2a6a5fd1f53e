"""From the outputs of a network to what a listener would be measured by: directions, errors, thresholds.

Functions of arrays, for stored results. Each published network counts as one participant; there is no decision noise
besides the spikes, and no fitted decision stage.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares
from scipy.special import ndtr, ndtri

from psysim.errors import SpecError, check_option, check_range
from psysim.models.phaselocknet.labels import N_LOCATIONS, allowed_locations, location_of

__all__ = [
    "SpeechReceptionFit",
    "angular_error",
    "fit_speech_reception_threshold",
    "fold_front_back",
    "great_circle_error",
    "masked_argmax",
    "minimum_audible_angle",
    "normalised_rmse",
    "pair_proportions",
    "pairing_threshold",
    "weighted_azimuth",
    "wrap_degrees",
]

Floats = NDArray[np.float64]


def _allowed(probabilities: ArrayLike, allowed: ArrayLike | str) -> tuple[Floats, Floats]:
    values = np.asarray(probabilities, dtype=np.float64)
    mask = np.asarray(allowed_locations(allowed) if isinstance(allowed, str) else allowed, dtype=np.float64)
    if values.ndim < 1 or mask.shape != values.shape[-1:]:
        raise SpecError(f"allowed has shape {mask.shape}, but must have one value per class: {values.shape[-1:]}.")
    if not (np.isfinite(mask).all() and (mask >= 0).all() and mask.any()):
        raise SpecError("allowed must hold 0 and 1, or prior weights from 0, and allow at least one class.")
    return values, mask


def masked_argmax(probabilities: ArrayLike, allowed: ArrayLike | str) -> NDArray[np.int64]:
    """Return the most probable of the classes that are allowed as responses.

    Parameters
    ----------
    probabilities : array_like (..., n)
        Softmax of the logits of one head.
    allowed : array_like (n,) or str
        1 or True where allowed (or prior weights), or the name of a set of `allowed_locations`.

    Returns
    -------
    ndarray (...)
        Class; the first of equals.

    Raises
    ------
    SpecError
        If ``allowed`` has another length or allows nothing.

    Examples
    --------
    >>> int(masked_argmax([0.5, 0.2, 0.3], [0, 1, 1]))
    2
    """
    values, mask = _allowed(probabilities, allowed)
    weighted = np.where(mask > 0, values * mask, -np.inf)  # so that underflow to 0 never lets a forbidden class win
    return weighted.argmax(-1)


def weighted_azimuth(probabilities: ArrayLike, allowed: ArrayLike | str = "front_horizontal") -> Floats:
    """Return the mean azimuth over the allowed directions, weighted by their probabilities.

    Parameters
    ----------
    probabilities : array_like (..., 504)
        Softmax of the logits of a localisation head.
    allowed : array_like (504,) or str
        As for `masked_argmax`. The mean is one of numbers, not of directions: keep sets away from 180 degrees.

    Returns
    -------
    ndarray (...)
        Degrees, positive where the labels' azimuth is; NaN if all allowed directions have probability 0.

    Raises
    ------
    SpecError
        As `masked_argmax`, or if there are not 504 classes.

    Examples
    --------
    >>> p = np.zeros(504)
    >>> p[[0, 2, 36]] = 0.25, 0.25, 0.5  # 0, 10 and 180 degrees
    >>> float(weighted_azimuth(p))
    5.0
    """
    values, mask = _allowed(probabilities, allowed)
    if len(mask) != N_LOCATIONS:
        raise SpecError(f"probabilities has {len(mask)} classes, but directions are {N_LOCATIONS}.")
    azimuth = wrap_degrees(location_of(np.arange(N_LOCATIONS))[0])
    weights = values * mask
    total = weights.sum(-1)
    return np.divide(weights @ azimuth, total, out=np.full(np.shape(total), np.nan), where=np.asarray(total) > 0)


def wrap_degrees(angle: ArrayLike) -> Floats:
    """Return angles between -180 and 180 degrees.

    Parameters
    ----------
    angle : array_like
        Degrees.

    Returns
    -------
    ndarray
        ``angle`` less whole turns. Half a turn stays 180 or -180 as the published analysis has it: the number of turns
        is rounded to even.

    Examples
    --------
    >>> wrap_degrees([190, 355, -200, 720]).tolist()
    [-170.0, -5.0, 160.0, 0.0]
    """
    angles = np.asarray(angle, dtype=np.float64)
    return angles - 360.0 * np.round(angles / 360.0)


def fold_front_back(azimuth: ArrayLike) -> Floats:
    """Return the azimuth in front that has the same angle to the axis through both ears.

    Parameters
    ----------
    azimuth : array_like
        Degrees.

    Returns
    -------
    ndarray
        Degrees, -90 to 90.

    Examples
    --------
    >>> fold_front_back([100, -135, 180, 30]).tolist()
    [80.0, -45.0, 0.0, 30.0]
    """
    wrapped = wrap_degrees(azimuth)
    behind = np.where(wrapped < 0, -180.0 - wrapped, 180.0 - wrapped)
    return np.where((wrapped < -90.0) | (wrapped >= 90.0), behind, wrapped) + 0.0


def angular_error(a: ArrayLike, b: ArrayLike) -> Floats:
    """Return the angle between two azimuths.

    Parameters
    ----------
    a, b : array_like
        Degrees; they broadcast.

    Returns
    -------
    ndarray
        Degrees, 0 to 180.

    Examples
    --------
    >>> round(float(angular_error(350, 20)), 9)
    30.0
    """
    d = np.radians(np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64))
    return np.degrees(np.abs(np.arctan2(np.sin(d), np.cos(d))))


def great_circle_error(
    azimuth_a: ArrayLike, elevation_a: ArrayLike, azimuth_b: ArrayLike, elevation_b: ArrayLike
) -> Floats:
    """Return the angle between two directions (Vincenty's formula, exact for small and for opposite ones).

    Parameters
    ----------
    azimuth_a, elevation_a, azimuth_b, elevation_b : array_like
        Degrees; they broadcast.

    Returns
    -------
    ndarray
        Degrees, 0 to 180.

    Examples
    --------
    >>> round(float(great_circle_error(0, 0, 90, 60)), 9)
    90.0
    """
    d = np.radians(np.asarray(azimuth_b, dtype=np.float64) - np.asarray(azimuth_a, dtype=np.float64))
    a, b = (np.radians(np.asarray(e, dtype=np.float64)) for e in (elevation_a, elevation_b))
    across = np.hypot(np.cos(b) * np.sin(d), np.cos(a) * np.sin(b) - np.sin(a) * np.cos(b) * np.cos(d))
    return np.degrees(np.arctan2(across, np.sin(a) * np.sin(b) + np.cos(a) * np.cos(b) * np.cos(d)))


def pair_proportions(stimulus: ArrayLike, response: ArrayLike) -> tuple[Floats, Floats]:
    """Return how often the larger of two stimuli got the larger response, from all ordered pairs of trials.

    Parameters
    ----------
    stimulus : array_like (n,)
        Value of the varied quantity in each trial, e.g. azimuth.
    response : array_like (n,)
        The response on the same axis.

    Returns
    -------
    difference : ndarray (m,)
        Differences between the stimuli of a pair, ascending, without 0.
    proportion : ndarray (m,)
        Proportion of the pairs of that difference whose responses differ upwards.

    Raises
    ------
    SpecError
        If the two have not the same length, or all stimuli are equal.

    Examples
    --------
    >>> difference, proportion = pair_proportions([0, 0, 10], [1, 5, 3])
    >>> difference.tolist(), proportion.tolist()
    ([-10.0, 10.0], [0.5, 0.5])
    """
    x, y = np.asarray(stimulus, dtype=np.float64), np.asarray(response, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise SpecError(f"stimulus {x.shape} and response {y.shape} must be lists of the same length.")
    values, group = np.unique(x, return_inverse=True)
    if len(values) < 2:
        raise SpecError("All stimuli are equal: there is no pair to compare.")
    counts = np.bincount(group)
    order = np.argsort(y, kind="stable")
    # greater[i, j]: pairs of a trial of stimulus i and one of stimulus j with the larger response at i
    below = np.zeros((len(x), len(values)))
    one_hot = np.eye(len(values))[group[order]]
    before = np.vstack([np.zeros(len(values)), one_hot.cumsum(0)])
    below[order] = before[np.searchsorted(y[order], y[order], side="left")]
    greater = np.zeros((len(values), len(values)))
    np.add.at(greater, group, below)
    total = np.outer(counts, counts)
    difference, where = np.unique(np.subtract.outer(values, values), return_inverse=True)
    where = where.reshape(-1)
    proportion = np.bincount(where, greater.reshape(-1)) / np.bincount(where, total.reshape(-1))
    keep = difference != 0.0
    return difference[keep], proportion[keep]


def pairing_threshold(
    stimulus: ArrayLike,
    response: ArrayLike,
    *,
    proportion: float = 0.707,
    start: str = "robust",
    weights: str = "published",
) -> float:
    """Return the difference at which the larger of two stimuli gets the larger response in ``proportion`` of the pairs.

    A cumulative normal function with mean 0 is fitted to `pair_proportions` by least squares.

    Parameters
    ----------
    stimulus, response : array_like (n,)
        As for `pair_proportions`.
    proportion : float
        0.5 to 1, exclusive.
    start : {"robust", "published"}
        Where the fit starts: at the standard deviation of the differences, or at 1, as published. A start at 1 stays
        there if the smallest difference is many units: it then says nothing about the responses.
    weights : {"published", "equal"}
        1/difference^2, as published, or equal.

    Returns
    -------
    float
        In the unit of ``stimulus``.

    Raises
    ------
    SpecError
        As `pair_proportions`, or if an option is not known.

    Examples
    --------
    >>> x = np.repeat(np.arange(-10.0, 11.0), 21)
    >>> noise = np.tile(ndtri((np.arange(21) + 0.5) / 21), 21)  # responses with a standard deviation of 1
    >>> round(pairing_threshold(x, x + noise), 2)
    0.77
    """
    check_option("start", start, ("robust", "published"))
    check_option("weights", weights, ("published", "equal"))
    check_range("proportion", proportion, 0.5, 1.0 - 1e-12, low_open=True)
    dx, p = pair_proportions(stimulus, response)
    scale = np.abs(dx) if weights == "published" else np.ones_like(dx)
    first = float(np.std(dx)) if start == "robust" else 1.0

    def residual(sigma: Floats) -> Floats:
        return (ndtr(dx / sigma) - p) / scale

    fit = least_squares(residual, [first], method="lm", xtol=1e-10, ftol=1e-10)
    return float(abs(fit.x[0]) * ndtri(proportion))


def minimum_audible_angle(
    azimuth: ArrayLike,
    response: ArrayLike,
    references: ArrayLike | None = None,
    *,
    window: float = 10.0,
    proportion: float = 0.707,
    start: str = "robust",
) -> tuple[Floats, Floats]:
    """Return the minimum audible angle around each reference direction.

    Parameters
    ----------
    azimuth : array_like (n,)
        Azimuth of each trial, degrees.
    response : array_like (n,)
        Azimuth heard, degrees: `weighted_azimuth`.
    references : array_like (r,), optional
        Degrees; default -75 to 75 in steps of 5.
    window : float
        Trials within this many degrees of a reference belong to it.
    proportion, start
        As for `pairing_threshold`.

    Returns
    -------
    references, threshold : ndarray (r,)
        Degrees; thresholds are clipped to 90, NaN where a reference has fewer than two azimuths.

    Raises
    ------
    SpecError
        As `pairing_threshold`.

    Examples
    --------
    >>> x = np.repeat(np.arange(-90.0, 90.5, 0.5), 9)
    >>> noise = np.tile(ndtri((np.arange(9) + 0.5) / 9), 361)
    >>> reference, angle = minimum_audible_angle(x, x + 2 * noise, [0, 30])
    >>> angle.round(1).tolist()
    [1.6, 1.6]
    """
    x, y = np.asarray(azimuth, dtype=np.float64), np.asarray(response, dtype=np.float64)
    given = np.arange(-75.0, 76.0, 5.0) if references is None else references
    centres = np.asarray(given, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise SpecError(f"azimuth {x.shape} and response {y.shape} must be lists of the same length.")
    angles: Floats = np.full(centres.shape, np.nan)
    for i, centre in enumerate(centres):
        near = np.abs(x - centre) <= window + 1e-9
        if len(np.unique(x[near])) > 1:
            angles[i] = pairing_threshold(x[near], y[near], proportion=proportion, start=start)
    return centres, np.asarray(np.clip(angles, 0.0, 90.0))


class SpeechReceptionFit(NamedTuple):
    """Proportion correct as ``best`` times a cumulative normal function of the signal-to-noise ratio.

    Attributes
    ----------
    best : float
        Proportion correct at high ratios.
    srt_db : float
        Speech reception threshold: the ratio in dB at half of ``best``.
    spread_db : float
        Standard deviation of the function, dB.
    """

    best: float
    srt_db: float
    spread_db: float


def fit_speech_reception_threshold(snr_db: ArrayLike, correct: ArrayLike) -> SpeechReceptionFit:
    """Fit the speech reception threshold to proportions of words correct, by least squares.

    Parameters
    ----------
    snr_db : array_like (n,)
        Signal-to-noise ratios in dB; infinite ones are left out, as published.
    correct : array_like (n,)
        Proportion correct at each.

    Returns
    -------
    SpeechReceptionFit
        The benefit of a condition is the difference of two ``srt_db``.

    Raises
    ------
    SpecError
        If there are fewer than three finite ratios, or a proportion is outside 0 to 1.

    Examples
    --------
    >>> snr = np.arange(-21, 22, 3)
    >>> fit = fit_speech_reception_threshold(snr, 0.9 * ndtr((snr + 6) / 4))
    >>> round(fit.srt_db, 3), round(fit.best, 3)
    (-6.0, 0.9)
    """
    x, p = np.asarray(snr_db, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if x.shape != p.shape or x.ndim != 1:
        raise SpecError(f"snr_db {x.shape} and correct {p.shape} must be lists of the same length.")
    if not ((p >= 0) & (p <= 1)).all():
        raise SpecError("correct must hold proportions from 0 to 1.")
    x, p = x[np.isfinite(x)], p[np.isfinite(x)]
    if len(np.unique(x)) < 3:
        raise SpecError(f"The fit has three parameters: give at least three finite ratios, not {len(np.unique(x))}.")
    best = float(max(p.max(), 1e-3))
    middle = float(x[np.abs(p - best / 2).argmin()])

    def residual(a: Floats) -> Floats:
        return a[0] * ndtr((x - a[1]) / a[2]) - p

    fit = least_squares(residual, [best, middle, float(np.std(x)) / 2], method="lm", xtol=1e-12, ftol=1e-12)
    height, srt, spread = (float(v) for v in fit.x)
    return SpeechReceptionFit(height, srt, spread)


def normalised_rmse(human: ArrayLike, model: ArrayLike) -> float:
    """Return the rms difference of two curves, both scaled by the smallest and largest human value.

    Parameters
    ----------
    human, model : array_like
        Of the same shape.

    Returns
    -------
    float
        In units of the human range.

    Raises
    ------
    SpecError
        If the shapes differ or all human values are equal.

    Examples
    --------
    >>> normalised_rmse([0.0, 2.0], [1.0, 3.0])
    0.5
    """
    h, m = np.asarray(human, dtype=np.float64), np.asarray(model, dtype=np.float64)
    if h.shape != m.shape:
        raise SpecError(f"human has shape {h.shape}, model {m.shape}: they must be the same.")
    span = float(np.ptp(h)) if h.size else 0.0
    if not span > 0.0:
        raise SpecError("All human values are equal: there is no range to scale by.")
    return math.sqrt(float(np.mean(((m - h) / span) ** 2)))
