"""The numbers of the threshold figures: one table of everything that is drawn, made before anything is drawn."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from psysim.errors import SpecError, did_you_mean
from psysim.evaluation import fit_tmtf, lowpass_db
from psysim.evaluation.compare import TOLERANCE
from psysim.evaluation.matching import Run, filtered, renamed
from psysim.human import as_thresholds
from psysim.reports.labels import Labeller
from psysim.reports.runs import RATE, abscissa, is_tmtf, run_of
from psysim.results import STATUS

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = ["ThresholdNumbers", "human_tables", "threshold_numbers"]

CURVE_POINTS = 49  # per curve: smooth at 150 dots per inch
KINDS = ("model", "at_ceiling", "at_floor", "lowpass_fit", "human_points", "human_bound", "human_curve")


@dataclass(frozen=True)
class ThresholdNumbers:
    """Everything a threshold figure shows.

    Attributes
    ----------
    table : pandas.DataFrame
        ``kind`` (one of `KINDS`), ``source`` (observer or human data), ``label`` (for the legend), one column per
        factor of the run, ``threshold``, ``low`` and ``high`` (ends of the interval or error bar, NaN if there is
        none), ``n`` (tracks used, tracks at the limit, or listeners), ``n_tracks``.
    x : str or None
        Factor on the abscissa.
    groups : list of str
        The other factors, without those that follow it: that have one value for each of its values.
    relative_to : dict
        The conditions that thresholds are differences from, as the experiment's ``[comparison]`` says; usually empty.
    """

    table: pd.DataFrame
    x: str | None
    groups: list[str]
    relative_to: dict[str, Any] = field(default_factory=dict)

    @property
    def several_tracks(self) -> bool:
        """Whether thresholds are means over tracks."""
        return bool(self.table["n_tracks"].max() > 1)


def human_tables(run: Run, human: Any) -> list[pd.DataFrame]:
    """Return human data in the common form of `psysim.human.as_thresholds`.

    Parameters
    ----------
    run : Run
    human : str, pandas.DataFrame, sequence of these, or None
        Names of data sets, or tables in that form; None: those that the experiment names.

    Raises
    ------
    SpecError
        If a name is not known, or a table is not in the common form.
    """
    given = run.human if human is None else [human] if isinstance(human, str) or hasattr(human, "columns") else human
    tables = [as_thresholds(item) if isinstance(item, str) else item for item in given]
    for table in tables:
        missing = [c for c in ("label", "tracks", "value", "error_low", "error_high", "kind") if c not in table]
        if missing:
            raise SpecError(
                f"human: a table lacks the columns {', '.join(missing)}; give names of data sets, or tables as "
                "psysim.human.as_thresholds returns them."
            )
    return [filtered(renamed(table, run.same), run.where) for table in tables]


def threshold_numbers(ds: xr.Dataset, human: Any = None, x: str | None = None, fits: bool = True) -> ThresholdNumbers:
    """Return the numbers of a threshold figure.

    Parameters
    ----------
    ds : xarray.Dataset
        A run (results schema).
    human : str, pandas.DataFrame, sequence of these, or None
        Human data; None: the sets that the experiment names. Only thresholds of the same tracked variable are taken.
    x : str, optional
        Factor on the abscissa; see `psysim.reports.runs.abscissa` for the default.
    fits : bool
        Whether to add first-order low-pass curves, if the run is a TMTF.

    Raises
    ------
    SpecError
        If ``x`` is not a factor of the run, or human data are not known.
    """
    import pandas as pd

    run, label = run_of(ds), Labeller.of(ds)
    if x is not None and x not in run.varied:
        raise SpecError(f"x = {x!r} is not a factor of the run: {', '.join(run.varied)}.{did_you_mean(x, run.varied)}")
    x = x or abscissa(ds)
    groups = [name for name in run.varied if name != x and not _follows(run.table, name, x)]
    parts = [_model(run), *_limits(ds, run)]
    if fits and x == RATE and is_tmtf(ds):
        parts.append(_fits(ds, run, groups))
    for table in human_tables(run, human):
        parts += _human(table, run, x, label)
    columns = ["kind", "source", "label", *run.varied, "threshold", "low", "high", "n", "n_tracks"]
    filled = [part.reindex(columns=columns) for part in parts if len(part)]
    return ThresholdNumbers(pd.concat(filled, ignore_index=True), x, groups, run.relative_to)


def _follows(table: pd.DataFrame, name: str, x: str | None) -> bool:
    """Return whether ``name`` has one value for each of several values of ``x``, as factors listed case by case may."""
    if x is None or table[x].nunique() < 2:
        return False
    return bool((table.groupby(x)[name].nunique(dropna=False) == 1).all())


def _model(run: Run) -> pd.DataFrame:
    table = run.table
    part = table[[*run.varied, "threshold", "n_tracks"]].assign(kind="model", source=table["observer"])
    return part.assign(label=table["observer"], low=table["ci_low"], high=table["ci_high"], n=table["n_converged"])


def _limits(ds: xr.Dataset, run: Run) -> list[pd.DataFrame]:
    """Return the conditions with tracks that were held at a limit, at the highest or lowest level of these tracks."""
    parts = []
    status = ds["status"].values
    levels_of = ds["level"].values
    for kind, worst in (("at_ceiling", np.nanmax), ("at_floor", np.nanmin)):
        held = status == STATUS.index(kind)
        rows = run.table[run.table[f"n_{kind}"] > 0]
        places = [divmod(int(k), ds.sizes["observer"]) for k in rows.index]
        levels = np.array([worst(levels_of[c, o][held[c, o]]) for c, o in places], dtype=np.float64)
        if run.relative_to:
            levels -= rows["reference_threshold"].to_numpy(dtype=np.float64)
        part = rows[[*run.varied, "n_tracks"]].assign(kind=kind, source=rows["observer"], label=rows["observer"])
        parts.append(part.assign(threshold=levels, n=rows[f"n_{kind}"]))
    return parts


def _fits(ds: xr.Dataset, run: Run, groups: list[str]) -> pd.DataFrame:
    import pandas as pd

    rates = ds[RATE].values.astype(float)
    grid = np.geomspace(rates.min(), rates.max(), CURVE_POINTS)
    parts = []
    for row in fit_tmtf(ds).to_dict("records"):
        if np.isfinite(row["peak_sensitivity_db"]) and row["cutoff_in_range"]:  # a flat line would show nothing
            curve = lowpass_db(grid, row["peak_sensitivity_db"], row["cutoff_hz"])
            same = {name: row[name] for name in groups}
            text = f"{row['observer']}: first-order low-pass fitted to the model thresholds"
            parts.append(
                pd.DataFrame({"kind": "lowpass_fit", "source": row["observer"], "label": text, **same, RATE: grid})
            )
            parts[-1]["threshold"] = curve
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=run.varied)


def _human(table: pd.DataFrame, run: Run, x: str | None, label: Labeller) -> list[pd.DataFrame]:
    """Return the human thresholds that belong beside the run, one part per curve or set of points."""
    import pandas as pd

    rows = table[(table["tracks"] == run.tracks) & (table.get("unit", run.unit) == run.unit)]
    columns = list(table.columns)
    own = [c for c in columns[columns.index("label") + 1 : columns.index("tracks")] if _stated(rows, c)]
    if x is not None and x not in own and x in run.where:  # measured at the one value that the experiment says
        rows, own = rows.assign(**{x: run.where[x]}), [*own, x]
    if len(rows) == 0 or (x is not None and x not in own):
        return []
    for name in own:
        if name in run.fixed:
            rows = rows[_agrees(rows[name], run.table[name].iloc[0])]
    rows = _snapped(rows, [name for name in own if name in run.varied and name != x], run)
    apart = [c for c in own if c not in run.varied and c not in run.fixed]
    keys = ["label", "kind", *(["listener_group"] if "listener_group" in rows else []), *apart]
    parts = []
    for key, group in rows.groupby(keys, sort=False, dropna=False):
        values = dict(zip(keys, key, strict=True))
        several = {c: values[c] for c in apart if rows[c].nunique() > 1}
        kind = {"fitted_curve": "human_curve", "bound": "human_bound"}.get(str(values["kind"]), "human_points")
        part = group[[name for name in run.varied if name in own]]
        name = ", ".join([str(values["label"]), *([label.point(several)] if several else [])])
        part = part.assign(kind=kind, source=name, threshold=group["value"], low=group["error_low"])
        part = part.assign(high=group["error_high"], n=group.get("n_listeners"))
        part["label"] = f"{name}: {_what(kind, group, values, table)}"
        parts.append(_smooth(part, table, x) if kind == "human_curve" else pd.DataFrame(part))
    return parts


def _stated(rows: pd.DataFrame, column: str) -> bool:
    return bool(rows[column].notna().any() if rows[column].dtype.kind in "if" else (rows[column] != "").any())


def _agrees(column: pd.Series[Any], value: Any) -> Any:
    """Return which human values are the one that the run fixes, as `psysim.evaluation` matches them."""
    if column.dtype.kind in "if" and isinstance(value, int | float | np.number):
        return np.abs(column.to_numpy(float) - float(value)) <= TOLERANCE * abs(float(value))
    return (column.astype(str) == str(value)).to_numpy()


def _snapped(rows: pd.DataFrame, groups: list[str], run: Run) -> pd.DataFrame:
    """Return the rows whose groups the run has too, with the run's own values: each belongs to one panel."""
    for name in groups:
        ours = run.table[name].unique()
        pairs = [(value, _agrees(rows[name], value)) for value in ours]
        found = rows[name].astype(object).where(np.zeros(len(rows), bool), None)
        for value, same in pairs:
            found[same] = value
        rows = rows.assign(**{name: found})[found.notna().to_numpy()]
        rows[name] = rows[name].astype(run.table[name].dtype)
    return rows


def _what(kind: str, group: pd.DataFrame, values: dict[str, Any], table: pd.DataFrame) -> str:
    """Return what a human curve or set of points is, for the legend."""
    who = {"NH": "normal hearing", "HI": "hearing impaired", "NH+HI": "normal hearing and hearing impaired"}
    people = who.get(str(values.get("listener_group", "")), "listeners")
    if kind == "human_curve":
        fitted = "mean parameters" if table.attrs.get("tmtf") else "values"
        return f"{people}, curve of fitted {fitted}, not measured points"
    bars = sorted({str(k) for k in group.get("error_kind", []) if str(k)}) if group["error_low"].notna().any() else []
    bound = ", bounds" if kind == "human_bound" else ""
    return f"{people}{bound}{f', error bars: {bars[0]}' if bars else ''}"


def _smooth(part: pd.DataFrame, table: pd.DataFrame, x: str | None) -> pd.DataFrame:
    """Draw the published low-pass itself where its two parameters are stated, else join its points."""
    import pandas as pd

    parameters = table.attrs.get("tmtf")
    if x != RATE or not parameters or part[RATE].nunique() != len(part):
        return pd.DataFrame(part)
    grid = np.geomspace(part[RATE].min(), part[RATE].max(), CURVE_POINTS)
    curve = lowpass_db(grid, parameters["peak_sensitivity_db"], parameters["cutoff_hz"])
    smooth = part.iloc[[0] * CURVE_POINTS].reset_index(drop=True).assign(threshold=curve, low=np.nan, high=np.nan)
    smooth[RATE] = grid
    return smooth
