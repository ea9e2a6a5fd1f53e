"""Stages of auditory models: ears, filterbanks, hair cells, adaptation, modulation.

Each is an `torch.nn.Module` usable alone. Signals have the batch first and time last; constants are float64 buffers,
or float64 parameters with ``learnable=True``, whatever the dtype of the signals.
"""

from __future__ import annotations

from psysim.stages.adaptation import AdaptLoop
from psysim.stages.base import AuditoryModule
from psysim.stages.ears import HeadphoneFilter, MiddleEarFilter
from psysim.stages.gammatone import GammatoneFilterbank
from psysim.stages.haircell import IHCEnvelope
from psysim.stages.modulation import ModulationFilterbank
from psysim.stages.resampling import FFTResampler, fft_resample

__all__ = [
    "AdaptLoop",
    "AuditoryModule",
    "FFTResampler",
    "GammatoneFilterbank",
    "HeadphoneFilter",
    "IHCEnvelope",
    "MiddleEarFilter",
    "ModulationFilterbank",
    "fft_resample",
]
