"""Adaptation in front of neural response models against numbers of deepSTRF 0.1.0."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from psysim.models import neural

DATA = Path(__file__).parent / "data" / "deepstrf"
GRIDS = ("F34_dt1", "F34_dt5", "F18_dt10")


def read(name: str) -> dict[str, Any]:
    with np.load(DATA / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files if key != "meta"}


def grid(name: str) -> dict[str, Any]:
    bands, dt = name.removeprefix("F").split("_dt")
    return {"n_frequency_bands": int(bands), "dt_ms": float(dt), "min_freq": 200.0 if bands == "18" else 500.0}


def error(value: torch.Tensor, reference: torch.Tensor) -> float:
    assert value.shape == reference.shape
    return float(((value - reference).abs().max() / reference.abs().max()).detach())


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("length", ["orig", "short"])
def test_adaptrans(name: str, length: str) -> None:
    data = read(f"prefilter_adaptrans_{name}")
    prefilter = neural.AdapTrans(**grid(name), n_taps=int(data[f"{length}/K"]))
    assert error(prefilter.frequencies_hz, data["cf_hz"]) < 1e-4
    assert error(prefilter.tau_ms, data["tau_ms"]) < 1e-4
    assert error(prefilter.initial_factor(), data["a"]) < 1e-4
    for key in ("d_on", "d_off", "p"):
        getattr(prefilter, key).data.copy_(data[key])
    y = prefilter(data["x"])
    assert error(y, data[f"{length}/y"]) < 1e-4
    (y * data["loss_weight"]).sum().backward()
    for key in ("d_on", "d_off", "p"):
        assert error(getattr(prefilter, key).grad, data[f"{length}/grad_{key}"]) < 5e-3


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("length", ["orig", "short"])
def test_ic_adaptation(name: str, length: str) -> None:
    data = read(f"prefilter_icadaptation_{name}")
    prefilter = neural.ICAdaptation(**grid(name), n_taps=int(data[f"{length}/K"]))
    assert error(prefilter.a, data["a"]) < 1e-4
    assert error(prefilter(data["x"]), data[f"{length}/y"]) < 1e-4


@pytest.mark.parametrize("name", GRIDS)
def test_a_long_kernel_is_the_recursion(name: str) -> None:
    """At 1 ms per frame the kernel of 651 frames ends at 5 % of its beginning, at 10 ms at 1e-13."""
    data = read(f"prefilter_adaptrans_{name}")
    prefilter = neural.AdapTrans(**grid(name))
    for key in ("d_on", "d_off", "p"):
        getattr(prefilter, key).data.copy_(data[key])
    slowest = float(torch.stack([1 / (1 + data["d_on"] ** 2), 1 / (1 + data["d_off"] ** 2)]).max())
    assert error(prefilter(data["x"]), data["orig/y"]) < 1e-4 + slowest ** (int(data["orig/K"]) - 1)


@pytest.mark.parametrize("kind", ["adaptrans", "icadaptation"])
def test_linear_with_adaptation(kind: str) -> None:
    data = read(f"linear_{kind}")
    make = neural.AdapTrans if kind == "adaptrans" else neural.ICAdaptation
    prefilter = make(n_frequency_bands=20, dt_ms=5.0, n_taps=131)
    model = neural.Linear(20, 9, 4, prefiltering=prefilter).eval()
    weights = {k.removeprefix("sd/"): v for k, v in data.items() if k.startswith("sd/") and "num_batches" not in k}
    assert not model.load_state_dict(weights, strict=False).unexpected_keys
    y = model(data["x"])
    assert error(y, data["y_eval"]) < 3e-5
    (y * data["loss_weight"]).sum().backward()
    tolerance = 5e-3 if kind == "adaptrans" else 1e-3
    for key, parameter in model.named_parameters():
        if data[f"pgrad/{key}"].abs().max() > 1e-3:
            assert parameter.grad is not None
            assert error(parameter.grad, data[f"pgrad/{key}"]) < tolerance, key
    # On silence the reference's map is nothing at all; around a sound it is the receptive field.
    ramp = 1 + 0.01 * torch.arange(9.0).expand(20, 9)
    assert error(model.STRF_gradmap(baseline=ramp), data["gradmap_baseline1"].double()) < 1e-3
    assert float(data["gradmap_eval_raw"].abs().max()) == 0.0
    assert float(model.STRF_gradmap(softness=1e-3).abs().max()) > 1e-3
