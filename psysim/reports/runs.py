"""What a run says of itself: its description, its provenance, what was tracked."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any

import numpy as np

from psysim.evaluation.matching import Run, read_run
from psysim.results import factors

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["RATE", "abscissa", "is_tmtf", "read_provenance", "read_spec", "run_of", "tracked_variable"]

RATE = "rate_hz"


def read_spec(ds: xr.Dataset) -> dict[str, Any]:
    """Return the experiment description of a run as tables."""
    return tomllib.loads(str(ds.attrs.get("spec_toml", "")))


def read_provenance(ds: xr.Dataset) -> dict[str, Any]:
    """Return the provenance of a run: versions, date, device, seed, calibration."""
    return dict(json.loads(str(ds.attrs.get("provenance", "{}"))))


def tracked_variable(ds: xr.Dataset) -> str:
    """Return the name of the tracked variable, as the run or its description states it, or "level"."""
    return str(ds.attrs.get("tracked_variable") or read_spec(ds).get("procedure", {}).get("tracks") or "level")


def run_of(ds: xr.Dataset) -> Run:
    """Return the thresholds of a run with what its description states, as the evaluation reads them."""
    return read_run(ds, tracked_variable(ds))


def is_tmtf(ds: xr.Dataset) -> bool:
    """Return whether a run measures modulation depth at threshold against modulation rate."""
    if tracked_variable(ds) != "depth_db" or RATE not in factors(ds):
        return False
    return ds[RATE].dtype.kind in "if" and bool((ds[RATE] > 0).all())


def abscissa(ds: xr.Dataset) -> str | None:
    """Return the factor to plot against: the rate of a TMTF, the numeric factor with the most values, a name, or None.

    Of several with as many values it is the first. A factor with an infinite value (a level of -inf dB: no masker)
    counts as one of names.
    """
    names = factors(ds)
    if is_tmtf(ds):
        return RATE
    numeric = [name for name in names if ds[name].dtype.kind in "if" and np.isfinite(ds[name].values).all()]
    numeric.sort(key=lambda name: -len(np.unique(ds[name].values)))
    return next(iter([*numeric, *names]), None)
