r"""Gammatone filterbank: a cascade of equal complex one-pole filters per channel.

With ``d`` the decay and ``w`` the angle of a channel, for sample ``n`` and stage ``k = 1 ... order``:

    y_0[n] = x[n]
    y_k[n] = (1 - d) y_{k-1}[n] + d exp(-i w) y_k[n-1]

Multiplying the poles out, as is often done, costs 5e-7 of the peak in float64 and is unstable in float32.
Shapes: ``x`` (B, T), ``decay`` and ``angle`` (F,), output (B, F, T), state (B, F, 2 order): real and imaginary part of
each y_k.
"""

# ruff: noqa: ARG001
# The registered functions take what torch.library passes.

from __future__ import annotations

from typing import Any, Literal, overload

import torch
from torch import Tensor

from psysim.errors import SpecError, check_range
from psysim.ops.base import check_coefficient, check_signal, complex_of, forms_of, initial_state

__all__ = ["FORMS", "gammatone", "pole_coefficients", "reference"]

FORMS = forms_of("gammatone", "gammatone")


@overload
def gammatone(
    x: Tensor,
    decay: Tensor,
    angle: Tensor,
    order: int = ...,
    complex_output: bool = ...,
    *,
    state: Tensor | None = ...,
    return_state: Literal[False] = ...,
) -> Tensor: ...
@overload
def gammatone(
    x: Tensor,
    decay: Tensor,
    angle: Tensor,
    order: int = ...,
    complex_output: bool = ...,
    *,
    state: Tensor | None = ...,
    return_state: Literal[True],
) -> tuple[Tensor, Tensor]: ...
def gammatone(
    x: Tensor,
    decay: Tensor,
    angle: Tensor,
    order: int = 4,
    complex_output: bool = False,
    *,
    state: Tensor | None = None,
    return_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Filter a sound with a gammatone filterbank.

    Parameters
    ----------
    x : Tensor
        Sound, (B, T), float32 or float64.
    decay : Tensor
        Radius of the pole of each channel, exp(-2 pi beta/fs), (F,), float64, 0 ... 1.
    angle : Tensor
        Angle of the pole, 2 pi fc/fs in radian, (F,), float64.
    order : int
        Number of equal sections, at least 1.
    complex_output : bool
        Return the complex output ``y`` instead of ``2 Re(y)``.
    state : Tensor, optional
        State at the start, (B, F, 2 order), float64, as returned for the sound before; without it every row starts from
        silence.
    return_state : bool
        Also return the state at the end, so that a long sound can be filtered block by block.

    Returns
    -------
    Tensor
        (B, F, T), the dtype of ``x`` (or its complex partner). Computed in float64 whatever the dtype. Differentiable
        with respect to ``x``, ``decay``, ``angle`` and ``state``.
    Tensor
        Only with ``return_state``: the state at the end, (B, F, 2 order), float64, differentiable.

    Raises
    ------
    SpecError
        For a wrong shape, dtype or order, or a device without an implementation.

    Notes
    -----
    A tone at the centre frequency passes with gain 1 (the real part is doubled because the conjugate pole is
    left out). To obtain a filter with poles multiplied out for `scipy.signal.lfilter`, use the numerator
    ``(1 - decay)**order`` and the denominator ``numpy.poly([pole] * order)``.

    References
    ----------
    Hohmann, V. (2002). Frequency analysis and synthesis using a gammatone filterbank. Acta Acustica united with
    Acustica 88, 433-442. Eq. 1 and 2.

    Examples
    --------
    >>> import torch
    >>> impulse = torch.zeros(1, 4, dtype=torch.float64)
    >>> impulse[0, 0] = 1.0
    >>> decay, angle = torch.tensor([0.5, 0.25]).double(), torch.tensor([0.0, 0.0]).double()
    >>> gammatone(impulse, decay, angle, order=1)[0]
    tensor([[1.0000, 0.5000, 0.2500, 0.1250],
            [1.5000, 0.3750, 0.0938, 0.0234]], dtype=torch.float64)
    """
    check_signal("gammatone", x, ("B", "T"))
    check_coefficient("gammatone", "decay", decay, [(-1,)], x)
    check_coefficient("gammatone", "angle", angle, [tuple(decay.shape)], x)
    if not isinstance(order, int):
        raise SpecError(f"ops.gammatone: order = {order!r} must be a whole number.")
    check_range("ops.gammatone: order", order, 1)
    start = initial_state("gammatone", state, (len(x), len(decay), 2 * order), x)
    y, end = _op(x, pole_coefficients(decay, angle), start, order, complex_output)
    return (y, end) if return_state else y


def pole_coefficients(decay: Tensor, angle: Tensor) -> Tensor:
    """Return what the kernels take, (3, F): gain, real and imaginary part of the pole."""
    return torch.stack([1.0 - decay, decay * torch.cos(angle), -decay * torch.sin(angle)])


def reference(
    x: Tensor,
    decay: Tensor,
    angle: Tensor,
    order: int = 4,
    complex_output: bool = False,
    *,
    state: Tensor | None = None,
    return_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Definition of `gammatone`: a loop over time in float64, differentiable, slow."""
    pole = torch.polar(decay, -angle)
    z = [torch.zeros(len(x), len(decay), dtype=pole.dtype, device=x.device) for _ in range(order)]
    if state is not None:
        z = list(torch.view_as_complex(state.reshape(*state.shape[:2], order, 2)).unbind(-1))
    samples = []
    for sample in x.to(torch.float64).unbind(-1):
        value = sample[:, None]
        for k in range(order):
            value = z[k] = (1.0 - decay) * value + pole * z[k]
        samples.append(value)
    y = torch.stack(samples, -1)
    y = y.to(complex_of(x.dtype)) if complex_output else (2.0 * y.real).to(x.dtype)
    return (y, torch.view_as_real(torch.stack(z, -1)).flatten(-2)) if return_state else y


@torch.library.custom_op("psysim::gammatone", mutates_args=())
def _op(x: Tensor, coefficients: Tensor, state: Tensor, order: int, complex_output: bool) -> tuple[Tensor, Tensor]:
    """Run the bank; ``coefficients`` (3, F): gain, real and imaginary part of the pole."""
    return FORMS.select(x).forward(x, coefficients, state, order, complex_output)


@torch.library.custom_op("psysim::gammatone_backward", mutates_args=())
def _op_backward(
    grad: Tensor, grad_end: Tensor, x: Tensor, coefficients: Tensor, state: Tensor, order: int, learn: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return FORMS.select(x).backward(grad, grad_end, x, coefficients, state, order, learn)


@_op.register_fake
def _fake(x: Tensor, coefficients: Tensor, state: Tensor, order: int, complex_output: bool) -> tuple[Tensor, Tensor]:
    dtype = complex_of(x.dtype) if complex_output else x.dtype
    shape = (x.shape[0], coefficients.shape[1], x.shape[1])
    return x.new_empty(shape, dtype=dtype), state.new_empty(state.shape)


@_op_backward.register_fake
def _fake_backward(
    grad: Tensor, grad_end: Tensor, x: Tensor, coefficients: Tensor, state: Tensor, order: int, learn: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), coefficients.new_empty(coefficients.shape), state.new_empty(state.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.order = inputs[3]


def _gradient(ctx: Any, grad: Tensor, grad_end: Tensor) -> tuple[Tensor | None, ...]:
    learn = ctx.needs_input_grad[1]
    grad_x, grad_coefficients, grad_start = _op_backward(grad, grad_end, *ctx.saved_tensors, ctx.order, learn)
    return grad_x, grad_coefficients if learn else None, grad_start, None, None


_op.register_autograd(_gradient, setup_context=_save)
