"""The documented fast names: exact filters, the same numbers, checked arguments."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

from psysim import stages
from psysim.errors import SpecError
from psysim.stages.base import AuditoryModule

FS = 8000.0
FC = torch.tensor([60.0, 250.0, 1000.0])
PAIRS: dict[
    str, tuple[type[AuditoryModule], type[AuditoryModule], tuple[Any, ...], dict[str, Any], tuple[int, ...]]
] = {
    "drnl": (stages.FastDRNLFilterbank, stages.DRNLFilterbank, (FC, FS), {"ir_length": 512}, (2, 400)),
    "modulation": (
        stages.FastModulationFilterbank,
        stages.ModulationFilterbank,
        (FS, FC),
        {"tolerance": 0},
        (2, 3, 400),
    ),
    "king2019": (
        stages.FastKing2019ModulationFilterbank,
        stages.King2019ModulationFilterbank,
        (FS,),
        {"ir_length_ratio": 0.5},
        (2, 3, 400),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_the_same_numbers_whatever_the_length(name: str) -> None:
    fast, plain, arguments, options, shape = PAIRS[name]
    x = 1e-4 * torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    bank = fast(*arguments, dtype=torch.float64, **options)
    outputs, expected = bank(x), plain(*arguments, dtype=torch.float64)(x)
    if isinstance(expected, torch.Tensor):
        outputs, expected = [outputs], [expected]
    assert all(torch.equal(a, b) for a, b in zip(outputs, expected, strict=True))
    assert max(float(y.abs().max()) for y in expected) > 0
    ((option, value),) = options.items()
    assert getattr(bank, option) == value


@pytest.mark.parametrize("name", PAIRS)
def test_the_signature_is_that_of_the_exact_bank_and_one_more(name: str) -> None:
    fast, plain, _, options, _ = PAIRS[name]
    parameters, expected = dict(inspect.signature(fast).parameters), inspect.signature(plain).parameters
    extra = parameters.pop(*options)
    documented = {"ir_length": 4096, "tolerance": 2, "ir_length_ratio": 1.0}
    assert extra.default == documented[extra.name]
    assert {n: p.default for n, p in parameters.items()} == {n: p.default for n, p in expected.items()}
    assert list(parameters) == list(expected)


def test_documented_extras() -> None:
    king = stages.FastKing2019ModulationFilterbank(FS)
    assert torch.equal(king.sos_stack, king.filters)
    bank = stages.FastModulationFilterbank(FS, FC, learnable=True)
    torch.stack(
        [y.square().mean() for y in bank(torch.randn(2, 3, 100, generator=torch.Generator().manual_seed(3)))]
    ).sum().backward()
    before = [None if p.grad is None else p.grad.clone() for p in bank.parameters()]
    bank.distribute_gradients()
    assert any(g is not None and bool((g != 0).any()) for g in before)
    assert all(a is p.grad or torch.equal(a, p.grad) for a, p in zip(before, bank.parameters(), strict=True))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("drnl", {"ir_length": 0}, "ir_length = 0 must be a whole number of at least 1"),
        ("drnl", {"ir_length": 10.5}, "ir_length"),
        ("modulation", {"tolerance": -1}, "tolerance"),
        ("king2019", {"ir_length_ratio": 0.0}, "ir_length_ratio"),
    ],
)
def test_wrong_arguments(name: str, options: dict[str, Any], message: str) -> None:
    fast, _, arguments, _, _ = PAIRS[name]
    with pytest.raises(SpecError, match=message):
        fast(*arguments, **options)
