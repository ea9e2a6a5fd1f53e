"""Chunks of time side by side, with the numba forms as the engine, and with Triton's forms in the interpreter."""

from __future__ import annotations

import importlib
import os
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


@pytest.fixture
def chunks(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Cut sounds of any length into chunks of 8 samples when they run in Triton's forms."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("Triton's interpreter is off because there is a GPU")
    from psysim.ops.cuda import chunked

    monkeypatch.setattr(chunked, "SHORTEST", 1)
    monkeypatch.setattr(chunked, "FEW_LANES", 1000)
    monkeypatch.setattr(chunked, "LENGTH", 8)
    return chunked


@pytest.fixture
def fast_chunks(chunks: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The same for chunks of 64 samples, run by the numba forms instead of the interpreter."""
    monkeypatch.setattr(chunks, "LENGTH", 64)
    for module in CHUNKED.values():
        cpu, cuda = (importlib.import_module(f"psysim.ops.{room}.{module}") for room in ("cpu", "cuda"))
        if module in ("gammatone", "modulation"):
            new = {"_run": cpu.forward, "_run_back": cpu.backward}
        else:
            new = dict(zip(("forward", "backward"), chunks.in_chunks(cpu.forward, cpu.backward), strict=True))
        for name, value in new.items():
            monkeypatch.setattr(cuda, name, value)
    return chunks


def outcome(case: Any, inputs: dict[str, Any], learn: bool = True) -> list[Tensor]:
    """Output, end state, and gradients of a weighted sum of both."""
    names = [*case.differentiable, "state"] if learn else ["x", "state"]
    leaves = {name: inputs[name].clone().requires_grad_() for name in names}
    result = case.run(**(inputs | leaves), return_state=True)
    values = [torch.view_as_real(v) if v.is_complex() else v for v in result]
    weights = [torch.sin(1.0 + torch.arange(v.numel(), dtype=torch.float64)).reshape(v.shape).to(v) for v in values]
    loss = sum(((v * w).sum() / v.detach().abs().max() for v, w in zip(values, weights, strict=True)), torch.zeros(()))
    return [v.detach() for v in values] + list(torch.autograd.grad(loss, list(leaves.values())))


def given(case: Any, samples: int, dtype: Any, batch: int = 2, channels: int = 2, **options: Any) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    inputs = case.inputs(rng, batch, channels, samples, dtype) | options
    return inputs | {"state": torch.from_numpy(rng.standard_normal((batch, channels, case.state_size(inputs))))}


def assert_as_in_one_pass(case: Any, inputs: dict[str, Any], learn: bool = True) -> None:
    expected = outcome(case, inputs, learn)
    with using("triton"):
        result = outcome(case, inputs, learn)
    assert result[0].is_contiguous()
    # As the forms agree with the definition, and their gradients with its (test_all_ops)
    tight = inputs["x"].dtype == torch.float64
    bounds = [1e-10 if tight else case.float32_error] * 2 + [1e-9 if tight else 1e-6] * (len(result) - 2)
    for ours, theirs, bound in zip(result, expected, bounds, strict=True):
        assert (ours - theirs).abs().max() <= bound * theirs.abs().max()


@pytest.mark.usefixtures("fast_chunks")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("kind", "learn"), [(torch.float32, True), (torch.float64, True), (torch.float64, False)])
def test_agrees_with_one_pass(name: str, kind: Any, learn: bool) -> None:
    for options in CASES[name].options:
        assert_as_in_one_pass(CASES[name], given(CASES[name], 333, kind, **options), learn)


@pytest.mark.usefixtures("fast_chunks")
@pytest.mark.parametrize("samples", [64, 65, 128, 129, 192, 193, 1000])
def test_any_length(samples: int) -> None:
    assert_as_in_one_pass(CASES["leaky"], given(CASES["leaky"], samples, torch.float64))


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("name", ["sosfilt", "leaky", "iirfilt"])
def test_tritons_forms_agree_with_one_pass(name: str) -> None:
    assert_as_in_one_pass(CASES[name], given(CASES[name], 27, torch.float64))


@pytest.mark.usefixtures("fast_chunks")
@pytest.mark.parametrize("name", NAMES)
def test_rows_stay_alone_and_nothing_goes_back_in_time(name: str) -> None:
    """Bit by bit: other rows, sound before a NaN, and a sound that ends earlier."""
    case, bad, earlier = CASES[name], 140, 270
    inputs = given(case, 333, torch.float32, batch=3)
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


@pytest.mark.parametrize("corrections", [1, 2])
def test_a_slow_filter_over_many_chunks(fast_chunks: Any, monkeypatch: pytest.MonkeyPatch, corrections: int) -> None:
    """The lowpass of 2.5 Hz at 44.1 kHz for 3 s: the transition of a chunk has numbers of 500 that cancel to 1."""
    monkeypatch.setattr(fast_chunks, "LENGTH", 512)
    monkeypatch.setattr(fast_chunks, "CORRECTIONS", corrections)
    x = torch.from_numpy(np.random.default_rng(1).standard_normal((1, 2, 132_300)) + 1.0).requires_grad_()
    sos = torch.from_numpy(SLOW).requires_grad_()
    results = []
    for form in ("numba", "triton"):
        with using(form):
            y, end = ops.sosfilt(x, sos, return_state=True)
        results.append([y, end, *torch.autograd.grad((y * y).sum() + end.sum(), (x, sos))])
    pairs = [(ours.detach(), theirs.detach()) for theirs, ours in zip(*results, strict=True)]
    errors = [float((ours - theirs).abs().max() / theirs.abs().max()) for ours, theirs in pairs]
    # One pass is itself wrong by 4e-11, and so are chunks; with one correction by 7e-8: this is why there are two
    assert (max(errors) <= 1e-10) == (corrections == 2)
    expected = scipy.signal.sosfilt(SLOW, x.detach().numpy())
    bound = 1e-10 if corrections == 2 else 1e-6
    assert np.abs(results[1][0].detach().numpy() - expected).max() <= bound * np.abs(expected).max()


@pytest.mark.usefixtures("fast_chunks")
@pytest.mark.parametrize("name", ["gammatone", "sosfilt"])
def test_blocks(name: str) -> None:
    case, cut = CASES[name], 200
    inputs = given(case, 333, torch.float64)
    with using("triton"):
        whole, end = case.run(**inputs, return_state=True)
        first, state = case.run(**(inputs | {"x": inputs["x"][..., :cut]}), return_state=True)
        last, state = case.run(**(inputs | {"x": inputs["x"][..., cut:], "state": state}), return_state=True)
    # cut elsewhere, so that the sums differ
    assert (torch.cat([first, last], -1) - whole).abs().max() <= 1e-10 * whole.abs().max()
    assert (state - end).abs().max() <= 1e-10 * end.abs().max()


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
