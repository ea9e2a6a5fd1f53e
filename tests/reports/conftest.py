"""Synthetic runs: a real tracking rule answered by a known psychometric function, no sound and no model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
import tomli_w
import xarray as xr

from psysim.procedures import UpDown
from psysim.results import empty_dataset, validate

RATES = [4, 8, 16, 32, 64, 128, 256, 512]
RULE = {"n_up": 1, "n_down": 2, "level_start": -4.0, "level_max": 0.0, "steps": [4.0, 2.0, 1.0], "n_reversals": 6}
MAX_TRIALS = 120


def tmtf_level(rate_hz: float, peak_db: float = -24.0, cutoff_hz: float = 90.0) -> float:
    return peak_db + 10 * np.log10(1 + (rate_hz / cutoff_hz) ** 2)


def run_tracks(threshold: float, n_tracks: int, rng: np.random.Generator, rule: Mapping[str, Any]) -> dict[str, Any]:
    """Return trials and summary of tracks answered with a logistic psychometric function (3-AFC)."""
    procedure = UpDown(**rule, max_trials=MAX_TRIALS)
    state = procedure.init(n_tracks)
    trials = []
    while not state.done.all():
        live = ~state.done
        level = procedure.next_level(state)
        p = 1 / 3 + 2 / 3 / (1 + np.exp(-(level - threshold)))
        correct = rng.random(n_tracks) < p
        state = procedure.record(state, correct, live=live)
        trials.append((np.where(live, level, np.nan), correct, state.last_reversal & live, live))
    return {"trials": trials, "summary": procedure.summary(state)}


def make_run(
    factors: Mapping[str, Sequence[Any]] | None = None,
    observers: Sequence[str] = ("dau1997",),
    n_tracks: int = 8,
    threshold: Callable[..., float] = lambda rate_hz, **_: tmtf_level(rate_hz),
    offsets: Sequence[float] = (0.0, 3.0, 6.0),
    tracks: str = "depth_db",
    unit: str = "dB",
    long_name: str = "Modulation depth, 20 log m (dB)",
    rule: Mapping[str, Any] = RULE,
    stimulus: Mapping[str, Any] | None = None,
    human: Sequence[str] = (),
    title: str = "Temporal modulation transfer function, broadband noise carrier",
    calibration: Mapping[str, Any] | None = None,
    seed: int = 1,
    comparison: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    factors = {"rate_hz": RATES} if factors is None else factors
    rows = [dict(zip(factors, values, strict=True)) for values in product(*factors.values())]
    columns = {name: [row[name] for row in rows] for name in factors}
    spec = {
        "title": title,
        "human": list(human),
        "stimulus": dict(
            stimulus
            or {"kind": "am_noise", "level_db_spl": 70.0, "duration_s": 0.5, "ramp_s": 0.05, "compensate_level": True}
        ),
        "conditions": {name: list(values) for name, values in factors.items()},
        "task": {"kind": "afc", "n_intervals": 3},
        "procedure": {"kind": "up_down", "tracks": tracks, **rule, "max_trials": MAX_TRIALS},
        "observers": [{"name": name, "model": "dau1997", "decision": "optimal_detector"} for name in observers],
        "run": {"n_tracks": n_tracks, "seed": seed, "fs": 44100},
        "comparison": dict(comparison or {}),
    }
    provenance = {
        "psysim": "0.1.0",
        "created": "2026-01-02T03:04:05+00:00",
        "source": "tmtf.toml",
        "seed": seed,
        "device": "cpu",
        "python": "3.11.9",
        "platform": "linux x86_64",
        "torch": "2.11.0",
        "numpy": "2.3.5",
        "numba": "0.68.1",
        "calibration": calibration or {name: {"status": "calibrated", "internal_noise_std": 4.2} for name in observers},
    }
    ds = empty_dataset(
        columns,
        list(observers),
        n_tracks,
        MAX_TRIALS,
        3,
        unit,
        long_name,
        attrs={
            "title": title,
            "spec_toml": tomli_w.dumps(spec),
            "provenance": json.dumps(provenance),
            "complete": 1,
            "tracked_variable": tracks,
            "target_proportion": 2**-0.5,
        },
    )
    rng = np.random.default_rng(seed)
    for c, row in enumerate(rows):
        for o in range(len(observers)):
            result = run_tracks(threshold(**row) + offsets[o], n_tracks, rng, rule)
            for i, (level, correct, reversal, live) in enumerate(result["trials"]):
                ds["level"].values[c, o, :, i] = level
                ds["correct"].values[c, o, :, i] = np.where(live, correct, -1)
                ds["reversal"].values[c, o, :, i] = reversal
                ds["target_interval"].values[c, o, :, i] = np.where(live, 0, -1)
                ds["response"].values[c, o, :, i] = np.where(live, np.where(correct, 0, 1), -1)
            for name in ("threshold", "threshold_sem", "n_trials", "status"):
                ds[name].values[c, o, :] = getattr(result["summary"], name)
    last = int(ds["n_trials"].max())
    return validate(ds.isel(trial=slice(0, max(last, 1))), "synthetic run")


@pytest.fixture(scope="session")
def make() -> Callable[..., xr.Dataset]:
    return make_run


@pytest.fixture(scope="session")
def tmtf() -> xr.Dataset:
    """One observer, eight rates, compared with one human data set."""
    return make_run(human=["tmtf_parameters"])


@pytest.fixture(scope="session")
def hard() -> xr.Dataset:
    """Two observers, one of them weak: tracks at the upper limit at high rates; no human data."""
    return make_run(
        observers=("dau1997", "deaf <i>&amp;"),
        offsets=(0.0, 16.0),
        calibration={"dau1997": {"status": "calibrated"}, "deaf <i>&amp;": {"status": "not calibrated"}},
    )


@pytest.fixture(scope="session")
def bandwidths() -> xr.Dataset:
    """Two observers, two factors."""
    return make_run(
        factors={"bandwidth_hz": [3, 31, 314], "rate_hz": [4, 8, 16, 32, 64, 128]},
        observers=("dau1997", "paulick2024"),
        offsets=(0.0, 2.0),
        n_tracks=4,
        threshold=lambda bandwidth_hz, rate_hz: -10 - 6 * np.log10(bandwidth_hz) + 4 * np.log10(rate_hz),
    )


@pytest.fixture(scope="session")
def single() -> xr.Dataset:
    """One track: no interval can be given."""
    return make_run(n_tracks=1)


@pytest.fixture(scope="session")
def tiny() -> xr.Dataset:
    """The smallest TMTF that has a low-pass fit, for tests that write several reports."""
    return make_run(factors={"rate_hz": [4, 64, 256]}, n_tracks=1, human=["tmtf_parameters"])


@pytest.fixture(scope="session")
def tone() -> xr.Dataset:
    """Not a TMTF: tone in noise against frequency."""
    return make_run(
        factors={"frequency_hz": [250.0, 1000.0, 4000.0]},
        threshold=lambda frequency_hz: 40 + 3 * np.log2(frequency_hz / 1000),
        tracks="signal_level_db_spl",
        unit="dB SPL",
        long_name="Signal level (dB SPL)",
        rule={**RULE, "level_start": 65.0, "level_max": 90.0},
        stimulus={"kind": "tone_in_noise", "duration_s": 0.3, "masker_level_db_spl": 65.0},
        title="Tone in noise",
    )
