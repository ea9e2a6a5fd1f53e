"""The observer of fastACI: every interval is compared with a template of the target and with one of the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pydantic
import torch
from torch import Tensor

from psysim.errors import CalibrationError, SpecError
from psysim.observers.base import ObserverSettings, TrainingSounds, register
from psysim.observers.template import CHUNK_BYTES, TemplateObserver, TemplateSettings, token_means

if TYPE_CHECKING:
    from psysim.models.base import Model

__all__ = ["TwoTemplates", "two_template_correlations", "two_template_gain"]


def two_template_gain(target: Tensor, reference: Tensor, rate: float) -> Tensor:
    """Return the factor that gives two templates the mean energy ``rate``: sqrt(2 rate / (|target|^2 + |reference|^2)).

    Parameters
    ----------
    target, reference : Tensor
        Mean representations of the same shape, model units.
    rate : float
        Sampling rate of the representation, Hz.

    Returns
    -------
    Tensor ()
        float64.

    Raises
    ------
    SpecError
        If the shapes differ, or both templates are zero or one is not finite.

    References
    ----------
    Osses and Varnet (2021 on), fastACI toolbox (facts read in its public code).

    Examples
    --------
    >>> two_template_gain(torch.tensor([3.0, 0.0]), torch.tensor([0.0, 4.0]), 50.0)
    tensor(2., dtype=torch.float64)
    """
    if target.shape != reference.shape:
        raise SpecError(
            f"The templates have shapes {tuple(target.shape)} and {tuple(reference.shape)}, which must be the same."
        )
    energy = 0.5 * (target.to(torch.float64).square().sum() + reference.to(torch.float64).square().sum())
    if not (torch.isfinite(energy) and energy > 0):
        raise SpecError("The templates of target and reference must be finite and not both zero.")
    return (rate / energy).sqrt()


def two_template_correlations(x: Tensor, target: Tensor, reference: Tensor, rate: float) -> Tensor:
    """Return the correlation of representations with the template of the target and that of the reference.

    Parameters
    ----------
    x : Tensor (..., F, M, T)
        Representations, model units; nothing is subtracted.
    target, reference : Tensor (F, M, T)
        Mean representations of supra-threshold targets and of references, model units; scaled here by the common
        `two_template_gain`.
    rate : float
        Sampling rate of the representation, Hz.

    Returns
    -------
    Tensor (..., 2)
        float64: sum (x template) / rate, first with the target's template. An answer "target" needs the difference of
        the two to reach the criterion.

    Raises
    ------
    SpecError
        As `two_template_gain`.

    Examples
    --------
    >>> target, reference = torch.tensor([[[3.0, 0.0]]]), torch.tensor([[[0.0, 4.0]]])
    >>> two_template_correlations(target, target, reference, 50.0)
    tensor([0.3600, 0.0000], dtype=torch.float64)
    """
    gain = two_template_gain(target, reference, rate)
    templates = torch.stack([target, reference]).to(torch.float64)
    product = (x.to(torch.float64).unsqueeze(-4) * templates).sum(dim=(-3, -2, -1))
    return gain / rate * product


@register("two_templates")
class TwoTemplates(TemplateObserver):
    """Comparison with a template of the target and one of the reference (fastACI).

    Both templates are mean representations, not differences, with one common factor that gives them the mean energy
    ``rate``. The decision variable of an interval is its correlation (inner product over ``rate``) with the target's
    template minus that with the reference's. In a yes/no task the answer is "target" if it exceeds a criterion:

    * ``rule = "criterion"`` (published default): the median of the decision variable of ``criterion_tokens``
      references, so that half of the answers to trials far below threshold are "target". The published procedure takes
      the median of the first 400 such trials and then corrects it in steps until 46 to 54 % are.
    * ``rule = "larger"``: 0, that is, the larger of the two correlations.

    With several intervals the largest decision variable wins, whatever the criterion.

    References
    ----------
    Osses and Varnet (2021 on), fastACI toolbox (facts read in its public code). Osses and Kohlrausch (2021), J. Acoust.
    Soc. Am. 149, 3534-3552 (two templates with several intervals).
    """

    class Settings(TemplateSettings):
        """Settings of the observer with two templates."""

        rule: Literal["criterion", "larger"] = pydantic.Field(
            default="criterion",
            description="yes/no tasks: criterion (median of references, published) or larger (of the two correlations)",
        )
        internal_noise_std: float = pydantic.Field(
            default=0.0,
            ge=0,
            description="standard deviation of the internal noise on each of the two correlations, in their unit "
            "(model units times s^0.5); published: 3.14 for osses2021 (2021), 0 for other models",
        )
        criterion_tokens: int = pydantic.Field(
            default=400,
            ge=1,
            le=100_000,
            description="yes/no tasks with rule = 'criterion': number of references whose median is the criterion",
        )
        criterion_sd: float = pydantic.Field(
            default=0.0,
            description="yes/no tasks: what is added to the criterion, in standard deviations of the decision variable "
            "of reference intervals; published: 0",
        )

    description = "correlation with a template of the target minus that with one of the reference; given internal noise"
    settings: TwoTemplates.Settings

    def __init__(self, settings: ObserverSettings, model: Model | None = None) -> None:
        super().__init__(settings, model)
        self.internal_noise_std = 2**0.5 * self.settings.internal_noise_std  # on the difference of two correlations
        self._scale = torch.empty(0)

    @property
    def calibration(self) -> dict[str, Any]:
        """How the internal noise was set: facts for the result's provenance."""
        return {"status": "given", "internal_noise_std": self.settings.internal_noise_std, "rule": self.settings.rule}

    def prepare(self, training: TrainingSounds) -> None:
        """Build both templates of every condition, and the criterion of a yes/no task.

        Raises
        ------
        CalibrationError
            If target and reference representations of a condition are equal, so that no answer is possible.
        """
        level, (tokens, others) = self.template_level(training), self.template_tokens(training)
        targets = token_means(training, level, tokens, self._represent, self.model)
        references = token_means(training, None, others, self._represent, self.model)
        templates, scales = [], []
        for condition, (target, reference) in enumerate(zip(targets, references, strict=True)):
            gain = two_template_gain(target, reference, self._rate)
            difference = target - reference
            size = difference.square().sum().sqrt()
            if not size > 0:
                raise CalibrationError(
                    f"Condition {condition}: the representation of the target at template_level = {level:g} equals "
                    "that of the reference, so the two templates are one. Choose a clearly audible template_level."
                )
            templates.append((difference / size).to(self.model.dtype))
            scales.append(gain * size / self._rate)
        self.templates, self._scale = torch.stack(templates), torch.stack(scales)
        self._criterion = torch.zeros(training.n_conditions, dtype=torch.float64, device=self.model.device)
        if training.n_intervals == 1:
            first = max(tokens.stop, others.stop)
            rows = [self._criterion_of(training, condition, first) for condition in range(training.n_conditions)]
            self._criterion = torch.stack(rows)

    def _criterion_of(self, training: TrainingSounds, condition: int, first: int) -> Tensor:
        """Return the yes/no criterion of a condition, from reference tokens that no template has used."""
        n = 1 if training.frozen else self.settings.criterion_tokens
        values = []
        samples = training.reference(*torch.zeros(2, 1, dtype=torch.int64, device=self.model.device)).shape[-1]
        chunk = max(1, CHUNK_BYTES // self.model.bytes_per_interval(samples))
        for start in range(first, first + n, chunk):
            token = torch.arange(start, min(start + chunk, first + n), device=self.model.device)
            index = torch.full_like(token, condition)
            with torch.no_grad():
                values.append(self.decision_variable(training.reference(index, token)[:, None], index)[:, 0])
        reference = torch.cat(values).to(torch.float64)
        middle = reference.quantile(0.5) if self.settings.rule == "criterion" else torch.zeros_like(reference[0])
        external = reference.var() if n > 1 else torch.zeros_like(middle)
        return middle + self.settings.criterion_sd * (external + self.internal_noise_std**2).sqrt()

    def _density(self, products: Tensor, index: Tensor) -> Tensor:
        return products * self._scale[index]
