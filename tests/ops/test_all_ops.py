"""What every operator promises, tested over all of them (fixture ``case``)."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from psysim import ops
from psysim.errors import SpecError
from psysim.ops.base import DispatchTable, Form, using


def make(
    case: Any, batch: int = 2, channels: int = 3, samples: int = 40, dtype: Any = torch.float64, **options: Any
) -> Any:
    return case.inputs(np.random.default_rng(7), batch, channels, samples, dtype) | options


def with_state(case: Any, inputs: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Add a state to start from and ask for the one at the end, if the operator has states."""
    if case.state_size is None:
        return inputs
    x = inputs["x"]
    channels = x.shape[1] if x.ndim == 3 else case.run(**inputs).shape[1]
    shape = (x.shape[0], channels, case.state_size(inputs))
    return inputs | {"state": case.make_state(rng, shape, inputs), "return_state": True}


def parts(result: Any) -> list[Tensor]:
    """Output and, if there is one, end state, complex numbers as pairs."""
    values = result if isinstance(result, tuple) else (result,)
    return [torch.view_as_real(v) if v.is_complex() else v for v in values]


def rows(case: Any, inputs: dict[str, Any], index: list[int]) -> dict[str, Any]:
    """The arguments with only some rows of the batch, in some order."""
    return inputs | {name: inputs[name][index] for name in ("x", *case.per_row)}


def gradient(case: Any, inputs: dict[str, Any]) -> Tensor:
    """Gradient at the signal of a weighted sum of the output; the weights depend on the place in the row only."""
    x = inputs["x"].clone().requires_grad_()
    y = case.run(**(inputs | {"x": x}))
    y = torch.view_as_real(y) if y.is_complex() else y
    weight = torch.cos(torch.arange(y[0].numel(), dtype=torch.float64)).reshape(y[0].shape)
    return torch.autograd.grad((y * weight).sum(), x)[0]


def same(a: Tensor, b: Tensor) -> bool:
    """Equal bit by bit, except that any NaN equals any other."""
    a, b = (torch.view_as_real(v) if v.is_complex() else v for v in (a, b))
    return torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num())


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    batch=st.integers(1, 4),
    channels=st.sampled_from([1, 2, 3, 5, 17]),
    samples=st.one_of(st.integers(1, 5), st.integers(60, 135)),
    seed=st.integers(0, 2**32),
    strided=st.booleans(),
    choice=st.integers(0, 2),
)
@example(batch=1, channels=1, samples=1, seed=0, strided=False, choice=0)
@example(batch=1, channels=1, samples=1, seed=0, strided=False, choice=1)
@example(batch=1, channels=1, samples=1, seed=0, strided=False, choice=2)
def test_form_agrees_with_definition(
    case: Any, dtype: Any, batch: int, channels: int, samples: int, seed: int, strided: bool, choice: int
) -> None:
    options = case.options[choice % len(case.options)]
    inputs = case.inputs(np.random.default_rng(seed), batch, channels, samples, dtype) | options
    expected = case.reference(**inputs)
    if strided:
        inputs["x"] = torch.stack([inputs["x"], inputs["x"]], -1)[..., 0].transpose(0, 1).contiguous().transpose(0, 1)
    result = case.run(**inputs)
    assert result.dtype == expected.dtype
    assert result.is_contiguous()
    # float64: sums of products in another order, 1e-10 of the peak leaves a factor 1e5 over the rounding of one step
    bound = 1e-10 if dtype == torch.float64 else case.float32_error
    assert (result - expected).abs().max() <= bound * expected.abs().max()


@pytest.mark.parametrize("grad_of_coefficients", [True, False])
def test_gradients_by_finite_differences(case: Any, grad_of_coefficients: bool) -> None:
    for options in case.options:
        inputs = case.tame(make(case, batch=2, channels=2, samples=5)) | options
        names = case.differentiable if grad_of_coefficients else ("x",)
        leaves = tuple(inputs[name].clone().requires_grad_() for name in names)

        def run(*values: Tensor, names: Any = names, inputs: Any = inputs) -> Tensor:
            return case.run(**(inputs | dict(zip(names, values, strict=True))))

        assert torch.autograd.gradcheck(run, leaves, rtol=1e-5)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    batch=st.sampled_from([1, 3]),
    channels=st.sampled_from([1, 7]),
    samples=st.sampled_from([1, 2, 15, 64, 65, 150]),
    seed=st.integers(0, 2**32),
    choice=st.integers(0, 2),
)
@example(batch=1, channels=1, samples=1, seed=0, choice=2)
def test_gradients_agree_with_those_of_the_definition(
    case: Any, dtype: Any, batch: int, channels: int, samples: int, seed: int, choice: int
) -> None:
    options = case.options[choice % len(case.options)]
    inputs = case.inputs(np.random.default_rng(seed), batch, channels, samples, dtype) | options
    leaves = {name: inputs[name].clone().requires_grad_() for name in case.differentiable}
    results = []
    for function in (case.run, case.reference):
        y = function(**(inputs | leaves))
        y = torch.view_as_real(y) if y.is_complex() else y
        weight = torch.sin(torch.arange(y.numel(), dtype=torch.float64)).reshape(y.shape).to(y.dtype)
        results.append(torch.autograd.grad((y * weight).sum(), list(leaves.values()), materialize_grads=True))
    for name, ours, theirs in zip(leaves, *results, strict=True):
        # float32: the signal's gradient is rounded, and per channel before the sum over channels of the gammatone
        bound = 1e-9 if ours.dtype == torch.float64 else 1e-6
        assert (ours - theirs).abs().max() <= bound * theirs.abs().max(), name


@settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batch=st.sampled_from([1, 2]),
    channels=st.sampled_from([1, 2, 9]),
    samples=st.sampled_from([1, 7, 8, 19]),
    seed=st.integers(0, 2**32),
    choice=st.integers(0, 2),
)
@example(batch=1, channels=1, samples=1, seed=0, choice=0)
def test_states_and_gradients_agree_with_the_definition_in_every_form(
    case: Any, form: str, dtype: Any, batch: int, channels: int, samples: int, seed: int, choice: int
) -> None:
    rng = np.random.default_rng(seed)
    options = case.options[choice % len(case.options)]
    inputs = with_state(case, case.inputs(rng, batch, channels, samples, dtype) | options, rng)
    names = (*case.differentiable, *(("state",) if "state" in inputs else ()))
    leaves = {name: inputs[name].clone().requires_grad_() for name in names}
    # Both are given the same weights: a last bit of the output's must not show in the gradient of a sum that cancels.
    weights = []
    for value in parts(case.reference(**inputs)):
        weight = torch.sin(1.0 + torch.arange(value.numel(), dtype=torch.float64)).reshape(value.shape)
        weights.append((weight / (1.0 + value.abs().max())).to(value.dtype))
    outcomes = []
    for function in (case.run, case.reference):
        values = parts(function(**(inputs | leaves)))
        loss: Any = sum((value * weight).sum() for value, weight in zip(values, weights, strict=True))
        slopes = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
        outcomes.append([v.detach() for v in values] + list(slopes))
    # Outputs as in test_form_agrees_with_definition, gradients as in the test after it
    bounds = [1e-10 if dtype == torch.float64 else case.float32_error] * len(values)
    bounds += [1e-9 if leaf.dtype == torch.float64 else 1e-6 for leaf in leaves.values()]
    for ours, theirs, bound, what in zip(*outcomes, bounds, ["y", "end", *names][-len(bounds) :], strict=True):
        assert (ours - theirs).abs().max() <= bound * theirs.abs().max(), what


@pytest.mark.parametrize("cuts", [(1,), (7, 8), (64, 65, 128), (40, 99)])
def test_blocks_equal_one_pass(stateful: Any, dtype: Any, cuts: tuple[int, ...]) -> None:
    for options in stateful.options:
        inputs = make(stateful, batch=3, channels=5, samples=150, dtype=dtype, **options)
        whole, end = stateful.run(**inputs, return_state=True)
        assert same(whole, stateful.run(**inputs))
        pieces, state = [], None
        for block in inputs["x"].tensor_split(cuts, -1):
            piece, state = stateful.run(**(inputs | {"x": block}), state=state, return_state=True)
            pieces.append(piece)
        assert same(torch.cat(pieces, -1), whole)
        bound = stateful.handed_on_error if dtype == torch.float32 else 0.0
        assert (state - end).abs().max() <= bound * end.abs().max()


def test_blocks_equal_one_pass_in_tritons_form(stateful: Any) -> None:
    inputs = make(stateful, samples=17)
    with using("triton"):
        whole, end = stateful.run(**inputs, return_state=True)
        first, state = stateful.run(**(inputs | {"x": inputs["x"][..., :9]}), return_state=True)
        last, state = stateful.run(**(inputs | {"x": inputs["x"][..., 9:]}), state=state, return_state=True)
    assert same(torch.cat([first, last], -1), whole)
    assert same(state, end)


def test_the_layout_of_a_state_does_not_matter(stateful: Any, form: str) -> None:
    inputs = with_state(stateful, make(stateful, samples=9), np.random.default_rng(1))
    state = inputs["state"]
    turned = inputs | {"state": state.permute(2, 1, 0).contiguous().permute(2, 1, 0)}
    for ours, theirs in zip(parts(stateful.run(**turned)), parts(stateful.run(**inputs)), strict=True):
        assert same(ours, theirs)


def test_a_wrong_state_is_refused(stateful: Any) -> None:
    inputs = with_state(stateful, make(stateful), np.random.default_rng(1))
    for wrong in (inputs["state"][:1], inputs["state"].float(), inputs["state"].tolist()):
        with pytest.raises(SpecError, match="state"):
            stateful.run(**(inputs | {"state": wrong}))


def test_opcheck(case: Any) -> None:
    for options in case.options:
        inputs = make(case, samples=6, **options)
        recorded: list[Any] = []

        class Record(TorchDispatchMode):
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                if func.namespace == "psysim":
                    recorded.append((func, args))  # noqa: B023
                return func(*args, **(kwargs or {}))

        leaf = inputs["x"].clone().requires_grad_()
        with Record():
            y = case.run(**(inputs | {"x": leaf}))
            y = torch.view_as_real(y) if y.is_complex() else y
            y.sum().backward()
        assert [func.name() for func, _ in recorded] == [f"psysim::{case.op}", f"psysim::{case.op}_backward"]
        for func, args in recorded:
            args = [a.detach() if isinstance(a, Tensor) else a for a in args]
            if not func.name().endswith("backward"):
                args[0] = args[0].requires_grad_()
            torch.library.opcheck(func, tuple(args))


def test_number_of_operators_does_not_grow_with_time(case: Any) -> None:
    class Count(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.count += 1
            return func(*args, **(kwargs or {}))

    counts = []
    for samples in (3, 400):
        inputs = make(case, samples=samples)
        leaves = {name: inputs[name].clone().requires_grad_() for name in case.differentiable}
        with Count() as counter:
            case.run(**(inputs | leaves)).sum().backward()
        counts.append(counter.count)
    assert counts[0] == counts[1]
    assert counts[0] < 100


def test_a_row_does_not_depend_on_its_batch(case: Any, dtype: Any) -> None:
    inputs = make(case, batch=37, channels=3, samples=77, dtype=dtype)
    everything, slopes = case.run(**inputs), gradient(case, inputs)
    for chosen in ([0], [36], [5, 20], [20, 5], list(range(36, 19, -1))):
        part = rows(case, inputs, chosen)
        assert same(case.run(**part), everything[chosen])
        assert same(gradient(case, part), slopes[chosen])


def test_tritons_form_treats_rows_alone(case: Any, dtype: Any) -> None:
    inputs = make(case, batch=5, samples=10, dtype=dtype)
    with using("triton"):
        everything = case.run(**inputs)
        assert same(case.run(**rows(case, inputs, [3, 1])), everything[[3, 1]])
        inputs["x"][2, ..., 4] = float("nan")
        spoilt = case.run(**inputs)
    assert same(spoilt[[0, 1, 3, 4]], everything[[0, 1, 3, 4]])
    if spoilt.ndim > 1 and case.causal:
        assert same(spoilt[2, ..., :4], everything[2, ..., :4])
    assert spoilt[2].isnan().any()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_stays_in_its_row(case: Any, dtype: Any, value: float) -> None:
    inputs = make(case, batch=9, channels=3, samples=77, dtype=dtype)
    clean, clean_slopes = case.run(**inputs), gradient(case, inputs)
    spoilt = inputs["x"].clone()
    spoilt[4, ..., 30] = value
    result, slopes = case.run(**(inputs | {"x": spoilt})), gradient(case, inputs | {"x": spoilt})
    others = [0, 1, 2, 3, 5, 6, 7, 8]
    assert same(result[others], clean[others])
    assert same(slopes[others], clean_slopes[others])
    if result.ndim > 1 and case.causal:  # nothing before the bad sample changes
        assert same(result[4, ..., :30], clean[4, ..., :30])
        if value != value:
            assert result[4, ..., 30].isnan().any()


def test_arguments_are_left_alone(case: Any) -> None:
    inputs = make(case)
    copies = {name: value.clone() for name, value in inputs.items() if isinstance(value, Tensor)}
    gradient(case, inputs)
    for name, copy in copies.items():
        assert torch.equal(inputs[name], copy), name


def test_works_under_no_grad_and_from_several_threads_at_once(case: Any) -> None:
    inputs = make(case, batch=40, samples=200)
    expected = case.run(**inputs)
    with torch.no_grad():
        assert same(case.run(**inputs), expected)
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(lambda _: case.run(**inputs), range(12)):
            assert same(result, expected)


def test_works_after_a_fork() -> None:
    script = """
        import os, torch
        from psysim import ops
        x, sos = torch.ones(40, 3, 50), torch.tensor([[1.0, 0.5, 0, 1, 0, 0]], dtype=torch.float64)
        torch.set_num_threads(2)
        before = ops.sosfilt(x, sos)
        child = os.fork()
        if child == 0:
            os._exit(0 if torch.equal(ops.sosfilt(x, sos), before) else 1)
        raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], timeout=120, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


BAD_SIGNALS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "dtype": (lambda x: x.half(), "float16; allowed: float32, float64"),
    "complex": (lambda x: x.to(torch.complex64), "complex64"),
    "dimensions": (lambda x: x[None], "must have the dimensions"),
    "empty": (lambda x: x[..., :0], "is empty"),
    "list": (lambda x: x.tolist(), "must be a tensor of shape .*, got list"),
}


@pytest.mark.parametrize("mistake", sorted(BAD_SIGNALS))
def test_a_wrong_signal_is_refused(case: Any, mistake: str) -> None:
    change, message = BAD_SIGNALS[mistake]
    inputs = make(case)
    with pytest.raises(SpecError, match=message) as caught:
        case.run(**(inputs | {"x": change(inputs["x"])}))
    assert f"ops.{case.op}" in str(caught.value)


def test_a_wrong_coefficient_is_refused(case: Any) -> None:
    inputs = make(case)
    for name, value in inputs.items():
        if name == "x" or not isinstance(value, Tensor) or value.dtype == torch.bool:
            continue
        with pytest.raises(SpecError, match=name):
            case.run(**(inputs | {name: value[None, None]}))
        with pytest.raises(SpecError, match=name):
            case.run(**(inputs | {name: value.to(torch.int32)}))
        with pytest.raises(SpecError, match=f"{name}.* on"):
            case.run(**(inputs | {name: value.to("meta")}))


def test_no_form_names_what_would_work() -> None:
    table = DispatchTable("gammatone", [Form("numba", "float32 on device 'cpu'", lambda _: False, "nowhere")])
    with pytest.raises(SpecError, match=r"float64 on device 'meta'.*Accepted: numba: float32 on device 'cpu'"):
        table.select(torch.empty(1, dtype=torch.float64, device="meta"))


def test_every_exported_operator_is_tested_here(case_names: set[str]) -> None:
    operators = {name for name in ops.__all__ if hasattr(torch.ops.psysim, name)}
    assert operators - {"chain_forward", "chain_products"} == case_names  # these: tests/ops/test_chain.py
