"""The psi method (Kontsevich and Tyler, 1999) and the psi-marginal method (Prins, 2013)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, cast

from pydantic import Field

from psysim.procedures.base import register
from psysim.procedures.bayes_settings import CandidateSettings, Values
from psysim.procedures.candidates import PARAMETERS, CandidateRule

__all__ = ["Psi", "PsiMarginal"]

SLOPES = "candidate slopes of the argument of F, per unit of the level (1 / SD for the cumulative Gaussian)"


@register("psi")
class Psi(CandidateRule):
    """Psi method: threshold and slope are candidates, guess and lapse rate are known.

    Each trial has the level after which the expected entropy of the posterior of threshold and slope is lowest.

    Parameters
    ----------
    **settings
        See `Psi.Settings`.

    References
    ----------
    Kontsevich, L. L., and Tyler, C. W. (1999). Bayesian adaptive estimation of psychometric slope and threshold. Vision
    Res. 39, 2729-2737, Eqs. (1)-(5).

    Examples
    --------
    >>> rule = Psi(level_min=-40.0, level_max=0.0, level_step=1.0, guess_rate=0.5, lapse_rate=0.04,
    ...            slope={"min": 0.1, "max": 1.0, "n": 11, "spacing": "log"})
    >>> state = rule.record(rule.init(1), [True])
    >>> sorted(rule.estimates(state))
    ['guess_rate', 'lapse_rate', 'slope', 'threshold']
    """

    description = "psi method (Kontsevich and Tyler, 1999): Bayesian threshold and slope, minimum expected entropy"
    example_settings: ClassVar[Mapping[str, Any]] = {
        "level_min": -30.0,
        "level_max": 0.0,
        "level_step": 2.0,
        "slope": [0.125, 0.25, 0.5, 1.0],
        "guess_rate": 0.5,
        "n_trials": 30,
    }

    class Settings(CandidateSettings):
        """Settings of the psi method."""

        shape: Literal["logistic", "cumulative_gaussian", "weibull", "gumbel", "log_quick"] = Field(
            default="cumulative_gaussian", description="family F of the psychometric function"
        )
        slope: Values = Field(description=SLOPES)
        guess_rate: Values = Field(description="proportion correct by chance: one number", max_length=1)
        lapse_rate: Values = Field(
            default=[0.02], description="proportion of errors however easy the trial: one number", max_length=1
        )

    def describe(self) -> str:
        """Return the rule in sentences for the Methods section of a paper."""
        return (
            f"The psi method (Kontsevich and Tyler, 1999) tracked {100 * self.target_proportion:.1f} % correct, each "
            "trial having the level after which the expected entropy of the posterior of threshold and slope was "
            f"lowest. {self.describe_candidates()} {self.describe_ending()}"
        )


@register("psi_marginal")
class PsiMarginal(CandidateRule):
    """Psi-marginal method: parameters that are of no interest are summed out before the entropy is computed.

    Parameters
    ----------
    **settings
        See `PsiMarginal.Settings`.

    References
    ----------
    Prins, N. (2013). The psi-marginal adaptive method: how to give nuisance parameters the attention they deserve (no
    more, no less). J. Vision 13(7):3, Eq. (5).

    Examples
    --------
    >>> rule = PsiMarginal(level_min=-40.0, level_max=0.0, level_step=2.0, guess_rate=0.5, slope=[0.1, 0.3, 1.0],
    ...                    lapse_rate=[0.0, 0.03, 0.06], nuisance=["lapse_rate"])
    >>> float(rule.next_level(rule.init(1))[0]) < 0
    True
    """

    description = "psi-marginal method (Prins, 2013): as psi, nuisance parameters summed out before the entropy"
    example_settings: ClassVar[Mapping[str, Any]] = {
        "level_min": -30.0,
        "level_max": 0.0,
        "level_step": 2.0,
        "slope": [0.25, 0.5, 1.0],
        "guess_rate": 0.5,
        "lapse_rate": [0.0, 0.03, 0.06],
        "nuisance": ["lapse_rate"],
        "n_trials": 30,
    }

    class Settings(CandidateSettings):
        """Settings of the psi-marginal method."""

        shape: Literal["logistic", "cumulative_gaussian", "weibull", "gumbel", "log_quick"] = Field(
            default="cumulative_gaussian", description="family F of the psychometric function"
        )
        slope: Values = Field(description=SLOPES)
        nuisance: list[Literal["slope", "guess_rate", "lapse_rate"]] = Field(
            description="parameters that are not wanted: they are summed out before the entropy is computed"
        )

        def _value_problems(self) -> Iterator[str]:
            yield from super()._value_problems()
            if not self.nuisance or len(set(self.nuisance)) != len(self.nuisance):
                yield f"nuisance = {self.nuisance} must name at least one parameter, each once; without any use psi."
            fixed = [name for name in self.nuisance if len(getattr(self, name)) == 1]
            if fixed:
                yield f"nuisance = {self.nuisance}: {', '.join(fixed)} has one value only; give candidates."

    @property
    def nuisance(self) -> tuple[int, ...]:
        """Numbers of the parameters that do not count when stimuli are chosen."""
        names = cast(PsiMarginal.Settings, self.settings).nuisance
        return tuple(sorted(PARAMETERS.index(name) for name in names))

    def describe(self) -> str:
        """Return the rule in sentences for the Methods section of a paper."""
        names = " and ".join(PARAMETERS[k].replace("_", " ") for k in self.nuisance)
        return (
            f"The psi-marginal method (Prins, 2013) tracked {100 * self.target_proportion:.1f} % correct, each trial "
            "having the level after which the expected entropy of the posterior was lowest, once the nuisance "
            f"parameters ({names}) had been summed out. {self.describe_candidates()} {self.describe_ending()}"
        )
