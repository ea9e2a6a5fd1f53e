"""Excitation-inhibition elements: what cancels, what does not, and the numbers of the formula."""

from __future__ import annotations

import math

import pytest
import torch

from psysim.errors import SpecError
from psysim.stages import ExcitationInhibition
from psysim.stages.binaural import double_exponential, framed, shifted

FS = 8000.0
FC = [250.0, 500.0]


def ears(batch: int = 3, samples: int = 1600, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return 100.0 * torch.randn(batch, 2, len(FC), samples, generator=generator, dtype=torch.float64).to(dtype)


def stage(**options) -> ExcitationInhibition:
    return ExcitationInhibition(FS, FC, **{"dtype": torch.float64, "delays_s": (-0.001, 0.0, 0.001), **options})


def test_equal_ears_silence_the_element_without_delay_only() -> None:
    x = ears()
    x[:, 1] = x[:, 0]
    y = stage()(x)
    assert y.shape == (3, 2, 3, 20)
    assert bool((y[:, :, 1] == 0).all())
    assert bool((y[:, :, [0, 2]] > 0).all())


@pytest.mark.parametrize(("lead", "element"), [(8, 2), (-8, 0)])
def test_a_delay_is_cancelled_by_the_element_that_has_it(lead: int, element: int) -> None:
    """Half a period of 500 Hz is 8 samples: the element that delays the leading ear by as much is silent."""
    x = ears()
    x[:, 0] = shifted(x[:, 1], lead)
    y = stage()(x)[..., 5:-5]
    silent = y.amax((0, 1, 3)) == 0
    assert silent.tolist() == [k == element for k in range(3)]


def test_a_level_difference_is_cancelled_by_the_element_that_has_its_gain() -> None:
    x = ears()
    x[:, 0] = x[:, 1] * 10 ** (6.0 / 20)  # the left ear is 6 dB louder; alpha = -6 dB takes it back
    y = stage(delays_s=(0.0,), gains_db=(-6.0, 0.0, 6.0))(x)
    assert float(y[:, :, 0].abs().max()) < 1e-20
    assert float(y[:, :, 1:].min()) > 0


def test_the_formula_for_a_constant_difference() -> None:
    """L - R = 30 in a long sound: E = 900 away from the ends, log(1 + 900 / knee), the weight of the delay besides."""
    x = torch.zeros(1, 2, 2, 32000, dtype=torch.float64)
    x[:, 0] = 30.0
    y = stage(knee=5e4)(x)[0, :, :, 200]
    weight = 10 ** (-torch.tensor([0.001, 0.0, 0.001], dtype=torch.float64) / 0.005)
    torch.testing.assert_close(y, (weight * math.log1p(900 / 5e4)).expand(2, 3), rtol=1e-9, atol=0.0)


def test_the_window_has_unit_area_and_falls_by_e_in_its_time_constant() -> None:
    x = torch.zeros(1, 401, dtype=torch.float64)
    x[0, 200] = 1.0
    y = double_exponential(x, 0.01, 0.03)[0]
    assert float(y.sum()) == pytest.approx(1.0, abs=1e-12)
    assert float(y[203] / y[200]) == pytest.approx(math.exp(-1), rel=1e-12)
    assert torch.equal(y, y.flip(0))


def test_frames_are_means_and_a_rest_is_left_out() -> None:
    assert framed(torch.arange(11.0), 4).tolist() == [1.5, 5.5]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_does_not_depend_on_the_batch(dtype: torch.dtype) -> None:
    x, own = ears(6, dtype=dtype), stage(dtype=dtype)
    together = own(x)
    assert together.dtype == dtype
    assert torch.equal(torch.stack([own(row) for row in x]), together)
    assert torch.equal(own(x[[4, 1]]), together[[4, 1]])


def test_gradients_and_learnable_constants() -> None:
    own = ExcitationInhibition(FS, FC, dtype=torch.float64, learnable=True)
    assert sorted(name for name, _ in own.named_parameters()) == ["delay_weight_s", "knee", "window_s"]
    x = ears(1, 320).requires_grad_()
    own(x).sum().backward()
    assert x.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.abs() > 0 for p in own.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"knee": 0.0}, "knee"),
        ({"frame_s": 0.0}, "frame_s"),
        ({"delays_s": ()}, "at least one"),
        ({"delays_s": (3.0,)}, "delays_s"),
        ({"gains_db": (100.0,)}, "gains_db"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        stage(**options)


def test_wrong_shapes() -> None:
    with pytest.raises(SpecError, match="above 0 Hz"):
        ExcitationInhibition(FS, [0.0])
    with pytest.raises(SpecError, match="two ears and 2 channels"):
        stage()(torch.zeros(1, 1, 2, 800, dtype=torch.float64))
