"""The journal: every answered trial is on disk the moment it is answered.

A running experiment keeps a folder ``<out>.partial/`` with two files (and a lock):

- ``header.json``: the experiment description, schema version and dimensions, written once, atomically;
- ``journal.bin``: fixed-size little-endian records, one per trial, each ending in its CRC-32. Records are only ever
  appended, a batch of trials with one system call, so a killed process leaves at most one torn record at the end.

Opening cuts a torn tail off and refuses a journal that is damaged in the middle. Measured on one core: appending 1000
records of three intervals takes 0.2 ms, appending one 0.06 ms, and checking a journal of a million of them 0.2 s.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from psysim.errors import StoreError
from psysim.results.fields import DIMS, SCHEMA_VERSION
from psysim.results.files import take_lock, write_atomically

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Journal", "fill", "read_journal", "record_dtype"]

FORMAT = "psysim-journal"
FORMAT_VERSION = 1
HEADER, RECORDS = "header.json", "journal.bin"
_SCALARS = ("lane", "trial", "level", "target_interval", "response", "correct", "reversal")


def record_dtype(n_intervals: int) -> np.dtype[np.void]:
    """Return the packed record of one trial; ``lane`` is the C-order index of (condition, observer, track).

    Parameters
    ----------
    n_intervals : int
        Number of intervals of a trial.

    Examples
    --------
    >>> record_dtype(3).itemsize
    42
    """
    return np.dtype(
        [
            ("lane", "<i8"),
            ("trial", "<i4"),
            ("level", "<f8"),
            ("target_interval", "<i2"),
            ("response", "<i2"),
            ("correct", "i1"),
            ("reversal", "i1"),
            ("decision_variable", "<f4", (n_intervals,)),
            ("crc32", "<u4"),
        ]
    )


class Journal:
    """Append-only record of a running experiment; make one with `create` or `open`.

    Only one process at a time can hold a journal (``flock``, released by the system even after ``kill -9``).
    ``flock`` needs a POSIX system.

    Attributes
    ----------
    path : pathlib.Path
        The ``.partial`` folder.
    header : dict
        Contents of header.json.
    n_records : int
        Number of records in the journal.
    cut_bytes : int
        Length of the torn tail that `open` removed.
    """

    def __init__(self, path: Path, header: dict[str, Any], lock: int, sync_interval_s: float) -> None:
        self.path = path
        self.header = header
        self.dtype = record_dtype(_n_intervals(header))
        self.n_records = 0
        self.cut_bytes = 0
        dims = header.get("dims")
        lanes = {"lane": math.prod(dims[d] for d in DIMS[:3]), "trial": dims["trial"]} if dims else {}
        self._limits = {"lane": 2**63, "trial": 2**31, **lanes}
        self._lock = lock
        self._sync_interval_s = sync_interval_s
        self._synced = time.monotonic()
        self._file = os.open(path / RECORDS, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)

    @classmethod
    def create(
        cls, path_dir: str | os.PathLike[str], header: Mapping[str, Any], sync_interval_s: float = 10.0
    ) -> Journal:
        """Start a journal in a new folder.

        Parameters
        ----------
        path_dir : path
            The folder, see `psysim.results.partial_path`.
        header : mapping
            JSON-able; must have "spec_toml" (text), and "dims" (sizes of condition, observer, track, trial, interval)
            or at least "n_intervals". With "dims" every lane and trial number is checked when it is appended.
        sync_interval_s : float
            The journal is forced to the disk at the first append after so many seconds: what a power cut can cost.
            A killed process loses nothing in any case.

        Raises
        ------
        StoreError
            If the folder holds a journal already, or the header is incomplete.
        """
        path = Path(path_dir)
        complete = {**header, "format": FORMAT, "format_version": FORMAT_VERSION, "psysim_schema": SCHEMA_VERSION}
        _check_header(complete, path)
        path.mkdir(parents=True, exist_ok=True)
        lock = take_lock(path)
        try:
            if (path / HEADER).exists():
                raise StoreError(f"{path} holds an unfinished run. Continue it with --resume, or choose another --out.")
            (path / RECORDS).unlink(missing_ok=True)  # without a header nothing in it can be used
            write_atomically(path / HEADER, json.dumps(complete, indent=1, allow_nan=False).encode())
            return cls(path, complete, lock, sync_interval_s)
        except BaseException:
            os.close(lock)
            raise

    @classmethod
    def open(cls, path_dir: str | os.PathLike[str], sync_interval_s: float = 10.0) -> Journal:
        """Open the journal of an unfinished run to continue it; a torn last record is removed.

        Parameters
        ----------
        path_dir : path
            The folder, see `psysim.results.partial_path`.
        sync_interval_s : float
            As in `create`.

        Raises
        ------
        StoreError
            If there is no journal, another process writes it, it has another format, or it is damaged in the middle.
        """
        path = Path(path_dir)
        if not (path / HEADER).exists():
            raise StoreError(f"{path} holds no unfinished run (there is no {HEADER} in it). Start it without --resume.")
        lock = take_lock(path)
        try:
            journal = cls(path, _read_header(path), lock, sync_interval_s)
            try:
                journal._cut_torn_tail()
            except BaseException:
                os.close(journal._file)
                raise
        except BaseException:
            os.close(lock)
            raise
        return journal

    def _cut_torn_tail(self) -> None:
        data = (self.path / RECORDS).read_bytes()
        records = _intact(data, self.dtype, self.path)
        self.n_records = len(records)
        self.cut_bytes = len(data) - records.nbytes
        if self.cut_bytes:
            os.ftruncate(self._file, records.nbytes)
            os.fsync(self._file)

    def append(
        self,
        lane: ArrayLike,
        trial: ArrayLike,
        level: ArrayLike,
        target_interval: ArrayLike,
        response: ArrayLike,
        correct: ArrayLike,
        reversal: ArrayLike,
        decision_variable: ArrayLike,
    ) -> None:
        """Write one batch of trials with a single system call.

        Parameters
        ----------
        lane : (B,) int
            C-order index of (condition, observer, track).
        trial : (B,) int
            Number of the trial in its track, from 0.
        level : (B,) float
            In the unit of the tracked variable.
        target_interval, response, correct, reversal : (B,) int
            Coded as in the results schema.
        decision_variable : (B, I) float
            One number per interval.

        Raises
        ------
        StoreError
            If the shapes or indices do not fit the header, or the disk is full (the journal then stays as it was).
        """
        values = (lane, trial, level, target_interval, response, correct, reversal)
        columns = {name: np.asarray(value) for name, value in zip(_SCALARS, values, strict=True)}
        decision = np.asarray(decision_variable)
        n, n_intervals = len(columns["lane"]), self.dtype["decision_variable"].shape[0]
        shapes = {name: c.shape for name, c in columns.items() if c.shape != (n,)}
        if decision.shape != (n, n_intervals):
            shapes["decision_variable"] = decision.shape
        if shapes:
            raise StoreError(f"append: {n} trials of {n_intervals} intervals expected, got shapes {shapes}.")
        if n == 0:
            return
        for name, size in self._limits.items():
            low, high = columns[name].min(), columns[name].max()
            if low < 0 or high >= size:
                raise StoreError(f"append: {name} {low if low < 0 else high} is outside 0 ... {size - 1}.")
        block = np.zeros(n, dtype=self.dtype)
        for name, column in columns.items():
            block[name] = column
        block["decision_variable"] = decision
        block["crc32"] = _checksums(block)
        self._write(block.tobytes())
        self.n_records += n

    def _write(self, data: bytes) -> None:
        before = self.n_records * self.dtype.itemsize
        try:
            written = os.write(self._file, data)
            while written < len(data):  # only a nearly full disk writes a part
                written += os.write(self._file, data[written:])
            if time.monotonic() - self._synced >= self._sync_interval_s:
                self.sync()
        except OSError as error:
            os.ftruncate(self._file, before)
            raise StoreError(
                f"{self.path / RECORDS}: cannot write ({error.strerror}). Nothing recorded is lost: "
                "make room on the disk and continue with --resume."
            ) from error

    def sync(self) -> None:
        """Force everything appended so far to the disk (protects against a power cut as well)."""
        os.fsync(self._file)
        self._synced = time.monotonic()

    def records(self) -> NDArray[np.void]:
        """Return all records in the order of writing, a structured array of `record_dtype`."""
        return _intact((self.path / RECORDS).read_bytes(), self.dtype, self.path)

    def close(self) -> None:
        """Write to the disk and release the lock; further calls do nothing."""
        if self._lock >= 0:
            os.fsync(self._file)
            os.close(self._file)
            os.close(self._lock)
            self._lock = -1

    def remove(self) -> None:
        """Close the journal and delete its folder: the result is stored elsewhere."""
        self.close()
        shutil.rmtree(self.path, ignore_errors=True)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_journal(path_dir: str | os.PathLike[str]) -> tuple[dict[str, Any], NDArray[np.void]]:
    """Return (header, intact records) of an unfinished run, also while another process writes it; changes nothing.

    Parameters
    ----------
    path_dir : path
        The folder, see `psysim.results.partial_path`.

    Returns
    -------
    dict
        Contents of header.json.
    ndarray
        Structured array of `record_dtype`, in the order of writing.

    Raises
    ------
    StoreError
        If there is no journal, it has another format, or it is damaged in the middle.
    """
    path = Path(path_dir)
    if not (path / HEADER).exists():
        raise StoreError(f"{path} holds no unfinished run (there is no {HEADER} in it).")
    header = _read_header(path)
    data = (path / RECORDS).read_bytes() if (path / RECORDS).exists() else b""
    return header, _intact(data, record_dtype(_n_intervals(header)), path)


def fill(ds: xr.Dataset, records: NDArray[np.void]) -> xr.Dataset:
    """Return a copy of an empty dataset with the trials of a journal in place, and ``n_trials`` counted.

    Threshold and status stay as they are: they follow from replaying the records through the procedure.

    Parameters
    ----------
    ds : xarray.Dataset
        From `empty_dataset`.
    records : ndarray
        Structured array of `record_dtype`, in any order; repeated identical records count once.

    Returns
    -------
    xarray.Dataset

    Raises
    ------
    StoreError
        If a record does not fit the dataset, or two records of one trial differ.
    """
    ds = ds.copy(deep=True)
    n_trials = ds.sizes["trial"]
    n_lanes = math.prod(ds.sizes[d] for d in DIMS[:3])
    outside = (records["lane"] < 0) | (records["lane"] >= n_lanes) | (records["trial"] < 0)
    outside |= records["trial"] >= n_trials
    if outside.any():
        record = records[outside][0]
        raise StoreError(
            f"The journal has lane {record['lane']}, trial {record['trial']}, but the experiment has {n_lanes} lanes "
            f"of {n_trials} trials: it belongs to another experiment."
        )
    slot = records["lane"] * n_trials + records["trial"]
    _, first, inverse = np.unique(slot, return_index=True, return_inverse=True)
    twice = records["crc32"] != records["crc32"][first][inverse]
    if twice.any():
        record = records[twice][0]
        raise StoreError(
            f"The journal has two different records of lane {record['lane']}, trial {record['trial']}. "
            "A run repeats exactly only with the same psysim and library versions; delete the folder and run it again."
        )
    for name in (*_SCALARS[2:], "decision_variable"):
        ds[name].values.reshape(n_lanes * n_trials, -1)[slot[first]] = records[name][first].reshape(len(first), -1)
    ds["n_trials"].values[...] = (~np.isnan(ds["level"].values)).sum(-1)
    return ds


# ------------------------------------------------------------ files and records
def _check_header(header: Mapping[str, Any], path: Path) -> None:
    problems = []
    if not isinstance(header.get("spec_toml"), str):
        problems.append("'spec_toml' must be text")
    dims = header.get("dims", {"interval": header.get("n_intervals")})
    if not isinstance(dims, Mapping) or ("dims" in header and set(dims) != set(DIMS)):
        problems.append(f"'dims' must give the sizes of {', '.join(DIMS)}")
    elif not all(isinstance(size, int) and size > 0 for size in dims.values()):
        problems.append(f"'dims' (or 'n_intervals') must be whole numbers above 0, got {dict(dims)}")
    if header.get("format") != FORMAT or header.get("format_version") != FORMAT_VERSION:
        problems.append(
            f"format must be {FORMAT} {FORMAT_VERSION}, got {header.get('format')} {header.get('format_version')}"
        )
    if header.get("psysim_schema") != SCHEMA_VERSION:
        problems.append(f"results schema must be {SCHEMA_VERSION}, got {header.get('psysim_schema')}")
    if problems:
        raise StoreError(f"{path / HEADER}: {'; '.join(problems)}. It was written by another version, or edited.")


def _n_intervals(header: Mapping[str, Any]) -> int:
    return int(header["dims"]["interval"] if "dims" in header else header["n_intervals"])


def _read_header(path: Path) -> dict[str, Any]:
    try:
        header = json.loads((path / HEADER).read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StoreError(f"{path / HEADER} is not valid JSON ({error}). Restore it, or delete {path}.") from error
    if not isinstance(header, dict):
        raise StoreError(f"{path / HEADER} must be a JSON object. Restore it, or delete {path}.")
    _check_header(header, path)
    return header


def _checksums(records: NDArray[np.void]) -> NDArray[np.uint32]:
    """Return the CRC-32 of each record without its last field."""
    size = records.dtype.itemsize
    data = memoryview(records.tobytes())
    sums = (zlib.crc32(data[start : start + size - 4]) for start in range(0, len(data), size))
    return np.fromiter(sums, dtype=np.uint32, count=len(records))


def _intact(data: bytes, dtype: np.dtype[np.void], path: Path) -> NDArray[np.void]:
    """Return the records of ``data`` up to a torn tail; raise if a damaged record has intact ones behind it."""
    records = np.frombuffer(data, dtype=dtype, count=len(data) // dtype.itemsize)
    if len(records) == 0:
        return records
    damaged = np.flatnonzero(_checksums(records) != records["crc32"])
    if len(damaged) == 0:
        return records
    first = int(damaged[0])
    behind = len(records) - first - len(damaged)  # intact records after the first damaged one
    if behind > 0 or (first == 0 and len(records) > 1):
        start = first * dtype.itemsize
        raise StoreError(
            f"{path / RECORDS} is damaged: record {first} of {len(records)} (byte {start}) has a wrong checksum, "
            f"and it is not the last one. The {first} records before it are intact. Restore the file from a backup; "
            f"or keep those records by cutting the file to {start} bytes (truncate -s {start}) and use --resume; "
            f"or delete {path} and run again."
        )
    return records[:first]
