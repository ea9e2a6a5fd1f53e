"""The maximum-likelihood procedure (Green, 1990, 1993)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from psysim.procedures.base import FloatArray, register
from psysim.procedures.bayes_settings import CandidateSettings, Values
from psysim.procedures.candidates import CandidateRule, least_variance_proportion

__all__ = ["MLP"]


@register("mlp")
class MLP(CandidateRule):
    """Maximum-likelihood procedure: each level is the target level of the likeliest candidate.

    Candidates differ in their threshold and, in yes/no tasks, in their rate of false alarms (``guess_rate``).

    Parameters
    ----------
    **settings
        See `MLP.Settings`.

    References
    ----------
    Green, D. M. (1990). Stimulus selection in adaptive psychophysical procedures. J. Acoust. Soc. Am. 87, 2662-2674.
    Green, D. M. (1993). A maximum-likelihood method for estimating thresholds in a yes-no task. J. Acoust. Soc. Am. 93,
    2096-2105.
    Grassi, M., and Soranzo, A. (2009). MLP: a MATLAB toolbox for rapid and reliable auditory threshold estimation.
    Behav. Res. Methods 41, 20-28.

    Examples
    --------
    >>> rule = MLP(level_min=-40.0, level_max=0.0, level_step=1.0, slope=0.5, guess_rate=[0.0, 0.1, 0.2, 0.3, 0.4])
    >>> rule.next_level(rule.init(1))
    array([0.])
    >>> round(MLP(level_min=-40.0, level_max=0.0, level_step=1.0, slope=0.5, guess_rate=0.5).target_proportion, 3)
    0.809
    """

    description = "maximum-likelihood procedure (Green, 1990, 1993): the likeliest of a set of functions"
    example_settings: ClassVar[Mapping[str, Any]] = {
        "level_min": -40.0,
        "level_max": 0.0,
        "level_step": 1.0,
        "slope": 0.5,
        "guess_rate": 0.5,
        "n_trials": 30,
    }

    class Settings(CandidateSettings):
        """Settings of the maximum-likelihood procedure."""

        slope: Values = Field(
            description="slope of the argument of F, per unit of the level, of all candidates: one number", max_length=1
        )
        lapse_rate: Values = Field(
            default=[0.02], description="proportion of errors however easy the trial: one number", max_length=1
        )
        first_trial: Literal["rule", "level_start"] = Field(
            default="level_start",
            description="level of the first trial: level_start, or (rule) the one of the likeliest candidate, which "
            "before the first answer is the lowest one unless there is a prior",
        )
        threshold_statistic: Literal["mean", "mode", "median"] = Field(
            default="mode", description="threshold: mode (the likeliest candidate), mean or median of the likelihoods"
        )
        target_proportion: float | None = Field(
            default=None,
            gt=0,
            lt=1,
            description="proportion correct (of yes answers) at the levels presented and at the threshold; if not "
            "given, the sweet point of Green (1993) for the mean of guess_rate",
        )

    def default_target(self) -> float:
        """Proportion correct at which a trial tells most about the threshold, without lapses."""
        s = self.candidates
        return least_variance_proportion(s.shape, float(np.mean(s.guess_rate)))

    def place(self, posterior: FloatArray, memory: dict[str, NDArray[Any]]) -> NDArray[np.int32]:
        """Return the level nearest to the target level of the likeliest candidate."""
        return self.nearest_stimulus(self.candidate_thresholds[np.argmax(posterior, axis=1)])

    def describe(self) -> str:
        """Return the rule in sentences for the Methods section of a paper."""
        return (
            f"The maximum-likelihood procedure (Green, 1993) tracked {100 * self.target_proportion:.1f} % correct, "
            f"each level being that at which the likeliest candidate reaches this proportion. "
            f"{self.describe_candidates()} {self.describe_ending()}"
        )
