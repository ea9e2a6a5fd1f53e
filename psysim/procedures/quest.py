"""QUEST: the most probable threshold decides the next level (Watson and Pelli, 1983)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, Literal, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import entr

from psysim.procedures.base import FloatArray, register
from psysim.procedures.bayes_settings import CandidateSettings, Values
from psysim.procedures.candidates import CandidateRule, least_variance_proportion

__all__ = ["Quest", "quest_quantile"]


def quest_quantile(guess_rate: float, lapse_rate: float) -> float:
    """Return the posterior probability of thresholds below the level at which a far trial tells most.

    As long as the threshold is hardly known, a trial only tells whether it lies below the level (right with the
    probability 1 - lapse_rate) or above it (guess_rate). The information of such an answer is largest if the threshold
    lies below with the probability that reaches the capacity of this channel. It depends on the asymptotes only.

    Parameters
    ----------
    guess_rate, lapse_rate : float
        Asymptotes of the psychometric function, from 0 to 1, their sum below 1.

    Returns
    -------
    float
        From 0 to 1: 0.5 for equal rates, above 0.5 if the guess rate is larger.

    References
    ----------
    Pelli, D. G. (1987). The ideal psychometric procedure. Invest. Ophthalmol. Vis. Sci. 28 (Suppl.), 366.

    Examples
    --------
    >>> round(quest_quantile(0.5, 0.01), 3), round(quest_quantile(0.02, 0.02), 3)
    (0.583, 0.5)
    """
    low, high = guess_rate, 1.0 - lapse_rate
    entropy = [float(entr(p) + entr(1.0 - p)) for p in (low, high)]
    p = 1.0 / (1.0 + math.exp((entropy[1] - entropy[0]) / (high - low)))
    return (p - low) / (high - low)


@register("quest")
class Quest(CandidateRule):
    """QUEST: candidates differ in their threshold only, and the next level is where the threshold probably is.

    The psychometric function is the Weibull function of a level in dB (a gumbel),
    ``1 - lapse_rate - (1 - guess_rate - lapse_rate) exp(-10**(beta (level - threshold) / db_per_decade))``, moved so
    that the reported threshold is the level at which a trial tells most about it (the epsilon of Watson and Pelli).

    Parameters
    ----------
    **settings
        See `Quest.Settings`.

    References
    ----------
    Watson, A. B., and Pelli, D. G. (1983). QUEST: a Bayesian adaptive psychometric method. Percept. Psychophys. 33,
    113-120.
    King-Smith, P. E., et al. (1994). Efficient and unbiased modifications of the QUEST threshold method. Vision Res.
    34, 885-912 (placement at the mean).

    Examples
    --------
    >>> rule = Quest(level_min=-40.0, level_max=0.0, level_step=1.0, guess_rate=0.5, lapse_rate=0.01,
    ...              threshold_prior_mean=-20.0, threshold_prior_sd=10.0)
    >>> state = rule.init(1)
    >>> state = rule.record(state, [True])
    >>> float(rule.next_level(state)[0]) < float(rule.next_level(rule.init(1))[0])
    True
    """

    description = "QUEST (Watson and Pelli, 1983): Bayesian threshold, slope known"
    example_settings: ClassVar[Mapping[str, Any]] = {
        "level_min": -40.0,
        "level_max": 0.0,
        "level_step": 1.0,
        "guess_rate": 0.5,
        "threshold_prior_mean": -15.0,
        "threshold_prior_sd": 12.0,
        "n_trials": 30,
    }

    class Settings(CandidateSettings):
        """Settings of QUEST."""

        shape: Literal["gumbel"] = Field(default="gumbel", description="the Weibull function of a level in dB")
        beta: float = Field(
            default=3.5,
            gt=0,
            allow_inf_nan=False,
            description="exponent of the Weibull function of the linear quantity",
        )
        db_per_decade: float = Field(
            default=20.0,
            gt=0,
            allow_inf_nan=False,
            description="units of the level per factor of 10 in the quantity that beta is an exponent of: 20 for dB of "
            "an amplitude, 10 for dB of a power, 1 for log10 units",
        )
        guess_rate: Values = Field(description="proportion correct by chance: one number", max_length=1)
        lapse_rate: Values = Field(
            default=[0.02], description="proportion of errors however easy the trial: one number", max_length=1
        )
        placement: Literal["mode", "mean", "quantile"] = Field(
            default="quantile",
            description="value of the posterior of the threshold that is presented next: mode (Watson and Pelli, "
            "1983), mean (King-Smith et al., 1994), or a quantile (Pelli, 1987)",
        )
        quantile: float | None = Field(
            default=None,
            gt=0,
            lt=1,
            description="for placement = quantile: posterior probability of easier thresholds than the level's; if not "
            "given, the recommended one, which follows from guess_rate and lapse_rate",
        )
        threshold_prior_mean: float = Field(
            allow_inf_nan=False, description="mean of the normal prior of the threshold, unit of the level"
        )
        threshold_prior_sd: float = Field(
            gt=0,
            allow_inf_nan=False,
            description="SD of the normal prior of the threshold: rather too large than too small",
        )

        def _value_problems(self) -> Any:
            yield from super()._value_problems()
            if self.quantile is not None and self.placement != "quantile":
                yield f"quantile = {self.quantile:g} is not used by placement = '{self.placement}': remove it."

    @property
    def _own_settings(self) -> Quest.Settings:
        return cast(Quest.Settings, self.settings)

    @property
    def slopes(self) -> list[float]:
        """Slope of the gumbel function, ``beta ln(10) / db_per_decade``."""
        s = self._own_settings
        return [s.beta * math.log(10.0) / s.db_per_decade]

    def default_target(self) -> float:
        """Proportion correct at which a trial tells most about the threshold."""
        s = self._own_settings
        return least_variance_proportion(s.shape, s.guess_rate[0], s.lapse_rate[0])

    @cached_property
    def quantile_order(self) -> float:
        """Posterior probability of thresholds that the listener would hear at the level presented."""
        s = self._own_settings
        return quest_quantile(s.guess_rate[0], s.lapse_rate[0]) if s.quantile is None else s.quantile

    def place(self, posterior: FloatArray, memory: dict[str, NDArray[Any]]) -> NDArray[np.int32]:
        """Return the level nearest to the mode, mean or quantile of the threshold."""
        s = self._own_settings
        if s.placement == "mode":
            return self.nearest_stimulus(self.candidate_thresholds[np.argmax(posterior, axis=1)])
        if s.placement == "mean":
            return self.nearest_stimulus((posterior * self.candidate_thresholds).sum(axis=1))
        order = self.quantile_order if s.harder < 0 else 1.0 - self.quantile_order
        return self.nearest_stimulus(self.quantile(posterior, order))

    def describe(self) -> str:
        """Return the rule in sentences for the Methods section of a paper."""
        s = self._own_settings
        where = f"{self.quantile_order:.2f} quantile" if s.placement == "quantile" else s.placement
        return (
            f"QUEST (Watson and Pelli, 1983) tracked {100 * self.target_proportion:.1f} % correct with a Weibull "
            f"function of exponent {s.beta:g} ({s.db_per_decade:g} units of the level per decade), each level at "
            f"the {where} of the posterior. {self.describe_candidates()} {self.describe_ending()}"
        )
