"""How figures look, and how they are written: the same bytes for the same numbers.

No figure touches matplotlib's global state (pyplot); matplotlib is imported inside functions.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

__all__ = [
    "COLOURS",
    "HUMAN_COLOUR",
    "HUMAN_MARKERS",
    "LINES",
    "MARKERS",
    "Layout",
    "drawing",
    "freeze",
    "pdf",
    "png",
    "stacked",
    "svg",
    "wrapped",
]

#: Okabe and Ito (2008), without black (human data) and yellow (too light on white).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
#: Triangles are kept for tracks that ended at a limit.
MARKERS = ("o", "s", "D", "P", "X", "h")
LINES = ("-", "--", "-.", ":")
HUMAN_COLOUR = "#222222"
HUMAN_MARKERS = ("o", "s", "D", "p", "8", "*")
GRID_COLOUR = "#DDDDDD"
WRONG_COLOUR = "#D55E00"
DPI = 150


@dataclass(frozen=True)
class Layout:
    """Size of a figure: a page's width, or a phone's.

    Parameters
    ----------
    width_in : float
        Width in inches (96 CSS pixels each), the scale at which the text is 9 to 10 points.
    columns : int
        Most panels side by side.
    font_pt : float
        Size of the text in points.
    wrap : int
        Characters per line of legends and panel titles.
    """

    width_in: float
    columns: int
    font_pt: float
    wrap: int

    @classmethod
    def choose(cls, compact: bool) -> Layout:
        """Return the layout for a phone (``compact``) or a page."""
        return cls(3.9, 1, 9.0, 50) if compact else cls(7.6, 3, 10.0, 62)


@contextmanager
def drawing(layout: Layout) -> Iterator[None]:
    """Use psysim's style while a figure is drawn; matplotlib's settings are as before afterwards."""
    import matplotlib as mpl

    font = layout.font_pt
    with mpl.rc_context(
        {
            "font.family": ["DejaVu Sans"],  # comes with matplotlib: the same glyphs on every machine
            "font.size": font,
            "axes.titlesize": font,
            "axes.labelsize": font,
            "xtick.labelsize": font - 1,
            "ytick.labelsize": font - 1,
            "legend.fontsize": font - 1,
            "legend.frameon": False,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": GRID_COLOUR,
            "grid.linewidth": 0.6,
            "axes.edgecolor": "#444444",
            "axes.linewidth": 0.8,
            "lines.linewidth": 1.6,
            "lines.markersize": 6.0,
            "figure.facecolor": "white",
            "axes.facecolor": "white",
            "savefig.facecolor": "white",
            "axes.unicode_minus": True,
            "text.parse_math": False,  # names of observers and data sets are printed as they are
            "svg.fonttype": "path",
            "svg.hashsalt": "psysim",
            "path.simplify": False,
        }
    ):
        yield


def freeze(figure: Figure) -> Figure:
    """Lay a figure out once and keep the positions: every later file of it is the same, byte by byte.

    The layout's solver leaves differences of about 1e-12 between two equal figures; positions are rounded to 1e-4 of
    the figure, less than a tenth of a pixel.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for ax in figure.get_axes():
        x, y, width, height = (round(float(v), 4) for v in ax.get_position().bounds)
        ax.set_position((x, y, width, height))
    for part in figure.subfigs:
        for text in part.texts:
            left, bottom = text.get_position()
            text.set_position((round(float(left), 4), round(float(bottom), 4)))
    return figure


def stacked(figure: Figure, top_in: float, bottom_in: float) -> tuple[SubFigure, SubFigure]:
    """Return two parts of a figure, one above the other, of the given heights: panels and legend."""
    parts = figure.subfigures(2, 1, height_ratios=[top_in, bottom_in], squeeze=False)
    return parts[0, 0], parts[1, 0]


def wrapped(text: str, width: int) -> str:
    """Return ``text`` in lines of at most ``width`` characters."""
    return "\n".join(textwrap.wrap(text, width)) or text


def _save(figure: Figure, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with drawing(Layout.choose(compact=False)):
        figure.savefig(buffer, format=kind, **options)
    return buffer.getvalue()


def svg(figure: Figure) -> bytes:
    """Return a figure as SVG: text as outlines, no date, fixed identifiers."""
    data = _save(figure, "svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}).decode()
    data = re.sub(r' (d|x|y)="[^"]*"|translate\([^)]*\)', _shorter, data)
    data = re.sub(r">\s+<", ">\n<", data)
    data = _numbered_ids(data)
    return re.sub(r"<g clip-path=\"[^\"]*\">\n(?:<use [^>]*/>\n)+</g>", _one_style, data).encode()


def _one_style(match: re.Match[str]) -> str:
    """State the style of a series of equal markers once, in their group."""
    styles = set(re.findall(r' style="[^"]*"', match[0]))
    if len(styles) != 1 or match[0].count(" style=") != match[0].count("<use "):
        return match[0]
    style = styles.pop()
    return match[0].replace(style, "").replace(">", f"{style}>", 1)


def _numbered_ids(data: str) -> str:
    """Return SVG with numbers for the names of clip paths and markers, which hash coordinates in full precision."""
    names = dict.fromkeys(re.findall(r'id="([pm][0-9a-f]{10})"', data))
    numbers = {name: f"{name[0]}{i}" for i, name in enumerate(sorted(names, key=data.index))}
    return re.sub(r'(?<=#)[pm][0-9a-f]{10}\b|(?<=id=")[pm][0-9a-f]{10}(?=")', lambda m: numbers.get(m[0], m[0]), data)


def _shorter(match: re.Match[str]) -> str:
    """Round coordinates to a hundredth of a point: half the size, and nothing that an eye could see."""
    text = re.sub(r"(\d+\.\d\d)\d+", r"\1", match[0])
    return re.sub(r"\s+\"", '"', re.sub(r"\s+", " ", text)) if "d=" in text else text


def png(figure: Figure) -> bytes:
    """Return a figure as PNG at 150 dots per inch, without software or date fields."""
    from PIL import Image

    drawn = Image.open(io.BytesIO(_save(figure, "png", dpi=DPI, metadata={"Software": None}))).convert("RGB")
    buffer = io.BytesIO()  # a palette of 256 colours halves the size; line drawings have few more
    drawn.quantize(256, dither=Image.Dither.NONE).save(buffer, format="PNG", optimize=True, dpi=(DPI, DPI))
    return buffer.getvalue()


def pdf(figure: Figure) -> bytes:
    """Return a figure as PDF, without software or date fields."""
    return _save(figure, "pdf", metadata={"Creator": None, "Producer": None, "CreationDate": None})
