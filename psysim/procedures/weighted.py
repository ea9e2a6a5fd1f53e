"""Weighted up-down rule (Kaernbach, 1991)."""

from __future__ import annotations

from typing import Any, ClassVar, cast

from pydantic import Field

from psysim.procedures.base import register
from psysim.procedures.settings import StaircaseSettings
from psysim.procedures.staircase import Staircase

__all__ = ["WeightedUpDown"]


@register("weighted_up_down")
class WeightedUpDown(Staircase):
    """Weighted up-down rule: a step after every answer, larger towards easier than towards harder.

    The sizes in ``steps`` are the steps after a correct answer. A wrong answer moves by
    ``target_proportion / (1 - target_proportion)`` times as much towards easier, so that the moves balance where the
    proportion correct is the target.

    Parameters
    ----------
    **settings
        See ``WeightedUpDown.Settings``; ``level_start`` and ``steps`` are required.

    References
    ----------
    Kaernbach, C. (1991). Simple adaptive testing with the weighted up-down method. Percept. Psychophys. 49, 227-229,
    Eq. (1).

    Examples
    --------
    >>> import numpy as np
    >>> rule = WeightedUpDown(target_proportion=0.75, level_start=0.0, steps=[1.0])
    >>> state = rule.record(rule.init(2), np.array([True, False]))
    >>> rule.next_level(state)
    array([-1.,  3.])
    """

    description: ClassVar[str] = "weighted 1-up 1-down"
    example_settings: ClassVar[dict[str, Any]] = {
        "target_proportion": 0.75,
        "level_start": -4.0,
        "level_min": -60.0,
        "level_max": 0.0,
        "steps": [2.0, 1.0],
    }

    class Settings(StaircaseSettings):
        """Settings of `WeightedUpDown`."""

        target_proportion: float = Field(
            default=0.75, gt=0, lt=1, description="proportion correct at which the rule settles"
        )

    n_up = 1
    n_down = 1

    @property
    def target_proportion(self) -> float:
        """Proportion correct at which the rule settles, in the limit of small steps."""
        return cast(WeightedUpDown.Settings, self.settings).target_proportion

    @property
    def easier_ratio(self) -> float:
        """Size of a step towards easier over that of a step towards harder."""
        return self.target_proportion / (1.0 - self.target_proportion)

    def describe(self) -> str:
        """Return the rule in sentences for the Methods section of a paper."""
        return (
            f"A weighted 1-up 1-down rule with steps towards easier {self.easier_ratio:g} times those towards harder "
            f"tracked {100 * self.target_proportion:.1f} % correct (Kaernbach, 1991). {super().describe()}"
        )
