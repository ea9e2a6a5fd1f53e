"""Architecture files are read strictly; shapes are known without running anything."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from psysim.errors import SpecError
from psysim.models import phaselocknet as pl

HEADS = {"label_word_int": 10}
SHAPE = (3, 20, 60)


def layer(layer_type: str, name: str = "x", **args: object) -> dict:
    return {"layer_type": layer_type, "args": {"name": name, **args}}


def parse(*layers: dict, shape: tuple[int, ...] = SHAPE, heads: dict | None = None) -> pl.Architecture:
    return pl.Architecture.parse([*layers, layer("flatten", "flat")], shape, heads or HEADS)


CONV = {"filters": 4, "kernel_size": [2, 5]}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (layer("lstm"), r"Layer 0 has the type 'lstm', which is not known"),
        (layer("tf.nn.leaky_relu"), r"'tf.nn.leaky_relu'.*Did you mean 'relu'"),
        (layer("depthwise_conv2d", **CONV), r"depthwise_conv2d.*Did you mean"),
        (layer("convlstm2d", **CONV), r"Did you mean 'conv2d'"),
        (layer("keras.dense", units=3), r"not known"),
        (layer("conv2d", kernel_size=[2, 5]), r"'x' \(conv2d\) lacks filters"),
        (layer("conv2d", **CONV, stride=[1, 1]), r"no argument 'stride'.*Did you mean 'strides'"),
        (layer("conv2d", **CONV, activation="relu"), r"activation = 'relu' must be null"),
        (layer("conv2d", **CONV, padding="SAME_TIMES"), r"padding = 'SAME_TIMES' must be one of"),
        (layer("conv2d", filters=4, kernel_size=[2, 5, 1]), r"kernel_size.*pair"),
        (layer("conv2d", filters=4.5, kernel_size=3), r"filters = 4.5 must be a whole number"),
        (layer("conv2d", filters=True, kernel_size=3), r"filters = True must be"),
        (layer("conv2d", **CONV, groups=2), r"3 input channels cannot be divided into 2 groups"),
        (
            layer("conv2d", filters=4, kernel_size=[21, 1]),
            r"window of 21 is longer than the 20 samples along frequency",
        ),
        (layer("conv2d", **CONV, bias=True, use_bias=True), r"use_bias is given twice"),
        (layer("dense", units=3), r"needs an input \(U,\).*flatten"),
        (layer("dropout", rate=1.0), r"rate = 1.0 must be"),
        (layer("hpool", pool_size=[2, 4]), r"pool_size of 2, but both points"),
        (layer("maxpool", pool_size=[1, 4], padding=1), r"nothing but padding"),
        (layer("layernorm", axis=[1, 2]), r"axis = \[1, 2\] must be -1"),
        (layer("layernorm", axis=1), r"axis = 1 must be -1"),
        (layer("batchnorm", axis=1), r"axis = 1 must be -1"),
        (layer("batchnorm", eps=0), r"eps = 0 must be a number above 0"),
        (layer("reshape", target_shape=[20, 30, -1]), r"only a reshape that changes nothing"),
        (layer("reshape", target_shape=[20, 60]), r"only a reshape that changes nothing"),
        (layer("permute", dims=[0, 1, 2]), r"dims.*every axis but the batch"),
        (layer("permute", dims=[2, 1]), r"names 2 axes, but its input"),
        (layer("unsqueeze", dim=0), r"dim = 0 must be"),
        (layer("unsqueeze", dim=9), r"allows 1 to 4"),
        (layer("expandlastdimension", num_dims=2), r"num_dims = 2, but its input"),
        (
            layer("resample", sr_input=10000, sr_output=3000, kwargs_fir_lowpass_filter={"fir_dur": 0.02}),
            r"their ratio must be whole",
        ),
        (
            layer("resample", sr_input=10000, sr_output=5000, kwargs_fir_lowpass_filter={"order": 2}),
            r"must have fir_dur.*not \['order'\]",
        ),
        ({"layer_type": "relu"}, r"has no name"),
        ({"type": "relu"}, r"Layer 0 must be"),
        (layer("relu", "a.b"), r"'a.b' cannot be among the names"),
        (layer("relu", "flat"), r"Two layers have the name 'flat'"),
    ],
)
def test_what_is_wrong_is_said(entry: dict, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse(entry)


@pytest.mark.parametrize("heads", [{}, {"a": 1}, {"a": 2.5}, {"a.b": 3}])
def test_wrong_heads(heads: dict) -> None:
    with pytest.raises(SpecError):
        pl.Architecture.parse([layer("flatten", "f")], SHAPE, heads)


@pytest.mark.parametrize("text", ["{", "{}", "[1]", '[{"layer_type": "relu", "args": [1]}]'])
def test_wrong_files(text: str) -> None:
    with pytest.raises(SpecError):
        pl.Architecture.parse(text, SHAPE, HEADS)


def test_a_name_that_torch_keeps_for_itself() -> None:
    architecture = parse(layer("relu", "items"))
    with pytest.raises(SpecError, match=r"'body.items' cannot be the name"):
        pl.Network(architecture, device="meta")


def test_a_network_without_an_end_is_refused() -> None:
    with pytest.raises(SpecError, match=r"'fc_output' \(dense\) needs an input \(U,\)"):
        pl.Architecture.parse([layer("relu")], SHAPE, HEADS)


def test_a_reshape_that_changes_nothing_is_the_identity() -> None:
    shapes = [(20, 60, -1), (20, -1, 3), (20, 60, 3)]
    for target in shapes:
        assert parse(layer("reshape", target_shape=list(target))).places()[0].output_shape == SHAPE


def test_every_published_architecture_survives_its_own_text() -> None:
    for name in pl.published_names():
        architecture = pl.published_architecture(name)
        again = pl.Architecture.parse(architecture.to_json(), architecture.input_shape, architecture.n_classes)
        assert again == architecture
    with pytest.raises(SpecError, match="Did you mean 'loc_arch10'"):
        pl.published_architecture("loc_arch1")


def test_layers_behind_the_branch_exist_once_per_head() -> None:
    layers = [layer("flatten", "f"), layer("branch", "b"), layer("dense", "d", units=5), layer("fc_top", "t")]
    architecture = pl.Architecture.parse(layers, SHAPE, {"b_head": 3, "a_head": 4})
    paths = [place.path for place in architecture.places()]
    assert paths == [
        "body.f",
        "body.b",
        "head.a_head.d",
        "head.a_head.t",
        "head.a_head.fc_output",
        "head.b_head.d",
        "head.b_head.t",
        "head.b_head.fc_output",
    ]
    assert architecture.n_parameters == 2 * (3600 * 5 + 5) + (5 * 4 + 4) + (5 * 3 + 3)


PADDINGS = ["VALID", "SAME", "SAME_FREQ", "valid_time", "SAME_TIME", "VALID_FREQ", 2, [0, 1]]
SIZES = st.tuples(st.integers(1, 7), st.integers(1, 7)).map(list)
STEPS = st.tuples(st.integers(1, 4), st.integers(1, 4)).map(list)


@settings(deadline=None)  # the first network takes longer
@given(st.sampled_from(["conv2d", "maxpool", "hpool"]), SIZES, STEPS, STEPS, st.sampled_from(PADDINGS))
def test_inferred_shapes_are_those_of_torch(
    kind: str, size: list, strides: list, dilation: list, padding: object
) -> None:
    args: dict = {"padding": padding, "strides": strides}
    if kind == "conv2d":
        args |= {"filters": 2, "kernel_size": size, "dilation_rate": dilation}
    else:
        args |= {"pool_size": size}
    if kind == "hpool" and 2 in size:
        return  # refused, see above
    try:
        architecture = parse(layer(kind, **args), shape=(3, 9, 11))
    except SpecError:
        if kind == "maxpool" and padding in (2, [0, 1]):
            return  # refused, see above
        extents = [(k - 1) * d + 1 if kind == "conv2d" else k for k, d in zip(size, dilation, strict=True)]
        assert extents[0] > 9 or extents[1] > 11  # no other reason
        return
    for dtype in (torch.float32, torch.float64):
        network = pl.Network(architecture, dtype=dtype)
        with torch.no_grad():
            _, layers = network(torch.ones(2, 3, 9, 11), return_layers=True)
        shapes = {place.path: place.output_shape for place in architecture.places()}
        for path, value in layers.items():
            assert tuple(value.shape) == (2, *shapes[path]), path


def test_json_is_json() -> None:
    assert isinstance(json.loads(pl.published_architecture("word_arch0_0000").to_json()), list)
