"""The optimal detector of Dau et al.: correlation with a template, and internal noise."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pydantic
import torch

from psysim.observers.base import ObserverSettings, number_or, register
from psysim.observers.calibration import IntensityTask, calibrate_intensity, code_digest, stored
from psysim.observers.template import TemplateObserver, TemplateSettings
from psysim.units import erb_number

if TYPE_CHECKING:
    from psysim.models.base import Model

__all__ = ["OptimalDetector"]


@register("optimal_detector")
class OptimalDetector(TemplateObserver):
    """Template matching on the internal representation with Gaussian internal noise.

    The template is the mean representation of supra-threshold targets minus that of references, scaled to unit
    energy. The decision variable of an interval is the inner product of the template with the interval's
    representation minus the mean reference, divided by the square root of the representation's rate (the density
    form, independent of that rate). White internal noise on the representation equals independent Gaussian noise of
    the same variance on every decision variable, because the template has unit energy.

    With running noise the template is an average over tokens, and what is left of their noise raises thresholds:
    4-Hz modulation of a 0.5-s broadband noise was detected at -14.3 dB with 20 independent pairs of tokens, -17.6 dB
    with 200, and at -18.6 and -19.3 dB with 20 and 100 pairs of the same noise (10 tracks each, standard error 0.6 dB).

    References
    ----------
    Dau, Pueschel and Kohlrausch (1996), J. Acoust. Soc. Am. 99, 3615-3622 (optimal detector, calibration).
    Dau, Kollmeier and Kohlrausch (1997), J. Acoust. Soc. Am. 102, 2892-2905 and 2906-2919 (modulation filterbank).
    """

    class Settings(TemplateSettings):
        """Settings of the optimal detector."""

        internal_noise_std: Annotated[float | Literal["calibrated"], number_or("calibrated")] = pydantic.Field(
            default="calibrated",
            description="standard deviation of the internal noise in the density form (model units times s^0.5), "
            "or 'calibrated': from the 1-dB level difference of a 1-kHz tone at 60 dB SPL",
        )
        calibration_channels: Literal["auto", "all", "single"] = pydantic.Field(
            default="auto",
            description="auditory channels that take part in the calibration: all of the model's; the single one "
            "at the tone's frequency; or auto: all, unless the model has no channel there",
        )
        calibration_jnd_db: float = pydantic.Field(default=1.0, gt=0, le=20, description="just-noticeable difference")
        calibration_n_intervals: int = pydantic.Field(default=3, ge=2, le=10, description="intervals of that task")
        calibration_target_proportion: float = pydantic.Field(
            default=2**-0.5, gt=0, lt=1, description="proportion correct at the just-noticeable difference"
        )

    description = "template of supra-threshold minus reference representations, inner product, internal noise"
    settings: OptimalDetector.Settings

    def __init__(self, settings: ObserverSettings, model: Model | None = None) -> None:
        super().__init__(settings, model)
        given = self.settings.internal_noise_std
        self.internal_noise_std = 0.0 if given == "calibrated" else float(given)
        self._calibration: dict[str, Any] = (
            {"status": "not calibrated"}
            if given == "calibrated"
            else {"status": "given", "internal_noise_std": float(given)}
        )

    @property
    def calibration(self) -> dict[str, Any]:
        """How the internal noise was set: facts for the result's provenance."""
        return self._calibration

    @property
    def task(self) -> IntensityTask:
        """The intensity-discrimination task that fixes the internal noise."""
        return IntensityTask(
            jnd_db=self.settings.calibration_jnd_db,
            n_intervals=self.settings.calibration_n_intervals,
            target_proportion=self.settings.calibration_target_proportion,
        )

    def calibration_model(self) -> Model:
        """Return the model used for calibration: the observer's own, or its single channel at the tone.

        An observer that listens to many channels has its 1-dB difference with all of them; one that cannot hear the
        tone gets the noise that a channel of its own would need there.
        """
        channels = self.settings.calibration_channels
        if channels == "auto":
            distance = torch.abs(erb_number(self.model.fc) - erb_number(self.task.frequency_hz))
            channels = "all" if float(distance.min()) <= 0.5 else "single"
        return self.model if channels == "all" else self.model.restricted(self.task.frequency_hz)

    def calibrate(self) -> None:
        """Set the internal noise from the 1-dB level difference; taken from the cache if nothing changed."""
        if self.settings.internal_noise_std != "calibrated":
            return
        from psysim import __version__

        model = self.calibration_model()
        facts = {
            "observer": "optimal_detector",
            "model": type(model).__name__,
            "n_channels": len(model.fc),
            "model_parameters": model.parameters_dict(),
            "task": asdict(self.task),
            "psysim": __version__,
            "code": code_digest(),
        }
        value, _ = stored(facts, lambda: calibrate_intensity(model, self.task))
        self.internal_noise_std = value
        self._calibration = {"status": "calibrated", "internal_noise_std": value, **facts}
