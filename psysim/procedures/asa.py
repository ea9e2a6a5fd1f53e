"""Stochastic approximation: Robbins and Monro (1951), and accelerated (Kesten, 1958)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from psysim.procedures.base import BoolArray, FloatArray, TrackState, register
from psysim.procedures.level_rule import Estimate, LevelRule, LevelRuleSettings, LevelState, Step

__all__ = ["Asa", "AsaState", "asa_asymptotic_sd"]

MIN_SHIFTS = 2
"""Changes between correct and wrong without which there is no threshold: the level was never bracketed."""


def asa_asymptotic_sd(
    n_trials: int, gain: float, slope: float, target_proportion: float, accelerated: bool = True
) -> float:
    """Return the standard deviation of the threshold after many trials of stochastic approximation.

    With steps ``gain (z - p) / n`` the level after n trials is asymptotically normal around the target level with
    variance ``gain**2 p (1 - p) / (n (2 gain slope - 1))``, if ``2 gain slope > 1`` (Sacks, 1958). It is smallest at
    ``gain = 1 / slope``: ``p (1 - p) / (n slope**2)``. The accelerated rule divides by the number of changes between
    correct and wrong instead, which grows as ``2 p (1 - p) n`` near the target: the same formula holds with the gain
    ``gain / (2 p (1 - p))``.

    Parameters
    ----------
    n_trials : int
        Trials, at least 1.
    gain : float
        The rule's ``gain``, in units of the level.
    slope : float
        Derivative of the proportion correct at the target level, per unit of the level; its sign does not matter.
    target_proportion : float
        Proportion correct that is sought.
    accelerated : bool
        Kesten's rule, or that of Robbins and Monro.

    Returns
    -------
    float
        In the unit of the level; infinite if ``2 gain slope <= 1``, where the level settles more slowly than 1/sqrt(n).

    References
    ----------
    Sacks, J. (1958). Asymptotic distribution of stochastic approximation procedures. Ann. Math. Stat. 29, 373-405.
    Kesten, H. (1958). Accelerated stochastic approximation. Ann. Math. Stat. 29, 41-59.

    Examples
    --------
    >>> round(asa_asymptotic_sd(100, gain=10.0, slope=0.1, target_proportion=0.5, accelerated=False), 3)
    0.5
    """
    spread = target_proportion * (1.0 - target_proportion)
    effective = gain / (2.0 * spread) if accelerated else gain
    excess = 2.0 * effective * abs(slope) - 1.0
    return math.sqrt(effective**2 * spread / (n_trials * excess)) if excess > 0 else math.inf


@dataclass(frozen=True, kw_only=True, eq=False)
class AsaState(LevelState):
    """State of `Asa`.

    Parameters
    ----------
    last : ndarray, shape (B,), int8
        The last answer: 1 correct, -1 wrong, 0 before the first.
    n_answers : ndarray, shape (B,), int32
        Answers so far.
    """

    last: NDArray[np.int8]
    n_answers: NDArray[np.int32]


@register("asa")
class Asa(LevelRule):
    """Stochastic approximation: steps that get smaller, with no assumption about the psychometric function's shape.

    After answer z (1 correct, 0 wrong) the level moves towards harder by ``gain (z - target_proportion) / k``. With
    ``method = "robbins_monro"`` k is the number of the trial. With ``method = "accelerated"`` (default) k is 1 and 2 in
    the first two trials and then 2 plus the number of shifts, changes between correct and wrong; so steps stay large
    until the level is near. A shift is a reversal. The threshold is the level after the last answer. It has no
    standard error from within the track; `asa_asymptotic_sd` gives it for a known slope.

    The track ends after ``n_trials``, or when no step could be ``step_min`` or more.

    Parameters
    ----------
    **settings
        See ``Asa.Settings``; ``level_start`` and ``gain`` are required.

    References
    ----------
    Kesten, H. (1958). Accelerated stochastic approximation. Ann. Math. Stat. 29, 41-59.
    Robbins, H., and Monro, S. (1951). A stochastic approximation method. Ann. Math. Stat. 22, 400-407.
    Treutwein, B. (1995). Adaptive psychophysical procedures. Vision Res. 35, 2503-2522.

    Examples
    --------
    >>> import numpy as np
    >>> rule = Asa(target_proportion=0.75, gain=16.0, level_start=0.0, n_trials=40)
    >>> state = rule.record(rule.init(2), np.array([True, False]))
    >>> rule.next_level(state)
    array([-4., 12.])
    """

    State: ClassVar[type[TrackState]] = AsaState
    description: ClassVar[str] = "accelerated stochastic approximation (Kesten, 1958)"
    example_settings: ClassVar[dict[str, Any]] = {
        "target_proportion": 0.75,
        "gain": 16.0,
        "level_start": -4.0,
        "level_min": -60.0,
        "level_max": 0.0,
        "n_trials": 60,
    }

    class Settings(LevelRuleSettings):
        """Settings of `Asa`."""

        target_proportion: float = Field(default=0.75, gt=0, lt=1, description="proportion correct that is sought")
        method: Literal["accelerated", "robbins_monro"] = Field(
            default="accelerated",
            description="accelerated: steps shrink with every change between correct and wrong (Kesten). "
            "robbins_monro: with every trial",
        )
        gain: float = Field(
            gt=0,
            allow_inf_nan=False,
            description="factor of the steps (c), unit of the level; 1 / slope of the psychometric function is best "
            "for robbins_monro, 2 p (1 - p) / slope for accelerated",
        )
        n_trials: int | None = Field(default=None, ge=3, description="trials after which the track ends")
        step_min: float | None = Field(
            default=None, gt=0, allow_inf_nan=False, description="the track ends when all steps would be smaller"
        )

        def _own_problems(self) -> Iterator[str]:
            if self.n_trials is None and self.step_min is None:
                yield "n_trials is missing: a track ends by n_trials, step_min or both, for instance n_trials = 60."
            if self.n_trials is not None and self.n_trials > self.max_trials:
                yield (
                    f"n_trials = {self.n_trials} is more than max_trials = {self.max_trials}, "
                    "so the stop rule could never be met: raise max_trials."
                )

    @property
    def _asa(self) -> Asa.Settings:
        return cast(Asa.Settings, self.settings)

    @property
    def target_proportion(self) -> float:
        """Proportion correct that is sought."""
        return self._asa.target_proportion

    @property
    def smallest_step(self) -> float:
        """A step that counts: ``step_min``, or the step after all trials."""
        s = self._asa
        return s.step_min or s.gain * min(s.target_proportion, 1 - s.target_proportion) / (2 + (s.n_trials or 0))

    def _fresh(self, n_lanes: int, level: FloatArray) -> dict[str, NDArray[Any]]:
        return {"last": np.zeros(n_lanes, np.int8), "n_answers": np.zeros(n_lanes, np.int32)}

    def _trial(self, state: AsaState, x: FloatArray, right: BoolArray) -> Step:
        s = self._asa
        answer = np.where(right, np.int8(1), np.int8(-1))
        shift = (state.last != 0) & (answer != state.last)
        n, shifts = state.n_answers + 1, state.n_reversals + shift
        divisor = self._divisor(n, shifts)
        stopped = n >= s.n_trials if s.n_trials is not None else np.zeros(len(x), np.bool_)
        if s.step_min is not None:
            largest = s.gain * max(s.target_proportion, 1.0 - s.target_proportion)
            stopped = stopped | (largest / self._divisor(n + 1, shifts) < s.step_min)
        return Step(
            target=x + s.harder * s.gain * (right - s.target_proportion) / divisor,
            reversal=shift,
            stopped=stopped,
            usable=shifts >= MIN_SHIFTS,
            arrays={"last": answer, "n_answers": n},
        )

    def _divisor(self, n: NDArray[Any], shifts: NDArray[Any]) -> NDArray[Any]:
        """Return the divisor of the step of trial ``n`` (from 1)."""
        return n if self._asa.method == "robbins_monro" else np.where(n <= 2, n, 2 + shifts)

    def _estimate(self, state: AsaState) -> Estimate:
        usable = state.n_reversals >= MIN_SHIFTS
        return Estimate(self.to_axis(state.level), np.full(len(state), np.nan), usable.astype(np.int32))

    def describe(self) -> str:
        """Return the rule in sentences for the Methods section of a paper."""
        s = self._asa
        accelerated = s.method == "accelerated"
        name = "Accelerated stochastic approximation (Kesten, 1958)" if accelerated else "Stochastic approximation"
        by = "2 plus the number of changes between correct and wrong" if accelerated else "the number of the trial"
        ends = [f"after {s.n_trials} trials"] if s.n_trials is not None else []
        ends += [f"when all steps would be smaller than {s.step_min:g}"] if s.step_min is not None else []
        return (
            f"{name}{'' if accelerated else ' (Robbins and Monro, 1951)'} tracked {100 * s.target_proportion:.1f} % "
            f"correct. Steps were {s.gain:g}{self.unit} times the difference between the answer (1 or 0) and the "
            f"target, divided by {by}. {s.describe_start()} They ended {' or '.join(ends)}, at most at {s.max_trials} "
            "trials. The threshold is the level after the last answer."
        )
