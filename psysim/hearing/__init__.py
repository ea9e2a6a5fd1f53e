"""Hearing loss: audiograms, and what they mean for the parameters of the models."""

from __future__ import annotations

from psysim.hearing.audiograms import STANDARD_AUDIOGRAMS, Audiogram, standard_audiogram
from psysim.hearing.loudness_loss import loudness_losses

__all__ = ["STANDARD_AUDIOGRAMS", "Audiogram", "loudness_losses", "standard_audiogram"]
