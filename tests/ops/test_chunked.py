"""Chunks of time side by side, with the numba forms as the engine, and with Triton's forms in the interpreter."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scipy.signal
import torch
from op_cases import CASES
from torch import Tensor

from psysim import ops
from psysim.ops.base import using

CHUNKED = {
    "sosfilt": "sosfilt",
    "leaky": "leaky",
    "iirfilt": "iirfilt",
    "gammatone": "gammatone",
    "modulation_bank": "modulation",
}
NAMES = sorted(name for name, case in CASES.items() if case.op in CHUNKED)
SLOW = scipy.signal.butter(2, 2.5, fs=44100, output="sos")


@pytest.fixture(params=["numba", "triton"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Cut sounds of any length into chunks, and run them in these forms; without it sounds run in one pass."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("Triton's interpreter is off because there is a GPU")
    from psysim.ops.cuda import chunked

    monkeypatch.setattr(chunked, "SHORTEST", 1)
    monkeypatch.setattr(chunked, "FEW_LANES", 1000)
    monkeypatch.setattr(chunked, "LENGTH", 64 if request.param == "numba" else 8)
    if request.param == "numba":
        for module in CHUNKED.values():
            cpu, cuda = (importlib.import_module(f"psysim.ops.{room}.{module}") for room in ("cpu", "cuda"))
            if module in ("gammatone", "modulation"):
                new = {"_run": cpu.forward, "_run_back": cpu.backward}
            else:
                new = dict(zip(("forward", "backward"), chunked.in_chunks(cpu.forward, cpu.backward), strict=True))
            for name, value in new.items():
                monkeypatch.setattr(cuda, name, value)
    yield request.param


def outcome(case: Any, inputs: dict[str, Any], learn: bool = True) -> list[Tensor]:
    """Output, end state, and gradients of a weighted sum of both."""
    names = [*case.differentiable, "state"] if learn else ["x", "state"]
    leaves = {name: inputs[name].clone().requires_grad_() for name in names}
    result = case.run(**(inputs | leaves), return_state=True)
    values = [torch.view_as_real(v) if v.is_complex() else v for v in result]
    weights = [torch.sin(1.0 + torch.arange(v.numel(), dtype=torch.float64)).reshape(v.shape).to(v) for v in values]
    loss = sum(((v * w).sum() / v.detach().abs().max() for v, w in zip(values, weights, strict=True)), torch.zeros(()))
    return [v.detach() for v in values] + list(torch.autograd.grad(loss, list(leaves.values())))


def given(case: Any, samples: int, dtype: Any, batch: int = 2, channels: int = 3, **options: Any) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    inputs = case.inputs(rng, batch, channels, samples, dtype) | options
    return inputs | {"state": torch.from_numpy(rng.standard_normal((batch, channels, case.state_size(inputs))))}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("learn", [True, False])
def test_agrees_with_one_pass(engine: str, name: str, dtype: Any, learn: bool) -> None:
    case = CASES[name]
    for options in case.options:
        for samples in (333, 129, 128) if engine == "numba" else (21,):
            inputs = given(case, samples, dtype, **options)
            expected = outcome(case, inputs, learn)
            with using("triton"):
                result = outcome(case, inputs, learn)
            assert result[0].is_contiguous()
            # As the forms agree with the definition, and their gradients with its (test_all_ops)
            tight = dtype == torch.float64
            bounds = [1e-10 if tight else case.float32_error] * 2 + [1e-9 if tight else 1e-6] * (len(result) - 2)
            for ours, theirs, bound in zip(result, expected, bounds, strict=True):
                assert (ours - theirs).abs().max() <= bound * theirs.abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_rows_stay_alone_and_nothing_goes_back_in_time(engine: str, name: str, dtype: Any) -> None:
    """Bit by bit: other rows, sound before a NaN, and a sound that ends earlier."""
    case, (samples, bad, earlier) = CASES[name], (333, 140, 270) if engine == "numba" else (29, 13, 22)
    inputs = given(case, samples, dtype, batch=3)
    with using("triton"):
        whole = case.run(**inputs)
        alone = case.run(**(inputs | {"x": inputs["x"][1:2], "state": inputs["state"][1:2]}))
        assert torch.equal(case.run(**(inputs | {"x": inputs["x"][..., :earlier]})), whole[..., :earlier])
        inputs["x"][1, ..., bad] = float("nan")
        spoilt = case.run(**inputs)
    assert torch.equal(alone, whole[1:2])
    assert torch.equal(spoilt[[0, 2]], whole[[0, 2]])
    assert torch.equal(spoilt[1, ..., :bad], whole[1, ..., :bad])
    assert spoilt[1, ..., bad:].isnan().any()


def test_a_slow_filter_over_many_chunks(monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    """The lowpass of 2.5 Hz at 44.1 kHz for 3 s: its state has numbers of 3000 that cancel to 1."""
    if engine == "triton":
        pytest.skip("132,300 samples are too many for the interpreter")
    from psysim.ops.cuda import chunked

    monkeypatch.setattr(chunked, "LENGTH", 512)
    x = torch.from_numpy(np.random.default_rng(1).standard_normal((1, 2, 132_300)) + 1.0).requires_grad_()
    sos = torch.from_numpy(SLOW).requires_grad_()
    results = []
    for form in ("numba", "triton"):
        with using(form):
            y, end = ops.sosfilt(x, sos, return_state=True)
        results.append([y, end, *torch.autograd.grad((y * y).sum() + end.sum(), (x, sos))])
    for ours, theirs in zip(*results, strict=True):
        assert (ours - theirs).abs().max() <= 1e-10 * theirs.abs().max()
    expected = scipy.signal.sosfilt(SLOW, x.detach().numpy())
    assert np.abs(results[1][0].detach().numpy() - expected).max() <= 1e-10 * np.abs(expected).max()


def test_blocks_and_finite_differences(engine: str) -> None:
    case = CASES["gammatone"]
    samples, cut = (333, 200) if engine == "numba" else (25, 11)
    inputs = given(case, samples, torch.float64)
    with using("triton"):
        whole, end = case.run(**inputs, return_state=True)
        first, state = case.run(**(inputs | {"x": inputs["x"][:, :cut]}), return_state=True)
        last, state = case.run(**(inputs | {"x": inputs["x"][:, cut:], "state": state}), return_state=True)
        leaf = inputs["x"][:1, :19].clone().requires_grad_()
        if engine == "triton":
            small = inputs | {"state": inputs["state"][:1], "order": 1}
            small["state"] = small["state"][..., :2]
            assert torch.autograd.gradcheck(lambda x: case.run(**(small | {"x": x})), (leaf,), rtol=1e-5)
    assert (torch.cat([first, last], -1) - whole).abs().max() <= 1e-12 * whole.abs().max()
    assert (state - end).abs().max() <= 1e-12 * end.abs().max()


def test_where_sounds_are_cut() -> None:
    """By length and lanes of an item; the rest has at least one sample."""
    from psysim.ops.cuda.chunked import FEW_LANES, LENGTH, LONG, SHORTEST, chunks_of

    assert chunks_of(SHORTEST - 1, 1) == 0
    assert chunks_of(SHORTEST, FEW_LANES) == SHORTEST // LENGTH - 1
    assert chunks_of(SHORTEST, FEW_LANES + 1) == 0
    assert chunks_of(LONG, 1000) == LONG // LENGTH - 1
    assert chunks_of(44_100, 1) == 86


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", NAMES)
def test_long_sounds_on_a_card(name: str, dtype: Any) -> None:
    case = CASES[name]
    inputs = given(case, 40_000, dtype, channels=2)
    expected, end = case.run(**inputs, return_state=True)
    card = {key: value.cuda() if isinstance(value, Tensor) else value for key, value in inputs.items()}
    result, at_end = (value.cpu() for value in case.run(**card, return_state=True))
    bound = 1e-10 if dtype == torch.float64 else 2.0 * case.float32_error
    assert (result - expected).abs().max() <= bound * expected.abs().max()
    assert (at_end - end).abs().max() <= 1e-10 * end.abs().max()
