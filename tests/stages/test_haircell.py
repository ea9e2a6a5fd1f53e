from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import signal

from psysim.errors import SpecError
from psysim.stages import IHCEnvelope


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
