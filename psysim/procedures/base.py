"""The interface of every tracking rule, and the explicit state it works on.

A procedure decides the level of the next trial from the answers so far. It knows nothing about sound.
Everything is vectorised over lanes (tracks that are live at the same time): a state is a plain dataclass of
arrays whose first axis is the lane, and `Procedure.record` returns a new state without touching the old one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, ClassVar, Literal, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from psysim.errors import SpecError, StoreError, did_you_mean
from psysim.registry import Registry

__all__ = [
    "Procedure",
    "ProcedureSettings",
    "Status",
    "TrackState",
    "TrackSummary",
    "concatenate",
    "register",
    "registry",
]

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.integer[Any]]
BoolArray: TypeAlias = NDArray[np.bool_]


class Status(IntEnum):
    """How a track ended; the value is what the dataset stores, `sentence` is what a report prints.

    Examples
    --------
    >>> Status.AT_CEILING.sentence
    'The track was held at level_max: the threshold, if there is one, lies at or above this limit.'
    """

    RUNNING = 0
    CONVERGED = 1
    MAX_TRIALS = 2
    AT_FLOOR = 3
    AT_CEILING = 4
    INVALID_OUTPUT = 5

    @property
    def sentence(self) -> str:
        """The status in a sentence."""
        return _SENTENCES[self]


_SENTENCES = {
    Status.RUNNING: "The track has not ended.",
    Status.CONVERGED: "The track ended by its stop rule.",
    Status.MAX_TRIALS: (
        "The track used up its trials before it had the reversals, or answers, that its stop rule or threshold needs."
    ),
    Status.AT_FLOOR: "The track was held at level_min: the threshold, if there is one, lies at or below this limit.",
    Status.AT_CEILING: "The track was held at level_max: the threshold, if there is one, lies at or above this limit.",
    Status.INVALID_OUTPUT: "The observer gave no usable answer (not a number), so the track was ended.",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class TrackState:
    """State of B tracks: arrays whose first axis is the lane. Rules add their own arrays in a subclass.

    Treat the arrays as read-only: every function returns a new state.

    Parameters
    ----------
    level : ndarray, shape (B,), float64
        Level of the next trial, in the unit of the tracked variable.
    n_trials : ndarray, shape (B,), int32
        Trials recorded so far.
    status : ndarray, shape (B,), int8
        `Status` values.
    last_reversal : ndarray, shape (B,), bool
        Whether the last recorded trial was a reversal.
    """

    level: FloatArray
    n_trials: NDArray[np.int32]
    status: NDArray[np.int8]
    last_reversal: BoolArray

    def __len__(self) -> int:
        return len(self.level)

    @property
    def done(self) -> BoolArray:
        """Whether each track has ended, shape (B,)."""
        return self.status != Status.RUNNING

    def take(self, index: ArrayLike) -> Self:
        """Return the state of the lanes ``index`` (integers, or a boolean mask over lanes), in that order."""
        lanes = _lane_index(index, len(self))
        return self._assemble({name: array[lanes] for name, array in self.to_arrays().items()})

    def put(self, index: ArrayLike, other: Self) -> Self:
        """Return a state in which the lanes ``index`` are replaced by the lanes of ``other``.

        Raises
        ------
        SpecError
            If the number of lanes differs, a lane is named twice, or the states belong to different rules.
        """
        lanes = _lane_index(index, len(self))
        if len(lanes) != len(other) or len(np.unique(lanes)) != len(lanes):
            raise SpecError(f"put: {len(other)} lanes are put, so as many are needed, each once; got {lanes.tolist()}.")
        _check_same_rule([self, other])
        arrays, new = {}, other.to_arrays()
        for name, array in self.to_arrays().items():
            arrays[name] = array.copy()
            arrays[name][lanes] = new[name]
        return self._assemble(arrays)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name, as `numpy.savez` takes them (no copies)."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def _assemble(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return the state made of arrays as `to_arrays` names them, unchecked (a state of states overrides both)."""
        return cls(**arrays)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Return the state stored by `to_arrays`, for instance an opened ``.npz`` file.

        Raises
        ------
        StoreError
            If arrays are missing, unknown, or differ in their number of lanes.
        """
        expected = [f.name for f in fields(cls)]
        if sorted(arrays) != sorted(expected):
            missing, unknown = sorted(set(expected) - set(arrays)), sorted(set(arrays) - set(expected))
            raise StoreError(f"These arrays are no {cls.__name__}: missing {missing}, unknown {unknown}.")
        loaded = {name: np.array(arrays[name]) for name in expected}
        lengths = {name: (len(array) if array.ndim else -1) for name, array in loaded.items()}
        if len(set(lengths.values())) != 1:
            raise StoreError(f"The arrays of a {cls.__name__} differ in their number of lanes: {lengths}.")
        return cls(**loaded)


StateT = TypeVar("StateT", bound=TrackState)


def concatenate(states: Sequence[StateT]) -> StateT:
    """Return one state with the lanes of all ``states`` in order.

    Parameters
    ----------
    states : sequence of TrackState
        At least one; all of the same rule.

    Raises
    ------
    SpecError
        If the sequence is empty or the states belong to different rules.
    """
    if not states:
        raise SpecError("concatenate: at least one state is needed.")
    _check_same_rule(states)
    columns = [state.to_arrays() for state in states]
    return states[0]._assemble({name: np.concatenate([c[name] for c in columns]) for name in columns[0]})


def _lane_index(index: ArrayLike, n_lanes: int) -> NDArray[np.intp]:
    """Lane numbers from integers or a mask."""
    array = np.asarray(index)
    if array.dtype == np.bool_:
        if array.shape != (n_lanes,):
            raise SpecError(f"A mask over lanes must have the shape ({n_lanes},), not {array.shape}.")
        return np.flatnonzero(array)
    if array.size == 0:
        array = array.astype(np.intp)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise SpecError(f"Lanes are given as a 1-D array of integers or a mask, not {array.dtype} {array.shape}.")
    return array.astype(np.intp)


def _check_same_rule(states: Sequence[TrackState]) -> None:
    """Raise unless all states have the same arrays (type, dtypes, shapes beyond the lane axis)."""
    kinds = {(type(s), tuple((n, a.dtype, a.shape[1:]) for n, a in s.to_arrays().items())) for s in states}
    if len(kinds) > 1:
        raise SpecError("The states belong to procedures with different settings; they cannot be merged.")


@dataclass(frozen=True, kw_only=True, eq=False)
class TrackSummary:
    """What the tracks gave: one entry per lane.

    Parameters
    ----------
    threshold : ndarray, shape (B,), float64
        In the unit of the tracked variable. NaN unless the status is converged, or max_trials with enough measured for
        a threshold (for the up-down rules two reversals).
    threshold_sem : ndarray, shape (B,), float64
        Standard error of the threshold from within the track, same unit. Neighbouring reversals are correlated, so it
        is too small, by half in a usual track; the spread over tracks says how good a threshold is.
    n_trials : ndarray, shape (B,), int32
        Trials recorded.
    n_reversals : ndarray, shape (B,), int32
        Reversals of the whole track.
    status : ndarray, shape (B,), int8
        `Status` values.
    n_averaged : ndarray, shape (B,), int32
        Reversals, or what the rule has in their place, that entered the threshold (0 where it is NaN).
    n_limit_moves : ndarray, shape (B,), int32
        Moves that a level limit shortened or refused; 0 in an undisturbed track.
    """

    threshold: FloatArray
    threshold_sem: FloatArray
    n_trials: NDArray[np.int32]
    n_reversals: NDArray[np.int32]
    status: NDArray[np.int8]
    n_averaged: NDArray[np.int32]
    n_limit_moves: NDArray[np.int32]


class ProcedureSettings(BaseModel):
    """Settings that every procedure has: the ``[procedure]`` table of an experiment file, less ``kind``."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    tracks: str = Field(default="level", min_length=1, description="name of the stimulus parameter that is tracked")
    harder: Literal[-1, 1] = Field(
        default=-1,
        description="direction of the level in which the task gets harder: -1 where a lower level is harder "
        "(depth_db, signal level), 1 where a higher level is harder (masker level); taken from the stimulus",
    )


class Procedure(ABC):
    """A tracking rule over lanes.

    A rule is one subclass in one file: a `Settings` model, a `State`, and the four methods below.
    Nothing hides on ``self`` but the settings and what follows from them.

    Parameters
    ----------
    **settings
        The fields of the class's `Settings`.

    Raises
    ------
    SpecError
        If a setting is unknown, missing, out of range, or does not fit the others; all mistakes are listed.
    """

    Settings: ClassVar[type[ProcedureSettings]]
    State: ClassVar[type[TrackState]]
    description: ClassVar[str]
    example_settings: ClassVar[Mapping[str, Any]]
    """Valid settings, small: the tests that walk the registry run every rule with them."""

    def __init__(self, **settings: Any) -> None:
        try:
            self.settings = self.Settings(**settings)
        except ValidationError as error:
            raise SpecError(settings_message(error, self.Settings)) from None

    @property
    @abstractmethod
    def target_proportion(self) -> float:
        """Proportion correct at which the rule settles, in the limit of small steps."""

    @abstractmethod
    def init(self, n_lanes: int, level_start: ArrayLike | None = None) -> TrackState:
        """Return ``n_lanes`` fresh tracks.

        Parameters
        ----------
        n_lanes : int
            Number of tracks, at least 0.
        level_start : array_like, shape (B,), optional
            Starting levels that replace the setting (for a start that differs between conditions or is roved).
        """

    def next_level(self, state: TrackState) -> FloatArray:
        """Return the level of the next trial of each lane, shape (B,); for ended tracks the level they ended with."""
        return state.level

    @abstractmethod
    def record(
        self, state: TrackState, correct: ArrayLike, live: ArrayLike | None = None, invalid: ArrayLike | None = None
    ) -> TrackState:
        """Return the state after one trial; ``state`` itself is unchanged.

        Parameters
        ----------
        state : TrackState
            B lanes.
        correct : array_like of bool, shape (B,)
            Whether each answer was correct.
        live : array_like of bool, shape (B,), optional
            Lanes that had a trial (default all). Other lanes, and tracks that have ended, never change.
        invalid : array_like of bool, shape (B,), optional
            Lanes whose answer is not usable; their tracks end with the status invalid_output.
        """

    @abstractmethod
    def summary(self, state: TrackState) -> TrackSummary:
        """Return thresholds, their errors, counts and status of all lanes."""

    @abstractmethod
    def describe(self) -> str:
        """Return the rule in sentences for the Methods section of a paper."""


registry: Registry[type[Procedure]] = Registry(
    "procedure",
    "psysim.procedures",
    (
        "psysim.procedures.up_down",
        "psysim.procedures.weighted",
        "psysim.procedures.transformed_weighted",
        "psysim.procedures.pest",
        "psysim.procedures.asa",
        "psysim.procedures.bekesy",
        "psysim.procedures.limits",
        "psysim.procedures.adjustment",
        "psysim.procedures.constant_stimuli",
        "psysim.procedures.interleaved",
        "psysim.procedures.quest",
        "psysim.procedures.quest_plus",
        "psysim.procedures.psi",
        "psysim.procedures.mlp",
        "psysim.procedures.uml",
    ),
)

ProcedureT = TypeVar("ProcedureT", bound=Procedure)


def register(name: str) -> Callable[[type[ProcedureT]], type[ProcedureT]]:
    """Return a class decorator that makes a procedure known under ``name`` (``[procedure] kind = name``)."""

    def add(cls: type[ProcedureT]) -> type[ProcedureT]:
        registry.register(name)(cls)
        return cls

    return add


def as_lane_mask(parameter: str, values: ArrayLike, n_lanes: int) -> BoolArray:
    """Return ``values`` as a boolean array of shape (n_lanes,), or raise `SpecError`."""
    array = np.asarray(values)
    if array.dtype != np.bool_ or array.shape != (n_lanes,):
        raise SpecError(
            f"{parameter} must be a boolean array of shape ({n_lanes},), one entry per lane; "
            f"got {array.dtype} {array.shape}."
        )
    return array


def settings_message(error: ValidationError, settings: type[BaseModel], table: str = "procedure") -> str:
    """Return the mistakes found by pydantic in our wording: key, value, what is allowed, the nearest valid name."""
    lines = []
    for item in error.errors(include_url=False):
        key = ".".join([table, *(str(part) for part in item["loc"])])
        message = item["msg"].removeprefix("Value error, ").removeprefix("Input ")
        if item["type"] == "extra_forbidden":
            name = str(item["loc"][-1])
            known = ", ".join(settings.model_fields)
            lines.append(f"{key} is not known. Allowed: {known}.{did_you_mean(name, settings.model_fields)}")
        elif item["type"] == "missing":
            field = settings.model_fields.get(str(item["loc"][-1]))
            lines.append(f"{key} is missing: {field.description if field else message}.")
        elif not item["loc"]:
            lines += [f"{table}.{line}" for line in message.splitlines()]
        else:
            hint = did_you_mean(item["input"], _quoted(message)) if item["type"] == "literal_error" else ""
            lines.append(f"{key} = {item['input']!r} {message}.{hint}")
    return "\n".join(lines)


def _quoted(message: str) -> list[str]:
    """Return the words in single quotes in a message of pydantic: the options of a literal."""
    return message.split("'")[1::2]
