"""Tasks in which intervals are compared with each other: same-different, ABX, oddity, and matching."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal, cast

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from psysim.errors import SpecError
from psysim.procedures.sdt_comparison import (
    criterion_same_different,
    d_prime_abx,
    d_prime_oddity,
    d_prime_same_different,
    proportion_correct_abx,
    proportion_correct_oddity,
    proportion_correct_same_different,
)
from psysim.procedures.tasks import BoolArray, ChoiceTask, FloatArray, IntArray, Task, TaskSettings, register

__all__ = ["ABX", "ComparisonTask", "Matching", "Oddity", "SameDifferent"]


class ComparisonTask(Task):
    """A task whose trials differ in where each of two sounds is heard.

    The target code of a trial counts the rows of `arrangements`; all are equally likely.
    """

    in_experiments: ClassVar[bool] = False
    arrangements: ClassVar[tuple[tuple[int, ...], ...]]
    """For each target code, which sound each interval has: 0 the reference, 1 the target."""
    answers: ClassVar[tuple[int, ...]]
    """For each target code, the correct response."""

    @property
    def n_intervals(self) -> int:
        """Sounds per trial."""
        return len(self.arrangements[0])

    @property
    def n_responses(self) -> int:
        """Number of answers, coded from 0."""
        return max(self.answers) + 1

    @property
    def chance_level(self) -> float:
        """Proportion correct of an unbiased listener who hears nothing."""
        return 1.0 / self.n_responses

    def has_target(self, target: ArrayLike) -> BoolArray:
        """Return which intervals have the target sound, shape (B, n_intervals).

        Parameters
        ----------
        target : array_like of int, shape (B,)
            Target codes, as `draw_target` gives them.
        """
        return np.asarray(self.arrangements, dtype=np.bool_)[np.asarray(target, dtype=np.int64)]

    def decide(self, observations: ArrayLike, d_prime: float | None = None) -> IntArray:
        """Return the responses of a listener who uses only differences between intervals, shape (B,).

        Parameters
        ----------
        observations : array_like, shape (B, n_intervals)
            Decision variable of each interval.
        d_prime : float, optional
            Where the best criterion depends on it (same-different): the distance of the two sounds in standard
            deviations; observations are then in this unit.

        Raises
        ------
        SpecError
            If the shape does not fit the task, or ``d_prime`` is needed.
        """
        x = np.asarray(observations, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != self.n_intervals:
            raise SpecError(f"observations must have shape (B, {self.n_intervals}) in this task, not {x.shape}.")
        return self._decide(x, d_prime)

    @abstractmethod
    def _decide(self, x: FloatArray, d_prime: float | None) -> IntArray:
        """Return the responses (B,) to checked observations (B, n_intervals)."""

    def correct(self, response: ArrayLike, target: ArrayLike) -> BoolArray:
        """Return whether each answer is correct, shape (B,); a response that is none of the answers is not."""
        right = np.asarray(self.answers)[np.asarray(target, dtype=np.int64)]
        return np.asarray(np.asarray(response) == right)

    def valid(self, response: ArrayLike) -> BoolArray:
        """Return whether each response is one of the answers, shape (B,)."""
        return np.isin(np.asarray(response), np.arange(self.n_responses))

    def draw_target(self, uniform: ArrayLike) -> IntArray:
        """Return target codes, all equally likely, shape (B,)."""
        return (np.asarray(uniform) * len(self.arrangements)).astype(np.int64)

    def answer(self, correct: ArrayLike, target: ArrayLike, uniform: ArrayLike) -> IntArray:
        """Return the correct response or one of the others, all equally likely, shape (B,)."""
        right = np.asarray(self.answers)[np.asarray(target, dtype=np.int64)]
        shift = 1 + (np.asarray(uniform) * (self.n_responses - 1)).astype(np.int64)
        return np.where(correct, right, (right + shift) % self.n_responses)


class _RuleSettings(TaskSettings):
    rule: Literal["differencing", "independent_observation"] = Field(
        default="differencing",
        description="how the listener decides, for d': from differences between intervals, as when levels rove, or "
        "from each interval on its own, both sounds being known",
    )


class _WithRule(ComparisonTask):
    Settings = _RuleSettings

    @property
    def rule(self) -> Literal["differencing", "independent_observation"]:
        """How the listener decides, for d'."""
        return cast(_RuleSettings, self.settings).rule


@register("same_different")
class SameDifferent(_WithRule):
    """Same or different: two intervals; response 1 is "different", 0 is "same".

    Parameters
    ----------
    **settings
        ``rule`` : {"differencing", "independent_observation"}, for d'; see `proportion_correct_same_different`.

    Examples
    --------
    >>> task = SameDifferent()
    >>> task.has_target([0, 3]).tolist(), task.correct([0, 0], target=[0, 3]).tolist()
    ([[False, False], [True, False]], [True, False])
    """

    description: ClassVar[str] = "same or different, two intervals"
    arrangements = ((0, 0), (1, 1), (0, 1), (1, 0))
    answers = (0, 0, 1, 1)

    def _decide(self, x: FloatArray, d_prime: float | None) -> IntArray:
        if d_prime is None:
            raise SpecError('same_different: the best criterion for "different" depends on d_prime: give it.')
        return (np.abs(x[:, 0] - x[:, 1]) > criterion_same_different(d_prime)).astype(np.int64)

    def proportion_correct(self, d_prime: ArrayLike) -> FloatArray:
        """Return the proportion correct at d'; see `proportion_correct_same_different`."""
        return proportion_correct_same_different(d_prime, self.rule)

    def d_prime(self, proportion_correct: ArrayLike) -> FloatArray:
        """Return d' from the proportion correct; see `d_prime_same_different`."""
        return d_prime_same_different(proportion_correct, self.rule)


@register("abx")
class ABX(_WithRule):
    """ABX: two different sounds in either order, then one of them again; response 0 is "the first", 1 "the second".

    Parameters
    ----------
    **settings
        ``rule`` : {"differencing", "independent_observation"}, for d'; see `proportion_correct_abx`.

    Examples
    --------
    >>> task = ABX()
    >>> task.has_target([1]).tolist(), task.correct([1], target=[1]).tolist()
    ([[False, True, True]], [True])
    """

    description: ClassVar[str] = "is the third sound the first or the second?"
    arrangements = ((0, 1, 0), (0, 1, 1), (1, 0, 1), (1, 0, 0))
    answers = (0, 1, 0, 1)

    def _decide(self, x: FloatArray, d_prime: float | None) -> IntArray:
        return (np.abs(x[:, 2] - x[:, 1]) < np.abs(x[:, 2] - x[:, 0])).astype(np.int64)

    def proportion_correct(self, d_prime: ArrayLike) -> FloatArray:
        """Return the proportion correct at d'; see `proportion_correct_abx`."""
        return proportion_correct_abx(d_prime, self.rule)

    def d_prime(self, proportion_correct: ArrayLike) -> FloatArray:
        """Return d' from the proportion correct; see `d_prime_abx`."""
        return d_prime_abx(proportion_correct, self.rule)


@register("oddity")
class Oddity(_WithRule):
    """Oddity, or triangle: which of three intervals differs from the two others? Either sound may be the odd one.

    Where the listener knows that the target is the odd one, the task is `AFC`.

    Parameters
    ----------
    **settings
        ``rule`` : {"differencing", "independent_observation"}, for d'; see `proportion_correct_oddity`.

    Examples
    --------
    >>> task = Oddity()
    >>> task.has_target([1, 4]).tolist(), task.correct([1, 1], target=[1, 4]).tolist()
    ([[False, True, False], [True, False, True]], [True, True])
    >>> float(task.d_prime(0.6048).round(2))
    2.0
    """

    description: ClassVar[str] = "which of three intervals is the odd one? Target and reference both may be"
    arrangements = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1), (1, 0, 1), (1, 1, 0))
    answers = (0, 1, 2, 0, 1, 2)

    def _decide(self, x: FloatArray, d_prime: float | None) -> IntArray:
        return np.abs(x - x.mean(axis=1, keepdims=True)).argmax(axis=1).astype(np.int64)

    def proportion_correct(self, d_prime: ArrayLike) -> FloatArray:
        """Return the proportion correct at d'; see `proportion_correct_oddity`."""
        return proportion_correct_oddity(d_prime, self.rule)

    def d_prime(self, proportion_correct: ArrayLike) -> FloatArray:
        """Return d' from the proportion correct; see `d_prime_oddity`."""
        return d_prime_oddity(proportion_correct, self.rule)


class _MatchingSettings(TaskSettings):
    standard: Literal["first", "random"] = Field(
        default="random", description="where the standard is heard: always first, or in random order"
    )


@register("matching")
class Matching(ChoiceTask):
    """Matching: whether the variable sound or the standard is louder (higher, longer).

    Target and response are interval numbers: that of the variable sound, and that of the sound judged to be more.
    Nothing is correct here. What a rule counts as correct is that the variable sound was chosen: at the point of
    subjective equality that happens in half of the trials, so a rule with a target of 0.5 (1-up 1-down) settles there.
    The proportion goes from 0 to 1, with no guessing.

    Parameters
    ----------
    **settings
        ``standard`` : {"first", "random"}, default "random".

    Examples
    --------
    >>> task = Matching(standard="first")
    >>> task.draw_target([0.1, 0.9]).tolist(), task.correct([1, 0], target=[1, 1]).tolist(), task.chance_level
    ([1, 1], [True, False], 0.0)
    """

    description: ClassVar[str] = "matching of a variable sound to a standard: point of subjective equality"
    has_standard: ClassVar[bool] = True
    Settings = _MatchingSettings
    n_intervals = 2
    chance_level = 0.0

    def draw_target(self, uniform: ArrayLike) -> IntArray:
        """Return the interval of the variable sound, 1 after a standard in the first, shape (B,)."""
        if cast(_MatchingSettings, self.settings).standard == "first":
            return np.ones(np.shape(uniform), np.int64)
        return super().draw_target(uniform)
