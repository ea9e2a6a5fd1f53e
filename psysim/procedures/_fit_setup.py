"""From data in the user's units to the fit's coordinates: checks, scale, priors, bounds, start, and status."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from psysim.errors import SpecError, check_option, check_range
from psysim.procedures._fit_core import (
    GUESS,
    LAPSE,
    N_COORDINATES,
    PLACE,
    RHO,
    SLOPE,
    Design,
    argument,
    evaluate,
    maximise,
)
from psysim.procedures.psychometric import SHAPES

__all__ = ["Axis", "Data", "FitPrior", "make_axis", "make_design", "read_data", "solve"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

CONVERGED, MAX_ITERATIONS, SEPARATED, FLAT, OUTSIDE, NO_DATA = range(6)  # as in FitStatus

FARTHEST = 50.0
"""Largest distance of a threshold from the middle of the levels, in halves of their range."""
SHALLOWEST = 1e-3
"""Smallest factor k, per half of the range: the argument of F changes by 0.002 over all levels."""
STEEPEST = 80.0
"""Largest factor k, per smallest distance of two levels: the argument of F is 40 half-way between them."""
SAME = 1e-6
"""Log-likelihoods closer than this are the same."""
FIRST_STEPS = 12
"""Steps of each first attempt at most."""
ROUGH = 1e-3
"""Accuracy of its log-likelihood."""
MAX_GUESS = 0.5
MAX_RHO = 0.99


@dataclass(frozen=True)
class FitPrior:
    """Prior of a fit: what is believed before the data; anything not given is flat within its limits.

    ``prior="weak"`` is: threshold normal about the middle of the levels with the range of the levels as standard
    deviation; logarithm of the slope normal about that of a function that rises from 5 to 95 % over this range, with a
    standard deviation of 1.5 (a factor of 4.5 either way); Beta(1, 10) for free rates and the squared overdispersion.

    Parameters
    ----------
    threshold : (float, float), optional
        Mean and standard deviation, unit of the level; for shapes in the logarithm, of the natural logarithm of it.
    log_slope : (float, float), optional
        Mean and standard deviation of the natural logarithm of the slope's size, per unit of the level (per unit of its
        natural logarithm for shapes in the logarithm).
    lapse_beta, guess_beta, overdispersion_beta : float
        b of a Beta(1, b) prior for a free lapse rate, guess rate and squared overdispersion; 1 is flat.

    Raises
    ------
    SpecError
        If a standard deviation is not above 0, or a b is below 1.

    Examples
    --------
    >>> FitPrior(threshold=(-10.0, 5.0), lapse_beta=20.0).guess_beta
    1.0
    """

    threshold: tuple[float, float] | None = None
    log_slope: tuple[float, float] | None = None
    lapse_beta: float = 1.0
    guess_beta: float = 1.0
    overdispersion_beta: float = 1.0

    def __post_init__(self) -> None:
        for name in ("threshold", "log_slope"):
            pair = getattr(self, name)
            if pair is None:
                continue
            if len(pair) != 2 or not np.all(np.isfinite(pair)) or pair[1] <= 0:
                raise SpecError(f"prior {name} = {pair!r} must be a mean and a standard deviation above 0.")
        for name in ("lapse_beta", "guess_beta", "overdispersion_beta"):
            check_range(f"prior {name}", getattr(self, name), 1.0)


@dataclass(frozen=True)
class Data:
    """Checked data: u (N, L) levels or their logarithms, counts (N, L), shape of the batch."""

    u: FloatArray
    correct: IntArray
    trials: IntArray
    batch: tuple[int, ...]


@dataclass(frozen=True)
class Axis:
    """``u = centre + sign * scale * v`` of each data set, arrays (N,)."""

    centre: FloatArray
    scale: FloatArray
    sign: int
    log_axis: bool

    def take(self, rows: Any) -> Axis:
        """Return the axes of the data sets ``rows``."""
        return replace(self, centre=self.centre[rows], scale=self.scale[rows])

    def level(self, place: FloatArray) -> FloatArray:
        """Return levels from v (..., N)."""
        u = self.centre + self.sign * self.scale * place
        with np.errstate(over="ignore"):
            return np.exp(u) if self.log_axis else u

    def coupling(self) -> FloatArray:
        """Return d(log slope over v) / dv at constant slope over the level, shape (N,)."""
        return self.sign * self.scale if self.log_axis else np.zeros_like(self.scale)

    def slope(self, log_slope: FloatArray, place: FloatArray | float) -> FloatArray:
        """Return slopes over the level from log slopes over v at ``place``."""
        logarithm = log_slope - np.log(self.scale)
        if self.log_axis:
            logarithm = logarithm - self.centre - self.sign * self.scale * place
        with np.errstate(over="ignore"):
            return np.asarray(self.sign * np.exp(logarithm))

    def parameters(self, theta: FloatArray) -> FloatArray:
        """Return threshold, slope, guess rate, lapse rate and overdispersion, shape (N, 5)."""
        values = theta.copy()
        values[:, PLACE] = self.level(theta[:, PLACE])
        values[:, SLOPE] = self.slope(theta[:, SLOPE], theta[:, PLACE])
        values[:, RHO] = np.sqrt(theta[:, RHO])
        return values

    def jacobian(self, theta: FloatArray) -> FloatArray:
        """Return the derivatives of `parameters` with respect to the coordinates, shape (N, 5, 5)."""
        values = self.parameters(theta)
        jacobian = np.zeros((len(theta), N_COORDINATES, N_COORDINATES))
        stretch = self.sign * self.scale
        jacobian[:, PLACE, PLACE] = stretch * (values[:, PLACE] if self.log_axis else 1.0)
        jacobian[:, SLOPE, SLOPE] = values[:, SLOPE]
        jacobian[:, SLOPE, PLACE] = -values[:, SLOPE] * self.coupling()
        jacobian[:, GUESS, GUESS] = jacobian[:, LAPSE, LAPSE] = 1.0
        jacobian[:, RHO, RHO] = 0.5 / np.maximum(values[:, RHO], 1e-9)
        return jacobian


def read_data(levels: ArrayLike, n_correct: ArrayLike, n_trials: ArrayLike, shape: str) -> Data:
    """Check and broadcast the data, or raise `SpecError`."""
    check_option("shape", shape, SHAPES)
    arrays = [np.asarray(a, dtype=np.float64) for a in (levels, n_correct, n_trials)]
    try:
        x, correct, trials = np.broadcast_arrays(*arrays)
    except ValueError:
        shapes = ", ".join(str(a.shape) for a in arrays)
        raise SpecError(f"levels, n_correct and n_trials do not fit together: shapes {shapes}.") from None
    if x.ndim == 0:
        raise SpecError("levels, n_correct and n_trials need a last axis over levels; got single numbers.")
    used = ~np.isnan(x)
    correct, trials = np.where(used, correct, 0.0), np.where(used, trials, 0.0)
    for name, counts in (("n_correct", correct), ("n_trials", trials)):
        bad = ~((counts >= 0) & (counts < 2**31) & (counts == np.floor(counts)))
        if bad.any():
            raise SpecError(f"{name} = {counts[bad].flat[0]:g} must be a whole number of at least 0.")
    if np.any(correct > trials):
        at = np.flatnonzero((correct > trials).ravel())[0]
        raise SpecError(f"n_correct = {correct.flat[at]:g} is more than n_trials = {trials.flat[at]:g}.")
    used = used & (trials > 0)
    if np.any(np.isinf(x) & used):
        raise SpecError("levels must be finite; a level of infinity has no place on the function's axis.")
    if SHAPES[shape].log_axis:
        if np.any((x <= 0) & used):
            raise SpecError(
                f"level = {x[(x <= 0) & used].flat[0]:g} must be above 0 for shape = '{shape}', which is meant for "
                "levels on a linear scale; for levels in dB use a shape that is not in the logarithm."
            )
        x = np.log(np.where(used, x, 1.0))
    u = np.where(used, x, np.nan)
    last = x.shape[-1]
    whole = [counts.reshape(-1, last).astype(np.int64) for counts in (correct, trials)]
    return Data(u.reshape(-1, last), whole[0], whole[1], x.shape[:-1])


def make_axis(data: Data, shape: str, harder: int) -> Axis:
    """Return the scale on which each data set's levels lie within -1 to 1, easier upwards."""
    if harder not in (-1, 1):
        raise SpecError(f"harder = {harder!r} is not possible: -1 (lower levels are harder) or 1 (higher levels are).")
    empty = np.isnan(data.u)
    low = np.where(empty, np.inf, data.u).min(axis=-1, initial=np.inf)
    high = np.where(empty, -np.inf, data.u).max(axis=-1, initial=-np.inf)
    usable = high > low
    centre = np.where(usable, 0.5 * (np.where(usable, low, 0.0) + np.where(usable, high, 0.0)), 0.0)
    scale = np.where(usable, 0.5 * (np.where(usable, high, 1.0) - np.where(usable, low, -1.0)), 1.0)
    return Axis(centre, scale, -harder, SHAPES[shape].log_axis)


def _rate(name: str, value: Any, n: int, batch: tuple[int, ...], high: float) -> tuple[FloatArray, bool]:
    """Return the given rates (N,), or a start, and whether the rate is free."""
    if isinstance(value, str):
        check_option(name, value, ("free",))
        return np.full(n, 0.02), True
    rates = np.asarray(value, dtype=np.float64)
    if not np.all((rates >= 0) & (rates < high)):
        raise SpecError(f"{name} = {value!r} is out of range: it must be at least 0 and below {high:g}, or 'free'.")
    try:
        return np.broadcast_to(rates, batch).reshape(n).copy(), False
    except ValueError:
        raise SpecError(f"{name} has shape {rates.shape}, but the data sets have {batch}.") from None


def make_design(
    data: Data,
    axis: Axis,
    shape: str,
    guess_rate: Any,
    lapse_rate: Any,
    overdispersion: Any,
    prior: FitPrior | Literal["weak"] | None,
    *,
    max_rate: float,
) -> tuple[Design, FloatArray]:
    """Return the problem and starting values (N, 5)."""
    check_range("max_rate", max_rate, 0.0, 0.4, low_open=True)
    n, family = len(data.u), SHAPES[shape]
    guess, free_guess = _rate("guess_rate", guess_rate, n, data.batch, 1.0)
    lapse, free_lapse = _rate("lapse_rate", lapse_rate, n, data.batch, 1.0)
    eta, free_rho = _rate("overdispersion", overdispersion, n, data.batch, 1.0)
    top = np.where(free_guess, MAX_GUESS, guess) + np.where(free_lapse, max_rate, lapse)
    if np.any(top >= 1.0):
        raise SpecError(
            "guess_rate and lapse_rate do not fit: their sum must be below 1 (with the limit of a free one)."
        )
    v = np.where(np.isnan(data.u), 0.0, axis.sign * (data.u - axis.centre[:, None]) / axis.scale[:, None])
    order = np.sort(np.where(np.isnan(data.u), np.inf, v), axis=-1)
    with np.errstate(invalid="ignore"):
        gaps = np.diff(order, axis=-1)
    gap = np.where(np.isfinite(gaps) & (gaps > 1e-9), gaps, np.inf).min(axis=-1, initial=2.0)
    low, high = np.zeros((n, N_COORDINATES)), np.ones((n, N_COORDINATES))
    low[:, PLACE], high[:, PLACE] = -FARTHEST, FARTHEST
    low[:, SLOPE] = np.log(SHALLOWEST * family.steepness) - 3.0
    high[:, SLOPE] = np.log(STEEPEST * family.steepness / gap)
    high[:, GUESS], high[:, LAPSE], high[:, RHO] = MAX_GUESS, max_rate, MAX_RHO
    free = np.zeros((n, N_COORDINATES), bool)
    free[:] = [True, True, free_guess, free_lapse, free_rho]
    mean, precision, beta = _prior_arrays(prior, axis, shape, 1.0 - guess - lapse)
    zeros = np.zeros(n)
    design = Design(
        family,
        v,
        data.correct,
        data.trials,
        free,
        low,
        high,
        mean,
        precision,
        beta * free,
        zeros,
    )
    theta = np.stack([zeros, zeros, guess, lapse, np.where(free_rho, 0.01, eta**2)], axis=-1)
    return design, _start(design, theta)


def _prior_arrays(
    prior: FitPrior | Literal["weak"] | None, axis: Axis, shape: str, span: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return means (N, 2), precisions (N, 2) and exponents of 1 - rate (N, 5)."""
    n, family = len(span), SHAPES[shape]
    mean, precision, beta = np.zeros((n, 2)), np.zeros((n, 2)), np.zeros((n, N_COORDINATES))
    if prior is None:
        return mean, precision, beta
    if isinstance(prior, str):
        check_option("prior", prior, ("weak",))
        rise = float(family.inverse(np.array(0.95)) - family.inverse(np.array(0.05)))
        mean[:, 1] = np.log(0.5 * rise * span * family.steepness)
        precision[:] = [2.0**-2, 1.5**-2]
        beta[:, GUESS:] = 9.0
        return mean, precision, beta
    if not isinstance(prior, FitPrior):
        raise SpecError(f"prior = {prior!r} is not possible: use None, 'weak' or a FitPrior.")
    if prior.threshold is not None:
        mean[:, 0] = axis.sign * (prior.threshold[0] - axis.centre) / axis.scale
        precision[:, 0] = (axis.scale / prior.threshold[1]) ** 2
    if prior.log_slope is not None:
        mean[:, 1] = prior.log_slope[0] + np.log(axis.scale)
        precision[:, 1] = prior.log_slope[1] ** -2.0
    beta[:, GUESS:] = [prior.guess_beta - 1.0, prior.lapse_beta - 1.0, prior.overdispersion_beta - 1.0]
    return mean, precision, beta


def _start(design: Design, theta: FloatArray) -> FloatArray:
    """Return the best of several first attempts, shape (N, 5).

    A shallow, a middle, a steep and a very steep function each begin at the best of some places: a likelihood may have
    a second maximum, most often a step function beside a good fit.
    """
    places = np.linspace(-1.25, 1.25, 6)
    best, start = np.full(len(theta), -np.inf), theta.copy()
    for factor in (0.7, 2.0, 6.0, 20.0):
        value, point = np.full(len(theta), -np.inf), theta.copy()
        for place in places:
            attempt = theta.copy()
            attempt[:, PLACE], attempt[:, SLOPE] = place, np.log(design.family.steepness * factor)
            objective = evaluate(design, attempt)[0]
            better = objective > value
            value, point = np.where(better, objective, value), np.where(better[:, None], attempt, point)
        point, value, _, _ = maximise(design, point, FIRST_STEPS, ROUGH)
        better = value > best + ROUGH
        best, start = np.where(better, value, best), np.where(better[:, None], point, start)
    return start


def solve(design: Design, start: FloatArray, max_iterations: int) -> tuple[FloatArray, IntArray, IntArray]:
    """Return coordinates (N, 5), status codes (N,) and iterations (N,)."""
    theta, objective, converged, iterations = maximise(design, start, max_iterations)
    status = np.where(converged, CONVERGED, MAX_ITERATIONS)
    status[(theta[:, SLOPE] <= design.low[:, SLOPE])] = FLAT
    status[np.abs(theta[:, PLACE]) >= FARTHEST] = OUTSIDE
    loose = design.prior_precision[:, 1] == 0
    stepped = loose & _separated(design, theta, objective)
    status[stepped] = SEPARATED
    theta[stepped, PLACE] = _middle_of_the_step(design, theta[stepped], stepped)
    status[loose & _flat(design, theta, objective)] = FLAT
    status[(design.trials > 0).sum(axis=-1) < 2] = NO_DATA
    status[np.ptp(np.where(design.trials > 0, design.v, 0.0), axis=-1) == 0] = NO_DATA
    return theta, status.astype(np.int64), iterations


def _separated(design: Design, theta: FloatArray, objective: FloatArray) -> NDArray[np.bool_]:
    """Return whether the steepest function, with the level nearest to the threshold held, is as good as the fit."""
    z = np.where(design.trials > 0, np.abs(argument(design, theta)), np.inf)
    rows = np.arange(len(theta))
    nearest = z.argmin(axis=-1)
    steep = theta.copy()
    steep[:, SLOPE] = design.high[:, SLOPE]
    gain = np.exp(theta[:, SLOPE] - steep[:, SLOPE])
    v = design.v[rows, nearest]
    steep[:, PLACE] = v - gain * (v - theta[:, PLACE])
    return np.asarray(evaluate(design, steep)[0] > objective - SAME)


def _middle_of_the_step(design: Design, theta: FloatArray, rows: Any) -> FloatArray:
    """Return the middle between the levels around the place, unless one of them is on the slope itself."""
    part = design.take(rows)
    used = part.trials > 0
    place = theta[:, PLACE]
    below = np.where(used & (part.v <= place[:, None]), part.v, -np.inf).max(axis=-1, initial=-np.inf)
    above = np.where(used & (part.v > place[:, None]), part.v, np.inf).min(axis=-1, initial=np.inf)
    z = np.where(used, np.abs(argument(part, theta)), np.inf).min(axis=-1, initial=np.inf)
    inside = np.isfinite(below) & np.isfinite(above) & (z > math.log(1e3))
    return np.where(inside, 0.5 * (np.where(inside, below, 0.0) + np.where(inside, above, 0.0)), place)


def _flat(design: Design, theta: FloatArray, objective: FloatArray) -> NDArray[np.bool_]:
    """Return whether a constant proportion is as good as the fit."""
    total = np.maximum(design.trials.sum(axis=-1), 1)
    low = np.where(design.free[:, GUESS], 0.0, theta[:, GUESS])
    high = 1.0 - np.where(design.free[:, LAPSE], 0.0, theta[:, LAPSE])
    constant = np.clip(design.correct.sum(axis=-1) / total, low, high)
    # a function so shallow that it is constant over the levels, with the place where it gives this proportion
    flat = theta.copy()
    flat[:, GUESS], flat[:, LAPSE] = low, 1.0 - high
    inner = np.clip((constant - low) / (high - low), 1e-13, 1.0 - 1e-13)
    k = 1e-9
    flat[:, SLOPE] = np.log(k * (high - low) * design.family.steepness)
    flat[:, PLACE] = -design.family.inverse(inner) / k
    return np.asarray(evaluate(design, flat)[0] > objective - SAME)
