"""Hearing aids: sound in pascal in and out, differentiable, in blocks or at once, with a stated delay."""

from __future__ import annotations

from psysim.hearing.aids.base import HearingAid, State, register, registry
from psysim.hearing.aids.compression import Compressor
from psysim.hearing.aids.linear import LinearAid
from psysim.hearing.aids.passthrough import PassThrough, ScalarGain
from psysim.hearing.aids.prescriptions import PRESCRIPTION_FREQUENCIES_HZ, PRESCRIPTIONS, insertion_gains

__all__ = [
    "PRESCRIPTIONS",
    "PRESCRIPTION_FREQUENCIES_HZ",
    "Compressor",
    "HearingAid",
    "LinearAid",
    "PassThrough",
    "ScalarGain",
    "State",
    "insertion_gains",
    "register",
    "registry",
]
