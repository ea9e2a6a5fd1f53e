"""Levels: setting a sound to dB SPL, ratios in dB, and what "the level" means for modulated sounds."""

from __future__ import annotations

from torch import Tensor

from psysim.errors import SpecError, check_option
from psysim.stimuli.batch import mean_square
from psysim.units import db_spl_to_pascal, db_to_amplitude

__all__ = ["MAX_LEVEL_DB_SPL", "NORMALISE", "am_power", "level_gain", "token_gain"]

NORMALISE = ("expected", "token")
MAX_LEVEL_DB_SPL = 160.0
"""Highest level accepted, dB SPL: far above any experiment, low enough to catch a wrong unit."""


def token_gain(sound: Tensor, level_db_spl: Tensor, start: Tensor, stop: Tensor) -> Tensor:
    """Return the factors (B,) that set each row's own rms over ``start <= n < stop`` to a level.

    Raises
    ------
    SpecError
        If a row is silent there, so that no factor exists.
    """
    power = mean_square(sound, start, stop)
    if bool((power == 0).any()):
        row = int((power == 0).nonzero()[0])
        raise SpecError(f"The level of row {row} cannot be set: the sound is silent in its steady part.")
    return db_spl_to_pascal(level_db_spl) / power.sqrt()


def level_gain(
    sound: Tensor, level_db_spl: Tensor, start: Tensor, stop: Tensor, *, normalise: str, expected_power: Tensor
) -> Tensor:
    """Return the factors (B,) that set rows of ``sound`` to a level.

    Parameters
    ----------
    sound : Tensor
        (B, T) float64, before ramps; only read if ``normalise`` is "token".
    level_db_spl : Tensor
        (B,) dB SPL; -inf gives silence.
    start, stop : Tensor
        (B,) samples between which the token's rms is measured (the steady part).
    normalise : str
        "token": each row's own rms over the steady part becomes the level exactly.
        "expected": ``expected_power`` is the mean square of the sound on average over tokens.
    expected_power : Tensor
        (B,) mean square on average.

    Returns
    -------
    Tensor
        (B,) float64.
    """
    check_option("normalise", normalise, NORMALISE)
    if normalise == "token":
        return token_gain(sound, level_db_spl, start, stop)
    return db_spl_to_pascal(level_db_spl) / expected_power.sqrt()


def am_power(depth_db: Tensor) -> Tensor:
    """Return the factor by which sinusoidal modulation raises the power of a carrier, 1 + m^2/2, (B,)."""
    return 1.0 + 0.5 * db_to_amplitude(depth_db) ** 2
