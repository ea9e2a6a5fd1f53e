"""The optimal detector of Dau et al.: correlation with a template, and internal noise."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import pydantic
import torch
from torch import Tensor

from psysim import ops
from psysim.errors import CalibrationError, SpecError
from psysim.observers.base import Observer, ObserverSettings, TrainingSounds, register
from psysim.observers.calibration import IntensityTask, calibrate_intensity, code_digest, stored
from psysim.units import erb_number

if TYPE_CHECKING:
    from psysim.models.base import Model

__all__ = ["OptimalDetector"]

#: Bytes of working memory that one chunk of intervals may use inside the model.
CHUNK_BYTES = 512 * 2**20


@register("optimal_detector")
class OptimalDetector(Observer):
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

    class Settings(ObserverSettings):
        """Settings of the optimal detector."""

        template_level: float | None = pydantic.Field(
            default=None,
            description="supra-threshold value of the tracked variable for the template; default: the track's start",
        )
        template_tokens: int = pydantic.Field(
            default=10, ge=1, le=10_000, description="number of noise tokens averaged for the template"
        )
        template_pairing: Literal["paired", "independent"] = pydantic.Field(
            default="paired",
            description="whether target and reference tokens of the template share their noise: the same mean "
            "difference with less of the noise's own, so that fewer tokens are needed",
        )
        internal_noise_std: float | Literal["calibrated"] = pydantic.Field(
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
        criterion_sd: float = pydantic.Field(
            default=0.5,
            description="yes/no criterion, in standard deviations of the decision variable of reference intervals",
        )

    description = "template of supra-threshold minus reference representations, inner product, internal noise"
    settings: OptimalDetector.Settings
    model: Model

    def __init__(self, settings: ObserverSettings, model: Model | None = None) -> None:
        if model is None:
            raise SpecError('optimal_detector needs an auditory model: add model = "dau1997" to the observer.')
        super().__init__(settings, model)
        given = self.settings.internal_noise_std
        self.internal_noise_std = 0.0 if given == "calibrated" else float(given)
        self._calibration: dict[str, Any] = (
            {"status": "not calibrated"}
            if given == "calibrated"
            else {"status": "given", "internal_noise_std": float(given)}
        )
        self.templates = torch.empty(0)
        self._offset = torch.empty(0)
        self._criterion = torch.empty(0)
        self._rate = 0.0
        self._shape: tuple[int, ...] = ()

    # -- internal noise ------------------------------------------------------------------------------------------

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

    def noise_std(self, condition: Tensor) -> Tensor:
        """Return the internal noise's standard deviation on the decision variable, (B,)."""
        return torch.full(condition.shape, self.internal_noise_std, dtype=torch.float64, device=condition.device)

    def criterion(self, condition: Tensor) -> Tensor:
        """Return the yes/no criterion of each row, (B,)."""
        return self._criterion[condition]

    # -- template ------------------------------------------------------------------------------------------------

    def prepare(self, training: TrainingSounds) -> None:
        """Build the template of every condition.

        Raises
        ------
        CalibrationError
            If target and reference representations of a condition are equal, so that no template exists.
        """
        level = training.start_level if self.settings.template_level is None else self.settings.template_level
        n_tokens = 1 if training.frozen else self.settings.template_tokens
        templates, offsets, criteria = [], [], []
        for condition in range(training.n_conditions):
            target = self._mean_representation(training, condition, n_tokens, level)
            reference = self._mean_representation(training, condition, n_tokens, None)
            difference = target - reference
            energy = difference.square().sum().sqrt()
            if not (torch.isfinite(energy) and energy > 0):
                raise CalibrationError(
                    f"Condition {condition}: the representation of the target at template_level = {level:g} equals "
                    "that of the reference, so there is no template. Choose a clearly audible template_level."
                )
            template = difference / energy
            offsets.append((template * reference).sum())
            templates.append(template.to(self.model.dtype).reshape(self._shape))
        self.templates = torch.stack(templates)
        self._offset = torch.stack(offsets)
        for condition in range(training.n_conditions):
            criteria.append(self._reference_sd(training, condition, n_tokens) if training.n_intervals == 1 else 0.0)
        self._criterion = self.settings.criterion_sd * torch.tensor(
            criteria, dtype=torch.float64, device=self.model.device
        )

    def _training_sounds(self, training: TrainingSounds, condition: int, token: Tensor, level: float | None) -> Tensor:
        index = torch.full_like(token, condition)
        return training.reference(index, token) if level is None else training.target(index, token, level)

    def _mean_representation(
        self, training: TrainingSounds, condition: int, n_tokens: int, level: float | None
    ) -> Tensor:
        """Return the mean representation, flat and in float64, summed token by token in a fixed order."""
        first = 0
        if level is None and self.settings.template_pairing == "independent" and not training.frozen:
            first = n_tokens  # references get noise tokens of their own
        total = wide = torch.empty(0)
        for token in torch.arange(first, first + n_tokens, device=self.model.device):
            sound = self._training_sounds(training, condition, token[None], level)
            with torch.no_grad():
                representation = self.model.represent(sound)
            self._rate, self._shape = representation.fs, tuple(representation.values.shape[1:])
            values = representation.values.flatten()
            if token == first:
                total, wide = (
                    torch.zeros_like(values, dtype=torch.float64),
                    torch.empty_like(values, dtype=torch.float64),
                )
            total += wide.copy_(values)  # into memory that is there: fresh pages cost four times as much as the sum
        return total.div_(n_tokens)

    def _reference_sd(self, training: TrainingSounds, condition: int, n_tokens: int) -> float:
        """Return the standard deviation of the decision variable of reference intervals, internal noise included."""
        external = 0.0
        if n_tokens > 1:
            token = torch.arange(2 * n_tokens, 3 * n_tokens, device=self.model.device)
            sounds = self._training_sounds(training, condition, token, None)
            values = self.decision_variable(sounds[:, None], torch.full_like(token, condition))
            external = float(values.var())
        return float((external + self.internal_noise_std**2) ** 0.5)

    # -- decision ------------------------------------------------------------------------------------------------

    def decision_variable(self, intervals: Tensor, condition: Tensor) -> Tensor:
        """Return <R(x) - mean R(reference), template> / sqrt(rate) for every interval, (B, I), in float64."""
        n_rows, n_intervals, n_samples = intervals.shape
        sounds = intervals.reshape(n_rows * n_intervals, n_samples)
        index = condition.repeat_interleave(n_intervals)
        products = self._products(sounds, index)
        mu = (products - self._offset[index]) / self._rate**0.5
        return mu.reshape(n_rows, n_intervals)

    def _products(self, sounds: Tensor, index: Tensor) -> Tensor:
        """Return <R(x), template> of every sound (N,): in one pass if the model can, else by way of R(x)."""
        per_filter = self.model.products(sounds, self.templates.unsqueeze(1), index)
        if per_filter is not None:
            values = per_filter.flatten(1)
            return ops.template_product(values, torch.ones_like(values[:1]), torch.zeros_like(index))
        templates = self.templates.flatten(1)
        chunk = max(1, CHUNK_BYTES // self.model.bytes_per_interval(sounds.shape[-1]))
        products = []
        for start in range(0, len(sounds), chunk):
            values = self.model.represent(sounds[start : start + chunk]).values.flatten(1)
            products.append(ops.template_product(values, templates, index[start : start + chunk]))
        return torch.cat(products)
