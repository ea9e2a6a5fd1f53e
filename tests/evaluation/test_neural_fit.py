"""Fits of neural response models: golden traces of deepSTRF 0.1.0, recovery of known fields, interruption."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from psysim.errors import SpecError, StoreError
from psysim.evaluation.neural_data import simulate_population
from psysim.evaluation.neural_fit import _Fit, fit_neurons, loads_fit_recipe, score_neurons
from psysim.models.neural import Linear, load_model

DATA = Path(__file__).parents[1] / "reference" / "data" / "deepstrf"


@pytest.mark.parametrize("name", ["training_linear", "training_linear_b", "training_nrf"])
def test_golden_traces(name, tmp_path):
    with np.load(DATA / f"{name}.npz") as file:
        z = {key: file[key] for key in file.files}
    meta = json.loads(str(z["meta"]))
    ds = xr.Dataset(
        {
            "spectrogram": (("stimulus", "band", "frame"), z["stims"][:, 0]),
            "responses": (("stimulus", "neuron", "repeat", "frame"), z["responses"]),
        },
        attrs={"dt_ms": 5.0},
    )
    hidden = f"n_hidden = {meta['n_hidden']}" if meta["n_hidden"] else ""
    kind = "network_receptive_field" if meta["n_hidden"] else "linear"
    per_epoch = meta["n_train"] // meta["train_batch"]
    recipe = loads_fit_recipe(f"""
        [model]
        kind = "{kind}"
        temporal_window_size = {meta["temporal_window_size"]}
        {hidden}
        [fit]
        batch = {meta["train_batch"]}
        n_steps = {6 * per_epoch}
        validate_every = {per_epoch}
        schedule = "constant"
        shuffle = false
        standardise = false
        n_test = 0
        n_validation = {meta["n_val"]}
    """)
    run = _Fit(recipe, ds, tmp_path, "cpu", None)
    run.model.load_published({k.removeprefix("sd_init/"): torch.from_numpy(v) for k, v in z.items() if "sd_init/" in k})
    losses = []
    run.progress = lambda now: losses.append(now.loss)
    run.execute()
    train = np.array(losses).reshape(6, per_epoch).mean(1)
    assert np.abs(train - z["hist/train_loss"]).max() < 1e-4 * z["hist/train_loss"].max()
    val = np.array([row["validation_loss"] for row in run.rows])
    assert np.abs(val - z["hist/val_loss"]).max() < 2e-3 * z["hist/val_loss"].max()
    final = recipe.build(ds)
    final.load_published({k.removeprefix("sd_final/"): torch.from_numpy(v) for k, v in z.items() if "sd_final/" in k})
    found = run.model.state_dict()
    for key, reference in final.state_dict().items():
        if kind == "linear" and key.endswith(("kernel.bias", "running_mean")):
            continue  # its gradient is rounding noise: it and the mean it shifts differ from machine to machine
        assert (found[key] - reference).abs().max() <= 5e-3 * reference.abs().max(), key


@pytest.mark.parametrize(("kind", "nonlinearity"), [("linear", "none"), ("linear_nonlinear", "softplus")])
def test_known_fields_are_recovered(kind, nonlinearity, tmp_path):
    ds = simulate_population(nonlinearity=nonlinearity)
    recipe = loads_fit_recipe(f"""
        model = {{ kind = "{kind}", temporal_window_size = 5 }}
        fit = {{ n_steps = 300, learning_rate = 0.02 }}
    """)
    model = fit_neurons(recipe, ds, tmp_path / "fit")
    facts = np.genfromtxt(tmp_path / "fit" / "scores.csv", delimiter=",", names=True)
    assert facts["normalised_correlation"].min() >= 0.9
    assert facts["normalised_correlation"].max() <= 1.1
    fields = model.STRF_gradmap()[:, 0, :, -5:].flatten(1)
    truth = torch.from_numpy(ds["strf"].values).flatten(1)
    for field, true in zip(fields, truth, strict=True):
        assert torch.corrcoef(torch.stack([field.double(), true]))[0, 1] >= 0.9
    other = simulate_population(nonlinearity=nonlinearity, seed=2)  # other fields: nothing of the fit is left
    assert score_neurons(model, other)["normalised_correlation"].abs().max() < 0.9


def test_an_interrupted_fit_ends_as_one_that_was_not(tmp_path):
    ds = simulate_population(n_neurons=2, n_frames=60)
    recipe = loads_fit_recipe("""
        model = { kind = "linear_nonlinear", temporal_window_size = 5 }
        fit = { n_steps = 40, validate_every = 10, loss = "poisson" }
    """)

    def stop(now):
        if now.step == 25:
            raise KeyboardInterrupt

    whole = fit_neurons(recipe, ds, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit_neurons(recipe, ds, tmp_path / "parts", progress=stop)
    with pytest.raises(StoreError, match="resume"):
        fit_neurons(recipe, ds, tmp_path / "parts")
    with pytest.raises(StoreError, match="another recipe"):  # other data
        fit_neurons(recipe, ds.assign(responses=ds["responses"] + 1.0), tmp_path / "parts", resume=True)
    fit_neurons(recipe, ds, tmp_path / "parts", resume=True)
    parts = load_model(tmp_path / "parts" / "model.safetensors")
    for name, value in whole.state_dict().items():
        assert torch.equal(parts.state_dict()[name], value), name
    for name in ("log.csv", "scores.csv"):
        assert (tmp_path / "parts" / name).read_text() == (tmp_path / "whole" / name).read_text()
    assert not (tmp_path / "parts" / "checkpoint.pt").exists()


def test_folds_test_every_stimulus_once(tmp_path):
    ds = simulate_population(n_neurons=1, n_frames=30, n_stimuli=6)
    seen = []
    for fold in range(3):
        recipe = loads_fit_recipe(f'model = {{ kind = "linear" }}\nfit = {{ fold = {fold} }}')
        run = _Fit(recipe, ds, tmp_path, "cpu", None)
        parts = (run.training, run.validation, run.test)
        assert sorted(torch.cat(parts).tolist()) == list(range(6))
        seen += run.test.tolist()
    assert sorted(seen) == list(range(6))
    with pytest.raises(SpecError, match="fold = 3"):
        _Fit(loads_fit_recipe('model = { kind = "linear" }\nfit = { fold = 3 }'), ds, tmp_path, "cpu", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model = ", "valid TOML"),
        ("fit = {}", r"\[model\] is missing"),
        ('modell = { kind = "linear" }', "'modell'"),
        ("model = { hidden = 3 }", "kind"),
        ('model = { kind = "linear" }\nfit = { los = "mse" }', "los"),
        ('model = { kind = "linear" }\nfit = { loss = "mae" }', "'mse' or 'poisson'"),
    ],
)
def test_mistakes_of_a_recipe(text, message):
    with pytest.raises(SpecError, match=message):
        loads_fit_recipe(text)


def test_model_and_data_must_fit():
    ds = simulate_population(n_neurons=1, n_frames=30)
    with pytest.raises(SpecError, match="linaer"):
        loads_fit_recipe('model = { kind = "linaer" }').build(ds)
    with pytest.raises(SpecError, match=r"10\.0 ms"):
        loads_fit_recipe('model = { kind = "linear", dt_ms = 10.0 }').build(ds)
    assert isinstance(loads_fit_recipe('model = { kind = "linear" }').build(ds), Linear)
