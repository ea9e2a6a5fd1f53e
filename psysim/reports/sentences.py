"""The sentences of a report: the result, what to be careful about, captions."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from psysim.procedures import Status
from psysim.reports.labels import STATUS_WORDS, Labeller, capital, lower
from psysim.reports.methods import calibration_state
from psysim.reports.runs import read_spec, run_of
from psysim.reports.tables import fixed, quantity, signed
from psysim.results import STATUS, is_predicted

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from psysim.human import Provenance

__all__ = [
    "NO_HUMAN",
    "headline",
    "largest_deviation",
    "status_notes",
    "threshold_caption",
    "track_caption",
    "warnings",
]

FEW_TRACKS = 8  # below this the bootstrap interval is too narrow (psysim.results.bootstrap_interval)
MOST_NAMED = 2
NO_HUMAN = (
    'The experiment names no human data. Add human = ["..."] to its file, or name data sets when the report is made; '
    "psysim.human.names() lists them."
)


def headline(
    ds: xr.Dataset, thresholds: pd.DataFrame, fits: pd.DataFrame | None, comparison: pd.DataFrame | None
) -> str:
    """Return the result of a run in one sentence."""
    label = Labeller.of(ds)
    fitted = _fit_clause(fits, label) if fits is not None else ""
    parts = [fitted or _range_clause(thresholds, label), _comparison_clause(comparison, label)]
    unusual = int((ds["status"].values != STATUS.index("converged")).sum())
    if unusual:
        parts.append(f"{unusual} of {ds['status'].size} tracks did not converge")
    return "; ".join(part for part in parts if part) + "."


def _fit_clause(fits: pd.DataFrame, label: Labeller) -> str:
    usable = fits[np.isfinite(fits["peak_sensitivity_db"])]
    if not 0 < len(usable) <= MOST_NAMED:
        return ""
    names = list(fits.columns[: fits.columns.get_loc("observer")])
    clauses = []
    for row in usable.to_dict("records"):
        where = f" ({label.point({name: row[name] for name in names})})" if names and len(usable) > 1 else ""
        cutoff = f"a cutoff of {row['cutoff_hz']:.0f} Hz" if row["cutoff_in_range"] else "no cutoff within the rates"
        peak = fixed(row["peak_sensitivity_db"], "dB")
        clauses.append(f"{row['observer']}{where} has a peak sensitivity of {peak} dB and {cutoff}")
    return "; ".join(clauses)


def _range_clause(thresholds: pd.DataFrame, label: Labeller) -> str:
    known = thresholds[thresholds["threshold"].notna()]
    if not len(known):
        return "No track converged, so there is no threshold"
    unit, values = label.unit("level"), known["threshold"].to_numpy()
    names = list(thresholds.columns[1 : thresholds.columns.get_loc("observer")])
    several = thresholds["observer"].nunique() > 1

    def place(row: Mapping[Any, Any]) -> str:
        where = [str(row["observer"])] if several else []
        where += [label.point({name: row[name] for name in names})] if names else []
        return f" ({', '.join(where)})" if where else ""

    low, high = (known.iloc[i].to_dict() for i in (values.argmin(), values.argmax()))
    who = "the observers" if several else str(known["observer"].iloc[0])
    if len(known) == 1:
        return f"The threshold of {who} is {quantity(low['threshold'], unit)}"
    return (
        f"The thresholds of {who} lie between {quantity(low['threshold'], unit)}{place(low)} and "
        f"{quantity(high['threshold'], unit)}{place(high)}"
    )


def _comparison_clause(comparison: pd.DataFrame | None, label: Labeller) -> str:
    if comparison is None:
        return ""
    usable = comparison[comparison["n_points"] > 0]
    if not len(usable):
        return "the human data could not be compared"
    unit = label.unit("level")
    best = usable.iloc[int(usable["rmse"].to_numpy().argmin())]
    one = len(usable) == 1
    who = "the RMS difference" if one else f"the smallest RMS difference, of {best['observer']},"
    return f"{who} from {best['label']} is {quantity(best['rmse'], unit)} over {best['n_points']} points"


def largest_deviation(points: pd.DataFrame, label: Labeller) -> list[str]:
    """Return one sentence per observer and human data set: where the model is farthest from people."""
    unit = label.unit("level")
    columns = list(points.columns)
    names = columns[columns.index("condition") + 1 : columns.index("model")] if "condition" in columns else []
    sentences = []
    for (observer, human), group in points.groupby(["observer", "label"], sort=False):
        row = group.iloc[int(group["deviation"].abs().to_numpy().argmax())]
        where = label.point({name: row[name] for name in names if not _missing(row[name])})
        at = f" at {where}" if where else ""
        sentences.append(
            f"{observer} is farthest from {human}{at}: model {quantity(row['model'], unit)}, human "
            f"{quantity(row['human_value'], unit)}, difference {signed(row['deviation'], unit)} {unit}".rstrip()
            + "."
        )
    return sentences


def _missing(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def warnings(
    ds: xr.Dataset,
    facts: Mapping[str, Any],
    thresholds: pd.DataFrame,
    comparison: pd.DataFrame | None,
    human: Sequence[Provenance],
    missing: Sequence[str],
) -> list[str]:
    """Return what a reader must know before using the thresholds, most important first."""
    found: list[str] = []
    status = ds["status"].values
    running = int((status == STATUS.index("running")).sum())
    if not int(ds.attrs.get("complete", 0)) or running:
        done = status.size - running
        found.append(f"This run is not finished: {done} of {status.size} tracks have ended. Thresholds will change.")
    calibration = dict(facts.get("calibration") or {})
    found += [text for name in ds["observer"].values if (text := _calibration_warning(str(name), calibration))]
    found += _fitted_warnings(ds, human)
    empty = thresholds[(thresholds["n_converged"] == 0)]
    if len(empty):
        found.append(
            f"{len(empty)} of {len(thresholds)} thresholds are missing because no track of the condition converged; "
            "see 'How the tracks ended'."
        )
    held = int(np.isin(status, [STATUS.index("at_floor"), STATUS.index("at_ceiling")]).sum())
    if held:
        found.append(
            f"{held} of {status.size} tracks were held at a limit of the level. They are left out of the means, which "
            "are therefore biased in these conditions; the figure marks them at the limit."
        )
    invalid = int((status == STATUS.index("invalid_output")).sum())
    if invalid:
        found.append(f"{invalid} tracks ended because the observer gave an answer that is not a number.")
    n = FEW_TRACKS if is_predicted(ds) else ds.sizes["track"]
    if is_predicted(ds):
        found.append(
            "These thresholds were predicted from decision variables, without tracks: adaptive tracks settle a little "
            "elsewhere (track_mean and track_sd in the dataset say where)."
        )
    if n == 1:
        found.append("There is one track per condition: the thresholds have no interval.")
    elif n < FEW_TRACKS:
        found.append(
            f"With {n} tracks per condition the 95 % intervals are rough (they cannot leave the range of {n} values): "
            f"run at least {FEW_TRACKS} for thresholds that are to be quoted."
        )
    found += [
        f"Confidence in the human data '{s.name}' is {s.confidence}. {s.caveat}".strip()
        for s in human
        if re.search(r"\blow\b", s.confidence)
    ]
    found += [
        f"The human data '{name}', named by the experiment, are not known to this installation; they are left out."
        for name in missing
    ]
    if comparison is not None:
        failed = comparison[comparison["n_points"] == 0].drop_duplicates("human")
        found += [f"'{r['human']}' was not compared: {r['note']}." for r in failed.to_dict("records")]
    return found


def _calibration_warning(name: str, calibration: Mapping[str, Any]) -> str:
    facts = calibration.get(name)
    state = calibration_state(facts)
    if state == "calibrated":
        return ""
    if state == "not calibrated":
        return (
            f"The internal noise of '{name}' was not calibrated: the height of its thresholds means nothing in "
            "absolute terms, only their pattern over conditions does."
        )
    if state == "not stated":
        return (
            f"The run does not say how the internal noise of '{name}' was set: the height of its thresholds may mean "
            "nothing in absolute terms."
        )
    if state == "given":
        return f"The internal noise of '{name}' was given by the experiment file, not calibrated."
    if state == "given psychometric function":
        return (
            f"'{name}' answers from a given psychometric function: its thresholds show what the procedure does, not "
            "what a model hears."
        )
    return f"The internal noise of '{name}' is not stated as calibrated, but as '{state}'."


def _fitted_warnings(ds: xr.Dataset, human: Sequence[Provenance]) -> list[str]:
    """Return for each observer with fitted parameters which of the data it describes, and which it predicts."""
    found = []
    names = [source.name for source in human]
    for entry in read_spec(ds).get("observers", []):
        fitted = list(entry.get("fitted_to", []))
        name = entry.get("name") or entry.get("model") or entry.get("decision")
        if fitted:
            predicted = [n for n in names if n not in fitted]
            rest = f" It predicts {', '.join(predicted)}." if predicted else ""
            described = ", ".join(n for n in names if n in fitted) or "none of the data shown"
            found.append(
                f"Parameters of '{name}' were fitted to {', '.join(fitted)}: here it describes {described}.{rest}"
            )
    return found


def threshold_caption(ds: xr.Dataset, numbers: pd.DataFrame, x: str | None, downwards: bool) -> tuple[str, str]:
    """Return caption and alternative text of the threshold figure."""
    label = Labeller.of(ds)
    relative_to = run_of(ds).relative_to
    what = f"{label.threshold(relative_to) if relative_to else capital(label.name('level'))} at threshold"
    against = f" against {lower(label.name(x))}" if x else ""
    kinds = set(numbers["kind"])
    parts = [f"{what}{against}."]
    parts += ["Better sensitivity is up."] if downwards else []
    if ds.sizes["track"] > 1:
        parts.append("Filled markers: means over the converged tracks with 95 % bootstrap intervals.")
    if ds.sizes["observer"] > 1:
        parts.append("Observers are shifted slightly sideways so that they do not hide one another.")
    if kinds & {"at_ceiling", "at_floor"}:
        parts.append(
            "Hollow triangles: tracks held at a limit, with how many of all tracks; they are not in the means."
        )
    if "lowpass_fit" in kinds:
        parts.append("Dotted: first-order low-pass fitted to the model thresholds.")
    if "human_curve" in kinds:
        parts.append("Dashed: a curve fitted to human data, not measured points.")
    if kinds & {"human_points", "human_bound"}:
        parts.append("Hollow black markers: human data.")
    observers = ", ".join(str(o) for o in ds["observer"].values)
    human = ", ".join(dict.fromkeys(numbers[numbers["kind"].str.startswith("human")]["source"]))
    beside = f", with human data from {human}" if human else ""
    alt = f"{what}{against} for {observers}{beside}. The numbers are in the table below."
    return " ".join(parts), alt


def track_caption(ds: xr.Dataset, numbers: pd.DataFrame) -> tuple[str, str]:
    """Return caption and alternative text of the track figure."""
    label = Labeller.of(ds)
    name = lower(label.name("level"))
    n = numbers["panel"].nunique()
    caption = (
        f"{n} of {ds['status'].size} tracks: {name} in every trial, with the answers, the reversals and the threshold. "
        "They include tracks that did not converge, if there are any. Track numbers are those of the dataset."
    )
    ended = ", ".join(dict.fromkeys(numbers["status"]))
    return caption, f"Level against trial for {n} example tracks, which ended as: {ended}."


def status_notes(ds: xr.Dataset) -> list[str]:
    """Return one sentence for each way in which tracks of this run ended, other than by converging."""
    present = {int(code) for code in np.unique(ds["status"].values)}
    return [
        f"{capital(STATUS_WORDS[s])}: {Status[s.upper()].sentence}"
        for i, s in enumerate(STATUS)
        if i in present and s != "converged"
    ]
