"""Hearing levels that come with age: ISO 7029."""

from __future__ import annotations

import numpy as np

from psysim.errors import check_option, check_range
from psysim.hearing.audiograms import Audiogram

__all__ = ["age_audiogram"]

FREQUENCIES_HZ = (125.0, 250.0, 500.0, 750.0, 1000.0, 1500.0, 2000.0, 3000.0, 4000.0, 6000.0, 8000.0)
FACTOR = {
    "male": (2.5e-06, 0.000139, 0.000459, 0.00057, 0.000702, 0.00109, 0.00156, 0.00254, 0.0034, 0.00453, 0.00506),
    "female": (
        0.000616,
        0.000398,
        0.000261,
        0.000225,
        0.000221,
        0.000253,
        0.000312,
        0.000488,
        0.000737,
        0.00147,
        0.00253,
    ),
}
EXPONENT = {
    "male": (3.841, 2.832, 2.537, 2.512, 2.494, 2.446, 2.404, 2.35, 2.325, 2.315, 2.328),
    "female": (2.451, 2.568, 2.708, 2.775, 2.805, 2.813, 2.792, 2.728, 2.66, 2.539, 2.439),
}
"""a and b of ISO 7029:2017."""


def age_audiogram(age: float, sex: str) -> Audiogram:
    """Return the median hearing levels of otologically normal people of an age: a (age - 18)^b.

    Parameters
    ----------
    age : float
        Age in years, 18 to 80.
    sex : str
        ``"male"`` or ``"female"``.

    Raises
    ------
    SpecError
        If the age or the sex is not one that the standard covers.

    Notes
    -----
    Relative to the median of 18-year-old people of the same sex.

    References
    ----------
    ISO 7029:2017, Acoustics - Statistical distribution of hearing thresholds related to age and gender.

    Examples
    --------
    >>> age_audiogram(70, "male").at([1000.0, 4000.0]).round(1).tolist()
    [13.4, 33.2]
    """
    check_option("sex", sex, FACTOR)
    check_range("age", age, 18.0, 80.0, unit="years")
    level = np.array(FACTOR[sex]) * (float(age) - 18.0) ** np.array(EXPONENT[sex])
    return Audiogram(FREQUENCIES_HZ, level.tolist(), f"ISO 7029, {sex}, {age:g} years")
