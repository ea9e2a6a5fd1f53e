"""The plainest observer: one number of the representation, the largest (or smallest) interval wins."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

import pydantic
import torch
from torch import Tensor

from psysim.errors import CalibrationError, SpecError
from psysim.models.base import Model
from psysim.models.casp_decisions import metric_of
from psysim.observers.base import Observer, ObserverSettings, TrainingSounds, number_or, register
from psysim.observers.calibration import IntensityTask, calibration_tones, code_digest, stored
from psysim.observers.template import CHUNK_BYTES, flat

__all__ = ["DecisionVariable"]


@register("decision_variable")
class DecisionVariable(Observer):
    """A metric of the whole representation, without a template.

    The decision variable is the metric over all time samples of all filters; with ``criterion = "less"`` its negative,
    for targets that make it smaller. It knows neither when nor in which channel the cue comes: an observer for
    comparison, not a published one.
    """

    class Settings(ObserverSettings):
        """Settings of the metric observer."""

        metric: Literal["rms", "mean", "max", "l2"] = pydantic.Field(
            default="rms", description="what is taken of the representation, over all samples of all filters"
        )
        criterion: Literal["greater", "less"] = pydantic.Field(
            default="greater", description="whether the target makes the metric greater or less"
        )
        internal_noise_std: Annotated[float | Literal["calibrated"], number_or("calibrated")] = pydantic.Field(
            default="calibrated",
            description="standard deviation of the internal noise on the metric, model units; or 'calibrated': from "
            "the 1-dB level difference of a 1-kHz tone at 60 dB SPL (3-AFC, 70.7 %)",
        )
        reference_tokens: int = pydantic.Field(
            default=10, ge=1, le=10_000, description="reference sounds from which the yes/no criterion is taken"
        )
        criterion_sd: float = pydantic.Field(
            default=0.5,
            description="yes/no criterion, in standard deviations of the decision variable of reference intervals "
            "above their mean",
        )

    description = "a metric of the representation (rms, mean, max, l2), the largest or smallest interval wins"
    settings: DecisionVariable.Settings
    model: Model

    def __init__(self, settings: ObserverSettings, model: Model | None = None) -> None:
        if model is None:
            raise SpecError('DecisionVariable needs an auditory model: add model = "dau1997" (or another).')
        super().__init__(settings, model)
        given = self.settings.internal_noise_std
        self.internal_noise_std = 0.0 if isinstance(given, str) else given
        self._calibration: dict[str, Any] = {"status": "not calibrated"}
        if not isinstance(given, str):
            self._calibration = {"status": "given", "internal_noise_std": given}
        self._criterion = torch.empty(0)

    @property
    def calibration(self) -> dict[str, Any]:
        """How the internal noise was set: facts for the result's provenance."""
        return self._calibration

    def calibrate(self) -> None:
        """Set the internal noise from the 1-dB level difference; taken from the cache if nothing changed.

        Raises
        ------
        CalibrationError
            If the decision variable does not grow with the level of the tone.
        """
        if self.settings.internal_noise_std != "calibrated":
            return
        from psysim import __version__

        task = IntensityTask()
        facts = {
            "observer": "decision_variable",
            "metric": self.settings.metric,
            "criterion": self.settings.criterion,
            "model": type(self.model).__name__,
            "n_channels": len(self.model.fc),
            "model_parameters": self.model.parameters_dict(),
            "task": asdict(task),
            "psysim": __version__,
            "code": code_digest(),
        }
        value, _ = stored(facts, lambda: self._calibrated_std(task))
        self.internal_noise_std = value
        self._calibration = {"status": "calibrated", "internal_noise_std": value, **facts}

    def _calibrated_std(self, task: IntensityTask) -> float:
        tones = calibration_tones(self.model, task, [task.level_db_spl, task.level_db_spl + task.jnd_db])
        with torch.no_grad():
            low, high = self._metric(tones)
        if not high > low:
            raise CalibrationError(
                f"The decision variable ({self.settings.metric}, {self.settings.criterion}) of a 1-kHz tone changes by "
                f"{float(high - low):g} from {task.level_db_spl:g} dB SPL to {task.jnd_db:g} dB more, and does not "
                "grow: the internal noise cannot be calibrated. Give internal_noise_std as a number."
            )
        return float(high - low) / task.d_prime

    def prepare(self, training: TrainingSounds) -> None:
        """Find the yes/no criterion of every condition; nothing to do for other tasks."""
        device = self.model.device
        n = training.n_conditions
        if training.n_intervals != 1:
            self._criterion = torch.zeros(n, dtype=torch.float64, device=device)
            return
        tokens = torch.arange(1 if training.frozen else self.settings.reference_tokens, device=device)
        criteria = []
        for condition in range(n):
            with torch.no_grad():
                values = self._metric(training.reference(torch.full_like(tokens, condition), tokens))
            external = values.var() if len(values) > 1 else torch.zeros_like(values[0])
            criteria.append(values.mean() + self.settings.criterion_sd * (external + self.internal_noise_std**2).sqrt())
        self._criterion = torch.stack(criteria)

    def noise_std(self, condition: Tensor) -> Tensor:
        """Return the internal noise's standard deviation on the decision variable, (B,)."""
        return torch.full(condition.shape, self.internal_noise_std, dtype=torch.float64, device=condition.device)

    def criterion(self, condition: Tensor) -> Tensor:
        """Return the yes/no criterion of each row, (B,)."""
        return self._criterion[condition]

    def decision_variable(self, intervals: Tensor, condition: Tensor) -> Tensor:
        """Return the metric of every interval, negative with ``criterion = "less"``, (B, I), in float64."""
        return self._metric(flat(intervals, condition)[0]).reshape(intervals.shape[:2])

    def _metric(self, sounds: Tensor) -> Tensor:
        """Return the decision variable of sounds (N,), as many at once as the memory allows."""
        chunk = max(1, CHUNK_BYTES // self.model.bytes_per_interval(sounds.shape[-1]))
        parts = []
        for start in range(0, len(sounds), chunk):
            representation = self.model.represent(sounds[start : start + chunk])
            parts.append(metric_of(representation.values, representation.valid, self.settings.metric))
        values = torch.cat(parts)
        return values if self.settings.criterion == "greater" else -values
