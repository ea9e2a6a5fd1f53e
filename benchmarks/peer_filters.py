"""A bank of second-order filters in several libraries, on one sound, in turn: 256 channels, 24,000 samples, float32.

Two banks, because one peer has poles only: ``biquad`` (b0 b1 b2 a1 a2 of its own in every channel) and ``all-pole``
(b0 = 1, b1 = b2 = 0). SciPy uses one core and has no gradient, so everything is timed on one thread and on all.
Gradients are with respect to the sound and to the coefficients of every channel; torchlpc takes coefficients per
sample, so they are spread over time for it, which is part of its cost. ``error`` is the largest deviation from the same
filters in float64, in units of the largest output.
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any
from unittest import mock

import numpy as np
import scipy.signal
import torch
from measure import duration, noise
from torch import Tensor

from psysim import ops

__all__ = ["measure_filters"]

Filter = Callable[[Tensor, Tensor, Tensor], Tensor]  # sound (F, T), b and a (F, 3) -> (F, T)


def _coefficients(channels: int, all_pole: bool) -> tuple[Tensor, Tensor]:
    """Resonances from 100 Hz to 8 kHz with a quality of 4 at 44.1 kHz, (F, 3) each, float64."""
    angle = 2 * math.pi * np.geomspace(100.0, 8000.0, channels) / 44100.0
    radius = np.exp(-angle / 8)
    a = np.stack([np.ones(channels), -2 * radius * np.cos(angle), radius**2], -1)
    b = np.stack([1 - radius, np.zeros(channels), radius - 1], -1)
    if all_pole:
        b = np.tile([1.0, 0.0, 0.0], (channels, 1))
    return torch.from_numpy(b), torch.from_numpy(a)


def _psysim(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
    return ops.sosfilt(x[None], torch.cat([b, a], -1)[:, None])[0]


def _scipy_sosfilt(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
    sos = torch.cat([b, a], -1)[:, None].numpy()
    return torch.from_numpy(np.stack([scipy.signal.sosfilt(*pair) for pair in zip(sos, x.numpy(), strict=True)]))


def _scipy_lfilter(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
    rows = zip(b.numpy(), a.numpy(), x.numpy(), strict=True)
    return torch.from_numpy(np.stack([scipy.signal.lfilter(*row) for row in rows]))


def _torchaudio(x: Tensor, b: Tensor, a: Tensor) -> Tensor:
    from torchaudio.functional import lfilter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its announcement of a move
        return lfilter(x, a, b, clamp=False, batching=True)


def _torchlpc(x: Tensor, b: Tensor, a: Tensor) -> Tensor:  # noqa: ARG001
    from torchlpc import sample_wise_lpc

    return sample_wise_lpc(x, a[:, None, 1:].expand(-1, x.shape[1], -1))


@contextmanager
def _without_extension(name: str) -> Iterator[None]:
    """Let torchlpc use its numba path, which its compiled extension replaces where there is one."""
    if name != "torchlpc, numba path":
        yield
        return
    with mock.patch("torchlpc.core.EXTENSION_LOADED", False), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _contenders(all_pole: bool) -> dict[str, Filter]:
    filters: dict[str, Filter] = {"psysim": _psysim}
    if all_pole and find_spec("torchlpc"):
        filters |= {"torchlpc": _torchlpc, "torchlpc, numba path": _torchlpc}
    if not all_pole:
        filters |= {"scipy sosfilt": _scipy_sosfilt, "scipy lfilter": _scipy_lfilter}
    if find_spec("torchaudio"):
        filters["torchaudio lfilter"] = _torchaudio
    return filters


def _once(name: str, run: Filter, x: Tensor, b: Tensor, a: Tensor, learn: bool) -> float:
    """Seconds of one forward pass, with ``learn`` of the backward pass as well, of a filter that runs in a loop.

    The call before the timed one brings its code and memory back after the other contenders.
    """
    arguments = [value.clone().requires_grad_(learn) for value in (x, b, a)]

    def call() -> Any:
        y = run(*arguments)
        return torch.autograd.grad(y, arguments, torch.ones_like(y), allow_unused=True) if learn else y

    with _without_extension(name):
        call()
        return duration(call)


def _bank(all_pole: bool, channels: int, samples: int, repeats: int, threads: int) -> list[dict[str, Any]]:
    x = noise(channels, samples, torch.float32, 0.1)
    exact = _coefficients(channels, all_pole)
    truth = _scipy_lfilter(x.double(), *exact)
    rounded = tuple(value.float() for value in exact)
    filters = _contenders(all_pole)
    if threads > 1:
        filters = {name: run for name, run in filters.items() if not name.startswith("scipy")}
    forward: dict[str, list[float]] = {name: [] for name in filters}
    both: dict[str, list[float]] = {name: [] for name in filters if not name.startswith("scipy")}
    errors = {}
    for repeat in range(repeats + 1):  # the first is a warm-up
        for name, run in filters.items():
            coefficients = exact if name == "psysim" else rounded  # each takes what it is made for
            if not repeat:
                with _without_extension(name):
                    errors[name] = float((run(x, *coefficients) - truth).abs().max() / truth.abs().max())
            for durations, learn in ((forward, False), (both, True)):
                if name in durations:
                    durations[name].append(_once(name, run, x, *coefficients, learn=learn))
    rows = []
    for name in filters:
        row: dict[str, Any] = {"bank": "all-pole" if all_pole else "biquad", "name": name, "threads": threads}
        for what, durations in (("forward", forward), ("both", both)):
            if name in durations:
                median, own = (statistics.median(durations[key][1:]) for key in (name, "psysim"))
                row |= {f"{what}_ns": 1e9 * median / x.numel(), f"psysim_{what}_speed_up": median / own}
        rows.append(row | {"error": errors[name]})
    return rows


def measure_filters(channels: int = 256, samples: int = 24_000, repeats: int = 7) -> list[dict[str, Any]]:
    """Time the banks, print the table, and return its rows."""
    print(f"\n{channels} channels, {samples} samples, order 2, float32; ns per sample and channel, median of {repeats}")
    print(f"{'bank':<10}{'':<22}{'threads':>8}{'forward':>9}{'fwd+bwd':>9}{'psysim is faster by':>25}{'error':>10}")
    before, rows = torch.get_num_threads(), []
    try:
        for threads in sorted({1, before}):
            _set_threads(threads)
            for all_pole in (False, True):
                for row in _bank(all_pole, channels, samples, repeats, threads):
                    rows.append(row)
                    print(_line(row), flush=True)
    finally:
        _set_threads(before)
    return rows


def _set_threads(threads: int) -> None:
    import numba

    torch.set_num_threads(threads)
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))


def _line(row: dict[str, Any]) -> str:
    names = f"{row['bank']:<10}{row['name']:<22}{row['threads']:>8}{row['forward_ns']:9.2f}"
    gain = f"{row['psysim_forward_speed_up']:15.1f}"
    if "both_ns" not in row:
        return f"{names}{'-':>9}{gain}{'-':>10}{row['error']:10.0e}"
    return f"{names}{row['both_ns']:9.2f}{gain}{row['psysim_both_speed_up']:10.1f}{row['error']:10.0e}"
