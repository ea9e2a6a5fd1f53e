"""The interface of an auditory model: sound in, internal representation out."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from psysim import ops
from psysim.errors import SpecError
from psysim.ops.steps import Step
from psysim.registry import Registry
from psysim.stages.base import AuditoryModule

__all__ = ["Model", "Representation", "register", "registry"]

BUILTIN = (
    "psysim.models.dau1997",
    "psysim.models.glasberg2002",
    "psysim.models.king2019",
    "psysim.models.moore2016",
    "psysim.models.osses2021",
    "psysim.models.paulick2024",
    "psysim.models.saddler2024",
    "psysim.models.saddler2025",
)

registry: Registry[type[Model]] = Registry("model", "psysim.models", BUILTIN)
register = registry.register


@dataclass(frozen=True)
class Representation:
    """Internal representation of a batch of sounds, dense, with its axes.

    Attributes
    ----------
    values : Tensor (B, F, M, T)
        Output in the model's unit; 0 where a filter is absent.
    valid : Tensor (F, M) of bool
        Which modulation filters an auditory channel has.
    fc : Tensor (F,)
        Centre frequencies of the auditory channels, Hz, float64.
    mfc : Tensor (M,)
        Centre frequencies of the modulation filters, Hz, float64.
    fs : float
        Rate of the time axis, Hz.
    """

    values: Tensor
    valid: Tensor
    fc: Tensor
    mfc: Tensor
    fs: float


class Model(AuditoryModule, ABC):
    """An auditory model.

    A model takes sound in pascal, keeps no state from one call to the next, and treats every row of a batch on its own:
    a row's output is bitwise the same whatever rows are beside it. Fixed constants are float64 buffers; with
    ``learnable=True`` they are parameters.
    """

    @property
    @abstractmethod
    def fc(self) -> Tensor:
        """Auditory centre frequencies (F,), Hz, float64."""

    @abstractmethod
    def forward(self, audio: Tensor) -> Any:
        """Return the documented public output of the model for ``audio`` (T,) or (B, T) in pascal."""

    @abstractmethod
    def represent(self, audio: Tensor) -> Representation:
        """Return the dense internal representation of ``audio`` (B, T) in pascal; (T,) counts as one row."""

    def parameters_dict(self) -> dict[str, Any]:
        """Return the constructor arguments as JSON-able values; ``type(model)(**arguments)`` is the model's twin.

        Every model keeps its arguments as attributes of the same names.
        """
        return {name: jsonable(getattr(self, name)) for name in inspect.signature(type(self)).parameters}

    @abstractmethod
    def bytes_per_interval(self, n_samples: int) -> int:
        """Return an estimate of the memory in bytes that `represent` needs at its peak per row of ``n_samples``."""

    def fused(self, audio: Tensor) -> tuple[Tensor, list[Step]] | None:
        """Return what enters a chain of steps and the steps that make the representation of it, or None.

        Parameters
        ----------
        audio : Tensor (B, T)
            Sound in pascal.

        Returns
        -------
        Tensor (B, T) or (B, F, T), list of Step
            For `psysim.ops.chain_products`. None if a stage needs the whole sound at once (an FFT, a Hilbert envelope)
            after the filterbank: the default.
        """
        return None

    def products(self, audio: Tensor, templates: Tensor, index: Tensor, moments: bool = False) -> Tensor | None:
        """Return inner products of representations with templates without the representations in memory, or None.

        Parameters
        ----------
        audio : Tensor (B, T)
            Sound in pascal.
        templates : Tensor (C, K, F, M, T')
            K templates for each of C conditions.
        index : Tensor (B,)
            Condition of each row.
        moments : bool
            Also the sum and the sum of squares of the representation over time.

        Returns
        -------
        Tensor (B, F, M, K) or (B, F, M, K + 2)
            float64. None if a gradient is wanted, or if the model cannot run in one pass: `represent` and
            `psysim.ops.template_product` do it then.
        """
        if self._gradient_wanted(audio, templates):
            return None
        with torch.no_grad():
            chain = self.fused(audio)
            return None if chain is None else ops.chain_products(*chain, templates, index, moments)

    def _one_pass(self, audio: Tensor) -> Tensor | None:
        """Return the dense representation of ``audio`` (B, T) in one pass, or None: gradient wanted, or no chain."""
        if self._gradient_wanted(audio):
            return None
        with torch.no_grad():
            chain = self.fused(audio)
            return None if chain is None else ops.chain_forward(*chain)

    def _gradient_wanted(self, *inputs: Tensor) -> bool:
        return torch.is_grad_enabled() and any(t.requires_grad for t in (*inputs, *self.parameters()))

    def restricted(self, frequency_hz: float) -> Self:
        """Return the same model with the one auditory channel at ``frequency_hz``, on the same device.

        Raises
        ------
        SpecError
            If the model has no such form.
        """
        raise SpecError(f"{type(self).__name__} cannot be restricted to one channel at {frequency_hz:g} Hz.")


def jsonable(value: Any) -> Any:
    """Return ``value`` with tensors as lists, dtypes as names and mappings as dicts."""
    if isinstance(value, Tensor):
        return value.detach().cpu().tolist()
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, dict):
        return {key: jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy scalars and arrays
        return value.tolist()
    return value
