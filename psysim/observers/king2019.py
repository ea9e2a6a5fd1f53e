"""The observer of King et al. (2019): a template, and three internal noises on the representation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic
import torch
from torch import Tensor

from psysim import ops
from psysim.errors import SpecError
from psysim.models.base import Model
from psysim.models.king2019 import King2019
from psysim.observers.base import ObserverSettings, TrainingSounds, number_or, register
from psysim.observers.template import TemplateObserver, TemplateSettings, flat

__all__ = ["King2019Observer"]

PUBLISHED_REFERENCE_DB = 3.0
"""Level in dB SPL of an rms of 1 in the unit of the published noises (a sine of amplitude 1 is 0 dB SPL)."""

PUBLISHED_ADDITIVE, PUBLISHED_MEMORY = 425.0, 50.0

NOISE_SETTINGS = {"additive_noise_std", "multiplicative_noise_db", "memory_noise_std", "memory_tau_s"}

NOISE_RATE_HZ = 16000.0
"""Rate of the representation to which standard deviations per sample belong."""


@register("king2019")
class King2019Observer(TemplateObserver):
    """Template matching on a representation with additive, multiplicative and memory noise.

    Every sample of every filter's output gets three independent Gaussian noises: one of constant standard deviation;
    one whose rms is a fixed fraction of the rms of that output; one that grows towards the past as
    ``exp(time before the end / memory_tau_s)``. The decision variable is the inner product of the noisy
    representation (minus the mean reference) with the template; the largest wins.

    The noises are not drawn sample by sample: their inner product with the template is one Gaussian number per
    interval, whose variance follows from the template and the energy of each filter's output. For the first and the
    third noise that is exact. The second is normalised to its rms in the published code, so that its inner product is
    only nearly Gaussian: the variance is exact, the excess kurtosis between -6 / (number of samples) and 0.

    Standard deviations per sample belong to a representation at 16 kHz. At another rate they are scaled with the square
    root of the rate, which keeps the noise's density and so the thresholds.

    The published noise levels were fitted to listeners together with the template procedure of the authors, which is
    not published in detail; this observer is a reconstruction of it.

    References
    ----------
    King, Varnet and Lorenzi (2019), J. Acoust. Soc. Am. 145, 2277-2293. Wallaert, Moore, Ewert and Lorenzi (2017),
    J. Acoust. Soc. Am. 141, 971-980 (the three noises).
    """

    class Settings(TemplateSettings):
        """Settings of the observer of King et al. (2019)."""

        additive_noise_std: Annotated[float | Literal["published"], number_or("published")] = pydantic.Field(
            default="published",
            description="standard deviation per sample at 16 kHz of the noise on every filter's output, in the unit of "
            "the representation; published: 425 in the unit in which a sine of amplitude 1 is 0 dB SPL",
        )
        multiplicative_noise_db: float = pydantic.Field(
            default=1.0,
            ge=0,
            le=20,
            description="level in dB of output plus multiplicative noise, added in phase, over output: 1 dB is a noise "
            "of 0.122 times the output's rms",
        )
        memory_noise_std: Annotated[float | Literal["published"], number_or("published")] = pydantic.Field(
            default="published",
            description="standard deviation per sample at 16 kHz of the memory noise at the end of the sound, in the "
            "unit of the representation; published: 50 in the unit of the additive noise",
        )
        memory_tau_s: float = pydantic.Field(
            default=1.2, gt=0, description="time in seconds over which the memory noise grows by the factor e"
        )

    description = "template of supra-threshold minus reference representations; additive, multiplicative, memory noise"
    settings: King2019Observer.Settings

    def __init__(self, settings: ObserverSettings, model: Model | None = None) -> None:
        super().__init__(settings, model)
        self.additive_noise_std = self._in_unit_of_model("additive_noise_std", PUBLISHED_ADDITIVE)
        self.memory_noise_std = self._in_unit_of_model("memory_noise_std", PUBLISHED_MEMORY)
        self._constant = self._energy = torch.empty(0)

    def _in_unit_of_model(self, name: str, published: float) -> float:
        given: float | str = getattr(self.settings, name)
        if not isinstance(given, str):
            return given
        if not isinstance(self.model, King2019):
            raise SpecError(
                f"{name} = 'published' is in the unit of king2019's representation; {type(self.model).__name__} has "
                "another. Allowed here: a number of at least 0, in the unit of its representation."
            )
        return published * 10 ** ((PUBLISHED_REFERENCE_DB - self.model.dboffset) / 20)

    @property
    def calibration(self) -> dict[str, Any]:
        """How the internal noise was set: facts for the result's provenance."""
        changed = self.settings.model_dump(exclude_defaults=True).keys() & NOISE_SETTINGS
        return {
            "status": "given" if changed else "published internal noise",
            "additive_noise_std": self.additive_noise_std,
            "multiplicative_noise_db": self.settings.multiplicative_noise_db,
            "memory_noise_std": self.memory_noise_std,
            "memory_tau_s": self.settings.memory_tau_s,
        }

    def prepare(self, training: TrainingSounds) -> None:
        """Build the template of every condition.

        Raises
        ------
        CalibrationError
            If target and reference representations of a condition are equal, so that no template exists.
        """
        self._noise: list[tuple[Tensor, Tensor]] = []
        super().prepare(training)

    def weights(self, template: Tensor, condition: int) -> Tensor:
        """Return the unit-energy template, and note what it makes of the three noises."""
        n_samples = template.shape[-1]
        squares = template.square()
        before_end = torch.arange(n_samples, 0, -1, dtype=torch.float64, device=template.device) / self._rate
        growth = torch.exp(2.0 * before_end / self.settings.memory_tau_s)
        constant = self.additive_noise_std**2 + self.memory_noise_std**2 * (squares.sum((0, 1)) * growth).sum()
        factor = 10 ** (self.settings.multiplicative_noise_db / 20) - 1
        self._noise.append((constant / NOISE_RATE_HZ, factor**2 * squares.sum(-1) / (n_samples * NOISE_RATE_HZ)))
        self._constant, self._energy = (torch.stack(parts) for parts in zip(*self._noise, strict=True))
        return template

    def evaluate(self, intervals: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Return the decision variable and the standard deviation of its internal noise for every interval (B, I)."""
        sounds, index = flat(intervals, condition)
        products, energies = self._products_and_energies(sounds, index)
        variance = self._constant[index] + ops.template_product(energies, self._energy.flatten(1), index)
        values = self._density(products, index)
        return values.reshape(intervals.shape[:2]), variance.sqrt().reshape(intervals.shape[:2])

    def _products_and_energies(self, sounds: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return <R(x), template> (N,) and the energy of every filter's output (N, F M)."""
        moments = self.model.products(sounds, self.templates.unsqueeze(1), index, moments=True)
        if moments is not None:
            values = moments[..., 0].flatten(1)
            total = ops.template_product(values, torch.ones_like(values[:1]), torch.zeros_like(index))
            return total, moments[..., 2].flatten(1)
        products, energies = [], []
        for rows, values in self._in_chunks(sounds):
            outputs = values.flatten(0, 2)
            own = torch.arange(len(outputs), device=outputs.device)
            products.append(ops.template_product(values.flatten(1), self.templates.flatten(1), index[rows]))
            energies.append(ops.template_product(outputs, outputs, own).reshape(len(values), -1))
        return torch.cat(products), torch.cat(energies)
