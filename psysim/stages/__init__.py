"""Stages of auditory models: ears, filterbanks, hair cells, adaptation, modulation, loudness.

Each is an `torch.nn.Module` usable alone. Signals have the batch first and time last; constants are float64 buffers,
or float64 parameters with ``learnable=True``, whatever the dtype of the signals.
"""

from __future__ import annotations

from psysim.stages.adaptation import AdaptLoop
from psysim.stages.band_limited import BandLimitedResampler
from psysim.stages.base import AuditoryModule
from psysim.stages.binaural import ExcitationInhibition
from psysim.stages.butterworth import ButterworthFilter
from psysim.stages.compression import BrokenStickCompression, PowerCompression
from psysim.stages.drnl import DRNLFilterbank, hair_cell_losses
from psysim.stages.ears import HeadphoneFilter, MiddleEarFilter, OuterMiddleEarFilter
from psysim.stages.fast import FastDRNLFilterbank, FastKing2019ModulationFilterbank, FastModulationFilterbank
from psysim.stages.gammatone import GammatoneFilterbank
from psysim.stages.haircell import IHCEnvelope, IHCJepsen2008, IHCPaulick2024
from psysim.stages.half_cosine import HalfCosineFilterbank
from psysim.stages.loudness import LoudnessIntegration, SpecificLoudness
from psysim.stages.loudness_ear import LoudnessEarFilter, LoudnessResampler
from psysim.stages.loudness_excitation import ERBIntegration, ExcitationPattern
from psysim.stages.loudness_spectrum import MultiResolutionFFT
from psysim.stages.loudness_stationary import StationaryLoudness, band_components
from psysim.stages.modulation import ModulationFilterbank
from psysim.stages.modulation_king2019 import King2019ModulationFilterbank
from psysim.stages.moore2016_excitation import Moore2016ExcitationPattern
from psysim.stages.moore2016_loudness import (
    BinauralInhibition,
    Moore2016AGC,
    Moore2016BinauralLoudness,
    Moore2016SpecificLoudness,
    Moore2016TemporalIntegration,
    SpatialSmoothing,
    phon_to_sone,
    sone_to_phon,
)
from psysim.stages.moore2016_spectrum import Moore2016Spectrum
from psysim.stages.nerve_filters import AudioFIR, GammatoneFIRFilterbank, SlaneyFIRFilterbank
from psysim.stages.nerve_lowpass import PhaseLockingFilter
from psysim.stages.nerve_rates import KneeCompression, RateLevelFunction
from psysim.stages.resampling import Decimator, FFTResampler, fft_resample
from psysim.stages.spikes import SpikeGenerator, crop_activity

__all__ = [
    "AdaptLoop",
    "AudioFIR",
    "AuditoryModule",
    "BandLimitedResampler",
    "BinauralInhibition",
    "BrokenStickCompression",
    "ButterworthFilter",
    "DRNLFilterbank",
    "Decimator",
    "ERBIntegration",
    "ExcitationInhibition",
    "ExcitationPattern",
    "FFTResampler",
    "FastDRNLFilterbank",
    "FastKing2019ModulationFilterbank",
    "FastModulationFilterbank",
    "GammatoneFIRFilterbank",
    "GammatoneFilterbank",
    "HalfCosineFilterbank",
    "HeadphoneFilter",
    "IHCEnvelope",
    "IHCJepsen2008",
    "IHCPaulick2024",
    "King2019ModulationFilterbank",
    "KneeCompression",
    "LoudnessEarFilter",
    "LoudnessIntegration",
    "LoudnessResampler",
    "MiddleEarFilter",
    "ModulationFilterbank",
    "Moore2016AGC",
    "Moore2016BinauralLoudness",
    "Moore2016ExcitationPattern",
    "Moore2016SpecificLoudness",
    "Moore2016Spectrum",
    "Moore2016TemporalIntegration",
    "MultiResolutionFFT",
    "OuterMiddleEarFilter",
    "PhaseLockingFilter",
    "PowerCompression",
    "RateLevelFunction",
    "SlaneyFIRFilterbank",
    "SpatialSmoothing",
    "SpecificLoudness",
    "SpikeGenerator",
    "StationaryLoudness",
    "band_components",
    "crop_activity",
    "fft_resample",
    "hair_cell_losses",
    "phon_to_sone",
    "sone_to_phon",
]
