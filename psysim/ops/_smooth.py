r"""Smoothing along time that rises with one coefficient and falls with another.

    y[n] = y[n-1] + c (x[n] - y[n-1]),   c = attack if x[n] > y[n-1], else release

Shapes: ``x`` and output (B, F, T), ``attack`` and ``release`` (1,) or (F,), state (B, F, 1): y[n-1].
States and arithmetic are float64 whatever the dtype of the signal: a float32 state stops moving when its next step is
less than half of its last place, with the release of long-term loudness (0.0005 per ms) up to 1.2e-4 from its goal.
"""

# ruff: noqa: ARG001
# The registered functions take what torch.library passes.

from __future__ import annotations

from typing import Any, Literal, overload

import torch
from torch import Tensor

from psysim.ops.base import check_coefficient, check_signal, forms_of, initial_state

__all__ = ["FORMS", "reference", "smooth"]

FORMS = forms_of("smooth", "smooth")


@overload
def smooth(
    x: Tensor, attack: Tensor, release: Tensor, *, state: Tensor | None = ..., return_state: Literal[False] = ...
) -> Tensor: ...
@overload
def smooth(
    x: Tensor, attack: Tensor, release: Tensor, *, state: Tensor | None = ..., return_state: Literal[True]
) -> tuple[Tensor, Tensor]: ...
def smooth(
    x: Tensor, attack: Tensor, release: Tensor, *, state: Tensor | None = None, return_state: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Smooth along time with an attack and a release, as automatic gain controls and loudness models do.

    Parameters
    ----------
    x : Tensor
        Signals, (B, F, T), float32 or float64: levels, power or loudness, not the waveform.
    attack : Tensor
        Share of the way to the input that the output goes per sample while the input is above it, (1,) for all channels
        or (F,), float64, 0 to 1; 1 - exp(-1/(tau fs)) for a time constant tau.
    release : Tensor
        The same while the input is not above the output, (1,) or (F,), float64, 0 to 1.
    state : Tensor, optional
        Output before the first sample, (B, F, 1), float64, as returned for the sound before; without it 0.
    return_state : bool
        Also return the state at the end, so that a long sound can be smoothed block by block.

    Returns
    -------
    Tensor
        (B, F, T), the dtype of ``x``. Differentiable with respect to ``x``, ``attack``, ``release`` and ``state``;
        which of the two coefficients a sample takes counts as fixed.
    Tensor
        Only with ``return_state``: the state at the end, (B, F, 1), float64, differentiable.

    Raises
    ------
    SpecError
        For a wrong shape or dtype, or a device without an implementation.

    Notes
    -----
    The output is continuous in the signal, its derivative is not: at x[n] = y[n-1] that of the release is taken.
    Coefficients for steps of h instead of 1: 1 - (1 - c)^h.

    References
    ----------
    Glasberg, B. R. and Moore, B. C. J. (2002). A model of loudness applicable to time-varying sounds. J. Audio Eng.
    Soc. 50, 331-342.

    Examples
    --------
    >>> import torch
    >>> attack, release = torch.tensor([0.5]).double(), torch.tensor([0.25]).double()
    >>> smooth(torch.tensor([[[8.0, 8.0, 2.0]]]), attack, release)
    tensor([[[4., 6., 5.]]])
    """
    check_signal("smooth", x, ("B", "F", "T"))
    check_coefficient("smooth", "attack", attack, [(1,), (x.shape[1],)], x)
    check_coefficient("smooth", "release", release, [(1,), (x.shape[1],)], x)
    size = max(len(attack), len(release))
    coefficients = torch.stack([attack.expand(size), release.expand(size)], -1)
    y, end = _op(x, coefficients, initial_state("smooth", state, (*x.shape[:2], 1), x))
    return (y, end) if return_state else y


def reference(
    x: Tensor, attack: Tensor, release: Tensor, *, state: Tensor | None = None, return_state: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Definition of `smooth`: a loop over time in float64, differentiable, slow."""
    y = torch.zeros_like(x[..., 0], dtype=torch.float64) if state is None else state[..., 0]
    samples = []
    for sample in x.to(torch.float64).unbind(-1):
        y = y + torch.where(sample > y, attack, release) * (sample - y)
        samples.append(y)
    result = torch.stack(samples, -1).to(x.dtype)
    return (result, y[..., None]) if return_state else result


@torch.library.custom_op("psysim::smooth", mutates_args=())
def _op(x: Tensor, coefficients: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Smooth; ``coefficients`` (1 or F, 2): attack, release."""
    return FORMS.select(x).forward(x, coefficients, state)


@torch.library.custom_op("psysim::smooth_backward", mutates_args=())
def _op_backward(
    grad: Tensor, grad_end: Tensor, x: Tensor, coefficients: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return FORMS.select(x).backward(grad, grad_end, x, coefficients, state)


@_op.register_fake
def _fake(x: Tensor, coefficients: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), state.new_empty(state.shape)


@_op_backward.register_fake
def _fake_backward(
    grad: Tensor, grad_end: Tensor, x: Tensor, coefficients: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), coefficients.new_empty(coefficients.shape), state.new_empty(state.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs)


def _gradient(ctx: Any, grad: Tensor, grad_end: Tensor) -> tuple[Tensor, ...]:
    return _op_backward(grad, grad_end, *ctx.saved_tensors)


_op.register_autograd(_gradient, setup_context=_save)
