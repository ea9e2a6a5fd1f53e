"""Reading a table of human data: typed columns, and the checks that a new table must pass."""

from __future__ import annotations

import csv
import io
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from psysim.errors import SpecError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "LISTENER_GROUPS", "check_table", "read_table"]

COLUMNS = (
    "dataset",
    "experiment",
    "measure",
    "value",
    "unit",
    "error",
    "error_kind",
    "listener_group",
    "n_listeners",
    "origin",
    "note",
)
"""Columns that every table has; all others describe the condition."""

LISTENER_GROUPS = ("NH", "HI", "NH+HI", "MODEL", "")
_TEXT = ("dataset", "experiment", "measure", "unit", "error_kind", "listener_group", "origin", "note")
_NUMBERS = ("value", "error", "n_listeners")
_NUMBER_NAME = re.compile(r"_(hz|khz|s|ms|us|db|db_spl|db_hl|db_sl|deg|rad|percent)$")
_SHOWN = 20


def read_table(text: str) -> pd.DataFrame:
    """Return the table of a CSV text.

    Columns in which every filled cell is a number are numeric (empty: NaN), all others are text (empty: "");
    a column without any entry is numeric if its name ends in a unit.
    """
    import pandas as pd

    table = pd.read_csv(io.StringIO(text), keep_default_na=False, dtype=str)
    columns = {}
    for name in table.columns:
        cells = table[name].astype(object)
        numbers = pd.to_numeric(cells.where(cells != "", "nan"), errors="coerce").astype("float64")
        is_number = bool((numbers.notna() | (cells == "")).all())
        named_as_number = name in _NUMBERS or _NUMBER_NAME.search(name)
        if name not in _TEXT and is_number and (named_as_number or (cells != "").any()):
            whole = numbers.notna().all() and (numbers % 1 == 0).all() and not cells.str.contains(r"[.eE]").any()
            columns[name] = numbers.astype("int64") if whole and name != "value" else numbers
        else:
            columns[name] = cells
    return pd.DataFrame(columns)


def check_table(path: Path) -> tuple[str, str]:
    """Check a CSV file in the format of the built-in tables; return the name of the data set and the text.

    Raises
    ------
    SpecError
        Listing every problem with line number, column and remedy.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise SpecError(f"There is no file {path}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} cannot be read as text: {error}. Save it as CSV in UTF-8.") from error
    reader = csv.reader(io.StringIO(text, newline=""))
    header = next(reader, [])
    problems = _header_problems(header)
    if not problems:
        rows = []
        for cells in reader:
            line = reader.line_num
            if len(cells) == len(header):
                row = dict(zip(header, cells, strict=True))
                rows.append(row)
                problems += [f"line {line}, {p}" for p in _row_problems(row)]
            elif cells:
                problems.append(
                    f"line {line}: {len(cells)} cells, the header has {len(header)}; put a cell that contains a comma "
                    "in double quotes, and write decimal points"
                )
        problems += _table_problems(rows, [name for name in header if name not in COLUMNS])
    if problems:
        raise SpecError(_message(path, problems))
    return rows[0]["dataset"], text


def _message(path: Path, problems: list[str]) -> str:
    lines = [f"\n  - {p}" for p in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        lines.append(f"\n  ... and {len(problems) - _SHOWN} more")
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    return f"{path} is not a table of human data ({count}):{''.join(lines)}"


def _header_problems(header: list[str]) -> list[str]:
    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        return ["line 1: the cells are not separated by commas; export the table as comma-separated values"]
    extra = [name for name in header if name not in COLUMNS]
    problems = [
        f"line 1, column '{name}' is missing; add it, with empty cells where nothing is known."
        f"{did_you_mean(name, extra)}"
        for name in COLUMNS
        if name not in header
    ]
    problems += [f"line 1, column '{n}' appears twice; rename one" for n in sorted({*header}) if header.count(n) > 1]
    problems += [
        f"line 1, column '{name}': use lower-case letters, digits and '_', with the unit at the end (carrier_hz)"
        for name in extra
        if not re.fullmatch(r"[a-z][a-zA-Z0-9_]*", name)
    ]
    return problems


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def _row_problems(row: dict[str, str]) -> list[str]:
    problems = [
        f"column '{name}' is empty; {remedy}"
        for name, remedy in (
            ("dataset", "write the name of the data set in every row"),
            ("experiment", "say in a few words what was measured"),
            ("measure", "name what the value is, for instance am_detection_threshold"),
            ("value", "delete the row if there is no value"),
            ("unit", "write the unit, or 1 for a number without unit"),
            ("origin", "say where the number comes from, for instance raw, tabulated or digitised"),
        )
        if not row[name].strip()
    ]
    for name, cell in row.items():
        number = name in _NUMBERS or (name not in COLUMNS and _NUMBER_NAME.search(name))
        if number and cell and not _is_number(cell):
            hint = "write a decimal point" if "," in cell else "leave it empty if it is not known"
            problems.append(f"column '{name}': '{cell}' is not a number; {hint}, and put words into note")
    if row["error"] and not row["error_kind"]:
        problems.append("column 'error_kind' is empty; say what error is, for instance SD across listeners")
    if _is_number(row["error"]) and float(row["error"]) < 0:
        problems.append(f"column 'error': {row['error']} is negative; write the size of the error bar")
    if _is_number(row["n_listeners"]) and not (float(row["n_listeners"]) % 1 == 0 and float(row["n_listeners"]) >= 1):
        problems.append(f"column 'n_listeners': {row['n_listeners']} is not a whole number above 0")
    if row["listener_group"] not in LISTENER_GROUPS:
        allowed = ", ".join(g for g in LISTENER_GROUPS if g)
        problems.append(
            f"column 'listener_group': '{row['listener_group']}' is not known; use {allowed} or leave it empty"
        )
    return problems


def _table_problems(rows: list[dict[str, str]], condition_columns: list[str]) -> list[str]:
    if not rows:
        return ["there are no rows of data; add at least one below the header"]
    problems = []
    names = list(dict.fromkeys(row["dataset"] for row in rows))
    if len(names) > 1:
        problems.append(f"column 'dataset' holds {len(names)} names ({', '.join(names[:5])}); use one file for each")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", names[0]):
        problems.append(f"column 'dataset': '{names[0]}' is not a valid name; use lower-case letters, digits and '_'")
    units: dict[str, set[str]] = {}
    for row in rows:
        units.setdefault(row["measure"], set()).add(row["unit"])
    problems += [
        f"column 'unit': measure '{measure}' has the units {', '.join(sorted(found))}; use one unit for one measure"
        for measure, found in units.items()
        if len(found) > 1
    ]
    if not condition_columns and len(rows) > 1:
        problems.append("there is no column for the condition; add one per factor, for instance modulation_rate_hz")
    return problems
