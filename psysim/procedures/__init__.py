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
from psysim.procedures.convergence import expected_threshold
from psysim.procedures.psychometric import (
    PsychometricFunction,
    inverse_psychometric_function,
    psychometric_function,
)
from psysim.procedures.sdt import (
    criterion_yes_no,
    d_prime_mafc,
    d_prime_yes_no,
    log_linear_rates,
    proportion_correct_large_m,
    proportion_correct_mafc,
    proportion_correct_yes_no,
    rates_yes_no,
)
from psysim.procedures.staircase import Staircase, StaircaseState
from psysim.procedures.tasks import AFC, NO_TARGET, Task, YesNo
from psysim.procedures.up_down import UpDown, up_down_target
from psysim.procedures.weighted import WeightedUpDown

__all__ = [
    "AFC",
    "NO_TARGET",
    "Procedure",
    "ProcedureSettings",
    "PsychometricFunction",
    "Staircase",
    "StaircaseState",
    "Status",
    "Task",
    "TrackState",
    "TrackSummary",
    "UpDown",
    "WeightedUpDown",
    "YesNo",
    "concatenate",
    "criterion_yes_no",
    "d_prime_mafc",
    "d_prime_yes_no",
    "expected_threshold",
    "inverse_psychometric_function",
    "log_linear_rates",
    "proportion_correct_large_m",
    "proportion_correct_mafc",
    "proportion_correct_yes_no",
    "psychometric_function",
    "rates_yes_no",
    "register",
    "registry",
    "up_down_target",
]
