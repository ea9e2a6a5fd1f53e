"""Exponential functions of a `Vector`, lane by lane, without a mathematics library.

exp(z) = 2^k p(z - k ln 2), k = round(z / ln 2), p a Chebyshev fit on |r| <= ln(2)/2 in monomials: relative error
of p 3e-18 (float64, degree 11) and 2e-9 (float32, degree 6); the result is within two units in the last place.
Arguments are clipped to where the result is a normal number. Five limiters per sample make this the dearest function
of the library: numba's scalar exp would cost 5 to 10 ns per value and keep the loop around it from being vectors.
"""

# mypy: disable-error-code="no-untyped-def"
# Compiled functions are typed by numba.

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import overload

from psysim.ops.cpu.simd import Vector, power_of_two, round_even, select

__all__ = ["exp", "exp2", "expm1"]

_LOG2_E, _LN2 = 1.4426950408889634, 0.6931471805599453
_HIGH64, _LOW64 = 6.93147180369123816490e-01, 1.90821492927058770002e-10  # ln 2 in two parts, k * high is exact
_HIGH32, _LOW32 = 0.693359375, -2.12194440e-4

_A2, _A3, _A4, _A5 = 0.5000000000000019, 0.1666666666666668, 0.04166666666648795, 0.008333333333319589
_A6, _A7, _A8 = 0.0013888888952352863, 0.00019841269890076403, 2.4801485441561313e-05
_A9, _A10, _A11 = 2.755724088722987e-06, 2.763265472252779e-07, 2.5110049204818658e-08

_B1, _B2, _B3 = 1.0000000377388714, 0.5000000047146057, 0.16666415414041177
_B4, _B5, _B6 = 0.04166635277111221, 0.008375134774624326, 0.0013941118895837


def exp(value: Any) -> Any:
    """Exponential function of a vector, for compiled code only."""
    raise TypeError(f"exp works on vectors inside compiled kernels, not on {type(value).__name__}")


def _exp64(value):
    z = select(value > -708.0, value, -708.0)  # in this order NaN becomes a number: k must convert to an integer
    z = select(z < 708.0, z, 708.0)
    k = round_even(z * _LOG2_E)
    r = (z - k * _HIGH64) - k * _LOW64
    r2 = r * r
    r4 = r2 * r2
    low = (1.0 + r) + (_A2 + _A3 * r) * r2
    middle = (_A4 + _A5 * r) + (_A6 + _A7 * r) * r2
    high = (_A8 + _A9 * r) + (_A10 + _A11 * r) * r2
    return (low + middle * r4 + high * (r4 * r4)) * power_of_two(k)


def _exp32(value):
    z = select(value > -87.0, value, -87.0)
    z = select(z < 88.0, z, 88.0)
    k = round_even(z * _LOG2_E)
    r = (z - k * _HIGH32) - k * _LOW32
    r2 = r * r
    low = (1.0 + _B1 * r) + (_B2 + _B3 * r) * r2
    high = (_B4 + _B5 * r) + _B6 * r2
    return (low + high * (r2 * r2)) * power_of_two(k)


@overload(exp)
def _choose(value):
    if not isinstance(value, Vector):
        return None
    return _exp64 if value.dtype == types.float64 else _exp32


def exp2(value: Any) -> Any:
    """2 to the power of a vector, for compiled code only: cheaper than `exp`, k is taken off without rounding."""
    raise TypeError(f"exp2 works on vectors inside compiled kernels, not on {type(value).__name__}")


_C1, _C2, _C3, _C4, _C5, _C6 = (b * _LN2**i for i, b in enumerate((_B1, _B2, _B3, _B4, _B5, _B6), 1))


def _exp2_32(value):
    z = select(value > -125.5, value, -125.5)
    z = select(z < 127.0, z, 127.0)
    k = round_even(z)
    r = z - k
    r2 = r * r
    low = (1.0 + _C1 * r) + (_C2 + _C3 * r) * r2
    high = (_C4 + _C5 * r) + _C6 * r2
    return (low + high * (r2 * r2)) * power_of_two(k)


def _exp2_64(value):
    z = select(value > -1021.5, value, -1021.5)
    z = select(z < 1023.0, z, 1023.0)
    k = round_even(z)
    r = (z - k) * _LN2
    r2 = r * r
    r4 = r2 * r2
    low = (1.0 + r) + (_A2 + _A3 * r) * r2
    middle = (_A4 + _A5 * r) + (_A6 + _A7 * r) * r2
    high = (_A8 + _A9 * r) + (_A10 + _A11 * r) * r2
    return (low + middle * r4 + high * (r4 * r4)) * power_of_two(k)


@overload(exp2)
def _choose_exp2(value):
    if not isinstance(value, Vector):
        return None
    return _exp2_64 if value.dtype == types.float64 else _exp2_32


def expm1(value: Any) -> Any:
    """Exponential function minus 1 of a vector, without the loss of digits near 0; for compiled code only."""
    raise TypeError(f"expm1 works on vectors inside compiled kernels, not on {type(value).__name__}")


def _expm1_64(value):
    z = select(value > -708.0, value, -708.0)
    z = select(z < 708.0, z, 708.0)
    k = round_even(z * _LOG2_E)
    r = (z - k * _HIGH64) - k * _LOW64
    r2 = r * r
    r4 = r2 * r2
    low = r + (_A2 + _A3 * r) * r2
    middle = (_A4 + _A5 * r) + (_A6 + _A7 * r) * r2
    high = (_A8 + _A9 * r) + (_A10 + _A11 * r) * r2
    whole = power_of_two(k)
    return (low + middle * r4 + high * (r4 * r4)) * whole + (whole - 1.0)


def _expm1_32(value):
    z = select(value > -87.0, value, -87.0)
    z = select(z < 88.0, z, 88.0)
    k = round_even(z * _LOG2_E)
    r = (z - k * _HIGH32) - k * _LOW32
    r2 = r * r
    low = _B1 * r + (_B2 + _B3 * r) * r2
    high = (_B4 + _B5 * r) + _B6 * r2
    whole = power_of_two(k)
    return (low + high * (r2 * r2)) * whole + (whole - 1.0)


@overload(expm1)
def _choose_expm1(value):
    if not isinstance(value, Vector):
        return None
    return _expm1_64 if value.dtype == types.float64 else _expm1_32
