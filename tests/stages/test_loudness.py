"""Stages of the loudness models one by one: shapes, formulas by hand, options, and what a batch promises."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from psysim import stages
from psysim.errors import SpecError
from psysim.stages import (
    ERBIntegration,
    ExcitationPattern,
    LoudnessEarFilter,
    LoudnessIntegration,
    LoudnessResampler,
    MultiResolutionFFT,
    SpecificLoudness,
)
from psysim.units import P_REF, erb_hz_glasberg1990_program

F64 = torch.float64
DTYPES = [torch.float32, torch.float64]


def noise(*shape: int, size: float = 0.02, dtype: torch.dtype = F64) -> Tensor:
    return size * torch.randn(shape, generator=torch.Generator().manual_seed(5), dtype=F64).to(dtype)


def components(level_db: float, *bins: int) -> Tensor:
    """Return a density (1, 1, 1025) of components at some bins."""
    psd = torch.zeros(1, 1, 1025, dtype=F64)
    psd[..., list(bins)] = P_REF**2 * 10.0 ** (level_db / 10.0) / 15.625
    return psd


@pytest.mark.parametrize(
    ("name", "documented"),
    [
        ("MultiResolutionFFT", ["fs", "window_lengths", "hop_fraction", "learnable"]),
        ("ERBIntegration", ["fs", "f_min", "f_max", "erb_step", "learnable"]),
        ("ExcitationPattern", ["fs", "f_min", "f_max", "erb_step", "learnable"]),
        ("SpecificLoudness", ["fs", "f_min", "f_max", "erb_step", "learnable"]),
        ("LoudnessIntegration", ["fs", "learnable"]),
    ],
)
def test_documented_signatures(name: str, documented: list[str]) -> None:
    parameters = inspect.signature(getattr(stages, name)).parameters
    assert [n for n, p in parameters.items() if p.kind == p.POSITIONAL_OR_KEYWORD] == documented
    with pytest.raises(SpecError, match="32000 Hz"):
        getattr(stages, name)(fs=44100)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_chain_of_stages_treats_rows_alone(dtype: torch.dtype) -> None:
    fft, bands, pattern = (kind(dtype=dtype) for kind in (MultiResolutionFFT, ERBIntegration, ExcitationPattern))
    loudness, integration = SpecificLoudness(dtype=dtype), LoudnessIntegration(dtype=dtype)
    x = noise(5, 3200, dtype=dtype)

    def run(rows: Tensor) -> list[Tensor]:
        psd, freqs = fft(rows)
        levels = bands(psd, freqs)
        excitation = pattern(levels, psd)
        specific = loudness(excitation)
        return [psd, levels, excitation, specific, *integration(specific, return_stl=True)]

    together = run(x)
    shapes = [(5, 101, n) for n in (1025, 150, 150, 150)] + [(5, 101)] * 2
    assert [tuple(y.shape) for y in together] == shapes
    assert all(y.dtype == dtype and y.isfinite().all() for y in together)
    for part in ([3], [4, 0, 2]):
        assert all(torch.equal(a, b[part]) for a, b in zip(run(x[part]), together, strict=True))
    spoilt = x.clone()
    spoilt[1, 1600] = float("nan")
    others = [0, 2, 3, 4]
    for a, b in zip(run(spoilt), together, strict=True):
        assert torch.equal(a[others], b[others])
        assert a[1].isnan().any()


def test_power_of_a_tone_and_of_noise() -> None:
    """Without calibration the density of noise is its own; the sum over a tone's bins is its intensity."""
    fft = MultiResolutionFFT(dtype=F64, calibration_db=0.0)
    x = noise(1, 320000)
    psd, freqs = fft(x)
    expected = 2.0 * 0.02**2 / 32000.0
    for length, bins in zip(fft.window_lengths, fft.bin_ranges(), strict=True):
        # Standard error: 1 over the root of the number of independent frames and bins
        independent = 320000 / length * max(1.0, len(bins) * length / 2048 / 1.5)
        measured = psd[0, 40:-40, bins.start : bins.stop].mean().item()
        assert measured == pytest.approx(expected, rel=5.0 / math.sqrt(independent)), length
    for frequency in (250.0, 1000.0, 6000.0):
        tone = torch.sin(2.0 * math.pi * frequency * torch.arange(6400, dtype=F64) / 32000)[None]
        near = (freqs - frequency).abs() < 0.4 * frequency
        assert (fft(tone)[0][0, 100, near].sum() * 15.625).item() == pytest.approx(0.5, rel=0.01), frequency
    selection = fft.get_window_selection_map()
    assert [selection[k].item() for k in (0, 1, 5, 32, 80, 162, 259, 960, 961)] == [
        0,
        2048,
        1024,
        512,
        256,
        128,
        64,
        64,
        0,
    ]


def test_frames_are_centred() -> None:
    """A click at sample 1600 is strongest in frame 50, and the same as far before as after."""
    x = torch.zeros(1, 3201, dtype=F64)
    x[0, 1600] = 1.0
    power = MultiResolutionFFT(dtype=F64)(x)[0][0, :, 300]
    assert power.argmax() == 50
    assert MultiResolutionFFT(hop_fraction=0.25, dtype=F64).hop_length == 512


def test_level_per_erb() -> None:
    """A component counts in full in the channels whose ERB holds it, and nowhere else."""
    bands = ERBIntegration(dtype=F64)
    levels = bands(components(60.0, 64))[0, 0]  # 1000 Hz
    inside = levels > -100.0
    torch.testing.assert_close(levels[inside], torch.full_like(levels[inside], 60.0), rtol=0, atol=1e-9)
    edges = bands.fc_erb[inside][[0, -1]]
    assert (edges[1] - edges[0]).item() == pytest.approx(erb_hz_glasberg1990_program(1000.0), rel=0.3)
    wide = ERBIntegration(bandwidth_scale=2.0, dtype=F64)(components(60.0, 64))[0, 0]
    assert (wide > -100.0).sum() > 1.8 * inside.sum()


def test_excitation_by_hand() -> None:
    """One component: (1 + p g) exp(-p g), slope on the low side by the level per ERB at the component."""
    bands, pattern = ERBIntegration(dtype=F64), ExcitationPattern(dtype=F64)
    for level in (20.0, 51.0, 90.0):
        psd = components(level, 128)  # 2000 Hz
        levels = bands(psd)
        at = np.interp(2000.0, bands.fc_erb.numpy(), levels[0, 0].numpy())
        fc = pattern.fc_erb.numpy()
        p = 4.0 * fc / erb_hz_glasberg1990_program(fc)
        p = np.where(fc > 2000.0, p * (1.0 - 0.35 / (4000.0 / erb_hz_glasberg1990_program(1000.0)) * (at - 51.0)), p)
        g = np.abs(2000.0 - fc) / fc
        expected = level + 10.0 * np.log10((1.0 + p * g) * np.exp(-p * g))
        np.testing.assert_allclose(pattern(levels, psd)[0, 0].numpy(), np.maximum(expected, -100.0), rtol=0, atol=1e-6)
    upper, lower = pattern.get_spreading_slopes(torch.tensor([51.0, 61.0], dtype=F64))
    assert upper.tolist() == pytest.approx([17.372, 17.372], abs=1e-3)
    assert (lower[1] - lower[0]).item() == pytest.approx(-2.013, abs=1e-3)


def test_upper_slope_that_follows_the_level() -> None:
    """The two ways to compute the upper side agree, also in their derivatives."""
    psd = noise(1, 3, 1025, size=1e-4).square()
    levels = ERBIntegration(dtype=F64)(psd)

    def total(per_db: float) -> float:
        return ExcitationPattern(dtype=F64, upper_slope_per_db=per_db)(levels, psd).sum().item()

    learning = ExcitationPattern(dtype=F64, learnable=True)
    out = learning(levels, psd)
    assert torch.equal(out, ExcitationPattern(dtype=F64)(levels, psd))
    assert total(1e-9) == pytest.approx(total(0.0), rel=1e-9)
    (slope,) = torch.autograd.grad(out.sum(), learning.upper_slope_per_db)
    assert slope.item() == pytest.approx((total(1e-4) - total(-1e-4)) / 2e-4, rel=1e-4)


@pytest.mark.parametrize("high_level", ["1997", "2007"])
def test_specific_loudness_by_hand(high_level: str) -> None:
    model = SpecificLoudness(dtype=F64, high_level=high_level)
    channel = int((model.fc_erb - 1000.0).abs().argmin())
    level = torch.tensor([-20.0, 0.0, 3.0, 3.73, 10.0, 60.0, 99.9, 110.0], dtype=F64)
    e, t, a = 10.0 ** (level / 10.0), 10.0**0.373, 4.72096
    bracket = (e + a) ** 0.2 - a**0.2
    expected = torch.where(e <= t, (2.0 * e / (e + t)) ** 1.5 * bracket, bracket)
    high = (e / 1.04e6).sqrt() if high_level == "1997" else (e / 1.0707) ** 0.2
    expected = 0.046871 * torch.where(e > 1e10, high, expected)
    ours = model(level[:, None].expand(-1, 150))[:, channel]
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=0.0)
    assert model(torch.full((1, 150), -torch.inf, dtype=F64)).eq(0.0).all()


def test_gradient_at_silence_and_at_the_borders_of_the_regimes() -> None:
    for dtype in DTYPES:
        model = SpecificLoudness(dtype=dtype, learnable=True, ohc_loss_db=20.0, ihc_loss_db=3.0)
        level = torch.tensor([-torch.inf, -400.0, -100.0, 3.73, 100.0, 130.0], dtype=dtype)
        level = level[:, None].expand(-1, 150).clone().requires_grad_()
        model(level).sum().backward()
        assert level.grad is not None
        assert level.grad.isfinite().all()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_smoothing_by_hand() -> None:
    """STL of a constant input: 1 - 0.955^n; decay 0.98^n. Time constants give the published shares."""
    integration = LoudnessIntegration(dtype=F64)
    step = torch.cat([torch.ones(1, 200), torch.zeros(1, 200)], dim=1).double()
    stl, ltl = integration.smooth(step)
    n = torch.arange(1, 201, dtype=F64)
    torch.testing.assert_close(stl[0, :200], 1.0 - 0.955**n)
    torch.testing.assert_close(stl[0, 200:], stl[0, 199] * 0.98**n)
    assert (ltl <= stl.cummax(1).values).all()
    given = LoudnessIntegration(
        tau_attack=-1e-3 / math.log(0.99),
        tau_release=-1e-3 / math.log(0.9995),
        stl_tau_attack=-1e-3 / math.log(0.955),
        stl_tau_release=-1e-3 / math.log(0.98),
        dtype=F64,
    )
    for ours, published in zip(given.smooth(step), (stl, ltl), strict=True):
        torch.testing.assert_close(ours, published, rtol=1e-12, atol=0.0)
    out = integration(torch.ones(1, 3, 150, dtype=F64))
    integration.reset_state()
    assert torch.equal(integration(torch.ones(1, 3, 150, dtype=F64)), out)


def test_ear_filter() -> None:
    """Gain of the table at its frequencies, delay taken off, 0 dB at 1 kHz in the free field."""
    ear = LoudnessEarFilter(dtype=F64)
    frequency, response = ear.get_frequency_response(1 << 16)
    gain = 20.0 * torch.log10(response.abs())

    def at(hz: float) -> float:
        return gain[int((frequency - hz).abs().argmin())].item()

    assert at(1000.0) == pytest.approx(0.0, abs=0.05)
    assert at(100.0) == pytest.approx(-12.4, abs=0.2)
    click = torch.zeros(1, 4001, dtype=F64)
    click[0, 2000] = 1.0
    assert ear(click)[0].abs().argmax() == 2000 + 1024
    assert ear.get_parameters() == {
        "field": "free",
        "middle_ear": "ansi_s34_2007",
        "transfer": None,
        "rule": "published",
    }
    learning = LoudnessEarFilter(learnable=True)
    assert [name for name, _ in learning.named_parameters()] == ["taps"]


@pytest.mark.parametrize("fs", [16000, 22050, 44100, 48000, 192000])
def test_resampler(fs: int) -> None:
    """A tone stays the tone that it was, within 0.01 dB and at its time, up to 0.95 of half the lower rate."""
    resampler = LoudnessResampler(fs, dtype=F64)
    for share in (0.05, 0.5, 0.93):
        frequency = share * min(fs, 32000) / 2
        x = torch.sin(2.0 * math.pi * frequency * torch.arange(fs // 10, dtype=F64) / fs)[None]
        y = resampler(x)
        assert y.shape[-1] == -(-x.shape[-1] * 32000 // fs)
        expected = torch.sin(2.0 * math.pi * frequency * torch.arange(y.shape[-1], dtype=F64) / 32000)
        assert (y[0, 300:-300] - expected[300:-300]).abs().max() < 1.2e-3


def test_wrong_inputs() -> None:
    pattern, psd = ExcitationPattern(dtype=F64), components(60.0, 64)
    with pytest.raises(SpecError, match="psd is missing"):
        pattern(torch.zeros(1, 1, 150, dtype=F64))
    with pytest.raises(SpecError, match="erb_level_db has shape"):
        pattern(torch.zeros(1, 2, 150, dtype=F64), psd)
    with pytest.raises(SpecError, match="1025 bins"):
        ERBIntegration()(psd[..., :513])
    with pytest.raises(SpecError, match="150 channels"):
        SpecificLoudness()(torch.zeros(1, 1, 149))
    for stage in (MultiResolutionFFT(), LoudnessEarFilter(), LoudnessResampler(48000)):
        with pytest.raises(SpecError, match="pascal"):
            stage(torch.zeros(2, 100, dtype=torch.int16))
        with pytest.raises(SpecError, match="empty"):
            stage(torch.zeros(2, 0))
