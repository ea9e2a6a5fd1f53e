from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from psysim.errors import SpecError
from psysim.rng import Keys, Purpose, uniform
from psysim.stimuli import am_tone, fm_tone, gate, quasi_fm_tone, tone
from psysim.stimuli.fm import FmTone
from psysim.units import pascal_to_db_spl

F64 = torch.float64
FS = 16000


def instantaneous_frequency(x: torch.Tensor) -> np.ndarray:
    """Frequency in Hz between samples, from the analytic signal; the ends are unreliable."""
    return np.diff(np.unwrap(np.angle(signal.hilbert(x.numpy())))) * FS / (2 * math.pi)


@given(st.floats(1, 50), st.sampled_from([2.0, 5.0, 10.0]), st.floats(0, 6.28), st.floats(0, 6.28))
@settings(max_examples=20, deadline=None)
def test_deviation_from_the_instantaneous_frequency(
    deviation: float, rate: float, phase: float, carrier: float
) -> None:
    x = fm_tone(
        carrier_hz=1000.0,
        rate_hz=rate,
        deviation_hz=deviation,
        level_db_spl=60.0,
        duration_s=1.0,
        modulator_phase_rad=phase,
        carrier_phase_rad=carrier,
        fs=FS,
        dtype=F64,
    )[0]
    t = (np.arange(FS - 1) + 0.5) / FS
    expected = 1000 + deviation * np.sin(2 * math.pi * rate * t + phase)
    middle = slice(FS // 4, -FS // 4)
    # the sampled Hilbert transform of a tone that is cut at both ends is off by up to 1e-3 of the phase
    np.testing.assert_allclose(instantaneous_frequency(x)[middle], expected[middle], rtol=0, atol=1.0)
    spectrum = np.fft.rfft((instantaneous_frequency(x) - 1000) * np.hanning(FS - 1))
    assert 4 * abs(spectrum[round(rate)]) / FS == pytest.approx(deviation, rel=0.01)


def test_the_phase_formula() -> None:
    x = fm_tone(
        carrier_hz=500.0,
        rate_hz=2.0,
        deviation_hz=17.0,
        level_db_spl=70.0,
        modulator_phase_rad=1.5 * math.pi,
        carrier_phase_rad=0.3,
        fs=FS,
        dtype=F64,
    )[0].numpy()
    t = np.arange(FS // 2) / FS
    angle = 2 * np.pi * 500 * t + 8.5 * (np.cos(1.5 * np.pi) - np.cos(2 * np.pi * 2 * t + 1.5 * np.pi)) + 0.3
    np.testing.assert_allclose(x, math.sqrt(2) * 20e-6 * 10**3.5 * np.sin(angle), rtol=0, atol=1e-12)


def test_golden_fm_tone() -> None:
    """The FM stimulus of the King (2019) vectors: phase -deviation/rate at the start, rms 70 dB before its ramps."""
    x = np.load(Path(__file__).parents[1] / "reference" / "data" / "king2019_fm500_5Hz_70dB.npz")["x"]
    y = fm_tone(
        carrier_hz=500.0,
        rate_hz=5.0,
        deviation_hz=20.0,
        level_db_spl=70.0,
        duration_s=0.25,
        carrier_phase_rad=-4.0,
        compensate_level=True,
        normalise="token",
        fs=48000,
        dtype=F64,
    )
    y = y * gate(torch.tensor([12000]), torch.tensor([480]))
    np.testing.assert_allclose(y[0].numpy(), x, rtol=0, atol=1e-12 * np.abs(x).max())


def test_no_deviation_is_a_tone() -> None:
    x = fm_tone(
        carrier_hz=500.0, rate_hz=5.0, deviation_hz=[0.0, 5.0], level_db_spl=70.0, ramp_s=0.02, fs=FS, dtype=F64
    )
    y = tone(frequency_hz=500.0, level_db_spl=70.0, ramp_s=0.02, fs=FS, dtype=F64)
    torch.testing.assert_close(x[:1], y, rtol=1e-14, atol=0)
    assert not torch.equal(x[:1], x[1:])


def test_level_does_not_change_with_fm() -> None:
    x = fm_tone(
        carrier_hz=1000.0, rate_hz=10.0, deviation_hz=[0.0, 100.0], level_db_spl=66.0, duration_s=1.0, fs=FS, dtype=F64
    )
    # FM of index 10: power at 2 fc - the mean of sin^2 - leaves below 1e-9 dB after whole modulation periods
    torch.testing.assert_close(
        pascal_to_db_spl((x**2).mean(-1).sqrt()), torch.full((2,), 66.0, dtype=F64), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("normalise", ["expected", "token"])
def test_added_amplitude_modulation(normalise: str) -> None:
    arguments = {"carrier_hz": 1000.0, "level_db_spl": 60.0, "duration_s": 1.0, "fs": FS, "dtype": F64}
    both = fm_tone(
        rate_hz=5.0,
        deviation_hz=20.0,
        am_depth_db=20 * math.log10(1 / 3),
        am_rate_hz=8.0,
        am_phase_rad=0.5,
        compensate_level=True,
        normalise=normalise,
        **arguments,
    )
    assert float(pascal_to_db_spl((both**2).mean().sqrt())) == pytest.approx(60.0, abs=1e-7)
    plain = fm_tone(rate_hz=5.0, deviation_hz=20.0, **arguments)
    t = torch.arange(FS, dtype=F64) / FS
    factor = (1 + torch.sin(2 * math.pi * 8 * t + 0.5) / 3) / math.sqrt(1 + 1 / 18)
    torch.testing.assert_close(both[0], plain[0] * factor, rtol=0, atol=1e-9)


def test_added_modulation_without_a_rate_has_the_rate_of_the_fm() -> None:
    arguments = {"carrier_hz": 500.0, "rate_hz": 5.0, "deviation_hz": 3.0, "level_db_spl": 60.0, "fs": FS}
    assert torch.equal(fm_tone(am_depth_db=-6.0, **arguments), fm_tone(am_depth_db=-6.0, am_rate_hz=5.0, **arguments))


@pytest.mark.parametrize("depth", [-20.0, -6.0, 0.0])
def test_quasi_fm_has_the_amplitude_spectrum_of_am(depth: float) -> None:
    arguments = {
        "carrier_hz": 2000.0,
        "rate_hz": 20.0,
        "depth_db": depth,
        "level_db_spl": 60.0,
        "duration_s": 0.5,
        "carrier_phase_rad": 0.4,
        "modulator_phase_rad": 1.1,
        "fs": FS,
        "dtype": F64,
    }
    quasi, am = quasi_fm_tone(**arguments), am_tone(**arguments)
    a, b = np.fft.rfft(quasi[0].numpy()), np.fft.rfft(am[0].numpy())
    np.testing.assert_allclose(np.abs(a), np.abs(b), rtol=0, atol=1e-10 * np.abs(b).max())
    turn = np.angle(a[[990, 1000, 1010]] / b[[990, 1000, 1010]])
    np.testing.assert_allclose(np.abs(turn), [math.pi / 2, 0, math.pi / 2], atol=1e-9)
    # flat envelope to second order: sqrt(1 + m^2 sin^2), twice the modulation rate
    m = 10 ** (depth / 20)
    t = np.arange(FS // 2) / FS
    envelope = 0.02 * math.sqrt(2) * np.sqrt(1 + (m * np.sin(2 * np.pi * 20 * t + 1.1)) ** 2)
    np.testing.assert_allclose(np.abs(signal.hilbert(quasi[0].numpy())), envelope, rtol=1e-9)
    # and for whole periods the power of AM
    assert float((quasi**2).mean()) == pytest.approx(0.02**2 * (1 + m**2 / 2), rel=1e-12)


def test_a_random_phase_of_added_am_belongs_to_the_key() -> None:
    keys = Keys.make(seed=3, trial=torch.arange(400))
    given = {"am_depth_db": -6.0, "am_rate_hz": 8.0, "duration_s": 0.125, "ramp_s": 0.0, "deviation_hz": 0.0}
    sound = FmTone().generate({**given, "am_phase_random": True}, keys, FS, F64)
    phase = 2 * math.pi * uniform(keys, Purpose.PHASE, 1)[:, 0]
    torch.testing.assert_close(sound, FmTone().generate({**given, "am_phase_rad": phase}, keys, FS, F64))
    assert torch.equal(sound[7:9], FmTone().generate({**given, "am_phase_random": True}, keys[7:9], FS, F64))
    # uniform over the circle: the mean of 400 unit vectors has a length of sqrt(pi / 1600) = 0.044 on average
    assert float(torch.exp(1j * phase).mean().abs()) < 0.15


def test_quasi_fm_approximates_fm_of_small_index() -> None:
    m = 0.01
    quasi = quasi_fm_tone(
        carrier_hz=2000.0, rate_hz=20.0, depth_db=-40.0, level_db_spl=60.0, modulator_phase_rad=0.0, fs=FS, dtype=F64
    )
    # phase m sin(2 pi rate t) is a frequency m rate cos(...): the modulator of fm_tone is ahead by pi/2
    fm = fm_tone(
        carrier_hz=2000.0,
        rate_hz=20.0,
        deviation_hz=m * 20.0,
        level_db_spl=60.0,
        modulator_phase_rad=math.pi / 2,
        fs=FS,
        dtype=F64,
    )
    assert float((quasi - fm).abs().max()) < 0.02 * math.sqrt(2) * m**2


def test_quasi_fm_compensation_and_no_depth() -> None:
    arguments = {"carrier_hz": 2000.0, "rate_hz": 20.0, "level_db_spl": 60.0, "duration_s": 0.5, "fs": FS, "dtype": F64}
    x = quasi_fm_tone(depth_db=[0.0, -6.0, -math.inf], compensate_level=True, **arguments)
    torch.testing.assert_close(
        pascal_to_db_spl((x**2).mean(-1).sqrt()), torch.full((3,), 60.0, dtype=F64), rtol=0, atol=1e-9
    )
    y = tone(frequency_hz=2000.0, level_db_spl=60.0, duration_s=0.5, fs=FS, dtype=F64)
    torch.testing.assert_close(x[2:], y, rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"deviation_hz": -1.0}, "deviation_hz = -1 Hz is out of range: it must be at least 0 Hz"),
        ({"deviation_hz": 600.0}, "carrier_hz - deviation_hz = -100 Hz"),
        ({"carrier_hz": 7990.0, "deviation_hz": 20.0}, r"carrier_hz \+ deviation_hz = 8010 Hz"),
        ({"rate_hz": 0.0}, "rate_hz = 0 Hz"),
        ({"am_depth_db": 1.0}, "am_depth_db = 1 dB"),
        ({"am_rate_hz": -1.0}, "am_rate_hz = -1 Hz"),
        ({"normalise": "max"}, "normalise = 'max'"),
    ],
)
def test_errors(change, message: str) -> None:
    arguments = {"carrier_hz": 500.0, "rate_hz": 5.0, "deviation_hz": 3.0, "level_db_spl": 60.0, "fs": FS, **change}
    with pytest.raises(SpecError, match=message):
        fm_tone(**arguments)
