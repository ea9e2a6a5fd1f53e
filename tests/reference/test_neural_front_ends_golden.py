"""Front-ends of neural response models against numbers of deepSTRF 0.1.0."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from psysim.models import neural

DATA = Path(__file__).parent / "data" / "deepstrf"
DERIVED = ("hop", "out_channels")
CASES = {
    "gammatone_cuberoot_full": ("gammatone", 2e-3),
    "gammatone_cuberoot_full_b": ("gammatone", 2e-3),
    "gammatone_log": ("gammatone", 1e-4),
    "gammatone_pcen": ("gammatone", 1e-4),
    "gammatonegram": ("gammatonegram", 1e-3),
    "leaf": ("leaf", 1e-4),
    "mel_log": ("mel", 1e-4),
    "mel_power_cubic": ("mel", 2e-3),
    "sincnet_logabs_env1": ("sincnet", 1e-4),
    "sincnet_none_env0": ("sincnet", 1e-4),
    "sincnet_none_env0_b": ("sincnet", 1e-4),
    "sincnet_symlog_env0": ("sincnet", 1e-4),
}


def read(name: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    with np.load(DATA / f"{name}.npz") as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files if key != "meta"}
        return json.loads(str(file["meta"])), arrays


def error(value: torch.Tensor, reference: torch.Tensor) -> float:
    assert value.shape == reference.shape
    return float(((value - reference).abs().max() / reference.abs().max()).detach())


@pytest.mark.parametrize("name", CASES)
def test_front_end(name: str) -> None:
    kind, tolerance = CASES[name]
    meta, arrays = read(f"wav2spec_{name}")
    options = {"time_reversed": True} if kind == "gammatone" else {}  # what the reference does unasked
    front = neural.front_ends.get(kind)(**{key: v for key, v in meta.items() if key not in DERIVED}, **options)
    assert (front.hop, front.out_channels) == (meta["hop"], meta["out_channels"])
    if kind == "sincnet":  # the reference's edges are not the initial ones
        for key in ("low_hz_", "band_hz_"):
            getattr(front.sinc, key).data.copy_(arrays[f"sd/{key}"])
        low, high = front.sinc.edges_hz()
        assert max(error(low, arrays["f1"]), error(high, arrays["f2"])) < 1e-6
        assert error(front.sinc(), arrays["filters"][:, 0]) < 1e-4
    if kind == "leaf":
        for key in [key.removeprefix("sd/") for key in arrays if key.endswith(("_", "_raw", "_logit"))]:
            front.get_parameter(key).data.copy_(arrays[f"sd/{key}"])
        for filters, key in zip(front.gabor_filters(), ("gabor_real", "gabor_imag"), strict=True):
            assert error(filters, arrays[key]) < 1e-4
    if kind == "gammatone":
        assert error(front.frequencies_hz, arrays["sd/_fc"]) < 1e-6
        assert error(front.kernels, arrays["sd/_kernels"]) < 1e-4
    if kind == "mel":
        assert error(front.filters, arrays["sd/_mel_fb"]) < 1e-4
    assert error(front(arrays["x"]), arrays["y"]) < tolerance
    assert error(front.double()(arrays["x"].double()), arrays["y"]) < tolerance
    # The second sound begins with silence: all gradients are finite.
    x = arrays["x"].double().requires_grad_()
    front(x).sum().backward()
    assert bool(x.grad.isfinite().all())
    silence = torch.zeros_like(x, requires_grad=True)
    front(silence).sum().backward()
    assert bool(silence.grad.isfinite().all())


@pytest.mark.parametrize("kind", ["leaf", "mel"])
def test_waveform_gradient_map(kind: str) -> None:
    meta, arrays = read(f"waveform_gradmap_{kind}")
    names = {"mel": "n_mels", "leaf": "n_filters"}
    options = {names[kind]: meta["n_filters"], **meta["front_cfg"]}
    front = neural.front_ends.get(kind)(meta["audio_fs"], meta["dt_ms"], **options)
    model = neural.Linear(meta["n_filters"], meta["temporal_window_size"], meta["out_neurons"], wav2spec=front).eval()
    model.load_published({k.removeprefix("sd/"): v for k, v in arrays.items() if k.startswith("sd/")})
    assert error(model(arrays["x"][None, None]), arrays["y_eval"]) < 2e-3
    for reduce in ("last", "peak", "sum"):
        for neuron, key in ((None, "grad_all"), (1, "grad_neuron1")):
            value = model.waveform_gradmap(arrays["x"], neuron, reduce)
            assert value.dtype == torch.float64
            assert error(value, arrays[f"{key}/{reduce}"]) < 2e-3
    assert error(model.STRF_gradmap(), -arrays["strf_gradmap_eval_raw"]) < 1e-4
    assert all(parameter.grad is None for parameter in model.parameters())
