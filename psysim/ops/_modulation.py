r"""Modulation filterbank: one lowpass and a set of complex one-pole bandpasses on every auditory channel.

    m = 0:    y[n] = lowpass_sos applied to x
    m >= 1:   z[n] = (1 - g) x[n] + g exp(+i w) z[n-1],    y = scale Re(z)  or  scale |z| where ``envelope``

with ``g`` the decay and ``w`` the angle. Filters that a channel lacks (``valid`` false) put out zeros.
Shapes: ``x`` (B, F, T), output (B, F, M, T), state (B, F, 2 S + 2 (M - 1)): w1, w2 of each lowpass section (`sosfilt`),
then real and imaginary part of each z.
"""

# ruff: noqa: ARG001
# The registered functions take what torch.library passes.

from __future__ import annotations

from typing import Any, Literal, overload

import torch
from torch import Tensor

from psysim.ops import _sosfilt
from psysim.ops.base import check_coefficient, check_signal, complex_of, forms_of, initial_state

__all__ = ["FORMS", "modulation_bank", "pole_coefficients", "reference"]

FORMS = forms_of("modulation_bank", "modulation")


@overload
def modulation_bank(
    x: Tensor,
    lowpass_sos: Tensor,
    decay: Tensor,
    angle: Tensor,
    envelope: Tensor,
    scale: Tensor,
    valid: Tensor,
    phase_insensitive: bool = ...,
    *,
    state: Tensor | None = ...,
    return_state: Literal[False] = ...,
) -> Tensor: ...
@overload
def modulation_bank(
    x: Tensor,
    lowpass_sos: Tensor,
    decay: Tensor,
    angle: Tensor,
    envelope: Tensor,
    scale: Tensor,
    valid: Tensor,
    phase_insensitive: bool = ...,
    *,
    state: Tensor | None = ...,
    return_state: Literal[True],
) -> tuple[Tensor, Tensor]: ...
def modulation_bank(
    x: Tensor,
    lowpass_sos: Tensor,
    decay: Tensor,
    angle: Tensor,
    envelope: Tensor,
    scale: Tensor,
    valid: Tensor,
    phase_insensitive: bool = True,
    *,
    state: Tensor | None = None,
    return_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
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
    state : Tensor, optional
        State at the start, (B, F, 2 S + 2 (M - 1)), float64, as returned for the sound before; without it every row
        starts from zero.
    return_state : bool
        Also return the state at the end, so that a long sound can be filtered block by block.

    Returns
    -------
    Tensor
        (B, F, M, T), the dtype of ``x`` or its complex partner. Differentiable with respect to ``x``, ``lowpass_sos``,
        ``decay``, ``angle``, ``scale`` and ``state``; the gradient of the magnitude at zero is 0.
    Tensor
        Only with ``return_state``: the state at the end, (B, F, 2 S + 2 (M - 1)), float64, differentiable. The states
        of filters that a channel lacks stay as they were.

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
    low, poles = _sosfilt.section_coefficients(lowpass_sos), pole_coefficients(decay, angle, scale)
    start = initial_state("modulation_bank", state, (*x.shape[:2], 2 * (len(low) + len(poles))), x)
    y, end = _op(x, low, poles, envelope, valid, start, not phase_insensitive)
    return (y, end) if return_state else y


def pole_coefficients(decay: Tensor, angle: Tensor, scale: Tensor) -> Tensor:
    """Return what the kernels take for each bandpass, (M - 1, 4): 1 - g, 1 - Re p, Im p, scale."""
    return torch.stack([1.0 - decay, 1.0 - decay * torch.cos(angle), decay * torch.sin(angle), scale], -1)


def reference(
    x: Tensor,
    lowpass_sos: Tensor,
    decay: Tensor,
    angle: Tensor,
    envelope: Tensor,
    scale: Tensor,
    valid: Tensor,
    phase_insensitive: bool = True,
    *,
    state: Tensor | None = None,
    return_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Definition of `modulation_bank`: a loop over time in float64, differentiable, slow."""
    signal = x.to(torch.float64)
    pole = torch.polar(decay, angle)
    sections = len(lowpass_sos)
    if state is None:
        state = signal.new_zeros((*x.shape[:2], 2 * (sections + len(decay))))
    low_state, first = (
        state[..., : 2 * sections],
        torch.view_as_complex(state[..., 2 * sections :].reshape(*x.shape[:2], len(decay), 2)),
    )
    z = first
    samples = []
    for sample in signal.unbind(-1):
        z = (1.0 - decay) * sample[..., None] + pole * z
        samples.append(z)
    bands = torch.stack(samples, -1) * scale[:, None]
    if phase_insensitive:
        bands = torch.where(envelope[:, None], bands.abs(), bands.real)
    low, low_end = _sosfilt.reference(signal, lowpass_sos, state=low_state, return_state=True)
    out = torch.cat([low[:, :, None].to(bands.dtype), bands], dim=2)
    out = torch.where(valid[:, :, None], out, torch.zeros((), dtype=out.dtype, device=x.device))
    y = out.to(x.dtype if phase_insensitive else complex_of(x.dtype))
    end = torch.view_as_real(torch.where(valid[:, 1:], z, first)).flatten(-2)
    return (y, torch.cat([torch.where(valid[:, :1], low_end, low_state), end], -1)) if return_state else y


@torch.library.custom_op("psysim::modulation_bank", mutates_args=())
def _op(
    x: Tensor, low: Tensor, bands: Tensor, envelope: Tensor, valid: Tensor, state: Tensor, complex_output: bool
) -> tuple[Tensor, Tensor]:
    """Run the bank; ``low`` (S, 5), ``bands`` (M - 1, 4): 1 - g, 1 - Re p, Im p, scale."""
    return FORMS.select(x).forward(x, low, bands, envelope, valid, state, complex_output)


@torch.library.custom_op("psysim::modulation_bank_backward", mutates_args=())
def _op_backward(
    grad: Tensor,
    grad_end: Tensor,
    x: Tensor,
    low: Tensor,
    bands: Tensor,
    envelope: Tensor,
    valid: Tensor,
    state: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return FORMS.select(x).backward(grad, grad_end, x, low, bands, envelope, valid, state)


@_op.register_fake
def _fake(
    x: Tensor, low: Tensor, bands: Tensor, envelope: Tensor, valid: Tensor, state: Tensor, complex_output: bool
) -> tuple[Tensor, Tensor]:
    dtype = complex_of(x.dtype) if complex_output else x.dtype
    shape = (x.shape[0], x.shape[1], valid.shape[1], x.shape[2])
    return x.new_empty(shape, dtype=dtype), state.new_empty(state.shape)


@_op_backward.register_fake
def _fake_backward(
    grad: Tensor,
    grad_end: Tensor,
    x: Tensor,
    low: Tensor,
    bands: Tensor,
    envelope: Tensor,
    valid: Tensor,
    state: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return tuple(value.new_empty(value.shape) for value in (x, low, bands, state))  # type: ignore[return-value]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:6])


def _gradient(ctx: Any, grad: Tensor, grad_end: Tensor) -> tuple[Tensor | None, ...]:
    grad_x, grad_low, grad_bands, grad_state = _op_backward(grad, grad_end, *ctx.saved_tensors)
    return grad_x, grad_low, grad_bands, None, None, grad_state, None


_op.register_autograd(_gradient, setup_context=_save)
