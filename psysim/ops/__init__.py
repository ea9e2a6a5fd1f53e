"""Operators: the recurrences in time that would cost thousands of small launches in plain torch.

Every operator takes signals with the batch first and time last, float64 coefficients, and returns the dtype of
its signal. It is registered with `torch.library` (namespace ``psysim``), differentiable, bitwise independent of
the batch around a row, and keeps a NaN in the row where it entered. Recurrences take and return states, so that long
sounds can be passed block by block. `chain_forward` and `chain_products` run whole chains of operators in one pass,
given as `psysim.ops.steps`; these two have no gradient.
"""

from __future__ import annotations

from psysim.ops._adaptation import adaptation_loops
from psysim.ops._chain import chain_forward, chain_products
from psysim.ops._compress import compress
from psysim.ops._drnl import drnl
from psysim.ops._gammatone import gammatone
from psysim.ops._hair_cell import HairCellCircuit, hair_cell
from psysim.ops._iirfilt import iirfilt
from psysim.ops._leaky import leaky
from psysim.ops._modulation import modulation_bank
from psysim.ops._resample import resample, resampling_taps
from psysim.ops._roex import roex_spread
from psysim.ops._smooth import smooth
from psysim.ops._sosfilt import sosfilt
from psysim.ops._template import template_product

__all__ = [
    "HairCellCircuit",
    "adaptation_loops",
    "chain_forward",
    "chain_products",
    "compress",
    "drnl",
    "gammatone",
    "hair_cell",
    "iirfilt",
    "leaky",
    "modulation_bank",
    "resample",
    "resampling_taps",
    "roex_spread",
    "smooth",
    "sosfilt",
    "template_product",
]
