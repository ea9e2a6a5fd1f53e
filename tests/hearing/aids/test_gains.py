"""The trainable aids of Saddler's tutorial: against its golden vectors, with the registered aid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from psysim.errors import SpecError
from psysim.hearing.aids import FilterbankGains, LearnableFIR
from psysim.models import Saddler2025

DATA = Path(__file__).parents[2] / "reference" / "data"


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(DATA / f"saddler2025_{name}.npz") as file:
        return dict(file)


@pytest.mark.parametrize("name", ["hearing_aid_moderate_severe", "hearing_aid_mild_lr1"])
def test_aided_sound_loss_gradient_and_adam_trace(name: str) -> None:
    """1e-10 of the largest sample for the sound, 1e-6 for loss and gradient, 1e-5 for gains: the files' bounds."""
    g = golden(name)
    options = {"cfs": g["cfs"], "ihc_taps": golden("filters")["ihc_sr20000_fc3000"], "dtype": torch.float64}
    impaired = Saddler2025(20e3, threshold_db_spl=g["threshold"], dynamic_range_db=g["dynamic_range"], **options)
    x = torch.from_numpy(g["x"])
    target = Saddler2025(20e3, **options)(x)
    aid = FilterbankGains(20e3, gain_db=g["gains0_db"], learnable=True, dtype=torch.float64)
    assert [n for n, _ in aid.named_parameters()] == ["gain_db"]
    optimiser = torch.optim.Adam(aid.parameters(), lr=float(g["lr"]))
    for step, (expected, gains) in enumerate(zip(g["loss_trace"], g["gains_trace_db"], strict=True)):
        optimiser.zero_grad()
        aided = aid(x)
        loss = (impaired(aided) - target).square().mean()
        loss.backward()
        assert loss.item() == pytest.approx(float(expected), rel=1e-6)
        if step == 0:
            assert np.abs(aided.detach().numpy() - g["x_aided0"]).max() <= 1e-10 * np.abs(g["x_aided0"]).max()
            assert aid.gain_db.grad is not None
            largest = np.abs(g["grad_gains0"]).max()
            assert np.abs(aid.gain_db.grad.numpy() - g["grad_gains0"]).max() <= 1e-6 * largest
        optimiser.step()
        np.testing.assert_allclose(aid.gain_db.detach().numpy(), gains, rtol=1e-5, atol=1e-5)


def test_a_free_impulse_response() -> None:
    g = golden("audio_conv1d")
    aid = LearnableFIR(20e3, taps=g["kernel"], dtype=torch.float64)
    for channel in range(3):
        y = aid(torch.from_numpy(g["x"][:, channel]))
        assert np.abs(y.numpy() - g["y"][:, channel]).max() <= 1e-10 * np.abs(g["y"]).max()


def test_random_taps_follow_from_the_seed() -> None:
    a, b, c = (LearnableFIR(20e3, seed=seed).impulse_response for seed in (1, 1, 2))
    assert len(a) == 200
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(SpecError, match="7 finite numbers"):
        FilterbankGains(20e3, gain_db=[1.0, 2.0])
    with pytest.raises(SpecError, match="there are 2 taps"):
        LearnableFIR(20e3, taps=[1.0, 0.5], delay=2)
    with pytest.raises(SpecError, match="list of finite numbers"):
        LearnableFIR(20e3, taps=[float("nan")])
