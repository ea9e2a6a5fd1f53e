"""Example tracks: level against trial, answers, reversals, threshold."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from psysim.errors import check_range
from psysim.reports.labels import STATUS_WORDS, Labeller, number
from psysim.reports.style import COLOURS, WRONG_COLOUR, Layout, drawing, freeze, stacked, wrapped
from psysim.results import STATUS, factors
from psysim.results.schema import in_order

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["choose_tracks", "tracks_figure"]

PANEL_HEIGHT_IN = 2.0
LEGEND_HEIGHT_IN = 0.45


def choose_tracks(ds: xr.Dataset, n: int) -> list[tuple[int, int, int]]:
    """Return the positions (condition, observer, track) of up to ``n`` example tracks, in the dataset's order.

    Up to a third shows tracks that did not converge, one for each way of ending; the others are the first tracks of
    conditions spread evenly over the run, observers taking turns.
    """
    n_conditions, n_observers = ds.sizes["condition"], ds.sizes["observer"]
    begun = ds["n_trials"].values > 0
    status = ds["status"].values
    unusual: list[tuple[int, int, int]] = []
    for code in range(len(STATUS)):
        found = np.argwhere(begun & (status == code))
        if STATUS[code] != "converged" and len(found):
            unusual.append((int(found[0][0]), int(found[0][1]), int(found[0][2])))
    chosen = unusual[: max(1, n // 3)]
    order = np.linspace(0, n_conditions - 1, num=min(n, n_conditions)).round().astype(int)
    first = [(int(c), i % n_observers, 0) for i, c in enumerate(order)]
    rest = [(c, o, t) for t in range(ds.sizes["track"]) for o in range(n_observers) for c in range(n_conditions)]
    for position in [*first, *rest]:
        if len(chosen) >= n:
            break
        if position not in chosen and begun[position]:
            chosen.append(position)
    return sorted(chosen[:n])


def tracks_figure(ds: xr.Dataset, n: int = 6, *, compact: bool = False) -> tuple[Figure, pd.DataFrame]:
    """Draw example tracks of a run.

    Parameters
    ----------
    ds : xarray.Dataset
        A run (results schema).
    n : int
        Largest number of tracks, 1 to 24; see `choose_tracks`.
    compact : bool
        Draw for the width of a phone.

    Returns
    -------
    matplotlib.figure.Figure
    pandas.DataFrame
        The plotted numbers, one row per trial: ``panel``, ``condition``, the factors, ``observer``, ``track``,
        ``trial``, ``level``, ``correct`` and ``reversal`` (True or False), ``threshold`` and ``status`` of the track.

    Raises
    ------
    SpecError
        If ``n`` is out of range.
    """
    from matplotlib.figure import Figure

    check_range("n", n, 1, 24)
    ds = in_order(ds)
    label, layout = Labeller.of(ds), Layout.choose(compact)
    numbers = _track_numbers(ds, choose_tracks(ds, n))
    panels = [panel for _, panel in numbers.groupby("panel")]
    columns = max(1, min(layout.columns, len(panels)))
    rows = max(1, -(-len(panels) // columns))
    titles = [_title(ds, panel.iloc[0], label, 42 if compact else 28) for panel in panels]
    lines = max([2, *(title.count("\n") + 1 for title in titles)])
    height, legend_in = rows * (PANEL_HEIGHT_IN + (lines - 2) * layout.font_pt / 60), LEGEND_HEIGHT_IN
    with drawing(layout):
        figure = Figure((layout.width_in, height + legend_in), layout="constrained")
        top, bottom = stacked(figure, height, legend_in)
        axes = top.subplots(rows, columns, sharey=True, squeeze=False)
        for i, ax in enumerate(axes.flat):
            if i >= len(panels):
                ax.set_axis_off()
                continue
            _draw_track(ax, panels[i], titles[i])
            if i + columns >= len(panels):
                ax.set_xlabel("Trial")
        top.supylabel(wrapped(label.axis("level"), int(height * 110 / layout.font_pt)), fontsize=layout.font_pt)
        if panels:
            handles, names = axes.flat[0].get_legend_handles_labels()
            bottom.legend(handles, names, loc="upper left", ncols=2 if compact else 4, borderaxespad=0.2)
        freeze(figure)
    return figure, numbers


def _track_numbers(ds: xr.Dataset, chosen: list[tuple[int, int, int]]) -> pd.DataFrame:
    import pandas as pd

    frames = []
    for panel, (c, o, t) in enumerate(chosen):
        n = int(ds["n_trials"].values[c, o, t])
        data: dict[str, Any] = {"panel": panel, "condition": ds["condition"].values[c]}
        data |= {name: ds[name].values[c] for name in factors(ds)}
        data |= {"observer": str(ds["observer"].values[o]), "track": ds["track"].values[t]}
        data |= {"trial": ds["trial"].values[:n], "level": ds["level"].values[c, o, t, :n]}
        data["correct"] = ds["correct"].values[c, o, t, :n] == 1
        data["reversal"] = ds["reversal"].values[c, o, t, :n] == 1
        data["threshold"] = float(ds["threshold"].values[c, o, t])
        data["status"] = STATUS[int(ds["status"].values[c, o, t])]
        frames.append(pd.DataFrame(data))
    columns = ["panel", "condition", *factors(ds), "observer", "track", "trial", "level", "correct", "reversal"]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=[*columns, "threshold", "status"])


def _title(ds: xr.Dataset, row: pd.Series, label: Labeller, width: int) -> str:
    """Return observer, condition, track and how it ended, wrapped to the panel."""
    names = factors(ds)
    place = label.point({name: row[name] for name in names}) if len(names) > 1 else ""
    values = place.split(", ") if place else [label.value(name, row[name]) for name in names]
    who = [_short(str(row["observer"]), width - 4)] if ds.sizes["observer"] > 1 else []
    words = ", ".join([*who, *(v.replace(" ", "\u00a0") if len(v) < 12 else v for v in values)])
    words = f"{words}, " if words else ""
    ended = STATUS_WORDS[row["status"]]
    if np.isfinite(row["threshold"]):
        ended = f"threshold {number(row['threshold'], 3)} {label.unit('level')}".strip() + (
            "" if row["status"] == "converged" else f", {ended}"
        )
    lines = [*textwrap.wrap(f"{words}track\u00a0{int(row['track'])}", width), *textwrap.wrap(ended, width)]
    return "\n".join(lines)


def _short(name: str, width: int) -> str:
    return name if len(name) <= width else f"{name[: width - 1]}…"


def _draw_track(ax: Axes, rows: pd.DataFrame, title: str) -> None:
    trial, level = rows["trial"].to_numpy() + 1, rows["level"].to_numpy()
    correct, reversal = rows["correct"].to_numpy(bool), rows["reversal"].to_numpy(bool)
    ax.plot(trial, level, color="#999999", linewidth=0.8, zorder=1)
    ax.plot(trial[correct], level[correct], "o", color=COLOURS[0], markersize=3.2, label="correct", zorder=3)
    ax.plot(trial[~correct], level[~correct], "X", color=WRONG_COLOUR, markersize=4.6, label="wrong", zorder=3)
    ax.plot(
        trial[reversal], level[reversal], "o", markersize=8, fillstyle="none", color="#333333", markeredgewidth=0.8,
        label="reversal", zorder=2,
    )  # fmt: skip
    threshold = float(rows["threshold"].iloc[0])
    ax.plot([], [], color=COLOURS[2], linewidth=1.4, label="threshold")
    if np.isfinite(threshold):
        ax.axhline(threshold, color=COLOURS[2], linewidth=1.4, zorder=2)
    ax.set_title(title, loc="left")
    ax.set_xlim(0, max(int(trial.max()) + 1, 10))
