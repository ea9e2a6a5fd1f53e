"""The results schema: one description of the dataset, checked on write and on read.

`FIELDS` lists every dimension coordinate, coordinate, variable and attribute with its type, unit and meaning;
`validate` checks a dataset against it and `document` renders it (docs/reference/results_schema.md is its output).
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from psysim.errors import SpecError, StoreError, did_you_mean

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["DIMS", "FIELDS", "SCHEMA_VERSION", "STATUS", "Field", "document", "empty_dataset", "factors", "validate"]

SCHEMA_VERSION = "1"
DIMS = ("condition", "observer", "track", "trial", "interval")
STATUS = ("running", "converged", "max_trials", "at_floor", "at_ceiling", "invalid_output")
"""Names of the track status, in the order of their codes 0, 1, 2 ..."""

TRACK_DIMS = DIMS[:3]
TRIAL_DIMS = DIMS[:4]


@dataclass(frozen=True)
class Field:
    """One entry of the schema.

    Parameters
    ----------
    name : str
        Name in the dataset; ``<factor>`` stands for any number of condition coordinates.
    role : str
        "dimension", "coordinate", "variable" or "attribute".
    dims : tuple of str
        Dimensions, in this order.
    dtype : str
        NumPy name of the data type, or "text", or "number, bool or text".
    unit : str
        Unit as written in ``attrs["units"]``; "tracked" is the unit of the tracked variable.
    missing : str
        What stands for "no value".
    meaning : str
        One sentence for users.
    """

    name: str
    role: str
    dims: tuple[str, ...]
    dtype: str
    unit: str
    missing: str
    meaning: str


FIELDS = (
    Field("condition", "dimension", ("condition",), "int64", "1", "", "Number of the condition in the experiment."),
    Field("observer", "dimension", ("observer",), "text", "", "", "Name of the observer; unique."),
    Field("track", "dimension", ("track",), "int64", "1", "", "Number of the track (repetition) of a condition."),
    Field("trial", "dimension", ("trial",), "int64", "1", "", "Number of the trial in its track."),
    Field("interval", "dimension", ("interval",), "int64", "1", "", "Number of the interval in its trial."),
    Field(
        "<factor>",
        "coordinate",
        ("condition",),
        "number, bool or text",
        "from the name",
        "",
        "Value of one experimental factor in each condition, for instance rate_hz; one coordinate per factor.",
    ),
    Field("level", "variable", TRIAL_DIMS, "float64", "tracked", "NaN", "Value of the tracked variable in the trial."),
    Field(
        "response",
        "variable",
        TRIAL_DIMS,
        "int16",
        "1",
        "-1",
        "Interval chosen; in a yes-no task 1 is yes and 0 is no; -1 also where the observer gave no valid answer.",
    ),
    Field(
        "target_interval",
        "variable",
        TRIAL_DIMS,
        "int16",
        "1",
        "-1",
        "Interval that held the target; in a yes-no task 0 is target present and -2 target absent.",
    ),
    Field("correct", "variable", TRIAL_DIMS, "int8", "1", "-1", "1 where the response is correct, else 0."),
    Field("reversal", "variable", TRIAL_DIMS, "int8", "1", "0", "1 where the direction of level change flips."),
    Field(
        "decision_variable",
        "variable",
        DIMS,
        "float32",
        "observer's own",
        "NaN",
        "The observer's number for each interval, larger = more target-like.",
    ),
    Field("threshold", "variable", TRACK_DIMS, "float64", "tracked", "NaN", "Threshold of the track."),
    Field(
        "threshold_sem",
        "variable",
        TRACK_DIMS,
        "float64",
        "tracked",
        "NaN",
        "Standard error of the track's threshold, from its own reversals.",
    ),
    Field("n_trials", "variable", TRACK_DIMS, "int32", "1", "0", "Number of trials of the track."),
    Field("status", "variable", TRACK_DIMS, "int8", "1", "0", "How the track ended; see flag_meanings."),
    Field("psysim_schema", "attribute", (), "text", "", "", "Version of this schema."),
    Field("title", "attribute", (), "text", "", "", "Title of the experiment."),
    Field("spec_toml", "attribute", (), "text", "", "", "The experiment description, as TOML."),
    Field("provenance", "attribute", (), "text", "", "", "Versions, date, device, seed, calibration; a JSON object."),
    Field("complete", "attribute", (), "integer", "", "", "1 when all tracks ended, 0 in an unfinished run."),
)

_VARIABLES = {f.name: f for f in FIELDS if f.role == "variable"}
_ATTRIBUTES = {f.name: f for f in FIELDS if f.role == "attribute"}
_FILL: dict[str, float] = {
    "level": np.nan,
    "response": -1,
    "target_interval": -1,
    "correct": -1,
    "reversal": 0,
    "decision_variable": np.nan,
    "threshold": np.nan,
    "threshold_sem": np.nan,
    "n_trials": 0,
    "status": 0,
}
_LONG_NAMES = {
    "response": "Response",
    "target_interval": "Target interval",
    "correct": "Correct response",
    "reversal": "Reversal",
    "decision_variable": "Decision variable",
    "n_trials": "Number of trials",
    "status": "Track status",
}
# Columns of the tables in tables.py; a factor of that name would be ambiguous there.
_RESERVED = frozenset(
    {*DIMS, *_VARIABLES, "ci_low", "ci_high", "n_tracks", "n_converged", "mean_trials", "threshold_sd"}
    | {"threshold_median"}
    | {f"n_{name}" for name in STATUS}
)
_UNITS = (  # longest suffix first
    ("_db_spl", "dB SPL"),
    ("_db_hl", "dB HL"),
    ("_db_sl", "dB SL"),
    ("_percent", "%"),
    ("_octaves", "octave"),
    ("_khz", "kHz"),
    ("_deg", "degree"),
    ("_rad", "rad"),
    ("_db", "dB"),
    ("_hz", "Hz"),
    ("_ms", "ms"),
    ("_us", "us"),
    ("_s", "s"),
)


def unit_of(name: str) -> str:
    """Return the unit that the end of a name states ("Hz" for rate_hz), or "1".

    Examples
    --------
    >>> unit_of("carrier_hz"), unit_of("level_db_spl"), unit_of("depth_m")
    ('Hz', 'dB SPL', '1')
    """
    return next((unit for suffix, unit in _UNITS if name.endswith(suffix)), "1")


def factors(ds: xr.Dataset) -> list[str]:
    """Return the names of the factors: the coordinates along ``condition`` other than ``condition`` itself."""
    return [str(name) for name, c in ds.coords.items() if c.dims == ("condition",) and name != "condition"]


def _factor_values(name: str, values: Sequence[Any]) -> NDArray[Any]:
    """Convert one factor to a bool, integer, float or text array; lists and mixed types become text."""
    kinds = {type(v) for v in values}
    if kinds <= {bool, np.bool_}:
        return np.array(values, dtype=bool)
    numbers = all(isinstance(v, int | float | np.integer | np.floating) and not isinstance(v, bool) for v in values)
    if numbers:
        integers = all(isinstance(v, int | np.integer) for v in values)
        return np.array(values, dtype=np.int64 if integers else np.float64)
    return np.array([v if isinstance(v, str) else json.dumps(v) for v in values], dtype=object)


def _check_factor_names(conditions: Mapping[str, Sequence[Any]]) -> int:
    lengths = {name: len(values) for name, values in conditions.items()}
    if len(set(lengths.values())) > 1:
        raise SpecError(f"conditions: every factor needs one value per condition, but the lengths are {lengths}.")
    for name in conditions:
        if name in _RESERVED:
            raise SpecError(f"conditions: '{name}' is a name of the results schema; give the factor another name.")
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.]*", name):
            raise SpecError(f"conditions: '{name}' is not a valid factor name; use letters, digits, '_' and '.'.")
    n = next(iter(lengths.values()), 1)
    if n < 1:
        raise SpecError("conditions: there must be at least one condition.")
    return n


def empty_dataset(
    conditions: Mapping[str, Sequence[Any]],
    observers: Sequence[str],
    n_tracks: int,
    n_trials: int,
    n_intervals: int,
    level_unit: str,
    level_long_name: str,
    attrs: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Return a valid dataset without any trial, to be filled.

    Parameters
    ----------
    conditions : mapping of str to sequence
        One entry per factor, flat: one value per condition. Empty: one condition without factors.
    observers : sequence of str
        Names of the observers.
    n_tracks, n_trials, n_intervals : int
        Sizes; ``n_trials`` is the largest number of trials of a track.
    level_unit : str
        Unit of the tracked variable ("dB").
    level_long_name : str
        Its name for axes ("Modulation depth, 20 log m (dB)").
    attrs : mapping, optional
        Dataset attributes: title, spec_toml, provenance (JSON text), complete (0 or 1), and any others (text or number).

    Returns
    -------
    xarray.Dataset
        Of the published schema; passes `validate`.

    Raises
    ------
    SpecError
        If factors have different lengths, or a name is not allowed, or a size is below 1.

    Examples
    --------
    >>> ds = empty_dataset({"rate_hz": [4, 8]}, ["ideal"], 3, 50, 3, "dB", "Modulation depth")
    >>> dict(ds.sizes)
    {'condition': 2, 'observer': 1, 'track': 3, 'trial': 50, 'interval': 3}
    >>> ds.rate_hz.attrs["units"]
    'Hz'
    """
    import xarray as xr

    n_conditions = _check_factor_names(conditions)
    sizes = dict(zip(DIMS, (n_conditions, len(observers), n_tracks, n_trials, n_intervals), strict=True))
    for dim, size in sizes.items():
        if size < 1:
            raise SpecError(f"The number of {dim}s is {size}; it must be at least 1.")
    coords: dict[str, Any] = {d: (d, np.arange(sizes[d]), _coord_attrs(d)) for d in DIMS if d != "observer"}
    coords["observer"] = ("observer", np.array([str(o) for o in observers], dtype=object), _coord_attrs("observer"))
    for name, values in conditions.items():
        coords[name] = ("condition", _factor_values(name, values), _coord_attrs(name, unit_of(name)))
    variables: dict[str, Any] = {}
    for name, field in _VARIABLES.items():
        array = np.full([sizes[d] for d in field.dims], _FILL[name], dtype=field.dtype)
        variables[name] = (field.dims, array, _variable_attrs(field, level_unit, level_long_name))
    ds = xr.Dataset(variables, coords)
    ds.attrs = {"psysim_schema": SCHEMA_VERSION, "title": "", "spec_toml": "", "provenance": "{}", "complete": 0}
    ds.attrs.update(attrs or {})
    return validate(ds, "the new dataset")


def _coord_attrs(name: str, unit: str = "") -> dict[str, str]:
    stem = next((name.removesuffix(s) for s, u in _UNITS if name.endswith(s) and u == unit), name)
    attrs = {"long_name": stem.replace("_", " ").capitalize() or name}
    return {**attrs, "units": unit} if unit else attrs


def _variable_attrs(field: Field, level_unit: str, level_long_name: str) -> dict[str, Any]:
    tracked = {
        "level": level_long_name,
        "threshold": f"Threshold: {level_long_name}",
        "threshold_sem": "Standard error of the threshold",
    }
    if field.name in tracked:
        return {"long_name": tracked[field.name], "units": level_unit}
    attrs: dict[str, Any] = {"long_name": _LONG_NAMES[field.name], "units": "1"}
    if field.name == "status":
        attrs |= {"flag_values": np.arange(len(STATUS), dtype=np.int8), "flag_meanings": " ".join(STATUS)}
    return attrs


# ---------------------------------------------------------------------------------------------------------- validation
def validate(ds: xr.Dataset, where: str = "The dataset") -> xr.Dataset:
    """Check a dataset against the schema and return it unchanged.

    Parameters
    ----------
    ds : xarray.Dataset
        Dataset to check.
    where : str
        What it is (a path), for the message.

    Returns
    -------
    xarray.Dataset
        The same object.

    Raises
    ------
    StoreError
        If it does not follow the schema; the message lists every problem.
    """
    version = ds.attrs.get("psysim_schema")
    if version is not None and version != SCHEMA_VERSION:
        raise StoreError(
            f"{where} has results schema {version!r}, this psysim reads schema '{SCHEMA_VERSION}'. "
            "Install the psysim version named in its attribute 'provenance'."
        )
    problems = [*_attribute_problems(ds), *_coordinate_problems(ds), *_variable_problems(ds)]
    if not problems:
        problems = _value_problems(ds)
    if problems:
        lines = "".join(f"\n  - {p}" for p in problems)
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise StoreError(f"{where} does not follow results schema {SCHEMA_VERSION} ({count}):{lines}")
    return ds


def _attribute_problems(ds: xr.Dataset) -> list[str]:
    problems = []
    for name, field in _ATTRIBUTES.items():
        value = ds.attrs.get(name)
        if value is None:
            problems.append(f"attribute '{name}' is missing ({field.meaning})")
        elif field.dtype == "text" and not isinstance(value, str):
            problems.append(f"attribute '{name}' must be text, got {type(value).__name__}")
    if "complete" in ds.attrs and ds.attrs["complete"] not in (0, 1):
        problems.append(f"attribute 'complete' must be 0 or 1, got {ds.attrs['complete']!r}")
    if isinstance(text := ds.attrs.get("spec_toml"), str):
        try:
            tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            problems.append(f"attribute 'spec_toml' is not valid TOML: {error}")
    if isinstance(text := ds.attrs.get("provenance"), str):
        try:
            if not isinstance(json.loads(text), dict):
                problems.append("attribute 'provenance' must be a JSON object")
        except json.JSONDecodeError as error:
            problems.append(f"attribute 'provenance' is not valid JSON: {error}")
    for name, value in ds.attrs.items():
        if isinstance(value, bool) or not isinstance(value, str | int | float | list | np.number | np.ndarray):
            problems.append(f"attribute '{name}' is a {type(value).__name__}; store text or a number (JSON for the rest)")
    return problems


def _is_text(values: NDArray[Any]) -> bool:
    return values.dtype.kind in "UT" or (values.dtype.kind == "O" and all(isinstance(v, str) for v in values.flat))


def _coordinate_problems(ds: xr.Dataset) -> list[str]:
    problems = []
    for dim in DIMS:
        if dim not in ds.dims:
            near = did_you_mean(dim, [str(d) for d in ds.dims if d not in DIMS])
            problems.append(f"dimension '{dim}' is missing{near and ';' + near}")
            continue
        if ds.sizes[dim] < 1:
            problems.append(f"dimension '{dim}' is empty")
        if dim not in ds.coords:
            problems.append(f"coordinate '{dim}' is missing")
            continue
        values = ds.coords[dim].values
        if dim == "observer":
            if not _is_text(values) or not all(values):
                problems.append("coordinate 'observer' must be text, not empty")
        elif values.dtype != np.int64:
            problems.append(f"coordinate '{dim}' must be int64, got {values.dtype}")
        if len({*values.tolist()}) != values.size:
            problems.append(f"coordinate '{dim}' has repeated values")
    for name in factors(ds):
        values = ds.coords[name].values
        if name in _RESERVED:
            problems.append(f"factor '{name}' has a name of the schema")
        if values.dtype.kind not in "biuf" and not _is_text(values):
            problems.append(f"factor '{name}' must hold numbers, booleans or text, got {values.dtype}")
        if "units" not in ds.coords[name].attrs:
            problems.append(f"factor '{name}' has no attribute 'units' ('1' if it has none)")
    return problems


def _variable_problems(ds: xr.Dataset) -> list[str]:
    problems = []
    for name, field in _VARIABLES.items():
        if name not in ds.data_vars:
            near = did_you_mean(name, [str(v) for v in ds.data_vars if v not in _VARIABLES])
            problems.append(f"variable '{name}' is missing ({field.meaning}){near}")
            continue
        variable = ds[name]
        if variable.dims != field.dims:
            problems.append(f"variable '{name}' has dimensions {variable.dims}, must be {field.dims}")
        if str(variable.dtype) != field.dtype:
            problems.append(f"variable '{name}' is {variable.dtype}, must be {field.dtype}")
        problems += [f"variable '{name}' has no attribute '{a}'" for a in ("units", "long_name") if a not in variable.attrs]
    units = {str(ds[name].attrs.get("units")) for name in ("level", "threshold", "threshold_sem") if name in ds}
    if len(units) > 1:
        problems.append(f"level, threshold and threshold_sem must have the same units, got {sorted(units)}")
    if "status" in ds and ds["status"].attrs.get("flag_meanings") != " ".join(STATUS):
        problems.append(f"variable 'status' must have flag_meanings = '{' '.join(STATUS)}'")
    return problems


def _value_problems(ds: xr.Dataset) -> list[str]:
    """Check the values once the structure is right; each problem says how many entries, and the first."""
    v = {name: ds[name].values for name in _VARIABLES}
    n_intervals = ds.sizes["interval"]
    run = ~np.isnan(v["level"])
    none = {name: v[name] == _FILL[name] for name in ("response", "target_interval", "correct", "reversal")}
    lowest = -2 if n_intervals == 1 else 0
    rules = [
        ("n_trials differs from the number of trials with a level", run.sum(-1) != v["n_trials"]),
        ("level has a gap: trials must be filled from trial 0", ~run[..., :-1] & run[..., 1:]),
        ("response outside the intervals", (v["response"] < -1) | (v["response"] >= max(n_intervals, 2))),
        (
            "target_interval outside the intervals",
            run & ((v["target_interval"] < lowest) | (v["target_interval"] >= n_intervals) | none["target_interval"]),
        ),
        ("correct is not -1, 0 or 1", ~np.isin(v["correct"], (-1, 0, 1))),
        ("reversal is not 0 or 1", ~np.isin(v["reversal"], (0, 1))),
        ("correct is stated without a response, or the reverse", none["correct"] != none["response"]),
        ("status is not a known code", ~np.isin(v["status"], range(len(STATUS)))),
        ("a converged track has no threshold", (v["status"] == 1) & ~np.isfinite(v["threshold"])),
        ("threshold_sem is negative", v["threshold_sem"] < 0),
        ("decision_variable without a trial", ~run[..., None] & ~np.isnan(v["decision_variable"])),
    ]
    rules += [(f"{name} is stated without a trial", ~run & ~absent) for name, absent in none.items()]
    problems = []
    for text, bad in rules:
        if bad.any():
            first = dict(zip(DIMS, (int(i) for i in np.argwhere(bad)[0]), strict=False))
            problems.append(f"{text}: {int(bad.sum())} times, first at {first}")
    return problems


# ------------------------------------------------------------------------------------------------------- documentation
def document() -> str:
    """Return the schema as Markdown (docs/reference/results_schema.md)."""
    lines = [
        "# The results schema",
        "",
        "<!-- Written from psysim/results/schema.py: edit there, then run "
        "`python -m psysim.results.schema > docs/reference/results_schema.md`. -->",
        "",
        f"A run is one `xarray.Dataset` of schema version {SCHEMA_VERSION}. psysim checks it on write and on read, "
        "and reports all problems at once. Everything listed is required. Other variables and attributes may be added; "
        "attributes must be text or numbers.",
        "",
        "The store is a Zarr (format 3) folder; `psysim.results.export_netcdf` writes the same dataset as NetCDF. "
        'Both open with plain xarray: `xarray.open_zarr("run.zarr")`, `xarray.open_dataset("run.nc")`.',
    ]
    headings = {
        "dimension": "Dimensions and their coordinates",
        "coordinate": "Factors",
        "variable": "Variables",
        "attribute": "Attributes of the dataset",
    }
    for role, heading in headings.items():
        lines += ["", f"## {heading}", "", "| name | dimensions | type | unit | no value | meaning |", "|---|---|---|---|---|---|"]
        for f in FIELDS:
            if f.role == role:
                name = f.name.replace("<", "&lt;")
                cells = (f"`{name}`" if name == f.name else name, ", ".join(f.dims), f.dtype, f.unit, f.missing, f.meaning)
                lines.append("| " + " | ".join(cells) + " |")
    codes = ", ".join(f"{code} {name}" for code, name in enumerate(STATUS))
    lines += [
        "",
        "## Rules",
        "",
        '- `level`, `threshold` and `threshold_sem` have the same `units`; "tracked" above is the unit of the tracked variable.',
        "- Every variable has the attributes `units` and `long_name`; every factor has `units` (`1` if it has none).",
        "- The trials of a track are filled from trial 0 without a gap, and `n_trials` counts them.",
        "- `correct` is stated exactly where `response` is; nothing is stated where there was no trial.",
        f"- `status` codes: {codes} (CF attributes `flag_values`, `flag_meanings`). A converged track has a threshold.",
        "- `spec_toml` is valid TOML, `provenance` a JSON object.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(document(), end="")
