"""Aids in a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from psysim.errors import SpecError
from psysim.hearing.aids.base import HearingAid, State, register

__all__ = ["Chain"]


@register("chain")
class Chain(HearingAid):
    """Aids in a row: each processes the output of the one before.

    Parameters
    ----------
    fs : float
        Sampling rate, Hz.
    stages : sequence
        Aids, or tables with ``kind`` and the arguments of that aid. One that needs target and noise apart is the first.
    learnable : bool
        Make the settings of stages given as tables trainable.
    dtype : torch.dtype
        dtype of stages given as tables.

    Attributes
    ----------
    stages : ModuleList

    Raises
    ------
    SpecError
        If there is no stage, a stage is of another sampling rate, or one that needs target and noise apart comes later.

    Examples
    --------
    >>> linear = {"kind": "linear", "prescription": "NAL-R", "audiogram": "N3"}
    >>> Chain(16000.0, [{"kind": "noise_reduction"}, linear]).delay
    256
    """

    def __init__(
        self,
        fs: float,
        stages: Sequence[HearingAid | Mapping[str, Any]],
        learnable: bool = False,
        dtype: torch.dtype | str = torch.float32,
    ) -> None:
        from psysim.hearing.aids.files import make_aid

        super().__init__(fs, learnable=learnable, dtype=dtype)
        if isinstance(stages, str | Mapping) or not isinstance(stages, Sequence) or not stages:
            raise SpecError("stages must be a list of at least one aid.")
        made = [
            s if isinstance(s, HearingAid) else make_aid(s, self.fs, learnable=learnable, dtype=dtype) for s in stages
        ]
        for place, stage in enumerate(made):
            if stage.fs != self.fs:
                raise SpecError(f"stages[{place}] is for fs = {stage.fs:g} Hz, the chain for {self.fs:g} Hz.")
            if stage.needs_sources and place:
                raise SpecError(f"stages[{place}] needs target and noise apart: it must be the first stage.")
        self.stages = nn.ModuleList(made)
        self.streams = all(s.streams for s in made)
        self.needs_sources = made[0].needs_sources

    @property
    def delay(self) -> int:
        """Samples by which the output lags the input."""
        return sum(stage.delay for stage in self.stages)  # type: ignore[misc]

    def mix(self, target: Tensor, noise: Tensor) -> Tensor:
        """Return the aided sound of a target in noise, both (T,), (B, T) or (B, 2, T) in pascal, given apart."""
        y: Tensor = self.stages[0].mix(target, noise)  # type: ignore[operator]
        for stage in list(self.stages)[1:]:
            y = stage(y)
        return y

    def _process(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        ends: State = {}
        for place, stage in enumerate(self.stages):
            x, ends[str(place)] = stage._process(x, None if state is None else state[str(place)])  # type: ignore[operator]
        return x, ends
