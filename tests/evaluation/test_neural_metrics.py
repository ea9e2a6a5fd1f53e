"""Losses and metrics of neural responses: numbers of deepSTRF 0.1.0, and what must hold of any such measure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from psysim.errors import SpecError
from psysim.evaluation import neural_metrics as metrics

DATA = Path(__file__).parents[1] / "reference" / "data" / "deepstrf"
TOLERANCE = 1e-9


def read(name: str) -> dict[str, np.ndarray]:
    with np.load(DATA / f"{name}.npz") as file:
        return {key: file[key] for key in file.files if key != "meta"}


def close(value: torch.Tensor, reference: np.ndarray) -> None:
    assert value.shape == reference.shape
    assert np.abs(value.numpy() - reference).max() <= TOLERANCE * np.abs(reference).max()


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return read("metrics")


@pytest.mark.parametrize(
    ("key", "function"),
    [
        ("mse", metrics.mean_squared_error),
        ("corrcoef", metrics.correlation),
        ("fve", metrics.fraction_explained),
        ("ccnorm_schoppe", lambda p, y: metrics.normalised_correlation(p, y, "published")),
        ("ccnorm_hsu", lambda p, y: metrics.normalised_correlation_hsu(p, y, "published")),
        ("ccmax", lambda p, y: metrics.correlation(p, y) / metrics.normalised_correlation_hsu(p, y, "published")),
        ("ccnorm_single_trial", lambda p, y: metrics.correlation(p, metrics.psth(y)[:, :, None])),
    ],
)
def test_golden(golden, key, function):
    close(function(torch.from_numpy(golden["pred"]), torch.from_numpy(golden["resp"])), golden[key])


def test_golden_poisson(golden):
    pred, resp = torch.from_numpy(golden["pred"]), torch.from_numpy(golden["resp"])
    # the reference took absolute values of both, so that they are rates; of a logarithm none is needed
    close(metrics.poisson_loss(pred.abs(), resp.abs()), golden["poisson"])
    close(metrics.poisson_loss(pred, resp.abs(), log_input=True), golden["poisson_loginput"])


def test_golden_powers(golden):
    found = metrics.signal_power(torch.from_numpy(golden["resp"]))
    close(found.signal, golden["signal_power"])
    close(found.noise, golden["noise_power"])
    close(metrics.psth(torch.from_numpy(golden["resp"])).nan_to_num(7), np.nan_to_num(golden["psth"][:, :, 0], nan=7))


def test_true_signal_scores_one_with_offsets_between_stimuli():
    golden = read("metrics_between_stimulus_offset")
    pred, resp = torch.from_numpy(golden["pred"]), torch.from_numpy(golden["resp"])
    close(metrics.normalised_correlation(pred, resp, "published"), golden["ccnorm_schoppe"])
    close(metrics.normalised_correlation_hsu(pred, resp, "published"), golden["ccnorm_hsu"])
    assert golden["ccnorm_schoppe"].max() > 3
    for function in (metrics.normalised_correlation, metrics.normalised_correlation_hsu):
        value = function(pred, resp)
        assert (value - 1).abs().max() < 0.05
    assert (metrics.explained_signal_power(pred, resp) - 1).abs().max() < 0.1
    shifted = resp + 100 * torch.arange(len(resp))[:, None, None, None]
    for function in (metrics.normalised_correlation, metrics.normalised_correlation_hsu):
        torch.testing.assert_close(function(pred, shifted), function(pred, resp))


def test_padding_with_nan_changes_nothing(golden):
    pred, resp = torch.from_numpy(golden["pred"]), torch.from_numpy(golden["resp"])
    wide = torch.nn.functional.pad(resp, (0, 9, 0, 2), value=torch.nan)
    longer = torch.nn.functional.pad(pred, (0, 9), value=5.0)
    for function in (
        metrics.mean_squared_error,
        metrics.normalised_correlation,
        metrics.normalised_correlation_hsu,
        metrics.explained_signal_power,
        metrics.fraction_explained,
    ):
        torch.testing.assert_close(function(longer, wide), function(pred, resp))


def test_random_splits_estimate_what_all_splits_do():
    noise = torch.randn(3, 4, 12, 200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    signal = torch.sin(torch.arange(200.0, dtype=torch.float64) / 7).expand(3, 4, 200)
    responses = signal[:, :, None] + noise
    some, every = (metrics.normalised_correlation_hsu(signal, responses, n_splits=n) for n in (60, 500))
    assert (some - every).abs().max() < 0.01
    assert (every - 1).abs().max() < 0.08
    half = metrics._splits(20, 126, 0)
    together = (half[:, 0, 0] == half[:, 0, 1]).double().mean()
    assert 0.3 < together < 0.65  # repeats 0 and 1 are not always in one half


def test_gradients_are_finite_where_responses_are_missing():
    responses = torch.ones(1, 2, 3, 5)
    responses[0, 0, :, 3:] = torch.nan
    predicted = torch.zeros(1, 2, 5, requires_grad=True)
    metrics.poisson_loss(predicted, responses).sum().backward()
    assert predicted.grad is not None
    assert predicted.grad.isfinite().all()
    assert (predicted.grad[0, 0, 3:] == 0).all()


def test_no_signal_is_nan_and_shapes_are_checked():
    responses = torch.zeros(1, 1, 2, 4)
    assert metrics.normalised_correlation(torch.arange(4.0)[None, None], responses).isnan().all()
    with pytest.raises(SpecError, match=r"expected \(B, N, R, T\)"):
        metrics.psth(torch.zeros(2, 3))
    with pytest.raises(SpecError, match="expected \\(1, 1, 4\\)"):
        metrics.mean_squared_error(torch.zeros(1, 1, 5), responses)
    with pytest.raises(SpecError, match="pooling"):
        metrics.correlation(torch.zeros(1, 1, 4), responses, "both")
