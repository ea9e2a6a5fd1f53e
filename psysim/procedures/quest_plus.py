"""QUEST+: the stimulus after which the least uncertainty is expected (Watson, 2017)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field

from psysim.errors import SpecError
from psysim.procedures.base import FloatArray, register
from psysim.procedures.bayes import BayesRule
from psysim.procedures.bayes_grid import SMALLEST, CandidateGrid
from psysim.procedures.bayes_settings import CandidateSettings, Values
from psysim.procedures.candidates import CandidateRule

__all__ = ["QuestPlus", "QuestPlusGrid"]

Outcomes = Callable[[Mapping[str, FloatArray], Mapping[str, FloatArray]], ArrayLike]


@register("quest_plus")
class QuestPlus(CandidateRule):
    """QUEST+ for a psychometric function of one level: threshold, slope, guess rate and lapse rate as candidates.

    Each trial has the level after which the expected entropy of the posterior of all parameters is lowest. The reported
    threshold is the posterior mean (mode, median) of the parameter threshold, or with ``target_proportion`` of the
    level that gives this proportion. For more stimulus dimensions, other functions or more than two outcomes see
    `QuestPlusGrid`.

    Parameters
    ----------
    **settings
        See `QuestPlus.Settings`.

    References
    ----------
    Watson, A. B. (2017). QUEST+: a general multidimensional Bayesian adaptive psychometric method. J. Vision 17(3):10.

    Examples
    --------
    >>> rule = QuestPlus(level_min=-40.0, level_max=0.0, level_step=1.0, guess_rate=0.5, slope=[0.2, 0.4, 0.8],
    ...                  lapse_rate=[0.0, 0.02, 0.04], n_trials=32)
    >>> state = rule.record(rule.init(2), [True, False])
    >>> rule.next_level(state)
    array([-19.,  -8.])
    """

    description = "QUEST+ (Watson, 2017): Bayesian, minimum expected entropy, any of four parameters"
    example_settings: ClassVar[Mapping[str, Any]] = {
        "level_min": -30.0,
        "level_max": 0.0,
        "level_step": 2.0,
        "slope": [0.25, 0.5, 1.0],
        "guess_rate": 0.5,
        "lapse_rate": [0.01, 0.03],
        "n_trials": 30,
    }

    class Settings(CandidateSettings):
        """Settings of QUEST+."""

        slope: Values = Field(
            description="slope of the argument of F, per unit of the level (1 / SD for the cumulative Gaussian): a "
            "number, or candidates"
        )

    def describe(self) -> str:
        """Return the rule in sentences for the Methods section of a paper."""
        return (
            f"QUEST+ (Watson, 2017) tracked {100 * self.target_proportion:.1f} % correct, each trial having the level "
            f"after which the expected entropy of the posterior was lowest. {self.describe_candidates()} "
            f"{self.describe_ending()}"
        )


class QuestPlusGrid(BayesRule):
    """QUEST+ for any stimuli, parameters and outcomes: you give the probabilities of the outcomes as a function.

    Lanes, states, stopping and statuses are those of every Bayesian rule. `next_stimulus` gives the whole stimulus,
    `next_level` its first dimension; with more than two outcomes use `record_outcome`.

    Parameters
    ----------
    function : callable
        ``function(stimulus, parameter)`` with two dictionaries of arrays that broadcast against each other returns the
        probability of a right answer, or with more than two outcomes an array with one more axis at its end,
        probabilities that sum to 1.
    stimuli : mapping of str to array_like
        Values of each stimulus dimension, ascending; all combinations are stimuli. The first is the tracked level.
    parameters : mapping of str to array_like
        Values of each parameter, ascending; all combinations are candidates. The first is reported as the threshold.
    n_outcomes : int
        Number of outcomes, at least 2.
    prior : array_like, optional
        Probability of each combination of parameters, shape (n_1, n_2, ...); flat if not given.
    nuisance : sequence of str
        Names of parameters that are summed out before the entropy is computed (Prins, 2013).
    target : float
        Proportion correct that the first parameter stands for; used in reports only.
    **settings
        See `psysim.procedures.bayes_settings.BayesSettings`.

    Raises
    ------
    SpecError
        If values are not ascending, or the function or the prior gives something else than probabilities.

    References
    ----------
    Watson, A. B. (2017). QUEST+: a general multidimensional Bayesian adaptive psychometric method. J. Vision 17(3):10.

    Examples
    --------
    A threshold that falls with duration, in dB per doubling:

    >>> def heard(stimulus, parameter):
    ...     gain = parameter["per_doubling_db"] * np.log2(stimulus["duration_s"] / 0.1)
    ...     return 0.5 + 0.48 / (1 + np.exp(-0.5 * (stimulus["level"] - parameter["threshold"] + gain)))
    >>> rule = QuestPlusGrid(
    ...     heard,
    ...     stimuli={"level": np.arange(0.0, 41.0, 2.0), "duration_s": [0.05, 0.1, 0.2, 0.4]},
    ...     parameters={"threshold": np.arange(0.0, 41.0, 2.0), "per_doubling_db": [0.0, 1.5, 3.0]},
    ... )
    >>> state = rule.init(3)
    >>> rule.next_stimulus(state).shape
    (3, 2)
    >>> state = rule.record(state, [True, False, True])
    """

    description = "QUEST+ (Watson, 2017) on stimuli, parameters and outcomes given as a function"
    example_settings: ClassVar[Mapping[str, Any]] = {"n_trials": 30}

    def __init__(
        self,
        function: Outcomes,
        stimuli: Mapping[str, ArrayLike],
        parameters: Mapping[str, ArrayLike],
        n_outcomes: int = 2,
        prior: ArrayLike | None = None,
        nuisance: tuple[str, ...] = (),
        target: float = 0.5,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        if n_outcomes < 2:
            raise SpecError(f"n_outcomes = {n_outcomes} must be at least 2.")
        self._stimuli = _axes("stimuli", stimuli)
        self._parameters = _axes("parameters", parameters)
        unknown = [name for name in nuisance if name not in parameters]
        if unknown or len(nuisance) >= len(self._parameters):
            raise SpecError(
                f"nuisance = {list(nuisance)} must name some, not all, of the parameters: {', '.join(parameters)}."
            )
        self._nuisance = tuple(list(parameters).index(name) for name in nuisance)
        self._likelihood = self._table(function, n_outcomes)
        shape = tuple(len(axis) for axis in self._parameters.values())
        given = np.ones(shape) if prior is None else np.asarray(prior, dtype=np.float64)
        if given.shape != shape or not np.all(given >= 0) or not 0 < given.sum() < np.inf:
            raise SpecError(f"prior must be an array {shape} of numbers of at least 0, not all 0; got {given.shape}.")
        self._prior = given.ravel() / given.sum()
        self._target = target

    @property
    def target_proportion(self) -> float:
        """Proportion correct that the first parameter stands for."""
        return self._target

    def _table(self, function: Outcomes, n_outcomes: int) -> FloatArray:
        """Return the probabilities of the outcomes, (P, X, R)."""
        names = [*self._parameters, *self._stimuli]
        mesh = np.meshgrid(*self._parameters.values(), *self._stimuli.values(), indexing="ij", sparse=True)
        values = dict(enumerate(mesh))
        n_parameters = len(self._parameters)
        stimulus = {name: values[i] for i, name in enumerate(names) if i >= n_parameters}
        parameter = {name: values[i] for i, name in enumerate(names) if i < n_parameters}
        shape = tuple(len(axis) for axis in (*self._parameters.values(), *self._stimuli.values()))
        given = np.asarray(function(stimulus, parameter), dtype=np.float64)
        wanted = shape if n_outcomes == 2 else (*shape, n_outcomes)
        try:
            table = np.broadcast_to(given, wanted)
        except ValueError:
            raise SpecError(f"The function returned an array {given.shape}; {wanted} is needed.") from None
        if not np.all((table >= 0) & (table <= 1)):
            raise SpecError("The function must return probabilities, from 0 to 1, for all stimuli and parameters.")
        if n_outcomes == 2:
            table = np.stack([1.0 - table, table], axis=-1)
        elif not np.allclose(table.sum(axis=-1), 1.0, rtol=0, atol=1e-9):
            raise SpecError("The probabilities of the outcomes must sum to 1 for all stimuli and parameters.")
        table = np.clip(table, SMALLEST, 1.0)
        table = table / table.sum(axis=-1, keepdims=True)
        return np.ascontiguousarray(table.reshape(len(self._flat(self._parameters)), -1, n_outcomes))

    @staticmethod
    def _flat(axes: Mapping[str, FloatArray]) -> FloatArray:
        """Return all combinations, (n, number of axes)."""
        return np.stack([column.ravel() for column in np.meshgrid(*axes.values(), indexing="ij")], axis=1)

    def make_grid(self) -> CandidateGrid:
        """Return stimuli, candidates, likelihoods and prior."""
        return CandidateGrid(
            stimuli=self._flat(self._stimuli),
            names=tuple(self._parameters),
            axes=list(self._parameters.values()),
            likelihood=self._likelihood,
            prior=self._prior,
            device=self.rule.device,
            nuisance=self._nuisance,
        )

    def thresholds_of_candidates(self) -> FloatArray:
        """Return the first parameter of each candidate, (P,)."""
        return self.grid.parameters[:, 0].copy()

    def describe(self) -> str:
        """Return the rule in sentences for the Methods section of a paper."""
        parts = [
            f"{name} ({len(axis)} values from {axis[0]:g} to {axis[-1]:g})" for name, axis in self._parameters.items()
        ]
        stimuli = [f"{name} ({axis[0]:g} to {axis[-1]:g})" for name, axis in self._stimuli.items()]
        return (
            f"QUEST+ (Watson, 2017) estimated {', '.join(parts)} with stimuli that differed in {', '.join(stimuli)}; "
            f"each trial had the stimulus after which the expected entropy of the posterior was lowest. "
            f"{self.describe_ending()}"
        )


def _axes(what: str, given: Mapping[str, ArrayLike]) -> dict[str, FloatArray]:
    """Return the values of each axis, checked."""
    axes = {name: np.atleast_1d(np.asarray(values, dtype=np.float64)) for name, values in given.items()}
    if not axes:
        raise SpecError(f"{what} must name at least one dimension.")
    for name, axis in axes.items():
        if axis.ndim != 1 or not len(axis) or not np.all(np.isfinite(axis)) or np.any(np.diff(axis) <= 0):
            raise SpecError(f"{what}['{name}'] = {axis} must be one or more finite numbers, ascending.")
    return axes
