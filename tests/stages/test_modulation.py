from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import signal

from psysim.errors import PsysimWarning, SpecError
from psysim.stages import ModulationFilterbank
from psysim.stages.modulation import modulation_centres
from psysim.stages.modulation_butterworth import butterworth_bandpasses

FC = torch.tensor([100.0, 500.0, 8000.0])


def noise(channels: int, samples: int = 400) -> torch.Tensor:
    return torch.randn(2, channels, samples, generator=torch.Generator().manual_seed(0))


def test_the_list_is_made_of_views_of_the_dense_output() -> None:
    bank = ModulationFilterbank(4000.0, FC)
    dense = bank.dense(noise(3))
    assert dense.shape == (2, 3, 12, 400)
    for channel, output in enumerate(bank.split(dense)):
        assert output.shape == (2, bank.num_filters[channel], 400)
        assert output.untyped_storage().data_ptr() == dense.untyped_storage().data_ptr()
        assert torch.equal(output, dense[:, channel, bank.valid[channel]])
    assert torch.equal(dense[:, ~bank.valid], torch.zeros_like(dense[:, ~bank.valid]))


def test_filters_that_only_one_channel_has() -> None:
    """With Q = 1 a channel at 24 Hz has a filter at 15 Hz that no other has: 10 Hz is above its limit of 6 Hz."""
    fc = torch.tensor([24.0, 8000.0])
    bank = ModulationFilterbank(4000.0, fc, Q=1.0)
    x = noise(2)
    for channel, (output, mfc) in enumerate(zip(bank(x), bank.mfc, strict=True)):
        alone = ModulationFilterbank(4000.0, fc[channel : channel + 1], Q=1.0)
        assert torch.equal(mfc, alone.mfc[0])
        assert torch.equal(output, alone(x[:, channel : channel + 1])[0])
    assert 15.0 in bank.mfc[0].tolist()


@pytest.mark.parametrize(
    ("upper", "expected"),
    [(0.0, [0.0]), (4.0, [0.0, 5.0]), (6.0, [0.0, 5.0]), (7.0, [0.0, 5.0, 10.0]), (11.0, [0.0, 5.0, 10.0, 50 / 3])],
)
def test_counts_are_truncated_towards_zero(upper: float, expected: list[float]) -> None:
    assert modulation_centres(upper) == pytest.approx(expected)


def test_attributes_and_overrides() -> None:
    bank = ModulationFilterbank(4000.0, FC)
    assert (bank.preset, bank.max_mfc, bank.use_upper_limit, bank.use_lp150_prefilter) == (
        "jepsen2008",
        1000,
        True,
        True,
    )
    assert bank.att_factor == math.sqrt(0.5)
    bank = ModulationFilterbank(4000.0, FC, max_mfc=150.0, use_upper_limit=False, att_factor=1.0, lowpass_cutoff=None)
    assert bank.num_filters == [8, 8, 8]
    assert float(bank.mfc_all[-1]) == pytest.approx(128.6, abs=0.01)
    plain = ModulationFilterbank(4000.0, FC, preset="dau1997", max_mfc=150.0, lowpass_cutoff="off")
    x = noise(3)
    assert torch.equal(bank.dense(x), plain.dense(x))


def test_the_narrow_lowpass_is_exact_in_float32() -> None:
    """At 44.1 kHz its coefficients differ from (1, -2, 1) by one float32 step; in float32 it would be 12 % off."""
    x = torch.ones(1, 1, 44100)
    bank = ModulationFilterbank(44100.0, [1000.0], lowpass_cutoff=None).float()
    expected = signal.sosfilt(signal.butter(2, 2.5, fs=44100.0, output="sos"), np.ones(44100))
    np.testing.assert_allclose(bank.dense(x)[0, 0, 0].numpy(), expected, atol=1e-6)


def test_gain_correction_is_the_gain_of_the_lowpass() -> None:
    corrected = ModulationFilterbank(4000.0, [8000.0], preset="osses2021_att_gain")
    b, a = signal.butter(1, 150.0, fs=4000.0)
    gain = np.abs(signal.freqz(b, a, corrected.mfc_hz.numpy(), fs=4000.0)[1])
    np.testing.assert_allclose(corrected.gain.numpy(), gain, rtol=1e-5)  # interpolated linearly in dB
    x = noise(1)
    plain = ModulationFilterbank(4000.0, [8000.0], preset="verhey1999", att_factor=math.sqrt(0.5))
    scale = torch.cat([torch.ones(1), corrected.gain]).float()
    torch.testing.assert_close(corrected.dense(x), plain.dense(x) * scale[:, None])


def test_phase_is_kept_up_to_10_hz_only() -> None:
    bank = ModulationFilterbank(4000.0, [8000.0])
    output = bank.dense(noise(1))[:, 0]
    assert (output[:, :3] < 0).any(-1).all()
    assert (output[:, 3:] >= 0).all()
    both = ModulationFilterbank(4000.0, [8000.0], phase_insens=False).dense(noise(1))[:, 0]
    torch.testing.assert_close(2.0 * both[:, 1:3].real, output[:, 1:3])
    torch.testing.assert_close(2.0 * math.sqrt(0.5) * both[:, 3:].abs(), output[:, 3:])
    torch.testing.assert_close(both[:, 0].real, output[:, 0])


@pytest.mark.parametrize("fs", [4000.0, 44100.0])
def test_butterworth_sections(fs: float) -> None:
    centre, width = np.array([5.0, 10.0, 50 / 3, 128.6, 992.29]), np.array([5.0, 5.0, 25 / 3, 64.3, 496.1])
    sections = butterworth_bandpasses(torch.as_tensor(centre), torch.as_tensor(width), fs)
    for sos, c, w in zip(sections.numpy(), centre, width, strict=True):
        low, high = np.sqrt(c**2 + w**2 / 4) - w / 2, np.sqrt(c**2 + w**2 / 4) + w / 2
        assert low * high == pytest.approx(c**2)
        frequency = np.geomspace(low / 10, min(3 * high, 0.49 * fs), 200)
        expected = signal.freqz_sos(signal.butter(2, [low, high], "bandpass", fs=fs, output="sos"), frequency, fs=fs)[1]
        # 2e-16 in a1 near -2 over the distance of the poles from 1, squared: 1e-7 for 5 Hz at 44.1 kHz.
        np.testing.assert_allclose(signal.freqz_sos(sos, frequency, fs=fs)[1], expected, atol=5e-9)


def test_butterworth_bank_passes_its_centres() -> None:
    bank = ModulationFilterbank(4000.0, [8000.0], filter_type="butterworth", preset="dau1997", dtype=torch.float64)
    t = torch.arange(8000, dtype=torch.float64) / 4000.0
    for m, rate in enumerate(bank.mfc_all.tolist()[1:], start=1):
        output = bank.dense(torch.sin(2.0 * math.pi * rate * t).reshape(1, 1, -1))[0, 0, m, 4000:]
        amplitude = float(output.abs().max() if rate <= 10.0 else output[:2000].mean())
        # The FFT envelope of the finite signal ripples where the sound does not end at a period.
        assert amplitude == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "jepsen"}, "Did you mean 'jepsen2008'"),
        ({"filter_type": "butter"}, "Did you mean 'butterworth'"),
        ({"Q": 0.5}, "Q"),
        ({"max_mfc": -1.0}, "max_mfc"),
        ({"att_factor": -1.0}, "att_factor"),
        ({"fc": []}, "fc"),
        ({"fc": [float("nan")]}, "fc"),
        ({"lowpass_cutoff": "none"}, "lowpass_cutoff"),
        ({"lowpass_cutoff": 5000.0}, "below fs/2 = 2000 Hz"),
        ({"lp_cutoff": 0.0}, "lp_cutoff"),
        ({"fs": 2200.0, "fc": [8000.0], "filter_type": "butterworth"}, "reaches up to"),
        ({"fs": 299.0, "max_mfc": 20.0, "preset": "osses2021_att_gain"}, "gain correction"),
    ],
)
def test_wrong_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        ModulationFilterbank(**({"fs": 4000.0, "fc": FC} | arguments))


def test_wrong_number_of_channels() -> None:
    with pytest.raises(SpecError, match="2 channels, but fc has 3"):
        ModulationFilterbank(4000.0, FC)(noise(2))


def test_aliased_filters_are_pointed_out() -> None:
    with pytest.warns(PsysimWarning, match=r"595.374 Hz.*aliased.*set max_mfc below 500 Hz"):
        bank = ModulationFilterbank(fs=1000.0, fc=[8000.0])
    assert float(bank.mfc_all[-1]) > 500.0  # as published: the list does not depend on the rate


def test_dau1996_is_a_leaky_integrator_alone() -> None:
    bank = ModulationFilterbank(fs=1000.0, fc=[8000.0, 100.0], preset="dau1996", dtype=torch.float64)
    assert bank.num_filters == [1, 1]
    step = bank.dense(torch.ones(2, 200, dtype=torch.float64))
    expected = 1.0 - torch.exp(-torch.arange(1, 201, dtype=torch.float64) / (0.02 * 1000.0))
    torch.testing.assert_close(step, expected.expand(2, 1, 200), rtol=0, atol=1e-13)
