"""A run against human data, in numbers: how far off, in which direction, and where most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from psysim.errors import SpecError, check_range
from psysim.evaluation.matching import RATE, Match, Run, check_where, curve_at, matches, read_run
from psysim.evaluation.tmtf import fit_lowpass

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = ["compare", "deviation_statistics", "match_points"]

TOLERANCE = 0.02
_NAN = float("nan")
_TMTF = (
    "model_peak_sensitivity_db",
    "human_peak_sensitivity_db",
    "peak_sensitivity_difference_db",
    "model_cutoff_hz",
    "human_cutoff_hz",
    "cutoff_difference_hz",
)


def deviation_statistics(model: ArrayLike, human: ArrayLike) -> dict[str, float]:
    """Return how far model thresholds are from human ones.

    Parameters
    ----------
    model, human : (n,) array_like
        Thresholds in the same unit, pairwise.

    Returns
    -------
    dict
        ``n_points``; ``rmse``, the root mean square of model - human; ``bias``, its mean (above 0: the model's
        thresholds are higher); ``pearson_r``, NaN for fewer than three points or where one side does not vary.

    Raises
    ------
    SpecError
        If the lengths differ.

    Examples
    --------
    >>> deviation_statistics([-20.0, -18.0, -10.0], [-22.0, -19.0, -13.0])["bias"]
    2.0
    """
    m, h = np.asarray(model, dtype=np.float64), np.asarray(human, dtype=np.float64)
    if m.ndim != 1 or m.shape != h.shape:
        raise SpecError(f"model and human must have the same length, got the shapes {m.shape} and {h.shape}.")
    n = len(m)
    if n == 0:
        return {"n_points": 0, "rmse": _NAN, "bias": _NAN, "pearson_r": _NAN}
    deviation = m - h
    varies = n > 2 and float(np.ptp(m)) > 0 and float(np.ptp(h)) > 0
    return {
        "n_points": n,
        "rmse": float(np.sqrt(np.mean(deviation**2))),
        "bias": float(np.mean(deviation)),
        "pearson_r": float(np.corrcoef(m, h)[0, 1]) if varies else _NAN,
    }


def compare(
    ds: xr.Dataset,
    human_names: str | Sequence[str] | None = None,
    where: Mapping[str, Any] | None = None,
    tolerance: float = TOLERANCE,
    tracks: str | None = None,
    same: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Compare the thresholds of a run with human data.

    Parameters
    ----------
    ds : xarray.Dataset
        A run (results schema).
    human_names : str or sequence of str, optional
        Data sets, see `psysim.human.names`; default: those that the experiment names (``human = [...]``).
    where : mapping, optional
        Values of factors to compare, for instance ``{"carrier_hz": 1600}`` or ``{"rate_hz": [4, 8]}``; applied to the
        run and to the human data, whichever has the factor. Added to the experiment's ``[comparison] where``.
    tolerance : float
        Largest relative difference of frequencies and times that still match.
    tracks : str, optional
        Tracked variable, if the run does not state it.
    same : mapping of str to str, optional
        Human factors that are to be taken as a factor of the run, for instance ``{"level_db_sl": "level_db_spl"}``
        where the threshold of the listener is near 0 dB SPL. Added to the experiment's ``[comparison] same``.

    Returns
    -------
    pandas.DataFrame
        One row per observer and human data set (more where listener groups, or factors that only one side has, split
        it):

        - ``observer``, ``human``, ``label``, ``listener_group``, ``model_conditions``, ``human_conditions``: what is
          compared;
        - ``n_points`` of ``n_human``; ``unit``, ``rmse``, ``bias`` (model minus human), ``pearson_r``;
        - ``n_within_error``: points within the human error bar, of ``n_with_error`` that have one;
        - ``human_spread``: how far single listeners are from the mean, the RMS over the points of the standard
          deviation that the data state, and ``spread_over``, of what that is (NaN and "" where they state none). An
          ``rmse`` below a spread across listeners is that of a typical listener: no model can be asked for more;
        - ``largest_deviation``, and in ``largest_at`` where it is;
        - for modulation transfer functions peak sensitivity and cutoff of both sides and their differences (cutoffs
          only where they lie within the measured rates);
        - ``matching`` (the rule), ``confidence`` in the human data, ``note``.

        Data sets that cannot be compared have ``n_points`` 0, and the reason in ``note``.

    Raises
    ------
    SpecError
        If a data set or a factor in ``where`` is not known, no data set is named, or the run does not state the tracked
        variable.
    """
    import pandas as pd

    run, found = _matches(ds, human_names, where or {}, tolerance, tracks, same or {})
    return pd.DataFrame([_summary(match, run) for match in found], columns=list(_COLUMNS))


def match_points(
    ds: xr.Dataset,
    human_names: str | Sequence[str] | None = None,
    where: Mapping[str, Any] | None = None,
    tolerance: float = TOLERANCE,
    tracks: str | None = None,
    same: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Return the pairs of thresholds that `compare` summarises, for figures and tables.

    Parameters
    ----------
    ds, human_names, where, tolerance, tracks, same :
        As in `compare`.

    Returns
    -------
    pandas.DataFrame
        One row per pair: ``observer``, ``human``, ``label``, ``listener_group``, ``model_conditions``,
        ``human_conditions``; ``condition`` and the matched factors; ``model``, ``model_ci_low``, ``model_ci_high``;
        ``human_value``, ``human_error_low``, ``human_error_high``; ``deviation`` (model minus human).

    Raises
    ------
    SpecError
        As `compare`.
    """
    import pandas as pd

    _, found = _matches(ds, human_names, where or {}, tolerance, tracks, same or {})
    keys = ("observer", "human", "label", "listener_group", "model_conditions", "human_conditions")
    tables = []
    for match in found:
        if match.pairs is not None and len(match.pairs):
            about = pd.DataFrame([{key: match.about[key] for key in keys}] * len(match.pairs))
            tables.append(pd.concat([about, match.pairs], axis=1))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=[*keys, "model", "human_value"])


def _matches(
    ds: xr.Dataset,
    human_names: str | Sequence[str] | None,
    where: Mapping[str, Any],
    tolerance: float,
    tracks: str | None,
    same: Mapping[str, str],
) -> tuple[Run, list[Match]]:
    check_range("tolerance", tolerance, 0.0, 0.5)
    run = read_run(ds, tracks)
    names = run.human if human_names is None else [human_names] if isinstance(human_names, str) else list(human_names)
    if not names:
        raise SpecError(
            'The experiment names no human data. Give human_names=["..."] (psysim.human.names() lists them), '
            'or write human = ["..."] into the experiment file.'
        )
    where, same = {**run.where, **where}, {**run.same, **same}
    check_where(where, same, run, names)
    return run, [match for name in names for match in matches(run, name, where, tolerance, same)]


# ------------------------------------------------------------ one row of the result
_COLUMNS = (
    *("observer", "human", "label", "listener_group", "model_conditions", "human_conditions", "n_points", "n_human"),
    *("unit", "rmse", "bias", "pearson_r", "n_within_error", "n_with_error", "human_spread", "spread_over"),
    *("largest_deviation", "largest_at"),
    *_TMTF,
    *("matching", "confidence", "note"),
)


def _summary(match: Match, run: Run) -> dict[str, Any]:
    row: dict[str, Any] = {**dict.fromkeys(("listener_group", "model_conditions", "human_conditions", "matching"), "")}
    row |= {**match.about, "unit": run.unit, "n_within_error": 0, "n_with_error": 0}
    row |= {"human_spread": _NAN, "spread_over": ""}
    row |= {"largest_deviation": _NAN, "largest_at": "", **dict.fromkeys(_TMTF, _NAN)}
    pairs = match.pairs
    if pairs is None or len(pairs) == 0:
        row |= deviation_statistics([], [])
    else:
        row |= deviation_statistics(pairs["model"], pairs["human_value"])
        stated = pairs["human_error_low"].notna()
        inside = pairs["model"].between(pairs["human_error_low"], pairs["human_error_high"])
        row |= {"n_with_error": int(stated.sum()), "n_within_error": int((inside & stated).sum())}
        row |= _spread(match, pairs)
        row |= _largest(pairs)
        row |= _tmtf_numbers(match, run)
    row["note"] = "; ".join(match.notes)
    return row


def _spread(match: Match, pairs: pd.DataFrame) -> dict[str, Any]:
    """Return the standard deviation within the human data over the compared points, if their error bars are that."""
    assert match.human is not None
    kinds = [kind for kind in dict.fromkeys(match.human["error_kind"]) if kind.startswith("SD")]
    half = (pairs["human_error_high"] - pairs["human_error_low"]).to_numpy(dtype=np.float64) / 2
    if not kinds or not np.isfinite(half).any():
        return {}
    return {"human_spread": float(np.sqrt(np.nanmean(half**2))), "spread_over": "; ".join(kinds)}


def _largest(pairs: pd.DataFrame) -> dict[str, Any]:
    worst = pairs.iloc[int(pairs["deviation"].abs().to_numpy().argmax())]
    columns = list(pairs.columns)
    factors = columns[columns.index("condition") + 1 : columns.index("model")]
    where = ", ".join(f"{f} = {worst[f]:g}" if not isinstance(worst[f], str) else f"{f} = {worst[f]}" for f in factors)
    values = f"model {worst['model']:.2f}, human {worst['human_value']:.2f}"
    return {"largest_deviation": float(worst["deviation"]), "largest_at": f"{where}: {values}" if where else values}


def _tmtf_numbers(match: Match, run: Run) -> dict[str, float]:
    """Return peak sensitivity and cutoff of both sides, if these are thresholds of modulation depth over rate."""
    if run.tracks != "depth_db" or RATE not in match.shared:
        return {}
    curve = curve_at(match)
    if curve is None:
        others = ", ".join(f for f in match.shared if f != RATE)
        match.notes.append(f"several curves: choose {others} with where for peak sensitivity and cutoff")
        return {}
    model, human = curve
    numbers = {f"human_{key}": value for key, value in match.tmtf.items()}
    human_in_range = bool(match.tmtf)
    if not match.tmtf and _n_rates(human, "value") >= 3:
        fit = fit_lowpass(human[RATE], human["value"])
        numbers = {"human_peak_sensitivity_db": fit.peak_sensitivity_db, "human_cutoff_hz": fit.cutoff_hz}
        human_in_range = fit.cutoff_in_range
        match.notes += [f"human {fit.note}"] if fit.note else []
    if _n_rates(model, "threshold") < 3:
        match.notes.append("fewer than three rates: no peak sensitivity and cutoff")
        return numbers
    fit = fit_lowpass(model[RATE], model["threshold"])
    numbers |= {"model_peak_sensitivity_db": fit.peak_sensitivity_db, "model_cutoff_hz": fit.cutoff_hz}
    match.notes += [f"model {fit.note}"] if fit.note else []
    if "human_cutoff_hz" in numbers:
        difference = fit.peak_sensitivity_db - numbers["human_peak_sensitivity_db"]
        numbers["peak_sensitivity_difference_db"] = difference
        if fit.cutoff_in_range and human_in_range:
            numbers["cutoff_difference_hz"] = fit.cutoff_hz - numbers["human_cutoff_hz"]
    return numbers


def _n_rates(table: pd.DataFrame, column: str) -> int:
    return int(table[RATE][table[column].notna()].nunique())
