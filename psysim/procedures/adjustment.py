"""Method of adjustment: the observer moves the level until it fits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from psysim.procedures.base import BoolArray, FloatArray, TrackState, register
from psysim.procedures.keyed import keyed_uniform
from psysim.procedures.level_rule import Estimate, LevelRule, LevelRuleSettings, LevelState, Step, store

__all__ = ["Adjustment", "AdjustmentState"]

SETTING_STREAM = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class AdjustmentState(LevelState):
    """State of `Adjustment`.

    Parameters
    ----------
    start : ndarray, shape (B,), float64
        Start of the track, on the axis of the rule; the settings start around it.
    setting : ndarray, shape (B,), int32
        Settings made so far.
    direction : ndarray, shape (B,), int8
        Direction of the last move of the present setting: 1 rising, -1 falling levels, 0 before the first.
    n_turns : ndarray, shape (B,), int32
        Reversals of the present setting.
    last_turn : ndarray, shape (B,), float64
        Level at the last of them, on the axis of the rule.
    settings : ndarray, shape (B, n_settings), float64
        The settings, on the axis of the rule.
    """

    start: FloatArray
    setting: NDArray[np.int32]
    direction: NDArray[np.int8]
    n_turns: NDArray[np.int32]
    last_turn: FloatArray
    settings: FloatArray


@register("adjustment")
class Adjustment(LevelRule):
    """Method of adjustment: each answer is a move of the level, and a setting is made by going back and forth.

    A correct answer stands for "too much" (heard; higher than the standard) and moves the level towards harder, a wrong
    one for "too little" and moves it towards easier. The move has the first size of ``steps``; each change of direction
    within a setting (a reversal) brings the next size. After ``n_turns`` reversals the setting is made: it is the
    midpoint of the levels at the last two. The next setting starts at a level drawn at random from
    ``setting_range`` around the start of the track. The threshold is the mean of ``n_settings`` settings, with the
    standard error of that mean.

    It settles where both answers are equally likely: the threshold of a yes/no judgement, or the point of subjective
    equality of a comparison. It is not meant for forced choice.

    Parameters
    ----------
    **settings
        See ``Adjustment.Settings``; ``level_start`` and ``steps`` are required.

    References
    ----------
    Gescheider, G. A. (1997). Psychophysics: The Fundamentals, 3rd ed. Erlbaum, ch. 3.

    Examples
    --------
    >>> import numpy as np
    >>> rule = Adjustment(level_start=0.0, steps=[4.0, 1.0], n_turns=2, n_settings=1)
    >>> state, levels = rule.init(1), []
    >>> for too_much in (True, False, False, True):
    ...     levels.append(float(state.level[0]))
    ...     state = rule.record(state, np.array([too_much]))
    >>> levels, rule.summary(state).threshold
    ([0.0, -4.0, -3.0, -2.0], array([-3.]))
    """

    State: ClassVar[type[TrackState]] = AdjustmentState
    description: ClassVar[str] = "method of adjustment"
    example_settings: ClassVar[dict[str, Any]] = {
        "level_start": -20.0,
        "level_min": -60.0,
        "level_max": 0.0,
        "steps": [4.0, 2.0, 1.0],
        "n_turns": 4,
        "n_settings": 4,
        "setting_range": 10.0,
    }

    class Settings(LevelRuleSettings):
        """Settings of `Adjustment`."""

        steps: list[float] = Field(description="sizes of a move, largest first, by reversals within a setting")
        n_turns: int = Field(default=4, ge=2, description="reversals that make a setting")
        n_settings: int = Field(default=6, ge=1, description="settings that are averaged")
        setting_range: float = Field(
            default=0.0,
            ge=0,
            allow_inf_nan=False,
            description="width of the range around the start of the track from which the second and later settings "
            "draw their starts (uniform)",
        )

        def _own_problems(self) -> Iterator[str]:
            if not self.steps or not all(0 < step < float("inf") for step in self.steps):
                yield f"steps = {self.steps} must have at least one size, all above 0, for instance [4.0, 2.0, 1.0]."
            elif any(later >= earlier for earlier, later in pairwise(self.steps)):
                yield f"steps = {self.steps} must be descending, the largest first."
            low, high = (self.shifted(self.level_start, sign * self.setting_range / 2) for sign in (-1, 1))
            if self.setting_range and (low < self.level_min or high > self.level_max):
                yield (
                    f"setting_range = {self.setting_range:g} reaches from {low:g} to {high:g}, beyond the limits "
                    f"{self.level_min:g} (level_min) and {self.level_max:g} (level_max): choose a smaller one."
                )

    @property
    def _adjustment(self) -> Adjustment.Settings:
        return cast(Adjustment.Settings, self.settings)

    @property
    def target_proportion(self) -> float:
        """Proportion of "too much" answers at which the rule settles: one half."""
        return 0.5

    @property
    def smallest_step(self) -> float:
        """The smallest move."""
        return self._adjustment.steps[-1]

    def _fresh(self, n_lanes: int, level: FloatArray) -> dict[str, NDArray[Any]]:
        return {
            "start": level.copy(),
            "setting": np.zeros(n_lanes, np.int32),
            "direction": np.zeros(n_lanes, np.int8),
            "n_turns": np.zeros(n_lanes, np.int32),
            "last_turn": np.full(n_lanes, np.nan),
            "settings": np.full((n_lanes, self._adjustment.n_settings), np.nan),
        }

    def _trial(self, state: AdjustmentState, x: FloatArray, right: BoolArray) -> Step:
        s = self._adjustment
        wanted = np.where(right, s.harder, -s.harder).astype(np.int8)
        turned = (state.direction != 0) & (wanted != state.direction)
        n_turns = state.n_turns + turned
        made = n_turns >= s.n_turns
        setting = state.setting + made
        size = np.array(s.steps)[np.minimum(n_turns, len(s.steps) - 1)]
        return Step(
            target=np.where(made, self._setting_start(state, setting, made), x + wanted * size),
            reversal=turned,
            stopped=setting >= s.n_settings,
            usable=setting >= 1,
            arrays={
                "setting": setting,
                "direction": np.where(made, np.int8(0), wanted),
                "n_turns": np.where(made, 0, n_turns),
                "last_turn": np.where(turned, x, state.last_turn),
                "settings": store(state.settings, state.setting, 0.5 * (x + state.last_turn), made),
            },
        )

    def _setting_start(self, state: AdjustmentState, setting: NDArray[np.int32], needed: BoolArray) -> FloatArray:
        """Return where the next setting of each lane starts, on the axis of the rule."""
        s, start = self._adjustment, state.start.copy()
        if s.setting_range and needed.any():
            lanes = np.flatnonzero(needed)
            u = keyed_uniform(s.seed, state.lane[lanes], trial=setting[lanes], stream=SETTING_STREAM)[:, 0]
            start[lanes] += s.setting_range * (u - 0.5)
        return np.clip(start, *self._axis_limits)

    def _estimate(self, state: AdjustmentState) -> Estimate:
        n = np.minimum(state.setting, self._adjustment.n_settings)
        made = np.arange(self._adjustment.n_settings) < n[:, np.newaxis]
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(made, state.settings, 0.0).sum(axis=1) / n
            squares = (np.where(made, state.settings - mean[:, np.newaxis], 0.0) ** 2).sum(axis=1)
            sem = np.where(n >= 2, np.sqrt(squares / (n - 1) / n), np.nan)
        return Estimate(mean, sem, n)

    def describe(self) -> str:
        """Return the rule in sentences for the Methods section of a paper."""
        s = self._adjustment
        steps = ", ".join(f"{step:g}" for step in s.steps)
        around = f" from starts drawn at random within {s.setting_range:g}{self.unit}" if s.setting_range else ""
        return (
            "The level was adjusted to 50.0 % correct (the two answers equally likely): each answer moved it, by "
            f"{steps}{self.unit}, the size changing with each reversal. A setting was made after {s.n_turns} "
            f"reversals; it is the midpoint of the last two. {s.describe_start()} They ended after {s.n_settings} "
            f"settings{around}, or at {s.max_trials} trials. The threshold is the {self.mean_name} of the settings."
        )
