"""Noise reduction and directional microphones: what they do to noise and to signals in it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from psysim.errors import SpecError
from psysim.hearing.aids import Chain, Directional, NoiseReduction

FS = 16000.0


def noise(seconds: float = 4.0, seed: int = 1) -> Tensor:
    n = round(seconds * FS)
    return 0.02 * torch.randn(1, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def level_db(x: Tensor) -> float:
    return float(10 * torch.log10(x.square().mean()))


@pytest.mark.parametrize("rule", ["wiener", "spectral_subtraction"])
@pytest.mark.parametrize("floor", [-6.0, -12.0])
def test_steady_noise_falls_to_near_the_floor(rule: str, floor: float) -> None:
    """Never below it, and within 3 dB of it once the noise is known."""
    x = noise()
    device = NoiseReduction(FS, rule=rule, floor_db=floor, bias_db=6.0, dtype=torch.float64)
    late = slice(round(3 * FS), None)
    change = level_db(device(x)[:, late]) - level_db(x[:, late])
    assert floor - 0.1 <= change <= floor + 3.0


def test_a_floor_of_0_db_gives_the_delayed_sound() -> None:
    """The windows of all frames add up to 1."""
    x = noise(0.2)
    device = NoiseReduction(FS, floor_db=0.0, dtype=torch.float64)
    y = device(x)
    torch.testing.assert_close(y[:, device.delay :], x[:, : -device.delay], rtol=0, atol=1e-12)


@pytest.mark.parametrize("rule", ["wiener", "spectral_subtraction"])
def test_a_tone_that_comes_and_goes_gains_on_the_noise(rule: str) -> None:
    """Of the aided mixture, the tone has kept more of its level than the noise between bursts: by 3 dB or more."""
    x = noise()
    t = torch.arange(x.shape[-1], dtype=torch.float64) / FS
    bursts = 0.05 * torch.sin(2 * torch.pi * 1000 * t) * (torch.sin(2 * torch.pi * 2 * t) > 0)
    device = NoiseReduction(FS, rule=rule, floor_db=-12.0, dtype=torch.float64)
    both = device(x + bursts)
    on = torch.nn.functional.pad((bursts.abs() > 1e-9).double(), (device.delay, 0))[: len(t)]
    late = (t > 2.0) & (t < 3.99)
    tone = torch.nn.functional.pad(bursts, (device.delay, 0))[: len(t)]
    kept = float((both[0] * tone)[late].sum() / tone[late].square().sum())
    rest = both[0] - kept * tone
    off = late & (torch.nn.functional.max_pool1d(on[None], 2001, 1, 1000)[0] == 0)
    tone_db, noise_db = 20 * torch.log10(torch.tensor(kept)), level_db(rest[off]) - level_db(x[0, off])
    assert float(tone_db) - noise_db > 3.0


def test_the_directional_benefit_is_the_change_of_the_ratio() -> None:
    target, other = noise(0.1, 1), noise(0.1, 2)
    y = Directional(FS, benefit_db=6.0, dtype=torch.float64).mix(target, other)
    assert level_db(target) - level_db(y - target) == pytest.approx(level_db(target) - level_db(other) + 6.0, abs=1e-9)


def test_a_directional_microphone_begins_a_chain() -> None:
    gain = {"kind": "gain", "gain_db": 20.0}
    chain = Chain(FS, [{"kind": "directional", "benefit_db": 20.0}, gain], dtype=torch.float64)
    y = chain.mix(torch.ones(4), torch.ones(4))
    torch.testing.assert_close(y, torch.full((4,), 11.0, dtype=torch.float64))
    with pytest.raises(SpecError, match="target and noise apart"):
        chain(torch.ones(4))
    with pytest.raises(SpecError, match="must be the first stage"):
        Chain(FS, [gain, {"kind": "directional"}])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "weiner"}, "Did you mean 'wiener'"),
        ({"floor_db": 3.0}, "at most 0 dB"),
        ({"hop_s": 0.5}, "at most 0.05 s"),
        ({"rise_s": 0.0}, "above 0 s"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        NoiseReduction(FS, **options)
