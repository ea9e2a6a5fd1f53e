"""Speed and memory of Moore2016: 64 stereo sounds of one second, different noises at both ears, beside torch_amt.

    python benchmarks/bench_loudness.py [--rows 64] [--peer-rows 2]

torch_amt is licensed under the GPL: it is installed by the user and measured as a whole, its code is not looked at. It
takes far longer, so it gets ``--peer-rows`` of the same sounds; its time per second of sound is scaled, and said to be.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec

import torch

from psysim.models import Moore2016

FS = 32000


def seconds(run: Callable[[], object], repeats: int) -> list[float]:
    """Return the durations of ``repeats`` runs after one that warms up."""
    durations = []
    for i in range(repeats + 1):
        start = time.perf_counter()
        run()
        if i:
            durations.append(time.perf_counter() - start)
    return durations


def peak_mib() -> float:
    """Return the largest resident memory of the process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--peer-rows", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(1)
    x = 0.02 * torch.randn(options.rows, 2, FS, generator=generator)
    model = Moore2016()
    with torch.no_grad():
        model(x[:1])
        before = peak_mib()
        durations = seconds(lambda: model(x), options.repeats)
        peak = peak_mib()
        median = statistics.median(durations)
        print(f"threads {torch.get_num_threads()}, {options.rows} stereo sounds of 1 s, noise, float32")
        print(f"psysim     {median:8.3f} s (min {min(durations):.3f}, max {max(durations):.3f})", end="")
        print(f"  {options.rows / median:7.1f} times real time; peak {peak:.0f} MiB, {before:.0f} MiB before the batch")
        if find_spec("torch_amt") is None:
            sys.exit("torch_amt is not installed: not measured.")
        import torch_amt

        peer, some = torch_amt.Moore2016(fs=FS), x[: options.peer_rows]
        theirs = statistics.median(seconds(lambda: peer(some), 1)) / options.peer_rows
        ours = statistics.median(seconds(lambda: model(some), 3)) / options.peer_rows
        print(
            f"torch_amt  {theirs:8.3f} s per sound (of {options.peer_rows} sounds)  psysim {ours:.3f} s per sound: ",
            end="",
        )
        print(f"{theirs / ours:.1f} times")


if __name__ == "__main__":
    main()
