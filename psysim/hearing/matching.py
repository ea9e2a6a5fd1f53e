"""Loudness matching without a listener: the level at which a model finds a sound as loud as wanted."""

from __future__ import annotations

from collections.abc import Callable

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from psysim.errors import SpecError, check_range

__all__ = ["match_loudness"]


def match_loudness(
    loudness: Callable[[Tensor], Tensor],
    target: ArrayLike | Tensor,
    *,
    low_db: float = -20.0,
    high_db: float = 130.0,
    tolerance_db: float = 0.01,
) -> Tensor:
    """Return the levels at which sounds reach a loudness: equal-loudness contours, matches, thresholds.

    All sounds are searched together, by bisection: the loudness has to rise with level, and nothing else is assumed.

    Parameters
    ----------
    loudness : callable
        Level of each sound (N,) in dB, float64, to its loudness (N,), in any unit: for instance sone of
        `psysim.models.Moore2016` for N tones of different frequencies.
    target : float or array_like (N,)
        Loudness wanted, in the same unit.
    low_db, high_db : float
        Levels between which is searched.
    tolerance_db : float
        Width of the interval that is left; its middle is returned.

    Returns
    -------
    Tensor (N,)
        Levels, dB, float64; NaN where the loudness is above the target at ``low_db`` or below it at ``high_db``.

    Raises
    ------
    SpecError
        If the levels do not rise, or ``loudness`` returns no (N,) for (N,).

    Examples
    --------
    >>> import torch
    >>> match_loudness(lambda level: 2 ** ((level - 40) / 10), [1.0, 4.0]).round(decimals=1)
    tensor([40., 60.], dtype=torch.float64)
    """
    check_range("high_db", high_db, low_db, unit="dB", low_open=True)
    check_range("tolerance_db", tolerance_db, 0.0, unit="dB", low_open=True)
    wanted = torch.as_tensor(target, dtype=torch.float64).reshape(-1)
    low, high = torch.full_like(wanted, low_db), torch.full_like(wanted, high_db)

    def of(level: Tensor) -> Tensor:
        with torch.no_grad():
            found = loudness(level)
        if tuple(found.shape) != tuple(level.shape):
            raise SpecError(f"loudness returned shape {tuple(found.shape)} for levels of shape {tuple(level.shape)}.")
        return found.to(torch.float64)

    outside = (of(low) > wanted) | (of(high) < wanted)
    while float((high - low).max()) > tolerance_db:
        middle = 0.5 * (low + high)
        below = of(middle) < wanted
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return torch.where(outside, torch.nan, 0.5 * (low + high))
