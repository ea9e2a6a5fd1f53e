"""PEST: parameter estimation by sequential testing (Taylor and Creelman, 1967)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from psysim.procedures.base import BoolArray, FloatArray, TrackState, register
from psysim.procedures.level_rule import Estimate, LevelRule, LevelRuleSettings, LevelState, Step

__all__ = ["Pest", "PestState"]

ROUNDING = 1e-9
"""Answers: the bounds of the sequential test are reached within this (0.7 times 10 is not exactly 7)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PestState(LevelState):
    """State of `Pest`.

    Parameters
    ----------
    step : ndarray, shape (B,), float64
        Size of the last step, on the axis of the rule; of the first one before there was any.
    direction : ndarray, shape (B,), int8
        Direction of the last step: 1 rising, -1 falling levels, 0 before the first.
    n_steps : ndarray, shape (B,), int32
        Steps in a row in this direction.
    doubled, doubled_before : ndarray, shape (B,), bool
        Whether the last step was doubled; whether the step that led to the last reversal was.
    n_here, n_correct : ndarray, shape (B,), int32
        Trials and correct answers since the last step.
    """

    step: FloatArray
    direction: NDArray[np.int8]
    n_steps: NDArray[np.int32]
    doubled: BoolArray
    doubled_before: BoolArray
    n_here: NDArray[np.int32]
    n_correct: NDArray[np.int32]


@register("pest")
class Pest(LevelRule):
    """PEST: the level stays until a sequential test says that the proportion correct is not the target.

    After each trial the correct answers at the present level are compared with the number expected at the target,
    ``target_proportion`` times the trials there. If they are more by ``deviation_limit``, the level goes towards
    harder; if they are fewer by as much, towards easier (the test of Wald, 1947). The size of the step follows four
    rules (Taylor and Creelman, 1967):

    1. A step in the other direction than the last (a reversal) is half as large.
    2. The second step in a direction is as large as the first.
    3. The fourth and all later steps in a direction are each double the one before, up to ``step_max``.
    4. The third step is double the second, unless the step that led to the last reversal had been doubled.

    The track ends when a step of ``step_min`` or less is called for. The threshold is the level that this step leads
    to. It has no standard error from within the track.

    Parameters
    ----------
    **settings
        See ``Pest.Settings``; ``level_start``, ``step_start`` and ``step_min`` are required.

    References
    ----------
    Taylor, M. M., and Creelman, C. D. (1967). PEST: Efficient estimates on probability functions. J. Acoust. Soc. Am.
    41, 782-787.
    Wald, A. (1947). Sequential Analysis. Wiley, New York.

    Examples
    --------
    Four correct answers are one more than three, which is expected at 75 %; so are two wrong ones below 1.5.

    >>> import numpy as np
    >>> rule = Pest(level_start=0.0, step_start=8.0, step_min=1.0)
    >>> state = rule.init(2)
    >>> for trial in range(4):
    ...     state = rule.record(state, np.array([True, trial >= 2]))
    >>> rule.next_level(state)
    array([-8.,  8.])
    """

    State: ClassVar[type[TrackState]] = PestState
    description: ClassVar[str] = "PEST (Taylor and Creelman, 1967)"
    example_settings: ClassVar[dict[str, Any]] = {
        "level_start": -4.0,
        "level_min": -60.0,
        "level_max": 0.0,
        "step_start": 8.0,
        "step_min": 1.0,
        "step_max": 16.0,
    }

    class Settings(LevelRuleSettings):
        """Settings of `Pest`."""

        target_proportion: float = Field(default=0.75, gt=0, lt=1, description="proportion correct that is sought")
        step_start: float = Field(gt=0, allow_inf_nan=False, description="size of the first step")
        step_min: float = Field(
            gt=0, allow_inf_nan=False, description="the track ends when a step of this size or smaller is called for"
        )
        step_max: float | None = Field(
            default=None, gt=0, allow_inf_nan=False, description="largest step; if not given, twice step_start"
        )
        deviation_limit: float = Field(
            default=1.0,
            gt=0,
            allow_inf_nan=False,
            description="difference between correct answers and their expected number that moves the level (W)",
        )

        def _own_problems(self) -> Iterator[str]:
            if self.step_min >= self.step_start:
                yield (
                    f"step_min = {self.step_min:g} is not smaller than step_start = {self.step_start:g}: the first "
                    "step would end the track. Choose a smaller one."
                )
            if self.step_max is not None and self.step_max < self.step_start:
                yield (
                    f"step_max = {self.step_max:g} is smaller than step_start = {self.step_start:g}: choose "
                    f"{self.step_start:g} or more, or leave it out."
                )

    @property
    def _pest(self) -> Pest.Settings:
        return cast(Pest.Settings, self.settings)

    @property
    def target_proportion(self) -> float:
        """Proportion correct that is sought."""
        return self._pest.target_proportion

    @property
    def smallest_step(self) -> float:
        """The step that ends a track."""
        return self._pest.step_min

    @property
    def step_max(self) -> float:
        """The largest step."""
        s = self._pest
        return 2.0 * s.step_start if s.step_max is None else s.step_max

    def _fresh(self, n_lanes: int, level: FloatArray) -> dict[str, NDArray[Any]]:
        return {
            "step": np.full(n_lanes, self._pest.step_start),
            "direction": np.zeros(n_lanes, np.int8),
            "n_steps": np.zeros(n_lanes, np.int32),
            "doubled": np.zeros(n_lanes, np.bool_),
            "doubled_before": np.zeros(n_lanes, np.bool_),
            "n_here": np.zeros(n_lanes, np.int32),
            "n_correct": np.zeros(n_lanes, np.int32),
        }

    def _trial(self, state: PestState, x: FloatArray, right: BoolArray) -> Step:
        s = self._pest
        n_here, n_correct = state.n_here + 1, state.n_correct + right
        surplus = n_correct - s.target_proportion * n_here
        too_easy = surplus >= s.deviation_limit - ROUNDING
        moving = too_easy | (surplus <= ROUNDING - s.deviation_limit)
        wanted = np.where(too_easy, s.harder, -s.harder).astype(np.int8)

        first = state.direction == 0
        reversal = moving & ~first & (wanted != state.direction)
        n_steps = np.where(reversal | first, 1, state.n_steps + 1)
        doubled = ~reversal & ((n_steps >= 4) | ((n_steps == 3) & ~state.doubled_before))
        size = np.where(doubled, np.minimum(2.0 * state.step, self.step_max), state.step)
        size = np.where(reversal, 0.5 * state.step, size)
        stopped = moving & (size <= s.step_min)
        return Step(
            target=np.where(moving, x + wanted * size, x),
            reversal=reversal,
            stopped=stopped,
            usable=state.n_reversals + reversal > 0,
            arrays={
                "step": np.where(moving, size, state.step),
                "direction": np.where(moving, wanted, state.direction),
                "n_steps": np.where(moving, n_steps, state.n_steps),
                "doubled": np.where(moving, doubled, state.doubled),
                "doubled_before": np.where(reversal, state.doubled, state.doubled_before),
                "n_here": np.where(moving, 0, n_here),
                "n_correct": np.where(moving, 0, n_correct),
            },
        )

    def _estimate(self, state: PestState) -> Estimate:
        """Return the level the last step leads to; none if the trials ran out before a step was small enough."""
        ended = state.step <= self._pest.step_min
        return Estimate(self.to_axis(state.level), np.full(len(state), np.nan), ended.astype(np.int32))

    def describe(self) -> str:
        """Return the rule in sentences for the Methods section of a paper."""
        s = self._pest
        return (
            f"PEST (Taylor and Creelman, 1967) tracked {100 * s.target_proportion:.1f} % correct with a deviation "
            f"limit of {s.deviation_limit:g}. The first step was {s.step_start:g}{self.unit}, the largest "
            f"{self.step_max:g}. {s.describe_start()} They ended when a step of {s.step_min:g} or less was called for, "
            f"or at {s.max_trials} trials. The threshold is the level that this last step led to."
        )
