r"""A chain of steps and its inner products with templates in one pass, without the representation in memory.

With R (B, F, M, T) what the steps make of the sound, and T_k template k of a row's condition:

    products[b, f, m, k] = sum_t R[b, f, m, t] T_k[f, m, t]
    with ``moments`` also sum_t R[b, f, m, t]  and  sum_t R[b, f, m, t]^2

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
from psysim.ops.steps import Bank, Step, kinds_of

__all__ = ["FORMS", "chain_products", "reference"]

FORMS = forms_of("chain_products", "chain")


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
    _check_steps(steps)
    check_signal("chain_products", x, ("B", "T") if steps[0].source else ("B", "F", "T"))
    check_signal("chain_products", templates, ("C", "K", "F", "M", "T'"), "templates")
    check_coefficient("chain_products", "index", index, [(len(x),)], x, torch.int64)
    tensors = [tensor for step in steps for tensor in step.tensors]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, templates, *tensors)):
        raise SpecError(
            "ops.chain_products has no gradient: run the steps one by one (Step.run) and ops.template_product."
        )
    shape = (*_filters(steps[-1]), _samples_out(steps, x.shape[-1]))
    if templates.shape[2:] != shape:
        raise SpecError(
            f"ops.chain_products: templates have shape {tuple(templates.shape)}; the steps make (F, M, T') = {shape}."
        )
    if x.ndim == 3 and x.shape[1] != shape[0]:
        raise SpecError(f"ops.chain_products: x has {x.shape[1]} channels, the steps have {shape[0]}.")
    numbers = [number for step in steps for number in step.numbers]
    return _op(x, kinds_of(steps), tensors, numbers, templates, index, moments)


def _check_steps(steps: Sequence[Step]) -> None:
    if not steps or not isinstance(steps[-1], Bank):
        raise SpecError("ops.chain_products: the last step must be a Bank.")
    for step in steps[1:]:
        if step.source:
            raise SpecError(f"ops.chain_products: {type(step).__name__} takes sound, so it can only be the first step.")
    for step in steps[:-1]:
        if isinstance(step, Bank):
            raise SpecError("ops.chain_products: a Bank can only be the last step.")


def _filters(bank: Step) -> tuple[int, int]:
    assert isinstance(bank, Bank)
    return bank.valid.shape[0], bank.valid.shape[1]


def _samples_out(steps: Sequence[Step], samples: int) -> int:
    for step in steps:
        samples = step.samples_out(samples)
    return samples


def reference(x: Tensor, steps: Sequence[Step], templates: Tensor, index: Tensor, moments: bool = False) -> Tensor:
    """Definition of `chain_products`: the steps one by one, then the sums."""
    for step in steps:
        x = step.run(x)
    representation = x.double()
    out = (representation[:, None] * templates[index].double()).sum(-1).permute(0, 2, 3, 1)
    if not moments:
        return out
    sums = torch.stack([representation.sum(-1), representation.square().sum(-1)], -1)
    return torch.cat([out, sums], -1)


@torch.library.custom_op("psysim::chain_products", mutates_args=())
def _op(
    x: Tensor,
    kinds: Sequence[int],
    tensors: Sequence[Tensor],
    numbers: Sequence[float],
    templates: Tensor,
    index: Tensor,
    moments: bool,
) -> Tensor:
    return FORMS.select(x).forward(x, kinds, tensors, numbers, templates, index, moments)


@_op.register_fake
def _fake(
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
