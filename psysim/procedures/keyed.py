"""Keyed random numbers for tracking rules: starts, orders, roved variables.

The scheme is that of `psysim.rng` (the same Philox streams, the same bits), without torch: a number is a pure function
of (seed, lane, trial, stream, purpose) and its position. The lane stands where the track stands there. So a track does
not depend on the lanes beside it, nor on how often a run was interrupted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from psysim.errors import SpecError, check_option, check_range
from psysim.procedures.base import FloatArray

__all__ = ["ORDER", "PROCEDURE", "keyed_order", "keyed_uniform", "rove"]

ROVE, ORDER, PROCEDURE = 4, 11, 12
"""Purposes, as in `psysim.rng.Purpose`."""


def _words(seed: int, lane: ArrayLike, n: int, trial: ArrayLike, stream: int, purpose: int) -> NDArray[np.int64]:
    """Return the first ``n`` 32-bit words of each lane's stream, shape (B, n)."""
    from psysim._rng_cpu import word_rows

    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**64:
        raise SpecError(f"seed = {seed!r} is out of range: it must be a whole number, 0 to 2**64 - 1.")
    check_range("stream", stream, 0, 255)
    lanes, trials = np.broadcast_arrays(_whole("lane", lane, 2**32), _whole("trial", trial, 2**24))
    out = np.empty((len(lanes), n), np.int64)
    c1 = ((trials << 8) | stream).astype(np.uint32)
    c3 = np.full(len(lanes), purpose << 24, np.uint32)
    word_rows(np.uint32(seed & 0xFFFFFFFF), np.uint32(seed >> 32), c1, lanes.astype(np.uint32), c3, out)
    return out


def _whole(name: str, values: ArrayLike, high: int) -> NDArray[np.int64]:
    """Return whole numbers from 0, at least one-dimensional, or raise."""
    array = np.atleast_1d(np.asarray(values))
    if array.size == 0:
        return array.astype(np.int64)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise SpecError(f"{name} must be a 1-D array of whole numbers, one per lane, not {array.dtype} {array.shape}.")
    if array.min() < 0 or array.max() >= high:
        bad = array[(array < 0) | (array >= high)][0]
        raise SpecError(f"{name} = {bad} is out of range: it must be at least 0 and less than {high}.")
    return array.astype(np.int64)


def keyed_uniform(
    seed: int, lane: ArrayLike, n: int = 1, trial: ArrayLike = 0, stream: int = 0, purpose: int = PROCEDURE
) -> FloatArray:
    """Return numbers uniform in the open interval (0, 1) that depend on their names only.

    Parameters
    ----------
    seed : int
        0 to 2**64 - 1.
    lane : array_like of int, shape (B,)
        Which lane each row is for, 0 to 2**32 - 1.
    n : int
        Numbers per lane.
    trial : array_like of int, shape (B,)
        Which trial, 0 to 2**24 - 1; one number stands for all lanes.
    stream : int
        0 to 255; keeps several draws for the same trial apart.
    purpose : int
        `PROCEDURE`, `ORDER` or another value of `psysim.rng.Purpose`.

    Returns
    -------
    ndarray, shape (B, n)
        From 32 bits each: the bits of ``psysim.rng.uniform`` for the same track, trial, interval and purpose.

    Raises
    ------
    SpecError
        If a name is out of range or no whole number.

    Examples
    --------
    >>> together = keyed_uniform(1, [0, 1, 2], n=2)
    >>> bool((keyed_uniform(1, [2], n=2) == together[2:]).all())
    True
    """
    return np.asarray((_words(seed, lane, n, trial, stream, purpose) + 0.5) * 2.0**-32)


def keyed_order(seed: int, lane: ArrayLike, n: int, trial: ArrayLike = 0, stream: int = 0) -> NDArray[np.int64]:
    """Return one random order of ``0 .. n - 1`` per lane.

    Parameters
    ----------
    seed, lane, trial, stream
        As for `keyed_uniform`.
    n : int
        How many things are ordered.

    Returns
    -------
    ndarray of int64, shape (B, n)
        The order of the words of purpose `ORDER` (as ``psysim.rng.permutation``).

    Examples
    --------
    >>> order = keyed_order(1, [7, 8], n=5)
    >>> sorted(order[0].tolist())
    [0, 1, 2, 3, 4]
    """
    return np.argsort(_words(seed, lane, n, trial, stream, ORDER), axis=1, kind="stable")


def rove(
    seed: int,
    lane: ArrayLike,
    trial: ArrayLike,
    width: ArrayLike,
    center: ArrayLike = 0.0,
    distribution: str = "uniform",
    n_intervals: int = 1,
    stream: int = 0,
) -> NDArray[Any]:
    """Return values of a nuisance variable that is roved from trial to trial, or from interval to interval.

    Roving keeps a listener from using a cue that is not the one under study, such as overall level in a task on
    spectral shape. A value depends on the seed, the lane, the trial and the interval only.

    Parameters
    ----------
    seed, lane, trial
        As for `keyed_uniform`.
    width : array_like
        Full range of the uniform rove, or the standard deviation of the normal one, in the unit of the variable;
        at least 0. One number or one per lane.
    center : array_like
        Middle of the values, same unit. One number or one per lane.
    distribution : {"uniform", "normal"}
        How the values are spread.
    n_intervals : int
        1: one value per trial. More: one value for each interval.
    stream : int
        0 to 255; keeps several roved variables apart.

    Returns
    -------
    ndarray, shape (B, n_intervals)

    Raises
    ------
    SpecError
        If the width is negative or the distribution is not known.

    References
    ----------
    Green, D. M. (1988). Profile Analysis. Oxford University Press (level rove and the limit it sets).

    Examples
    --------
    Each interval of trial 3 with its own level, 60 to 80 dB:

    >>> levels = rove(seed=1, lane=[0, 1], trial=3, width=20.0, center=70.0, n_intervals=3)
    >>> levels.shape, bool(((levels > 60) & (levels < 80)).all())
    ((2, 3), True)
    """
    from scipy.special import ndtri

    check_option("distribution", distribution, ("uniform", "normal"))
    widths, centers = (np.atleast_1d(np.asarray(v, dtype=np.float64))[:, np.newaxis] for v in (width, center))
    if not np.all((widths >= 0) & np.isfinite(widths)):
        raise SpecError(f"width = {np.asarray(width)} must be finite and at least 0.")
    u = keyed_uniform(seed, lane, n_intervals, trial, stream, ROVE)
    return centers + widths * (u - 0.5 if distribution == "uniform" else ndtri(u))
