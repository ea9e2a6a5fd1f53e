"""Likelihood of many psychometric functions at once, and its maximum by damped Fisher scoring over data sets.

Coordinates of a data set, in units of its own range of levels (``v = (u(x) - centre) / scale``, mirrored if the task
gets harder as the level rises): place, log slope, guess rate, lapse rate, rho. "Place" is v where F has risen to a
given share or P to a given proportion; the log slope is that of P over v where the argument of F is 0 or, with
`Design.coupling`, that of P over the level itself. An interval of a place or of a slope is then a profile along one coordinate.
rho is the correlation between trials at one level: the variance of a count is ``n p q (1 + (n - 1) rho)``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from psysim.procedures.psychometric import Shape

__all__ = ["GUESS", "LAPSE", "N_COORDINATES", "PLACE", "RHO", "SLOPE", "Design", "Evaluation", "maximise"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

PLACE, SLOPE, GUESS, LAPSE, RHO = range(5)
N_COORDINATES = 5
TINY = 1e-300
LARGEST_STEP = np.array([1.0, 1.0, 0.2, 0.2, 0.2])
TOLERANCE = 1e-12
"""Twice the gain in log-likelihood that the next step promises, at which a fit has converged."""
ROUNDING = 1e-6
"""The same, where rounding lets no step gain any more."""


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
    share : float
        F at the place; 1 - 1/e or 1/2 unless a threshold elsewhere is asked for.
    proportion : float or None
        P at the place, instead of F.
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
    share: float
    proportion: float | None = None

    def take(self, rows: Any) -> Design:
        """Return the problems ``rows``."""
        arrays = {name: value[rows] for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return replace(self, **arrays)


@dataclass(frozen=True)
class Evaluation:
    """Objective (log-likelihood plus log prior, up to constants), gradient and a positive information matrix."""

    objective: FloatArray
    gradient: FloatArray
    information: FloatArray


def _place(design: Design, theta: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the argument of F at the place and its derivatives with respect to guess and lapse rate, shape (N, 1)."""
    guess, lapse = theta[:, GUESS, None], theta[:, LAPSE, None]
    if design.proportion is None:
        at = 0.0 if design.share == design.family.at_threshold else float(design.family.inverse(np.array(design.share)))
        return np.full_like(guess, at), np.zeros_like(guess), np.zeros_like(guess)
    span = 1.0 - guess - lapse
    share = (design.proportion - guess) / span
    inside = (share > 0) & (share < 1)
    z = np.where(inside, design.family.inverse(np.where(inside, share, 0.5)), np.nan)
    density = design.family.density(z) * span**2
    return z, -(1.0 - lapse - design.proportion) / density, (design.proportion - guess) / density


def proportions(design: Design, theta: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return P, 1 - P (N, L) and the derivatives of P with respect to the first four coordinates (4, N, L)."""
    family = design.family
    guess, lapse = theta[:, GUESS, None], theta[:, LAPSE, None]
    span = 1.0 - guess - lapse
    log_slope = theta[:, SLOPE, None] + design.coupling[:, None] * theta[:, PLACE, None]
    k = np.exp(log_slope) / (span * family.steepness)
    at, at_guess, at_lapse = _place(design, theta)
    from_place = k * (design.v - theta[:, PLACE, None])
    z = from_place + at
    core, survival = family.core(z), family.survival(z)
    rise = span * family.density(z)
    slopes = np.stack(
        [
            rise * (design.coupling[:, None] * from_place - k),
            rise * from_place,
            survival + rise * (from_place / span + at_guess),
            -core + rise * (from_place / span + at_lapse),
        ]
    )
    return guess + span * core, lapse + span * survival, slopes


def evaluate(design: Design, theta: FloatArray, *, derivatives: bool = True) -> Evaluation:
    """Return the objective and, unless told otherwise, its derivatives at ``theta`` (N, 5)."""
    n = len(theta)
    with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
        p, q, slopes = proportions(design, theta)
        p, q = np.maximum(p, TINY), np.maximum(q, TINY)
        overdispersed = bool(np.any(design.free[:, RHO] | (theta[:, RHO] > 0)))
        if overdispersed:
            from psysim.procedures._beta_binomial import beta_binomial_sums

            rho = theta[:, RHO]
            sums = np.empty((5, *p.shape))
            beta_binomial_sums(p, q, rho / (1.0 - rho), design.correct, design.trials, sums)
            likelihood, pull, weight = sums[0].sum(axis=-1), sums[1], sums[2]
        else:
            wrong = design.trials - design.correct
            likelihood = (design.correct * np.log(p) + wrong * np.log(q)).sum(axis=-1)
            pull = design.correct / p - wrong / q
            weight = design.trials / (p * q)
        objective = likelihood + _prior(design, theta)
        objective = np.where(np.isfinite(objective), objective, -np.inf)
        if not derivatives:
            return Evaluation(objective, np.empty(0), np.empty(0))
        gradient = np.zeros((n, N_COORDINATES))
        gradient[:, :RHO] = np.einsum("nl,cnl->nc", pull, slopes)
        information = np.zeros((n, N_COORDINATES, N_COORDINATES))
        weighted = np.moveaxis(slopes * weight, 0, 1)
        information[:, :RHO, :RHO] = weighted @ np.moveaxis(slopes, (0, 1, 2), (2, 0, 1))
        if overdispersed:
            step = 1.0 / (1.0 - rho) ** 2
            total, curvature = sums[3].sum(axis=-1), sums[4].sum(axis=-1)
            gradient[:, RHO] = total * step
            information[:, RHO, RHO] = np.abs(curvature * step**2 - 2.0 * total * step / (1.0 - rho))
        _add_prior(design, theta, gradient, information)
    return Evaluation(objective, np.nan_to_num(gradient), np.nan_to_num(information))


def natural(design: Design, theta: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return v and log slope over v where the argument of F is 0, and their gradients: (N,), (N,), (N, 5), (N, 5)."""
    at, at_guess, at_lapse = (x[:, 0] for x in _place(design, theta))
    log_slope = theta[:, SLOPE] + design.coupling * theta[:, PLACE]
    span = 1.0 - theta[:, GUESS] - theta[:, LAPSE]
    k = np.exp(log_slope) / (span * design.family.steepness)
    of_place, of_slope = np.zeros_like(theta), np.zeros_like(theta)
    of_slope[:, PLACE], of_slope[:, SLOPE] = design.coupling, 1.0
    of_place[:, PLACE] = 1.0 + design.coupling * at / k
    of_place[:, SLOPE] = at / k
    of_place[:, GUESS] = (at / span - at_guess) / k
    of_place[:, LAPSE] = (at / span - at_lapse) / k
    return theta[:, PLACE] - at / k, log_slope, of_place, of_slope


def _prior(design: Design, theta: FloatArray) -> FloatArray:
    """Return the logarithm of the prior, up to a constant, shape (N,)."""
    place, log_slope, _, _ = natural(design, theta)
    off = np.stack([place, log_slope], axis=-1) - design.prior_mean
    normal = -0.5 * design.prior_precision * off**2
    used = design.prior_beta != 0
    beta = np.where(used, design.prior_beta * np.log(np.maximum(1.0 - np.where(used, theta, 0.0), TINY)), 0.0)
    return np.asarray(np.where(design.prior_precision > 0, normal, 0.0).sum(axis=-1) + beta.sum(axis=-1))


def _add_prior(design: Design, theta: FloatArray, gradient: FloatArray, information: FloatArray) -> None:
    """Add the derivatives of the logarithm of the prior in place."""
    place, log_slope, of_place, of_slope = natural(design, theta)
    if design.prior_precision.any():
        for i, (value, direction) in enumerate(((place, of_place), (log_slope, of_slope))):
            precision = design.prior_precision[:, i]
            gradient -= (precision * (value - design.prior_mean[:, i]))[:, None] * direction
            information += precision[:, None, None] * direction[:, :, None] * direction[:, None, :]
    remaining = np.where(design.prior_beta != 0, 1.0 - theta, 1.0)
    gradient -= design.prior_beta / remaining
    diagonal = np.arange(N_COORDINATES)
    information[:, diagonal, diagonal] += design.prior_beta / remaining**2


def _step(design: Design, theta: FloatArray, now: Evaluation, damping: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return a damped step within the bounds, and what an undamped one promises (twice the gain), shape (N,)."""
    blocked = ~design.free
    blocked |= (theta <= design.low) & (now.gradient < 0)
    blocked |= (theta >= design.high) & (now.gradient > 0)
    gradient = np.where(blocked, 0.0, now.gradient)
    matrix = np.where(blocked[:, :, None] | blocked[:, None, :], 0.0, now.information)
    diagonal = np.arange(N_COORDINATES)
    size = matrix[:, diagonal, diagonal]
    ridge = 1e-12 * size.max(axis=-1, keepdims=True) + TINY
    matrix[:, diagonal, diagonal] = np.where(blocked, 1.0, size + ridge)
    promise = (gradient * np.linalg.solve(matrix, gradient[..., None])[..., 0]).sum(axis=-1)
    matrix[:, diagonal, diagonal] += np.where(blocked, 0.0, damping[:, None] * (size + ridge))
    step = np.linalg.solve(matrix, gradient[..., None])[..., 0]
    shrink = np.max(np.abs(step) / LARGEST_STEP, axis=-1, keepdims=True)
    step = step / np.maximum(shrink, 1.0)
    return np.clip(theta + step, design.low, design.high) - theta, promise


def maximise(
    design: Design, start: FloatArray, max_iterations: int = 200
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
    """
    theta = np.where(design.free, np.clip(start, design.low, design.high), start)
    objective = np.full(len(theta), -np.inf)
    converged = np.zeros(len(theta), bool)
    iterations = np.zeros(len(theta), np.int64)
    live = np.arange(len(theta))
    part, at, now, damping = design, theta.copy(), evaluate(design, theta), np.full(len(theta), 1e-3)
    for _ in range(max_iterations):
        if not len(live):
            break
        step, promise = _step(part, at, now, damping)
        then = evaluate(part, at + step)
        better = then.objective >= now.objective
        foreseen = (step * now.gradient).sum(axis=-1) - 0.5 * np.einsum("ni,nij,nj->n", step, now.information, step)
        with np.errstate(invalid="ignore"):
            ratio = np.where(better, then.objective - now.objective, -1.0) / np.maximum(foreseen, TINY)
        at = np.where(better[:, None], at + step, at)
        gradient = np.where(better[:, None], then.gradient, now.gradient)
        information = np.where(better[:, None, None], then.information, now.information)
        now = Evaluation(np.where(better, then.objective, now.objective), gradient, information)
        factor = np.where(ratio > 0.75, 0.1, np.where(ratio > 0.25, 1.0, np.where(better, 2.0, 10.0)))
        damping = np.clip(damping * factor, 1e-9, None)
        stuck = (damping > 1e8) | (np.abs(step) < 1e-14).all(axis=-1)
        finished = (promise < TOLERANCE) | stuck
        iterations[live] += 1
        theta[live], objective[live] = at, now.objective
        converged[live] = (promise < TOLERANCE) | (stuck & (promise < ROUNDING))
        if finished.any():
            keep = ~finished
            live, at, damping, part = live[keep], at[keep], damping[keep], part.take(keep)
            now = Evaluation(now.objective[keep], now.gradient[keep], now.information[keep])
    return theta, objective, converged, iterations
