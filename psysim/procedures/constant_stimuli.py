"""Method of constant stimuli: levels fixed beforehand, in random order, and a threshold from all answers together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator
from scipy.special import chdtrc

from psysim.errors import SpecError
from psysim.procedures.base import (
    FloatArray,
    Procedure,
    ProcedureSettings,
    Status,
    TrackState,
    TrackSummary,
    as_lane_mask,
    register,
)
from psysim.procedures.keyed import keyed_order
from psysim.procedures.psychometric import SHAPES, inverse_psychometric_function
from psysim.procedures.spearman_karber import isotonic, spearman_karber

__all__ = ["ConstantStimuli", "ConstantStimuliState"]

POOR_FIT = 1e-3
"""Chance of a deviance as large below which a step is not taken for the answer of the fit."""

MAX_TRIALS = 100_000
"""Largest number of trials of a track: the order of all of them is kept."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ConstantStimuliState(TrackState):
    """State of `ConstantStimuli` with L levels and N trials in all.

    Parameters
    ----------
    order : ndarray, shape (B, N), int16
        Index of the level of each trial.
    n_presented, n_correct : ndarray, shape (B, L), int32
        Trials, and correct answers, at each level, in ascending order of the levels.
    """

    order: NDArray[np.int16]
    n_presented: NDArray[np.int32]
    n_correct: NDArray[np.int32]


@register("constant_stimuli")
class ConstantStimuli(Procedure):
    """Method of constant stimuli: each of the ``levels`` has ``n_per_level`` trials, in random order.

    The order depends on the seed and the lane only: in ``random_blocks`` (default) each block has every level once;
    ``random`` mixes all trials; ``as_given`` repeats the levels as they are listed.

    The threshold is the level of ``target_proportion`` on a psychometric function fitted to the answers
    (``threshold_from = "fit"``; see `fit_psychometric`), or the Spearman-Karber mean (``"spearman_karber"``), which
    needs no shape and is the level half-way between guess rate and 1 - lapse rate. A track whose answers, made
    monotone, do not cross the target between the lowest and the highest of the levels ends as at_floor or at_ceiling,
    without a threshold. If the answers are a step, all wrong and then all correct, the threshold is known to lie
    within it only: it is given, without a standard error.

    Parameters
    ----------
    **settings
        See ``ConstantStimuli.Settings``; ``levels`` is required.

    References
    ----------
    Gescheider, G. A. (1997). Psychophysics: The Fundamentals, 3rd ed. Erlbaum, ch. 3.
    Miller, J., and Ulrich, R. (2001). On the analysis of psychometric functions: the Spearman-Karber method. Percept.
    Psychophys. 63, 1399-1420.

    Examples
    --------
    >>> import numpy as np
    >>> rule = ConstantStimuli(levels=[-3.0, -1.0, 1.0, 3.0], n_per_level=2, threshold_from="spearman_karber")
    >>> state = rule.init(1)
    >>> while not state.done.all():
    ...     state = rule.record(state, rule.next_level(state) > 0)
    >>> rule.summary(state).threshold
    array([0.])
    """

    State: ClassVar[type[TrackState]] = ConstantStimuliState
    description: ClassVar[str] = "method of constant stimuli"
    example_settings: ClassVar[dict[str, Any]] = {
        "levels": [-24.0, -20.0, -16.0, -12.0, -8.0],
        "level_min": -60.0,
        "level_max": 0.0,
        "n_per_level": 8,
        "target_proportion": 0.75,
        "guess_rate": 0.5,
    }

    class Settings(ProcedureSettings):
        """Settings of `ConstantStimuli`."""

        levels: list[float] = Field(min_length=2, description="the levels, unit of the level; each once")
        n_per_level: int = Field(default=20, ge=1, description="trials at each level")
        order: Literal["random_blocks", "random", "as_given"] = Field(
            default="random_blocks", description="order of the trials"
        )
        target_proportion: float | None = Field(
            default=None,
            gt=0,
            lt=1,
            description="proportion correct at the threshold; if not given, half-way between guess_rate and "
            "1 - lapse_rate",
        )
        threshold_from: Literal["fit", "spearman_karber"] = Field(
            default="fit",
            description="fit: from a psychometric function fitted to the answers; spearman_karber: without a shape",
        )
        shape: Literal["logistic", "cumulative_gaussian", "weibull", "gumbel", "log_quick"] = Field(
            default="logistic", description="family of the fitted function"
        )
        guess_rate: float = Field(default=0.0, ge=0, lt=1, description="proportion correct far on the hard side")
        lapse_rate: float = Field(default=0.0, ge=0, lt=1, description="1 minus the proportion far on the easy side")
        level_start: float | None = Field(
            default=None,
            description="level at which sounds are checked before a run (no track starts there); the easiest of levels "
            "if not given",
        )
        level_min: float = Field(default=-math.inf, description="lowest level allowed, unit of the level")
        level_max: float = Field(default=math.inf, description="highest level allowed, unit of the level")
        seed: int = Field(default=0, ge=0, lt=2**64, description="key of the random order")

        @model_validator(mode="before")
        @classmethod
        def _fill_in(cls, values: Any) -> Any:
            levels = values.get("levels") if isinstance(values, dict) else None
            if not levels or values.get("level_start") is not None:
                return values
            if not (isinstance(levels, list) and all(isinstance(x, int | float) for x in levels)):
                return values
            return {**values, "level_start": float(min(levels) if values.get("harder", -1) == 1 else max(levels))}

        @model_validator(mode="after")
        def _check_together(self) -> Self:
            problems = []
            if len(set(self.levels)) != len(self.levels):
                problems.append(f"levels = {self.levels} names a level twice: give each once.")
            outside = [x for x in self.levels if not (self.level_min <= x <= self.level_max and math.isfinite(x))]
            if outside:
                problems.append(
                    f"levels: {outside[0]:g} is outside the limits: choose values from {self.level_min:g} (level_min) "
                    f"to {self.level_max:g} (level_max)."
                )
            if len(self.levels) * self.n_per_level > MAX_TRIALS:
                problems.append(f"levels times n_per_level must be at most {MAX_TRIALS} trials.")
            if self.guess_rate + self.lapse_rate >= 1:
                problems.append("guess_rate and lapse_rate must have a sum below 1.")
            elif self.target_proportion is not None:
                low, high = self.guess_rate, 1 - self.lapse_rate
                if not low < self.target_proportion < high:
                    problems.append(
                        f"target_proportion = {self.target_proportion:g} must lie between guess_rate ({low:g}) and "
                        f"1 - lapse_rate ({high:g})."
                    )
                elif self.threshold_from == "spearman_karber" and abs(self.target_proportion - (low + high) / 2) > 1e-9:
                    problems.append(
                        f"target_proportion = {self.target_proportion:g} does not fit threshold_from = "
                        f"'spearman_karber', which finds {(low + high) / 2:g}: leave it out."
                    )
            if SHAPES[self.shape].log_axis and min(self.levels) <= 0 and self.threshold_from == "fit":
                problems.append(f"levels must be above 0 for shape = '{self.shape}'; for levels in dB use 'gumbel'.")
            if problems:
                raise ValueError("\n".join(problems))
            return self

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        s = self._constant
        self._levels = np.sort(np.array(s.levels))
        self._n_trials = len(s.levels) * s.n_per_level

    @property
    def _constant(self) -> ConstantStimuli.Settings:
        return cast(ConstantStimuli.Settings, self.settings)

    @property
    def target_proportion(self) -> float:
        """Proportion correct at the threshold."""
        s = self._constant
        return 0.5 * (s.guess_rate + 1.0 - s.lapse_rate) if s.target_proportion is None else s.target_proportion

    def init(self, n_lanes: int, level_start: ArrayLike | None = None) -> ConstantStimuliState:
        """Return ``n_lanes`` fresh tracks, each with its order of trials.

        Raises
        ------
        SpecError
            If ``n_lanes`` is negative, or a starting level is given: the levels are fixed.
        """
        if n_lanes < 0:
            raise SpecError(f"n_lanes = {n_lanes} must be at least 0.")
        if level_start is not None:
            raise SpecError("level_start: constant stimuli have no starting level; their levels are given by `levels`.")
        order = self._order(n_lanes)
        counts = np.zeros((n_lanes, len(self._levels)), np.int32)
        return ConstantStimuliState(
            level=self._levels[order[:, 0]],
            n_trials=np.zeros(n_lanes, np.int32),
            status=np.full(n_lanes, Status.RUNNING, np.int8),
            last_reversal=np.zeros(n_lanes, np.bool_),
            order=order,
            n_presented=counts,
            n_correct=counts.copy(),
        )

    def _order(self, n_lanes: int) -> NDArray[np.int16]:
        """Return the index of the level of each trial, shape (B, N)."""
        s, lanes, n_levels = self._constant, np.arange(n_lanes), len(self._levels)
        if s.order == "as_given":
            once = np.searchsorted(self._levels, s.levels)
            return np.tile(once, (n_lanes, s.n_per_level)).astype(np.int16)
        if s.order == "random":
            return (keyed_order(s.seed, lanes, self._n_trials) % n_levels).astype(np.int16)
        lane, block = np.repeat(lanes, s.n_per_level), np.tile(np.arange(s.n_per_level), n_lanes)
        return keyed_order(s.seed, lane, n_levels, trial=block).reshape(n_lanes, self._n_trials).astype(np.int16)

    def record(
        self, state: TrackState, correct: ArrayLike, live: ArrayLike | None = None, invalid: ArrayLike | None = None
    ) -> ConstantStimuliState:
        """Return the state after one trial of every live lane; ``state`` is unchanged. See `Procedure.record`."""
        state, n_lanes = self._own(state), len(state)
        right = as_lane_mask("correct", correct, n_lanes)
        counted = ~state.done
        if live is not None:
            counted &= as_lane_mask("live", live, n_lanes)
        broken = np.zeros(n_lanes, np.bool_)
        if invalid is not None:
            broken = counted & as_lane_mask("invalid", invalid, n_lanes)
        lanes = np.flatnonzero(counted & ~broken)
        here = state.order[lanes, state.n_trials[lanes]]
        n_presented, n_correct = state.n_presented.copy(), state.n_correct.copy()
        n_presented[lanes, here] += 1
        n_correct[lanes, here] += right[lanes]
        n_trials = state.n_trials + counted
        status, level = state.status.copy(), state.level.copy()
        status[broken] = Status.INVALID_OUTPUT
        over = lanes[n_trials[lanes] >= self._n_trials]
        status[over] = self._final_status(n_correct[over], n_presented[over])
        crossed = over[status[over] == Status.CONVERGED]
        found, _ = self._estimate(n_correct[crossed], n_presented[crossed])
        status[crossed[np.isnan(found)]] = Status.MAX_TRIALS
        onward = lanes[n_trials[lanes] < self._n_trials]
        level[onward] = self._levels[state.order[onward, n_trials[onward]]]
        return ConstantStimuliState(
            level=level,
            n_trials=n_trials,
            status=status,
            last_reversal=state.last_reversal,
            order=state.order,
            n_presented=n_presented,
            n_correct=n_correct,
        )

    def _final_status(self, n_correct: NDArray[np.int32], n_presented: NDArray[np.int32]) -> NDArray[np.int8]:
        """Converged if the answers, made monotone, cross the target between the levels; else the end they point to."""
        smooth = isotonic(*self._hard_to_easy(n_correct, n_presented))
        floor_is_hard = self._constant.harder < 0
        hard, easy = (Status.AT_FLOOR, Status.AT_CEILING) if floor_is_hard else (Status.AT_CEILING, Status.AT_FLOOR)
        status = np.where(smooth[:, -1] < self.target_proportion, np.int8(easy), np.int8(Status.CONVERGED))
        return np.where(smooth[:, 0] > self.target_proportion, np.int8(hard), status)

    def _hard_to_easy(self, *counts: NDArray[Any]) -> list[NDArray[Any]]:
        """Return arrays over levels in the order from the hardest to the easiest."""
        return [a if self._constant.harder < 0 else a[..., ::-1] for a in counts]

    def summary(self, state: TrackState) -> TrackSummary:
        """Return the thresholds and how the tracks ended. See `TrackSummary`; ``n_averaged`` counts trials here."""
        state = self._own(state)
        lanes = np.flatnonzero(state.status == Status.CONVERGED)
        threshold, sem = np.full(len(state), np.nan), np.full(len(state), np.nan)
        if len(lanes):
            threshold[lanes], sem[lanes] = self._estimate(state.n_correct[lanes], state.n_presented[lanes])
        zeros = np.zeros(len(state), np.int32)
        return TrackSummary(
            threshold=threshold,
            threshold_sem=sem,
            n_trials=state.n_trials.copy(),
            n_reversals=zeros,
            status=state.status.copy(),
            n_averaged=np.where(np.isfinite(threshold), state.n_trials, 0).astype(np.int32),
            n_limit_moves=zeros.copy(),
        )

    def _estimate(self, n_correct: NDArray[np.int32], n_presented: NDArray[np.int32]) -> tuple[FloatArray, FloatArray]:
        """Return thresholds, NaN where the answers give none, and their standard errors."""
        if not len(n_correct):
            return np.empty(0), np.empty(0)
        by_fit = self._constant.threshold_from == "fit"
        return (self._by_fit if by_fit else self._by_mean)(n_correct, n_presented)

    def _by_fit(self, n_correct: NDArray[np.int32], n_presented: NDArray[np.int32]) -> tuple[FloatArray, FloatArray]:
        """Return the levels of the target proportion on fitted functions, and their standard errors."""
        from psysim.procedures.fitting import FitStatus, fit_psychometric

        s, target = self._constant, self.target_proportion
        fits = fit_psychometric(
            self._levels,
            n_correct,
            n_presented,
            guess_rate=s.guess_rate,
            lapse_rate=s.lapse_rate,
            shape=s.shape,
            harder=s.harder,
        )
        step = (fits.status == FitStatus.SEPARATED) & self._crosses(fits.threshold, n_correct, n_presented)
        # a step that the answers do not follow is a second maximum of the likelihood, not the threshold
        step &= chdtrc(max(len(self._levels) - 2, 1), fits.deviance) > POOR_FIT
        threshold = np.where(step, fits.threshold, fits.threshold_at(target))
        inside = (threshold >= self._levels[0]) & (threshold <= self._levels[-1])
        sem = np.full(len(threshold), np.nan)
        good = np.flatnonzero(fits.converged & inside)
        if len(good):  # first order: derivatives of the level by the fitted threshold and slope
            place = np.stack([fits.threshold[good], fits.slope[good]])
            size = np.stack([np.full(len(good), 1e-4 * np.ptp(self._levels)), 1e-4 * np.abs(place[1])])
            gradient = np.empty((len(good), 2))
            for i, change in enumerate((size * [[1], [0]], size * [[0], [1]])):
                up, down = (self._level_of(target, place + sign * change) for sign in (1, -1))
                gradient[:, i] = (up - down) / (2 * size[i])
            sem[good] = np.sqrt(np.einsum("bi,bij,bj->b", gradient, fits.covariance[good, :2, :2], gradient))
        return np.where(inside, threshold, np.nan), sem

    def _crosses(
        self, level: FloatArray, n_correct: NDArray[np.int32], n_presented: NDArray[np.int32]
    ) -> NDArray[np.bool_]:
        """Return whether the answers, made monotone, cross the target around a level of each lane."""
        levels, right, trials = self._hard_to_easy(self._levels, n_correct, n_presented)
        smooth, harder = isotonic(right, trials), levels * self._constant.harder
        last_below = np.where(smooth < self.target_proportion, harder, np.inf).min(axis=1)
        first_above = np.where(smooth > self.target_proportion, harder, -np.inf).max(axis=1)
        place = level * self._constant.harder
        return np.asarray((place <= last_below) & (place >= first_above))

    def _level_of(self, target: float, place: FloatArray) -> FloatArray:
        """Return the level of the target on functions whose thresholds and slopes are the rows of ``place``."""
        s = self._constant
        return inverse_psychometric_function(target, place[0], place[1], s.guess_rate, s.lapse_rate, shape=s.shape)

    def _by_mean(self, n_correct: NDArray[np.int32], n_presented: NDArray[np.int32]) -> tuple[FloatArray, FloatArray]:
        """Return Spearman-Karber thresholds and their standard errors."""
        s = self._constant
        levels, right, trials = self._hard_to_easy(self._levels, n_correct, n_presented)
        return spearman_karber(levels, right, trials, s.guess_rate, s.lapse_rate)

    def _own(self, state: TrackState) -> ConstantStimuliState:
        if not isinstance(state, ConstantStimuliState):
            raise SpecError(
                f"ConstantStimuli works on a ConstantStimuliState made by its init, not on a {type(state).__name__}."
            )
        return state

    def describe(self) -> str:
        """Return the rule in sentences for the Methods section of a paper."""
        s = self._constant
        levels = ", ".join(f"{level:g}" for level in s.levels)
        order = {
            "random_blocks": "in random order within blocks of one trial per level",
            "random": "in random order",
            "as_given": "in fixed order",
        }[s.order]
        threshold = (
            f"a {s.shape.replace('_', ' ')} psychometric function (guess rate {s.guess_rate:.3g}, lapse rate "
            f"{s.lapse_rate:.3g}) fitted by maximum likelihood"
            if s.threshold_from == "fit"
            else "the Spearman-Karber method"
        )
        return (
            f"Constant stimuli at {levels} were presented {s.n_per_level} times each, {order}. The threshold, "
            f"{100 * self.target_proportion:.1f} % correct, comes from {threshold}."
        )
