"""Prescriptions: from an audiogram to insertion gains at audiometric frequencies."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from psysim.errors import check_option
from psysim.hearing.audiograms import Audiogram

__all__ = ["PRESCRIPTIONS", "PRESCRIPTION_FREQUENCIES_HZ", "insertion_gains"]

Values = NDArray[np.float64]

PRESCRIPTION_FREQUENCIES_HZ = (250.0, 500.0, 1000.0, 1500.0, 2000.0, 3000.0, 4000.0, 6000.0)
OFFSET_DB = np.array([-17.0, -8.0, 1.0, 1.0, -1.0, -2.0, -2.0, -2.0])
SLOPE = 0.31
THREE_HZ = (500.0, 1000.0, 2000.0)

SEVERE_2KHZ_DB_HL = (90.0, 95.0, 100.0, 105.0, 110.0, 115.0, 120.0)
SEVERE_DB = np.array(
    [
        [0, 0, 0, 0, 0, 0, 0, 0],
        [4, 3, 0, -1, -2, -2, -2, -2],
        [6, 4, 0, -2, -3, -3, -3, -3],
        [8, 5, 0, -3, -5, -5, -5, -5],
        [11, 7, 0, -3, -6, -6, -6, -6],
        [13, 8, 0, -4, -8, -8, -8, -8],
        [15, 9, 0, -5, -9, -9, -9, -9],
    ],
    dtype=np.float64,
)
"""Correction of NAL-RP, dB, for each hearing level at 2 kHz, at the eight frequencies."""


def _nal_r(ear: Audiogram) -> Values:
    """Byrne & Dillon (1986): 0.31 H + X + offset; X = 0.05 of the sum of three levels up to 180, then 0.116."""
    total = float(ear.at(THREE_HZ).sum())
    x = 0.05 * total if total <= 180.0 else 9.0 + 0.116 * (total - 180.0)
    return SLOPE * ear.at(PRESCRIPTION_FREQUENCIES_HZ) + x + OFFSET_DB


def _nal_rp(ear: Audiogram) -> Values:
    """Byrne, Parkinson & Newall (1991): as NAL-R, with more gain for severe losses."""
    mean = float(ear.at(THREE_HZ).mean())
    x = 0.15 * mean + 0.2 * max(mean - 60.0, 0.0)
    at_2khz = float(ear.at(2000.0))
    severe = np.array([np.interp(at_2khz, SEVERE_2KHZ_DB_HL, column) for column in SEVERE_DB.T])
    return SLOPE * ear.at(PRESCRIPTION_FREQUENCIES_HZ) + x + OFFSET_DB + severe


def _half_gain(ear: Audiogram) -> Values:
    """Lybarger (1944): half the hearing level."""
    return 0.5 * ear.at(PRESCRIPTION_FREQUENCIES_HZ)


PRESCRIPTIONS: dict[str, Callable[[Audiogram], Values]] = {
    "NAL-R": _nal_r,
    "NAL-RP": _nal_rp,
    "half-gain": _half_gain,
}
"""Rules by name, from an audiogram to gains at `PRESCRIPTION_FREQUENCIES_HZ`, before they are held at 0 from below."""


def insertion_gains(audiogram: Audiogram, rule: str = "NAL-R") -> dict[str, list[float]]:
    """Return the insertion gains that a rule prescribes for linear amplification.

    Parameters
    ----------
    audiogram : Audiogram
        Hearing levels, dB HL.
    rule : str
        ``"NAL-R"``, ``"NAL-RP"`` or ``"half-gain"``.

    Returns
    -------
    dict
        ``frequency_hz`` (250 Hz to 6 kHz) and ``gain_db``, never below 0: lists, the arguments of `LinearAid`.

    Raises
    ------
    SpecError
        If there is no rule of that name.

    Notes
    -----
    NAL-R and NAL-RP have the same offsets. Corrections of NAL-RP between the tabulated hearing levels at 2 kHz are
    interpolated, from 0 at 90 dB HL; that of 120 dB HL holds above. No gain is below 0 dB.

    References
    ----------
    Byrne & Dillon (1986), Ear Hear. 7, 257-265. Byrne, Parkinson & Newall (1991), in The Vanderbilt Hearing Aid Report
    II, 295-300. Constants: the table nal_formulas of psysim's human data.

    Examples
    --------
    >>> from psysim.hearing import standard_audiogram
    >>> [round(g, 1) for g in insertion_gains(standard_audiogram("N3"))["gain_db"]]
    [0.1, 9.1, 19.6, 21.2, 20.8, 21.3, 22.9, 24.4]
    """
    check_option("rule", rule, PRESCRIPTIONS)
    gain = np.maximum(PRESCRIPTIONS[rule](audiogram), 0.0)
    return {"frequency_hz": list(PRESCRIPTION_FREQUENCIES_HZ), "gain_db": [float(g) for g in gain]}
