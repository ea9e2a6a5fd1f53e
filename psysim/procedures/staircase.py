"""The machinery of the up-down rules: counting answers, moving the level, finding reversals, averaging them.

A rule is given by four numbers: answers in a row for a move towards easier (``n_up``) and towards harder
(``n_down``), and the two step sizes. Everything else is common to all of them and stands here. The order of events in
a trial is fixed and tested with tracks worked by hand (tests/procedures/test_staircase.py):

1. The answer is counted; ``n_down`` correct (``n_up`` wrong) answers in a row ask for a move. Then the count restarts.
2. If the move goes the other way than the move before, the trial is a reversal; its level is the level it was
   presented at. The first move of a track is never a reversal.
3. A reversal counts as measured if the smallest step was in force when its trial was presented.
4. A reversal may bring the next step size: before the move away from it (default), or after it.
5. The level moves and is kept within its limits.
6. The stop rule is asked, then the limits, then ``max_trials``. A track that stops after more than ``limit_moves``
   moves shortened or refused by a limit has not converged: it is at that limit.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from psysim.errors import SpecError
from psysim.procedures.averaging import average_reversals
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
from psysim.procedures.settings import StaircaseSettings
from psysim.procedures.start import start_levels

__all__ = ["Staircase", "StaircaseState"]

MIN_AVERAGED = 2
"""Reversals without which there is no threshold: one upper and one lower."""

LIMIT_TOLERANCE = 1e-9
"""A move may pass a limit by this part of the smallest step before it counts as shortened: rounding, not intention."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StaircaseState(TrackState):
    """State of an up-down rule.

    Parameters
    ----------
    streak : ndarray, shape (B,), int16
        Correct answers in a row since the last move, or wrong ones as a negative number.
    direction : ndarray, shape (B,), int8
        Direction of the last move asked for: 1 rising, -1 falling levels, 0 before the first move.
    step_index : ndarray, shape (B,), int16
        Index of the step size in force.
    n_reversals, n_measured : ndarray, shape (B,), int32
        Reversals so far; those of them at the smallest step.
    reversal_levels : ndarray, shape (B, R), float64
        Ring buffer of the levels at the reversals that may enter the threshold.
    limit_streak, n_limit_moves : ndarray, shape (B,), int32
        Moves that a limit shortened or refused: in a row, and in all.
    touched_limit : ndarray, shape (B,), bool
        Whether a limit shortened or refused a move since the last change of direction.
    """

    streak: NDArray[np.int16]
    direction: NDArray[np.int8]
    step_index: NDArray[np.int16]
    n_reversals: NDArray[np.int32]
    n_measured: NDArray[np.int32]
    reversal_levels: FloatArray
    limit_streak: NDArray[np.int32]
    n_limit_moves: NDArray[np.int32]
    touched_limit: BoolArray


class Staircase(Procedure):
    """Base of the up-down rules; see `UpDown` and `WeightedUpDown`.

    A subclass gives `n_up`, `n_down`, `easier_ratio` and, if it has one, `initial_rule`.
    """

    Settings: ClassVar[type[ProcedureSettings]] = StaircaseSettings
    State: ClassVar[type[TrackState]] = StaircaseState

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        s = self.rule
        self._last_step = len(s.steps) - 1
        self._moves = self._move_table()
        tolerance = LIMIT_TOLERANCE * s.steps[-1]
        if s.step_unit == "db":
            tolerance *= s.level_start
        self._level_min = s.lowest
        self._beyond_min, self._beyond_max = self._level_min - tolerance, s.level_max + tolerance
        self._step_after = self._step_table()

    @property
    def rule(self) -> StaircaseSettings:
        """The settings, with their type."""
        return cast(StaircaseSettings, self.settings)

    @property
    @abstractmethod
    def n_up(self) -> int:
        """Wrong answers in a row that make the task easier."""

    @property
    @abstractmethod
    def n_down(self) -> int:
        """Correct answers in a row that make the task harder."""

    @property
    def easier_ratio(self) -> float:
        """Size of a step towards easier over that of a step towards harder."""
        return 1.0

    @property
    def one_by_one_first(self) -> bool:
        """Whether each answer moves the level until the first reversal."""
        return False

    def _move_table(self) -> FloatArray:
        """Return the moves by (direction + 1, step index): summands, or factors for steps in dB."""
        s = self.rule
        harder = np.array(s.steps)
        moves = np.zeros((3, len(harder)))
        moves[1 + s.harder] = s.harder * harder
        moves[1 - s.harder] = -s.harder * harder * self.easier_ratio
        return 10.0 ** (moves / 20.0) if s.step_unit == "db" else moves

    def _step_table(self) -> NDArray[np.int16]:
        """Step index after n reversals (the last entry holds beyond), for the rules that count reversals."""
        s = self.rule
        if s.step_change == "at_reversals":
            changes = s.step_change_at or []
        else:
            every = 2 if s.step_change == "every_second_reversal" else 1
            changes = [every * (i + 1) for i in range(self._last_step)]
        numbers = np.arange((changes[-1] if changes else 0) + 1)
        return np.searchsorted(np.array(changes, dtype=np.int64), numbers, side="right").astype(np.int16)

    def _buffer_size(self) -> int:
        """Largest number of reversal levels that can enter a threshold."""
        s = self.rule
        if s.threshold_from == "last_n_reversals":
            return s.threshold_n_reversals or MIN_AVERAGED
        if s.stop in ("reversals", "reversals_or_trials"):
            return s.n_reversals or MIN_AVERAGED
        trials = s.n_trials if s.stop == "trials" and s.n_trials else s.max_trials
        # a pair of reversals takes at least n_up + n_down trials; one more for each end of the track
        return max(MIN_AVERAGED, 2 * trials // (self.n_up + self.n_down) + 2)

    def init(self, n_lanes: int, level_start: ArrayLike | None = None) -> StaircaseState:
        """Return ``n_lanes`` fresh tracks, at the setting ``level_start`` or at the levels given here.

        Raises
        ------
        SpecError
            If ``n_lanes`` is negative or a starting level is outside the limits.
        """
        level = start_levels(self.rule, n_lanes, level_start)
        return StaircaseState(
            level=level,
            n_trials=np.zeros(n_lanes, np.int32),
            status=np.full(n_lanes, Status.RUNNING, np.int8),
            last_reversal=np.zeros(n_lanes, np.bool_),
            streak=np.zeros(n_lanes, np.int16),
            direction=np.zeros(n_lanes, np.int8),
            step_index=np.zeros(n_lanes, np.int16),
            n_reversals=np.zeros(n_lanes, np.int32),
            n_measured=np.zeros(n_lanes, np.int32),
            reversal_levels=np.full((n_lanes, self._buffer_size()), np.nan),
            limit_streak=np.zeros(n_lanes, np.int32),
            n_limit_moves=np.zeros(n_lanes, np.int32),
            touched_limit=np.zeros(n_lanes, np.bool_),
        )

    def record(
        self, state: TrackState, correct: ArrayLike, live: ArrayLike | None = None, invalid: ArrayLike | None = None
    ) -> StaircaseState:
        """Return the state after one trial of every live lane; ``state`` is unchanged. See `Procedure.record`."""
        state, n_lanes = _own(state), len(state)
        right = as_lane_mask("correct", correct, n_lanes)
        counted = ~state.done
        if live is not None:
            counted &= as_lane_mask("live", live, n_lanes)
        broken = counted & ~np.isfinite(state.level)
        if invalid is not None:
            broken |= counted & as_lane_mask("invalid", invalid, n_lanes)
        active = counted & ~broken

        streak, wanted = self._count(state, right, active)
        moving = wanted != 0
        turned = moving & (state.direction != 0) & (wanted != state.direction)
        reversal = turned if self.rule.reversals_at_limit else turned & ~state.touched_limit
        n_reversals = state.n_reversals + reversal
        measured = reversal & (state.step_index == self._last_step)
        n_measured = state.n_measured + measured

        next_step = self._next_step(state, reversal, n_reversals, wanted)
        step = next_step if self.rule.step_change_timing == "before_move" else state.step_index
        level, beyond = self._move(state.level, wanted, step)
        limit_streak = np.where(beyond, np.where(turned, 0, state.limit_streak) + 1, state.limit_streak * ~moving)
        n_trials = state.n_trials + counted
        n_limit_moves = state.n_limit_moves + beyond
        stopped, usable = self._stopped(n_trials, n_reversals, n_measured)
        status = self._status(n_trials, stopped, usable, beyond & (limit_streak >= self.rule.limit_trials), wanted)
        limited = (status == Status.CONVERGED) & (n_limit_moves > self.rule.limit_moves)
        status = np.where(limited, self._nearest_limit(level), status)
        return StaircaseState(
            level=level,
            n_trials=n_trials,
            status=np.where(active, status, np.where(broken, np.int8(Status.INVALID_OUTPUT), state.status)),
            last_reversal=np.where(counted, reversal, state.last_reversal),
            streak=streak,
            direction=np.where(moving, wanted, state.direction),
            step_index=next_step,
            n_reversals=n_reversals,
            n_measured=n_measured,
            reversal_levels=self._store(state, reversal, measured),
            limit_streak=limit_streak.astype(np.int32),
            n_limit_moves=n_limit_moves,
            touched_limit=(state.touched_limit & ~turned) | beyond,
        )

    def _count(
        self, state: StaircaseState, right: BoolArray, active: BoolArray
    ) -> tuple[NDArray[np.int16], NDArray[np.int8]]:
        """Return the answers in a row and the direction of the move they ask for (0: none), for active lanes."""
        before, harder = state.streak, np.int8(self.rule.harder)
        streak = np.where(right, np.maximum(before, 0) + np.int16(1), np.minimum(before, 0) - np.int16(1))
        down, up = streak >= self.n_down, streak <= -self.n_up
        if self.one_by_one_first:
            first = state.n_reversals == 0
            down, up = down | (first & right), up | (first & ~right)
        down, up = down & active, up & active
        wanted = harder * (down.astype(np.int8) - up.astype(np.int8))
        return np.where(active, np.where(down | up, np.int16(0), streak), before), wanted

    def _next_step(
        self, state: StaircaseState, reversal: BoolArray, n_reversals: NDArray[np.int32], wanted: NDArray[np.int8]
    ) -> NDArray[np.int16]:
        """Step index in force after this trial."""
        change = self.rule.step_change
        if change in ("lower_reversal", "upper_reversal"):
            kind = wanted > 0 if change == "lower_reversal" else wanted < 0
            return np.minimum(state.step_index + (reversal & kind), self._last_step).astype(np.int16)
        return self._step_after[np.minimum(n_reversals, len(self._step_after) - 1)]

    def _move(
        self, level: FloatArray, wanted: NDArray[np.int8], step: NDArray[np.int16]
    ) -> tuple[FloatArray, BoolArray]:
        """Return the new levels, within the limits, and whether a limit shortened or refused the move."""
        move = self._moves[wanted + np.int8(1), step]
        target = level * move if self.rule.step_unit == "db" else level + move
        moving = wanted != 0
        beyond = moving & ((target > self._beyond_max) | (target < self._beyond_min))
        return np.where(moving, np.clip(target, self._level_min, self.rule.level_max), level), beyond

    def _store(self, state: StaircaseState, reversal: BoolArray, measured: BoolArray) -> FloatArray:
        """Ring buffer with the levels of this trial's reversals."""
        levels = state.reversal_levels.copy()
        all_steps = self.rule.threshold_from == "last_n_reversals"
        lanes = np.flatnonzero(reversal if all_steps else measured)
        levels[lanes, self._n_stored(state)[lanes] % levels.shape[1]] = state.level[lanes]
        return levels

    def _n_stored(self, state: StaircaseState) -> NDArray[np.int32]:
        """Return the number of reversals that were put in the buffer."""
        return state.n_reversals if self.rule.threshold_from == "last_n_reversals" else state.n_measured

    def _stopped(
        self, n_trials: NDArray[np.int32], n_reversals: NDArray[np.int32], n_measured: NDArray[np.int32]
    ) -> tuple[BoolArray, BoolArray]:
        """Return whether the stop rule is met, and whether there are reversals enough for a threshold."""
        s = self.rule
        enough, late = n_measured >= (s.n_reversals or 0), n_trials >= (s.n_trials or s.max_trials)
        available = n_reversals if s.threshold_from == "last_n_reversals" else n_measured
        met = {
            "reversals": enough,
            "trials": late,
            "reversals_and_trials": enough & late,
            "reversals_or_trials": enough | late,
        }[s.stop]
        return met, available >= MIN_AVERAGED

    def _status(
        self,
        n_trials: NDArray[np.int32],
        stopped: BoolArray,
        usable: BoolArray,
        held: BoolArray,
        wanted: NDArray[np.int8],
    ) -> NDArray[np.int8]:
        """Status of the active lanes after a trial: the stop rule first, then the limits, then max_trials."""
        out_of_trials = (n_trials >= self.rule.max_trials) | (stopped & ~usable)
        status = np.where(out_of_trials, np.int8(Status.MAX_TRIALS), np.int8(Status.RUNNING))
        at_limit = np.where(wanted > 0, np.int8(Status.AT_CEILING), np.int8(Status.AT_FLOOR))
        status = np.where(held, at_limit, status)
        return np.where(stopped & usable, np.int8(Status.CONVERGED), status)

    def _nearest_limit(self, level: FloatArray) -> NDArray[np.int8]:
        """Status of tracks that are at the limit nearest to their level."""
        upper = self.rule.level_max - level <= level - self._level_min
        return np.where(upper, np.int8(Status.AT_CEILING), np.int8(Status.AT_FLOOR))

    def summary(self, state: TrackState) -> TrackSummary:
        """Return the thresholds and how the tracks ended. See `TrackSummary`.

        For the standard error see `psysim.procedures.averaging.average_reversals`.
        """
        s, state = self.rule, _own(state)
        with_threshold = np.isin(state.status, (Status.CONVERGED, Status.MAX_TRIALS))
        stored = np.minimum(self._n_stored(state), state.reversal_levels.shape[1])
        n = np.where(with_threshold & (stored >= MIN_AVERAGED), stored - stored % 2 if s.even_reversals else stored, 0)
        newest_first = self._newest_first(state)
        levels = 20.0 * np.log10(newest_first) if s.step_unit == "db" else newest_first
        # the newest reversal is an upper one if the track has been falling since
        threshold, sem = average_reversals(levels, n, state.direction < 0, s.threshold_statistic, s.upper_weight)
        if s.step_unit == "db":
            threshold = 10.0 ** (threshold / 20.0)
            sem = sem * threshold * np.log(10.0) / 20.0  # first order
        return TrackSummary(
            threshold=threshold,
            threshold_sem=sem,
            n_trials=state.n_trials.copy(),
            n_reversals=state.n_reversals.copy(),
            status=state.status.copy(),
            n_averaged=n.astype(np.int32),
            n_limit_moves=state.n_limit_moves.copy(),
        )

    def _newest_first(self, state: StaircaseState) -> FloatArray:
        """Return the stored reversal levels from the newest to the oldest; NaN where none was stored."""
        size = state.reversal_levels.shape[1]
        order = (self._n_stored(state)[:, np.newaxis] - 1 - np.arange(size)) % size
        return np.take_along_axis(state.reversal_levels, order, axis=1)

    def describe(self) -> str:
        """Return steps, limits, stop rule and threshold in sentences (subclasses put the rule itself in front)."""
        s = self.rule
        unit = " dB (factors of the level)" if s.step_unit == "db" else ""
        steps = ", ".join(f"{step:g}" for step in s.steps)
        change = {
            "every_reversal": "at every reversal",
            "every_second_reversal": "at every second reversal",
            "lower_reversal": "at every reversal from falling to rising levels",
            "upper_reversal": "at every reversal from rising to falling levels",
            "at_reversals": f"at reversals {', '.join(map(str, s.step_change_at or []))}",
        }[s.step_change]
        sizes = f"The step size was {steps}{unit}"
        if len(s.steps) > 1:
            sizes += f", changed {change} {s.step_change_timing.split('_')[0]} the move away from it"
        reversals, trials = f"{s.n_reversals} reversals at the smallest step", f"{s.n_trials} trials"
        stop = {
            "reversals": f"after {reversals}",
            "trials": f"after {trials}",
            "reversals_and_trials": f"after at least {reversals} and {trials}",
            "reversals_or_trials": f"after {reversals} or {trials}",
        }[s.stop]
        which = (
            "all reversals at the smallest step"
            if s.threshold_from == "reversals_at_smallest_step"
            else f"the last {s.threshold_n_reversals} reversals"
        )
        kind = "geometric mean" if s.step_unit == "db" and s.threshold_statistic == "mean" else s.threshold_statistic
        weighted = "" if s.upper_weight is None else f", upper reversals weighted by {s.upper_weight:g}"
        return (
            f"{sizes}. {s.describe_start()} "
            f"They ended {stop}, or at {s.max_trials} trials. "
            f"The threshold is the {kind} of the levels at {which}{weighted}."
        )


def _own(state: TrackState) -> StaircaseState:
    """Return ``state`` with its type, or raise if it belongs to another kind of rule."""
    if not isinstance(state, StaircaseState):
        raise SpecError(f"An up-down rule works on a StaircaseState made by its init, not on a {type(state).__name__}.")
    return state
