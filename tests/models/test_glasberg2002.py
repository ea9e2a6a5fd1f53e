from __future__ import annotations

import inspect
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from psysim.errors import PsysimWarning, SpecError
from psysim.models import Glasberg2002

FS = 32000
DTYPES = [torch.float32, torch.float64]
TABLES = Path(__file__).parents[1] / "reference" / "data"
LOSS = {"ohc_loss_db": 40.0, "ihc_loss_db": 5.0}


def tone(
    levels: list[float] | np.ndarray,
    frequency_hz: float = 1000.0,
    samples: int = 3200,
    fs: int = FS,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Return tones (B, samples) without ramps, pascal."""
    t = torch.arange(samples, dtype=torch.float64) / fs
    size = math.sqrt(2.0) * 20e-6 * 10.0 ** (torch.tensor(levels, dtype=torch.float64) / 20.0)
    return (size[:, None] * torch.sin(2.0 * math.pi * frequency_hz * t)).to(dtype)


def steady(model: Glasberg2002, x: Tensor) -> Tensor:
    """Return the instantaneous loudness (B,) in the middle of steady sounds."""
    with torch.no_grad():
        loudness = model.integration.instantaneous(model.represent(x).values[:, :, 0].transpose(1, 2))
    return loudness[:, loudness.shape[1] // 2]


def test_documented_signature() -> None:
    documented = {"fs": 32000, "learnable": False, "return_stages": False}
    documented |= dict.fromkeys(
        [
            "multi_fft_kwargs",
            "erb_kwargs",
            "excitation_kwargs",
            "specific_loudness_kwargs",
            "loudness_integration_kwargs",
        ]
    )
    parameters = inspect.signature(Glasberg2002).parameters
    positional = [n for n, p in parameters.items() if p.kind == p.POSITIONAL_OR_KEYWORD]
    assert positional == list(documented)
    assert {name: parameters[name].default for name in documented} == documented


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_shapes_and_stages(dtype: torch.dtype) -> None:
    model = Glasberg2002(return_stages=True, dtype=dtype)
    x = tone([60.0, 40.0], dtype=dtype)
    ltl, stages = model(x)
    assert (ltl.shape, ltl.dtype) == ((2, 101), dtype)
    shapes = {name: tuple(value.shape) for name, value in stages.items()}
    channels = dict.fromkeys(("specific_loudness", "excitation", "erb_excitation"), (2, 101, 150))
    assert shapes == {"stl": (2, 101), **channels, "psd": (2, 101, 1025), "freqs": (1025,)}
    single, single_stages = model(x[1])
    assert torch.equal(single, ltl[1])
    assert all(torch.equal(single_stages[n], stages[n][1]) for n in shapes if n != "freqs")
    r = model.represent(x)
    assert torch.equal(r.values[:, :, 0].transpose(1, 2), stages["specific_loudness"])
    assert (r.fs, r.mfc.tolist()) == (1000.0, [0.0])
    plain = Glasberg2002(dtype=dtype)
    assert torch.equal(plain(x), ltl)
    assert all(torch.equal(a, b) for a, b in zip(plain.loudness(x), (stages["stl"], ltl), strict=True))
    plain.reset_state()
    assert torch.equal(plain(x), ltl)
    assert torch.equal(plain.get_erb_frequencies(), plain.fc)
    assert plain.fc[[0, -1]].tolist() == pytest.approx([50.0, 15000.0])


@pytest.mark.parametrize(
    "arguments",
    [
        {"multi_fft_kwargs": {"hop_length": 512, "calibration_db": 0.0}, "erb_kwargs": {"n_bands": 40}},
        {"ear_kwargs": {"field": "diffuse"}, **LOSS, "dead_regions_hz": [(2000.0, 4000.0)]},
        {
            "ear_kwargs": {"transfer": [(100.0, 0.0), (3000.0, 12.0)]},
            "specific_loudness_kwargs": {"high_level": "2007"},
        },
        {"excitation_kwargs": {"upper_slope_per_db": 0.05}, "loudness_integration_kwargs": {"presentation": "monotic"}},
    ],
)
def test_constructor_arguments_make_a_twin(arguments: dict[str, object]) -> None:
    model, x = Glasberg2002(**arguments), tone([60.0])
    twin = Glasberg2002(**json.loads(json.dumps(model.parameters_dict())))
    assert twin.parameters_dict() == model.parameters_dict()
    assert torch.equal(twin(x), model(x))
    assert not torch.equal(model(x), Glasberg2002()(x))


def test_loudness_of_1_khz() -> None:
    """Calibration at 40 dB SPL, and the function of ANSI S3.4-2007 within 5 % from 20 to 80 dB SPL, 8 % at 100."""
    printed = pd.read_csv(TABLES / "loudness_ansi_s34_2007_1khz.csv", comment="#")
    printed = printed[printed["level_db_spl"].between(20.0, 100.0)]
    levels, sone = printed["level_db_spl"].to_numpy(), printed["sone"].to_numpy()
    ours = steady(Glasberg2002(dtype="float64"), tone(levels)).numpy()
    np.testing.assert_allclose(ours[levels <= 80.0], sone[levels <= 80.0], rtol=0.05)
    np.testing.assert_allclose(ours[levels > 80.0], sone[levels > 80.0], rtol=0.08)
    assert ours[levels == 40.0].item() == pytest.approx(0.993, abs=5e-4)


def test_published_values_of_steady_tones() -> None:
    ours = steady(Glasberg2002(dtype="float64"), tone([0.0, 10.0, 20.0, 60.0, 80.0, 100.0]))
    np.testing.assert_allclose(ours, [0.00052, 0.0249, 0.1356, 4.09, 15.36, 65.3], rtol=0.01)


def test_equal_loudness_contours() -> None:
    """Within 5 dB rms of ISO 226:2003 from 100 Hz to 8 kHz, near the contours of ANSI S3.4-2007 (line spectra)."""
    contours = pd.read_csv(TABLES / "loudness_iso226_contours_and_models.csv", comment="#")
    contours = contours[contours["frequency_hz"].between(100.0, 8000.0)].iloc[::2]
    model, grid = Glasberg2002(dtype="float64"), np.arange(-5.0, 115.0, 5.0)
    levels = torch.from_numpy(grid)
    sones = np.stack([model.steady_loudness(f, levels).log().numpy() for f in contours["frequency_hz"]])
    for phon in (20, 40, 60, 80):
        target = float(model.steady_loudness(1000.0, torch.tensor([float(phon)])).log())
        ours = np.array([np.interp(target, row, grid) for row in sones])
        for name, bound in ((f"iso226_2003_{phon}phon", 5.0), (f"ansi_s34_2007_{phon}phon", 2.0)):
            assert np.sqrt(np.mean((ours - contours[name].to_numpy()) ** 2)) <= bound, name


def test_steady_loudness() -> None:
    model, levels = Glasberg2002(dtype="float64"), torch.tensor([20.0, 60.0, 100.0], dtype=torch.float64)
    for frequency in (1000.0, 2000.0, 6000.0):  # whole periods in a millisecond: every frame sees the same
        expected = steady(model, tone(levels.tolist(), frequency, 9600))
        torch.testing.assert_close(model.steady_loudness(frequency, levels), expected, rtol=1e-6, atol=0.0)
    with pytest.raises(SpecError, match="frequency_hz"):
        model.steady_loudness(17000.0, levels)


def test_time_course() -> None:
    """Long-term loudness rises for a second and stays below the short-term loudness; two ears are twice one."""
    stl, ltl = Glasberg2002(dtype="float64").loudness(tone([60.0], samples=32000))
    assert (stl[0, 700] / stl[0, 600]).item() == pytest.approx(1.0, abs=1e-6)
    assert ltl[0].argmax() > 900
    assert ltl[0].max() < stl[0].max()
    one = Glasberg2002(dtype="float64", loudness_integration_kwargs={"presentation": "monotic"})
    torch.testing.assert_close(2.0 * one(tone([60.0])), Glasberg2002(dtype="float64")(tone([60.0])))


@pytest.mark.parametrize("fs", [16000, 44100, 48000, 96000])
def test_other_sampling_rates(fs: int) -> None:
    """The same sound at another rate: 0.5 % of its loudness (0.02 dB), where the lower rate has it."""
    models = [Glasberg2002(fs=rate, dtype="float64") for rate in (FS, fs)]
    for frequency in (200.0, 1000.0, 5000.0):
        expected, ours = (
            steady(model, tone([60.0], frequency, rate // 10, rate))
            for model, rate in zip(models, (FS, fs), strict=True)
        )
        assert ours.item() == pytest.approx(expected.item(), rel=5e-3)
    with pytest.raises(SpecError, match="whole numbers of Hz"):
        Glasberg2002(fs=44100.5)


def test_other_distances_of_frames() -> None:
    """With 16 ms between frames: a frame counts for the 16 ms before it, with the same time constants."""
    x = tone([60.0], samples=32000)
    fine, coarse = Glasberg2002(dtype="float64"), Glasberg2002(dtype="float64", multi_fft_kwargs={"hop_length": 512})
    assert coarse(x).shape == (1, 63)
    assert coarse(x)[0, 60].item() == pytest.approx(fine(x)[0, 960].item(), rel=1e-3)
    constant = torch.ones(1, 1600, dtype=torch.float64)
    stl = fine.integration.smooth(constant)[0][0, 15::16]
    torch.testing.assert_close(coarse.integration.smooth(constant[:, ::16])[0][0], stl, rtol=1e-12, atol=0.0)


def test_fields_and_transfer_function() -> None:
    x = tone([60.0], 3000.0)
    free, diffuse, eardrum = (
        steady(Glasberg2002(dtype="float64", ear_kwargs={"field": f}), x) for f in ("free", "diffuse", "eardrum")
    )
    assert free > diffuse > eardrum
    table = [(f, 0.0) for f in (20.0, 16000.0)]
    same = Glasberg2002(dtype="float64", ear_kwargs={"transfer": table})
    torch.testing.assert_close(steady(same, x), eardrum)
    louder = Glasberg2002(dtype="float64", ear_kwargs={"transfer": [(f, g + 6.0) for f, g in table]})
    torch.testing.assert_close(steady(louder, x), steady(same, tone([66.0], 3000.0)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("loss", [{}, LOSS], ids=["normal", "loss"])
def test_silence_is_silent_and_gradients_are_finite(loss: dict[str, float], dtype: torch.dtype) -> None:
    model = Glasberg2002(learnable=True, dtype=dtype, **loss)
    x = torch.cat([torch.zeros(2, 1600), tone([20.0, 100.0], samples=1600)]).to(dtype)
    x[1, 800] = 1e-3
    x[3, 800:] = 0.0
    x.requires_grad_()
    ltl = model(x)
    assert torch.equal(ltl[0], torch.zeros_like(ltl[0]))
    ltl.amax(1).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert (x.grad[1:].abs().amax(1) > 0).all()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0 or name.endswith("_release"), name


@pytest.mark.parametrize("loss", [{}, LOSS], ids=["normal", "loss"])
def test_gradient_agrees_with_finite_differences(loss: dict[str, float]) -> None:
    """Maximum of the long-term loudness along random directions, float64: central differences to 1e-6."""
    model = Glasberg2002(dtype="float64", **loss)
    generator = torch.Generator().manual_seed(2)
    x = tone([60.0], samples=960) + 1e-3 * torch.randn(1, 960, generator=generator, dtype=torch.float64)
    x.requires_grad_()
    (slope,) = torch.autograd.grad(model(x).amax(), x)
    for _ in range(3):
        direction = 1e-3 * torch.randn(1, 960, generator=generator, dtype=torch.float64)
        step = 1e-4
        with torch.no_grad():
            change = (model(x + step * direction).amax() - model(x - step * direction).amax()) / (2 * step)
        assert float((slope * direction).sum()) == pytest.approx(float(change), rel=1e-6)


def test_gradients_of_the_constants_agree_with_finite_differences() -> None:
    # Losses between the points of the derived tables, where they are smooth
    model = Glasberg2002(dtype="float64", learnable=True, ohc_loss_db=40.4, ihc_loss_db=5.0)
    x = tone([75.0], samples=640)
    parameters = dict(model.named_parameters())
    slopes = torch.autograd.grad(model(x).amax(), list(parameters.values()), allow_unused=True)
    for (name, parameter), slope in zip(parameters.items(), slopes, strict=True):
        if parameter.numel() > 1000 or name.endswith("release"):
            continue  # taps and weights enter linearly; loudness rises only
        assert slope is not None, name
        step = 1e-6 * float(parameter.detach().abs().max()) + 1e-8
        values = []
        for sign in (1.0, -1.0):
            with torch.no_grad():
                parameter.add_(sign * step)
                values.append(float(model(x).amax()))
                parameter.sub_(sign * step)
        change = (values[0] - values[1]) / (2 * step)
        assert float(slope.sum()) == pytest.approx(change, rel=1e-4, abs=1e-9), name


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_learning_step_lowers_the_loss(dtype: torch.dtype) -> None:
    model, x = Glasberg2002(learnable=True, dtype=dtype, **LOSS), tone([80.0], samples=1600, dtype=dtype)
    target = Glasberg2002(dtype=dtype, ohc_loss_db=30.0)(x)
    assert set(model.get_learnable_parameters()) == {name for name, _ in model.named_parameters()}
    assert Glasberg2002().get_learnable_parameters() == {}
    optimiser = torch.optim.SGD([{"params": [p], "lr": 0.0} for p in model.parameters()])
    losses = []
    for _ in range(2):
        loss = (model(x) - target).square().sum()
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        for group in optimiser.param_groups:
            parameter = group["params"][0]
            size, largest = float(parameter.detach().abs().max()), float(parameter.grad.abs().max())
            group["lr"] = 0.001 * size / largest if largest > 0 else 0.0
        optimiser.step()
    assert losses[1] < losses[0]


def test_loudness_level() -> None:
    model = Glasberg2002(dtype="float64", ear_kwargs={"field": "diffuse"}, **LOSS)
    levels = np.array([-5.0, 2.4, 20.0, 33.3, 40.0, 60.0, 87.5, 110.0])
    sone = steady(Glasberg2002(dtype="float64"), tone(levels))
    np.testing.assert_allclose(model.compute_loudness_level(sone), levels, rtol=0, atol=0.02)
    far = model.compute_loudness_level(torch.tensor([0.0, 1e-9, 1e6, float("nan")]))
    assert far[:3].tolist() == [-math.inf, -math.inf, math.inf]
    assert far[3].isnan()
    stevens = model.compute_loudness_level(torch.tensor([1.0, 4.0]), method="stevens")
    assert stevens.tolist() == [40.0, 60.0]
    learning = Glasberg2002(dtype="float64", learnable=True)
    before = learning.compute_loudness_level(sone[4])
    assert before.item() == pytest.approx(40.0, abs=0.02)
    with torch.no_grad():
        learning.specific_loudness.C.mul_(2.0)  # the same loudness now is that of a softer tone
    assert learning.compute_loudness_level(sone[4]).item() < before.item() - 5.0
    with pytest.raises(SpecError, match="Did you mean 'stevens'"):
        model.compute_loudness_level(sone, method="steven")
    with pytest.raises(SpecError, match="amt"):
        Glasberg2002(preset="amt").compute_loudness_level(sone)


def test_hearing_loss_in_a_band_spares_the_others() -> None:
    loss = torch.where(Glasberg2002().fc > 2000.0, 50.0, 0.0)
    model, normal = (Glasberg2002(dtype="float64", ohc_loss_db=v) for v in (loss, 0.0))
    assert steady(model, tone([60.0], 250.0)) == pytest.approx(steady(normal, tone([60.0], 250.0)), rel=1e-3)
    assert steady(model, tone([60.0], 4000.0)) < 0.1 * steady(normal, tone([60.0], 4000.0))
    dead = Glasberg2002(dead_regions_hz=[(3000.0, 15000.0)])
    assert torch.equal(dead.represent(tone([60.0])).values[:, dead.fc > 3000.0].abs().amax(), torch.tensor(0.0))
    assert dead.represent(tone([60.0])).valid[:, 0].tolist() == (dead.fc < 3000.0).tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "publish"}, "Did you mean 'published'"),
        ({"multi_fft_kwargs": {"hop": 32}}, "multi_fft_kwargs has no key 'hop'"),
        ({"multi_fft_kwargs": {"hop_length": 32, "hop_fraction": 0.5}}, "give one"),
        ({"multi_fft_kwargs": {"hop_length": 32.5}}, "whole number"),
        ({"multi_fft_kwargs": {"window_lengths": [64]}}, "six even numbers"),
        ({"erb_kwargs": {"f_min": 100.0, "f_max": 90.0}}, "f_max"),
        ({"excitation_kwargs": {"lower_slope_base": 0.0}}, "lower_slope_base"),
        ({"specific_loudness_kwargs": {"high_level": "2017"}}, "Did you mean '2007'"),
        ({"loudness_integration_kwargs": {"tau_attack": 0.0}}, "tau_attack"),
        ({"ear_kwargs": {"field": "fee"}}, "Did you mean 'free'"),
        ({"ohc_loss_db": [10.0, 20.0]}, "150 channels"),
        ({"ihc_loss_db": -3.0}, "ihc_loss_db"),
        ({"ohc_loss_db": 3.0, "specific_loudness_kwargs": {"alpha": 0.25}}, "alpha = 0.25"),
        ({"preset": "amt", "ear_kwargs": {"transfer": [(1.0, 0.0)]}}, "transfer"),
    ],
)
def test_wrong_options(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Glasberg2002(**arguments)


def test_options_that_mean_nothing_here_are_named() -> None:
    with pytest.warns(PsysimWarning, match="E0 is ignored"):
        Glasberg2002(specific_loudness_kwargs={"E0": 10.0})
    with pytest.raises(SpecError, match="12288 samples"):
        Glasberg2002(preset="amt")(tone([60.0]))
