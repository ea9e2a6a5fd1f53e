"""The definitions of the operators: plain torch loops over time, float64-exact, differentiable any number of times.

Each takes the arguments of the operator with the same name. They are thousands of times slower: for tests, for second
derivatives of short signals, and for reading.

Examples
--------
>>> import torch
>>> from psysim.ops import reference
>>> average = torch.tensor([[0.5, 0.5, 0.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
>>> reference.sosfilt(torch.tensor([[[2.0, 4.0, 8.0]]]), average)
tensor([[[1., 3., 6.]]])
"""

from __future__ import annotations

from psysim.ops._adaptation import reference as adaptation_loops
from psysim.ops._chain import forward_reference as chain_forward
from psysim.ops._chain import reference as chain_products
from psysim.ops._compress import reference as compress
from psysim.ops._drnl import reference as drnl
from psysim.ops._gammatone import reference as gammatone
from psysim.ops._hair_cell import reference as hair_cell
from psysim.ops._iirfilt import reference as iirfilt
from psysim.ops._leaky import reference as leaky
from psysim.ops._modulation import reference as modulation_bank
from psysim.ops._resample import reference as resample
from psysim.ops._roex import reference as roex_spread
from psysim.ops._smooth import reference as smooth
from psysim.ops._sosfilt import reference as sosfilt
from psysim.ops._template import reference as template_product

__all__ = [
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
    "roex_spread",
    "smooth",
    "sosfilt",
    "template_product",
]
