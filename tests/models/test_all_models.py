"""What every registered model promises."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import Tensor

from psysim.errors import SpecError
from psysim.models import Model, registry

FS = 44100.0
DTYPES = ["float32", "float64"]


def build(name: str, **options: object) -> Model:
    return registry.get(name)(fs=FS, **options)


def sound(batch: int = 3, samples: int = 700, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return noise at 60 dB SPL with an onset, in pascal."""
    x = 0.02 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    x[:, :50] = 0.0
    return x.to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", registry.names())
def test_a_row_is_bitwise_the_same_in_any_batch(name: str, dtype: str) -> None:
    model = build(name, dtype=dtype)
    x = sound(batch=5, dtype=model.dtype)
    together = model.represent(x).values
    assert together.dtype == model.dtype
    assert together.isfinite().all()
    for order in ([2], [4, 2], [0, 1, 2, 3, 4] * 4):
        assert torch.equal(model.represent(x[order]).values, together[order])
    assert torch.equal(model.represent(x[2]).values, together[2:3])


@pytest.mark.parametrize("name", registry.names())
def test_axes_of_the_representation(name: str) -> None:
    model = build(name)
    r = model.represent(sound())
    b, f, m, t = r.values.shape
    assert b == 3
    assert r.valid.shape == (f, m)
    assert r.valid.dtype == torch.bool
    assert (r.fc.shape, r.mfc.shape) == ((f,), (m,))
    assert abs(t - 700 / FS * r.fs) <= 1
    assert torch.equal(r.values[:, ~r.valid], torch.zeros_like(r.values[:, ~r.valid]))
    assert r.values[:, r.valid].abs().amax((0, 2)).gt(0).all()


@pytest.mark.parametrize("name", registry.names())
def test_no_state_and_no_side_effects(name: str) -> None:
    model, x = build(name), sound()
    kept = x.clone()
    facts = (torch.get_rng_state().clone(), torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled())
    first = model.represent(x).values
    model.represent(sound(batch=1, samples=99))
    assert torch.equal(model.represent(x).values, first)
    assert torch.equal(x, kept)
    assert torch.equal(torch.get_rng_state(), facts[0])
    assert (torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()) == facts[1:]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", registry.names())
def test_a_sample_that_is_not_finite_shows_in_its_row_only(name: str, value: float) -> None:
    model, x = build(name), sound()
    clean = model.represent(x)
    x[1, 300] = value
    spoilt = model.represent(x).values
    assert torch.equal(spoilt[[0, 2]], clean.values[[0, 2]])
    assert not spoilt[1][clean.valid].isfinite().all(-1).any()


@pytest.mark.parametrize("name", registry.names())
def test_constructor_arguments_make_a_twin(name: str) -> None:
    model = build(name)
    twin = type(model)(**json.loads(json.dumps(model.parameters_dict())))
    assert twin.parameters_dict() == model.parameters_dict()
    x = sound()
    assert torch.equal(twin.represent(x).values, model.represent(x).values)
    assert torch.equal(copy.deepcopy(model).represent(x).values, model.represent(x).values)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", registry.names())
def test_memory_estimate_covers_the_output(name: str, dtype: str) -> None:
    model = build(name, dtype=dtype)
    values = model.represent(sound(batch=1, dtype=model.dtype)).values
    size = values.numel() * values.element_size()
    assert size <= model.bytes_per_interval(700) <= 10 * size
    assert model.bytes_per_interval(7000) == pytest.approx(10 * model.bytes_per_interval(700), rel=0.01)


@pytest.mark.parametrize("name", registry.names())
def test_restricted_to_one_channel(name: str) -> None:
    whole = build(name, dtype="float64")
    if type(whole).restricted is Model.restricted:
        with pytest.raises(SpecError, match="cannot be restricted to one channel"):
            whole.restricted(1000.0)
        return
    model = whole.restricted(1000.0)
    r = model.represent(sound(dtype=torch.float64))
    assert r.fc.shape == (1,)
    assert float(r.fc[0]) == pytest.approx(1000.0)
    assert model.dtype == torch.float64


@pytest.mark.parametrize("name", registry.names())
def test_wrong_sound_is_refused_with_a_reason(name: str) -> None:
    model, x = build(name), sound()
    for call in (model, model.represent):
        with pytest.raises(SpecError, match=r"audio.*int16.*pascal"):
            call(x.to(torch.int16))
        with pytest.raises(SpecError, match=r"audio.*shape"):
            call(x.reshape(1, 1, 3, 700))
        with pytest.raises(SpecError, match=r"audio.*empty"):
            call(x[:, :0])
        with pytest.raises(SpecError, match=r"audio.*list"):
            call(x.tolist())


@pytest.mark.parametrize("name", registry.names())
def test_learnable_round_trip(name: str) -> None:
    model = build(name, learnable=True)
    assert len(list(model.parameters())) > 0
    assert len(list(build(name).parameters())) == 0
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.01)
    other = build(name)
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(other.represent(sound()).values, model.represent(sound()).values)


def test_a_wrong_name_gets_the_nearest() -> None:
    with pytest.raises(SpecError, match="Did you mean 'dau1997'"):
        registry.get("dau97")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", registry.names())
def test_products_in_one_pass_equal_those_of_the_representation(name: str, dtype: str) -> None:
    model = build(name, dtype=dtype)
    x = sound(batch=5, dtype=model.dtype)
    r = model.represent(x).values
    chain = model.fused(x)
    if chain is None:
        assert model.products(x, r[None, :1], torch.zeros(5, dtype=torch.int64)) is None
        return
    y, steps = chain
    for step in steps:
        y = step.run(y)
    assert torch.equal(y, r)  # the same bits
    templates, index = r[:4].reshape(2, 2, *r.shape[1:]), torch.tensor([0, 1, 1, 0, 1])
    result = model.products(x, templates, index, moments=True)
    assert result is not None
    wide, chosen = r.double(), templates[index].double()
    expected = [(wide * chosen[:, k]).sum(-1) for k in range(2)] + [wide.sum(-1), wide.square().sum(-1)]
    # Sums of the same numbers in another order: 1e-12 of the largest is 1e4 roundings
    torch.testing.assert_close(result, torch.stack(expected, -1), rtol=0, atol=1e-12 * float(result.abs().max()))


@pytest.mark.parametrize("name", registry.names())
def test_products_leave_gradients_to_the_representation(name: str) -> None:
    model, x = build(name), sound()
    template = model.represent(x).values[None, :1]
    index = torch.zeros(3, dtype=torch.int64)
    assert model.products(x.requires_grad_(), template, index) is None
    with torch.no_grad():
        without = model.products(x, template, index)
        assert (without is None) == (model.fused(x) is None)
    learning = build(name, learnable=True)
    assert learning.products(x.detach(), template, index) is None
