"""`chain_forward` and `chain_products`: the chain in one pass against the chain step by step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from psysim import ops
from psysim.errors import SpecError
from psysim.ops import reference, steps
from psysim.ops.base import using

F64 = torch.float64
FS = 8000.0


def double(values: Any) -> Tensor:
    return torch.as_tensor(np.asarray(values), dtype=F64)


def bank(rng: np.random.Generator, channels: int, filters: int) -> steps.Bank:
    mfc = np.array([5.0, 10.0, 16.7, 46.3, 214.0])[: filters - 1]
    valid = np.arange(filters) < rng.integers(1, filters + 1, channels)[:, None]
    valid[-1] = True
    return steps.Bank(
        double(scipy.signal.butter(2, 2.5, fs=FS, output="sos")),
        torch.exp(-math.pi / FS * double(np.where(mfc < 10, 5.0, mfc / 2))),
        2 * math.pi / FS * double(mfc),
        torch.as_tensor(mfc > 10),
        double(rng.uniform(0.5, 2.0, filters - 1)),
        torch.as_tensor(valid),
    )


def model(rng: np.random.Generator, channels: int, filters: int = 5) -> list[steps.Step]:
    """A small model of the kind of Dau et al. (1997)."""
    return [
        steps.Gammatone(double(rng.uniform(0.8, 0.98, channels)), double(rng.uniform(0.1, 2.0, channels)), 4),
        steps.HalfWave(),
        steps.Sections(double(scipy.signal.butter(1, 1000.0, fs=FS, output="sos"))),
        steps.Loops(torch.exp(-1.0 / (FS * double([0.005, 0.05, 0.129, 0.253, 0.5]))), double([1e-5]), 10.0),
        steps.Sections(double(scipy.signal.butter(1, 150.0, fs=FS, output="sos")).expand(channels, 1, 6)),
        bank(rng, channels, filters),
    ]


def casp(rng: np.random.Generator, channels: int) -> list[steps.Step]:
    """A small model of the kind of Paulick et al. (2024): sound in m/s, three cascades, circuit, decimation by 3."""
    lowpass = double(scipy.signal.butter(2, rng.uniform(0.1, 0.5), output="sos")).expand(channels, 1, 6)
    gain = 1e4 * lowpass * double([1, 1, 1, 0, 0, 0]) + lowpass * double([0, 0, 0, 1, 1, 1])
    stick = (double(rng.uniform(1e3, 1e4, channels)), double(rng.uniform(0.01, 0.1, channels)), double([0.25]))
    return [
        steps.Drnl(torch.cat([gain, lowpass], 1), lowpass, *stick, torch.cat([lowpass] * 3, 1)),
        steps.HairCell(ops.HairCellCircuit().tensor(), 16000.0),
        steps.Loops(double([0.99, 0.999]), double(rng.uniform(1e-6, 1e-4, channels)), 10.0),
        steps.Decimate(ops.resampling_taps(1, 3, half_length=4), 3),
        *model(rng, channels)[4:],
    ]


CHAINS = {
    "casp": casp,
    "model": lambda rng, channels: model(rng, channels),
    "no overshoot limit, levels per channel": lambda rng, channels: [
        *model(rng, channels)[:3],
        steps.Loops(double([0.99, 0.999]), double(rng.uniform(1e-5, 1e-3, channels)), 0.0),
        bank(rng, channels, 3),
    ],
    "bank on channels": lambda rng, channels: [bank(rng, channels, 4)],
    "half wave, decimated by 2": lambda rng, channels: [
        steps.HalfWave(),
        steps.Decimate(ops.resampling_taps(1, 2), 2),
        bank(rng, channels, 3),
    ],
    "square, one gain": lambda rng, channels: [
        *model(rng, channels)[:3],
        steps.Square(double([316.2])),
        *model(rng, channels)[3:],
    ],
    "square, a gain per channel": lambda rng, channels: [
        steps.Square(double(rng.uniform(0.5, 3.0, channels))),
        bank(rng, channels, 3),
    ],
    "lowpass only": lambda rng, channels: [steps.HalfWave(), bank(rng, channels, 1)],
}


def inputs(
    chain: str, batch: int, channels: int, samples: int, dtype: torch.dtype, seed: int = 0, kept: int = 2
) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    made = CHAINS[chain](rng, channels)
    shape = (batch, samples) if made[0].source else (batch, channels, samples)
    last = made[-1]
    templates = rng.standard_normal((3, kept, *last.valid.shape, made_samples(made, samples)))
    return {
        "x": double(0.1 * rng.standard_normal(shape)).to(dtype),
        "steps": made,
        "templates": double(templates).to(dtype),
        "index": torch.as_tensor(rng.integers(0, 3, batch)),
    }


def made_samples(made: list[steps.Step], samples: int) -> int:
    for step in made:
        samples = step.samples_out(samples)
    return samples


@pytest.fixture(scope="session", params=sorted(CHAINS))
def chain(request: pytest.FixtureRequest) -> str:
    return request.param


def close(result: Tensor, expected: Tensor) -> bool:
    """Sums of the same numbers in another order: 1e-12 of the largest sum of its kind is 1e4 roundings."""
    return bool((result - expected).abs().max() <= 1e-12 * expected.abs().max())


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    batch=st.sampled_from([1, 3, 19]),
    channels=st.sampled_from([1, 3, 7]),
    samples=st.sampled_from([1, 5, 64, 131]),
    seed=st.integers(0, 1000),
    moments=st.booleans(),
)
def test_one_pass_equals_step_by_step(
    chain: str, dtype: Any, batch: int, channels: int, samples: int, seed: int, moments: bool
) -> None:
    samples = max(samples, 3)  # one sample must be left after a decimation
    given_ = inputs(chain, batch, channels, samples, dtype, seed)
    x = given_["x"]
    for step in given_["steps"]:
        x = step.run(x)
    assert torch.equal(ops.chain_forward(given_["x"], given_["steps"]), x)  # the same bits
    result = ops.chain_products(**given_, moments=moments)
    expected = reference.chain_products(x, [], given_["templates"], given_["index"], moments)
    assert result.dtype == F64
    assert close(result, expected)


def test_tritons_form_equals_step_by_step(chain: str, dtype: Any) -> None:
    given_ = inputs(chain, 3, 2, 11, dtype, kept=1)
    with using("triton"):
        result = ops.chain_products(**given_, moments=True)
        representation = ops.chain_forward(given_["x"], given_["steps"])
    expected = reference.chain_products(**given_, moments=True)
    whole = reference.chain_forward(given_["x"], given_["steps"])
    assert (representation - whole).abs().max() <= (1e-10 if dtype == F64 else 1e-5) * whole.abs().max()
    assert (result - expected).abs().max() <= (1e-10 if dtype == F64 else 1e-5) * expected.abs().max()


def test_a_row_does_not_depend_on_its_batch(chain: str, dtype: Any) -> None:
    given_ = inputs(chain, 40, 3, 150, dtype)
    everything = ops.chain_products(**given_, moments=True)
    for rows in ([0], [39, 2], list(range(20, 37))):
        part = given_ | {"x": given_["x"][rows], "index": given_["index"][rows]}
        assert torch.equal(ops.chain_products(**part, moments=True), everything[rows])


def test_nan_stays_in_its_row(chain: str, dtype: Any) -> None:
    given_ = inputs(chain, 5, 3, 70, dtype)
    clean = ops.chain_products(**given_)
    given_["x"][2, ..., 30] = float("nan")
    spoilt = ops.chain_products(**given_)
    others = [0, 1, 3, 4]
    assert torch.equal(spoilt[others], clean[others])
    assert spoilt[2].isnan().any()


def test_opcheck(chain: str) -> None:
    given_ = inputs(chain, 2, 3, 9, F64)
    made = given_["steps"]
    chain_ = (
        given_["x"],
        steps.kinds_of(made),
        [tensor for step in made for tensor in step.tensors],
        [number for step in made for number in step.numbers],
    )
    tests = ("test_schema", "test_faketensor")  # there is no gradient to test
    torch.library.opcheck(torch.ops.psysim.chain_forward.default, chain_, test_utils=tests)
    more = (given_["templates"], given_["index"], True)
    torch.library.opcheck(torch.ops.psysim.chain_products.default, (*chain_, *more), test_utils=tests)


def test_a_mistake_is_explained() -> None:
    given_ = inputs("model", 2, 3, 9, F64)
    made = given_["steps"]
    for change, message in (
        ({"steps": made[:-1]}, "last step must be a Bank"),
        ({"steps": [made[1], made[0], *made[2:]]}, "Gammatone takes sound"),
        ({"steps": [made[0], made[-1], made[-1]]}, "only be the last step"),
        ({"x": given_["x"][:, None]}, "must have the dimensions"),
        ({"templates": given_["templates"][..., 1:]}, r"templates have shape .* the steps make"),
        ({"index": given_["index"][:1]}, "index must have shape"),
        ({"index": given_["index"] + 3}, "index holds"),
        ({"x": given_["x"].clone().requires_grad_()}, "has no gradient"),
        ({"steps": [made[0], *[steps.Decimate(ops.resampling_taps(1, 2), 2)] * 2, made[-1]]}, "only one Decimate"),
        ({"steps": [made[0], steps.Decimate(ops.resampling_taps(1, 20), 20), made[-1]]}, "too few"),
    ):
        with pytest.raises(SpecError, match=message):
            ops.chain_products(**(given_ | change))
    channels = inputs("bank on channels", 2, 3, 9, F64)
    with pytest.raises(SpecError, match="x has 2 channels, the steps have 3"):
        ops.chain_products(**(channels | {"x": channels["x"][:, :2]}))
