r"""Leaky integration along time with a decay and a gain per unit.

    y[n] = decay y[n-1] + gain x[n]

Shapes: ``x`` and output (B, F, T), ``decay`` and ``gain`` (1,) or (F,), state (B, F, 1): y[n-1].
States and arithmetic are float64 whatever the dtype of the signal: a float32 state stops moving when its next step is
less than half of its last place, for gain = 1 - decay = 1e-5 (2 s at 44.1 kHz) up to 0.6 % from its goal.
"""

# ruff: noqa: ARG001
# The registered functions take what torch.library passes.

from __future__ import annotations

from typing import Any, Literal, overload

import torch
from torch import Tensor

from psysim.ops.base import check_coefficient, check_signal, forms_of, initial_state

__all__ = ["FORMS", "leaky", "reference"]

FORMS = forms_of("leaky", "leaky")


@overload
def leaky(
    x: Tensor, decay: Tensor, gain: Tensor, *, state: Tensor | None = ..., return_state: Literal[False] = ...
) -> Tensor: ...
@overload
def leaky(
    x: Tensor, decay: Tensor, gain: Tensor, *, state: Tensor | None = ..., return_state: Literal[True]
) -> tuple[Tensor, Tensor]: ...
def leaky(
    x: Tensor, decay: Tensor, gain: Tensor, *, state: Tensor | None = None, return_state: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Integrate along time with a leak.

    Parameters
    ----------
    x : Tensor
        Signals, (B, F, T), float32 or float64.
    decay : Tensor
        What is kept of the output per sample, (1,) for all units or (F,), float64; exp(-1/(tau fs)) for a time constant
        tau, 1 - 1/tau for the units of DNet with tau in samples. Below 1 in magnitude the integration is stable.
    gain : Tensor
        Factor of the input, (1,) or (F,), float64; 1 - decay gives a gain of 1 at 0 Hz.
    state : Tensor, optional
        Output before the first sample, (B, F, 1), float64, as returned for the sound before; without it 0.
    return_state : bool
        Also return the state at the end, so that a long sound can be integrated block by block.

    Returns
    -------
    Tensor
        (B, F, T), the dtype of ``x``. Differentiable with respect to ``x``, ``decay``, ``gain`` and ``state``.
    Tensor
        Only with ``return_state``: the state at the end, (B, F, 1), float64, differentiable.

    Raises
    ------
    SpecError
        For a wrong shape or dtype, or a device without an implementation.

    Notes
    -----
    Equals `scipy.signal.lfilter` with b = gain, a = (1, -decay). A history of constant input x[0], as replicate padding
    gives a convolution with the impulse response, is the state gain x[0] / (1 - decay).

    References
    ----------
    Rahman, M., Willmore, B. D. B., King, A. J. and Harper, N. S. (2019). A dynamic network model of temporal receptive
    fields in primary auditory cortex. PLoS Comput. Biol. 15, e1006618.

    Examples
    --------
    >>> import torch
    >>> decay, gain = torch.tensor([0.5]).double(), torch.tensor([1.0]).double()
    >>> leaky(torch.tensor([[[8.0, 0.0, 2.0]]]), decay, gain)
    tensor([[[8., 4., 4.]]])
    """
    check_signal("leaky", x, ("B", "F", "T"))
    check_coefficient("leaky", "decay", decay, [(1,), (x.shape[1],)], x)
    check_coefficient("leaky", "gain", gain, [(1,), (x.shape[1],)], x)
    size = max(len(decay), len(gain))
    coefficients = torch.stack([decay.expand(size), gain.expand(size)], -1)
    y, end = _op(x, coefficients, initial_state("leaky", state, (*x.shape[:2], 1), x))
    return (y, end) if return_state else y


def reference(
    x: Tensor, decay: Tensor, gain: Tensor, *, state: Tensor | None = None, return_state: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Definition of `leaky`: a loop over time in float64, differentiable, slow."""
    y = torch.zeros_like(x[..., 0], dtype=torch.float64) if state is None else state[..., 0]
    samples = []
    for sample in x.to(torch.float64).unbind(-1):
        y = decay * y + gain * sample
        samples.append(y)
    result = torch.stack(samples, -1).to(x.dtype)
    return (result, y[..., None]) if return_state else result


@torch.library.custom_op("psysim::leaky", mutates_args=())
def _op(x: Tensor, coefficients: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Integrate; ``coefficients`` (1 or F, 2): decay, gain."""
    return FORMS.select(x).forward(x, coefficients, state)


@torch.library.custom_op("psysim::leaky_backward", mutates_args=())
def _op_backward(
    grad: Tensor, grad_end: Tensor, x: Tensor, coefficients: Tensor, state: Tensor, learn: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return FORMS.select(x).backward(grad, grad_end, x, coefficients, state, learn)


@_op.register_fake
def _fake(x: Tensor, coefficients: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), state.new_empty(state.shape)


@_op_backward.register_fake
def _fake_backward(
    grad: Tensor, grad_end: Tensor, x: Tensor, coefficients: Tensor, state: Tensor, learn: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), coefficients.new_empty(coefficients.shape), state.new_empty(state.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs)


def _gradient(ctx: Any, grad: Tensor, grad_end: Tensor) -> tuple[Tensor | None, ...]:
    learn = ctx.needs_input_grad[1]
    grad_x, grad_coefficients, grad_start = _op_backward(grad, grad_end, *ctx.saved_tensors, learn)
    return grad_x, grad_coefficients if learn else None, grad_start


_op.register_autograd(_gradient, setup_context=_save)
