"""Published human data with provenance, and the user's own, as tidy tables.

>>> from psysim import human
>>> human.load("gap_detection")[["value", "unit", "n_listeners"]].head(1)
   value unit  n_listeners
0   5.67   ms          4.0

Importing this package does not load pandas; the functions do.
"""

from psysim.human.catalogue import KINDS, Provenance, add, load, names, provenance, user_folder
from psysim.human.thresholds import as_thresholds

__all__ = ["KINDS", "Provenance", "add", "as_thresholds", "load", "names", "provenance", "user_folder"]
