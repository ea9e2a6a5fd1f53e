r"""Spreading of spectral components over rounded-exponential filters whose slope follows the level.

    out[n, j] = sum over k < count[j] of (1 + z) exp(-z) x[n, k],   z = max(slope[n, k], floor[j]) distance[j, k]

Shapes: ``x`` and ``slope`` (N, K), ``distance`` (J, K), ``floor`` and ``count`` (J,), output (N, J). Row n is one
spectrum, k a component, j a filter; components are in order of frequency, and those below ``count[j]`` lie on the side
of filter j whose slope depends on the level at the component.
Forms: numba on the CPU (a block is `LANES` rows, so that no sum depends on other rows), Triton on CUDA.
"""

# ruff: noqa: ARG001
# The registered functions take what torch.library passes.

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from psysim.errors import SpecError
from psysim.ops.base import check_coefficient, check_signal, forms_of

__all__ = ["FORMS", "reference", "roex_spread"]

FORMS = forms_of("roex_spread", "roex")


def roex_spread(x: Tensor, slope: Tensor, distance: Tensor, floor: Tensor, count: Tensor) -> Tensor:
    """Sum components under rounded-exponential filters with a slope of its own for every component.

    Parameters
    ----------
    x : Tensor
        Intensities of the components, (N, K), float32 or float64.
    slope : Tensor
        Factor of the slope at each component, (N, K), dtype of ``x``; 1 at the level where ``distance`` holds.
    distance : Tensor
        Slope at the reference level times the relative distance p g of component k from filter j, (J, K), float64.
    floor : Tensor
        Lowest factor of the slope for each filter, (J,), float64; -inf for none.
    count : Tensor
        How many components, from the first on, each filter takes, (J,), int64, 0 ... K.

    Returns
    -------
    Tensor
        Excitation, (N, J), the dtype of ``x``. Bitwise the same for a row whatever the other rows are. Differentiable
        with respect to ``x`` and ``slope``.

    Raises
    ------
    SpecError
        For a wrong shape or dtype, a count out of range, or a device without an implementation.

    References
    ----------
    Moore, Glasberg & Baer (1997), J. Audio Eng. Soc. 45, 224-240, equations 3 and 4.

    Examples
    --------
    >>> import torch
    >>> distance, floor = torch.tensor([[1.0, 0.0], [2.0, 1.0]]).double(), torch.zeros(2).double()
    >>> roex_spread(torch.ones(1, 2), torch.ones(1, 2), distance, floor, torch.tensor([1, 2]))
    tensor([[0.7358, 1.1418]])
    """
    op = "roex_spread"
    check_signal(op, x, ("N", "K"))
    check_coefficient(op, "slope", slope, [tuple(x.shape)], x, x.dtype)
    check_coefficient(op, "distance", distance, [(-1, x.shape[1])], x)
    filters = len(distance)
    check_coefficient(op, "floor", floor, [(filters,)], x)
    check_coefficient(op, "count", count, [(filters,)], x, torch.int64)
    if not x.is_cuda and not x.is_meta and not bool(((count >= 0) & (count <= x.shape[1])).all()):
        raise SpecError(f"ops.{op}: count must hold whole numbers from 0 to {x.shape[1]}.")
    return _op(x, slope, distance, floor, count)


def reference(x: Tensor, slope: Tensor, distance: Tensor, floor: Tensor, count: Tensor) -> Tensor:
    """Definition of `roex_spread`, everything in memory at once, in float64."""
    z = torch.maximum(slope.double()[:, None, :], floor[:, None]) * distance
    weight = (1.0 + z) * torch.exp(-z)
    taken = torch.arange(x.shape[1], device=x.device) < count[:, None]
    return (torch.where(taken, weight, 0.0) * x.double()[:, None, :]).sum(-1).to(x.dtype)


@torch.library.custom_op("psysim::roex_spread", mutates_args=())
def _op(x: Tensor, slope: Tensor, distance: Tensor, floor: Tensor, count: Tensor) -> Tensor:
    return FORMS.select(x).forward(x, slope, distance, floor, count)


@torch.library.custom_op("psysim::roex_spread_backward", mutates_args=())
def _op_backward(
    grad: Tensor, x: Tensor, slope: Tensor, distance: Tensor, floor: Tensor, count: Tensor
) -> tuple[Tensor, Tensor]:
    return FORMS.select(x).backward(grad, x, slope, distance, floor, count)


@_op.register_fake
def _fake(x: Tensor, slope: Tensor, distance: Tensor, floor: Tensor, count: Tensor) -> Tensor:
    return x.new_empty((x.shape[0], distance.shape[0]))


@_op_backward.register_fake
def _fake_backward(
    grad: Tensor, x: Tensor, slope: Tensor, distance: Tensor, floor: Tensor, count: Tensor
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), slope.new_empty(slope.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *_op_backward(grad, *ctx.saved_tensors), None, None, None


_op.register_autograd(_gradient, setup_context=_save)
