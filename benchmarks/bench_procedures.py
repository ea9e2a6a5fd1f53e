"""Speed of the tracking rules, in lane-trials per second, beside expyfun if it is installed.

asv-style classes (``time_*``, ``track_*``), and runnable alone:

    python benchmarks/bench_procedures.py [--lanes 10000] [--seconds 1.0] [--json PATH]

A lane-trial is one trial of one track: ``next_level`` and ``record``. Answers are drawn beforehand. The tracks are 50
trials old and all of them running (ended ones are set running again), so that all branches are in use. Nothing is
written unless ``--json`` is given.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from measure import write_json

from psysim.procedures import Procedure, TrackState, UpDown, WeightedUpDown, d_prime_mafc, registry

LEVELS = {"level_start": -4.0, "level_min": -60.0, "level_max": 0.0, "steps": [4.0, 2.0, 1.0], "max_trials": 1_000_000}
MOVES = {name: value for name, value in LEVELS.items() if name != "steps"}
CASES: dict[str, Callable[[], Procedure]] = {
    "up_down, stops by 8 reversals": lambda: UpDown(**LEVELS, n_reversals=8),
    "up_down, stops by 200 trials": lambda: UpDown(**LEVELS | {"max_trials": 200}, stop="trials", n_trials=200),
    "weighted_up_down": lambda: WeightedUpDown(**LEVELS, n_reversals=8),
    "pest": lambda: registry.get("pest")(**MOVES, step_start=8.0, step_min=1e-9),
    "asa": lambda: registry.get("asa")(**MOVES, gain=8.0, n_trials=1_000_000),
    "bekesy": lambda: registry.get("bekesy")(**MOVES, rate=1.0, n_reversals=20),
    "method_of_limits": lambda: registry.get("method_of_limits")(**MOVES, level_start_hard=-30.0, step=1.0),
    "adjustment": lambda: registry.get("adjustment")(**MOVES, steps=[4.0, 2.0, 1.0]),
    "constant_stimuli": lambda: registry.get("constant_stimuli")(levels=[-20.0, -15.0, -10.0], n_per_level=100),
    "interleaved, two of up_down": lambda: registry.get("interleaved")(
        rules=[
            {"kind": "up_down", "n_down": n, "stop": "trials", "n_trials": 150, **LEVELS | {"max_trials": 150}}
            for n in (2, 3)
        ]
    ),
    "up_down, steps in dB": lambda: UpDown(
        **LEVELS | {"level_start": 100.0, "level_min": 1.0, "level_max": 1e3}, step_unit="db"
    ),
}


def endless(state: TrackState) -> TrackState:
    """Return the state with all ended tracks running again."""
    return replace(state, status=np.zeros(len(state), np.int8))


class Record:
    """One trial of all lanes."""

    params: ClassVar = [list(CASES), [100, 10_000]]
    param_names: ClassVar = ["rule", "lanes"]

    def setup(self, rule: str, lanes: int) -> None:
        rng = np.random.default_rng(1)
        self.lanes, self.procedure = lanes, CASES[rule]()
        self.answers = rng.random((64, lanes)) < 0.75
        state = self.procedure.init(lanes)
        for k in range(50):
            state = endless(self.procedure.record(state, self.answers[k]))
        self.state, self.k = state, 0

    def step(self) -> None:
        self.k = (self.k + 1) % 64
        self.procedure.next_level(self.state)
        self.procedure.record(self.state, self.answers[self.k])

    def time_record(self, rule: str, lanes: int) -> None:
        self.step()

    def time_summary(self, rule: str, lanes: int) -> None:
        self.procedure.summary(self.state)

    def time_refill_a_tenth(self, rule: str, lanes: int) -> None:
        self.state.put(np.arange(lanes // 10), self.procedure.init(lanes // 10))

    def track_lane_trials_per_second(self, rule: str, lanes: int) -> float:
        return self.lanes / best_time(self.step, 0.3)

    track_lane_trials_per_second.unit = "lane-trials/s"  # type: ignore[attr-defined]


class WholeTracks:
    """All lanes from the first trial to the thresholds, with the refilling of ended lanes left out."""

    params: ClassVar = [registry.names()]
    param_names: ClassVar = ["rule"]

    def setup(self, rule: str) -> None:
        self.procedure = registry.get(rule)(**registry.get(rule).example_settings)
        self.answers = np.random.default_rng(1).random((200, 10_000)) < 0.75

    def time_tracks(self, rule: str) -> None:
        state = self.procedure.init(10_000)
        for row in self.answers:
            if state.done.all():
                break
            state = self.procedure.record(state, row)
        self.procedure.summary(state)


class Detection:
    """Signal detection theory on arrays."""

    def setup(self) -> None:
        self.p = np.linspace(0.34, 0.999, 10_000)

    def time_d_prime_3afc(self) -> None:
        d_prime_mafc(self.p, 3)


def best_time(call: Callable[[], object], seconds: float) -> float:
    """Return the shortest time of a call within about ``seconds``."""
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def expyfun_rate(seconds: float) -> float | None:
    """Return trials per second of expyfun's tracker (one object per track), or None if it is not installed."""
    try:
        from expyfun.stimuli import TrackerUD
    except ImportError:
        return None
    answers = (np.random.default_rng(1).random(50) < 0.75).tolist()

    def track() -> None:
        steps = [4.0, 2.0, 1.0]
        tracker = TrackerUD(None, 1, 2, steps, steps, np.inf, 1000, -4.0, [2, 4], "reversals", -60.0, 0.0)
        for right in answers:
            tracker.respond(right)

    return len(answers) / best_time(track, seconds)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Speed of the tracking rules.")
    parser.add_argument("--lanes", type=int, default=10_000, help="tracks side by side")
    parser.add_argument("--seconds", type=float, default=1.0, help="time per measurement")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    arguments = parser.parse_args(argv)

    rates: dict[str, float] = {}
    print(f"{'rule':34s} {'lanes':>6s} {'us/step':>9s} {'million lane-trials/s':>22s} {'summary ms':>11s}")
    for name in CASES:
        for lanes in (1, 100, arguments.lanes):
            bench = Record()
            bench.setup(name, lanes)
            step = best_time(bench.step, arguments.seconds)
            summary = best_time(lambda bench=bench: bench.procedure.summary(bench.state), arguments.seconds / 4)  # type: ignore[misc]
            rates[f"{name}, {lanes} lanes"] = lanes / step
            print(f"{name:34s} {lanes:6d} {1e6 * step:9.1f} {lanes / step / 1e6:22.3f} {1e3 * summary:11.3f}")
    peer = expyfun_rate(arguments.seconds)
    if peer is None:
        print("expyfun TrackerUD: not installed")
    else:
        rates["expyfun TrackerUD"] = peer
        print(f"{'expyfun TrackerUD, one track':34s} {1:6d} {1e6 / peer:9.1f} {peer / 1e6:22.3f}")
    detection = Detection()
    detection.setup()
    print(f"d_prime_mafc, 10000 proportions: {1e3 * best_time(detection.time_d_prime_3afc, arguments.seconds):.1f} ms")
    write_json(arguments.json, lane_trials_per_second=rates)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
