"""Published predictions of models for the experiments of the human data, as thresholds to compare with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from psysim.evaluation.compare import deviation_statistics

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = ["PREDICTIONS", "published_beside", "published_predictions"]

PREDICTIONS: Mapping[str, str] = {
    "daniel_weber1997_roughness": "daniel_weber1997_sqat_model",
    "encke_dietz2022_noise_itd": "encke_dietz2022_model",
    "moore1973_fdl": "heinz2001_ideal_observer_fdl",
    "vandepar1999_bmld": "breebaart2001_bmld",
}
"""Human data set: predictions of the same experiment, both in `psysim.human`."""

_ABOUT = ("dataset", "label", "tracks", "measure", "value", "unit", "error_low", "error_high", "error_kind", "kind")
TOLERANCE = 0.02


def published_predictions(name: str, where: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """Return published model predictions beside the human thresholds they predict.

    A prediction belongs to a human point if both agree in every factor that both state. Numbers agree within 2 %; where
    the curve of a model has no point there, it is interpolated over the logarithm of that factor, never beyond its
    ends.

    Parameters
    ----------
    name : str
        A human data set.
    where : mapping, optional
        Values of factors (a value or a list of them) that restrict the human points.

    Returns
    -------
    pandas.DataFrame
        One row per published model: ``model``; ``n_points``, ``rmse``, ``bias``, ``pearson_r`` as in
        `psysim.evaluation.compare`; ``unit``. Empty if no predictions are known, or if the human points vary in a
        factor that the predictions do not state.

    Raises
    ------
    SpecError
        If the data set is not known.

    Examples
    --------
    >>> table = published_predictions("vandepar1999_bmld", {"interaural_condition": "N0Spi", "signal_hz": 500})
    >>> table[["model", "n_points"]].values.tolist()
    [['breebaart2001', 8]]
    """
    import pandas as pd

    from psysim import human
    from psysim.evaluation.matching import filtered

    columns = ["model", "n_points", "rmse", "bias", "pearson_r", "unit"]
    people = filtered(human.as_thresholds(name), dict(where or {}))
    if name not in PREDICTIONS:
        return pd.DataFrame(columns=columns)
    predicted = human.as_thresholds(PREDICTIONS[name])
    names = [str(c) for c in people.columns]
    inner = names[names.index("label") + 1 : names.index("tracks")]
    if any(c not in predicted and people[c].nunique() > 1 for c in inner):
        return pd.DataFrame(columns=columns)  # the predictions do not say for which of these they are
    shared = [str(c) for c in predicted if c in people and c not in (*_ABOUT, "listener_group", "n_listeners", "note")]
    own = [c for c in ("model", "filter_erb_hz") if c in predicted]
    rows: list[dict[str, Any]] = []
    for key, curve in predicted.groupby(["label", *own], sort=False):
        measured = people[people["kind"] != "bound"]
        points = [{str(k): v for k, v in row.items()} for row in measured.to_dict("records")]
        values = [_at(curve, {f: point[f] for f in shared}, str(point["tracks"])) for point in points]
        pairs = [(v, float(point["value"])) for v, point in zip(values, points, strict=True) if np.isfinite(v)]
        statistics = deviation_statistics([m for m, _ in pairs], [h for _, h in pairs])
        label = ", ".join(dict.fromkeys(map(str, key)))
        rows.append({"model": label, **statistics, "unit": curve["unit"].iloc[0]})
    return pd.DataFrame(rows, columns=columns)


def published_beside(ds: xr.Dataset, name: str, points: pd.DataFrame) -> pd.DataFrame:
    """Return `published_predictions` for the human points that a run was compared at.

    Parameters
    ----------
    ds : xarray.Dataset
        A run (results schema).
    name : str
        A human data set.
    points : pandas.DataFrame
        From `psysim.evaluation.match_points`.

    Returns
    -------
    pandas.DataFrame
        Models without a point there are left out.
    """
    import tomllib

    from psysim.results import factors

    own = points[points["human"] == name]
    where = {f: sorted(own[f].dropna().unique().tolist()) for f in factors(ds) if f in own}
    where |= tomllib.loads(str(ds.attrs.get("spec_toml", ""))).get("comparison", {}).get("where", {})
    found = published_predictions(name, where)
    return found[found["n_points"] > 0] if len(own) else found[:0]


def _at(curve: pd.DataFrame, point: Mapping[str, Any], tracks: str) -> float:
    """Return the prediction at a human point, or NaN."""
    rows = curve[curve["tracks"] == tracks]
    near = np.ones((len(rows), len(point)), dtype=bool)
    for i, (factor, value) in enumerate(point.items()):
        near[:, i] = _agrees(rows[factor], value)
    exact = near.all(axis=1)
    if exact.any():
        return float(rows["value"].to_numpy(dtype=float)[exact].mean())
    found = np.nan
    for i, (factor, value) in enumerate(point.items()):
        others = np.delete(near, i, axis=1).all(axis=1)
        if isinstance(value, str) or not np.isfinite(value) or value <= 0 or others.sum() < 2:
            continue
        x, y = (rows[c].to_numpy(dtype=float)[others] for c in (factor, "value"))
        order = np.argsort(x)
        x, y = x[order], y[order]
        if (x > 0).all() and x[0] <= value <= x[-1]:
            found = float(np.interp(np.log(value), np.log(x), y))
    return found


def _agrees(column: pd.Series[Any], value: Any) -> np.ndarray[Any, Any]:
    """Return where a factor has a value; what either side does not state agrees with everything."""
    if column.dtype.kind in "if" and not isinstance(value, str):
        numbers = column.to_numpy(dtype=float)
        with np.errstate(invalid="ignore"):  # infinite values are equal or not
            near = np.abs(numbers - value) <= TOLERANCE * abs(value)
        return np.asarray(np.isnan(numbers) | np.isnan(value) | (numbers == value) | (near & np.isfinite(numbers)))
    return np.asarray((column == value) | (column == "") | (value == ""), dtype=bool)
