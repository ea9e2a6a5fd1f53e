"""Evaluation: runs against human data, and the two numbers of a modulation transfer function.

Statistics only; figures are in `psysim.reports`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psysim.evaluation.compare import compare, deviation_statistics, match_points
from psysim.evaluation.published import published_predictions
from psysim.evaluation.scoreboard import observer_table, scoreboard, scoreboard_details, scoreboard_matrix
from psysim.evaluation.suite import Suite, SuiteRun, load_suite, open_suite, run_suite
from psysim.evaluation.suite_fit import ObserverFit, fit_observer
from psysim.evaluation.tmtf import LowpassFit, bootstrap_lowpass, fit_lowpass, fit_tmtf, lowpass_db

if TYPE_CHECKING:
    from psysim.evaluation.loudness_scaling import CATEGORIES, LoudnessScaling, category_boundaries, scale_loudness

__all__ = [
    "CATEGORIES",
    "LoudnessScaling",
    "LowpassFit",
    "ObserverFit",
    "Suite",
    "SuiteRun",
    "bootstrap_lowpass",
    "category_boundaries",
    "compare",
    "deviation_statistics",
    "fit_lowpass",
    "fit_observer",
    "fit_tmtf",
    "load_suite",
    "lowpass_db",
    "match_points",
    "observer_table",
    "open_suite",
    "published_predictions",
    "run_suite",
    "scale_loudness",
    "scoreboard",
    "scoreboard_details",
    "scoreboard_matrix",
]


def __getattr__(name: str) -> Any:
    # Loudness scaling imports torch; comparing and reporting results do not need it.
    if name in ("CATEGORIES", "LoudnessScaling", "category_boundaries", "scale_loudness"):
        from psysim.evaluation import loudness_scaling

        return getattr(loudness_scaling, name)
    raise AttributeError(f"module 'psysim.evaluation' has no attribute '{name}'")
