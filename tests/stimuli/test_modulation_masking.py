"""Two modulators on one tone, and raised depths: depths, level, phases."""

from __future__ import annotations

import math

import pytest
import torch

from psysim.errors import SpecError
from psysim.rng import Keys
from psysim.stimuli import registry

FS = 32000.0
F64 = torch.float64
KEYS = Keys.make(seed=4, trial=torch.arange(200))
ABOUT = {"carrier_hz": 4000.0, "duration_s": 0.5, "ramp_s": 0.0, "level_db_spl": 60.0}


def made(kind: str, keys: Keys = KEYS, **parameters) -> torch.Tensor:
    return registry.get(kind)().generate({**ABOUT, **parameters}, keys, FS, F64)


def depth(x: torch.Tensor, rate_hz: float) -> torch.Tensor:
    """Modulation depth m from carrier and both sidebands of a whole number of periods."""
    spectrum = torch.fft.rfft(x).abs()
    place = [round(f * x.shape[-1] / FS) for f in (4000.0, 4000.0 - rate_hz, 4000.0 + rate_hz)]
    carrier, low, high = (spectrum[..., i] for i in place)
    return (low + high) / carrier


def test_both_modulators_have_their_depth() -> None:
    x = made("masked_am_tone", rate_hz=16.0, depth_db=-20.0, masker_rate_hz=40.0, masker_depth_db=-12.0)
    torch.testing.assert_close(depth(x, 16.0), torch.full((200,), 0.1, dtype=F64), rtol=1e-6, atol=0)
    torch.testing.assert_close(depth(x, 40.0), torch.full((200,), 10 ** (-12 / 20), dtype=F64), rtol=1e-6, atol=0)


def test_the_level_is_that_of_the_modulated_tone() -> None:
    x = made("masked_am_tone", rate_hz=16.0, depth_db=-7.0, masker_rate_hz=40.0)
    level = 20 * torch.log10(x.square().mean(-1).sqrt() / 20e-6)
    torch.testing.assert_close(level, torch.full_like(level, 60.0), rtol=0, atol=1e-6)
    same = made("masked_am_tone", rate_hz=16.0, depth_db=-7.0, masker_rate_hz=16.0)
    power = float(same.square().mean()) / (20e-6) ** 2  # on average over phases only
    assert 10 * math.log10(power) == pytest.approx(60.0, abs=0.1)


def test_the_phase_of_the_masker_is_random_and_that_of_the_signal_is_not() -> None:
    signal = made("masked_am_tone", masker_depth_db=-math.inf, depth_db=-7.0)
    assert torch.equal(signal, signal[:1].expand_as(signal))
    masker = made("masked_am_tone", depth_db=-math.inf)
    carrier = torch.exp(-2j * math.pi * 16.0 * torch.arange(masker.shape[-1], dtype=F64) / FS)
    power = masker.square() - masker.square().mean(-1, keepdim=True)
    turn = torch.angle((power * carrier).sum(-1))
    assert float(torch.exp(1j * turn).mean().abs()) < 0.2  # 200 phases all around


def test_the_increment_is_added_to_the_depth_in_db() -> None:
    x = made("am_depth_tone", Keys.make(seed=1), rate_hz=16.0, depth_db=-20.0, depth_increment_db=8.0)
    assert float(depth(x, 16.0)[0]) == pytest.approx(10 ** (-12 / 20), rel=1e-6)
    assert torch.equal(
        made("am_depth_tone", Keys.make(seed=1), rate_hz=16.0, depth_db=-12.0),
        made("am_tone", Keys.make(seed=1), rate_hz=16.0, depth_db=-12.0),
    )
    with pytest.raises(SpecError, match="depth_db"):
        made("am_depth_tone", Keys.make(seed=1), depth_db=-6.0, depth_increment_db=7.0)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(SpecError, match=r"carrier_hz \+ both rates"):
        made("masked_am_tone", carrier_hz=15990.0, masker_rate_hz=40.0)
