"""The Triton kernel of `roofline`: in a module of its own, so that a CPU run never loads Triton."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["CHAINS", "LANES_PER_PROGRAM", "multiply_add"]

CHAINS = 4
LANES_PER_PROGRAM = 128  # one value per thread of four warps


@triton.jit
def multiply_add(values, steps):
    """Advance four independent chains a = a / 2 + 1/2 in every thread."""
    place = values + tl.program_id(0) * 128 + tl.arange(0, 128)
    a = tl.load(place)
    half = a * 0.5
    b, c, d = a + half, a + a, a - half
    for _ in range(steps):
        a = a * half + half
        b = b * half + half
        c = c * half + half
        d = d * half + half
    tl.store(place, a + b + c + d)
