"""Speed and memory of Moore2016: 64 stereo sounds of one second, different noises at both ears, beside torch_amt.

    python benchmarks/bench_loudness.py [--rows 64] [--peer-rows 2] [--json FILE]

torch_amt is licensed under the GPL: it is installed by the user and measured as a whole, its code is not looked at. It
takes far longer, so it gets ``--peer-rows`` of the same sounds (0: it is not measured); its time is per sound.
"""

from __future__ import annotations

import argparse
import statistics
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from measure import duration, peak_memory, write_json

from psysim.models import Moore2016

FS = 32000


def seconds(run: Any, repeats: int) -> float:
    """Return the median duration of ``repeats`` runs after one that warms up."""
    run()
    return statistics.median(duration(run) for _ in range(repeats))


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--peer-rows", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    x = 0.02 * torch.randn(options.rows, 2, FS, generator=torch.Generator().manual_seed(1))
    model = Moore2016()
    result: dict[str, Any] = {"rows": options.rows, "threads": torch.get_num_threads()}
    with torch.no_grad():
        took = seconds(lambda: model(x), options.repeats)
        result |= {"seconds": took, "times_real_time": options.rows / took}
        peak = peak_memory(lambda: model(x))
        if peak is not None:
            result["peak_memory_mb"] = peak / 1e6
        print(f"{options.rows} stereo sounds of 1 s, noise, float32, {result['threads']} threads")
        memory = "" if peak is None else f"; {peak / 1e6:.0f} MB at the peak"
        print(f"psysim     {took:8.3f} s  {options.rows / took:7.1f} times real time{memory}")
        if options.peer_rows and find_spec("torch_amt") is None:
            print("torch_amt is not installed: not measured.")
        elif options.peer_rows:
            import torch_amt

            peer, some = torch_amt.Moore2016(fs=FS), x[: options.peer_rows]
            theirs = seconds(lambda: peer(some), 1) / options.peer_rows
            ours = seconds(lambda: model(some), 3) / options.peer_rows
            result |= {"peer_rows": options.peer_rows, "torch_amt_seconds_per_sound": theirs}
            result |= {"psysim_seconds_per_sound": ours, "speed_up": theirs / ours}
            print(f"torch_amt  {theirs:8.3f} s per sound, psysim {ours:.3f} s, of {options.peer_rows} sounds: ", end="")
            print(f"{theirs / ours:.1f} times")
    write_json(options.json, ("torch_amt",) if "speed_up" in result else (), moore2016=result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
