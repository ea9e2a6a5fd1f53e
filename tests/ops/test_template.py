from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from psysim import ops
from psysim.errors import SpecError

F64 = torch.float64


@pytest.mark.parametrize("width", [1, 63, 64, 65, 65536, 65537, 200001])
def test_exact_sums_across_chunks(width: int) -> None:
    """Whole numbers add up without rounding, so every value must have been counted exactly once."""
    rng = np.random.default_rng(width)
    x, templates = rng.integers(-9, 10, (3, width)), rng.integers(-9, 10, (2, width))
    index = np.array([1, 0, 1])
    result = ops.template_product(*(torch.from_numpy(v).float() for v in (x, templates)), torch.from_numpy(index))
    assert result.tolist() == (x * templates[index]).sum(1).tolist()


@pytest.mark.parametrize("kinds", [("float32", "float64"), ("float64", "float32")])
def test_mixed_precision(kinds: tuple[str, str]) -> None:
    rng = np.random.default_rng(1)
    x, templates = (torch.from_numpy(rng.standard_normal((4, 1000)).astype(kind)).requires_grad_() for kind in kinds)
    index = torch.tensor([3, 0, 0, 2])
    result = ops.template_product(x, templates, index)
    expected = [math.fsum((a.double() * templates[i].double()).tolist()) for a, i in zip(x, index, strict=True)]
    torch.testing.assert_close(result, torch.tensor(expected, dtype=F64), rtol=1e-13, atol=1e-12)
    slopes = torch.autograd.grad(result.sum(), (x, templates))
    torch.testing.assert_close(slopes[0], templates[index].to(x.dtype), rtol=0, atol=0)
    wanted = torch.stack([x[1] + x[2], torch.zeros_like(x[0]), x[3], x[0]]).to(templates.dtype)
    torch.testing.assert_close(slopes[1], wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("index", [[0, 2], [-1, 0]])
def test_wrong_index(index: list[int]) -> None:
    with pytest.raises(SpecError, match=r"index holds .*; allowed: 0 ... 1"):
        ops.template_product(torch.zeros(2, 5), torch.zeros(2, 5), torch.tensor(index))


def test_wrong_width_and_device() -> None:
    with pytest.raises(SpecError, match="5 values per row but the templates have 6"):
        ops.template_product(torch.zeros(2, 5), torch.zeros(2, 6), torch.tensor([0, 1]))
    with pytest.raises(SpecError, match="templates are on 'meta' but x is on 'cpu'"):
        ops.template_product(torch.zeros(2, 5), torch.zeros(2, 5, device="meta"), torch.tensor([0, 1]))
