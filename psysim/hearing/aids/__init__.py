"""Hearing aids: sound in pascal in and out, differentiable, in blocks or at once, with a stated delay."""

from __future__ import annotations

from psysim.hearing.aids.base import HearingAid, State, register, registry
from psysim.hearing.aids.candidates import (
    CANDIDATES,
    CommandCandidate,
    FolderCandidate,
    PythonCandidate,
    TorchScriptCandidate,
    UserCandidate,
    sound_name,
)
from psysim.hearing.aids.chain import Chain
from psysim.hearing.aids.compression import Compressor
from psysim.hearing.aids.files import load_aid, make_aid
from psysim.hearing.aids.gains import FilterbankGains, LearnableFIR
from psysim.hearing.aids.linear import LinearAid
from psysim.hearing.aids.noise import Directional, NoiseReduction
from psysim.hearing.aids.outside import FAILURES, CandidateError
from psysim.hearing.aids.passthrough import PassThrough, ScalarGain
from psysim.hearing.aids.prescriptions import PRESCRIPTION_FREQUENCIES_HZ, PRESCRIPTIONS, insertion_gains

__all__ = [
    "CANDIDATES",
    "FAILURES",
    "PRESCRIPTIONS",
    "PRESCRIPTION_FREQUENCIES_HZ",
    "CandidateError",
    "Chain",
    "CommandCandidate",
    "Compressor",
    "Directional",
    "FilterbankGains",
    "FolderCandidate",
    "HearingAid",
    "LearnableFIR",
    "LinearAid",
    "NoiseReduction",
    "PassThrough",
    "PythonCandidate",
    "ScalarGain",
    "State",
    "TorchScriptCandidate",
    "UserCandidate",
    "insertion_gains",
    "load_aid",
    "make_aid",
    "register",
    "registry",
    "sound_name",
]
