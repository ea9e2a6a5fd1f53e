"""Speed of the operators, beside SciPy and torchaudio for the second-order sections.

asv-style classes (``time_*``, ``track_*``), and runnable alone:

    python benchmarks/bench_ops.py [--seconds 0.5] [--batch 8] [--json PATH]

prints nanoseconds per sample and channel (wall clock, all threads), forward and gradient, and how many times faster
than real time a whole Dau (1997) front end runs. Nothing is written unless ``--json`` is given. Run it on an idle
machine: the numbers are the best of several repetitions, but a busy second core still halves them.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import scipy.signal
import torch
from torch import Tensor

from psysim import ops

FS = 44100
F64 = torch.float64
CENTRES_HZ = np.geomspace(87.0, 7820.0, 31)
MFC_HZ = np.array([5, 10, 50 / 3, 27.77778, 46.2963, 77.16049, 128.60082, 214.33471, 357.22451, 595.37418, 992.2903])


def noise(batch: int, samples: int, dtype: torch.dtype) -> Tensor:
    """Noise at about 60 dB SPL (full scale 100 dB), (B, T)."""
    return torch.from_numpy(0.01 * np.random.default_rng(1).standard_normal((batch, samples))).to(dtype)


@cache
def gammatone_coefficients() -> tuple[Tensor, Tensor]:
    fc = torch.from_numpy(CENTRES_HZ)
    return torch.exp(-2 * math.pi * 1.0185916 * (24.7 + fc / 9.265) / FS), 2 * math.pi * fc / FS


@cache
def section(order: int, cutoff_hz: float) -> Tensor:
    return torch.from_numpy(scipy.signal.butter(order, cutoff_hz, fs=FS, output="sos"))


@cache
def adaptation_coefficients() -> dict[str, Any]:
    tau = torch.tensor([0.005, 0.050, 0.129, 0.253, 0.500], dtype=F64)
    return {"decay": torch.exp(-1 / (tau * FS)), "minimum": torch.tensor([1e-5], dtype=F64), "limit": 10.0}


@cache
def modulation_coefficients() -> dict[str, Any]:
    mfc = torch.from_numpy(MFC_HZ)
    bandwidth = torch.where(mfc < 10, torch.full_like(mfc, 5.0), mfc / 2)
    limit = torch.from_numpy(np.minimum(CENTRES_HZ / 4, 1000.0))
    return {
        "lowpass_sos": section(2, 2.5),
        "decay": torch.exp(-math.pi * bandwidth / FS),
        "angle": 2 * math.pi * mfc / FS,
        "envelope": mfc > 10,
        "scale": torch.full_like(mfc, 2.0),
        "valid": torch.cat([torch.zeros(1, dtype=F64), mfc]) <= limit[:, None],
    }


class _Op:
    """One operator at batch x 31 channels x 0.5 s; subclasses give ``call(x)`` and the input."""

    params: ClassVar = ["float32", "float64"]
    param_names: ClassVar = ["dtype"]
    batch, seconds = 8, 0.5

    def setup(self, dtype: str) -> None:
        self.samples = round(self.seconds * FS)
        self.x = self.signal(getattr(torch, dtype))
        self.learning = self.x.clone().requires_grad_()
        self.cotangent = torch.ones_like(self.call(self.x))  # this call also compiles, or reads the compiled kernels

    def signal(self, dtype: torch.dtype) -> Tensor:
        envelope = ops.gammatone(noise(self.batch, self.samples, dtype), *gammatone_coefficients()).relu_()
        return ops.sosfilt(envelope, section(1, 1000.0))

    def call(self, x: Tensor) -> Tensor:
        raise TypeError("a subclass defines what is timed")

    def time_forward(self, dtype: str) -> None:
        self.call(self.x)

    def time_gradient(self, dtype: str) -> None:
        """Forward and backward with respect to the signal."""
        y = self.call(self.learning)
        torch.autograd.grad(y, self.learning, self.cotangent)

    def track_forward_ns(self, dtype: str) -> float:
        return best_of(lambda: self.time_forward(dtype)) / self.items * 1e9

    track_forward_ns.unit = "ns per sample and channel"  # type: ignore[attr-defined]

    @property
    def items(self) -> int:
        return self.batch * self.samples * len(CENTRES_HZ)


class Gammatone(_Op):
    """Fourth order, real output."""

    def signal(self, dtype: torch.dtype) -> Tensor:
        return noise(self.batch, self.samples, dtype)

    def call(self, x: Tensor) -> Tensor:
        return ops.gammatone(x, *gammatone_coefficients())


class Sosfilt(_Op):
    """One second-order section, shared by all channels: the comparison with SciPy and torchaudio."""

    sos = section(2, 1000.0)

    def call(self, x: Tensor) -> Tensor:
        return ops.sosfilt(x, self.sos)


class SosfiltScipy(Sosfilt):
    """The peer: single-threaded; filters float32 signals in float32."""

    def call(self, x: Tensor) -> Tensor:
        return torch.from_numpy(scipy.signal.sosfilt(self.sos.numpy().astype(x.numpy().dtype), x.numpy()))


class SosfiltTorchaudio(Sosfilt):
    """The peer: `torchaudio.functional.lfilter`, coefficients in the dtype of the signal."""

    def call(self, x: Tensor) -> Tensor:
        import torchaudio

        a, b = self.sos[0, 3:].to(x.dtype), self.sos[0, :3].to(x.dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torchaudio.functional.lfilter(x, a, b, clamp=False)


class AdaptationLoops(_Op):
    """Five loops with the limiter at 10."""

    def call(self, x: Tensor) -> Tensor:
        return ops.adaptation_loops(x, **adaptation_coefficients())


class ModulationBank(_Op):
    """Up to 12 filters per channel (dense output), as many as fc/4 allows: 281 of 372."""

    def signal(self, dtype: torch.dtype) -> Tensor:
        return ops.adaptation_loops(super().signal(dtype), **adaptation_coefficients())

    def call(self, x: Tensor) -> Tensor:
        return ops.modulation_bank(x, **modulation_coefficients())


class TemplateProduct(_Op):
    """Per value of a representation: divide by 12 to compare with the others."""

    def signal(self, dtype: torch.dtype) -> Tensor:
        return torch.from_numpy(np.random.default_rng(1).standard_normal((self.batch, self.items // self.batch))).to(
            dtype
        )

    def call(self, x: Tensor) -> Tensor:
        return ops.template_product(x, self.x, torch.zeros(len(x), dtype=torch.int64))


class FrontEnd(_Op):
    """Gammatone, half-wave rectification and lowpass, adaptation, 150-Hz lowpass, modulation bank at full rate."""

    def signal(self, dtype: torch.dtype) -> Tensor:
        return noise(self.batch, self.samples, dtype)

    def call(self, x: Tensor) -> Tensor:
        y = ops.sosfilt(ops.gammatone(x, *gammatone_coefficients()).relu_(), section(1, 1000.0))
        y = ops.sosfilt(ops.adaptation_loops(y, **adaptation_coefficients()), section(1, 150.0))
        return ops.modulation_bank(y, **modulation_coefficients())

    def track_times_real_time(self, dtype: str) -> float:
        return self.batch * self.seconds / best_of(lambda: self.time_forward(dtype))

    track_times_real_time.unit = "seconds of sound per second"  # type: ignore[attr-defined]


BENCHMARKS = (
    Gammatone,
    Sosfilt,
    SosfiltScipy,
    SosfiltTorchaudio,
    AdaptationLoops,
    ModulationBank,
    TemplateProduct,
    FrontEnd,
)


def best_of(function: Callable[[], Any], repeats: int = 7) -> float:
    """Shortest duration in seconds of several calls."""
    durations = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        durations.append(time.perf_counter() - begin)
    return min(durations)


def measure(kind: type[_Op], dtype: str) -> dict[str, Any]:
    bench = kind()
    bench.setup(dtype)
    row: dict[str, Any] = {"op": kind.__name__, "dtype": dtype, "forward_ns": bench.track_forward_ns(dtype)}
    if kind is not SosfiltScipy:
        bench.time_gradient(dtype)
        row["gradient_ns"] = best_of(lambda: bench.time_gradient(dtype), 3) / bench.items * 1e9
    if isinstance(bench, FrontEnd):
        row["times_real_time"] = bench.track_times_real_time(dtype)
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=_Op.seconds)
    parser.add_argument("--batch", type=int, default=_Op.batch)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args()
    _Op.seconds, _Op.batch = options.seconds, options.batch
    print(
        f"batch {options.batch}, {len(CENTRES_HZ)} channels, {options.seconds:g} s, {torch.get_num_threads()} threads"
    )
    print(f"{'ns per sample and channel':<26}{'dtype':<10}{'forward':>9}{'forward+backward':>18}")
    rows = []
    for kind in BENCHMARKS:
        for dtype in kind.params:
            row = measure(kind, dtype)
            gradient = f"{row['gradient_ns']:18.2f}" if "gradient_ns" in row else f"{'-':>18}"
            real_time = f"   {row['times_real_time']:.0f} x real time" if "times_real_time" in row else ""
            print(f"{row['op']:<26}{dtype:<10}{row['forward_ns']:9.2f}{gradient}{real_time}", flush=True)
            rows.append(row)
    if options.json:
        machine = {"processor": platform.processor(), "cpus": os.cpu_count(), "torch": torch.__version__}
        options.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
