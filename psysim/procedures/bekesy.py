"""Békésy tracking: the level glides, and the answer turns its direction (von Békésy, 1947)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from psysim.procedures.averaging import average_reversals
from psysim.procedures.base import BoolArray, FloatArray, TrackState, register
from psysim.procedures.level_rule import Estimate, LevelRule, LevelRuleSettings, LevelState, Step, store

__all__ = ["Bekesy", "BekesyState"]


@dataclass(frozen=True, kw_only=True, eq=False)
class BekesyState(LevelState):
    """State of `Bekesy`.

    Parameters
    ----------
    direction : ndarray, shape (B,), int8
        Direction of the glide: 1 rising, -1 falling levels, 0 before the first answer.
    reversal_levels : ndarray, shape (B, R), float64
        Levels at the reversals that are averaged, on the axis of the rule, the oldest first.
    """

    direction: NDArray[np.int8]
    reversal_levels: FloatArray


@register("bekesy")
class Bekesy(LevelRule):
    """Békésy tracking: the level moves at a fixed rate, towards harder while the sound is heard, else towards easier.

    A correct answer stands for "heard" (the key is pressed). Each trial moves the level by ``rate``, or by
    ``rate_start`` until the first reversal. A trial whose answer turns the direction is a reversal, at the level it was
    presented at. The first ``n_skip`` reversals are left out; the threshold is the mean of the midpoints of the
    excursions between the next ``n_reversals``, that is the mean of upper and lower reversals in equal numbers.

    In a task without guessing it settles at 50 %. With guessing it settles where half of the answers are correct too;
    in a forced-choice task with two intervals that is chance, so use it for "do you hear it" only. As one trial of
    a simulation is one decision, ``rate`` stands for the attenuation in the time between two decisions.

    Parameters
    ----------
    **settings
        See ``Bekesy.Settings``; ``level_start`` and ``rate`` are required.

    References
    ----------
    von Bekesy, G. (1947). A new audiometer. Acta Oto-Laryngol. 35, 411-422.

    Examples
    --------
    >>> import numpy as np
    >>> rule = Bekesy(level_start=40.0, rate=2.0)
    >>> state = rule.record(rule.init(2), np.array([True, False]))
    >>> rule.next_level(state)
    array([38., 42.])
    """

    State: ClassVar[type[TrackState]] = BekesyState
    description: ClassVar[str] = "Békésy tracking"
    example_settings: ClassVar[dict[str, Any]] = {
        "level_start": -4.0,
        "level_min": -60.0,
        "level_max": 0.0,
        "rate": 1.0,
        "rate_start": 4.0,
    }

    class Settings(LevelRuleSettings):
        """Settings of `Bekesy`."""

        rate: float = Field(gt=0, allow_inf_nan=False, description="change of the level per trial")
        rate_start: float | None = Field(
            default=None, gt=0, allow_inf_nan=False, description="the same until the first reversal; if not given, rate"
        )
        n_reversals: int = Field(default=10, ge=2, description="reversals that are averaged; even")
        n_skip: int = Field(default=2, ge=0, description="reversals at the beginning that are left out")

        def _own_problems(self) -> Iterator[str]:
            if self.n_reversals % 2:
                yield (
                    f"n_reversals = {self.n_reversals} is odd, but upper and lower reversals are averaged in equal "
                    f"numbers: choose {self.n_reversals + 1}."
                )
            if self.n_reversals + self.n_skip >= self.max_trials:
                yield (
                    f"n_reversals = {self.n_reversals} and n_skip = {self.n_skip} cannot be reached in max_trials = "
                    f"{self.max_trials} trials: raise max_trials."
                )

    @property
    def _bekesy(self) -> Bekesy.Settings:
        return cast(Bekesy.Settings, self.settings)

    @property
    def target_proportion(self) -> float:
        """Proportion of "heard" answers at which the rule settles: one half."""
        return 0.5

    @property
    def smallest_step(self) -> float:
        """Change of the level per trial."""
        return self._bekesy.rate

    def _fresh(self, n_lanes: int, level: FloatArray) -> dict[str, NDArray[Any]]:
        return {
            "direction": np.zeros(n_lanes, np.int8),
            "reversal_levels": np.full((n_lanes, self._bekesy.n_reversals), np.nan),
        }

    def _trial(self, state: BekesyState, x: FloatArray, right: BoolArray) -> Step:
        s = self._bekesy
        wanted = np.where(right, s.harder, -s.harder).astype(np.int8)
        reversal = (state.direction != 0) & (wanted != state.direction)
        n_reversals = state.n_reversals + reversal
        rate = np.where(n_reversals == 0, s.rate_start or s.rate, s.rate)
        n_kept = n_reversals - s.n_skip
        return Step(
            target=x + wanted * rate,
            reversal=reversal,
            stopped=n_kept >= s.n_reversals,
            usable=n_kept >= 2,
            arrays={
                "direction": wanted,
                "reversal_levels": store(state.reversal_levels, n_kept - 1, x, reversal),
            },
        )

    def _estimate(self, state: BekesyState) -> Estimate:
        kept = np.clip(state.n_reversals - self._bekesy.n_skip, 0, self._bekesy.n_reversals)
        n = kept - kept % 2  # the newest is left out if there is one too many
        size = self._bekesy.n_reversals
        order = (n[:, np.newaxis] - 1 - np.arange(size)) % size
        # an upper reversal is one after which the track fell; the one before the newest is of the other kind
        falling = np.where(kept % 2 == 0, state.direction < 0, state.direction > 0)
        newest_first = np.take_along_axis(state.reversal_levels, order, axis=1)
        threshold, sem = average_reversals(newest_first, n, falling)
        return Estimate(threshold, sem, n)

    def describe(self) -> str:
        """Return the rule in sentences for the Methods section of a paper."""
        s = self._bekesy
        start = "" if s.rate_start is None else f", and by {s.rate_start:g}{self.unit} until the first reversal"
        return (
            f"Bekesy tracking (von Bekesy, 1947) changed the level by {s.rate:g}{self.unit} per trial{start}, towards "
            f"harder while the sound was heard and towards easier while it was not; it settles at 50.0 % correct. "
            f"{s.describe_start()} They ended after {s.n_skip + s.n_reversals} reversals, or at {s.max_trials} trials. "
            f"The threshold is the {self.mean_name} of the levels at the last {s.n_reversals} reversals."
        )
