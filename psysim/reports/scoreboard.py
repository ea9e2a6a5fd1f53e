"""The scoreboard of a suite: one page that says which observer explains which data, with links to every report."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from psysim.errors import SpecError
from psysim.evaluation.scoreboard import observer_table, scoreboard, scoreboard_details, scoreboard_matrix
from psysim.reports.html import FigureView, unbroken
from psysim.reports.report import MANIFEST, _check_free, _write
from psysim.reports.scoreboard_figure import scoreboard_figure
from psysim.reports.style import png, svg
from psysim.reports.tables import Column, Table, fixed, signed

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    import xarray as xr

__all__ = ["scoreboard_report"]

N_DISAGREEMENTS = 10


@dataclass(frozen=True)
class _Page:
    """Everything the page says; the template escapes it."""

    title: str
    result: str
    run_id: str
    version: str
    facts: Sequence[tuple[str, str]]
    warnings: Sequence[str]
    figure: FigureView | None
    matrix: Table | None
    experiments: Table
    links: Sequence[tuple[str, str]]
    disagreements: Table | None
    observers: Table
    files: Sequence[tuple[str, str]] = field(default_factory=list)


def scoreboard_report(
    runs: Mapping[str, xr.Dataset],
    out: str | os.PathLike[str],
    *,
    title: str = "Scoreboard",
    reports: Mapping[str, str] | None = None,
    failures: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the scoreboard of several runs.

    The page says which observer explains which human data, and how the internal noise of each was set. The figure (SVG,
    PNG) and all tables (CSV) lie in the folder ``<name>_files`` beside it. The same runs give the same bytes, whenever
    and however often interrupted they were made.

    Parameters
    ----------
    runs : mapping of str to xarray.Dataset
        Runs by the name of the experiment.
    out : str or Path
        The HTML file.
    title : str
        Title of the page.
    reports : mapping of str to str, optional
        Addresses of the reports of the runs, relative to the page.
    failures : mapping of str to str, optional
        Experiments that are missing, and why.
    overwrite : bool
        Replace a scoreboard of other runs. Files that are no scoreboard are never replaced.

    Returns
    -------
    pathlib.Path
        The HTML file.

    Raises
    ------
    SpecError
        If there is no run, or ``out`` does not end in ``.html``.
    StoreError
        If ``out`` or its folder is there and is no scoreboard of these runs.
    """
    path = Path(out)
    if path.suffix != ".html":
        raise SpecError(f"out = '{path}': the name of a scoreboard must end in .html.")
    board, details, observers = scoreboard(runs), scoreboard_details(runs), observer_table(runs)
    mark, folder = _mark(runs, title), path.with_name(f"{path.stem}_files")
    earlier = _check_free(path, folder, mark, overwrite)
    tables = {"scoreboard": board, "details": details, "observers": observers}
    found: dict[str, bytes] = {}
    view = matrix = None
    if (board["n_points"] > 0).any():
        figure, _ = scoreboard_figure(board)
        drawn = svg(figure)
        found |= {"scoreboard.svg": drawn, "scoreboard.png": png(figure)}
        view = FigureView.of(figure, drawn, figure, _CAPTION, _alt(board))
        matrix = _matrix_table(board)
        for value in ("rmse", "variance_explained", "rmse_over_spread"):
            tables[f"matrix_{value}"] = _flat(scoreboard_matrix(board, value))
    found |= {f"{name}.csv": _csv(table) for name, table in tables.items()}
    page = _Page(
        title=title,
        result=_headline(board),
        run_id=mark,
        version=version("psysim"),
        facts=[("Experiments", str(len(runs))), ("Observers", str(len(observers))), ("Trials", _trials(runs))],
        warnings=_warnings(runs, board, observers, failures or {}),
        figure=view,
        matrix=matrix,
        experiments=_experiment_table(runs, board),
        links=[(name, quote(address)) for name, address in (reports or {}).items()],
        disagreements=_disagreement_table(board, details),
        observers=_observer_rows(observers),
        files=[(name, quote(f"{folder.name}/{name}")) for name in sorted(found)],
    )
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / MANIFEST, json.dumps({"psysim_run": mark, "files": sorted(found)}, indent=1).encode())
    for name, data in sorted(found.items()):
        _write(folder / name, data)
    _write(path, _render(page).encode())
    for name in set(earlier) - set(found):
        (folder / name).unlink(missing_ok=True)
    return path


def _render(page: _Page) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    folder = files("psysim.reports") / "templates"
    environment = Environment(
        loader=FileSystemLoader(str(folder)),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["unbroken"] = unbroken
    css = Markup((folder / "report.css").read_text(encoding="utf-8"))  # our own file, not a user's text
    return environment.get_template("scoreboard.html.j2").render(page=page, css=css)


def _mark(runs: Mapping[str, xr.Dataset], title: str) -> str:
    text = json.dumps([title, {name: str(ds.attrs.get("spec_toml", "")) for name, ds in runs.items()}])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _csv(table: pd.DataFrame) -> bytes:
    buffer = io.StringIO()
    table.to_csv(buffer, index=False, lineterminator="\n")
    return buffer.getvalue().encode()


def _flat(matrix: pd.DataFrame) -> pd.DataFrame:
    """Return a matrix with one row per experiment and data set, for a file."""
    return matrix.T.reset_index()


def _trials(runs: Mapping[str, xr.Dataset]) -> str:
    return f"{sum(int(ds['n_trials'].sum()) for ds in runs.values()):,}".replace(",", " ")


# ------------------------------------------------------------ what it says
_CAPTION = (
    "Colour: share of the variance of the human thresholds that an observer explains. Number: RMS difference, in the "
    "unit of the row. Star: fitted to data that the experiment names. An empty place: the observer did not take part."
)


def _alt(board: pd.DataFrame) -> str:
    compared = board[board["n_points"] > 0]
    return (
        f"Matrix of {compared['observer'].nunique()} observers and {compared['experiment'].nunique()} experiments: RMS "
        "difference and variance explained. The numbers are in the table below."
    )


def _headline(board: pd.DataFrame) -> str:
    """Return how many data sets are explained by some observer, in one sentence."""
    fair = board[(board["n_points"] > 2) & (board["kind"] == "model") & (board["fitted"] == "")]
    if not len(fair):
        return "No observer could be compared with human data at three points or more."
    best = fair.groupby(["experiment", "label"], sort=False)["variance_explained"].max()
    return (
        f"Of {len(best)} sets of human thresholds, {int((best >= 0.5).sum())} have more than half of their variance "
        f"explained by at least one observer, nothing being fitted; of {int((best < 0).sum())} none explains any."
    )


def _warnings(
    runs: Mapping[str, xr.Dataset], board: pd.DataFrame, observers: pd.DataFrame, failures: Mapping[str, str]
) -> list[str]:
    found = [f"The experiment '{name}' is missing: {text}" for name, text in failures.items()]
    found += [f"The run of '{name}' is not finished." for name, ds in runs.items() if not ds.attrs.get("complete", 0)]
    for row in observers.to_dict("records"):
        if row["n_internal_noises"] > 1:
            found.append(
                f"'{row['observer']}' has {row['n_internal_noises']} different internal noises: its thresholds in one "
                "experiment say little about those in another."
            )
        if row["differs"]:
            found.append(f"'{row['observer']}' has other settings in {row['differs']} than in its first experiment.")
        if row["fitted_to"]:
            found.append(f"Parameters of '{row['observer']}' were fitted to {row['fitted_to']}.")
    loose = [r["observer"] for r in observers.to_dict("records") if "not calibrated" in r["internal_noise"]]
    if loose:
        found.append(f"Not calibrated, so that the height of thresholds means nothing: {', '.join(loose)}.")
    models = board[board["kind"] != "published"]
    few = models[models["n_tracks"] < 4]["experiment"].unique()
    if len(few):
        found.append(f"Fewer than four tracks per condition (rough thresholds): {', '.join(few)}.")
    left = models[models["n_left_out"] > 0]
    if len(left):
        where = ", ".join(f"{r['experiment']} ({r['observer']}: {r['n_left_out']})" for r in left.to_dict("records"))
        found.append(f"Conditions without a converged track are in no statistic: {where}.")
    return found


def _matrix_table(board: pd.DataFrame) -> Table:
    """Return the best observers of each data set."""
    columns = [
        Column("Experiment"),
        Column("Human data"),
        Column("Points", True),
        Column("Best observer"),
        Column("RMS difference", True),
        Column("Bias", True),
        Column("Variance explained", True),
        Column("Within the human error", True),
        Column("Noise ceiling (spread of listeners)", True),
        Column("Published predictions, RMS difference"),
    ]
    rows = []
    compared = board[board["n_points"] > 0]
    for (name, label), group in compared.groupby(["experiment", "label"], sort=False):
        models = group[(group["kind"] == "model") & (group["fitted"] == "")]
        published = group[group["kind"] == "published"]
        models = models if len(models) else group[group["kind"].isin(["simulated", "hearing loss"])]
        if not len(models):
            continue
        best = models.sort_values("rmse", kind="stable").iloc[0].to_dict()
        unit = str(best["unit"])
        spread = best["human_spread"]
        rows.append(
            [
                str(name),
                str(label),
                str(best["n_points"]),
                str(best["observer"]),
                f"{fixed(best['rmse'], unit)} {unit}",
                signed(best["bias"], unit),
                _ratio(best["variance_explained"]),
                f"{best['n_within_error']:.0f} of {best['n_with_error']:.0f}" if best["n_with_error"] else "no bars",
                f"{fixed(spread, unit)} ({best['spread_over']})" if math.isfinite(spread) else "not stated",
                "; ".join(f"{r['observer']} {fixed(r['rmse'], unit)}" for r in published.to_dict("records")) or "–",
            ]
        )
    return Table("The observer with the smallest RMS difference, for each set of human thresholds", columns, rows)


def _ratio(value: float) -> str:
    return f"{value:.2f}".replace("-", "−") if math.isfinite(value) else "–"


def _experiment_table(runs: Mapping[str, xr.Dataset], board: pd.DataFrame) -> Table:
    columns = [Column("Experiment"), Column("Title"), Column("Conditions", True), Column("Observers", True)]
    columns += [Column("Tracks", True), Column("Converged"), Column("Human data")]
    rows = []
    for name, ds in runs.items():
        own = board[(board["experiment"] == name) & (board["kind"] != "published")]
        status = ds["status"].values
        failed = own[(own["n_points"] == 0) & (own["human"] != "")][["label", "note"]].drop_duplicates()
        said = [f"{row['label']}: not compared ({row['note']})" for row in failed.to_dict("records")]
        said += list(dict.fromkeys(own[own["n_points"] > 0]["label"]))
        sizes = [str(ds.sizes[d]) for d in ("condition", "observer", "track")]
        share = f"{int((status == 1).sum())} of {status.size}"
        rows.append([name, str(ds.attrs.get("title", "")), *sizes, share, "; ".join(said) or "none named"])
    return Table("The runs of this scoreboard", columns, rows)


def _disagreement_table(board: pd.DataFrame, details: pd.DataFrame) -> Table | None:
    """Return the comparisons that explain least, with the point that is farthest off."""
    usable = board[(board["kind"] == "model") & (board["variance_explained"].notna())]
    if not len(usable):
        return None
    worst = usable.sort_values("variance_explained", kind="stable").head(N_DISAGREEMENTS)
    columns = [Column("Experiment"), Column("Observer"), Column("Human data"), Column("Variance explained", True)]
    columns += [Column("RMS difference", True), Column("Bias", True), Column("Farthest off")]
    rows = []
    for row in worst.to_dict("records"):
        own = details[
            (details["experiment"] == row["experiment"])
            & (details["observer"] == row["observer"])
            & (details["human"] == row["human"])
            & (details["n_points"] > 0)
        ]
        far = own.iloc[int(own["largest_deviation"].abs().to_numpy().argmax())] if len(own) else None
        unit = str(row["unit"])
        rows.append(
            [
                str(row["experiment"]),
                str(row["observer"]),
                str(row["label"]),
                _ratio(row["variance_explained"]),
                f"{fixed(row['rmse'], unit)} {unit}",
                signed(row["bias"], unit),
                "" if far is None else str(far["largest_at"]),
            ]
        )
    return Table("Observers that explain least of the variance of a set of human thresholds", columns, rows)


def _observer_rows(observers: pd.DataFrame) -> Table:
    columns = [Column("Observer"), Column("Model"), Column("Decision"), Column("Internal noise")]
    columns += [Column("Its standard deviation", True), Column("Fitted to"), Column("Experiments", True)]
    columns += [Column("The same in all of them")]
    rows = []
    for row in observers.to_dict("records"):
        std = row["internal_noise_std"]
        same = "yes" if row["consistent"] else "no"
        cells = [row["observer"], row["model"] or "–", row["decision"], row["internal_noise"]]
        cells += [f"{std:.4g}" if math.isfinite(std) else "–", row["fitted_to"] or "nothing"]
        rows.append([*cells, str(row["n_experiments"]), same])
    return Table("Observers", columns, rows)
