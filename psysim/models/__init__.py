"""Auditory models, one file each; `registry` finds them by name."""

from __future__ import annotations

from psysim.models.base import Model, Representation, register, registry
from psysim.models.dau1997 import Dau1997
from psysim.models.glasberg2002 import Glasberg2002
from psysim.models.king2019 import King2019
from psysim.models.moore2016 import Moore2016
from psysim.models.osses2021 import Osses2021
from psysim.models.paulick2024 import Jepsen2008, Paulick2024, PublishedPaulick2024
from psysim.models.saddler2024 import Saddler2024
from psysim.models.saddler2025 import Saddler2025

__all__ = [
    "Dau1997",
    "Glasberg2002",
    "Jepsen2008",
    "King2019",
    "Model",
    "Moore2016",
    "Osses2021",
    "Paulick2024",
    "PublishedPaulick2024",
    "Representation",
    "Saddler2024",
    "Saddler2025",
    "register",
    "registry",
]
