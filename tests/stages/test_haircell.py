from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import signal

from psysim.errors import SpecError
from psysim.ops import HairCellCircuit
from psysim.stages import AuditoryModule, IHCEnvelope, IHCJepsen2008, IHCPaulick2024


def test_five_passes_of_breebaart2001_reach_771_hz() -> None:
    stage = IHCEnvelope(384000.0, method="breebaart2001")  # at 44.1 kHz the bilinear transform moves it to 776 Hz
    frequency = np.array([700.0, 771.0, 850.0])
    gain = 20.0 * np.log10(np.abs(signal.freqz_sos(stage.sos.numpy(), frequency, fs=384000.0)[1]))
    assert gain[1] == pytest.approx(-3.01, abs=0.02)
    assert gain[0] > gain[1] > gain[2]


def test_attributes_and_overrides() -> None:
    stage = IHCEnvelope(16000.0, cutoff=1500.0, order=3, method="lindemann")
    assert (stage.method, stage.cutoff, stage.order, stage.iterations) == ("lindemann1986", 1500.0, 3, 3)
    b, a = signal.butter(1, 1500.0, fs=16000.0)
    np.testing.assert_allclose(stage.b.numpy(), b, rtol=1e-12)
    np.testing.assert_allclose(stage.a.numpy(), a, rtol=1e-12)


def test_the_stage_can_be_switched_off() -> None:
    x = torch.randn(2, 3, 50, generator=torch.Generator().manual_seed(1))
    assert torch.equal(IHCEnvelope(16000.0, method="none")(x), x)


def test_minimum_level() -> None:
    x = torch.zeros(1, 100)
    assert torch.equal(IHCEnvelope(16000.0, minlvl=1e-5)(x), torch.full((1, 100), 1e-5))
    x[0, 50] = float("nan")
    assert IHCEnvelope(16000.0, minlvl=1e-5)(x)[0, 50:].isnan().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "dau1996a"}, "Did you mean 'dau1996'"),
        ({"cutoff": 8000.0}, "below fs/2 = 8000 Hz"),
        ({"cutoff": 0.0}, "cutoff"),
        ({"order": 0}, "order"),
        ({"method": "hilbert", "cutoff": 100.0}, "no lowpass"),
    ],
)
def test_wrong_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        IHCEnvelope(16000.0, **arguments)


def test_circuit_takes_the_published_constants() -> None:
    stage = IHCPaulick2024(44100.0)
    torch.testing.assert_close(stage.circuit, HairCellCircuit().tensor(), rtol=1e-15, atol=0)
    assert stage(torch.zeros(30)).shape == (30,)
    assert stage(torch.zeros(4, 30)).shape == (4, 30)


@pytest.mark.parametrize("stage", [IHCPaulick2024, IHCJepsen2008])
def test_loss_of_inner_hair_cells_is_an_attenuation_before_them(stage: type[AuditoryModule]) -> None:
    x = 1e-3 * torch.randn(2, 3, 200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    loss = [0.0, 6.0, 40.0]
    softer = x * torch.tensor([10.0 ** (-db / 20.0) for db in loss], dtype=torch.float64)[:, None]
    expected = stage(44100.0, dtype="float64")(softer)
    output = stage(44100.0, dtype="float64", ihc_loss_db=loss)(x)
    torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-18)
    one = stage(44100.0, dtype="float64", ihc_loss_db=6.0)(x)
    torch.testing.assert_close(one[:, 1], expected[:, 1], rtol=1e-9, atol=1e-18)
    with pytest.raises(SpecError, match=r"ihc_loss_db|constants"):
        stage(44100.0, dtype="float64", ihc_loss_db=[1.0, 2.0])(x)
    with pytest.raises(SpecError, match="ihc_loss_db must hold finite losses"):
        stage(44100.0, ihc_loss_db=-3.0)


def test_circuit_refuses_rates_at_which_it_is_unstable() -> None:
    with pytest.raises(SpecError, match="fs = 2000 Hz is out of range"):
        IHCPaulick2024(2000.0)


def test_an_optimiser_step_moves_the_circuit_and_keeps_it_finite() -> None:
    stage = IHCPaulick2024(44100.0, learnable=True)
    x = 1e-3 * torch.randn(2, 3, 200, generator=torch.Generator().manual_seed(1))
    before = {name: value.detach().clone() for name, value in stage.named_parameters()}
    assert len(before) == 12
    optimiser = torch.optim.Adam(stage.parameters(), lr=1e-2)
    stage(x).mul(1e3).square().mean().backward()
    optimiser.step()
    assert all(not torch.equal(value, before[name]) for name, value in stage.named_parameters())
    assert stage(x).isfinite().all()
