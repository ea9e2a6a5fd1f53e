"""Units of sound and of hearing: dB SPL, modulation depth, the ERB scales.

Every function takes a float, a NumPy array or a torch tensor and returns the same kind (a tensor keeps its dtype,
device and gradient; integers and lists are taken as float64). This module does not import torch.

Three sets of ERB constants are in use in published auditory models; they differ by about 0.3 % and must not be mixed:

* `erb_number`, `erb_number_to_hz`: E = 9.2645 ln(1 + 0.00437 f) and its inverse; the spacing of all filterbanks.
* `gammatone_bandwidth_hz`: 24.7 + f/9.265; the bandwidth of gammatone filters only.
* ``..._glasberg1990``: ERB = 24.7 (4.37 f/1000 + 1), E = 21.4 log10(0.00437 f + 1); text books.
* ``..._glasberg1990_program``: ERB = 24.673 (0.004368 f + 1), E = 21.366 log10(0.004368 f + 1); loudness models.
* `erb_number_moore1983`: E = 11.17 ln((f + 312)/(f + 14675)) + 43.0; a few binaural models.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from psysim.errors import SpecError, check_range

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "P_REF",
    "amplitude_to_db",
    "db_spl_to_pascal",
    "db_to_amplitude",
    "depth_db_to_m",
    "depth_m_to_db",
    "erb_hz_glasberg1990",
    "erb_hz_glasberg1990_program",
    "erb_number",
    "erb_number_glasberg1990",
    "erb_number_glasberg1990_program",
    "erb_number_glasberg1990_program_to_hz",
    "erb_number_glasberg1990_to_hz",
    "erb_number_moore1983",
    "erb_number_moore1983_to_hz",
    "erb_number_to_hz",
    "erb_space",
    "gammatone_bandwidth_hz",
    "pascal_to_db_spl",
]

P_REF = 20e-6
"""Reference pressure in pascal (rms) of dB SPL."""

Value = TypeVar("Value", float, NDArray[np.float64], "Tensor")


def _operand(x: Any) -> Any:
    """Give numbers a float type; floats, float arrays and float tensors pass unchanged."""
    if hasattr(x, "is_floating_point"):  # a torch tensor, recognised without importing torch
        return x if x.is_floating_point() else x.double()
    if isinstance(x, float | np.floating):
        return x
    if isinstance(x, int):
        return float(x)
    array = np.asarray(x)
    return array if np.issubdtype(array.dtype, np.floating) else array.astype(np.float64)


def _call(name: str, x: Any) -> Any:
    """Apply an elementwise function (``log``, ``log10``, ``exp``, ``abs``, ``sign``); log 0 is -inf, not an error."""
    if hasattr(x, "is_floating_point"):
        return getattr(x, name)()
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        y = getattr(np, name)(x)
    return float(y) if type(x) is float else y


def _odd(x: Any, function: Any) -> Any:
    """Extend a function defined for f >= 0 to negative frequencies as an odd function."""
    return _call("sign", x) * function(_call("abs", x))


def db_to_amplitude(level_db: Value) -> Value:
    """Convert dB to an amplitude ratio, 10^(dB/20).

    Parameters
    ----------
    level_db : float, array or tensor
        Level in dB; -inf gives exactly 0.

    Returns
    -------
    float, array or tensor
        Amplitude ratio, of the kind and shape of the input.

    Examples
    --------
    >>> db_to_amplitude(20.0)
    10.0
    """
    x = _operand(level_db)
    return 10.0 ** (x / 20.0)


def amplitude_to_db(amplitude: Value) -> Value:
    """Convert an amplitude ratio (its magnitude) to dB, 20 log10 abs(a); 0 gives -inf.

    Parameters
    ----------
    amplitude : float, array or tensor
        Amplitude ratio.

    Returns
    -------
    float, array or tensor
        dB, of the kind and shape of the input.

    Examples
    --------
    >>> amplitude_to_db(0.1)
    -20.0
    """
    return 20.0 * _call("log10", _call("abs", _operand(amplitude)))


def db_spl_to_pascal(level_db_spl: Value) -> Value:
    """Convert a level in dB SPL to the rms pressure in pascal.

    Parameters
    ----------
    level_db_spl : float, array or tensor
        Level in dB re 20 uPa rms; -inf gives exactly 0.

    Returns
    -------
    float, array or tensor
        Rms pressure in pascal.

    Examples
    --------
    >>> round(db_spl_to_pascal(94.0), 6)
    1.002374
    """
    return P_REF * db_to_amplitude(level_db_spl)


def pascal_to_db_spl(pressure_pa: Value) -> Value:
    """Convert an rms pressure in pascal to dB SPL (re 20 uPa); 0 gives -inf.

    Parameters
    ----------
    pressure_pa : float, array or tensor
        Rms pressure in pascal (the magnitude is used).

    Returns
    -------
    float, array or tensor
        Level in dB SPL.

    Examples
    --------
    >>> round(pascal_to_db_spl(1.0), 6)
    93.9794
    """
    return amplitude_to_db(_operand(pressure_pa) / P_REF)


def depth_db_to_m(depth_db: Value) -> Value:
    """Convert a modulation depth in dB to the modulation index m = 10^(dB/20).

    Parameters
    ----------
    depth_db : float, array or tensor
        20 log10 m, at most 0 for modulation without overmodulation; -inf gives exactly m = 0.

    Returns
    -------
    float, array or tensor
        m; 1 is full modulation.

    Examples
    --------
    >>> depth_db_to_m(float("-inf")), depth_db_to_m(0.0)
    (0.0, 1.0)
    """
    return db_to_amplitude(depth_db)


def depth_m_to_db(depth_m: Value) -> Value:
    """Convert a modulation index m to the depth in dB, 20 log10 m; 0 gives -inf.

    Parameters
    ----------
    depth_m : float, array or tensor
        Modulation index in [0, 1].

    Returns
    -------
    float, array or tensor
        Depth in dB.

    Examples
    --------
    >>> depth_m_to_db(1.0)
    0.0
    """
    return amplitude_to_db(depth_m)


def erb_number(frequency_hz: Value) -> Value:
    """Convert frequency to the ERB number (Cams) used for the spacing of filterbanks.

    E = 9.2645 ln(1 + 0.00437 f), odd in f.

    Parameters
    ----------
    frequency_hz : float, array or tensor
        Frequency in Hz.

    Returns
    -------
    float, array or tensor
        ERB number.

    References
    ----------
    Glasberg and Moore (1990), Hear. Res. 47, 103-138, with the constants of the published filterbank programs.

    Examples
    --------
    >>> round(erb_number(1000.0), 6)
    15.57203
    """
    return _odd(_operand(frequency_hz), lambda f: 9.2645 * _call("log", 1.0 + f * 0.00437))


def erb_number_to_hz(number: Value) -> Value:
    """Convert an ERB number to frequency: the inverse of `erb_number`.

    Parameters
    ----------
    number : float, array or tensor
        ERB number (Cams).

    Returns
    -------
    float, array or tensor
        Frequency in Hz.

    Examples
    --------
    >>> round(erb_number_to_hz(erb_number(4000.0)), 9)
    4000.0
    """
    return _odd(_operand(number), lambda e: (_call("exp", e / 9.2645) - 1.0) / 0.00437)


def gammatone_bandwidth_hz(frequency_hz: Value) -> Value:
    """Return the equivalent rectangular bandwidth that sets the gammatone filters, 24.7 + f/9.265.

    Parameters
    ----------
    frequency_hz : float, array or tensor
        Centre frequency in Hz.

    Returns
    -------
    float, array or tensor
        Bandwidth in Hz.

    References
    ----------
    Glasberg and Moore (1990), Hear. Res. 47, 103-138, with the constants of the published filterbank programs.

    Examples
    --------
    >>> round(gammatone_bandwidth_hz(1000.0), 4)
    132.6331
    """
    return 24.7 + _operand(frequency_hz) / 9.265


def erb_hz_glasberg1990(frequency_hz: Value) -> Value:
    """Return the ERB in Hz as printed by Glasberg and Moore (1990), 24.7 (4.37 f/1000 + 1).

    Parameters
    ----------
    frequency_hz : float, array or tensor
        Centre frequency in Hz.

    Returns
    -------
    float, array or tensor
        Bandwidth in Hz.

    References
    ----------
    Glasberg and Moore (1990), Hear. Res. 47, 103-138, equation 3.

    Examples
    --------
    >>> round(erb_hz_glasberg1990(1000.0), 3)
    132.639
    """
    return 24.7 * (4.37 * _operand(frequency_hz) / 1000.0 + 1.0)


def erb_number_glasberg1990(frequency_hz: Value) -> Value:
    """Return the ERB number as printed by Glasberg and Moore (1990), 21.4 log10(0.00437 f + 1).

    Parameters
    ----------
    frequency_hz : float, array or tensor
        Frequency in Hz.

    Returns
    -------
    float, array or tensor
        ERB number (Cams).

    References
    ----------
    Glasberg and Moore (1990), Hear. Res. 47, 103-138, equation 4.

    Examples
    --------
    >>> round(erb_number_glasberg1990(1000.0), 5)
    15.62145
    """
    return 21.4 * _call("log10", 0.00437 * _operand(frequency_hz) + 1.0)


def erb_number_glasberg1990_to_hz(number: Value) -> Value:
    """Return the inverse of `erb_number_glasberg1990`.

    Parameters
    ----------
    number : float, array or tensor
        ERB number (Cams).

    Returns
    -------
    float, array or tensor
        Frequency in Hz.

    Examples
    --------
    >>> round(erb_number_glasberg1990_to_hz(15.62145), 2)
    1000.0
    """
    return (10.0 ** (_operand(number) / 21.4) - 1.0) / 0.00437


def erb_hz_glasberg1990_program(frequency_hz: Value) -> Value:
    """Return the ERB in Hz with the constants of the 1990 program, 24.673 (0.004368 f + 1) (loudness models).

    Parameters
    ----------
    frequency_hz : float, array or tensor
        Centre frequency in Hz.

    Returns
    -------
    float, array or tensor
        Bandwidth in Hz.

    References
    ----------
    Glasberg and Moore (1990), Hear. Res. 47, 103-138, program listing in the appendix.

    Examples
    --------
    >>> round(erb_hz_glasberg1990_program(1000.0), 3)
    132.445
    """
    return 24.673 * (0.004368 * _operand(frequency_hz) + 1.0)


def erb_number_glasberg1990_program(frequency_hz: Value) -> Value:
    """Return the ERB number with the constants of the 1990 program, 21.366 log10(0.004368 f + 1) (loudness models).

    Parameters
    ----------
    frequency_hz : float, array or tensor
        Frequency in Hz.

    Returns
    -------
    float, array or tensor
        ERB number (Cams).

    References
    ----------
    Glasberg and Moore (1990), Hear. Res. 47, 103-138, program listing in the appendix.

    Examples
    --------
    >>> round(erb_number_glasberg1990_program(1000.0), 4)
    15.5932
    """
    return 21.366 * _call("log10", 0.004368 * _operand(frequency_hz) + 1.0)


def erb_number_glasberg1990_program_to_hz(number: Value) -> Value:
    """Return the inverse of `erb_number_glasberg1990_program`.

    Parameters
    ----------
    number : float, array or tensor
        ERB number (Cams).

    Returns
    -------
    float, array or tensor
        Frequency in Hz.

    Examples
    --------
    >>> round(erb_number_glasberg1990_program_to_hz(erb_number_glasberg1990_program(50.0)), 9)
    50.0
    """
    return (10.0 ** (_operand(number) / 21.366) - 1.0) / 0.004368


def erb_number_moore1983(frequency_hz: Value) -> Value:
    """Return the ERB number of Moore and Glasberg (1983), 11.17 ln((f + 312)/(f + 14675)) + 43.0.

    Parameters
    ----------
    frequency_hz : float, array or tensor
        Frequency in Hz.

    Returns
    -------
    float, array or tensor
        ERB number.

    References
    ----------
    Moore and Glasberg (1983), J. Acoust. Soc. Am. 74, 750-753.

    Examples
    --------
    >>> round(erb_number_moore1983(1000.0), 3)
    15.293
    """
    f = _operand(frequency_hz)
    return 11.17 * _call("log", (f + 312.0) / (f + 14675.0)) + 43.0


def erb_number_moore1983_to_hz(number: Value) -> Value:
    """Return the inverse of `erb_number_moore1983`.

    Parameters
    ----------
    number : float, array or tensor
        ERB number, below 43.

    Returns
    -------
    float, array or tensor
        Frequency in Hz.

    Examples
    --------
    >>> round(erb_number_moore1983_to_hz(erb_number_moore1983(2000.0)), 6)
    2000.0
    """
    ratio = _call("exp", (_operand(number) - 43.0) / 11.17)
    return (14675.0 * ratio - 312.0) / (1.0 - ratio)


def erb_space(
    flow_hz: float, fhigh_hz: float, spacing: float = 1.0, basef_hz: float | None = None
) -> NDArray[np.float64]:
    """Return centre frequencies equally spaced on the ERB-number scale between two bounds.

    With ``basef_hz`` one centre frequency is the base frequency (up to rounding) and the bounds are only bounds.
    Without it the list is centred between the bounds, and in general neither is hit.

    Parameters
    ----------
    flow_hz, fhigh_hz : float
        Bounds in Hz, 0 <= flow <= fhigh. One channel: flow = fhigh = basef.
    spacing : float
        Distance in ERB numbers, above 0.
    basef_hz : float, optional
        Base frequency in Hz, between the bounds.

    Returns
    -------
    numpy.ndarray
        Centre frequencies in Hz, rising, shape (F,), F >= 1.

    Raises
    ------
    SpecError
        If a frequency is negative or out of order, or the spacing is not positive.

    References
    ----------
    Scale: Glasberg and Moore (1990), Hear. Res. 47, 103-138, with the constants of `erb_number`.

    Examples
    --------
    >>> erb_space(80.0, 8000.0).shape, erb_space(80.0, 8000.0, basef_hz=1000.0).shape
    ((31,), (30,))
    """
    check_range("spacing", spacing, 0.0, unit="ERB numbers", low_open=True)
    check_range("flow_hz", flow_hz, 0.0, unit="Hz")
    check_range("fhigh_hz", fhigh_hz, 0.0, unit="Hz")
    if not (math.isfinite(flow_hz) and math.isfinite(fhigh_hz)) or fhigh_hz < flow_hz:
        raise SpecError(f"fhigh_hz = {fhigh_hz:g} Hz must be finite and at least flow_hz = {flow_hz:g} Hz.")
    low, high = erb_number(float(flow_hz)), erb_number(float(fhigh_hz))
    if basef_hz is None:
        count = math.floor((high - low) / spacing)
        first = low + (high - low - count * spacing) / 2
        numbers = first + spacing * np.arange(count + 1)
    else:
        check_range("basef_hz", basef_hz, flow_hz, fhigh_hz, unit="Hz")
        base = erb_number(float(basef_hz))
        steps = np.arange(-math.floor((base - low) / spacing), math.floor((high - base) / spacing) + 1)
        numbers = base + spacing * steps
    return erb_number_to_hz(np.asarray(numbers, dtype=np.float64))
