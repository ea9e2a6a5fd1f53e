"""Bayesian rules whose candidates are psychometric functions of one level."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar, cast

import numpy as np
from scipy.optimize import minimize_scalar

from psysim.errors import SpecError
from psysim.procedures.base import FloatArray, ProcedureSettings
from psysim.procedures.bayes import BayesRule
from psysim.procedures.bayes_grid import SMALLEST, CandidateGrid
from psysim.procedures.bayes_settings import CandidateSettings
from psysim.procedures.psychometric import SHAPES, Shape

__all__ = ["CandidateRule", "least_variance_proportion", "response_variance"]

PARAMETERS = ("threshold", "slope", "guess_rate", "lapse_rate")


def response_variance(z: FloatArray, shape: str, guess_rate: float, lapse_rate: float) -> FloatArray:
    """Return ``P (1 - P) / (dP/dz)**2``: the variance of the threshold after one trial, in units of 1 / slope**2.

    Parameters
    ----------
    z : ndarray
        Argument of the psychometric function, ``slope (level - threshold)``.
    shape : str
        Family; see `psysim.procedures.psychometric.SHAPES`.
    guess_rate, lapse_rate : float
        Asymptotes.

    Returns
    -------
    ndarray
        Shape of ``z``; infinite where the function is flat.

    References
    ----------
    Taylor, M. M., and Creelman, C. D. (1967). PEST: efficient estimates on probability functions. J. Acoust. Soc. Am.
    41, 782-787 (the "sweat factor").
    """
    core, step = SHAPES[shape].core, 1e-5
    span = 1.0 - guess_rate - lapse_rate
    p = guess_rate + span * core(z)
    rise = span * (core(z + step) - core(z - step)) / (2.0 * step)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(rise > SMALLEST, p * (1.0 - p) / rise**2, np.inf))


def least_variance_proportion(shape: str, guess_rate: float, lapse_rate: float = 0.0) -> float:
    """Return the proportion correct at which trials tell most about the threshold (the "sweet point").

    It minimises ``P (1 - P) / (dP/dz)**2``. For the logistic without lapses it is
    ``(2 g + 1 + sqrt(1 + 8 g)) / (3 + sqrt(1 + 8 g))``, g being the guess rate (Green, 1993).

    Parameters
    ----------
    shape : str
        Family; see `psysim.procedures.psychometric.SHAPES`.
    guess_rate, lapse_rate : float
        Asymptotes.

    References
    ----------
    Green, D. M. (1993). A maximum-likelihood method for estimating thresholds in a yes-no task. J. Acoust. Soc. Am. 93,
    2096-2105.

    Examples
    --------
    >>> round(least_variance_proportion("logistic", 0.5), 3)
    0.809
    """
    family = SHAPES[shape]
    low, high = (float(family.inverse(np.asarray(f))) for f in (0.02, 0.995))
    z = np.linspace(low, high, 2001)
    best = int(np.argmin(response_variance(z, shape, guess_rate, lapse_rate)))
    bounds = (z[max(best - 1, 0)], z[min(best + 1, len(z) - 1)])
    found = minimize_scalar(
        lambda value: float(response_variance(np.asarray(value), shape, guess_rate, lapse_rate)),
        bounds=bounds,
        method="bounded",
        options={"xatol": 1e-9},
    )
    return float(guess_rate + (1.0 - guess_rate - lapse_rate) * family.core(found.x))


class CandidateRule(BayesRule):
    """Base of the rules that look for the parameters of a psychometric function of one level.

    Candidates are the combinations of the values of threshold, slope, guess rate and lapse rate.
    """

    Settings: ClassVar[type[ProcedureSettings]] = CandidateSettings

    @property
    def candidates(self) -> CandidateSettings:
        """The settings, with their type."""
        return cast(CandidateSettings, self.settings)

    @property
    def slopes(self) -> list[float]:
        """Candidate slopes, per unit of the level (of its logarithm for a Weibull)."""
        return cast(list[float], getattr(self.settings, "slope"))  # noqa: B009  a field of the subclasses

    @property
    def family(self) -> Shape:
        """The family of psychometric functions."""
        return SHAPES[self.candidates.shape]

    @property
    def nuisance(self) -> tuple[int, ...]:
        """Numbers of the parameters that do not count when stimuli are chosen."""
        return ()

    def default_target(self) -> float | None:
        """Proportion correct at the reported threshold if none is set; None for that at the parameter "threshold"."""
        return None

    def make_grid(self) -> CandidateGrid:
        """Return levels, candidates, likelihoods and prior."""
        s = self.candidates
        levels = np.array(s.levels)
        axes = [np.array(v) for v in (s.thresholds, self.slopes, s.guess_rate, s.lapse_rate)]
        threshold, slope, guess, lapse = (a.ravel()[:, np.newaxis] for a in np.meshgrid(*axes, indexing="ij"))
        if self.family.log_axis:
            z = -s.harder * slope * (np.log(levels) - np.log(threshold))
        else:
            z = -s.harder * slope * (levels - threshold)
        right = np.clip(guess + (1.0 - guess - lapse) * self.family.core(z), SMALLEST, 1.0 - SMALLEST)
        prior = np.ones(len(threshold))
        if s.threshold_prior_mean is not None and s.threshold_prior_sd is not None:
            prior = np.exp(-0.5 * ((threshold[:, 0] - s.threshold_prior_mean) / s.threshold_prior_sd) ** 2)
            if not prior.sum() > 0:
                raise SpecError(
                    f"procedure.threshold_prior_mean = {s.threshold_prior_mean:g} is so far from all thresholds "
                    f"({s.thresholds[0]:g} to {s.thresholds[-1]:g}) that none of them is possible."
                )
        return CandidateGrid(
            stimuli=levels[:, np.newaxis],
            names=PARAMETERS,
            axes=axes,
            likelihood=np.stack([1.0 - right, right], axis=2),
            prior=prior / prior.sum(),
            device=s.device,
            nuisance=self.nuisance,
        )

    @cached_property
    def _wanted(self) -> float | None:
        """Proportion correct at the reported threshold; None for that at the parameter "threshold"."""
        return self.candidates.target_proportion or self.default_target()

    @cached_property
    def target_proportion(self) -> float:
        """Proportion correct at the reported threshold."""
        if self._wanted is not None:
            return self._wanted
        guess, lapse = float(np.mean(self.candidates.guess_rate)), float(np.mean(self.candidates.lapse_rate))
        return guess + (1.0 - guess - lapse) * self.family.at_threshold

    def thresholds_of_candidates(self) -> FloatArray:
        """Return the level at which each candidate gives the target proportion, (P,)."""
        threshold, slope, guess, lapse = self.grid.parameters.T
        if self._wanted is None:
            return threshold.copy()
        share = (self._wanted - guess) / (1.0 - guess - lapse)
        if not np.all((share > 0) & (share < 1)):
            raise SpecError(
                f"procedure.target_proportion = {self._wanted:g} is not reached by all candidates: it must lie above "
                f"the largest guess_rate ({guess.max():g}) and below 1 - lapse_rate ({1 - lapse.max():g})."
            )
        z = -self.candidates.harder * self.family.inverse(share) / slope
        return np.asarray(threshold * np.exp(z) if self.family.log_axis else threshold + z)

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)
        _ = self.candidate_thresholds  # settings that do not fit are found here, not at the first trial

    def describe_candidates(self) -> str:
        """Return the candidates and the prior in sentences."""
        s = self.candidates
        names = {
            "threshold": s.thresholds,
            "slope": self.slopes,
            "guess rate": s.guess_rate,
            "lapse rate": s.lapse_rate,
        }
        parts = []
        for name, values in names.items():
            several = f"{len(values)} {name}s from {values[0]:g} to {values[-1]:g}"
            parts.append(several if len(values) > 1 else f"the {name} {values[0]:g}")
        flat = s.threshold_prior_mean is None
        prior = (
            "equally likely at the start"
            if flat
            else f"with a normal prior of the threshold (mean {s.threshold_prior_mean:g}, SD {s.threshold_prior_sd:g})"
        )
        shape = s.shape.replace("_", " ")
        return (
            f"Candidates were {shape} psychometric functions with {', '.join(parts[:-1])} and {parts[-1]}, {prior}. "
            f"Levels were {s.level_min:g} to {s.level_max:g} in steps of {s.level_step:g}."
        )
