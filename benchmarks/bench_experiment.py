"""Whole experiments: trials per second, and how long the command line takes to answer.

Run alone: ``python benchmarks/bench_experiment.py [--json FILE]``; the classes also work under asv.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from psysim.experiments import load
from psysim.experiments.engine import run

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
        start = time.perf_counter()
        result = run(self.spec)
        return float(result["n_trials"].sum()) / (time.perf_counter() - start)


class CommandLine:
    """Start-up."""

    def track_help_seconds(self) -> float:
        """Return the time of ``psysim --help``."""
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "psysim", "--help"], check=True, capture_output=True)
        return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    arguments = parser.parse_args()
    rows = []
    for name in Experiment.params:
        bench = Experiment()
        bench.setup(name)
        rows.append({"what": name, "trials_per_second": round(bench.track_trials_per_second(name), 1)})
        print(f"{name:24s} {rows[-1]['trials_per_second']:10.1f} trials/s")
    seconds = min(CommandLine().track_help_seconds() for _ in range(5))
    rows.append({"what": "psysim --help", "seconds": round(seconds, 3)})
    print(f"{'psysim --help':24s} {seconds:10.3f} s")
    if arguments.json:
        from machine import describe

        arguments.json.write_text(json.dumps({"machine": describe(), "rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
