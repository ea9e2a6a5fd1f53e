"""The machinery of the rules that move one level but are no up-down rules.

They are PEST, stochastic approximation, the method of limits, the method of adjustment and Békésy tracking.
A rule says what one trial asks for (`LevelRule._trial`); everything that is the same for all of them stands here, in
the same order as for the up-down rules:

1. The rule is asked for the next level, as if every lane had had a trial.
2. The level is kept within its limits. A move that would pass a limit is shortened to it, or refused, and counted.
3. The stop rule is asked, then the limits (``limit_trials`` such moves in a row), then ``max_trials``. A track that
   stops after more than ``limit_moves`` such moves has not converged: it is at the nearest limit.
4. Lanes that had no trial keep their state.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar, Self, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator

from psysim.errors import SpecError
from psysim.procedures.base import (
    BoolArray,
    FloatArray,
    Procedure,
    ProcedureSettings,
    Status,
    TrackState,
    TrackSummary,
    as_lane_mask,
)
from psysim.procedures.start import StartSettings, start_levels

__all__ = ["Estimate", "LevelRule", "LevelRuleSettings", "LevelState", "Step"]

LIMIT_TOLERANCE = 1e-9
"""A move may pass a limit by this part of the rule's smallest step before it counts as shortened: rounding."""


class LevelRuleSettings(StartSettings):
    """Settings of every rule built on `LevelRule`."""

    max_trials: int = Field(
        default=500, ge=1, le=2**23, description="a track that has not stopped by then ends with the status max_trials"
    )
    limit_trials: int = Field(
        default=10,
        ge=1,
        description="moves in a row that the same level limit shortened or refused, after which the track ends with "
        "the status at_floor or at_ceiling",
    )
    limit_moves: int = Field(
        default=5,
        ge=0,
        description="moves of the whole track that a level limit may shorten or refuse; with more, the track ends with "
        "the status at_floor or at_ceiling, not converged",
    )

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        problems = list(chain(self._level_problems(), self._own_problems()))
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _own_problems(self) -> Iterator[str]:
        """Mistakes across the fields of a rule, one sentence each."""
        yield from ()


@dataclass(frozen=True, kw_only=True, eq=False)
class LevelState(TrackState):
    """State of a rule built on `LevelRule`; a rule adds its own arrays.

    Parameters
    ----------
    lane : ndarray, shape (B,), int64
        Name of the lane in keyed random numbers; it stays with the track wherever the track goes.
    n_reversals : ndarray, shape (B,), int32
        Reversals so far.
    limit_streak : ndarray, shape (B,), int32
        Moves in a row that a limit shortened or refused: positive at the upper limit, negative at the lower one.
    n_limit_moves : ndarray, shape (B,), int32
        Such moves in all.
    """

    lane: NDArray[np.int64]
    n_reversals: NDArray[np.int32]
    limit_streak: NDArray[np.int32]
    n_limit_moves: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Step:
    """What one trial does to each track.

    Parameters
    ----------
    target : ndarray, shape (B,)
        Where the level goes, on the axis of the rule, limits not applied.
    reversal : ndarray of bool, shape (B,)
        Whether the trial is a reversal.
    stopped : ndarray of bool, shape (B,)
        Whether the stop rule is met.
    usable : ndarray of bool, shape (B,)
        Whether there is a threshold.
    arrays : mapping
        The rule's own arrays after the trial; those left out stay as they are.
    """

    target: FloatArray
    reversal: BoolArray
    stopped: BoolArray
    usable: BoolArray
    arrays: Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Estimate:
    """Threshold of each track, its standard error (both on the axis of the rule), and the number of values averaged."""

    threshold: FloatArray
    sem: FloatArray
    n: NDArray[np.integer[Any]]


class LevelRule(Procedure):
    """Base of the rules that move one level; see `Pest`, `Asa`, `MethodOfLimits`, `Adjustment`, `Bekesy`.

    The *axis* of a rule is the level itself, or 20 log10 of it for ``step_unit = "db"``.
    """

    Settings: ClassVar[type[ProcedureSettings]] = LevelRuleSettings
    State: ClassVar[type[TrackState]] = LevelState

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        s = self.rule
        low, high = (float(x) for x in self.to_axis(np.array([s.lowest, s.level_max])))
        slack = LIMIT_TOLERANCE * self.smallest_step
        self._beyond_min, self._beyond_max = low - slack, high + slack
        self._axis_limits = low, high

    @property
    def rule(self) -> LevelRuleSettings:
        """The settings, with their type."""
        return cast(LevelRuleSettings, self.settings)

    @property
    @abstractmethod
    def smallest_step(self) -> float:
        """A step that counts, on the axis of the rule; smaller differences are rounding."""

    @abstractmethod
    def _fresh(self, n_lanes: int, level: FloatArray) -> dict[str, NDArray[Any]]:
        """Return the rule's own arrays of fresh tracks that start at ``level`` (on the axis)."""

    @abstractmethod
    def _trial(self, state: Any, x: FloatArray, right: BoolArray) -> Step:
        """Return what a trial at level ``x`` (on the axis) with these answers does to each track."""

    @abstractmethod
    def _estimate(self, state: Any) -> Estimate:
        """Return the thresholds on the axis of the rule; n = 0 where there is none."""

    def to_axis(self, level: FloatArray) -> FloatArray:
        """Return levels on the axis of the rule."""
        if self.rule.step_unit == "level":
            return level
        with np.errstate(divide="ignore"):
            return 20.0 * np.log10(level)

    def from_axis(self, x: FloatArray) -> FloatArray:
        """Return levels from the axis of the rule."""
        return 10.0 ** (x / 20.0) if self.rule.step_unit == "db" else x

    def init(self, n_lanes: int, level_start: ArrayLike | None = None) -> TrackState:
        """Return ``n_lanes`` fresh tracks. See `Procedure.init`.

        Raises
        ------
        SpecError
            If ``n_lanes`` is negative or a starting level is outside the limits.
        """
        level = start_levels(self.rule, n_lanes, level_start)
        common: dict[str, Any] = {
            "level": level,
            "n_trials": np.zeros(n_lanes, np.int32),
            "status": np.full(n_lanes, Status.RUNNING, np.int8),
            "last_reversal": np.zeros(n_lanes, np.bool_),
            "lane": np.arange(n_lanes, dtype=np.int64),
            "n_reversals": np.zeros(n_lanes, np.int32),
            "limit_streak": np.zeros(n_lanes, np.int32),
            "n_limit_moves": np.zeros(n_lanes, np.int32),
        }
        return self.State(**common | self._fresh(n_lanes, self.to_axis(level)))

    def record(
        self, state: TrackState, correct: ArrayLike, live: ArrayLike | None = None, invalid: ArrayLike | None = None
    ) -> TrackState:
        """Return the state after one trial of every live lane; ``state`` is unchanged. See `Procedure.record`."""
        own, n_lanes, s = self._own(state), len(state), self.rule
        right = as_lane_mask("correct", correct, n_lanes)
        counted = ~state.done
        if live is not None:
            counted &= as_lane_mask("live", live, n_lanes)
        finite = np.isfinite(state.level)
        broken = counted & ~finite
        if invalid is not None:
            broken |= counted & as_lane_mask("invalid", invalid, n_lanes)
        active = counted & ~broken

        x = self.to_axis(np.where(finite, state.level, 1.0))
        step = self._trial(own, x, right)
        above, below = step.target > self._beyond_max, step.target < self._beyond_min
        moved = step.target != x
        level = np.where(moved, np.clip(self.from_axis(step.target), s.lowest, s.level_max), state.level)
        streak = np.where(moved, np.int32(0), own.limit_streak)
        streak = np.where(above, np.maximum(own.limit_streak, 0) + np.int32(1), streak)
        streak = np.where(below, np.minimum(own.limit_streak, 0) - np.int32(1), streak)
        n_limit_moves = own.n_limit_moves + (above | below)
        n_trials = state.n_trials + counted

        status = self._status(step, n_trials, streak, n_limit_moves, level)
        new = {"level": level, "n_reversals": own.n_reversals + step.reversal, "limit_streak": streak}
        new |= {"n_limit_moves": n_limit_moves, **step.arrays}
        arrays = state.to_arrays() | {name: _choose(active, a, getattr(state, name)) for name, a in new.items()}
        arrays["n_trials"] = n_trials
        arrays["status"] = np.where(active, status, np.where(broken, np.int8(Status.INVALID_OUTPUT), state.status))
        arrays["last_reversal"] = np.where(counted, step.reversal & active, state.last_reversal)
        return type(state)(**arrays)

    def _status(
        self,
        step: Step,
        n_trials: NDArray[np.int32],
        streak: NDArray[np.int32],
        n_limit_moves: NDArray[np.int32],
        level: FloatArray,
    ) -> NDArray[np.int8]:
        """Status after a trial: the stop rule first, then the limits, then max_trials."""
        s = self.rule
        upper = s.level_max - level <= level - s.lowest
        nearest = np.where(upper, np.int8(Status.AT_CEILING), np.int8(Status.AT_FLOOR))
        over = (n_trials >= s.max_trials) | (step.stopped & ~step.usable)
        status = np.where(over, np.int8(Status.MAX_TRIALS), np.int8(Status.RUNNING))
        status = np.where(streak >= s.limit_trials, np.int8(Status.AT_CEILING), status)
        status = np.where(streak <= -s.limit_trials, np.int8(Status.AT_FLOOR), status)
        limited = np.where(n_limit_moves > s.limit_moves, nearest, np.int8(Status.CONVERGED))
        return np.where(step.stopped & step.usable, limited, status)

    def summary(self, state: TrackState) -> TrackSummary:
        """Return the thresholds and how the tracks ended. See `TrackSummary`."""
        own = self._own(state)
        found = self._estimate(own)
        given = np.isin(own.status, (Status.CONVERGED, Status.MAX_TRIALS)) & (found.n > 0)
        threshold, sem = self.from_axis(found.threshold), found.sem
        if self.rule.step_unit == "db":
            sem = sem * threshold * np.log(10.0) / 20.0  # first order
        return TrackSummary(
            threshold=np.where(given, threshold, np.nan),
            threshold_sem=np.where(given, sem, np.nan),
            n_trials=own.n_trials.copy(),
            n_reversals=own.n_reversals.copy(),
            status=own.status.copy(),
            n_averaged=np.where(given, found.n, 0).astype(np.int32),
            n_limit_moves=own.n_limit_moves.copy(),
        )

    def _own(self, state: TrackState) -> Any:
        """Return ``state`` with its type, or raise if it belongs to another kind of rule."""
        if not isinstance(state, self.State):
            raise SpecError(
                f"{type(self).__name__} works on a {self.State.__name__} made by its init, "
                f"not on a {type(state).__name__}."
            )
        return state

    @property
    def unit(self) -> str:
        """Words for the unit of a step in `describe`."""
        return " dB (factors of the level)" if self.rule.step_unit == "db" else ""

    @property
    def mean_name(self) -> str:
        """Words for the average in `describe`."""
        return "geometric mean" if self.rule.step_unit == "db" else "mean"


def _choose(active: BoolArray, new: NDArray[Any], old: NDArray[Any]) -> NDArray[Any]:
    """Return ``new`` for active lanes, ``old`` for others, in the type of ``old``."""
    mask = active.reshape(-1, *(1,) * (old.ndim - 1))
    return np.where(mask, new, old).astype(old.dtype, copy=False)


def store(values: FloatArray, at: NDArray[np.integer[Any]], new: FloatArray, where: BoolArray) -> FloatArray:
    """Return a copy of ``values`` (B, R) with ``new`` in column ``at`` of the lanes ``where``."""
    out = values.copy()
    lanes = np.flatnonzero(where & (at >= 0) & (at < values.shape[1]))
    out[lanes, at[lanes]] = new[lanes]
    return out
