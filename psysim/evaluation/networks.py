"""Outputs of a trained network for a set of sounds: one dataset, written when it is complete, resumable until then."""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from psysim.errors import NumericsError, PsysimWarning, SpecError, StoreError, check_range
from psysim.evaluation.sound_sets import SoundSet
from psysim.models.phaselocknet import LOCATION_HEAD, PhaseLockNet, location_of
from psysim.results.files import sync_file, take_lock, write_atomically
from psysim.rng import Keys

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["evaluate", "fit_to_input"]

PLAN = "plan.json"


def fit_to_input(sound: NDArray[np.float64], fs: float, model: PhaseLockNet) -> tuple[NDArray[np.float64], int]:
    """Return a sound as a model takes it: its rate, its ears, its length.

    Other rates are converted (windowed sinc: Hann window, 6 zero crossings, roll-off 0.99, as published); one channel
    is given to both ears of a model with two; what is too long is cut, and what is too short filled with silence, by
    the same amount at both ends.

    Parameters
    ----------
    sound : ndarray (channels, ..., T)
        Sound in pascal, or rates.
    fs : float
        Its sampling rate, Hz.
    model : PhaseLockNet
        The model.

    Returns
    -------
    sound : ndarray (..., n_samples), or (2, ..., n_samples)
        What `PhaseLockNet.forward` takes, one row.
    filled : int
        Number of samples of silence.

    Raises
    ------
    SpecError
        If it is of another kind (sound, rates), has two channels for one ear, or its rate cannot be converted.
    """
    import torchaudio

    conf = model.configuration
    _check_format("The sound", sound.ndim, sound.shape[0], fs, model)
    if fs != conf.fs:
        converted = torchaudio.functional.resample(torch.from_numpy(sound), int(fs), int(conf.fs))
        sound = converted.numpy()
    missing = conf.n_samples - sound.shape[-1]
    if missing > 0:
        widths = [(0, 0)] * (sound.ndim - 1) + [(missing // 2, missing - missing // 2)]
        sound = np.pad(sound, widths)
    elif missing < 0:
        first = -missing // 2
        sound = sound[..., first : first + conf.n_samples]
    if conf.ears == 1:
        return sound[0], max(missing, 0)
    return np.broadcast_to(sound, (2, *sound.shape[1:])), max(missing, 0)


def _check_format(name: str, ndim: int, channels: int, fs: float, model: PhaseLockNet) -> None:
    conf = model.configuration
    if ndim != (2 if conf.takes == "sound" else 4):
        raise SpecError(f"{name} is not what the model takes: {conf.takes}.")
    if channels > conf.ears:
        raise SpecError(f"{name} has {channels} channels, but the model has {conf.ears} ear(s).")
    if fs != conf.fs and (conf.takes == "rates" or fs != int(fs) or conf.fs != int(conf.fs)):
        raise SpecError(f"{name} has a rate of {fs:g} Hz, which cannot be converted to the model's {conf.fs:g} Hz.")


def evaluate(
    model: PhaseLockNet,
    sounds: SoundSet,
    out: str | Path,
    *,
    batch_size: int = 32,
    repeats: int = 1,
    seed: int = 0,
    device: torch.device | str = "cpu",
    resume: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> xr.Dataset:
    """Run a network over a set of sounds and store its logits and responses.

    The spikes of a sound depend on ``seed``, its position in the set and the repeat only: neither on the batch nor on
    an interruption. Every batch is kept on the disk as soon as it is done.

    Parameters
    ----------
    model : PhaseLockNet
        Moved to ``device``.
    sounds : SoundSet
        From `open_sounds`.
    out : path
        Name of the result, ending in ``.zarr`` (folder) or ``.nc`` (NetCDF). Until it is complete, everything is in the
        folder ``<out>.partial``.
    batch_size : int
        Sounds at a time.
    repeats : int
        How often each sound is heard, with new spikes each time.
    seed : int
        Seed of the spikes.
    device : device
        Where to compute.
    resume : bool
        Continue in the folder ``<out>.partial``; without one, start.
    progress : callable, optional
        Called with the number of presentations done and of all.

    Returns
    -------
    xarray.Dataset
        Dims ``stimulus``, ``repeat`` and, for each head, ``class_<head>``. Variables ``logits_<head>``,
        ``response_<head>`` (the class of the largest logit) and, if the sounds have a column named as the head,
        ``correct_<head>``. Columns of the set are coordinates of ``stimulus`` (``column_<name>`` where the name is one
        of the above); directions have the coordinates ``class_azimuth`` and ``class_elevation``.

    Raises
    ------
    SpecError
        If a sound does not fit the model, or a true class is none; before anything runs.
    StoreError
        If ``out`` exists, or the unfinished result is of another model, set or seed.
    NumericsError
        If a logit is not finite; the result is stored first.
    """
    out = Path(out)
    check_range("batch_size", batch_size, 1)
    check_range("repeats", repeats, 1, 2**24 - 1)
    if out.suffix not in (".zarr", ".nc"):
        raise SpecError(f"{out}: the name of a result ends in .zarr (folder) or .nc (NetCDF).")
    if os.path.lexists(out):
        raise StoreError(f"{out} exists. Choose another --out; it will not be replaced.")
    Keys.make(seed)  # refuses a wrong seed
    truth = _true_classes(model, sounds)
    for name, (ndim, channels, fs) in zip(sounds.names, sounds.formats, strict=True):
        _check_format(f"'{name}'", ndim, channels, fs, model)
    plan = {
        "sounds": sounds.identity,
        "n_presentations": len(sounds) * repeats,
        "repeats": repeats,
        "seed": seed,
        "heads": dict(model.network.architecture.n_classes),
        "model": model.fingerprint(),
    }
    partial = out.with_name(f"{out.name}.partial")
    lock = _open_partial(partial, plan, resume)
    try:
        logits = _collect(model.to(device), sounds, partial, plan, batch_size, progress)
        dataset = _dataset(model, sounds, logits, truth, plan)
        _publish(dataset, out)
        shutil.rmtree(partial)
    finally:
        os.close(lock)
    bad = [sounds.names[i] for i in np.flatnonzero(~_finite(dataset))]
    if bad:
        raise NumericsError(f"Logits of {len(bad)} sounds are not finite, the first is '{bad[0]}'. Result: {out}.")
    return dataset


def _finite(dataset: xr.Dataset) -> NDArray[np.bool_]:
    values = [np.isfinite(v.values).all((1, 2)) for name, v in dataset.items() if str(name).startswith("logits_")]
    return np.all(values, axis=0)


def _open_partial(partial: Path, plan: dict[str, Any], resume: bool) -> int:
    """Take the lock of the folder of an unfinished result, new or the same."""
    existing = (partial / PLAN).is_file()
    if existing and not resume:
        raise StoreError(f"{partial} holds an unfinished result. Continue it with --resume, or choose another --out.")
    partial.mkdir(parents=True, exist_ok=True)
    lock = take_lock(partial)
    try:
        if existing:
            try:
                before = json.loads((partial / PLAN).read_text(encoding="utf-8"))
            except (OSError, json.JSONDecodeError) as error:
                raise StoreError(f"{partial / PLAN} cannot be read: {error}.") from error
            other = [key for key in plan if before.get(key) != plan[key]]
            if other:
                raise StoreError(f"{partial} was begun with other {', '.join(other)}: choose another --out.")
        else:
            write_atomically(partial / PLAN, json.dumps(plan, indent=1).encode())
    except BaseException:
        os.close(lock)
        raise
    return lock


def _collect(
    model: PhaseLockNet,
    sounds: SoundSet,
    partial: Path,
    plan: dict[str, Any],
    batch_size: int,
    progress: Callable[[int, int], None] | None,
) -> dict[str, NDArray[np.float32]]:
    """Return the logits of all presentations, those on the disk and those still to be computed."""
    n = int(plan["n_presentations"])
    logits = {head: np.zeros((n, classes), np.float32) for head, classes in plan["heads"].items()}
    done = np.zeros(n, dtype=bool)
    for path in sorted(partial.glob("part_*.npz")):
        try:
            with np.load(path) as part:
                where = part["presentation"]
                for head, value in logits.items():
                    value[where] = part[head]
                done[where] = True
        except (OSError, ValueError, KeyError, IndexError, zipfile.BadZipFile) as error:
            raise StoreError(f"{path} is damaged ({error}): remove it and use --resume.") from error
    left = np.flatnonzero(~done)
    filled = 0
    for first in range(0, len(left), batch_size):
        where = left[first : first + batch_size]
        values, silent = _present(model, sounds, where, plan)
        filled += silent
        buffer = io.BytesIO()
        np.savez(buffer, presentation=where, **values)  # type: ignore[arg-type]
        write_atomically(partial / f"part_{where[0]:09d}.npz", buffer.getvalue())
        for head, value in values.items():
            logits[head][where] = value
        done[where] = True
        if progress is not None:
            progress(int(done.sum()), n)
    conf = model.configuration
    if filled:
        warnings.warn(
            f"{filled} sounds were filled with silence up to {conf.n_samples / conf.fs:g} s, the length that the model "
            "takes; the published networks were trained on sounds without such silence.",
            PsysimWarning,
            stacklevel=3,
        )
    return logits


def _present(
    model: PhaseLockNet, sounds: SoundSet, where: NDArray[np.int64], plan: dict[str, Any]
) -> tuple[dict[str, NDArray[np.float32]], int]:
    """Return the logits of some presentations, and how many sounds were filled with silence."""
    rows, filled = [], 0
    for presentation in where:
        index = int(presentation) // plan["repeats"]
        row, silence = fit_to_input(*sounds.read(index), model)
        rows.append(row)
        filled += silence > 0
    batch = torch.as_tensor(np.stack(rows), dtype=model.dtype).to(model.device)
    track, trial = np.divmod(where, plan["repeats"])
    keys = Keys.make(plan["seed"], track=torch.as_tensor(track), trial=torch.as_tensor(trial), device=model.device)
    with torch.no_grad():
        logits = model(batch, keys)
    assert isinstance(logits, dict)
    return {head: _float32(value) for head, value in logits.items()}, filled


def _float32(value: Tensor) -> NDArray[np.float32]:
    return value.detach().float().cpu().numpy()


def _dataset(
    model: PhaseLockNet,
    sounds: SoundSet,
    logits: dict[str, NDArray[np.float32]],
    truth: dict[str, NDArray[np.int64]],
    plan: dict[str, Any],
) -> xr.Dataset:
    import xarray as xr

    from psysim import __version__

    n, repeats = len(sounds), int(plan["repeats"])
    ds = xr.Dataset(coords={"stimulus": np.array(sounds.names, dtype=object), "repeat": np.arange(repeats)})
    parts = ("class", "logits", "response", "correct")
    taken = {*ds.dims, "class_azimuth", "class_elevation", *(f"{part}_{head}" for part in parts for head in logits)}
    for name, column in sounds.columns.items():
        safe = f"column_{name}" if name in taken else name
        text = column.dtype.kind in "OUST"
        ds = ds.assign_coords({safe: ("stimulus", column.astype(str).astype(object) if text else column)})
    for head, value in logits.items():
        dim = f"class_{head}"
        names = model.labels.get(head)
        classes = np.array(names, dtype=object) if names else np.arange(value.shape[1])
        ds = ds.assign_coords({dim: classes})
        if head == LOCATION_HEAD and value.shape[1] == 504:
            azimuth, elevation = location_of(np.arange(504))
            ds = ds.assign_coords({"class_azimuth": (dim, azimuth), "class_elevation": (dim, elevation)})
            for axis in ("azimuth", "elevation"):
                ds[f"class_{axis}"].attrs = {"units": "degree", "long_name": f"{axis.capitalize()} of the class"}
        cube = value.reshape(n, repeats, -1)
        ds[f"logits_{head}"] = (("stimulus", "repeat", dim), cube, {"long_name": f"Logits of {head}"})
        response = cube.argmax(-1).astype(np.int32)
        attrs = {"long_name": f"Class of the largest logit of {head}"}
        ds[f"response_{head}"] = (("stimulus", "repeat"), response, attrs)
        if head in truth:
            attrs = {"long_name": f"Whether the response of {head} is the true class"}
            ds[f"correct_{head}"] = (("stimulus", "repeat"), response == truth[head][:, None], attrs)
    facts = {
        "psysim": __version__,
        "torch": torch.__version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "name": model.name,
        "normalisation": str(model.network.normalisation),
        "nerve_options": model.nerve_options,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        **plan,
    }
    ds.attrs = {"title": f"Outputs of {model.name}", "provenance": json.dumps(facts)}
    return ds


def _true_classes(model: PhaseLockNet, sounds: SoundSet) -> dict[str, NDArray[np.int64]]:
    """Return the true classes (N,) by head, from the columns that have the name of a head: numbers or texts."""
    found = {}
    for head, n in model.network.architecture.n_classes.items():
        column, names = sounds.columns.get(head), model.labels.get(head)
        if column is None:
            continue
        if column.dtype.kind in "OUST":
            if names is None:
                raise SpecError(f"The column {head} holds texts, but the model has no label set for it (labels.json).")
            number = {name: i for i, name in enumerate(names)}
            unknown = sorted({str(text) for text in column} - set(number))
            if unknown:
                raise SpecError(f"The column {head} holds '{unknown[0]}', which is no label of the model.")
            column = np.array([number[str(text)] for text in column])
        if column.dtype.kind not in "iuf" or not ((column >= 0) & (column < n) & (column == np.round(column))).all():
            raise SpecError(f"The column {head} must hold classes from 0 to {n - 1}, or their labels.")
        found[head] = column.astype(np.int64)
    return found


def _publish(ds: xr.Dataset, out: Path) -> None:
    """Write the dataset under a temporary name and give it its own when it is complete and on the disk."""
    folder = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        temporary = folder / out.name
        if out.suffix == ".nc":
            ds.to_netcdf(temporary, engine="h5netcdf")
            sync_file(temporary)
        else:
            with warnings.catch_warnings():  # as psysim.results.store: the metadata's copy spares the reader a warning
                warnings.filterwarnings("ignore", message="Consolidated metadata", category=UserWarning)
                ds.to_zarr(temporary, mode="w-", zarr_format=3, consolidated=True)
            for path in temporary.rglob("*"):
                sync_file(path)
        if os.path.lexists(out):
            raise StoreError(f"{out} appeared meanwhile. It will not be replaced; use --resume with another --out.")
        os.rename(temporary, out)
    except OSError as error:
        raise StoreError(f"{out}: cannot write ({error.strerror or error}).") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sync_file(out.parent)
