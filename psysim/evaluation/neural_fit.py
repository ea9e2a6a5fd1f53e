"""Fitting of neural response models to responses: a recipe in TOML, early stopping, checkpoints, scores.

A recipe::

    [model]
    kind = "linear_nonlinear"
    temporal_window_size = 5

    [fit]
    loss = "poisson"

``[model]`` takes a kind of `psysim.models.neural` and its arguments (bands and neurons are those of the data),
``[front_end]`` and ``[prefilter]`` likewise; ``[fit]`` the fields of `FitSettings`.
"""

from __future__ import annotations

import csv
import io
import json
import tomllib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic
import torch
import xarray as xr
from torch import Tensor

from psysim.errors import SpecError
from psysim.evaluation import neural_metrics as metrics
from psysim.evaluation.descent import Descent, DescentProgress, DescentSettings, open_folder
from psysim.evaluation.neural_data import check_neural_data
from psysim.models.neural import AudioEncodingModel, build, load_model, save_model
from psysim.results.files import write_atomically
from psysim.rng import Keys, Purpose, uniform

__all__ = ["FitRecipe", "FitSettings", "fit_neurons", "load_fit_recipe", "loads_fit_recipe", "score_neurons"]

MODEL, SCORES = "model.safetensors", "scores.csv"
TABLES = ("title", "model", "front_end", "prefilter", "fit")
LOSSES = {"mse": metrics.mean_squared_error, "poisson": metrics.poisson_loss}


class FitSettings(DescentSettings):
    """How a model is fitted."""

    loss: Literal["mse", "poisson"] = pydantic.Field(
        default="mse", description="mean squared difference from the PSTH, or negative log-likelihood of Poisson counts"
    )
    batch: int = pydantic.Field(default=4, ge=1, le=65536, description="stimuli per step")
    n_validation: int = pydantic.Field(default=2, ge=1, description="stimuli for early stopping")
    n_test: int = pydantic.Field(default=2, ge=0, description="stimuli for the scores, not used in the fit")
    fold: int = pydantic.Field(
        default=0, ge=0, description="cross-validation: which share of the stimuli is the test (0: the first)"
    )
    shuffle: bool = pydantic.Field(default=True, description="stimuli in random order, anew in every epoch")
    standardise: bool = pydantic.Field(
        default=True, description="take mean and standard deviation of each band of the training out of spectrograms"
    )
    n_steps: int = pydantic.Field(default=1000, ge=1, le=10**7, description="largest number of steps")
    validate_every: int = pydantic.Field(default=25, ge=1, description="steps between validations and checkpoints")
    weight_decay: float = pydantic.Field(default=1e-4, ge=0, le=1, description="decoupled (AdamW)")


@dataclass(frozen=True)
class FitRecipe:
    """A fit, checked.

    Attributes
    ----------
    model, front_end, prefilter : dict
        Kind and arguments; None where there is no front-end or prefilter.
    fit : FitSettings
    text : str
        The TOML text.
    """

    model: dict[str, Any]
    front_end: dict[str, Any] | None
    prefilter: dict[str, Any] | None
    fit: FitSettings
    text: str

    def build(self, data: xr.Dataset) -> AudioEncodingModel:
        """Return the model with its initial weights, for the bands and neurons of ``data``."""
        arguments = {k: v for k, v in self.model.items() if k != "kind"}
        arguments["out_neurons"] = data.sizes["neuron"]
        if "spectrogram" in data:
            arguments["n_frequency_bands"] = data.sizes["band"]
        for slot, family, table in (
            ("wav2spec", "front_end", self.front_end),
            ("prefiltering", "prefilter", self.prefilter),
        ):
            if table is not None:
                given = {k: v for k, v in table.items() if k != "kind"}
                arguments[slot] = {"family": family, "kind": table["kind"], "arguments": given}
        arguments.setdefault("seed", self.fit.seed)
        if self.front_end is None:
            arguments.setdefault("dt_ms", float(data.attrs["dt_ms"]))
        model = build({"family": "model", "kind": self.model["kind"], "arguments": arguments})
        assert isinstance(model, AudioEncodingModel)
        if model.has_front_end != ("waveform" in data):
            raise SpecError("A data set of waveforms needs a [front_end], one of spectrograms must not have it.")
        if model.dt_ms is not None and abs(model.dt_ms - float(data.attrs["dt_ms"])) > 1e-9:
            raise SpecError(f"Frames of the model last {model.dt_ms} ms, those of the data {data.attrs['dt_ms']} ms.")
        return model


def loads_fit_recipe(text: str, source: str = "<text>") -> FitRecipe:
    """Check a recipe given as TOML text.

    Parameters
    ----------
    text : str
    source : str
        Named in messages.

    Raises
    ------
    SpecError
        If it is no TOML, or a table or setting is missing, unknown or out of range.

    Examples
    --------
    >>> loads_fit_recipe('model = { kind = "linear" }').fit.loss
    'mse'
    """
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{source}: this is not valid TOML: {error}.") from None
    unknown = sorted(set(tables) - set(TABLES))
    if unknown:
        raise SpecError(f"{source}: unknown table '{unknown[0]}'. Allowed: {', '.join(TABLES)}.")
    found: dict[str, Any] = {}
    for name in ("model", "front_end", "prefilter"):
        found[name] = tables.get(name)
        if name in tables and not (isinstance(tables[name], dict) and isinstance(tables[name].get("kind"), str)):
            raise SpecError(f'{source}: [{name}] must be a table with kind = "...".')
    if found["model"] is None:
        raise SpecError(f'{source}: [model] is missing; it needs kind = "linear" or another.')
    try:
        settings = FitSettings.model_validate(tables.get("fit", {}))
    except pydantic.ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'fit'}: {e['msg']}" for e in error.errors())
        raise SpecError(f"{source}: [fit] {problems}. Settings: {', '.join(FitSettings.model_fields)}.") from None
    return FitRecipe(**found, fit=settings, text=text)


def load_fit_recipe(path: str | Path) -> FitRecipe:
    """Read and check a recipe; see `loads_fit_recipe`.

    Parameters
    ----------
    path : path
        A TOML file.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read as a TOML text file ({error}).") from None
    return loads_fit_recipe(text, str(path))


def _split(settings: FitSettings, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the stimuli of training, validation and test: random, and another test in each fold."""
    n_test, n_validation = settings.n_test, settings.n_validation
    if n < n_test + n_validation + 1 or settings.fold >= max(1, n // max(n_test, 1)):
        raise SpecError(
            f"{n} stimuli cannot be split into a test of {n_test} (fold = {settings.fold}), a validation of "
            f"{n_validation} and a training."
        )
    order = torch.arange(n)
    if settings.shuffle:
        order = uniform(Keys.make(settings.seed), Purpose.ORDER, n).argsort()
    order = order.roll(-settings.fold * n_test)
    n_training = n - n_test - n_validation
    return order[n_test : n_test + n_training], order[n_test + n_training :], order[:n_test]


class _Data:
    """Sounds (S, 1, F, T) or (S, 1, T_audio), responses (S, N, R, T) and frames with a sound (S, T)."""

    def __init__(self, ds: xr.Dataset, device: str) -> None:
        name = "spectrogram" if "spectrogram" in ds else "waveform"
        x = torch.from_numpy(ds[name].values).float()[:, None]
        responses = torch.from_numpy(ds["responses"].values).float()
        valid = ~x.isnan().any(2)[:, 0] if name == "spectrogram" else ~responses.isnan().all(2).all(1)
        self.x, self.responses, self.valid = x.to(device), responses.to(device), valid.to(device)

    def predict(self, model: AudioEncodingModel, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return predictions (S, N, 1, T) and responses (S, N, R, T)."""
        return model(self.x[rows], self.valid[rows]), self.responses[rows]


class _Fit(Descent):
    """One fit."""

    settings: FitSettings

    def __init__(
        self,
        recipe: FitRecipe,
        ds: xr.Dataset,
        out: Path,
        device: str,
        progress: Callable[[DescentProgress], None] | None,
    ) -> None:
        self.data = _Data(ds, device)
        self.model = recipe.build(ds)
        self.training, self.validation, self.test = _split(recipe.fit, ds.sizes["stimulus"])
        if recipe.fit.standardise and not self.model.has_front_end:
            x = ds["spectrogram"][self.training.numpy()]
            std = x.std(("stimulus", "frame")).values
            self.model.standardise(x.mean(("stimulus", "frame")).values.tolist(), (std + (std == 0)).tolist())
        self.model.to(device)
        super().__init__(recipe.fit, self.model.parameters(), out, device, progress)

    def weights(self) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in self.model.state_dict().items() if "input_scale" not in name}

    def chosen(self) -> Tensor:
        """Return the stimuli of this step."""
        n, size = len(self.training), min(self.settings.batch, len(self.training))
        per_epoch = -(-n // size)
        epoch, first = self.step // per_epoch, (self.step % per_epoch) * size
        order = torch.arange(n)
        if self.settings.shuffle:
            order = uniform(Keys.make(self.settings.seed, trial=epoch % 2**24), Purpose.TRAINING, n).argsort()
        return self.training[order[first : first + size]]

    def _value(self, rows: Tensor) -> Tensor:
        loss = LOSSES[self.settings.loss](*self.data.predict(self.model, rows))
        return loss.nanmean()  # every neuron counts the same; one without a response here does not

    def loss(self) -> Tensor:
        self.model.train()
        return self._value(self.chosen())

    def validate(self) -> dict[str, float]:
        self.model.eval()
        with torch.no_grad():
            found = self.data.predict(self.model, self.validation)
            return {
                "loss": float(LOSSES[self.settings.loss](*found).nanmean()),
                "correlation": float(metrics.correlation(*found).nanmean()),
                "normalised_correlation": float(metrics.normalised_correlation(*found).nanmean()),
            }


def score_neurons(model: AudioEncodingModel, data: xr.Dataset) -> dict[str, Tensor]:
    """Return how well a model predicts responses, by neuron.

    Parameters
    ----------
    model : AudioEncodingModel
    data : xarray.Dataset
        See `psysim.evaluation.neural_data`.

    Returns
    -------
    dict of str to Tensor (N,)
        ``correlation``, ``normalised_correlation`` (Schoppe), ``normalised_correlation_hsu``,
        ``explained_signal_power``, ``signal_power``, ``noise_power``.
    """
    device = str(next(model.parameters()).device)
    every = _Data(check_neural_data(data), device)
    with torch.no_grad():
        predicted, responses = every.predict(model.eval(), torch.arange(len(every.x)))
    pair = (predicted.double().cpu(), responses.double().cpu())
    powers = metrics.signal_power(pair[1])
    return {
        "correlation": metrics.correlation(*pair),
        "normalised_correlation": metrics.normalised_correlation(*pair),
        "normalised_correlation_hsu": metrics.normalised_correlation_hsu(*pair),
        "explained_signal_power": metrics.explained_signal_power(*pair),
        "signal_power": powers.signal,
        "noise_power": powers.noise,
    }


def _fingerprint(data: xr.Dataset) -> str:
    """Return a checksum of all numbers of a data set: other data are another fit."""
    crc = 0
    for name in sorted(map(str, data.variables)):
        values = data[name].values
        if values.dtype.kind in "biufc":
            crc = zlib.crc32(np.ascontiguousarray(values).tobytes(), zlib.crc32(name.encode(), crc))
    return f"crc32 {crc:08x}"


def fit_neurons(
    recipe: FitRecipe,
    data: xr.Dataset,
    out: str | Path,
    *,
    device: str = "cpu",
    resume: bool = False,
    progress: Callable[[DescentProgress], None] | None = None,
) -> AudioEncodingModel:
    """Fit the model of a recipe; return it with the weights of its best validation.

    The folder ``out`` holds ``recipe.toml``, ``log.csv`` (a row per validation), ``checkpoint.pt`` while the fit runs,
    and at the end ``model.safetensors`` and ``scores.csv``: the neurons' scores on the test stimuli.

    Parameters
    ----------
    recipe : FitRecipe
    data : xarray.Dataset
        See `psysim.evaluation.neural_data`.
    out : path
        A folder.
    device : str
        "cpu" or "cuda".
    resume : bool
        Continue an interrupted fit; the result is the same as without the interruption, on the same machine.
    progress : callable, optional
        Called with a `DescentProgress` after every step.

    Raises
    ------
    StoreError
        If ``out`` holds a fit and ``resume`` is False, or one of another recipe.
    SpecError
        If model and data do not fit each other.
    NumericsError
        If the loss is not finite.
    """
    out, data = Path(out), check_neural_data(data)
    run = _Fit(recipe, data, out, device, progress)
    open_folder(out, f"{recipe.text.rstrip()}\n\n# Data: {_fingerprint(data)}\n", resume)
    if (out / MODEL).is_file():
        return load_model(out / MODEL).to(device)
    run.restore()
    run.execute()
    run.finished()
    facts = {"recipe": recipe.text, "best_step": int(run.best["step"]), "test_stimuli": run.test.tolist()}
    if len(run.test):
        scores = score_neurons(run.model, data.isel(stimulus=run.test.numpy()))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["neuron", *scores])
        writer.writerows([i, *row] for i, row in enumerate(torch.stack(list(scores.values()), 1).tolist()))
        write_atomically(out / SCORES, text.getvalue().encode())
    save_model(run.model, out / MODEL, {"fit": json.dumps(facts)})
    return run.model.eval()
