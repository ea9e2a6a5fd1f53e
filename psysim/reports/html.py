"""One self-contained HTML page: no script, no file and no address outside itself."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING

from psysim.reports.style import svg
from psysim.reports.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FigureView", "Page", "render"]

CSS_PIXELS_PER_INCH = 96


@dataclass(frozen=True)
class FigureView:
    """A figure as the page shows it: one drawing for wide screens, one for phones, as data addresses.

    ``wide_size`` and ``narrow_size`` are in CSS pixels (width, height).
    """

    wide: str
    narrow: str
    wide_size: tuple[int, int]
    narrow_size: tuple[int, int]
    caption: str
    alt: str

    @classmethod
    def of(cls, wide: Figure, wide_svg: bytes, narrow: Figure, caption: str, alt: str) -> FigureView:
        """Return the view of two drawings of the same numbers, the first of them drawn as SVG already."""
        return cls(_address(wide_svg), _address(svg(narrow)), _size(wide), _size(narrow), caption, alt)


def _address(drawing: bytes) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(drawing).decode()


def _size(figure: Figure) -> tuple[int, int]:
    width, height = figure.get_size_inches()
    return round(width * CSS_PIXELS_PER_INCH), round(height * CSS_PIXELS_PER_INCH)


@dataclass(frozen=True)
class Page:
    """Everything a report says. Texts are plain text: the template escapes them."""

    title: str
    result: str
    run_id: str
    version: str
    facts: Sequence[tuple[str, str]]
    warnings: Sequence[str]
    threshold_figure: FigureView
    threshold_table: Table
    comparison_table: Table | None
    comparison_notes: Sequence[str]
    deviations: Sequence[str]
    no_human: str
    fit_table: Table | None
    provenance_human: Sequence[Table]
    tracks_figure: FigureView | None
    status_table: Table
    limit_table: Table | None
    status_notes: Sequence[str]
    methods: str
    provenance_table: Table
    calibration_json: str
    spec_toml: str
    files: Sequence[tuple[str, str]] = field(default_factory=list)


CONTENTS: Mapping[str, str] = {
    "thresholds": "Thresholds",
    "human": "Human data",
    "tracks": "Tracks",
    "methods": "Methods",
    "provenance": "Provenance",
    "experiment": "Experiment description",
}


def unbroken(text: str) -> str:
    """Return ``text`` in which a number and its unit stay on one line."""
    return re.sub(r"(\d) (?=(?:k?Hz|dB|ms|s|%)\b|%)", "\\1\u00a0", text)


def render(page: Page) -> str:
    """Return the page as HTML; everything in ``page`` is escaped."""
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
    return environment.get_template("report.html.j2").render(page=page, contents=CONTENTS.items(), css=css)
