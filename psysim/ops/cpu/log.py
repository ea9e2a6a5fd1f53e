"""Logarithm and power of a `Vector`, lane by lane, without a mathematics library.

x = 2^k m with sqrt(1/2) <= m < sqrt(2), f = m - 1, s = f / (2 + f), z = s^2:

    ln m = f - (f^2/2 - s (f^2/2 + z P(z)))

P a minimax polynomial of (2 atanh(s) - 2 s) / (s z) on 0 <= z <= (sqrt(2) - 1)^4 (mpmath.chebyfit with 40 digits):
error of the logarithm 5e-18 relative to it (float64, degree 6) and 3e-9 (float32, degree 2).

A float32 power cannot be exp(c ln x): c ln x reaches 25 for c = 0.25, its rounding would be an error of 1.5e-6. There
x^c = 2^(c k) m^c, and with c in two parts c k is exact: the first part is a multiple of 2^-16, so that k times it has
no more than 24 bits in all powers that float32 can hold.
"""

# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ARG001
# Compiled functions are typed by numba; an overload has the arguments of what it stands for.

from __future__ import annotations

import math
from typing import Any

from numba import types
from numba.extending import overload
from torch import Tensor

from psysim.ops.cpu.exp import exp
from psysim.ops.cpu.simd import Vector, binary_exponent, binary_fraction, power_of_two, round_even, select
from psysim.ops.cpu.tiles import kernel

__all__ = ["log", "power", "split_exponent"]

_INFINITY, _NAN = math.inf, math.nan
_HIGH, _LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10  # ln 2 in two parts, k * high is exact
_LOG2_E, _LN_2 = 1.4426950408889634, 0.6931471805599453

_P0, _P1, _P2, _P3 = 0.666666666666667, 0.39999999999899505, 0.28571428625975487, 0.2222221113479508
_P4, _P5, _P6 = 0.18182889125261723, 0.15331721600556042, 0.14616449685043406
_Q0, _Q1, _Q2 = 0.6666668503957586, 0.3998878056602198, 0.2957994939197279


@kernel
def log(x):
    """Natural logarithm of a float64 vector within two units in the last place: -infinity at 0, NaN below."""
    small = x < 2.0**-1022
    normal = select(small, x * 2.0**54, x)
    k = binary_exponent(normal)
    k = select(small, k - 54.0, k)
    f = binary_fraction(normal) - 1.0
    s = f / (2.0 + f)
    z = s * s
    z2 = z * z
    series = ((_P0 + _P1 * z) + (_P2 + _P3 * z) * z2) + ((_P4 + _P5 * z) + _P6 * z2) * (z2 * z2)
    half = 0.5 * f * f
    result = k * _HIGH - ((half - (s * (half + z * series) + k * _LOW)) - f)
    result = select(x > 0.0, result, select(x < 0.0, _NAN, x - _INFINITY))
    return select(x < _INFINITY, result, x)


def split_exponent(c: Tensor) -> tuple[Tensor, Tensor]:
    """Return the two parts of exponents (float64) that `power` takes; they may be rounded to float32."""
    high = (c * 2.0**16).round() / 2.0**16
    return high, c - high


def power(x: Any, high: Any, low: Any) -> Any:
    """Raise a vector x >= 0 to the power high + low > 0, parts of `split_exponent`; for compiled code only.

    float64: relative error below (2 + |ln x^c|) 4.5e-16, results between 3e-308 and 3e307. float32: relative error
    below 3e-7, results between 1.2e-38 and 1.7e38. But 0, infinity and NaN are kept.
    """
    raise TypeError(f"power works on vectors inside compiled kernels, not on {type(x).__name__}")


def _power64(x, high, low):
    z = (high + low) * log(x)
    result = exp(z) + (low - low)  # exp has a number for NaN
    return select(x > 0.0, select(x < _INFINITY, result, x), x)


def _power32(x, high, low):
    small = x < 2.0**-126
    normal = select(small, x * 2.0**24, x)
    k = binary_exponent(normal)
    k = select(small, k - 24.0, k)
    f = binary_fraction(normal) - 1.0
    s = f / (2.0 + f)
    z = s * s
    half = 0.5 * f * f
    octaves = (f - (half - s * (half + z * ((_Q0 + _Q1 * z) + _Q2 * (z * z))))) * _LOG2_E
    whole = k * high
    part = k * low + (high + low) * octaves
    n = round_even(whole + part)
    n = select(n > -126.0, n, -126.0)  # in this order NaN becomes a number: n must convert to an integer
    n = select(n < 127.0, n, 127.0)
    r = ((whole - n) + part) * _LN_2
    result = power_of_two(n) * (exp(r) + (low - low))
    return select(x > 0.0, select(x < _INFINITY, result, x), x)


@overload(power)
def _choose(x, high, low):
    if not isinstance(x, Vector):
        return None
    return _power64 if x.dtype == types.float64 else _power32
