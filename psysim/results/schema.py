"""The results schema: one description of the dataset, checked on write and on read.

This module is the door: the entries are in fields.py, the checks in validation.py, and `empty_dataset` makes a dataset.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from psysim.errors import SpecError
from psysim.results.fields import (
    DIMS,
    FIELDS,
    FILL,
    RESERVED,
    SCHEMA_VERSION,
    STATUS,
    UNITS,
    VARIABLES,
    Field,
    document,
    factors,
    unit_of,
)
from psysim.results.validation import validate

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "DIMS",
    "FIELDS",
    "SCHEMA_VERSION",
    "STATUS",
    "Field",
    "document",
    "empty_dataset",
    "factors",
    "in_order",
    "unit_of",
    "validate",
]

_LONG_NAMES = {
    "response": "Response",
    "target_interval": "Target interval",
    "correct": "Correct response",
    "reversal": "Reversal",
    "decision_variable": "Decision variable",
    "n_trials": "Number of trials",
    "status": "Track status",
}


def in_order(ds: xr.Dataset) -> xr.Dataset:
    """Return the run with its factors in the order of the description: a stored run has them in any order."""
    spec = tomllib.loads(str(ds.attrs.get("spec_toml", "")))
    named = [name for case in spec.get("cases", []) for name in case] + list(spec.get("conditions", {}))
    present = factors(ds)
    wanted = [name for name in dict.fromkeys(named) if name in present]
    wanted += sorted(set(present) - set(wanted))
    if wanted == present:
        return ds
    return ds.drop_vars(present).assign_coords({name: ds.coords[name].variable for name in wanted})


def _factor_values(values: Sequence[Any]) -> NDArray[Any]:
    """Convert one factor to a bool, integer, float or text array; lists and mixed types become text.

    None (not set in this condition) is NaN among numbers and "" among texts.
    """
    given = [v for v in values if v is not None]
    if given and all(isinstance(v, bool | np.bool_) for v in given) and len(given) == len(values):
        return np.array(values, dtype=bool)
    if given and all(isinstance(v, int | float | np.number) and not isinstance(v, bool) for v in given):
        integers = all(isinstance(v, int | np.integer) for v in given) and len(given) == len(values)
        return np.array([np.nan if v is None else v for v in values], dtype=np.int64 if integers else np.float64)
    texts = ["" if v is None else v if isinstance(v, str) else json.dumps(v) for v in values]
    return np.array(texts, dtype=object)


def _check_factor_names(conditions: Mapping[str, Sequence[Any]]) -> int:
    lengths = {name: len(values) for name, values in conditions.items()}
    if len(set(lengths.values())) > 1:
        raise SpecError(f"conditions: every factor needs one value per condition, but the lengths are {lengths}.")
    for name in conditions:
        if name in RESERVED:
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
        Dataset attributes: title, spec_toml, provenance (JSON text), complete (0 or 1), and others (text or number).

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
        coords[name] = ("condition", _factor_values(values), _coord_attrs(name, unit_of(name)))
    variables: dict[str, Any] = {}
    for name, field in VARIABLES.items():
        array = np.full([sizes[d] for d in field.dims], FILL[name], dtype=field.dtype)
        variables[name] = (field.dims, array, _variable_attrs(field, level_unit, level_long_name))
    ds = xr.Dataset(variables, coords)
    ds.attrs = {"psysim_schema": SCHEMA_VERSION, "title": "", "spec_toml": "", "provenance": "{}", "complete": 0}
    ds.attrs.update(attrs or {})
    return validate(ds, "the new dataset")


def _coord_attrs(name: str, unit: str = "") -> dict[str, str]:
    stem = next((name.removesuffix(s) for s, u in UNITS if name.endswith(s) and u == unit), name)
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
