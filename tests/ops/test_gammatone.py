from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.signal
import torch
from torch import Tensor

from psysim import ops
from psysim.errors import SpecError

F64 = torch.float64
BANDWIDTH_FACTOR = 36 / (math.pi * 720 * 2.0**-6)  # ((n - 1)!)^2 / (pi (2n - 2)! 2^-(2n - 2)), n = 4


def impulse_responses(
    fc: Tensor, fs: float, samples: int, dtype: Any, factor: float = BANDWIDTH_FACTOR, **options: Any
) -> Any:
    x = torch.zeros(1, samples, dtype=dtype)
    x[0, 0] = 1.0
    decay = torch.exp(-2 * math.pi * factor * (24.7 + fc / 9.265) / fs)
    return ops.gammatone(x, decay, 2 * math.pi * fc / fs, **options)[0].numpy()


# README_dau_osses.md: filterbank 1e-6 of the peak in float64 (the reference's own rounding), 1e-5 in float32
@pytest.mark.parametrize("fs", [16000, 32000, 44100, 48000])
def test_golden_impulse_responses(golden: Any, dtype: Any, fs: int) -> None:
    data = golden("gammatone")
    expected = data[f"gt_ir_fs{fs}"]
    result = impulse_responses(torch.from_numpy(data["gt_fc"]), fs, expected.shape[1], dtype)
    bound = 1e-6 if dtype == F64 else 1e-5
    assert np.all(np.abs(result - expected).max(1) <= bound * np.abs(expected).max(1))


def test_golden_complex_impulse_response(golden: Any) -> None:
    data = golden("gammatone")
    expected = data["gt_ir_complex_fs44100"]
    fc = torch.from_numpy(data["gt_fc"])
    result = impulse_responses(fc, 44100, expected.shape[1], F64, complex_output=True)
    assert np.all(np.abs(result - expected).max(1) <= 1e-6 * np.abs(expected).max(1))


def test_golden_coefficients_of_order_three_and_of_another_bandwidth(golden: Any) -> None:
    data = golden("gammatone")
    fc = torch.from_numpy(data["gt_fc"])
    third = 4 / (math.pi * 24 * 2.0**-4)
    for name, order, factor in (("n3", 3, third), ("betamul15", 4, 1.5)):
        result = impulse_responses(fc, 44100, 300, F64, factor, order=order, complex_output=True)
        x = np.zeros(300, complex)
        x[0] = 1.0
        for row, b, a in zip(result, data[f"gt_b_{name}_fs44100"], data[f"gt_a_{name}_fs44100"], strict=True):
            expected = scipy.signal.lfilter([b], a, x)
            assert np.abs(row - expected).max() <= 1e-6 * np.abs(expected).max()


def test_gain_at_the_centre_frequency(golden: Any) -> None:
    data = golden("gammatone")
    fc, fs = torch.from_numpy(data["gt_fc"]), 44100
    n = torch.arange(20000, dtype=F64)
    decay = torch.exp(-2 * math.pi * BANDWIDTH_FACTOR * (24.7 + fc / 9.265) / fs)
    for channel, frequency in enumerate(fc):
        tone = torch.exp(1j * 2 * math.pi * frequency / fs * n)
        keep = slice(channel, channel + 1)
        arguments = decay[keep], 2 * math.pi * fc[keep] / fs
        y = torch.complex(*(ops.gammatone(part[None], *arguments)[0, 0] for part in (tone.real, tone.imag)))
        gain = (y / tone)[-1].abs()
        assert gain == pytest.approx(data["gt_real_gain_at_fc"][channel], abs=1e-6)


def test_silence_and_very_quiet_sound(dtype: Any) -> None:
    decay, angle = torch.tensor([0.5, 0.99], dtype=F64), torch.tensor([1.0, 0.1], dtype=F64)
    assert torch.count_nonzero(ops.gammatone(torch.zeros(2, 100, dtype=dtype), decay, angle)) == 0
    x = torch.zeros(1, 300, dtype=F64)
    x[0, :100] = torch.linspace(-1, 1, 100, dtype=F64)
    tiny = 1e-36 if dtype == torch.float32 else 1e-270  # the tail of the response is denormal in float32
    scaled, expected = ops.gammatone((x * tiny).to(dtype), decay, angle).double(), ops.gammatone(x, decay, angle) * tiny
    assert (scaled - expected).abs().max() <= (1e-6 if dtype == torch.float32 else 1e-12) * expected.abs().max()


def test_tail_ends_in_silence() -> None:
    """A response that decays for ever would slow the arithmetic down when it reaches denormal numbers."""
    x = torch.zeros(1, 9000, dtype=F64)
    x[0, 0] = 1.0
    y = ops.gammatone(x, torch.tensor([0.9], dtype=F64), torch.tensor([0.5], dtype=F64))
    assert torch.count_nonzero(y[..., -1000:]) == 0
    assert y[0, 0, 2000].abs() > 1e-120


@pytest.mark.parametrize("order", [0, -1, 2.0])
def test_wrong_order(order: Any) -> None:
    one = torch.tensor([0.5], dtype=F64)
    with pytest.raises(SpecError, match=r"order .* (at least 1|whole number)"):
        ops.gammatone(torch.zeros(1, 5), one, one, order=order)
