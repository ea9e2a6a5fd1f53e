"""Mean and spread of the thresholds of an up-down rule, exactly, from its Markov chain.

A track of an up-down rule is a Markov chain on (level, answers in a row, direction, step, reversals, what the limits
did). Carried along with the probability of each state are the first two moments of the sum of the measured reversal
levels: an answer that makes a measured reversal at level x turns the probability w and the moments a = E[S] and
b = E[S**2] into w, a + x w and b + 2 x a + x**2 w. One forward step per trial until all tracks have ended gives the
mean and the standard deviation of the thresholds, and how long tracks are, without simulation.

States that hold less than `NEGLIGIBLE` of the probability are dropped; all of them together stay below 1e-7.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from psysim.errors import NumericsError, SpecError
from psysim.procedures._chain import Listener, RuleChain, as_up_down, target_level
from psysim.procedures.base import FloatArray, Procedure, Status
from psysim.procedures.staircase import Staircase

__all__ = ["TrackDistribution", "track_distribution"]

NEGLIGIBLE = 1e-15
"""Probability of a state below which it is dropped."""


@dataclass(frozen=True, eq=False)
class TrackDistribution:
    """Exact expectations of a track: threshold over converged tracks, trials and status over all.

    Parameters
    ----------
    mean : float
        Mean threshold of converged tracks, unit of the level; for steps in dB the geometric mean. NaN if none
        converges.
    std : float
        Standard deviation of these thresholds, unit of the level; for steps in dB it is in dB.
    level_target : float
        Level at which the listener's proportion correct is the target proportion of the rule, unit of the level. NaN
        if the listener is no `PsychometricFunction` or never reaches it.
    trial_probability : ndarray, shape (N + 1,), float64
        Probability that a track has 0, 1, ..., N trials.
    shares : dict of str to float
        Share of the tracks by how they end, names of `Status` in lower case; those that do not occur are left out.
    in_db : bool
        Whether ``std`` and ``bias`` are in dB because the steps are.
    n_states : int
        States of the chain.
    """

    mean: float
    std: float
    level_target: float
    trial_probability: FloatArray
    shares: dict[str, float]
    in_db: bool
    n_states: int

    @property
    def bias(self) -> float:
        """``mean`` minus ``level_target``; in dB for steps in dB."""
        if self.in_db:
            return float(20.0 * np.log10(self.mean / self.level_target))
        return self.mean - self.level_target

    @property
    def n_trials(self) -> float:
        """Mean number of trials of a track, of all tracks."""
        p = self.trial_probability
        return float(np.arange(len(p)) @ p / p.sum())

    @property
    def n_trials_std(self) -> float:
        """Standard deviation of the number of trials, of all tracks."""
        p, n = self.trial_probability, np.arange(len(self.trial_probability)) - self.n_trials
        return float(np.sqrt(n**2 @ p / p.sum()))


def track_distribution(procedure: Procedure, listener: Listener) -> TrackDistribution:
    """Return the exact mean and standard deviation of the threshold of an up-down rule, and the length of its tracks.

    Steps, step changes, limits, stop rule and the reversals that are averaged are those of the rule: its own
    transitions are followed. With steps that change, the start matters and is included.

    Parameters
    ----------
    procedure : Procedure
        An up-down rule: `UpDown`, `WeightedUpDown` or `TransformedWeightedUpDown`.
    listener : callable
        Level to proportion correct, vectorised: a `PsychometricFunction` or a function of your own.

    Returns
    -------
    TrackDistribution

    Raises
    ------
    SpecError
        If the rule has no such chain (another kind of rule, starts drawn from a range, thresholds that are medians, or
        the last reversals where trials end the track), or too large a one; `simulate_design` takes any rule.

    References
    ----------
    Kaernbach, C. (1991). Simple adaptive testing with the weighted up-down method. Percept. Psychophys. 49, 227-229
    (Markov chains of up-down rules).

    Examples
    --------
    >>> from psysim.procedures import PsychometricFunction, UpDown
    >>> rule = UpDown(n_down=3, level_start=-4.0, steps=[4.0, 2.0, 1.0])
    >>> listener = PsychometricFunction(threshold=-14.0, slope=0.1, guess_rate=1 / 3)
    >>> found = track_distribution(rule, listener)
    >>> round(found.bias, 2), round(found.std, 2), round(found.n_trials, 1)
    (0.22, 0.86, 58.4)
    """
    rule = as_up_down(procedure)
    _check_threshold(rule)
    return _Forward(rule, listener).run()


def _check_threshold(rule: Staircase) -> None:
    """Raise unless the threshold is a sum of reversal levels whose weights are known when they occur."""
    s, reason = rule.rule, ""
    if s.level_start_range:
        reason = f"level_start_range = {s.level_start_range:g} starts tracks at any level"
    elif s.threshold_statistic != "mean":
        reason = f"threshold_statistic = '{s.threshold_statistic}' is no sum of reversal levels"
    elif s.threshold_from == "last_n_reversals" and s.stop != "reversals":
        reason = f"threshold_from = 'last_n_reversals' with stop = '{s.stop}' depends on reversals that come later"
    if reason:
        raise SpecError(f"{reason}, so this rule has no exact chain. Use simulate_design.")


@dataclass
class _Sums:
    """What has ended so far."""

    trials: list[float] = field(default_factory=lambda: [0.0])
    status: FloatArray = field(default_factory=lambda: np.zeros(len(Status)))
    moments: FloatArray = field(default_factory=lambda: np.zeros(3))


class _Forward:
    """Forward pass: probability and moments of all states, trial by trial.

    The five rows of ``moments`` are the probability, the two moments of the weighted sum of measured reversal levels,
    and the same two without the earliest measured reversal (an odd one is left out of the average).
    """

    def __init__(self, rule: Staircase, listener: Listener) -> None:
        self.rule, self.s = rule, rule.rule
        self.level_target = target_level(rule, listener)
        self.chain = RuleChain(rule, listener)
        usable = np.isfinite(self.level_target) and (self.level_target > 0 or not self.in_db)
        centre = np.array([self.level_target if usable else self.s.level_start])
        self.centre = float(self.chain.axis(centre)[0])  # moments about it: no cancellation
        first_late = [self.s.max_trials]
        if "trials" in self.s.stop.split("_") and self.s.n_trials is not None:
            first_late.append(self.s.n_trials)
        self.first_late = min(first_late)
        self.sums = _Sums()

    @property
    def in_db(self) -> bool:
        """Whether steps are factors."""
        return self.s.step_unit == "db"

    def run(self) -> TrackDistribution:
        """Return the distribution when all tracks have ended."""
        moments = np.zeros((5, 1))
        moments[0] = 1.0
        for trial in range(1, self.s.max_trials + 1):
            states = np.flatnonzero(moments[0] > NEGLIGIBLE)
            if not len(states):
                break
            self.chain.expand(states)
            moments = self._step(states, moments[:, states], trial)
        return self._result()

    def _step(self, states: NDArray[np.int64], moments: FloatArray, trial: int) -> FloatArray:
        """Return the moments of all states after one more trial; what ends is added to the sums."""
        following = np.zeros((5, len(self.chain)))
        ended_now = 0.0
        correct = self.chain.correct[states]
        for answer, probability in enumerate((1.0 - correct, correct)):
            moved = self._with_reversals(states, answer, moments * probability)
            status = self.chain.status[answer, states]
            if trial >= self.first_late:  # ask the rule again, with the number of trials
                status = self.chain.after(states, bool(answer), trial - 1).status
            goes_on = status == Status.RUNNING
            target = self.chain.target[answer, states[goes_on]]
            for row in range(5):
                following[row] += np.bincount(target, moved[row, goes_on], minlength=len(self.chain))
            ended_now += float(moved[0, ~goes_on].sum())
            self.sums.status += np.bincount(status[~goes_on], moved[0, ~goes_on], minlength=len(Status))
            done = status == Status.CONVERGED
            n = self.chain.state.n_measured[states[done]] + self.chain.measured[answer, states[done]]
            self._add_thresholds(n, moved[:, done])
        self.sums.trials.append(ended_now)
        return following

    def _with_reversals(self, states: NDArray[np.int64], answer: int, moments: FloatArray) -> FloatArray:
        """Return the moments with the levels of the reversals that this answer makes at some states."""
        chain, s = self.chain, self.s
        before = chain.state.n_measured[states]
        counts = chain.measured[answer, states]
        if s.threshold_from == "last_n_reversals":
            counts = counts & (before >= (s.n_reversals or 0) - (s.threshold_n_reversals or 0))
        weight = np.full(len(states), 0.5)
        if s.upper_weight is not None:
            weight = np.where(chain.falling[answer, states], s.upper_weight, 1.0 - s.upper_weight)
        x = np.where(counts, weight * (chain.axis(chain.state.level[states]) - self.centre), 0.0)
        later = np.where(before > 0, x, 0.0)
        w, a, b, a2, b2 = moments
        with_all = [a + x * w, b + x * (2.0 * a + x * w)]
        return np.stack([w, *with_all, a2 + later * w, b2 + later * (2.0 * a2 + later * w)])

    def _add_thresholds(self, n: NDArray[np.integer], moments: FloatArray) -> None:
        """Add tracks that end with ``n`` measured reversals; an odd earliest one may be left out."""
        whole = np.ones(len(n), np.bool_)
        if self.s.threshold_from == "last_n_reversals":
            n = np.full(len(n), self.s.threshold_n_reversals)
        elif self.s.even_reversals:
            whole = n % 2 == 0
            n = n - n % 2
        a, b = (np.where(whole, moments[1 + k], moments[3 + k]) for k in (0, 1))
        scale = 2.0 / np.maximum(n, 1)  # the weights of a pair add up to 1
        self.sums.moments += [moments[0].sum(), (scale * a).sum(), (scale**2 * b).sum()]

    def _result(self) -> TrackDistribution:
        weight, first, second = self.sums.moments
        total = float(self.sums.status.sum())
        if abs(total - 1.0) > 1e-6:
            raise NumericsError(f"The probabilities of all tracks add up to {total:.9f} and not to 1.")
        mean, std = np.nan, np.nan
        if weight > 0:
            mean = self.centre + first / weight
            std = float(np.sqrt(max(0.0, second / weight - (first / weight) ** 2)))
        shares = {Status(k).name.lower(): float(v) for k, v in enumerate(self.sums.status) if v > 0}
        return TrackDistribution(
            mean=float(10.0 ** (mean / 20.0) if self.in_db else mean),
            std=std,
            level_target=self.level_target,
            trial_probability=np.array(self.sums.trials),
            shares=shares,
            in_db=self.in_db,
            n_states=len(self.chain),
        )
