"""Learning by gradient that can be interrupted: steps, validations, early stopping, checkpoints, a log."""

from __future__ import annotations

import csv
import io
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pydantic
import torch
from torch import Tensor

from psysim.errors import NumericsError, StoreError
from psysim.results.files import write_atomically

__all__ = ["Descent", "DescentProgress", "DescentSettings", "open_folder"]

CHECKPOINT, LOG, RECIPE = "checkpoint.pt", "log.csv", "recipe.toml"
WARM_UP = 0.05


class DescentSettings(pydantic.BaseModel):
    """How a minimum is found: Adam with decoupled weight decay, and early stopping."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    seed: int = pydantic.Field(default=1, ge=0, lt=2**63, description="of everything random")
    batch: int = pydantic.Field(default=32, ge=1, le=65536, description="sounds per step; all are new in every step")
    n_steps: int = pydantic.Field(default=2000, ge=1, le=10**7, description="largest number of steps")
    learning_rate: float = pydantic.Field(default=1e-3, gt=0, le=10, description="of Adam, at its highest")
    schedule: Literal["cosine", "constant"] = pydantic.Field(
        default="cosine", description="cosine: the rate rises over the first 5 % of the steps and then falls to 0"
    )
    weight_decay: float = pydantic.Field(default=0.0, ge=0, le=1, description="decoupled (AdamW)")
    gradient_limit: float | None = pydantic.Field(
        default=None, gt=0, description="largest norm of the gradient of a step; none: no limit"
    )
    validate_every: int = pydantic.Field(default=100, ge=1, description="steps between validations and checkpoints")
    n_validation: int = pydantic.Field(default=512, ge=1, le=2**23, description="sounds of a validation, the same ones")
    patience: int = pydantic.Field(default=10, ge=1, description="validations without progress that end it")


@dataclass(frozen=True)
class DescentProgress:
    """How far it is.

    Attributes
    ----------
    step, n_steps : int
        Steps done, and their largest number.
    loss : float
        Loss of the last step.
    validation : dict of str to float
        Results of the last validation; empty before the first. ``loss`` is what has to fall.
    elapsed_s : float
        Time since this execution began.
    """

    step: int
    n_steps: int
    loss: float
    validation: dict[str, float]
    elapsed_s: float


def open_folder(out: Path, text: str, resume: bool) -> None:
    """Make the folder of a recipe, or see that it is that of the same recipe.

    Raises
    ------
    StoreError
        If it holds something else, the result of another recipe, or one that ``resume`` does not ask for.
    """
    if not (out / RECIPE).is_file():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise StoreError(f"{out} is not empty and holds nothing to continue. Choose another --out.")
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{out} cannot be made: {error.strerror}.") from error
        write_atomically(out / RECIPE, text.encode())
        return
    if not resume:
        raise StoreError(f"{out} holds a result already. Add --resume to continue it, or choose another --out.")
    if (out / RECIPE).read_text(encoding="utf-8") != text:
        raise StoreError(f"{out} holds the result of another recipe: {out / RECIPE} differs. Choose another --out.")


class Descent(ABC):
    """Adam on a loss, with validations; everything that matters is in its checkpoint.

    Parameters
    ----------
    settings : DescentSettings
    parameters : iterable of Parameter
        What is learnt.
    out : Path
        Folder of checkpoint and log.
    device : str
    progress : callable, optional
        Called with a `DescentProgress` after every step.
    """

    def __init__(
        self,
        settings: DescentSettings,
        parameters: Iterable[torch.nn.Parameter],
        out: Path,
        device: str,
        progress: Callable[[DescentProgress], None] | None,
    ) -> None:
        self.settings, self.out, self.device, self.progress = settings, out, device, progress
        self.learnt = list(parameters)
        self.optimiser = torch.optim.AdamW(self.learnt, lr=settings.learning_rate, weight_decay=settings.weight_decay)
        self.step = 0
        self.waited = 0
        self.rows: list[dict[str, float]] = []
        self.best = {"loss": math.inf, "step": 0.0}
        self.best_weights = self.copied()
        self.began = time.monotonic()

    # -- what a task says ------------------------------------------------------------------------------------------

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """Return everything that makes the result, by name: parameters, and statistics that are not learnt."""

    @abstractmethod
    def loss(self) -> Tensor:
        """Return the loss of this step, ()."""

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """Return the results of a validation; ``loss`` is what has to fall."""

    def constrain(self) -> None:
        """Bring parameters back into what is allowed, after every step; nothing by default."""

    # -- steps -----------------------------------------------------------------------------------------------------

    def execute(self) -> None:
        """Go on until the last step, or until the validations no longer get better.

        Raises
        ------
        NumericsError
            If the loss is not finite.
        """
        settings = self.settings
        while self.step < settings.n_steps and self.waited < settings.patience:
            value = self._take_step()
            self.step += 1
            if self.step % settings.validate_every == 0 or self.step == settings.n_steps:
                self._look(value)
                self._keep()
            if self.progress is not None:
                last = {k: v for k, v in self.rows[-1].items() if k not in ("step", "loss")} if self.rows else {}
                last = {k.removeprefix("validation_"): v for k, v in last.items()}
                elapsed = time.monotonic() - self.began
                self.progress(DescentProgress(self.step, settings.n_steps, value, last, elapsed))

    def _take_step(self) -> float:
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.learning_rate * self._rate()
        loss = self.loss()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise NumericsError(f"The loss is {value} at step {self.step}: try a lower learning_rate.")
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.settings.gradient_limit is not None:
            torch.nn.utils.clip_grad_norm_(self.learnt, self.settings.gradient_limit)
        self.optimiser.step()
        self.constrain()
        return value

    def _rate(self) -> float:
        """Return the learning rate of this step re its highest."""
        if self.settings.schedule == "constant":
            return 1.0
        done = self.step / self.settings.n_steps
        if done < WARM_UP:
            return (self.step + 1) / (WARM_UP * self.settings.n_steps + 1)
        return 0.5 * (1.0 + math.cos(math.pi * (done - WARM_UP) / (1.0 - WARM_UP)))

    def _look(self, loss: float) -> None:
        found = self.validate()
        self.rows.append({"step": float(self.step), "loss": loss} | {f"validation_{k}": v for k, v in found.items()})
        if found["loss"] < self.best["loss"]:
            self.best = {"loss": found["loss"], "step": float(self.step)}
            self.best_weights = self.copied()
            self.waited = 0
        else:
            self.waited += 1

    # -- what is kept ----------------------------------------------------------------------------------------------

    def copied(self) -> dict[str, Tensor]:
        """Return a copy of all weights in main memory."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.weights().items()}

    def set_weights(self, weights: dict[str, Tensor]) -> None:
        """Set all weights (in place)."""
        with torch.no_grad():
            for name, tensor in self.weights().items():
                tensor.copy_(weights[name])

    def _keep(self) -> None:
        state: dict[str, Any] = {
            "step": self.step,
            "waited": self.waited,
            "rows": self.rows,
            "best": self.best,
            "best_weights": self.best_weights,
            "weights": self.copied(),
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
        """Continue where the checkpoint was written, if there is one.

        Raises
        ------
        StoreError
            If it is damaged.
        """
        path = self.out / CHECKPOINT
        if not path.is_file():
            return
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            self.set_weights(state["weights"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step, self.waited = state["step"], state["waited"]
            self.rows, self.best = state["rows"], state["best"]
            self.best_weights = {name: tensor.cpu() for name, tensor in state["best_weights"].items()}
        except Exception as error:  # torch.load raises whatever the damage leads to
            raise StoreError(f"{path} is damaged ({error}): remove the folder and start again.") from error

    def finished(self) -> None:
        """Set the weights of the best validation, and remove the checkpoint."""
        self.set_weights(self.best_weights)
        (self.out / CHECKPOINT).unlink(missing_ok=True)
