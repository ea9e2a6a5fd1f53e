"""What a run leaves behind: every trial at once in a journal, the dataset at the end."""

from __future__ import annotations

import datetime
import json
import platform
import sys
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from psysim.errors import StoreError
from psysim.experiments.spec import ExperimentSpec
from psysim.results import store
from psysim.results.journal import Journal, fill, read_journal, record_dtype
from psysim.results.schema import empty_dataset
from psysim.rng import TRAINING_TRIAL_BASE

if TYPE_CHECKING:
    import xarray as xr

    from psysim.procedures import Procedure

__all__ = ["Recorder", "build_dataset", "open_result", "provenance"]

#: Most trials that a track can have: training presentations use the upper half of the range of trial numbers.
TRIAL_LIMIT = TRAINING_TRIAL_BASE


class Recorder:
    """Keeps every finished trial: in a journal on disk beside the result, or in memory if nothing is stored.

    Parameters
    ----------
    n_intervals : int
    out : Path or None
    journal : Journal or None
    """

    def __init__(self, n_intervals: int, out: Path | None = None, journal: Journal | None = None) -> None:
        self._out = out
        self._journal = journal
        self._dtype = record_dtype(n_intervals)
        self._blocks: list[npt.NDArray[Any]] = [] if journal is None else [journal.records()]

    @classmethod
    def start(cls, spec: ExperimentSpec, out: str | Path | None, resume: bool) -> Self:
        """Begin or continue a record.

        Raises
        ------
        StoreError
            If a result is there and ``resume`` is False, or it belongs to another experiment.
        """
        n_intervals = spec.task.make().n_intervals
        if out is None:
            return cls(n_intervals)
        out = Path(out)
        state = store.state_of(out)
        if state == "complete":
            raise StoreError(f"{out} exists and is complete. Choose another --out, or --resume to keep it as it is.")
        if state == "partial" and not resume:
            raise StoreError(f"{out} was begun and interrupted. Add --resume to continue it, or choose another --out.")
        if state == "absent":
            header = {"spec_toml": spec.to_toml(), "dims": _dims(spec)}
            return cls(n_intervals, out, Journal.create(store.partial_path(out), header))
        journal = Journal.open(store.partial_path(out))
        if journal.header["spec_toml"] != spec.to_toml():
            journal.close()
            raise StoreError(
                f"{out} was begun with another experiment description, so it cannot be continued with this one. "
                "Use the same file, --profile, --set, --seed and --tracks as before, or another --out."
            )
        return cls(n_intervals, out, journal)

    def append(self, **columns: npt.NDArray[Any]) -> None:
        """Keep one trial of every live lane; on disk when this returns."""
        if self._journal is not None:
            self._journal.append(**columns)
        block = np.zeros(len(columns["lane"]), dtype=self._dtype)
        for name, values in columns.items():
            block[name] = values
        self._blocks.append(block)

    def records(self) -> npt.NDArray[Any]:
        """Return all trials so far, in the order in which they were recorded."""
        if not self._blocks:
            return np.zeros(0, dtype=self._dtype)
        if len(self._blocks) > 1:
            self._blocks = [np.concatenate(self._blocks)]
        return self._blocks[0]

    def finish(self, dataset: xr.Dataset) -> None:
        """Store the complete dataset and remove the journal."""
        if self._out is not None and self._journal is not None:
            store.finish(self._journal, dataset, self._out)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._journal is not None:
            self._journal.close()


def _dims(spec: ExperimentSpec) -> dict[str, int]:
    return {
        "condition": len(spec.conditions),
        "observer": len(spec.observers),
        "track": spec.run.n_tracks,
        "trial": int(spec.procedure.get("max_trials", TRIAL_LIMIT)),
        "interval": spec.task.make().n_intervals,
    }


def build_dataset(
    spec: ExperimentSpec, procedure: Procedure, records: npt.NDArray[Any], facts: dict[str, Any], complete: bool = True
) -> xr.Dataset:
    """Return the dataset of a run: the recorded trials, and what the tracking rule makes of them.

    Parameters
    ----------
    spec : ExperimentSpec
    procedure : Procedure
    records : structured array
        All trials; see `psysim.results.journal`.
    facts : dict
        Provenance.
    complete : bool
        Whether all tracks have ended.

    Returns
    -------
    xarray.Dataset
    """
    from psysim.experiments.engine import replay
    from psysim.stimuli import registry as stimuli

    tracked = stimuli.get(spec.stimulus_kind).tracked[spec.tracks]
    n_trials = int(records["trial"].max(initial=-1)) + 1
    task = spec.task.make()
    labels = {"n_labels": task.n_alternatives} if task.identifies else {}
    dataset = empty_dataset(
        conditions={name: [c[name] for c in spec.conditions] for name in spec.factors},
        observers=[o.name for o in spec.observers],
        n_tracks=spec.run.n_tracks,
        n_trials=max(n_trials, 1),
        n_intervals=task.n_intervals,
        level_unit=tracked.unit,
        level_long_name=tracked.label,
        attrs={
            "title": spec.title,
            "spec_toml": spec.to_toml(),
            "provenance": json.dumps(facts, default=str),
            "complete": int(complete),
            "tracked_variable": spec.tracks,
            "target_proportion": float(procedure.target_proportion),
            **labels,
        },
    )
    dataset = fill(dataset, records)
    shape = (len(spec.conditions), spec.run.n_tracks)
    for index in range(len(spec.observers)):
        summary = procedure.summary(replay(procedure, spec, index, records))
        for name in ("threshold", "threshold_sem", "n_trials", "status"):
            dataset[name].values[:, index, :] = np.reshape(getattr(summary, name), shape)
    return dataset


def provenance(spec: ExperimentSpec, device: str, calibration: dict[str, Any]) -> dict[str, Any]:
    """Return where a result comes from: versions, seed, device, time, calibration of every observer."""
    import numba
    import torch

    from psysim import __version__

    return {
        "psysim": __version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "source": Path(spec.source).name,
        "seed": spec.run.seed,
        "device": device,
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
        "torch": torch.__version__,
        "numpy": np.__version__,
        "numba": numba.__version__,
        "calibration": calibration,
    }


def open_result(path: str | Path) -> xr.Dataset:
    """Return a result: a complete one as stored, an unfinished one assembled from its journal.

    Raises
    ------
    StoreError
        If there is no result of that name, or it is damaged.
    """
    from psysim.experiments.engine import make_procedure
    from psysim.experiments.spec import loads

    if store.state_of(path) != "partial":
        return store.load(path)
    header, records = read_journal(store.partial_path(path))
    spec = loads(header["spec_toml"], source=f"{path} (unfinished)")
    return build_dataset(spec, make_procedure(spec), records, provenance(spec, "unknown", {}), complete=False)
