from __future__ import annotations

import math

import pytest
import torch

from psysim.errors import SpecError
from psysim.stages import Decimator, FFTResampler, fft_resample
from psysim.stages.resampling import resampled_length


@pytest.mark.parametrize(
    ("n", "fs", "fs_out", "expected"),
    [(441, 44100.0, 16000.0, 160), (10, 4.0, 1.0, 3), (9, 4.0, 1.0, 2), (6, 4.0, 1.0, 2)],
)
def test_length_is_rounded_half_up(n: int, fs: float, fs_out: float, expected: int) -> None:
    assert resampled_length(n, fs, fs_out) == expected


def test_a_periodic_signal_is_resampled_exactly() -> None:
    t = torch.arange(441, dtype=torch.float64) / 44100.0
    u = torch.arange(160, dtype=torch.float64) / 16000.0
    tone = [2.0 + torch.cos(2.0 * math.pi * 1000.0 * time) for time in (t, u)]
    torch.testing.assert_close(fft_resample(tone[0], 160), tone[1], atol=1e-13, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_module(dtype: torch.dtype) -> None:
    x = torch.randn(3, 5, 300, generator=torch.Generator().manual_seed(0), dtype=dtype)
    resampler = FFTResampler(44100.0, 16000.0, dtype=dtype)
    y = resampler(x)
    assert (y.shape, y.dtype) == ((3, 5, 109), dtype)
    assert torch.equal(resampler(x[1]), y[1])
    assert torch.equal(resampler(x[1:2])[0], y[1])
    assert FFTResampler(44100.0, 44100.0, dtype=dtype)(x) is x
    x[0, 2, 7] = float("nan")
    spoilt = resampler(x)
    assert spoilt[0, 2].isnan().all()
    assert torch.equal(spoilt[1:], y[1:])


def test_gradient() -> None:
    x = torch.randn(1, 2, 21, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(FFTResampler(21.0, 10.0, dtype=torch.float64), x)
    torch.autograd.gradcheck(FFTResampler(21.0, 40.0, dtype=torch.float64), x)


def test_too_short() -> None:
    with pytest.raises(SpecError, match="none would be left at 100 Hz"):
        FFTResampler(44100.0, 100.0)(torch.zeros(1, 1, 10))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_decimation_keeps_slow_signals_and_the_place_of_the_first_sample(dtype: torch.dtype) -> None:
    t = torch.arange(4410, dtype=torch.float64) / 44100.0
    slow = torch.cos(2.0 * math.pi * 200.0 * t)
    stage = Decimator(44100.0, dtype=dtype)
    y = stage(slow.to(dtype).expand(2, 3, -1))
    assert y.shape == (2, 3, 1102)
    assert y.dtype == dtype
    assert stage.fs_out == 11025.0
    # The ripple of the filter at 200 Hz, 1e-3, away from the ends
    torch.testing.assert_close(y[0, 0, 15:-15], slow[::4][15:1087].to(dtype), rtol=0, atol=2e-3)
    assert torch.equal(stage(slow.to(dtype)), y[0, 0])


def test_decimation_needs_enough_samples_and_a_whole_factor() -> None:
    with pytest.raises(SpecError, match="at least 4"):
        Decimator(44100.0)(torch.zeros(1, 1, 3))
    with pytest.raises(SpecError, match="whole number"):
        Decimator(44100.0, factor=2.5)
    with pytest.raises(SpecError, match="factor"):
        Decimator(44100.0, factor=1)
