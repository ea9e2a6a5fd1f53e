"""The documented examples of King2019: shapes, channels, stages, compression, options, a learning step."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from psysim import stages
from psysim.models import King2019

FS = 44100.0


def tones(levels_db_spl: list[float], samples: int = 4000) -> Tensor:
    """Return 1-kHz tones (B, samples), pascal."""
    t = torch.arange(samples, dtype=torch.float64) / FS
    amplitude = math.sqrt(2.0) * 20e-6 * 10.0 ** (torch.tensor(levels_db_spl, dtype=torch.float64) / 20.0)
    return (amplitude[:, None] * torch.sin(2e3 * math.pi * t)).float()


def test_documented_shapes_and_stages() -> None:
    """(B, T, F, M) with 31 channels of 80 to 8000 Hz and 5 filters of 2 to 150 Hz; every stage (B, F, T)."""
    model = King2019(fs=44100, return_stages=True)
    output, by_stage = model(tones([60.0, 70.0], 1000))
    assert tuple(output.shape) == (2, 1000, 31, 5)
    assert (model.num_channels, len(model.mfc)) == (31, 5)
    assert model.mfc.tolist() == pytest.approx([2.0, 5.236, 13.708, 35.889, 93.957], abs=1e-3)
    names = ["gtone_response", "compressed_response", "ihc", "adapted_response"]
    assert [(name, tuple(y.shape)) for name, y in by_stage.items()] == [(name, (2, 31, 1000)) for name in names]
    one, _ = model(tones([60.0], 1000)[0])
    assert tuple(one.shape) == (1000, 31, 5)


@pytest.mark.parametrize(
    ("options", "channels", "filters", "samples"),
    [
        ({"basef": 1000.0}, 5, 5, 4000),
        ({"basef": 1000.0, "modbank_nmod": 10}, 5, 10, 4000),
        ({"basef": 1000.0, "modbank_qfactor": 2.0, "mflow": 1.0, "mfhigh": 200.0}, 5, 11, 4000),
        ({"basef": 1000.0, "subfs": 11025.0}, 5, 5, 1000),
        ({"basef": 500.0, "compression_type": "power", "compression_n": 0.6}, 5, 5, 4000),
        ({"basef": 1000.0, "lp_150hz": True, "adt_hp_fc": 1.0, "adt_hp_order": 2}, 5, 5, 4000),
    ],
)
def test_documented_options(options: dict[str, object], channels: int, filters: int, samples: int) -> None:
    model = King2019(fs=44100, **options)  # type: ignore[arg-type]
    output = model(tones([60.0]))
    assert tuple(output.shape) == (1, samples, channels, filters)
    assert bool(output.isfinite().all())
    assert float(output.abs().max()) > 0


def test_the_stages_by_hand_give_the_models_numbers() -> None:
    model = King2019(fs=44100, basef=1000.0, return_stages=True)
    x = tones([65.0])
    output, expected = model(x)
    y = stages.GammatoneFilterbank(model.fc, FS)(model.input_gain * x)
    torch.testing.assert_close(y, expected["gtone_response"], rtol=1e-5, atol=1e-8)
    y = stages.BrokenStickCompression(knee_db=30.0, exponent=0.3, dboffset=100.0, channel_dim=-2)(
        expected["gtone_response"]
    )
    torch.testing.assert_close(y, expected["compressed_response"], rtol=0, atol=0)
    y = stages.IHCEnvelope(FS, method="king2019")(y)
    torch.testing.assert_close(y, expected["ihc"], rtol=0, atol=0)
    y = stages.ButterworthFilter(1, 3.0, FS, btype="high")(y)
    torch.testing.assert_close(y, expected["adapted_response"], rtol=1e-6, atol=1e-9)
    for bank in (stages.King2019ModulationFilterbank, stages.FastKing2019ModulationFilterbank):
        z = bank(FS)(expected["adapted_response"])
        torch.testing.assert_close(z.permute(0, 3, 1, 2), output, rtol=0, atol=0)


def test_a_documented_training_step() -> None:
    model = King2019(fs=44100, basef=1000.0, learnable=True)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    x = tones([60.0, 65.0])
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    loss = model(x).square().mean()
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    optimiser.step()
    changed = {name.split(".")[0] for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert {"filterbank", "compression", "modulation"} <= changed
    assert float(model(x).detach().square().mean()) != float(loss.detach())
