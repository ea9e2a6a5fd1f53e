"""Reading the manifest of a speech corpus: every mistake is named with its line and column."""

from __future__ import annotations

import csv
import os
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from psysim.errors import SpecError, did_you_mean
from psysim.stimuli.corpus import Corpus, Sentence, material_folder

__all__ = ["COLUMNS", "load_corpus", "read_manifest"]

COLUMNS = ("file", "words", "speaker", "list", "onset_s", "offset_s", "level_db_spl", "duration_s", "sha256")
_SHEET = ("title", "licence", "full_scale_db_spl", "columns")
_GRACE_S = 1e-3  # rounding of the times in the manifest


def load_corpus(path: str | Path | None = None) -> Corpus:
    """Return a corpus of recorded sentences.

    Parameters
    ----------
    path : str or Path, optional
        Folder with a ``manifest.csv``, the manifest itself (any name that ends in .csv), or one sound file (a corpus of
        one sentence whose words are not known). Default: psysim's own matrix sentences.

    Returns
    -------
    Corpus
        Read again only if the manifest changed.

    Raises
    ------
    SpecError
        If there is no such folder or manifest, a line of it is wrong, or a sound file is missing or cannot be read.

    Examples
    --------
    >>> corpus = load_corpus()
    >>> len(corpus.columns), [len(words) for words in corpus.columns]
    (5, [10, 10, 10, 10, 10])
    """
    given = material_folder() / "matrix" if path is None else Path(path)
    manifest = given / "manifest.csv" if given.is_dir() else given
    if not manifest.is_file():
        near = did_you_mean(manifest.name, os.listdir(manifest.parent)) if manifest.parent.is_dir() else ""
        what = "has no manifest.csv" if given.is_dir() else "does not exist"
        raise SpecError(f"The speech corpus '{given}' {what}.{near}")
    stat = manifest.stat()
    return _load(manifest.resolve(), stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=32)
def _load(manifest: Path, _changed_ns: int, _size: int) -> Corpus:
    return read_manifest(manifest)


def read_manifest(manifest: Path) -> Corpus:
    """Return the corpus of a manifest; a file that is not a .csv is a corpus of one sentence.

    Raises
    ------
    SpecError
        If something is wrong: file, line, column, what is allowed.
    """
    if manifest.suffix.lower() != ".csv":
        return Corpus(manifest.parent, (Sentence(manifest, _duration(manifest, str(manifest))),))
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            names = list(table.fieldnames or [])
            _check_header(names, manifest)
            sentences = [_sentence(row, manifest, table.line_num) for row in table]
    except UnicodeDecodeError as error:
        raise SpecError(f"'{manifest}' is not a text in UTF-8: {error}.") from error
    if not sentences:
        raise SpecError(f"'{manifest}' lists no recording: it has a header and no line.")
    sheet = _sheet(manifest.parent / "corpus.toml")
    return Corpus(
        manifest.parent,
        tuple(sentences),
        full_scale_db_spl=float(sheet.get("full_scale_db_spl", 100.0)),
        columns=_columns(sentences, sheet, manifest),
        spectra=_spectra(manifest.parent / "spectrum.csv"),
    )


def _check_header(names: list[str], manifest: Path) -> None:
    for name in names:
        if name not in COLUMNS:
            raise SpecError(
                f"'{manifest}', line 1: '{name}' is not a column of a manifest. Allowed: {', '.join(COLUMNS)}."
                f"{did_you_mean(name, COLUMNS)}"
            )
    if "file" not in names:
        raise SpecError(f"'{manifest}', line 1: the column 'file' is missing. Columns: {', '.join(names) or 'none'}.")
    if ("onset_s" in names) != ("offset_s" in names):
        raise SpecError(f"'{manifest}', line 1: onset_s and offset_s go together: give both or neither.")


def _sentence(row: Mapping[str | None, Any], manifest: Path, line: int) -> Sentence:
    """Return one line of the manifest, checked."""
    place = f"'{manifest}', line {line}"
    if None in row or None in row.values():
        raise SpecError(f"{place}: it has more or fewer fields than the header.")
    value = {str(name): str(text).strip() for name, text in row.items()}
    file = manifest.parent / value["file"]
    if not value["file"] or not file.is_file():
        near = did_you_mean(file.name, (f.name for f in file.parent.iterdir())) if file.parent.is_dir() else ""
        raise SpecError(f"{place}: there is no sound file '{file}'.{near}")
    given = _numbers(value.get("duration_s", ""), place, "duration_s")
    duration = given[0] if len(given) == 1 else _duration(file, place)
    words = tuple(value.get("words", "").split())
    times = [_numbers(value.get(name, ""), place, name) for name in ("onset_s", "offset_s")]
    for name, numbers in zip(("onset_s", "offset_s"), times, strict=True):
        if numbers and len(numbers) != len(words):
            raise SpecError(f"{place}, {name}: {len(numbers)} times for {len(words)} words.")
    if bool(times[0]) != bool(times[1]):
        raise SpecError(f"{place}: onset_s and offset_s go together: give both or neither.")
    order = [t for pair in zip(*times, strict=True) for t in pair]
    if any(b < a for a, b in pairwise(order)):
        raise SpecError(f"{place}: onsets and offsets must follow one another: onset, offset, onset, offset, ...")
    if order and not (order[0] >= 0 and order[-1] <= duration + _GRACE_S and order[0] < order[-1]):
        raise SpecError(f"{place}: words from {order[0]:g} s to {order[-1]:g} s, but the file lasts {duration:g} s.")
    number = _numbers(value.get("list", ""), place, "list")
    if len(number) > 1 or any(n != int(n) or n < 0 for n in number):
        raise SpecError(f"{place}, list: '{value['list']}' must be one whole number, from 0.")
    return Sentence(
        file,
        duration,
        value.get("speaker", ""),
        words,
        times[0],
        times[1],
        int(number[0]) if number else None,
        value.get("sha256", ""),
    )


def _numbers(text: str, place: str, column: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split())
    except ValueError as error:
        raise SpecError(f"{place}, {column}: '{text}' must be numbers, separated by spaces.") from error
    if not np.isfinite(numbers).all():
        raise SpecError(f"{place}, {column}: '{text}' must be finite numbers.")
    return numbers


def _duration(file: Path, place: str) -> float:
    try:
        info = soundfile.info(str(file))
    except (RuntimeError, OSError) as error:
        raise SpecError(f"{place}: the sound file '{file}' cannot be read: {error}") from error
    if info.frames == 0:
        raise SpecError(f"{place}: the sound file '{file}' is empty.")
    return info.frames / info.samplerate


def _sheet(file: Path) -> dict[str, Any]:
    """Return what corpus.toml says."""
    if not file.exists():
        return {}
    try:
        sheet = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"'{file}' is not a TOML file: {error}.") from error
    for name in sheet:
        if name not in _SHEET:
            raise SpecError(
                f"'{file}': '{name}' is not known. Allowed: {', '.join(_SHEET)}.{did_you_mean(name, _SHEET)}"
            )
    level = sheet.get("full_scale_db_spl", 100.0)
    if not isinstance(level, int | float) or isinstance(level, bool) or not 0 <= level <= 200:
        raise SpecError(f"'{file}': full_scale_db_spl = {level!r} must be a number from 0 to 200 dB SPL.")
    return sheet


def _columns(sentences: list[Sentence], sheet: dict[str, Any], manifest: Path) -> tuple[tuple[str, ...], ...]:
    """Return the words of each place: those of corpus.toml, or all that occur, in alphabetical order."""
    places = max(len(s.words) for s in sentences)
    if "columns" not in sheet:
        return tuple(tuple(sorted({s.words[k] for s in sentences if len(s.words) > k})) for k in range(places))
    columns = tuple(tuple(str(word) for word in column) for column in sheet["columns"])
    for sentence in sentences:
        for k, word in enumerate(sentence.words):
            if k >= len(columns) or word not in columns[k]:
                raise SpecError(
                    f"'{manifest}': the word '{word}' of '{sentence.file.name}' is not in place {k + 1} of the columns "
                    "in corpus.toml."
                )
    return columns


def _spectra(file: Path) -> dict[str, NDArray[np.float64]]:
    """Return the stored long-term spectra by speaker."""
    if not file.exists():
        return {}
    with file.open(encoding="utf-8", newline="") as text:
        names = next(csv.reader(text))
        table = np.loadtxt(text, delimiter=",", ndmin=2)
    return {name: np.stack([table[:, 0], table[:, i]]) for i, name in enumerate(names) if i}
