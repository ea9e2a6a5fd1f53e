"""QUEST+ beside the package questplus: the same tracks, and the time per track.

    python benchmarks/peer_questplus.py write [--out tests/procedures/data/questplus.json]
    python benchmarks/peer_questplus.py time [--lanes 1000] [--trials 32] [--peer-python PYTHON] [--json PATH]

questplus is licensed under the GPL: it is installed in an environment of its own (``pip install questplus``), run as a
black box through its documented interface, and never read. ``write`` needs questplus and NumPy only and makes the
golden file of the tests. ``time`` runs psysim, and questplus where it is installed (``--peer-python`` names a Python
that has it), on the same grid with the same answers, on one core each.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # one core for each contender

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "procedures" / "data" / "questplus.json"
LEVELS = np.arange(-30.0, 0.5, 2.0).tolist()
FINE = np.linspace(-40.0, 0.0, 41).tolist()

CASES: dict[str, dict[str, Any]] = {
    "weibull, four parameters": {
        "func": "weibull",
        "scale": "dB",
        "stimuli": {"intensity": LEVELS},
        "parameters": {
            "threshold": LEVELS,
            "slope": [2.0, 3.5, 6.0],
            "lower_asymptote": [0.5],
            "lapse_rate": [0.01, 0.03],
        },
    },
    "weibull, guess rates": {
        "func": "weibull",
        "scale": "dB",
        "stimuli": {"intensity": FINE},
        "parameters": {
            "threshold": FINE,
            "slope": [1.0, 2.0, 4.0, 8.0],
            "lower_asymptote": [0.05, 0.15, 0.25],
            "lapse_rate": [0.02],
        },
    },
    "normal, two parameters": {
        "func": "norm_cdf",
        "scale": "linear",
        "stimuli": {"intensity": FINE},
        "parameters": {
            "mean": FINE,
            "sd": np.geomspace(1.0, 8.0, 9).tolist(),
            "lower_asymptote": [1.0 / 3.0],
            "lapse_rate": [0.04],
        },
    },
    "contrast sensitivity, two stimulus dimensions": {
        "func": "csf",
        "scale": "dB",
        "stimuli": {
            "contrast": np.arange(-50.0, 0.5, 4.0).tolist(),
            "spatial_freq": [0.0, 8.0, 16.0, 24.0, 32.0],
            "temporal_freq": [0.0],
        },
        "parameters": {
            "c0": np.arange(-60.0, -38.0, 4.0).tolist(),
            "min_thresh": np.arange(-50.0, -28.0, 4.0).tolist(),
            "cf": [0.8, 1.0, 1.2, 1.4, 1.6],
            "cw": [0.0],
            "slope": [3.0],
            "lower_asymptote": [0.5],
            "lapse_rate": [0.01],
        },
    },
}

TIMED: dict[str, Any] = {
    "func": "weibull",
    "scale": "dB",
    "stimuli": {"intensity": FINE},
    "parameters": {
        "threshold": FINE,
        "slope": [2.0, 2.8, 4.0, 5.6, 8.0],
        "lower_asymptote": [0.5],
        "lapse_rate": [0.0, 0.02, 0.04, 0.06],
    },
}


def peer(case: dict[str, Any]) -> Any:
    """Return a tracker of questplus."""
    from questplus import QuestPlus

    return QuestPlus(
        stim_domain={k: np.array(v) for k, v in case["stimuli"].items()},
        param_domain={k: np.array(v) for k, v in case["parameters"].items()},
        outcome_domain={"response": ["Correct", "Incorrect"]},
        func=case["func"],
        stim_scale=case["scale"],
        stim_selection_method="min_entropy",
        param_estimation_method="mean",
    )


def peer_track(case: dict[str, Any], answers: np.ndarray) -> dict[str, Any]:
    """Return stimuli and posteriors of one track."""
    tracker, stimuli, posteriors = peer(case), [], {}
    for trial, right in enumerate(answers):
        stimulus = tracker.next_stim
        stimuli.append([float(stimulus[name]) for name in case["stimuli"]])
        tracker.update(stim=stimulus, outcome={"response": "Correct" if right else "Incorrect"})
        if trial + 1 in (10, len(answers)):
            weights = tracker.posterior.transpose(*case["parameters"]).values.ravel()
            posteriors[str(trial + 1)] = weights.tolist()
    return {"correct": [bool(a) for a in answers], "stimuli": stimuli, "posteriors": posteriors}


def drawn_answers(seed: int, trials: int) -> np.ndarray:
    """Answers of which more are right than wrong, but for a lapse-ridden track."""
    rng = np.random.default_rng(seed)
    return rng.random(trials) < (0.5, 0.75, 0.85, 0.95)[seed % 4]


def write(path: Path, tracks: int, trials: int) -> None:
    """Write the golden file."""
    cases = []
    for name, case in CASES.items():
        runs = [peer_track(case, drawn_answers(seed, trials)) for seed in range(tracks)]
        cases.append({"name": name, **case, "tracks": runs})
    made = {"package": "questplus", "version": version("questplus"), "licence": "GPL-3.0; run as a black box"}
    path.write_text(json.dumps({"made_with": made, "cases": cases}) + "\n")
    print(f"{path.name}: {path.stat().st_size / 1024:.0f} kB")


def time_peer(trials: int, tracks: int) -> dict[str, Any]:
    """Seconds per track of questplus: the making of the tracker apart from its trials."""
    made, run = [], []
    for seed in range(tracks):
        answers = drawn_answers(seed, trials)
        start = time.perf_counter()
        tracker = peer(TIMED)
        made.append(time.perf_counter() - start)
        start = time.perf_counter()
        for right in answers:
            stimulus = tracker.next_stim
            tracker.update(stim=stimulus, outcome={"response": "Correct" if right else "Incorrect"})
        run.append(time.perf_counter() - start)
    return {"version": version("questplus"), "setup_s": min(made), "track_s": min(run), "tracks": tracks}


def time_ours(lanes: int, trials: int, repeats: int, device: str = "cpu") -> dict[str, float]:
    """Seconds per track of psysim with all lanes side by side."""
    from psysim.procedures import QuestPlus

    slopes = [slope * np.log(10.0) / 20.0 for slope in TIMED["parameters"]["slope"]]
    start = time.perf_counter()
    rule = QuestPlus(
        level_min=-40.0,
        level_max=0.0,
        level_step=1.0,
        shape="gumbel",
        slope=slopes,
        guess_rate=0.5,
        lapse_rate=TIMED["parameters"]["lapse_rate"],
        n_trials=trials,
        device=device,
    )
    rule.init(1)
    setup = time.perf_counter() - start
    answers = np.stack([drawn_answers(seed, trials) for seed in range(lanes)], axis=1)
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        state = rule.init(lanes)
        for row in answers:
            rule.next_level(state)
            state = rule.record(state, row)
        best = min(best, time.perf_counter() - start)
    return {"setup_s": setup, "track_s": best / lanes, "lanes": lanes, "trials": trials}


def report(options: argparse.Namespace) -> None:
    """Print both times and write them."""
    from measure import write_json

    n_candidates = int(np.prod([len(v) for v in TIMED["parameters"].values()]))
    print(f"QUEST+, {n_candidates} candidates, {len(FINE)} levels, tracks of {options.trials} trials")
    ours = {n: time_ours(n, options.trials, options.repeats) for n in (1, 100, options.lanes)}
    for n, row in ours.items():
        print(f"  psysim, {n:5d} lanes         {1e3 * row['track_s']:10.3f} ms per track")
    numbers: dict[str, Any] = {"candidates": n_candidates, "levels": len(FINE), "psysim": list(ours.values())}
    other: dict[str, Any] | None = None
    if find_spec("questplus"):
        other = time_peer(options.trials, 3)
    elif options.peer_python:
        command = [options.peer_python, __file__, "time-peer", "--trials", str(options.trials)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        other = json.loads(done.stdout) if done.returncode == 0 else None
    if other is None:
        print("  questplus: not installed")
    else:
        ratio = other["track_s"] / ours[options.lanes]["track_s"]
        cost = f"{1e3 * other['track_s']:10.3f} ms per track, {ratio:.0f} times ours"
        print(f"  questplus {other['version']:7s}           {cost}")
        numbers |= {"questplus": other, "speed_up": ratio}
    write_json(options.json, ("numpy", "scipy"), **numbers)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["write", "time", "time-peer"])
    parser.add_argument("--out", type=Path, default=GOLDEN)
    parser.add_argument("--tracks", type=int, default=4, help="tracks per case in the golden file")
    parser.add_argument("--lanes", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer-python", help="a Python that has questplus")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    if options.what == "write":
        write(options.out, options.tracks, options.trials)
    elif options.what == "time-peer":
        print(json.dumps(time_peer(options.trials, 3)))
    else:
        report(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
