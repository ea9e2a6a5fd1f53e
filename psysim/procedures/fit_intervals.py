"""Profile-likelihood intervals, parametric bootstrap and goodness of fit of fitted psychometric functions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, chdtri
from scipy.stats import binom

from psysim.errors import SpecError, check_option, check_range
from psysim.procedures._fit_core import GUESS, LAPSE, PLACE, RHO, SLOPE, Design, evaluate, proportions, search
from psysim.procedures.fitting import FitStatus, PsychometricFits, package
from psysim.procedures.keyed import keyed_uniform

__all__ = ["BootstrapFits", "bootstrap_fits", "profile_interval"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

ANALYSIS = 15
"""Purpose of the random numbers, as in `psysim.rng.Purpose`."""

FARTHEST_PLACE = 1e3
"""A threshold's interval that reaches this distance, in halves of the range of levels, is infinite."""
SLOPE_SPAN = 12.0
"""A slope's interval that reaches this distance from the estimate, in natural logarithms, ends at 0 or infinity."""


def profile_interval(
    fits: PsychometricFits,
    quantity: Literal["threshold", "slope"] = "threshold",
    *,
    proportion: float | None = None,
    confidence: float = 0.95,
) -> tuple[FloatArray, FloatArray]:
    """Return the interval in which the profile likelihood of a threshold or slope stays near its maximum.

    All other free parameters are fitted anew at each value of the quantity. The interval has the values whose deviance
    from the best fit is below the chi-square quantile with one degree of freedom. It is right with fewer trials than a
    multiple of the standard error, and it says when the data set no limit: ends are then infinite (or 0 for a slope).
    With a prior it is the same for the posterior.

    Parameters
    ----------
    fits : PsychometricFits
        Result of `fit_psychometric`.
    quantity : {"threshold", "slope"}
        What the interval is for; the slope is the one at the family's own threshold.
    proportion : float, optional
        For a threshold: proportion correct that defines it (0.7071 for a 2-down 1-up rule); the family's own threshold
        if not given.
    confidence : float
        Coverage, above 0 and below 1.

    Returns
    -------
    low, high : ndarray
        In the unit of the level, or in proportion per unit of the level; -inf to inf where nothing is known (status
        FLAT, OUTSIDE, NO_DATA), NaN where the fit did not converge or the function does not reach the proportion.

    Raises
    ------
    SpecError
        If an argument is out of range.

    References
    ----------
    Venzon, D. J., and Moolgavkar, S. H. (1988). A method for computing profile-likelihood-based confidence intervals.
    J. R. Stat. Soc. C 37, 87-94.

    Examples
    --------
    >>> from psysim.procedures import fit_psychometric
    >>> fits = fit_psychometric([-8.0, -4.0, 0.0, 4.0], [20, 27, 37, 40], 40, guess_rate=0.5, lapse_rate=0.0)
    >>> low, high = profile_interval(fits, "threshold", proportion=0.75)
    >>> float(low.round(1)), float(fits.threshold_at(0.75).round(1)), float(high.round(1))
    (-4.5, -2.9, -1.2)
    """
    check_option("quantity", quantity, ("threshold", "slope"))
    check_range("confidence", confidence, 1e-6, 1.0 - 1e-12)
    if proportion is not None:
        if quantity == "slope":
            raise SpecError("proportion is for thresholds; the slope is the one at the family's own threshold.")
        check_range("proportion", proportion, 0.0, 1.0, low_open=True)
    status = fits.status.ravel()
    n, coordinate = len(status), PLACE if quantity == "threshold" else SLOPE
    low, high = np.full(n, np.nan), np.full(n, np.nan)
    nothing = np.isin(status, (FitStatus.FLAT, FitStatus.OUTSIDE, FitStatus.NO_DATA))
    low[nothing], high[nothing] = -np.inf if quantity == "threshold" else 0.0, np.inf
    usable = np.isin(status, (FitStatus.CONVERGED, FitStatus.SEPARATED))
    if proportion is not None:
        usable &= (proportion > fits.theta[:, GUESS]) & (proportion < 1.0 - fits.theta[:, LAPSE])
    rows = np.flatnonzero(usable)
    if len(rows):
        ends = _profile(fits, rows, coordinate, proportion, float(np.sqrt(chdtri(1, 1.0 - confidence))))
        axis = fits.axis.take(rows)
        if quantity == "threshold":
            values = [axis.level(end) for end in ends]
        else:
            values = [axis.slope(end, 0.0) for end in ends]  # constant slope over the level is constant at any place
        low[rows], high[rows] = np.minimum(*values), np.maximum(*values)
    if quantity == "slope" and fits.axis.sign < 0:
        low[nothing], high[nothing] = -np.inf, 0.0
    return low.reshape(fits.status.shape), high.reshape(fits.status.shape)


def _coordinates(
    fits: PsychometricFits, rows: IntArray, quantity: int, proportion: float | None
) -> tuple[Design, FloatArray]:
    """Return the problems and solutions in coordinates of which one is the quantity."""
    design, theta, axis = fits.design.take(rows), fits.theta[rows].copy(), fits.axis.take(rows)
    low, high = design.low.copy(), design.high.copy()
    coupling = axis.coupling() if quantity == SLOPE else np.zeros(len(rows))
    if quantity == SLOPE:
        theta[:, SLOPE] -= coupling * theta[:, PLACE]
    elif proportion is not None:
        span = 1.0 - theta[:, GUESS] - theta[:, LAPSE]
        k = np.exp(theta[:, SLOPE]) / (span * design.family.steepness)
        theta[:, PLACE] += design.family.inverse((proportion - theta[:, GUESS]) / span) / k
    low[:, PLACE], high[:, PLACE] = -FARTHEST_PLACE, FARTHEST_PLACE
    low[:, SLOPE] -= np.abs(coupling) * FARTHEST_PLACE + SLOPE_SPAN
    high[:, SLOPE] += np.abs(coupling) * FARTHEST_PLACE
    return replace(design, low=low, high=high, coupling=coupling, proportion=proportion), theta


def _profile(
    fits: PsychometricFits, rows: IntArray, coordinate: int, proportion: float | None, critical: float
) -> tuple[FloatArray, FloatArray]:
    """Return the lower and upper ends in the coordinate, shape (N,) each; infinite where there is none."""
    design, theta = _coordinates(fits, rows, coordinate, proportion)
    n = len(rows)
    best = evaluate(design, theta)[0]
    limit = FARTHEST_PLACE if coordinate == PLACE else SLOPE_SPAN
    side = np.repeat([-1.0, 1.0], n)
    both = np.tile(np.arange(n), 2)
    centre = theta[both, coordinate]
    farthest = limit - side * centre if coordinate == PLACE else np.full(2 * n, limit)
    problem = design.take(both)
    ends = search(problem, theta[both], coordinate, side, best[both], limit / 20.0, farthest, critical)
    ends = centre + side * ends
    return ends[:n], ends[n:]


@dataclass(frozen=True)
class BootstrapFits:
    """Refits of data simulated from fitted functions; made by `bootstrap_fits`.

    Parameters
    ----------
    fits : PsychometricFits
        The original fits, of batch shape (N, ...).
    replicates : PsychometricFits
        Refits, of batch shape (N, ..., n_replicates).
    """

    fits: PsychometricFits
    replicates: PsychometricFits

    def interval(
        self,
        quantity: Literal["threshold", "slope"] = "threshold",
        *,
        proportion: float | None = None,
        confidence: float = 0.95,
    ) -> tuple[FloatArray, FloatArray]:
        """Return the percentile interval; unusable replicates count half below and half above every value.

        Parameters
        ----------
        quantity : {"threshold", "slope"}
            What the interval is for.
        proportion : float, optional
            Proportion correct that defines a threshold, or the place of a slope.
        confidence : float
            Coverage.
        """
        check_option("quantity", quantity, ("threshold", "slope"))
        check_range("confidence", confidence, 1e-6, 1.0 - 1e-12)
        if quantity == "threshold":
            values = self.replicates.threshold if proportion is None else self.replicates.threshold_at(proportion)
        else:
            values = self.replicates.slope if proportion is None else self.replicates.slope_at(proportion)
        lost = np.isnan(values)
        alternate = np.where(np.cumsum(lost, axis=-1) % 2 == 0, -np.inf, np.inf)
        ordered = np.sort(np.where(lost, alternate, values), axis=-1)
        n = ordered.shape[-1]
        low = np.clip(round(0.5 * (1.0 - confidence) * (n + 1)) - 1, 0, n - 1)
        usable = self.fits.converged
        ends = ordered[..., low], ordered[..., n - 1 - low]
        return np.where(usable, ends[0], -np.inf), np.where(usable, ends[1], np.inf)

    @property
    def p_value(self) -> FloatArray:
        """Share of simulated deviances at least as large as the observed one: small where the function does not fit."""
        more = (self.replicates.deviance >= self.fits.deviance[..., None] - 1e-9).sum(axis=-1)
        return np.where(self.fits.converged, (more + 1.0) / (self.replicates.deviance.shape[-1] + 1.0), np.nan)


def bootstrap_fits(fits: PsychometricFits, n_replicates: int = 1000, seed: int = 0) -> BootstrapFits:
    """Simulate data from each fitted function and fit them again.

    The draws depend on the seed, the position of the data set, and the number of the replicate only.

    Parameters
    ----------
    fits : PsychometricFits
        Result of `fit_psychometric`.
    n_replicates : int
        Simulated data sets per data set, at least 10.
    seed : int
        Key of the random numbers, 0 to 2**64 - 1.

    Raises
    ------
    SpecError
        If an argument is out of range.

    References
    ----------
    Wichmann, F. A., and Hill, N. J. (2001). The psychometric function: II. BootstrapFits-based confidence intervals and
    sampling. Percept. Psychophys. 63, 1314-1329; part I, p. 1302, for the distribution of the deviance.

    Examples
    --------
    >>> from psysim.procedures import fit_psychometric
    >>> fits = fit_psychometric([-8.0, -4.0, 0.0, 4.0], [20, 27, 37, 40], 40, guess_rate=0.5, lapse_rate=0.0)
    >>> bool(bootstrap_fits(fits, 200, seed=3).p_value > 0.5)
    True
    """
    check_range("n_replicates", n_replicates, 10, 100_000)
    n, n_levels = fits.design.v.shape
    which = np.repeat(np.arange(n), n_replicates)
    design = fits.design.take(which)
    theta = fits.theta[which]
    lanes = np.arange(n)
    draws = keyed_uniform(seed, lanes, 2 * n_replicates * n_levels, purpose=ANALYSIS)
    level_draws, spread_draws = draws.reshape(n, 2, n_replicates, n_levels).swapaxes(0, 1).reshape(2, -1, n_levels)
    p = np.clip(proportions(design, theta)[0], 0.0, 1.0)
    p = _overdispersed(p, theta[:, RHO], spread_draws)
    counts = np.where(design.trials > 0, binom.ppf(level_draws, design.trials, p), 0.0)
    design = replace(design, correct=np.maximum(counts, 0.0).astype(np.int64))
    replicates = package(design, fits.axis.take(which), theta, (*fits.status.shape, n_replicates), fits.shape)
    return BootstrapFits(fits, replicates)


def _overdispersed(p: FloatArray, rho: FloatArray, uniform: FloatArray) -> FloatArray:
    """Return proportions of correct answers drawn about ``p`` (N, L) with correlation ``rho`` (N,) between trials."""
    spread = (rho > 1e-8)[:, None] & (p > 0) & (p < 1)
    nu = (1.0 - rho) / np.maximum(rho, 1e-8)
    drawn = betaincinv(np.where(spread, p * nu[:, None], 1.0), np.where(spread, (1 - p) * nu[:, None], 1.0), uniform)
    return np.where(spread, drawn, p)
