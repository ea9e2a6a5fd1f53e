from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

from psysim.results import empty_dataset


def _filled(n_conditions: int = 2, n_observers: int = 1, n_tracks: int = 3, seed: int = 0) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    n_trials, n_intervals = 6, 3
    ds = empty_dataset(
        {"rate_hz": [4 * 2**i for i in range(n_conditions)], "carrier": ["broadband", "Å"][:1] * n_conditions},
        [f"observer {i}" for i in range(n_observers)],
        n_tracks,
        n_trials,
        n_intervals,
        "dB",
        "Modulation depth, 20 log m (dB)",
        {"title": "Demo", "spec_toml": 'title = "Demo"', "provenance": '{"seed": 1}', "complete": 1},
    )
    shape = ds["n_trials"].shape
    count = rng.integers(1, n_trials + 1, shape)
    run = np.arange(n_trials) < count[..., None]
    target = rng.integers(0, n_intervals, run.shape)
    response = rng.integers(0, n_intervals, run.shape)
    ds["level"].values[run] = rng.normal(-20, 3, run.shape)[run]
    ds["target_interval"].values[run] = target[run]
    ds["response"].values[run] = response[run]
    ds["correct"].values[run] = (target == response)[run]
    ds["reversal"].values[run] = rng.integers(0, 2, run.shape)[run]
    ds["decision_variable"].values[run] = rng.normal(size=(*run.shape, n_intervals))[run]
    ds["threshold"].values[...] = rng.normal(-20, 2, shape)
    ds["threshold_sem"].values[...] = 0.5
    ds["n_trials"].values[...] = count
    ds["status"].values[...] = 1
    return ds


@pytest.fixture
def filled() -> Callable[..., Any]:
    """Return a maker of valid datasets with random trials."""
    return _filled
