"""The documented examples of Paulick2024: shapes, channels, stages, options, decision methods, a learning step."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from psysim import stages
from psysim.models import Paulick2024

FS = 44100.0


@pytest.fixture(scope="module")
def model() -> Paulick2024:
    return Paulick2024(fs=44100, return_stages=True)


def tones(levels_db_spl: list[float], samples: int = 2001) -> Tensor:
    """Return 1-kHz tones (B, samples), pascal; an odd number of samples on purpose: it is not a multiple of 4."""
    t = torch.arange(samples, dtype=torch.float64) / FS
    amplitude = math.sqrt(2.0) * 20e-6 * 10.0 ** (torch.tensor(levels_db_spl, dtype=torch.float64) / 20.0)
    return (amplitude[:, None] * torch.sin(2e3 * math.pi * t)).float()


def test_documented_shapes_and_stages(model: Paulick2024) -> None:
    """List of 50 tensors (B, M_i, T'); outerear (B, T), drnl, ihc, adaptation (B, 50, T), resampled (B, 50, T')."""
    output, by_stage = model(tones([60.0, 70.0]))
    assert (len(output), model.num_channels, tuple(model.fc.shape)) == (50, 50, (50,))
    assert (float(model.fc[0]), float(model.fc[-1])) == (125.0, 8000.0)
    assert (model.resample_factor, model.fs_resampled) == (4, FS / 4)
    assert all(y.shape[0] == 2 and y.shape[2] == 2001 // 4 for y in output)
    # the documentation says 5 to 8 filters, up to 128.6 Hz; the published bank has up to 12 (model card, row 2)
    counts = [y.shape[1] for y in output]
    assert (counts[0], counts[-1], sorted(counts) == counts) == (5, 12, True)
    assert {name: tuple(y.shape) for name, y in by_stage.items()} == {
        "outerear": (2, 2001),
        "drnl": (2, 50, 2001),
        "ihc": (2, 50, 2001),
        "adaptation": (2, 50, 2001),
        "resampled": (2, 50, 500),
    }
    one, _ = model(tones([60.0])[0])
    assert [y.shape for y in one] == [y.shape[1:] for y in output]


def test_documented_counts_with_the_documented_limit() -> None:
    """With max_mfc = 150 the counts are those of the documentation, 5 to 8, and the highest filter 128.6 Hz."""
    model = Paulick2024(fs=44100, modulation_kwargs={"max_mfc": 150.0})
    counts = [len(mfc) for mfc in model.modulation.mfc]
    assert (min(counts), max(counts)) == (5, 8)
    assert float(model.modulation.mfc[-1][-1]) == pytest.approx(128.6, abs=0.01)


def test_the_stages_by_hand_give_the_models_numbers(model: Paulick2024) -> None:
    """The documented stage classes, put together by their documented constructors, are the model."""
    x = tones([65.0])
    output, expected = model(x)
    y = stages.OuterMiddleEarFilter(FS)(x)
    torch.testing.assert_close(y, expected["outerear"], rtol=0, atol=0)
    y = stages.DRNLFilterbank((125.0, 8000.0), FS, n_channels=50, subject="NH", dtype=torch.float32)(y)
    torch.testing.assert_close(y, expected["drnl"], rtol=0, atol=0)
    y = stages.IHCPaulick2024(FS)(y)
    torch.testing.assert_close(y, expected["ihc"], rtol=0, atol=0)
    y = stages.AdaptLoop(FS, preset="paulick2024", fc=model.fc)(y)
    torch.testing.assert_close(y, expected["adaptation"], rtol=0, atol=0)
    y = expected["resampled"]
    z = stages.ModulationFilterbank(FS / 4, model.fc, preset="jepsen2008")(y)
    assert all(torch.equal(a, b) for a, b in zip(z, output, strict=True))


def test_custom_options_of_the_documentation() -> None:
    impaired = Paulick2024(fs=44100, n_channels=10, drnl_kwargs={"subject": "HIx"})
    normal = Paulick2024(fs=44100, n_channels=10)
    x = tones([40.0])
    soft, reduced = (float(m.drnl(m.outerear(tones([20.0]))).square().mean().sqrt()) for m in (normal, impaired))
    assert 20.0 < 20.0 * math.log10(soft / reduced) < 45.0  # the nonlinear path adds 33 dB at 1 kHz (model card)
    bank = Paulick2024(fs=44100, n_channels=10, flow=200.0, fhigh=4000.0, filter_type="butterworth", use_outerear=False)
    assert (bank.num_channels, float(bank.fc[0]), float(bank.fc[-1])) == (10, 200.0, 4000.0)
    assert len(bank(x)) == 10
    wide = Paulick2024(fs=44100, n_channels=10, dtype=torch.float64)
    assert wide(x.double())[0].dtype == torch.float64


def test_decision_methods_as_documented(model: Paulick2024) -> None:
    plain = Paulick2024(fs=44100, n_channels=10)
    x = tones([55.0, 60.0])
    representation = plain(x)
    region = plain.roi_selection(representation, time_window=(100, 400), channel_range=(2, 8), modulation_range=(0, 4))
    assert [tuple(y.shape) for y in region] == [(2, 4, 300)] * 6
    template = plain(tones([70.0])[0])
    coefficient = plain.template_correlation(representation, template, normalize=True)
    assert coefficient.shape == (2,)
    assert bool((coefficient.abs() <= 1 + 1e-6).all())
    same = plain.template_correlation([y[0] for y in representation], [y[0] for y in representation])
    assert float(same) == pytest.approx(1.0, abs=1e-5)
    for metric in ("rms", "mean", "max", "l2"):
        value = plain.compute_decision_variable(representation, metric=metric)
        assert value.shape == (2,)
        assert bool(value.isfinite().all())
    weighted = plain.compute_decision_variable(representation, "rms", channel_weights=torch.ones(10))
    torch.testing.assert_close(weighted, plain.compute_decision_variable(representation, "rms"))
    variable = plain.compute_decision_variable(representation)
    between = float(variable.mean())
    assert plain.make_decision(variable, threshold=between).tolist() == [False, True]
    assert plain.make_decision(variable, threshold=between, criterion="less").tolist() == [True, False]
    signal, noise = tones([70.0, 70.0]), tones([50.0, 50.0])
    detected, difference = plain.detection_task(signal, noise, metric="rms", return_decision_var=True)
    assert detected.tolist() == [True, True]
    assert bool((difference > 0).all())
    assert plain.detection_task(signal, threshold=0.0).tolist() == [True, True]
    assert plain.discrimination_task(noise, signal, criterion="rms").tolist() == [1, 1]
    assert plain.discrimination_task(signal, noise).tolist() == [0, 0]


def test_a_documented_training_step() -> None:
    model = Paulick2024(fs=44100, n_channels=6, learnable=True)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    x = tones([60.0, 65.0], 1500)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimiser.zero_grad()
    loss = sum(y.square().mean() for y in model(x))
    assert isinstance(loss, Tensor)
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    optimiser.step()
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert {name.split(".")[0] for name in changed} >= {"drnl", "ihc", "adaptation", "modulation"}
    assert float(sum(y.detach().square().mean() for y in model(x))) != pytest.approx(float(loss.detach()), rel=1e-6)
