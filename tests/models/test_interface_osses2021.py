"""The documented examples of Osses2021: shapes, channels, stages, phase types, options, a learning step."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from psysim import stages
from psysim.models import Osses2021

FS = 44100.0


def tones(levels_db_spl: list[float], samples: int = 2001) -> Tensor:
    """Return 1-kHz tones (B, samples), pascal."""
    t = torch.arange(samples, dtype=torch.float64) / FS
    amplitude = math.sqrt(2.0) * 20e-6 * 10.0 ** (torch.tensor(levels_db_spl, dtype=torch.float64) / 20.0)
    return (amplitude[:, None] * torch.sin(2e3 * math.pi * t)).float()


@pytest.mark.parametrize("phase_type", ["minimum", "zero"])
def test_documented_shapes_and_stages(phase_type: str) -> None:
    """List of 31 tensors (B, M_i, T). The peer loses 256 samples with minimum phase; here none are lost (card)."""
    model = Osses2021(fs=44100, phase_type=phase_type, return_stages=True)
    output, by_stage = model(tones([60.0, 70.0]))
    assert (len(output), model.num_channels) == (31, 31)
    assert all(y.shape[0] == 2 and y.shape[2] == 2001 for y in output)
    counts = [y.shape[1] for y in output]
    assert counts == sorted(counts)
    assert counts[0] >= 4
    assert {name: tuple(y.shape) for name, y in by_stage.items()} == {
        "headphone": (2, 2001),
        "middleear": (2, 2001),
        "filterbank": (2, 31, 2001),
        "ihc": (2, 31, 2001),
        "adaptation": (2, 31, 2001),
    }
    one, _ = model(tones([60.0])[0])
    assert [y.shape for y in one] == [y.shape[1:] for y in output]


def test_documented_counts_with_the_documented_limit() -> None:
    """4 to 8 filters, as documented, with the documented highest centre of 150 Hz."""
    counts = [len(mfc) for mfc in Osses2021(fs=44100, modulation_kwargs={"max_mfc": 150.0}).modulation.mfc]
    assert (min(counts), max(counts)) == (4, 8)


def test_the_stages_by_hand_give_the_models_numbers() -> None:
    model = Osses2021(fs=44100, phase_type="zero", return_stages=True)
    x = tones([65.0])
    output, expected = model(x)
    ear = stages.HeadphoneFilter(FS)(model.input_gain * x)
    torch.testing.assert_close(ear, expected["headphone"], rtol=0, atol=0)
    ear = stages.MiddleEarFilter(FS, phase_type="zero")(ear)
    torch.testing.assert_close(ear, expected["middleear"], rtol=0, atol=0)
    y = stages.AdaptLoop(FS, preset="osses2021")(expected["ihc"])
    torch.testing.assert_close(y, expected["adaptation"], rtol=0, atol=0)
    z = stages.ModulationFilterbank(FS, model.fc, preset="jepsen2008")(y)
    assert all(torch.equal(a, b) for a, b in zip(z, output, strict=True))


def test_custom_options_of_the_documentation() -> None:
    model = Osses2021(
        fs=44100,
        flow=500.0,
        fhigh=2000.0,
        headphone_kwargs={"order": 256},
        middleear_kwargs={"filter_type": "jepsen2008"},
        ihc_kwargs={"method": "dau1996"},
        adaptation_kwargs={"limit": 10.0},
        modulation_kwargs={"preset": "dau1997"},
        dtype=torch.float64,
    )
    x = tones([60.0]).double()
    output = model(x)
    assert (len(output), output[0].dtype) == (model.num_channels, torch.float64)
    assert all(float(f) >= 500.0 for f in model.fc)
    assert all(float(f) <= 2000.0 for f in model.fc)
    assert {y.shape[1] for y in output} == {12}  # preset dau1997: no upper limit
    assert model.adaptation.limit == 10.0


def test_a_documented_training_step() -> None:
    model = Osses2021(fs=44100, flow=500.0, fhigh=2000.0, learnable=True)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    x = tones([60.0, 65.0], 1500)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    loss = sum(y.square().mean() for y in model(x))
    assert isinstance(loss, Tensor)
    loss.backward()
    model.distribute_gradients()  # the peer needs it; here it does nothing
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    optimiser.step()
    changed = {name.split(".")[0] for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed >= {"filterbank", "adaptation", "modulation"}
