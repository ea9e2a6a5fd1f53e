"""The steps that `chain_forward` and `chain_products` run in one pass: an operator with its coefficients as a value.

A model hands its stages over as a list of steps. Each step can also be run alone (`Step.run`), which is the same
operator that the stage itself calls; so a chain run step by step is the definition of the chain run in one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, Self

import torch
from torch import Tensor

from psysim.ops._adaptation import adaptation_loops
from psysim.ops._drnl import drnl
from psysim.ops._gammatone import gammatone
from psysim.ops._hair_cell import hair_cell
from psysim.ops._modulation import modulation_bank
from psysim.ops._resample import resample
from psysim.ops._sosfilt import sosfilt

__all__ = [
    "Bank",
    "Decimate",
    "Drnl",
    "Gammatone",
    "HairCell",
    "HalfWave",
    "Loops",
    "Sections",
    "Square",
    "Step",
    "kinds_of",
    "rebuild",
]


@dataclass(frozen=True, eq=False)
class Step:
    """One operator of a chain. Fields are tensors and numbers, so that a chain passes through `torch.library`."""

    source: ClassVar[bool] = False  # takes sound (B, T) and makes channels (B, F, T): only as the first step

    def run(self, x: Tensor) -> Tensor:
        """Apply the step alone."""
        raise NotImplementedError

    def samples_out(self, samples: int) -> int:
        """Return how many samples come out for ``samples``."""
        return samples

    @property
    def tensors(self) -> list[Tensor]:
        """The fields that are tensors, in order."""
        return [value for value in self._values() if isinstance(value, Tensor)]

    @property
    def numbers(self) -> list[float]:
        """The fields that are numbers, in order."""
        return [float(value) for value in self._values() if not isinstance(value, Tensor)]

    def _values(self) -> list[Tensor | float]:
        return [getattr(self, field.name) for field in fields(self)]

    @classmethod
    def rebuild(cls, tensors: list[Tensor], numbers: list[float]) -> Self:
        """Make a step from the front of the two lists, which lose what was used."""
        return cls(*(tensors.pop(0) if field.type == "Tensor" else numbers.pop(0) for field in fields(cls)))


@dataclass(frozen=True, eq=False)
class Gammatone(Step):
    """`gammatone` with real output: ``decay`` and ``angle`` (F,)."""

    decay: Tensor
    angle: Tensor
    order: float
    source: ClassVar[bool] = True

    def run(self, x: Tensor) -> Tensor:
        """Filter sound (B, T) into (B, F, T)."""
        return gammatone(x, self.decay, self.angle, int(self.order))


@dataclass(frozen=True, eq=False)
class Drnl(Step):
    """`drnl`: sections (F, S, 6) of its three cascades; ``linear``, ``gain``, ``exponent`` of the compression."""

    linear_sos: Tensor
    before_sos: Tensor
    linear: Tensor
    gain: Tensor
    exponent: Tensor
    after_sos: Tensor
    source: ClassVar[bool] = True

    def run(self, x: Tensor) -> Tensor:
        """Filter sound (B, T) into (B, F, T)."""
        return drnl(x, self.linear_sos, self.before_sos, self.linear, self.gain, self.exponent, self.after_sos)


@dataclass(frozen=True, eq=False)
class HalfWave(Step):
    """Half-wave rectification, max(x, 0)."""

    def run(self, x: Tensor) -> Tensor:
        """Rectify (B, F, T)."""
        return torch.relu(x)


@dataclass(frozen=True, eq=False)
class Sections(Step):
    """`sosfilt`: ``sos`` (S, 6) or (F, S, 6)."""

    sos: Tensor

    def run(self, x: Tensor) -> Tensor:
        """Filter (B, F, T)."""
        return sosfilt(x, self.sos)


@dataclass(frozen=True, eq=False)
class Square(Step):
    """Expansion, (gain x)^2: ``gain`` (1,) or (F,)."""

    gain: Tensor

    def run(self, x: Tensor) -> Tensor:
        """Square (B, F, T)."""
        return torch.square(x * self.gain.to(x.dtype)[:, None])


@dataclass(frozen=True, eq=False)
class HairCell(Step):
    """`hair_cell`: ``constants`` (12,) or (F, 12), ``fs`` in Hz."""

    constants: Tensor
    fs: float

    def run(self, x: Tensor) -> Tensor:
        """Turn velocities (B, F, T) into voltages."""
        return hair_cell(x, self.constants, self.fs)


@dataclass(frozen=True, eq=False)
class Loops(Step):
    """`adaptation_loops`: ``decay`` (N,), ``minimum`` (1,) or (F,), ``limit``."""

    decay: Tensor
    minimum: Tensor
    limit: float

    def run(self, x: Tensor) -> Tensor:
        """Adapt (B, F, T)."""
        return adaptation_loops(x, self.decay, self.minimum, self.limit)


@dataclass(frozen=True, eq=False)
class Decimate(Step):
    """`resample` by 1/``down`` with ``taps``; as Paulick et al. (2024), only the first floor(T / down) samples."""

    taps: Tensor
    down: float

    def run(self, x: Tensor) -> Tensor:
        """Decimate (B, F, T) to (B, F, T // down)."""
        return resample(x, 1, int(self.down), self.taps)[..., : self.samples_out(x.shape[-1])]

    def samples_out(self, samples: int) -> int:
        """Return how many samples come out for ``samples``."""
        return samples // int(self.down)


@dataclass(frozen=True, eq=False)
class Bank(Step):
    """`modulation_bank` with real output: the last step of a chain."""

    lowpass_sos: Tensor
    decay: Tensor
    angle: Tensor
    envelope: Tensor
    scale: Tensor
    valid: Tensor

    def run(self, x: Tensor) -> Tensor:
        """Filter (B, F, T) into (B, F, M, T)."""
        return modulation_bank(x, self.lowpass_sos, self.decay, self.angle, self.envelope, self.scale, self.valid)


_KINDS: tuple[type[Step], ...] = (Gammatone, Drnl, HalfWave, Sections, HairCell, Loops, Decimate, Bank, Square)


def kinds_of(steps: Sequence[Step]) -> list[int]:
    """Return the kind of each step as a number."""
    return [_KINDS.index(type(step)) for step in steps]


def rebuild(kinds: Sequence[int], tensors: Sequence[Tensor], numbers: Sequence[float]) -> list[Step]:
    """Make the steps again from what `kinds_of`, `Step.tensors` and `Step.numbers` gave, one after another."""
    tensors, numbers = list(tensors), list(numbers)
    return [_KINDS[kind].rebuild(tensors, numbers) for kind in kinds]
