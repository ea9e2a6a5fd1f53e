"""Observers: internal representation, decision variable, internal noise, response."""

from psysim.observers.base import Observer, ObserverSettings, Response, TrainingSounds, Trial, register, registry
from psysim.observers.optimal_detector import OptimalDetector
from psysim.observers.simulated import SimulatedListener

__all__ = [
    "Observer",
    "ObserverSettings",
    "OptimalDetector",
    "Response",
    "SimulatedListener",
    "TrainingSounds",
    "Trial",
    "register",
    "registry",
]
