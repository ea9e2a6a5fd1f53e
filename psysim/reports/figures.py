"""Threshold figures: the run, the human data, and the fitted curves, each drawn as what it is.

Every function returns the figure and a table of the plotted numbers; matplotlib is imported when one is called.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from psysim.errors import SpecError
from psysim.reports.axes import Scale, set_ordinate
from psysim.reports.labels import Labeller, capital
from psysim.reports.runs import is_tmtf, read_spec, tracked_variable
from psysim.reports.series import ThresholdNumbers, threshold_numbers
from psysim.reports.style import (
    COLOURS,
    HUMAN_COLOUR,
    HUMAN_MARKERS,
    LINES,
    MARKERS,
    Layout,
    drawing,
    freeze,
    stacked,
    wrapped,
)
from psysim.reports.track_figure import tracks_figure
from psysim.results import is_predicted
from psysim.results.schema import in_order

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["threshold_figure", "tmtf_figure", "tracks_figure"]

PANEL_HEIGHT_IN = 3.6
SMALL_PANEL_HEIGHT_IN = 3.0
LEGEND_LINE_IN = 0.19
OVERLAY = 4  # most series in one panel before every group gets a panel of its own


def tmtf_figure(
    ds: xr.Dataset,
    human: str | pd.DataFrame | Sequence[str | pd.DataFrame] | None = None,
    *,
    fits: bool = True,
    compact: bool = False,
) -> tuple[Figure, pd.DataFrame]:
    """Draw temporal modulation transfer functions: modulation depth at threshold against modulation rate.

    Better sensitivity is up, as in the literature: -30 dB at the top, 0 dB (full modulation) at the bottom.

    Parameters
    ----------
    ds : xarray.Dataset
        A run (results schema) that tracks ``depth_db`` over the factor ``rate_hz``.
    human : str, pandas.DataFrame, sequence of these, or None
        Human data: names, or tables as `psysim.human.as_thresholds` returns them; None: those that the experiment
        names; an empty list: none.
    fits : bool
        Draw the first-order low-pass fitted to each function.
    compact : bool
        Draw for the width of a phone.

    Returns
    -------
    matplotlib.figure.Figure
    pandas.DataFrame
        The plotted numbers; see `psysim.reports.series.ThresholdNumbers`.

    Raises
    ------
    SpecError
        If the run is not a TMTF, or human data are not known.

    References
    ----------
    Viemeister, N. F. (1979). Temporal modulation transfer functions based upon modulation thresholds.
    J. Acoust. Soc. Am. 66, 1364-1380.
    """
    if not is_tmtf(ds):
        raise SpecError(
            "This run is no temporal modulation transfer function: it must track depth_db over the factor rate_hz "
            f"(it tracks {tracked_variable(ds)}). Use threshold_figure."
        )
    ds = in_order(ds)
    numbers = threshold_numbers(ds, human, fits=fits)
    return _figure(ds, numbers, compact, downwards=True), numbers.table


def threshold_figure(
    ds: xr.Dataset,
    human: str | pd.DataFrame | Sequence[str | pd.DataFrame] | None = None,
    *,
    x: str | None = None,
    compact: bool = False,
) -> tuple[Figure, pd.DataFrame]:
    """Draw thresholds against one factor of the conditions.

    Parameters
    ----------
    ds : xarray.Dataset
        A run (results schema).
    human : str, pandas.DataFrame, sequence of these, or None
        As in `tmtf_figure`.
    x : str, optional
        Factor on the abscissa; default: the numeric one with the most values. Logarithmic for frequencies and rates
        that span more than a decade.
    compact : bool
        Draw for the width of a phone.

    Returns
    -------
    matplotlib.figure.Figure
    pandas.DataFrame
        The plotted numbers; see `psysim.reports.series.ThresholdNumbers`.

    Raises
    ------
    SpecError
        If ``x`` is no factor of the run, or human data are not known.
    """
    ds = in_order(ds)
    numbers = threshold_numbers(ds, human, x=x, fits=False)
    return _figure(ds, numbers, compact, downwards=False), numbers.table


# ------------------------------------------------------------ panels
@dataclass(frozen=True)
class _Style:
    colour: str
    marker: str
    line: Any
    label: str


def _figure(ds: xr.Dataset, numbers: ThresholdNumbers, compact: bool, downwards: bool) -> Figure:
    from matplotlib.figure import Figure

    label, layout = Labeller.of(ds), Layout.choose(compact)
    panels = _panels(numbers, label)
    styles = _styles(numbers, label, shared=len(panels) == 1)
    columns = min(layout.columns, len(panels))
    rows = -(-len(panels) // columns)
    height = rows * (PANEL_HEIGHT_IN if len(panels) == 1 else SMALL_PANEL_HEIGHT_IN)
    scale = Scale.of(ds, numbers, layout.width_in / columns - 0.6)
    with drawing(layout):
        entries = _legend_entries(numbers.table, styles, downwards, 56 if compact else 100)
        legend_in = LEGEND_LINE_IN * layout.font_pt / 10 * (sum(t.count("\n") + 1 for _, t in entries) + 1) + 0.1
        figure = Figure((layout.width_in, height + legend_in), layout="constrained")
        top, bottom = stacked(figure, height, legend_in)
        axes = top.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        unit = "dB" if numbers.relative_to else label.unit("level")
        ratios = read_spec(ds).get("procedure", {}).get("step_unit") == "db" and not numbers.relative_to
        set_ordinate(axes.flat[0], numbers.table, unit, downwards, ratios)
        for i, ax in enumerate(axes.flat):
            if i >= len(panels):
                ax.set_axis_off()
                continue
            _draw_panel(ax, panels[i][1], numbers.groups, styles, scale)
            ax.set_title(wrapped(panels[i][0], layout.wrap // columns), loc="left")
            ax.tick_params(labelbottom=True)
            if i + columns >= len(panels):
                ax.set_xlabel(label.axis(numbers.x) if numbers.x else "")
        better = "\n(better sensitivity upwards)" if downwards else ""
        top.supylabel(
            wrapped(label.threshold(numbers.relative_to), int(height * 110 / layout.font_pt)) + better,
            fontsize=layout.font_pt,
        )
        title = "Marker: mean over tracks; bar: 95 % bootstrap interval" if numbers.several_tracks else "One track each"
        title = "Predicted without tracks; bar: 95 % interval" if is_predicted(ds) else title
        bottom.legend(
            *zip(*entries, strict=True), loc="upper left", title=title, alignment="left", title_fontsize="small",
            handlelength=2.6, labelspacing=0.35, borderaxespad=0.2,
        )  # fmt: skip
        return freeze(figure)


def _panels(numbers: ThresholdNumbers, label: Labeller) -> list[tuple[str, pd.DataFrame]]:
    """Return title and rows of every panel: one for all if it stays readable, else one for each group."""
    table = numbers.table
    model = table[table["kind"] == "model"]
    keys = model[numbers.groups].drop_duplicates().to_dict("records") if numbers.groups else [{}]
    has_human = table["kind"].str.startswith("human").any()
    if len(keys) == 1 or (len(keys) * model["source"].nunique() <= OVERLAY and not has_human):
        return [("", table)]
    panels = []
    for key in keys:
        keep = np.ones(len(table), bool)
        for name, value in key.items():
            keep &= (table[name].isna() | (table[name] == value)).to_numpy()
        panels.append((capital(label.point({str(k): v for k, v in key.items()})), table[keep]))
    return panels


def _styles(numbers: ThresholdNumbers, label: Labeller, shared: bool) -> dict[tuple[Any, ...], _Style]:
    """Return the style of each model series, keyed by observer and group.

    The marker is the observer's. So is the colour, unless groups share one panel: then colour and line are the group's.
    """
    model = numbers.table[numbers.table["kind"] == "model"]
    keys = list(model[["source", *numbers.groups]].drop_duplicates().itertuples(index=False, name=None))
    observers = list(dict.fromkeys(key[0] for key in keys))
    groups = list(dict.fromkeys(key[1:] for key in keys))
    styles = {}
    for key in keys:
        i, j = observers.index(key[0]), groups.index(key[1:])
        colour, line, text = COLOURS[i % len(COLOURS)], "-", str(key[0])
        if shared and len(groups) > 1:
            colour, line = COLOURS[j % len(COLOURS)], LINES[j % len(LINES)]
            text = f"{text}, {label.point(dict(zip(numbers.groups, key[1:], strict=True)))}"
        styles[key] = _Style(colour, MARKERS[i % len(MARKERS)], line, text)
    return styles


# ------------------------------------------------------------ drawing
def _draw_panel(
    ax: Axes, rows: pd.DataFrame, groups: list[str], styles: dict[tuple[Any, ...], _Style], scale: Scale
) -> None:
    scale.apply(ax)
    _draw_human(ax, rows, scale)
    here = rows[rows["kind"] == "model"][["source", *groups]].drop_duplicates().itertuples(index=False, name=None)
    keys = list(here)
    for k, key in enumerate(keys):
        style, shift = styles[key], k - (len(keys) - 1) / 2
        own = rows[rows["source"] == key[0]]
        for name, value in zip(groups, key[1:], strict=True):
            own = own[own[name] == value]
        fit = own[own["kind"] == "lowpass_fit"]
        ax.plot(scale.positions(fit, 0.0), fit["threshold"], color=style.colour, **_FIT, zorder=3)
        _draw_model(ax, own[own["kind"] == "model"], style, scale, shift)
        for kind in ("at_ceiling", "at_floor"):
            _draw_limit(ax, own[own["kind"] == kind], style.colour, scale, shift)


_FIT: dict[str, Any] = {"linewidth": 0.9, "linestyle": (0, (1, 1.5))}
_CURVE: dict[str, Any] = {"linewidth": 1.6, "linestyle": (0, (6, 2))}
_LIMIT: dict[str, Any] = {"linestyle": "none", "markersize": 8, "markerfacecolor": "white", "markeredgewidth": 1.3}


def _draw_model(ax: Axes, rows: pd.DataFrame, style: _Style, scale: Scale, shift: float) -> None:
    rows = rows.iloc[np.argsort(scale.positions(rows, 0.0), kind="stable")]
    at, y = scale.positions(rows, shift), rows["threshold"].to_numpy(dtype=float)
    _draw_bars(ax, at, rows, style.colour)
    line = "none" if scale.names or scale.x is None else style.line
    ax.plot(
        at, y, color=style.colour, marker=style.marker, linestyle=line, linewidth=1.4, markeredgecolor="white",
        markeredgewidth=0.5, zorder=4,
    )  # fmt: skip


def _draw_bars(ax: Axes, at: np.ndarray[Any, Any], rows: pd.DataFrame, colour: str) -> None:
    y = rows["threshold"].to_numpy(dtype=float)
    ends = np.array([y - rows["low"].to_numpy(dtype=float), rows["high"].to_numpy(dtype=float) - y])
    known = np.isfinite(ends).all(axis=0)
    if known.any():
        bars = np.clip(ends[:, known], 0.0, None)
        ax.errorbar(at[known], y[known], yerr=bars, fmt="none", ecolor=colour, elinewidth=1.1, capsize=2.5, zorder=3.5)


def _draw_limit(ax: Axes, rows: pd.DataFrame, colour: str, scale: Scale, shift: float) -> None:
    """Draw tracks that were held at a limit: hollow triangles that point to where the threshold would be."""
    for at, row in zip(scale.positions(rows, shift), rows.to_dict("records"), strict=True):
        up = (row["kind"] == "at_ceiling") != ax.yaxis_inverted()
        ax.plot([at], [row["threshold"]], marker="^" if up else "v", markeredgecolor=colour, **_LIMIT, zorder=5)
        ax.annotate(
            f"{int(row['n'])}/{int(row['n_tracks'])}", (at, row["threshold"]), (0, -7 if up else 7),
            textcoords="offset points", ha="center", va="top" if up else "bottom", fontsize="small", color=colour,
            zorder=6,
        )  # fmt: skip


def _human_sets(rows: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Return kind, legend text and marker of every set of human data."""
    human = rows[rows["kind"].str.startswith("human")]
    sets = list(human[["kind", "label"]].drop_duplicates().itertuples(index=False, name=None))
    markers = {text: HUMAN_MARKERS[i % len(HUMAN_MARKERS)] for i, text in enumerate(sorted({t for _, t in sets}))}
    return [(kind, text, "^" if kind == "human_bound" else markers[text]) for kind, text in sets]


def _draw_human(ax: Axes, rows: pd.DataFrame, scale: Scale) -> None:
    for kind, text, marker in _human_sets(rows):
        part = rows[(rows["kind"] == kind) & (rows["label"] == text)]
        part = part.iloc[np.argsort(scale.positions(part, 0.0), kind="stable")]
        at, y = scale.positions(part, 0.0), part["threshold"].to_numpy(dtype=float)
        if kind == "human_curve":
            ax.plot(at, y, color=HUMAN_COLOUR, **_CURVE, zorder=2)
            continue
        _draw_bars(ax, at, part, HUMAN_COLOUR)
        ax.plot(
            at, y, marker=marker, linestyle="none", markerfacecolor="white", markeredgecolor=HUMAN_COLOUR,
            markeredgewidth=1.1, zorder=3.6,
        )  # fmt: skip


def _legend_entries(
    table: pd.DataFrame, styles: dict[tuple[Any, ...], _Style], downwards: bool, width: int
) -> list[tuple[Any, str]]:
    """Return handles and texts: the observers, what else the run shows, then the human data."""
    from matplotlib.lines import Line2D

    entries: dict[str, Any] = {}
    for style in styles.values():
        entries.setdefault(
            style.label,
            Line2D([], [], color=style.colour, marker=style.marker, linestyle=style.line, markeredgecolor="white",
                   markeredgewidth=0.5),
        )  # fmt: skip
    grey = "#555555"
    if (table["kind"] == "lowpass_fit").any():
        entries["first-order low-pass fitted to the model thresholds"] = Line2D([], [], color=grey, **_FIT)
    for kind, name in (("at_ceiling", "upper"), ("at_floor", "lower")):
        if (table["kind"] == kind).any():
            up = (kind == "at_ceiling") != downwards
            handle = Line2D([], [], marker="^" if up else "v", markeredgecolor=grey, **_LIMIT)
            entries[f"tracks held at the {name} limit, not in the mean (how many of all tracks)"] = handle
    for kind, text, marker in _human_sets(table):
        entries[text] = (
            Line2D([], [], color=HUMAN_COLOUR, **_CURVE)
            if kind == "human_curve"
            else Line2D([], [], linestyle="none", marker=marker, markerfacecolor="white", markeredgecolor=HUMAN_COLOUR)
        )
    return [(handle, wrapped(text, width)) for text, handle in entries.items()]
