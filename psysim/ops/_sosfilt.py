r"""Cascade of second-order sections (biquads) along time.

Each section in transposed direct form II, with a0 = 1:

    y[n]  = b0 u[n] + w1[n-1]
    w1[n] = b1 u[n] - a1 y[n] + w2[n-1]
    w2[n] = b2 u[n] - a2 y[n]

Shapes: ``x`` (B, F, T), ``sos`` (S, 6) for all channels or (F, S, 6), state (B, F, 2 S): w1, w2 of each section.
"""

# ruff: noqa: ARG001
# The registered functions take what torch.library passes.

from __future__ import annotations

from typing import Any, Literal, overload

import torch
from torch import Tensor

from psysim.ops.base import check_coefficient, check_signal, forms_of, initial_state

__all__ = ["FORMS", "reference", "section_coefficients", "sosfilt"]

FORMS = forms_of("sosfilt", "sosfilt")


@overload
def sosfilt(x: Tensor, sos: Tensor, *, state: Tensor | None = ..., return_state: Literal[False] = ...) -> Tensor: ...
@overload
def sosfilt(
    x: Tensor, sos: Tensor, *, state: Tensor | None = ..., return_state: Literal[True]
) -> tuple[Tensor, Tensor]: ...
def sosfilt(
    x: Tensor, sos: Tensor, *, state: Tensor | None = None, return_state: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Filter along time with a cascade of second-order sections.

    Parameters
    ----------
    x : Tensor
        Signals, (B, F, T), float32 or float64.
    sos : Tensor
        Sections ``b0 b1 b2 a0 a1 a2``, (S, 6) shared by all channels or (F, S, 6), float64. A first-order section
        has b2 = a2 = 0.
    state : Tensor, optional
        State at the start, (B, F, 2 S), float64, as returned for the sound before; without it every row starts from
        zero.
    return_state : bool
        Also return the state at the end, so that a long sound can be filtered block by block.

    Returns
    -------
    Tensor
        (B, F, T), the dtype of ``x``. Arithmetic and states are float64 whatever the dtype: the 2.5-Hz lowpass of the
        modulation filterbanks is wrong by 12 % in float32. Differentiable with respect to ``x``, ``sos`` and ``state``.
    Tensor
        Only with ``return_state``: the state at the end, (B, F, 2 S), float64, differentiable.

    Raises
    ------
    SpecError
        For a wrong shape or dtype, or a device without an implementation.

    Notes
    -----
    As `scipy.signal.sosfilt` along the last axis with ``zi`` zero. Different from it: float32 signals are filtered in
    float64; sections are divided by a0, where SciPy demands a0 = 1; there may be one cascade per channel.

    Examples
    --------
    >>> import torch
    >>> average = torch.tensor([[0.5, 0.5, 0.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
    >>> sosfilt(torch.tensor([[[2.0, 4.0, 8.0]]]), average)
    tensor([[[1., 3., 6.]]])
    """
    check_signal("sosfilt", x, ("B", "F", "T"))
    check_coefficient("sosfilt", "sos", sos, [(-1, 6), (x.shape[1], -1, 6)], x)
    coefficients = section_coefficients(sos if sos.ndim == 3 else sos[None])
    start = initial_state("sosfilt", state, (*x.shape[:2], 2 * coefficients.shape[1]), x)
    y, end = _op(x, coefficients, start)
    return (y, end) if return_state else y


def section_coefficients(sos: Tensor) -> Tensor:
    """Return b0, b1, b2, a1, a2 of each section, (..., S, 5), divided by a0."""
    scaled = sos / sos[..., 3:4]
    return torch.cat([scaled[..., :3], scaled[..., 4:]], -1)


def reference(
    x: Tensor, sos: Tensor, *, state: Tensor | None = None, return_state: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Definition of `sosfilt`: a loop over time in float64, differentiable, slow."""
    signal, end = x.to(torch.float64), []
    for s, section in enumerate(section_coefficients(sos).unbind(-2)):
        b0, b1, b2, a1, a2 = section.unbind(-1)
        w1 = w2 = torch.zeros_like(signal[..., 0])
        if state is not None:
            w1, w2 = state[..., 2 * s], state[..., 2 * s + 1]
        samples = []
        for u in signal.unbind(-1):
            y = b0 * u + w1
            w1, w2 = b1 * u - a1 * y + w2, b2 * u - a2 * y
            samples.append(y)
        signal = torch.stack(samples, -1)
        end += [w1, w2]
    y = signal.to(x.dtype)
    return (y, torch.stack(end, -1)) if return_state else y


@torch.library.custom_op("psysim::sosfilt", mutates_args=())
def _op(x: Tensor, coefficients: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    return FORMS.select(x).forward(x, coefficients, state)


@torch.library.custom_op("psysim::sosfilt_backward", mutates_args=())
def _op_backward(
    grad: Tensor, grad_state: Tensor, x: Tensor, coefficients: Tensor, state: Tensor, learn: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return FORMS.select(x).backward(grad, grad_state, x, coefficients, state, learn)


@_op.register_fake
def _fake(x: Tensor, coefficients: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), state.new_empty(state.shape)


@_op_backward.register_fake
def _fake_backward(
    grad: Tensor, grad_state: Tensor, x: Tensor, coefficients: Tensor, state: Tensor, learn: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), coefficients.new_empty(coefficients.shape), state.new_empty(state.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs)


def _gradient(ctx: Any, grad: Tensor, grad_state: Tensor) -> tuple[Tensor | None, ...]:
    learn = ctx.needs_input_grad[1]
    grad_x, grad_coefficients, grad_start = _op_backward(grad, grad_state, *ctx.saved_tensors, learn)
    return grad_x, grad_coefficients if learn else None, grad_start


_op.register_autograd(_gradient, setup_context=_save)
