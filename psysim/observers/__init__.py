"""Observers: internal representation, decision variable, internal noise, response."""

from psysim.observers.base import Observer, ObserverSettings, Response, TrainingSounds, Trial, register, registry
from psysim.observers.binaural import BinauralDetector, DelayTask
from psysim.observers.casp import Casp
from psysim.observers.casp_stage import (
    band_correlations,
    band_mask,
    criterion_difference,
    interval_difference,
    proportion_correct,
    region_of_interest,
)
from psysim.observers.decision_variable import DecisionVariable
from psysim.observers.king2019 import King2019Observer
from psysim.observers.loudness import LoudnessObserver
from psysim.observers.network import NetworkObserver
from psysim.observers.optimal_detector import OptimalDetector
from psysim.observers.simulated import SimulatedListener
from psysim.observers.two_templates import TwoTemplates, two_template_correlations, two_template_gain

__all__ = [
    "BinauralDetector",
    "Casp",
    "DecisionVariable",
    "DelayTask",
    "King2019Observer",
    "LoudnessObserver",
    "NetworkObserver",
    "Observer",
    "ObserverSettings",
    "OptimalDetector",
    "Response",
    "SimulatedListener",
    "TrainingSounds",
    "Trial",
    "TwoTemplates",
    "band_correlations",
    "band_mask",
    "criterion_difference",
    "interval_difference",
    "proportion_correct",
    "region_of_interest",
    "register",
    "registry",
    "two_template_correlations",
    "two_template_gain",
]
