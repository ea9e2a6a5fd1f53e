"""The Markov chain of an up-down rule: its states, found by the rule itself, and where each answer leads.

A state is everything of a `StaircaseState` that decides what happens next: level, answers in a row, direction, step,
the reversals that count, what the limits did. The transitions are those of `Staircase.record`: it is asked for all
states of the frontier at once, with a correct and with a wrong answer. So the chain cannot differ from the rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from psysim.errors import SpecError
from psysim.procedures.base import FloatArray, Procedure, Status, concatenate
from psysim.procedures.psychometric import PsychometricFunction
from psysim.procedures.staircase import Staircase, StaircaseState

__all__ = ["Listener", "RuleChain", "as_up_down", "target_level"]

Listener: TypeAlias = Callable[[ArrayLike], NDArray[np.float64]]
"""Level to proportion correct, vectorised."""

MAX_STATES = 1_000_000
"""Most states of a chain: about 200 MB."""

MAX_LEVEL_STATES = 20_000
"""Most states of a chain of levels only, whose equations are solved at once."""

NEVER_LATE = -(2**24)
"""Number of trials of a state whose track has all its trials before it."""

QUANTUM = 1e-6
"""Levels that differ by less than this part of the smallest step are the same level: rounding."""


class RuleChain:
    """States of an up-down rule that can be reached from its start, found as far as they are asked for.

    Parameters
    ----------
    rule : Staircase
        The rule.
    listener : callable
        Level to proportion correct, vectorised.
    levels_only : bool
        Leave out what does not change the level: directions, reversals and limits are forgotten, and no track ends.

    Attributes
    ----------
    state : StaircaseState
        One lane per state of the chain, K of them.
    correct : ndarray, shape (K,)
        Proportion correct at the level of each state.
    target, status : ndarray of int, shape (2, K)
        Where a wrong and a correct answer lead (number of the state, -1 if the track ends there), and the `Status`
        after it. Known for states that were expanded.
    measured : ndarray of bool, shape (2, K)
        Whether the trial with that answer is a measured reversal.
    falling : ndarray of bool, shape (2, K)
        Whether the level falls after that answer: such a reversal is an upper one.
    """

    def __init__(self, rule: Staircase, listener: Listener, levels_only: bool = False) -> None:
        self.rule, self.listener, self.levels_only = rule, listener, levels_only
        s = rule.rule
        self.in_db = s.step_unit == "db"
        self.most = MAX_LEVEL_STATES if levels_only else MAX_STATES
        self.quantum = QUANTUM * s.steps[-1] * min(1.0, rule.easier_ratio)
        self._reversals_kept = max(len(rule._step_after) - 1, 2)
        pairs = rule.n_up + rule.n_down
        most = s.n_reversals if s.stop in ("reversals", "reversals_or_trials") and s.n_reversals else 0
        measured = most or 2 * s.max_trials // pairs + 2
        self._radices = {
            "streak": rule.n_up + rule.n_down,
            "direction": 3,
            "step_index": len(s.steps),
            "n_reversals": self._reversals_kept + 1,
            "n_measured": measured + 1,
            "limit_streak": min(s.limit_trials, s.max_trials) + 1,
            "n_limit_moves": min(s.limit_moves, s.max_trials) + 2,
            "touched_limit": 2,
        }
        self._offsets = {"streak": rule.n_up - 1, "direction": 1}
        first = rule.init(1)
        self._origin = float(self.axis(first.level)[0])
        self.state = self._essential(first)
        self._sorted, self._order = self._keys(self.state), np.zeros(1, np.int64)
        self.correct = self._proportion(self.state.level)
        self.expanded = np.zeros(1, np.bool_)
        self.target = np.full((2, 1), -1, np.int64)
        self.status = np.zeros((2, 1), np.int8)
        self.measured = np.zeros((2, 1), np.bool_)
        self.falling = np.zeros((2, 1), np.bool_)

    def __len__(self) -> int:
        return len(self.state)

    def axis(self, level: FloatArray) -> FloatArray:
        """Return levels on the axis of the steps: as they are, or 20 log10 of them for steps in dB."""
        return 20.0 * np.log10(level) if self.in_db else level

    def _proportion(self, level: FloatArray) -> FloatArray:
        proportion = np.asarray(self.listener(level), dtype=np.float64)
        if proportion.shape != level.shape or not np.all((proportion >= 0) & (proportion <= 1)):
            raise SpecError(
                f"listener must return one proportion from 0 to 1 per level (an array of shape {level.shape}); "
                f"it returned {proportion.dtype} {proportion.shape}."
            )
        return proportion

    def _essential(self, state: StaircaseState) -> StaircaseState:
        """Return the states without what has no influence on the track's further course."""
        n, s = len(state), self.rule.rule
        nothing: dict[str, NDArray[Any]] = {
            "n_trials": np.full(n, NEVER_LATE, np.int32),
            "last_reversal": np.zeros(n, np.bool_),
            "reversal_levels": np.full((n, 1), np.nan),
            "n_reversals": np.minimum(state.n_reversals, self._reversals_kept).astype(np.int32),
            "n_limit_moves": np.minimum(state.n_limit_moves, s.limit_moves + 1).astype(np.int32),
        }
        if s.reversals_at_limit:
            nothing["touched_limit"] = np.zeros(n, np.bool_)
        if self.levels_only:
            nothing |= {
                name: np.zeros_like(getattr(state, name))
                for name in ("direction", "n_reversals", "n_measured", "limit_streak", "n_limit_moves", "touched_limit")
            }
            nothing["status"] = np.full(n, Status.RUNNING, np.int8)
        return replace(state, **nothing)

    def _keys(self, state: StaircaseState) -> NDArray[np.int64]:
        """Return one number per state: equal numbers, equal states."""
        place = np.rint((self.axis(state.level) - self._origin) / self.quantum)
        size = 1
        for radix in self._radices.values():
            size *= radix
        if (2.0 * float(np.abs(place).max()) + 1.0) * size >= 2.0**62:
            raise self._too_large()
        key = place.astype(np.int64)
        for name, radix in self._radices.items():
            key = key * radix + getattr(state, name).astype(np.int64) + self._offsets.get(name, 0)
        return key

    def after(self, states: NDArray[np.int64], correct: bool, n_trials: int = NEVER_LATE) -> StaircaseState:
        """Return what the rule makes of an answer in each of the states, after ``n_trials`` trials."""
        before = replace(self.state.take(states), n_trials=np.full(len(states), n_trials, np.int32))
        return self.rule.record(before, np.full(len(states), correct))

    def expand(self, states: NDArray[np.int64]) -> None:
        """Find out where each answer leads from some states; their successors become states of the chain."""
        new = states[~self.expanded[states]]
        if not len(new):
            return
        both = [self.after(new, correct) for correct in (False, True)]
        running = [self._essential(after) for after in both]
        joined = concatenate(running)
        goes_on = np.flatnonzero(joined.status == Status.RUNNING)
        target = np.full(len(joined), -1, np.int64)
        target[goes_on] = self._numbers(joined.take(goes_on))
        for answer, after in enumerate(both):
            self.target[answer, new] = target[answer * len(new) : (answer + 1) * len(new)]
            self.status[answer, new] = running[answer].status
            self.measured[answer, new] = after.n_measured > self.state.n_measured[new]
            self.falling[answer, new] = after.direction < 0
        self.expanded[new] = True

    def _numbers(self, states: StaircaseState) -> NDArray[np.int64]:
        """Return the numbers of states, giving new ones to those that are not known yet."""
        keys, first, back = np.unique(self._keys(states), return_index=True, return_inverse=True)
        place = np.searchsorted(self._sorted, keys)
        known = self._sorted[np.minimum(place, len(self._sorted) - 1)] == keys
        number = np.empty(len(keys), np.int64)
        number[known] = self._order[place[known]]
        fresh = np.flatnonzero(~known)
        number[fresh] = len(self) + np.arange(len(fresh))
        if len(self) + len(fresh) > self.most:
            raise self._too_large()
        if len(fresh):
            added = states.take(first[fresh])
            self.state = concatenate([self.state, added])
            self.correct = np.concatenate([self.correct, self._proportion(added.level)])
            self.expanded = np.concatenate([self.expanded, np.zeros(len(fresh), np.bool_)])
            for name in ("target", "status", "measured", "falling"):
                old = getattr(self, name)
                setattr(self, name, np.concatenate([old, np.zeros((2, len(fresh)), old.dtype)], axis=1))
            self._sorted = np.insert(self._sorted, place[fresh], keys[fresh])
            self._order = np.insert(self._order, place[fresh], number[fresh])
        return number[back]

    def close(self) -> None:
        """Expand until every state that can be reached is known."""
        while not self.expanded.all():
            self.expand(np.flatnonzero(~self.expanded))

    def _too_large(self) -> SpecError:
        instead = "." if self.levels_only else ". Use simulate_design."
        return SpecError(
            f"The exact chain of this rule has more than {self.most} states: step sizes whose ratio "
            f"({self.rule.easier_ratio:g}) is no simple fraction, many reversals or wide limits{instead}"
        )


def as_up_down(procedure: Procedure) -> Staircase:
    """Return the rule with its type, or raise if it has no Markov chain."""
    if not isinstance(procedure, Staircase):
        raise SpecError(
            f"{type(procedure).__name__} has no Markov chain on levels; UpDown, WeightedUpDown and "
            "TransformedWeightedUpDown have. Use simulate_design, which takes any rule."
        )
    return procedure


def target_level(rule: Staircase, listener: Listener) -> float:
    """Return the level of the rule's target proportion; NaN if there is none or the listener cannot say."""
    if not isinstance(listener, PsychometricFunction):
        return math.nan
    level = np.asarray(listener.inverse(rule.target_proportion))
    if level.size != 1:
        raise SpecError(f"listener must be one listener, not {level.size}: give one threshold and one slope.")
    return float(level.reshape(()))
