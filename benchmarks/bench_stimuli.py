"""Cost of random numbers and of stimuli, beside NumPy's and torch's generators.

asv-style classes (``time_*``, ``track_*``), and runnable alone:

    python benchmarks/bench_stimuli.py [--rows 60] [--seconds 0.5] [--threads 1] [--json PATH]

prints nanoseconds per sample of the result (wall clock). One thread unless told otherwise, so that the numbers are per
core. Best of several repetitions; a busy core still lengthens them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from measure import FS, best_of, write_json

from psysim.rng import Keys, Purpose, normal, uniform, words
from psysim.stimuli import registry

F32, F64 = torch.float32, torch.float64
BAND_3 = {"centre_hz": 5000.0, "bandwidth_hz": 3.0}
BAND_314 = {"centre_hz": 5000.0, "bandwidth_hz": 314.0}

#: Stimuli worth a row of their own: name of the row, kind, parameters.
STIMULI: dict[str, tuple[str, dict[str, Any]]] = {
    "tone": ("tone", {}),
    "am_tone": ("am_tone", {}),
    "fm_tone": ("fm_tone", {}),
    "am_noise, broadband": ("am_noise", {}),
    "am_noise, 3 Hz": ("am_noise", BAND_3),
    "am_noise, 314 Hz, limited after": ("am_noise", {**BAND_314, "band_limit": "after"}),
    "am_noise, broadband, token level": ("am_noise", {"normalise": "token"}),
    "noise, 100 Hz to 10 kHz": ("noise", {"low_hz": 100.0, "high_hz": 10000.0}),
    "noise, low-noise, 100 Hz": ("noise", {"centre_hz": 1000.0, "bandwidth_hz": 100.0, "statistics": "low_noise"}),
    "tone_in_noise": ("tone_in_noise", {"low_hz": 20.0, "high_hz": 5000.0}),
    "notched_noise_tone": ("notched_noise_tone", {}),
    "gap_in_noise": ("gap_in_noise", {"high_hz": 6000.0}),
    "tone_complex, 20 harmonics": ("tone_complex", {}),
    "forward_masking": ("forward_masking", {}),
    "matrix_sentence": ("matrix_sentence", {}),
    "speech_in_noise, stationary": ("speech_in_noise", {}),
    "speech_in_noise, speech-modulated": ("speech_in_noise", {"masker": "speech_modulated"}),
    "speech_in_noise, four talkers": ("speech_in_noise", {"masker": "babble"}),
    "vocoded_speech, 8 channels of noise": ("vocoded_speech", {}),
}


class RandomNumbers:
    """One number per sample, keyed; peers: generators with a state."""

    params: ClassVar = (["float64", "float32"],)
    param_names: ClassVar = ("dtype",)
    rows, seconds = 60, 0.5

    def setup(self, dtype: str) -> None:
        self.dtype = getattr(torch, dtype)
        self.n = round(self.seconds * FS)
        self.keys = Keys.make(seed=1, track=torch.arange(self.rows))
        self.numpy = np.random.default_rng(1)
        self.torch = torch.Generator().manual_seed(1)
        self.time_normal()

    def time_normal(self, *_: object) -> None:
        normal(self.keys, Purpose.CARRIER, self.n, self.dtype)

    def time_uniform(self, *_: object) -> None:
        uniform(self.keys, Purpose.CARRIER, self.n, self.dtype)

    def time_words(self, *_: object) -> None:
        words(self.keys, Purpose.CARRIER, self.n)

    def time_normal_numpy(self, *_: object) -> None:
        self.numpy.standard_normal((self.rows, self.n), dtype=str(self.dtype).removeprefix("torch."))

    def time_normal_torch(self, *_: object) -> None:
        torch.randn(self.rows, self.n, dtype=self.dtype, generator=self.torch)

    def time_internal_noise(self, *_: object) -> None:
        """One normal number for each of 3000 lanes: what an observer draws per trial."""
        normal(Keys.make(seed=1, track=torch.arange(3000)), Purpose.INTERNAL_NOISE, 1, self.dtype)


class Stimuli:
    """A batch of sounds, float32."""

    params: ClassVar = (list(STIMULI),)
    param_names: ClassVar = ("stimulus",)
    rows, seconds = 60, 0.5

    def setup(self, stimulus: str) -> None:
        kind, parameters = STIMULI[stimulus]
        self.kind = registry.get(kind)()
        self.parameters = dict(parameters)
        if "duration_s" in self.kind.complete(parameters):
            self.parameters["duration_s"] = self.seconds
        self.keys = Keys.make(seed=1, track=torch.arange(self.rows // 3)).unsqueeze(1)
        self.keys = self.keys.replace(interval=torch.arange(3)).flatten()
        self.samples = self.kind.generate(self.parameters, self.keys, FS).numel()

    def time_generate(self, *_: object) -> None:
        self.kind.generate(self.parameters, self.keys, FS)

    def track_ns_per_sample(self, *_: object) -> float:
        return 1e9 * best_of(self.time_generate) / self.samples

    track_ns_per_sample.unit = "ns per sample"  # type: ignore[attr-defined]


def measure(rows: int, seconds: float) -> list[dict[str, Any]]:
    """Return one entry per line of the table, and print it."""
    RandomNumbers.rows = Stimuli.rows = rows
    RandomNumbers.seconds = Stimuli.seconds = seconds
    entries: list[dict[str, Any]] = []

    def add(name: str, value: float) -> None:
        entries.append({"name": name, "ns_per_sample": value})
        print(f"{name:<44}{value:10.2f}", flush=True)

    print(f"{'':<44}{'ns/sample':>10}")
    for dtype in ("float64", "float32"):
        bench = RandomNumbers()
        bench.setup(dtype)
        for what in ("normal", "uniform", "words", "normal_numpy", "normal_torch"):
            add(f"{what}, {dtype}", 1e9 * best_of(getattr(bench, f"time_{what}")) / (rows * bench.n))
    add("internal noise, 3000 lanes, one draw each", 1e9 * best_of(bench.time_internal_noise) / 3000)
    for stimulus in STIMULI:
        sounds = Stimuli()
        sounds.setup(stimulus)
        add(stimulus, sounds.track_ns_per_sample())
    return entries


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    entries = measure(options.rows, options.seconds)
    write_json(options.json, ("scipy",), rows=options.rows, seconds=options.seconds, entries=entries)
    return 0


if __name__ == "__main__":
    sys.exit(main())
