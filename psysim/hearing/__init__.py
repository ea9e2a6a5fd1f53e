"""Hearing: audiograms, what they mean for the parameters of the models, and loudness matches."""

from __future__ import annotations

from psysim.hearing.age import age_audiogram
from psysim.hearing.audiogram_files import read_audiograms
from psysim.hearing.audiograms import (
    EXAMPLE_AUDIOGRAMS,
    STANDARD_AUDIOGRAMS,
    Audiogram,
    example_audiogram,
    standard_audiogram,
)
from psysim.hearing.listeners import as_audiogram, hearing_loss_options
from psysim.hearing.loudness_loss import loudness_losses
from psysim.hearing.matching import match_loudness
from psysim.hearing.nerve_loss import nerve_losses

__all__ = [
    "EXAMPLE_AUDIOGRAMS",
    "STANDARD_AUDIOGRAMS",
    "Audiogram",
    "age_audiogram",
    "as_audiogram",
    "example_audiogram",
    "hearing_loss_options",
    "loudness_losses",
    "match_loudness",
    "nerve_losses",
    "read_audiograms",
    "standard_audiogram",
]
