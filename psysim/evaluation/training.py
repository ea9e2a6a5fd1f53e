"""Training of a network that hears through the auditory nerve, on sounds of psysim's own generators."""

from __future__ import annotations

import csv
import io
import json
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from psysim.errors import NumericsError, StoreError
from psysim.evaluation.recipe import Recipe
from psysim.evaluation.training_sounds import TrainingExamples
from psysim.models.phaselocknet import PhaseLockNet
from psysim.models.phaselocknet.layers import BatchNorm
from psysim.results.files import write_atomically

__all__ = ["TrainingProgress", "make_model", "score_model", "train"]

CHECKPOINT, MODEL, LOG, RECIPE = "checkpoint.pt", "model.safetensors", "log.csv", "recipe.toml"
WARM_UP = 0.05
SETTLING = 512
"""Sounds from which running statistics are taken."""


@dataclass(frozen=True)
class TrainingProgress:
    """How far a training is.

    Attributes
    ----------
    step, n_steps : int
        Steps done, and their largest number.
    loss : float
        Cross-entropy, nats, of the last step, summed over heads.
    validation_loss : float
        Of the last validation; NaN before the first.
    accuracy : dict of str to float
        Proportion correct of each head in the last validation.
    elapsed_s : float
        Time since this execution began.
    """

    step: int
    n_steps: int
    loss: float
    validation_loss: float
    accuracy: dict[str, float]
    elapsed_s: float


def make_model(recipe: Recipe) -> PhaseLockNet:
    """Return the model of a recipe with its initial weights."""
    return PhaseLockNet(
        recipe.config,
        recipe.architecture(),
        labels={name: names for name, names in recipe.classes.items() if len(set(names)) == len(names)},
        seed=recipe.training.seed,
        nerve_options={"variant": recipe.nerve.variant},
    )


def train(
    recipe: Recipe,
    out: str | Path,
    *,
    device: str = "cpu",
    resume: bool = False,
    progress: Callable[[TrainingProgress], None] | None = None,
) -> PhaseLockNet:
    """Train the network of a recipe; return it with the weights of its best validation.

    Every step takes new sounds, so nothing is learnt by heart but the material of which they are made. The folder
    ``out`` holds ``recipe.toml``, ``log.csv`` (a row per validation), ``checkpoint.pt`` while the training runs, and at
    the end ``model.safetensors``, which `PhaseLockNet.load` and the observer "network" read: weights, descriptions, the
    recipe and the accuracy on test sounds.

    Parameters
    ----------
    recipe : Recipe
    out : path
        A folder.
    device : str
        "cpu" or "cuda".
    resume : bool
        Continue an interrupted training; the result is the same as without the interruption, on the same machine.
    progress : callable, optional
        Called with a `TrainingProgress` after every step.

    Raises
    ------
    StoreError
        If ``out`` holds a training and ``resume`` is False, or one of another recipe.
    NumericsError
        If the loss is not finite.
    """
    out = Path(out)
    _open(out, recipe, resume)
    if (out / MODEL).is_file():
        return PhaseLockNet.load(out / MODEL).to(device)
    run = _Training(recipe, out, device, progress)
    if resume and (out / CHECKPOINT).is_file():
        run.restore()
    run.execute()
    return run.finish()


def _open(out: Path, recipe: Recipe, resume: bool) -> None:
    """Make the folder, or see that it is that of the same training."""
    if not (out / RECIPE).is_file():
        if out.exists() and any(out.iterdir()):
            raise StoreError(f"{out} is not empty and holds no training. Choose another --out.")
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{out} cannot be made: {error.strerror}.") from error
        write_atomically(out / RECIPE, recipe.text.encode())
        return
    if not resume:
        raise StoreError(f"{out} holds a training already. Add --resume to continue it, or choose another --out.")
    if (out / RECIPE).read_text(encoding="utf-8") != recipe.text:
        raise StoreError(f"{out} holds the training of another recipe: {out / RECIPE} differs. Choose another --out.")


class _Training:
    """One training: everything that a checkpoint holds, and what is made again from the recipe."""

    def __init__(
        self, recipe: Recipe, out: Path, device: str, progress: Callable[[TrainingProgress], None] | None
    ) -> None:
        self.recipe, self.out, self.device, self.progress = recipe, out, device, progress
        self.settings = recipe.training
        self.model = make_model(recipe).to(device)
        self.examples = TrainingExamples(recipe, device)
        network = self.model.network
        self.optimiser = torch.optim.AdamW(
            network.parameters(), lr=self.settings.learning_rate, weight_decay=self.settings.weight_decay
        )
        self.step = 0
        self.waited = 0
        self.rows: list[dict[str, float]] = []
        self.best = {"loss": math.inf, "step": 0.0}
        self.best_weights = self._weights()
        self.began = time.monotonic()

    def _weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach().cpu().clone() for name, tensor in self.model.network.weights().items()}

    def _set_weights(self, weights: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, tensor in self.model.network.weights().items():
                tensor.copy_(weights[name])

    # -- steps -----------------------------------------------------------------------------------------------------

    def execute(self) -> None:
        """Train until the last step, or until the validations no longer get better."""
        settings = self.settings
        while self.step < settings.n_steps and self.waited < settings.patience:
            loss = self._learn()
            self.step += 1
            if self.step % settings.validate_every == 0 or self.step == settings.n_steps:
                self._validate(loss)
                self._keep()
            self._report(loss)

    def _learn(self) -> float:
        settings = self.settings
        for group in self.optimiser.param_groups:
            group["lr"] = settings.learning_rate * self._rate()
        first = self.step * settings.batch
        number = torch.arange(first, first + settings.batch, device=self.device)
        network = self.model.network.train()
        losses = _losses(self.model, self.examples, "training", number, settings.precision)[0]
        loss = torch.stack(list(losses.values())).sum()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise NumericsError(f"The loss is {value} at step {self.step}: try a lower training.learning_rate.")
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), settings.gradient_limit)
        self.optimiser.step()
        return value

    def _rate(self) -> float:
        """Return the learning rate of this step re its highest."""
        if self.settings.schedule == "constant":
            return 1.0
        done = self.step / self.settings.n_steps
        if done < WARM_UP:
            return (self.step + 1) / (WARM_UP * self.settings.n_steps + 1)
        return 0.5 * (1.0 + math.cos(math.pi * (done - WARM_UP) / (1.0 - WARM_UP)))

    def _settle(self) -> None:
        """Set the running statistics of all batch normalisations to those of training sounds, without dropout.

        The averages collected while the weights changed, with units left out, are those of other networks: with them a
        network can do far worse than while it is trained.
        """
        network = self.model.network.eval()
        layers = [module for module in network.modules() if isinstance(module, BatchNorm)]
        kept = [layer.momentum for layer in layers]
        for layer in layers:
            layer.train()
        batches = -(-SETTLING // self.settings.batch) if layers else 0
        with torch.no_grad():
            for k in range(batches):
                for layer in layers:
                    layer.momentum = 1.0 / (k + 1)
                number = torch.arange(k * self.settings.batch, (k + 1) * self.settings.batch, device=self.device)
                sounds, _, keys = self.examples.make("training", number)
                network(self.model.activity(sounds, keys))
        for layer, momentum in zip(layers, kept, strict=True):
            layer.momentum = momentum
        network.eval()

    def _validate(self, loss: float) -> None:
        self._settle()
        result = score_model(self.model, self.recipe, "validation", self.settings.n_validation, self.device)
        row = {"step": float(self.step), "loss": loss, "validation_loss": result["loss"]}
        self.rows.append(row | {f"accuracy_{name}": value for name, value in result["accuracy"].items()})
        if result["loss"] < self.best["loss"]:
            self.best = {"loss": result["loss"], "step": float(self.step)}
            self.best_weights = self._weights()
            self.waited = 0
        else:
            self.waited += 1

    def _report(self, loss: float) -> None:
        if self.progress is None:
            return
        last = self.rows[-1] if self.rows else {}
        accuracy = {k.removeprefix("accuracy_"): v for k, v in last.items() if k.startswith("accuracy_")}
        elapsed = time.monotonic() - self.began
        validation = last.get("validation_loss", math.nan)
        self.progress(TrainingProgress(self.step, self.settings.n_steps, loss, validation, accuracy, elapsed))

    # -- what is kept ----------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        state = {
            "step": self.step,
            "waited": self.waited,
            "rows": self.rows,
            "best": self.best,
            "best_weights": self.best_weights,
            "weights": self._weights(),
            "optimiser": self.optimiser.state_dict(),
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomically(self.out / CHECKPOINT, buffer.getvalue())
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomically(self.out / LOG, text.getvalue().encode())

    def restore(self) -> None:
        """Continue where the checkpoint was written.

        Raises
        ------
        StoreError
            If it is damaged.
        """
        path = self.out / CHECKPOINT
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            self._set_weights(state["weights"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step, self.waited = state["step"], state["waited"]
            self.rows, self.best = state["rows"], state["best"]
            self.best_weights = {name: tensor.cpu() for name, tensor in state["best_weights"].items()}
        except Exception as error:  # torch.load raises whatever the damage leads to
            raise StoreError(f"{path} is damaged ({error}): remove the folder and start again.") from error

    def finish(self) -> PhaseLockNet:
        """Write the model with its best weights and its test; remove the checkpoint."""
        self._set_weights(self.best_weights)
        test = score_model(self.model, self.recipe, "test", self.settings.n_test, self.device)
        facts = {
            "recipe": self.recipe.text,
            "heads": {name: self._head(name) for name in self.recipe.heads},
            "best_step": int(self.best["step"]),
            "n_steps": self.step,
            "n_test": self.settings.n_test,
            "test": test,
        }
        self.model.save(self.out / MODEL, {"training": json.dumps(facts)})
        (self.out / CHECKPOINT).unlink(missing_ok=True)
        self.model.name = MODEL.removesuffix(".safetensors")
        return self.model

    def _head(self, name: str) -> dict[str, Any]:
        head = self.recipe.heads[name]
        known = {key: value for key, value in head.model_dump().items() if value is not None}
        if head.kind == "value":
            varied = self.recipe.vary[str(head.parameter)]
            known |= {"low": varied.low, "high": varied.high, "scale": varied.scale}
        return known


def _losses(
    model: PhaseLockNet, examples: TrainingExamples, split: str, number: Tensor, precision: str
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Return mean cross-entropy, number of correct answers and number of answers of each head."""
    sounds, classes, keys = examples.make(split, number)
    with torch.no_grad():
        activity = model.activity(sounds, keys)
    half = torch.autocast(number.device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()
    with half:
        logits = model.network(activity, keys)
    losses, correct, answers = {}, {}, {}
    for name, given in classes.items():
        values = logits[name].float()
        asked = given >= 0
        losses[name] = F.cross_entropy(values, given, ignore_index=-1)
        correct[name] = ((values.argmax(-1) == given) & asked).sum()
        answers[name] = asked.sum()
    return losses, correct, answers


def score_model(
    model: PhaseLockNet, recipe: Recipe, split: str = "test", n: int = 1024, device: str = "cpu"
) -> dict[str, Any]:
    """Return how well a network does on sounds of its recipe.

    Parameters
    ----------
    model : PhaseLockNet
        On ``device``.
    recipe : Recipe
    split : {"test", "validation", "training"}
    n : int
        Number of sounds.
    device : str

    Returns
    -------
    dict
        ``loss`` (sum over heads of the mean cross-entropy, nats) and ``accuracy`` of each head.
    """
    examples = TrainingExamples(recipe, device)
    model.network.eval()
    size = recipe.training.batch
    total: dict[str, float] = dict.fromkeys(recipe.heads, 0.0)
    right, asked = dict(total), dict(total)
    with torch.no_grad():
        for first in range(0, n, size):
            number = torch.arange(first, min(first + size, n), device=device)
            losses, correct, answers = _losses(model, examples, split, number, "float32")
            for name in recipe.heads:
                total[name] += float(losses[name]) * len(number)
                right[name] += float(correct[name])
                asked[name] += float(answers[name])
    return {
        "loss": sum(total.values()) / n,
        "accuracy": {name: right[name] / max(asked[name], 1.0) for name in recipe.heads},
    }
