from __future__ import annotations

import numpy as np
import pytest
import torch

from psysim.errors import SpecError
from psysim.stages import HeadphoneFilter, MiddleEarFilter, OuterMiddleEarFilter
from psysim.stages.ears import frequency_sampling, minimum_phase

EARS = [HeadphoneFilter, MiddleEarFilter]


def test_gain_of_the_headphone_follows_its_table() -> None:
    frequency, response = HeadphoneFilter(44100.0).get_frequency_response(1 << 15)
    gain = np.interp([500.0, 1000.0, 4000.0], frequency, response.abs())
    # 0.3 dB: 513 taps at 44.1 kHz smooth the table over 170 Hz.
    np.testing.assert_allclose(20 * np.log10(gain), 20 * np.log10([1.0, 0.9949, 1.1736]), atol=0.3)


def test_peak_gain_of_the_normalised_middle_ear_is_0_db() -> None:
    for options in ({}, {"phase_type": "zero"}, {"filter_type": "jepsen2008"}):
        ear = MiddleEarFilter(44100.0, **options)
        assert float(ear.get_frequency_response(16384)[1].abs().max()) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("ear", EARS)
@pytest.mark.parametrize(("compensation", "expected"), [("amt", 257), ("exact", 256), ("none", 0)])
def test_delay_of_linear_phase(ear: type, compensation: str, expected: int) -> None:
    """An impulse at sample 600 comes out with its centre (tap 256) moved forward by the compensation."""
    stage = ear(44100.0, phase_type="zero", delay_compensation=compensation, dtype=torch.float64)
    x = torch.zeros(1500, dtype=torch.float64)
    x[600] = 1.0
    assert stage.delay == expected
    assert int(stage(x).abs().argmax()) == 600 + 256 - expected


def test_the_published_compensation_makes_minimum_phase_early() -> None:
    amt, exact = MiddleEarFilter(44100.0), MiddleEarFilter(44100.0, delay_compensation="exact")
    assert (amt.delay, exact.delay) == (257, 0)
    x = torch.randn(2000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(amt(x)[:-257], exact(x)[257:], atol=1e-6, rtol=0)
    assert MiddleEarFilter(44100.0, compensate_delay=False).delay == 0
    assert not exact.get_parameters()["delay"]


def test_minimum_phase_keeps_the_magnitude_and_leads() -> None:
    zero, minimum = MiddleEarFilter(44100.0, phase_type="zero"), MiddleEarFilter(44100.0)
    magnitude = [np.abs(np.fft.fft(ear.taps.numpy())) for ear in (zero, minimum)]
    magnitude = [m / m.max() for m in magnitude]
    np.testing.assert_allclose(magnitude[0], magnitude[1], atol=1e-3)  # the cepstrum is aliased on 513 bins
    energy = minimum.taps.square()
    assert float(energy[:257].sum() / energy.sum()) == pytest.approx(0.99995, abs=1e-5)
    taps = np.array([1.0, 0.5, 0.25, 0.1])
    np.testing.assert_allclose(np.abs(np.fft.fft(minimum_phase(taps))), np.abs(np.fft.fft(taps)))


def test_published_gains() -> None:
    """Peak gains in dB of the published filters at two rates."""
    for fs, minimum, zero, jepsen in [(44100, -66.4827, -66.5479, -55.9167), (32000, -66.4246, -66.4473, -55.9997)]:
        assert MiddleEarFilter(fs).gain_db == pytest.approx(minimum, abs=5e-5)
        assert MiddleEarFilter(fs, phase_type="zero").gain_db == pytest.approx(zero, abs=5e-5)
        assert MiddleEarFilter(fs, "jepsen2008").gain_db == pytest.approx(jepsen, abs=5e-5)


def test_frequency_sampling_is_symmetric_and_meets_a_flat_target() -> None:
    taps = frequency_sampling(np.array([0.0, 1.0]), np.array([1.0, 1.0]), 64)
    np.testing.assert_allclose(taps, np.eye(65)[32], atol=1e-15)
    ramp = frequency_sampling(np.array([0.0, 1.0]), np.array([0.0, 1.0]), 64)
    np.testing.assert_allclose(ramp, ramp[::-1], atol=1e-16)


@pytest.mark.parametrize("shape", [(1000,), (3, 1000), (2, 2, 1000), (1,)])
@pytest.mark.parametrize("ear", EARS)
def test_shapes(ear: type, shape: tuple[int, ...]) -> None:
    assert ear(32000.0)(torch.ones(shape)).shape == shape


@pytest.mark.parametrize(
    ("ear", "arguments", "message"),
    [
        (HeadphoneFilter, {"phase_type": "linear"}, "phase_type"),
        (HeadphoneFilter, {"order": 511}, "order"),
        (HeadphoneFilter, {"order": 1024}, "order"),
        (HeadphoneFilter, {"fs": 400.0}, "too low"),
        (HeadphoneFilter, {"filter_type": "pralong"}, "pralong1996"),
        (HeadphoneFilter, {"delay_compensation": "exakt"}, "Did you mean 'exact'"),
        (MiddleEarFilter, {"filter_type": "jepsen"}, "jepsen2008"),
    ],
)
def test_wrong_arguments(ear: type, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        ear(**({"fs": 44100.0} | arguments))


@pytest.mark.parametrize(("outer", "middle"), [(True, True), (False, True), (True, False), (False, False)])
def test_both_ears_one_after_another(outer: bool, middle: bool) -> None:
    x = torch.randn(2, 900, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ears = OuterMiddleEarFilter(44100.0, dtype="float64", outer_ear=outer, middle_ear=middle)
    y = x
    if outer:
        y = HeadphoneFilter(44100.0, dtype="float64", delay_compensation="none")(y)
    if middle:
        y = MiddleEarFilter(44100.0, dtype="float64", delay_compensation="none", normalize_gain=False)(y)
    assert torch.equal(ears(x), y)
    frequency, gain_db = ears.get_transfer_function()
    assert len(ears.filters) == outer + middle
    # Stapes velocity for 0 dB SPL at 1 kHz, as rms: 1 m/s per Pa is 10^(gain / 20); the outer ear adds 0 dB there
    table = 20.0 * np.log10(9e-9 / 20e-6) if middle else 0.0
    assert np.interp(1000.0, frequency, gain_db.nan_to_num(neginf=-300.0)) == pytest.approx(table, abs=1.0)


@pytest.mark.parametrize("option", [{"compensation_type": "tfOuterMiddle1997"}, {"field_type": "free"}])
def test_filters_of_other_packages_are_refused(option: dict[str, str]) -> None:
    with pytest.raises(SpecError, match=r"is not available.*Leave it out"):
        OuterMiddleEarFilter(44100.0, **option)
