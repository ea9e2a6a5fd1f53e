"""What template-matching observers share: training, templates of all conditions, inner products."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

import pydantic
import torch
from torch import Tensor

from psysim import ops
from psysim.errors import CalibrationError, SpecError
from psysim.observers.base import Observer, ObserverSettings, TrainingSounds

if TYPE_CHECKING:
    from psysim.models.base import Model

__all__ = ["CHUNK_BYTES", "TemplateObserver", "TemplateSettings", "token_means"]

#: Bytes of working memory that one chunk of intervals may use inside the model.
CHUNK_BYTES = 512 * 2**20


class TemplateSettings(ObserverSettings):
    """Settings of every template-matching observer."""

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
    criterion_sd: float = pydantic.Field(
        default=0.5,
        description="yes/no criterion, in standard deviations of the decision variable of reference intervals",
    )


def token_means(
    training: TrainingSounds,
    level: float | None,
    tokens: range,
    analyse: Callable[[Tensor], Tensor],
    model: Model,
) -> Iterator[Tensor]:
    """Yield the mean of ``analyse(sound)`` over training tokens, condition by condition.

    The sounds of all conditions go through in common batches, as many at once as `CHUNK_BYTES` allows; each sum is
    taken token by token, so that it does not depend on that.

    Parameters
    ----------
    training : TrainingSounds
    level : float or None
        Level of the targets; None: references.
    tokens : range
        Training tokens of each condition.
    analyse : callable
        From sounds (K, T) to a tensor (K, ...).
    model : Model
        The model behind ``analyse``: its device, and its memory per sound.

    Yields
    ------
    Tensor (...)
        float64.
    """
    first = torch.zeros(1, dtype=torch.int64, device=model.device)
    n_samples = training.reference(first, first).shape[-1]
    chunk = max(1, CHUNK_BYTES // model.bytes_per_interval(n_samples))
    pairs = torch.cartesian_prod(torch.arange(training.n_conditions), torch.tensor(tokens)).to(model.device)
    total = wide = torch.empty(0)
    for start in range(0, len(pairs), chunk):
        condition, token = pairs[start : start + chunk].unbind(1)
        sounds = training.reference(condition, token) if level is None else training.target(condition, token, level)
        with torch.no_grad():
            values = analyse(sounds)
        for row, value in enumerate(values, start):
            if row % len(tokens) == 0:
                total = torch.zeros_like(value, dtype=torch.float64)
                wide = torch.empty_like(total) if wide.shape != total.shape else wide
            total += wide.copy_(value)  # into memory that is there: fresh pages cost four times as much as the sum
            if row % len(tokens) == len(tokens) - 1:
                yield total.div_(len(tokens))


class TemplateObserver(Observer):
    """Inner product of the representation with a template of every condition.

    The template is the mean representation of supra-threshold targets minus that of references, scaled to unit energy;
    the decision variable is the inner product with the representation minus the mean reference, over the square root
    of the representation's rate (density form). That is the same number as with a template of energy ``rate`` and a
    division by ``rate``.

    Parameters
    ----------
    settings : TemplateSettings
    model : Model

    Attributes
    ----------
    templates : Tensor (C, F, M, T')
        One per condition, after `prepare`.
    fc, mfc, valid : Tensor (F,), (M,), (F, M)
        Axes of the representation, after `prepare`.
    internal_noise_std : float
        Standard deviation of the internal noise on the decision variable.

    Raises
    ------
    SpecError
        If there is no model.
    """

    settings: TemplateSettings
    model: Model

    def __init__(self, settings: ObserverSettings, model: Model | None = None) -> None:
        if model is None:
            raise SpecError(
                f'{type(self).__name__} needs an auditory model: add model = "dau1997" (or another) to the observer.'
            )
        super().__init__(settings, model)
        self.internal_noise_std = 0.0
        self.templates = torch.empty(0)
        self.fc = self.mfc = torch.empty(0)
        self.valid = torch.empty(0, dtype=torch.bool)
        self._offset = torch.empty(0)
        self._criterion = torch.empty(0)
        self._rate = 0.0

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
        level, (tokens, others) = self.template_level(training), self.template_tokens(training)
        targets = token_means(training, level, tokens, self._represent, self.model)
        references = token_means(training, None, others, self._represent, self.model)
        templates, offsets = [], []
        for condition, (target, reference) in enumerate(zip(targets, references, strict=True)):
            difference = target.sub_(reference)
            energy = difference.square().sum().sqrt()
            if not (torch.isfinite(energy) and energy > 0):
                raise CalibrationError(
                    f"Condition {condition}: the representation of the target at template_level = {level:g} equals "
                    "that of the reference, so there is no template. Choose a clearly audible template_level."
                )
            template = self.weights(difference.div_(energy), condition).to(self.model.dtype)
            offsets.append((template * reference).sum())
            templates.append(template)
        self.templates, self._offset = torch.stack(templates), torch.stack(offsets)
        sds = [0.0] * training.n_conditions
        if training.n_intervals == 1:
            sds = [self._reference_sd(training, condition, len(tokens)) for condition in range(len(sds))]
        self._criterion = self.settings.criterion_sd * torch.tensor(sds, dtype=torch.float64, device=self.model.device)

    def template_level(self, training: TrainingSounds) -> float:
        """Return the supra-threshold level of the template: as set, or the start of the track."""
        return training.start_level if self.settings.template_level is None else self.settings.template_level

    def template_tokens(self, training: TrainingSounds) -> tuple[range, range]:
        """Return the training tokens of targets and of references."""
        n = 1 if training.frozen else self.settings.template_tokens
        shared = training.frozen or self.settings.template_pairing == "paired"
        return range(n), range(n) if shared else range(n, 2 * n)

    def weights(self, template: Tensor, condition: int) -> Tensor:
        """Return what representations are multiplied with, (F, M, T'): the unit-energy template itself by default.

        Parameters
        ----------
        template : Tensor (F, M, T')
            Unit energy, float64.
        condition : int
        """
        return template

    def _represent(self, sounds: Tensor) -> Tensor:
        representation = self.model.represent(sounds)
        self._rate, self.valid = representation.fs, representation.valid
        self.fc, self.mfc = representation.fc, representation.mfc
        return representation.values

    def _reference_sd(self, training: TrainingSounds, condition: int, n_tokens: int) -> float:
        """Return the standard deviation of the decision variable of reference intervals, internal noise included."""
        token = torch.arange(2 * n_tokens, 3 * n_tokens, device=self.model.device)
        index = torch.full_like(token, condition)
        with torch.no_grad():
            values, std = self.evaluate(training.reference(index, token)[:, None], index)
        external = float(values.var()) if n_tokens > 1 else 0.0
        return float((external + float(std.square().mean())) ** 0.5)

    # -- decision ------------------------------------------------------------------------------------------------

    def decision_variable(self, intervals: Tensor, condition: Tensor) -> Tensor:
        """Return <R(x) - mean R(reference), template> / sqrt(rate) for every interval, (B, I), in float64."""
        sounds, index = flat(intervals, condition)
        return self._density(self._products(sounds, index), index).reshape(intervals.shape[:2])

    def _density(self, products: Tensor, index: Tensor) -> Tensor:
        return (products - self._offset[index]) / self._rate**0.5

    def _products(self, sounds: Tensor, index: Tensor) -> Tensor:
        """Return <R(x), template> of every sound (N,): in one pass if the model can, else by way of R(x)."""
        per_filter = self.model.products(sounds, self.templates.unsqueeze(1), index)
        if per_filter is not None:
            values = per_filter.flatten(1)
            return ops.template_product(values, torch.ones_like(values[:1]), torch.zeros_like(index))
        templates = self.templates.flatten(1)
        return torch.cat(
            [
                ops.template_product(values.flatten(1), templates, index[rows])
                for rows, values in self._in_chunks(sounds)
            ]
        )

    def _in_chunks(self, sounds: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield rows and their representations (K, F, M, T'), as many at once as the memory allows."""
        chunk = max(1, CHUNK_BYTES // self.model.bytes_per_interval(sounds.shape[-1]))
        for start in range(0, len(sounds), chunk):
            rows = slice(start, start + chunk)
            yield rows, self.model.represent(sounds[rows]).values


def flat(intervals: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sounds of intervals (B, I, T) as (B I, T), and the condition (B I,) of each."""
    return intervals.flatten(0, 1), condition.repeat_interleave(intervals.shape[1])
