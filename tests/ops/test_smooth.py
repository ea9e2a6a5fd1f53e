from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from psysim import ops

F64 = torch.float64
DATA = Path(__file__).parents[1] / "reference" / "data"


def trace(values: np.ndarray, attack: float, release: float, dtype: Any = F64) -> np.ndarray:
    x = torch.from_numpy(values)[None, None].to(dtype)
    result = ops.smooth(x, torch.tensor([attack], dtype=F64), torch.tensor([release], dtype=F64))
    return result[0, 0].double().numpy()


# README_loudness.md: loudness agrees to 1e-10 of the value and 1e-14 sone in float64. In float32 the input and the
# output are rounded by 2^-24 each, and smoothing is a weighted mean.
def close(result: np.ndarray, expected: np.ndarray, dtype: Any) -> bool:
    relative = 1e-10 if dtype == F64 else 2.0**-23
    return bool(np.all(np.abs(result - expected) <= relative * np.abs(expected) + 1e-14))


@pytest.mark.parametrize("sound", ["tone1k_60", "gap_1k_60"])
def test_golden_loudness_of_glasberg_and_moore(dtype: Any, sound: str) -> None:
    data = np.load(DATA / f"glasberg2002_published_{sound}.npz")
    assert close(trace(data["instantaneous"], 0.045, 0.02, dtype), data["stl"], dtype)
    assert close(trace(data["stl"], 0.01, 0.0005, dtype), data["ltl"], dtype)


@pytest.mark.parametrize(
    ("sound", "ears"), [("ild_1k_70_60", ("left", "right")), ("gap_1k_60", ("left",))], ids=["ild", "gap"]
)
def test_golden_long_term_loudness_of_moore(dtype: Any, sound: str, ears: tuple[str, ...]) -> None:
    """Both ears are channels of one call."""
    data = np.load(DATA / f"moore2016_{sound}.npz")
    x = torch.from_numpy(np.stack([data[f"stl_loud_{ear}"] for ear in ears]))[None].to(dtype)
    result = ops.smooth(x, torch.tensor([0.01], dtype=F64), torch.tensor([0.00133], dtype=F64))[0].double().numpy()
    for ear, ours in zip(ears, result, strict=True):
        assert close(ours, data[f"ltl_loud_{ear}"], dtype)


def test_step_responses_are_exponentials(dtype: Any) -> None:
    n = np.arange(1, 1001)
    rise = trace(np.ones(1000), 0.01, 0.3, dtype)
    assert np.abs(rise - (1 - 0.99**n)).max() <= (1e-12 if dtype == F64 else 2.0**-24)
    both = trace(np.repeat([1.0, 0.0], 1000), 0.3, 0.01, dtype)
    assert np.abs(both[1000:] - both[999] * 0.99**n).max() <= (1e-12 if dtype == F64 else 2.0**-23)


def test_equal_coefficients_are_a_leaky_integration() -> None:
    x = torch.from_numpy(np.random.default_rng(2).standard_normal((2, 3, 300)))
    c = torch.tensor([0.05, 0.3, 1.0], dtype=F64)
    torch.testing.assert_close(ops.smooth(x, c, c), ops.leaky(x, 1 - c, c), rtol=0, atol=1e-14)


def test_extreme_coefficients(dtype: Any) -> None:
    """Attack 1 and release 0 hold the largest value so far, the other way round the smallest (and 0 before)."""
    x = torch.from_numpy(np.random.default_rng(4).standard_normal((2, 3, 100))).to(dtype)
    one, zero = torch.ones(1, dtype=F64), torch.zeros(1, dtype=F64)
    # In float64 y + 1 (x - y) may differ from x in the last place of the larger one
    bound = 4 * torch.finfo(dtype).eps
    assert (ops.smooth(x, one, zero) - x.cummax(-1).values.relu()).abs().max() <= bound
    assert (ops.smooth(x, zero, one) + (-x).cummax(-1).values.relu()).abs().max() <= bound


def test_output_stays_within_the_input_and_converged_output_stays() -> None:
    x = torch.full((1, 1, 4000), 0.1, dtype=F64)
    y = ops.smooth(x, torch.tensor([0.045], dtype=F64), torch.tensor([0.02], dtype=F64))
    assert y.max() <= 0.1
    assert y[..., -1] == pytest.approx(0.1, rel=1e-14)
    assert torch.unique(y[..., 2000:]).numel() == 1


def test_gradient_takes_the_release_where_input_equals_output() -> None:
    x = torch.full((1, 1, 1), 2.0, dtype=F64, requires_grad=True)
    attack, release = (torch.tensor([c], dtype=F64, requires_grad=True) for c in (0.5, 0.125))
    y = ops.smooth(x, attack, release, state=torch.full((1, 1, 1), 2.0, dtype=F64))
    slopes = torch.autograd.grad(y.sum(), (x, attack, release))
    assert [slope.item() for slope in slopes] == [0.125, 0.0, 0.0]


def test_tail_ends_in_silence() -> None:
    x = torch.zeros(1, 1, 6000, dtype=F64)
    x[0, 0, 0] = 1.0
    y = ops.smooth(x, torch.tensor([0.5], dtype=F64), torch.tensor([0.2], dtype=F64))
    assert torch.count_nonzero(y[..., -1000:]) == 0
    assert y[0, 0, 1000] > 1e-110
