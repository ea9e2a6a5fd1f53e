"""Data sets of neural responses: schema, files, simulated populations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from psysim.errors import SpecError, StoreError
from psysim.evaluation.neural_data import (
    check_neural_data,
    open_neural_data,
    poisson_counts,
    save_neural_data,
    simulate_population,
)
from psysim.evaluation.neural_metrics import signal_power


def test_a_file_gives_back_the_data(tmp_path):
    ds = simulate_population(n_stimuli=2, n_frames=30)
    path = save_neural_data(ds, tmp_path / "population.nc")
    xr.testing.assert_identical(open_neural_data(path), ds)
    with pytest.raises(StoreError, match="exists"):
        save_neural_data(ds, path)
    with pytest.raises(StoreError, match=r"\.nc"):
        save_neural_data(ds, tmp_path / "population.zarr")
    (tmp_path / "text.nc").write_text("no data")
    with pytest.raises(StoreError, match="cannot be read"):
        open_neural_data(tmp_path / "text.nc")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ds: ds.drop_vars("responses"), "'responses'"),
        (lambda ds: ds.drop_vars("spectrogram"), "either 'spectrogram' or 'waveform'"),
        (lambda ds: ds.assign_attrs(dt_ms=0.0), "dt_ms is 0.0"),
        (lambda ds: ds.assign_attrs(dt_ms="five"), "dt_ms is 'five'"),
        (lambda ds: ds.assign(responses=-ds["responses"] - 1), "at least 0"),
        (lambda ds: ds.assign(responses=ds["responses"] * np.nan), "not all NaN"),
        (lambda ds: ds.assign(spectrogram=ds["spectrogram"] * np.nan), "frames that have responses"),
        (lambda ds: ds.transpose("neuron", ...), "expected"),
    ],
)
def test_what_is_wrong_is_said(change, message):
    with pytest.raises(SpecError, match=message):
        check_neural_data(change(simulate_population(n_stimuli=2, n_frames=20)))


def test_counts_are_poisson_and_keyed():
    rate = torch.tensor([0.2, 3.0]).double()[None, :, None].expand(2, 2, 4000)
    counts = poisson_counts(rate, 4, seed=3)
    assert counts.shape == (2, 2, 4, 4000)
    for moment in (counts.mean((0, 2, 3)), counts.var((0, 2, 3))):
        assert (moment / rate[0, :, 0] - 1).abs().max() < 0.05
    assert torch.equal(poisson_counts(rate, 2, seed=3), counts[:, :, :2])
    assert not torch.equal(poisson_counts(rate, 4, seed=4), counts)
    pairs = torch.corrcoef(counts[0].flatten(0, 1)[:, :]) - torch.eye(8)
    assert pairs.abs().max() < 0.08
    with pytest.raises(SpecError, match="at least 0"):
        poisson_counts(-rate, 1, seed=0)


def test_signal_power_of_a_population_is_that_of_its_rates():
    ds = simulate_population(n_neurons=3, n_stimuli=8, n_frames=800, mean_count=2.0)
    assert np.allclose((ds["strf"] ** 2).sum(("band", "lag")), 1.0)
    found = signal_power(torch.from_numpy(ds["responses"].values))
    # the drive has a variance of 1, so the rate one of (2/4)^2; the noise is Poisson: variance = mean count
    assert (found.signal / 0.25 - 1).abs().max() < 0.1
    assert (found.noise / 2.0 - 1).abs().max() < 0.05
    with pytest.raises(SpecError, match="nonlinearity"):
        simulate_population(nonlinearity="cubic")
