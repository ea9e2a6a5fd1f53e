"""Storing and loading results: Zarr folders, NetCDF files, CSV tables.

Every write goes to a temporary name in the same folder and is renamed when it is complete and on the disk;
nothing that exists is ever replaced.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from psysim.errors import StoreError, did_you_mean
from psysim.results.files import sync_file
from psysim.results.journal import HEADER, RECORDS, Journal
from psysim.results.schema import STATUS, in_order, validate

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["export_csv", "export_netcdf", "finish", "load", "partial_path", "save", "state_of"]

StrPath = str | os.PathLike[str]


def partial_path(out: StrPath) -> Path:
    """Return the folder that holds a run while it is unfinished.

    Parameters
    ----------
    out : path
        Where the result will be, for instance ``runs/tmtf.zarr``.

    Examples
    --------
    >>> partial_path("runs/tmtf.zarr").as_posix()
    'runs/tmtf.zarr.partial'
    """
    path = Path(out)
    return path.with_name(f"{path.name}.partial")


def state_of(out: StrPath) -> str:
    """Return how far the run that writes ``out`` is: "absent", "partial" (resumable) or "complete".

    Parameters
    ----------
    out : path
        Where the result is or will be.

    Raises
    ------
    StoreError
        If something that is not a result has that name.
    """
    path = Path(out)
    if os.path.lexists(path):
        if (path / "zarr.json").exists() or (path.is_file() and path.suffix == ".nc"):
            return "complete"
        raise StoreError(f"{path} exists and is not a psysim result. Choose another --out; it will not be replaced.")
    return "partial" if (partial_path(path) / HEADER).exists() else "absent"


def _refuse_existing(path: Path) -> None:
    if os.path.lexists(path):
        raise StoreError(f"{path} exists: use --resume to continue it or another --out. It will not be replaced.")
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True)


def save(ds: xr.Dataset, path: StrPath) -> Path:
    """Write a dataset as a Zarr (format 3) folder.

    Parameters
    ----------
    ds : xarray.Dataset
        Of the results schema.
    path : path
        Name of the folder, ending in ``.zarr``. Missing parent folders are made.

    Returns
    -------
    pathlib.Path
        ``path``.

    Raises
    ------
    StoreError
        If the dataset does not follow the schema, ``path`` exists, or it does not end in ``.zarr``.
    """
    path = Path(path)
    if path.suffix != ".zarr":
        raise StoreError(f"{path}: a result is stored under a name that ends in .zarr (NetCDF: export_netcdf).")
    validate(ds, "The dataset to save")
    _refuse_existing(path)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        with warnings.catch_warnings():
            # The consolidated copy of the metadata is an extension of Zarr 3. Without it a plain xarray.open_zarr(path)
            # warns its user; with it only this call does.
            warnings.filterwarnings("ignore", message="Consolidated metadata", category=UserWarning)
            ds.drop_encoding().to_zarr(temporary / "data", mode="w-", zarr_format=3, consolidated=True)
        _sync_tree(temporary / "data")
        os.rename(temporary / "data", path)
    except OSError as error:
        if os.path.lexists(path):
            _refuse_existing(path)
        raise StoreError(f"{path}: cannot write ({error.strerror or error}).") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync_file(path.parent)
    return path


def _sync_tree(root: Path) -> None:
    for folder, _, files in os.walk(root):
        for name in files:
            sync_file(Path(folder) / name)
        sync_file(Path(folder))


def finish(journal: Journal, ds: xr.Dataset, out: StrPath) -> Path:
    """Save the dataset of a finished run under ``out``, then close the journal and remove its folder.

    A process killed in between leaves both; ``out`` is then complete and the folder only takes space.

    Parameters
    ----------
    journal : Journal
        The run's journal; closed afterwards.
    ds : xarray.Dataset
        The finished dataset.
    out : path
        As in `save`.

    Returns
    -------
    pathlib.Path
        ``out``.

    Raises
    ------
    StoreError
        As `save`; the journal then stays open and untouched.
    """
    path = save(ds, out)
    journal.remove()
    return path


def load(path: StrPath) -> xr.Dataset:
    """Load a result into memory from a Zarr folder or a NetCDF file (``.nc``), and check it.

    Parameters
    ----------
    path : path
        The folder or file.

    Returns
    -------
    xarray.Dataset
        Of the results schema.

    Raises
    ------
    StoreError
        If there is none, it is unfinished, unreadable, or does not follow the schema (every problem is listed).
    """
    import xarray as xr

    path = Path(path)
    if not path.exists():
        raise StoreError(_not_found(path))
    if not (path / "zarr.json").exists() and path.suffix != ".nc":
        raise StoreError(f"{path} is not a result: expected a Zarr folder (with zarr.json) or a NetCDF file (.nc).")
    try:
        if path.is_dir():
            ds = xr.open_zarr(path, consolidated=False, chunks=None)
        else:
            ds = xr.open_dataset(path, engine="h5netcdf")
        with ds:
            ds = ds.load()
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
    return in_order(validate(_canonical(ds), str(path)))


def _not_found(path: Path) -> str:
    partial = partial_path(path)
    if (partial / HEADER).exists():
        done = f" ({(partial / RECORDS).stat().st_size} bytes of trials)" if (partial / RECORDS).exists() else ""
        return f"{path} is not finished{done}: continue it with --resume."
    here = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
    near = did_you_mean(path.name, [n for n in here if n.endswith((".zarr", ".nc"))])
    return f"There is no result {path}.{near}"


def _canonical(ds: xr.Dataset) -> xr.Dataset:
    """Return the dataset as it was before storing: object strings, plain attributes, no storage encoding."""
    ds = ds.drop_encoding()
    for name, coord in list(ds.coords.items()):
        if coord.dtype.kind in "UT":
            ds = ds.assign_coords({name: (coord.dims, coord.values.astype(object), coord.attrs)})
    ds.attrs = {name: _plain(value) for name, value in ds.attrs.items()}
    for variable in ds.variables.values():
        variable.attrs = {name: _plain(value) for name, value in variable.attrs.items()}
    if "status" in ds and "flag_values" in ds["status"].attrs:
        ds["status"].attrs["flag_values"] = np.asarray(ds["status"].attrs["flag_values"], dtype=np.int8)
    return ds


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def export_netcdf(ds: xr.Dataset, path: StrPath) -> Path:
    """Write a dataset as one NetCDF-4 file.

    Parameters
    ----------
    ds : xarray.Dataset
        Of the results schema.
    path : path
        Name of the file, ending in ``.nc``.

    Returns
    -------
    pathlib.Path
        ``path``.

    Raises
    ------
    StoreError
        If the dataset does not follow the schema, the file exists, or the name does not end in ``.nc``.
    """
    path = Path(path)
    if path.suffix != ".nc":
        raise StoreError(f"{path}: the name of a NetCDF file must end in .nc.")
    validate(ds, "The dataset to export")
    _refuse_existing(path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        temporary = Path(folder) / "data.nc"
        ds.drop_encoding().to_netcdf(temporary, engine="h5netcdf")
        _publish(temporary, path)
    return path


def _publish(temporary: Path, path: Path) -> None:
    """Give a finished file its name; unlike a rename, a link never replaces a file that appeared meanwhile."""
    sync_file(temporary)
    try:
        os.link(temporary, path)
    except FileExistsError:
        _refuse_existing(path)
    except OSError:  # a file system without links (FAT): the best that is left
        _refuse_existing(path)
        os.rename(temporary, path)
    sync_file(path.parent)


def export_csv(ds: xr.Dataset, path: StrPath) -> tuple[Path, Path]:
    """Write the threshold table and the trials table as CSV.

    Parameters
    ----------
    ds : xarray.Dataset
        Of the results schema.
    path : path
        ``runs/tmtf.csv`` gives ``runs/tmtf_thresholds.csv`` (one row per condition and observer) and
        ``runs/tmtf_trials.csv`` (one row per trial). A column ``unit`` holds the unit of level and threshold.

    Returns
    -------
    tuple of pathlib.Path
        The two files.

    Raises
    ------
    StoreError
        If the dataset does not follow the schema, or one of the files exists (then none is written).
    """
    from psysim.results.tables import thresholds

    validate(ds, "The dataset to export")
    stem = Path(path).with_suffix("") if Path(path).suffix == ".csv" else Path(path)
    targets = tuple(stem.with_name(f"{stem.name}_{table}.csv") for table in ("thresholds", "trials"))
    for target in targets:
        _refuse_existing(target)
    summary = thresholds(ds)
    unit = str(ds["level"].attrs["units"])
    summary.insert(list(summary.columns).index("threshold"), "unit", unit)
    with tempfile.TemporaryDirectory(dir=stem.parent, prefix=f".{stem.name}.") as folder:
        for target, table in zip(targets, (summary, _trials(ds, unit)), strict=True):
            table.to_csv(Path(folder) / target.name, index=False)
        for target in targets:
            _publish(Path(folder) / target.name, target)
    return targets[0], targets[1]


def _trials(ds: xr.Dataset, unit: str) -> Any:
    """Return one row per trial that took place; the decision variable of interval i is ``decision_variable_i``."""
    from psysim.results.tables import position_columns

    here = np.argwhere(~np.isnan(ds["level"].values))
    table = position_columns(ds, here[:, 0], here[:, 1], here[:, 2])
    where = tuple(here.T)
    table["trial"] = ds["trial"].values[here[:, 3]]
    table["unit"] = unit
    for name in ("level", "target_interval", "response", "correct", "reversal"):
        table[name] = ds[name].values[where]
    for i, interval in enumerate(ds["interval"].values):
        table[f"decision_variable_{interval}"] = ds["decision_variable"].values[(*where, i)]
    table["track_status"] = np.array(STATUS, dtype=object)[ds["status"].values[where[:3]]]
    return table
