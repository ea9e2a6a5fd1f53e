"""What the Bayesian rules have in common: the posterior of every lane, stopping, thresholds, limits.

A rule gives the candidates (`BayesRule.make_grid`) and chooses the next stimulus from the posterior
(`BayesRule.place`). The order of events in a trial:

1. The posterior is multiplied by the likelihood of the answer.
2. The stop rule is asked, then max_trials.
3. A track that stops without a threshold within the range that was looked at has not converged. It is at_floor if the
   posterior gives at least 0.5 to thresholds at or below level_min, or if the answers alone, whatever the prior says,
   are best explained by the lowest candidate (as after right answers only); at_ceiling in the same way above.
4. Tracks that go on get their next stimulus.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr

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
from psysim.procedures.bayes_grid import CandidateGrid, chunks
from psysim.procedures.bayes_settings import BayesSettings

__all__ = ["BayesRule", "BayesState"]

AT_LIMIT = 0.5
"""Posterior probability of thresholds at or beyond a limit from which on a track is said to be at that limit."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BayesState(TrackState):
    """State of a Bayesian rule.

    Parameters
    ----------
    stimulus : ndarray, shape (B,), int32
        Number of the next stimulus in the grid of stimuli.
    log_posterior : ndarray, shape (B, P), float64
        Logarithm of the posterior of the candidates, less its largest value.
    """

    stimulus: NDArray[np.int32]
    log_posterior: FloatArray


class BayesRule(Procedure):
    """Base of the rules that keep a posterior over candidates; see `QuestPlus` for the most general one."""

    Settings: ClassVar[type[ProcedureSettings]] = BayesSettings
    State: ClassVar[type[TrackState]] = BayesState

    @property
    def rule(self) -> BayesSettings:
        """The settings, with their type."""
        return cast(BayesSettings, self.settings)

    # -- what a rule gives -----------------------------------------------------------------------------------------

    @abstractmethod
    def make_grid(self) -> CandidateGrid:
        """Return stimuli, candidates, likelihoods and prior."""

    @abstractmethod
    def thresholds_of_candidates(self) -> FloatArray:
        """Return the threshold that each candidate has, (P,), in the unit of the level."""

    def place(self, posterior: FloatArray, memory: dict[str, NDArray[Any]]) -> NDArray[np.int32]:
        """Return the next stimulus (B,) for posteriors (B, P) and the rule's own arrays of the same lanes."""
        return self.grid.most_informative(posterior)

    def fresh_memory(self, n_lanes: int) -> dict[str, NDArray[Any]]:
        """Return the rule's own arrays at the start of a track."""
        return {}

    def remember(self, state: BayesState, outcome: NDArray[np.intp], active: BoolArray) -> dict[str, NDArray[Any]]:
        """Return the rule's own arrays after an answer of the active lanes."""
        return {}

    # -- grid ------------------------------------------------------------------------------------------------------

    @cached_property
    def grid(self) -> CandidateGrid:
        """Stimuli, candidates, likelihoods and prior."""
        return self.make_grid()

    @cached_property
    def candidate_thresholds(self) -> FloatArray:
        """Threshold of each candidate, (P,), in the unit of the level."""
        return self.thresholds_of_candidates()

    @cached_property
    def _cells(self) -> FloatArray:
        """Variance of the threshold within the cell of each candidate, (P,)."""
        index = np.arange(self.grid.n_candidates) // (self.grid.n_candidates // len(self.grid.axes[0]))
        return _cell_variance(self.grid.axes[0])[index]

    def mean_sd(self, posterior: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return mean and SD of the threshold, (B,) each, for posteriors (B, P); for the SD see `summary`."""
        return _mean_sd(posterior, self.candidate_thresholds, self._cells)

    @cached_property
    def _first(self) -> int:
        """Number of the first stimulus that the rule chooses."""
        return int(self.place(self._posterior(self.grid.log_prior[np.newaxis]), self.fresh_memory(1))[0])

    def nearest_stimulus(self, level: ArrayLike) -> NDArray[np.int32]:
        """Return the number of the first stimulus with the level nearest to each of ``level`` (B,)."""
        levels, inverse = np.unique(self.grid.stimuli[:, 0], return_index=True)
        wanted = np.asarray(level, dtype=np.float64)
        right = np.clip(np.searchsorted(levels, wanted), 1, max(1, len(levels) - 1))
        right = np.minimum(right, len(levels) - 1)
        left = np.maximum(right - 1, 0)
        return inverse[np.where(wanted - levels[left] <= levels[right] - wanted, left, right)].astype(np.int32)

    @cached_property
    def _prior_odds(self) -> FloatArray:
        """Largest prior of a value of the first parameter over that of each value; 0 where it is 0."""
        prior = self.grid.marginal(self.grid.prior[np.newaxis], 0)[0]
        return np.divide(prior.max(), prior, out=np.zeros_like(prior), where=prior > 0)

    # -- the interface ---------------------------------------------------------------------------------------------

    def init(self, n_lanes: int, level_start: ArrayLike | None = None) -> BayesState:
        """Return ``n_lanes`` fresh tracks.

        Levels given here are those of the first trial, whatever ``first_trial`` says, moved to the nearest of the grid.

        Raises
        ------
        SpecError
            If ``n_lanes`` is negative or a starting level is outside the limits.
        """
        if n_lanes < 0:
            raise SpecError(f"n_lanes = {n_lanes} must be at least 0.")
        if level_start is None and self.rule.first_trial == "level_start":
            level_start = self.rule.level_start
        if level_start is None:
            stimulus = np.full(n_lanes, self._first, np.int32)
        else:
            starts = np.asarray(level_start, dtype=np.float64)
            if starts.shape not in ((), (n_lanes,)):
                raise SpecError(f"level_start must be one level or {n_lanes} levels, not an array {starts.shape}.")
            low, high = self.grid.stimuli[:, 0].min(), self.grid.stimuli[:, 0].max()
            bad = ~((starts >= low) & (starts <= high))
            if bad.any():
                first = np.atleast_1d(starts)[np.atleast_1d(bad)][0]
                raise SpecError(
                    f"level_start = {first:g} is outside the limits: choose a value from {low:g} (level_min) to "
                    f"{high:g} (level_max)."
                )
            stimulus = np.broadcast_to(self.nearest_stimulus(starts), (n_lanes,)).copy()
        return self._state(
            level=self.grid.stimuli[stimulus, 0],
            n_trials=np.zeros(n_lanes, np.int32),
            status=np.full(n_lanes, Status.RUNNING, np.int8),
            last_reversal=np.zeros(n_lanes, np.bool_),
            stimulus=stimulus,
            log_posterior=np.tile(self.grid.log_prior, (n_lanes, 1)),
            **self.fresh_memory(n_lanes),
        )

    def next_stimulus(self, state: TrackState) -> FloatArray:
        """Return the stimuli of the next trial, (B, D); the first column is the level."""
        return self.grid.stimuli[self._own(state).stimulus]

    def record(
        self, state: TrackState, correct: ArrayLike, live: ArrayLike | None = None, invalid: ArrayLike | None = None
    ) -> BayesState:
        """Return the state after one trial of every live lane; ``state`` is unchanged. See `Procedure.record`.

        Raises
        ------
        SpecError
            If the rule has more than two outcomes; then `record_outcome` is meant.
        """
        if self.grid.n_outcomes != 2:
            raise SpecError(f"This rule has {self.grid.n_outcomes} outcomes, not right and wrong: use record_outcome.")
        return self.record_outcome(state, as_lane_mask("correct", correct, len(state)).astype(np.intp), live, invalid)

    def record_outcome(
        self, state: TrackState, outcome: ArrayLike, live: ArrayLike | None = None, invalid: ArrayLike | None = None
    ) -> BayesState:
        """Return the state after one trial, the outcomes of which are numbered.

        Parameters
        ----------
        state : TrackState
            B lanes.
        outcome : array_like of int, shape (B,)
            Number of the outcome, from 0 to R - 1 (0 wrong and 1 right if there are two).
        live, invalid : array_like of bool, shape (B,), optional
            As for `record`.

        Raises
        ------
        SpecError
            If an outcome of a live lane is out of range, or a shape is wrong.
        """
        state, n_lanes = self._own(state), len(state)
        outcomes = np.asarray(outcome)
        if outcomes.shape != (n_lanes,) or not np.issubdtype(outcomes.dtype, np.integer):
            raise SpecError(
                f"outcome must be an array of integers of shape ({n_lanes},); got {outcomes.dtype} {outcomes.shape}."
            )
        counted = ~state.done
        if live is not None:
            counted &= as_lane_mask("live", live, n_lanes)
        broken = counted & ~np.isfinite(state.level)
        if invalid is not None:
            broken |= counted & as_lane_mask("invalid", invalid, n_lanes)
        active = counted & ~broken
        outside = active & ((outcomes < 0) | (outcomes >= self.grid.n_outcomes))
        if outside.any():
            raise SpecError(
                f"outcome = {outcomes[outside][0]} is out of range: from 0 to {self.grid.n_outcomes - 1} are allowed."
            )
        outcomes = outcomes.astype(np.intp)
        memory = self.remember(state, outcomes, active)
        n_trials = (state.n_trials + counted).astype(np.int32)
        status = np.where(broken, np.int8(Status.INVALID_OUTPUT), state.status).astype(np.int8)
        stimulus, log_posterior = state.stimulus.copy(), state.log_posterior.copy()
        rows = np.flatnonzero(active)
        for part in chunks(len(rows), self.grid.n_candidates):
            lanes = rows[part]
            log_weights = log_posterior[lanes] + self.grid.log_likelihood[stimulus[lanes], outcomes[lanes]]
            log_weights -= log_weights.max(axis=1, keepdims=True)
            log_posterior[lanes] = log_weights
            posterior = self._posterior(log_weights)
            status[lanes] = self._status(n_trials[lanes], posterior)
            going = status[lanes] == Status.RUNNING
            lanes, posterior = lanes[going], posterior[going]
            stimulus[lanes] = self.place(posterior, {name: array[lanes] for name, array in memory.items()})
        return self._state(
            level=self.grid.stimuli[stimulus, 0],
            n_trials=n_trials,
            status=status,
            last_reversal=np.zeros(n_lanes, np.bool_),
            stimulus=stimulus,
            log_posterior=log_posterior,
            **memory,
        )

    def posterior(self, state: TrackState) -> FloatArray:
        """Return the posterior of the candidates of each lane, (B, P); rows sum to 1."""
        return self._posterior(self._own(state).log_posterior)

    def estimates(self, state: TrackState) -> dict[str, tuple[FloatArray, FloatArray]]:
        """Return posterior mean and SD of each parameter, by name, (B,) each; for the SD see `summary`."""
        posterior = self.posterior(state)
        return {
            name: _mean_sd(self.grid.marginal(posterior, k), self.grid.axes[k], _cell_variance(self.grid.axes[k]))
            for k, name in enumerate(self.grid.names)
        }

    def summary(self, state: TrackState) -> TrackSummary:
        """Return the thresholds, with the posterior SD as their standard error, and how the tracks ended.

        A candidate stands for all thresholds around it, as far as half-way to the next: a twelfth of the squared
        distance of candidates is part of the posterior variance, so that a coarse grid does not look exact.
        Thresholds are NaN unless the status is converged or max_trials. There are no reversals: their numbers are 0.
        """
        state = self._own(state)
        n_lanes = len(state)
        threshold, sd = np.full(n_lanes, np.nan), np.full(n_lanes, np.nan)
        rows = np.flatnonzero(np.isin(state.status, (Status.CONVERGED, Status.MAX_TRIALS)))
        for part in chunks(len(rows), self.grid.n_candidates):
            lanes = rows[part]
            posterior = self._posterior(state.log_posterior[lanes])
            mean, sd[lanes] = self.mean_sd(posterior)
            threshold[lanes] = self.statistic(posterior, mean)
        zeros = np.zeros(n_lanes, np.int32)
        return TrackSummary(
            threshold=threshold,
            threshold_sem=sd,
            n_trials=state.n_trials.copy(),
            n_reversals=zeros,
            status=state.status.copy(),
            n_averaged=zeros.copy(),
            n_limit_moves=zeros.copy(),
        )

    def statistic(self, posterior: FloatArray, mean: FloatArray | None = None) -> FloatArray:
        """Return mean, mode or median of the threshold, (B,), for posteriors (B, P)."""
        values, kind = self.candidate_thresholds, self.rule.threshold_statistic
        if kind == "mode":
            return values[np.argmax(posterior, axis=1)]
        if kind == "median":
            return self.quantile(posterior, 0.5)
        return self.mean_sd(posterior)[0] if mean is None else mean

    def quantile(self, posterior: FloatArray, order: float) -> FloatArray:
        """Return a quantile of the threshold, (B,), for posteriors (B, P).

        Half of a candidate's probability lies on each side of its value; between two values it is interpolated.
        """
        ascending = np.argsort(self.candidate_thresholds, kind="stable")
        values = self.candidate_thresholds[ascending]
        weights = np.ascontiguousarray(posterior[:, ascending])
        middle = np.cumsum(weights, axis=1) - 0.5 * weights
        right = np.clip(np.sum(middle < order, axis=1), 1, len(values) - 1)
        below, above = (np.take_along_axis(middle, i[:, np.newaxis], axis=1)[:, 0] for i in (right - 1, right))
        share = np.clip((order - below) / np.where(above > below, above - below, 1.0), 0.0, 1.0)
        return values[right - 1] + share * (values[right] - values[right - 1])

    # -- inside ----------------------------------------------------------------------------------------------------

    def _state(self, **arrays: NDArray[Any]) -> BayesState:
        return cast(type[BayesState], self.State)(**arrays)

    def _own(self, state: TrackState) -> BayesState:
        """Return ``state`` with its type, or raise if it belongs to another rule."""
        if type(state) is not self.State:
            name = type(state).__name__
            raise SpecError(
                f"{type(self).__name__} works on a {self.State.__name__} made by its init, not on a {name}."
            )
        own = cast(BayesState, state)
        if own.log_posterior.shape[1] != self.grid.n_candidates:
            raise SpecError(
                f"The state has {own.log_posterior.shape[1]} candidates, this rule {self.grid.n_candidates}: "
                "it was made with other settings."
            )
        return own

    @staticmethod
    def _posterior(log_weights: FloatArray) -> FloatArray:
        """Return probabilities (B, P) from logarithms whose largest is 0."""
        weights = np.exp(log_weights)
        weights /= weights.sum(axis=1, keepdims=True)
        return weights

    def _status(self, n_trials: NDArray[np.int32], posterior: FloatArray) -> NDArray[np.int8]:
        """Status of active lanes after an answer: the stop rule, max_trials, then the limits."""
        s = self.rule
        stopped = np.zeros(len(n_trials), np.bool_) if s.n_trials is None else n_trials >= s.n_trials
        if s.sd_below is not None or s.entropy_below is not None:
            sharp = n_trials >= s.min_trials
            if s.sd_below is not None:
                sharp &= self.mean_sd(posterior)[1] < s.sd_below
            if s.entropy_below is not None:
                sharp &= entr(posterior).sum(axis=1) / math.log(2.0) < s.entropy_below
            stopped |= sharp
        late = np.where(n_trials >= s.max_trials, np.int8(Status.MAX_TRIALS), np.int8(Status.RUNNING))
        status = np.where(stopped, np.int8(Status.CONVERGED), late)
        ended = np.flatnonzero(status != Status.RUNNING)
        if len(ended):
            floor, ceiling = self.at_limits(posterior[ended])
            limit = np.where(floor, np.int8(Status.AT_FLOOR), np.int8(Status.AT_CEILING))
            status[ended] = np.where(floor | ceiling, limit, status[ended])
        return status

    def at_limits(self, posterior: FloatArray) -> tuple[BoolArray, BoolArray]:
        """Return whether posteriors (B, P) say that the threshold lies at or beyond the lower, or the upper limit."""
        levels, values = self.grid.stimuli[:, 0], self.candidate_thresholds
        slack = 1e-9 * (levels.max() - levels.min())
        evidence = self.grid.marginal(posterior, 0) * self._prior_odds
        highest = evidence.max(axis=1) * (1.0 - 1e-9)
        below = (posterior * (values <= levels.min() + slack)).sum(axis=1)
        above = (posterior * (values >= levels.max() - slack)).sum(axis=1)
        floor = (evidence[:, 0] >= highest) | (below >= AT_LIMIT)
        return floor, ((evidence[:, -1] >= highest) | (above >= AT_LIMIT)) & ~floor

    def describe_ending(self) -> str:
        """Return start, stop rule and threshold in sentences."""
        s = self.rule
        stops = [] if s.n_trials is None else [f"after {s.n_trials} trials"]
        sharp = [] if s.sd_below is None else [f"the posterior SD of the threshold was below {s.sd_below:g}"]
        sharp += [] if s.entropy_below is None else [f"the entropy of the posterior was below {s.entropy_below:g} bits"]
        if sharp:
            stops.append(f"as soon as {' and '.join(sharp)} after at least {s.min_trials} trials")
        start = f"The first trial had the level {s.level_start:g}. " if s.first_trial == "level_start" else ""
        return (
            f"{start}Tracks ended {' or '.join(stops)}, or at {s.max_trials} trials. "
            f"The threshold is the {s.threshold_statistic} of the posterior, its standard error the posterior SD."
        )


def _cell_variance(axis: FloatArray) -> FloatArray:
    """Return the variance of a uniform distribution over the cell of each value; 0 for a single value."""
    return np.gradient(axis) ** 2 / 12.0 if len(axis) > 1 else np.zeros(1)


def _mean_sd(posterior: FloatArray, values: FloatArray, cells: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return mean and SD (B,) of values (P,) in cells of variance (P,) under posteriors (B, P), row by row."""
    mean = (posterior * values).sum(axis=1)
    deviation = values - mean[:, np.newaxis]
    return mean, np.sqrt((posterior * (deviation * deviation + cells)).sum(axis=1))
