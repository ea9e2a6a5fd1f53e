"""Audiograms from CSV files."""

from __future__ import annotations

import csv
from pathlib import Path

from psysim.errors import SpecError, did_you_mean
from psysim.hearing.audiograms import Audiogram

__all__ = ["read_audiograms"]

EARS = ("left", "right")


def read_audiograms(path: str | Path) -> dict[str, Audiogram]:
    """Read the audiograms of one or two ears from a CSV file.

    Parameters
    ----------
    path : str or Path
        File with the columns ``frequency_hz`` and ``level_db_hl``, and ``ear`` ("left" or "right") if it has both ears.

    Returns
    -------
    dict
        Audiograms by ear: ``"left"`` and ``"right"``, or ``"both"`` for a file without that column.

    Raises
    ------
    SpecError
        If the file cannot be read, a column is missing, or a value is no number.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     file = Path(folder) / "ear.csv"
    ...     lines = ["frequency_hz,level_db_hl,ear", "500,10,left", "4000,40,left", "500,20,right", "4000,60,right"]
    ...     _ = file.write_text(chr(10).join(lines), encoding="utf-8")
    ...     {ear: audiogram.at(4000.0).item() for ear, audiogram in read_audiograms(file).items()}
    {'left': 40.0, 'right': 60.0}
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SpecError(f"{path}: the audiogram cannot be read ({error}).") from None
    if not rows:
        raise SpecError(f"{path}: there is no row below the names of the columns.")
    for column in ("frequency_hz", "level_db_hl"):
        if column not in rows[0]:
            there = [str(c) for c in rows[0]]
            raise SpecError(f"{path}: there is no column '{column}', only {there}.{did_you_mean(column, there)}")
    points: dict[str, list[tuple[float, float]]] = {}
    for number, row in enumerate(rows, start=2):
        ear = str(row.get("ear") or "both").strip().lower()
        if "ear" in row and ear not in EARS:
            raise SpecError(f"{path}: line {number}: ear = '{row['ear']}' must be left or right.")
        try:
            point = float(row["frequency_hz"]), float(row["level_db_hl"])
        except (TypeError, ValueError):
            raise SpecError(f"{path}: line {number}: frequency_hz and level_db_hl must be numbers.") from None
        points.setdefault(ear, []).append(point)
    found = {}
    for ear, values in points.items():
        frequency, level = zip(*sorted(values), strict=True)
        try:
            found[ear] = Audiogram(frequency, level, path.stem if ear == "both" else f"{path.stem}, {ear}")
        except SpecError as error:
            raise SpecError(f"{path}: {error}") from None
    return found
