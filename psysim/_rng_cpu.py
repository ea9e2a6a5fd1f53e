"""CPU kernels of `psysim.rng`: Philox words and Box-Muller normals, bit-identical to the torch forms there.

Only +, -, *, /, sqrt and integer operations are used, in the same order as in `psysim.rng`; each is rounded correctly
by IEEE 754 on every device, and numba without ``fastmath`` neither reorders nor fuses them. That is why the logarithm
and the sine are written out as series, and it lets LLVM use vector registers: 1.3 ns per normal on one core, against
8.3 ns for NumPy's ziggurat (benchmarks/bench_stimuli.py).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["ANGLE_STEP", "COS_SERIES", "LN2", "LOG_SERIES", "SIN_SERIES", "normal_rows", "word_rows"]

# ln m = s (2 + 2 s^2/3 + 2 s^4/5 + ...), s = (m - 1)/(m + 1); |s| < 0.1716, so the first term left out is below 1e-18.
LOG_SERIES = tuple(2.0 / (2 * k + 1) for k in range(12))
# Taylor series on [-pi/4, pi/4]: the first term left out is below 1e-17.
SIN_SERIES = tuple((-1.0) ** k / math.factorial(2 * k + 1) for k in range(8))
COS_SERIES = tuple((-1.0) ** k / math.factorial(2 * k) for k in range(9))
LN2 = math.log(2.0)
ANGLE_STEP = 2.0 * math.pi / 2.0**32

_L0, _L1, _L2, _L3, _L4, _L5, _L6, _L7, _L8, _L9, _L10, _L11 = LOG_SERIES
_S0, _S1, _S2, _S3, _S4, _S5, _S6, _S7 = SIN_SERIES
_C0, _C1, _C2, _C3, _C4, _C5, _C6, _C7, _C8 = COS_SERIES

_U32 = np.uint32
_U64 = np.uint64
_I64 = np.int64
_CHUNK = 512  # blocks worked on at a time: the scratch arrays (40 kB) stay in the first-level cache


@njit(nogil=True, cache=True)
def _philox(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    """Philox4x32-10 of one counter block (all uint32)."""
    for _ in range(10):
        p0 = _U64(c0) * _U64(0xD2511F53)
        p1 = _U64(c2) * _U64(0xCD9E8D57)
        h0 = _U32(p0 >> _U64(32))
        h1 = _U32(p1 >> _U64(32))
        l0 = _U32(p0 & _U64(0xFFFFFFFF))
        l1 = _U32(p1 & _U64(0xFFFFFFFF))
        c0, c1, c2, c3 = h1 ^ c1 ^ k0, l1, h0 ^ c3 ^ k1, l0
        k0 = _U32(k0 + _U32(0x9E3779B9))
        k1 = _U32(k1 + _U32(0xBB67AE85))
    return c0, c1, c2, c3


@njit(nogil=True, cache=True)
def _words(first: int, n: int, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any, w: Any) -> None:
    """Write the words of blocks ``first .. first + n - 1`` to ``w`` (4, >= n)."""
    for b in range(n):
        w0, w1, w2, w3 = _philox(_U32(first + b), c1, c2, c3, k0, k1)
        w[0, b] = w0
        w[1, b] = w1
        w[2, b] = w2
        w[3, b] = w3


@njit(nogil=True, cache=True, error_model="numpy")
def _box_muller(radius: Any, angle: Any, n: int, x: Any, cosine: Any, sine: Any) -> None:
    """Turn ``n`` pairs of words into pairs of normals (``cosine``, ``sine``); ``x`` is scratch."""
    bits = x.view(np.int64)
    for i in range(n):
        x[i] = (float(radius[i]) + 0.5) * 2.0**-32
    for i in range(n):  # u = m 2^e with m in (sqrt(1/2), sqrt(2)]
        fraction = bits[i] & _I64(0xFFFFFFFFFFFFF)
        halve = _I64(fraction > _I64(0x6A09E667F3BCD))
        cosine[i] = float((bits[i] >> 52) - 1023 + halve)
        bits[i] = fraction | ((_I64(1023) - halve) << 52)
    for i in range(n):
        s = (x[i] - 1.0) / (x[i] + 1.0)
        q = s * s
        p = _L11 * q + _L10
        p = p * q + _L9
        p = p * q + _L8
        p = p * q + _L7
        p = p * q + _L6
        p = p * q + _L5
        p = p * q + _L4
        p = p * q + _L3
        p = p * q + _L2
        p = p * q + _L1
        p = p * q + _L0
        x[i] = math.sqrt(-2.0 * (cosine[i] * LN2 + s * p))
    for i in range(n):
        word = _I64(angle[i])
        quarter = (word + _I64(1 << 29)) >> 30
        t = (float(word - (quarter << 30)) + 0.5) * ANGLE_STEP
        q = t * t
        s = _S7 * q + _S6
        s = s * q + _S5
        s = s * q + _S4
        s = s * q + _S3
        s = s * q + _S2
        s = s * q + _S1
        s = (s * q + _S0) * t
        c = _C8 * q + _C7
        c = c * q + _C6
        c = c * q + _C5
        c = c * q + _C4
        c = c * q + _C3
        c = c * q + _C2
        c = c * q + _C1
        c = c * q + _C0
        swap = (quarter & 1) == 1
        cos_t = s if swap else c
        sin_t = c if swap else s
        cos_t = -cos_t if ((quarter + 1) & 2) != 0 else cos_t
        sin_t = -sin_t if (quarter & 2) != 0 else sin_t
        cosine[i] = x[i] * cos_t
        sine[i] = x[i] * sin_t


@njit(nogil=True, cache=True)
def word_rows(k0: Any, k1: Any, c1: NDArray[Any], c2: NDArray[Any], c3: NDArray[Any], out: NDArray[Any]) -> None:
    """Fill ``out`` (R, n) int64 with the words of the R rows whose upper counters are ``c1, c2, c3`` (R,) uint32."""
    w = np.empty((4, _CHUNK), np.uint32)
    n = out.shape[1]
    for row in range(out.shape[0]):
        for first in range(0, (n + 3) // 4, _CHUNK):
            m = min(_CHUNK, (n + 3) // 4 - first)
            _words(first, m, c1[row], c2[row], c3[row], k0, k1, w)
            whole = min(m, n // 4 - first)
            for b in range(whole):
                for j in range(4):
                    out[row, 4 * (first + b) + j] = w[j, b]
            if whole < m:
                for j in range(n % 4):
                    out[row, 4 * (first + whole) + j] = w[j, whole]


@njit(nogil=True, cache=True)
def normal_rows(k0: Any, k1: Any, c1: NDArray[Any], c2: NDArray[Any], c3: NDArray[Any], out: NDArray[Any]) -> None:
    """Fill ``out`` (R, n) float32 or float64 with standard normals of the R rows (see `word_rows`)."""
    w = np.empty((4, _CHUNK), np.uint32)
    z = np.empty((4, _CHUNK))
    x = np.empty(_CHUNK)
    n = out.shape[1]
    for row in range(out.shape[0]):
        for first in range(0, (n + 3) // 4, _CHUNK):
            m = min(_CHUNK, (n + 3) // 4 - first)
            _words(first, m, c1[row], c2[row], c3[row], k0, k1, w)
            _box_muller(w[0], w[1], m, x, z[0], z[1])
            _box_muller(w[2], w[3], m, x, z[2], z[3])
            whole = min(m, n // 4 - first)
            for b in range(whole):
                for j in range(4):
                    out[row, 4 * (first + b) + j] = z[j, b]
            if whole < m:
                for j in range(n % 4):
                    out[row, 4 * (first + whole) + j] = z[j, whole]
