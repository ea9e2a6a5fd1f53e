"""Sessions of many tracks: all side by side to their ends, or one listener at a time in a given order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from psysim.errors import SpecError, check_option
from psysim.procedures.base import BoolArray, FloatArray, Procedure, TrackState, concatenate
from psysim.procedures.keyed import ORDER, keyed_uniform

__all__ = ["next_track", "run_to_end"]


def run_to_end(
    procedure: Procedure, fresh: TrackState, answer: Callable[[FloatArray, NDArray[np.int64], int], BoolArray]
) -> TrackState:
    """Run all tracks to their ends side by side and return their states, lanes in order.

    Parameters
    ----------
    procedure : Procedure
        The tracking rule.
    fresh : TrackState
        B tracks, as `Procedure.init` makes them.
    answer : callable
        Levels (N,), numbers of the lanes (N,) and number of the trial (both from 0) to whether each answer is correct,
        (N,) bool, for the N lanes that are still asked.

    Examples
    --------
    >>> from psysim.procedures import UpDown
    >>> rule = UpDown(n_down=1, level_start=0.0, steps=[1.0], n_reversals=4)
    >>> ended = run_to_end(rule, rule.init(2), lambda level, lane, trial: level > -3.0 - lane)
    >>> rule.summary(ended).threshold
    array([-2.5, -3.5])
    """
    state, lanes, trial = fresh, np.arange(len(fresh)), 0
    ended: list[TrackState] = []
    places: list[NDArray[np.int64]] = []
    while len(lanes):
        state = procedure.record(state, answer(procedure.next_level(state), lanes, trial))
        trial += 1
        if 2 * state.done.sum() >= len(lanes):  # set the ended lanes aside now and then, not at every trial
            ended.append(state.take(state.done))
            places.append(lanes[state.done])
            state, lanes = state.take(~state.done), lanes[~state.done]
    return concatenate(ended).take(np.argsort(np.concatenate(places))) if ended else fresh


def next_track(state: TrackState, seed: int, order: str = "random_blocks", group: ArrayLike | None = None) -> BoolArray:
    """Return which of several running tracks has the next trial, for sessions in which conditions are interleaved.

    All lanes of ``state`` belong to one listener, or to one listener for each value of ``group``. Exactly one running
    track of each listener is chosen. Give the result to `Procedure.record` as ``live``.

    Parameters
    ----------
    state : TrackState
        B tracks, for instance one for each condition.
    seed : int
        Key of the random order, 0 to 2**64 - 1.
    order : {"random_blocks", "random", "alternate"}
        As for `Interleaved`.
    group : array_like of int, shape (B,), optional
        Number of the listener, from 0; default: one listener.

    Returns
    -------
    ndarray of bool, shape (B,)
        Nothing is chosen for a listener whose tracks have all ended.

    Raises
    ------
    SpecError
        If the order is not known, or the groups do not fit the lanes.

    Examples
    --------
    >>> import numpy as np
    >>> from psysim.procedures import UpDown
    >>> rule = UpDown(level_start=0.0, steps=[1.0])
    >>> state = rule.init(3)
    >>> live = next_track(state, seed=1)
    >>> state = rule.record(state, np.array([True, True, True]), live=live)
    >>> int(live.sum()), int(state.n_trials.sum())
    (1, 1)
    """
    check_option("order", order, ("random_blocks", "random", "alternate"))
    groups = np.zeros(len(state), np.int64) if group is None else np.asarray(group)
    if groups.shape != (len(state),) or not np.issubdtype(groups.dtype, np.integer) or np.any(groups < 0):
        raise SpecError(
            f"group must hold {len(state)} whole numbers from 0, one per lane; got {groups.dtype} {groups.shape}."
        )
    running = np.flatnonzero(~state.done)
    names, owner = np.unique(groups[running], return_inverse=True)
    if order != "random":
        fewest = np.full(len(names), np.iinfo(np.int64).max)
        np.minimum.at(fewest, owner, state.n_trials[running])
        behind = state.n_trials[running] == fewest[owner]
        running, owner = running[behind], owner[behind]
    counts = np.bincount(owner, minlength=len(names))
    total = np.bincount(groups, weights=state.n_trials, minlength=int(names.max(initial=0)) + 1).astype(np.int64)
    rank = np.zeros(len(names), np.int64)
    if order != "alternate" and len(names):
        rank = np.floor(keyed_uniform(seed, names, trial=total[names], purpose=ORDER)[:, 0] * counts).astype(np.int64)
    by_owner = np.argsort(owner, kind="stable")
    first = np.cumsum(counts) - counts
    live = np.zeros(len(state), np.bool_)
    live[running[by_owner[first + rank]]] = True
    return live
