"""What a tracking rule makes of a listener whose psychometric function is known: bias, spread and length of tracks.

Any rule is run to its end on thousands of simulated tracks side by side. Answers are keyed random numbers: a track
depends on the seed and its own number only, and two rules hear the same luck.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from psysim.errors import SpecError
from psysim.procedures.base import FloatArray, Procedure, Status, TrackSummary, concatenate, registry
from psysim.procedures.bayes import BayesRule
from psysim.procedures.convergence import expected_threshold
from psysim.procedures.keyed import keyed_uniform
from psysim.procedures.psychometric import PsychometricFunction
from psysim.procedures.session import run_to_end

__all__ = ["Design", "compare_designs", "simulate_design"]

RESPONSE = 6
"""Purpose of the random numbers that decide an answer, as in `psysim.rng.Purpose`."""

BAYES_LANES = 1000
"""Tracks of a Bayesian rule side by side: each holds a probability per candidate."""

Rule: TypeAlias = Procedure | Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Design:
    """Simulated tracks of one rule, and what they say of it.

    Mean, bias and spread are those of converged tracks, as in the tables of a run; trials and shares are of all tracks.

    Parameters
    ----------
    procedure : Procedure
        The rule.
    level_target : float
        Level at which the listener's proportion correct is the rule's target proportion, unit of the level.
    threshold : ndarray, shape (B,), float64
        Thresholds, unit of the level; NaN for tracks that did not converge.
    n_trials : ndarray, shape (B,), int32
        Trials of each track.
    status : ndarray, shape (B,), int8
        `Status` values.
    """

    procedure: Procedure
    level_target: float
    threshold: FloatArray
    n_trials: NDArray[np.int32]
    status: NDArray[np.int8]

    @property
    def in_db(self) -> bool:
        """Whether bias and spread are in dB, because the rule's steps are factors of the level."""
        return getattr(self.procedure.settings, "step_unit", "level") == "db"

    @property
    def errors(self) -> FloatArray:
        """Threshold minus ``level_target`` of the converged tracks, shape (C,); in dB for steps in dB."""
        found = self.threshold[np.isfinite(self.threshold)]
        return np.asarray(20.0 * np.log10(found / self.level_target) if self.in_db else found - self.level_target)

    @property
    def bias(self) -> float:
        """Mean error of a threshold; NaN if no track converged."""
        return float(self.errors.mean()) if self.n_converged else math.nan

    @property
    def bias_sem(self) -> float:
        """Standard error of ``bias``: what the number of simulated tracks leaves open."""
        return self.sem(self.n_converged) if self.n_converged else math.nan

    @property
    def std(self) -> float:
        """Standard deviation of the threshold of one track; NaN if fewer than two tracks converged."""
        return float(self.errors.std(ddof=1)) if self.n_converged > 1 else math.nan

    @property
    def rmse(self) -> float:
        """Root of the mean squared error of the threshold of one track."""
        return float(np.sqrt(np.mean(self.errors**2))) if self.n_converged else math.nan

    def sem(self, n_tracks: int) -> float:
        """Return the standard error of the mean threshold of ``n_tracks`` tracks; the bias stays."""
        if n_tracks < 1:
            raise SpecError(f"n_tracks = {n_tracks} must be at least 1.")
        return self.std / math.sqrt(n_tracks)

    @property
    def n_converged(self) -> int:
        """Number of converged tracks."""
        return int(np.isfinite(self.threshold).sum())

    @property
    def mean_trials(self) -> float:
        """Mean number of trials of a track."""
        return float(self.n_trials.mean())

    def trials_percentile(self, percent: float) -> float:
        """Return the number of trials that ``percent`` % of the tracks do not exceed."""
        return float(np.percentile(self.n_trials, percent, method="inverted_cdf"))

    @property
    def shares(self) -> dict[str, float]:
        """Share of the tracks by how they end: names of `Status` in lower case, those that do not occur left out."""
        counts = np.bincount(self.status, minlength=len(Status))
        return {Status(k).name.lower(): float(n / len(self.status)) for k, n in enumerate(counts) if n}


def simulate_design(procedure: Rule, listener: PsychometricFunction, n_tracks: int = 10_000, seed: int = 0) -> Design:
    """Run a rule on simulated tracks and return bias, spread and length of its tracks.

    Parameters
    ----------
    procedure : Procedure or mapping
        The rule, or its settings as in the ``[procedure]`` table of an experiment file (``kind``, default "up_down",
        is its name).
    listener : PsychometricFunction
        The listener, one threshold and slope.
    n_tracks : int
        Number of tracks, at least 2. Bayesian rules take about a hundred times as long as others: 1,000 are a start.
    seed : int
        Key of the answers, 0 to 2**64 - 1.

    Returns
    -------
    Design

    Raises
    ------
    SpecError
        If the settings are wrong, or the listener never reaches the rule's target proportion or gets better in the
        direction that the rule takes as harder.

    Examples
    --------
    >>> from psysim.procedures import PsychometricFunction
    >>> listener = PsychometricFunction(threshold=-14.0, slope=0.1, guess_rate=1 / 3)
    >>> design = simulate_design({"n_down": 3, "level_start": -4.0, "steps": [4.0, 2.0, 1.0]}, listener, n_tracks=1000)
    >>> round(design.bias, 1), round(design.std, 1), round(design.mean_trials), design.shares
    (0.3, 0.9, 58, {'converged': 1.0})
    """
    if isinstance(n_tracks, bool) or not isinstance(n_tracks, int) or n_tracks < 2:
        raise SpecError(f"n_tracks = {n_tracks!r} must be a whole number of at least 2.")
    rule = _rule(procedure)
    level_target = np.asarray(expected_threshold(listener, rule))
    if level_target.size != 1:
        raise SpecError(f"listener must be one listener, not {level_target.size}: give one threshold and one slope.")
    summary = _simulate(rule, listener, n_tracks, seed)
    converged = summary.status == Status.CONVERGED
    return Design(
        procedure=rule,
        level_target=float(level_target.reshape(())),
        threshold=np.where(converged, summary.threshold, np.nan),
        n_trials=summary.n_trials,
        status=summary.status,
    )


def compare_designs(
    procedures: Mapping[str, Rule], listener: PsychometricFunction, n_tracks: int = 10_000, seed: int = 0
) -> dict[str, Design]:
    """Run several rules on the same listener, with the same luck; see `simulate_design`.

    Parameters
    ----------
    procedures : mapping of str to Procedure or mapping
        Rules by a name of yours.
    listener, n_tracks, seed
        As for `simulate_design`.

    Returns
    -------
    dict of str to Design
        In the order of ``procedures``.

    Raises
    ------
    SpecError
        As for `simulate_design`.

    Examples
    --------
    >>> from psysim.procedures import PsychometricFunction
    >>> rules = {f"{n}-down": {"n_down": n, "level_start": -4.0, "steps": [4.0, 1.0]} for n in (2, 3)}
    >>> designs = compare_designs(rules, PsychometricFunction(-14.0, 0.1, 1 / 3), n_tracks=500)
    >>> designs["3-down"].mean_trials > designs["2-down"].mean_trials
    True
    """
    rules = {name: _rule(procedure) for name, procedure in procedures.items()}
    return {name: simulate_design(rule, listener, n_tracks, seed) for name, rule in rules.items()}


def _rule(procedure: Rule) -> Procedure:
    """Return the rule that settings describe."""
    if isinstance(procedure, Procedure):
        return procedure
    settings = dict(procedure)
    return registry.get(str(settings.pop("kind", "up_down")))(**settings)


def _simulate(rule: Procedure, listener: PsychometricFunction, n_tracks: int, seed: int) -> TrackSummary:
    """Return the summary of simulated tracks, in their order."""
    fresh = rule.init(n_tracks)
    size = BAYES_LANES if isinstance(rule, BayesRule) else n_tracks
    parts = []
    for start in range(0, n_tracks, size):
        here = np.arange(start, min(start + size, n_tracks))

        def answer(level: FloatArray, lane: NDArray[np.int64], trial: int, first: int = start) -> NDArray[np.bool_]:
            uniform = keyed_uniform(seed, first + lane, trial=trial, purpose=RESPONSE)[:, 0]
            return np.asarray(uniform < listener(level))

        parts.append(run_to_end(rule, fresh.take(here), answer))
    return rule.summary(concatenate(parts))
