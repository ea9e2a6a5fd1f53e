"""What all stages share: the dtype of the signal path, constants that stay float64, and the checks at the door.

A float32 module computes its signals in float32, but designs its filters in float64: rounding the constants first would
ruin some of them (1 + a1 + a2 of the 2.5-Hz lowpass at 44.1 kHz is 1.3e-7, about one float32 step; in direct form the
lowpass would be 12 % off). So the dtype of a module and the dtype of its constants are two things here:
``module.float()`` and ``module.double()`` change the first, never the second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from psysim.errors import SpecError, did_you_mean
from psysim.ops.steps import Step

__all__ = [
    "AuditoryModule",
    "SignalModule",
    "check_keys",
    "check_sample_rate",
    "check_signal",
    "per_row",
    "resolve_dtype",
]

DTYPES = (torch.float32, torch.float64)


def resolve_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """Return torch.float32 or torch.float64, given as such or by name; anything else is refused."""
    resolved = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if resolved not in DTYPES:
        raise SpecError(f"dtype = {dtype!r} is not supported. Allowed: torch.float32, torch.float64.")
    return resolved


def check_keys(parameter: str, given: Mapping[str, object] | None, allowed: Iterable[str]) -> dict[str, Any]:
    """Return a copy of the options ``given`` (None: empty); an unknown key raises `SpecError` with the nearest name."""
    options = dict(given or {})
    names = sorted(allowed)
    for key in options:
        if key not in names:
            hint = did_you_mean(key, names)
            raise SpecError(f"{parameter} has no key {key!r}. Allowed: {', '.join(names)}.{hint}")
    return options


def check_sample_rate(fs: float) -> float:
    """Return ``fs`` as a float, or raise `SpecError` unless it is a positive number of Hz."""
    if isinstance(fs, bool) or (not isinstance(fs, (int, float)) and not hasattr(fs, "__float__")):
        raise SpecError(f"fs = {fs!r} is not a sampling rate: it must be a number of Hz.")
    rate = float(fs)
    if not 0.0 < rate < float("inf"):
        raise SpecError(f"fs = {rate:g} Hz is out of range: it must be a positive, finite number of Hz.")
    return rate


def check_signal(signal: object, dims: tuple[int, ...], shapes: str, name: str = "x") -> Tensor:
    """Return ``signal`` if it is a real floating tensor, not empty, with one of the numbers of dimensions ``dims``.

    Values are not looked at: a NaN or an infinite sample makes the output of its own row NaN from there on.

    Raises
    ------
    SpecError
        If it is no tensor, is of integer or complex dtype, is empty or has another number of dimensions.
    """
    if not isinstance(signal, Tensor):
        raise SpecError(f"{name} must be a torch.Tensor of shape {shapes}, but is {type(signal).__name__}.")
    if not signal.dtype.is_floating_point:
        raise SpecError(
            f"{name} has dtype {signal.dtype}, but sound is a floating tensor in pascal: "
            "convert it to float32 or float64, scaled to pascal, first."
        )
    if signal.ndim not in dims:
        raise SpecError(f"{name} has shape {tuple(signal.shape)}, but must have shape {shapes}.")
    if signal.numel() == 0:
        raise SpecError(f"{name} is empty (shape {tuple(signal.shape)}).")
    return signal


def per_row(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply ``function`` to each batch row of ``x`` (B, ...) on its own and stack the results.

    For the steps that use an FFT: libraries may group the transforms of a batch differently for different batch sizes
    and for different memory alignments, so that a row's last bits would depend on its neighbours.
    """
    return torch.stack([function(row.clone(memory_format=torch.contiguous_format)) for row in x])


class SignalModule(nn.Module):
    """A module with a signal dtype, and constants that stay float64 whatever that dtype is.

    Parameters
    ----------
    learnable : bool
        Whether the published constants become trainable parameters (float64) instead of buffers.
    dtype : torch.dtype
        dtype of the signals, torch.float32 or torch.float64.
    """

    _signal_dtype: Tensor

    def __init__(self, *, learnable: bool = False, dtype: torch.dtype | str = torch.float32) -> None:
        super().__init__()
        self.learnable = bool(learnable)
        self._constants: list[str] = []
        self.register_buffer("_signal_dtype", torch.zeros((), dtype=resolve_dtype(dtype)), persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the signal path: what inputs are converted to and outputs have."""
        return self._signal_dtype.dtype

    @property
    def device(self) -> torch.device:
        """Device of the module."""
        return self._signal_dtype.device

    def enter(self, x: object, dims: tuple[int, ...], shapes: str, name: str = "x") -> Tensor:
        """Check a signal at the door of `forward` and return it in this module's dtype."""
        signal = check_signal(x, dims, shapes, name)
        if signal.device != self.device:
            raise SpecError(
                f"{name} is on device '{signal.device}', {type(self).__name__} on '{self.device}': move one of them."
            )
        return signal.to(resolve_dtype(self.dtype))

    def steps(self) -> list[Step] | None:
        """Return this stage as steps for `psysim.ops.chain_products`, or None if it cannot be written as such.

        Run one by one the steps give the same bits as `forward`.
        """
        return None

    def constant(self, name: str, value: object, *, learnable: bool | None = None) -> None:
        """Register ``value`` as the float64 constant ``name``: a parameter if learnable, a buffer otherwise."""
        tensor = torch.as_tensor(value, dtype=torch.float64).detach().clone()
        if self.learnable if learnable is None else learnable:
            self.register_parameter(name, nn.Parameter(tensor))
        else:
            self.register_buffer(name, tensor)
        self._constants.append(name)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        constants = [getattr(self, name) for name in self._constants]
        kept = {id(t) for t in constants} | {id(t.grad) for t in constants if t.is_leaf and t.grad is not None}

        def keep_float64(tensor: Tensor) -> Tensor:
            out = fn(tensor)
            return tensor.to(out.device) if id(tensor) in kept and out.dtype != tensor.dtype else out

        return super()._apply(keep_float64, recurse)  # type: ignore[no-untyped-call]


class AuditoryModule(SignalModule):
    """A `SignalModule` that knows the rate of its input.

    Parameters
    ----------
    fs : float
        Sampling rate of the input, Hz.
    learnable : bool
        Whether the published constants become trainable parameters (float64) instead of buffers.
    dtype : torch.dtype
        dtype of the signals, torch.float32 or torch.float64.
    """

    def __init__(self, fs: float, *, learnable: bool = False, dtype: torch.dtype | str = torch.float32) -> None:
        super().__init__(learnable=learnable, dtype=dtype)
        self.fs = check_sample_rate(fs)
