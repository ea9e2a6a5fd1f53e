"""Which conditions of a run belong to which human thresholds.

Rules, stated in the column ``matching`` of every result:

- only thresholds of the same tracked variable in the same unit are compared;
- a factor that both have must agree: text and values in dB exactly, other numbers within a tolerance (nearest first);
- points of a fitted human curve are interpolated, linearly over the logarithm of the rate, never beyond its ends;
- a number that the human data vary and the run does not state (a carrier, say) forbids the comparison, unless ``where``
  fixes it; words that only the human data have (a background, a group) and factors that only the run has split the
  comparison into one per value;
- bounds (censored values) are never compared;
- ``same`` lets the user declare that a human factor is one of the run's under another name;
- where the experiment says ``relative_to`` (no masker, say), its thresholds are differences from those conditions.

``where``, ``same`` and ``relative_to`` stand in the experiment's table ``[comparison]``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from psysim.errors import SpecError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = ["RATE", "Match", "Run", "check_where", "curve_at", "filtered", "matches", "read_run", "renamed"]

RATE = "rate_hz"
Where = Mapping[str, Any]


@dataclass
class Run:
    """What a comparison needs of a run.

    Attributes
    ----------
    table : pandas.DataFrame
        `psysim.results.thresholds`, with the fixed stimulus parameters as further columns.
    varied, fixed : list of str
        Factors of the conditions, and parameters that the stimulus states once.
    tracks, unit : str
        Tracked variable and its unit.
    human : list of str
        Data sets that the experiment names.
    where, same : dict
        What the experiment's table ``[comparison]`` says; see `psysim.evaluation.compare`.
    relative_to : dict
        Values of factors; empty, or the thresholds are differences from the conditions with these values.
    """

    table: pd.DataFrame
    varied: list[str]
    fixed: list[str]
    tracks: str
    unit: str
    human: list[str]
    where: dict[str, Any] = field(default_factory=dict)
    same: dict[str, str] = field(default_factory=dict)
    relative_to: dict[str, Any] = field(default_factory=dict)


@dataclass
class Match:
    """One comparison: an observer and a part of the run against a part of a human data set.

    Attributes
    ----------
    about : dict
        Observer, human, label, listener_group, model_conditions, human_conditions, matching, confidence, n_human.
    pairs : pandas.DataFrame or None
        One row per matched pair; None if nothing could be compared.
    model : pandas.DataFrame or None
        The rows of the run that were considered.
    human : pandas.DataFrame or None
        The rows of the human data that were considered.
    shared : list of str
        Factors that were matched.
    tmtf : dict
        Published peak sensitivity and cutoff of the human data, if stated.
    notes : list of str
        What a reader must know, or why there is no comparison.
    """

    about: dict[str, Any]
    pairs: pd.DataFrame | None = None
    model: pd.DataFrame | None = None
    human: pd.DataFrame | None = None
    shared: list[str] = field(default_factory=list)
    tmtf: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_run(ds: xr.Dataset, tracks: str | None = None) -> Run:
    """Return the thresholds of a run with what its description states about the sounds and the comparison.

    Where it says ``relative_to``, the thresholds and their intervals are differences from the conditions with these
    values, which are left out; the index of the table stays that of `psysim.results.thresholds`.
    """
    from psysim.results import factors, thresholds

    try:
        spec = tomllib.loads(str(ds.attrs.get("spec_toml", "")))
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"The run's attribute spec_toml is not valid TOML: {error}.") from error
    tracks = tracks or ds.attrs.get("tracked_variable") or spec.get("procedure", {}).get("tracks")
    if not tracks:
        raise SpecError('The run does not say which variable was tracked: give tracks="depth_db" (for example).')
    varied = factors(ds)
    table = thresholds(ds)
    stated = spec.get("stimulus", {})
    fixed = {k: v for k, v in stated.items() if isinstance(v, str | int | float) and k not in table and k != tracks}
    for name, value in fixed.items():
        table[name] = value
    named = spec.get("human", [])
    human = [named] if isinstance(named, str) else list(named)
    comparison = spec.get("comparison", {})
    relative_to, unit = comparison.get("relative_to", {}), str(ds["level"].attrs["units"])
    if relative_to:
        table, unit = _relative(table, varied, relative_to), "dB" if unit.startswith("dB") else unit
    how = dict(comparison.get("where", {})), dict(comparison.get("same", {})), dict(relative_to)
    return Run(table, varied, list(fixed), str(tracks), unit, human, *how)


def _relative(table: pd.DataFrame, varied: list[str], relative_to: Where) -> pd.DataFrame:
    """Return thresholds less that of the condition with the values ``relative_to`` and else the same factors.

    A factor that a condition without masker states but that means nothing there (its gap) need not agree: if one
    reference is left per observer, it serves all. Both intervals enter that of the difference, as independent errors.
    """
    keys = ["observer", *(f for f in varied if f not in relative_to)]
    is_reference = np.ones(len(table), dtype=bool)
    for name, value in relative_to.items():
        is_reference &= _equal(table[name], value)
    reference = table[is_reference]
    if len(reference) == reference["observer"].nunique():
        keys = ["observer"]
    columns = ["threshold", "ci_low", "ci_high"]
    found = reference[[*keys, *columns]].rename(columns={c: f"reference_{c}" for c in columns})
    rest = table[~is_reference]
    joined = rest.merge(found, on=keys, how="left").set_axis(rest.index)
    middle, base = joined["threshold"], joined["reference_threshold"]
    below = np.hypot(middle - joined["ci_low"], joined["reference_ci_high"] - base)
    above = np.hypot(joined["ci_high"] - middle, base - joined["reference_ci_low"])
    return joined.assign(threshold=middle - base, ci_low=middle - base - below, ci_high=middle - base + above)


def matches(run: Run, name: str, where: Where, tolerance: float, same: Mapping[str, str]) -> Iterator[Match]:
    """Yield every comparison of a run with one human data set; one without pairs says why."""
    from psysim import human

    table = renamed(human.as_thresholds(name), same)
    base = {"human": name, "label": table["label"].iloc[0], "confidence": table.attrs["confidence"]}
    factors = _factors(table)
    rows = table[(table["tracks"] == run.tracks) & (table["kind"] != "bound")]
    is_curve = set(rows["kind"]) == {"fitted_curve"} and RATE in rows
    rows = filtered(
        rows, {k: v for k, v in where.items() if not (is_curve and k == RATE)}
    )  # interpolation needs it whole
    model = filtered(run.table, {k: v for k, v in where.items() if k in (*run.varied, *run.fixed)})
    shared = [f for f in factors if f in run.varied or f in run.fixed]
    problem = _problem(run, table, rows, model, factors, shared, where)
    notes = [problem] if problem else []
    n_bounds = int(((table["tracks"] == run.tracks) & (table["kind"] == "bound")).sum())
    notes += [f"{n_bounds} bounds left out"] if n_bounds else []
    notes += [f"{theirs} taken as {ours}" for theirs, ours in same.items() if ours in factors]
    notes += [f"thresholds relative to {_say(run.relative_to)}"] if run.relative_to else []
    if problem:
        for observer in run.table["observer"].unique():
            yield Match({"observer": observer, **base, "n_human": len(rows)}, notes=notes)
        return
    words = [f for f in factors if f not in shared and rows[f].dtype.kind not in "if" and rows[f].nunique() > 1]
    rest = [f for f in run.varied if f not in shared and model[f].nunique(dropna=False) > 1]
    for human_key, human_rows in _groups(rows, ["label", "listener_group", *words]):
        for model_key, model_rows in _groups(model, ["observer", *rest]):
            about = {"observer": model_key["observer"], **base, "label": human_key["label"]}
            about["listener_group"] = human_key["listener_group"]
            about["model_conditions"] = _say({f: model_key[f] for f in rest})
            about["human_conditions"] = _say({f: human_key[f] for f in words})
            about["n_human"] = len(human_rows)
            match = Match(about, model=model_rows, human=human_rows, notes=list(notes), tmtf=table.attrs["tmtf"])
            _pair(match, shared, tolerance)
            yield match


def renamed(table: pd.DataFrame, same: Mapping[str, str]) -> pd.DataFrame:
    """Return human thresholds with the columns renamed that the user declared to be the same as the run's."""
    found = table.rename(columns={theirs: ours for theirs, ours in same.items() if theirs in _factors(table)})
    found.attrs = table.attrs
    return found


def _factors(table: pd.DataFrame) -> list[str]:
    """Return the columns between label and tracks that state anything."""
    columns = list(table.columns)
    inner = columns[columns.index("label") + 1 : columns.index("tracks")]
    return [c for c in inner if (table[c].notna().any() if table[c].dtype.kind in "if" else (table[c] != "").any())]


def check_where(where: Where, same: Mapping[str, str], run: Run, names: Sequence[str]) -> None:
    """Raise `SpecError` if ``where`` or ``same`` name a factor that neither the run nor any of the data sets has."""
    from psysim import human

    theirs = [f for name in names for f in _factors(human.as_thresholds(name))]
    ours = [*run.varied, *run.fixed]
    checks = (
        ("where", where, [*ours, *theirs, *same.values(), "listener_group", "label"]),
        ("same (human factors)", same, theirs),
        ("same (factors of the run)", same.values(), ours),
    )
    for what, keys, known in checks:
        for key in keys:
            if key not in known:
                options = ", ".join(dict.fromkeys(known))
                raise SpecError(f"{what}: there is no factor '{key}'. Known: {options}.{did_you_mean(key, known)}")


def filtered(table: pd.DataFrame, where: Where) -> pd.DataFrame:
    """Return the rows that have the wanted values in the columns that exist."""
    for key, wanted in where.items():
        if key in table:
            options = list(wanted) if isinstance(wanted, list | tuple | set) else [wanted]
            keep = np.zeros(len(table), dtype=bool)
            for option in options:
                keep |= _equal(table[key], option)
            table = table[keep]
    return table


def _equal(column: pd.Series[Any], value: Any) -> NDArray[np.bool_]:
    if column.dtype.kind in "if" and isinstance(value, int | float):
        return np.isclose(column.to_numpy(dtype=np.float64), value, rtol=1e-9, atol=0.0)
    return (column.astype(object) == value).to_numpy(dtype=bool)


def _problem(
    run: Run,
    table: pd.DataFrame,
    rows: pd.DataFrame,
    model: pd.DataFrame,
    factors: list[str],
    shared: list[str],
    where: Where,
) -> str:
    """Return why nothing can be compared, or an empty text."""
    if run.tracks not in set(table["tracks"]):
        return f"its thresholds are of {', '.join(dict.fromkeys(table['tracks']))}, the run's of {run.tracks}"
    if len(rows) == 0 or len(model) == 0:
        return f"no {'human data' if len(rows) == 0 else 'conditions of the run'} left after where"
    units = set(rows["unit"])
    if units != {run.unit}:
        masking = units == {"dB"} and run.unit.startswith("dB ")
        hint = " (an amount of masking? [comparison] relative_to)" if masking else ""
        return f"its unit is {', '.join(sorted(units))}, the run's {run.unit}{hint}"
    unknown = [f for f in factors if f not in shared and f not in where and rows[f].dtype.kind in "if"]
    if unknown:
        values = {f: sorted(rows[f].dropna().unique().tolist()) for f in unknown}
        shown = "; ".join(f"{f} ({', '.join(f'{v:g}' for v in values[f][:6])})" for f in unknown)
        return f"the run does not state {shown}: choose with where={{'{unknown[0]}': {values[unknown[0]][0]:g}}}"
    if not shared and len(model) > model["observer"].nunique():
        return "it shares no factor with the run, and the run has several conditions: choose one with where"
    return ""


def _groups(table: pd.DataFrame, columns: list[str]) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    for key, group in table.groupby(columns, sort=False, dropna=False):
        yield dict(zip(columns, key, strict=True)), group


def _say(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} = {v:g}" if isinstance(v, int | float) else f"{k} = {v}" for k, v in values.items())


# ------------------------------------------------------------ pairs
def _pair(match: Match, shared: list[str], tolerance: float) -> None:
    """Fill in the pairs and say how they were found."""
    import pandas as pd

    assert match.model is not None
    assert match.human is not None
    match.shared = shared
    curve = set(match.human["kind"]) == {"fitted_curve"} and RATE in shared
    missing = match.model["threshold"].isna()
    if missing.any():
        match.notes.append(f"{int(missing.sum())} condition(s) of the run without a converged track")
    model = match.model[~missing]
    pairs = (
        _on_curve(model, match.human, shared, tolerance) if curve else _points(model, match.human, shared, tolerance)
    )
    exact = [f for f in shared if f != RATE or not curve]
    ways = [f"{RATE} interpolated on log rate"] if curve else []
    ways += [f"{', '.join(exact)} equal or nearest within {100 * tolerance:g} % (dB and text: equal)"] if exact else []
    match.about["matching"] = "; ".join(ways) or "one condition, no factors"
    match.pairs = pd.DataFrame(pairs)
    if not pairs:
        match.notes.append("no condition of the run meets the human data")


def _distance(
    model: pd.DataFrame, row: Mapping[str, Any], shared: Sequence[str], tolerance: float
) -> NDArray[np.float64]:
    """Return how far each row of the run is from a human point: relative, infinite where it does not match."""
    total = np.zeros(len(model))
    for name in shared:
        value = row[name]
        if not isinstance(value, str) and model[name].dtype.kind in "if":
            numbers = model[name].to_numpy(dtype=np.float64)
            if "_db" in name or value == 0:
                apart = np.where(np.isclose(numbers, value, rtol=0.0, atol=1e-9), 0.0, np.inf)
            else:
                apart = np.abs(numbers - value) / abs(value)
            total += np.where(apart <= tolerance, apart, np.inf)  # NaN (not stated) matches nothing
        else:
            total += np.where(model[name].astype(str) == str(value), 0.0, np.inf)
    return total


def _points(model: pd.DataFrame, human: pd.DataFrame, shared: list[str], tolerance: float) -> list[dict[str, Any]]:
    """Return for each human point the nearest condition within the tolerance."""
    pairs = []
    for row in _records(human):
        distance = _distance(model, row, shared, tolerance)
        if len(model) and np.isfinite(distance.min()):
            chosen = model.iloc[int(distance.argmin())]
            pairs.append(_row(chosen, shared, row["value"], row["error_low"], row["error_high"]))
    return pairs


def _on_curve(model: pd.DataFrame, human: pd.DataFrame, shared: list[str], tolerance: float) -> list[dict[str, Any]]:
    """Return for each condition within the rates of the human curve the value of the curve there."""
    others = [f for f in shared if f != RATE]
    pairs = []
    for _, condition in model.iterrows():
        here = np.array(
            [np.isfinite(_distance(model.loc[[condition.name]], r, others, tolerance)[0]) for r in _records(human)]
        )
        curve = human[here].sort_values(RATE)
        rate = float(condition[RATE])
        if len(curve) and curve[RATE].iloc[0] <= rate <= curve[RATE].iloc[-1]:
            x = np.log(curve[RATE].to_numpy(dtype=np.float64))
            ends = [float(np.interp(np.log(rate), x, curve[c])) for c in ("value", "error_low", "error_high")]
            pairs.append(_row(condition, shared, *ends))
    return pairs


def curve_at(match: Match) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """Return the rows of run and human data that belong to one curve over the rate, or None if there are several."""
    assert match.model is not None
    assert match.human is not None
    assert match.pairs is not None
    others = [f for f in match.shared if f != RATE]
    if others and len(match.pairs[others].drop_duplicates()) > 1:
        return None
    chosen = match.model[match.model["condition"] == match.pairs["condition"].iloc[0]]
    on_curve = [np.isfinite(_distance(chosen, row, others, np.inf)[0]) for row in _records(match.human)]
    same = np.ones(len(match.model), dtype=bool)
    for name in others:
        same &= _equal(match.model[name], chosen[name].iloc[0])
    return match.model[same], match.human[np.array(on_curve)]


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]


def _row(condition: Any, shared: list[str], value: float, low: float, high: float) -> dict[str, Any]:
    return {
        "condition": condition["condition"],
        **{name: condition[name] for name in shared},
        "model": float(condition["threshold"]),
        "model_ci_low": float(condition["ci_low"]),
        "model_ci_high": float(condition["ci_high"]),
        "human_value": float(value),
        "human_error_low": float(low),
        "human_error_high": float(high),
        "deviation": float(condition["threshold"]) - float(value),
    }
