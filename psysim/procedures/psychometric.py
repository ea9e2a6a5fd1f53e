"""Psychometric functions: proportion correct against level.

Every family is ``P(x) = guess_rate + (1 - guess_rate - lapse_rate) * F(k * (u(x) - u(threshold)))`` with a rising
``F`` and ``u(x) = x`` or, for weibull, quick, log_logistic and log_gaussian, ``log(x)``. ``threshold`` is where the
argument of F is 0, and ``slope`` is the derivative of P there, per unit of the level; a negative slope means that the
task gets harder as the level rises.
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
    survival, density : callable
        1 - F, without loss of digits where F is nearly 1, and dF/dz.
    at_threshold : float
        F(0).
    steepness : float
        dF/dz at 0.
    code : int
        Number of the family in the compiled fit.
    log_axis : bool
        Whether u is the logarithm of the level.
    """

    core: Callable[[Any], Any]
    inverse: Callable[[Any], Any]
    survival: Callable[[Any], Any]
    density: Callable[[Any], Any]
    at_threshold: float
    steepness: float
    code: int
    log_axis: bool = False


def _logistic_survival(z: FloatArray) -> FloatArray:
    return np.asarray(expit(-z))


def _logistic_density(z: FloatArray) -> FloatArray:
    return np.asarray(expit(z) * expit(-z))


def _gaussian_survival(z: FloatArray) -> FloatArray:
    return np.asarray(ndtr(-z))


def _gaussian_density(z: FloatArray) -> FloatArray:
    return np.exp(-0.5 * np.square(z)) / math.sqrt(2.0 * math.pi)


def _log_log(z: FloatArray) -> FloatArray:
    return -np.expm1(-np.exp(np.minimum(z, LARGEST_EXPONENT)))


def _inverse_log_log(p: FloatArray) -> FloatArray:
    return np.log(-np.log1p(-p))


def _log_log_survival(z: FloatArray) -> FloatArray:
    return np.exp(-np.exp(np.minimum(z, LARGEST_EXPONENT)))


def _log_log_density(z: FloatArray) -> FloatArray:
    bounded = np.minimum(z, LARGEST_EXPONENT)
    return np.exp(bounded - np.exp(bounded))


def _quick(z: FloatArray) -> FloatArray:
    return -np.expm1(-math.log(2.0) * np.exp(np.minimum(math.log(10.0) * z, LARGEST_EXPONENT)))


def _inverse_quick(p: FloatArray) -> FloatArray:
    return np.log10(-np.log1p(-p) / math.log(2.0))


def _quick_survival(z: FloatArray) -> FloatArray:
    return np.exp(-math.log(2.0) * np.exp(np.minimum(math.log(10.0) * z, LARGEST_EXPONENT)))


def _quick_density(z: FloatArray) -> FloatArray:
    exponent = np.minimum(math.log(10.0) * z, LARGEST_EXPONENT)
    return math.log(2.0) * math.log(10.0) * np.exp(exponent - math.log(2.0) * np.exp(exponent))


_LOGISTIC = (expit, logit, _logistic_survival, _logistic_density, 0.5, 0.25, 0)
_GAUSSIAN = (ndtr, ndtri, _gaussian_survival, _gaussian_density, 0.5, 1.0 / math.sqrt(2.0 * math.pi), 1)
_LOG_LOG = (
    _log_log,
    _inverse_log_log,
    _log_log_survival,
    _log_log_density,
    1.0 - math.exp(-1.0),
    math.exp(-1.0),
    2,
)
_QUICK = (_quick, _inverse_quick, _quick_survival, _quick_density, 0.5, 0.5 * math.log(2.0) * math.log(10.0), 3)

SHAPES: dict[str, Shape] = {
    "logistic": Shape(*_LOGISTIC),
    "cumulative_gaussian": Shape(*_GAUSSIAN),
    "gumbel": Shape(*_LOG_LOG),
    "weibull": Shape(*_LOG_LOG, log_axis=True),
    "log_quick": Shape(*_QUICK),
    "quick": Shape(*_QUICK, log_axis=True),
    "log_logistic": Shape(*_LOGISTIC, log_axis=True),
    "log_gaussian": Shape(*_GAUSSIAN, log_axis=True),
}
"""The families by name: logistic ``1 / (1 + exp(-z))``, cumulative_gaussian ``Phi(z)``, gumbel and weibull
``1 - exp(-exp(z))``, log_quick and quick ``1 - 2**(-10**z)``. weibull, quick, log_logistic and log_gaussian are in the
logarithm of a positive level (sound pressure, duration, modulation depth as a factor); for levels in dB, use the other
four."""


def _same_in_db(shape: str) -> str:
    """Return the name of the same family for levels that are logarithms already."""
    family = SHAPES[shape]
    return next(name for name, other in SHAPES.items() if other.core is family.core and not other.log_axis)


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
            f"for levels in dB use '{_same_in_db(shape)}', the same function of the logarithm."
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
        Level at which the part between the asymptotes has risen to 1/2 or, for gumbel and weibull,
        to 1 - 1/e = 0.632.
    slope : array_like
        Derivative of the proportion correct at the threshold, per unit of the level; negative if the proportion falls
        with the level.
    guess_rate, lapse_rate : array_like
        Proportion correct far on the hard side, and 1 minus the proportion far on the easy side.
    shape : str
        Family: "logistic", "cumulative_gaussian", "gumbel", "log_quick", or in the logarithm of a positive level
        "log_logistic", "log_gaussian", "weibull", "quick"; see `SHAPES`.

    Returns
    -------
    ndarray of float64
        Broadcast shape of the arguments.

    Raises
    ------
    SpecError
        If the shape is not known, the rates do not fit, the slope is 0, or a shape in the logarithm gets a
        negative level.

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
                f"for levels in dB use '{_same_in_db(shape)}', the same function of the logarithm."
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
        Proportion correct. The asymptotes are reached at infinity (at 0 and infinity for shapes in the logarithm);
        proportions beyond them, which no level gives, return NaN.
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
