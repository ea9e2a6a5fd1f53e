"""Exceptions, and the checks used at every public door.

One wording for all messages: what was given, where, what is allowed, the nearest valid name.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable

__all__ = [
    "CalibrationError",
    "NumericsError",
    "PsysimError",
    "PsysimWarning",
    "SpecError",
    "StoreError",
    "check_option",
    "check_range",
    "did_you_mean",
]


class PsysimError(Exception):
    """Base of all psysim errors; the command line prints its message without a traceback (exit code 2)."""

    exit_code = 2


class SpecError(PsysimError, ValueError):
    """An argument or an experiment description is not usable as given."""


class CalibrationError(PsysimError):
    """An observer could not be calibrated, or is used without the calibration it needs."""


class NumericsError(PsysimError):
    """A computation produced values that are not finite (exit code 3)."""

    exit_code = 3


class StoreError(PsysimError):
    """A result cannot be read, written, resumed or is not what the schema says."""


class PsysimWarning(UserWarning):
    """Something a user should know about a result that is still valid."""


def did_you_mean(name: object, allowed: Iterable[object]) -> str:
    """Return ``" Did you mean 'x'?"`` for the allowed name nearest to ``name``, or an empty string."""
    near = difflib.get_close_matches(str(name), [str(a) for a in allowed], n=1, cutoff=0.55)
    return f" Did you mean '{near[0]}'?" if near else ""


def check_option(parameter: str, value: object, allowed: Iterable[object]) -> None:
    """Raise `SpecError` unless ``value`` is one of ``allowed``; the message names the nearest one."""
    options = list(allowed)
    if value not in options:
        names = ", ".join(repr(o) for o in options)
        raise SpecError(f"{parameter} = {value!r} is not known. Allowed: {names}.{did_you_mean(value, options)}")


def check_range(
    parameter: str,
    value: float,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    unit: str = "",
    low_open: bool = False,
) -> None:
    """Raise `SpecError` unless ``low <= value <= high`` (``low < value`` if ``low_open``); NaN is refused."""
    above = value > low if low_open else value >= low
    if not (above and value <= high):
        unit = f" {unit}" if unit else ""
        bounds = f"{'above' if low_open else 'at least'} {low:g}{unit}" if low > -math.inf else ""
        if high < math.inf:
            bounds += (" and " if bounds else "") + f"at most {high:g}{unit}"
        raise SpecError(f"{parameter} = {value:g}{unit} is out of range: it must be {bounds or 'a number'}.")
