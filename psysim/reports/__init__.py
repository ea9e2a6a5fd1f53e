"""Reports: figures with the numbers they show, tables, a Methods paragraph, and one HTML page of it all.

Importing this package loads no matplotlib; the functions do.
"""

from __future__ import annotations

from psysim.reports.figures import threshold_figure, tmtf_figure, tracks_figure
from psysim.reports.labels import Labeller
from psysim.reports.methods import methods
from psysim.reports.report import report
from psysim.reports.scoreboard import scoreboard_report
from psysim.reports.scoreboard_figure import scoreboard_figure

__all__ = [
    "Labeller",
    "methods",
    "report",
    "scoreboard_figure",
    "scoreboard_report",
    "threshold_figure",
    "tmtf_figure",
    "tracks_figure",
]
