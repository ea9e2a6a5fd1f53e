"""Whole experiments: trials per second, and how long the command line takes to answer.

Run alone: ``python benchmarks/bench_experiment.py [--json FILE]``; the classes also work under asv. The demo is run in
full with the observer's path in one pass and without it, and its thresholds have to be the same.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import numpy as np
from measure import write_json

from psysim.experiments import load
from psysim.experiments.engine import run
from psysim.models import Model

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


class Experiment:
    """Trials per second, templates and calibration included."""

    params = ("simulated_listener", "intensity_jnd", "demo_tmtf", "tmtf_narrowband")
    param_names = ("experiment",)
    timeout = 900

    def setup(self, name: str) -> None:
        """Load the quick form of an experiment."""
        profile = None if name == "simulated_listener" else "quick"
        self.spec = load(EXPERIMENTS / f"{name}.toml", profile=profile)
        run(load(EXPERIMENTS / f"{name}.toml", profile=profile, overrides={"run.n_tracks": 1}))  # compile

    def track_trials_per_second(self, name: str) -> float:
        """Return trials per second of the whole run."""
        return trials_per_second(self.spec)[0]


class OnePass:
    """The demo in full, with the representation's inner products in one pass, and by way of the representation."""

    params = ("one pass", "representation")
    param_names = ("path",)
    timeout = 1800
    overrides: ClassVar[dict[str, Any]] = {}

    def setup(self, path: str) -> None:
        self.spec = load(EXPERIMENTS / "demo_tmtf.toml", overrides=self.overrides)
        self.path = path
        with self.chosen():
            run(load(EXPERIMENTS / "demo_tmtf.toml", profile="quick", overrides={"run.n_tracks": 1, **self.overrides}))

    def chosen(self) -> Any:
        """Switch the path in one pass off, if the other is wanted: a model says None when it has none."""
        if self.path == "one pass":
            return mock.patch.object(Model, "products", Model.products)
        return mock.patch.object(Model, "products", return_value=None)

    def track_trials_per_second(self, path: str) -> float:
        """Return trials per second of the whole run."""
        with self.chosen():
            speed, self.result = trials_per_second(self.spec)
        return speed


class CommandLine:
    """Start-up."""

    def track_help_seconds(self) -> float:
        """Return the time of ``psysim --help``."""
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "psysim", "--help"], check=True, capture_output=True)
        return time.perf_counter() - start


def trials_per_second(spec: Any) -> tuple[float, Any]:
    """Run an experiment; return trials per second and the result."""
    start = time.perf_counter()
    result = run(spec)
    return float(result["n_trials"].sum()) / (time.perf_counter() - start), result


def compare_paths() -> list[dict[str, Any]]:
    """Run the demo both ways; every row says whether the thresholds are those of the first."""
    rows: list[dict[str, Any]] = []
    thresholds: list[Any] = []
    for path in OnePass.params:
        bench = OnePass()
        bench.setup(path)
        speed = bench.track_trials_per_second(path)
        thresholds.append(bench.result["threshold"].values)
        same = bool(np.array_equal(thresholds[-1], thresholds[0], equal_nan=True))
        rows.append(
            {"what": f"demo_tmtf in full, {path}", "trials_per_second": round(speed, 1), "same_thresholds": same}
        )
    return rows


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiments", nargs="*", default=Experiment.params, help="names; default: all")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    arguments = parser.parse_args(argv)
    rows: list[dict[str, Any]] = []

    def add(row: dict[str, Any]) -> None:
        rows.append(row)
        print(f"{row['what']:36s} {row['trials_per_second']:10.1f} trials/s", flush=True)

    for name in arguments.experiments:
        bench = Experiment()
        bench.setup(name)
        add({"what": name, "trials_per_second": round(bench.track_trials_per_second(name), 1)})
    for row in compare_paths():
        add(row)
    same = all(row.get("same_thresholds", True) for row in rows)
    print("thresholds of the two paths:", "the same" if same else "DIFFERENT")
    seconds = min(CommandLine().track_help_seconds() for _ in range(5))
    rows.append({"what": "psysim --help", "seconds": round(seconds, 3)})
    print(f"{'psysim --help':36s} {seconds:10.3f} s")
    write_json(arguments.json, rows=rows)
    return 0 if same else 1


if __name__ == "__main__":
    raise SystemExit(main())
