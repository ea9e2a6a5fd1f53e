"""Settings shared by the up-down rules: fields, ranges, and the checks across fields."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain, pairwise
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from psysim.procedures.start import StartSettings

__all__ = ["StaircaseSettings"]

DEFAULT_N_REVERSALS = 8


class StaircaseSettings(StartSettings):
    """Settings of every rule that moves the level up and down in steps.

    "Harder" and "easier" are the directions of difficulty; "lower" and "upper" are meant numerically
    (an upper reversal turns from rising to falling levels).
    """

    steps: list[float] = Field(
        description="step sizes, largest first; the last one stays in force until the end. Steps towards harder; "
        "steps towards easier are the same unless the rule weights them"
    )
    step_change: Literal[
        "every_reversal", "every_second_reversal", "lower_reversal", "upper_reversal", "at_reversals"
    ] = Field(
        default="every_second_reversal",
        description="reversals that bring the next step size: every one; every second one (the 2nd, 4th, ...); those "
        "from falling to rising levels; those from rising to falling levels; or those numbered in step_change_at",
    )
    step_change_at: list[int] | None = Field(
        default=None,
        description="for step_change = at_reversals: numbers of the reversals (the first is 1) that bring the second, "
        "third, ... step size",
    )
    step_change_timing: Literal["before_move", "after_move"] = Field(
        default="before_move",
        description="before_move: the move away from the reversal has the new size already. after_move: it still has "
        "the old size",
    )
    stop: Literal["reversals", "trials", "reversals_and_trials", "reversals_or_trials"] = Field(
        default="reversals",
        description="what ends the track: n_reversals reached; n_trials reached; both reached; or one of them reached",
    )
    n_reversals: int | None = Field(
        default=None,
        ge=2,
        description="reversals at the smallest step that the stop rule asks for, if it does; 8 if not given",
    )
    n_trials: int | None = Field(default=None, ge=1, description="trials that the stop rule asks for, if it does")
    max_trials: int = Field(
        default=200, ge=1, le=2**23, description="a track that has not stopped by then ends with the status max_trials"
    )
    threshold_from: Literal["reversals_at_smallest_step", "last_n_reversals"] = Field(
        default="reversals_at_smallest_step",
        description="reversals that make the threshold: all those at the smallest step, or the last "
        "threshold_n_reversals of the track at whatever step",
    )
    threshold_n_reversals: int | None = Field(
        default=None, ge=2, description="for threshold_from = last_n_reversals: how many"
    )
    threshold_statistic: Literal["mean", "median"] = Field(
        default="mean", description="how the levels at the reversals are averaged"
    )
    upper_weight: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="if given, upper and lower reversals are averaged apart, and the threshold is upper_weight times "
        "the upper plus (1 - upper_weight) times the lower average; if not, all are averaged together",
    )
    even_reversals: bool = Field(
        default=True,
        description="average an even number of reversals: the earliest is left out if there is one too many",
    )
    reversals_at_limit: bool = Field(
        default=True,
        description="whether a change of direction counts as a reversal if a limit had shortened or refused a move "
        "since the change of direction before",
    )
    limit_trials: int = Field(
        default=10,
        ge=1,
        description="trials in a row (those that ask for no move left out) whose move a level limit shortened or "
        "refused, after which the track ends with the status at_floor or at_ceiling",
    )
    limit_moves: int = Field(
        default=5,
        ge=0,
        description="moves of the whole track that a level limit may shorten or refuse; with more, the limit and not "
        "the listener made the reversals, and the track ends with the status at_floor or at_ceiling, not converged",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """Give n_reversals its default where the stop rule counts reversals; elsewhere it stays empty."""
        if (
            isinstance(values, dict)
            and values.get("n_reversals") is None
            and "reversals" in str(values.get("stop", "reversals"))
        ):
            return {**values, "n_reversals": DEFAULT_N_REVERSALS}
        return values

    @field_validator("steps")
    @classmethod
    def _check_steps(cls, steps: list[float]) -> list[float]:
        if not steps:
            raise ValueError("must have at least one step size, for instance [4.0, 2.0, 1.0]")
        if not all(0 < step < math.inf for step in steps):
            raise ValueError("must have sizes above 0 only; the rule gives the direction")
        if any(later >= earlier for earlier, later in pairwise(steps)):
            raise ValueError(f"must be descending, the largest first: {sorted(set(steps), reverse=True)}")
        return steps

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        parts = (self._level_problems(), self._step_problems(), self._stop_problems(), self._threshold_problems())
        problems = list(chain.from_iterable(parts))
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _step_problems(self) -> Iterator[str]:
        if self.step_unit == "level" and self.steps[-1] >= self.level_max - self.level_min > 0:
            yield (
                f"steps = {self.steps}: the smallest is not smaller than the range from level_min = {self.level_min:g} "
                f"to level_max = {self.level_max:g}: choose smaller steps or wider limits."
            )
        given, wanted = self.step_change_at, self.step_change == "at_reversals"
        if wanted and given is None:
            example = list(range(2, 2 * len(self.steps), 2))
            yield (
                "step_change_at is missing: step_change = 'at_reversals' needs the numbers of "
                f"{len(self.steps) - 1} reversals, for instance step_change_at = {example}."
            )
        elif given is not None and not wanted:
            yield (
                f"step_change_at = {given} is used by step_change = 'at_reversals' only, not by '{self.step_change}': "
                "remove it or change step_change."
            )
        elif given is not None and (
            len(given) != len(self.steps) - 1 or any(n < 1 for n in given) or any(b <= a for a, b in pairwise(given))
        ):
            yield (
                f"step_change_at = {given} does not fit {len(self.steps)} steps: "
                f"give {len(self.steps) - 1} ascending reversal numbers from 1."
            )

    def _stop_problems(self) -> Iterator[str]:
        uses_trials, uses_reversals = "trials" in self.stop.split("_"), "reversals" in self.stop.split("_")
        if uses_trials and self.n_trials is None:
            yield f"n_trials is missing: stop = '{self.stop}' needs it, for instance n_trials = 60."
        if not uses_trials and self.n_trials is not None:
            yield (
                f"n_trials = {self.n_trials} is not used by stop = '{self.stop}': "
                "remove it, or choose another stop, or set max_trials if a bound is meant."
            )
        if self.n_trials is not None and self.n_trials > self.max_trials:
            yield (
                f"n_trials = {self.n_trials} is more than max_trials = {self.max_trials}, "
                "so the stop rule could never be met: raise max_trials."
            )
        if not uses_reversals and self.n_reversals is not None:
            yield f"n_reversals = {self.n_reversals} is not used by stop = '{self.stop}': remove it or change stop."
        if uses_reversals and self.n_reversals is not None and self.n_reversals >= self.max_trials:
            yield (
                f"n_reversals = {self.n_reversals} cannot be reached in max_trials = {self.max_trials} trials: "
                "raise max_trials or lower n_reversals."
            )

    def _threshold_problems(self) -> Iterator[str]:
        last_n, measured = self.threshold_n_reversals, self.n_reversals
        if self.threshold_from == "last_n_reversals":
            if last_n is None:
                yield (
                    "threshold_n_reversals is missing: threshold_from = 'last_n_reversals' needs it, "
                    "for instance threshold_n_reversals = 6."
                )
            elif self.even_reversals and last_n % 2:
                yield (
                    f"threshold_n_reversals = {last_n} is odd, but even_reversals = true: "
                    f"choose {last_n + 1}, or set even_reversals = false."
                )
            elif self.stop.startswith("reversals") and measured is not None and last_n > measured:
                yield (
                    f"threshold_n_reversals = {last_n} is more than n_reversals = {measured}: "
                    "raise n_reversals, or lower threshold_n_reversals."
                )
        elif last_n is not None:
            yield (
                f"threshold_n_reversals = {last_n} is used by threshold_from = 'last_n_reversals' only: "
                "remove it, or set threshold_from."
            )
        elif self.stop == "reversals" and self.even_reversals and measured is not None and measured % 2:
            yield (
                f"n_reversals = {measured} is odd, but even_reversals = true would leave one out: "
                f"choose {measured + 1}, or set even_reversals = false."
            )
        if self.upper_weight is not None and not (self.even_reversals and self.reversals_at_limit):
            yield (
                f"upper_weight = {self.upper_weight:g} needs upper and lower reversals in turn: "
                "set even_reversals = true and reversals_at_limit = true, or remove it."
            )
