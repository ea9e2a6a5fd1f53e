"""Hearing: audiograms, what they mean for the parameters of the models, and loudness matches."""

from __future__ import annotations

from psysim.hearing.audiograms import STANDARD_AUDIOGRAMS, Audiogram, standard_audiogram
from psysim.hearing.loudness_loss import loudness_losses
from psysim.hearing.matching import match_loudness

__all__ = ["STANDARD_AUDIOGRAMS", "Audiogram", "loudness_losses", "match_loudness", "standard_audiogram"]
