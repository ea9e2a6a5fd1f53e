"""Every registered rule runs in an experiment and ends where its listener says, or is refused for a reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from psysim.experiments import loads
from psysim.experiments.engine import make_procedure, run
from psysim.experiments.plan import expected_trials
from psysim.experiments.spec import ExperimentSpec, SpecProblems
from psysim.procedures import PsychometricFunction, expected_threshold, registry
from psysim.results.tables import thresholds

LISTENER = """
title = "Simulated listener"
[stimulus]
kind = "am_noise"
[conditions]
rate_hz = [4, 16]
[task]
kind = "afc"
[[observers]]
decision = "simulated_listener"
threshold = -15.0
slope = 0.06
[run]
n_tracks = 60
seed = 3
fs = 8000
"""

AT_CHANCE = ("adjustment", "bekesy", "method_of_limits")
"""Rules that settle at half the answers, which is nothing to measure with two alternatives."""


def experiment(kind: str, n_intervals: int) -> ExperimentSpec:
    """Return the experiment with a rule in its example settings."""
    table: dict[str, Any] = {"kind": kind, "tracks": "depth_db", **registry.get(kind).example_settings}
    overrides = {f"procedure.{name}": value for name, value in table.items()} | {"task.n_intervals": n_intervals}
    return loads(LISTENER, overrides=overrides)


@pytest.mark.parametrize("kind", registry.names())
def test_thresholds_are_the_listeners(kind: str) -> None:
    """The mean of 120 tracks is the level of the target proportion, within 1.5 dB (the rules' bias) and 4 errors."""
    n_intervals = 8 if kind in AT_CHANCE else 2
    spec = experiment(kind, n_intervals)
    result = run(spec)
    found = result["threshold"].values.ravel()
    found = found[np.isfinite(found)]
    assert len(found) > 0.9 * 120
    listener = PsychometricFunction(-15.0, 0.06, guess_rate=1 / n_intervals)
    target = float(expected_threshold(listener, make_procedure(spec)))
    assert abs(found.mean() - target) < 1.5 + 4 * found.std(ddof=1) / np.sqrt(len(found))
    assert thresholds(result)["threshold"].notna().all()
    assert expected_trials(spec) > 5


@pytest.mark.parametrize("kind", AT_CHANCE)
def test_a_rule_that_settles_at_chance_is_refused(kind: str) -> None:
    with pytest.raises(SpecProblems, match=r"settles at 50 % correct here, which guessing reaches"):
        experiment(kind, 2)
