"""Neural response models against numbers of deepSTRF 0.1.0 (tests/reference/data/deepstrf).

Tolerance: the largest difference over the largest value of the reference, as the reference's README states it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from psysim.models import neural
from psysim.models.neural.causal import ChannelNorm
from psysim.models.neural.kernels import CausalSTRF
from psysim.models.neural.state_space import legendre_memory
from psysim.models.neural.transformer import attention_mask, position_code

DATA = Path(__file__).parent / "data" / "deepstrf"
KERNELS = {"ParametricSTRF": "gaussian", "SeparableSTRF": "separable"}
ACTIVATIONS = {"ParametricSigmoid": "sigmoid"}


def read(name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    with np.load(DATA / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files if key != "meta"}
        return json.loads(str(file["meta"])), arrays


def error(value: torch.Tensor | np.ndarray, reference: np.ndarray) -> float:
    value = value.detach().numpy() if isinstance(value, torch.Tensor) else value
    assert value.shape == reference.shape
    return float(np.abs(value - reference).max() / np.abs(reference).max())


def weights(arrays: dict[str, np.ndarray], prefix: str = "sd/") -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): torch.from_numpy(v) for key, v in arrays.items() if key.startswith(prefix)}


def load(model: neural.AudioEncodingModel, arrays: dict[str, np.ndarray]) -> None:
    model.load_published(weights(arrays))


def model_of(meta: dict[str, Any]) -> neural.AudioEncodingModel:
    config = dict(meta["config"])
    for old, new, names in (
        ("kernel", "kernel", KERNELS),
        ("output_activation", "activation", ACTIVATIONS),
    ):
        if old in config:
            config[new] = names[config.pop(old)]
    if "num_gaussians" in config:
        config["n_gaussians"] = config.pop("num_gaussians")
    if meta["model"] == "DNet":  # the reference cuts the memory after seven initial time constants
        config["n_taps"] = round(7 * config["init_tau"])
    return getattr(neural, meta["model"])(**config)


MODELS = (
    "linear",
    "linear_gaussmix",
    "linear_separable",
    "ln_softplus",
    "ln_sigmoid",
    "nrf",
    "dnet_decay_input_True",
    "dnet_decay_input_False",
    "convnet2d",
    "transformer",
    "transformer_window",
    "statenet_gru",
    "statenet_gru_conv",
    "statenet_gru_fc",
    "statenet_lstm",
    "statenet_rnn",
    "statenet_rnn_b",
    "statenet_lmu",
    "statenet_mamba",
    "icnet_small",
)


@pytest.mark.parametrize("name", MODELS)
def test_model(name: str) -> None:
    meta, arrays = read(name)
    model = model_of(meta)
    load(model, arrays)
    model.eval()
    x = torch.from_numpy(arrays["x"])
    assert model.count_trainable_params() == meta["n_params"]
    assert error(model(x), arrays["y_eval"]) < 3e-5
    for key in arrays.keys() & {"gradmap_eval_raw", "gradmap_T16_eval_raw"}:  # the reference has the wrong sign
        assert error(model.STRF_gradmap(arrays[key].shape[-1]), -arrays[key]) < 1e-4
    if "bottleneck" in arrays:
        assert error(model.wav2spec(x), arrays["bottleneck"]) < 3e-5
        assert (
            error(neural.ICNet(**meta["config"]).wav2spec.sincnet.low_hz_, arrays["sd/wav2spec.sincnet.low_hz_"]) < 1e-6
        )
    if "strf_weight" in arrays:
        assert error(model.STRF_weight(), arrays["strf_weight"]) < 3e-5


@pytest.mark.parametrize("name", ["linear_gaussmix", "ln_sigmoid", "dnet_decay_input_True"])
def test_gradients_of_the_weights(name: str) -> None:
    meta, arrays = read(name)
    model = model_of(meta)
    load(model, arrays)
    loss = torch.from_numpy(arrays["loss_weight"]) * model.eval()(torch.from_numpy(arrays["x"]))
    loss.sum().backward()
    for key, parameter in model.named_parameters():
        reference = arrays[f"pgrad/{key}"]
        assert parameter.grad is not None
        if np.abs(reference).max() > 1e-3:
            assert error(parameter.grad, reference) < 1e-3, key


@pytest.mark.parametrize("name", ["linear", "ln_softplus"])
def test_training_mode(name: str) -> None:
    meta, arrays = read(name)
    model = model_of(meta)
    load(model, arrays)
    assert error(model.train()(torch.from_numpy(arrays["x"])), arrays["y_train"]) < 3e-5
    for key, after in weights(arrays, "sd_after_train_forward/").items():
        assert error(model.state_dict()[key], after.numpy()) < 3e-5


def test_gradient_map_is_the_receptive_field_and_leaves_the_model_alone() -> None:
    meta, arrays = read("strf_gradmap_linear")
    model = neural.Linear(**{key: meta[key] for key in ("n_frequency_bands", "temporal_window_size", "out_neurons")})
    load(model, arrays)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for training in (False, True):
        model.train(training)
        field = model.STRF_gradmap()
        assert field.dtype == torch.float64
        assert error(field, arrays["target_strf"]) < 1e-4
        assert error(model.STRF_gradmap(15), -arrays["gradmap_eval_raw_Tplus6"]) < 1e-4
        assert model.training is training
    assert error(model.STRF_weight(folded=True), arrays["target_strf"][:, 0]) < 1e-4
    assert all(parameter.grad is None for parameter in model.parameters())
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("name", ["activations", "activations_b"])
def test_activations(name: str) -> None:
    meta, arrays = read(name)
    for kind in ("ParametricSigmoid", "ParametricDoubleExponential", "ParametricSoftplus"):
        for flag in (0, 1):
            prefix = f"{kind}_nonneg{flag}/"
            activation = getattr(neural, kind)(meta["N"], bool(flag))
            activation.load_state_dict(weights(arrays, prefix + "sd/"))
            assert error(activation(torch.from_numpy(arrays["x"])), arrays[prefix + "y"]) < 3e-5


@pytest.mark.parametrize("name", ["layers", "layers_b"])
def test_layers(name: str) -> None:
    meta, arrays = read(name)
    tensors = {key: torch.from_numpy(value) for key, value in arrays.items()}
    x = tensors["decay_x"]
    for decay_input in (0, 1):
        units = neural.ExponentialDecay(x.shape[1], 2.0, bool(decay_input), n_taps=meta["decay_kernel_size"])
        units.d.data.copy_(tensors["decay_d"])
        assert error(units.tau, arrays["decay_tau"].reshape(-1)) < 3e-5
        assert error(units(x), arrays[f"decay{decay_input}/y"]) < 3e-5
    norm = ChannelNorm(x.shape[1])
    norm.ln.weight.data.copy_(tensors["ln_weight"])
    norm.ln.bias.data.copy_(tensors["ln_bias"])
    assert error(norm(x), arrays["ln_y"]) < 3e-5
    code = position_code(0, meta["L"], meta["D"], x)
    assert error(code[None], arrays["pos_enc"]) < 3e-5
    for window, key in ((None, "mask_full"), (5, "mask_w5")):  # True is forbidden in the reference
        np.testing.assert_array_equal(~attention_mask(meta["L"], meta["L"], window).numpy(), arrays[key])
    strf = meta["strf"]
    shape = (strf["C_out"], strf["C_in"], strf["F"], strf["T"])
    for kind, prefix in (("gaussian", "gauss_"), ("separable", "sep_")):
        kernel = neural.make_kernel(kind, *shape, strf["G"])
        kernel.load_state_dict({key: tensors[prefix + key] for key in kernel.state_dict()})
        assert error(kernel(), arrays[prefix + "kernel"]) < 3e-5
        # The reference has no padding here: its first output is at our frame T - 1.
        y = CausalSTRF(kernel)(tensors["gauss_x"])[:, :, None, strf["T"] - 1 :]
        assert error(y, arrays[prefix + "y"]) < 3e-5


@pytest.mark.parametrize("name", ["locally_connected1d", "locally_connected1d_b"])
def test_locally_connected(name: str) -> None:
    meta, arrays = read(name)
    layer = neural.LocallyConnected1d(**meta)
    layer.load_state_dict({key: torch.from_numpy(arrays[key]) for key in ("weights", "biases")})
    assert error(layer(torch.from_numpy(arrays["x"])), arrays["y"]) < 3e-5


def test_legendre_memory() -> None:
    _, arrays = read("statenet_lmu")
    for value, key in zip(legendre_memory(128, 99.0), ("lmu_A", "lmu_B"), strict=True):
        assert error(value, arrays[key]) < 1e-4


def test_state_space_with_the_kernel_of_s4() -> None:
    """The reference's kernel has another parameterisation; what is around it is that of our diagonal layer."""
    meta, arrays = read("statenet_s4")
    model = neural.StateNet(34, 5, rnn_type="Diagonal", hidden_channels=5).eval()
    tensors = weights(arrays)
    encoder, layer = model.core[0], model.core[1]
    encoder.connections.load_state_dict({k: tensors[f"encoder_layers.0.{k}"] for k in ("weights", "biases")})
    encoder.norm.load_state_dict({f"ln.{k}": tensors[f"encoder_layers.1.ln.{k}"] for k in ("weight", "bias")})
    layer.D.data.copy_(tensors["rnn.layer.D"][0])
    for key in ("weight", "bias"):
        getattr(layer.output_linear[0], key).data.copy_(tensors[f"rnn.output_linear.0.{key}"])
    model.readout.load_state_dict(
        {k.removeprefix("readout."): v for k, v in tensors.items() if k.startswith("readout.")}
    )
    features = encoder(torch.from_numpy(arrays["x"]))
    kernel = torch.from_numpy(arrays["s4_kernel"])[0]
    padded = torch.nn.functional.pad(features, (kernel.shape[1] - 1, 0))
    filtered = torch.nn.functional.conv1d(padded, kernel.flip(1)[:, None], groups=len(kernel))
    assert error(model.readout(layer.mix(filtered, features)), arrays["y_eval"]) < 2e-4
    assert meta["config"]["rnn_type"] == "S4"
