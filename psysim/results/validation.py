"""Checking a dataset against the results schema: every problem is reported at once."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from psysim.errors import StoreError, did_you_mean
from psysim.results.fields import ATTRIBUTES, DIMS, FILL, RESERVED, SCHEMA_VERSION, STATUS, VARIABLES, factors

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["validate"]


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
    for name, field in ATTRIBUTES.items():
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
            problems.append(
                f"attribute '{name}' is a {type(value).__name__}; store text or a number (JSON for the rest)"
            )
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
        if name in RESERVED:
            problems.append(f"factor '{name}' has a name of the schema")
        if values.dtype.kind not in "biuf" and not _is_text(values):
            problems.append(f"factor '{name}' must hold numbers, booleans or text, got {values.dtype}")
        if "units" not in ds.coords[name].attrs:
            problems.append(f"factor '{name}' has no attribute 'units' ('1' if it has none)")
    return problems


def _variable_problems(ds: xr.Dataset) -> list[str]:
    problems = []
    for name, field in VARIABLES.items():
        if name not in ds.data_vars:
            near = did_you_mean(name, [str(v) for v in ds.data_vars if v not in VARIABLES])
            problems.append(f"variable '{name}' is missing ({field.meaning}){near}")
            continue
        variable = ds[name]
        if variable.dims != field.dims:
            problems.append(f"variable '{name}' has dimensions {variable.dims}, must be {field.dims}")
        if str(variable.dtype) != field.dtype:
            problems.append(f"variable '{name}' is {variable.dtype}, must be {field.dtype}")
        problems += [
            f"variable '{name}' has no attribute '{a}'" for a in ("units", "long_name") if a not in variable.attrs
        ]
    units = {str(ds[name].attrs.get("units")) for name in ("level", "threshold", "threshold_sem") if name in ds}
    if len(units) > 1:
        problems.append(f"level, threshold and threshold_sem must have the same units, got {sorted(units)}")
    if "status" in ds and ds["status"].attrs.get("flag_meanings") != " ".join(STATUS):
        problems.append(f"variable 'status' must have flag_meanings = '{' '.join(STATUS)}'")
    return problems


def _value_problems(ds: xr.Dataset) -> list[str]:
    """Check the values once the structure is right; each problem says how many entries, and the first."""
    v = {name: ds[name].values for name in VARIABLES}
    n_intervals = ds.sizes["interval"]
    run = ~np.isnan(v["level"])
    none = {name: v[name] == FILL[name] for name in ("response", "target_interval", "correct", "reversal")}
    lowest = -2 if n_intervals == 1 else 0
    n_labels = int(ds.attrs.get("n_labels", 0))  # where labels are identified, they stand in place of intervals
    n_targets, n_answers = n_labels or n_intervals, n_labels or max(n_intervals, 2)
    rules = [
        ("n_trials differs from the number of trials with a level", run.sum(-1) != v["n_trials"]),
        ("level has a gap: trials must be filled from trial 0", ~run[..., :-1] & run[..., 1:]),
        ("response outside the intervals", (v["response"] < -1) | (v["response"] >= n_answers)),
        (
            "target_interval outside the intervals",
            run & ((v["target_interval"] < lowest) | (v["target_interval"] >= n_targets) | none["target_interval"]),
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
