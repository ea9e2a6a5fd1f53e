"""Where a tracking rule settles for a listener whose psychometric function is known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from psysim.errors import SpecError
from psysim.procedures.base import Procedure
from psysim.procedures.psychometric import PsychometricFunction

__all__ = ["expected_threshold"]


def expected_threshold(listener: PsychometricFunction, procedure: Procedure) -> NDArray[np.float64]:
    """Return the level at which a procedure settles for a listener, in the limit of small steps.

    It is the level where the listener's proportion correct is the rule's target proportion. With steps that are not
    small against the spread of the psychometric function, tracks settle elsewhere (docs/explanation/tracking_rules.md
    shows how far); level limits are not considered.

    Parameters
    ----------
    listener : PsychometricFunction
        The listener.
    procedure : Procedure
        The tracking rule.

    Returns
    -------
    ndarray of float64
        One level per listener.

    Raises
    ------
    SpecError
        If the listener never reaches the target proportion, or gets better in the direction that the procedure takes
        as harder.

    Examples
    --------
    >>> from psysim.procedures import UpDown
    >>> rule = UpDown(n_up=1, n_down=2, level_start=0.0, steps=[1.0], n_reversals=6)
    >>> listener = PsychometricFunction(threshold=-14.0, slope=0.1, guess_rate=1 / 3)
    >>> float(expected_threshold(listener, rule).round(2))
    -13.59
    """
    harder = procedure.settings.harder
    if np.any(np.sign(listener.slope) == harder):
        raise SpecError(
            f"slope = {listener.slope} has the sign of harder = {harder}: the listener would get better as the task "
            "gets harder. Change the sign of one of them."
        )
    level = listener.inverse(procedure.target_proportion)
    if not np.all(np.isfinite(level)):
        raise SpecError(
            f"The listener (guess_rate = {listener.guess_rate}, lapse_rate = {listener.lapse_rate}) never reaches the "
            f"target proportion {procedure.target_proportion:.4g}: choose a rule whose target lies between."
        )
    return level
