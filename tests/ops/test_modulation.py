from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from psysim import ops
from psysim.ops import reference

F64 = torch.float64


def section(ba: np.ndarray) -> Tensor:
    sos = np.zeros((1, 6))
    sos[0, : ba.shape[1]], sos[0, 3 : 3 + ba.shape[1]] = ba
    return torch.from_numpy(sos)


def bank(
    data: Any, mfc_hz: np.ndarray, q: float, factor: float, dtype: Any, before: bool, **options: Any
) -> np.ndarray:
    """The golden files' filterbank at 4000 Hz on their noise, at their stored samples."""
    fs, mfc = 4000.0, torch.from_numpy(mfc_hz[1:])
    x = torch.from_numpy(data["x"])[None, None].to(dtype)
    if before:
        x = ops.sosfilt(x, section(data["lp150_fs4000"]))
    bandwidth = torch.where(mfc < 10, torch.full_like(mfc, 5.0), mfc / q)
    scale = torch.where(mfc > 10, torch.full_like(mfc, 2.0 * factor), torch.full_like(mfc, 2.0))
    if not options.get("phase_insensitive", True):
        scale = torch.ones_like(mfc)
    valid = torch.ones(1, len(mfc) + 1, dtype=torch.bool)
    decay, angle = torch.exp(-math.pi * bandwidth / fs), 2 * math.pi * mfc / fs
    y = ops.modulation_bank(x, section(data["lp25_fs4000"]), decay, angle, mfc > 10, scale, valid, **options)
    return y[0, 0].numpy()[:, data["t_idx"]]


# README_dau_osses.md: common_modfilterbank agrees to 2e-11 in float64 and 1e-3 of the peak in float32. Here float32
# only rounds: the input (2^-24, times at most the filters' gain of 2), the output, and the squares of the magnitude.
def check(result: np.ndarray, expected: np.ndarray, dtype: Any) -> None:
    bound = 2e-11 if dtype == F64 else 2.0**-21
    assert np.all(np.abs(result - expected).max(-1) <= bound * np.abs(expected).max(-1))


@pytest.mark.parametrize("channel", ["last", "fc80", "fc30"])
@pytest.mark.parametrize(
    ("preset", "factor", "before"),
    [("dau1997", 1.0, False), ("verhey1999", 1.0, False), ("jepsen2008", 0.5**0.5, True)],
)
def test_golden_presets(golden: Any, dtype: Any, preset: str, factor: float, before: bool, channel: str) -> None:
    data = golden("modfilterbank")
    expected = data[f"mfb_{preset}_out_{channel}"]
    mfc = data[f"mfb_{preset}_mfc"][: len(expected)]
    check(bank(data, mfc, 2.0, factor, dtype, before), expected, dtype)


def test_golden_phase_preserving(golden: Any, dtype: Any) -> None:
    data = golden("modfilterbank")
    mfc, expected = data["mfb_dau1997_mfc"], data["nophase_out"]
    result = bank(data, mfc, 2.0, 1.0, dtype, True, phase_insensitive=False)
    assert result.dtype == (np.complex128 if dtype == F64 else np.complex64)
    check(result, expected, dtype)


def test_golden_q1(golden: Any, dtype: Any) -> None:
    data = golden("modfilterbank")
    check(bank(data, data["q1_mfc"], 1.0, 1.0, dtype, False), data["q1_out"], dtype)


def arguments(channels: int, missing: bool = True) -> dict[str, Any]:
    mfc = torch.tensor([5.0, 10.0, 50.0, 214.0], dtype=F64)
    return {
        "lowpass_sos": torch.tensor([[0.01, 0.02, 0.01, 1.0, -1.6, 0.64]], dtype=F64),
        "decay": torch.exp(-math.pi * mfc / 2 / 4000),
        "angle": 2 * math.pi * mfc / 4000,
        "envelope": mfc > 10,
        "scale": torch.full_like(mfc, 2.0),
        "valid": torch.arange(5) <= torch.arange(channels)[:, None] + (0 if missing else 5),
    }


def test_missing_filters_put_out_zeros_whatever_comes_in() -> None:
    x = torch.full((2, 4, 100), math.nan)
    y = ops.modulation_bank(x, **arguments(4))
    valid = arguments(4)["valid"]
    assert torch.equal(y.isnan().all(-1), valid.expand(2, 4, 5))
    assert torch.count_nonzero(y[:, ~valid]) == 0


def test_missing_filters_send_no_gradient_back() -> None:
    x = torch.from_numpy(np.random.default_rng(2).standard_normal((2, 4, 30))).requires_grad_()
    keep = arguments(4)
    y = ops.modulation_bank(x, **keep)
    weight = torch.ones_like(y)
    weight[:, ~keep["valid"]] = math.nan
    (slope,) = torch.autograd.grad(y, x, weight)
    (expected,) = torch.autograd.grad(reference.modulation_bank(x, **keep), x, weight.nan_to_num())
    torch.testing.assert_close(slope, expected, rtol=1e-10, atol=1e-12)


def test_gradient_of_the_magnitude_at_zero_is_zero(dtype: Any) -> None:
    x = torch.zeros(1, 2, 50, dtype=dtype, requires_grad=True)
    keep = arguments(2, missing=False)
    y = ops.modulation_bank(x, **keep)
    assert torch.count_nonzero(y) == 0
    (slope,) = torch.autograd.grad(y[:, :, 3:].sum(), x)
    assert torch.count_nonzero(slope) == 0


def test_lowpass_only() -> None:
    keep = arguments(3)
    empty = torch.zeros(0, dtype=F64)
    x = torch.from_numpy(np.random.default_rng(2).standard_normal((2, 3, 30))).requires_grad_()
    valid = torch.ones(3, 1, dtype=torch.bool)
    sos = keep["lowpass_sos"]
    y = ops.modulation_bank(x, sos, empty, empty, empty.bool(), empty, valid)
    low = ops.sosfilt(x, sos)
    assert torch.equal(y[:, :, 0], low)
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], torch.autograd.grad(low.sum(), x)[0])


def test_slow_filters_at_a_high_rate_in_float32() -> None:
    """At 44.1 kHz the 5-Hz filter has |1 - p| = 8e-4; float32 must neither shift it nor stop short of a constant."""
    mfc = torch.tensor([5.0, 10.0, 16.67, 992.3], dtype=F64)
    bandwidth = torch.tensor([5.0, 5.0, 8.33, 496.0], dtype=F64)
    keep = arguments(1) | {
        "decay": torch.exp(-math.pi * bandwidth / 44100),
        "angle": 2 * math.pi * mfc / 44100,
        "envelope": mfc > 10,
        "valid": torch.ones(1, 5, dtype=torch.bool),
    }
    n = torch.arange(44100, dtype=F64)
    modulated = 50.0 + 10.0 * torch.sin(2 * math.pi * 5.0 / 44100 * n) + torch.sin(2 * math.pi * 990.0 / 44100 * n)
    x = torch.stack([modulated, torch.full_like(n, 50.0)])[:, None].float()
    exact = ops.modulation_bank(x.double(), **keep)
    error = (ops.modulation_bank(x, **keep) - exact).abs()
    assert (error <= 2.0**-21 * exact.abs().amax(-1, keepdim=True)).all()
