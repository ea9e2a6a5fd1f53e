"""PhaseLockNet's networks against the original port and against Keras; the readouts against the original analysis.

Bounds: float64 networks 1e-6, the README's; float32 1e-4 of the largest logit (full-size ones 2e-5 absolute). Readouts
1e-6, fits 1e-3. The Keras files hold weights that TensorFlow 2.21 wrote and the float32 logits that Keras computed with
them; make_phaselocknet_keras.py made them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from psysim.models import phaselocknet as pl

DATA = Path(__file__).parent / "data"
SMALL = ("A_layernorm_hpool", "B_batchnorm_maxpool_groups_branch", "C_shape_ops_resample")
FULL = ("word_arch0_0000", "loc_arch01")
DTYPES = [torch.float64, torch.float32]


@cache
def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(DATA / f"phaselocknet_{name}.npz") as file:
        return dict(file)


def error_of(output: torch.Tensor, expected: np.ndarray) -> float:
    return float(np.abs(output.double().numpy() - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", SMALL)
def test_every_layer_of_the_small_networks(name: str, dtype: torch.dtype) -> None:
    reference = golden(f"perceptual_{name}")
    x = torch.as_tensor(reference["input"])
    heads = json.loads(str(reference["heads_json"]))
    architecture = pl.Architecture.parse(str(reference["arch_json"]), x.shape[1:], heads)
    network = pl.Network(architecture, normalisation="port", seed=None, dtype=dtype)
    with torch.no_grad():
        for key, weight in network.weights().items():
            weight.copy_(torch.as_tensor(reference[f"w:{key}"]))
        logits, layers = network(x, return_layers=True)
    bound = 1e-6 if dtype == torch.float64 else 1e-4
    assert set(logits) == set(heads)
    for head, value in logits.items():
        assert error_of(value, reference[f"logits:{head}"]) <= bound
        assert error_of(value.softmax(-1), reference[f"softmax:{head}"]) <= bound
        assert value.argmax(-1).tolist() == reference[f"argmax:{head}"].tolist()
    shapes = {place.path: place.output_shape for place in architecture.places()}
    checked = 0
    for key, expected in reference.items():
        kind, _, path = key.partition(":")
        if kind == "shape":
            assert tuple(expected) == tuple(layers[path].shape) == (len(x), *shapes[path])
        elif kind == "act":
            assert error_of(layers[path], expected) <= bound
        elif kind == "act_sum":
            sums = torch.stack([layers[path].double().sum(), layers[path].double().abs().sum()])
            assert error_of(sums, expected) <= bound
        checked += kind in ("shape", "act", "act_sum")
    assert checked > 20
    for key, kernel in reference.items():  # the fixed kernels of pools and resampling
        if key.startswith("w:") and key[2:] not in network.weights():
            path, _, what = key[2:].rpartition(".")
            assert error_of(getattr(network.get_submodule(path), what), kernel) <= 1e-6


def formula_weights(network: pl.Network) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
    """Give each weight of a full-size network and the value that the README's formula has for it."""
    dottie, t = 0.7390851332151607, 0
    for name, weight in network.weights().items():
        i = np.arange(weight.numel(), dtype=np.float64)
        if name.endswith("running_mean"):
            value = 0.1 * np.sin(i)
        elif name.endswith("running_var"):
            value = 1 + 0.5 * np.cos(i)
        elif weight.ndim == 1:
            value, t = 0.2 * np.cos(dottie * i + t) + float(name.endswith("weight")), t + 1
        else:
            j = np.arange(77)
            value = i * (dottie + 0.0137 * t)
            value += np.resize(0.1 * (j % 7) * (j % 11), i.size)
            np.cos(value, out=value)
            value *= np.sqrt(2 / weight[0].numel())
            t += 1
        yield weight, value.reshape(weight.shape)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", FULL)
def test_full_size_networks(name: str, dtype: torch.dtype) -> None:
    reference = golden(f"perceptual_full_{name}")
    architecture = pl.published_architecture(name)
    assert architecture.n_parameters == reference["n_parameters"]
    network = pl.Network(architecture, normalisation="port", seed=None, dtype=dtype)
    i = np.arange(np.prod(architecture.input_shape))
    x = np.rint(4 * (1 + np.sin(0.01 * i)) * (1 + np.cos(0.6180339887 * i)) / 2).reshape(1, *architecture.input_shape)
    with torch.no_grad():
        for weight, value in formula_weights(network):
            weight.copy_(torch.as_tensor(value))
        logits, layers = network(torch.as_tensor(x), return_layers=True)
    for head, value in logits.items():
        expected = reference[f"logits:{head}"]
        if dtype == torch.float64:
            assert error_of(value[0], expected) <= 1e-6
        else:
            assert float(np.abs(value[0].numpy() - expected).max()) <= 2e-5
        assert int(value.argmax()) == reference[f"argmax:{head}"]
    for path, value in layers.items():
        name = path.rpartition(".")[2]
        if f"shape:{name}" in reference:
            assert tuple(value.shape) == tuple(reference[f"shape:{name}"])
            mean, size = reference[f"act_mean_absmean:{name}"]
            bound = (1e-6 if dtype == torch.float64 else 2e-5) * size
            assert abs(float(value.double().mean()) - mean) <= bound
            assert abs(float(value.double().abs().mean()) - size) <= bound


def test_the_thirty_published_architectures() -> None:
    """Shapes, parameters and multiplications of every table; the networks are built, without memory."""
    tables = json.loads((DATA / "phaselocknet_architectures.json").read_text())
    assert pl.published_names() == sorted(tables)
    assert len(tables) == 30
    for name, table in tables.items():
        architecture = pl.published_architecture(name)
        assert list(architecture.input_shape) == table["input"]
        assert architecture.n_parameters == table["n_parameters"]
        assert architecture.n_macs / 1e9 == pytest.approx(table["gmacs"], abs=0.006)
        assert architecture.n_classes == table["layers"][-1]["heads"]
        places = {place.layer.name: place for place in architecture.places()}
        assert [row["name"] for row in table["layers"][:-1]] == [layer.name for layer in architecture.layers[:-1]]
        for row in table["layers"]:
            if "out" in row:
                assert list(places[row["name"]].output_shape) == row["out"]
        network = pl.Network(architecture, device="meta")
        assert sum(p.numel() for p in network.parameters()) == table["n_parameters"]


@pytest.mark.parametrize("name", FULL)
def test_the_original_files_are_the_published_architectures(name: str) -> None:
    file = DATA / f"phaselocknet_{name}_simplified_IHC3000"
    published = pl.published_architecture(name)
    heads = json.loads(Path(f"{file}.config.json").read_text())["n_classes_dict"]
    assert pl.Architecture.read(f"{file}.arch.json", published.input_shape, heads) == published


# The networks of the Keras files, written as the original files are
CONV = "tf.layers.conv2d"
NORM = "tf.keras.layers.LayerNormalization"
KERAS = {
    "word": [
        (NORM, {"axis": [1, 2, 3], "center": False, "scale": False}),
        (CONV, {"filters": 6, "kernel_size": [2, 9], "padding": "VALID_TIME"}),
        ("tf.nn.relu", {}),
        ("hpool", {"pool_size": [1, 16], "strides": [1, 4], "padding": "VALID_TIME", "sqrt_window": True}),
        (NORM, {"axis": -1}),
        (CONV, {"filters": 8, "kernel_size": [5, 4], "padding": "VALID_TIME"}),
        ("tf.nn.relu", {}),
        ("hpool", {"pool_size": [8, 4], "strides": [2, 4], "padding": "VALID_TIME", "sqrt_window": True}),
        (NORM, {"axis": -1}),
        ("tf.layers.flatten", {}),
        ("tf.layers.dense", {"units": 10}),
        ("tf.nn.relu", {}),
        (NORM, {"axis": -1}),
        ("tf.layers.dropout", {"rate": 0.5}),
        ("fc_top", {}),
    ],
    "loc": [
        (CONV, {"filters": 8, "kernel_size": [2, 8], "padding": "VALID_TIME", "groups": 2}),
        ("maxpool", {"pool_size": [1, 4]}),
        ("tf.nn.relu", {}),
        ("tf.layers.batch_normalization", {}),
        (CONV, {"filters": 8, "kernel_size": [3, 4], "padding": "VALID_TIME"}),
        ("maxpool", {"pool_size": [2, 2]}),
        ("tf.nn.relu", {}),
        ("tf.layers.batch_normalization", {}),
        ("tf.layers.flatten", {}),
        ("tf.layers.dense", {"units": 9}),
        ("tf.nn.relu", {}),
        ("tf.layers.batch_normalization", {}),
        ("tf.layers.dropout", {"rate": 0.5}),
        ("fc_top", {}),
    ],
}


def keras_network(kind: str, normalisation: str, dtype: torch.dtype = torch.float64) -> pl.Network:
    layers = [{"layer_type": t, "args": {"name": f"layer_{i}", **args}} for i, (t, args) in enumerate(KERAS[kind])]
    reference = golden(f"keras_{kind}")
    heads = {key.partition(":")[2]: v.shape[-1] for key, v in reference.items() if key.startswith("logits:")}
    architecture = pl.Architecture.parse(layers, reference["input"].shape[1:], heads)
    network = pl.Network(architecture, normalisation=normalisation, seed=None, dtype=dtype)
    pl.load_weights(network, DATA / f"phaselocknet_keras_{kind}")
    return network


@pytest.mark.parametrize("kind", KERAS)
def test_a_checkpoint_of_tensorflow_gives_the_logits_of_keras(kind: str) -> None:
    """Weights, padding, order of axes and the constants of normalisation; 1e-5 is Keras' own float32 rounding."""
    reference = golden(f"keras_{kind}")
    x = torch.as_tensor(reference["input"])
    with torch.no_grad():
        logits = keras_network(kind, "keras")(x)
        port = keras_network(kind, "port")(x)
    for head, value in logits.items():
        assert error_of(value, reference[f"logits:{head}"]) <= 1e-5
        assert error_of(port[head], reference[f"logits:{head}"]) > 1e-4  # the port's constants are others


@pytest.mark.parametrize(
    ("prior", "name"),
    [
        ("front_horizontal", "front_horizontal"),
        ("median_plane", "median_plane"),
        ("array95", "loudspeaker_array"),
        ("array9", "speech_in_reverb"),
    ],
)
def test_responses_among_allowed_directions(prior: str, name: str) -> None:
    reference = golden("behaviour")
    np.testing.assert_array_equal(pl.allowed_locations(name), reference[f"prior_{prior}"] == 1)
    expected = reference["label_prior" if prior == "front_horizontal" else f"label_{prior}"]
    np.testing.assert_array_equal(pl.masked_argmax(reference["probs"], name), expected)
    np.testing.assert_array_equal(pl.masked_argmax(reference["probs"], reference[f"prior_{prior}"]), expected)


def test_directions() -> None:
    reference = golden("behaviour")
    azimuth, elevation = pl.location_of(reference["labels"])
    np.testing.assert_array_equal(azimuth, reference["azim"])
    np.testing.assert_array_equal(elevation, reference["elev"])
    np.testing.assert_array_equal(pl.label_of(azimuth, elevation), reference["labels"])
    np.testing.assert_allclose(pl.weighted_azimuth(reference["probs"]), reference["azim_weighted"], rtol=1e-6)
    np.testing.assert_allclose(pl.wrap_degrees(reference["angles"]), reference["normalized"], rtol=1e-6)
    np.testing.assert_allclose(pl.fold_front_back(reference["angles"]), reference["folded"], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(
        pl.angular_error(reference["ax"], reference["ay"]), reference["angular_distance"], rtol=1e-6
    )
    great_circle = pl.great_circle_error(*reference["X"].T, *reference["Y"].T)
    np.testing.assert_allclose(great_circle, reference["haversine"], rtol=1e-6)


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("threshold_707", {"start": "published"}),
        ("threshold_75", {"start": "published", "proportion": 0.75}),
        ("threshold_707_started_at_std", {}),
        ("threshold_75_started_at_std", {"proportion": 0.75}),
        ("threshold_707_unweighted", {"weights": "equal"}),
    ],
)
def test_thresholds_from_pairs(key: str, options: dict) -> None:
    reference = golden("behaviour")
    difference, proportion = pl.pair_proportions(reference["thr_x"], reference["thr_y"])
    np.testing.assert_array_equal(difference, reference["thr_pair_dx"])
    np.testing.assert_allclose(proportion, reference["thr_pair_p"], rtol=1e-6)
    threshold = pl.pairing_threshold(reference["thr_x"], reference["thr_y"], **options)
    assert threshold == pytest.approx(float(reference[key]), rel=1e-3)


def test_speech_reception_threshold_and_distance_of_curves() -> None:
    reference = golden("behaviour")
    fit = pl.fit_speech_reception_threshold(reference["srt_snr"], reference["srt_correct"])
    np.testing.assert_allclose(fit, reference["srt_popt"], rtol=1e-3)
    assert fit.srt_db == pytest.approx(float(reference["srt"]), rel=1e-3)
    rmse = pl.normalised_rmse(reference["yh"], reference["ym"])
    assert rmse == pytest.approx(float(reference["normalized_rmse"]), rel=1e-6)
