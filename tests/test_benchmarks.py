"""The benchmarks cover every operator, and every script runs: on sizes so small that the numbers mean nothing."""

from __future__ import annotations

import importlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from psysim import ops
from psysim.ops import reference

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = {
    "aids": ["--seconds", "0.05", "--rows", "1", "--repeats", "1"],
    "ops": ["--seconds", "0.01", "--batch", "1"],
    "loudness": ["--rows", "1", "--peer-rows", "0"],
    "models": ["--seconds", "0.02", "--batch", "1", "--dtype", "float32", "--in-process"],
    "nerve": ["--seconds", "0.05", "--rows", "1", "--repeats", "1"],
    "neural": ["--batch", "1", "--frames", "20", "--repeats", "1"],
    "networks": ["--rows", "1", "--repeats", "1", "--architectures", "word_arch0_0009"],
    "peers": ["--inside", "--seconds", "0.02", "--batch", "1", "--channels", "3", "--samples", "200", "--repeats", "1"],
    "procedures": ["--lanes", "100", "--seconds", "0.002"],
    "stimuli": ["--rows", "3"],
    "experiment": ["--experiments", "simulated_listener"],
}
SHORT_DEMO = {
    "run.n_tracks": 1,
    "conditions.rate_hz": [16],
    "procedure.max_trials": 8,
    "procedure.n_reversals": 2,
    "procedure.steps": [4.0],
    "stimulus.duration_s": 0.15,
    "stimulus.ramp_s": 0.02,
    "observers": [
        {"model": "dau1997", "decision": "optimal_detector", "internal_noise_std": 1.0, "template_tokens": 1}
    ],
}


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Import a benchmark module as its script would; the number of threads is put back."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    threads = torch.get_num_threads()
    yield importlib.import_module
    torch.set_num_threads(threads)


def _shorten(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the measurements that have no option for their size small."""
    roofline: ModuleType = load("roofline")
    monkeypatch.setattr(roofline, "STEPS", 256)
    monkeypatch.setattr(roofline, "COPY_BYTES", 1 << 16)
    monkeypatch.setattr(load("bench_experiment").OnePass, "overrides", SHORT_DEMO)


def _numbers(content: Any) -> Iterator[float]:
    if isinstance(content, dict | list):
        for item in content.values() if isinstance(content, dict) else content:
            yield from _numbers(item)
    elif isinstance(content, float):
        yield content


def test_every_operator_has_a_benchmark(load: Any) -> None:
    measured = {kind.op for kind in load("op_classes").BENCHMARKS}
    operators = {name for name in ops.__all__ if name in reference.__all__}
    assert measured == operators
    for kind in load("op_classes").BENCHMARKS:
        assert kind.flops > 0
        assert kind.__doc__


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_runs(name: str, load: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert {path.stem for path in BENCHMARKS.glob("bench_*.py")} == {f"bench_{script}" for script in SCRIPTS}
    _shorten(load, monkeypatch)
    target = tmp_path / "numbers.json"
    assert load(f"bench_{name}").main([*SCRIPTS[name], "--json", str(target)]) == 0
    content = json.loads(target.read_text())
    assert content.pop("machine")["cpus"] == os.cpu_count()
    numbers = list(_numbers(content))
    assert numbers
    assert all(math.isfinite(number) for number in numbers)


def test_limits_are_of_a_machine(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a slow phone and a large server: 0.1 to 10^4 GB/s, 0.1 to 10^5 GFLOP/s."""
    _shorten(load, monkeypatch)
    roofline = load("roofline")
    roofline.limits.cache_clear()
    found = roofline.limits()
    roofline.limits.cache_clear()
    assert 1e8 < found["bytes_per_second"] < 1e13
    assert 1e8 < found["flops_float64"] < 1e14
    assert 1e8 < found["flops_float32"] < 1e14
    assert "GFLOP/s" in roofline.summary(found)


def test_memory_at_the_peak(load: Any) -> None:
    """64 MB of ones are seen, kept or not; 1 MB for pages that the kernel counts late, 6 MB for what else happens."""
    measure = load("measure")
    measure.peak_memory(lambda: np.ones(1000))
    if measure.peak_memory(lambda: None) is None:
        pytest.skip("this system does not let the high-water mark be set back")
    assert 63e6 < measure.peak_memory(lambda: np.ones(8_000_000)) < 70e6
    assert 63e6 < measure.peak_memory(lambda: float(np.ones(8_000_000).sum())) < 70e6
    assert measure.alone(os.getpid) != os.getpid()
