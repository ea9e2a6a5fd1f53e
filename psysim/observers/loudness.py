"""An observer that hears nothing but loudness: the loudest interval wins, or a sound is heard if it is loud enough."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any, Literal, Protocol, cast

import numpy as np
import pydantic
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from psysim.errors import CalibrationError, SpecError
from psysim.models.base import Model
from psysim.observers.base import Observer, ObserverSettings, TrainingSounds, number_or, register
from psysim.observers.calibration import IntensityTask, calibration_tones, code_digest, stored
from psysim.observers.template import flat

__all__ = ["LoudnessObserver"]

THRESHOLD_DB_SPL = 2.4
"""ISO 389-7: the free-field threshold of 1 kHz with both ears."""


OWN = ("ohc_loss_db", "ihc_loss_db", "dead_regions_hz", "ear_kwargs", "outer_middle_ear_kwargs")
"""Arguments of the models that belong to a listener and a field: without them hearing is normal and the field free."""


class _LoudnessModel(Protocol):
    def loudness(self, audio: Tensor) -> tuple[Tensor, Tensor]: ...


@register("loudness")
class LoudnessObserver(Observer):
    """Louder or softer: the decision variable is ``ln(N + N0)`` of the maximum loudness N of an interval, in sone.

    The internal noise is normal on this logarithm, so that differences of loudness are heard as ratios (Weber's law in
    sone). N0 makes the softest sounds indistinct from silence: it is such that, with this noise, the loudness at
    absolute threshold is heard in 70.7 % of 3-AFC trials, the proportion that the noise is calibrated for. In a yes/no
    task "yes" is said above the loudness at threshold.

    This is psysim's observer for the loudness models, not a published one: the models say how loud a sound is, and
    nothing about the listener's variability. Near threshold loudness grows steeply with level, so that level
    differences are heard more easily there (0.6 dB at 10 dB SPL, 1 kHz), which is not so in listeners.
    """

    class Settings(ObserverSettings):
        """Settings of the loudness observer."""

        quantity: Literal["long_term", "short_term"] = pydantic.Field(
            default="long_term", description="whose maximum over the interval is judged"
        )
        criterion: Literal["louder", "softer"] = pydantic.Field(
            default="louder", description="whether the target is the loudest or the softest interval"
        )
        internal_noise_std: Annotated[float | Literal["calibrated"], number_or("calibrated")] = pydantic.Field(
            default="calibrated",
            description="standard deviation of the internal noise on the natural logarithm of loudness (0.07 is about "
            "1 dB at moderate levels); or 'calibrated': from the 1-dB level difference of a 1-kHz tone at 60 dB SPL "
            "(3-AFC, 70.7 %)",
        )
        threshold_sone: Annotated[float | Literal["model"], number_or("model")] = pydantic.Field(
            default="model",
            description="loudness at absolute threshold, sone; or 'model': that of 1 kHz at 2.4 dB SPL for 1 s "
            "(ISO 389-7) for normal hearing in the free field",
        )

    description = "the loudest interval wins (loudness models)"
    settings: LoudnessObserver.Settings
    model: Model

    def __init__(self, settings: ObserverSettings, model: Model | None = None) -> None:
        if model is None or not hasattr(model, "loudness"):
            found = "" if model is None else f", not {type(model).__name__}"
            raise SpecError(
                f'LoudnessObserver needs an auditory model of loudness{found}: add model = "moore2016" or '
                '"glasberg2002".'
            )
        super().__init__(settings, model)
        given = self.settings.internal_noise_std
        self.internal_noise_std = 0.0 if isinstance(given, str) else given
        limit = self.settings.threshold_sone
        if not isinstance(limit, str) and limit <= 0:
            raise SpecError(f"threshold_sone = {limit:g} must be above 0.")
        self.threshold_sone = math.nan if isinstance(limit, str) else limit
        self._calibration: dict[str, Any] = {"status": "not calibrated"}
        if not isinstance(given, str):
            self._calibration = {"status": "given", "internal_noise_std": given}

    @property
    def calibration(self) -> dict[str, Any]:
        """How the internal noise was set: facts for the result's provenance."""
        return self._calibration

    @property
    def floor_sone(self) -> float:
        """N0, sone: the loudness that is added before the logarithm; finite without internal noise, too."""
        step = max(IntensityTask().d_prime * self.internal_noise_std, 1e-3)
        return self.threshold_sone / math.expm1(step)

    def calibrate(self) -> None:
        """Set the loudness at threshold and the internal noise; the latter from the cache if nothing changed.

        Raises
        ------
        CalibrationError
            If the loudness does not grow with the level of the tone.
        """
        from psysim import __version__

        self._find_threshold()
        if self.settings.internal_noise_std != "calibrated":
            self._calibration |= {"threshold_sone": self.threshold_sone}
            return
        task = IntensityTask()
        facts: dict[str, Any] = {
            "observer": "loudness",
            "quantity": self.settings.quantity,
            "threshold_sone": self.threshold_sone,
            "model": type(self.model).__name__,
            "model_parameters": self.model.parameters_dict(),
            "task": asdict(task),
            "psysim": __version__,
            "code": code_digest(),
        }
        self.internal_noise_std, _ = stored(facts, lambda: self._calibrated_std(task))
        self._calibration = {"status": "calibrated", "internal_noise_std": self.internal_noise_std, **facts}

    def prepare(self, training: TrainingSounds) -> None:
        """Set the loudness at threshold, if it is the model's; nothing depends on the experiment."""
        self._find_threshold()

    def _find_threshold(self) -> None:
        if math.isnan(self.threshold_sone):
            tone = IntensityTask(level_db_spl=THRESHOLD_DB_SPL, duration_s=1.0)
            self.threshold_sone = float(self._of_normal_hearing(tone, [tone.level_db_spl]))

    def loudness_of(self, sound: Callable[[Tensor], Tensor], level_db: ArrayLike) -> NDArray[np.float64]:
        """Return the loudness (L,) that the listener hears at each level, sone, without internal noise.

        Parameters
        ----------
        sound : callable
            Levels (L,) in dB, float64, to sounds (L, T) in pascal.
        level_db : array_like (L,)
        """
        levels = torch.as_tensor(np.asarray(level_db, dtype=np.float64))
        with torch.no_grad():
            found = self._maximum(sound(levels).to(self.model.device, self.model.dtype), self.model)
        return np.asarray(found.cpu().numpy())

    def loudness_of_tone(self, level_db_spl: float) -> float:
        """Return the loudness of a 1-kHz tone of 1 s for normal hearing in the free field, sone."""
        return float(self._of_normal_hearing(IntensityTask(level_db_spl=level_db_spl, duration_s=1.0), [level_db_spl]))

    def _of_normal_hearing(self, task: IntensityTask, level_db_spl: list[float]) -> Tensor:
        """Return the loudness (K,) of a tone for normal hearing in the free field, sone."""
        arguments = {k: v for k, v in self.model.parameters_dict().items() if k not in OWN}
        normal = type(self.model)(**arguments).to(self.model.device)
        with torch.no_grad():
            return self._maximum(calibration_tones(normal, task, level_db_spl), normal)

    def _calibrated_std(self, task: IntensityTask) -> float:
        low, high = self._of_normal_hearing(task, [task.level_db_spl, task.level_db_spl + task.jnd_db])
        if not high > low > 0:
            raise CalibrationError(
                f"The loudness of a 1-kHz tone goes from {float(low):g} to {float(high):g} sone from "
                f"{task.level_db_spl:g} dB SPL to {task.jnd_db:g} dB more: the internal noise cannot be calibrated. "
                "Give internal_noise_std as a number."
            )
        return float(torch.log(high / low)) / task.d_prime

    def noise_std(self, condition: Tensor) -> Tensor:
        """Return the internal noise's standard deviation on the decision variable, (B,)."""
        return torch.full(condition.shape, self.internal_noise_std, dtype=torch.float64, device=condition.device)

    def criterion(self, condition: Tensor) -> Tensor:
        """Return the decision variable of a sound at threshold for each row, (B,)."""
        at = self._sign * math.log(self.threshold_sone + self.floor_sone)
        return torch.full(condition.shape, at, dtype=torch.float64, device=condition.device)

    @property
    def _sign(self) -> float:
        return 1.0 if self.settings.criterion == "louder" else -1.0

    def decision_variable(self, intervals: Tensor, condition: Tensor) -> Tensor:
        """Return the logarithm of loudness of every interval, negative with ``criterion = "softer"``, (B, I)."""
        loudness = self._maximum(flat(intervals, condition)[0], self.model)
        return self._sign * torch.log(loudness + self.floor_sone).reshape(intervals.shape[:2])

    def _maximum(self, sounds: Tensor, model: Model) -> Tensor:
        """Return the maximum loudness (N,) of sounds (N, T) heard by both ears, sone, float64."""
        short, long = cast(_LoudnessModel, model).loudness(sounds)
        return (long if self.settings.quantity == "long_term" else short).amax(-1).to(torch.float64)
