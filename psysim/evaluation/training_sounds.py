"""Sounds that a network is trained with, each with what is to be said of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from psysim.evaluation.recipe import Head, Recipe
from psysim.rng import Keys, Purpose, uniform
from psysim.stimuli import LabelledStimulus
from psysim.stimuli import registry as stimuli

__all__ = ["SPLITS", "Examples", "TrainingExamples"]

SPLITS = ("training", "validation", "test")

#: Experiments never have so many observers: no training sound is ever one of an experiment with the same seed.
OBSERVER = 255


@dataclass(frozen=True)
class Examples:
    """Sounds with what is to be said of them.

    Attributes
    ----------
    sounds : Tensor (B, n_samples)
        Pascal, float32.
    classes : dict of str to Tensor (B,)
        Class of each sound for each head; -1 where a sound has none.
    positions : dict of str to Tensor (B,)
        For heads of kind "value": where the value lies between the lowest (0) and the highest (1), on its scale.
    keys : Keys (B,)
        Names of the random numbers of spikes and dropout.
    """

    sounds: Tensor
    classes: dict[str, Tensor]
    positions: dict[str, Tensor]
    keys: Keys


class TrainingExamples:
    """Sounds by number: each is a pure function of the recipe, the split and its number.

    Parameters
    ----------
    recipe : Recipe
    device : str
        Where they are made.

    Examples
    --------
    >>> from psysim.evaluation.recipe import loads_recipe
    >>> recipe = loads_recipe('''title = "Tones"
    ... layers = [{ type = "flatten" }]
    ... [stimulus]
    ... kind = "tone"
    ... duration_s = 0.05
    ... [vary]
    ... frequency_hz = { low = 500.0, high = 2000.0, scale = "log" }
    ... [heads.frequency]
    ... kind = "value"
    ... parameter = "frequency_hz"
    ... n_classes = 4
    ... ''')
    >>> examples = TrainingExamples(recipe).make("training", torch.arange(8))
    >>> examples.sounds.shape, {name: labels.shape for name, labels in examples.classes.items()}
    (torch.Size([8, 1000]), {'frequency': torch.Size([8])})
    """

    def __init__(self, recipe: Recipe, device: str = "cpu") -> None:
        self.recipe = recipe
        self.device = device
        self._stimulus = stimuli.get(recipe.kind)()
        self._tracks = next((head.tracks for head in recipe.heads.values() if head.kind == "present"), None)

    def make(self, split: str, number: Tensor) -> Examples:
        """Return the sounds ``number`` (B,), from 0, of a split: "training", "validation" or "test"."""
        keys = Keys.make(
            self.recipe.training.seed,
            condition=SPLITS.index(split),
            observer=OBSERVER,
            track=number,
            device=self.device,
        )
        values, shared = self._draw(keys)
        present = self._presence(keys, values)
        rows_of: dict[tuple[Any, ...], list[int]] = {}
        for row, key in enumerate(zip(*shared.values(), strict=True) if shared else [()] * len(number)):
            rows_of.setdefault(key, []).append(row)
        sounds = torch.zeros(len(number), self.recipe.n_samples, device=self.device)
        classes = {name: torch.full((len(number),), -1, device=self.device) for name in self.recipe.heads}
        positions: dict[str, Tensor] = {}
        for options, members in rows_of.items():
            rows = torch.tensor(members, device=self.device)
            parameters = {**self.recipe.stimulus, **dict(zip(shared, options, strict=True))}
            parameters |= {name: value[rows] for name, value in values.items()}
            made = self._stimulus.generate(parameters, keys[rows], self.recipe.fs)
            sounds[rows, : made.shape[1]] = made
            for name, head in self.recipe.heads.items():
                if head.kind == "value":
                    where = self.recipe.vary[str(head.parameter)].position(parameters[str(head.parameter)])
                    positions.setdefault(name, torch.zeros_like(keys.track, dtype=torch.float64))[rows] = where
                else:
                    classes[name][rows] = self._classes(head, parameters, keys[rows], present[rows])
        for name, where in positions.items():
            n = self.recipe.heads[name].n_classes or 0
            classes[name] = (where * n).floor().clamp(0, n - 1).to(torch.int64)
        return Examples(sounds, classes, positions, keys)

    def _draw(self, keys: Keys) -> tuple[dict[str, Tensor], dict[str, list[Any]]]:
        """Return the varied parameters: numbers (B,), and options, a list each."""
        vary = self.recipe.vary
        draws = uniform(keys, Purpose.TRAINING, len(vary) + 1)
        values: dict[str, Tensor] = {}
        options: dict[str, list[Any]] = {}
        for k, (name, varied) in enumerate(vary.items(), start=1):
            draw = draws[:, k]
            if varied.choices is not None:
                which = (draw * len(varied.choices)).to(torch.int64)
                if varied.is_text:
                    options[name] = [varied.choices[i] for i in which.tolist()]
                else:
                    numbers = cast(list[float], varied.choices)
                    values[name] = torch.tensor(numbers, dtype=torch.float64, device=self.device)[which]
            elif varied.scale == "log":
                values[name] = varied.low * (varied.high / varied.low) ** draw  # type: ignore[operator]
            else:
                values[name] = varied.low + (varied.high - varied.low) * draw  # type: ignore[operator]
        return values, options

    def _presence(self, keys: Keys, values: dict[str, Tensor]) -> Tensor:
        """Return which sounds (B,) have the target, half of them; take it out of the others (in place)."""
        if self._tracks is None:
            return torch.ones(keys.shape, dtype=torch.bool, device=self.device)
        present = uniform(keys, Purpose.TRAINING, 1)[:, 0] < 0.5
        tracked = self._stimulus.tracked[self._tracks]
        changed = dict(tracked.reference_also)
        if tracked.reference is not None:
            changed[self._tracks] = tracked.reference
        for name, absent in changed.items():
            own = values.get(name, torch.as_tensor(self.recipe.stimulus.get(name, 0.0), dtype=torch.float64))
            values[name] = torch.where(present, own.to(self.device), absent)
        return present

    def _classes(self, head: Head, parameters: dict[str, Any], keys: Keys, present: Tensor) -> Tensor:
        if head.kind == "present":
            return present.to(torch.int64)
        assert head.place is not None
        return cast(LabelledStimulus, self._stimulus).labels(parameters, keys)[:, head.place - 1]
