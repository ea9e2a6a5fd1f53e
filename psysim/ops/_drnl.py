r"""Dual-resonance nonlinear (DRNL) filters: a linear and a compressive path side by side, one pair per channel.

    y = cascade(linear_sos) x + cascade(after_sos) c(cascade(before_sos) x)
    c(v) = sign(v) min(linear |v|, gain |v|^exponent)

Cascades as in `sosfilt`, c as in `compress`. Shapes: ``x`` (B, T), output (B, F, T), ``linear_sos`` (F, S1, 6),
``before_sos`` (F, S2, 6), ``after_sos`` (F, S3, 6), ``linear``, ``gain`` and ``exponent`` (1,) or (F,), state
(B, F, 2 (S1 + S2 + S3)): w1, w2 of each section, in this order of the cascades.
Filter states and arithmetic are float64 whatever the dtype of the signal. The compression is computed as `compress`
computes it: on the CPU in float32 for float32 signals.
"""

# ruff: noqa: ARG001
# The registered functions take what torch.library passes.

from __future__ import annotations

from typing import Any, Literal, overload

import torch
from torch import Tensor

from psysim.ops._compress import check_compression
from psysim.ops._compress import reference as compress_reference
from psysim.ops._sosfilt import reference as sosfilt_reference
from psysim.ops._sosfilt import section_coefficients
from psysim.ops.base import check_coefficient, check_signal, forms_of, initial_state

__all__ = ["FORMS", "drnl", "reference"]

FORMS = forms_of("drnl", "drnl")


@overload
def drnl(
    x: Tensor,
    linear_sos: Tensor,
    before_sos: Tensor,
    linear: Tensor,
    gain: Tensor,
    exponent: Tensor,
    after_sos: Tensor,
    *,
    state: Tensor | None = ...,
    return_state: Literal[False] = ...,
) -> Tensor: ...
@overload
def drnl(
    x: Tensor,
    linear_sos: Tensor,
    before_sos: Tensor,
    linear: Tensor,
    gain: Tensor,
    exponent: Tensor,
    after_sos: Tensor,
    *,
    state: Tensor | None = ...,
    return_state: Literal[True],
) -> tuple[Tensor, Tensor]: ...
def drnl(
    x: Tensor,
    linear_sos: Tensor,
    before_sos: Tensor,
    linear: Tensor,
    gain: Tensor,
    exponent: Tensor,
    after_sos: Tensor,
    *,
    state: Tensor | None = None,
    return_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Filter sound with a bank of dual-resonance nonlinear filters.

    Parameters
    ----------
    x : Tensor
        Sound, or stapes velocity in m/s, (B, T), float32 or float64.
    linear_sos : Tensor
        Sections ``b0 b1 b2 a0 a1 a2`` of the linear path, (F, S1, 6), float64, with the gain of the path in one of
        them.
    before_sos : Tensor
        Sections of the nonlinear path before the compression, (F, S2, 6), float64.
    linear, gain, exponent : Tensor
        Compression sign(v) min(linear |v|, gain |v|^exponent) as in `compress`, each (1,) for all channels or (F,),
        float64. linear = 0 makes the nonlinear path of a channel silent (a listener without outer hair cells).
    after_sos : Tensor
        Sections of the nonlinear path after the compression, (F, S3, 6), float64.
    state : Tensor, optional
        State at the start, (B, F, 2 (S1 + S2 + S3)), float64, as returned for the sound before; without it every
        channel starts from zero.
    return_state : bool
        Also return the state at the end, so that a long sound can be filtered block by block.

    Returns
    -------
    Tensor
        (B, F, T), the dtype and unit of ``x``. Differentiable with respect to all tensors.
    Tensor
        Only with ``return_state``: the state at the end, float64, differentiable.

    Raises
    ------
    SpecError
        For a wrong shape or dtype, or a device without an implementation.

    Notes
    -----
    The same as `sosfilt` and `compress` one after another for both paths and a sum, but the sound is read and the
    output written once, and nothing between is kept.

    References
    ----------
    Meddis, R., O'Mard, L. P. and Lopez-Poveda, E. A. (2001). A computational algorithm for computing nonlinear auditory
    frequency selectivity. J. Acoust. Soc. Am. 109, 2852-2861.
    Lopez-Poveda, E. A. and Meddis, R. (2001). A human nonlinear cochlear filterbank. J. Acoust. Soc. Am. 110,
    3107-3118.

    Examples
    --------
    >>> import torch
    >>> half, through = (torch.tensor([[[b0, 0.0, 0.0, 1.0, 0.0, 0.0]]]).double() for b0 in (0.5, 1.0))
    >>> linear, gain, exponent = (torch.tensor([value]).double() for value in (1.0, 2.0, 0.5))
    >>> drnl(torch.tensor([[1.0, -4.0, 16.0]]), half, through, linear, gain, exponent, through)
    tensor([[[ 1.5000, -6.0000, 16.0000]]])
    """
    check_signal("drnl", x, ("B", "T"))
    check_coefficient("drnl", "linear_sos", linear_sos, [(-1, -1, 6)], x)
    channels = len(linear_sos)
    check_coefficient("drnl", "before_sos", before_sos, [(channels, -1, 6)], x)
    check_coefficient("drnl", "after_sos", after_sos, [(channels, -1, 6)], x)
    compression = check_compression("drnl", channels, linear, gain, exponent, x)
    sections = section_coefficients(torch.cat([linear_sos, before_sos, after_sos], 1))
    start = initial_state("drnl", state, (len(x), channels, 2 * sections.shape[1]), x)
    counts = linear_sos.shape[1], before_sos.shape[1]
    y, end = _op(x, sections, compression.expand(channels, 3), start, *counts)
    return (y, end) if return_state else y


def reference(
    x: Tensor,
    linear_sos: Tensor,
    before_sos: Tensor,
    linear: Tensor,
    gain: Tensor,
    exponent: Tensor,
    after_sos: Tensor,
    *,
    state: Tensor | None = None,
    return_state: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Definition of `drnl`: those of `sosfilt` and `compress` put together in float64, differentiable, slow."""
    sound = x.to(torch.float64)[:, None].expand(-1, len(linear_sos), -1)
    cascades = linear_sos, before_sos, after_sos
    sizes = [2 * cascade.shape[1] for cascade in cascades]
    if state is None:
        state = sound.new_zeros((*sound.shape[:2], sum(sizes)))
    starts = torch.split(state, sizes, -1)
    straight, end1 = sosfilt_reference(sound, linear_sos, state=starts[0], return_state=True)
    v, end2 = sosfilt_reference(sound, before_sos, state=starts[1], return_state=True)
    u = compress_reference(v, linear, gain, exponent)
    bent, end3 = sosfilt_reference(u, after_sos, state=starts[2], return_state=True)
    y = (straight + bent).to(x.dtype)
    return (y, torch.cat([end1, end2, end3], -1)) if return_state else y


@torch.library.custom_op("psysim::drnl", mutates_args=())
def _op(
    x: Tensor, sections: Tensor, compression: Tensor, state: Tensor, count_linear: int, count_before: int
) -> tuple[Tensor, Tensor]:
    """Filter; ``sections`` (F, S1 + S2 + S3, 5) of the three cascades, ``compression`` (F, 3)."""
    return FORMS.select(x).forward(x, sections, compression, state, count_linear, count_before)


@torch.library.custom_op("psysim::drnl_backward", mutates_args=())
def _op_backward(
    grad: Tensor,
    grad_end: Tensor,
    x: Tensor,
    sections: Tensor,
    compression: Tensor,
    state: Tensor,
    count_linear: int,
    count_before: int,
    learn: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    counts = count_linear, count_before
    return FORMS.select(x).backward(grad, grad_end, x, sections, compression, state, *counts, learn)


@_op.register_fake
def _fake(
    x: Tensor, sections: Tensor, compression: Tensor, state: Tensor, count_linear: int, count_before: int
) -> tuple[Tensor, Tensor]:
    return x.new_empty((x.shape[0], sections.shape[0], x.shape[1])), state.new_empty(state.shape)


@_op_backward.register_fake
def _fake_backward(
    grad: Tensor,
    grad_end: Tensor,
    x: Tensor,
    sections: Tensor,
    compression: Tensor,
    state: Tensor,
    count_linear: int,
    count_before: int,
    learn: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return tuple(value.new_empty(value.shape) for value in (x, sections, compression, state))  # type: ignore[return-value]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.counts = inputs[4:]


def _gradient(ctx: Any, grad: Tensor, grad_end: Tensor) -> tuple[Tensor | None, ...]:
    learn = ctx.needs_input_grad[1] or ctx.needs_input_grad[2]
    slopes = _op_backward(grad, grad_end, *ctx.saved_tensors, *ctx.counts, learn)
    grad_x, grad_sections, grad_compression, grad_start = slopes
    return grad_x, *((grad_sections, grad_compression) if learn else (None, None)), grad_start, None, None


_op.register_autograd(_gradient, setup_context=_save)
