"""Likelihood of many psychometric functions and its maximum: the arrays that go to the compiled `_fit_kernel`.

Coordinates of a data set, in units of its own range of levels (``v = (u(x) - centre) / scale``, mirrored if the task
gets harder as the level rises): place, log slope, guess rate, lapse rate, rho. "Place" is v where the argument of F is
0 or P has risen to a given proportion; the log slope is that of P over v where the argument of F is 0 or, with
`Design.coupling`, that of P over the level itself. An interval of a place or of a slope is then a profile along one
coordinate. rho is the correlation between trials at one level: the variance of a count is ``n p q (1 + (n - 1) rho)``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psysim.procedures.psychometric import Shape

__all__ = [
    "GUESS",
    "LAPSE",
    "N_COORDINATES",
    "PLACE",
    "RHO",
    "SLOPE",
    "Design",
    "argument",
    "evaluate",
    "maximise",
    "proportions",
    "search",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

PLACE, SLOPE, GUESS, LAPSE, RHO = range(5)
N_COORDINATES = 5
TOLERANCE = 1e-12
MOST_THREADS = 8
ROWS_PER_THREAD = 128


@dataclass(frozen=True)
class Design:
    """Data and settings of N problems, levels along the last axis (L).

    Parameters
    ----------
    family : Shape
        Shape of F.
    v : ndarray, shape (N, L)
        Levels on the data set's own axis.
    correct, trials : ndarray of int, shape (N, L)
        Counts; levels without trials count nothing.
    free : ndarray of bool, shape (N, 5)
        Which coordinates may move.
    low, high : ndarray, shape (N, 5)
        Bounds of the coordinates.
    prior_mean, prior_precision : ndarray, shape (N, 2)
        Normal priors of v and of the log slope over v where the argument of F is 0 (precision 0: none).
    prior_beta : ndarray, shape (N, 5)
        Exponents ``b - 1`` of Beta(1, b) priors of the rates and of rho.
    coupling : ndarray, shape (N,)
        d(log slope over v) / d(place) at constant slope over the level; 0 unless the slope is profiled on a log axis.
    proportion : float or None
        P at the place; None: the argument of F is 0 there.
    """

    family: Shape
    v: FloatArray
    correct: IntArray
    trials: IntArray
    free: BoolArray
    low: FloatArray
    high: FloatArray
    prior_mean: FloatArray
    prior_precision: FloatArray
    prior_beta: FloatArray
    coupling: FloatArray
    proportion: float | None = None

    def take(self, rows: Any) -> Design:
        """Return the problems ``rows``."""
        arrays = {name: value[rows] for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return replace(self, **arrays)


def argument(design: Design, theta: FloatArray) -> FloatArray:
    """Return the argument of F at each level, shape (N, L), for problems whose place is where it is 0."""
    span = 1.0 - theta[:, GUESS, None] - theta[:, LAPSE, None]
    k = np.exp(theta[:, SLOPE, None]) / (span * design.family.steepness)
    return np.asarray(k * (design.v - theta[:, PLACE, None]))


def proportions(design: Design, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return P and 1 - P, each without loss of digits where it is small, shape (N, L); see `argument`."""
    family, z = design.family, argument(design, theta)
    guess, lapse = theta[:, GUESS, None], theta[:, LAPSE, None]
    span = 1.0 - guess - lapse
    return guess + span * family.core(z), lapse + span * family.survival(z)


def _problem(design: Design) -> tuple[Any, ...]:
    """Return what every kernel begins with: the family, what the place is, and the data."""
    proportion = -1.0 if design.proportion is None else design.proportion
    family = design.family
    counts = design.correct, design.trials
    return family.code, family.steepness, proportion, np.ascontiguousarray(design.v), *counts


def _terms(design: Design) -> tuple[Any, ...]:
    return design.coupling, design.prior_mean, design.prior_precision, design.prior_beta


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(MOST_THREADS, "psysim-fit")


def _share(kernel: Callable[..., None], n: int, *arguments: Any) -> None:
    """Run a kernel over n rows, in threads if there are many; each row's result depends on nothing else."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parts = min(usable, MOST_THREADS, max(n // ROWS_PER_THREAD, 1))
    ends = [n * k // parts for k in range(parts + 1)]
    work = [_threads().submit(kernel, a, b, *arguments) for a, b in pairwise(ends[1:])] if parts > 1 else []
    kernel(0, ends[1], *arguments)
    for part in work:
        part.result()


def evaluate(design: Design, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return objective (log-likelihood plus log prior, up to constants) (N,) and gradient (N, 5) at ``theta``."""
    from psysim.procedures._fit_kernel import evaluate_rows

    objective, gradient = np.empty(len(theta)), np.empty((len(theta), N_COORDINATES))
    _share(
        evaluate_rows,
        len(theta),
        *_problem(design),
        design.free,
        *_terms(design),
        np.ascontiguousarray(theta),
        objective,
        gradient,
    )
    return objective, gradient


def maximise(
    design: Design, start: FloatArray, max_iterations: int = 200, tolerance: float = TOLERANCE
) -> tuple[FloatArray, FloatArray, BoolArray, IntArray]:
    """Return coordinates (N, 5), objective (N,), whether converged (N,) and iterations (N,) of every problem.

    Parameters
    ----------
    design : Design
        The problems.
    start : ndarray, shape (N, 5)
        Where to begin; coordinates that are not free stay there.
    max_iterations : int
        Steps tried at most.
    tolerance : float
        Twice the gain in log-likelihood that the next step promises, at which a problem has converged.
    """
    from psysim.procedures._fit_kernel import maximise_rows

    n, theta = len(start), np.array(start, dtype=np.float64, order="C")
    objective, converged, iterations = np.empty(n), np.empty(n, np.bool_), np.empty(n, np.int64)
    bounds = design.free, design.low, design.high
    _share(
        maximise_rows,
        n,
        *_problem(design),
        *bounds,
        *_terms(design),
        theta,
        max_iterations,
        tolerance,
        objective,
        converged,
        iterations,
    )
    return theta, objective, converged, iterations


def search(
    design: Design,
    theta: FloatArray,
    coordinate: int,
    side: FloatArray,
    best: FloatArray,
    limit: float,
    farthest: FloatArray,
    critical: float,
) -> FloatArray:
    """Return how far from ``theta`` along a coordinate the root of the deviance from ``best`` is ``critical``.

    Parameters
    ----------
    design, theta : Design, ndarray, shape (N, 5)
        Problems and their solutions.
    coordinate : int
        Which one moves; all others that are free are fitted anew.
    side : ndarray, shape (N,)
        Direction, -1 or 1.
    best : ndarray, shape (N,)
        Largest objective.
    limit : float
        Largest standard error that the first distance is made of.
    farthest : ndarray, shape (N,)
        Distance from which on the end is infinite.
    critical : float
        Root of the deviance.

    Returns
    -------
    ndarray, shape (N,)
        Distances; infinite where the deviance stays below, NaN where the search failed.
    """
    from psysim.procedures._fit_kernel import search_rows

    result, bounds = np.empty(len(theta)), (design.free, design.low, design.high)
    _share(
        search_rows, len(theta), *_problem(design), *bounds, *_terms(design), np.ascontiguousarray(theta), coordinate,
        side, best, limit, farthest, critical, result,
    )  # fmt: skip
    return result
