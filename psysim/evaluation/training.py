"""Training of a network that hears through the auditory nerve, on sounds of psysim's own generators."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from psysim.evaluation.descent import Descent, DescentProgress, open_folder
from psysim.evaluation.recipe import Recipe
from psysim.evaluation.training_sounds import TrainingExamples
from psysim.models.phaselocknet import PhaseLockNet
from psysim.models.phaselocknet.layers import BatchNorm

__all__ = ["make_model", "score_model", "train"]

MODEL = "model.safetensors"
SETTLING = 512
"""Sounds from which running statistics are taken."""


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
    progress: Callable[[DescentProgress], None] | None = None,
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
        Called with a `DescentProgress` after every step.

    Raises
    ------
    StoreError
        If ``out`` holds a training and ``resume`` is False, or one of another recipe.
    NumericsError
        If the loss is not finite.
    """
    out = Path(out)
    open_folder(out, recipe.text, resume)
    if (out / MODEL).is_file():
        return PhaseLockNet.load(out / MODEL).to(device)
    run = _Training(recipe, out, device, progress)
    run.restore()
    run.execute()
    return run.finish()


class _Training(Descent):
    """The training of one network."""

    def __init__(
        self, recipe: Recipe, out: Path, device: str, progress: Callable[[DescentProgress], None] | None
    ) -> None:
        self.recipe = recipe
        self.model = make_model(recipe).to(device)
        self.examples = TrainingExamples(recipe, device)
        super().__init__(recipe.training, self.model.network.parameters(), out, device, progress)

    def weights(self) -> dict[str, Tensor]:
        return self.model.network.weights()

    def loss(self) -> Tensor:
        settings = self.recipe.training
        first = self.step * settings.batch
        number = torch.arange(first, first + settings.batch, device=self.device)
        self.model.network.train()
        losses = _losses(self.model, self.examples, "training", number, settings.precision)[0]
        return torch.stack(list(losses.values())).sum()

    def validate(self) -> dict[str, float]:
        self._settle()
        found = score_model(self.model, self.recipe, "validation", self.settings.n_validation, self.device)
        return {"loss": found["loss"]} | {f"accuracy_{name}": share for name, share in found["accuracy"].items()}

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
                made = self.examples.make("training", number)
                network(self.model.activity(made.sounds, made.keys))
        for layer, momentum in zip(layers, kept, strict=True):
            layer.momentum = momentum
        network.eval()

    def finish(self) -> PhaseLockNet:
        """Write the model with its best weights and its test; remove the checkpoint."""
        n_test = self.recipe.training.n_test
        self.finished()
        test = score_model(self.model, self.recipe, "test", n_test, self.device)
        facts = {
            "recipe": self.recipe.text,
            "heads": {name: self._head(name) for name in self.recipe.heads},
            "best_step": int(self.best["step"]),
            "n_steps": self.step,
            "n_test": n_test,
            "test": test,
        }
        self.model.save(self.out / MODEL, {"training": json.dumps(facts)})
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
    made = examples.make(split, number)
    with torch.no_grad():
        activity = model.activity(made.sounds, made.keys)
    half = torch.autocast(number.device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()
    with half:
        logits = model.network(activity, made.keys)
    losses, correct, answers = {}, {}, {}
    for name, given in made.classes.items():
        values = logits[name].float()
        asked = given >= 0
        if name in made.positions:
            losses[name] = F.cross_entropy(values, near(made.positions[name], values.shape[-1]))
        else:
            losses[name] = F.cross_entropy(values, given, ignore_index=-1)
        correct[name] = ((values.argmax(-1) == given) & asked).sum()
        answers[name] = asked.sum()
    return losses, correct, answers


def near(position: Tensor, n: int) -> Tensor:
    """Return the probabilities (B, n) that are to be learnt of values at ``position`` (B,) between 0 and 1.

    A normal curve about the value itself, with a standard deviation of one class. With the class alone as the target a
    network that is sure of it learns to hear no differences within the class, and thresholds would be those of its
    borders.
    """
    places = (torch.arange(n, dtype=torch.float64, device=position.device) + 0.5) / n
    away = (position[:, None] - places) * n
    return torch.softmax(-0.5 * away.square(), -1).float()


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
