"""Interleaved tracks: several rules take turns in one lane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator

from psysim.errors import SpecError, StoreError
from psysim.procedures.base import (
    FloatArray,
    Procedure,
    ProcedureSettings,
    Status,
    TrackState,
    TrackSummary,
    as_lane_mask,
    register,
    registry,
)
from psysim.procedures.keyed import ORDER, keyed_uniform

__all__ = ["Interleaved", "InterleavedState"]

SHARED = ("harder", "level_min", "level_max")
"""Settings of the whole that hold for each rule unless it has its own."""

PREFIX = "track"


@dataclass(frozen=True, kw_only=True, eq=False)
class InterleavedState(TrackState):
    """State of `Interleaved`: the state of each of its K rules, and whose turn it is.

    Parameters
    ----------
    lane : ndarray, shape (B,), int64
        Name of the lane in keyed random numbers.
    current : ndarray, shape (B,), int16
        Rule (0 to K - 1) that the next trial belongs to; of an ended lane, the one that had the last trial.
    last : ndarray, shape (B,), int16
        Rule that the last trial belonged to; -1 before the first.
    tracks : tuple of K TrackState
        State of each rule, B lanes each.
    """

    lane: NDArray[np.int64]
    current: NDArray[np.int16]
    last: NDArray[np.int16]
    tracks: tuple[TrackState, ...]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name; those of a rule's track are named ``track0.StaircaseState.level``."""
        arrays: dict[str, NDArray[Any]] = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "tracks"}
        for k, track in enumerate(self.tracks):
            head = f"{PREFIX}{k}.{type(track).__name__}"
            arrays |= {f"{head}.{name}": array for name, array in track.to_arrays().items()}
        return arrays

    @classmethod
    def _assemble(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        own, parts = _sorted_out(arrays)
        tracks = tuple(state._assemble(part) for state, part in parts)
        return cls(**cast(dict[str, Any], own), tracks=tracks)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return the state stored by `to_arrays`. See `TrackState.from_arrays`.

        Raises
        ------
        StoreError
            If arrays are missing, unknown, or differ in their number of lanes.
        """
        own, parts = _sorted_out(arrays)
        expected = sorted(f.name for f in fields(cls) if f.name != "tracks")
        if sorted(own) != expected or not parts:
            missing, unknown = sorted(set(expected) - set(own)), sorted(set(own) - set(expected))
            raise StoreError(f"These arrays are no {cls.__name__}: missing {missing}, unknown {unknown}.")
        tracks = tuple(state.from_arrays(part) for state, part in parts)
        loaded = {name: np.array(own[name]) for name in expected}
        lengths = {np.shape(array)[:1] for array in loaded.values()} | {(len(track),) for track in tracks}
        if len(lengths) != 1:
            raise StoreError(f"The arrays of a {cls.__name__} differ in their number of lanes.")
        return cls(**cast(dict[str, Any], loaded), tracks=tracks)


def _state_named(name: str) -> type[TrackState]:
    """Return the kind of state of that name among those of all rules."""
    kinds = {kind.__name__: kind for kind in (registry.get(rule).State for rule in registry.names())}
    if name not in kinds:
        raise StoreError(f"{name} is no state of a tracking rule. Allowed: {', '.join(sorted(kinds))}.")
    return kinds[name]


def _sorted_out(
    arrays: Mapping[str, NDArray[Any]],
) -> tuple[dict[str, NDArray[Any]], list[tuple[type[TrackState], dict[str, NDArray[Any]]]]]:
    """Return the arrays of the whole, and for each rule its kind of state and its arrays."""
    own: dict[str, NDArray[Any]] = {}
    parts: dict[int, tuple[str, dict[str, NDArray[Any]]]] = {}
    for name in arrays:
        head, _, rest = name.partition(".")
        if not (head.startswith(PREFIX) and rest):
            own[name] = arrays[name]
            continue
        kind, _, field = rest.partition(".")
        parts.setdefault(int(head.removeprefix(PREFIX)), (kind, {}))[1][field] = arrays[name]
    ordered = [parts[k] for k in sorted(parts)]
    return own, [(_state_named(kind), part) for kind, part in ordered]


@register("interleaved")
class Interleaved(Procedure):
    """Several rules on one condition, whose tracks take turns from trial to trial.

    Interleaving keeps the observer from knowing the level of the next trial, measures two points of
    the psychometric function at once (2-down and 3-down), or starts one track above and one below the threshold.
    Which track has the next trial depends on the seed, the lane and the number of the trial only:

    - ``random_blocks`` (default): in each round every running track has one trial, in random order, so that no track
      is ahead of another running one by more than a trial;
    - ``random``: each running track is as likely as any other in every trial;
    - ``alternate``: in each round every running track has one trial, in the order of ``rules``.

    A lane ends when all its tracks have ended, when one ends with invalid_output, or at ``max_trials`` of the lane.
    Its threshold is the mean of the tracks' thresholds, and is NaN unless every track has one; ``target_proportion``
    is the mean of the tracks'. With rules of different targets that mean is exact only where the psychometric function
    is straight between them: use `track_summaries` for the thresholds one by one. The status is converged if all
    tracks converged, else that of the first of invalid_output, at_ceiling, at_floor, max_trials that a track has.

    Parameters
    ----------
    **settings
        See ``Interleaved.Settings``; ``rules`` is required.

    Examples
    --------
    >>> import numpy as np
    >>> steps = {"steps": [4.0, 2.0], "n_reversals": 4}
    >>> rule = Interleaved(
    ...     rules=[
    ...         {"kind": "up_down", "n_down": 2, "level_start": 0.0, **steps},
    ...         {"kind": "up_down", "n_down": 3, "level_start": -9.0, **steps},
    ...     ],
    ...     order="alternate",
    ... )
    >>> state, levels = rule.init(1), []
    >>> for trial in range(6):
    ...     levels.append(float(rule.next_level(state)[0]))
    ...     state = rule.record(state, np.array([True]))
    >>> levels
    [0.0, -9.0, 0.0, -9.0, -4.0, -9.0]
    """

    State: ClassVar[type[TrackState]] = InterleavedState
    description: ClassVar[str] = "interleaved tracks of several rules"
    example_settings: ClassVar[dict[str, Any]] = {
        "level_min": -60.0,
        "level_max": 0.0,
        "rules": [
            {"kind": "up_down", "n_down": 2, "level_start": -4.0, "steps": [4.0, 2.0, 1.0], "n_reversals": 6},
            {"kind": "weighted_up_down", "level_start": -30.0, "steps": [2.0, 1.0], "n_reversals": 6},
        ],
    }

    class Settings(ProcedureSettings):
        """Settings of `Interleaved`."""

        rules: list[dict[str, Any]] = Field(
            min_length=2, max_length=100, description="one table for each track: its kind and the settings of that rule"
        )
        order: Literal["random_blocks", "random", "alternate"] = Field(
            default="random_blocks", description="how the tracks take turns"
        )
        level_start: float | None = Field(
            default=None,
            description="level at which sounds are checked before a run; that of the first rule if not given",
        )
        level_min: float | None = Field(
            default=None, description="lowest level allowed, for rules that do not have their own"
        )
        level_max: float | None = Field(
            default=None, description="highest level allowed, for rules that do not have their own"
        )
        max_trials: int = Field(
            default=2000, ge=2, le=2**23, description="trials of all tracks of a lane together, after which it ends"
        )
        seed: int = Field(default=0, ge=0, lt=2**64, description="key of the random order, and of the rules' own draws")

        @model_validator(mode="before")
        @classmethod
        def _fill_in(cls, values: Any) -> Any:
            rules = values.get("rules") if isinstance(values, dict) else None
            if rules and isinstance(rules, list) and isinstance(rules[0], dict) and values.get("level_start") is None:
                return {**values, "level_start": rules[0].get("level_start")}
            return values

        @model_validator(mode="after")
        def _check_rules(self) -> Self:
            problems = []
            for k, table in enumerate(self.rules):
                try:
                    _make(self, k, table)
                except SpecError as error:
                    problems += [f"rules[{k}]: {line}" for line in str(error).splitlines()]
            if problems:
                raise ValueError("\n".join(problems))
            return self

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        s = self._interleaved
        self.rules: tuple[Procedure, ...] = tuple(_make(s, k, table) for k, table in enumerate(s.rules))
        """The rules, in order."""

    @property
    def _interleaved(self) -> Interleaved.Settings:
        return cast(Interleaved.Settings, self.settings)

    @property
    def target_proportion(self) -> float:
        """Mean of the rules' target proportions."""
        return float(np.mean([rule.target_proportion for rule in self.rules]))

    def init(self, n_lanes: int, level_start: ArrayLike | None = None) -> InterleavedState:
        """Return ``n_lanes`` fresh lanes. See `Procedure.init`; ``level_start`` holds for every rule."""
        tracks = tuple(rule.init(n_lanes, level_start) for rule in self.rules)
        lane = np.arange(n_lanes, dtype=np.int64)
        n_trials = np.zeros(n_lanes, np.int32)
        current = self._draw(tracks, lane, n_trials, np.zeros(n_lanes, np.int16))
        return InterleavedState(
            level=self._levels(tracks, current),
            n_trials=n_trials,
            status=np.full(n_lanes, Status.RUNNING, np.int8),
            last_reversal=np.zeros(n_lanes, np.bool_),
            lane=lane,
            current=current,
            last=np.full(n_lanes, -1, np.int16),
            tracks=tracks,
        )

    def _levels(self, tracks: Sequence[TrackState], current: NDArray[np.int16]) -> FloatArray:
        """Return the level of the track whose turn it is, shape (B,)."""
        levels = np.stack([rule.next_level(track) for rule, track in zip(self.rules, tracks, strict=True)])
        return levels[current, np.arange(len(current))]

    def _draw(
        self,
        tracks: Sequence[TrackState],
        lane: NDArray[np.int64],
        n_trials: NDArray[np.int32],
        current: NDArray[np.int16],
    ) -> NDArray[np.int16]:
        """Return whose turn the next trial is; ``current`` where all tracks have ended."""
        running = np.stack([~track.done for track in tracks], axis=1)
        order, candidates = self._interleaved.order, running
        if order != "random":
            turns = np.stack([track.n_trials for track in tracks], axis=1)
            fewest = np.where(running, turns, np.iinfo(np.int32).max).min(axis=1, keepdims=True)
            candidates = running & (turns == fewest)
        rank = np.zeros(len(lane), np.int64)
        if order != "alternate":
            u = keyed_uniform(self._interleaved.seed, lane, trial=n_trials, purpose=ORDER)[:, 0]
            rank = np.floor(u * candidates.sum(axis=1)).astype(np.int64)
        place = np.argmax(candidates & (np.cumsum(candidates, axis=1) == rank[:, np.newaxis] + 1), axis=1)
        return np.where(running.any(axis=1), place, current).astype(np.int16)

    def record(
        self, state: TrackState, correct: ArrayLike, live: ArrayLike | None = None, invalid: ArrayLike | None = None
    ) -> InterleavedState:
        """Return the state after one trial of the track whose turn it is. See `Procedure.record`."""
        state, n_lanes = self._own(state), len(state)
        right = as_lane_mask("correct", correct, n_lanes)
        counted = ~state.done
        if live is not None:
            counted &= as_lane_mask("live", live, n_lanes)
        broken = None if invalid is None else as_lane_mask("invalid", invalid, n_lanes)
        tracks = tuple(
            rule.record(track, right, live=counted & (state.current == k), invalid=broken)
            for k, (rule, track) in enumerate(zip(self.rules, state.tracks, strict=True))
        )
        n_trials = state.n_trials + counted
        statuses = np.stack([track.status for track in tracks])
        status = np.where(np.all(statuses != Status.RUNNING, axis=0), _combined(statuses), np.int8(Status.RUNNING))
        late = (status == Status.RUNNING) & (n_trials >= self._interleaved.max_trials)
        status = np.where(late, np.int8(Status.MAX_TRIALS), status)
        status = np.where(np.any(statuses == Status.INVALID_OUTPUT, axis=0), np.int8(Status.INVALID_OUTPUT), status)
        status = np.where(counted, status, state.status)
        drawn = self._draw(tracks, state.lane, n_trials, state.current)
        current = np.where(counted & (status == Status.RUNNING), drawn, state.current)
        reversals = np.stack([track.last_reversal for track in tracks])
        return InterleavedState(
            level=self._levels(tracks, current),
            n_trials=n_trials,
            status=status,
            last_reversal=np.where(counted, reversals[state.current, np.arange(n_lanes)], state.last_reversal),
            lane=state.lane,
            current=current,
            last=np.where(counted, state.current, state.last),
            tracks=tracks,
        )

    def track_summaries(self, state: TrackState) -> tuple[TrackSummary, ...]:
        """Return the summary of each rule's tracks, in the order of ``rules``."""
        state = self._own(state)
        return tuple(rule.summary(track) for rule, track in zip(self.rules, state.tracks, strict=True))

    def summary(self, state: TrackState) -> TrackSummary:
        """Return the mean threshold of each lane's tracks, its standard error, and sums of their counts."""
        state, parts = self._own(state), self.track_summaries(state)
        given = np.isin(state.status, (Status.CONVERGED, Status.MAX_TRIALS))
        thresholds = np.stack([part.threshold for part in parts])
        errors = np.stack([part.threshold_sem for part in parts])
        threshold = np.where(given, thresholds.mean(axis=0), np.nan)
        found = np.isfinite(threshold)
        total: dict[str, NDArray[np.int32]] = {
            name: np.asarray(np.sum([getattr(part, name) for part in parts], axis=0), dtype=np.int32)
            for name in ("n_reversals", "n_averaged", "n_limit_moves")
        }
        return TrackSummary(
            threshold=threshold,
            threshold_sem=np.where(found, np.sqrt((errors**2).sum(axis=0)) / len(parts), np.nan),
            n_trials=state.n_trials.copy(),
            n_reversals=total["n_reversals"],
            status=state.status.copy(),
            n_averaged=np.where(found, total["n_averaged"], 0).astype(np.int32),
            n_limit_moves=total["n_limit_moves"],
        )

    def _own(self, state: TrackState) -> InterleavedState:
        if not isinstance(state, InterleavedState) or len(state.tracks) != len(self.rules):
            raise SpecError(
                f"Interleaved works on an InterleavedState of {len(self.rules)} tracks made by its init, "
                f"not on a {type(state).__name__}."
            )
        return state

    def describe(self) -> str:
        """Return the rules in sentences for the Methods section of a paper."""
        turns = {
            "random_blocks": "in random order within each round of trials",
            "random": "chosen at random for each trial",
            "alternate": "in fixed alternation",
        }[self._interleaved.order]
        parts = " ".join(f"Track {k + 1}: {rule.describe()}" for k, rule in enumerate(self.rules))
        return (
            f"{len(self.rules)} tracks were interleaved, {turns}; the mean of their thresholds estimates the level of "
            f"{100 * self.target_proportion:.1f} % correct. {parts}"
        )


def _make(s: Interleaved.Settings, k: int, table: Mapping[str, Any]) -> Procedure:
    """Return rule ``k`` with the settings of the whole where it has none of its own."""
    values = dict(table)
    kind = values.pop("kind", None)
    if kind is None:
        raise SpecError(f"kind is missing. Allowed: {', '.join(registry.names())}.")
    cls = registry.get(str(kind))
    if cls is Interleaved:
        raise SpecError("a rule of an interleaved procedure cannot be interleaved itself: list its rules here.")
    for name in SHARED:
        if getattr(s, name) is not None and name in cls.Settings.model_fields:
            values.setdefault(name, getattr(s, name))
    if "seed" in cls.Settings.model_fields:
        values.setdefault("seed", (s.seed + k + 1) % 2**64)  # tracks of one lane draw different numbers
    return cls(**values)


def _combined(statuses: NDArray[np.int8]) -> NDArray[np.int8]:
    """Return one status per lane from those of its ended tracks, shape (K, B)."""
    combined = np.full(statuses.shape[1], Status.CONVERGED, np.int8)
    for worse in (Status.MAX_TRIALS, Status.AT_FLOOR, Status.AT_CEILING, Status.INVALID_OUTPUT):
        combined[np.any(statuses == worse, axis=0)] = worse
    return combined
