"""Helpers for tests, ours and yours: comparing runs and track states, simulated listeners, hypothesis strategies.

xarray and hypothesis are imported by the functions that need them, so this module is light, and hypothesis is needed
only for the strategies.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from psysim.procedures.base import Procedure, TrackState, TrackSummary, registry
from psysim.procedures.level_rule import LevelRuleSettings
from psysim.procedures.psychometric import PsychometricFunction
from psysim.procedures.session import run_to_end
from psysim.procedures.settings import StaircaseSettings
from psysim.procedures.tasks import Task

if TYPE_CHECKING:
    import xarray as xr
    from hypothesis.strategies import SearchStrategy

__all__ = [
    "SimulatedResponder",
    "assert_same_run",
    "assert_same_state",
    "procedure_settings",
    "response_sequences",
    "run_tracks",
    "simulated_responder",
]

#: Entries of the provenance that say when a run was made and how long it took: two equal runs may differ in them.
PROVENANCE_TIMES = frozenset({"created", "started", "finished", "elapsed_s", "duration_s"})


def assert_same_run(a: xr.Dataset, b: xr.Dataset) -> None:
    """Raise `AssertionError` unless two runs are identical but for the times in their provenance.

    Compared are dimensions, coordinates, variables (values and dtypes), names and attributes. Texts may be stored in
    any of NumPy's string types.

    Parameters
    ----------
    a, b : xarray.Dataset
        Runs, as returned by ``psysim.run`` or opened from a store.

    Examples
    --------
    >>> import xarray as xr
    >>> first = xr.Dataset({"level": ("trial", [0.0, -4.0])}, attrs={"provenance": '{"created": "Monday", "seed": 1}'})
    >>> again = first.assign_attrs(provenance='{"created": "Tuesday", "seed": 1}')
    >>> assert_same_run(first, again)
    """
    import xarray as xr

    left, right = _comparable(a), _comparable(b)
    xr.testing.assert_identical(left, right)
    dtypes = [{str(name): str(v.dtype) for name, v in run.variables.items()} for run in (left, right)]
    differing = {name: (d, dtypes[1][name]) for name, d in dtypes[0].items() if d != dtypes[1][name]}
    assert not differing, f"The runs differ in data types: {differing}."


def _comparable(run: xr.Dataset) -> xr.Dataset:
    """Return the run without provenance times and with texts as objects."""
    run = run.copy()
    if "provenance" in run.attrs:
        provenance = json.loads(run.attrs["provenance"])
        kept = {key: value for key, value in provenance.items() if key not in PROVENANCE_TIMES}
        run.attrs["provenance"] = json.dumps(kept, sort_keys=True)
    texts = {str(name): v.astype(object) for name, v in run.variables.items() if v.dtype.kind in "UTO"}
    return run.assign({n: v for n, v in texts.items() if n in run.data_vars}).assign_coords(
        {n: v for n, v in texts.items() if n in run.coords}
    )


def assert_same_state(a: TrackState, b: TrackState) -> None:
    """Raise `AssertionError` unless two track states are identical, array by array.

    Parameters
    ----------
    a, b : TrackState
        States of the same rule.
    """
    assert type(a) is type(b), f"The states are of different types: {type(a).__name__} and {type(b).__name__}."
    right = b.to_arrays()
    for name, array in a.to_arrays().items():
        assert array.dtype == right[name].dtype, f"{name}: {array.dtype} and {right[name].dtype}"
        np.testing.assert_array_equal(array, right[name], err_msg=name)


class _Draw(IntEnum):
    """What a random number of a simulated trial is for."""

    ANSWER = 0
    TARGET = 1
    WRONG = 2


@dataclass(frozen=True)
class SimulatedResponder:
    """A listener who answers as its psychometric function says, with keyed random numbers.

    An answer is a function of (seed, lane, trial) and the level alone: it does not depend on which other lanes are
    asked, in what order, or how often.

    Parameters
    ----------
    listener : callable
        Level to proportion correct, vectorised: a `PsychometricFunction` or a function of your own.
    seed : int
        From 0 to 2**64 - 1.
    """

    listener: Callable[[ArrayLike], NDArray[np.float64]]
    seed: int = 0

    def __call__(self, level: ArrayLike, lane: ArrayLike, trial: ArrayLike) -> NDArray[np.bool_]:
        """Return whether each answer is correct, shape (B,).

        Parameters
        ----------
        level : array_like, shape (B,)
            Levels of the trials.
        lane, trial : array_like of int, shape (B,)
            Which lane and trial this is; both count from 0.
        """
        return self.uniform(_Draw.ANSWER, lane, trial) < self.listener(level)

    def uniform(self, purpose: int, lane: ArrayLike, trial: ArrayLike) -> NDArray[np.float64]:
        """Return numbers uniform in [0, 1) for a purpose, shape (B,): a pure function of the arguments and the seed."""
        lanes, trials = np.broadcast_arrays(np.asarray(lane, dtype=np.int64), np.asarray(trial, dtype=np.int64))
        numbers = np.empty(lanes.shape)
        for number in np.unique(trials):  # one Philox stream per trial; lanes are positions in it
            here = trials == number
            stream = np.random.Philox(key=self.seed, counter=[0, int(number), purpose, 0])
            numbers[here] = np.random.Generator(stream).random(int(lanes[here].max()) + 1)[lanes[here]]
        return numbers


def simulated_responder(
    threshold: float,
    slope: float,
    guess_rate: float = 0.0,
    lapse_rate: float = 0.0,
    shape: str = "logistic",
    *,
    seed: int = 0,
) -> SimulatedResponder:
    """Return a listener with a given psychometric function and keyed random numbers.

    Parameters
    ----------
    threshold, slope, guess_rate, lapse_rate, shape
        See `psysim.procedures.psychometric_function`.
    seed : int
        Key of the answers, 0 to 2**64 - 1.

    Examples
    --------
    >>> responder = simulated_responder(threshold=-14.0, slope=0.1, guess_rate=1 / 3, seed=1)
    >>> bool(responder([100.0], lane=[7], trial=[0])[0])
    True
    """
    return SimulatedResponder(PsychometricFunction(threshold, slope, guess_rate, lapse_rate, shape), seed)


def run_tracks(
    procedure: Procedure,
    task: Task,
    psychometric_function: Callable[[ArrayLike], NDArray[np.float64]],
    n_lanes: int,
    seed: int = 0,
) -> TrackSummary:
    """Run a procedure to its end with simulated listeners, all lanes at once, without the engine.

    Parameters
    ----------
    procedure : Procedure
        The tracking rule.
    task : Task
        Decides what a correct answer is; targets and wrong answers are drawn too.
    psychometric_function : callable
        Level to proportion correct; its guess rate should be ``task.chance_level``.
    n_lanes : int
        Number of tracks, at least 1.
    seed : int
        Key of all random numbers.

    Returns
    -------
    TrackSummary
        Lanes in order. A lane's track does not depend on ``n_lanes``.

    Examples
    --------
    >>> from psysim.procedures import AFC, PsychometricFunction, UpDown
    >>> listener = PsychometricFunction(threshold=-14.0, slope=0.1, guess_rate=1 / 3)
    >>> rule = UpDown(level_start=-4.0, level_max=0.0, steps=[4.0, 2.0, 1.0])
    >>> summary = run_tracks(rule, AFC(n_intervals=3), listener, n_lanes=500)
    >>> bool(abs(summary.threshold.mean() - listener.inverse(2**-0.5)) < 0.5)
    True
    """
    responder = SimulatedResponder(psychometric_function, seed)

    def answer(level: NDArray[np.float64], lane: NDArray[np.int64], trial: int) -> NDArray[np.bool_]:
        right = responder(level, lane, trial)
        target = task.draw_target(responder.uniform(_Draw.TARGET, lane, trial))
        return task.correct(task.answer(right, target, responder.uniform(_Draw.WRONG, lane, trial)), target)

    return procedure.summary(run_to_end(procedure, procedure.init(n_lanes), answer))


def response_sequences(
    max_lanes: int = 6, max_trials: int = 120, min_trials: int = 1
) -> SearchStrategy[NDArray[np.bool_]]:
    """Return a hypothesis strategy for answers (correct or not), arrays of shape (trials, lanes).

    Parameters
    ----------
    max_lanes : int
        Largest number of lanes; the smallest is 1.
    max_trials, min_trials : int
        Largest and smallest number of trials.
    """
    from hypothesis import strategies as st
    from hypothesis.extra.numpy import arrays

    @st.composite
    def answers(draw: Callable[..., Any]) -> NDArray[np.bool_]:
        shape = draw(st.integers(min_trials, max_trials)), draw(st.integers(1, max_lanes))
        # columns of one proportion correct each: all wrong, all correct and everything between
        bias = draw(arrays(np.float64, shape[1], elements=st.sampled_from([0.75, 0.6, 0.85, 0.3, 0.5, 0.0, 1.0])))
        seed = draw(st.integers(0, 2**32 - 1))
        numbers: NDArray[np.float64] = np.random.Generator(np.random.Philox(key=seed)).random(shape)
        return numbers < bias

    return answers()


def procedure_settings(kind: str) -> SearchStrategy[dict[str, Any]]:
    """Return a hypothesis strategy for valid settings of a registered procedure.

    The up-down rules and those that move one level vary in all their settings; for others it is the example settings.

    Parameters
    ----------
    kind : str
        Name in the registry.
    """
    from hypothesis import strategies as st

    cls = registry.get(kind)
    if issubclass(cls.Settings, LevelRuleSettings) and kind in _LEVEL_RULES:
        return st.composite(_level_rule_settings)(kind)
    if not issubclass(cls.Settings, StaircaseSettings):
        return st.just(dict(cls.example_settings))

    @st.composite
    def settings(draw: Callable[..., Any]) -> dict[str, Any]:
        values = {"harder": draw(st.sampled_from([-1, 1]))} | _levels_and_steps(draw) | _stopping(draw)
        fields = cls.Settings.model_fields
        own: dict[str, SearchStrategy[Any]] = {
            "n_up": st.integers(1, 3),
            "n_down": st.integers(1, 4),
            "step_up_ratio": st.sampled_from([1.0, 1.5, 0.5]),
            "initial_rule": st.sampled_from(["same", "one_up_one_down"]),
            "target_proportion": st.sampled_from([0.5, 0.6, 0.75, 0.9]),
        }
        return values | {name: draw(strategy) for name, strategy in own.items() if name in fields}

    return settings()


def _levels_and_steps(draw: Callable[..., Any]) -> dict[str, Any]:
    """Draw level limits, start and steps that fit each other."""
    from hypothesis import strategies as st

    unit = draw(st.sampled_from(["level", "db"]))
    steps = sorted(draw(st.sets(st.sampled_from([1.0, 0.5, 2.0, 4.0, 0.1, 8.0]), min_size=1, max_size=4)), reverse=True)
    low = 0.5 if unit == "db" else draw(st.sampled_from([-40.0, -13.3, -2.0]))
    high = low + draw(st.sampled_from([60.0, 30.0, 9.0]))
    values = {
        "step_unit": unit,
        "steps": steps,
        "level_start": draw(st.floats(low, high)),
        "level_min": draw(st.sampled_from([low, 0.0 if unit == "db" else -np.inf])),
        "level_max": draw(st.sampled_from([high, np.inf])),
        "step_change_timing": draw(st.sampled_from(["before_move", "after_move"])),
        "step_change": draw(
            st.sampled_from(
                ["every_reversal", "every_second_reversal", "lower_reversal", "upper_reversal", "at_reversals"]
            )
        ),
    }
    if values["step_change"] == "at_reversals":
        size = len(steps) - 1
        values["step_change_at"] = sorted(draw(st.sets(st.integers(1, 10), min_size=size, max_size=size)))
    return values


def _stopping(draw: Callable[..., Any]) -> dict[str, Any]:
    """Draw stop rule, threshold and treatment of limits that fit each other."""
    from hypothesis import strategies as st

    even = draw(st.booleans())
    stop = draw(st.sampled_from(["reversals", "trials", "reversals_and_trials", "reversals_or_trials"]))
    n_reversals = 2 * draw(st.integers(1, 5)) if even else draw(st.integers(2, 10))
    values: dict[str, Any] = {
        "stop": stop,
        "even_reversals": even,
        "max_trials": draw(st.sampled_from([110, 80, 60])),
        "reversals_at_limit": draw(st.booleans()),
        "limit_trials": draw(st.sampled_from([10, 4, 1])),
        "threshold_statistic": draw(st.sampled_from(["mean", "median"])),
    }
    if "trials" in stop.split("_"):
        values["n_trials"] = draw(st.sampled_from([60, 30, 5]))
    if stop != "trials":
        values["n_reversals"] = n_reversals
    if draw(st.booleans()):
        largest = n_reversals if stop != "trials" else 10
        values["threshold_from"] = "last_n_reversals"
        values["threshold_n_reversals"] = (
            2 * draw(st.integers(1, largest // 2)) if even else draw(st.integers(2, largest))
        )
    if even and values["reversals_at_limit"] and draw(st.booleans()):
        values["upper_weight"] = draw(st.sampled_from([0.0, 0.25, 0.5, 1.0]))
    return values


_LEVEL_RULES: dict[str, dict[str, tuple[Any, ...]]] = {
    "pest": {
        "step_start": (8.0, 4.0),
        "step_min": (1.0, 0.5),
        "step_max": (8.0, 16.0, None),
        "deviation_limit": (1.0, 1.5),
    },
    "asa": {
        "gain": (16.0, 4.0),
        "method": ("accelerated", "robbins_monro"),
        "n_trials": (40, 15),
        "step_min": (None, 0.4),
    },
    "bekesy": {"rate": (1.0, 2.5), "rate_start": (None, 4.0), "n_reversals": (4, 10), "n_skip": (0, 1, 4)},
    "method_of_limits": {"step": (1.0, 2.5), "n_series": (2, 6), "start_jitter": (0, 2)},
    "adjustment": {
        "steps": ([4.0, 1.0], [2.0]),
        "n_turns": (2, 3, 4),
        "n_settings": (1, 3, 6),
        "setting_range": (0.0, 3.0),
    },
}
"""Values of the rules' own settings that `procedure_settings` chooses from; they fit each other in any combination."""


def _level_rule_settings(draw: Callable[..., Any], kind: str) -> dict[str, Any]:
    """Draw settings of a rule built on `psysim.procedures.level_rule`."""
    from hypothesis import strategies as st

    unit, harder = draw(st.sampled_from(["level", "db"])), draw(st.sampled_from([-1, 1]))
    low = 0.5 if unit == "db" else draw(st.sampled_from([-40.0, -13.3]))
    high = low * 1e3 if unit == "db" else low + draw(st.sampled_from([60.0, 20.0]))
    ends = (low * 1.5, high / 1.5) if unit == "db" else (low + 2.0, high - 2.0)
    easy, hard = ends if harder > 0 else ends[::-1]
    values: dict[str, Any] = {
        "harder": harder,
        "step_unit": unit,
        "level_start": easy,
        "level_start_range": draw(st.sampled_from([0.0, 1.0])),
        "level_min": draw(st.sampled_from([low, 0.0 if unit == "db" else -np.inf])),
        "level_max": draw(st.sampled_from([high, np.inf])),
        "max_trials": draw(st.sampled_from([110, 60])),
        "limit_trials": draw(st.sampled_from([10, 3])),
        "limit_moves": draw(st.sampled_from([5, 1])),
        "seed": draw(st.integers(0, 3)),
    }
    if kind == "method_of_limits":
        values["level_start_hard"] = hard
    return values | {name: draw(st.sampled_from(options)) for name, options in _LEVEL_RULES[kind].items()}
