"""A listener with a known psychometric function: validates procedures, analysis and reports without any model."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pydantic
import torch
from torch import Tensor

from psysim.errors import SpecError
from psysim.observers.base import Observer, ObserverSettings, Response, Trial, register
from psysim.procedures.psychometric import psychometric_function
from psysim.rng import Purpose, uniform

__all__ = ["SimulatedListener"]


@register("simulated_listener")
class SimulatedListener(Observer):
    """A listener who answers with the probability given by a psychometric function of the tracked level.

    The guess rate is the task's chance level; wrong answers are spread evenly over the other intervals.

    References
    ----------
    Wichmann and Hill (2001), Percept. Psychophys. 63, 1293-1313, eq. 1 (guess and lapse rates).
    """

    class Settings(ObserverSettings):
        """Settings of a simulated listener."""

        threshold: float | list[float] = pydantic.Field(
            description="level at which the function is halfway between guess rate and 1 - lapse rate, in the unit of "
            "the tracked variable; one value, or one per condition"
        )
        slope: float = pydantic.Field(
            default=0.1,
            description="derivative of proportion correct at threshold, per unit of the level; negative where the task "
            "gets harder with the level",
        )
        lapse_rate: float = pydantic.Field(default=0.0, ge=0, le=0.5, description="proportion of inattentive trials")
        shape: Literal["logistic", "cumulative_gaussian", "gumbel"] = pydantic.Field(
            default="logistic", description="family of the psychometric function"
        )

    needs_model = False
    needs_sound = False
    identifies = True
    description = "a listener with a given psychometric function (no sound, no model)"
    settings: SimulatedListener.Settings

    @property
    def calibration(self) -> dict[str, object]:
        """A given psychometric function needs no calibration."""
        return {"status": "given psychometric function", **self.settings.model_dump()}

    def prepare(self, training: object) -> None:
        """Check that there is one threshold, or one per condition.

        Raises
        ------
        SpecError
            If the number of thresholds differs from the number of conditions.
        """
        n_conditions = getattr(training, "n_conditions", 1)
        thresholds = self.settings.threshold
        if isinstance(thresholds, list) and len(thresholds) != n_conditions:
            raise SpecError(
                f"observers.threshold has {len(thresholds)} values for {n_conditions} conditions: "
                "give one value, or one per condition."
            )

    def decision_variable(self, intervals: Tensor, condition: Tensor) -> Tensor:
        """Not defined: a simulated listener hears nothing.

        Raises
        ------
        SpecError
            Always.
        """
        raise SpecError("A simulated listener has no decision variable: it answers from the level alone.")

    def _probability_correct(self, level: Tensor, condition: Tensor, chance_level: float) -> Tensor:
        """Return the probability of a correct answer, (B,)."""
        given = np.asarray(self.settings.threshold, dtype=np.float64)
        probability = psychometric_function(
            level.cpu().numpy(),
            threshold=given[condition.cpu().numpy()] if given.ndim else given,
            slope=self.settings.slope,
            guess_rate=chance_level,
            lapse_rate=self.settings.lapse_rate,
            shape=self.settings.shape,
        )
        return torch.as_tensor(probability, device=level.device)

    def respond(self, trial: Trial) -> Response:
        """Draw answers from the psychometric function."""
        draw = uniform(trial.keys[:, 0], Purpose.RESPONSE, 2)
        correct = draw[:, 0] < self._probability_correct(trial.level, trial.condition, trial.task.chance_level)
        choice = trial.task.answer(correct.cpu().numpy(), trial.target.cpu().numpy(), draw[:, 1].cpu().numpy())
        values = torch.full(trial.keys.shape, torch.nan, dtype=torch.float64)
        return Response(torch.as_tensor(choice, device=trial.level.device), values)
