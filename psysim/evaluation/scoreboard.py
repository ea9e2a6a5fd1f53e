"""Many runs against human data: which observer explains which data, and with which internal noise."""

from __future__ import annotations

import itertools
import json
import tomllib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from psysim.errors import SpecError
from psysim.evaluation.compare import compare, deviation_statistics, match_points
from psysim.evaluation.published import published_beside

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = ["observer_table", "scoreboard", "scoreboard_details", "scoreboard_matrix"]

_NAN = float("nan")
_PER_EXPERIMENT = ("template_level", "template_tokens", "template_pairing", "n_down", "criterion_sd")
"""Settings of a decision that follow the experiment: they do not make another observer."""

_COLUMNS = (
    *("experiment", "observer", "kind", "human", "label", "n_points", "n_left_out", "unit", "rmse", "bias"),
    *("pearson_r", "variance_explained", "n_within_error", "n_with_error", "human_spread", "spread_over"),
    *("rmse_over_spread", "n_tracks", "fitted", "note"),
)


def scoreboard(runs: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """Return one row for every experiment, human data set and observer.

    Parameters
    ----------
    runs : mapping of str to xarray.Dataset
        Runs (results schema) by the name of the experiment, which must name its human data.

    Returns
    -------
    pandas.DataFrame
        Columns:

        - ``experiment``, ``observer``, ``human``, ``label``; ``kind``: "model" (an observer of the run that listens),
          "hearing loss" (one with an audiogram: another listener than those of the data), "aided" (normal hearing with
          a hearing aid), "simulated" (one that answers without sound) or "published" (a published prediction for the
          same experiment);
        - ``n_points`` compared; ``n_left_out``: conditions of the run without a converged track, which no statistic can
          hold;
        - ``unit``, ``rmse``, ``bias``, ``pearson_r``: over all points of one observer and data set;
        - ``variance_explained``: 1 - mean squared deviation / variance of the human thresholds, without any fit: 1 is
          perfect, 0 is no better than their mean, below 0 worse (NaN for fewer than three points);
        - ``n_within_error`` of ``n_with_error``; ``human_spread``, ``spread_over`` as in `compare`;
          ``rmse_over_spread``: about 1 for a typical single listener;
        - ``n_tracks`` per condition; ``fitted``: data sets that the observer's parameters were fitted to, as its
          experiment states (``fitted_to``): such a row describes, it predicts nothing;
        - ``note``: why nothing was compared, or "" .

        Groups of listeners with a hearing loss are not pooled with others: they count where the data hold nothing else.
        Runs without human data have one row per observer with ``n_points`` 0.

    Raises
    ------
    SpecError
        If there is no run, or a data set that a run names is not known.
    """
    import pandas as pd

    if not runs:
        raise SpecError("There is no run to compare: give at least one result.")
    rows: list[dict[str, Any]] = []
    for name, ds in runs.items():
        rows += _rows_of_run(name, ds)
    return pd.DataFrame(rows, columns=list(_COLUMNS))


def scoreboard_details(runs: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """Return `compare` of every run that names human data, one below the other.

    Parameters
    ----------
    runs : mapping of str to xarray.Dataset
        As for `scoreboard`.

    Returns
    -------
    pandas.DataFrame
        The columns of `compare` after ``experiment``.
    """
    import pandas as pd

    tables = []
    for name, ds in runs.items():
        if _human(ds):
            table = compare(ds)
            table.insert(0, "experiment", name)
            tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["experiment"])


def scoreboard_matrix(board: pd.DataFrame, value: str = "rmse") -> pd.DataFrame:
    """Return the matrix of observers and experiments with human data.

    Parameters
    ----------
    board : pandas.DataFrame
        From `scoreboard`.
    value : str
        A column of numbers: "rmse", "bias", "pearson_r", "variance_explained", "rmse_over_spread", ...

    Returns
    -------
    pandas.DataFrame
        Observers by (experiment, label); NaN where an observer did not take part. Experiments without comparison are
        left out.

    Raises
    ------
    SpecError
        If there is no such column of numbers.
    """
    numeric = [c for c in board.columns if board[c].dtype.kind in "if"]
    if value not in numeric:
        raise SpecError(f"value = '{value}' is no column of numbers. Allowed: {', '.join(numeric)}.")
    compared = board[board["n_points"] > 0]
    columns = list(compared[["experiment", "label"]].drop_duplicates().itertuples(index=False, name=None))
    table = compared.pivot_table(
        index="observer", columns=["experiment", "label"], values=value, sort=False, dropna=False
    )
    table = table.reindex(columns=columns)
    models = compared[compared["kind"] != "published"]["observer"].unique().tolist()
    others = [name for name in compared["observer"].unique() if name not in models]
    return table.reindex(index=[*models, *others])


def observer_table(runs: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """Return what every observer is, and whether it is one and the same in all experiments.

    Parameters
    ----------
    runs : mapping of str to xarray.Dataset
        As for `scoreboard`.

    Returns
    -------
    pandas.DataFrame
        One row per observer: ``observer``, ``model``, ``decision``; ``internal_noise``: "calibrated", "given",
        "not calibrated" or as the observer says; ``internal_noise_std`` (the first), ``n_internal_noises`` (how many
        that differ by more than 5 %); ``fitted_to``: data sets its parameters were fitted to; ``n_experiments``;
        ``differs``: experiments in which model, options or settings are not those of its first (settings of the
        template apart); ``consistent``: one internal noise, one set of settings.
    """
    import pandas as pd

    found: dict[str, list[tuple[str, dict[str, Any], dict[str, Any]]]] = {}
    for name, ds in runs.items():
        calibration = json.loads(str(ds.attrs.get("provenance", "{}"))).get("calibration") or {}
        for entry in _observers(ds):
            found.setdefault(_name(entry), []).append((name, entry, dict(calibration.get(_name(entry)) or {})))
    rows = []
    for observer, uses in found.items():
        first = _identity(uses[0][1])
        differs = [name for name, entry, _ in uses if _identity(entry) != first]
        stds = [f["internal_noise_std"] for _, _, f in uses if isinstance(f.get("internal_noise_std"), int | float)]
        states = list(dict.fromkeys(str(f.get("status") or "not stated") for _, _, f in uses))
        distinct = _n_distinct(stds)
        rows.append(
            {
                "observer": observer,
                "model": str(uses[0][1].get("model", "")),
                "decision": str(uses[0][1].get("decision", "")),
                "internal_noise": "; ".join(states),
                "internal_noise_std": float(stds[0]) if stds else _NAN,
                "n_internal_noises": distinct,
                "fitted_to": ", ".join(dict.fromkeys(t for _, entry, _ in uses for t in _fitted(entry))),
                "n_experiments": len(uses),
                "differs": ", ".join(differs),
                "consistent": distinct <= 1 and len(states) == 1 and not differs,
            }
        )
    return pd.DataFrame(rows)


def _n_distinct(values: list[float], tolerance: float = 0.05) -> int:
    """Return how many internal noises differ by more than 5 %: sampling rates alone make 1 % (24 and 44.1 kHz)."""
    rising = sorted(values)
    jumps = [b > a * (1 + tolerance) for a, b in itertools.pairwise(rising)]
    return sum(jumps) + 1 if rising else 0


# ------------------------------------------------------------ one run
def _spec(ds: xr.Dataset) -> dict[str, Any]:
    return tomllib.loads(str(ds.attrs.get("spec_toml", "")))


def _human(ds: xr.Dataset) -> list[str]:
    named = _spec(ds).get("human", [])
    return [named] if isinstance(named, str) else list(named)


def _observers(ds: xr.Dataset) -> list[dict[str, Any]]:
    return [dict(entry) for entry in _spec(ds).get("observers", [])]


def _name(entry: Mapping[str, Any]) -> str:
    return str(entry.get("name") or entry.get("model") or entry.get("decision"))


def _kind(entry: Mapping[str, Any]) -> str:
    """Return what sort of observer one is; one whose decision is not known here counts as one that listens."""
    from psysim.observers import registry

    decision = str(entry.get("decision", ""))
    if decision in registry and not registry.get(decision).needs_sound:
        return "simulated"
    if entry.get("audiogram") is not None:
        return "hearing loss"
    return "model" if entry.get("aid") is None else "aided"


def _fitted(entry: Mapping[str, Any]) -> list[str]:
    given = entry.get("fitted_to", [])
    return [given] if isinstance(given, str) else list(given)


def _identity(entry: Mapping[str, Any]) -> str:
    kept = {k: v for k, v in entry.items() if k not in (*_PER_EXPERIMENT, "name")}
    return json.dumps(kept, sort_keys=True, default=str)


def _rows_of_run(name: str, ds: xr.Dataset) -> list[dict[str, Any]]:
    observers = [str(o) for o in ds["observer"].values]
    fitted = {_name(entry): ", ".join(_fitted(entry)) for entry in _observers(ds)}
    kinds = {_name(entry): _kind(entry) for entry in _observers(ds)}
    base = {"experiment": name, "n_tracks": ds.sizes["track"], "n_left_out": 0}
    if not _human(ds):
        empty = {**base, **deviation_statistics([], []), "human": "", "label": "", "note": "no human data"}
        return [{**empty, "observer": o, "kind": kinds.get(o, "model"), "fitted": fitted.get(o, "")} for o in observers]
    details, points = compare(ds), match_points(ds)
    rows = []
    for human in details["human"].unique():
        own = details[details["human"] == human]
        groups = own["listener_group"].unique()
        kept = [g for g in groups if g != "HI"] or list(groups)
        for observer in observers:
            part = own[(own["observer"] == observer) & own["listener_group"].isin(kept)]
            pairs = points[
                (points["human"] == human) & (points["observer"] == observer) & points["listener_group"].isin(kept)
            ]
            rows.append({**base, **_pooled(part, pairs), "observer": observer, "human": human})
            rows[-1] |= {"n_left_out": _left_out(ds, observer), "fitted": fitted.get(observer, "")}
            rows[-1]["kind"] = kinds.get(observer, "model")
        rows += [
            {**base, "kind": "published", "observer": f"{row['model']} (published)", "human": human, "fitted": ""}
            | {k: row[k] for k in ("n_points", "rmse", "bias", "pearson_r", "unit")}
            | {"label": own["label"].iloc[0], "n_tracks": 0, "note": "published prediction", "n_with_error": 0}
            | {"variance_explained": _NAN, "n_within_error": 0, "spread_over": ""}
            for row in published_beside(ds, human, points).to_dict("records")
        ]
    return rows


def _left_out(ds: xr.Dataset, observer: str) -> int:
    """Return the number of conditions of which no track of an observer converged."""
    from psysim.results import STATUS

    status = ds["status"].sel(observer=observer).values
    return int((~(status == STATUS.index("converged")).any(axis=-1)).sum())


def _pooled(part: pd.DataFrame, pairs: pd.DataFrame) -> dict[str, Any]:
    """Return the statistics over all points of one observer and data set."""
    compared = part[part["n_points"] > 0]
    model, people = (pairs[c].to_numpy(dtype=np.float64) for c in ("model", "human_value"))
    row: dict[str, Any] = {**deviation_statistics(model, people), "label": part["label"].iloc[0]}
    spread, over = _NAN, ""
    if (known := compared[compared["human_spread"].notna()]).shape[0]:
        weight = known["n_points"].to_numpy(dtype=float)
        spread = float(np.sqrt(np.average(known["human_spread"].to_numpy(dtype=float) ** 2, weights=weight)))
        over = "; ".join(dict.fromkeys(known["spread_over"]))
    variance = float(np.var(people)) if len(people) > 2 else 0.0
    reasons = dict.fromkeys(note for note in part[part["n_points"] == 0]["note"] if note)
    return row | {
        "unit": part["unit"].iloc[0],
        "variance_explained": 1.0 - row["rmse"] ** 2 / variance if variance > 0 else _NAN,
        "n_within_error": int(part["n_within_error"].sum()),
        "n_with_error": int(part["n_with_error"].sum()),
        "human_spread": spread,
        "spread_over": over,
        "rmse_over_spread": row["rmse"] / spread if spread > 0 else _NAN,
        "note": "" if len(compared) else "; ".join(reasons),
    }
