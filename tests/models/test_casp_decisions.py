"""The documented decision methods of Paulick2024."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from psysim.errors import SpecError
from psysim.models import Jepsen2008, Paulick2024

FS = 22050.0


@pytest.fixture(scope="module")
def model() -> Paulick2024:
    return Paulick2024(fs=FS, n_channels=5)


@pytest.fixture(scope="module")
def channels(model: Paulick2024) -> list[Tensor]:
    return model(sounds())


def sounds(gain: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    x = 0.01 * torch.randn(3, 1200, generator=generator)
    return gain * x * torch.tensor([[1.0], [2.0], [4.0]])


def entries(channels: list[Tensor]) -> np.ndarray:
    """Return all samples of all filters, (B, N)."""
    return np.concatenate([y.double().numpy().reshape(len(y), -1) for y in channels], axis=1)


def test_region_by_hand(model: Paulick2024, channels: list[Tensor]) -> None:
    part = model.roi_selection(channels, time_window=(10, 60), channel_range=(1, 4), modulation_range=(2, 9))
    assert len(part) == 3
    for kept, whole in zip(part, channels[1:4], strict=True):
        assert torch.equal(kept, whole[:, 2:9, 10:60])
    assert all(torch.equal(a, b) for a, b in zip(model.roi_selection(channels), channels, strict=True))
    single = model.roi_selection(model(sounds()[0]), time_window=(0, 5))
    assert [y.shape for y in single] == [(y.shape[1], 5) for y in channels]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"time_window": (0.0, 0.1)}, r"time_window.*whole numbers.*<= 300"),
        ({"time_window": (5, 5)}, r"time_window"),
        ({"channel_range": (0, 6)}, r"channel_range.*<= 5"),
        ({"modulation_range": (-1, 3)}, r"modulation_range"),
    ],
)
def test_an_impossible_region_is_refused(
    model: Paulick2024, channels: list[Tensor], options: dict, message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        model.roi_selection(channels, **options)


def test_template_correlation(model: Paulick2024, channels: list[Tensor]) -> None:
    template = [y[1] for y in channels]
    x = entries(channels)
    found = model.template_correlation(channels, template)
    np.testing.assert_allclose(found, [np.corrcoef(row, x[1])[0, 1] for row in x], rtol=1e-10)
    np.testing.assert_allclose(model.template_correlation(channels, template, normalize=False), x @ x[1], rtol=1e-10)
    np.testing.assert_allclose(model.template_correlation(channels, channels), np.ones(3), rtol=1e-12)
    one = model.template_correlation([y[0] for y in channels], template)
    assert one.shape == ()
    assert float(one) == float(found[0])
    with pytest.raises(SpecError, match="same channels, filters and samples"):
        model.template_correlation(channels, template[:-1])


def test_decision_variable(model: Paulick2024, channels: list[Tensor]) -> None:
    x = entries(channels)
    expected = {
        "rms": np.sqrt((x**2).mean(1)),
        "mean": x.mean(1),
        "max": x.max(1),
        "l2": np.sqrt((x**2).sum(1)),
    }
    for metric, value in expected.items():
        np.testing.assert_allclose(model.compute_decision_variable(channels, metric), value, rtol=1e-10)
    assert torch.equal(model.compute_decision_variable(channels), model.compute_decision_variable(channels, "rms"))
    assert model.compute_decision_variable([y[0] for y in channels]).shape == ()


def test_weights(model: Paulick2024, channels: list[Tensor]) -> None:
    most = max(y.shape[1] for y in channels)
    by_channel, by_filter = torch.arange(5) / 2.0, torch.arange(most) + 1.0
    found = model.compute_decision_variable(channels, "l2", by_channel, by_filter.tolist())
    weighted = [y * c * by_filter[: y.shape[1], None] for y, c in zip(channels, by_channel, strict=True)]
    np.testing.assert_allclose(found, np.sqrt((entries(weighted) ** 2).sum(1)), rtol=1e-6)
    with pytest.raises(SpecError, match=r"channel_weights has shape \(4,\), but must have shape \(5,\)"):
        model.compute_decision_variable(channels, channel_weights=[1.0] * 4)


def test_decisions(model: Paulick2024) -> None:
    values = torch.tensor([-1.0, 0.0, 2.0, torch.nan])
    assert model.make_decision(values).tolist() == [False, False, True, False]
    assert model.make_decision(values, threshold=1.0, criterion="less").tolist() == [True, True, False, False]
    assert model.make_decision(values, threshold=torch.tensor([-2.0, 1.0, 1.0, 1.0])).tolist()[:2] == [True, False]
    assert bool(model.make_decision(0.5))


def test_detection(model: Paulick2024) -> None:
    noise = sounds()
    decision, difference = model.detection_task(sounds(2.0), noise, return_decision_var=True)
    assert decision.tolist() == [True] * 3
    expected = model.compute_decision_variable(model(sounds(2.0))) - model.compute_decision_variable(model(noise))
    torch.testing.assert_close(difference, expected, rtol=0, atol=1e-12)
    assert not model.detection_task(noise, noise).any()  # equal is not more
    assert model.detection_task(sounds(2.0), noise, threshold=float(difference[1])).tolist() == (
        (difference > difference[1]).tolist()
    )
    against_silence = model.detection_task(noise, return_decision_var=True)[1]
    torch.testing.assert_close(against_silence, model.compute_decision_variable(model(noise)), rtol=0.02, atol=0)
    assert model.detection_task(sounds(2.0)[0], noise[0]).shape == ()
    with pytest.raises(SpecError, match=r"signal_audio has shape.*noise_audio"):
        model.detection_task(noise, noise[:, :-1])


def test_discrimination(model: Paulick2024) -> None:
    a, b = sounds(), sounds(1.5)
    assert model.discrimination_task(a, b).tolist() == [1, 1, 1]
    assert model.discrimination_task(b, a, criterion="l2").tolist() == [0, 0, 0]
    assert model.discrimination_task(a, a).tolist() == [0, 0, 0]
    b[1, 700] = torch.nan
    chosen, difference = model.discrimination_task(a, b, return_decision_var=True)
    assert chosen.tolist() == [1, -1, 1]
    assert difference.isnan().tolist() == [False, True, False]
    assert int(model.discrimination_task(sounds()[0], sounds(1.5)[0])) == 1


def test_a_wrong_name_gets_the_nearest(model: Paulick2024, channels: list[Tensor]) -> None:
    with pytest.raises(SpecError, match="Did you mean 'rms'"):
        model.compute_decision_variable(channels, "rmss")
    with pytest.raises(SpecError, match="Did you mean 'mean'"):
        model.detection_task(sounds(), metric="means")
    with pytest.raises(SpecError, match="Did you mean 'greater'"):
        model.make_decision(torch.zeros(1), criterion="greatr")
    with pytest.raises(SpecError, match=r"internal_repr must be the model's output"):
        model.compute_decision_variable([y.tolist() for y in channels])
    with pytest.raises(SpecError, match=r"internal_repr must be the model's output"):
        model.compute_decision_variable([channels[0], channels[1][:, :, :-1]])


def test_a_row_is_the_same_in_any_batch(model: Paulick2024, channels: list[Tensor]) -> None:
    for metric in ("rms", "mean", "max", "l2"):
        together = model.compute_decision_variable(channels, metric)
        for row in range(3):
            alone = model.compute_decision_variable([y[row : row + 1] for y in channels], metric)
            assert torch.equal(alone, together[row : row + 1])


def test_they_are_differentiable(model: Paulick2024) -> None:
    x = sounds()[:1].requires_grad_()
    value = model.compute_decision_variable(model(x), "rms")
    (slope,) = torch.autograd.grad(value.sum(), x)
    assert slope.isfinite().all()
    assert slope.abs().max() > 0


def test_the_variant_of_2008_has_them_too() -> None:
    model = Jepsen2008(fs=FS, n_channels=3)
    assert model.detection_task(sounds(2.0), sounds()).all()
