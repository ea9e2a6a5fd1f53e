from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal, stats

from psysim.errors import SpecError
from psysim.rng import Keys, Purpose, normal
from psysim.stimuli import gate, noise, notched_noise
from psysim.units import gammatone_bandwidth_hz, pascal_to_db_spl

F64 = torch.float64


def keys(rows: int, seed: int = 1) -> Keys:
    return Keys.make(seed=seed, trial=torch.arange(rows))


def level(x: torch.Tensor) -> torch.Tensor:
    return pascal_to_db_spl((x**2).mean(-1).sqrt())


def power(x: torch.Tensor) -> np.ndarray:
    return np.abs(np.fft.rfft(x.numpy())) ** 2


def test_broadband_noise_is_the_normal_stream() -> None:
    k = keys(3)
    x = noise(k, level_db_spl=60.0, duration_s=0.1, fs=16000, dtype=F64)
    torch.testing.assert_close(x, 0.02 * normal(k, Purpose.CARRIER, 1600), rtol=1e-14, atol=0)


def test_three_lines_of_a_3_hz_band() -> None:
    x = noise(keys(4), level_db_spl=60.0, centre_hz=5000.0, bandwidth_hz=3.0, duration_s=1.0, fs=44100, dtype=F64)
    p = power(x)
    assert [np.flatnonzero(row > 1e-20 * row.max()).tolist() for row in p] == [[4999, 5000, 5001]] * 4


@pytest.mark.parametrize(
    ("band", "first", "last"),
    [
        ({"low_hz": 1000.0, "high_hz": 2000.0}, 500, 999),  # lines 2 Hz apart; the upper edge is excluded
        ({"centre_hz": 1500.0, "bandwidth_hz": 100.0}, 725, 774),
        ({"low_hz": 7000.0}, 3500, 3999),  # to fs/2, without fs/2
        ({"high_hz": 100.0}, 1, 49),  # without 0 Hz
        ({"low_hz": 999.5, "high_hz": 2000.5}, 500, 1000),
    ],
)
def test_band_edges_are_exact(band, first: int, last: int) -> None:
    x = noise(keys(400), level_db_spl=60.0, duration_s=0.5, fs=16000, dtype=F64, **band)
    p = power(x)
    inside = p[:, first : last + 1]
    outside = np.delete(p, np.s_[first : last + 1], axis=1)
    assert outside.max() < 1e-24 * inside.mean()
    # flat: line powers are exponential; the mean of 400 tokens has a standard error of 5 %
    assert np.abs(inside.mean(0) / inside.mean() - 1).max() < 5 * 0.05
    assert stats.kstest(inside.ravel() / inside.mean(), "expon").pvalue > 1e-3


def test_lines_are_as_fine_as_asked() -> None:
    """A period longer than the token: no longer periodic, and lines 1/4 Hz apart."""
    arguments = {"level_db_spl": 60.0, "centre_hz": 1000.0, "bandwidth_hz": 4.0, "fs": 8000, "dtype": F64}
    cut = noise(keys(2), duration_s=1.0, min_period_s=4.0, **arguments)
    whole = noise(keys(2), duration_s=4.0, **arguments)
    assert torch.equal(cut, whole[:, :8000])
    p = power(whole)
    assert np.flatnonzero(p[0] > 1e-20 * p.max()).tolist() == list(range(3992, 4008))


def test_awkward_durations_are_cut_from_a_fast_period() -> None:
    n = 4409  # prime
    x = noise(keys(1), level_db_spl=60.0, high_hz=4000.0, duration_s=n / 44100, fs=44100, dtype=F64)
    y = noise(keys(1), level_db_spl=60.0, high_hz=4000.0, duration_s=4410 / 44100, fs=44100, dtype=F64)
    assert torch.equal(x, y[:, :n])


@pytest.mark.parametrize(
    "band", [{}, {"centre_hz": 1000.0, "bandwidth_hz": 20.0}, {"low_hz": 100.0, "high_hz": 5000.0}]
)
def test_expected_level_holds_on_average(band) -> None:
    x = noise(keys(3000), level_db_spl=65.0, duration_s=0.1, fs=16000, dtype=F64, **band)
    p = (x**2).mean(-1) / (20e-6 * 10 ** (65 / 20)) ** 2
    assert float(p.mean()) == pytest.approx(1.0, abs=4.5 * float(p.std()) / math.sqrt(len(p)))


@given(
    st.floats(-10, 110), st.floats(100, 6000), st.floats(0.05, 0.3), st.sampled_from(["white", "pink", "equal_per_erb"])
)
@settings(max_examples=25, deadline=None)
def test_token_level_is_exact_in_the_steady_part(db: float, width: float, duration: float, spectrum: str) -> None:
    x = noise(
        keys(2),
        level_db_spl=db,
        low_hz=500.0,
        high_hz=500.0 + width,
        spectrum=spectrum,
        normalise="token",
        duration_s=duration,
        ramp_s=0.02,
        fs=16000,
        dtype=F64,
    )
    steady = x[:, 320:-320]
    torch.testing.assert_close(level(steady), torch.tensor([db, db], dtype=F64), rtol=0, atol=1e-9)


def test_token_level_without_steady_part_uses_the_whole_sound() -> None:
    window = noise(keys(1), level_db_spl=60.0, normalise="token", duration_s=0.1, ramp_s=0.05, fs=16000, dtype=F64)
    plain = noise(keys(1), level_db_spl=60.0, normalise="token", duration_s=0.1, fs=16000, dtype=F64)
    assert float(level(plain)) == pytest.approx(60.0, abs=1e-9)
    gated = plain * gate(torch.tensor([1600]), torch.tensor([800]))  # the same token, only gated
    torch.testing.assert_close(window, gated, rtol=1e-14, atol=0)


def test_spectrum_level() -> None:
    band = {"low_hz": 1000.0, "high_hz": 3000.0, "duration_s": 0.1, "fs": 16000, "dtype": F64}
    a = noise(keys(2), spectrum_level_db_spl=30.0, **band)
    b = noise(keys(2), level_db_spl=30.0 + 10 * math.log10(2000), **band)
    torch.testing.assert_close(a, b, rtol=1e-13, atol=0)
    c = noise(keys(2), spectrum_level_db_spl=30.0, duration_s=0.1, fs=16000, dtype=F64)
    d = noise(keys(2), level_db_spl=30.0 + 10 * math.log10(8000), duration_s=0.1, fs=16000, dtype=F64)
    torch.testing.assert_close(c, d, rtol=1e-13, atol=0)


@pytest.mark.parametrize(
    ("spectrum", "density"), [("pink", lambda f: 1 / f), ("equal_per_erb", lambda f: 1 / gammatone_bandwidth_hz(f))]
)
def test_spectral_shapes(spectrum: str, density) -> None:
    x = noise(
        keys(600),
        level_db_spl=60.0,
        low_hz=200.0,
        high_hz=7000.0,
        spectrum=spectrum,
        duration_s=0.1,
        fs=16000,
        dtype=F64,
    )
    p = power(x)[:, 20:700].mean(0)
    expected = density(10.0 * np.arange(20, 700))
    ratio = p / expected
    ratio /= ratio.mean()
    assert np.abs(ratio - 1).max() < 5 / math.sqrt(600)
    edges = [20, 100, 300, 700]  # and no drift over broad bands
    for a, b in pairwise(edges):
        assert ratio[a - 20 : b - 20].mean() == pytest.approx(1, abs=4.5 / math.sqrt(600 * (b - a)))


def fourth_moment(x: torch.Tensor) -> torch.Tensor:
    return (x**4).mean(-1) / (x**2).mean(-1) ** 2


def test_low_noise_noise() -> None:
    arguments = {"level_db_spl": 60.0, "centre_hz": 1000.0, "bandwidth_hz": 100.0, "duration_s": 1.0, "fs": 16000}
    gaussian = noise(keys(30), dtype=F64, **arguments)
    steps = [noise(keys(30), dtype=F64, statistics="low_noise", n_iterations=n, **arguments) for n in (0, 1, 10, 50)]
    # Gaussian noise has 3, a sinusoid 1.5; ten iterations come within 0.06 of it
    assert float(fourth_moment(gaussian).mean()) == pytest.approx(3.0, abs=0.2)
    moments = [float(fourth_moment(x).mean()) for x in steps]
    assert moments == sorted(moments, reverse=True)
    assert moments[2] < 1.57
    crest = [float((x.abs().amax(-1) / (x**2).mean(-1).sqrt()).mean()) for x in (gaussian, steps[2])]
    assert crest[0] > 3.0
    assert crest[1] < 1.75
    # envelope fluctuation (standard deviation over mean) falls from Rayleigh's 0.523
    spread = [np.abs(signal.hilbert(x.numpy())) for x in (gaussian, steps[2])]
    assert (spread[0].std(-1) / spread[0].mean(-1)).mean() == pytest.approx(0.523, abs=0.05)
    assert (spread[1].std(-1) / spread[1].mean(-1)).mean() < 0.13
    # the band stays exact, the level is that of each token's period
    p = power(steps[2])
    assert np.delete(p, np.s_[950:1050], axis=1).max() < 1e-24 * p.max()
    torch.testing.assert_close(level(steps[2]), torch.full((30,), 60.0, dtype=F64), rtol=0, atol=1e-9)
    # no iteration: the Gaussian token, scaled
    ratio = steps[0] / gaussian
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio), rtol=1e-9, atol=0)


def test_rows_of_different_bands_and_durations() -> None:
    x = noise(
        keys(3),
        level_db_spl=[60.0, 70.0, -math.inf],
        centre_hz=[500.0, 2000.0, 3000.0],
        bandwidth_hz=[100.0, 1000.0, 10.0],
        duration_s=[0.1, 0.2, 0.3],
        fs=16000,
        dtype=F64,
    )
    assert x.shape == (3, 4800)
    assert not x[0, 1600:].any()
    assert not x[1, 3200:].any()
    assert not x[2].any()
    p = power(x[1, :3200])
    assert np.delete(p, np.s_[300:500]).max() < 1e-24 * p.max()


def test_different_purposes_are_independent() -> None:
    a, b = (
        noise(keys(20), level_db_spl=60.0, high_hz=4000.0, fs=16000, purpose=p, dtype=F64)
        for p in (Purpose.CARRIER, Purpose.MASKER)
    )
    r = (a * b).mean(-1) / ((a**2).mean(-1) * (b**2).mean(-1)).sqrt()
    assert float(r.abs().max()) < 4.5 / math.sqrt(4000)


def test_notched_noise() -> None:
    x = notched_noise(
        keys(300),
        centre_hz=1000.0,
        notch_lower_relative=0.2,
        notch_upper_relative=0.3,
        spectrum_level_db_spl=40.0,
        duration_s=0.5,
        fs=16000,
        dtype=F64,
    )
    p = power(x).mean(0)
    lower, upper = np.s_[200:400], np.s_[650:850]
    outside = np.ones_like(p, dtype=bool)
    outside[lower] = outside[upper] = False
    assert p[outside].max() < 1e-24 * p.max()
    density = 2 * p / (8000**2) / 2.0  # mean square per Hz of a one-sided spectrum, lines 2 Hz apart
    expected = (20e-6 * 10 ** (40 / 20)) ** 2
    for band in (lower, upper):
        assert density[band].mean() / expected == pytest.approx(1.0, abs=4.5 / math.sqrt(300 * 200))
    # the bands are independent of each other
    y = np.fft.rfft(x.numpy())
    r = (y[:, lower] * y[:, upper].conj()).mean() / np.sqrt(p[lower].mean() * p[upper].mean())
    assert abs(r) < 4.5 / math.sqrt(300 * 200)


def test_notched_noise_is_cut_at_zero() -> None:
    x = notched_noise(
        keys(1),
        centre_hz=200.0,
        notch_lower_relative=0.5,
        notch_upper_relative=0.5,
        band_width_relative=2.0,
        spectrum_level_db_spl=40.0,
        fs=8000,
    )
    assert bool(torch.isfinite(x).all())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"level_db_spl": None}, "exactly one of level_db_spl"),
        ({"spectrum_level_db_spl": 20.0}, "exactly one of level_db_spl"),
        ({"low_hz": 100.0, "centre_hz": 50.0, "bandwidth_hz": 20.0}, "either as low_hz and high_hz or as centre_hz"),
        ({"centre_hz": 100.0}, "centre_hz and bandwidth_hz go together"),
        ({"low_hz": 2000.0, "high_hz": 1000.0}, r"The band 2000 to 1000 Hz is not usable \(row 0\)"),
        ({"low_hz": 100.0, "high_hz": 9000.0}, "between 0 and fs/2 = 8000 Hz"),
        ({"centre_hz": 10.0, "bandwidth_hz": 40.0}, "The band -10 to 30 Hz is not usable"),
        ({"centre_hz": 1001.0, "bandwidth_hz": 0.5}, "holds no line of the frequency grid, which is 2 Hz apart"),
        ({"normalise": "rms"}, "normalise = 'rms' is not known. Allowed: 'expected', 'token'"),
        ({"spectrum": "brown", "high_hz": 1000.0}, "spectrum = 'brown' is not known"),
        ({"statistics": "laplace"}, "statistics = 'laplace' is not known"),
        ({"n_iterations": -1}, "n_iterations = -1 is out of range"),
        ({"level_db_spl": None, "spectrum_level_db_spl": 20.0, "spectrum": "pink"}, "needs spectrum = 'white'"),
        ({"level_db_spl": -math.inf, "normalise": "token", "min_period_s": -1.0}, "min_period_s = -1 s"),
    ],
)
def test_errors(change, message: str) -> None:
    arguments = {"level_db_spl": 60.0, "duration_s": 0.5, "fs": 16000, **change}
    with pytest.raises(SpecError, match=message):
        noise(keys(1), **arguments)


def test_keys_of_the_wrong_shape() -> None:
    with pytest.raises(SpecError, match=r"keys must have the batch shape \(B,\) or \(\), but theirs is \(2, 1\)"):
        noise(keys(2).unsqueeze(-1), level_db_spl=60.0, fs=16000)
    with pytest.raises(SpecError, match=r"lengths differ: level_db_spl \(3\), keys \(2\)"):
        noise(keys(2), level_db_spl=[60.0, 61.0, 62.0], fs=16000)
