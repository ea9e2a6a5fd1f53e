"""Levels that an up-down rule visits in the long run, exactly, from its Markov chain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from psysim.errors import NumericsError, SpecError
from psysim.procedures._chain import Listener, RuleChain, as_up_down, target_level
from psysim.procedures.base import FloatArray, Procedure
from psysim.procedures.staircase import Staircase

__all__ = ["LevelDistribution", "level_distribution"]

WIDTHS = (32, 128, 512)
"""Half widths, in largest moves, of the range in which levels without limits are looked for."""

EDGE = 1e-9
"""Largest probability of the ends of that range."""


@dataclass(frozen=True, eq=False)
class LevelDistribution:
    """Levels that a rule visits in the long run with its smallest step.

    Parameters
    ----------
    level : ndarray, shape (L,), float64
        Levels, ascending.
    probability : ndarray, shape (L,), float64
        Share of the trials at each of them; the sum is 1.
    in_db : bool
        Whether ``std`` is in dB because the steps are.
    """

    level: FloatArray
    probability: FloatArray
    in_db: bool = False

    @property
    def _axis(self) -> FloatArray:
        return 20.0 * np.log10(self.level) if self.in_db else self.level

    @property
    def mean(self) -> float:
        """Mean level over trials; the geometric mean for steps in dB."""
        mean = float(self._axis @ self.probability)
        return float(10.0 ** (mean / 20.0)) if self.in_db else mean

    @property
    def std(self) -> float:
        """Standard deviation of the level over trials; in dB for steps in dB."""
        x = self._axis
        return float(np.sqrt((x - x @ self.probability) ** 2 @ self.probability))


def level_distribution(procedure: Procedure, listener: Listener) -> LevelDistribution:
    """Return the levels that an up-down rule visits in the long run with its smallest step, exactly.

    It is the stationary distribution of the Markov chain on (level, answers in a row). How tracks start and end plays
    no part, level limits do: there the level is held.

    Parameters
    ----------
    procedure : Procedure
        An up-down rule: `UpDown`, `WeightedUpDown` or `TransformedWeightedUpDown`.
    listener : callable
        Level to proportion correct, vectorised: a `PsychometricFunction` or a function of your own.

    Returns
    -------
    LevelDistribution

    Raises
    ------
    SpecError
        If the rule has no such chain or too large a one, or if the levels are not bounded: the listener does not bring
        the level back, and there is no limit.

    References
    ----------
    Levitt, H. (1971). Transformed up-down methods in psychoacoustics. J. Acoust. Soc. Am. 49, 467-477.

    Examples
    --------
    >>> from psysim.procedures import PsychometricFunction, UpDown
    >>> rule = UpDown(n_down=1, level_start=-4.0, steps=[4.0, 1.0])
    >>> visited = level_distribution(rule, PsychometricFunction(threshold=-14.0, slope=0.1))
    >>> round(visited.mean, 3), round(visited.std, 3)
    (-14.0, 1.658)
    """
    rule = as_up_down(procedure)
    s = rule.rule
    limits = s.lowest > (0.0 if s.step_unit == "db" else -np.inf), s.level_max < np.inf
    for width in WIDTHS:
        bounded = _bounded(rule, listener, limits, width)
        level, probability, in_db = _stationary(bounded, listener)
        ends = [p for p, fixed in zip((probability[0], probability[-1]), limits, strict=True) if not fixed]
        if all(p < EDGE for p in ends):
            return LevelDistribution(level, probability, in_db)
    raise SpecError(
        f"The levels of this rule are not bounded: in a range of {2 * WIDTHS[-1]} of its largest moves the listener "
        "does not bring them back. Set level_min and level_max, or take a steeper listener."
    )


def _bounded(rule: Staircase, listener: Listener, limits: tuple[bool, bool], width: int) -> Staircase:
    """Return the rule with its smallest step only, no end, and limits on its grid far out where it has none."""
    s = rule.rule
    harder, easier = s.steps[-1], s.steps[-1] * rule.easier_ratio
    start = s.level_start
    target = target_level(rule, listener)
    if np.isfinite(target) and (target > 0 or s.step_unit == "level"):  # the middle of the range: on the grid, near it
        far = 20.0 * np.log10(target / start) if s.step_unit == "db" else target - start
        move = s.harder * harder if far * s.harder > 0 else -s.harder * easier
        start = float(np.clip(s.shifted(start, move * np.rint(far / move)), s.lowest, s.level_max))
    reach = width * max(1, round(max(harder, easier) / harder)) * harder
    settings = s.model_dump(exclude_unset=True) | {
        "steps": [harder],
        "step_change": "every_reversal",
        "level_start": start,
        "level_start_range": 0.0,
        "level_min": s.level_min if limits[0] else float(s.shifted(start, -reach)),
        "level_max": s.level_max if limits[1] else float(s.shifted(start, reach)),
        "stop": "trials",
        "n_trials": 1000,
        "max_trials": 1000,
    }
    for name in ("step_change_at", "n_reversals", "threshold_from", "threshold_n_reversals", "initial_rule"):
        settings.pop(name, None)
    return type(rule)(**settings)


def _stationary(rule: Staircase, listener: Listener) -> tuple[FloatArray, FloatArray, bool]:
    """Return levels, their long-run probabilities, and whether steps are in dB, for a rule between two limits."""
    from scipy.sparse import coo_array
    from scipy.sparse.linalg import spsolve

    chain = RuleChain(rule, listener, levels_only=True)
    chain.close()
    n = len(chain)
    source = np.tile(np.arange(n), 2)
    flow = np.concatenate([1.0 - chain.correct, chain.correct])
    # balance of every state but the first, and in its place the sum of all
    row = np.concatenate([chain.target.ravel(), np.arange(n)])
    entry, column = np.concatenate([flow, np.full(n, -1.0)]), np.concatenate([source, np.arange(n)])
    kept = row > 0
    entry, row, column = (
        np.concatenate([part[kept], first])
        for part, first in ((entry, np.ones(n)), (row, np.zeros(n, np.int64)), (column, np.arange(n)))
    )
    right = np.zeros(n)
    right[0] = 1.0
    system = coo_array((entry, (row, column)), shape=(n, n)).tocsc()
    share = np.clip(spsolve(system, right), 0.0, None)
    place = np.rint((chain.axis(chain.state.level) - chain.axis(chain.state.level[:1])) / chain.quantum)
    _, first, back = np.unique(place, return_index=True, return_inverse=True)
    probability = np.bincount(back, share)
    if not np.isfinite(probability).all() or abs(probability.sum() - 1.0) > 1e-6:
        raise NumericsError("The long-run probabilities of the levels could not be found.")
    return chain.state.level[first], probability / probability.sum(), rule.rule.step_unit == "db"
