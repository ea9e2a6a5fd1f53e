from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.signal
import torch

from psysim import ops
from psysim.errors import SpecError
from psysim.ops import reference
from psysim.ops._resample import resampling_taps

F64 = torch.float64
GOLDEN = Path(__file__).parents[1] / "reference" / "data" / "unit_resample.npz"
RATIOS = [(1, 1), (1, 4), (4, 1), (2, 3), (3, 2), (160, 441), (147, 160), (7, 1), (1, 9), (5, 7), (13, 4)]


def normal(seed: int, *shape: int, dtype: Any = F64) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).to(dtype)


def in_blocks(x: torch.Tensor, cuts: list[int], *args: Any) -> torch.Tensor:
    pieces, state = [], None
    *blocks, last = x.tensor_split(cuts, -1)
    for block in blocks:
        piece, state = ops.resample(block, *args, state=state, return_state=True)
        pieces.append(piece)
    return torch.cat([*pieces, ops.resample(last, *args, state=state)], -1)


def test_golden_taps_and_quarter_rate(dtype: Any) -> None:
    data = np.load(GOLDEN)
    taps = resampling_taps(1, 4)
    # The window's Bessel functions agree to a few units in the last place; the taps are below 1
    assert np.abs(taps.numpy() - data["h"]).max() <= 4 * 2.0**-53
    y = ops.resample(torch.from_numpy(data["x"])[None].to(dtype), 1, 4, taps)[0].numpy()
    assert y.shape == data["y"].shape
    # 81 products and sums; in float32 input and output are rounded by 2^-24, the input times the sum of the taps' sizes
    bound = 81 * 2.0**-53 if dtype == F64 else 2.0**-24 * (1 + np.abs(data["h"]).sum())
    assert np.abs(y - data["y"]).max() <= bound * max(np.abs(data["y"]).max(), np.abs(data["x"]).max())


@pytest.mark.parametrize(("up", "down"), RATIOS)
@pytest.mark.parametrize("samples", [1, 50, 1733])
def test_agrees_with_scipy(up: int, down: int, samples: int) -> None:
    x = normal(samples, 2, 3, samples)
    taps = resampling_taps(up, down)
    expected = scipy.signal.resample_poly(x.numpy(), up, down, axis=-1) if (up, down) != (1, 1) else None
    if expected is None:  # SciPy returns the input
        expected = scipy.signal.convolve(x.numpy(), taps.numpy()[None, None], mode="full")[..., 10 : 10 + samples]
    y = ops.resample(x, up, down, taps).numpy()
    assert y.shape == expected.shape
    products = len(taps) // up + 1
    assert np.abs(y - expected).max() <= products * 2.0**-52 * np.abs(x.numpy()).max() * np.abs(taps.numpy()).max()


@pytest.mark.parametrize("half", [0, 1, 3, 8, 21])
@pytest.mark.parametrize(("up", "down"), [(1, 1), (1, 4), (4, 1), (3, 2), (2, 3), (10, 7), (7, 10), (23, 2)])
def test_blocks_equal_one_pass(dtype: Any, up: int, down: int, half: int) -> None:
    """Also where the filter has fewer taps than phases, and where the first blocks give nothing."""
    x = normal(half, 2, 2, 130, dtype=dtype)
    args = (up, down, normal(3, 2 * half + 1))
    whole = ops.resample(x, *args)
    expected = reference.resample(x, *args)
    assert (whole - expected).abs().max() <= (1e-14 if dtype == F64 else 2.0**-23) * expected.abs().max()
    for cuts in ([down], [10 * down], [down, 2 * down, 3 * down, 7 * down], [110 // down * down, 120 // down * down]):
        assert torch.equal(in_blocks(x, cuts, *args), whole)
    end = 130 // down * down
    assert torch.equal(in_blocks(x[..., :end], [down, end], *args), ops.resample(x[..., :end], *args))


def test_many_segments_and_blocks_equal_one_pass() -> None:
    args = (1, 4, resampling_taps(1, 4))
    x = normal(1, 1, 3, 10_001)
    whole = ops.resample(x, *args)
    assert torch.equal(in_blocks(x, [4, 4000, 9000], *args), whole)
    assert torch.equal(ops.resample(x[:, 1:2, :], *args), whole[:, 1:2])


def test_blocks_of_the_definition_and_of_tritons_form_equal_one_pass(form: str) -> None:
    x, args = normal(5, 1, 2, 17), (3, 2, normal(3, 15))
    whole = ops.resample(x, *args)
    first, state = ops.resample(x[..., :4], *args, return_state=True)
    middle, state = ops.resample(x[..., 4:14], *args, state=state, return_state=True)
    last = ops.resample(x[..., 14:], *args, state=state)
    assert torch.equal(torch.cat([first, middle, last], -1), whole)
    first, state = reference.resample(x[..., :14], *args, return_state=True)
    last = reference.resample(x[..., 14:], *args, state=state)
    torch.testing.assert_close(torch.cat([first, last], -1), whole, rtol=0, atol=1e-14)


def test_gradients_through_blocks() -> None:
    taps, weight = normal(3, 15).requires_grad_(), normal(4, 1, 2, 26)
    slopes = []
    for run in (lambda x: ops.resample(x, 3, 2, taps), lambda x: in_blocks(x, [4, 14], 3, 2, taps)):
        x = normal(5, 1, 2, 17).requires_grad_()
        slopes.append(torch.autograd.grad((run(x) * weight).sum(), (x, taps)))
    for whole, blocks in zip(*slopes, strict=True):
        torch.testing.assert_close(blocks, whole, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("up", "down"), RATIOS)
def test_filter_and_transposed_filter(up: int, down: int, form: str) -> None:
    """<y, resample(x)> = <gradient, x>, and the gradient of the taps by its definition, over several segments."""
    samples = 2000 if form == "numba" else 12
    taps = resampling_taps(up, down, 2 if form == "triton" else 10).requires_grad_()
    x = normal(up, 1, 2, samples).requires_grad_()
    y = ops.resample(x, up, down, taps)
    weight = normal(down, *y.shape)
    grad_x, grad_taps = torch.autograd.grad((y * weight).sum(), (x, taps))
    product = float((y * weight).detach().sum())
    bound = 1e-13 * float((y * weight).detach().abs().sum())
    assert abs(float((grad_x * x).detach().sum()) - product) <= bound
    assert abs(float((grad_taps * taps).detach().sum()) - product) <= bound


def test_a_sound_shorter_than_the_filter(form: str) -> None:
    y = ops.resample(torch.ones(1, 1, 1, dtype=F64), 1, 2, torch.arange(9, dtype=F64))
    assert y.tolist() == [[[4.0]]]


def test_what_cannot_be_is_refused() -> None:
    x, taps = normal(1, 1, 1, 8), normal(2, 9)
    with pytest.raises(SpecError, match="2/4 must be in lowest terms: 1/2"):
        ops.resample(x, 2, 4, taps)
    with pytest.raises(SpecError, match="up = 0"):
        ops.resample(x, 0, 4, taps)
    with pytest.raises(SpecError, match=r"down = 1\.5 must be a whole number"):
        ops.resample(x, 1, 1.5, taps)  # type: ignore[call-overload]
    with pytest.raises(SpecError, match=r"taps must be an odd number.*got 8"):
        ops.resample(x, 1, 4, taps[:8])
    with pytest.raises(SpecError, match="multiple of down = 4 samples, got 7"):
        ops.resample(x[..., :7], 1, 4, taps, return_state=True)
    with pytest.raises(SpecError, match="state has 7 samples; it must be 8 or a smaller multiple of 4 long"):
        ops.resample(x, 1, 4, taps, state=normal(3, 1, 1, 7))
    with pytest.raises(SpecError, match="state must have shape"):
        ops.resample(x, 1, 4, taps, state=normal(3, 2, 1, 8))
    with pytest.raises(SpecError, match="is empty"):
        ops.resample(x[..., :0], 1, 4, taps)
    with pytest.raises(SpecError, match="half_length = 0"):
        resampling_taps(1, 4, 0)
    with pytest.raises(SpecError, match="lowest terms"):
        resampling_taps(2, 4)
