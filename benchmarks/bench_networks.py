"""Speed of PhaseLockNet: nerve model with spikes, and network, of the words and of one localisation architecture.

    python benchmarks/bench_networks.py [--rows 2] [--repeats 3] [--threads 2] [--json FILE]

The weights are initial ones: speed does not depend on them. Real time is the duration of a sound, 2 s (words) or 1.2 s.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch
from measure import duration, write_json

from psysim.models.phaselocknet import PhaseLockNet
from psysim.rng import Keys


def seconds(run: Any, repeats: int) -> float:
    """Return the median duration of ``repeats`` runs after one that warms up."""
    run()
    return statistics.median(duration(run) for _ in range(repeats))


def measure(name: str, rows: int, repeats: int) -> dict[str, float]:
    """Return seconds per sound of the two parts of a model, and how many times faster than real time they are."""
    model = PhaseLockNet.published(name, seed=None)
    with torch.no_grad():
        for weight in model.network.weights().values():
            weight.fill_(0.01)
    conf = model.configuration
    shape = (rows, 2, conf.n_samples) if conf.ears == 2 else (rows, conf.n_samples)
    sound = 0.02 * torch.randn(shape, generator=torch.Generator().manual_seed(1))
    keys = Keys.make(1, track=torch.arange(rows))
    with torch.no_grad():
        activity = model.activity(sound, keys)
        parts = {
            "nerve": seconds(lambda: model.activity(sound, keys), repeats) / rows,
            "network": seconds(lambda: model.network(activity), repeats) / rows,
        }
    length = conf.n_samples / conf.fs
    result = {f"{part}_seconds": took for part, took in parts.items()}
    return result | {f"{part}_times_real_time": length / took for part, took in parts.items()}


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--architectures", nargs="+", default=["word_arch0_0000", "loc_arch01"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    results = {name: measure(name, options.rows, options.repeats) for name in options.architectures}
    print(f"float32, {options.threads} threads, batches of {options.rows}; times real time in brackets")
    for name, result in results.items():
        parts = (
            f"{p} {result[f'{p}_seconds']:.3f} s ({result[f'{p}_times_real_time']:.1f})" for p in ("nerve", "network")
        )
        print(f"{name:18s} {'   '.join(parts)} per sound")
    write_json(options.json, rows=options.rows, threads=options.threads, phaselocknet=results)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
