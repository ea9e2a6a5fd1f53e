"""The figure of a scoreboard: observers by experiments, how much of the human data each explains."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from psysim.errors import SpecError
from psysim.evaluation.scoreboard import scoreboard_matrix
from psysim.reports.labels import number
from psysim.reports.style import Layout, drawing, freeze, wrapped

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["CLASSES", "scoreboard_figure"]

CLASSES: tuple[tuple[float, str, str, str], ...] = (
    (0.75, "#0072B2", "white", "0.75 to 1"),
    (0.5, "#56B4E9", "black", "0.5 to 0.75"),
    (0.0, "#CFE8F7", "black", "0 to 0.5"),
    (-math.inf, "#F3B98A", "black", "below 0: worse than the mean of the data"),
)
"""Least variance explained, colour of the cell, colour of its text, words."""

UNKNOWN = ("#E4E4E4", "black", "fewer than three points")
CELL_IN = 0.46
ROW_IN = 0.36


def scoreboard_figure(board: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw which observer explains which data: a row per experiment and human data set, a column per observer.

    Parameters
    ----------
    board : pandas.DataFrame
        From `psysim.evaluation.scoreboard`.

    Returns
    -------
    matplotlib.figure.Figure
        Colour: variance explained; number: RMS difference in the unit of the row; a star: fitted to these data.
    pandas.DataFrame
        The rows of the scoreboard that are drawn.

    Raises
    ------
    SpecError
        If nothing was compared.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch, Rectangle

    shown = board[board["n_points"] > 0]
    if not len(shown):
        raise SpecError("No experiment of the scoreboard was compared with human data: there is nothing to draw.")
    matrix = scoreboard_matrix(board)
    columns = [str(name) for name in matrix.index]
    rows = [(str(key[0]), str(key[1])) for key in matrix.columns.to_list()]
    cells = {(str(r["experiment"]), str(r["label"]), str(r["observer"])): r for r in shown.to_dict("records")}
    labels = [_row_label(cells, row) for row in rows]
    layout = Layout.choose(compact=False)
    names = [wrapped(name, 30) for name in columns]
    longest = max(len(line) for name in names for line in name.split("\n"))
    left, top = 3.6, 0.3 + 0.062 * longest
    width = max(7.6, left + CELL_IN * len(columns) + 0.062 * longest * 0.6)
    height = top + ROW_IN * len(rows) + 0.95
    with drawing(layout):
        figure = Figure((width, height))
        ax = figure.add_axes((left / width, 0.9 / height, CELL_IN * len(columns) / width, ROW_IN * len(rows) / height))
        for y, row in enumerate(rows):
            for x, observer in enumerate(columns):
                if (cell := cells.get((*row, observer))) is not None:
                    colour, ink = _colours(cell["variance_explained"])
                    ax.add_patch(Rectangle((x, y), 1, 1, facecolor=colour, edgecolor="white", linewidth=1.5))
                    ax.text(x + 0.5, y + 0.5, _cell_text(cell), ha="center", va="center", fontsize=7.5, color=ink)
        ax.set(xlim=(0, len(columns)), ylim=(len(rows), 0))
        ax.set_xticks([x + 0.5 for x in range(len(columns))])
        ax.set_xticklabels(names, rotation=60, ha="left", va="bottom", rotation_mode="anchor", fontsize=8)
        ax.set_yticks([y + 0.5 for y in range(len(rows))], [wrapped(text, 56) for text in labels], fontsize=8)
        ax.xaxis.tick_top()
        ax.tick_params(length=0)
        ax.grid(visible=False)
        for spine in ax.spines.values():
            spine.set_visible(False)
        handles = [Patch(facecolor=colour, label=text) for _, colour, _, text in CLASSES]
        handles.append(Patch(facecolor=UNKNOWN[0], label=UNKNOWN[2]))
        figure.legend(
            handles=handles, loc="lower left", ncols=2, title="Variance of the human thresholds explained; number: RMS "
            "difference", alignment="left", title_fontsize=8, fontsize=8, bbox_to_anchor=(0.01, 0.0),
        )  # fmt: skip
        return freeze(figure), shown.reset_index(drop=True)


def _row_label(cells: dict[tuple[Any, ...], dict[Any, Any]], row: tuple[str, str]) -> str:
    unit = next(c["unit"] for (name, label, _), c in cells.items() if (name, label) == row)
    return f"{row[0].replace('_', ' ')}: {row[1]} ({unit})"


def _colours(explained: float) -> tuple[str, str]:
    if not math.isfinite(explained):
        return UNKNOWN[0], UNKNOWN[1]
    return next((colour, ink) for least, colour, ink, _ in CLASSES if explained >= least)


def _cell_text(cell: dict[Any, Any]) -> str:
    digits = 2 if abs(cell["rmse"]) < 10 else 3
    return number(cell["rmse"], digits) + ("*" if cell["fitted"] else "")
