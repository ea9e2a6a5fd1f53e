"""psysim: psychophysics experiments on auditory models.

>>> import psysim as ps
>>> experiment = ps.load("experiments/demo_tmtf.toml")  # doctest: +SKIP
>>> run = ps.run(experiment)  # doctest: +SKIP
>>> ps.thresholds(run)  # doctest: +SKIP
"""

from __future__ import annotations

import os
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

# torch's OpenMP threads spin while they wait. Where other work wants the same cores that makes elementwise operations
# up to 20 times slower (a run of tmtf_narrowband.toml on two busy cores: 38 s, against 2.1 s). It has to be set before
# torch is loaded, and a user's own setting wins.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = version("psysim")

#: Public functions and the modules they live in; imported on first use, so that `import psysim` is light.
_FUNCTIONS = {
    "load": "psysim.experiments.spec",
    "loads": "psysim.experiments.spec",
    "run": "psysim.experiments.engine",
    "predict_threshold": "psysim.experiments.prediction",
    "thresholds": "psysim.results.tables",
    "compare": "psysim.evaluation.compare",
    "report": "psysim.reports.report",
}
_ROOMS = (
    "errors",
    "evaluation",
    "experiments",
    "hearing",
    "human",
    "models",
    "observers",
    "ops",
    "procedures",
    "reports",
    "results",
    "rng",
    "stages",
    "stimuli",
    "testing",
    "units",
)

__all__ = ["__version__", *_FUNCTIONS, *_ROOMS]

if TYPE_CHECKING:
    from psysim.evaluation.compare import compare as compare
    from psysim.experiments.engine import run as run
    from psysim.experiments.prediction import predict_threshold as predict_threshold
    from psysim.experiments.spec import load as load
    from psysim.experiments.spec import loads as loads
    from psysim.reports.report import report as report
    from psysim.results.tables import thresholds as thresholds


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        return getattr(import_module(_FUNCTIONS[name]), name)
    if name in _ROOMS:
        return import_module(f"psysim.{name}")
    raise AttributeError(f"module 'psysim' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
