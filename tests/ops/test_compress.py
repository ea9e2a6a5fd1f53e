from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from psysim import ops
from psysim.ops import reference

F64 = torch.float64
# Error of the power in float32 (tests/ops/test_log.py), and the roundings of input, gain and output
FLOAT32 = 3e-7 + 3 * 2.0**-24
FOLDER = Path(__file__).parents[1] / "reference" / "data"


def numbers(*values: float) -> list[torch.Tensor]:
    return [torch.tensor([value], dtype=F64) for value in values]


# SPEC_king2019 section 3: a stick of slope 1 that breaks at 30 dB SPL, or a power law through that point
@pytest.mark.parametrize(
    ("name", "linear"), [("fm500_5Hz_70dB", 1.0), ("tone1k_100dB", 1.0), ("am4k_16Hz_70dB_power", math.inf)]
)
def test_golden_compression_of_king2019(dtype: Any, name: str, linear: float) -> None:
    data = np.load(FOLDER / f"king2019_{name}.npz")
    knee, n = 20e-6 * 10 ** (30 / 20), 0.3  # the level of 1 Pa rms that the file names is rounded to 1e-8 dB
    x = torch.from_numpy(data["gtone_response"])[None].to(dtype)
    result = ops.compress(x, *numbers(linear, knee ** (1 - n), n))[0].numpy()
    expected = data["compressed_response"]
    bound = 1e-13 if dtype == F64 else FLOAT32
    assert (np.abs(result - expected) <= bound * np.abs(expected) + 1e-300).all()


def test_agrees_with_numpy_over_all_magnitudes(form: str, dtype: Any) -> None:
    lowest = -40 if dtype == torch.float32 else -300
    x = 10.0 ** np.linspace(lowest, 30, 15 if form == "triton" else 20000)
    x = torch.from_numpy(np.concatenate([x, -x]))[None, None].to(dtype)
    result = ops.compress(x, *numbers(1e3, 0.02, 0.25))[0, 0].numpy().astype(np.float64)
    sample = x[0, 0].numpy().astype(np.longdouble)
    expected = np.sign(sample) * np.minimum(1e3 * np.abs(sample), 0.02 * np.abs(sample) ** np.longdouble(0.25))
    # float64: the exponent 0.25 ln x is below 173 in magnitude and is rounded three times
    bound = 1e-13 if dtype == F64 else FLOAT32
    smallest = 2.0**-150 if dtype == torch.float32 else 0.0  # half of the smallest denormal number
    assert (np.abs(result - expected) <= bound * np.abs(expected) + smallest).all()


def test_silent_channels_are_exactly_silent(form: str, dtype: Any) -> None:
    x = torch.tensor([[[1.0, -2.0, 0.0, 1e30, -1e-30]]], dtype=dtype)
    assert torch.count_nonzero(ops.compress(x, *numbers(0.0, 1.0, 0.25))) == 0


def test_special_values(form: str, dtype: Any) -> None:
    inf, nan = math.inf, math.nan
    x = torch.tensor([[[0.0, -0.0, inf, -inf, nan]]], dtype=dtype)
    for linear in (2.0, inf):
        result = ops.compress(x, *numbers(linear, 3.0, 0.25))
        torch.testing.assert_close(result, torch.tensor([[[0.0, 0.0, inf, -inf, nan]]], dtype=dtype), equal_nan=True)
    for coefficients in ((nan, 3.0, 0.25), (2.0, nan, 0.25), (2.0, 3.0, nan)):
        assert ops.compress(x.new_full((1, 1, 2), 0.5), *numbers(*coefficients)).isnan().all()


@pytest.mark.parametrize(
    ("linear", "gain", "exponent", "slope"),
    [(2.0, 1.0, 0.3, 2.0), (math.inf, 1.0, 0.3, 0.0), (0.0, 1.0, 0.3, 0.0), (2.0, 1.0, 1.5, 0.0), (1.0, 1.0, 1.0, 1.0)],
)
def test_slope_at_zero(form: str, linear: float, gain: float, exponent: float, slope: float) -> None:
    for function in (ops.compress, reference.compress):
        leaves = [torch.zeros(1, 1, 3, dtype=F64, requires_grad=True)]
        leaves += [value.requires_grad_() for value in numbers(linear, gain, exponent)]
        slopes = torch.autograd.grad(function(*leaves).sum(), leaves)
        assert (slopes[0] == slope).all()
        assert not any(value.any() for value in slopes[1:])


def test_exponent_one_leaves_samples_alone(form: str) -> None:
    x = torch.linspace(-3, 3, 20, dtype=F64)[None, None]
    torch.testing.assert_close(ops.compress(x, *numbers(1.0, 1.0, 1.0)), x, rtol=1e-15, atol=0)
