r"""Real recursive filters of any order along time, and cascades of them.

Each section of order K in transposed direct form II, with a0 = 1:

    y[n]   = b0 u[n] + w1[n-1]
    wk[n]  = bk u[n] - ak y[n] + w(k+1)[n-1],   k = 1 ... K, w(K+1) = 0

Shapes: ``x`` (B, F, T), ``b`` and ``a`` (S, K + 1) for all channels or (F, S, K + 1), state (B, F, S K): w1 ... wK of
each section. States and arithmetic are float64 whatever the dtype of the signal: the poles of a filter of order K move
by the K-th root of the rounding of its coefficients, in float32 by percents already for the fourth order.
"""

# ruff: noqa: ARG001
# The registered functions take what torch.library passes.

from __future__ import annotations

from typing import Any, Literal, overload

import torch
from torch import Tensor
from torch.nn.functional import pad

from psysim.errors import SpecError
from psysim.ops._sosfilt import sosfilt
from psysim.ops.base import check_coefficient, check_signal, forms_of, initial_state

__all__ = ["FORMS", "iirfilt", "reference"]

FORMS = forms_of("iirfilt", "iirfilt")


@overload
def iirfilt(
    x: Tensor, b: Tensor, a: Tensor, *, state: Tensor | None = ..., return_state: Literal[False] = ...
) -> Tensor: ...
@overload
def iirfilt(
    x: Tensor, b: Tensor, a: Tensor, *, state: Tensor | None = ..., return_state: Literal[True]
) -> tuple[Tensor, Tensor]: ...
def iirfilt(
    x: Tensor, b: Tensor, a: Tensor, *, state: Tensor | None = None, return_state: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Filter along time with recursive filters of any order.

    Parameters
    ----------
    x : Tensor
        Signals, (B, F, T), float32 or float64.
    b : Tensor
        Numerators b0 ... bK, K at least 1: (S, K + 1) shared by all channels or (F, S, K + 1), float64.
    a : Tensor
        Denominators a0 ... aK, the shape of ``b``, float64. Both are divided by a0.
    state : Tensor, optional
        State at the start, (B, F, S K), float64, as returned for the sound before; without it every row starts from
        zero.
    return_state : bool
        Also return the state at the end, so that a long sound can be filtered block by block.

    Returns
    -------
    Tensor
        (B, F, T), the dtype of ``x``. Differentiable with respect to ``x``, ``b``, ``a`` and ``state``.
    Tensor
        Only with ``return_state``: the state at the end, (B, F, S K), float64, differentiable.

    Raises
    ------
    SpecError
        For a wrong shape or dtype, or a device without an implementation.

    Notes
    -----
    With one section the output and the state are those of `scipy.signal.lfilter` along the last axis. Sections of order
    1 and 2 are run by `sosfilt`. A filter of high order with poles near 1 loses digits in any direct form (a
    fourth-order gammatone at 100 Hz and 44.1 kHz 1e-7 of its output): make a cascade of it where you can.

    References
    ----------
    Oppenheim, A. V. and Schafer, R. W. (2010). Discrete-time signal processing, 3rd edition, chapter 6. Pearson.

    Examples
    --------
    >>> import torch
    >>> b, a = torch.tensor([[1.0, 0.0, 0.0, 1.0]]).double(), torch.tensor([[2.0, -1.0, 0.0, 0.0]]).double()
    >>> iirfilt(torch.tensor([[[8.0, 0.0, 0.0, 0.0]]]), b, a)
    tensor([[[4.0000, 2.0000, 1.0000, 4.5000]]])
    """
    check_signal("iirfilt", x, ("B", "F", "T"))
    check_coefficient("iirfilt", "b", b, [(-1, -1), (x.shape[1], -1, -1)], x)
    check_coefficient("iirfilt", "a", a, [tuple(b.shape)], x)
    sections, order = b.shape[-2], b.shape[-1] - 1
    if order < 1:
        raise SpecError(f"ops.iirfilt: b of shape {tuple(b.shape)} has order 0; use a factor instead of a filter.")
    start = initial_state("iirfilt", state, (*x.shape[:2], sections * order), x)
    if order <= 2:
        y, end = _as_biquads(x, b, a, start)
    else:
        y, end = _op(x, _coefficients(b, a), start)
    return (y, end) if return_state else y


def _as_biquads(x: Tensor, b: Tensor, a: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    sections, order = b.shape[-2], b.shape[-1] - 1
    missing = 0, 2 - order
    sos = torch.cat([pad(b, missing), pad(a, missing)], -1)
    states = state.reshape(*state.shape[:2], sections, order)
    y, end = sosfilt(x, sos, state=pad(states, missing).flatten(-2), return_state=True)
    return y, end.reshape(*end.shape[:2], sections, 2)[..., :order].flatten(-2)


def _coefficients(b: Tensor, a: Tensor) -> Tensor:
    """Return b0 ... bK, a1 ... aK of each section, (1 or F, S, 2 K + 1), divided by a0."""
    if b.ndim == 2:
        b, a = b[None], a[None]
    return torch.cat([b, a[..., 1:]], -1) / a[..., :1]


def reference(
    x: Tensor, b: Tensor, a: Tensor, *, state: Tensor | None = None, return_state: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Definition of `iirfilt`: a loop over time in float64, differentiable, slow."""
    order, end = b.shape[-1] - 1, []
    signal = x.to(torch.float64)
    for s, section in enumerate(_coefficients(b, a).unbind(-2)):
        c = section.unbind(-1)
        w = [torch.zeros_like(signal[..., 0])] * order
        if state is not None:
            w = list(state[..., s * order : (s + 1) * order].unbind(-1))
        samples = []
        for u in signal.unbind(-1):
            y = c[0] * u + w[0]
            later = [*w[1:], torch.zeros_like(u)]
            w = [c[k] * u - c[order + k] * y + later[k - 1] for k in range(1, order + 1)]
            samples.append(y)
        signal = torch.stack(samples, -1)
        end += w
    y = signal.to(x.dtype)
    return (y, torch.stack(end, -1)) if return_state else y


@torch.library.custom_op("psysim::iirfilt", mutates_args=())
def _op(x: Tensor, coefficients: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Filter; ``coefficients`` as `_coefficients` makes them."""
    return FORMS.select(x).forward(x, coefficients, state)


@torch.library.custom_op("psysim::iirfilt_backward", mutates_args=())
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
