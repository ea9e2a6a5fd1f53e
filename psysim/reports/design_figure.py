"""Figure of simulated designs: where thresholds fall, and what error remains for how many trials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from psysim.errors import SpecError
from psysim.reports.style import COLOURS, HUMAN_COLOUR, LINES, MARKERS, Layout, drawing, freeze, stacked, wrapped

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from psysim.procedures import Design

__all__ = ["design_figure"]

Float = NDArray[np.float64]

PANEL_HEIGHT_IN = 2.7
LINE_IN = 0.19
N_POINTS = 241
MOST_TRACKS = 20
"""Tracks averaged at the right end of the lines."""


def design_figure(
    designs: Mapping[str, Design], *, label: str = "Level", unit: str = "", compact: bool = False
) -> tuple[Figure, pd.DataFrame]:
    """Draw the errors of thresholds, rule by rule, and the error that remains when tracks are averaged.

    Left, the distribution of threshold minus the level of the target proportion (0: no error), which lets rules with
    different targets stand on one axis; it is smoothed with a Gaussian of ``1.06 SD C**-0.2`` for C converged tracks,
    because thresholds are averages of a few levels and fall on a grid. Right, the RMS error of the mean of
    n = 1, 2, ..., 20 tracks, ``sqrt(bias**2 + SD**2 / n)``, against the trials that they take.

    Parameters
    ----------
    designs : mapping of str to Design
        By the name of the rule, from `psysim.procedures.compare_designs`.
    label, unit : str
        Name and unit of the tracked variable.
    compact : bool
        Draw for the width of a phone.

    Returns
    -------
    matplotlib.figure.Figure
    pandas.DataFrame
        The plotted numbers: ``rule``, ``panel`` ("density" or "error"), ``x`` and ``y``.

    Raises
    ------
    SpecError
        If there is no rule, more than six, or none whose tracks converge.
    """
    from matplotlib.figure import Figure

    if not 1 <= len(designs) <= len(COLOURS):
        raise SpecError(f"A figure shows 1 to {len(COLOURS)} rules, not {len(designs)}.")
    shown = {name: found for name, found in designs.items() if found.n_converged > 1}
    if not shown:
        raise SpecError("No rule has converged tracks: there is nothing to draw.")
    if len({found.in_db for found in shown.values()}) > 1:
        raise SpecError("Some rules have steps in dB and others do not: draw them in figures of their own.")
    layout = Layout.choose(compact)
    unit = "dB" if next(iter(shown.values())).in_db else unit
    numbers = _numbers(shown)
    names = [wrapped(name, layout.wrap) for name in shown]
    rows, columns = (2, 1) if compact else (1, 2)
    height, legend_in = rows * PANEL_HEIGHT_IN, LINE_IN * (2 + sum(n.count("\n") + 1 for n in names))
    with drawing(layout):
        figure = Figure((layout.width_in, height + legend_in), layout="constrained")
        top, bottom = stacked(figure, height, legend_in)
        left, right = top.subplots(rows, columns, squeeze=False).flat
        _density(left, shown, numbers)
        _error(right, shown, numbers)
        inside = f" ({unit})" if unit else ""
        left.set_xlabel(wrapped(f"{label}: threshold minus level of target{inside}", 44))
        right.set_ylabel(f"RMS error of the mean{inside}")
        handles, _ = right.get_legend_handles_labels()
        bottom.legend(handles, [*names, "no error"][: len(handles)], loc="upper left", ncols=1, borderaxespad=0.2)
        freeze(figure)
    return figure, numbers


def _grid(designs: Mapping[str, Design]) -> Float:
    """Return common places of the densities: they hold all but 1 in 1,000 errors at each end of every rule."""
    ends = np.array([np.percentile(found.errors, (0.1, 99.9)) for found in designs.values()])
    low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
    margin = 0.1 * (high - low) or 0.5
    return np.linspace(low - margin, high + margin, N_POINTS)


def _smoothed(errors: Float, grid: Float) -> Float:
    """Return the density of errors at the places of a grid."""
    values, counts = np.unique(errors, return_counts=True)
    width = max(1.06 * float(errors.std()) * len(errors) ** -0.2, float(grid[1] - grid[0]))
    z = (grid[:, np.newaxis] - values) / width
    return np.asarray(np.exp(-0.5 * z**2) @ counts / (len(errors) * width * np.sqrt(2.0 * np.pi)))


def _numbers(designs: Mapping[str, Design]) -> pd.DataFrame:
    import pandas as pd

    grid = _grid(designs)
    frames = []
    for name, found in designs.items():
        frames.append(pd.DataFrame({"rule": name, "panel": "density", "x": grid, "y": _smoothed(found.errors, grid)}))
        n = np.arange(1, MOST_TRACKS + 1)
        error = np.sqrt(found.bias**2 + found.std**2 / n)
        frames.append(pd.DataFrame({"rule": name, "panel": "error", "x": n * found.mean_trials, "y": error}))
    return pd.concat(frames, ignore_index=True)


def _density(ax: Axes, designs: Mapping[str, Design], numbers: pd.DataFrame) -> None:
    for i, name in enumerate(designs):
        part = numbers[(numbers["rule"] == name) & (numbers["panel"] == "density")]
        ax.plot(part["x"].to_numpy(), part["y"].to_numpy(), color=COLOURS[i], linestyle=LINES[i % len(LINES)])
    ax.axvline(0.0, color=HUMAN_COLOUR, linewidth=1.0)
    ax.set_ylim(bottom=0.0)
    ax.set_ylabel("Density of thresholds")


def _error(ax: Axes, designs: Mapping[str, Design], numbers: pd.DataFrame) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for i, name in enumerate(designs):
        part = numbers[(numbers["rule"] == name) & (numbers["panel"] == "error")]
        ax.plot(
            part["x"].to_numpy(), part["y"].to_numpy(), color=COLOURS[i], linestyle=LINES[i % len(LINES)],
            marker=MARKERS[i], markersize=4.0, markevery=[0], label=name,
        )  # fmt: skip
    ax.plot([], [], color=HUMAN_COLOUR, linewidth=1.0, label="no error")
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_ylim(bottom=0.0)
    ax.set_xlabel("Trials (marker: one track)")
