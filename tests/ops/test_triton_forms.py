"""What the Triton forms do beyond the common promises: chunks, blocks without a filter, sums in a fixed order."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from op_cases import CASES

from psysim import ops
from psysim.ops import reference
from psysim.ops.base import using


@pytest.fixture(autouse=True)
def triton() -> Iterator[None]:
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("Triton's interpreter is off because there is a GPU")
    with using("triton"):
        yield


def normal(seed: int, *shape: int, dtype: Any = torch.float64) -> torch.Tensor:
    return torch.as_tensor(np.random.default_rng(seed).standard_normal(shape)).to(dtype)


def test_template_over_several_chunks_does_not_depend_on_the_batch(dtype: Any) -> None:
    x, templates = normal(1, 3, 20_000, dtype=dtype), normal(2, 2, 20_000, dtype=dtype)
    index = torch.tensor([1, 0, 1])
    product = ops.template_product(x, templates, index)
    expected = reference.template_product(x, templates, index)
    # products and sums in float64, 20,000 of them in another order
    assert (product - expected).abs().max() <= 1e-12 * expected.abs().max()
    assert torch.equal(ops.template_product(x[1:2], templates, index[1:2]), product[1:2])


@pytest.mark.parametrize("samples", [3, 16, 19])
def test_filters_that_no_row_of_a_program_has_are_blank(samples: int) -> None:
    """More rows than lanes of a program, so that whole programs have nothing to do."""
    inputs = CASES["modulation_bank"].inputs(np.random.default_rng(3), 20, 4, samples, torch.float64)
    inputs["valid"][:, 2] = False
    inputs["valid"][1] = False
    x, state = inputs["x"].requires_grad_(), normal(4, 20, 4, 12).requires_grad_()
    results = []
    for function in (ops.modulation_bank, reference.modulation_bank):
        y, end = function(**(inputs | {"x": x, "state": state}), return_state=True)
        loss = (y * torch.sin(torch.arange(y.numel()).reshape(y.shape))).sum() + (end * end).sum()
        results.append((y, end, *torch.autograd.grad(loss, (x, state))))
    for ours, theirs in zip(*results, strict=True):
        assert (ours - theirs).abs().max() <= 1e-12 * theirs.abs().max()
    y, end, _, _ = results[0]
    assert not y[:, ~inputs["valid"]].any()
    assert torch.equal(end[:, 1], state[:, 1])


@pytest.mark.parametrize("order", [1, 2, 5])
def test_gradients_of_the_gammatone_in_parts_of_a_block(order: int) -> None:
    """The way back goes through blocks of eight samples in halves, and through the rest one by one."""
    x, decay, angle = normal(5, 2, 21), torch.tensor([0.8, 0.95]).double(), torch.tensor([0.3, 2.0]).double()
    leaves = [value.requires_grad_() for value in (x, decay, angle)]
    slopes = []
    for function in (ops.gammatone, reference.gammatone):
        y = function(*leaves, order=order)
        slopes.append(torch.autograd.grad((y * normal(6, *y.shape)).sum(), leaves))
    for ours, theirs in zip(*slopes, strict=True):
        assert (ours - theirs).abs().max() <= 1e-12 * theirs.abs().max()


def test_sums_over_the_middle_are_in_order() -> None:
    from psysim.ops.cuda.tiles import sum_middle

    values = normal(7, 5, 9, 13) * 10.0 ** torch.arange(9).double()[:, None]
    expected = torch.zeros(5, 13, dtype=torch.float64)
    for part in values.unbind(1):
        expected = expected + part
    assert torch.equal(sum_middle(values), expected)
    assert torch.equal(sum_middle(values.float()), sum_middle(values.float().double()).float())
