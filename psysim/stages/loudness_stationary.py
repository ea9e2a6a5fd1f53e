"""Loudness of steady sounds given as components: ANSI S3.4-2007."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from psysim import ops
from psysim.errors import SpecError, check_option, check_range
from psysim.stages.base import SignalModule
from psysim.stages.loudness import PRESENTATIONS, SpecificLoudness
from psysim.stages.loudness_excitation import LEVEL_SLOPE, LOWEST_P, REFERENCE_DB
from psysim.stages.loudness_tables import FIELDS, checked_transfer, ear_gain_db
from psysim.units import erb_hz_glasberg1990_program, erb_number_glasberg1990_program_to_hz

__all__ = ["StationaryLoudness", "band_components"]

FIRST_CAM, LAST_CAM, STEP_CAM = 1.8, 38.9, 0.1
FARTHEST = 2.0
"""Relative distance from the centre of a filter beyond which a component does not count."""


def band_components(
    low_hz: float, high_hz: float, spectrum_level_db: float, spacing_hz: float | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the components that stand for a band of white noise in `StationaryLoudness`.

    Parameters
    ----------
    low_hz, high_hz : float
        Edges of the band, Hz.
    spectrum_level_db : float
        Level in a band of 1 Hz, dB SPL.
    spacing_hz : float, optional
        Distance of the components, Hz; default 10, or 1 for bands of at most 30 Hz (ANSI S3.4-2007).

    Returns
    -------
    frequency_hz, level_db_spl : ndarray (N,)
        The first component lies half a step above the lower edge.

    Raises
    ------
    SpecError
        If the edges do not rise, or the band is narrower than the spacing.

    Examples
    --------
    >>> frequency, level = band_components(950.0, 1050.0, 40.0)
    >>> frequency[[0, -1]].tolist(), level[0].item()
    ([955.0, 1045.0], 50.0)
    """
    check_range("low_hz", low_hz, 0.0, unit="Hz")
    check_range("high_hz", high_hz, low_hz, unit="Hz", low_open=True)
    if spacing_hz is None:
        spacing_hz = 1.0 if high_hz - low_hz <= 30.0 else 10.0
    check_range("spacing_hz", spacing_hz, 0.0, high_hz - low_hz, unit="Hz", low_open=True)
    frequency = np.arange(low_hz + spacing_hz / 2.0, high_hz, spacing_hz, dtype=np.float64)
    return frequency, np.full(len(frequency), spectrum_level_db + 10.0 * math.log10(spacing_hz))


class StationaryLoudness(SignalModule):
    """Loudness of steady sounds with line spectra, after ANSI S3.4-2007, with or without hearing loss.

    Noise is given as components (`band_components`). 372 channels from 1.8 to 38.9 Cam; the slope of the filters
    follows the level per ERB at each component.

    Parameters
    ----------
    field : str
        Where levels are given: ``"free"`` (frontal), ``"diffuse"`` or ``"eardrum"``.
    presentation : str
        ``"diotic"`` (both ears hear the sound) or ``"monotic"``.
    transfer : sequence of (frequency in Hz, gain in dB), optional
        Transfer function from where levels are given to the eardrum, in place of that of ``field``.
    ohc_loss_db, ihc_loss_db : float or sequence, optional
        Loss of outer and inner hair cells, dB, one for all channels or one for each of the 372: see
        `psysim.stages.SpecificLoudness`.
    dead_regions_hz : sequence of (low, high), optional
        Ranges of centre frequencies that contribute nothing.
    dtype : torch.dtype
        torch.float64 or torch.float32.

    Attributes
    ----------
    fc : Tensor (372,)
        Centre frequencies, Hz.

    Raises
    ------
    SpecError
        If an argument is out of range.

    References
    ----------
    ANSI S3.4-2007; Moore, Glasberg & Baer (1997), J. Audio Eng. Soc. 45, 224-240.

    Examples
    --------
    >>> import torch
    >>> levels = torch.tensor([[20.0], [40.0], [60.0]], dtype=torch.float64)
    >>> [round(n, 3) for n in StationaryLoudness()([1000.0], levels).tolist()]
    [0.142, 0.997, 4.166]
    """

    def __init__(
        self,
        field: str = "free",
        presentation: str = "diotic",
        transfer: Sequence[Sequence[float]] | NDArray[np.float64] | None = None,
        *,
        ohc_loss_db: float | Sequence[float] | Tensor | None = None,
        ihc_loss_db: float | Sequence[float] | Tensor | None = None,
        dead_regions_hz: Sequence[Sequence[float]] | None = None,
        dtype: torch.dtype | str = torch.float64,
    ) -> None:
        super().__init__(dtype=dtype)
        check_option("field", field, FIELDS)
        check_option("presentation", presentation, PRESENTATIONS)
        self.field, self.presentation = field, presentation
        self.transfer = None if transfer is None else checked_transfer(transfer)
        first, last = (float(erb_number_glasberg1990_program_to_hz(cam)) for cam in (FIRST_CAM, LAST_CAM))
        channels: dict[str, Any] = {"f_min": first, "f_max": last}
        channels["n_bands"] = round((LAST_CAM - FIRST_CAM) / STEP_CAM) + 1
        losses: dict[str, Any] = {"ohc_loss_db": ohc_loss_db, "ihc_loss_db": ihc_loss_db}
        losses["dead_regions_hz"] = dead_regions_hz
        self.specific_loudness = SpecificLoudness(
            **channels, **losses, tables="ansi_s34_2007", high_level="2007", dtype=dtype
        )

    @property
    def fc(self) -> Tensor:
        """Centre frequencies (372,), Hz, float64."""
        return self.specific_loudness.fc_erb

    def forward(self, frequency_hz: Sequence[float] | Tensor | NDArray[np.float64], level_db_spl: Tensor) -> Tensor:
        """Return the loudness of sounds with components at the same frequencies.

        Parameters
        ----------
        frequency_hz : Tensor (N,)
            Frequencies of the components, Hz, above 0 and rising.
        level_db_spl : Tensor (..., N)
            Their levels, dB SPL; -inf for none.

        Returns
        -------
        Tensor (...)
            Loudness, sone.

        Raises
        ------
        SpecError
            If the shapes do not fit or the frequencies do not rise.
        """
        specific = self.specific_loudness.of_excitation(self.excitation(frequency_hz, level_db_spl))
        return specific.sum(-1) * (STEP_CAM * PRESENTATIONS[self.presentation])

    def excitation(self, frequency_hz: Sequence[float] | Tensor | NDArray[np.float64], level_db_spl: Tensor) -> Tensor:
        """Return the excitation (..., 372), a power ratio, before the loss of inner hair cells."""
        f = np.asarray(frequency_hz, dtype=np.float64)
        level = self.enter(level_db_spl, tuple(range(1, 9)), "(..., N)", "level_db_spl")
        if f.ndim != 1 or len(f) != level.shape[-1]:
            raise SpecError(
                f"frequency_hz has shape {f.shape}, level_db_spl {tuple(level.shape)}: one frequency for each level."
            )
        if not (f > 0).all() or (np.diff(f) <= 0).any() or not np.isfinite(f).all():
            raise SpecError("frequency_hz must be finite, above 0 and rising.")
        level = (level.double() + torch.from_numpy(self.ear_gain_db(f)).to(level.device)).reshape(-1, len(f))
        heard = level > -1e4  # a component that is not there has no intensity, and a slope that does not matter
        intensity = torch.where(level < -1e4, 0.0, 10.0 ** (level / 10.0))
        at = self._at_components(f, intensity, heard)
        # Below the channel the slope follows the level, above it does not.
        fc = self.fc.cpu().numpy()[:, None]
        p = 4.0 * fc / erb_hz_glasberg1990_program(fc)
        g = np.abs(f - fc) / fc
        z = p * g
        upper = torch.from_numpy(np.where((f >= fc) & (g <= FARTHEST), (1.0 + z) * np.exp(-z), 0.0)).to(level.device)
        slope = 1.0 - LEVEL_SLOPE / (4.0 * 1000.0 / erb_hz_glasberg1990_program(1000.0)) * (at - REFERENCE_DB)
        distance, lowest = (torch.from_numpy(table).to(level.device) for table in (z, LOWEST_P / p[:, 0]))
        count = torch.from_numpy((f < fc).sum(1)).to(level.device)
        lower = ops.roex_spread(intensity, slope, distance, lowest, count)
        return (lower + intensity @ upper.T).to(self.dtype).reshape(*level_db_spl.shape[:-1], -1)

    def ear_gain_db(self, frequency_hz: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the gain in dB from where levels are given to the cochlea."""
        if self.transfer is None:
            return ear_gain_db(frequency_hz, self.field)
        to_eardrum = np.interp(frequency_hz, self.transfer[:, 0], self.transfer[:, 1])
        return ear_gain_db(frequency_hz, "eardrum") + to_eardrum

    def _at_components(self, f: NDArray[np.float64], intensity: Tensor, heard: Tensor) -> Tensor:
        """Return the level per ERB (B, N) at each component: what a filter centred there lets through, dB."""
        p = 4.0 * f / erb_hz_glasberg1990_program(f)
        g = np.abs(f[None, :] - f[:, None]) / f[:, None]  # of component i (last) from filter k
        z = p[:, None] * g
        weights = torch.from_numpy(np.where(g <= FARTHEST, (1.0 + z) * np.exp(-z), 0.0)).to(intensity.device)
        power = intensity @ weights.T
        return 10.0 * torch.log10(torch.where(heard & (power > 0), power, 1e-10))
