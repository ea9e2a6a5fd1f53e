"""Stages of the auditory-nerve models, where test_all_stages.py and the golden vectors leave something open."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import lfilter, resample_poly
from scipy.stats import binom

from psysim.errors import SpecError
from psysim.rng import Keys
from psysim.stages import (
    AudioFIR,
    BandLimitedResampler,
    GammatoneFIRFilterbank,
    HalfCosineFilterbank,
    KneeCompression,
    PhaseLockingFilter,
    RateLevelFunction,
    SlaneyFIRFilterbank,
    SpikeGenerator,
    crop_activity,
)
from psysim.stages import nerve_lowpass as lowpass_module
from psysim.stages._binomial import binomial_cpu, binomial_torch
from psysim.stages.fir import banded_matrix, by_blocks, fft_length, folded, significant


@pytest.mark.parametrize("kind", [GammatoneFIRFilterbank, SlaneyFIRFilterbank])
@pytest.mark.parametrize("samples", [1, 7, 500, 1001])
def test_banks_are_causal_convolutions(kind: type, samples: int) -> None:
    bank = kind([100.0, 900.0], 8000.0, dtype=torch.float64)
    x = np.random.default_rng(1).standard_normal(samples)
    expected = np.stack([np.convolve(x, h)[:samples] for h in bank.taps.numpy()])
    assert np.abs(bank(torch.from_numpy(x)).numpy() - expected).max() < 1e-12 * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("kind", [GammatoneFIRFilterbank, SlaneyFIRFilterbank])
def test_gain_at_the_centre_is_one(kind: type) -> None:
    fc = torch.tensor([500.0, 1000.0, 4000.0], dtype=torch.float64)
    taps = kind(fc, 20e3).taps
    t = torch.arange(taps.shape[1]) / 20e3
    gain = (taps * torch.exp(-2j * math.pi * fc[:, None] * t)).sum(-1).abs()
    torch.testing.assert_close(gain, torch.ones_like(fc), rtol=1e-3, atol=0.0)


def test_broader_tuning() -> None:
    plain, wide = (SlaneyFIRFilterbank([1000.0], 20e3, bw_mult=m) for m in (1.0, 2.0))
    assert float(wide.bandwidth_hz / plain.bandwidth_hz) == pytest.approx(2.0)
    assert float(plain.bandwidth_hz) == pytest.approx(1.019 * (1000.0 / 9.2644 + 24.7))


@pytest.mark.parametrize("stride", [1, 2, 3, 5])
@pytest.mark.parametrize("n_fft", [30, 60, 120])
def test_folding_a_spectrum_decimates(stride: int, n_fft: int) -> None:
    n = n_fft * 3 if n_fft % stride else n_fft
    x = torch.from_numpy(np.random.default_rng(2).standard_normal(n))
    y = torch.fft.irfft(folded(torch.fft.rfft(x), stride, n), n // stride)
    torch.testing.assert_close(y, x[::stride], rtol=1e-12, atol=1e-12)


@given(n_taps=st.integers(1, 90), samples=st.integers(1, 300), stride=st.integers(1, 5), seed=st.integers(0, 1000))
def test_blocks_equal_the_convolution(n_taps: int, samples: int, stride: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    taps, x = rng.standard_normal(n_taps), rng.standard_normal((2, samples))
    matrix = banded_matrix(torch.from_numpy(taps), stride)
    y = by_blocks(torch.from_numpy(x), matrix, -(-samples // stride)).numpy()
    np.testing.assert_allclose(y, lfilter(taps, [1.0], x)[:, ::stride], atol=1e-11)


@given(n=st.integers(1, 100_000), multiple=st.integers(1, 7))
def test_lengths_of_transforms(n: int, multiple: int) -> None:
    found = fft_length(n, multiple)
    assert n <= found <= 1.35 * n + 4 * multiple
    assert found % 2 == 0
    assert found % multiple == 0


def test_what_does_not_count_is_left_out() -> None:
    taps = 0.5 ** torch.arange(200, dtype=torch.float64)
    counts = [significant(taps, dtype) for dtype in (torch.float32, torch.float64)]
    assert counts == [27, 56]
    assert significant(torch.ones(5), torch.float32) == 5


@pytest.mark.parametrize("variant", ["published", "corrected"])
@pytest.mark.parametrize("cutoff", [50.0, 1000.0])
@pytest.mark.parametrize("stride", [1, 2, 5])
@pytest.mark.parametrize("samples", [1, 2, 333, 1000])
def test_lowpass_is_the_convolution(
    variant: str, cutoff: float, stride: int, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By FFT and as matrix product."""
    x = np.abs(np.random.default_rng(3).standard_normal((2, samples)))
    for limit in (0, 10**6):
        monkeypatch.setattr(lowpass_module, "MATRIX_TAPS", limit)
        stage = PhaseLockingFilter(10e3, 10e3 / stride, cutoff, variant=variant, dtype=torch.float64)
        expected = lfilter(stage.taps.numpy(), [1.0], x)[:, ::stride]
        y = stage(torch.from_numpy(x)).numpy()
        assert y.shape == expected.shape
        assert np.abs(y - expected).max() < 1e-13 * max(1.0, np.abs(x).max())


def test_the_published_recursion_sample_by_sample() -> None:
    fs, fc, order = 20e3, 3000.0, 7
    c1 = (fs - 2 * math.pi * fc) / (fs + 2 * math.pi * fc)
    c2 = math.pi * fc / (fs + 2 * math.pi * fc)
    state = [c2**k for k in range(order + 1)]
    h = [state[order]]
    for _ in range(1000):
        state[0] = 0.0
        for k in range(1, order + 1):
            state[k] = c1 * state[k] + 2.0 * c2 * state[k - 1]
        h.append(state[order])
    windowed = np.array(h) * np.hanning(1001)
    taps = PhaseLockingFilter(fs, 10e3, fc).taps.numpy()
    np.testing.assert_allclose(taps, windowed / windowed.sum(), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("fs", [16e3, 20e3, 44.1e3, 50e3, 100e3])
@pytest.mark.parametrize("cutoff", [50.0, 320.0, 1000.0, 3000.0])
def test_the_corrected_limit_is_the_nominal_one_at_any_rate(fs: float, cutoff: float) -> None:
    stage = PhaseLockingFilter(fs, fs, cutoff, variant="corrected")
    assert stage.cutoff_3db_hz == pytest.approx(cutoff, rel=1e-6)
    # At other frequencies the gain is that of seven equal first-order lowpasses
    h = np.abs(np.fft.rfft(stage.taps.numpy(), 4 * len(stage.taps)))
    f = np.arange(len(h)) * fs / (4 * len(stage.taps))
    k = np.tan(math.pi * cutoff / fs) / math.sqrt(10 ** (0.3 / 7) - 1)
    with np.errstate(over="ignore"):
        expected = (1.0 + (np.tan(math.pi * f / fs) / k) ** 2) ** -3.5
    np.testing.assert_allclose(h, expected, atol=1e-8)


def test_a_filter_without_a_limit() -> None:
    assert PhaseLockingFilter(20e3, 10e3, taps=[1.0]).cutoff_3db_hz == math.inf


def test_a_changed_constant_changes_the_filter() -> None:
    """What is kept from one call to the next follows the constants."""
    stage, x = PhaseLockingFilter(8e3, 8e3, 500.0), torch.linspace(0.0, 1.0, 400).reshape(2, 200)
    before = stage(x)
    stage.cutoff_hz.fill_(1000.0)
    assert torch.equal(stage(x), PhaseLockingFilter(8e3, 8e3, 1000.0)(x))
    assert not torch.equal(stage(x), before)
    with torch.inference_mode():
        assert torch.equal(PhaseLockingFilter(8e3, 8e3, 500.0)(x), before)
        inside = stage(x)
    assert torch.equal(inside, stage(x))


def test_knees() -> None:
    x = torch.tensor([[1e-6, 1e-3, 1e-2, 0.5, 2.0]], dtype=torch.float64)
    y = KneeCompression(0.4, 40.0, 93.9794, dtype=torch.float64)(torch.cat([x, -x]))
    m = 20e-6 * 10.0 ** (40.0 / 20.0)
    expected = np.array([1e-6 * m**-0.6, m * m**-0.6 * 0.5, 1e-2**0.4, 0.5**0.4, 2.0])
    expected[1] = 1e-3 * m**-0.6 if m > 1e-3 else 1e-3**0.4
    np.testing.assert_allclose(y[0].numpy(), expected, rtol=1e-12)
    assert torch.equal(y[1], -y[0])
    no_knees = KneeCompression(0.4, dtype=torch.float64)(x)
    torch.testing.assert_close(no_knees, x**0.4)
    with pytest.raises(SpecError, match="2 channels"):
        KneeCompression([0.1, 0.2, 0.3])(torch.zeros(2, 10))


@pytest.mark.parametrize("envelope_mode", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_rates_have_finite_gradients_at_and_near_silence(envelope_mode: bool, dtype: torch.dtype) -> None:
    stage = RateLevelFunction([0.0, 12.0], [80.0, 0.0], envelope_mode=envelope_mode, dtype=dtype)
    tiny = torch.finfo(dtype).tiny
    for x in (torch.zeros(2, 9), torch.full((2, 9), tiny), torch.tensor([[0.0, 1e-20, 1e-10, 1.0] * 2])):
        x = x.to(dtype).requires_grad_()
        rates = stage(x)
        assert rates.isfinite().all()
        (gradient,) = torch.autograd.grad(rates.sum(), x)
        assert gradient.isfinite().all()
        if not x.any():
            assert not gradient.any()
            assert not rates.any()


def test_a_dynamic_range_of_nothing_is_a_step() -> None:
    stage = RateLevelFunction(60.0, 0.0, envelope_mode=False, dtype=torch.float64)
    levels = torch.tensor([[59.999, 60.0, 60.001]], dtype=torch.float64)
    rates = stage(20e-6 * 10.0 ** (levels / 20.0))[0, 0]
    assert rates.tolist() == pytest.approx([0.0, 125.0, 250.0], abs=130.0)
    assert (rates[0], rates[2]) == (0.0, 250.0)


def test_values_for_other_channels_are_refused() -> None:
    with pytest.raises(SpecError, match="4 channels, but there are values for 3"):
        RateLevelFunction([[1.0, 2.0, 3.0]])(torch.zeros(4, 10))


@given(n=st.integers(1, 1000), p=st.floats(0.0, 1.0), seed=st.integers(0, 100))
def test_binomial_numbers_invert_the_distribution(n: int, p: float, seed: int) -> None:
    """Each count is the quantile of its uniform number, of the rarer outcome; torch gives the same."""
    words = torch.from_numpy(np.random.default_rng(seed).integers(0, 2**32, 64))
    probability = torch.full((32,), p, dtype=torch.float64)
    counts = torch.empty_like(probability)
    binomial_cpu(words.numpy(), probability.numpy(), n, counts.numpy())
    assert torch.equal(binomial_torch(words, probability, n), counts)
    pairs = words.reshape(32, 2).numpy()
    u = ((pairs[:, 0] >> 5) * 2.0**26 + (pairs[:, 1] >> 6) + 0.5) / 2.0**53
    q = 1.0 - p if p > 0.5 else p
    rare = (n - counts if p > 0.5 else counts).numpy()
    upper, lower = binom.cdf(rare, n, q), binom.cdf(rare - 1, n, q)
    assert ((upper > u - 1e-10) & (lower <= u + 1e-10)).all()
    assert ((counts >= 0) & (counts <= n)).all()


def test_certain_and_impossible_spikes() -> None:
    keys = Keys.make(seed=1)
    generator = SpikeGenerator(1e3, [100], "exact")
    rates = torch.tensor([[[0.0, 1e3, 2e3, -5.0, math.nan]]])
    counts = generator(rates, keys)[0, 0]
    assert counts[:4].tolist() == [0.0, 100.0, 100.0, 0.0]
    assert counts[4].isnan()
    approx = SpikeGenerator(1e3, [100], "approx")(rates, keys)[0, 0]
    assert approx[:4].tolist() == [0.0, 100.0, 100.0, 0.0]
    assert approx[4].isnan()


def test_spikes_refuse_what_does_not_fit() -> None:
    generator = SpikeGenerator(1e4, [3, 4])
    with pytest.raises(SpecError, match="3 groups"):
        generator(torch.zeros(1, 3, 2, 5), Keys.make(seed=1, trial=[0]))
    with pytest.raises(SpecError, match="one per row"):
        generator(torch.zeros(2, 2, 2, 5), Keys.make(seed=1, trial=[0]))
    with pytest.raises(SpecError, match="Did you mean 'exact'"):
        SpikeGenerator(1e4, [3], mode="exct")


def test_crops_are_spread_over_all_places() -> None:
    activity = torch.arange(6.0).reshape(1, 1, 1, 6).expand(600, 1, 1, 6)
    keys = Keys.make(seed=2, trial=torch.arange(600))
    starts = crop_activity(activity, (0, 1), (1, 2), keys)[:, 0, 0, 0]
    counts = torch.bincount(starts.long(), minlength=4)
    assert counts.tolist()[0] == 0
    assert (counts[1:] > 150).all()


@pytest.mark.parametrize("samples", [1, 2, 101, 800])
def test_half_cosine_filters_keep_the_power(samples: int) -> None:
    bank = HalfCosineFilterbank(20e3, 20.0, 10e3, 7, dtype=torch.float64)
    h = bank.transfer(samples)
    torch.testing.assert_close(h.square().sum(0), torch.ones(samples // 2 + 1, dtype=torch.float64))
    assert 1.0 - 1e-12 <= float(h.sum(0).min()) <= float(h.sum(0).max()) <= math.sqrt(2.0) + 1e-12
    assert bank(torch.ones(samples, dtype=torch.float64)).shape == (7, samples)
    one = HalfCosineFilterbank(20e3, 500.0, 500.0, 1, scale="erb", dtype=torch.float64)
    x = torch.from_numpy(np.random.default_rng(1).standard_normal(samples))
    torch.testing.assert_close(one(x)[0], x)


def test_audio_fir_starts_from_its_seed() -> None:
    first, again, other = (AudioFIR(20e3, seed=s) for s in (1, 1, 2))
    assert torch.equal(first.taps, again.taps)
    assert not torch.equal(first.taps, other.taps)
    assert first.taps.shape == (200,)
    assert float(first.taps.detach().abs().max()) <= 200**-0.5
    assert len(list(first.parameters())) == 1
    with pytest.raises(SpecError, match="finite numbers"):
        AudioFIR(20e3, taps=[math.nan])


@pytest.mark.parametrize(("fs", "fs_out"), [(44100.0, 20e3), (48e3, 50e3), (16e3, 20e3)])
def test_resampling_is_flat_and_does_not_alias(fs: float, fs_out: float) -> None:
    stage = BandLimitedResampler(fs, fs_out, dtype=torch.float64)
    n = 4410
    half = min(fs, fs_out) / 2
    for hz, gain in ((0.05 * half, 1.0), (0.5 * half, 1.0), (0.9 * half, 1.0), (1.02 * half, 0.0)):
        if hz >= fs / 2:
            continue
        x = torch.cos(2.0 * math.pi * hz * torch.arange(n, dtype=torch.float64) / fs)
        y = stage(x)
        assert len(y) == math.ceil(n * fs_out / fs)
        middle = slice(len(y) // 3, 2 * len(y) // 3)
        t = torch.arange(len(y), dtype=torch.float64)[middle] / fs_out
        torch.testing.assert_close(y[middle], gain * torch.cos(2.0 * math.pi * hz * t), rtol=0.0, atol=1e-6)
    assert torch.equal(BandLimitedResampler(fs, fs, dtype=torch.float64)(x), x)
    x = torch.from_numpy(np.random.default_rng(1).standard_normal(500))
    expected = resample_poly(x.numpy(), stage.up, stage.down, window=stage.taps.numpy() / stage.up)
    np.testing.assert_allclose(stage(x).numpy(), expected, atol=1e-12)
