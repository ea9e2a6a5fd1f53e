"""Psychometric functions: proportion correct against level.

Every family is ``P(x) = guess_rate + (1 - guess_rate - lapse_rate) * F(k * (u(x) - u(threshold)))`` with a rising
``F`` and ``u(x) = x`` or, for the Weibull, ``log(x)``. ``threshold`` is where the argument of F is 0, and ``slope`` is
the derivative of P there, per unit of the level; a negative slope means that the task gets harder as the level rises.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit, ndtr, ndtri

from psysim.errors import SpecError, check_option

__all__ = ["SHAPES", "PsychometricFunction", "inverse_psychometric_function", "psychometric_function"]

FloatArray = NDArray[np.float64]
LARGEST_EXPONENT = 700.0  # exp of it is finite in double precision


@dataclass(frozen=True)
class Shape:
    """One family.

    Parameters
    ----------
    core, inverse : callable
        F and its inverse.
    at_threshold : float
        F(0).
    steepness : float
        dF/dz at 0.
    log_axis : bool
        Whether u is the logarithm of the level.
    """

    core: Callable[[Any], Any]
    inverse: Callable[[Any], Any]
    at_threshold: float
    steepness: float
    log_axis: bool = False


def _log_log(z: FloatArray) -> FloatArray:
    return -np.expm1(-np.exp(np.minimum(z, LARGEST_EXPONENT)))


def _inverse_log_log(p: FloatArray) -> FloatArray:
    return np.log(-np.log1p(-p))


def _quick(z: FloatArray) -> FloatArray:
    return -np.expm1(-math.log(2.0) * np.exp(np.minimum(math.log(10.0) * z, LARGEST_EXPONENT)))


def _inverse_quick(p: FloatArray) -> FloatArray:
    return np.log10(-np.log1p(-p) / math.log(2.0))


SHAPES: dict[str, Shape] = {
    "logistic": Shape(expit, logit, 0.5, 0.25),
    "cumulative_gaussian": Shape(ndtr, ndtri, 0.5, 1.0 / math.sqrt(2.0 * math.pi)),
    "gumbel": Shape(_log_log, _inverse_log_log, 1.0 - math.exp(-1.0), math.exp(-1.0)),
    "weibull": Shape(_log_log, _inverse_log_log, 1.0 - math.exp(-1.0), math.exp(-1.0), log_axis=True),
    "log_quick": Shape(_quick, _inverse_quick, 0.5, 0.5 * math.log(2.0) * math.log(10.0)),
}
"""The families by name: logistic ``1 / (1 + exp(-z))``, cumulative_gaussian ``Phi(z)``, gumbel and weibull
``1 - exp(-exp(z))`` (the Weibull in the logarithm of a positive level), log_quick ``1 - 2**(-10**z)``."""


@dataclass(frozen=True)
class _Scaled:
    """Parameters checked and broadcast."""

    family: Shape
    threshold: FloatArray
    k: FloatArray
    guess_rate: FloatArray
    range: FloatArray


def _scale(threshold: ArrayLike, slope: ArrayLike, guess_rate: ArrayLike, lapse_rate: ArrayLike, shape: str) -> _Scaled:
    """Return the checked parameters and the factor k that gives the slope."""
    check_option("shape", shape, SHAPES)
    family = SHAPES[shape]
    t, s, guess, lapse = (np.asarray(v, dtype=np.float64) for v in (threshold, slope, guess_rate, lapse_rate))
    span = 1.0 - guess - lapse
    if np.any(guess < 0) or np.any(lapse < 0) or not np.all(span > 0):
        raise SpecError(
            f"guess_rate = {guess} and lapse_rate = {lapse} do not fit: both must be at least 0, their sum below 1."
        )
    if not np.all(np.isfinite(s) & (s != 0)):
        raise SpecError(f"slope = {s} must be finite and not 0 (derivative of proportion correct at threshold).")
    if family.log_axis and not np.all(t > 0):
        raise SpecError(
            f"threshold = {t} must be above 0 for shape = '{shape}', which is meant for levels on a linear scale; "
            "for levels in dB use 'gumbel', the same function of the logarithm."
        )
    k = s / (span * family.steepness)
    return _Scaled(family, t, k * t if family.log_axis else k, guess, span)


def psychometric_function(
    level: ArrayLike,
    threshold: ArrayLike,
    slope: ArrayLike,
    guess_rate: ArrayLike = 0.0,
    lapse_rate: ArrayLike = 0.0,
    shape: str = "logistic",
) -> FloatArray:
    """Return the proportion correct at a level.

    Parameters
    ----------
    level : array_like
        Level, in any unit; all numeric arguments broadcast. Infinite levels give the asymptotes.
    threshold : array_like
        Level at which the part between the asymptotes has risen to 1/2 (logistic, cumulative_gaussian, log_quick) or
        to 1 - 1/e = 0.632 (gumbel, weibull).
    slope : array_like
        Derivative of the proportion correct at the threshold, per unit of the level; negative if the proportion falls
        with the level.
    guess_rate, lapse_rate : array_like
        Proportion correct far on the hard side, and 1 minus the proportion far on the easy side.
    shape : {"logistic", "cumulative_gaussian", "weibull", "gumbel", "log_quick"}
        Family; see `SHAPES`.

    Returns
    -------
    ndarray of float64
        Broadcast shape of the arguments.

    Raises
    ------
    SpecError
        If the shape is not known, the rates do not fit, the slope is 0, or a Weibull gets a negative level.

    References
    ----------
    Wichmann, F. A., and Hill, N. J. (2001). The psychometric function: I. Fitting, sampling, and goodness of fit.
    Percept. Psychophys. 63, 1293-1313, Eq. (1).

    Examples
    --------
    >>> psychometric_function([-20.0, -14.0, -8.0], threshold=-14.0, slope=0.1, guess_rate=1 / 3).round(3)
    array([0.351, 0.667, 0.982])
    """
    p = _scale(threshold, slope, guess_rate, lapse_rate, shape)
    x = np.asarray(level, dtype=np.float64)
    if p.family.log_axis:
        if np.any(x < 0):
            raise SpecError(
                f"level = {x[x < 0].flat[0]:g} is negative, but shape = '{shape}' needs levels on a linear scale; "
                "for levels in dB use 'gumbel', the same function of the logarithm."
            )
        with np.errstate(divide="ignore"):
            z = p.k * (np.log(x) - np.log(p.threshold))
    else:
        z = p.k * (x - p.threshold)
    return np.asarray(p.guess_rate + p.range * p.family.core(z))


def inverse_psychometric_function(
    proportion: ArrayLike,
    threshold: ArrayLike,
    slope: ArrayLike,
    guess_rate: ArrayLike = 0.0,
    lapse_rate: ArrayLike = 0.0,
    shape: str = "logistic",
) -> FloatArray:
    """Return the level that gives a proportion correct.

    Parameters
    ----------
    proportion : array_like
        Proportion correct. The asymptotes are reached at infinity (at 0 and infinity for the Weibull); proportions
        beyond them, which no level gives, return NaN.
    threshold, slope, guess_rate, lapse_rate, shape
        As for `psychometric_function`.

    Raises
    ------
    SpecError
        As for `psychometric_function`.

    Examples
    --------
    >>> float(inverse_psychometric_function(0.7071, threshold=-14.0, slope=0.1, guess_rate=1 / 3).round(2))
    -13.59
    """
    p = _scale(threshold, slope, guess_rate, lapse_rate, shape)
    share = (np.asarray(proportion, dtype=np.float64) - p.guess_rate) / p.range
    share = np.where((share >= 0) & (share <= 1), share, np.nan)
    with np.errstate(divide="ignore"):
        z = p.family.inverse(share) / p.k
    return np.asarray(p.threshold * np.exp(z) if p.family.log_axis else p.threshold + z)


@dataclass(frozen=True)
class PsychometricFunction:
    """A psychometric function with given parameters (numbers, or arrays with one entry per lane).

    Parameters
    ----------
    threshold, slope, guess_rate, lapse_rate, shape
        As for `psychometric_function`.

    Examples
    --------
    >>> listener = PsychometricFunction(threshold=-14.0, slope=0.1, guess_rate=1 / 3)
    >>> float(listener.inverse(listener(-10.0)).round(9))
    -10.0
    """

    threshold: Any
    slope: Any
    guess_rate: Any = 0.0
    lapse_rate: Any = 0.0
    shape: str = "logistic"

    def __post_init__(self) -> None:
        _scale(self.threshold, self.slope, self.guess_rate, self.lapse_rate, self.shape)

    def __call__(self, level: ArrayLike) -> FloatArray:
        """Return the proportion correct at a level."""
        return psychometric_function(
            level, self.threshold, self.slope, self.guess_rate, self.lapse_rate, shape=self.shape
        )

    def inverse(self, proportion: ArrayLike) -> FloatArray:
        """Return the level that gives a proportion correct."""
        return inverse_psychometric_function(
            proportion, self.threshold, self.slope, self.guess_rate, self.lapse_rate, shape=self.shape
        )
