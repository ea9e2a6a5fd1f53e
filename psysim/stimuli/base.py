"""The interface of stimulus kinds: what an experiment names, and what the engine calls.

A kind is one class in one file: its `Parameters` (validated before anything runs), the parameters that may be tracked,
and `generate`, which makes a batch of sounds from parameters and random keys. Most kinds derive from `GatedStimulus`,
which fills in defaults, checks names and adds silence; they only write ``waveform``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from psysim.errors import SpecError, did_you_mean
from psysim.registry import Registry
from psysim.rng import Keys
from psysim.stimuli.batch import Rows, by_blocks, place, round_samples

__all__ = [
    "GatedParameters",
    "GatedStimulus",
    "Stimulus",
    "StimulusParameters",
    "TrackedVariable",
    "register",
    "registry",
]

_BUILTIN = (
    *("tones", "am", "fm", "noise", "gap", "masking", "notched_noise", "complexes", "clicks", "files"),
    *("speech", "speech_in_noise", "vocoder", "binaural", "modulation_masking"),
)

registry: Registry[type[Stimulus]] = Registry(
    "stimulus", "psysim.stimuli", tuple(f"psysim.stimuli.{name}" for name in _BUILTIN)
)
"""All stimulus kinds by name."""


def register(name: str) -> Callable[[type[Stimulus]], type[Stimulus]]:
    """Return a class decorator that adds a stimulus kind under ``name``.

    Parameters
    ----------
    name : str
        Name used in experiment files (``kind = "..."``).

    Raises
    ------
    SpecError
        If another kind has that name.
    """
    return registry.register(name)


@dataclass(frozen=True)
class TrackedVariable:
    """A stimulus parameter that a procedure may vary.

    Attributes
    ----------
    unit : str
        Unit of the values ("dB", "Hz", "s").
    label : str
        Axis label, with the unit.
    reference : float or None
        Value in the reference interval. None: the same value as in the target interval; the reference then differs by
        ``reference_also`` alone.
    minimum, maximum : float
        Physical limits.
    harder : int
        +1 or -1: the direction in which the task gets harder.
    reference_also : mapping
        Other parameters that the reference interval changes too (a masker tracked around a fixed probe: the probe's
        level becomes -inf).
    """

    unit: str
    label: str
    reference: float | None
    minimum: float
    maximum: float
    harder: int
    reference_also: Mapping[str, float] = field(default_factory=dict)


class StimulusParameters(BaseModel):
    """Base of the parameters of a stimulus kind: unknown names are refused, values are checked, nothing changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class GatedParameters(StimulusParameters):
    """Parameters that all gated sounds share."""

    duration_s: float = Field(0.5, gt=0, le=60, description="Duration in s, ramps included, silence excluded.")
    ramp_s: float = Field(0.02, ge=0, le=30, description="Duration in s of the onset ramp, and of the offset ramp.")
    ramp_shape: Literal["raised_cosine", "linear"] = Field("raised_cosine", description="Shape of the ramps.")
    silence_before_s: float = Field(0.0, ge=0, le=60, description="Silence in s before the sound.")
    silence_after_s: float = Field(0.0, ge=0, le=60, description="Silence in s after the sound.")


class Stimulus(ABC):
    """A kind of sound that experiments can name. One instance serves all batches; it holds no state.

    Attributes
    ----------
    Parameters : type of pydantic model
        Every parameter with its unit in the name, its range, its default and a description.
    tracked : mapping of str to TrackedVariable
        Parameters that a procedure may vary.
    description : str
        One line in the user's words.
    n_ears : int
        1: sounds (B, T); 2: sounds (B, 2, T), left ear first.
    """

    n_ears: ClassVar[int] = 1
    Parameters: ClassVar[type[BaseModel]]
    tracked: ClassVar[Mapping[str, TrackedVariable]]
    description: ClassVar[str]

    @abstractmethod
    def generate(
        self,
        parameters: Mapping[str, Tensor | float | str | bool | None],
        keys: Keys,
        fs: float,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Return a batch of sounds.

        Parameters
        ----------
        parameters : mapping
            Numbers are floats or (B,) tensors; options (texts, switches, None) hold for the whole batch.
            Missing parameters take their defaults.
        keys : Keys
            Random keys, batch shape (B,) or ().
        fs : float
            Sampling rate in Hz.
        dtype : torch.dtype
            Type of the result; computed in float64 and rounded at the end.

        Returns
        -------
        Tensor
            (B, T) in pascal, on the device of the keys; zeros after the end of shorter rows. No gradient. Kinds for two
            ears return (B, 2, T).
        """

    @abstractmethod
    def duration_s(self, parameters: Mapping[str, Any]) -> float:
        """Return the total duration in s, silence included, of the longest row."""

    def complete(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters with defaults filled in.

        Raises
        ------
        SpecError
            If a name is not a parameter of this kind, or a parameter without default is missing.
        """
        known = self.Parameters.model_fields
        for name in parameters:
            if name not in known:
                raise SpecError(
                    f"'{name}' is not a parameter of this stimulus ({type(self).__name__}). "
                    f"Allowed: {', '.join(known)}.{did_you_mean(name, known)}"
                )
        missing = [name for name, f in known.items() if f.is_required() and name not in parameters]
        if missing:
            raise SpecError(f"{type(self).__name__} needs the parameter '{missing[0]}', which was not given.")
        defaults = {name: f.get_default(call_default_factory=True) for name, f in known.items() if not f.is_required()}
        return {**defaults, **parameters}

    def reference_parameters(self, parameters: Mapping[str, Any], tracks: str) -> dict[str, Any]:
        """Return the parameters of the reference interval of a detection or discrimination task.

        Parameters
        ----------
        parameters : mapping
            Parameters of the target interval.
        tracks : str
            Name of the tracked variable.

        Returns
        -------
        dict
            The same, with the tracked variable at its reference value and ``reference_also`` applied.

        Raises
        ------
        SpecError
            If ``tracks`` cannot be tracked.
        """
        if tracks not in self.tracked:
            raise SpecError(
                f"'{tracks}' cannot be tracked in {type(self).__name__}. "
                f"Allowed: {', '.join(self.tracked)}.{did_you_mean(tracks, self.tracked)}"
            )
        variable = self.tracked[tracks]
        changed = dict(variable.reference_also)
        if variable.reference is not None:
            changed[tracks] = variable.reference
        return {**parameters, **changed}


def longest(value: Any) -> float:
    """Return the largest of a number or tensor as a float."""
    return float(value.max()) if isinstance(value, Tensor) else float(value)


class GatedStimulus(Stimulus):
    """A kind whose sound starts after ``silence_before_s`` and ends before ``silence_after_s``.

    Subclasses write `waveform`, and `sound_s` if the sound lasts longer than ``duration_s``.
    """

    @abstractmethod
    def waveform(self, p: Rows, keys: Keys, fs: float) -> Tensor:
        """Return the sound itself, (B, T) float64 pascal, from completed and broadcast parameters."""

    def sound_s(self, parameters: Mapping[str, Any]) -> Any:
        """Return the duration in s of the sound without silence: a number or one per row."""
        return parameters["duration_s"]

    def generate(
        self,
        parameters: Mapping[str, Tensor | float | str | bool | None],
        keys: Keys,
        fs: float,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Return a batch of sounds: see `Stimulus.generate`."""
        p = Rows(self.complete(parameters), keys)
        p.check("silence_before_s", 0.0, 60.0, "s")
        p.check("silence_after_s", 0.0, 60.0, "s")
        total = round_samples(
            torch.as_tensor(self.sound_s(p.values) + p["silence_before_s"] + p["silence_after_s"]), fs
        )

        def make(rows: Rows) -> Tensor:
            sound = self.waveform(rows, rows.keys, fs)
            before = rows.length(fs, "silence_before_s")
            return place(sound, before, sound.shape[1] + int(before.max()))

        with torch.no_grad():
            return by_blocks(make, p, int(total.max()), dtype)

    def duration_s(self, parameters: Mapping[str, Any]) -> float:
        """Return the total duration in s, silence included, of the longest row."""
        p = self.complete(parameters)
        return longest(self.sound_s(p) + p["silence_before_s"] + p["silence_after_s"])
