r"""Memoryless compression of signed samples: a straight line or a power law, whichever is smaller (a broken stick).

    y = sign(x) min(linear |x|, gain |x|^exponent)

Shapes: ``x`` and output (B, F, T); ``linear``, ``gain`` and ``exponent`` (1,) or (F,). There is no state.
The gradient is computed in float64 whatever the dtype of the signal, the output as well on CUDA. On the CPU float32
signals are compressed in float32, in half of the time; the exponent is split so that the error stays below 5e-7 of the
value (a plain float32 power would be wrong by up to 1.5e-6 at 1e-40 with an exponent of 0.25).
"""

# ruff: noqa: ARG001
# The registered functions take what torch.library passes.

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from psysim.ops.base import check_coefficient, check_signal, forms_of

__all__ = ["FORMS", "check_compression", "compress", "reference"]

FORMS = forms_of("compress", "compress")


def compress(x: Tensor, linear: Tensor, gain: Tensor, exponent: Tensor) -> Tensor:
    """Compress each sample, keeping its sign.

    Parameters
    ----------
    x : Tensor
        Signals, (B, F, T), float32 or float64.
    linear : Tensor
        Factor of small samples, (1,) for all channels or (F,), float64, not negative. ``inf`` gives the pure power law,
        0 silence.
    gain : Tensor
        Factor of the power law, (1,) or (F,), float64, in the unit of the output per unit of ``x`` to the exponent.
    exponent : Tensor
        Exponent of the power law, (1,) or (F,), float64, positive; below 1 it compresses.

    Returns
    -------
    Tensor
        (B, F, T), the dtype of ``x``. Differentiable with respect to all arguments. The derivative of the pure power
        law at 0, infinite for an exponent below 1, is defined as 0.

    Raises
    ------
    SpecError
        For a wrong shape or dtype, or a device without an implementation.

    Notes
    -----
    With exponent < 1 the straight line holds up to the knee |x| = (gain / linear)^(1 / (1 - exponent)). A stick of
    slope 1 that breaks at ``knee`` has linear = 1, gain = knee^(1 - exponent); a power law that leaves ``knee`` where
    it is has linear = inf and the same gain. Where both are equal, the gradient is that of the power law. The power is
    between 3e-308 and 3e307 or exactly 0.

    References
    ----------
    Lopez-Poveda, E. A. and Meddis, R. (2001). A human nonlinear cochlear filterbank. J. Acoust. Soc. Am. 110,
    3107-3118.
    King, A., Varnet, L. and Lorenzi, C. (2019). Accounting for masking of frequency modulation by amplitude modulation
    with the modulation filter-bank concept. J. Acoust. Soc. Am. 145, 2277-2293.

    Examples
    --------
    >>> import torch
    >>> linear, gain, exponent = (torch.tensor([value]).double() for value in (1.0, 2.0, 0.5))
    >>> compress(torch.tensor([[[1.0, -4.0, 16.0]]]), linear, gain, exponent)
    tensor([[[ 1., -4.,  8.]]])
    """
    check_signal("compress", x, ("B", "F", "T"))
    return _op(x, check_compression("compress", x.shape[1], linear, gain, exponent, x))


def check_compression(op: str, channels: int, linear: Tensor, gain: Tensor, exponent: Tensor, like: Tensor) -> Tensor:
    """Check the three coefficients of ``op`` and return them side by side, (1 or F, 3)."""
    coefficients = {"linear": linear, "gain": gain, "exponent": exponent}
    for name, value in coefficients.items():
        check_coefficient(op, name, value, [(1,), (channels,)], like)
    count = max(len(value) for value in coefficients.values())
    return torch.stack([value.expand(count) for value in coefficients.values()], -1)


def reference(x: Tensor, linear: Tensor, gain: Tensor, exponent: Tensor) -> Tensor:
    """Definition of `compress` in plain torch, in float64, differentiable."""
    sample = x.to(torch.float64)
    linear, gain, exponent = linear[:, None], gain[:, None], exponent[:, None]
    broken = linear != torch.inf
    slope = torch.where(broken, linear, 0.0)
    # Where the derivative of a branch that is not taken would be infinite, its argument is replaced as well
    size = torch.where(sample.abs() > 0, sample.abs(), 1.0)
    straight = torch.where(broken, slope * size, torch.inf)
    power = gain * size**exponent
    large = sample.sign() * torch.where((straight < power) | straight.isnan(), straight, power)
    at_zero = torch.where(exponent > 1, 0.0, slope) * sample
    return torch.where(sample.abs() > 0, large, at_zero).to(x.dtype)


@torch.library.custom_op("psysim::compress", mutates_args=())
def _op(x: Tensor, coefficients: Tensor) -> Tensor:
    """Compress; ``coefficients`` (1 or F, 3): linear, gain, exponent."""
    return FORMS.select(x).forward(x, coefficients)


@torch.library.custom_op("psysim::compress_backward", mutates_args=())
def _op_backward(grad: Tensor, x: Tensor, coefficients: Tensor, learn: bool) -> tuple[Tensor, Tensor]:
    return FORMS.select(x).backward(grad, x, coefficients, learn)


@_op.register_fake
def _fake(x: Tensor, coefficients: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@_op_backward.register_fake
def _fake_backward(grad: Tensor, x: Tensor, coefficients: Tensor, learn: bool) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), coefficients.new_empty(coefficients.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    learn = ctx.needs_input_grad[1]
    grad_x, grad_coefficients = _op_backward(grad, *ctx.saved_tensors, learn)
    return grad_x, grad_coefficients if learn else None


_op.register_autograd(_gradient, setup_context=_save)
