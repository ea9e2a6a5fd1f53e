"""Audiogram to thresholds, dynamic ranges and tuning of auditory-nerve models."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from psysim.errors import SpecError
from psysim.hearing.audiograms import Audiogram

__all__ = ["nerve_losses"]


def nerve_losses(
    audiogram: Audiogram,
    fc: ArrayLike | Tensor,
    threshold_db_spl: ArrayLike | Tensor = 0.0,
    dynamic_range_db: ArrayLike | Tensor = 80.0,
    bw_mult: ArrayLike = 1.0,
) -> dict[str, Tensor]:
    """Return the arguments that give an auditory-nerve model the hearing loss of an audiogram.

    The rate at the highest level stays: with b the lowest threshold and s the highest level of saturation of all groups
    of fibres, a loss of h dB moves the levels between b and s linearly to those between b + h and s. Thresholds become
    b + h + (th - b) r and dynamic ranges DR r with r = (s - b - h)/(s - b). For one group that is th + h and DR - h.
    Hearing levels count from 0 to s - b; what follows is interpolated linearly over frequency in Hz to the channels,
    the end values held beyond.

    Parameters
    ----------
    audiogram : Audiogram
        Hearing levels.
    fc : array or Tensor (F,)
        Centre frequencies of the model, Hz (``model.fc``).
    threshold_db_spl, dynamic_range_db : float or sequence (G,)
        Thresholds, dB SPL, and dynamic ranges, dB, of the groups of the normal ear. The default is that of
        `psysim.models.Saddler2025`; for `psysim.models.Saddler2024` give (0, 12, 28) and (20, 40, 80).
    bw_mult : float or sequence
        Factor on the bandwidths: one, or one for each frequency of the audiogram. An audiogram does not say it; the
        tutorial takes 2 for a flat loss of 60 dB.

    Returns
    -------
    dict
        ``threshold_db_spl``, ``dynamic_range_db`` (G, F), or (F,) for numbers, and ``bw_mult`` (F,): Tensors of
        float64, keyword arguments of the models.

    Raises
    ------
    SpecError
        If groups do not agree, or there is not one ``bw_mult`` for each frequency.

    References
    ----------
    Saddler (2025), tutorial on differentiable auditory models: one group. The rule for several groups is psysim's.

    Examples
    --------
    >>> from psysim.hearing import example_audiogram
    >>> losses = nerve_losses(example_audiogram("moderate"), [1000.0, 3500.0])
    >>> losses["threshold_db_spl"].tolist(), losses["dynamic_range_db"].tolist()
    ([25.0, 42.5], [55.0, 37.5])
    """
    at = fc.detach().cpu().numpy() if isinstance(fc, Tensor) else np.asarray(fc, dtype=np.float64)
    threshold = np.asarray(threshold_db_spl, dtype=np.float64)
    width = np.asarray(dynamic_range_db, dtype=np.float64)
    if threshold.ndim > 1 or width.ndim > 1 or {threshold.size, width.size} - {1, max(threshold.size, width.size)}:
        raise SpecError(
            f"threshold_db_spl has shape {threshold.shape}, dynamic_range_db {width.shape}: give one number, or one "
            "for each group of fibres."
        )
    factor = np.asarray(bw_mult, dtype=np.float64)
    frequency = np.asarray(audiogram.frequency_hz)
    if factor.shape not in ((), (1,), frequency.shape):
        raise SpecError(
            f"bw_mult has shape {factor.shape}: give one number, or one for each of {len(frequency)} frequencies."
        )
    lowest = threshold.min()
    span = (threshold + width).max() - lowest
    loss = np.interp(at, frequency, np.clip(audiogram.level_db_hl, 0.0, span))
    kept = (span - loss) / span if span > 0 else np.zeros_like(loss)
    values = {
        "threshold_db_spl": lowest + loss + (threshold[..., None] - lowest) * kept,
        "dynamic_range_db": width[..., None] * kept,
        "bw_mult": np.interp(at, frequency, np.broadcast_to(factor, frequency.shape)),
    }
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in values.items()}
