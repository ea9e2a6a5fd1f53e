"""Speed and memory of whole models.

asv-style classes (``time_*``, ``peakmem_*``, ``track_*``), and runnable alone:

    python benchmarks/bench_models.py [--seconds 1] [--batch 1 8 64] [--json PATH]

prints, for each model, batch size and dtype, how many seconds of sound are analysed per second of wall-clock time, into
the dense representation at the full rate, with all threads. Best of several repetitions; a busy second core halves it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from psysim.models import registry

FS = 44100.0


def noise(batch: int, seconds: float, dtype: torch.dtype) -> Tensor:
    """Noise at 60 dB SPL in pascal, (B, T)."""
    samples = np.random.default_rng(1).standard_normal((batch, round(seconds * FS)))
    return torch.from_numpy(0.02 * samples).to(dtype)


class Represent:
    """`Model.represent` and its gradient with respect to the sound; default settings at 44.1 kHz."""

    params: ClassVar = (["dau1997"], [1, 8], ["float32", "float64"])
    param_names: ClassVar = ("model", "batch", "dtype")
    seconds = 1.0

    def setup(self, model: str, batch: int, dtype: str) -> None:
        self.model = registry.get(model)(fs=FS, dtype=dtype)
        self.audio = noise(batch, self.seconds, getattr(torch, dtype))
        with torch.no_grad():
            self.model.represent(self.audio[:1, :441])  # compile, or read the compiled kernels

    def time_represent(self, *_: object) -> None:
        with torch.no_grad():
            self.model.represent(self.audio)

    def peakmem_represent(self, *_: object) -> None:
        self.time_represent()

    def time_gradient(self, *_: object) -> None:
        """Forward and backward of the sum of squares of a tenth of a second."""
        audio = self.audio[:, : round(0.1 * self.seconds * FS)].clone().requires_grad_()
        values = self.model.represent(audio).values
        torch.autograd.grad(values, audio, values.detach())

    def track_times_real_time(self, *_: object) -> float:
        return self.audio.shape[0] * self.seconds / best_of(self.time_represent)

    track_times_real_time.unit = "seconds of sound per second"  # type: ignore[attr-defined]

    def track_gradient_times_real_time(self, *_: object) -> float:
        return self.audio.shape[0] * 0.1 * self.seconds / best_of(self.time_gradient, 3)

    track_gradient_times_real_time.unit = "seconds of sound per second"  # type: ignore[attr-defined]


def best_of(function: Callable[[], Any], repeats: int = 7) -> float:
    """Shortest duration in seconds of several calls."""
    durations = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        durations.append(time.perf_counter() - begin)
    return min(durations)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=Represent.seconds)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args()
    Represent.seconds = options.seconds
    print(f"{'model':<12}{'batch':>6}{'dtype':>10}{'times real time':>18}{'with gradient':>16}")
    rows = []
    for model in registry.names():
        for batch in options.batch:
            for dtype in Represent.params[2]:
                bench = Represent()
                bench.setup(model, batch, dtype)
                row: dict[str, Any] = {"model": model, "batch": batch, "dtype": dtype, "seconds": options.seconds}
                row["times_real_time"] = bench.track_times_real_time()
                row["gradient_times_real_time"] = bench.track_gradient_times_real_time()
                rows.append(row)
                speeds = f"{row['times_real_time']:18.1f}{row['gradient_times_real_time']:16.1f}"
                print(f"{model:<12}{batch:>6}{dtype:>10}{speeds}", flush=True)
    if options.json:
        from machine import describe

        options.json.write_text(json.dumps({"machine": describe(), "rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
