from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from psysim.errors import SpecError
from psysim.stages import GammatoneFilterbank
from psysim.stages.gammatone import gammatone_bandwidth_factor


@pytest.mark.parametrize(("fc", "gain"), [(80.0, 1.0012), (250.0, 1.0001), (1000.0, 1.00001)])
def test_gain_at_the_centre_frequency(fc: float, gain: float) -> None:
    bank = GammatoneFilterbank([fc], fs=44100.0, dtype=torch.float64)
    t = torch.arange(44100, dtype=torch.float64) / 44100.0
    output = bank(torch.sin(2.0 * math.pi * fc * t))[0, 22050:]
    assert float(output.square().mean().sqrt()) * math.sqrt(2.0) == pytest.approx(gain, abs=6e-5)


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_the_bandwidth_is_the_published_erb(order: int) -> None:
    """The equivalent rectangular bandwidth of the magnitude response is 24.7 + fc/9.265."""
    fs, fc, n = 16000.0, 1000.0, 1 << 16
    bank = GammatoneFilterbank([fc], fs=fs, n=order, complex_output=True, dtype=torch.float64)
    impulse = torch.zeros(n, dtype=torch.float64)
    impulse[0] = 1.0
    power = np.abs(np.fft.fft(bank(impulse)[0].numpy())) ** 2
    erb = power.sum() / power.max() * fs / n
    # An order-1 skirt falls so slowly that it wraps around at fs/2: 3 %; from order 2 on it is within 0.2 %.
    assert erb == pytest.approx(24.7 + fc / 9.265, rel=0.03 if order == 1 else 2e-3)
    assert bank.betamul == gammatone_bandwidth_factor(order)


def test_bandwidth_factors_multiply() -> None:
    plain = GammatoneFilterbank([500.0], fs=16000.0)
    wide = GammatoneFilterbank([500.0], fs=16000.0, bandwidth_factor=2.0)
    explicit = GammatoneFilterbank([500.0], fs=16000.0, betamul=1.5, bandwidth_factor=2.0)
    torch.testing.assert_close(wide.bandwidth_hz, 2.0 * plain.bandwidth_hz)
    torch.testing.assert_close(explicit.bandwidth_hz, 3.0 * plain.bandwidth_hz / plain.betamul)


def test_bounds_and_lists() -> None:
    spaced = GammatoneFilterbank((80.0, 8000.0), fs=44100.0)
    assert spaced.num_channels == 31
    listed = GammatoneFilterbank(spaced.fc, fs=44100.0)
    assert torch.equal(listed.fc, spaced.fc)
    assert GammatoneFilterbank([80.0, 7000.0], fs=44100.0).num_channels == 2
    assert GammatoneFilterbank((1000.0, 1000.0), fs=44100.0, basef=1000.0).num_channels == 1
    assert GammatoneFilterbank((80.0, 8000.0), fs=44100.0, basef=1000.0, spacing=0.5).num_channels == 61


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fc": (80.0, 8000.0), "fs": 12000.0}, "below fs/2 = 6000 Hz"),
        ({"fc": [0.0], "fs": 44100.0}, "above 0 Hz"),
        ({"fc": [float("nan")], "fs": 44100.0}, "nan Hz"),
        ({"fc": [], "fs": 44100.0}, "empty"),
        ({"fc": (8000.0, 80.0), "fs": 44100.0}, "fhigh"),
        ({"fc": (80.0, 8000.0), "fs": 44100.0, "basef": 9000.0}, "basef"),
        ({"fc": (80.0, 8000.0), "fs": 44100.0, "spacing": 0.0}, "spacing"),
        ({"fc": [1000.0], "fs": 44100.0, "basef": 1000.0}, "list of centre frequencies"),
        ({"fc": [1000.0], "fs": 44100.0, "n": 0}, "n = 0"),
        ({"fc": [1000.0], "fs": 44100.0, "n": 2.5}, "whole number"),
        ({"fc": [1000.0], "fs": 44100.0, "betamul": -1.0}, "betamul"),
        ({"fc": [1000.0], "fs": 44100.0, "implementation": "poly"}, "implementation"),
    ],
)
def test_wrong_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        GammatoneFilterbank(**arguments)
