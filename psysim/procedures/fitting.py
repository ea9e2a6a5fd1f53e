"""Maximum-likelihood and MAP fits of psychometric functions to thousands of data sets at once.

A data set is a list of levels with the number of correct answers and of trials at each. Each is fitted by damped Fisher
scoring, all in one compiled loop. What the data do not determine is said by a status, not by a number that looks right:
see `FitStatus`. Intervals and goodness of fit are in `psysim.procedures.fit_intervals`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln, xlogy

from psysim.errors import SpecError
from psysim.procedures._fit_core import (
    GUESS,
    LAPSE,
    N_COORDINATES,
    PLACE,
    RHO,
    SLOPE,
    Design,
    evaluate,
    proportions,
)
from psysim.procedures._fit_setup import (
    Axis,
    FitPrior,
    make_axis,
    make_design,
    read_data,
    solve,
)
from psysim.procedures.psychometric import (
    SHAPES,
    PsychometricFunction,
    inverse_psychometric_function,
    psychometric_function,
)

__all__ = ["FitPrior", "FitStatus", "PsychometricFits", "fit_psychometric"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

PARAMETERS = ("threshold", "slope", "guess_rate", "lapse_rate", "overdispersion")


class FitStatus(IntEnum):
    """What came of a fit."""

    CONVERGED = 0
    MAX_ITERATIONS = 1
    SEPARATED = 2
    FLAT = 3
    OUTSIDE = 4
    NO_DATA = 5

    @property
    def sentence(self) -> str:
        """The status in words."""
        return _SENTENCES[self]


_SENTENCES = {
    FitStatus.CONVERGED: "The likelihood has its maximum here.",
    FitStatus.MAX_ITERATIONS: "The maximum was not reached within the iterations; the numbers are not to be used.",
    FitStatus.SEPARATED: (
        "The data are a step: the steeper the function, the better. The slope is infinite; any threshold within the "
        "step is as good."
    ),
    FitStatus.FLAT: "No rise in the expected direction: a constant fits as well. Threshold and slope are NaN.",
    FitStatus.OUTSIDE: "The threshold is more than 25 times the range of levels away from them; it is NaN.",
    FitStatus.NO_DATA: "Fewer than two levels with trials: nothing can be fitted. All parameters are NaN.",
}


@dataclass(frozen=True)
class PsychometricFits:
    """Psychometric functions fitted to one or many data sets; made by `fit_psychometric`.

    Arrays have the shape of the batch of data sets (N, ...), 0-d for one; levels or parameters are the last axis where
    there is one. Parameters are those of `psychometric_function`.

    Parameters
    ----------
    shape : str
        Family.
    threshold : ndarray
        Unit of the level; NaN if the data do not determine it (see `status`).
    slope : ndarray
        Derivative of the proportion correct at the threshold, per unit of the level; infinite for a step.
    guess_rate, lapse_rate : ndarray
        Given or fitted.
    overdispersion : ndarray
        0 (binomial) to 1: square root of the correlation between trials at one level; the variance of a count is
        ``n p (1 - p) (1 + (n - 1) overdispersion**2)``.
    log_likelihood : ndarray
        Natural logarithm, binomial coefficients included, prior not.
    deviance : ndarray
        Binomial deviance, twice the log-likelihood of the saturated model above that of the fit.
    deviance_residuals : ndarray, shape (..., L)
        Signed roots of each level's share of the deviance; 0 without trials.
    n_free : ndarray of int
        Free parameters, overdispersion included.
    status : ndarray of int
        `FitStatus`.
    n_iterations : ndarray of int
        Steps tried.
    axis, design, theta
        Scale, problem and solution in the coordinates of the fit; used by intervals.

    Examples
    --------
    >>> fits = fit_psychometric([-8.0, -4.0, 0.0, 4.0], [[10, 13, 17, 20]], 20, guess_rate=0.5, lapse_rate=0.0)
    >>> fits.threshold.round(2), fits.threshold_at(0.75).round(2), bool(fits.converged[0])
    (array([-1.92]), array([-1.92]), True)
    """

    shape: str
    threshold: FloatArray
    slope: FloatArray
    guess_rate: FloatArray
    lapse_rate: FloatArray
    overdispersion: FloatArray
    log_likelihood: FloatArray
    deviance: FloatArray
    deviance_residuals: FloatArray
    n_free: IntArray
    status: IntArray
    n_iterations: IntArray
    axis: Axis = field(repr=False)
    design: Design = field(repr=False)
    theta: FloatArray = field(repr=False)

    @property
    def converged(self) -> BoolArray:
        """Whether each fit is a regular maximum (status 0)."""
        return np.asarray(self.status == FitStatus.CONVERGED)

    @property
    def degrees_of_freedom(self) -> IntArray:
        """Levels with trials minus free parameters of the function."""
        free = self.design.free[:, :RHO].sum(axis=-1).reshape(self.status.shape)
        return np.asarray((self.design.trials > 0).sum(axis=-1).reshape(self.status.shape) - free)

    def proportion_correct(self, levels: ArrayLike) -> FloatArray:
        """Return the fitted proportion correct at levels (..., L); NaN unless threshold and slope are finite.

        Parameters
        ----------
        levels : array_like
            In the unit of the data.
        """
        good, pars = self._usable()
        threshold, slope, guess, lapse = (a[..., None] for a in pars)
        p = psychometric_function(levels, threshold, slope, guess, lapse, shape=self.shape)
        return np.where(good[..., None], p, np.nan)

    def threshold_at(self, proportion: ArrayLike) -> FloatArray:
        """Return the level of a proportion correct; NaN if the fitted function does not reach it or is not usable.

        Parameters
        ----------
        proportion : array_like
            Proportion correct, one or one per data set.
        """
        good, (threshold, slope, guess, lapse) = self._usable()
        level = inverse_psychometric_function(proportion, threshold, slope, guess, lapse, shape=self.shape)
        return np.where(good, level, np.nan)

    def slope_at(self, proportion: ArrayLike) -> FloatArray:
        """Return the derivative of the proportion correct where it has a given value, per unit of the level.

        Parameters
        ----------
        proportion : array_like
            Proportion correct, one or one per data set.
        """
        good, (threshold, slope, guess, lapse) = self._usable()
        family, span = SHAPES[self.shape], 1.0 - guess - lapse
        share = (np.asarray(proportion, dtype=np.float64) - guess) / span
        z = family.inverse(np.where((share > 0) & (share < 1), share, np.nan))
        steep = slope * family.density(z) / family.steepness
        if family.log_axis:
            steep = steep * threshold / self.threshold_at(proportion)
        return np.where(good, steep, np.nan)

    def function(self, index: Any = ()) -> PsychometricFunction:
        """Return the fitted function of one data set.

        Parameters
        ----------
        index : int or tuple of int
            Which one; nothing for a single data set.

        Raises
        ------
        SpecError
            If its threshold or slope is not finite.
        """
        good, pars = self._usable()
        if not good[index]:
            raise SpecError(f"data set {index}: {FitStatus(int(self.status[index])).sentence}")
        threshold, slope, guess, lapse = (float(a[index]) for a in pars)
        return PsychometricFunction(threshold, slope, guess, lapse, shape=self.shape)

    def interval(
        self,
        quantity: Literal["threshold", "slope"] = "threshold",
        *,
        proportion: float | None = None,
        confidence: float = 0.95,
    ) -> tuple[FloatArray, FloatArray]:
        """Return the profile-likelihood interval; see `psysim.procedures.fit_intervals.profile_interval`.

        Parameters
        ----------
        quantity : {"threshold", "slope"}
            What the interval is for.
        proportion : float, optional
            For a threshold: proportion correct that defines it; the family's own threshold if not given.
        confidence : float
            Coverage.
        """
        from psysim.procedures.fit_intervals import profile_interval

        return profile_interval(self, quantity, proportion=proportion, confidence=confidence)

    @cached_property
    def covariance(self) -> FloatArray:
        """Inverse of the observed information, shape (..., 5, 5), in the order of `PARAMETERS`.

        Given parameters, and rates or overdispersion on their limits, count as known: variance 0. NaN for fits that
        did not converge.
        """
        inverse = observed_covariance(self.design, self.theta)
        jacobian = self.axis.jacobian(self.theta)
        covariance = jacobian @ inverse @ np.swapaxes(jacobian, 1, 2)
        covariance[self.status.ravel() != FitStatus.CONVERGED] = np.nan
        return covariance.reshape(*self.status.shape, N_COORDINATES, N_COORDINATES)

    @property
    def standard_error(self) -> FloatArray:
        """Roots of the diagonal of `covariance`, shape (..., 5); for many trials only: prefer `interval`."""
        with np.errstate(invalid="ignore"):
            return np.asarray(np.sqrt(np.diagonal(self.covariance, axis1=-2, axis2=-1)))

    def _usable(self) -> tuple[BoolArray, tuple[FloatArray, FloatArray, FloatArray, FloatArray]]:
        """Return where the parameters are finite, and parameters with harmless numbers elsewhere."""
        good = np.isfinite(self.threshold) & np.isfinite(self.slope) & (self.slope != 0)
        rates = (np.where(good, self.guess_rate, 0.0), np.where(good, self.lapse_rate, 0.0))
        return good, (np.where(good, self.threshold, 1.0), np.where(good, self.slope, 1.0), *rates)


def observed_covariance(design: Design, theta: FloatArray) -> FloatArray:
    """Return the inverse of the negative second derivatives in the fit's coordinates, shape (N, 5, 5)."""
    n, h = len(theta), 1e-5
    matrix = np.zeros((n, N_COORDINATES, N_COORDINATES))
    known = ~design.free | (theta <= design.low) | (theta >= design.high)
    for i in range(N_COORDINATES):
        step = np.zeros(N_COORDINATES)
        step[i] = h
        above, below = theta + step, theta - step
        if i >= GUESS:
            below = np.maximum(below, 0.0)
        up, down = evaluate(design, above)[1], evaluate(design, below)[1]
        matrix[:, i] = -(up - down) / (above - below)[:, i : i + 1]
    matrix = 0.5 * (matrix + np.swapaxes(matrix, 1, 2))
    matrix[known[:, :, None] | known[:, None, :]] = 0.0
    diagonal = np.arange(N_COORDINATES)
    matrix[:, diagonal, diagonal] += known
    singular = ~(np.linalg.det(matrix) > 0)
    matrix[singular] = np.eye(N_COORDINATES)
    inverse: FloatArray = np.asarray(np.linalg.inv(matrix), dtype=np.float64)
    inverse[singular] = np.nan
    inverse[known[:, :, None] | known[:, None, :]] = 0.0
    return inverse


def fit_psychometric(
    levels: ArrayLike,
    n_correct: ArrayLike,
    n_trials: ArrayLike,
    *,
    guess_rate: ArrayLike | Literal["free"],
    lapse_rate: ArrayLike | Literal["free"] = "free",
    shape: str = "logistic",
    overdispersion: float | Literal["free"] = 0.0,
    prior: FitPrior | Literal["weak"] | None = None,
    harder: int = -1,
    max_rate: float = 0.1,
    max_iterations: int = 200,
) -> PsychometricFits:
    """Fit a psychometric function to each data set by maximum likelihood, or maximum a posteriori with a prior.

    Parameters
    ----------
    levels : array_like, shape (L,) or (..., L)
        Levels, in any unit; positive for the shapes in the logarithm. NaN where a data set has fewer levels.
    n_correct, n_trials : array_like of int, shape (..., L)
        Correct answers and trials at each level; all three broadcast. A level without trials counts nothing.
    guess_rate : float, array_like or "free"
        Lower asymptote: 1/m in an m-alternative task; "free" for yes/no, where it is the false-alarm rate (0 to 0.5).
        There is no default, since a wrong one moves every threshold.
    lapse_rate : float, array_like or "free"
        One minus the upper asymptote; "free" is within 0 to ``max_rate``.
    shape : str
        Family; see `psychometric_function`.
    overdispersion : float or "free"
        0 for binomial counts, or a given or free overdispersion of beta-binomial ones (see `PsychometricFits`).
    prior : FitPrior, "weak" or None
        None is maximum likelihood; "weak" keeps thresholds near the levels tested and slopes possible, see `FitPrior`.
    harder : {-1, 1}
        -1 if lower levels are harder (the function rises), 1 if higher levels are (it falls, with a negative slope).
    max_rate : float
        Upper limit of a free lapse rate, above 0 and at most 0.4.
    max_iterations : int
        Steps tried at most.

    Returns
    -------
    PsychometricFits
        Arrays over data sets.

    Raises
    ------
    SpecError
        If shapes do not broadcast, counts are not whole or out of range, or a setting is not possible.

    References
    ----------
    Wichmann, F. A., and Hill, N. J. (2001). Percept. Psychophys. 63, 1293-1313 (lapses, deviance).
    Schuett, H. H., Harmeling, S., Macke, J. H., and Wichmann, F. A. (2016). Vision Res. 122, 105-123
    (beta-binomial model). Griffiths, D. A. (1973). Biometrics 29, 637-648 (its likelihood).

    Examples
    --------
    A thousand listeners with 40 trials at each of five levels take a fraction of a second:

    >>> from psysim.procedures import fit_psychometric, psychometric_function
    >>> levels = [-12.0, -9.0, -6.0, -3.0, 0.0]
    >>> p = psychometric_function(levels, threshold=-6.0, slope=0.1, guess_rate=1 / 3)
    >>> counts = np.random.default_rng(1).binomial(40, p, (1000, 5))
    >>> fits = fit_psychometric(levels, counts, 40, guess_rate=1 / 3, lapse_rate=0.0)
    >>> float(np.median(fits.threshold).round(1)), float(np.median(fits.slope).round(2))
    (-6.0, 0.1)
    >>> low, high = fits.interval("threshold", proportion=0.7071)
    """
    data = read_data(levels, n_correct, n_trials, shape)
    axis = make_axis(data, shape, harder)
    design, theta = make_design(data, axis, shape, guess_rate, lapse_rate, overdispersion, prior, max_rate=max_rate)
    return package(design, axis, theta, data.batch, shape, max_iterations)


def package(
    design: Design, axis: Axis, start: FloatArray, batch: tuple[int, ...], shape: str, max_iterations: int = 200
) -> PsychometricFits:
    """Solve a problem and return the result in the units of the user."""
    theta, status, iterations = solve(design, start, max_iterations)
    p, q = proportions(design, theta)
    trials, correct = design.trials, design.correct
    wrong = trials - correct
    observed = np.where(trials > 0, correct / np.maximum(trials, 1), p)
    with np.errstate(invalid="ignore", divide="ignore"):
        parts = xlogy(correct, observed) + xlogy(wrong, 1 - observed) - xlogy(correct, p) - xlogy(wrong, q)
        residuals = np.sign(observed - p) * np.sqrt(2.0 * np.maximum(parts, 0.0))
    coefficients = gammaln(trials + 1.0) - gammaln(correct + 1.0) - gammaln(wrong + 1.0)
    plain = replace(design, prior_precision=0 * design.prior_precision, prior_beta=0 * design.prior_beta)
    likelihood = evaluate(plain, theta)[0] + coefficients.sum(axis=-1)
    values = axis.parameters(theta)
    nothing = status == FitStatus.NO_DATA
    lost = np.isin(status, (FitStatus.FLAT, FitStatus.OUTSIDE, FitStatus.NO_DATA))
    values[lost, PLACE] = np.nan
    values[lost, SLOPE] = np.nan
    values[np.ix_(nothing, [GUESS, LAPSE, RHO])] = np.nan
    stepped = status == FitStatus.SEPARATED
    values[stepped, SLOPE] = np.copysign(np.inf, values[stepped, SLOPE])
    values = values.reshape(*batch, N_COORDINATES)
    return PsychometricFits(
        shape=shape,
        threshold=np.asarray(values[..., PLACE]),
        slope=np.asarray(values[..., SLOPE]),
        guess_rate=np.asarray(values[..., GUESS]),
        lapse_rate=np.asarray(values[..., LAPSE]),
        overdispersion=np.asarray(values[..., RHO]),
        log_likelihood=likelihood.reshape(batch),
        deviance=np.square(residuals).sum(axis=-1).reshape(batch),
        deviance_residuals=residuals.reshape(*batch, -1),
        n_free=design.free.sum(axis=-1).reshape(batch),
        status=status.reshape(batch),
        n_iterations=iterations.reshape(batch),
        axis=axis,
        design=design,
        theta=theta,
    )
