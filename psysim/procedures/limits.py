"""Method of limits: series of levels that approach the threshold from either side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from psysim.procedures.averaging import average_reversals
from psysim.procedures.base import BoolArray, FloatArray, TrackState, register
from psysim.procedures.keyed import keyed_uniform
from psysim.procedures.level_rule import Estimate, LevelRule, LevelRuleSettings, LevelState, Step, store

__all__ = ["LimitsState", "MethodOfLimits"]

SERIES_STREAM = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class LimitsState(LevelState):
    """State of `MethodOfLimits`.

    Parameters
    ----------
    start : ndarray, shape (B,), float64
        Start of the series towards harder, on the axis of the rule.
    series : ndarray, shape (B,), int32
        Number of the series, from 0; even ones go towards harder.
    opened : ndarray, shape (B,), bool
        Whether the series has had the answer it must start with.
    previous : ndarray, shape (B,), float64
        Level of the last trial, on the axis of the rule.
    crossings : ndarray, shape (B, n_series), float64
        Where each series crossed the threshold, on the axis of the rule.
    """

    start: FloatArray
    series: NDArray[np.int32]
    opened: BoolArray
    previous: FloatArray
    crossings: FloatArray


@register("method_of_limits")
class MethodOfLimits(LevelRule):
    """Method of limits: series towards harder and towards easier in turn, each until the answer changes.

    A correct answer stands for "heard". The first series starts at ``level_start`` and gets harder by ``step`` per
    trial until the sound is not heard; the second starts at ``level_start_hard`` and gets easier until it is; and so
    on. The midpoint between the last two levels of a series is its crossing; the trial that ends a series is a
    reversal. The threshold is the mean of the crossings of ``n_series``.

    A series that starts on the wrong side (not heard at the start of a series towards harder) first goes the other
    way, until it gets the answer it should start with. ``start_jitter`` keeps the number of trials from being a cue:
    each series starts up to that many steps nearer to the other side, drawn at random.

    The two kinds of series err in opposite directions. Where the psychometric function is symmetric around 50 %
    (no guessing, no lapses) the errors cancel. In a forced-choice task guesses end the series too early and the
    threshold means nothing.

    Parameters
    ----------
    **settings
        See ``MethodOfLimits.Settings``; ``level_start``, ``level_start_hard`` and ``step`` are required.

    References
    ----------
    Fechner, G. T. (1860). Elemente der Psychophysik. Breitkopf und Härtel, Leipzig.
    Gescheider, G. A. (1997). Psychophysics: The Fundamentals, 3rd ed. Erlbaum, ch. 3.

    Examples
    --------
    >>> import numpy as np
    >>> rule = MethodOfLimits(level_start=3.0, level_start_hard=-10.0, step=2.0, n_series=2)
    >>> state, levels = rule.init(1), []
    >>> for heard in (True, True, False, False, False, False, True):
    ...     levels.append(float(state.level[0]))
    ...     state = rule.record(state, np.array([heard]))
    >>> levels, rule.summary(state).threshold
    ([3.0, 1.0, -1.0, -10.0, -8.0, -6.0, -4.0], array([-2.5]))
    """

    State: ClassVar[type[TrackState]] = LimitsState
    description: ClassVar[str] = "method of limits"
    example_settings: ClassVar[dict[str, Any]] = {
        "level_start": -4.0,
        "level_start_hard": -30.0,
        "level_min": -60.0,
        "level_max": 0.0,
        "step": 1.0,
        "n_series": 6,
        "start_jitter": 3,
    }

    class Settings(LevelRuleSettings):
        """Settings of `MethodOfLimits`."""

        level_start_hard: float = Field(
            allow_inf_nan=False, description="start of the series towards easier, unit of the level"
        )
        step: float = Field(gt=0, allow_inf_nan=False, description="change of the level from trial to trial")
        n_series: int = Field(default=10, ge=2, description="series in all; even")
        start_jitter: int = Field(
            default=0,
            ge=0,
            description="largest number of steps by which a series (but the first) starts nearer to the other side",
        )

        def _own_problems(self) -> Iterator[str]:
            if self.n_series % 2:
                yield (
                    f"n_series = {self.n_series} is odd, but series of both kinds are averaged in equal numbers: "
                    f"choose {self.n_series + 1}."
                )
            if not self.level_min <= self.level_start_hard <= self.level_max:
                yield (
                    f"level_start_hard = {self.level_start_hard:g} is outside the limits: choose a value from "
                    f"{self.level_min:g} (level_min) to {self.level_max:g} (level_max)."
                )
            if self.step_unit == "db" and self.level_start_hard <= 0:
                yield (
                    f"level_start_hard = {self.level_start_hard:g} must be above 0 for steps in dB (step_unit = 'db')."
                )
            elif (self.level_start_hard - self.level_start) * self.harder <= 0:
                side = "above" if self.harder > 0 else "below"
                yield (
                    f"level_start_hard = {self.level_start_hard:g} is not on the hard side of level_start = "
                    f"{self.level_start:g}: with harder = {self.harder} it must be {side}."
                )
            elif self.start_jitter:
                low, high = sorted((self.level_start, self.level_start_hard))
                room = 20 * np.log10(high / low) if self.step_unit == "db" else high - low
                if self.start_jitter * self.step >= room:
                    yield (
                        f"start_jitter = {self.start_jitter} steps of {self.step:g} reach from one start to the other: "
                        "choose fewer."
                    )

    @property
    def _limits(self) -> MethodOfLimits.Settings:
        return cast(MethodOfLimits.Settings, self.settings)

    @property
    def target_proportion(self) -> float:
        """Proportion of "heard" answers at the threshold: one half, by symmetry."""
        return 0.5

    @property
    def smallest_step(self) -> float:
        """Change of the level from trial to trial."""
        return self._limits.step

    def _fresh(self, n_lanes: int, level: FloatArray) -> dict[str, NDArray[Any]]:
        return {
            "start": level.copy(),
            "series": np.zeros(n_lanes, np.int32),
            "opened": np.zeros(n_lanes, np.bool_),
            "previous": level.copy(),
            "crossings": np.full((n_lanes, self._limits.n_series), np.nan),
        }

    def _trial(self, state: LimitsState, x: FloatArray, right: BoolArray) -> Step:
        s = self._limits
        towards_harder = state.series % 2 == 0
        opening = right == towards_harder  # the answer that a series starts with
        ends = state.opened & ~opening
        crossings = store(state.crossings, state.series, 0.5 * (x + state.previous), ends)
        series = state.series + ends
        onward = x + np.where(right, s.harder, -s.harder) * s.step
        return Step(
            target=np.where(ends, self._series_start(state, series, ends), onward),
            reversal=ends,
            stopped=series >= s.n_series,
            usable=series >= 2,
            arrays={
                "series": series,
                "opened": (state.opened | opening) & ~ends,
                "previous": x,
                "crossings": crossings,
            },
        )

    def _series_start(self, state: LimitsState, series: NDArray[np.int32], needed: BoolArray) -> FloatArray:
        """Return where each series starts, on the axis of the rule."""
        s = self._limits
        hard = float(self.to_axis(np.array([s.level_start_hard]))[0])
        towards_harder = series % 2 == 0
        start = np.where(towards_harder, state.start, hard)
        if s.start_jitter and needed.any():
            lanes = np.flatnonzero(needed)
            u = keyed_uniform(s.seed, state.lane[lanes], trial=series[lanes], stream=SERIES_STREAM)[:, 0]
            nearer = np.where(towards_harder[lanes], s.harder, -s.harder)
            start[lanes] += nearer * s.step * np.floor(u * (s.start_jitter + 1))
        return np.clip(start, *self._axis_limits)

    def _estimate(self, state: LimitsState) -> Estimate:
        n = np.minimum(state.series, self._limits.n_series)
        n = n - n % 2
        # crossings of a series towards harder and of the next one towards easier are a pair, like two reversals
        size = self._limits.n_series
        order = (n[:, np.newaxis] - 1 - np.arange(size)) % size
        threshold, sem = average_reversals(
            np.take_along_axis(state.crossings, order, axis=1), n, np.zeros(len(n), np.bool_)
        )
        return Estimate(threshold, sem, n)

    def describe(self) -> str:
        """Return the rule in sentences for the Methods section of a paper."""
        s = self._limits
        jitter = f", moved at random by up to {s.start_jitter} steps" if s.start_jitter else ""
        return (
            f"The method of limits measured the level of 50.0 % correct. {s.n_series} series went in turn from "
            f"{s.level_start:g} towards harder and from {s.level_start_hard:g} towards easier{jitter}, in steps of "
            f"{s.step:g}{self.unit}, each until the answer changed. {s.describe_start()} They ended after the last "
            f"series, or at {s.max_trials} trials. The threshold is the {self.mean_name} of the midpoints between the "
            "last two levels of each series."
        )
