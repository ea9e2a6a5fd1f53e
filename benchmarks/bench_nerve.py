"""Speed of the two auditory-nerve models beside direct convolution, in the same run.

    python benchmarks/bench_nerve.py [--seconds 2] [--rows 2] [--repeats 7] [--json FILE]

The direct form computes the same numbers with torch's conv1d: the bandpasses with their full impulse responses, the
lowpass with its full response at the samples that are kept (strided), the envelope by FFT, the rates as the formula
stands. It is measured twice: as the specification has it ("direct": float32 taps, the lowpass with every channel as a
sound of its own), and helped ("helped"): taps below 1e-30 of the peak, whose products are denormal and slow a CPU down
tenfold, set to zero, and the lowpass told to torch as one group per channel. Times are medians; the forms take turns,
so that other work on the machine hits all alike.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measure import duration, peak_memory, write_json
from torch import Tensor

from psysim.models import Saddler2024, Saddler2025
from psysim.models.nerve_model import NerveModel
from psysim.rng import Keys

MODELS: dict[str, Callable[[], NerveModel]] = {
    "word_3000": lambda: Saddler2024(20e3),
    "word_50": lambda: Saddler2024(20e3, limit_hz=50.0),
    "localisation_3000": lambda: Saddler2024(50e3, "localisation"),
    "tutorial": lambda: Saddler2025(20e3),
}
SPIKES = ("approx", "exact", "additive")


class Direct:
    """The model by direct convolution."""

    def __init__(self, model: NerveModel, helped: bool) -> None:
        self.helped, self.stride = helped, model.ihc.stride
        # conv1d does not flip the kernel
        self.bank = model.filterbank.taps.flip(-1).float()[:, None]
        self.lowpass = model.ihc.taps.flip(-1).float()[None, None]
        if helped:
            self.bank, self.lowpass = (
                h * (h.abs() > 1e-30 * h.abs().amax(-1, True)) for h in (self.bank, self.lowpass)
            )
        rates = model.rates
        values = (rates.slope, rates.midpoint, rates.rate_spont, rates.rate_max)
        self.slope, self.midpoint, self.spont, self.top = (v.float().unsqueeze(-1) for v in values)
        self.envelope_mode = rates.envelope_mode

    def __call__(self, x: Tensor) -> Tensor:
        """Return rates (B, G, F, T') of sounds (B, T)."""
        pad = torch.nn.functional.pad
        conv1d = torch.nn.functional.conv1d
        y = conv1d(pad(x[:, None], (self.bank.shape[-1] - 1, 0)), self.bank).relu()
        batch, channels = y.shape[:2]
        y = pad(y, (self.lowpass.shape[-1] - 1, 0))
        if self.helped:
            y = conv1d(y, self.lowpass.expand(channels, -1, -1), stride=self.stride, groups=channels)
        else:
            y = conv1d(y.reshape(batch * channels, 1, -1), self.lowpass, stride=self.stride)
        y = y.reshape(batch, 1, channels, -1).relu()
        if not self.envelope_mode:
            return self._rate(20.0 * torch.log10(y / 20e-6))
        n = y.shape[-1]
        step = torch.zeros(n)
        step[0] = 1.0
        step[1 : (n + 1) // 2] = 2.0
        if n % 2 == 0:
            step[n // 2] = 1.0
        envelope = torch.fft.ifft(torch.fft.fft(y) * step).abs()
        fine = y / envelope
        fine = torch.where(fine.isfinite(), fine, y)
        return self._rate(20.0 * torch.log10(envelope / 20e-6), fine)

    def _rate(self, level: Tensor, fine: Tensor | float = 1.0) -> Tensor:
        return self.spont + (self.top - self.spont) / (1.0 + torch.exp(-self.slope * (level - self.midpoint))) * fine


def in_turns(functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Return the median duration of each function, after one call that warms up; the functions take turns."""
    for function in functions.values():
        function()
    taken: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            taken[name].append(duration(function))
    return {name: statistics.median(values) for name, values in taken.items()}


def measure(name: str, seconds: float, rows: int, repeats: int) -> dict[str, Any]:
    """Measure one model: times real time, how many times faster than direct, and the largest difference."""
    model = MODELS[name]()
    generator = torch.Generator().manual_seed(1)
    x = 0.02 * torch.randn(rows, math.ceil(seconds * model.fs), generator=generator)
    direct, helped = Direct(model, helped=False), Direct(model, helped=True)
    ours = model.represent(x).values.transpose(1, 2)
    result: dict[str, Any] = {"largest_difference_spikes_per_s": float((direct(x) - ours).abs().max())}
    took = in_turns({"psysim": lambda: model(x), "direct": lambda: direct(x), "helped": lambda: helped(x)}, repeats)
    for form, value in took.items():
        result[f"{form}_times_real_time"] = rows * seconds / value
    result |= {"speed_up": took["direct"] / took["psysim"], "speed_up_helped": took["helped"] / took["psysim"]}
    for form, function in (("psysim", lambda: model(x)), ("direct", lambda: direct(x))):
        peak = peak_memory(function)
        if peak is not None:
            result[f"{form}_peak_mb"] = peak / 1e6
    return result


def measure_spikes(seconds: float, rows: int, repeats: int) -> dict[str, float]:
    """Return how many times real time the word model runs with spikes of each kind."""
    x = 0.02 * torch.randn(rows, math.ceil(seconds * 20e3), generator=torch.Generator().manual_seed(1))
    keys = Keys.make(seed=1, trial=torch.arange(rows))
    models = {mode: Saddler2024(20e3, spikes=mode) for mode in SPIKES}
    took = in_turns({mode: lambda m=model: m(x, keys) for mode, model in models.items()}, repeats)
    return {mode: rows * seconds / value for mode, value in took.items()}


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    threads = torch.get_num_threads()
    print(f"{options.rows} sounds of {options.seconds:g} s, noise, float32, {threads} threads; times real time")
    print(f"{'':18s}{'psysim':>9s}{'direct':>9s}{'helped':>9s}   times faster")
    content: dict[str, Any] = {"rows": options.rows, "seconds": options.seconds, "threads": threads, "models": {}}
    with torch.no_grad():
        for name in MODELS:
            result = measure(name, options.seconds, options.rows, options.repeats)
            content["models"][name] = result
            speeds = "".join(f"{result[f'{form}_times_real_time']:9.1f}" for form in ("psysim", "direct", "helped"))
            print(f"{name:18s}{speeds}   {result['speed_up']:.1f} (helped: {result['speed_up_helped']:.1f})")
        content["spikes_times_real_time"] = measure_spikes(options.seconds, options.rows, options.repeats)
        for mode, speed in content["spikes_times_real_time"].items():
            print(f"word_3000, {mode} spikes: {speed:.1f}")
    write_json(options.json, (), **content)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
