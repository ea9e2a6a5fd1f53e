"""An observer that is a trained network: it says what it hears, and its spikes are its internal noise."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic
import torch
from torch import Tensor

from psysim.errors import SpecError, did_you_mean
from psysim.models.phaselocknet import PhaseLockNet, read_metadata
from psysim.observers.base import Observer, ObserverSettings, Response, TrainingSounds, Trial, choose, register
from psysim.rng import Keys
from psysim.stages.band_limited import BandLimitedResampler

__all__ = ["NetworkObserver", "trained_networks", "trained_path"]

ROWS = 32
"""Sounds that are in work together: a network's layers need some MB for each."""


def trained_networks() -> list[str]:
    """Return the names of the trained networks that come with psysim.

    Examples
    --------
    >>> "tone_in_noise" in trained_networks()
    True
    """
    folder = files("psysim.observers") / "trained"
    return sorted(p.name.removesuffix(".safetensors") for p in folder.iterdir() if p.name.endswith(".safetensors"))


def trained_path(name: str, suffix: str = ".safetensors") -> Path:
    """Return the file of a network that comes with psysim, or with ``suffix=".toml"`` the recipe of its training.

    Raises
    ------
    SpecError
        If there is none of that name.
    """
    known = trained_networks()
    if name not in known:
        raise SpecError(f"There is no trained network '{name}'. Known: {', '.join(known)}.{did_you_mean(name, known)}")
    return Path(str(files("psysim.observers") / "trained" / f"{name}{suffix}"))


@register("network")
class NetworkObserver(Observer):
    """A network that was trained to name sounds (`psysim train`, or PhaseLockNet's own weights).

    Each interval is heard through the network's model of the auditory nerve, with spikes of its own, and nothing is
    added to them: they are the internal noise. The decision variable follows from the logits of one output ("head"):

    - whether a target is there: log odds of "present" ("yes" above 0);
    - a value, such as a fundamental frequency: its expectation over the classes' probabilities, on the scale of the
      training, from 0 (lowest) to 1 (highest);
    - classes named in ``target``: log odds of any of them.

    In an identification the most probable of the labels is named, and the decision variable is its log odds; the heads
    of words are found by the number of their place.

    References
    ----------
    Saddler & McDermott (2024), Nat. Commun. 15, 10590: responses are the most probable of the allowed classes.
    """

    class Settings(ObserverSettings):
        """Settings of the network observer."""

        network: str | None = pydantic.Field(
            default=None, description="name of a network that comes with psysim; see psysim list networks"
        )
        path: str | None = pydantic.Field(
            default=None, description="your own network: a .safetensors file of psysim train, or a folder"
        )
        head: str | None = pydantic.Field(default=None, description="output of the network; needed if it has several")
        target: list[str] | None = pydantic.Field(
            default=None, description="classes whose probability is the decision variable"
        )
        choose: Literal["highest", "lowest"] = pydantic.Field(
            default="highest", description="interval that is chosen: with the highest or the lowest decision variable"
        )

        @pydantic.model_validator(mode="after")
        def _one_source(self) -> NetworkObserver.Settings:
            if (self.network is None) == (self.path is None):
                raise ValueError('give either network = "name" or path = "file.safetensors"')
            if self.network is not None:
                trained_path(self.network)
            return self

    needs_model = False
    identifies = True
    description = "a trained network names what it hears (its own model of the auditory nerve)"
    settings: NetworkObserver.Settings

    def __init__(self, settings: ObserverSettings, model: None = None) -> None:
        super().__init__(settings, model)
        given = self.settings
        path = trained_path(given.network) if given.network is not None else Path(str(given.path))
        self.network = PhaseLockNet.load(path)
        conf = self.network.configuration
        if conf.takes != "sound" or conf.ears != 1:
            raise SpecError(f"{path}: the observer 'network' needs a network that takes sound, at one ear.")
        facts = read_metadata(path) if path.suffix == ".safetensors" else {}
        self._facts: dict[str, Any] = json.loads(facts.get("training", "{}"))
        self._heads: dict[str, dict[str, Any]] = self._facts.get("heads", {})
        self._resampler: BandLimitedResampler | None = None

    @property
    def calibration(self) -> dict[str, Any]:
        """The network and its accuracy on the sounds of its training: facts for the result's provenance."""
        return {
            "status": "its noise was that of the spikes of the trained network",
            "network": self.network.name,
            "fingerprint": self.network.fingerprint(),
            "test": self._facts.get("test"),
        }

    def prepare(self, training: TrainingSounds) -> None:
        """See that the sounds fit into the network's input.

        Raises
        ------
        SpecError
            If they are too long, or a head is missing.
        """
        conf = self.network.configuration
        if training.fs != conf.fs:
            self._resampler = BandLimitedResampler(training.fs, conf.fs)
        zero = torch.zeros(1, dtype=torch.int64)
        sound = training.reference(zero, zero)
        self.network.to(sound.device)
        seconds, limit = sound.shape[-1] / training.fs, conf.n_samples / conf.fs
        if seconds > limit + 0.5 / conf.fs:
            raise SpecError(
                f"The sounds last {seconds:g} s, but the network '{self.network.name}' takes {limit:g} s: shorten "
                "them, or train a network with sounds of this duration."
            )

    # -- logits ----------------------------------------------------------------------------------------------------

    def logits(self, sounds: Tensor, keys: Keys) -> dict[str, Tensor]:
        """Return the logits of every head.

        Parameters
        ----------
        sounds : Tensor (K, T)
            Pascal, at the rate of the experiment; shorter ones than the network takes are followed by silence.
        keys : Keys (K,)
            Names of the random numbers of their spikes.

        Returns
        -------
        dict of str to Tensor (K, n)
        """
        n = self.network.configuration.n_samples
        parts: list[dict[str, Tensor]] = []
        with torch.no_grad():
            for first in range(0, len(sounds), ROWS):
                x = sounds[first : first + ROWS].to(self.network.dtype)
                x = x if self._resampler is None else self._resampler(x)
                x = torch.nn.functional.pad(x[..., :n], (0, max(0, n - x.shape[-1])))
                parts.append(self.network(x, keys[first : first + ROWS]))
        return {name: torch.cat([part[name] for part in parts]).to(torch.float64) for name in parts[0]}

    def decision_variable(self, intervals: Tensor, condition: Tensor) -> Tensor:
        """Not defined without spikes, and these have keys: see `respond`.

        Raises
        ------
        SpecError
            Always.
        """
        raise SpecError("The observer 'network' hears spikes, which have random numbers of their trial: use respond.")

    def respond(self, trial: Trial) -> Response:
        """Answer a batch of trials from the logits.

        Raises
        ------
        SpecError
            If no head fits the task.
        """
        assert trial.intervals is not None
        n_rows, n_intervals = trial.keys.shape
        logits = self.logits(trial.intervals.flatten(0, 1), trial.keys.flatten())
        if trial.place is not None:
            return self._named(logits, trial.place, trial.task.n_alternatives)
        values = self._values(logits).reshape(n_rows, n_intervals)
        values = -values if self.settings.choose == "lowest" else values
        first = trial.task.first_alternative
        choice = choose(values[:, first:], trial.keys[:, first:], self.criterion(trial.condition))
        return Response(first + choice, values)

    def _values(self, logits: dict[str, Tensor]) -> Tensor:
        """Return the decision variable (K,)."""
        head = self._head(logits)
        found, facts = logits[head], self._heads.get(head, {})
        if self.settings.target is not None:
            return self._odds(found, self._targets(head))
        if facts.get("kind") == "present":
            return found[:, 1] - found[:, 0]
        if facts.get("kind") == "value":
            n = found.shape[1]
            places = (torch.arange(n, dtype=torch.float64, device=found.device) + 0.5) / n
            return found.softmax(-1) @ places
        raise SpecError(f"Say which classes of the head '{head}' are the target: observers.target = [...].")

    def _head(self, logits: dict[str, Tensor]) -> str:
        name = self.settings.head
        if name is None and len(logits) == 1:
            return next(iter(logits))
        if name not in logits:
            known = ", ".join(logits)
            raise SpecError(f'The network has the heads {known}: name one of them, observers.head = "...".')
        return str(name)

    def _targets(self, head: str) -> list[int]:
        labels = self.network.labels.get(head, [])
        wanted = self.settings.target or []
        unknown = [name for name in wanted if name not in labels]
        if unknown or not wanted:
            name = unknown[0] if unknown else ""
            raise SpecError(f"The head '{head}' has no class '{name}'.{did_you_mean(name, labels)}")
        return [labels.index(name) for name in wanted]

    @staticmethod
    def _odds(logits: Tensor, classes: list[int]) -> Tensor:
        chosen = torch.zeros(logits.shape[-1], dtype=torch.bool, device=logits.device)
        chosen[classes] = True
        inside, outside = (logits.masked_fill(~m, -torch.inf).logsumexp(-1) for m in (chosen, ~chosen))
        return inside - outside

    def _named(self, logits: dict[str, Tensor], place: Tensor, n_alternatives: int) -> Response:
        """Return the label that each row (B,) names at its place."""
        heads = {facts["place"] - 1: name for name, facts in self._heads.items() if facts.get("kind") == "label"}
        choice = torch.zeros_like(place)
        values = torch.zeros(place.shape, dtype=torch.float64, device=place.device)
        for asked in np.unique(place.cpu().numpy()).tolist():
            if asked not in heads or logits[heads[asked]].shape[1] != n_alternatives:
                raise SpecError(
                    f"The network '{self.network.name}' has no head that names {n_alternatives} labels at place "
                    f"{asked + 1}. Its heads: {', '.join(logits)}."
                )
            rows = (place == asked).nonzero()[:, 0]
            found = logits[heads[asked]][rows]
            best = found.argmax(-1)
            choice[rows] = best
            top = found.gather(1, best[:, None])[:, 0]
            others = found.scatter(1, best[:, None], -torch.inf).logsumexp(-1)
            values[rows] = top - others
        return Response(choice, values[:, None])
