"""Tracking rules over many lanes at once, tasks, signal detection theory, psychometric functions.

This room knows nothing about sound: levels go out, answers come in. It needs no torch.
"""

from __future__ import annotations

from psysim.procedures.base import (
    Procedure,
    ProcedureSettings,
    Status,
    TrackState,
    TrackSummary,
    concatenate,
    register,
    registry,
)
from psysim.procedures.staircase import Staircase, StaircaseState
from psysim.procedures.up_down import UpDown, up_down_target
from psysim.procedures.weighted import WeightedUpDown

__all__ = [
    "Procedure",
    "ProcedureSettings",
    "Staircase",
    "StaircaseState",
    "Status",
    "TrackState",
    "TrackSummary",
    "UpDown",
    "WeightedUpDown",
    "concatenate",
    "register",
    "registry",
    "up_down_target",
]
