"""What a run would do and cost, without running it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from psysim.experiments.devices import pick
from psysim.experiments.engine import choose_batch, make_observer, make_procedure
from psysim.experiments.sounds import Sounds
from psysim.experiments.spec import ExperimentSpec
from psysim.observers import Observer, Trial

__all__ = ["ObserverPlan", "Plan", "expected_trials", "plan"]


@dataclass(frozen=True)
class ObserverPlan:
    """Expected cost of one observer.

    Attributes
    ----------
    name : str
    batch : int
        Lanes per step.
    seconds_per_trial : float
        Measured on one batch of sounds of the first conditions.
    seconds : float
        Expected time of all its tracks, templates not included.
    """

    name: str
    batch: int
    seconds_per_trial: float
    seconds: float


@dataclass(frozen=True)
class Plan:
    """Expected size and cost of a run.

    Attributes
    ----------
    n_conditions, n_observers, n_tracks : int
    trials_per_track : float
        Mean over simulated tracks of a listener whose threshold lies between start and limit.
    sound_s : float
        Seconds of sound that all observers together listen to.
    device : str
    observers : tuple of ObserverPlan
    """

    n_conditions: int
    n_observers: int
    n_tracks: int
    trials_per_track: float
    sound_s: float
    device: str
    observers: tuple[ObserverPlan, ...]

    @property
    def seconds(self) -> float:
        """Expected time in seconds."""
        return sum(o.seconds for o in self.observers)


def expected_trials(spec: ExperimentSpec, n_lanes: int = 200) -> float:
    """Return the mean number of trials per track of a simulated listener.

    The listener's threshold lies three of the largest steps beyond the start of the track, in the harder direction.
    """
    from psysim.procedures.psychometric import PsychometricFunction
    from psysim.testing import run_tracks

    procedure, task = make_procedure(spec), spec.task.make()
    harder = float(spec.procedure.get("harder", -1))
    span = float(np.max(spec.procedure.get("steps", [1.0])))
    threshold = float(spec.procedure["level_start"]) + 3 * span * harder
    listener = PsychometricFunction(threshold, slope=-harder * 0.5 / span, guess_rate=task.chance_level)
    return float(run_tracks(procedure, task, listener, n_lanes, seed=1).n_trials.mean())


def _seconds_per_answer(observer: Observer, sounds: Sounds, probe: int) -> float:
    """Return the time of one trial of an observer without a model of its own name."""
    observer.prepare(sounds)
    row = torch.zeros(probe, dtype=torch.int64, device=sounds.device)
    level = torch.full(row.shape, sounds.start_level, dtype=torch.float64, device=sounds.device)
    keys = sounds.keys(row, torch.arange(probe, device=sounds.device), row)
    place = sounds.place(keys)
    target = sounds.draw_target(row, level, keys, place)
    start = 0.0
    for _ in range(2):
        start = time.perf_counter()
        intervals = sounds.make_intervals(row, level, target, keys)
        observer.respond(Trial(intervals, row, level, target, keys, sounds.task, place))
    return (time.perf_counter() - start) / probe


def plan(spec: ExperimentSpec, device: str | None = None, probe: int = 2) -> Plan:
    """Estimate what a run would cost; the sound of ``probe`` trials is generated and modelled to time it."""
    device = pick(device or spec.engine.device)
    trials = expected_trials(spec)
    n_conditions = len(spec.conditions)
    tracks = n_conditions * spec.run.n_tracks
    parts = []
    duration_s = 0.0
    for index, described in enumerate(spec.observers):
        observer = make_observer(spec, index, device)
        sounds = Sounds(spec, index, device, getattr(observer.model, "dtype", torch.float32))
        duration_s = sounds.n_samples / spec.run.fs
        per_trial = 1e-5  # a simulated listener
        if observer.model is not None:
            token = torch.arange(probe * sounds.n_intervals, device=device)
            for _ in range(2):  # the first pass compiles
                start = time.perf_counter()
                with torch.no_grad():
                    observer.model.represent(sounds.reference(torch.zeros_like(token), token))
                per_trial = (time.perf_counter() - start) / probe
        elif observer.needs_sound:
            per_trial = _seconds_per_answer(observer, sounds, probe)
        batch = choose_batch(spec, sounds.n_samples, device)
        parts.append(ObserverPlan(described.name, batch, per_trial, per_trial * trials * tracks))
    sound_s = trials * tracks * len(spec.observers) * spec.task.make().n_intervals * duration_s
    return Plan(n_conditions, len(spec.observers), spec.run.n_tracks, trials, sound_s, device, tuple(parts))
