from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.signal
import torch

from psysim import ops
from psysim.ops import reference

F64 = torch.float64


def section(ba: np.ndarray) -> np.ndarray:
    """A first- or second-order filter (2, n) as one section (1, 6)."""
    sos = np.zeros((1, 6))
    sos[0, : ba.shape[1]], sos[0, 3 : 3 + ba.shape[1]] = ba
    return sos


# README_dau_osses.md: common_ihc agrees to 2e-15 in float64 and 1e-6 in float32, of the peak. The bound in float64 is
# ten times that, for processors without fused multiply-add.
@pytest.mark.parametrize(
    ("method", "coefficients", "passes"),
    [
        ("dau1996", "butter1_1000", 1),
        ("dau1996_order2", "butter1_1000", 2),
        ("breebaart2001", "butter1_2000", 5),
        ("king2019", "butter1_1000", 1),
        ("lindemann1986", "butter1_800", 1),
        ("relanoiborra2019", "butter2_1000", 1),
    ],
)
def test_golden_hair_cell_filters(golden: Any, dtype: Any, method: str, coefficients: str, passes: int) -> None:
    data = golden("ihc")
    sos = torch.from_numpy(section(data[f"{coefficients}_fs44100"])).repeat(passes, 1)
    x = torch.from_numpy(data["x"])[None].relu().to(dtype)
    result = ops.sosfilt(x, sos)[0, :, data["t_idx"]].numpy()
    expected = data[f"ihc_{method}"]
    assert np.abs(result - expected).max() <= (2e-14 if dtype == F64 else 1e-6) * np.abs(expected).max()


def test_agrees_with_scipy_per_channel() -> None:
    rng = np.random.default_rng(3)
    designs = [scipy.signal.butter(6, cut, "bandpass", output="sos") for cut in ((0.1, 0.3), (0.02, 0.5), (0.4, 0.9))]
    x = rng.standard_normal((2, 3, 501))
    expected = np.stack([scipy.signal.sosfilt(sos, x[:, f]) for f, sos in enumerate(designs)], 1)
    result = ops.sosfilt(torch.from_numpy(x), torch.from_numpy(np.stack(designs))).numpy()
    assert np.abs(result - expected).max() <= 1e-12 * np.abs(expected).max()


def test_slow_lowpass_survives_float32() -> None:
    """The 2.5-Hz lowpass at 44.1 kHz, whose 1 + a1 + a2 is one float32 step, passes DC with gain 1."""
    sos = torch.from_numpy(scipy.signal.butter(2, 2.5, fs=44100, output="sos"))
    y = ops.sosfilt(torch.ones(1, 1, 88200), sos)
    assert y[0, 0, -1] == pytest.approx(1.0, abs=1e-6)


def test_sections_are_divided_by_a0() -> None:
    x = torch.linspace(-1, 1, 20, dtype=F64).reshape(1, 1, 20)
    sos = torch.tensor([[0.4, 0.2, 0.1, 1.0, -0.5, 0.25]], dtype=F64)
    torch.testing.assert_close(ops.sosfilt(x, 4.0 * sos), ops.sosfilt(x, sos), rtol=1e-15, atol=0)


def test_per_channel_sections_and_their_gradients() -> None:
    rng = np.random.default_rng(5)
    x = torch.from_numpy(rng.standard_normal((2, 3, 40)))
    sos = torch.tensor([[0.4, 0.2, 0.1, 1.0, -0.5, 0.25], [1.0, -0.3, 0.2, 1.0, 0.1, 0.5]], dtype=F64)
    sos = sos * torch.linspace(0.8, 1.1, 3, dtype=F64)[:, None, None]
    leaves = (x.requires_grad_(), sos.requires_grad_())
    assert torch.autograd.gradcheck(ops.sosfilt, leaves, rtol=1e-5)
    torch.testing.assert_close(ops.sosfilt(*leaves), reference.sosfilt(*leaves), rtol=1e-12, atol=1e-12)


def test_tail_ends_in_silence() -> None:
    """A response that decays for ever would slow the arithmetic down when it reaches denormal numbers."""
    x = torch.zeros(1, 1, 6000, dtype=F64)
    x[0, 0, 0] = 1.0
    y = ops.sosfilt(x, torch.tensor([[0.1, 0.1, 0.0, 1.0, -0.8, 0.0]], dtype=F64))
    assert torch.count_nonzero(y[..., -1000:]) == 0
    assert y[0, 0, 1000] > 1e-110
