"""Transformed up-down rules (Levitt, 1971)."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar, Literal, cast

from pydantic import Field

from psysim.procedures.base import register
from psysim.procedures.settings import StaircaseSettings
from psysim.procedures.staircase import Staircase

__all__ = ["UpDown", "up_down_target"]


def up_down_target(n_up: int, n_down: int, step_up_ratio: float = 1.0) -> float:
    """Return the proportion correct at which an n-up m-down rule settles, for small steps.

    Moves balance where the chance of ``n_down`` correct answers in a row coming before ``n_up`` wrong ones in a row,
    ``P = a (1 - q**n_up) / (a + b - a b)`` with ``a = p**(n_down - 1)``, ``b = q**(n_up - 1)``, ``q = 1 - p``,
    satisfies ``P = r (1 - P)``, r being ``step_up_ratio``. For ``n_up = 1`` that is ``p**n_down = r / (1 + r)``.

    Parameters
    ----------
    n_up, n_down : int
        Wrong (correct) answers in a row for a step towards easier (harder), at least 1.
    step_up_ratio : float
        Size of the steps towards easier over that of the steps towards harder.

    References
    ----------
    Levitt, H. (1971). Transformed up-down methods in psychoacoustics. J. Acoust. Soc. Am. 49, 467-477, Table I.
    Garcia-Perez, M. A. (1998). Forced-choice staircases with fixed step sizes. Vision Res. 38, 1861-1881
    (unequal steps).

    Examples
    --------
    >>> round(up_down_target(1, 2), 4), round(up_down_target(1, 3), 4), round(up_down_target(2, 1), 4)
    (0.7071, 0.7937, 0.2929)
    """
    share_down = step_up_ratio / (1.0 + step_up_ratio)
    if n_up == 1:
        return float(share_down ** (1.0 / n_down))
    low, high = 0.0, 1.0
    for _ in range(60):  # bisection: the share of moves towards harder grows with p
        p = 0.5 * (low + high)
        a, b = p ** (n_down - 1), (1.0 - p) ** (n_up - 1)
        share = a * (1.0 - (1.0 - p) ** n_up) / (a + b - a * b)
        low, high = (p, high) if share < share_down else (low, p)
    return 0.5 * (low + high)


@register("up_down")
class UpDown(Staircase):
    """Transformed up-down rule: harder after ``n_down`` correct answers in a row, easier after ``n_up`` wrong ones.

    "Up" is always towards easier, whatever the direction of the level.

    Parameters
    ----------
    **settings
        See ``UpDown.Settings``; ``level_start`` and ``steps`` are required.

    References
    ----------
    Levitt, H. (1971). Transformed up-down methods in psychoacoustics. J. Acoust. Soc. Am. 49, 467-477.

    Examples
    --------
    Two lanes; the first is always correct, the second alternates.

    >>> import numpy as np
    >>> rule = UpDown(n_up=1, n_down=2, level_start=-4.0, level_max=0.0, steps=[4.0, 2.0, 1.0])
    >>> state = rule.init(2)
    >>> for trial in range(4):
    ...     state = rule.record(state, np.array([True, trial % 2 == 0]))
    >>> rule.next_level(state)
    array([-12.,   0.])
    >>> round(rule.target_proportion, 4)
    0.7071
    """

    description: ClassVar[str] = "transformed up-down (n-up m-down)"
    example_settings: ClassVar[dict[str, Any]] = {
        "n_up": 1,
        "n_down": 2,
        "level_start": -4.0,
        "level_min": -60.0,
        "level_max": 0.0,
        "steps": [4.0, 2.0, 1.0],
    }

    class Settings(StaircaseSettings):
        """Settings of `UpDown`."""

        n_up: int = Field(default=1, ge=1, le=100, description="wrong answers in a row for a step towards easier")
        n_down: int = Field(default=2, ge=1, le=100, description="correct answers in a row for a step towards harder")
        step_up_ratio: float = Field(
            default=1.0,
            gt=0,
            allow_inf_nan=False,
            description="size of the steps towards easier over that of the steps towards harder (the sizes in `steps`)",
        )
        initial_rule: Literal["same", "one_up_one_down"] = Field(
            default="same",
            description="rule until the first reversal: the same, or a step after every answer (1-up 1-down)",
        )

    @property
    def _own(self) -> UpDown.Settings:
        return cast(UpDown.Settings, self.settings)

    @property
    def n_up(self) -> int:
        """Wrong answers in a row that make the task easier."""
        return self._own.n_up

    @property
    def n_down(self) -> int:
        """Correct answers in a row that make the task harder."""
        return self._own.n_down

    @property
    def easier_ratio(self) -> float:
        """Size of a step towards easier over that of a step towards harder."""
        return self._own.step_up_ratio

    @property
    def one_by_one_first(self) -> bool:
        """Whether each answer moves the level until the first reversal."""
        return self._own.initial_rule == "one_up_one_down"

    @cached_property
    def target_proportion(self) -> float:
        """Proportion correct at which the rule settles, in the limit of small steps; see `up_down_target`."""
        return up_down_target(self.n_up, self.n_down, self.easier_ratio)

    def describe(self) -> str:
        """Return the rule in sentences for the Methods section of a paper."""
        first = ", each answer moving the level until the first reversal" if self.one_by_one_first else ""
        ratio = f" with steps towards easier {self.easier_ratio:g} times as large" if self.easier_ratio != 1 else ""
        return (
            f"A {self.n_up}-up {self.n_down}-down rule{ratio}{first} tracked "
            f"{100 * self.target_proportion:.1f} % correct (Levitt, 1971). {super().describe()}"
        )
