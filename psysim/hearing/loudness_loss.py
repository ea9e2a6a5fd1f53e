"""Audiogram to the loss of outer and inner hair cells that the loudness models take."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from psysim.errors import SpecError
from psysim.hearing.audiograms import Audiogram, over_log_frequency
from psysim.stages.loudness_tables import MAX_OHC_LOSS_DB

__all__ = ["loudness_losses"]

OHC_SHARE = 0.8


def loudness_losses(
    audiogram: Audiogram, fc: ArrayLike | Tensor, ohc_share: ArrayLike = OHC_SHARE
) -> dict[str, Tensor]:
    """Split an audiogram into losses of outer and inner hair cells, for the channels of a loudness model.

    At each frequency of the audiogram HL_OHC = min(57.6 dB, share HL) and HL_IHC = HL - HL_OHC; both are interpolated
    linearly over the logarithm of frequency. Hearing levels below 0 dB HL count as 0.

    Parameters
    ----------
    audiogram : Audiogram
        Hearing levels.
    fc : array or Tensor (F,)
        Centre frequencies of the model, Hz (``model.fc``).
    ohc_share : float or sequence
        Share of the loss in dB that is of the outer hair cells, 0 to 1: one number, or one per frequency of the
        audiogram. It cannot be seen in an audiogram; 0.8 is usual (Moore et al. 1999), 0.7 and 0.9 are in use, and
        measurements of single ears scatter from 0.3 to 1 (Lopez-Poveda & Johannesen 2012).

    Returns
    -------
    dict
        ``ohc_loss_db`` and ``ihc_loss_db``, Tensors (F,) of float64: keyword arguments of
        `psysim.models.Glasberg2002`, `psysim.stages.SpecificLoudness` and `psysim.stages.StationaryLoudness`.

    Raises
    ------
    SpecError
        If a share is out of range or there is not one per frequency.

    References
    ----------
    Moore & Glasberg (1997), Aud. Neurosci. 3, 289-311; (2004), Hear. Res. 188, 70-88. Moore, Vickers, Plack & Oxenham
    (1999), J. Acoust. Soc. Am. 106, 2761-2778.

    Examples
    --------
    >>> from psysim.hearing import standard_audiogram
    >>> losses = loudness_losses(standard_audiogram("N4"), [500.0, 6000.0])
    >>> {name: [round(v, 1) for v in loss.tolist()] for name, loss in losses.items()}
    {'ohc_loss_db': [44.0, 57.6], 'ihc_loss_db': [11.0, 22.4]}
    """
    level = np.maximum(np.array(audiogram.level_db_hl), 0.0)
    share = np.asarray(ohc_share, dtype=np.float64)
    if share.ndim > 1 or (share.ndim == 1 and share.shape != level.shape):
        raise SpecError(
            f"ohc_share has shape {share.shape}: give one number, or one for each of {len(level)} frequencies."
        )
    if not ((share >= 0.0) & (share <= 1.0)).all():
        raise SpecError(f"ohc_share = {ohc_share!r} is out of range: it must be at least 0 and at most 1.")
    outer = np.minimum(MAX_OHC_LOSS_DB, share * level)
    at = fc.detach().cpu().numpy() if isinstance(fc, Tensor) else np.asarray(fc, dtype=np.float64)

    def on_channels(loss: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(over_log_frequency(at, audiogram.frequency_hz, loss))

    return {"ohc_loss_db": on_channels(outer), "ihc_loss_db": on_channels(level - outer)}
