"""Speed of the hearing aids: one pass, with gradients, and in blocks as a device would take them.

    python benchmarks/bench_aids.py [--seconds 2] [--rows 2] [--block 160] [--repeats 5] [--json FILE]

Times are medians of float32 at 16 kHz; speeds are seconds of sound per second. The peer of the linear aid is
`scipy.signal.oaconvolve` with the same taps.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import duration, noise, peak_memory, write_json
from scipy.signal import oaconvolve

from psysim.hearing.aids import HearingAid, LinearAid, make_aid, registry

FS = 16000.0
OPTIONS: dict[str, dict[str, Any]] = {
    "gain": {"gain_db": 20.0},
    "linear": {"prescription": "NAL-R"},
    "wdrc": {"prescription": "NAL-R"},
    "fir": {"fir_dur": 0.01},
    "chain": {"stages": [{"kind": "noise_reduction"}, {"kind": "wdrc", "prescription": "NAL-R"}]},
}
"""Arguments that differ from the default; those without a prescription or stages need none."""


def median(function: Callable[[], Any], repeats: int) -> float:
    """Return the median seconds of some calls, after one that compiles."""
    function()
    return statistics.median(duration(function) for _ in range(repeats))


def in_blocks(aid: HearingAid, blocks: tuple[torch.Tensor, ...]) -> None:
    """Process blocks one after the other."""
    state = None
    for block in blocks:
        _, state = aid.process(block, state)


def measure(kind: str, seconds: float, rows: int, block: int, repeats: int) -> dict[str, float]:
    """Return speeds of one kind of aid."""
    table = {"kind": kind, **OPTIONS.get(kind, {})}
    aid = make_aid(table, FS, audiogram="N3")
    x = noise(rows, math.ceil(seconds * FS), torch.float32, 0.02)
    whole = (lambda: aid.mix(x, x)) if aid.needs_sources else (lambda: aid(x))
    result = {}
    with torch.no_grad():
        result["times_real_time"] = rows * seconds / median(whole, repeats)
        peak = peak_memory(whole)
        if peak is not None:
            result["peak_bytes_per_sample"] = peak / x.numel()
        if aid.streams and not aid.needs_sources:
            blocks = x.split(block, -1)
            result["blocks_times_real_time"] = rows * seconds / median(lambda: in_blocks(aid, blocks), repeats)
    trained = make_aid(table, FS, audiogram="N3", learnable=True)

    def with_gradients() -> None:
        y = trained.mix(x, x) if trained.needs_sources else trained(x)
        y.square().sum().backward()

    if list(trained.parameters()):
        result["gradient_times_real_time"] = rows * seconds / median(with_gradients, repeats)
    return result


def measure_peer(seconds: float, rows: int, repeats: int) -> dict[str, float]:
    """Return the speed of overlap-add convolution with the taps of the linear aid, and the largest difference."""
    aid = LinearAid(FS, prescription="NAL-R", audiogram="N3")
    x = noise(rows, math.ceil(seconds * FS), torch.float32, 0.02)
    taps, samples = aid.taps.numpy().astype(np.float32)[None], x.numpy()
    took = median(lambda: oaconvolve(samples, taps, axes=-1), repeats)
    difference = np.abs(oaconvolve(samples, taps, axes=-1)[:, : x.shape[-1]] - aid(x).numpy()).max()
    return {"times_real_time": rows * seconds / took, "largest_difference_pa": float(difference)}


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--block", type=int, default=160)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    sizes = (options.seconds, options.rows)
    print(f"{options.rows} sounds of {options.seconds:g} s at {FS:g} Hz, float32, {torch.get_num_threads()} threads")
    print(f"{'times real time':18s}{'one pass':>10s}{'blocks':>10s}{'gradient':>10s}{'bytes/sample':>14s}")
    names = ("times_real_time", "blocks_times_real_time", "gradient_times_real_time", "peak_bytes_per_sample")
    content: dict[str, Any] = {"aids": {}}
    for kind in registry.names():
        result = measure(kind, *sizes, options.block, options.repeats)
        content["aids"][kind] = result
        print(f"{kind:18s}" + "".join(f"{result.get(n, math.nan):10.0f}" for n in names))
    peer = measure_peer(*sizes, options.repeats)
    content["oaconvolve"] = peer
    print(f"{'oaconvolve':18s}{peer['times_real_time']:10.0f}   (differs by {peer['largest_difference_pa']:.1e} Pa)")
    shape = {"rows": options.rows, "seconds": options.seconds, "block": options.block}
    write_json(options.json, ("scipy",), **shape, threads=torch.get_num_threads(), **content)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
