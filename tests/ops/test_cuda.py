"""The Triton forms on a real card against the numba forms, at sizes that fill blocks and leave remainders."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from psysim import ops
from psysim.models import Dau1997
from psysim.ops import steps

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def on_card(value: Any) -> Any:
    if isinstance(value, steps.Step):
        return type(value)(*(on_card(field) for field in vars(value).values()))
    if isinstance(value, list):
        return [on_card(item) for item in value]
    return value.cuda() if isinstance(value, Tensor) else value


def outcome(case: Any, inputs: dict[str, Any]) -> list[Tensor]:
    """Output, end state, and gradients of a weighted sum of both."""
    leaves = {name: inputs[name].clone().requires_grad_() for name in case.differentiable}
    result = case.run(**(inputs | leaves), **({} if case.state_size is None else {"return_state": True}))
    values = [
        torch.view_as_real(v) if v.is_complex() else v for v in (result if isinstance(result, tuple) else (result,))
    ]
    loss: Any = 0.0
    for value in values:
        weight = torch.sin(1.0 + torch.arange(value.numel(), dtype=torch.float64)).reshape(value.shape)
        loss = loss + (value * weight.to(value.device, value.dtype)).sum()
    slopes = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
    return [value.detach().cpu() for value in (*values, *slopes)]


@pytest.mark.parametrize(("batch", "channels", "samples"), [(1, 1, 1), (3, 7, 203), (5, 31, 2000)])
def test_agrees_with_the_cpu(case: Any, dtype: Any, batch: int, channels: int, samples: int) -> None:
    for options in case.options:
        inputs = case.inputs(np.random.default_rng(5), batch, channels, samples, dtype) | options
        expected = outcome(case, inputs)
        result = outcome(case, {name: on_card(value) for name, value in inputs.items()})
        # Both forms are within these bounds of the definition (test_all_ops); float32 sums over rows add to gradients
        for ours, theirs in zip(result, expected, strict=True):
            bound = 2e-9 if dtype == torch.float64 else 2.0 * max(case.float32_error, 1e-6)
            assert (ours - theirs).abs().max() <= bound * theirs.abs().max()


def test_a_row_does_not_depend_on_its_batch(case: Any, dtype: Any) -> None:
    inputs = case.inputs(np.random.default_rng(5), 70, 3, 300, dtype)
    card = {name: on_card(value) for name, value in inputs.items()}
    everything = case.run(**card)
    for rows in ([0], [69, 4], list(range(20, 60))):
        part = card | {name: card[name][rows] for name in ("x", *case.per_row)}
        assert torch.equal(case.run(**part), everything[rows])


def test_one_pass_agrees_with_the_cpu(dtype: Any) -> None:
    from test_chain import inputs

    given = inputs("model", 9, 7, 500, dtype)
    expected = ops.chain_products(**given, moments=True)
    result = ops.chain_products(**{name: on_card(value) for name, value in given.items()}, moments=True)
    assert (result.cpu() - expected).abs().max() <= (1e-10 if dtype == torch.float64 else 1e-5) * expected.abs().max()


def test_the_model_of_1997(dtype: Any) -> None:
    model = Dau1997(fs=44100, dtype=dtype)
    x = 0.02 * torch.randn(3, 4410, generator=torch.Generator().manual_seed(1), dtype=dtype)
    expected = model.represent(x).values
    result = model.cuda().represent(x.cuda()).values
    # Model units: the golden files' bounds are 1e-3 (float64) and a few 1e-3 of up to 300 (float32)
    assert (result.cpu() - expected).abs().max() <= (1e-6 if dtype == torch.float64 else 1e-2)
