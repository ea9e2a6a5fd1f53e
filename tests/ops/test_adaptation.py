from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from psysim import ops
from psysim.errors import SpecError
from psysim.ops import reference

F64 = torch.float64
DAU = (0.005, 0.050, 0.129, 0.253, 0.500)
LINEAR = (0.005, 0.12875, 0.2525, 0.37625, 0.5)


def adapt(x: Any, fs: float, tau: tuple[float, ...] = DAU, minimum: float = 1e-5, limit: float = 10.0) -> Tensor:
    decay = torch.exp(-1.0 / (torch.tensor(tau, dtype=F64) * fs))
    return ops.adaptation_loops(x, decay, torch.tensor([minimum], dtype=F64), limit)


GOLDEN = {
    "lim10": {},
    "lim5": {"limit": 5.0},
    "nolimit": {"limit": 0.0},
    "lim1": {"limit": 1.0},
    "lim1p5": {"limit": 1.5},  # the ceilings of loops 3 to 5 are negative
    "puschel": {"tau": LINEAR, "limit": 0.0},
    "lim10_minspl20": {"minimum": 1e-4},
    "lim10_minspl_m34": {"minimum": 2e-7},
    "lim10_tau3": {"tau": (0.01, 0.1, 0.4)},
}


# README_dau_osses.md: 2e-12 in float64 (relative where the loops are not limited), 1e-5 of the peak in float32. Rows
# without a peak (silence, sound below the minimum): two roundings of eps/2 per loop, each halved by the root that the
# next loop takes, make less than 2 eps of the last state, times the output factor.
@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_golden(golden: Any, dtype: Any, name: str) -> None:
    data = golden("adaptloop")
    result = adapt(torch.from_numpy(data["x"])[None].to(dtype), float(data["fs"]), **GOLDEN[name])[0].double().numpy()
    expected = data[f"out_{name}"]
    peak = np.abs(expected).max(1)
    error = np.abs(result[:, data["t_idx"]] - expected).max(1)
    rest = GOLDEN[name].get("minimum", 1e-5) ** (0.5 ** len(GOLDEN[name].get("tau", DAU)))
    at_rest = 2 * torch.finfo(dtype).eps * 100.0 / (1.0 - rest)
    assert np.all(error <= (2e-12 if dtype == F64 else 1e-5) * peak + at_rest)


@pytest.mark.parametrize("limit", [5, 10])
def test_golden_step_at_44100_hz(golden: Any, dtype: Any, limit: int) -> None:
    data = golden("adaptloop")
    x = torch.from_numpy(data["x44"])[None, None].to(dtype)
    result = adapt(x, 44100.0, limit=float(limit))[0, 0].double().numpy()[data["t44_idx"]]
    expected = data[f"out44_lim{limit}"]
    assert np.abs(result - expected).max() <= (2e-12 if dtype == F64 else 1e-5) * np.abs(expected).max()


@pytest.mark.parametrize("limit", [0.0, 10.0])
def test_golden_steady_state(golden: Any, dtype: Any, limit: float) -> None:
    """After 10 s of a constant, twenty times the slowest time constant; above 100 dB the limiter bends it."""
    data = golden("adaptloop")
    keep = data["ss_level_db"] <= (100.0 if limit else 120.0)
    level, expected = data["ss_level_db"][keep], data["ss_mu"][keep]
    x = torch.from_numpy(10.0 ** ((level - 100.0) / 20.0))[None, :, None].expand(1, -1, 160000)
    result = adapt(x.to(dtype), 16000.0, limit=limit)[0, :, -1].double().numpy()
    # float32: five quotients rounded by 6e-8 each and the same in x, times the output factor of 331 model units
    assert np.all(np.abs(result - expected) <= (1e-9 if dtype == F64 else 2e-4))


def test_float32_returns_to_rest_after_sound() -> None:
    """Without compensated states the slowest loop would stop short of its rest, and the output with it by 0.1."""
    x = torch.zeros(1, 1, 4 * 44100)
    x[..., : 44100 // 2] = 0.1
    y = adapt(x, 44100.0)
    expected = adapt(x.double(), 44100.0)
    assert (y - expected)[..., 44100:].abs().max() < 2e-4


def test_silence_is_exactly_rest(dtype: Any) -> None:
    y = adapt(torch.zeros(2, 3, 500, dtype=dtype), 44100.0)
    assert y.abs().max() < (1e-12 if dtype == F64 else 1e-4)
    below = adapt(torch.full((2, 3, 500), -5.0, dtype=dtype), 44100.0)
    assert torch.equal(below, y)


@pytest.mark.parametrize("limit", [0.0, 1.2, 10.0])
def test_extreme_inputs_have_finite_outputs_and_gradients(dtype: Any, limit: float) -> None:
    x = torch.zeros(4, 1, 400, dtype=dtype)
    x[1, 0, 50] = 1.0  # a click
    x[2, 0, 50:] = 1e6  # 220 dB
    x[3] = 1e-40  # denormal in float32
    x.requires_grad_()
    y = adapt(x, 44100.0, limit=limit)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert y.isfinite().all()
    assert slope.isfinite().all()
    assert torch.count_nonzero(slope[0]) == 0  # below the minimum
    assert torch.count_nonzero(slope[3]) == 0
    assert slope[1, 0, 50] != 0 or limit == 1.2  # with negative ceilings the limiter saturates to the last digit
    expected = reference.adaptation_loops(
        x, torch.exp(-1.0 / (torch.tensor(DAU, dtype=F64) * 44100.0)), torch.tensor([1e-5], dtype=F64), limit
    )
    # float32: rounding of the state by 6e-8 against quotients up to 1e11: relative to the peak of each row
    peak = expected.abs().amax(-1, keepdim=True).clamp_min(1.0)
    assert ((y - expected).abs() / peak).max() <= (1e-10 if dtype == F64 else 1e-5)


def test_gradient_at_the_limit() -> None:
    x = 0.05 + 0.2 * torch.from_numpy(np.random.default_rng(4).random((1, 2, 6)))
    decay, minimum = torch.tensor([0.9, 0.96], dtype=F64), torch.tensor([0.02, 0.01], dtype=F64)
    limit = torch.tensor(3.0, dtype=F64)
    leaves = [v.requires_grad_() for v in (x, decay, minimum, limit)]
    assert torch.autograd.gradcheck(ops.adaptation_loops, leaves, rtol=1e-5)


def test_minimum_per_channel_is_the_same_as_channels_apart(dtype: Any) -> None:
    rng = np.random.default_rng(6)
    x = torch.from_numpy(np.abs(rng.standard_normal((2, 5, 90)))).to(dtype)
    decay, minimum = torch.tensor([0.99, 0.999], dtype=F64), torch.logspace(-6, -3, 5, dtype=F64)
    together = ops.adaptation_loops(x, decay, minimum, 10.0)
    for f in range(5):
        alone = ops.adaptation_loops(x[:, f : f + 1], decay, minimum[f : f + 1], 10.0)
        assert torch.equal(together[:, f : f + 1], alone)


@pytest.mark.parametrize("limit", [float("nan"), float("inf"), torch.tensor([3.0], dtype=F64), torch.tensor(3.0)])
def test_wrong_limit(limit: Any) -> None:
    with pytest.raises(SpecError, match="limit"):
        adapt(torch.zeros(1, 1, 5), 44100.0, limit=limit)
