r"""Gammatone filterbank: a cascade of equal complex one-pole filters per channel.

With ``d`` the decay and ``w`` the angle of a channel, for sample ``n`` and stage ``k = 1 ... order``:

    y_0[n] = x[n]
    y_k[n] = (1 - d) y_{k-1}[n] + d exp(-i w) y_k[n-1]

Multiplying the poles out, as is often done, costs 5e-7 of the peak in float64 and is unstable in float32.
Shapes: ``x`` (B, T), ``decay`` and ``angle`` (F,), output (B, F, T). Forms: numba on the CPU.
"""

# ruff: noqa: ARG001
# The registered functions take what torch.library passes.

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from psysim.errors import SpecError, check_range
from psysim.ops.base import check_coefficient, check_signal, complex_of, forms_of

__all__ = ["FORMS", "gammatone", "reference"]

FORMS = forms_of("gammatone", "gammatone")


def gammatone(x: Tensor, decay: Tensor, angle: Tensor, order: int = 4, complex_output: bool = False) -> Tensor:
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

    Returns
    -------
    Tensor
        (B, F, T), the dtype of ``x`` (or its complex partner). Computed in float64 whatever the dtype. Every row
        starts from silence. Differentiable with respect to ``x``, ``decay`` and ``angle``.

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
    coefficients = torch.stack([1.0 - decay, decay * torch.cos(angle), -decay * torch.sin(angle)])
    return _op(x, coefficients, order, complex_output)


def reference(x: Tensor, decay: Tensor, angle: Tensor, order: int = 4, complex_output: bool = False) -> Tensor:
    """Definition of `gammatone`: a loop over time in float64, differentiable, slow."""
    pole = torch.polar(decay, -angle)
    state = [torch.zeros(len(x), len(decay), dtype=pole.dtype, device=x.device) for _ in range(order)]
    samples = []
    for sample in x.to(torch.float64).unbind(-1):
        value = sample[:, None]
        for k in range(order):
            value = state[k] = (1.0 - decay) * value + pole * state[k]
        samples.append(value)
    y = torch.stack(samples, -1)
    return y.to(complex_of(x.dtype)) if complex_output else (2.0 * y.real).to(x.dtype)


@torch.library.custom_op("psysim::gammatone", mutates_args=())
def _op(x: Tensor, coefficients: Tensor, order: int, complex_output: bool) -> Tensor:
    return FORMS.select(x).forward(x, coefficients, order, complex_output)


@torch.library.custom_op("psysim::gammatone_backward", mutates_args=())
def _op_backward(grad: Tensor, x: Tensor, coefficients: Tensor, order: int, learn: bool) -> tuple[Tensor, Tensor]:
    return FORMS.select(x).backward(grad, x, coefficients, order, learn)


@_op.register_fake
def _fake(x: Tensor, coefficients: Tensor, order: int, complex_output: bool) -> Tensor:
    dtype = complex_of(x.dtype) if complex_output else x.dtype
    return x.new_empty((x.shape[0], coefficients.shape[1], x.shape[1]), dtype=dtype)


@_op_backward.register_fake
def _fake_backward(
    grad: Tensor,
    x: Tensor,
    coefficients: Tensor,
    order: int,
    learn: bool,
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), coefficients.new_empty(coefficients.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.order = inputs[2]


def _gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    learn = ctx.needs_input_grad[1]
    grad_x, grad_coefficients = _op_backward(grad, *ctx.saved_tensors, ctx.order, learn)
    return grad_x, grad_coefficients if learn else None, None, None


_op.register_autograd(_gradient, setup_context=_save)
