"""Transformed and weighted up-down rule: n correct answers in a row for a step, and steps of unequal size."""

from __future__ import annotations

from typing import Any, ClassVar, cast

from pydantic import Field

from psysim.procedures.base import register
from psysim.procedures.settings import StaircaseSettings
from psysim.procedures.staircase import Staircase

__all__ = ["TransformedWeightedUpDown"]


@register("transformed_weighted_up_down")
class TransformedWeightedUpDown(Staircase):
    """Up-down rule with a chosen target: harder after ``n_down`` correct answers in a row, easier after a wrong one.

    The step ratio follows from the target p: steps towards easier are ``p**n_down / (1 - p**n_down)`` times those
    towards harder (the sizes in ``steps``), so that the moves balance at p. It is `UpDown` with ``n_up = 1`` and
    that ``step_up_ratio``; with ``n_down = 1`` it is `WeightedUpDown`. A target near ``0.5**(1 / n_down)`` has nearly
    equal steps, and then the least bias (docs/explanation/tracking_rules.md).

    Parameters
    ----------
    **settings
        See ``TransformedWeightedUpDown.Settings``; ``level_start`` and ``steps`` are required.

    References
    ----------
    Kaernbach, C. (1991). Simple adaptive testing with the weighted up-down method. Percept. Psychophys. 49, 227-229.
    Garcia-Perez, M. A. (1998). Forced-choice staircases with fixed step sizes: asymptotic and small-sample properties.
    Vision Res. 38, 1861-1881.

    Examples
    --------
    >>> rule = TransformedWeightedUpDown(target_proportion=0.75, n_down=2, level_start=0.0, steps=[1.0])
    >>> round(rule.easier_ratio, 4)
    1.2857
    """

    description: ClassVar[str] = "transformed and weighted up-down (chosen target, n-down)"
    example_settings: ClassVar[dict[str, Any]] = {
        "target_proportion": 0.75,
        "n_down": 2,
        "level_start": -4.0,
        "level_min": -60.0,
        "level_max": 0.0,
        "steps": [2.0, 1.0],
    }

    class Settings(StaircaseSettings):
        """Settings of `TransformedWeightedUpDown`."""

        target_proportion: float = Field(
            default=0.75, gt=0, lt=1, description="proportion correct at which the rule settles"
        )
        n_down: int = Field(default=2, ge=1, le=100, description="correct answers in a row for a step towards harder")

    n_up = 1

    @property
    def _own(self) -> TransformedWeightedUpDown.Settings:
        return cast(TransformedWeightedUpDown.Settings, self.settings)

    @property
    def n_down(self) -> int:
        """Correct answers in a row that make the task harder."""
        return self._own.n_down

    @property
    def target_proportion(self) -> float:
        """Proportion correct at which the rule settles, in the limit of small steps."""
        return self._own.target_proportion

    @property
    def easier_ratio(self) -> float:
        """Size of a step towards easier over that of a step towards harder."""
        down = self.target_proportion**self.n_down
        return down / (1.0 - down)

    def describe(self) -> str:
        """Return the rule in sentences for the Methods section of a paper."""
        return (
            f"A transformed and weighted 1-up {self.n_down}-down rule with steps towards easier "
            f"{self.easier_ratio:.4g} times those towards harder tracked {100 * self.target_proportion:.1f} % correct "
            f"(Kaernbach, 1991; Garcia-Perez, 1998). {super().describe()}"
        )
