from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import torch
from op_cases.iirfilt import stable

from psysim import ops
from psysim.errors import SpecError
from psysim.ops import reference

F64 = torch.float64


def random_filter(order: int, channels: int = 3, samples: int = 150) -> tuple[np.ndarray, ...]:
    """Signals, one filter per channel with a0 different from 1, and states to start from."""
    rng = np.random.default_rng(order)
    a = np.stack([stable(rng, order) for _ in range(channels)]) * rng.uniform(0.5, 2.0, (channels, 1))
    return (
        rng.standard_normal((2, channels, samples)),
        rng.standard_normal(a.shape),
        a,
        rng.standard_normal((2, channels, order)),
    )


@pytest.mark.parametrize("order", range(1, 9))
def test_agrees_with_scipy_in_output_and_state(form: str, order: int) -> None:
    x, b, a, zi = random_filter(order, samples=20 if form == "triton" else 150)
    y, end = ops.iirfilt(
        *(torch.from_numpy(v) for v in (x, b[:, None], a[:, None])), state=torch.from_numpy(zi), return_state=True
    )
    for channel in range(x.shape[1]):
        expected, zf = scipy.signal.lfilter(b[channel], a[channel], x[:, channel], zi=zi[:, channel])
        # The same sums in the same order, but for fused multiply-add; poles inside 0.9 forget rounding in 10 samples
        assert np.abs(y[:, channel].numpy() - expected).max() <= 1e-12 * np.abs(expected).max()
        assert np.abs(end[:, channel].numpy() - zf).max() <= 1e-12 * np.abs(expected).max()


@pytest.mark.parametrize("order", [1, 2])
def test_low_orders_agree_with_the_definition(order: int) -> None:
    """They are run by `sosfilt`, whose states have two numbers per section."""
    x, b, a, zi = random_filter(order)
    sections = [torch.from_numpy(np.stack([v, np.roll(v, 1, 0)], 1)) for v in (b, a)]
    start = torch.from_numpy(np.concatenate([zi, -zi], -1))
    leaves = [torch.from_numpy(x).requires_grad_(), *(s.requires_grad_() for s in sections), start.requires_grad_()]
    outcomes = []
    for function in (ops.iirfilt, reference.iirfilt):
        y, end = function(*leaves[:3], state=leaves[3], return_state=True)
        slopes = torch.autograd.grad(
            (y * torch.cos(torch.arange(y.numel())).reshape(y.shape)).sum() + end.sum(), leaves
        )
        outcomes.append([y, end, *slopes])
    for ours, theirs in zip(*outcomes, strict=True):
        assert ours.shape == theirs.shape
        assert (ours - theirs).abs().max() <= 1e-11 * theirs.abs().max()


def test_cascade_of_fourth_order_equals_biquads() -> None:
    """Four biquads multiplied out in pairs."""
    sos = scipy.signal.ellip(8, 1, 60, [0.2, 0.5], "bandpass", output="sos")[:4]
    x = torch.from_numpy(np.random.default_rng(2).standard_normal((2, 3, 500)))
    pairs = [[np.convolve(first[c : c + 3], second[c : c + 3]) for c in (0, 3)] for first, second in (sos[:2], sos[2:])]
    b, a = (torch.from_numpy(np.stack([pair[i] for pair in pairs])) for i in (0, 1))
    expected = ops.sosfilt(x, torch.from_numpy(sos.copy()))
    # Poles of radius up to 0.99 multiplied out in double precision
    assert (ops.iirfilt(x, b, a) - expected).abs().max() <= 1e-10 * expected.abs().max()


def test_slow_lowpass_survives_float32() -> None:
    """Third order, 20 Hz at 44.1 kHz: the sum of b is 2.3e-8, a tenth of a float32 step of a1; a constant passes."""
    b, a = (torch.from_numpy(v)[None] for v in scipy.signal.butter(3, 20, fs=44100))
    y = ops.iirfilt(torch.ones(1, 1, 44100), b, a)
    assert y[0, 0, -1] == pytest.approx(1.0, abs=1e-6)


def test_tail_ends_in_silence() -> None:
    """A response that decays for ever would slow the arithmetic down when it reaches denormal numbers."""
    x = torch.zeros(1, 1, 6000, dtype=F64)
    x[0, 0, 0] = 1.0
    a = torch.from_numpy(np.poly([0.8, 0.5, -0.4]))[None]
    y = ops.iirfilt(x, torch.tensor([[1.0, 0.0, 0.0, 0.0]], dtype=F64), a)
    assert torch.count_nonzero(y[..., -1000:]) == 0
    assert y[0, 0, 1000].abs() > 1e-110


def test_a_wrong_filter_is_refused() -> None:
    x, b = torch.zeros(1, 2, 5), torch.ones(1, 4, dtype=F64)
    with pytest.raises(SpecError, match="order 0"):
        ops.iirfilt(x, b[:, :1], b[:, :1])
    with pytest.raises(SpecError, match=r"a must have shape \(1, 4\), got \(1, 3\)"):
        ops.iirfilt(x, b, b[:, :3])


@pytest.mark.parametrize("learn", [True, False])
def test_gradients_over_several_tiles(form: str, learn: bool) -> None:
    """The way back recomputes 64 samples at a time, from the states before them, and only if it needs them."""
    x, b, a, zi = (torch.from_numpy(v) for v in random_filter(3, channels=2, samples=130))
    leaves = {"x": x, "state": zi} | ({"b": b[:, None], "a": a[:, None]} if learn else {})
    arguments = {"b": b[:, None], "a": a[:, None]} | {name: leaf.requires_grad_() for name, leaf in leaves.items()}
    slopes = []
    for function in (ops.iirfilt, reference.iirfilt):
        y, end = function(**arguments, return_state=True)
        loss = (y * torch.cos(torch.arange(y.numel())).reshape(y.shape)).sum() + end.sum()
        slopes.append(torch.autograd.grad(loss, list(leaves.values())))
    for ours, theirs in zip(*slopes, strict=True):
        assert (ours - theirs).abs().max() <= 1e-11 * theirs.abs().max()
