"""What the operators share: argument checks at the public door, states, and the dispatch table.

Each operator keeps one `DispatchTable`. A `Form` is one implementation (numba on the CPU, Triton on CUDA) with a rule
that says when it applies; forms are tried in order. If none applies the call fails and the message says what would have
worked: nothing falls back silently to a form that is a thousand times slower.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from psysim.errors import SpecError

__all__ = [
    "DispatchTable",
    "Form",
    "check_coefficient",
    "check_signal",
    "complex_of",
    "forms_of",
    "initial_state",
    "on_cpu",
    "using",
]

SIGNAL_DTYPES = (torch.float32, torch.float64)


@dataclass(frozen=True)
class Form:
    """One implementation of an operator.

    Parameters
    ----------
    name : str
        For messages, for instance ``"numba"``.
    accepts : str
        What the form accepts, in words; shown when no form applies.
    applies : callable
        ``applies(x) -> bool`` for the signal tensor.
    module : str
        Module with the functions ``forward`` and ``backward``; imported when first used, so that a CPU run never loads
        Triton.
    """

    name: str
    accepts: str
    applies: Callable[[Tensor], bool]
    module: str

    @property
    def forward(self) -> Callable[..., Any]:
        """The implementation."""
        return self.function("forward")

    @property
    def backward(self) -> Callable[..., Any]:
        """Its gradient."""
        return self.function("backward")

    def function(self, name: str) -> Callable[..., Any]:
        """Return a function of the form's module."""
        return getattr(importlib.import_module(self.module), name)


_forced: ContextVar[str | None] = ContextVar("form of the operators", default=None)


@contextmanager
def using(name: str) -> Iterator[None]:
    """Use the form called ``name`` whatever the device: how tests run the Triton forms in Triton's interpreter."""
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


@dataclass
class DispatchTable:
    """Forms of one operator, best first.

    Parameters
    ----------
    op : str
        Name of the operator, for messages.
    forms : list of Form
        Tried in order; the first that applies runs.
    """

    op: str
    forms: list[Form]

    def select(self, x: Tensor) -> Form:
        """Return the first form that applies to the signal ``x``.

        Raises
        ------
        SpecError
            If none applies; the message names dtype and device, and what would be accepted.
        """
        forced = _forced.get()
        for form in self.forms:
            if form.name == forced or (forced is None and form.applies(x)):
                return form
        accepted = "; ".join(f"{form.name}: {form.accepts}" for form in self.forms)
        raise SpecError(
            f"ops.{self.op} has no implementation for dtype {_name(x.dtype)} on device '{x.device}'. "
            f"Accepted: {accepted}."
        )


def forms_of(op: str, module: str) -> DispatchTable:
    """Return the usual table: numba in ``psysim.ops.cpu`` and Triton in ``psysim.ops.cuda``, in modules of one name."""
    return DispatchTable(
        op,
        [
            Form("numba", "float32 or float64 on device 'cpu'", on_cpu, f"psysim.ops.cpu.{module}"),
            Form("triton", "float32 or float64 on device 'cuda'", on_cuda, f"psysim.ops.cuda.{module}"),
        ],
    )


def on_cpu(x: Tensor) -> bool:
    """Tell whether ``x`` is a float32 or float64 CPU tensor: the rule of all numba forms."""
    return x.device.type == "cpu" and x.dtype in SIGNAL_DTYPES


def on_cuda(x: Tensor) -> bool:
    """Tell whether ``x`` is a float32 or float64 CUDA tensor: the rule of all Triton forms."""
    return x.device.type == "cuda" and x.dtype in SIGNAL_DTYPES


def initial_state(op: str, state: Tensor | None, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return the state that the caller passed, checked, or zeros: float64 of ``shape`` on the device of ``like``."""
    if state is None:
        return torch.zeros(shape, dtype=torch.float64, device=like.device)
    check_coefficient(op, "state", state, [shape], like)
    return state.contiguous()  # kernels make the end state in its image


def complex_of(dtype: torch.dtype) -> torch.dtype:
    """Return the complex dtype with the precision of ``dtype``."""
    return torch.complex64 if dtype == torch.float32 else torch.complex128


def check_signal(op: str, x: Tensor, dims: Sequence[str], name: str = "x") -> None:
    """Raise `SpecError` unless ``x`` is a real floating tensor with the named dimensions, none of them empty."""
    layout = "(" + ", ".join(dims) + ")"
    if not isinstance(x, Tensor):
        raise SpecError(f"ops.{op}: {name} must be a tensor of shape {layout}, got {type(x).__name__}.")
    if x.dtype not in SIGNAL_DTYPES:
        raise SpecError(f"ops.{op}: {name} has dtype {_name(x.dtype)}; allowed: float32, float64.")
    if x.ndim != len(dims):
        raise SpecError(f"ops.{op}: {name} must have the dimensions {layout}, got shape {tuple(x.shape)}.")
    if 0 in x.shape:
        raise SpecError(f"ops.{op}: {name} of shape {tuple(x.shape)} is empty; each of {layout} must be at least 1.")


def check_coefficient(
    op: str,
    name: str,
    value: Tensor,
    shapes: Sequence[tuple[int, ...]],
    like: Tensor,
    dtype: torch.dtype = torch.float64,
    *,
    empty_ok: bool = False,
) -> None:
    """Raise `SpecError` unless ``value`` has one of ``shapes`` (-1: any size), ``dtype`` and the device of ``like``."""
    wanted = " or ".join("(" + ", ".join("*" if n < 0 else str(n) for n in shape) + ")" for shape in shapes)
    if not isinstance(value, Tensor):
        kind = type(value).__name__
        raise SpecError(f"ops.{op}: {name} must be a {_name(dtype)} tensor of shape {wanted}, got {kind}.")
    if value.dtype != dtype:
        reason = " (rounded coefficients make slow filters wrong by percents)" if dtype == torch.float64 else ""
        raise SpecError(f"ops.{op}: {name} has dtype {_name(value.dtype)}; it must be {_name(dtype)}{reason}.")
    if not any(_matches(value.shape, shape) for shape in shapes):
        raise SpecError(f"ops.{op}: {name} must have shape {wanted}, got {tuple(value.shape)}.")
    if 0 in value.shape and not empty_ok:
        raise SpecError(f"ops.{op}: {name} of shape {tuple(value.shape)} is empty.")
    if value.device != like.device:
        raise SpecError(f"ops.{op}: {name} is on device '{value.device}' but the signal is on '{like.device}'.")


def _matches(shape: Sequence[int], wanted: tuple[int, ...]) -> bool:
    return len(shape) == len(wanted) and all(w in (-1, n) for n, w in zip(shape, wanted, strict=True))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
