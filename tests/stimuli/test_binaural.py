"""Sounds for two ears: phases, time and level differences, and that each ear is an ordinary sound."""

from __future__ import annotations

import math

import pytest
import torch

from psysim.rng import Keys
from psysim.stimuli import registry

FS = 48000.0
NOISE = {"centre_hz": 500.0, "bandwidth_hz": 100.0, "level_db_spl": 65.0, "duration_s": 0.1, "ramp_s": 0.01}
TONE = {"signal_hz": 500.0, "signal_duration_s": 0.08, "signal_ramp_s": 0.01, "snr_db": -3.0}


def made(kind: str, keys: Keys, **parameters) -> torch.Tensor:
    return registry.get(kind)().generate(parameters, keys, FS, torch.float64)


@pytest.fixture
def keys() -> Keys:
    return Keys.make(seed=1, trial=torch.arange(3))


def parts(keys: Keys) -> tuple[torch.Tensor, torch.Tensor]:
    """Return noise and tone of one ear."""
    whole = made("tone_in_noise", keys, **NOISE, **TONE)
    noise = made("tone_in_noise", keys, **NOISE, **{**TONE, "snr_db": -math.inf})
    return noise, whole - noise


@pytest.mark.parametrize(
    ("condition", "signs"), [("N0S0", (1, 1)), ("N0Spi", (1, -1)), ("NpiS0", (-1, 1)), ("NpiSpi", (-1, -1))]
)
def test_interaural_phases(keys: Keys, condition: str, signs: tuple[int, int]) -> None:
    noise, tone = parts(keys)
    sound = made("dichotic_tone_in_noise", keys, **NOISE, **TONE, interaural_condition=condition)
    assert sound.shape == (3, 2, 4800)
    torch.testing.assert_close(sound[:, 0], noise + tone, rtol=0, atol=1e-15)
    torch.testing.assert_close(sound[:, 1], signs[0] * noise + signs[1] * tone, rtol=0, atol=1e-15)


def test_without_tone_n0_is_the_same_in_both_ears_to_the_last_bit(keys: Keys) -> None:
    """Else the element that cancels the noise would hear a rest of rounding."""
    sound = made("dichotic_tone_in_noise", keys, **NOISE, **{**TONE, "snr_db": -math.inf}, interaural_condition="N0Spi")
    assert torch.equal(sound[:, 0], sound[:, 1])


def test_an_interaural_time_difference_is_ongoing_and_split_between_the_ears(keys: Keys) -> None:
    about = {"frequency_hz": 500.0, "level_db_spl": 60.0, "duration_s": 0.1, "ramp_s": 0.01}
    itd = torch.tensor([0.0, 250.0, -250.0], dtype=torch.float64)  # 12 samples
    left, right = made("dichotic_tone", keys, **about, itd_us=itd).unbind(1)
    assert torch.equal(left[0], right[0])
    steady = slice(1000, 3800)
    torch.testing.assert_close(left[1, steady], right[1, 1012:3812], rtol=0, atol=1e-12)
    torch.testing.assert_close(right[2, steady], left[2, 1012:3812], rtol=0, atol=1e-12)
    assert float(left[1, 0].abs()) < 1e-9  # the ramps start together


def test_a_level_difference_keeps_the_mean_level(keys: Keys) -> None:
    about = {"frequency_hz": 500.0, "level_db_spl": 60.0, "duration_s": 0.1, "ramp_s": 0.0}
    left, right = made("dichotic_tone", keys, **about, ild_db=8.0).unbind(1)
    levels = [20 * math.log10(float(x[0].square().mean().sqrt()) / 20e-6) for x in (left, right)]
    assert levels == pytest.approx([64.0, 56.0], abs=1e-6)


def test_durations_are_those_of_one_ear() -> None:
    kind = registry.get("dichotic_tone_in_noise")()
    about = {**NOISE, **TONE, "interaural_condition": "N0Spi", "silence_after_s": 0.05}
    assert kind.duration_s(about) == pytest.approx(0.15)
    assert registry.get("dichotic_tone")().duration_s({"duration_s": 0.3, "itd_us": 10.0}) == pytest.approx(0.3)
