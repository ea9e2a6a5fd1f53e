"""Settings shared by the Bayesian rules: level grid, candidate psychometric functions, prior, stop rule, threshold."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain, pairwise
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from psysim.procedures.base import ProcedureSettings

__all__ = ["BayesSettings", "CandidateSettings", "Values"]

DEFAULT_N_TRIALS = 50
DEFAULT_LAPSE_RATE = 0.02
MIN_THRESHOLDS = 3

RANGE_KEYS = ("min", "max", "n", "spacing")


def _expand(given: Any) -> Any:
    """Return the list of numbers that a number, a list or a table {min, max, n, spacing} stands for."""
    if isinstance(given, int | float) and not isinstance(given, bool):
        return [float(given)]
    if not isinstance(given, dict):
        return given
    unknown = [key for key in given if key not in RANGE_KEYS]
    missing = [key for key in RANGE_KEYS[:3] if key not in given]
    if unknown or missing:
        raise ValueError(
            f"must be a number, a list, or a table with the keys min, max, n and spacing; unknown {unknown}, "
            f"missing {missing}"
        )
    low, high, n, spacing = given["min"], given["max"], given["n"], given.get("spacing", "linear")
    if spacing not in ("linear", "log"):
        raise ValueError("must have the spacing 'linear' or 'log'")
    numbers = all(isinstance(v, int | float) and math.isfinite(v) for v in (low, high))
    if not numbers or not isinstance(n, int) or n < 2 or not low < high or (spacing == "log" and low <= 0):
        raise ValueError(
            "must have min below max (both above 0 for spacing = 'log') and a whole number n of at least 2"
        )
    return (np.geomspace if spacing == "log" else np.linspace)(low, high, n).tolist()


def _check_ascending(values: list[float]) -> list[float]:
    if not values or not all(math.isfinite(v) for v in values) or any(b <= a for a, b in pairwise(values)):
        raise ValueError("must be one or more finite numbers, ascending")
    return values


Values = Annotated[list[float], BeforeValidator(_expand)]
"""A number, a list, or a table ``{min = -40, max = 0, n = 41, spacing = "linear"}``; kept as a list."""


class BayesSettings(ProcedureSettings):
    """Settings of every rule that keeps a probability for each candidate: start, stop, threshold, device."""

    level_start: float | None = Field(
        default=None,
        allow_inf_nan=False,
        description="a level at which the task is easy, unit of the level (moved to the nearest of the grid): the "
        "level of the first trial if first_trial = level_start, and that of the training sounds of observers; "
        "if not given, the easiest level",
    )
    first_trial: Literal["rule", "level_start"] = Field(
        default="rule",
        description="level of the first trial: the one that the rule chooses from the prior, or level_start",
    )
    n_trials: int | None = Field(
        default=None,
        ge=1,
        description="trials after which the track has converged; 50 if neither this nor another stop rule is given",
    )
    sd_below: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="if given, the track has converged as soon as the posterior SD of the threshold is below this, "
        "unit of the level",
    )
    entropy_below: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="if given, the track has converged as soon as the entropy of the posterior is below this, in bits",
    )
    min_trials: int = Field(
        default=10, ge=1, description="trials before which sd_below and entropy_below are not asked"
    )
    max_trials: int = Field(
        default=200, ge=1, le=2**23, description="a track that has not stopped by then ends with the status max_trials"
    )
    threshold_statistic: Literal["mean", "mode", "median"] = Field(
        default="mean",
        description="threshold: mean, mode or median of the posterior (the mode is that of all parameters together)",
    )
    target_proportion: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="proportion correct at the reported threshold; if not given, that of the rule (see its text)",
    )
    device: Literal["cpu", "cuda"] = Field(
        default="cpu",
        description="where the expected information is computed; the tracks are the same, bit by bit. cuda needs torch",
    )

    def _stop_problems(self) -> Iterator[str]:
        if self.n_trials is not None and self.n_trials > self.max_trials:
            yield (
                f"n_trials = {self.n_trials} is more than max_trials = {self.max_trials}, "
                "so the stop rule could never be met: raise max_trials."
            )

    def _problems(self) -> Iterator[str]:
        """Mistakes between settings, a sentence each."""
        yield from self._stop_problems()

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """Give the number of trials its default where no stop rule is given."""
        stops = ("n_trials", "sd_below", "entropy_below")
        if not isinstance(values, dict) or any(values.get(name) is not None for name in stops):
            return values
        most = values.get("max_trials")
        n_trials = min(DEFAULT_N_TRIALS, most) if isinstance(most, int) and most > 0 else DEFAULT_N_TRIALS
        return {**values, "n_trials": n_trials}

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        problems = list(self._problems())
        if problems:
            raise ValueError("\n".join(problems))
        return self


class CandidateSettings(BayesSettings):
    """Settings of the rules whose candidates are psychometric functions of one level.

    Candidates are all combinations of the values of ``threshold``, ``slope``, ``guess_rate`` and ``lapse_rate``.
    """

    level_min: float = Field(description="lowest level, unit of the level; a finite number")
    level_max: float = Field(description="highest level, unit of the level; a finite number")
    level_step: float = Field(
        gt=0, allow_inf_nan=False, description="distance of the levels that can be presented; it divides the range"
    )
    threshold: Values | None = Field(
        default=None,
        description="candidate thresholds, unit of the level: a list or a table {min, max, n}; if not given, the "
        "levels. A range wider than that of the levels shows more clearly when a threshold is out of reach",
    )
    guess_rate: Values = Field(
        description="proportion correct by chance (1 / n_intervals in a forced-choice task; the rate of false alarms "
        "in a yes/no task): a number, or candidates"
    )
    lapse_rate: Values = Field(
        default=[DEFAULT_LAPSE_RATE],
        description="proportion of errors however easy the trial: a number, or candidates. With 0 a single slip can "
        "misplace the track",
    )
    threshold_prior_mean: float | None = Field(
        default=None,
        allow_inf_nan=False,
        description="mean of the normal prior of the threshold, unit of the level; if not given, the prior is flat",
    )
    threshold_prior_sd: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="SD of the normal prior of the threshold"
    )
    shape: Literal["logistic", "cumulative_gaussian", "weibull", "gumbel", "log_quick"] = Field(
        default="logistic",
        description="family F of the psychometric function guess_rate + (1 - guess_rate - lapse_rate) F(slope (level - "
        "threshold)); the Weibull in dB is the gumbel, weibull is for levels on a linear scale",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in_start(cls, values: Any) -> Any:
        """Give level_start its default, so that the stored settings have it."""
        if not isinstance(values, dict) or values.get("level_start") is not None:
            return values
        easiest = values.get("level_min" if values.get("harder") == 1 else "level_max")
        return values if not isinstance(easiest, int | float) else {**values, "level_start": float(easiest)}

    @property
    def levels(self) -> list[float]:
        """Levels that can be presented, ascending."""
        n = round((self.level_max - self.level_min) / self.level_step)
        return [float(level) for level in np.linspace(self.level_min, self.level_max, n + 1)]

    @property
    def thresholds(self) -> list[float]:
        """Candidate thresholds, ascending."""
        return self.levels if self.threshold is None else self.threshold

    def _problems(self) -> Iterator[str]:
        level_problems = list(self._level_problems())
        yield from level_problems
        parts = [self._stop_problems(), self._value_problems()]
        if not level_problems:
            parts.append(self._grid_problems())
        yield from chain.from_iterable(parts)

    def _level_problems(self) -> Iterator[str]:
        low, high = self.level_min, self.level_max
        for name, value in (("level_min", low), ("level_max", high)):
            if not math.isfinite(value):
                yield (
                    f"{name} = {value:g} is no end of a grid of levels: give a finite number (the stimulus sets no "
                    "limit of its own there)."
                )
        if not (math.isfinite(low) and math.isfinite(high)):
            return
        if not low < high:
            yield f"level_min = {low:g} is not below level_max = {high:g}: exchange the two."
            return
        n = (high - low) / self.level_step
        if round(n) < 1 or abs(n - round(n)) > 1e-6 * max(n, 1.0):
            yield (
                f"level_step = {self.level_step:g} does not divide the range from {low:g} (level_min) to {high:g} "
                f"(level_max): choose for instance {(high - low) / max(1, round(n)):g}."
            )
        elif self.level_start is not None and not low <= self.level_start <= high:
            yield (
                f"level_start = {self.level_start:g} is outside the limits: "
                f"choose a value from {low:g} (level_min) to {high:g} (level_max)."
            )
        if self.shape == "weibull" and low <= 0:
            yield f"level_min = {low:g} must be above 0 for shape = 'weibull'; for levels in dB use 'gumbel'."

    def _value_problems(self) -> Iterator[str]:
        for name in ("threshold", "slope", "guess_rate", "lapse_rate"):
            values = getattr(self, name, None)
            if values is None:
                continue
            try:
                _check_ascending(values)
            except ValueError as error:
                yield f"{name} = {values} {error}."
                return
            if name == "slope" and values[0] <= 0:
                yield f"slope = {values} must be above 0; the direction is given by harder."
            if name.endswith("rate") and not 0 <= values[0] <= values[-1] < 1:
                yield f"{name} = {values} must be from 0 to below 1."
        if self.guess_rate[-1] + self.lapse_rate[-1] >= 1:
            yield (
                f"guess_rate = {self.guess_rate[-1]:g} and lapse_rate = {self.lapse_rate[-1]:g} do not fit: "
                "their sum must be below 1."
            )
        if (self.threshold_prior_mean is None) != (self.threshold_prior_sd is None):
            yield "threshold_prior_mean and threshold_prior_sd belong together: give both or none."

    def _grid_problems(self) -> Iterator[str]:
        thresholds = self.thresholds
        if len(thresholds) < MIN_THRESHOLDS:
            yield f"threshold = {thresholds} has too few candidates: give at least {MIN_THRESHOLDS}."
        elif self.shape == "weibull" and thresholds[0] <= 0:
            yield f"threshold = {thresholds[0]:g} must be above 0 for shape = 'weibull'."
        if thresholds and (thresholds[-1] <= self.level_min or thresholds[0] >= self.level_max):
            yield (
                f"threshold lies from {thresholds[0]:g} to {thresholds[-1]:g}, which no level can test: "
                "let the ranges of levels and thresholds overlap."
            )
