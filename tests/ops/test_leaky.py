from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.signal
import torch

from psysim import ops

F64 = torch.float64
LAYERS = Path(__file__).parents[1] / "reference" / "data" / "layers.npz"


def test_agrees_with_scipy_from_a_state(dtype: Any) -> None:
    rng = np.random.default_rng(3)
    decay, gain = np.array([0.2, 0.9, 0.9999]), np.array([1.5, -0.4, 1e-4])
    x, state = rng.standard_normal((2, 3, 501)), rng.standard_normal((2, 3, 1))
    result, end = ops.leaky(
        torch.from_numpy(x).to(dtype),
        torch.from_numpy(decay),
        torch.from_numpy(gain),
        state=torch.from_numpy(state),
        return_state=True,
    )
    x = torch.from_numpy(x).to(dtype).double().numpy()
    for f in range(3):
        start = decay[f] * state[:, f]
        expected, last = scipy.signal.lfilter([gain[f]], [1.0, -decay[f]], x[:, f], zi=start)
        # 501 additions, each rounded by 2^-53; the output of float32 signals is rounded by 2^-24
        bound = (501 * 2.0**-53 if dtype == F64 else 2.0**-24) * np.abs(expected).max()
        assert np.abs(result[:, f].double().numpy() - expected).max() <= bound
        assert np.abs(decay[f] * end[:, f].numpy() - last).max() <= 501 * 2.0**-53 * np.abs(expected).max()


@pytest.mark.parametrize("decay_input", [True, False])
def test_golden_decay_layer(dtype: Any, decay_input: bool) -> None:
    """The layer convolves with the first K samples of the impulse response and repeats the first frame before it."""
    data = np.load(LAYERS)
    d = torch.from_numpy(data["decay_d"]).double()
    decay = d**2 / (1 + d**2)
    gain = 1 - decay if decay_input else torch.ones_like(decay)
    x = torch.from_numpy(data["decay_x"][:, :, 0]).to(dtype)
    state = (gain / (1 - decay) * x[..., 0].double())[..., None]
    result = ops.leaky(x, decay, gain, state=state).double()
    expected = torch.from_numpy(data[f"decay{int(decay_input)}/y"][:, :, 0]).double()
    # What the layer leaves out: the tail of the impulse response from K on, k^K gain/(1 - k), times the largest input.
    # The layer itself is float32: 14 products and sums
    size = data["decay1/kernel"].shape[-1]
    peak = x.abs().amax((0, 2)).double()
    tail = decay**size * gain / (1 - decay) * peak
    rounding = 14 * 2.0**-24 * gain / (1 - decay) * peak
    assert ((result - expected).abs().amax((0, 2)) <= tail + rounding).all()


@pytest.mark.parametrize("decay_input", [True, False])
def test_golden_decay_layer_without_its_truncation(dtype: Any, decay_input: bool) -> None:
    """The difference of two leaky integrations, one of them K samples late, is the truncated kernel."""
    data = np.load(LAYERS)
    d = torch.from_numpy(data["decay_d"]).double()
    decay, size = d**2 / (1 + d**2), data["decay1/kernel"].shape[-1]
    gain = 1 - decay if decay_input else torch.ones_like(decay)
    x = torch.from_numpy(data["decay_x"][:, :, 0])
    x = torch.cat([x[..., :1].expand(-1, -1, 2 * size), x], -1).to(dtype)
    whole = ops.leaky(x, decay, gain)
    late = ops.leaky(x[..., :-size], decay, gain * decay**size)
    result = (whole[..., 2 * size :] - late[..., size:]).double()
    expected = torch.from_numpy(data[f"decay{int(decay_input)}/y"][:, :, 0]).double()
    # 14 products and sums in float32, of the largest partial sum
    rounding = 14 * 2.0**-24 * (gain / (1 - decay) * x.abs().amax((0, 2)).double())
    assert ((result - expected).abs().amax((0, 2)) <= rounding).all()


def test_slow_unit_reaches_its_goal_in_float32() -> None:
    """In float32 a time constant of 2 s at 44.1 kHz would stop up to 0.6 % short of the goal."""
    decay = torch.tensor([1.0 - 1.0 / 88200.0], dtype=F64)
    y = ops.leaky(torch.ones(1, 1, 20 * 88200), decay, 1 - decay)
    assert y[0, 0, -1].item() == pytest.approx(1.0, abs=1e-7)


def test_shared_and_own_coefficients_mix() -> None:
    rng = np.random.default_rng(5)
    x = torch.from_numpy(rng.standard_normal((2, 3, 40)))
    decay, gain = torch.tensor([0.3, 0.6, 0.9], dtype=F64), torch.tensor([0.5], dtype=F64)
    assert torch.equal(ops.leaky(x, decay, gain), ops.leaky(x, decay, gain.expand(3)))
    assert torch.equal(ops.leaky(x, gain, decay), ops.leaky(x, gain.expand(3), decay))
    leaves = tuple(value.requires_grad_() for value in (x, decay, gain))
    assert torch.autograd.gradcheck(ops.leaky, leaves)


def test_tail_ends_in_silence() -> None:
    x = torch.zeros(1, 1, 6000, dtype=F64)
    x[0, 0, 0] = 1.0
    y = ops.leaky(x, torch.tensor([0.8], dtype=F64), torch.tensor([1.0], dtype=F64))
    assert torch.count_nonzero(y[..., -1000:]) == 0
    assert y[0, 0, 1000] > 1e-110
