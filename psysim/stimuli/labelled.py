"""Stimuli with labels: sounds of which a listener can say what they were, as the words of a sentence."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from psysim.rng import Keys
from psysim.stimuli.base import GatedStimulus

__all__ = ["LabelledStimulus"]


class LabelledStimulus(GatedStimulus):
    """A kind whose sounds carry labels: one of a closed set of alternatives for each place (each word of a sentence).

    The labels are a function of the same parameters and keys as the sound, so a task can score responses without
    touching the sound, and an observer can learn from it.
    """

    @abstractmethod
    def alternatives(self, parameters: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
        """Return the alternatives of each place: C tuples of names; a label is a position in its tuple."""

    @abstractmethod
    def labels(self, parameters: Mapping[str, Any], keys: Keys) -> Tensor:
        """Return what `generate` with the same arguments presents.

        Parameters
        ----------
        parameters : mapping
            As for `generate`.
        keys : Keys
            Random keys, batch shape (B,) or ().

        Returns
        -------
        Tensor
            (B, C) int64; -1 at places that a sound does not have.
        """

    @abstractmethod
    def label_times_s(self, parameters: Mapping[str, Any], keys: Keys) -> Tensor:
        """Return start and end in s of each label in the sound that `generate` returns, (B, C, 2); NaN if unknown."""
