"""The interface of an observer: sounds in, a decision out.

An observer is an auditory model, a decision stage and internal noise. The engine hands it whole batches of trials
and knows only this interface.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import pydantic
import torch
from torch import Tensor

from psysim.errors import SpecError
from psysim.observers.expectation import DecisionSamples, forced_choice, yes_no
from psysim.registry import Registry
from psysim.rng import Keys, Purpose, normal, uniform

if TYPE_CHECKING:
    from psysim.models.base import Model
    from psysim.procedures.tasks import Task

__all__ = ["Observer", "ObserverSettings", "Response", "TrainingSounds", "Trial", "number_or", "register", "registry"]

registry: Registry[type[Observer]] = Registry(
    "observer",
    "psysim.observers",
    tuple(
        f"psysim.observers.{name}"
        for name in (
            "simulated",
            "optimal_detector",
            "casp",
            "king2019",
            "two_templates",
            "decision_variable",
            "loudness",
            "network",
            "binaural",
        )
    ),
)
register = registry.register


class ObserverSettings(pydantic.BaseModel):
    """Settings that an experiment file may give to an observer; each decision stage adds its own."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


def number_or(word: str, *, positive: bool = False) -> pydantic.BeforeValidator:
    """Return the check of a setting that is a word or a number: at least 0, or above 0 with ``positive``."""

    def check(value: object) -> object:
        if value == word:
            return value
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not number or not (value > 0 if positive else value >= 0):  # type: ignore[operator]
            raise ValueError(f"should be a number {'above' if positive else 'of at least'} 0, or '{word}'")
        return value

    return pydantic.BeforeValidator(check)


class TrainingSounds(Protocol):
    """What an observer may listen to before the experiment: labelled examples of every condition.

    Attributes
    ----------
    n_conditions : int
    fs : float
        Sampling rate in Hz.
    start_level : float
        Level at which tracks start: the supra-threshold default.
    frozen : bool
        Whether all intervals of the experiment use one noise token.
    n_intervals : int
        Intervals per trial.
    target_proportion : float
        Proportion correct at which the tracks settle.
    """

    n_conditions: int
    fs: float
    start_level: float
    frozen: bool
    n_intervals: int
    target_proportion: float

    def target(self, condition: Tensor, token: Tensor, level: float) -> Tensor:
        """Return target sounds (K, T) in pascal for condition (K,) and training token (K,) at ``level``."""

    def reference(self, condition: Tensor, token: Tensor) -> Tensor:
        """Return reference sounds (K, T) in pascal for condition (K,) and training token (K,)."""


@dataclass(frozen=True)
class Trial:
    """A batch of trials, one row per lane.

    Attributes
    ----------
    intervals : Tensor (B, I, T) or None
        Sounds in pascal in the order of presentation; None for observers with ``needs_sound = False``.
    condition : Tensor (B,)
        Index of each row's condition.
    level : Tensor (B,)
        Value of the tracked variable. Only simulated listeners may use it.
    target : Tensor (B,)
        Position of the target interval, -2 if there is none. Only simulated listeners may use it, and a decision rule
        that gives the probability of a correct answer in place of an answer (`Casp`).
    keys : Keys (B, I)
        Random-number keys of the intervals.
    task : Task
        What is asked.
    place : Tensor (B,) or None
        Place of the label that is asked for, from 0; None unless the task is to identify a label.
    """

    intervals: Tensor | None
    condition: Tensor
    level: Tensor
    target: Tensor
    keys: Keys
    task: Task
    place: Tensor | None = None


@dataclass(frozen=True)
class Response:
    """Answers to a batch of trials.

    Attributes
    ----------
    choice : Tensor (B,)
        Chosen interval; in a one-interval (yes/no) task 1 means "yes, the target was there" and 0 means "no"; in an
        identification the number of the label.
    decision_variable : Tensor (B, I)
        The numbers that were compared, internal noise included.
    """

    choice: Tensor
    decision_variable: Tensor


class Observer(ABC):
    """Decision stage on a model's internal representation.

    Parameters
    ----------
    settings : ObserverSettings
        An instance of the class's own ``Settings``.
    model : Model or None
        The auditory model; None where ``needs_model`` is False.
    """

    Settings: ClassVar[type[ObserverSettings]] = ObserverSettings
    needs_model: ClassVar[bool] = True
    needs_sound: ClassVar[bool] = True
    two_ears: ClassVar[bool] = False
    """Whether it hears sounds for two ears, (B, I, 2, T)."""
    identifies: ClassVar[bool] = False
    """Whether it can name labels of a sound, as words (task "identification")."""
    description: ClassVar[str] = ""

    def __init__(self, settings: ObserverSettings, model: Model | None = None) -> None:
        self.settings = settings
        self.model = model

    @property
    def calibration(self) -> dict[str, Any]:
        """How the internal noise was set, as JSON-able facts for the result's provenance."""
        return {"status": "not calibrated"}

    def calibrate(self) -> None:
        """Set the internal noise; called once before `prepare`. Nothing to do by default."""

    def prepare(self, training: TrainingSounds) -> None:
        """Build templates or references for all conditions; nothing to do by default.

        Parameters
        ----------
        training : TrainingSounds
            Labelled example sounds of every condition.
        """

    @abstractmethod
    def decision_variable(self, intervals: Tensor, condition: Tensor) -> Tensor:
        """Return one number per interval, higher meaning more target-like, without internal noise.

        Parameters
        ----------
        intervals : Tensor (B, I, T)
            Sounds in pascal.
        condition : Tensor (B,)
            Index of each row's condition.

        Returns
        -------
        Tensor (B, I)
            Differentiable with respect to ``intervals``.
        """

    def noise_std(self, condition: Tensor) -> Tensor:
        """Return the standard deviation of the internal noise on the decision variable, (B,); 0 by default."""
        return torch.zeros(condition.shape, dtype=torch.float64, device=condition.device)

    def evaluate(self, intervals: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Return the decision variable and the standard deviation of its internal noise for every interval.

        An observer whose noise depends on the sound overrides this in place of `noise_std`.

        Parameters
        ----------
        intervals : Tensor (B, I, T)
            Sounds in pascal.
        condition : Tensor (B,)
            Index of each row's condition.

        Returns
        -------
        values, std : Tensor (B, I)
            float64.
        """
        values = self.decision_variable(intervals, condition).to(torch.float64)
        return values, self.noise_std(condition)[:, None].expand_as(values)

    def criterion(self, condition: Tensor) -> Tensor:
        """Return the decision variable above which a one-interval task is answered "yes", (B,); 0 by default."""
        return torch.zeros(condition.shape, dtype=torch.float64, device=condition.device)

    def proportion_correct(self, samples: DecisionSamples, task: Task) -> tuple[Tensor, Tensor]:
        """Return the expected proportion correct from the decision variables of sound tokens, no answers drawn.

        It belongs to the rule of `respond`: an observer that overrides one overrides the other.

        Parameters
        ----------
        samples : DecisionSamples
            Of one condition.
        task : Task

        Returns
        -------
        proportion : Tensor ()
        without : Tensor (K,)
            The same without one of the K tokens, for the jackknife.

        Raises
        ------
        SpecError
            If the observer decides in its own way and does not say what follows from it.
        """
        if type(self).respond is not Observer.respond:
            raise SpecError(
                f"{type(self).__name__} decides in its own way (respond) and does not state its expected proportion "
                "correct: run adaptive tracks, or give it the method proportion_correct."
            )
        return self._largest_wins(samples, task)

    @staticmethod
    def _largest_wins(samples: DecisionSamples, task: Task) -> tuple[Tensor, Tensor]:
        if task.identifies:
            raise SpecError("The proportion of labels named correctly cannot be predicted: run adaptive tracks.")
        if task.n_intervals == 1:
            return yes_no(samples, float(getattr(task, "p_target", 0.5)))
        return forced_choice(samples, task.n_alternatives)

    def respond(self, trial: Trial) -> Response:
        """Answer a batch of trials: decision variable plus internal noise, then the largest interval wins.

        Ties are broken at random. In a one-interval task the answer is "yes" above `criterion`. A standard before the
        alternatives is heard, but never chosen.
        """
        assert trial.intervals is not None
        with torch.no_grad():
            values, std = self.evaluate(trial.intervals, trial.condition)
        if bool((std > 0).any()):
            values = values + std * normal(trial.keys, Purpose.INTERNAL_NOISE, 1)[..., 0]
        first = trial.task.first_alternative
        choice = choose(values[:, first:], trial.keys[:, first:], self.criterion(trial.condition))
        return Response(first + choice, values)


def choose(values: Tensor, keys: Keys, criterion: Tensor) -> Tensor:
    """Return the index of the largest value of each row, ties broken at random; one-interval rows against a criterion.

    Parameters
    ----------
    values : Tensor (B, I)
    keys : Keys (B, I)
    criterion : Tensor (B,)

    Returns
    -------
    Tensor (B,) of int64
    """
    if values.shape[1] == 1:
        return (values[:, 0] > criterion).to(torch.int64)
    best = values == values.max(dim=1, keepdim=True).values
    if not bool((best.sum(dim=1) > 1).any()):
        return best.to(torch.int8).argmax(dim=1)
    tie = uniform(keys, Purpose.TIE, 1)[..., 0]
    return torch.where(best, tie, -1.0).argmax(dim=1)
