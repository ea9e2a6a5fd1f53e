"""Operators: the recurrences in time that would cost thousands of small launches in plain torch.

Every operator takes signals with the batch first and time last, float64 coefficients, and returns the dtype of
its signal. It is registered with `torch.library` (namespace ``psysim``), differentiable, bitwise independent of
the batch around a row, and keeps a NaN in the row where it entered.
"""

from __future__ import annotations

from psysim.ops._adaptation import adaptation_loops
from psysim.ops._chain import chain_products
from psysim.ops._compress import compress
from psysim.ops._gammatone import gammatone
from psysim.ops._hair_cell import hair_cell
from psysim.ops._leaky import leaky
from psysim.ops._modulation import modulation_bank
from psysim.ops._smooth import smooth
from psysim.ops._sosfilt import sosfilt
from psysim.ops._template import template_product

__all__ = [
    "adaptation_loops",
    "chain_products",
    "compress",
    "gammatone",
    "hair_cell",
    "leaky",
    "modulation_bank",
    "smooth",
    "sosfilt",
    "template_product",
]
