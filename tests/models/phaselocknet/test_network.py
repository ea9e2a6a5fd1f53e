"""Networks: the layers against torch's own and against definitions, random numbers, training, devices."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from psysim.errors import SpecError
from psysim.models import phaselocknet as pl
from psysim.models.phaselocknet import layers as layers_module
from psysim.rng import Keys

SHAPE = (4, 9, 16)


def build(*layers: tuple[str, dict], normalisation: str = "keras", heads: dict | None = None, **options) -> pl.Network:
    described = [{"layer_type": t, "args": {"name": f"l{i}", **args}} for i, (t, args) in enumerate(layers)]
    flat = {"layer_type": "flatten", "args": {"name": "flat"}}
    architecture = pl.Architecture.parse([*described, flat], options.pop("shape", SHAPE), heads or {"head": 3})
    return pl.Network(architecture, normalisation=normalisation, dtype=options.pop("dtype", "float64"), **options)


def sound(batch: int = 2, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def first(network: pl.Network, x: Tensor, **options) -> Tensor:
    with torch.no_grad():
        return network(x, return_layers=True, **options)[1]["body.l0"]


CONV = ("conv2d", {"filters": 6, "kernel_size": [3, 4], "strides": [2, 1], "dilation_rate": [1, 2], "groups": 2})


@pytest.mark.parametrize("bias", [True, False])
def test_convolution(bias: bool) -> None:
    network = build((CONV[0], {**CONV[1], "use_bias": bias}))
    x, layer = sound(), network.body["l0"]
    expected = F.conv2d(x, layer.weight, layer.bias, (2, 1), 0, (1, 2), 2)
    torch.testing.assert_close(first(network, x), expected, rtol=1e-12, atol=1e-12)
    assert (layer.bias is None) != bias


def test_a_convolution_in_parts_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = build(CONV), sound()
    whole = first(network, x)
    for limit in (1, 5000, 20000):
        monkeypatch.setattr(layers_module, "COPY_BYTES", limit)
        torch.testing.assert_close(first(network, x), whole, rtol=1e-13, atol=1e-13)


def test_padding_is_that_of_tensorflow() -> None:
    """SAME with an even total on one side more: 9 samples, window 4, stride 2 need 3, 1 before and 2 after."""
    network = build(("conv2d", {"filters": 1, "kernel_size": [4, 1], "strides": [2, 1], "padding": "SAME"}))
    x = sound()
    layer = network.body["l0"]
    expected = F.conv2d(F.pad(x, (0, 0, 1, 2)), layer.weight, layer.bias, (2, 1))
    torch.testing.assert_close(first(network, x), expected, rtol=1e-12, atol=1e-12)


def test_padding_of_a_maximum_is_never_the_largest() -> None:
    network = build(("maxpool", {"pool_size": [3, 3], "strides": [1, 1], "padding": "SAME"}))
    assert first(network, -1.0 - sound().abs()).max() < -1.0


@pytest.mark.parametrize(("preset", "eps", "ddof"), [("keras", 1e-3, 0), ("port", 1e-5, 1)])
@pytest.mark.parametrize("axis", [-1, [1, 2, 3]])
def test_layer_normalisation(preset: str, eps: float, ddof: int, axis: object) -> None:
    network = build(("layernorm", {"axis": axis}), normalisation=preset)
    layer, x = network.body["l0"], sound()
    with torch.no_grad():
        layer.weight.copy_(torch.arange(1.0, 5.0))
        layer.bias.copy_(torch.arange(4.0))
    dims = (1,) if axis == -1 else (1, 2, 3)
    y = (x - x.mean(dims, keepdim=True)) / (x.var(dims, correction=ddof, keepdim=True) + eps).sqrt()
    expected = y * torch.arange(1.0, 5.0).reshape(4, 1, 1) + torch.arange(4.0).reshape(4, 1, 1)
    torch.testing.assert_close(first(network, x), expected, rtol=1e-12, atol=1e-12)
    given = build(("layernorm", {"axis": axis, "epsilon": 0.5}), normalisation=preset)
    y = (x - x.mean(dims, keepdim=True)) / (x.var(dims, correction=ddof, keepdim=True) + 0.5).sqrt()
    torch.testing.assert_close(first(given, x), y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("scale", "center"), [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("kind", ["layernorm", "batchnorm"])
def test_scale_and_centre_are_independent(kind: str, scale: bool, center: bool) -> None:
    network = build((kind, {"scale": scale, "center": center}))
    names = {name for name in network.weights() if name.startswith("body.l0.") and "running" not in name}
    assert names == {f"body.l0.{n}" for n, there in (("weight", scale), ("bias", center)) if there}
    assert first(network, sound()).isfinite().all()


def test_a_network_is_made_without_running_data() -> None:
    """Running statistics are those of no data at all, and a batch of one is fine (the original ran a zero batch)."""
    network = build(("batchnorm", {}))
    weights = network.weights()
    assert torch.equal(weights["body.l0.running_mean"], torch.zeros(4, dtype=torch.float64))
    assert torch.equal(weights["body.l0.running_var"], torch.ones(4, dtype=torch.float64))
    assert first(network, sound(1)).shape == (1, *SHAPE)


@pytest.mark.parametrize(
    ("preset", "args", "replaced"),
    [("keras", {}, 0.01), ("port", {}, 0.1), ("keras", {"momentum": 0.9}, 0.1), ("port", {"momentum": 0.2}, 0.2)],
)
def test_momentum_means_what_the_preset_means(preset: str, args: dict, replaced: float) -> None:
    network = build(("batchnorm", args), normalisation=preset).train()
    x = sound(8)
    network(x)
    mean = network.weights()["body.l0.running_mean"]
    torch.testing.assert_close(mean, replaced * x.mean((0, 2, 3)), rtol=1e-12, atol=1e-12)


def test_dropout_is_keyed() -> None:
    network = build(("dropout", {"rate": 0.25})).train()
    x, keys = sound(64).abs() + 1, Keys.make(seed=5, track=torch.arange(64))
    y = first(network, x, keys=keys)
    assert torch.equal(first(network, x, keys=keys), y)
    assert torch.equal(first(network, x[3:5], keys=keys[3:5]), y[3:5])  # whatever is beside a row
    kept = y != 0
    # 36864 draws: a standard error of 0.0023
    assert float(kept.double().mean()) == pytest.approx(0.75, abs=0.01)
    torch.testing.assert_close(y[kept], x[kept] / 0.75)
    with pytest.raises(SpecError, match=r"body.l0 drops units.*keys"):
        network(x)
    with pytest.raises(SpecError, match="keys"):
        network(x, keys=keys[:3])
    assert torch.equal(first(network.eval(), x), x)


def test_initial_weights_are_keyed_and_bounded() -> None:
    layers = (("conv2d", {"filters": 8, "kernel_size": [3, 3]}), ("layernorm", {}))
    network = build(*layers, seed=1)
    again, other = build(*layers, seed=1).weights(), build(*layers, seed=2).weights()
    for name, weight in network.weights().items():
        assert torch.equal(weight, again[name])
        if weight.ndim > 1:
            assert not torch.equal(weight, other[name])
            fans = (weight.shape[0] + weight.shape[1]) * weight[0, 0].numel()
            assert 0.9 < float(weight.detach().abs().max()) / (6 / fans) ** 0.5 <= 1
        else:
            assert torch.equal(weight, torch.full_like(weight, float(name.endswith("weight"))))


def test_gradients_reach_every_weight() -> None:
    network = build(
        CONV, ("relu", {}), ("hpool", {"pool_size": [3, 4]}), ("layernorm", {}), ("maxpool", {"pool_size": [1, 2]})
    ).train()
    sum(v.square().sum() for v in network(sound()).values()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert bool((parameter.grad != 0).any()), name


def test_batches_do_not_mix() -> None:
    network, x = build(CONV, ("batchnorm", {}), ("layernorm", {"axis": [1, 2, 3]})), sound(4)
    with torch.no_grad():
        together = network(x)["head"]
        for i in range(4):
            torch.testing.assert_close(network(x[i : i + 1])["head"], together[i : i + 1], rtol=1e-12, atol=1e-12)


def test_heads_are_alphabetical() -> None:
    network = build(("relu", {}), heads={"b": 3, "a": 2})
    assert {head: v.shape[1] for head, v in network(sound()).items()} == {"a": 2, "b": 3}
    assert list(network(sound())) == ["a", "b"]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.ones(2, 4, 9, 15), "takes"),
        (torch.ones(4, 9, 16), "shape"),
        (torch.ones(2, 4, 9, 16, dtype=torch.int64), "int64"),
        ([1.0], "list"),
    ],
)
def test_wrong_input(x: object, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        build(("relu", {}))(x)


def test_unknown_preset() -> None:
    with pytest.raises(SpecError, match="Did you mean 'keras'"):
        build(("relu", {}), normalisation="kears")


@pytest.mark.parametrize("alternatives", [[], [3], [-1], [[0]], [0.5]])
def test_wrong_alternatives(alternatives: list) -> None:
    with pytest.raises(SpecError, match="alternatives"):
        pl.choose(torch.zeros(2, 3), alternatives)


@pytest.mark.gpu
def test_the_same_on_a_gpu() -> None:
    network, x = build(CONV, ("batchnorm", {}), ("hpool", {"pool_size": [3, 4]})), sound()
    expected = network(x)["head"]
    torch.testing.assert_close(network.cuda()(x.cuda())["head"].cpu(), expected, rtol=1e-10, atol=1e-10)
