"""Tasks: what is asked in a trial, when an answer is correct, and what chance gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Literal, Self, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from psysim.errors import SpecError
from psysim.procedures.base import settings_message
from psysim.procedures.sdt import (
    M_GAUSS,
    d_prime_mafc,
    d_prime_yes_no,
    proportion_correct_mafc,
    proportion_correct_yes_no,
)
from psysim.registry import Registry

__all__ = ["AFC", "NO_TARGET", "ChoiceTask", "Task", "TaskSettings", "YesNo", "register", "registry"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

NO_TARGET = -2
"""Code of a yes/no trial without target, where a forced-choice trial has the number of the target interval."""


class TaskSettings(BaseModel):
    """Settings of a task: the ``[task]`` table of an experiment file, less ``kind``."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Task(ABC):
    """What is asked in a trial; arrays are over lanes, shape (B,).

    Parameters
    ----------
    **settings
        The fields of the class's `Settings`.

    Raises
    ------
    SpecError
        If a setting is unknown, missing or out of range.
    """

    Settings: ClassVar[type[TaskSettings]]
    description: ClassVar[str]
    in_experiments: ClassVar[bool] = True
    """Whether experiments can present it: one target among references, or one interval with or without it."""
    identifies: ClassVar[bool] = False
    """Whether the answer is a label of the sound, as a word, and not an interval."""
    has_standard: ClassVar[bool] = False
    """Whether the target is compared with a standard of its own parameters, the ``[standard]`` of an experiment."""

    def __init__(self, **settings: Any) -> None:
        try:
            self.settings = self.Settings(**settings)
        except ValidationError as error:
            raise SpecError(settings_message(error, self.Settings, "task")) from None

    @property
    @abstractmethod
    def n_intervals(self) -> int:
        """Sounds per trial."""

    @property
    def first_alternative(self) -> int:
        """Number of the first interval that can be an answer; those before it are known references."""
        return 0

    @property
    def n_alternatives(self) -> int:
        """Number of intervals that can be the answer; 1 in tasks with one interval."""
        return self.n_intervals - self.first_alternative

    @property
    @abstractmethod
    def chance_level(self) -> float:
        """Proportion correct of an unbiased listener who hears nothing."""

    @abstractmethod
    def correct(self, response: ArrayLike, target: ArrayLike) -> BoolArray:
        """Return whether each answer is correct, shape (B,); a response that is none of the answers is not."""

    @abstractmethod
    def valid(self, response: ArrayLike) -> BoolArray:
        """Return whether each response is one of the answers the task offers, shape (B,)."""

    @abstractmethod
    def draw_target(self, uniform: ArrayLike) -> IntArray:
        """Return the target codes that numbers uniform in [0, 1) stand for, shape (B,)."""

    @abstractmethod
    def answer(self, correct: ArrayLike, target: ArrayLike, uniform: ArrayLike) -> IntArray:
        """Return responses that are correct or wrong as given, shape (B,).

        Parameters
        ----------
        correct : array_like of bool
            Whether the response shall be correct.
        target : array_like of int
            Target codes.
        uniform : array_like
            Numbers uniform in [0, 1) that choose among the wrong answers.
        """

    @abstractmethod
    def proportion_correct(self, d_prime: ArrayLike) -> FloatArray:
        """Return the proportion correct of an unbiased listener of sensitivity d'."""

    @abstractmethod
    def d_prime(self, proportion_correct: ArrayLike) -> FloatArray:
        """Return the sensitivity d' of an unbiased listener with this proportion correct."""


registry: Registry[type[Task]] = Registry(
    "task",
    "psysim.tasks",
    ("psysim.procedures.tasks", "psysim.procedures.tasks_comparison", "psysim.procedures.tasks_closed_set"),
)

TaskT = TypeVar("TaskT", bound=Task)


def register(name: str) -> Callable[[type[TaskT]], type[TaskT]]:
    """Return a class decorator that makes a task known under ``name`` (``[task] kind = name``)."""

    def add(cls: type[TaskT]) -> type[TaskT]:
        registry.register(name)(cls)
        return cls

    return add


class ChoiceTask(Task):
    """A task in which one of several equally likely alternatives is correct; target and response are their numbers."""

    @property
    def chance_level(self) -> float:
        """Proportion correct of a listener who hears nothing."""
        return 1.0 / self.n_alternatives

    def correct(self, response: ArrayLike, target: ArrayLike) -> BoolArray:
        """Return whether the target was chosen, shape (B,)."""
        return np.asarray(np.asarray(response) == np.asarray(target)) & self.valid(response)

    def valid(self, response: ArrayLike) -> BoolArray:
        """Return whether each response is the number of an alternative, shape (B,)."""
        chosen = np.asarray(response)
        return np.asarray((chosen >= self.first_alternative) & (chosen < self.first_alternative + self.n_alternatives))

    def draw_target(self, uniform: ArrayLike) -> IntArray:
        """Return alternatives, all equally likely, shape (B,)."""
        return self.first_alternative + (np.asarray(uniform) * self.n_alternatives).astype(np.int64)

    def answer(self, correct: ArrayLike, target: ArrayLike, uniform: ArrayLike) -> IntArray:
        """Return the target or another alternative, all equally likely, shape (B,)."""
        first, n = self.first_alternative, self.n_alternatives
        place = np.asarray(target, dtype=np.int64)
        shift = 1 + (np.asarray(uniform) * (n - 1)).astype(np.int64)
        return np.where(correct, place, first + (place - first + shift) % n)

    def proportion_correct(self, d_prime: ArrayLike) -> FloatArray:
        """Return the proportion correct at d'; see `sdt.proportion_correct_mafc`."""
        return proportion_correct_mafc(d_prime, self.n_alternatives)

    def d_prime(self, proportion_correct: ArrayLike) -> FloatArray:
        """Return d' from the proportion correct; see `sdt.d_prime_mafc`."""
        return d_prime_mafc(proportion_correct, self.n_alternatives)


class _AFCSettings(TaskSettings):
    n_intervals: int = Field(default=3, ge=2, le=M_GAUSS, description="number of intervals")
    standard: Literal["none", "first"] = Field(
        default="none",
        description="none: every interval may have the target. first: the first is always a reference, which the "
        "listener knows, and the target in one of the others",
    )

    @model_validator(mode="after")
    def _leaves_a_choice(self) -> Self:
        if self.standard == "first" and self.n_intervals < 3:
            raise ValueError(
                "n_intervals = 2 with standard = 'first' leaves one alternative: use 3 intervals (a standard and two "
                "alternatives), or the task 'matching' for a variable sound after a standard."
            )
        return self


@register("afc")
class AFC(ChoiceTask):
    """Forced choice: one of the intervals has the target; target and response are interval numbers from 0.

    Parameters
    ----------
    **settings
        ``n_intervals`` : int, 2 to 16, default 3.
        ``standard`` : {"none", "first"}, default "none". With "first" the first interval is a reference in every trial
        and no alternative: 3 intervals are a two-alternative task with a reminder. d' is that of a listener who makes
        no use of it.

    Examples
    --------
    >>> task = AFC(n_intervals=3)
    >>> task.correct([0, 2], target=[0, 1])
    array([ True, False])
    >>> float(task.d_prime(0.75).round(3)), AFC(n_intervals=3, standard="first").chance_level
    (1.434, 0.5)
    """

    description: ClassVar[str] = "forced choice among intervals"
    Settings = _AFCSettings

    @property
    def n_intervals(self) -> int:
        """Sounds per trial."""
        return cast(_AFCSettings, self.settings).n_intervals

    @property
    def first_alternative(self) -> int:
        """Number of the first interval that can have the target: 1 after a standard."""
        return int(cast(_AFCSettings, self.settings).standard == "first")


@register("yes_no")
class YesNo(Task):
    """Yes/no: one interval, with the target or without; response 1 is "yes", 0 is "no".

    The target code is 0 with a target and `NO_TARGET` (-2) without. Proportions correct and d' are those of an unbiased
    listener (criterion midway), for whom the proportion of targets does not matter; for a biased one use the hit and
    false-alarm rates with `sdt.d_prime_yes_no` and `sdt.criterion_yes_no`.

    Parameters
    ----------
    **settings
        ``p_target`` : float, above 0 and below 1, default 0.5.

    Examples
    --------
    >>> YesNo(p_target=0.5).correct(response=[1, 1, 0], target=[0, -2, -2])
    array([ True, False,  True])
    """

    description: ClassVar[str] = "yes/no detection in one interval"

    class Settings(TaskSettings):
        """Settings of `YesNo`."""

        p_target: float = Field(default=0.5, gt=0, lt=1, description="proportion of trials with a target")

    n_intervals = 1
    chance_level = 0.5

    @property
    def p_target(self) -> float:
        """Proportion of trials with a target."""
        return cast(YesNo.Settings, self.settings).p_target

    def correct(self, response: ArrayLike, target: ArrayLike) -> BoolArray:
        """Return whether "yes" was said with a target or "no" without, shape (B,)."""
        present = np.asarray(target) != NO_TARGET
        return np.asarray((np.asarray(response) == 1) == present) & self.valid(response)

    def valid(self, response: ArrayLike) -> BoolArray:
        """Return whether each response is 0 or 1, shape (B,)."""
        return np.isin(np.asarray(response), (0, 1))

    def draw_target(self, uniform: ArrayLike) -> IntArray:
        """Return 0 (target) with probability ``p_target``, else `NO_TARGET`, shape (B,)."""
        return np.where(np.asarray(uniform) < self.p_target, 0, NO_TARGET).astype(np.int64)

    def answer(self, correct: ArrayLike, target: ArrayLike, uniform: ArrayLike) -> IntArray:
        """Return "yes" (1) or "no" (0), correct or wrong as given, shape (B,)."""
        present = np.asarray(target) != NO_TARGET
        return np.where(correct, present, ~present).astype(np.int64)

    def proportion_correct(self, d_prime: ArrayLike) -> FloatArray:
        """Return Phi(d' / 2)."""
        return proportion_correct_yes_no(d_prime)

    def d_prime(self, proportion_correct: ArrayLike) -> FloatArray:
        """Return 2 z(proportion correct)."""
        pc = np.asarray(proportion_correct, dtype=np.float64)
        return d_prime_yes_no(pc, 1.0 - pc)
