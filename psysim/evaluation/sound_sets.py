"""Sets of sounds in files, for evaluating networks: folders of WAV or FLAC with a manifest, HDF5 files."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from psysim.errors import SpecError, check_range, did_you_mean
from psysim.units import db_spl_to_pascal

if TYPE_CHECKING:
    import h5py

__all__ = ["SoundSet", "open_sounds"]

AUDIO = (".wav", ".flac")
HDF5 = (".h5", ".hdf5")
MANIFEST = "manifest.csv"
SIGNALS = ("signal", "nervegram_meanrates")


class SoundSet(ABC):
    """Sounds in a fixed order, with one value per sound in each column.

    Attributes
    ----------
    names : list of str
        Name of each sound: file, or file and row.
    columns : dict of str to ndarray (N,)
        What is known about the sounds: conditions, true classes.
    formats : list of tuple
        For each sound: number of axes of what `read` returns, channels, sampling rate in Hz.
    identity : str
        Changes if the set does: names, columns and sizes of the files.
    """

    names: list[str]
    columns: dict[str, NDArray[Any]]
    formats: list[tuple[int, int, float]]
    identity: str

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def read(self, index: int) -> tuple[NDArray[np.float64], float]:
        """Return one sound (ears, T) in pascal, or rates (ears, groups, F, T), and its sampling rate in Hz."""


def open_sounds(
    path: str | Path,
    manifest: str | Path | None = None,
    *,
    level_db_spl: float | None = None,
    full_scale_db_spl: float | None = None,
) -> SoundSet:
    """Return the sounds of a folder or file.

    Parameters
    ----------
    path : path
        A folder of ``.wav``/``.flac`` files or of ``.h5``/``.hdf5`` files (in alphabetical order), or one such file.
        An HDF5 file has ``signal`` (N, T) or (N, T, 2) in pascal, or ``nervegram_meanrates`` (N, groups, F, T) or
        (N, groups, F, T, 2) in spikes/s; ``sr`` (N,) or () in Hz; every other dataset of length N is a column.
    manifest : path, optional
        CSV for audio files, with the column ``file`` (relative to the folder) and any others; ``level_db_spl`` among
        them is the level of each sound. Default: ``manifest.csv`` in the folder, or all files without columns.
    level_db_spl : float, optional
        Level of every audio file in dB SPL: rms of the whole file, both channels together, without its mean.
    full_scale_db_spl : float, optional
        Keep the levels of the audio files: a signal whose rms is 1 has this level.

    Returns
    -------
    SoundSet
        The set; files are read one by one later.

    Raises
    ------
    SpecError
        If there is nothing to read, a file of the manifest is missing, or levels are given twice or not at all.

    Examples
    --------
    >>> import tempfile, soundfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> soundfile.write(folder / "a.wav", np.sin(np.arange(400)), 8000)
    >>> sound, fs = open_sounds(folder, level_db_spl=60).read(0)
    >>> sound.shape, fs, round(float(sound.std()), 6)
    ((1, 400), 8000.0, 0.02)
    """
    path = Path(path)
    if not path.exists():
        near = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise SpecError(f"There is no {path}.{did_you_mean(path.name, near)}")
    files = sorted(p for p in (path.iterdir() if path.is_dir() else [path]) if p.suffix.lower() in AUDIO + HDF5)
    kinds = {p.suffix.lower() in HDF5 for p in files}
    if len(kinds) != 1:
        what = "both sound files and HDF5 files" if kinds else f"no file that ends in {', '.join(AUDIO + HDF5)}"
        raise SpecError(f"{path} holds {what}.")
    if kinds == {True}:
        if manifest is not None or level_db_spl is not None or full_scale_db_spl is not None:
            raise SpecError("HDF5 files hold pascal and their own columns: a manifest and levels are for sound files.")
        return Hdf5Set(files)
    folder = path if path.is_dir() else path.parent
    table = Path(manifest) if manifest is not None else folder / MANIFEST
    if manifest is not None or (path.is_dir() and table.is_file()):
        return AudioSet(folder, *_read_manifest(table), level_db_spl, full_scale_db_spl)
    return AudioSet(folder, [p.name for p in files], {}, level_db_spl, full_scale_db_spl)


def _read_manifest(path: Path) -> tuple[list[str], dict[str, NDArray[Any]]]:
    import pandas as pd

    try:
        table = pd.read_csv(path, dtype={"file": str}, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise SpecError(f"{path} cannot be read as CSV: {error}") from error
    if "file" not in table or table["file"].isna().any() or table.empty:
        hint = did_you_mean("file", table.columns)
        raise SpecError(f"{path} must have a column 'file' that names a file in every row.{hint}")
    columns = {str(name): np.asarray(table[name]) for name in table.columns if name != "file"}
    return [str(name) for name in table["file"]], columns


def _identity(*parts: object) -> str:
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()


class AudioSet(SoundSet):
    """Sound files of one folder."""

    def __init__(
        self,
        folder: Path,
        names: list[str],
        columns: dict[str, NDArray[Any]],
        level_db_spl: float | None,
        full_scale_db_spl: float | None,
    ) -> None:
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            near = did_you_mean(missing[0], [p.name for p in folder.iterdir()])
            raise SpecError(f"{folder} lacks {len(missing)} files of the manifest, the first is '{missing[0]}'.{near}")
        levels = columns.get("level_db_spl")
        given = [levels is not None, level_db_spl is not None, full_scale_db_spl is not None]
        if sum(given) != 1:
            raise SpecError(
                "Sound files do not say how loud they are: give exactly one of level_db_spl (option or column of the "
                "manifest; rms of each file) and full_scale_db_spl (level of an rms of 1)."
            )
        for name, value in (("level_db_spl", level_db_spl), ("full_scale_db_spl", full_scale_db_spl)):
            if value is not None:
                check_range(name, value, -200.0, 300.0, unit="dB SPL")
        self.folder, self.names, self.columns = folder, names, columns
        self._levels = np.full(len(names), level_db_spl) if level_db_spl is not None else levels
        if self._levels is not None and not (
            np.issubdtype(self._levels.dtype, np.number) and np.isfinite(self._levels).all()
        ):
            raise SpecError("The column level_db_spl must hold a number in dB SPL in every row.")
        self._full_scale = full_scale_db_spl
        known = {name: self._format(name) for name in dict.fromkeys(names)}
        self.formats = [known[name] for name in names]
        sizes = [(folder / name).stat().st_size for name in names]
        tables = [f"{name}={column.tolist()}" for name, column in columns.items()]
        self.identity = _identity(*names, *sizes, *tables, level_db_spl, full_scale_db_spl)

    def _format(self, name: str) -> tuple[int, int, float]:
        import soundfile

        try:
            info = soundfile.info(self.folder / name)
        except (OSError, RuntimeError) as error:
            raise SpecError(f"{self.folder / name} cannot be read as sound: {error}") from error
        if not info.frames:
            raise SpecError(f"{self.folder / name} is empty.")
        return 2, info.channels, float(info.samplerate)

    def read(self, index: int) -> tuple[NDArray[np.float64], float]:
        """Return one file (channels, T) in pascal and its rate."""
        import soundfile

        path = self.folder / self.names[index]
        try:
            samples, fs = soundfile.read(path, dtype="float64", always_2d=True)
        except (OSError, RuntimeError) as error:
            raise SpecError(f"{path} cannot be read as sound: {error}") from error
        sound = np.ascontiguousarray(samples.T)
        if self._levels is None:
            return sound * db_spl_to_pascal(float(self._full_scale or 0.0)), float(fs)
        sound = sound - sound.mean(axis=1, keepdims=True)
        rms = float(np.sqrt(np.mean(sound**2)))
        if not rms > 0.0:
            raise SpecError(f"{path} is silent: its level cannot be set.")
        return sound * (db_spl_to_pascal(float(self._levels[index])) / rms), float(fs)


class Hdf5Set(SoundSet):
    """Rows of HDF5 files with the same datasets."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files
        self._rows: list[tuple[Path, int]] = []
        self.names, self.formats = [], []
        parts: list[dict[str, NDArray[Any]]] = []
        for path in files:
            columns, ndim, channels = _hdf5_columns(path)
            n = len(columns["sr"])
            self.formats += [(ndim, channels, float(fs)) for fs in columns["sr"]]
            self._rows += [(path, row) for row in range(n)]
            self.names += [f"{path.name}:{row}" for row in range(n)]
            if parts and set(parts[0]) != set(columns):
                odd = sorted(set(parts[0]) ^ set(columns))
                raise SpecError(f"{path} and {files[0]} do not have the same datasets: {', '.join(odd)}.")
            parts.append(columns)
        merged = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        self._fs = merged.pop("sr").astype(float)
        self.columns = merged
        tables = [f"{name}={column.tolist()}" for name, column in merged.items()]
        self.identity = _identity(*self.names, *(path.stat().st_size for path in files), *tables)

    def read(self, index: int) -> tuple[NDArray[np.float64], float]:
        """Return one row (ears, T) in pascal, or (ears, groups, F, T) in spikes/s, and its rate."""
        path, row = self._rows[index]
        with _hdf5(path) as file:
            key = next(name for name in SIGNALS if name in file)
            value = np.asarray(file[key][row], dtype=np.float64)
        ears_last = value if value.ndim == self.formats[index][0] else value[..., None]
        return np.ascontiguousarray(np.moveaxis(ears_last, -1, 0)), float(self._fs[index])


def _hdf5(path: Path) -> h5py.File:
    import h5py

    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise SpecError(f"{path} cannot be read as HDF5: {error}") from error


def _hdf5_columns(path: Path) -> tuple[dict[str, NDArray[Any]], int, int]:
    """Return the columns of a file, with ``sr`` for every row; axes of a row with its channels, and these."""
    with _hdf5(path) as file:
        key = next((name for name in SIGNALS if hasattr(file.get(name), "shape")), None)
        if key is None or "sr" not in file:
            hint = did_you_mean("signal", list(file))
            raise SpecError(f"{path} must have the datasets 'signal' (or 'nervegram_meanrates') and 'sr'.{hint}")
        shape, plain = file[key].shape, 2 if key == "signal" else 4  # axes without channels
        if len(shape) not in (plain, plain + 1) or (len(shape) > plain and shape[-1] not in (1, 2)):
            raise SpecError(f"{path}: {key} has shape {shape}, which is neither one ear nor two.")
        n, channels = shape[0], shape[-1] if len(shape) > plain else 1
        if not n:
            raise SpecError(f"{path} has no row.")
        columns: dict[str, NDArray[Any]] = dict(_per_row(file, key, n))
        rate = np.asarray(file["sr"])
        columns["sr"] = np.full(n, rate) if rate.ndim == 0 else rate
    if columns["sr"].shape != (n,):
        raise SpecError(f"{path}: 'sr' must hold one rate, or one for each of the {n} rows.")
    return columns, plain, channels


def _per_row(file: h5py.File, signal: str, n: int) -> Iterator[tuple[str, NDArray[Any]]]:
    for name, item in file.items():
        if name not in (signal, "sr") and getattr(item, "shape", None) == (n,):
            value = item[()]
            text = value.dtype.kind in "OS"
            yield name, np.array([v.decode() if isinstance(v, bytes) else str(v) for v in value]) if text else value
