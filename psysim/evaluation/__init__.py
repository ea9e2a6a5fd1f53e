"""Evaluation: runs against human data, and the two numbers of a modulation transfer function.

Statistics only; figures are in `psysim.reports`.
"""

from psysim.evaluation.compare import compare, deviation_statistics, match_points
from psysim.evaluation.tmtf import LowpassFit, bootstrap_lowpass, fit_lowpass, fit_tmtf, lowpass_db

__all__ = [
    "LowpassFit",
    "bootstrap_lowpass",
    "compare",
    "deviation_statistics",
    "fit_lowpass",
    "fit_tmtf",
    "lowpass_db",
    "match_points",
]
