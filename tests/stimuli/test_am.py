from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from psysim.errors import SpecError
from psysim.rng import Keys
from psysim.stimuli import am_noise, am_tone, noise, registry, tone
from psysim.units import pascal_to_db_spl

F64 = torch.float64
FS = 16000.0
NO_DEPTH = -math.inf


def keys(rows: int, seed: int = 3) -> Keys:
    return Keys.make(seed=seed, trial=torch.arange(rows))


def level(x: torch.Tensor) -> torch.Tensor:
    return pascal_to_db_spl((x**2).mean(-1).sqrt())


def envelope_depth(x: torch.Tensor, rate: float, fs: float) -> np.ndarray:
    """Depth in dB from the envelope spectrum; the sound must hold whole periods of carrier and modulator."""
    spectrum = np.abs(np.fft.rfft(np.abs(signal.hilbert(x.numpy()))))
    line = round(rate * x.shape[-1] / fs)
    return 20 * np.log10(2 * spectrum[..., line] / spectrum[..., 0])


@given(st.floats(-60, -0.1), st.sampled_from([4.0, 16.0, 100.0]), st.floats(0, 6.28), st.floats(0, 6.28))
@settings(max_examples=25, deadline=None)
def test_depth_is_recovered_from_the_envelope(depth: float, rate: float, carrier: float, modulator: float) -> None:
    x = am_tone(
        carrier_hz=2000.0,
        rate_hz=rate,
        depth_db=depth,
        level_db_spl=60.0,
        duration_s=0.5,
        carrier_phase_rad=carrier,
        modulator_phase_rad=modulator,
        fs=16000,
        dtype=F64,
    )
    assert float(envelope_depth(x, rate, 16000)[0]) == pytest.approx(depth, abs=1e-8)


@pytest.mark.parametrize("compensate", [False, True])
@pytest.mark.parametrize("normalise", ["expected", "token"])
def test_level_of_am_tones(compensate: bool, normalise: str) -> None:
    depth = torch.tensor([NO_DEPTH, -20.0, -6.0, 0.0], dtype=F64)
    x = am_tone(
        carrier_hz=2000.0,
        rate_hz=20.0,
        depth_db=depth,
        level_db_spl=65.0,
        duration_s=0.2,
        compensate_level=compensate,
        normalise=normalise,
        fs=16000,
        dtype=F64,
    )
    raised = 10 * torch.log10(1 + 10 ** (depth / 10) / 2)
    expected = 65.0 + (torch.zeros_like(raised) if compensate else raised)
    torch.testing.assert_close(level(x), expected, rtol=0, atol=1e-9)


def test_no_depth_is_exactly_the_carrier() -> None:
    x = am_tone(
        carrier_hz=2000.0, rate_hz=16.0, depth_db=[NO_DEPTH, -3.0], level_db_spl=60.0, ramp_s=0.05, fs=16000, dtype=F64
    )
    plain = tone(frequency_hz=2000.0, level_db_spl=60.0, ramp_s=0.05, fs=16000, dtype=F64)
    torch.testing.assert_close(x[:1], plain, rtol=1e-14, atol=0)
    k = keys(2)
    quiet = am_noise(k, rate_hz=16.0, depth_db=NO_DEPTH, level_db_spl=60.0, fs=16000, dtype=F64)
    assert torch.equal(quiet, noise(k, level_db_spl=60.0, fs=16000, dtype=F64))
    band = {"centre_hz": 3000.0, "bandwidth_hz": 100.0}
    quiet = am_noise(k, rate_hz=16.0, depth_db=NO_DEPTH, level_db_spl=60.0, fs=16000, dtype=F64, **band)
    assert torch.equal(quiet, noise(k, level_db_spl=60.0, fs=16000, dtype=F64, **band))


@pytest.mark.parametrize("band", [{}, {"centre_hz": 3000.0, "bandwidth_hz": 314.0}])
@pytest.mark.parametrize("normalise", ["expected", "token"])
def test_modulated_and_unmodulated_intervals_share_the_carrier(band, normalise: str) -> None:
    one = keys(1).expand(2)
    x = am_noise(
        one,
        rate_hz=8.0,
        depth_db=[NO_DEPTH, -6.0],
        level_db_spl=60.0,
        duration_s=0.5,
        compensate_level=False,
        normalise=normalise,
        modulator_phase_rad=0.5,
        fs=16000,
        dtype=F64,
        **band,
    )
    t = torch.arange(8000, dtype=F64) / 16000
    factor = 1 + 10 ** (-6 / 20) * torch.sin(2 * math.pi * 8 * t + 0.5)
    torch.testing.assert_close(x[1], x[0] * factor, rtol=1e-12, atol=1e-18)


@pytest.mark.parametrize("band_limit", ["before", "after", "both"])
@pytest.mark.parametrize("width", [20.0, 400.0])
@pytest.mark.parametrize("rate", [4.0, 50.0])
def test_compensated_level_on_average(band_limit: str, width: float, rate: float) -> None:
    x = am_noise(
        keys(1500),
        rate_hz=rate,
        depth_db=0.0,
        level_db_spl=60.0,
        duration_s=0.5,
        centre_hz=2000.0,
        bandwidth_hz=width,
        band_limit=band_limit,
        fs=8000,
        dtype=F64,
    )
    p = (x**2).mean(-1) / 0.02**2
    assert float(p.mean()) == pytest.approx(1.0, abs=4.5 * float(p.std()) / math.sqrt(len(p)))


@pytest.mark.parametrize("band_limit", ["after", "both"])
def test_band_limited_after_modulation(band_limit: str) -> None:
    x = am_noise(
        keys(5),
        rate_hz=30.0,
        depth_db=[NO_DEPTH, -6.0, 0.0, -3.0, -20.0],
        level_db_spl=60.0,
        duration_s=1.0,
        centre_hz=5000.0,
        bandwidth_hz=314.0,
        band_limit=band_limit,
        fs=44100,
        dtype=F64,
    )
    p = np.abs(np.fft.rfft(x.numpy())) ** 2
    assert np.delete(p, np.s_[4843:5157], axis=1).max() < 1e-24 * p.max()
    assert p[:, 4843].min() > 1e-8 * p.max()


def mean_envelope_depth(band_limit: str, rate: float, width: float) -> float:
    """Modulation of the mean power at the modulation rate, over many tokens: 2 m/(1 + m^2/2) for sinusoidal AM."""
    x = am_noise(
        keys(800),
        rate_hz=rate,
        depth_db=-6.0,
        level_db_spl=60.0,
        duration_s=0.5,
        centre_hz=2000.0,
        bandwidth_hz=width,
        band_limit=band_limit,
        fs=8000,
        dtype=F64,
    )
    spectrum = np.abs(np.fft.rfft((x**2).mean(0).numpy()))
    return float(2 * spectrum[round(rate / 2)] / spectrum[0])


def test_the_modulation_survives_band_limiting_as_documented() -> None:
    m = 10 ** (-6 / 20)
    full = 2 * m / (1 + m**2 / 2)
    assert mean_envelope_depth("before", 50.0, 400.0) == pytest.approx(full, abs=0.03)
    assert mean_envelope_depth("after", 50.0, 400.0) == pytest.approx(full * (1 - 50 / 400), abs=0.05)
    # a rate above the bandwidth: nothing is left of it in the band
    assert mean_envelope_depth("both", 60.0, 40.0) < 0.05
    assert mean_envelope_depth("before", 60.0, 40.0) == pytest.approx(full, abs=0.06)


@pytest.mark.parametrize("band_limit", ["before", "after", "both"])
@pytest.mark.parametrize("compensate", [False, True])
def test_token_level(band_limit: str, compensate: bool) -> None:
    arguments = {
        "rate_hz": 16.0,
        "level_db_spl": 63.0,
        "duration_s": 0.5,
        "ramp_s": 0.05,
        "low_hz": 1000.0,
        "high_hz": 1400.0,
        "band_limit": band_limit,
        "compensate_level": compensate,
        "normalise": "token",
        "fs": 16000,
        "dtype": F64,
    }
    x = am_noise(keys(3), depth_db=-3.0 if compensate else NO_DEPTH, **arguments)
    steady = x[:, 800:-800]
    torch.testing.assert_close(level(steady), torch.full((3,), 63.0, dtype=F64), rtol=0, atol=1e-9)


def test_gated_modulation() -> None:
    """Modulation in the central 0.5 s of a 0.8-s carrier, with a full Hann gate of its own."""
    x = am_tone(
        carrier_hz=1600.0,
        rate_hz=20.0,
        depth_db=0.0,
        level_db_spl=60.0,
        duration_s=0.8,
        modulation_delay_s=0.15,
        modulation_duration_s=0.5,
        modulation_ramp_s=0.25,
        fs=16000,
        dtype=F64,
    )[0]
    carrier = am_tone(
        carrier_hz=1600.0, rate_hz=20.0, depth_db=NO_DEPTH, level_db_spl=60.0, duration_s=0.8, fs=16000, dtype=F64
    )[0]
    assert torch.equal(x[:2400], carrier[:2400])
    assert torch.equal(x[-2400:], carrier[-2400:])
    t = torch.arange(8000, dtype=F64) / 16000
    k = torch.arange(4000, dtype=F64)
    rise = 0.5 * (1 - torch.cos(math.pi * k / 4000))
    window = torch.cat([rise, rise.flip(0)])
    expected = carrier[2400:-2400] * (1 + window * torch.sin(2 * math.pi * 20 * t))
    torch.testing.assert_close(x[2400:-2400], expected, rtol=0, atol=1e-14)


def test_delayed_modulation_lasts_to_the_end() -> None:
    x = am_tone(
        carrier_hz=1600.0,
        rate_hz=10.0,
        depth_db=0.0,
        level_db_spl=60.0,
        duration_s=0.4,
        modulation_delay_s=0.1,
        fs=16000,
    )
    carrier = am_tone(carrier_hz=1600.0, rate_hz=10.0, depth_db=NO_DEPTH, level_db_spl=60.0, duration_s=0.4, fs=16000)
    assert torch.equal(x[:, :1600], carrier[:, :1600])
    assert float(x[:, 1600:].abs().max()) > 1.9 * float(carrier.abs().max())


def test_rows_with_the_same_modulator_and_others() -> None:
    """Rows that share a modulator are computed together: the result must be what each row alone gives."""
    rates = torch.tensor([4.0, 8.0, 4.0, 16.0, 8.0], dtype=F64)
    depth = torch.tensor([0.0, -3.0, NO_DEPTH, -6.0, -9.0], dtype=F64)
    k = keys(5)
    x = am_noise(k, rate_hz=rates, depth_db=depth, level_db_spl=60.0, fs=16000)
    for i in range(5):
        assert torch.equal(
            x[i : i + 1], am_noise(k[i], rate_hz=rates[i], depth_db=depth[i], level_db_spl=60.0, fs=16000)
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth_db": 3.0}, "depth_db = 3 dB is out of range: it must be at most 0 dB"),
        ({"depth_db": math.nan}, "depth_db = nan dB"),
        ({"rate_hz": 0.0}, "rate_hz = 0 Hz is out of range: it must be above 0 Hz"),
        ({"rate_hz": -4.0}, "rate_hz = -4 Hz"),
        ({"carrier_hz": 7999.0, "rate_hz": 16.0}, r"carrier_hz \+ rate_hz = 8015 Hz is out of range"),
        ({"level_db_spl": math.inf}, "level_db_spl = inf dB SPL is out of range"),
        ({"normalise": "peak"}, "normalise = 'peak' is not known"),
        ({"ramp_s": 0.4}, "ramp_s is too long"),
        ({"modulation_delay_s": -0.1}, "modulation_delay_s = -0.1 s"),
        ({"modulation_duration_s": 0.1, "modulation_ramp_s": 0.2}, "ramp_s is too long"),
        ({"duration_s": math.inf}, "duration_s = inf s"),
    ],
)
def test_tone_errors(change, message: str) -> None:
    arguments = {"carrier_hz": 2000.0, "rate_hz": 16.0, "depth_db": -3.0, "level_db_spl": 60.0, "fs": 16000, **change}
    with pytest.raises(SpecError, match=message):
        am_tone(**arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"band_limit": "during"}, "band_limit = 'during' is not known. Allowed: 'before', 'after', 'both'"),
        ({"low_hz": 9000.0}, "is not usable"),
        ({"bandwidth_hz": 10.0}, "go together"),
        ({"depth_db": 0.1}, "depth_db = 0.1 dB"),
    ],
)
def test_noise_errors(change, message: str) -> None:
    arguments = {"rate_hz": 16.0, "level_db_spl": 60.0, "fs": 16000, **change}
    with pytest.raises(SpecError, match=message):
        am_noise(keys(1), **arguments)


@pytest.mark.parametrize("kind", ["am_tone", "am_noise"])
def test_a_random_modulator_phase_is_another_one_in_every_row_and_nothing_else_changes(kind: str) -> None:
    about = {"rate_hz": 10.0, "duration_s": 0.5, "ramp_s": 0.0, "depth_db": 0.0}
    generate = registry.get(kind)().generate
    fixed, random = (generate({**about, "modulator_phase_random": on}, keys(4), FS, F64) for on in (False, True))
    unmodulated = generate({**about, "depth_db": -math.inf, "modulator_phase_random": True}, keys(4), FS, F64)
    assert torch.equal(unmodulated, generate({**about, "depth_db": -math.inf}, keys(4), FS, F64))
    time = torch.arange(round(0.5 * FS), dtype=F64) / FS
    carrier = torch.exp(-2j * math.pi * 10.0 * time)
    # the factor 1 + sin(2 pi 10 t + phase), times the same constant
    factors = [torch.where(unmodulated.abs() > 1e-6, x / unmodulated, 1.0) for x in (fixed, random)]
    turns = [torch.angle(((f - f.mean(-1, keepdim=True)) * carrier).sum(-1)) for f in factors]
    assert float(turns[0].std()) < 0.1
    assert float(turns[1].std()) > 0.5
