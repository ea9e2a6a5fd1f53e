from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from psysim.ops.cpu.log import log, power, split_exponent
from psysim.ops.cpu.simd import LANES, load, splat, store
from psysim.ops.cpu.tiles import kernel


@kernel
def vector_log(x: Any, out: Any) -> None:
    for k in range(0, x.size, LANES):
        store(out, k, log(load(x, k)))


@kernel
def vector_power(x: Any, high: Any, low: Any, out: Any) -> None:
    for k in range(0, x.size, LANES):
        store(out, k, power(load(x, k), splat(x, high), splat(x, low)))


def raise_to(x: np.ndarray, c: float) -> np.ndarray:
    result = np.empty_like(x)
    vector_power(x, *(float(part) for part in split_exponent(torch.tensor(c, dtype=torch.float64))), result)
    return result


def every_magnitude() -> np.ndarray:
    """Positive numbers from the smallest denormal to the largest number, and many around 1 and sqrt(1/2)."""
    decades = np.exp(np.linspace(np.log(5e-324), np.log(1.79e308), 160000))
    steps = np.arange(-8000, 8000) * 2.0**-53
    return np.concatenate([decades, np.linspace(0.4, 2.4, 32000), 1.0 + steps, np.sqrt(0.5) * (1.0 + steps)])


def test_logarithm() -> None:
    x = every_magnitude()
    result = np.empty_like(x)
    vector_log(x, result)
    expected = np.log(x.astype(np.longdouble))
    # Two units in the last place
    assert (np.abs(result - expected) <= 4.5e-16 * np.abs(expected)).all()


@pytest.mark.parametrize("c", [0.02, 0.25, 0.3, 1 / 3, 0.6, 0.987654321, 1.0, 2.5])
@pytest.mark.parametrize(("kind", "largest"), [("float64", 708), ("float32", 87)])
def test_power(c: float, kind: str, largest: float) -> None:
    x = every_magnitude().astype(kind)
    x = x[(x > 0) & np.isfinite(x)]
    x = x[: len(x) // LANES * LANES]
    exponent = np.longdouble(c) * np.log(x.astype(np.longdouble))
    error = np.abs(raise_to(x, c) / np.exp(exponent) - 1)
    inside = np.abs(exponent) < largest  # beyond the result is clipped
    assert inside.sum() > 50000
    bound = (2 + np.abs(exponent)) * 4.5e-16 if kind == "float64" else 3e-7
    assert (error <= bound)[inside].all()


@pytest.mark.parametrize("kind", ["float64", "float32"])
def test_special_values(kind: str) -> None:
    smallest = np.nextafter(np.zeros(1, kind), 1)[0]
    x = np.resize(np.array([0.0, -0.0, np.inf, np.nan, 1.0, smallest], kind), LANES)
    root = raise_to(x, 0.25)
    np.testing.assert_array_equal(root[:5], [0.0, 0.0, np.inf, np.nan, 1.0])
    assert root[5] == pytest.approx(float(smallest) ** 0.25, rel=3e-7)
    assert np.isnan(raise_to(x, np.nan)[4:6]).all()


def test_special_values_of_the_logarithm() -> None:
    inf, nan = np.inf, np.nan
    x = np.resize(np.array([0.0, -0.0, inf, nan, -1.0, -inf, 1.0, 5e-324]), LANES)
    result = np.empty_like(x)
    vector_log(x, result)
    np.testing.assert_array_equal(result[:7], [-inf, -inf, inf, nan, nan, nan, 0.0])
    assert result[7] == pytest.approx(np.log(5e-324), rel=4.5e-16)
