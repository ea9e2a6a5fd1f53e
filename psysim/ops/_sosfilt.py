r"""Cascade of second-order sections (biquads) along time.

Each section in transposed direct form II, with a0 = 1:

    y[n]  = b0 u[n] + w1[n-1]
    w1[n] = b1 u[n] - a1 y[n] + w2[n-1]
    w2[n] = b2 u[n] - a2 y[n]

Shapes: ``x`` (B, F, T), ``sos`` (S, 6) for all channels or (F, S, 6). Forms: numba on the CPU.
"""

# ruff: noqa: ARG001
# The registered functions take what torch.library passes.

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from psysim.ops import _sosfilt_cpu
from psysim.ops.base import CPU_ACCEPTS, DispatchTable, Form, check_coefficient, check_signal, on_cpu

__all__ = ["FORMS", "reference", "section_coefficients", "sosfilt"]

FORMS = DispatchTable("sosfilt", [Form("numba", CPU_ACCEPTS, on_cpu, _sosfilt_cpu.forward, _sosfilt_cpu.backward)])


def sosfilt(x: Tensor, sos: Tensor) -> Tensor:
    """Filter along time with a cascade of second-order sections.

    Parameters
    ----------
    x : Tensor
        Signals, (B, F, T), float32 or float64.
    sos : Tensor
        Sections ``b0 b1 b2 a0 a1 a2``, (S, 6) shared by all channels or (F, S, 6), float64. A first-order section
        has b2 = a2 = 0.

    Returns
    -------
    Tensor
        (B, F, T), the dtype of ``x``. Arithmetic and states are float64 whatever the dtype: the 2.5-Hz lowpass of the
        modulation filterbanks is wrong by 12 % in float32. Every row starts from zero state. Differentiable with
        respect to ``x`` and ``sos``.

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
    return _op(x, section_coefficients(sos if sos.ndim == 3 else sos[None]))


def section_coefficients(sos: Tensor) -> Tensor:
    """Return b0, b1, b2, a1, a2 of each section, (..., S, 5), divided by a0."""
    scaled = sos / sos[..., 3:4]
    return torch.cat([scaled[..., :3], scaled[..., 4:]], -1)


def reference(x: Tensor, sos: Tensor) -> Tensor:
    """Definition of `sosfilt`: a loop over time in float64, differentiable, slow."""
    signal = x.to(torch.float64)
    for section in section_coefficients(sos).unbind(-2):
        b0, b1, b2, a1, a2 = section.unbind(-1)
        w1 = w2 = torch.zeros_like(signal[..., 0])
        samples = []
        for u in signal.unbind(-1):
            y = b0 * u + w1
            w1, w2 = b1 * u - a1 * y + w2, b2 * u - a2 * y
            samples.append(y)
        signal = torch.stack(samples, -1)
    return signal.to(x.dtype)


@torch.library.custom_op("psysim::sosfilt", mutates_args=())
def _op(x: Tensor, coefficients: Tensor) -> Tensor:
    return FORMS.select(x).forward(x, coefficients)


@torch.library.custom_op("psysim::sosfilt_backward", mutates_args=())
def _op_backward(grad: Tensor, x: Tensor, coefficients: Tensor, learn: bool) -> tuple[Tensor, Tensor]:
    return FORMS.select(x).backward(grad, x, coefficients, learn)


@_op.register_fake
def _fake(x: Tensor, coefficients: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@_op_backward.register_fake
def _fake_backward(
    grad: Tensor,
    x: Tensor,
    coefficients: Tensor,
    learn: bool,
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), coefficients.new_empty(coefficients.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    learn = ctx.needs_input_grad[1]
    grad_x, grad_coefficients = _op_backward(grad, *ctx.saved_tensors, learn)
    return grad_x, grad_coefficients if learn else None


_op.register_autograd(_gradient, setup_context=_save)
