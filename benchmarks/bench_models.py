"""Speed and memory of whole models: the dense representation, and the path of the optimal detector in one pass.

asv-style classes (``time_*``, ``peakmem_*``, ``track_*``), and runnable alone:

    python benchmarks/bench_models.py [--seconds 1] [--batch 1 8 64] [--dtype float32] [--device cpu] [--json PATH]

prints, for each model, path and batch size, how many seconds of sound are analysed per second of wall-clock time, with
all threads; how long the gradient with respect to the sound takes, in units of the forward pass (the smallest batch);
and the memory at the peak. ``represent`` is `Model.represent`: everything at the full rate. ``products`` is what the
optimal detector calls: one inner product per auditory and modulation channel and sound, nothing else in memory.
Best of several repetitions.

Memory is measured in a fresh process for every row: sound, template and coefficients are made, one row passes both
paths (compiled code, threads), and then the growth of resident memory at its peak is read from the kernel's high-water
mark (`measure.peak_memory`). It includes the result, but not sound and template. Representations of more than half of
the memory that is free are left out.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
from measure import FS, alone, best_of, noise, peak_memory, write_json
from torch import Tensor

from psysim.models import registry

NAMES = registry.names()


class Whole:
    """A model at its default settings and 44.1 kHz, with noise at 60 dB SPL."""

    params: ClassVar = (NAMES, [1, 8], ["float32", "float64"])
    param_names: ClassVar = ("model", "batch", "dtype")
    seconds, device = 1.0, "cpu"

    def setup(self, model: str, batch: int, dtype: str) -> None:
        kind = getattr(torch, dtype)
        self.model = registry.get(model)(fs=FS, dtype=kind).to(self.device)
        self.audio = noise(batch, round(self.seconds * FS), kind, 0.02, self.device)  # 60 dB SPL in pascal
        with torch.no_grad():
            # also compiles, or reads compiled kernels
            self.templates = self.model.represent(self.audio[:1]).values[:, None]
        self.index = torch.zeros(batch, dtype=torch.int64, device=self.device)
        self.fuses = self._products(1) is not None

    def _products(self, rows: int) -> Tensor | None:
        with torch.no_grad():
            return self.model.products(self.audio[:rows], self.templates, self.index[:rows])

    @property
    def bytes_represented(self) -> int:
        """Size of the dense representation of all rows."""
        return len(self.audio) * self.templates.numel() * self.templates.element_size()

    def time_represent(self, *_: object) -> Tensor:
        with torch.no_grad():
            return self.model.represent(self.audio).values

    def time_products(self, *_: object) -> Tensor | None:
        return self._products(len(self.audio))

    def time_gradient(self, *_: object) -> tuple[Tensor, ...]:
        """Forward and backward, with respect to the sound."""
        audio = self.audio.clone().requires_grad_()
        values = self.model.represent(audio).values
        return torch.autograd.grad(values, audio, values.detach())

    def peakmem_represent(self, *_: object) -> None:
        self.time_represent()

    def peakmem_products(self, *_: object) -> None:
        self.time_products()

    def track_times_real_time(self, *_: object) -> float:
        return len(self.audio) * self.seconds / best_of(self.time_represent)

    track_times_real_time.unit = "seconds of sound per second"  # type: ignore[attr-defined]

    def track_products_times_real_time(self, *_: object) -> float:
        return len(self.audio) * self.seconds / best_of(self.time_products)

    track_products_times_real_time.unit = "seconds of sound per second"  # type: ignore[attr-defined]

    def track_backward_per_forward(self, *_: object) -> float:
        """Duration of the backward pass alone, in units of the forward pass."""
        audio = self.audio.clone().requires_grad_()
        values = self.model.represent(audio).values
        backward = best_of(lambda: torch.autograd.grad(values, audio, values, retain_graph=True), 5)
        return backward / best_of(self.time_represent)


def memory(path: str, seconds: float, device: str, *parameters: Any) -> int | None:
    """Return the bytes that one run adds at its peak: for `measure.alone`."""
    Whole.seconds, Whole.device = seconds, device
    bench = Whole()
    bench.setup(*parameters)
    return peak_memory(getattr(bench, f"time_{path}"))


def rows_of(model: str, batch: int, dtype: str, first: bool, in_process: bool) -> Iterator[dict[str, Any]]:
    """Measure one model at one batch size: a row per path; the gradient with the first batch size only."""
    bench = Whole()
    bench.setup(model, batch, dtype)
    here: dict[str, Any] = {"model": model, "batch": batch, "dtype": dtype, "seconds": bench.seconds}
    speeds = {"represent": bench.track_times_real_time, "products": bench.track_products_times_real_time}
    for path, speed in speeds.items():
        if path == "products" and not bench.fuses:
            continue
        if path == "represent" and 2 * bench.bytes_represented > _free_memory(bench.device):
            continue
        row = here | {"path": path, "times_real_time": speed()}
        parameters = path, bench.seconds, bench.device, model, batch, dtype
        row["peak_bytes"] = memory(*parameters) if in_process else alone(memory, *parameters)
        if path == "represent" and first:
            row["backward_per_forward"] = bench.track_backward_per_forward()
        yield row


def _free_memory(device: str) -> int:
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def line(row: dict[str, Any]) -> str:
    """Return a row as text."""
    peak = "-" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:.1f}"
    ratio = f"{row['backward_per_forward']:.2f}" if "backward_per_forward" in row else ""
    names = f"{row['model']:<14}{row['path']:<11}{row['batch']:>6}{row['dtype']:>10}"
    return f"{names}{row['times_real_time']:18.1f}{peak:>10}{ratio:>19}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=Whole.seconds)
    parser.add_argument("--batch", type=int, nargs="+", help="default: 1 8 64, on a card 256")
    parser.add_argument("--dtype", nargs="+", default=["float32", "float64"])
    parser.add_argument("--models", nargs="+", default=NAMES)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--in-process", action="store_true", help="measure memory without fresh processes: rough")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args(argv)
    Whole.seconds, Whole.device = options.seconds, options.device
    batches = options.batch or ([1, 8, 64] if options.device == "cpu" else [256])
    print(
        f"{'model':<14}{'path':<11}{'batch':>6}{'dtype':>10}{'times real time':>18}{'peak MB':>10}"
        f"{'backward/forward':>19}"
    )
    rows = []
    for model in options.models:
        for dtype in options.dtype:
            for batch in batches:
                for row in rows_of(model, batch, dtype, batch == batches[0], options.in_process):
                    rows.append(row)
                    print(line(row), flush=True)
    write_json(options.json, rows=rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
