"""Auditory models, one file each; `registry` finds them by name."""

from __future__ import annotations

from psysim.models.base import Model, Representation, register, registry
from psysim.models.dau1997 import Dau1997

__all__ = ["Dau1997", "Model", "Representation", "register", "registry"]
