"""A listener with two ears: excitation-inhibition elements and both monaural channels, optimally weighted."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pydantic
import torch
from torch import Tensor

from psysim import ops
from psysim.errors import CalibrationError, SpecError
from psysim.observers import template
from psysim.observers.base import ObserverSettings, TrainingSounds, number_or, register
from psysim.observers.calibration import IntensityTask, calibration_tones, code_digest, stored
from psysim.observers.template import TemplateObserver, TemplateSettings, flat
from psysim.procedures.sdt import d_prime_mafc
from psysim.rng import Keys
from psysim.stages.binaural import DELAYS_S, ExcitationInhibition, double_exponential, framed
from psysim.stimuli import registry as stimuli
from psysim.units import erb_number

if TYPE_CHECKING:
    from psysim.models.base import Model

__all__ = ["BinauralDetector", "DelayTask"]

Noise = Annotated[float | Literal["calibrated"], number_or("calibrated", positive=True)]


@dataclass(frozen=True)
class DelayTask:
    """The task that fixes the binaural internal noise: an interaural time difference of a tone.

    Attributes
    ----------
    frequency_hz, level_db_spl, duration_s, ramp_s : float
        The tone: 500 Hz, 70 dB SPL, 0.4 s with 20-ms ramps.
    jnd_us : float
        Just-noticeable difference in microseconds: 28.7, the geometric mean of 33 listeners (data set borjigin_fm_itd).
    n_intervals, target_proportion : int, float
        Task and proportion correct of that threshold.
    template_us : float
        Difference of the template.
    """

    frequency_hz: float = 500.0
    level_db_spl: float = 70.0
    duration_s: float = 0.4
    ramp_s: float = 0.02
    jnd_us: float = 28.7
    n_intervals: int = 2
    target_proportion: float = 0.5 ** (1 / 3)
    template_us: float = 100.0

    @property
    def d_prime(self) -> float:
        """Sensitivity needed for the target proportion."""
        return float(d_prime_mafc(self.target_proportion, self.n_intervals))


@register("binaural")
class BinauralDetector(TemplateObserver):
    """Optimal weighting of both ears and of excitation-inhibition elements, with internal noise on each.

    Every ear gives its adapted channels, smoothed (double exponential, 10 ms). Every channel gives elements that
    subtract one ear from the other (`psysim.stages.ExcitationInhibition`); in each condition the observer uses the one
    that the reference excites least, which cancels the masker best. Each value gets the weight (mean of targets
    - mean of references) / (variance over reference tokens + variance of the internal noise). That makes one
    sum of the monaural channels and one of the elements; the two are weighted by the inverse of their
    covariance over reference tokens and internal noise. The decision variable is in standard deviations of what
    the internal noise makes of it. Sounds for one ear are heard by both.

    There are two internal noises: one on the monaural channels, calibrated by the 1-dB level difference of a 1-kHz
    tone, and one on the elements, calibrated by the interaural time difference of a 500-Hz tone. Neither is fitted to
    masked thresholds.

    References
    ----------
    Breebaart, van de Par and Kohlrausch (2001a, b, c), J. Acoust. Soc. Am. 110, 1074-1088, 1089-1104, 1105-1117. The
    model as a whole is theirs; the time constant of the monaural channels, frames of 10 ms, a coarse grid of delays and
    both calibrations are ours.
    """

    class Settings(TemplateSettings):
        """Settings of the binaural detector."""

        template_tokens: int = pydantic.Field(
            default=50, ge=1, le=10_000, description="number of noise tokens for means and variances"
        )
        monaural_noise_std: Noise = pydantic.Field(
            default="calibrated",
            description="standard deviation of the internal noise on monaural channels (model units times s^0.5), or "
            "'calibrated': from the 1-dB level difference of a 1-kHz tone at 60 dB SPL",
        )
        binaural_noise_std: Noise = pydantic.Field(
            default="calibrated",
            description="standard deviation of the internal noise on the elements (s^0.5), or 'calibrated': from an "
            "interaural time difference of 28.7 microseconds of a 500-Hz tone",
        )
        delays_s: tuple[float, ...] = pydantic.Field(
            default=DELAYS_S,
            min_length=1,
            description="internal delays in s, above 0: of the right ear; short ones first",
        )
        gains_db: tuple[float, ...] = pydantic.Field(
            default=(0.0,), min_length=1, description="internal gains of the left ear re the right, in dB"
        )
        frame_s: float = pydantic.Field(default=0.01, gt=0, le=0.1, description="step of the representation in s")
        monaural_window_s: float = pydantic.Field(
            default=0.01, gt=0, le=1, description="time constant in s of the window of the monaural channels"
        )

    description = "both ears and excitation-inhibition elements after Breebaart et al. (2001), optimally weighted"
    two_ears = True
    settings: BinauralDetector.Settings

    def __init__(self, settings: ObserverSettings, model: Model | None = None) -> None:
        super().__init__(settings, model)
        if not hasattr(self.model, "adapted"):
            raise SpecError(
                f"The observer 'binaural' needs a model with adaptation loops (dau1997, osses2021), not "
                f"{type(self.model).__name__}."
            )
        self.stage = ExcitationInhibition(
            self.model.fs,
            self.model.fc.detach(),
            delays_s=self.settings.delays_s,
            gains_db=self.settings.gains_db,
            frame_s=self.settings.frame_s,
            dtype=self.model.dtype,
        ).to(self.model.device)
        given = {name: getattr(self.settings, name) for name in ("monaural_noise_std", "binaural_noise_std")}
        self.noise = {name: 0.0 if value == "calibrated" else float(value) for name, value in given.items()}
        states = {value == "calibrated" for value in given.values()}
        status = "not calibrated" if True in states else "given"
        self._calibration: dict[str, Any] = {"status": status, **({} if True in states else self.noise)}

    @property
    def calibration(self) -> dict[str, Any]:
        """How the internal noises were set: facts for the result's provenance."""
        return self._calibration

    # -- representation ------------------------------------------------------------------------------------------------

    def _represent(self, sounds: Tensor) -> Tensor:
        """Return (N, F, 2 + K, T'): the left and the right ear, and the elements, of sounds (N, T) or (N, 2, T)."""
        self._rate = self.stage.fs_out
        self.fc = self.model.fc
        both = sounds if sounds.ndim == 3 else sounds.unsqueeze(1).expand(-1, 2, -1)
        adapted: Tensor = self.model.adapted(both.flatten(0, 1))  # type: ignore[operator]
        ears = adapted.reshape(*both.shape[:2], *adapted.shape[1:])
        frames = framed(ears, self.stage.frame)
        monaural = double_exponential(frames, 1.0 / self._rate, self.settings.monaural_window_s).transpose(1, 2)
        values = torch.cat([monaural, self.stage(ears)], dim=2)
        self.valid = torch.ones(values.shape[1:3], dtype=torch.bool, device=values.device)
        self.mfc = torch.zeros(values.shape[2], dtype=torch.float64, device=values.device)
        return values

    def _chosen(self, values: Tensor, reference: Tensor) -> Tensor:
        """Return both ears and, of each channel, the element that a reference (F, 2 + K, T') excites least.

        (N, F, 3, T') from ``values`` (N, F, 2 + K, T').
        The weight of an element's delay is not counted: it would make long delays look silent.
        """
        activity = reference[:, 2:].mean(dim=-1) / self.stage.weights.to(reference.dtype)
        best = 2 + activity.argmin(dim=1)
        channel = torch.arange(len(best), device=best.device)
        return torch.cat([values[:, :, :2], values[:, channel, best].unsqueeze(2)], dim=2)

    def _variance(self) -> Tensor:
        """Return the variance of the internal noise on one frame (1, 3, 1): of the ears and of the element."""
        ear, element = (self.noise[name] ** 2 * self.stage.fs_out for name in self.noise)
        return torch.tensor([ear, ear, element], dtype=torch.float64, device=self.model.device)[None, :, None]

    # -- calibration ---------------------------------------------------------------------------------------------------

    def calibrate(self) -> None:
        """Set the internal noises that are to be calibrated; taken from the cache if nothing changed."""
        from psysim import __version__

        tasks: dict[str, IntensityTask | DelayTask] = {
            "monaural_noise_std": IntensityTask(),
            "binaural_noise_std": DelayTask(),
        }
        common = {
            "observer": "binaural",
            "model": type(self.model).__name__,
            "model_parameters": self.model.parameters_dict(),
            "settings": {
                k: v for k, v in self.settings.model_dump().items() if k in ("delays_s", "gains_db", "frame_s")
            }
            | {"monaural_window_s": self.settings.monaural_window_s},
            "psysim": __version__,
            "code": code_digest(),
        }
        facts: dict[str, Any] = {}
        for name, task in tasks.items():
            if getattr(self.settings, name) != "calibrated":
                continue
            described = {**common, "noise": name, "task": asdict(task)}
            self.noise[name], _ = stored(described, partial(self._calibrated, name, task))
            facts[f"{name}_task"] = asdict(task)
        if facts:
            whole = len(facts) == len(tasks)
            status = "calibrated" if whole else "one internal noise calibrated, one given"
            self._calibration = {"status": status, **self.noise, **facts, **common}

    def _calibrated(self, name: str, task: IntensityTask | DelayTask) -> float:
        distance = torch.abs(erb_number(self.model.fc) - erb_number(task.frequency_hz))
        if float(distance.min()) > 1.0:
            raise CalibrationError(
                f"The model has no channel at {task.frequency_hz:g} Hz, so {name} cannot be calibrated: let its "
                f"channels include that frequency, or give {name}."
            )
        if isinstance(task, IntensityTask):
            levels = [0.0, task.jnd_db, task.template_increment_db]
            sounds = calibration_tones(self.model, task, [task.level_db_spl + x for x in levels])
        else:
            kind = stimuli.get("dichotic_tone")()
            values = torch.tensor([0.0, task.jnd_us, task.template_us], dtype=torch.float64)
            about = {k: getattr(task, k) for k in ("frequency_hz", "level_db_spl", "duration_s", "ramp_s")}
            sounds = kind.generate({**about, "itd_us": values}, Keys.make(0).to(self.model.device), self.model.fs)
        with torch.no_grad():
            values = self._represent(sounds.to(self.model.device, self.model.dtype)).double()
        part = values[:, :, :2] if isinstance(task, IntensityTask) else self._chosen(values, values[0])[:, :, 2:]
        difference = part[2] - part[0]
        mu = ((part[1] - part[0]) * difference).sum() / difference.square().sum().sqrt() / self._rate**0.5
        if not float(mu) > 0:
            raise CalibrationError(f"The observer does not hear the difference that is to calibrate {name}.")
        return float(mu) / task.d_prime

    # -- template ------------------------------------------------------------------------------------------------------

    def prepare(self, training: TrainingSounds) -> None:
        """Find mean, variance and weights for every condition.

        Raises
        ------
        CalibrationError
            If an internal noise is 0, or target and reference of a condition give the same representation.
        """
        if not all(value > 0 for value in self.noise.values()):
            raise CalibrationError("The observer 'binaural' has no internal noise yet: call calibrate() first.")
        level, (tokens, others) = self.template_level(training), self.template_tokens(training)
        templates, offsets = [], []
        for condition in range(training.n_conditions):
            references = self._tokens(training, condition, others, None)
            targets = self._tokens(training, condition, tokens, level)
            mean = references.mean(dim=0)
            weight = self._weights(self._chosen(targets, mean), self._chosen(references, mean))
            if weight is None:
                raise CalibrationError(
                    f"Condition {condition}: the representation of the target at template_level = {level:g} equals "
                    "that of the reference, so there is no template. Choose a clearly audible template_level."
                )
            templates.append(self._placed(weight, mean))
            offsets.append((templates[-1] * mean).sum())
        self.templates, self._offset = torch.stack(templates), torch.stack(offsets)
        self.internal_noise_std = 1.0  # in the unit of the decision variable
        sds = [0.0] * training.n_conditions
        if training.n_intervals == 1:
            sds = [self._reference_sd(training, condition, len(tokens)) for condition in range(len(sds))]
        self._criterion = self.settings.criterion_sd * torch.tensor(sds, dtype=torch.float64, device=self.model.device)

    def _tokens(self, training: TrainingSounds, condition: int, tokens: range, level: float | None) -> Tensor:
        """Return the representations (N, F, 2 + K, T') of training tokens; level None: references."""
        token = torch.tensor(tokens, device=self.model.device)
        index = torch.full_like(token, condition)
        sounds = training.reference(index, token) if level is None else training.target(index, token, level)
        with torch.no_grad():
            return torch.cat([self._represent(part).double() for part in torch.split(sounds, self._chunk(sounds))])

    def _weights(self, targets: Tensor, references: Tensor) -> Tensor | None:
        """Return the weights (F, 3, T') from representations (N, F, 3, T') of tokens; None if nothing differs."""
        internal, n = self._variance(), len(references)
        spread = references.var(dim=0) if n > 1 else torch.zeros_like(references[0])
        weight = (targets.mean(dim=0) - references.mean(dim=0)) / (spread + internal)
        kinds = torch.zeros(2, *weight.shape, dtype=torch.float64, device=weight.device)
        kinds[0, :, :2], kinds[1, :, 2:] = weight[:, :2], weight[:, 2:]
        kinds = kinds[kinds.flatten(1).square().sum(dim=1) > 0]
        if len(kinds) == 0 or not bool(kinds.isfinite().all()):
            return None
        sums = [(x.unsqueeze(1) * kinds).sum(dim=(2, 3, 4)) for x in (targets, references)]  # (N, kinds)
        noise = torch.diag((kinds.square() * internal).sum(dim=(1, 2, 3)))
        covariance = noise + (torch.cov(sums[1].T).reshape(noise.shape) if n > 1 else 0.0)
        size = covariance.diagonal().sqrt()  # scaled: the two kinds differ by orders of magnitude
        factor = (
            torch.linalg.solve(covariance / size / size[:, None], (sums[0].mean(0) - sums[1].mean(0)) / size) / size
        )
        combined = (factor[:, None, None, None] * kinds).sum(dim=0)
        scale = (combined.square() * internal).sum().sqrt()
        return combined / scale if bool(scale > 0) else None

    def _placed(self, weight: Tensor, reference: Tensor) -> Tensor:
        """Return weights (F, 3, T') in the places of the whole representation (F, 2 + K, T')."""
        positions = torch.arange(reference.shape[1], dtype=torch.float64, device=reference.device)
        which = self._chosen(positions[None, None, :, None].expand(1, len(reference), -1, 1), reference)[0, :, :, 0]
        whole = torch.zeros_like(reference)
        whole.scatter_(1, which.to(torch.int64)[:, :, None].expand_as(weight), weight)
        return whole

    # -- decision ------------------------------------------------------------------------------------------------------

    def decision_variable(self, intervals: Tensor, condition: Tensor) -> Tensor:
        """Return the weighted sum less that of the mean reference for every interval (B, I), float64.

        ``intervals`` are (B, I, T) or (B, I, 2, T).
        """
        sounds, index = flat(intervals, condition)
        size = self._chunk(sounds)
        parts = [self._weighted(x, i) for x, i in zip(torch.split(sounds, size), torch.split(index, size), strict=True)]
        return torch.cat(parts).reshape(intervals.shape[:2])

    def _chunk(self, sounds: Tensor) -> int:
        """Return how many sounds the memory allows at once."""
        samples = sounds.shape[-1] * len(self.model.fc) * (10 + 3 * len(self.stage.shifts))
        return int(max(1, template.CHUNK_BYTES // (4 * samples)))

    def _weighted(self, sounds: Tensor, index: Tensor) -> Tensor:
        values = self._represent(sounds).double()
        return ops.template_product(values.flatten(1), self.templates.flatten(1), index) - self._offset[index]
