"""The engine: runs all tracks of an experiment side by side, a full batch at every step.

A lane is one track of one condition and observer while it is live. At every step all live lanes get one trial; a
finished lane's place is taken by the next waiting lane. Everything random is keyed by (seed, condition, observer,
track, trial, interval, purpose), and every computation treats rows alone, so results depend neither on the batch size
nor on the order of lanes, nor on interruptions.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from psysim.errors import StoreError
from psysim.experiments.devices import pick
from psysim.experiments.recording import Recorder, build_dataset, provenance
from psysim.experiments.sounds import Sounds
from psysim.experiments.spec import ExperimentSpec
from psysim.observers import Observer, Trial
from psysim.observers import registry as observers
from psysim.procedures import Procedure, TrackState
from psysim.procedures import registry as procedures
from psysim.results import store

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Progress", "choose_batch", "make_observer", "make_procedure", "run"]

#: Lanes per step when nothing else limits them: beyond this the kernels are busy and steps only get longer.
DEFAULT_BATCH = 64

#: Working memory of the sounds of one interval, in bytes per sample: float64 waveform, spectrum and copies.
BYTES_PER_SAMPLE = 64

Int = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes
    ----------
    observer : str
        Name of the observer at work.
    tracks_done, tracks_total : int
        Over the whole run.
    trials_done : int
        Trials of the whole run, those of an earlier, interrupted execution included.
    trials_new : int
        Trials of this execution.
    elapsed_s : float
        Time since this execution began, the preparation of observers included.
    """

    observer: str
    tracks_done: int
    tracks_total: int
    trials_done: int
    trials_new: int
    elapsed_s: float


def make_procedure(spec: ExperimentSpec) -> Procedure:
    """Return the experiment's tracking rule."""
    return procedures.get(spec.procedure_kind)(**spec.procedure)


def make_observer(spec: ExperimentSpec, index: int, device: str = "cpu") -> Observer:
    """Return one of the experiment's observers with its model, not yet calibrated or prepared."""
    from psysim.hearing import as_audiogram, hearing_loss_options
    from psysim.models import registry as models

    described = spec.observers[index]
    kind = observers.get(described.decision)
    model = None
    if kind.needs_model and described.model is not None:
        model = models.get(described.model)(fs=spec.run.fs, **described.model_options)
        if described.audiogram is not None:
            loss = hearing_loss_options(described.model, model, as_audiogram(described.audiogram), described.ohc_share)
            model = type(model)(fs=spec.run.fs, **{**described.model_options, **loss})
        model = model.to(device)
    return kind(kind.Settings.model_validate(described.settings), model)


def choose_batch(spec: ExperimentSpec, n_samples: int, device: str) -> int:
    """Return the number of lanes per step: as asked, or as many as the memory budget allows."""
    if spec.engine.batch is not None:
        return spec.engine.batch
    budget = spec.engine.memory_fraction * _free_bytes(device)
    return int(max(1, min(DEFAULT_BATCH, budget // (spec.task.make().n_intervals * n_samples * BYTES_PER_SAMPLE))))


def _free_bytes(device: str) -> float:
    if device == "cuda":
        return float(torch.cuda.mem_get_info()[0])
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError):  # not known on this system
        return 2.0 * 2**30


def run(
    spec: ExperimentSpec,
    out: str | Path | None = None,
    *,
    device: str | None = None,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> xr.Dataset:
    """Run an experiment.

    Parameters
    ----------
    spec : ExperimentSpec
        From `load`.
    out : str or Path, optional
        Where the result is stored, a ``.zarr`` folder. Every finished trial is on disk at once, beside it, until the
        run is complete. Without it the result is only returned.
    device : {"auto", "cpu", "cuda"}, optional
        Default: what the experiment says.
    resume : bool
        Continue an interrupted run; a complete one is returned as it is.
    progress : callable, optional
        Called with a `Progress` after every step.

    Returns
    -------
    xarray.Dataset
        See the results schema.

    Raises
    ------
    StoreError
        If ``out`` exists and ``resume`` is False, or belongs to another experiment.
    CalibrationError
        If an observer cannot be calibrated or has no template.
    """
    device = pick(device or spec.engine.device)
    if resume and out is not None and store.state_of(out) == "complete":
        return _finished(spec, Path(out))
    with Recorder.start(spec, out, resume) as recorder:
        facts = _Run(spec, device, recorder, progress).execute()
        dataset = build_dataset(spec, make_procedure(spec), recorder.records(), provenance(spec, device, facts))
        recorder.finish(dataset)
    return dataset


def _finished(spec: ExperimentSpec, out: Path) -> xr.Dataset:
    dataset = store.load(out)
    if dataset.attrs["spec_toml"] != spec.to_toml():
        raise StoreError(
            f"{out} is the complete result of another experiment description. Choose another --out, "
            "or run with the description it was made from ('psysim info' shows it)."
        )
    return dataset


class _Run:
    """One execution of an experiment: its observers one after another, all their lanes side by side."""

    def __init__(
        self, spec: ExperimentSpec, device: str, recorder: Recorder, progress: Callable[[Progress], None] | None
    ) -> None:
        self.spec = spec
        self.device = device
        self.recorder = recorder
        self.progress = progress
        self.procedure = make_procedure(spec)
        self.task = spec.task.make()
        self.began = time.monotonic()
        self.done = 0
        self.trials = len(recorder.records())
        self.trials_before = self.trials

    def execute(self) -> dict[str, Any]:
        """Run all observers; return what each says of its calibration."""
        facts = {}
        records = self.recorder.records()
        states = [replay(self.procedure, self.spec, i, records) for i in range(len(self.spec.observers))]
        self.done = sum(int(state.done.sum()) for state in states)
        for index, described in enumerate(self.spec.observers):
            observer = make_observer(self.spec, index, self.device)
            observer.calibrate()
            self._report(described.name)
            self._lanes(index, observer, states[index])
            facts[described.name] = observer.calibration
        return facts

    def _report(self, name: str) -> None:
        if self.progress is not None:
            new = self.trials - self.trials_before
            elapsed = time.monotonic() - self.began
            self.progress(Progress(name, self.done, self.spec.n_lanes, self.trials, new, elapsed))

    def _lanes(self, index: int, observer: Observer, initial: TrackState) -> None:
        waiting = np.flatnonzero(~initial.done)  # condition-major: condition * n_tracks + track
        if not len(waiting):
            return
        dtype = getattr(observer.model, "dtype", torch.float32)
        sounds = Sounds(self.spec, index, self.device, dtype)
        observer.prepare(sounds)
        batch = choose_batch(self.spec, sounds.n_samples, self.device)
        local, waiting = waiting[:batch], waiting[batch:]
        state = initial.take(local)
        while len(local):
            state = self._step(index, observer, sounds, local, state)
            finished = np.flatnonzero(state.done)
            if len(finished):
                self.done += len(finished)
                entering, waiting = waiting[: len(finished)], waiting[len(finished) :]
                places, leaving = finished[: len(entering)], finished[len(entering) :]
                state = state.put(places, initial.take(entering))
                local = local.copy()
                local[places] = entering
                keep = np.setdiff1d(np.arange(len(local)), leaving)
                state, local = state.take(keep), local[keep]
            self._report(self.spec.observers[index].name)

    def _step(self, index: int, observer: Observer, sounds: Sounds, local: Int, state: TrackState) -> TrackState:
        """Give every live lane one trial."""
        n_tracks = self.spec.run.n_tracks
        level = self.procedure.next_level(state)
        condition = torch.as_tensor(local // n_tracks, device=self.device)
        track = torch.as_tensor(local % n_tracks, device=self.device)
        keys = sounds.keys(condition, track, torch.as_tensor(state.n_trials, dtype=torch.int64, device=self.device))
        levels = torch.as_tensor(level, device=self.device)
        place = sounds.place(keys)
        target = sounds.draw_target(condition, levels, keys, place)
        intervals = sounds.make_intervals(condition, levels, target, keys) if observer.needs_sound else None
        answer = observer.respond(Trial(intervals, condition, levels, target, keys, self.task, place))
        choice, values = answer.choice.cpu().numpy(), answer.decision_variable.cpu().numpy()
        position = target.cpu().numpy()
        correct = self.task.correct(choice, position)
        invalid = ~np.isfinite(values).all(axis=1) if observer.needs_sound else None
        after = self.procedure.record(state, correct, invalid=invalid)
        lane = (local // n_tracks * len(self.spec.observers) + index) * n_tracks + local % n_tracks
        self.recorder.append(
            lane=lane,
            trial=state.n_trials,
            level=level,
            target_interval=position,
            response=choice,
            correct=correct,
            reversal=after.last_reversal,
            decision_variable=values,
        )
        self.trials += len(local)
        return after


def lane_parts(lane: Int, spec: ExperimentSpec) -> tuple[Int, Int, Int]:
    """Return condition, observer and track of lane numbers."""
    track = lane % spec.run.n_tracks
    rest = lane // spec.run.n_tracks
    return rest // len(spec.observers), rest % len(spec.observers), track


def replay(procedure: Procedure, spec: ExperimentSpec, observer: int, records: npt.NDArray[Any]) -> TrackState:
    """Return the states of all tracks of one observer after the trials on record.

    Raises
    ------
    StoreError
        If a recorded level is not the one the tracking rule gives: the record belongs to another experiment.
    """
    state = procedure.init(len(spec.conditions) * spec.run.n_tracks)
    condition, owner, track = lane_parts(records["lane"], spec)
    mine = owner == observer
    records, condition, track = records[mine], condition[mine], track[mine]
    needs_sound = observers.get(spec.observers[observer].decision).needs_sound
    local = condition * spec.run.n_tracks + track
    for trial in range(int(records["trial"].max(initial=-1)) + 1):
        rows = np.flatnonzero(records["trial"] == trial)
        index = local[rows]
        before = state.take(index)
        if not np.array_equal(procedure.next_level(before), records["level"][rows], equal_nan=True):
            raise StoreError(
                f"The recorded levels of trial {trial} are not those of the tracking rule: the record was written by "
                "another experiment description or version of psysim. Start again with another --out."
            )
        invalid = ~np.isfinite(records["decision_variable"][rows]).all(axis=1) if needs_sound else None
        after = procedure.record(before, records["correct"][rows].astype(bool), invalid=invalid)
        state = state.put(index, after)
    return state
