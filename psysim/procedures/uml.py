"""The updated maximum-likelihood procedure (Shen and Richards, 2012)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from psysim.procedures.base import BoolArray, FloatArray, TrackState, register
from psysim.procedures.bayes import BayesState
from psysim.procedures.bayes_settings import CandidateSettings, Values
from psysim.procedures.candidates import CandidateRule, response_variance
from psysim.procedures.psychometric import SHAPES

__all__ = ["UML", "UMLState", "sweet_points"]

SWEET_POINTS = ("slope_low", "threshold", "slope_high", "lapse_rate")
"""From hard to easy."""

N_RATES = 41
N_ARGUMENTS = 4001


def sweet_points(shape: str, guess_rate: float, lapse_rate: float) -> FloatArray:
    """Return the arguments ``z = slope (level - threshold)`` at which a trial tells most about threshold and slope.

    They minimise the variance of an estimate after one trial, ``P (1 - P) / (dP/d parameter)**2``. For the slope there
    is one minimum below the threshold and one above. For the lapse rate the best level is the easiest one there is.

    Parameters
    ----------
    shape : str
        Family; see `psysim.procedures.psychometric.SHAPES`.
    guess_rate, lapse_rate : float
        Asymptotes.

    Returns
    -------
    ndarray, shape (3,)
        For the slope below the threshold, the threshold, the slope above the threshold.

    References
    ----------
    Shen, Y., and Richards, V. M. (2012). A maximum-likelihood procedure for estimating psychometric functions:
    thresholds, slopes, and lapses of attention. J. Acoust. Soc. Am. 132, 957-967, Eqs. (3)-(5).

    Examples
    --------
    >>> sweet_points("logistic", 0.0, 0.0).round(2)
    array([-2.4,  0. ,  2.4])
    """
    low, high = (float(SHAPES[shape].inverse(np.asarray(f))) for f in (1e-4, 1.0 - 1e-5))
    z = np.linspace(low, high, N_ARGUMENTS)
    of_threshold = response_variance(z, shape, guess_rate, lapse_rate)
    with np.errstate(divide="ignore"):
        of_slope = of_threshold / z**2
    below = z[z < 0][np.argmin(of_slope[z < 0])]
    above = z[z > 0][np.argmin(of_slope[z > 0])]
    return np.array([below, z[np.argmin(of_threshold)], above])


@dataclass(frozen=True, kw_only=True, eq=False)
class UMLState(BayesState):
    """State of the updated maximum-likelihood procedure.

    Parameters
    ----------
    sweet_point : ndarray, shape (B,), int8
        Number of the sweet point of the next trial, from hard to easy.
    streak : ndarray, shape (B,), int16
        Right answers in a row since the last change of the sweet point, or wrong ones as a negative number.
    draw : ndarray, shape (B,), uint64
        Pseudo-random number, a function of the answers of the track so far.
    """

    sweet_point: NDArray[np.int8]
    streak: NDArray[np.int16]
    draw: NDArray[np.uint64]


@register("uml")
class UML(CandidateRule):
    """Updated maximum-likelihood procedure: threshold, slope and lapse rate from trials at their sweet points.

    After each answer the parameters are estimated from the posterior, and the next level is one of the levels at which
    a trial tells most about one of them. Which one follows an up-down rule on the sweet points, or is drawn.

    Parameters
    ----------
    **settings
        See `UML.Settings`.

    References
    ----------
    Shen, Y., and Richards, V. M. (2012). A maximum-likelihood procedure for estimating psychometric functions:
    thresholds, slopes, and lapses of attention. J. Acoust. Soc. Am. 132, 957-967.
    Shen, Y., Dai, W., and Richards, V. M. (2015). A MATLAB toolbox for the efficient estimation of the psychometric
    function using the updated maximum-likelihood adaptive procedure. Behav. Res. Methods 47, 13-26.

    Examples
    --------
    >>> rule = UML(level_min=-40.0, level_max=0.0, level_step=1.0, guess_rate=0.5,
    ...            slope={"min": 0.1, "max": 2.0, "n": 12, "spacing": "log"}, lapse_rate=[0.0, 0.05, 0.1])
    >>> state = rule.record(rule.init(1), [True])
    >>> rule.next_level(state)
    array([0.])
    """

    description = "updated maximum-likelihood procedure (Shen and Richards, 2012): threshold, slope, lapse rate"
    State: ClassVar[type[TrackState]] = UMLState
    example_settings: ClassVar[Mapping[str, Any]] = {
        "level_min": -30.0,
        "level_max": 0.0,
        "level_step": 1.0,
        "slope": [0.25, 0.5, 1.0],
        "guess_rate": 0.5,
        "lapse_rate": [0.0, 0.05, 0.1],
        "n_trials": 40,
    }

    class Settings(CandidateSettings):
        """Settings of the updated maximum-likelihood procedure."""

        slope: Values = Field(
            description="candidate slopes of the argument of F, per unit of the level, usually log-spaced"
        )
        guess_rate: Values = Field(description="proportion correct by chance: one number", max_length=1)
        lapse_rate: Values = Field(description="candidate lapse rates (proportion of errors however easy the trial)")
        sweet_points: list[Literal["slope_low", "threshold", "slope_high", "lapse_rate"]] = Field(
            default=["slope_low", "threshold", "slope_high", "lapse_rate"],
            description="levels that are presented: those that tell most about the slope (below and above the "
            "threshold), the threshold, and the lapse rate (the easiest level)",
        )
        choice: Literal["up_down", "random"] = Field(
            default="up_down",
            description="sweet point of the next trial: one harder after n_down right answers in a row and one easier "
            "after n_up wrong ones; or a random one",
        )
        n_down: int = Field(
            default=2, ge=1, le=100, description="right answers in a row for the next harder sweet point"
        )
        n_up: int = Field(default=1, ge=1, le=100, description="wrong answers in a row for the next easier sweet point")
        estimate: Literal["mean", "mode"] = Field(
            default="mean",
            description="parameters from which sweet points follow: mean of the posterior (the slope's mean is "
            "geometric), or its mode",
        )

        def _value_problems(self) -> Iterator[str]:
            yield from super()._value_problems()
            if not self.sweet_points or len(set(self.sweet_points)) != len(self.sweet_points):
                yield f"sweet_points = {self.sweet_points} must name at least one sweet point, each once."

    @property
    def _own_settings(self) -> UML.Settings:
        return cast(UML.Settings, self.settings)

    @cached_property
    def _chosen(self) -> NDArray[np.intp]:
        """Numbers of the sweet points in use, from hard to easy."""
        names = self._own_settings.sweet_points
        return np.array([k for k, name in enumerate(SWEET_POINTS) if name in names])

    @cached_property
    def _arguments(self) -> tuple[FloatArray, FloatArray]:
        """Lapse rates (N,) and the sweet points' arguments at them (N, 3)."""
        s = self._own_settings
        rates = np.linspace(s.lapse_rate[0], s.lapse_rate[-1], N_RATES)
        return rates, np.stack([sweet_points(s.shape, s.guess_rate[0], float(rate)) for rate in rates])

    def fresh_memory(self, n_lanes: int) -> dict[str, NDArray[Any]]:
        """Return the easiest sweet point and no answers."""
        return {
            "sweet_point": np.full(n_lanes, len(self._chosen) - 1, np.int8),
            "streak": np.zeros(n_lanes, np.int16),
            "draw": np.zeros(n_lanes, np.uint64),
        }

    def remember(self, state: BayesState, outcome: NDArray[np.intp], active: BoolArray) -> dict[str, NDArray[Any]]:
        """Return the sweet points of the next trials, after an answer of the active lanes."""
        before, s, right = cast(UMLState, state), self._own_settings, outcome == 1
        last = len(self._chosen) - 1
        draw = _mixed(before.draw, right)
        if s.choice == "random":
            streak = before.streak
            point = (draw >> np.uint64(33)) % np.uint64(last + 1)
        else:
            up = np.maximum(before.streak, 0) + np.int16(1)
            streak = np.where(right, up, np.minimum(before.streak, 0) - np.int16(1))
            harder, easier = streak >= s.n_down, streak <= -s.n_up
            point = np.clip(before.sweet_point + easier.astype(np.int8) - harder.astype(np.int8), 0, last)
            streak = np.where(harder | easier, np.int16(0), streak)
        return {
            "sweet_point": np.where(active, point.astype(np.int8), before.sweet_point),
            "streak": np.where(active, streak, before.streak).astype(np.int16),
            "draw": np.where(active, draw, before.draw),
        }

    def place(self, posterior: FloatArray, memory: dict[str, NDArray[Any]]) -> NDArray[np.int32]:
        """Return the level nearest to the sweet point that it is the turn of."""
        s, columns = self._own_settings, self.grid.parameters
        if s.estimate == "mode":
            threshold, slope, _, lapse = columns[np.argmax(posterior, axis=1)].T
        else:
            axis = np.log(columns[:, 0]) if self.family.log_axis else columns[:, 0]
            threshold, log_slope, lapse = (
                (posterior * column).sum(axis=1) for column in (axis, np.log(columns[:, 1]), columns[:, 3])
            )
            threshold, slope = np.exp(threshold) if self.family.log_axis else threshold, np.exp(log_slope)
        rates, arguments = self._arguments
        points = np.stack([np.interp(lapse, rates, column) for column in arguments.T])
        kind = self._chosen[memory["sweet_point"]]
        z = -s.harder * points[np.minimum(kind, 2), np.arange(len(kind))] / slope
        level = threshold * np.exp(z) if self.family.log_axis else threshold + z
        easiest = s.level_max if s.harder < 0 else s.level_min
        level = np.where(kind == SWEET_POINTS.index("lapse_rate"), easiest, level)
        return self.nearest_stimulus(np.clip(level, s.level_min, s.level_max))

    def describe(self) -> str:
        """Return the rule in sentences for the Methods section of a paper."""
        s = self._own_settings
        points = ", ".join(SWEET_POINTS[k].replace("_", " ") for k in self._chosen)
        how = f"by a {s.n_up}-up {s.n_down}-down rule" if s.choice == "up_down" else "at random"
        return (
            f"The updated maximum-likelihood procedure (Shen and Richards, 2012) tracked "
            f"{100 * self.target_proportion:.1f} % correct, each level being a sweet point ({points}) chosen {how}, at "
            f"the {s.estimate} of the posterior. {self.describe_candidates()} {self.describe_ending()}"
        )


def _mixed(draw: NDArray[np.uint64], right: BoolArray) -> NDArray[np.uint64]:
    """Return the next pseudo-random numbers: the finaliser of SplitMix64 (Steele et al., 2014) on draws and answers."""
    z = draw + np.uint64(0x9E3779B97F4A7C15) + right.astype(np.uint64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
