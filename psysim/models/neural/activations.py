"""Static output nonlinearities with learnt parameters per neuron; the neurons are the last axis."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from psysim.errors import check_option
from psysim.models.neural.causal import uniform

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "ParametricDoubleExponential",
    "ParametricSigmoid",
    "ParametricSoftplus",
    "make_activation",
]

Range = tuple[float, float]


class Activation(nn.Module, ABC):
    """A nonlinearity with parameters per neuron.

    Parameters
    ----------
    n_neurons : int
        Size of the last axis.
    non_negative_output : bool
        Pass amplitude and baseline through softplus, so that the response cannot be negative. Their raw parameters are
        then not the amplitude and the baseline themselves.
    bias : bool
        Whether there is a baseline. `ParametricSoftplus` always has one.
    """

    ranges: ClassVar[dict[str, tuple[Range, Range]]]
    """Initial range of each parameter: with ``non_negative_output``, without."""

    def __init__(self, n_neurons: int, non_negative_output: bool = True, bias: bool = True) -> None:
        super().__init__()
        self.non_negative_output, self.bias = non_negative_output, bias
        for name in self.ranges:
            present = bias or name != self.baseline
            self.register_parameter(name, nn.Parameter(torch.empty(n_neurons)) if present else None)

    @property
    def baseline(self) -> str | None:
        """Name of the parameter that ``bias=False`` leaves out."""
        return None

    def initialise(self, generator: torch.Generator) -> None:
        """Draw new parameters."""
        for name, ranges in self.ranges.items():
            parameter = getattr(self, name)
            if parameter is not None:
                uniform(parameter, *ranges[0 if self.non_negative_output else 1], generator)

    def _amplitude(self, raw: Tensor | None) -> Tensor | float:
        if raw is None:
            return 0.0
        return F.softplus(raw) if self.non_negative_output else raw

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return the response (..., N) to the drive ``x`` (..., N)."""


class ParametricSigmoid(Activation):
    """Logistic function b sigmoid((x - c) / d) + a, Willmore et al. (2016).

    Parameters
    ----------
    n_neurons : int
        Size of the last axis.
    non_negative_output : bool
        Pass a and b through softplus.
    bias : bool
        Whether there is the baseline a.
    """

    ranges: ClassVar[dict[str, tuple[Range, Range]]] = {
        "c": ((-0.5, 0.5), (-0.5, 0.5)),
        "d": ((0.5, 1.5), (0.5, 1.5)),
        "_raw_b": ((-0.43, 1.40), (0.5, 1.5)),
        "_raw_a": ((-1.43, 0.43), (0.0, 1.0)),
    }
    c: Tensor
    d: Tensor
    _raw_b: Tensor
    _raw_a: Tensor | None

    @property
    def baseline(self) -> str:
        """Name of the parameter that ``bias=False`` leaves out."""
        return "_raw_a"

    def forward(self, x: Tensor) -> Tensor:
        """Return the response (..., N) to the drive ``x`` (..., N)."""
        return self._amplitude(self._raw_b) * torch.sigmoid((x - self.c) / self.d) + self._amplitude(self._raw_a)


class ParametricDoubleExponential(Activation):
    """Gompertz function a exp(-exp(k x - s)) + b, Thorson et al. (2015); it falls with x where k > 0.

    Parameters
    ----------
    n_neurons : int
        Size of the last axis.
    non_negative_output : bool
        Pass a and b through softplus.
    bias : bool
        Whether there is the baseline b.
    """

    ranges: ClassVar[dict[str, tuple[Range, Range]]] = {
        "k": ((-0.5, 0.5), (-0.5, 0.5)),
        "s": ((0.5, 1.5), (0.5, 1.5)),
        "_raw_a": ((-0.43, 1.40), (0.5, 1.5)),
        "_raw_b": ((-1.43, 0.43), (0.0, 1.0)),
    }
    k: Tensor
    s: Tensor
    _raw_a: Tensor
    _raw_b: Tensor | None

    @property
    def baseline(self) -> str:
        """Name of the parameter that ``bias=False`` leaves out."""
        return "_raw_b"

    def forward(self, x: Tensor) -> Tensor:
        """Return the response (..., N) to the drive ``x`` (..., N)."""
        return self._amplitude(self._raw_a) * torch.exp(-torch.exp(self.k * x - self.s)) + self._amplitude(self._raw_b)


class _Softplus(torch.autograd.Function):
    """softplus(beta x) / beta + b with half the passes that its parts would take."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, beta: Tensor, b: Tensor) -> Tensor:
        drive = x * beta
        # By default torch's softplus is the identity from 20 on, 2e-9 off; from 40 on it is so in float64 as well.
        soft = F.softplus(drive, threshold=40)
        ctx.save_for_backward(drive, soft, beta)
        return torch.addcdiv(b, soft, beta)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        drive, soft, beta = ctx.saved_tensors
        slope = torch.sigmoid(drive).mul_(grad)
        others = tuple(range(grad.ndim - 1))
        of_beta = ((slope * drive).sub_(grad * soft)).sum(others) / beta**2
        return slope, of_beta, grad.sum(others)


_softplus: Any = _Softplus.apply


class ParametricSoftplus(Activation):
    """Smooth rectifier softplus(beta x) / beta + b.

    Parameters
    ----------
    n_neurons : int
        Size of the last axis.
    non_negative_output : bool
        Pass b through softplus; beta always is.
    bias : bool
        Has no effect: there is always a baseline.
    """

    ranges: ClassVar[dict[str, tuple[Range, Range]]] = {
        "_raw_beta": ((5.0, 6.0), (5.0, 6.0)),
        "_raw_b": ((-5.0, -3.0), (-0.1, 0.1)),
    }
    _raw_beta: Tensor
    _raw_b: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Return the response (..., N) to the drive ``x`` (..., N)."""
        return _softplus(x, F.softplus(self._raw_beta), self._amplitude(self._raw_b))


ACTIVATIONS: dict[str, type[Activation]] = {
    "sigmoid": ParametricSigmoid,
    "double_exponential": ParametricDoubleExponential,
    "softplus": ParametricSoftplus,
}


def make_activation(kind: str | None, n_neurons: int, non_negative_output: bool = True) -> nn.Module:
    """Return an output nonlinearity by name.

    Parameters
    ----------
    kind : {"sigmoid", "double_exponential", "softplus"} or None
        Which; None for none.
    n_neurons : int
        Number of neurons.
    non_negative_output : bool
        Whether the response cannot be negative.

    Returns
    -------
    torch.nn.Module
        From the drive (..., N) to the response (..., N).

    Raises
    ------
    SpecError
        For an unknown name.
    """
    if kind is None:
        return nn.Identity()
    check_option("activation", kind, ACTIVATIONS)
    return ACTIVATIONS[kind](n_neurons, non_negative_output)
