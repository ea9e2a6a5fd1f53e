"""Tables of a run: thresholds per condition and observer, and one row per track."""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from psysim.errors import check_range
from psysim.results.schema import STATUS, factors

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = ["bootstrap_interval", "is_predicted", "position_columns", "thresholds", "tracks"]

CI_LEVEL = 0.95
_CONVERGED = STATUS.index("converged")


def bootstrap_interval(
    values: ArrayLike,
    level: float = CI_LEVEL,
    n_resamples: int = 2000,
    seed: int = 0,
    stream: int = 0,
) -> tuple[float, float]:
    """Return a bootstrap confidence interval of the mean.

    Percentiles of the means of resamples, taken further out for small samples so that the interval is as wide as
    Student's t would make it (the expanded percentile interval of Hesterberg 2015). It cannot leave the range of the
    data: with n values it covers the true mean at most with probability 1 - 2 ** (1 - n). Measured coverage of the 95 %
    interval for normal values: 87.6, 93.7 and 95.1 % for 4, 8 and 20 (plain percentiles: 80.6, 88.4 and 93.8 %).

    Parameters
    ----------
    values : (n,) array_like
        Sample; NaN is ignored.
    level : float
        Nominal coverage, in (0, 1).
    n_resamples : int
        Number of resamples.
    seed, stream : int
        Key of the random numbers (Philox): the result is a function of the arguments only.

    Returns
    -------
    tuple of float
        Lower and upper limit; NaN for fewer than two values.

    References
    ----------
    Hesterberg, T. C. (2015). What teachers should know about the bootstrap. The American Statistician, 69, 371-386.
    Section 4.2 gives the expanded percentile interval.

    Examples
    --------
    >>> low, high = bootstrap_interval([-20.0, -21.0, -22.0, -23.0, -24.0, -25.0, -26.0, -27.0])
    >>> bool(-27.0 < low < -23.5 < high < -20.0)
    True
    """
    sample = np.asarray(values, dtype=np.float64)
    sample = sample[~np.isnan(sample)]
    check_range("level", level, 0.0, 1.0, low_open=True)
    n = len(sample)
    if n < 2:
        return math.nan, math.nan
    means = sample[_resample(n, n_resamples, seed, stream)].mean(axis=1)
    low, high = np.quantile(means, _tails(n, level))
    return float(low), float(high)


def _resample(n: int, n_resamples: int, seed: int, stream: int) -> NDArray[np.int64]:
    """Return (n_resamples, n) indices drawn with replacement, a function of the arguments only."""
    key = np.array([seed, stream], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).integers(0, n, size=(n_resamples, n))


def _tails(n: int, level: float) -> tuple[float, float]:
    """Return the two probabilities at which the expanded percentile interval of n values is read."""
    from scipy.special import ndtr, stdtrit

    tail = float(ndtr(math.sqrt(n / (n - 1)) * stdtrit(n - 1, (1.0 - level) / 2.0)))
    return tail, 1.0 - tail


def _stream(condition: int, observer: str) -> int:
    """Return a key that stays with a condition and an observer when a part of the dataset is selected."""
    return (int(condition) << 32 | zlib.crc32(observer.encode())) & (2**64 - 1)


def is_predicted(ds: xr.Dataset) -> bool:
    """Return whether thresholds were predicted from decision variables, without tracks (`psysim.predict_threshold`)."""
    return str(ds.attrs.get("method", "")) == "predicted"


def thresholds(ds: xr.Dataset, level: float = CI_LEVEL, n_resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Return one row per condition and observer.

    Parameters
    ----------
    ds : xarray.Dataset
        A run (results schema).
    level : float
        Nominal coverage of the confidence interval.
    n_resamples, seed : int
        Of the bootstrap over tracks, see `bootstrap_interval`.

    Returns
    -------
    pandas.DataFrame
        Columns: ``condition``, one per factor, ``observer``; ``n_tracks`` and ``n_converged``; over converged tracks
        the mean ``threshold``, ``threshold_median``, ``threshold_sd`` (n - 1), ``threshold_sem``, ``ci_low``,
        ``ci_high`` (in the unit of the tracked variable; NaN where there are too few tracks); ``n_running``,
        ``n_max_trials``, ``n_at_floor``, ``n_at_ceiling``, ``n_invalid_output``: tracks that ended otherwise;
        ``mean_trials`` over all tracks. Of predicted thresholds ``threshold_sem`` and the interval are those of the
        prediction.
        ``attrs``: "units" (per column), "long_name", "ci_level", "ci_method".

    Raises
    ------
    SpecError
        If ``level`` is not between 0 and 1.

    Examples
    --------
    >>> from psysim.results import empty_dataset
    >>> ds = empty_dataset({"rate_hz": [4, 8]}, ["ideal"], 2, 10, 3, "dB", "Modulation depth")
    >>> ds["threshold"][:] = [[[-20.0, -24.0]], [[-22.0, -23.0]]]
    >>> ds["status"][:] = 1
    >>> thresholds(ds)[["rate_hz", "observer", "threshold", "n_converged"]]
       rate_hz observer  threshold  n_converged
    0        4    ideal      -22.0            2
    1        8    ideal      -22.5            2
    """
    import pandas as pd

    check_range("level", level, 0.0, 1.0, low_open=True)
    cells = [(c, o) for c in range(ds.sizes["condition"]) for o in range(ds.sizes["observer"])]
    table = position_columns(ds, *(np.array(index) for index in zip(*cells, strict=True)))
    summaries = [_summary(ds, c, o, level, n_resamples, seed) for c, o in cells]
    table = pd.concat([table, pd.DataFrame(summaries)], axis=1)
    unit = str(ds["threshold"].attrs["units"])
    in_unit = ("threshold", "threshold_median", "threshold_sd", "threshold_sem", "ci_low", "ci_high")
    units = {name: str(ds[name].attrs.get("units", "1")) for name in factors(ds)}
    table.attrs = {
        "units": {**units, **dict.fromkeys(in_unit, unit)},
        "long_name": str(ds["level"].attrs.get("long_name", "")),
        "ci_level": level,
        "ci_method": f"expanded percentile bootstrap over tracks, {n_resamples} resamples, seed {seed}",
    }
    if is_predicted(ds):
        from scipy.special import ndtri

        table["threshold_sem"] = ds["threshold_sem"].values[:, :, 0].ravel()
        half = float(ndtri(0.5 + level / 2)) * table["threshold_sem"]
        table["ci_low"], table["ci_high"] = table["threshold"] - half, table["threshold"] + half
        table.attrs["ci_method"] = "normal, from the jackknife over sound tokens"
    return table


def _summary(ds: xr.Dataset, c: int, o: int, level: float, n_resamples: int, seed: int) -> dict[str, Any]:
    status = ds["status"].values[c, o]
    values = ds["threshold"].values[c, o][status == _CONVERGED]
    n = len(values)
    sd = float(np.std(values, ddof=1)) if n > 1 else math.nan
    stream = _stream(ds["condition"].values[c], str(ds["observer"].values[o]))
    low, high = bootstrap_interval(values, level, n_resamples, seed, stream)
    others = {f"n_{name}": int((status == code).sum()) for code, name in enumerate(STATUS) if code != _CONVERGED}
    return {
        "n_tracks": len(status),
        "n_converged": n,
        "threshold": float(np.mean(values)) if n else math.nan,
        "threshold_median": float(np.median(values)) if n else math.nan,
        "threshold_sd": sd,
        "threshold_sem": sd / math.sqrt(n) if n > 1 else math.nan,
        "ci_low": low,
        "ci_high": high,
        **others,
        "mean_trials": float(np.mean(ds["n_trials"].values[c, o])),
    }


def tracks(ds: xr.Dataset) -> pd.DataFrame:
    """Return one row per track.

    Parameters
    ----------
    ds : xarray.Dataset
        A run (results schema).

    Returns
    -------
    pandas.DataFrame
        Columns: ``condition``, one per factor, ``observer``, ``track``, ``threshold``, ``threshold_sem`` (of this
        track, from its reversals), ``n_trials``, ``status`` (its name). ``attrs["units"]`` holds the units.
    """
    sizes = [ds.sizes[d] for d in ("condition", "observer", "track")]
    c, o, t = (index.ravel() for index in np.indices(sizes))
    table = position_columns(ds, c, o, t)
    for name in ("threshold", "threshold_sem", "n_trials"):
        table[name] = ds[name].values[c, o, t]
    table["status"] = np.array(STATUS, dtype=object)[ds["status"].values[c, o, t]]
    unit = str(ds["threshold"].attrs["units"])
    units = {name: str(ds[name].attrs.get("units", "1")) for name in factors(ds)}
    table.attrs = {"units": {**units, "threshold": unit, "threshold_sem": unit}}
    return table


def position_columns(
    ds: xr.Dataset, c: NDArray[np.int64], o: NDArray[np.int64], t: NDArray[np.int64] | None = None
) -> pd.DataFrame:
    """Return the columns that say where each row belongs: condition, factors, observer, and track if ``t`` is given."""
    import pandas as pd

    columns: dict[str, Any] = {"condition": ds["condition"].values[c]}
    columns |= {name: ds[name].values[c] for name in factors(ds)}
    columns["observer"] = ds["observer"].values.astype(object)[o]
    if t is not None:
        columns["track"] = ds["track"].values[t]
    return pd.DataFrame(columns)
