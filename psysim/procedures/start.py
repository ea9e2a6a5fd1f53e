"""Where tracks start, and between which limits: settings that all rules with a tracked level share."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from psysim.errors import SpecError
from psysim.procedures.base import FloatArray, ProcedureSettings
from psysim.procedures.keyed import keyed_uniform

__all__ = ["START_STREAM", "StartSettings", "start_levels"]

START_STREAM = 255
"""Stream of the random numbers that choose the starting levels."""


class StartSettings(ProcedureSettings):
    """Start and limits of a track."""

    level_start: float = Field(allow_inf_nan=False, description="level of the first trial, unit of the level")
    level_start_range: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="width of the range around level_start from which each track draws its start (uniform; unit of "
        "the level, or dB if step_unit = db); 0: all tracks start at level_start",
    )
    level_min: float = Field(default=-math.inf, description="lowest level allowed, unit of the level")
    level_max: float = Field(default=math.inf, description="highest level allowed, unit of the level")
    step_unit: Literal["level", "db"] = Field(
        default="level",
        description="level: steps are added, in the unit of the level. db: the level is multiplied or divided by "
        "10 ** (step / 20), so that 6.02 doubles it, and thresholds are geometric means",
    )
    seed: int = Field(
        default=0,
        ge=0,
        lt=2**64,
        description="key of the random numbers that the rule itself draws (starting levels, orders); each lane has its "
        "own, whatever lanes are beside it",
    )

    @property
    def lowest(self) -> float:
        """``level_min``, at least 0 where the level is multiplied."""
        return max(self.level_min, 0.0) if self.step_unit == "db" else self.level_min

    def shifted(self, level: ArrayLike, by: ArrayLike) -> FloatArray:
        """Return ``level`` moved by ``by``: added, or as a factor ``10 ** (by / 20)`` for steps in dB."""
        levels, moves = np.asarray(level, dtype=np.float64), np.asarray(by, dtype=np.float64)
        return levels * 10.0 ** (moves / 20.0) if self.step_unit == "db" else levels + moves

    def _level_problems(self) -> Iterator[str]:
        if not self.level_min < self.level_max:
            yield (
                f"level_min = {self.level_min:g} is not below level_max = {self.level_max:g}: "
                "exchange the two, or leave one out."
            )
        elif not self.level_min <= self.level_start <= self.level_max:
            yield (
                f"level_start = {self.level_start:g} is outside the limits: "
                f"choose a value from {self.level_min:g} (level_min) to {self.level_max:g} (level_max)."
            )
        elif self.level_start_range:
            low, high = (float(self.shifted(self.level_start, sign * self.level_start_range / 2)) for sign in (-1, 1))
            if low < self.level_min or high > self.level_max:
                yield (
                    f"level_start_range = {self.level_start_range:g} reaches from {low:g} to {high:g}, beyond the "
                    f"limits {self.level_min:g} (level_min) and {self.level_max:g} (level_max): choose a smaller one."
                )
        if self.step_unit == "db":
            if self.level_start <= 0:
                yield (
                    f"level_start = {self.level_start:g} cannot be multiplied by steps in dB (step_unit = 'db'): "
                    "choose a level above 0, or step_unit = 'level'."
                )
            if -math.inf < self.level_min < 0:
                yield (
                    f"level_min = {self.level_min:g} cannot be reached with steps in dB (step_unit = 'db'): "
                    "choose 0 or more, or leave it out."
                )

    def describe_start(self) -> str:
        """Return where tracks start and their limits, in a sentence."""
        unit = " dB" if self.step_unit == "db" else ""
        drawn = (
            f", drawn at random from a range of {self.level_start_range:g}{unit} around it"
            if self.level_start_range
            else ""
        )
        return (
            f"Tracks started at {self.level_start:g}{drawn}, "
            f"within the limits {self.level_min:g} and {self.level_max:g}."
        )


def start_levels(settings: StartSettings, n_lanes: int, level_start: ArrayLike | None = None) -> FloatArray:
    """Return the starting levels of fresh tracks, shape (n_lanes,).

    Parameters
    ----------
    settings : StartSettings
        Start, its range, limits and seed.
    n_lanes : int
        Number of tracks; they are the lanes 0 to n_lanes - 1 of the random numbers.
    level_start : array_like, shape () or (n_lanes,), optional
        Levels to start from; they replace ``level_start`` and its range.

    Raises
    ------
    SpecError
        If ``n_lanes`` is negative or a level is outside the limits.
    """
    if n_lanes < 0:
        raise SpecError(f"n_lanes = {n_lanes} must be at least 0.")
    s = settings
    if level_start is None:
        level = np.full(n_lanes, s.level_start, dtype=np.float64)
        if s.level_start_range:
            u = keyed_uniform(s.seed, np.arange(n_lanes), stream=START_STREAM)[:, 0]
            level = np.clip(s.shifted(level, s.level_start_range * (u - 0.5)), s.lowest, s.level_max)
        return level
    starts = np.asarray(level_start, dtype=np.float64)
    if starts.shape not in ((), (n_lanes,)):
        raise SpecError(f"level_start must be one level or {n_lanes} levels, not an array {starts.shape}.")
    bad = ~(np.isfinite(starts) & (starts >= s.lowest) & (starts <= s.level_max))
    if s.step_unit == "db":
        bad |= starts <= 0
    if bad.any():
        first = np.atleast_1d(starts)[np.atleast_1d(bad)][0]
        raise SpecError(
            f"level_start = {first:g} is outside the limits: "
            f"choose a value from {s.lowest:g} (level_min) to {s.level_max:g} (level_max)."
        )
    return np.full(n_lanes, starts, dtype=np.float64)
