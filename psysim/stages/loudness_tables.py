"""Tables and formulas that the two loudness models share: ears, thresholds, gains and the three regimes of loudness.

Everything here belongs to the family of Moore, Glasberg & Baer (1997), Glasberg & Moore (2002), ANSI S3.4-2007 and
Moore et al. (2016). The ERB scale of the family is that of `psysim.units.erb_number_glasberg1990_program`.
Excitation is a power ratio: 1 (0 dB) is the excitation that a frontal 1-kHz tone of 0 dB SPL in the free field causes
at its own place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from psysim.errors import SpecError, check_option

__all__ = [
    "DB_AT_THRESHOLD",
    "FIELDS",
    "FIR_DELAY",
    "FS",
    "HIGH_LEVEL_RULES",
    "MAX_OHC_LOSS_DB",
    "a_of_gain",
    "alpha_of_gain",
    "amt_ear_taps",
    "checked_transfer",
    "column",
    "ear_gain_db",
    "ear_taps",
    "impaired_constants",
    "specific_loudness",
    "threshold_excitation_db",
]

Values = NDArray[np.float64]

FS = 32000.0
"""Sampling rate of the ear filters and of the spectra, Hz."""
FIELDS = ("free", "diffuse", "eardrum")
"""Where the sound pressure is given: free field (frontal), diffuse field, or at the eardrum."""
FIR_DELAY = 2048
"""Delay of the linear-phase ear filters, samples."""
MIDDLE_EARS = ("ansi_s34_2007", "glasberg2002")
DB_AT_THRESHOLD = {"glasberg2002": 3.73, "ansi_s34_2007": 3.73, "moore2016": 3.63}
"""Excitation level at threshold at and above 500 Hz, dB: there the gain of the cochlear amplifier counts as 0 dB."""
MAX_OHC_LOSS_DB = 57.6
"""Gain of the cochlear amplifier at and above 500 Hz (Moore & Glasberg 2004), dB: the largest loss of gain."""
HIGH_LEVEL = 1e10
"""Excitation (100 dB) above which specific loudness follows a plain power law."""
HIGH_LEVEL_RULES = {"1997": (1.04e6, 0.5), "2007": (1.0707, 0.2)}
"""Divisor and exponent of that law: Moore, Glasberg & Baer (1997); ANSI S3.4-2007."""


@cache
def _columns(name: str) -> dict[str, Values]:
    """Return the columns of a table of the package by name; lines that start with # name its source."""
    with (files("psysim.stages") / "data" / f"loudness_{name}.csv").open(encoding="utf-8") as file:
        lines = [line.strip() for line in file if not line.startswith("#")]
    rows = np.loadtxt(lines[1:], delimiter=",")
    return {key: rows[:, i] for i, key in enumerate(lines[0].split(","))}


def column(table: str, name: str) -> Values:
    """Return a column of ``data/loudness_{table}.csv``, float64."""
    return _columns(table)[name].copy()


def ear_gain_db(frequency_hz: Values, field: str = "free", middle_ear: str = "ansi_s34_2007") -> Values:
    """Return the gain of outer and middle ear in dB, interpolated linearly in Hz and held beyond 20 Hz and 20 kHz.

    Parameters
    ----------
    frequency_hz : ndarray
        Frequencies, Hz.
    field : str
        ``"free"``, ``"diffuse"`` or ``"eardrum"`` (middle ear alone).
    middle_ear : str
        ``"ansi_s34_2007"``, or ``"glasberg2002"``, which differs at 1250, 1500 and 1600 Hz.

    Returns
    -------
    ndarray
        dB; 0 dB at 1 kHz in the free field.

    References
    ----------
    ANSI S3.4-2007; middle ear below 1 kHz as revised by Glasberg & Moore (2006), JASA 120, 585-588.
    """
    check_option("field", field, FIELDS)
    check_option("middle_ear", middle_ear, MIDDLE_EARS)
    middle = _columns("middle_ear")
    gain = np.interp(frequency_hz, middle["frequency_hz"], middle[f"{middle_ear}_db"])
    if field != "eardrum":
        outer = _columns("outer_ear_ansi_s34_2007")
        gain = gain + np.interp(frequency_hz, outer["frequency_hz"], outer[f"{field}_field_db"])
    return gain


def ear_taps(
    field: str = "free",
    middle_ear: str = "ansi_s34_2007",
    transfer: Sequence[Sequence[float]] | Values | None = None,
) -> Values:
    """Return the 4097 taps of the ear filter at 32 kHz: linear phase, delay 2048 samples.

    Frequency sampling on 8193 points up to 16 kHz, linear in amplitude along the index of the point between the
    frequencies of the table (0 at 0 Hz), then a Hamming window: the design of the authors' program.

    Parameters
    ----------
    field : str
        ``"free"``, ``"diffuse"`` or ``"eardrum"``. Not used for ``transfer``.
    middle_ear : str
        ``"ansi_s34_2007"`` or ``"glasberg2002"``.
    transfer : sequence of (frequency in Hz, gain in dB), optional
        Transfer function from where the sound pressure is given to the eardrum, in place of that of ``field``: an
        earphone, a measured ear canal, a hearing aid. Frequencies rising; linear in Hz between them, held beyond.

    Raises
    ------
    SpecError
        For an unknown field or middle ear, or a transfer function that is not a table of rising frequencies.

    References
    ----------
    Moore, Glasberg, Varathanathan & Schlittenlacher (2016), Trends Hear. 20, 1-16, with their program.
    """
    table = _columns("middle_ear")["frequency_hz"]
    table = table[table <= FS / 2]
    if transfer is None:
        gain = ear_gain_db(table, field, middle_ear)
    else:
        given = checked_transfer(transfer)
        between = given[(given[:, 0] > table[0]) & (given[:, 0] < FS / 2), 0]
        table = np.union1d(table, between)
        gain = ear_gain_db(table, "eardrum", middle_ear) + np.interp(table, given[:, 0], given[:, 1])
    frequency = np.concatenate([[0.0], table])
    amplitude = np.concatenate([[0.0], 10.0 ** (gain / 20.0)])
    return _windowed(_sampled_by_index(frequency / (FS / 2), amplitude, 8193))


def amt_ear_taps(field: str, middle_ear: str, by_index: bool = True) -> Values:
    """Return the 4097 taps of the ear filter as the Auditory Modeling Toolbox's ``glasberg2002`` designs them.

    For comparison only: the gain in dB counts as one of power, and the grid from 20 Hz to 16 kHz is laid on 0 to
    16 kHz. ``by_index`` as MATLAB interpolates the grid; False as GNU Octave does.
    """
    frequency = np.arange(20.0, 16001.0, dtype=np.float64)
    gain = _monotone(frequency, "middle_ear", f"{middle_ear}_db")
    if field != "eardrum":
        gain = gain + _monotone(frequency, "outer_ear_ansi_s34_2007", f"{field}_field_db")
    amplitude, fraction = 10.0 ** (gain / 10.0), np.linspace(0.0, 1.0, len(frequency))
    n = 4 * FIR_DELAY + 1
    points = _sampled_by_index(fraction, amplitude, n)
    if not by_index:
        points = np.interp(np.arange(n) / (n - 1), fraction, amplitude)
    return _windowed(points)


def _monotone(frequency: Values, table: str, name: str) -> Values:
    return PchipInterpolator(column(table, "frequency_hz"), column(table, name))(frequency)


def checked_transfer(transfer: Sequence[Sequence[float]] | Values) -> Values:
    """Return a transfer function as an array (N, 2) of frequencies in Hz and gains in dB."""
    try:
        given = np.array(transfer, dtype=np.float64)
    except (TypeError, ValueError):
        given = np.empty(0)
    rows = given.ndim == 2 and given.shape[1:] == (2,) and len(given) > 0
    if not rows or not np.isfinite(given).all() or (np.diff(given[:, 0]) <= 0).any() or given[0, 0] < 0:
        raise SpecError(
            "transfer must be a table of (frequency in Hz, gain in dB), frequencies at least 0 and rising, all finite."
        )
    return given


def _sampled_by_index(fraction: Values, amplitude: Values, n: int) -> Values:
    """Interpolate at ``n`` points of [0, 1], linearly along the index of the point within each segment."""
    points = np.zeros(n)
    start = 0
    for i in range(len(fraction) - 1):
        end = math.floor(fraction[i + 1] * n) - 1
        if end >= start:
            step = np.arange(end - start + 1) / max(1, end - start)
            points[start : end + 1] = amplitude[i] + (amplitude[i + 1] - amplitude[i]) * step
        start = max(start, end + 1)
    return points


def _windowed(points: Values) -> Values:
    """Return the linear-phase filter of the amplitudes at 0 .. fs/2 under a Hamming window, 4097 taps."""
    delay = np.exp(-1j * np.pi * FIR_DELAY * np.arange(len(points)) / (len(points) - 1))
    response = np.fft.irfft(points * delay, 2 * (len(points) - 1))[: 2 * FIR_DELAY + 1]
    return response * np.hamming(2 * FIR_DELAY + 1)


def threshold_excitation_db(fc: Values, model: str) -> Values:
    """Return the excitation level at absolute threshold (F,), dB.

    Parameters
    ----------
    fc : ndarray (F,)
        Centre frequencies, Hz.
    model : str
        ``"glasberg2002"`` (monotone cubic interpolation, 3.73 dB from 500 Hz up), ``"ansi_s34_2007"`` (linear, held
        below 50 Hz, 3.73 dB from 500 Hz up), ``"moore2016"`` (the same with 3.63 dB).
    """
    check_option("model", model, DB_AT_THRESHOLD)
    frequency = column("threshold_excitation", "frequency_hz")
    level = column("threshold_excitation", f"e_thrq_db_{'moore2016' if model == 'moore2016' else 'glasberg2002'}")
    if model != "glasberg2002":
        return np.interp(fc, frequency, level)
    # The published table goes on with the same value up to 1 kHz: the slope of the curve at 500 Hz is 0.
    beyond = [630.0, 750.0, 800.0, 1000.0]
    curve = PchipInterpolator(np.append(frequency, beyond), np.append(level, [level[-1]] * len(beyond)))
    return np.where(fc >= 500.0, level[-1], curve(np.minimum(fc, 500.0)))


def alpha_of_gain(gain_db: Values, interpolation: str) -> Values:
    """Return the compressive exponent alpha for gains of the cochlear amplifier ``gain_db`` (0 dB from 500 Hz up).

    ``interpolation`` is ``"linear"`` (end values held; ANSI S3.4-2007, Moore2016) or ``"pchip"`` (Glasberg2002).
    """
    check_option("interpolation", interpolation, ("linear", "pchip"))
    gain, alpha = column("alpha_of_g", "g_db"), column("alpha_of_g", "alpha")
    return np.interp(gain_db, gain, alpha) if interpolation == "linear" else PchipInterpolator(gain, alpha)(gain_db)


def a_of_gain(gain_db: Values, model: str) -> Values:
    """Return the constant A of specific loudness: monotone cubic interpolation of the table, extrapolated.

    ``model`` is ``"glasberg2002"`` (table of 23 rows), ``"ansi_s34_2007"`` or ``"moore2016"`` (90 rows).
    """
    check_option("model", model, DB_AT_THRESHOLD)
    table = "a_of_g_glasberg2002" if model == "glasberg2002" else "a_of_g_moore2016"
    return PchipInterpolator(column(table, "g_db"), column(table, "a"))(gain_db)


def impaired_constants(gain_db: Tensor, ohc_loss_db: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return loss of gain, A and alpha of channels whose outer hair cells have lost ``ohc_loss_db``.

    The published tables A(G) and alpha(G) solve two conditions: B = (G E + A)^alpha - A^alpha has its normal value at
    100 dB, and 0.1152 at threshold. Solved for smaller gains, they describe a cochlea with less gain: a threshold that
    is raised by the loss, and loudness that grows more steeply, up to the normal one (recruitment).

    Parameters
    ----------
    gain_db : Tensor (F,)
        Gain in dB of normal hearing, 0 or less.
    ohc_loss_db : Tensor (F,)
        Loss of outer hair cells, dB, at least 0.

    Returns
    -------
    lost_db, a, alpha : Tensor (F,)
        The gain lost, at most 57.6 dB + ``gain_db``; ``ohc_loss_db - lost_db`` is left for the inner hair cells.
        Differentiable with respect to ``ohc_loss_db``.

    References
    ----------
    Moore & Glasberg (1997), Aud. Neurosci. 3, 289-311; (2004), Hear. Res. 188, 70-88. The extension of the tables is
    derived from the two conditions, not copied from these papers.
    """
    available = MAX_OHC_LOSS_DB + gain_db
    lost = torch.minimum(ohc_loss_db, available)
    table = {
        name: torch.as_tensor(column("alpha_a_extended_ohc", name)[::-1].copy(), device=gain_db.device)
        for name in ("g_db", "a", "alpha")
    }
    gain = gain_db - lost
    above = torch.searchsorted(table["g_db"], gain.detach().contiguous()).clamp(1, len(table["g_db"]) - 1)
    low, high = table["g_db"][above - 1], table["g_db"][above]
    share = (gain - low) / (high - low)
    log_a, alpha = table["a"].log(), table["alpha"]
    a = torch.exp(log_a[above - 1] + share * (log_a[above] - log_a[above - 1]))
    return lost, a, alpha[above - 1] + share * (alpha[above] - alpha[above - 1])


def specific_loudness(
    excitation: Tensor, threshold: Tensor, gain: Tensor, a: Tensor, alpha: Tensor, c: Tensor, high_level: str = "2007"
) -> Tensor:
    """Return the specific loudness of one ear, sone/Cam, in the dtype of ``excitation``.

    With B = (G E + A)^alpha - A^alpha: C (2E/(E + T))^1.5 B up to the threshold T, C B up to 100 dB, and above it
    C (E/1.0707)^0.2 (``high_level="2007"``) or C (E/1.04e6)^0.5 (``"1997"``).

    Parameters
    ----------
    excitation : Tensor (..., F)
        Excitation, a power ratio. 0 gives exactly 0, with a finite gradient.
    threshold, gain, a, alpha : Tensor (F,)
        Excitation at threshold T, gain G (power ratios), A and alpha of every channel.
    c : Tensor
        C, sone/Cam, a scalar.
    high_level : str
        Rule above 100 dB.

    Raises
    ------
    SpecError
        If ``high_level`` is not known.

    References
    ----------
    Moore, Glasberg & Baer (1997), J. Audio Eng. Soc. 45, 224-240, equations 5 to 10; ANSI S3.4-2007, equations 7 to 9.
    """
    check_option("high_level", high_level, HIGH_LEVEL_RULES)
    divisor, exponent = HIGH_LEVEL_RULES[high_level]
    e = excitation
    t, g, a, alpha, c = (v.to(e.dtype) for v in (threshold, gain, a, alpha, c))
    # The same as the difference of two powers, without its cancellation at small E.
    bracket = a.pow(alpha) * torch.expm1(alpha * torch.log1p(g * e / a))
    below = (2.0 * e / (e + t)).clamp(max=1.0).pow(1.5)
    above = (e.clamp(min=HIGH_LEVEL) / divisor).pow(exponent)
    return c * torch.where(e > HIGH_LEVEL, above, below * bracket)
