"""What the results schema holds: one entry per dimension coordinate, coordinate, variable and attribute.

`validate` (validation.py) checks a dataset against it; docs/reference/results_schema.md is the output of `document`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["DIMS", "FIELDS", "SCHEMA_VERSION", "STATUS", "Field", "document", "factors", "unit_of"]

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
        "NaN, empty text",
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

VARIABLES = {f.name: f for f in FIELDS if f.role == "variable"}
ATTRIBUTES = {f.name: f for f in FIELDS if f.role == "attribute"}
FILL: dict[str, float] = {
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
# Columns of the tables in tables.py; a factor of that name would be ambiguous there.
RESERVED = frozenset(
    {*DIMS, *VARIABLES, "ci_low", "ci_high", "n_tracks", "n_converged", "mean_trials", "threshold_sd"}
    | {"threshold_median"}
    | {f"n_{name}" for name in STATUS}
)
UNITS = (  # longest suffix first
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

    Parameters
    ----------
    name : str
        Name of a factor or parameter.

    Examples
    --------
    >>> unit_of("carrier_hz"), unit_of("level_db_spl"), unit_of("depth_m")
    ('Hz', 'dB SPL', '1')
    """
    return next((unit for suffix, unit in UNITS if name.endswith(suffix)), "1")


def factors(ds: xr.Dataset) -> list[str]:
    """Return the names of the factors: the coordinates along ``condition`` other than ``condition`` itself.

    Parameters
    ----------
    ds : xarray.Dataset
        A run (results schema).

    Returns
    -------
    list of str
    """
    return [str(name) for name, c in ds.coords.items() if c.dims == ("condition",) and name != "condition"]


def document() -> str:
    """Return the schema as Markdown (docs/reference/results_schema.md)."""
    lines = [
        "# The results schema",
        "",
        "<!-- Written from psysim/results/fields.py: edit there, then run "
        "`python -c 'import psysim.results as r; print(r.document())' > docs/reference/results_schema.md`. -->",
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
        lines += [
            "",
            f"## {heading}",
            "",
            "| name | dimensions | type | unit | no value | meaning |",
            "|---|---|---|---|---|---|",
        ]
        for f in FIELDS:
            if f.role == role:
                name = f.name.replace("<", "&lt;")
                cells = (
                    f"`{name}`" if name == f.name else name,
                    ", ".join(f.dims),
                    f.dtype,
                    f.unit,
                    f.missing,
                    f.meaning,
                )
                lines.append("| " + " | ".join(cells) + " |")
    codes = ", ".join(f"{code} {name}" for code, name in enumerate(STATUS))
    lines += [
        "",
        "## Rules",
        "",
        "- `level`, `threshold` and `threshold_sem` have the same `units`: those of the tracked variable "
        '("tracked" above).',
        "- Every variable has the attributes `units` and `long_name`; every factor has `units` (`1` if it has none).",
        "- The trials of a track are filled from trial 0 without a gap, and `n_trials` counts them.",
        "- `correct` is stated exactly where `response` is; nothing is stated where there was no trial.",
        f"- `status` codes: {codes} (CF attributes `flag_values`, `flag_meanings`). A converged track has a threshold.",
        "- `spec_toml` is valid TOML, `provenance` a JSON object.",
    ]
    return "\n".join(lines)
