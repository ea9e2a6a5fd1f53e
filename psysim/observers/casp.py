"""The observer of CASP: the published decision stage of Jepsen et al. (2008) and Paulick et al. (2024)."""

from __future__ import annotations

import copy
from typing import Annotated, Any, Literal

import pydantic
import torch
from torch import Tensor

from psysim.errors import SpecError
from psysim.models.base import Model
from psysim.models.casp_decisions import CaspDecisions
from psysim.observers.base import ObserverSettings, Response, TrainingSounds, Trial, number_or, register
from psysim.observers.casp_stage import (
    NOISE_VARIANCE,
    band_mask,
    correlation_weights,
    interval_difference,
    proportion_correct,
    region_of_interest,
)
from psysim.observers.expectation import DecisionSamples
from psysim.observers.template import TemplateObserver, TemplateSettings, token_means
from psysim.procedures.tasks import Task
from psysim.rng import Purpose, uniform

__all__ = ["Casp"]

NoiseVariance = Annotated[float | Literal["published"], number_or("published", positive=True)]

PUBLISHED_RULE = {"paulick2024": "covariance", "jepsen2008": "product"}


@register("casp")
class Casp(TemplateObserver):
    """Correlation with a template in the channels that carry the cue, and the published rule for a correct answer.

    The template is the mean representation of supra-threshold targets minus that of references, scaled to an energy
    equal to the representation's rate. The decision variable of an interval is the correlation of its representation
    (minus the mean reference) with the template, over time and the channels of the region of interest, summed over
    modulation bands and divided by the rate; in the 2024 version each band's means are removed.

    Two rules make an answer of it:

    * ``expected`` (published): no random number. An answer counts as correct if the probability of a correct answer
      exceeds 2**(-1 / n_down), the proportion at which a 1-up n-down track settles. The rule knows the target's
      interval: it says whether an answer would be correct, not what the answer is. Where it is not, one of the other
      intervals is given, drawn at random.
    * ``drawn``: Gaussian noise of the internal noise's variance on the decision variable of every interval; the
      largest wins. It knows nothing of the target, and works for any number of intervals and for yes/no tasks. With two
      intervals its proportion correct is the published probability; with three and four that one is a fit.

    With running noise the largest non-target value holds its own spread, which the constants of ``expected`` for three
    and four intervals count a second time; that belongs to the published rule.

    References
    ----------
    Jepsen, Ewert and Dau (2008), J. Acoust. Soc. Am. 124, 422-438. Paulick, Relano-Iborra and Dau (2024), bioRxiv.
    """

    class Settings(TemplateSettings):
        """Settings of the observer of CASP."""

        response_rule: Literal["expected", "drawn"] = pydantic.Field(
            default="expected",
            description="how a decision variable becomes an answer: expected (published, no random number) or drawn "
            "(noise on every interval, the largest wins)",
        )
        n_down: int | None = pydantic.Field(
            default=None,
            ge=1,
            le=100,
            description="with response_rule = 'expected': the n of the 1-up n-down rule; an answer is correct if its "
            "probability exceeds 2^(-1/n)",
        )
        correlation: Literal["published", "covariance", "product"] = pydantic.Field(
            default="published",
            description="covariance: the means of every modulation band removed (2024); product: not (2008); "
            "published: the one that belongs to the model",
        )
        region: Literal["automatic", "all"] = pydantic.Field(
            default="automatic",
            description="auditory channels: those that carry the difference of target and reference after adaptation "
            "(published), or all",
        )
        internal_noise_var: NoiseVariance = pydantic.Field(
            default="published",
            description="variance of the internal noise on the decision variable, (model units)^2 s: published are "
            "40 for paulick2024 and 130 for jepsen2008",
        )

        @pydantic.model_validator(mode="after")
        def _one_rule(self) -> Casp.Settings:
            if self.response_rule == "expected" and self.n_down is None:
                raise ValueError(
                    "n_down is missing: the published rule counts an answer as correct if its probability exceeds "
                    "2^(-1/n_down). Give the n_down of the procedure (1-up n-down), or response_rule = 'drawn'"
                )
            if self.response_rule == "drawn" and self.n_down is not None:
                raise ValueError("n_down has no meaning with response_rule = 'drawn': remove it, or use 'expected'")
            return self

    description = "published decision stage of CASP: region of interest, correlation, expected or drawn answers"
    settings: Casp.Settings

    def __init__(self, settings: ObserverSettings, model: Model | None = None) -> None:
        super().__init__(settings, model)
        self.variant = self.model.variant if isinstance(self.model, CaspDecisions) else None
        for name in ("correlation", "internal_noise_var"):
            if getattr(self.settings, name) == "published" and self.variant is None:
                allowed = "'covariance' or 'product'" if name == "correlation" else "a number above 0"
                raise SpecError(
                    f"{name} = 'published' is not known for {type(self.model).__name__}: it belongs to "
                    f"{' and '.join(NOISE_VARIANCE)}. Allowed here: {allowed}."
                )
        given = self.settings.internal_noise_var
        self.internal_noise_var = NOISE_VARIANCE[str(self.variant)] if isinstance(given, str) else given
        self.internal_noise_std = self.internal_noise_var**0.5
        chosen = self.settings.correlation
        self.remove_means = (PUBLISHED_RULE[str(self.variant)] if chosen == "published" else chosen) == "covariance"
        self.regions: list[tuple[int, int] | None] = []

    @property
    def calibration(self) -> dict[str, Any]:
        """How the internal noise was set: facts for the result's provenance."""
        published = self.settings.internal_noise_var == "published"
        return {
            "status": "published internal noise" if published else "given",
            "internal_noise_std": self.internal_noise_std,
            "response_rule": self.settings.response_rule,
            "correlation": "covariance" if self.remove_means else "product",
        }

    # -- template ------------------------------------------------------------------------------------------------

    def prepare(self, training: TrainingSounds) -> None:
        """Find the region of interest and build the template of every condition.

        Raises
        ------
        SpecError
            If the task or the procedure does not fit the response rule, or the model has no adaptation stage in which
            a region could be found.
        CalibrationError
            If target and reference representations of a condition are equal, so that no template exists.
        """
        if self.settings.n_down is not None:
            self._check_rule(self.settings.n_down, training)
        self.regions = [None] * training.n_conditions
        if self.settings.region == "automatic":
            level, (tokens, others) = self.template_level(training), self.template_tokens(training)
            targets = token_means(training, level, tokens, self._adapted, self.model)
            references = token_means(training, None, others, self._adapted, self.model)
            fc, fs = self.model.fc, self.model.fs
            self.regions = [region_of_interest(t - r, fc, fs) for t, r in zip(targets, references, strict=True)]
        super().prepare(training)

    def _check_rule(self, n_down: int, training: TrainingSounds) -> None:
        proportion_correct(torch.zeros(1), training.n_intervals, 1.0)  # refuses other numbers of intervals than 2, 3, 4
        needed = 2.0 ** (-1.0 / n_down)
        if abs(training.target_proportion - needed) > 1e-9:
            raise SpecError(
                f"n_down = {n_down} counts an answer as correct above {100 * needed:.2f} %, but the procedure settles "
                f"at {100 * training.target_proportion:.2f} %: use a 1-up {n_down}-down procedure (kind = 'up_down', "
                f"n_up = 1, n_down = {n_down}, step_up_ratio = 1), set n_down to that of the procedure, or use "
                "response_rule = 'drawn'."
            )

    def _adapted(self, sounds: Tensor) -> Tensor:
        """Return the output of the adaptation stage (K, F, T) at the rate of the sound."""
        model: Any = copy.copy(self.model)  # shares everything with the model but the switch
        model.return_stages = True
        output = model(sounds)
        stages = output[1] if isinstance(output, tuple) else {}
        if "adaptation" not in stages:
            raise SpecError(
                f"region = 'automatic' needs a model with an adaptation stage; {type(self.model).__name__} has none. "
                "Allowed here: region = 'all'."
            )
        adapted: Tensor = stages["adaptation"]
        return adapted

    def weights(self, template: Tensor, condition: int) -> Tensor:
        """Return the template in the region of interest, with each modulation band's mean removed if asked for."""
        mask = band_mask(self.fc, self.mfc, self.regions[condition]) & self.valid
        return correlation_weights(template, mask, self.remove_means)

    # -- decision ------------------------------------------------------------------------------------------------

    def respond(self, trial: Trial) -> Response:
        """Answer a batch of trials by the response rule."""
        n_down = self.settings.n_down
        if n_down is None:
            return super().respond(trial)
        assert trial.intervals is not None
        with torch.no_grad():
            values, _ = self.evaluate(trial.intervals, trial.condition)
        first = trial.task.first_alternative
        difference = interval_difference(values[:, first:], trial.target - first)
        probability = proportion_correct(difference, trial.task.n_alternatives, self.internal_noise_var)
        correct = (probability > 2.0 ** (-1.0 / n_down)).cpu().numpy()
        other = uniform(trial.keys[:, 0], Purpose.RESPONSE, 1)[:, 0].cpu().numpy()
        choice = trial.task.answer(correct, trial.target.cpu().numpy(), other)
        return Response(torch.as_tensor(choice, device=values.device), values)

    def proportion_correct(self, samples: DecisionSamples, task: Task) -> tuple[Tensor, Tensor]:
        """Return the expected proportion correct; with the published rule the share of tokens it calls correct."""
        n_down = self.settings.n_down
        if n_down is None:
            return self._largest_wins(samples, task)
        others = samples.reference
        if samples.exchangeable:  # the tokens after the target's own, as many as a trial has
            own = torch.arange(len(others), device=others.device)[:, None]
            shift = torch.arange(1, task.n_alternatives, device=others.device)
            others = others[(own + shift) % len(others), 0]
        values = torch.cat([samples.target[:, None], others], 1)
        difference = interval_difference(values, torch.zeros(len(values), dtype=torch.int64, device=values.device))
        probability = proportion_correct(difference, task.n_alternatives, self.internal_noise_var)
        right = (probability > 2.0 ** (-1.0 / n_down)).to(torch.float64)
        return right.mean(), (right.sum() - right) / max(len(right) - 1, 1)
