r"""Modulation filterbank: one lowpass and a set of complex one-pole bandpasses on every auditory channel.

    m = 0:    y[n] = lowpass_sos applied to x
    m >= 1:   z[n] = (1 - g) x[n] + g exp(+i w) z[n-1],    y = scale Re(z)  or  scale |z| where ``envelope``

with ``g`` the decay and ``w`` the angle. Filters that a channel lacks (``valid`` false) put out zeros.
Shapes: ``x`` (B, F, T), output (B, F, M, T). Forms: numba on the CPU.
"""

# ruff: noqa: ARG001
# The registered functions take what torch.library passes.

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from psysim.ops import _sosfilt
from psysim.ops.base import check_coefficient, check_signal, complex_of, forms_of

__all__ = ["FORMS", "modulation_bank", "reference"]

FORMS = forms_of("modulation_bank", "modulation")


def modulation_bank(
    x: Tensor,
    lowpass_sos: Tensor,
    decay: Tensor,
    angle: Tensor,
    envelope: Tensor,
    scale: Tensor,
    valid: Tensor,
    phase_insensitive: bool = True,
) -> Tensor:
    """Split adapted envelopes into modulation channels.

    Parameters
    ----------
    x : Tensor
        Output of the adaptation, (B, F, T), float32 or float64.
    lowpass_sos : Tensor
        Lowest modulation filter as second-order sections, (S, 6), float64.
    decay : Tensor
        Radius of the pole of each bandpass, exp(-pi bandwidth/fs), (M - 1,), float64. M = 1 (lowpass only) is allowed.
    angle : Tensor
        Angle of the pole, 2 pi mfc/fs in radian, (M - 1,), float64.
    envelope : Tensor
        True for bandpasses that put out their magnitude instead of the real part, (M - 1,), bool.
    scale : Tensor
        Factor on each bandpass output, (M - 1,), float64.
    valid : Tensor
        True where an auditory channel has the modulation filter, (F, M), bool; the others put out zeros.
    phase_insensitive : bool
        False: return ``scale * z`` as complex numbers and ignore ``envelope`` (the lowpass stays real).

    Returns
    -------
    Tensor
        (B, F, M, T), the dtype of ``x`` or its complex partner. Every row starts from zero state. Differentiable
        with respect to ``x``, ``lowpass_sos``, ``decay``, ``angle`` and ``scale``; the gradient of the magnitude at
        zero is 0.

    Raises
    ------
    SpecError
        For a wrong shape or dtype, or a device without an implementation.

    Notes
    -----
    States and coefficients are float64 whatever the dtype of ``x``; only the magnitude and the scaling are computed in
    the dtype of ``x``.

    References
    ----------
    Dau, T., Kollmeier, B. and Kohlrausch, A. (1997). J. Acoust. Soc. Am. 102, 2892-2905, section I.

    Examples
    --------
    >>> import torch
    >>> same, one = torch.tensor([[1.0, 0, 0, 1, 0, 0]]).double(), torch.ones(1).double()
    >>> bands = dict(decay=0.5 * one, angle=torch.pi * one, envelope=torch.tensor([False]), scale=2.0 * one)
    >>> modulation_bank(torch.ones(1, 1, 3), same, **bands, valid=torch.ones(1, 2, dtype=torch.bool))
    tensor([[[[1.0000, 1.0000, 1.0000],
              [1.0000, 0.5000, 0.7500]]]])
    """
    op = "modulation_bank"
    check_signal(op, x, ("B", "F", "T"))
    check_coefficient(op, "lowpass_sos", lowpass_sos, [(-1, 6)], x)
    check_coefficient(op, "decay", decay, [(-1,)], x, empty_ok=True)
    bands = tuple(decay.shape)
    check_coefficient(op, "angle", angle, [bands], x, empty_ok=True)
    check_coefficient(op, "envelope", envelope, [bands], x, torch.bool, empty_ok=True)
    check_coefficient(op, "scale", scale, [bands], x, empty_ok=True)
    check_coefficient(op, "valid", valid, [(x.shape[1], bands[0] + 1)], x, torch.bool)
    low = _sosfilt.section_coefficients(lowpass_sos)
    poles = torch.stack([1.0 - decay, 1.0 - decay * torch.cos(angle), decay * torch.sin(angle), scale], -1)
    return _op(x, low, poles, envelope, valid, not phase_insensitive)


def reference(
    x: Tensor,
    lowpass_sos: Tensor,
    decay: Tensor,
    angle: Tensor,
    envelope: Tensor,
    scale: Tensor,
    valid: Tensor,
    phase_insensitive: bool = True,
) -> Tensor:
    """Definition of `modulation_bank`: a loop over time in float64, differentiable, slow."""
    signal = x.to(torch.float64)
    pole = torch.polar(decay, angle)
    z = torch.zeros(*x.shape[:2], len(decay), dtype=pole.dtype, device=x.device)
    samples = []
    for sample in signal.unbind(-1):
        z = (1.0 - decay) * sample[..., None] + pole * z
        samples.append(z)
    bands = torch.stack(samples, -1) * scale[:, None]
    if phase_insensitive:
        bands = torch.where(envelope[:, None], bands.abs(), bands.real)
    low = _sosfilt.reference(signal, lowpass_sos)[:, :, None]
    out = torch.cat([low.to(bands.dtype), bands], dim=2)
    out = torch.where(valid[:, :, None], out, torch.zeros((), dtype=out.dtype, device=x.device))
    return out.to(x.dtype if phase_insensitive else complex_of(x.dtype))


@torch.library.custom_op("psysim::modulation_bank", mutates_args=())
def _op(x: Tensor, low: Tensor, bands: Tensor, envelope: Tensor, valid: Tensor, complex_output: bool) -> Tensor:
    """Run the bank; ``low`` (S, 5), ``bands`` (M - 1, 4): 1 - g, 1 - Re p, Im p, scale."""
    return FORMS.select(x).forward(x, low, bands, envelope, valid, complex_output)


@torch.library.custom_op("psysim::modulation_bank_backward", mutates_args=())
def _op_backward(
    grad: Tensor, x: Tensor, low: Tensor, bands: Tensor, envelope: Tensor, valid: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return FORMS.select(x).backward(grad, x, low, bands, envelope, valid)


@_op.register_fake
def _fake(
    x: Tensor,
    low: Tensor,
    bands: Tensor,
    envelope: Tensor,
    valid: Tensor,
    complex_output: bool,
) -> Tensor:
    dtype = complex_of(x.dtype) if complex_output else x.dtype
    return x.new_empty((x.shape[0], x.shape[1], valid.shape[1], x.shape[2]), dtype=dtype)


@_op_backward.register_fake
def _fake_backward(
    grad: Tensor,
    x: Tensor,
    low: Tensor,
    bands: Tensor,
    envelope: Tensor,
    valid: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), low.new_empty(low.shape), bands.new_empty(bands.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:5])


def _gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *_op_backward(grad, *ctx.saved_tensors), None, None, None


_op.register_autograd(_gradient, setup_context=_save)
