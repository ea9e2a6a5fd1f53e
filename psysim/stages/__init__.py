"""Stages of auditory models: ears, filterbanks, hair cells, adaptation, modulation.

Each is an `torch.nn.Module` usable alone. Signals have the batch first and time last; constants are float64 buffers,
or float64 parameters with ``learnable=True``, whatever the dtype of the signals.
"""

from __future__ import annotations

from psysim.stages.adaptation import AdaptLoop
from psysim.stages.base import AuditoryModule
from psysim.stages.butterworth import ButterworthFilter
from psysim.stages.compression import BrokenStickCompression, PowerCompression
from psysim.stages.drnl import DRNLFilterbank, hair_cell_losses
from psysim.stages.ears import HeadphoneFilter, MiddleEarFilter, OuterMiddleEarFilter
from psysim.stages.gammatone import GammatoneFilterbank
from psysim.stages.haircell import IHCEnvelope, IHCJepsen2008, IHCPaulick2024
from psysim.stages.modulation import ModulationFilterbank
from psysim.stages.modulation_king2019 import King2019ModulationFilterbank
from psysim.stages.resampling import Decimator, FFTResampler, fft_resample

__all__ = [
    "AdaptLoop",
    "AuditoryModule",
    "BrokenStickCompression",
    "ButterworthFilter",
    "DRNLFilterbank",
    "Decimator",
    "FFTResampler",
    "GammatoneFilterbank",
    "HeadphoneFilter",
    "IHCEnvelope",
    "IHCJepsen2008",
    "IHCPaulick2024",
    "King2019ModulationFilterbank",
    "MiddleEarFilter",
    "ModulationFilterbank",
    "OuterMiddleEarFilter",
    "PowerCompression",
    "fft_resample",
    "hair_cell_losses",
]
