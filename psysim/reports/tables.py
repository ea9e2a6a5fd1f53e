"""The tables of a report: cells as people read them, built from the tables of results and evaluation."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from psysim.reports.labels import NAMES, STATUS_WORDS, Labeller, capital, lower, number
from psysim.reports.methods import calibration_state
from psysim.results import STATUS, factors
from psysim.results.schema import unit_of

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from psysim.human import Provenance

__all__ = [
    "Column",
    "Table",
    "comparison_notes",
    "comparison_table",
    "fit_table",
    "human_table",
    "limit_table",
    "provenance_table",
    "published_notes",
    "status_table",
    "threshold_table",
]

_PROVENANCE_NAMES = {
    "psysim": "psysim",
    "created": "Date of the run",
    "source": "Experiment file",
    "seed": "Seed",
    "device": "Device",
    "python": "Python",
    "platform": "Platform",
    "torch": "PyTorch",
    "numpy": "NumPy",
    "numba": "Numba",
}


@dataclass(frozen=True)
class Column:
    """Head of a column; numbers stand to the right."""

    label: str
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    """A table as text. ``columns`` is empty for a list of names and values."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]] = field(default_factory=list)

    def numeric(self, index: int) -> bool:
        """Return whether a column holds numbers."""
        return bool(self.columns) and self.columns[index].numeric


def fixed(value: float, unit: str) -> str:
    """Return a value of the tracked variable: hundredths of a dB, four digits of anything else."""
    if value is None or not math.isfinite(value):
        return "none" if value is None or math.isnan(value) else number(value)
    text = f"{value:.2f}" if unit.startswith("dB") else number(value)
    return ("0.00" if text == "-0.00" else text).replace("-", "−")


def quantity(value: float, unit: str) -> str:
    """Return a value with its unit, if it has one."""
    return f"{fixed(value, unit)} {unit}".rstrip()


def signed(value: float, unit: str) -> str:
    """Return a difference with its sign."""
    text = fixed(value, unit)
    return f"+{text}" if math.isfinite(value) and value > 0 else text


def interval(low: float, high: float, unit: str) -> str:
    """Return an interval, or a dash where there is none."""
    return f"{fixed(low, unit)} … {fixed(high, unit)}" if math.isfinite(low) and math.isfinite(high) else "–"


def threshold_table(table: pd.DataFrame, label: Labeller) -> Table:
    """Return the thresholds of `psysim.results.thresholds` as a table, without columns that would say one thing."""
    names = list(table.columns[1 : table.columns.get_loc("observer")])
    unit = label.unit("level")
    several = table["observer"].nunique() > 1 or not names
    lost = bool((table["n_converged"] < table["n_tracks"]).any())
    columns = [Column(label.axis(name), table[name].dtype.kind in "if") for name in names]
    columns += [Column("Observer")] if several else []
    columns += [Column(f"Threshold ({unit})" if unit else "Threshold", True)]
    columns += [Column("95 % interval", True), Column("SD over tracks", True), Column("Tracks used", True)]
    columns += [Column("Tracks not used")] if lost else []
    columns += [Column("Mean number of trials", True)]
    rows = []
    for row in table.to_dict("records"):
        cells = [_plain(label, name, row[name]) for name in names] + ([str(row["observer"])] if several else [])
        cells += [fixed(row["threshold"], unit), interval(row["ci_low"], row["ci_high"], unit)]
        cells += [fixed(row["threshold_sd"], unit) if row["n_converged"] > 1 else "–"]
        cells += [f"{row['n_converged']} of {row['n_tracks']}"] + ([_unused(row)] if lost else [])
        rows.append([*cells, f"{row['mean_trials']:.0f}"])
    who = "" if several else f" of {table['observer'].iloc[0]}"
    return Table(f"{capital(label.name('level'))} at threshold{who}: means over converged tracks", columns, rows)


def _plain(label: Labeller, name: str, value: Any) -> str:
    """Return the value of a factor without its unit, which the head of the column states."""
    numeric = isinstance(value, int | float | np.number) and not isinstance(value, bool | np.bool_)
    return number(float(value), 6) if numeric else label.value(name, value)


def _unused(row: Mapping[Any, Any]) -> str:
    parts = [f"{row[f'n_{s}']} {STATUS_WORDS[s]}" for s in STATUS if s != "converged" and row[f"n_{s}"]]
    return ", ".join(parts) or "–"


def comparison_table(table: pd.DataFrame, label: Labeller) -> Table:
    """Return `psysim.evaluation.compare` as a table; columns that no row fills are left out."""
    unit = label.unit("level")
    tmtf = bool(table[["model_peak_sensitivity_db", "human_peak_sensitivity_db"]].notna().to_numpy().any())
    bars = bool((table["n_with_error"] > 0).any())
    of = f" ({unit})" if unit else ""
    columns = [Column("Observer"), Column("Human data"), Column("Points", True)]
    columns += [Column(f"{NAMES['rmse']}{of}", True), Column(f"{NAMES['bias']}{of}", True), Column("Pearson r", True)]
    columns += [Column("Within the error bars", True)] if bars else []
    spread = bool(table["human_spread"].notna().any())
    columns += [Column(f"Noise ceiling: spread of the listeners{of}", True)] if spread else []
    if tmtf:
        columns += [Column("Peak sensitivity (dB): model / human", True), Column("Cutoff (Hz): model / human", True)]
    columns += [Column("Confidence in the data")]
    rows = []
    for row in table.to_dict("records"):
        compared = row["n_points"] > 0
        cells = [_say(row["observer"], row["model_conditions"], label), _human_name(row, label)]
        cells += [f"{row['n_points']} of {row['n_human']}" if compared else "0"]
        cells += [fixed(row["rmse"], unit), signed(row["bias"], unit)] if compared else ["–", "–"]
        cells += [f"{row['pearson_r']:.2f}".replace("-", "−") if math.isfinite(row["pearson_r"]) else "–"]
        if bars:
            cells.append(f"{row['n_within_error']} of {row['n_with_error']}" if row["n_with_error"] else "no bars")
        if spread:
            known = math.isfinite(row["human_spread"])
            cells.append(f"{fixed(row['human_spread'], unit)} ({row['spread_over']})" if known else "not stated")
        if tmtf:
            cells.append(_pair(row["model_peak_sensitivity_db"], row["human_peak_sensitivity_db"], 1))
            cells.append(_pair(row["model_cutoff_hz"], row["human_cutoff_hz"], 0))
        rows.append([*cells, str(row["confidence"])])
    return Table("Model thresholds against human thresholds", columns, rows)


def comparison_notes(table: pd.DataFrame, label: Labeller) -> list[str]:
    """Return how every human data set was matched, and what must be known of it, one sentence each."""
    notes: dict[str, list[str]] = {}
    for row in table.to_dict("records"):
        parts = [f"matched by {row['matching']}" if row["matching"] else "not compared", str(row["note"])]
        text = _words("; ".join(part for part in parts if part), label)
        notes.setdefault(f"{_human_name(row, label)}: {text}.", []).append(str(row["observer"]))
    everyone = table["observer"].nunique()
    return [
        text if len(set(who)) == everyone else f"{text[:-1]} ({', '.join(dict.fromkeys(who))})."
        for text, who in notes.items()
    ]


def published_notes(human: str, predictions: pd.DataFrame, label: Labeller) -> list[str]:
    """Return how far published predictions of other models are from the same human points, one sentence each."""
    unit = label.unit("level")
    return [
        f"Published predictions for {human}, {row['model']}: RMS difference {quantity(row['rmse'], unit)}, bias "
        f"{signed(row['bias'], unit)}, over {row['n_points']} points."
        for row in predictions.to_dict("records")
    ]


def _say(name: str, conditions: str, label: Labeller) -> str:
    return f"{name}, {_words(conditions, label)}" if conditions else str(name)


def _human_name(row: Mapping[Any, Any], label: Labeller) -> str:
    group = {"HI": ", hearing impaired", "NH+HI": ", normal hearing and hearing impaired"}.get(
        row["listener_group"], ""
    )
    return _say(f"{row['label']}{group}", row["human_conditions"], label)


def _words(text: str, label: Labeller) -> str:
    """Return a note of the evaluation with human labels in place of machine names and values."""

    def value(match: re.Match[str]) -> str:
        name, raw = match[1], match[2]
        try:
            return label.point({name: float(raw)})
        except ValueError:
            return label.point({name: raw})

    text = re.sub(r"\b([a-z][a-z0-9]*(?:_[a-z0-9]+)+) = ([^,;:]+)", value, str(text))
    machine = [name for name in {*NAMES, *label.names, *label.units} if unit_of(name) != "1" and "_" in name]
    known = "|".join(sorted(map(re.escape, machine), key=len, reverse=True))
    return re.sub(rf"(?<!')\b(?:{known})\b(?!')", lambda m: lower(label.name(m[0])), text)


def _pair(model: float, human: float, digits: int) -> str:
    shown = [f"{v:.{digits}f}".replace("-", "−") if math.isfinite(v) else "–" for v in (model, human)]
    return " / ".join(shown)


def fit_table(table: pd.DataFrame, label: Labeller) -> Table:
    """Return `psysim.evaluation.fit_tmtf` as a table."""
    names = list(table.columns[: table.columns.get_loc("observer")])
    columns = [Column("Observer"), *(Column(label.axis(name), table[name].dtype.kind in "if") for name in names)]
    columns += [Column("Peak sensitivity (dB)", True), Column("95 % interval", True)]
    columns += [Column("Cutoff (Hz)", True), Column("95 % interval", True), Column("RMS residual (dB)", True)]
    columns += [Column("Note")]
    rows = []
    for row in table.to_dict("records"):
        cells = [str(row["observer"]), *(_plain(label, name, row[name]) for name in names)]
        cells += [_known(row["peak_sensitivity_db"]), interval(row["peak_ci_low"], row["peak_ci_high"], "dB")]
        ends = (row["cutoff_ci_low"], row["cutoff_ci_high"])
        cells += [_hertz(row["cutoff_hz"])]
        cells += [f"{_hertz(ends[0])} … {_hertz(ends[1])}" if all(map(math.isfinite, ends)) else "–"]
        rows.append([*cells, _known(row["rms_residual_db"]), str(row["note"]) or "–"])
    caption = "First-order low-pass: threshold = peak sensitivity + 10 log(1 + (rate / cutoff)²)"
    return Table(caption, columns, rows)


def _known(value: float) -> str:
    return fixed(value, "dB") if math.isfinite(value) else "–"


def _hertz(value: float) -> str:
    return f"{value:.0f}" if math.isfinite(value) else "–"


def human_table(source: Provenance) -> Table:
    """Return where one human data set comes from, as names and values."""
    caveat = " ".join(t for t in (source.caveat, "Part of its conditions is withheld." if source.withheld else "") if t)
    doi = source.doi or (f"{source.doi_status}" if source.doi_status else "")
    facts = {
        "Source": source.source,
        "DOI": doi,
        "Origin of the numbers": source.origin,
        "Read in": source.read_in,
        "Confidence": source.confidence,
        "Caveat": caveat,
    }
    return Table(f"Human data set {source.name}", [], [[name, text] for name, text in facts.items() if text])


def status_table(ds: xr.Dataset) -> Table:
    """Return how many tracks of every observer ended in which way."""
    status = ds["status"].values
    shown = [s for s in STATUS if s == "converged" or (status == STATUS.index(s)).any()]
    columns = [Column("Observer"), Column("Tracks", True), *(Column(capital(STATUS_WORDS[s]), True) for s in shown)]
    columns += [Column("Mean number of trials", True)]
    rows = []
    for o, name in enumerate(ds["observer"].values):
        counts = [str(int((status[:, o] == STATUS.index(s)).sum())) for s in shown]
        rows.append([str(name), str(status[:, o].size), *counts, f"{ds['n_trials'].values[:, o].mean():.1f}"])
    return Table("Number of tracks by the way they ended", columns, rows)


def limit_table(ds: xr.Dataset, label: Labeller) -> Table | None:
    """Return every group of tracks that did not converge, by condition, with their numbers; None if there is none."""
    rows = []
    status, names = ds["status"].values, factors(ds)
    for o, observer in enumerate(ds["observer"].values):
        for c in range(ds.sizes["condition"]):
            for code, state in enumerate(STATUS):
                found = np.flatnonzero(status[c, o] == code)
                if state == "converged" or not len(found):
                    continue
                place = label.point({name: ds[name].values[c] for name in names}) or "the only condition"
                tracks = ", ".join(str(int(ds["track"].values[t])) for t in found)
                count = f"{len(found)} of {status.shape[2]}"
                rows.append([str(observer), place, capital(STATUS_WORDS[state]), count, tracks])
    columns = [
        Column("Observer"),
        Column("Condition"),
        Column("How they ended"),
        Column("How many", True),
        Column("Tracks"),
    ]
    return Table("Tracks that did not converge, by name", columns, rows) if rows else None


def provenance_table(facts: Mapping[str, Any]) -> Table:
    """Return versions, date, device, seed and calibration as names and values."""
    rows = [[name, str(facts[key])] for key, name in _PROVENANCE_NAMES.items() if key in facts]
    known = {*_PROVENANCE_NAMES, "calibration"}
    rows += [[capital(k.replace("_", " ")), _text(v)] for k, v in facts.items() if k not in known]
    for observer, calibration in dict(facts.get("calibration") or {}).items():
        rows.append([f"Calibration of {observer}", _calibration_text(calibration)])
    return Table("What this run was made with", [], rows or [["Provenance", "not stated"]])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)


def _calibration_text(facts: Any) -> str:
    if not isinstance(facts, Mapping):
        return _text(facts)
    simple = {k: v for k, v in facts.items() if k != "status" and not isinstance(v, dict | list)}
    parts = [f"{k.replace('_', ' ')} {number(v) if isinstance(v, int | float) else v}" for k, v in simple.items()]
    return "; ".join([capital(calibration_state(facts)), *parts])
