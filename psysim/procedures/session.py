"""The order of trials in a session of several tracks, one listener at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from psysim.errors import SpecError, check_option
from psysim.procedures.base import BoolArray, TrackState
from psysim.procedures.keyed import ORDER, keyed_uniform

__all__ = ["next_track"]


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
