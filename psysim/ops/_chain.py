r"""A chain of steps in one pass: to the representation, or to its products with templates without it in memory.

`chain_forward` makes the representation R (B, F, M, T') with nothing between the sound and R in memory.
`chain_products` leaves R out as well: with T_k template k of a row's condition,

    products[b, f, m, k] = sum_t R[b, f, m, t] T_k[f, m, t]
    with ``moments`` also  sum_t R[b, f, m, t]  and  sum_t R[b, f, m, t]^2

Everything a template-matching observer needs follows from these: the correlation with a template (sum over f and m),
with a reference subtracted before (subtract the reference's own products), covariances with means removed per
modulation channel (CASP), energies and normalised correlations. Memory grows with B F M, not with time.
Shapes: ``x`` (B, T) or (B, F, T), templates (C, K, F, M, T'), index (B,), output (B, F, M, K) or (B, F, M, K + 2).
"""

# ruff: noqa: ARG001
# The registered functions take what torch.library passes.

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from psysim.errors import SpecError
from psysim.ops.base import check_coefficient, check_signal, forms_of
from psysim.ops.steps import Bank, Decimate, Step, kinds_of, rebuild

__all__ = ["FORMS", "chain_forward", "chain_products", "forward_reference", "reference"]

FORMS = forms_of("chain", "chain")


def chain_forward(x: Tensor, steps: Sequence[Step]) -> Tensor:
    """Pass sounds through a chain of steps in one pass.

    Parameters
    ----------
    x : Tensor
        Sound (B, T) if the first step makes channels of it, else channels (B, F, T); float32 or float64.
    steps : sequence of Step
        From `psysim.ops.steps`; the last one is a `Bank`.

    Returns
    -------
    Tensor
        The representation (B, F, M, T'), the dtype of ``x``: the same bits as that of the steps run one by one.

    Raises
    ------
    SpecError
        For a wrong shape or dtype, steps that do not fit, a device without an implementation, or if a gradient is asked
        for: run the steps one by one for that.

    Examples
    --------
    >>> import torch
    >>> from psysim.ops import steps
    >>> same, one = torch.tensor([[1.0, 0, 0, 1, 0, 0]]).double(), torch.ones(1).double()
    >>> bank = steps.Bank(same, 0.5 * one, torch.pi * one, torch.tensor([False]), 2.0 * one, torch.ones(1, 2) > 0)
    >>> chain_forward(torch.tensor([[[1.0, -1.0, 1.0]]]), [steps.HalfWave(), bank])
    tensor([[[[ 1.0000,  0.0000,  1.0000],
              [ 1.0000, -0.5000,  1.2500]]]])
    """
    return _forward(x, *_checked("chain_forward", x, steps, []))


def chain_products(x: Tensor, steps: Sequence[Step], templates: Tensor, index: Tensor, moments: bool = False) -> Tensor:
    """Pass sounds through a chain of steps and correlate the outcome with templates, in one pass.

    Parameters
    ----------
    x : Tensor
        Sound (B, T) if the first step makes channels of it, else channels (B, F, T); float32 or float64.
    steps : sequence of Step
        From `psysim.ops.steps`; the last one is a `Bank`.
    templates : Tensor
        Templates (C, K, F, M, T') of C conditions, K each, float32 or float64; T' samples come out of the steps.
    index : Tensor
        Condition of each row, (B,), int64, 0 ... C - 1.
    moments : bool
        Also return the sum and the sum of squares of the representation.

    Returns
    -------
    Tensor
        (B, F, M, K), or (B, F, M, K + 2) with ``moments``; float64. Zero where an auditory channel lacks a filter.
        Bitwise the same for a row whatever the other rows are.

    Raises
    ------
    SpecError
        For a wrong shape, dtype or index, steps that do not fit, a device without an implementation, or if a gradient
        is asked for: run the steps one by one for that.

    Notes
    -----
    The representation has the same bits as that of the steps run one by one (each step's output is rounded to the dtype
    of ``x``); the sums are float64, in another order than those of `template_product`.

    Examples
    --------
    >>> import torch
    >>> from psysim.ops import steps
    >>> same, one = torch.tensor([[1.0, 0, 0, 1, 0, 0]]).double(), torch.ones(1).double()
    >>> bank = steps.Bank(same, 0.5 * one, torch.pi * one, torch.tensor([False]), 2.0 * one, torch.ones(1, 2) > 0)
    >>> sound = torch.tensor([[[1.0, -1.0, 1.0]]])
    >>> chain_products(sound, [steps.HalfWave(), bank], torch.ones(1, 1, 1, 2, 3), torch.tensor([0]), moments=True)
    tensor([[[[2.0000, 2.0000, 2.0000],
              [1.7500, 1.7500, 2.8125]]]], dtype=torch.float64)
    """
    kinds, tensors, numbers = _checked("chain_products", x, steps, [templates])
    check_signal("chain_products", templates, ("C", "K", "F", "M", "T'"), "templates")
    check_coefficient("chain_products", "index", index, [(len(x),)], x, torch.int64)
    shape = _shape(steps, x.shape[-1])
    if templates.shape[2:] != shape:
        raise SpecError(
            f"ops.chain_products: templates have shape {tuple(templates.shape)}; the steps make (F, M, T') = {shape}."
        )
    return _products(x, kinds, tensors, numbers, templates, index, moments)


def _checked(
    op: str, x: Tensor, steps: Sequence[Step], more: Sequence[Tensor]
) -> tuple[list[int], list[Tensor], list[float]]:
    """Check sound and steps; return the steps as what passes through `torch.library`."""
    _check_steps(op, steps)
    check_signal(op, x, ("B", "T") if steps[0].source else ("B", "F", "T"))
    tensors = [tensor for step in steps for tensor in step.tensors]
    if torch.is_grad_enabled() and any(
        isinstance(tensor, Tensor) and tensor.requires_grad for tensor in (x, *more, *tensors)
    ):
        raise SpecError(f"ops.{op} has no gradient: run the steps one by one (Step.run).")
    channels, _, frames = _shape(steps, x.shape[-1])
    if x.ndim == 3 and x.shape[1] != channels:
        raise SpecError(f"ops.{op}: x has {x.shape[1]} channels, the steps have {channels}.")
    if frames < 1:
        raise SpecError(f"ops.{op}: x has {x.shape[-1]} samples, too few for one sample after the steps.")
    return kinds_of(steps), tensors, [number for step in steps for number in step.numbers]


def _check_steps(op: str, steps: Sequence[Step]) -> None:
    if not steps or not isinstance(steps[-1], Bank):
        raise SpecError(f"ops.{op}: the last step must be a Bank.")
    for step in steps[1:]:
        if step.source:
            raise SpecError(f"ops.{op}: {type(step).__name__} takes sound, so it can only be the first step.")
    if any(isinstance(step, Bank) for step in steps[:-1]):
        raise SpecError(f"ops.{op}: a Bank can only be the last step.")
    if sum(isinstance(step, Decimate) for step in steps) > 1:
        raise SpecError(f"ops.{op}: there can be only one Decimate.")


def _shape(steps: Sequence[Step], samples: int) -> tuple[int, int, int]:
    """Return (F, M, T') of the representation."""
    bank = steps[-1]
    assert isinstance(bank, Bank)
    for step in steps:
        samples = step.samples_out(samples)
    return bank.valid.shape[0], bank.valid.shape[1], samples


def forward_reference(x: Tensor, steps: Sequence[Step]) -> Tensor:
    """Definition of `chain_forward`: the steps one by one."""
    for step in steps:
        x = step.run(x)
    return x


def reference(x: Tensor, steps: Sequence[Step], templates: Tensor, index: Tensor, moments: bool = False) -> Tensor:
    """Definition of `chain_products`: the steps one by one, then the sums."""
    representation = forward_reference(x, steps).double()
    out = (representation[:, None] * templates[index].double()).sum(-1).permute(0, 2, 3, 1)
    if not moments:
        return out
    sums = torch.stack([representation.sum(-1), representation.square().sum(-1)], -1)
    return torch.cat([out, sums], -1)


@torch.library.custom_op("psysim::chain_forward", mutates_args=())
def _forward(x: Tensor, kinds: Sequence[int], tensors: Sequence[Tensor], numbers: Sequence[float]) -> Tensor:
    steps = rebuild(kinds, tensors, numbers)
    return FORMS.select(x).forward(x, steps, _shape(steps, x.shape[-1]))


@_forward.register_fake
def _fake_forward(x: Tensor, kinds: Sequence[int], tensors: Sequence[Tensor], numbers: Sequence[float]) -> Tensor:
    return x.new_empty((len(x), *_shape(rebuild(kinds, tensors, numbers), x.shape[-1])))


@torch.library.custom_op("psysim::chain_products", mutates_args=())
def _products(
    x: Tensor,
    kinds: Sequence[int],
    tensors: Sequence[Tensor],
    numbers: Sequence[float],
    templates: Tensor,
    index: Tensor,
    moments: bool,
) -> Tensor:
    run = FORMS.select(x).function("products")
    return run(x, rebuild(kinds, tensors, numbers), templates, index, moments)


@_products.register_fake
def _fake_products(
    x: Tensor,
    kinds: Sequence[int],
    tensors: Sequence[Tensor],
    numbers: Sequence[float],
    templates: Tensor,
    index: Tensor,
    moments: bool,
) -> Tensor:
    _, k, f, m, _ = templates.shape
    return x.new_empty((len(x), f, m, k + 2 * moments), dtype=torch.float64)
