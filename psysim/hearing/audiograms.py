"""Audiograms: hearing levels over frequency; the ten standard ones of Bisgaard et al. (2010) and four examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from psysim.errors import SpecError, check_option

__all__ = ["EXAMPLE_AUDIOGRAMS", "STANDARD_AUDIOGRAMS", "Audiogram", "example_audiogram", "standard_audiogram"]

LOWEST_DB_HL, HIGHEST_DB_HL = -20.0, 130.0


@dataclass(frozen=True)
class Audiogram:
    """Hearing levels of one ear.

    Parameters
    ----------
    frequency_hz : sequence of float
        Frequencies, Hz, rising.
    level_db_hl : sequence of float
        Hearing levels, dB HL: how much higher than normal the threshold is. -20 to 130 dB HL.
    name : str
        Name for figures and reports.

    Raises
    ------
    SpecError
        If the two do not have the same length, frequencies do not rise, or a level is out of range.

    Examples
    --------
    >>> ear = Audiogram([500.0, 1000.0, 4000.0], [10.0, 20.0, 60.0], name="sloping")
    >>> ear.at([250.0, 1000.0, 2000.0]).tolist()
    [10.0, 20.0, 40.0]
    >>> ear.pure_tone_average([500.0, 1000.0, 2000.0, 4000.0])
    32.5
    """

    frequency_hz: Sequence[float]
    level_db_hl: Sequence[float]
    name: str = ""

    def __post_init__(self) -> None:
        try:
            frequency, level = (tuple(float(v) for v in values) for values in (self.frequency_hz, self.level_db_hl))
        except (TypeError, ValueError) as error:
            raise SpecError("An audiogram needs a frequency in Hz and a level in dB HL for every point.") from error
        object.__setattr__(self, "frequency_hz", frequency)
        object.__setattr__(self, "level_db_hl", level)
        if len(frequency) != len(level) or not frequency:
            raise SpecError(
                f"An audiogram has {len(frequency)} frequencies but {len(level)} levels: give one for each."
            )
        f = np.array(frequency)
        if not np.isfinite(f).all() or f[0] <= 0 or (np.diff(f) <= 0).any():
            raise SpecError(f"frequency_hz of an audiogram must be above 0 and rising, but is {list(frequency)}.")
        wrong = [v for v in level if not LOWEST_DB_HL <= v <= HIGHEST_DB_HL]
        if wrong:
            raise SpecError(
                f"level_db_hl = {wrong[0]:g} dB HL is out of range: it must be at least {LOWEST_DB_HL:g} and at most "
                f"{HIGHEST_DB_HL:g} dB HL."
            )

    def at(self, frequency_hz: ArrayLike) -> NDArray[np.float64]:
        """Return hearing levels in dB HL: linear over the logarithm of frequency, the end values held beyond."""
        return over_log_frequency(frequency_hz, self.frequency_hz, self.level_db_hl)

    def pure_tone_average(self, frequency_hz: ArrayLike = (500.0, 1000.0, 2000.0, 4000.0)) -> float:
        """Return the mean hearing level at some frequencies, dB HL."""
        return float(self.at(frequency_hz).mean())


def over_log_frequency(at_hz: ArrayLike, frequency_hz: ArrayLike, value: ArrayLike) -> NDArray[np.float64]:
    """Interpolate linearly over the logarithm of frequency, the end values held beyond."""
    at = np.asarray(at_hz, dtype=np.float64)
    if not (at > 0).all():
        raise SpecError("frequency_hz must be above 0.")
    return np.interp(np.log2(at), np.log2(np.asarray(frequency_hz, dtype=np.float64)), np.asarray(value, np.float64))


STANDARD_FREQUENCIES_HZ = (250.0, 375.0, 500.0, 750.0, 1000.0, 1500.0, 2000.0, 3000.0, 4000.0, 6000.0)
STANDARD_AUDIOGRAMS: dict[str, tuple[float, ...]] = {
    "N1": (10, 10, 10, 10, 10, 10, 15, 20, 30, 40),
    "N2": (20, 20, 20, 22.5, 25, 30, 35, 40, 45, 50),
    "N3": (35, 35, 35, 35, 40, 45, 50, 55, 60, 65),
    "N4": (55, 55, 55, 55, 55, 60, 65, 70, 75, 80),
    "N5": (65, 67.5, 70, 72.5, 75, 80, 80, 80, 80, 80),
    "N6": (75, 77.5, 80, 82.5, 85, 90, 90, 95, 100, 100),
    "N7": (90, 92.5, 95, 100, 105, 105, 105, 105, 105, 105),
    "S1": (10, 10, 10, 10, 10, 10, 15, 30, 55, 70),
    "S2": (20, 20, 20, 22.5, 25, 35, 55, 75, 95, 95),
    "S3": (30, 30, 35, 47.5, 60, 70, 75, 80, 80, 85),
}
"""Hearing levels in dB HL at 250, 375, 500, 750, 1000, 1500, 2000, 3000, 4000 and 6000 Hz."""


def standard_audiogram(name: str) -> Audiogram:
    """Return a standard audiogram: N1 (very mild) to N7 (profound), flat or moderately sloping; S1 to S3, steep.

    Parameters
    ----------
    name : str
        ``"N1"`` ... ``"N7"``, ``"S1"``, ``"S2"`` or ``"S3"``.

    Raises
    ------
    SpecError
        If there is no audiogram of that name.

    References
    ----------
    Bisgaard, Vlaming & Dahlquist (2010). Standard audiograms for the IEC 60118-15 measurement procedure. Trends
    Amplif. 14, 113-120, table 2.

    Examples
    --------
    >>> standard_audiogram("N3").at(4000.0).item()
    60.0
    """
    check_option("audiogram", name, STANDARD_AUDIOGRAMS)
    return Audiogram(STANDARD_FREQUENCIES_HZ, STANDARD_AUDIOGRAMS[name], name)


EXAMPLE_FREQUENCIES_HZ = (125, 250, 500, 750, 1000, 1500, 2000, 3000, 4000, 6000, 8000, 10000, 12000, 14000, 16000)
EXAMPLE_AUDIOGRAMS: dict[str, tuple[float, ...]] = {
    "ref": (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
    "mild": (5, 10, 15, 18, 19, 22, 25, 28, 31, 35, 38, 40, 40, 45, 50),
    "moderate": (15, 20, 20, 22.5, 25, 30, 35, 40, 45, 50, 55, 55, 60, 65, 65),
    "moderate_severe": (19, 19, 28, 35, 40, 47, 52, 56, 58, 58, 63, 70, 75, 80, 80),
}
"""Hearing levels in dB HL at 15 frequencies from 125 to 16000 Hz."""


def example_audiogram(name: str) -> Audiogram:
    """Return one of the four audiograms of the Clarity challenge that Saddler's tutorial uses.

    Parameters
    ----------
    name : str
        ``"ref"`` (normal hearing), ``"mild"``, ``"moderate"`` or ``"moderate_severe"``.

    Raises
    ------
    SpecError
        If there is no audiogram of that name.

    References
    ----------
    Saddler (2025), tutorial on differentiable auditory models; there from the Clarity challenge.

    Examples
    --------
    >>> example_audiogram("mild").at(4000.0).item()
    31.0
    """
    check_option("audiogram", name, EXAMPLE_AUDIOGRAMS)
    return Audiogram(EXAMPLE_FREQUENCIES_HZ, EXAMPLE_AUDIOGRAMS[name], name)
