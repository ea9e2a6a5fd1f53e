"""Experiments: the validated description and the engine that runs it."""

from __future__ import annotations

from typing import Any

from psysim.experiments.spec import ExperimentSpec, SpecProblems, load, loads

__all__ = ["ExperimentSpec", "Progress", "SpecProblems", "load", "loads", "run"]


def __getattr__(name: str) -> Any:
    # The engine imports torch; describing an experiment does not need it.
    if name in ("Progress", "run"):
        from psysim.experiments import engine

        return getattr(engine, name)
    raise AttributeError(f"module 'psysim.experiments' has no attribute '{name}'")
