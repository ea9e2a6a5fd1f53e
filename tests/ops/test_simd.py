from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from psysim.ops.cpu.exp import exp, expm1
from psysim.ops.cpu.simd import LANES, load, store
from psysim.ops.cpu.tiles import flush, kernel, read_tile, write_tile


@kernel
def vector_exp(x: Any, out: Any) -> None:
    for k in range(0, x.size, LANES):
        store(out, k, exp(load(x, k)))


# Two units in the last place
@pytest.mark.parametrize(
    ("kind", "low", "high", "bound"), [("float64", -708, 708, 4.5e-16), ("float32", -87, 88, 2.4e-7)]
)
def test_exponential_function(kind: str, low: float, high: float, bound: float) -> None:
    x = np.linspace(low, high, 160000).astype(kind)
    near = np.linspace(-1, 1, 16000).astype(kind)
    for values in (x, near):
        result = np.empty_like(values)
        vector_exp(values, result)
        expected = np.exp(values.astype(np.longdouble))
        assert np.abs(result / expected - 1).max() <= bound


@kernel
def vector_expm1(x: Any, out: Any) -> None:
    for k in range(0, x.size, LANES):
        store(out, k, expm1(load(x, k)))


# Two units in the last place of the result, and one more where 2^k p and 2^k - 1 cancel in part
@pytest.mark.parametrize(("kind", "bound"), [("float64", 6.7e-16), ("float32", 3.6e-7)])
def test_exponential_function_minus_one(kind: str, bound: float) -> None:
    tiny = np.geomspace(1e-30, 40.0, 16000)
    x = np.concatenate([np.linspace(-2, 2, 16000), tiny, -tiny]).astype(kind)
    result = np.empty_like(x)
    vector_expm1(x, result)
    assert np.abs(result / np.expm1(x.astype(np.longdouble)) - 1).max() <= bound


@pytest.mark.parametrize("kind", ["float64", "float32"])
def test_exponential_function_is_clipped(kind: str) -> None:
    x = np.tile(np.array([-np.inf, -1e30, 1e30, np.inf], kind), LANES)
    result = np.empty_like(x)
    vector_exp(x, result)
    assert np.isfinite(result).all()
    assert result[:2].max() < 1e-37
    assert result[2:4].min() > 1e38


@pytest.mark.parametrize("count", [1, LANES - 1, LANES, LANES + 1, 3 * LANES + 5])
@pytest.mark.parametrize(
    ("kind", "tile_kind"), [("float32", "float32"), ("float32", "float64"), ("float64", "float64")]
)
def test_tiles_are_transposed_there_and_back(count: int, kind: str, tile_kind: str) -> None:
    rng = np.random.default_rng(count)
    x = rng.standard_normal((LANES + 3, 70)).astype(kind)
    offsets = rng.permutation(LANES + 3)[:LANES].astype(np.int64)
    tile = np.zeros(4 * LANES * LANES, tile_kind)
    read_tile(x.reshape(-1), offsets * 70, 4, count, tile)
    assert np.array_equal(tile.reshape(-1, LANES)[:count], x[offsets, 4 : 4 + count].T)
    back = np.zeros_like(x)
    write_tile(back.reshape(-1), offsets * 70, 4, count, tile)
    expected = np.zeros_like(x)
    expected[offsets, 4 : 4 + count] = x[offsets, 4 : 4 + count]
    assert np.array_equal(back, expected)


def test_flush_keeps_everything_but_tiny_numbers() -> None:
    values = np.array([0.0, 1e-291, -1e-291, 1e-289, -1e-289, 1.0, np.nan, np.inf] * (LANES // 8))
    flush(values)
    expected = np.array([0.0, 0.0, 0.0, 1e-289, -1e-289, 1.0, np.nan, np.inf] * (LANES // 8))
    assert np.array_equal(values, expected, equal_nan=True)
