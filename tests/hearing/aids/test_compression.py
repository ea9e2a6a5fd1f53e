"""Wide dynamic range compression, measured as IEC 60118-2 does: input/output curves and responses to steps."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from psysim.errors import SpecError
from psysim.hearing import standard_audiogram
from psysim.hearing.aids import Compressor, LinearAid
from psysim.hearing.aids.bands import analytic_bands

FS = 32000.0


def aid(**options: Any) -> Compressor:
    return Compressor(FS, dtype=torch.float64, **options)


def tone(frequency_hz: float, level_db_spl: Tensor) -> Tensor:
    """Return a tone (..., T) with a level for every sample."""
    t = torch.arange(level_db_spl.shape[-1], dtype=torch.float64) / FS
    return 20e-6 * math.sqrt(2) * 10 ** (level_db_spl / 20) * torch.sin(2 * math.pi * frequency_hz * t)


def steady_output(device: Compressor, frequency_hz: float, levels: Tensor) -> Tensor:
    y = device(tone(frequency_hz, levels[:, None].expand(-1, round(0.6 * FS))))[:, -round(0.1 * FS) :]
    return 10 * torch.log10(y.square().mean(-1) / 20e-6**2)


def test_bands_add_up_to_a_delay() -> None:
    h = analytic_bands(FS, [300.0, 1000.0, 2500.0], 161)
    click = torch.zeros(161, dtype=torch.float64)
    click[80] = 1.0
    torch.testing.assert_close(h.real.sum(0), click, rtol=0, atol=1e-14)
    x = torch.randn(1, 2000, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    device = aid(ratio=1.0)
    torch.testing.assert_close(device(x)[:, device.delay :], x[:, : -device.delay], rtol=0, atol=1e-12)


@pytest.mark.parametrize("frequency_hz", [250.0, 500.0, 1000.0, 2000.0, 4000.0])
@pytest.mark.parametrize(("ratio", "threshold"), [(1.5, 50.0), (3.0, 40.0)])
def test_input_output_curve(frequency_hz: float, ratio: float, threshold: float) -> None:
    """As IEC 60118-2 does: levels of 30 to 90 dB SPL in steps of 5 dB; within 1 dB of the curve of the settings."""
    levels = torch.arange(30.0, 91.0, 5.0, dtype=torch.float64)
    device = aid(gain_db=20.0, ratio=ratio, threshold_db_spl=threshold, max_output_db_spl=140.0)
    expected = levels + 20.0 - (1 - 1 / ratio) * torch.relu(levels - threshold)
    torch.testing.assert_close(steady_output(device, frequency_hz, levels), expected, rtol=0, atol=1.0)


def test_a_tone_between_two_bands_gets_more_gain() -> None:
    """In both it is 6 dB lower: with a ratio of 2, 3 dB more output."""
    device = aid(crossovers_hz=[1000.0], ratio=2.0, threshold_db_spl=40.0)
    out = steady_output(device, 1000.0, torch.tensor([70.0], dtype=torch.float64))
    assert float(out) == pytest.approx(70.0 - 15.0 + 3.0, abs=0.1)


def times(device: Compressor, frequency_hz: float) -> tuple[float, float]:
    """Return attack and release time: step from 55 to 80 dB SPL and back; until within 2 dB of the steady output."""
    n, period, lag = round(0.8 * FS), round(FS / frequency_hz), device.delay
    level = torch.full((3 * n,), 55.0, dtype=torch.float64)
    level[n : 2 * n] = 80.0
    y = device(tone(frequency_hz, level)[None]).abs()
    envelope = 20 * torch.log10(torch.nn.functional.max_pool1d(y[None], period // 2, 1)[0, 0] / 20e-6)

    def settled(start: int) -> float:
        part = envelope[start : start + n - 2 * period - lag]
        return (int(((part - part[-period:].mean()).abs() > 2.0).nonzero().max()) + 1) / FS

    return settled(n + lag), settled(2 * n + lag)


@pytest.mark.parametrize(("frequency_hz", "crossovers"), [(1600.0, []), (2000.0, [700.0, 1400.0, 2800.0])])
@pytest.mark.parametrize("ratio", [1.5, 2.0, 4.0])
@pytest.mark.parametrize(("attack", "release", "threshold"), [(0.005, 0.08, 45.0), (0.03, 0.15, 58.0)])
def test_attack_and_release_times(
    frequency_hz: float, crossovers: list[float], ratio: float, attack: float, release: float, threshold: float
) -> None:
    """As IEC 60118-2 does, within 10 %."""
    device = aid(crossovers_hz=crossovers, ratio=ratio, threshold_db_spl=threshold, attack_s=attack, release_s=release)
    measured = times(device, frequency_hz)
    assert measured[0] == pytest.approx(attack, rel=0.1)
    assert measured[1] == pytest.approx(release, rel=0.1)


def test_the_output_is_limited_at_every_sample() -> None:
    """In a band; several bands may add up to more."""
    device = aid(crossovers_hz=[], gain_db=40.0, ratio=1.0, max_output_db_spl=100.0)
    levels = torch.tensor([50.0, 60.0, 80.0, 100.0], dtype=torch.float64)
    out = steady_output(device, 1000.0, levels)
    torch.testing.assert_close(out, torch.tensor([90.0, 100.0, 100.0, 100.0]).double(), rtol=0, atol=0.1)
    step = torch.full((1, 8000), 40.0, dtype=torch.float64)
    step[:, 4000:] = 95.0
    peak = float(device(tone(1000.0, step)).abs().max())
    assert 20 * math.log10(peak / math.sqrt(2) / 20e-6) < 101.0


def test_coupled_bands_take_the_largest_reduction() -> None:
    """A loud low tone turns the soft high one down as well."""
    x = tone(500.0, torch.full((1, 20000), 80.0).double()) + tone(3000.0, torch.full((1, 20000), 30.0).double())

    def high_tone(coupling: float) -> float:
        device = aid(crossovers_hz=[1200.0], threshold_db_spl=40.0, ratio=2.0, coupling=coupling)
        y = device(x)[0, -8000:]
        t = torch.arange(8000, dtype=torch.float64) / FS
        return 20 * math.log10(float((y * torch.exp(-2j * math.pi * 3000 * t)).mean().abs()) * math.sqrt(2) / 20e-6)

    assert high_tone(0.0) == pytest.approx(30.0, abs=0.3)
    assert high_tone(0.5) == pytest.approx(20.0, abs=0.3)
    assert high_tone(1.0) == pytest.approx(10.0, abs=0.3)


def test_linked_ears_keep_level_differences() -> None:
    levels = torch.tensor([[70.0], [60.0]]).double().expand(2, 16000)
    x = tone(1000.0, levels)[None]

    def difference(link: bool) -> float:
        y = aid(ratio=2.0, link_ears=link)(x)[0, :, -3200:].square().mean(-1)
        return 10 * math.log10(float(y[0] / y[1]))

    assert difference(True) == pytest.approx(10.0, abs=0.05)
    assert difference(False) == pytest.approx(5.0, abs=0.05)


def test_a_prescription_holds_at_the_reference_level() -> None:
    device = aid(prescription="NAL-R", audiogram="N3", ratio=2.0, reference_db_spl=60.0)
    centres = torch.tensor(device.centres_hz)
    linear = LinearAid(FS, prescription="NAL-R", audiogram=standard_audiogram("N3"), duration_s=0.05)
    torch.testing.assert_close(device.static_gain([60.0])[:, 0], linear.gain_at(centres), rtol=0, atol=0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 0.5}, "at least 1"),
        ({"ratio": [1.0, 2.0]}, "one for each of 4 bands"),
        ({"attack_s": 0.0}, "attack_s"),
        ({"threshold_db_spl": float("nan")}, "out of range"),
        ({"crossovers_hz": [2000.0, 1000.0]}, "rising"),
        ({"crossovers_hz": [20000.0]}, "at most 16000 Hz"),
        ({"coupling": 2.0}, "at most 1"),
        ({"gain_db": 120.0}, "at most 100 dB"),
        ({"prescription": "NAL-R"}, "needs an audiogram"),
        ({"prescription": "NAL-R", "audiogram": "N3", "gain_db": 1.0}, "not both"),
    ],
)
def test_wrong_settings_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        aid(**options)
