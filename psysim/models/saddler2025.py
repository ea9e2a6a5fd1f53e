"""The differentiable auditory-nerve model of M. R. Saddler's tutorial on auditory models (2025).

Known deviations stand in docs/model_cards/saddler2025.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from psysim.errors import SpecError
from psysim.models.base import register
from psysim.models.nerve_model import NerveModel, centre_frequencies
from psysim.stages.nerve_filters import GammatoneFIRFilterbank
from psysim.stages.nerve_lowpass import PhaseLockingFilter
from psysim.stages.nerve_rates import RateLevelFunction

__all__ = ["Saddler2025"]

DESIGN_FS = 100e3


@register("saddler2025")
class Saddler2025(NerveModel):
    """Differentiable auditory-nerve model: sound in pascal to instantaneous firing rates.

    Gammatone filters, half-wave rectification, lowpass of the hair cell with decimation, rectification, sigmoid
    rate-level function of every sample. One kind of fibre, no spikes, deterministic. A hearing loss is a raised
    threshold, a smaller dynamic range and broader filters: see `psysim.hearing.nerve_losses`.

    Parameters
    ----------
    fs : float
        Sampling rate of the sound, Hz.
    fs_model : float
        Rate at which the model runs, Hz; sound at another rate is resampled at the door.
    fs_out : float
        Rate of the firing rates, Hz; ``fs_model`` is a whole multiple of it.
    num_cf : int
        Number of channels, equally spaced in ERB number from ``min_cf`` to ``max_cf``.
    min_cf, max_cf : float
        First and last centre frequency, Hz.
    cfs : sequence of float, optional
        The centre frequencies, in place of the three arguments before.
    fir_dur : float
        Duration of all impulse responses, s.
    bw_mult : float or sequence
        Factor on the ERB, one for all or (F,): above 1 for the broader tuning of impaired ears.
    limit_hz : float
        Nominal phase-locking limit, the cutoff of the hair cell's lowpass, Hz.
    order : int
        Order of that lowpass.
    variant : str
        ``"published"`` (with 3000 Hz at 20 kHz the limit is really at 1722 Hz) or ``"corrected"``: see
        `psysim.stages.PhaseLockingFilter`.
    ihc_taps : sequence of float, optional
        Impulse response of the lowpass in place of the one designed.
    threshold_db_spl, dynamic_range_db, rate_spont, rate_max : float or sequence
        Threshold, dB SPL; dynamic range, dB; spontaneous and maximum rate, spikes/s. One number or (F,).
    interval : float
        Part of the range of rates that belongs to the dynamic range.
    learnable : bool
        Make the published constants of every stage trainable (float64 parameters).
    return_stages : bool
        `forward` also returns a dictionary of the intermediate stages.
    dtype : torch.dtype
        torch.float32 or torch.float64; sound is converted to it.

    Attributes
    ----------
    fc : Tensor (F,)
        Centre frequencies, Hz.
    cutoff_3db_hz : float
        The real phase-locking limit, Hz.
    filterbank, ihc, rates : Module
        The stages.

    Raises
    ------
    SpecError
        If an argument is out of range, or a sequence has not one value per channel.

    References
    ----------
    Saddler (2025), tutorial on differentiable auditory models in PyTorch.

    Examples
    --------
    >>> import torch
    >>> model = Saddler2025(fs=20000.0, return_stages=True)
    >>> rates, stages = model(torch.zeros(2, 1000))
    >>> rates.shape, sorted(stages)
    (torch.Size([2, 100, 500]), ['ihc', 'subbands'])
    >>> round(model.cutoff_3db_hz)
    1722
    """

    def __init__(
        self,
        fs: float,
        fs_model: float = 20e3,
        fs_out: float = 10e3,
        num_cf: int = 100,
        min_cf: float = 80.0,
        max_cf: float = 8000.0,
        cfs: Sequence[float] | Tensor | None = None,
        fir_dur: float = 0.05,
        bw_mult: float | Sequence[float] | Tensor = 1.0,
        limit_hz: float = 3000.0,
        order: int = 7,
        variant: str = "published",
        ihc_taps: Sequence[float] | Tensor | None = None,
        threshold_db_spl: float | Sequence[float] | Tensor = 0.0,
        dynamic_range_db: float | Sequence[float] | Tensor = 80.0,
        rate_spont: float | Sequence[float] | Tensor = 0.0,
        rate_max: float | Sequence[float] | Tensor = 250.0,
        interval: float = 0.95,
        learnable: bool = False,
        return_stages: bool = False,
        dtype: torch.dtype | str = torch.float32,
    ) -> None:
        super().__init__(fs, fs_model, fs_out, learnable=learnable, return_stages=return_stages, dtype=dtype)
        self.num_cf, self.min_cf, self.max_cf, self.cfs = num_cf, min_cf, max_cf, cfs
        self.fir_dur, self.bw_mult, self.limit_hz, self.order, self.variant = fir_dur, bw_mult, limit_hz, order, variant
        self.ihc_taps = ihc_taps
        self.threshold_db_spl, self.dynamic_range_db = threshold_db_spl, dynamic_range_db
        self.rate_spont, self.rate_max, self.interval = rate_spont, rate_max, interval
        common: dict[str, Any] = {"learnable": self.learnable, "dtype": self.dtype}
        centres = centre_frequencies(cfs, num_cf, min_cf, max_cf)
        self.filterbank = GammatoneFIRFilterbank(centres, self.fs_model, fir_dur, 4, bw_mult, **common)
        self.compression = None
        self.ihc = PhaseLockingFilter(
            self.fs_model, self.fs_out, limit_hz, order, fir_dur, variant, DESIGN_FS, ihc_taps, **common
        )
        names = ("threshold_db_spl", "dynamic_range_db", "rate_spont", "rate_max")
        values: dict[str, Any] = {name: self._on_channels(name) for name in names}
        self.rates = RateLevelFunction(**values, interval=interval, envelope_mode=False, **common)

    def _on_channels(self, name: str) -> Tensor:
        """Return an argument as (1, 1) or (1, F): one group."""
        value = torch.as_tensor(getattr(self, name), dtype=torch.float64).detach().reshape(1, -1)
        if value.shape[1] not in (1, self.num_channels):
            raise SpecError(
                f"{name} has {value.shape[1]} values, but there are {self.num_channels} channels: give one, or one for "
                "each."
            )
        return value

    def forward(self, audio: Tensor) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Return the firing rates.

        Parameters
        ----------
        audio : Tensor (T,), (B, T) or (B, 2, T)
            Sound in pascal. A sample that is not finite makes its own row NaN.

        Returns
        -------
        Tensor (B, F, T'), (F, T') for (T,), (B, 2, F, T') for (B, 2, T)
            Instantaneous rates, spikes/s, at ``fs_out``.
        dict of str to Tensor
            Only with ``return_stages``: ``subbands`` (..., F, T) at ``fs_model`` and ``ihc`` (..., F, T'), pascal.

        Raises
        ------
        SpecError
            If ``audio`` is no floating tensor of such a shape with at least one sample.
        """
        batch = self.enter(audio, (1, 2, 3), self._shapes(), "audio")
        stages: dict[str, list[Tensor]] | None = {} if self.return_stages else None
        rates = self._analyse(batch, stages)
        shape = batch.shape[:-1]
        output = rates.reshape(*shape, *rates.shape[-2:])
        if stages is None:
            return output
        return output, {name: y.reshape(*shape, *y.shape[-2:]) for name, (y,) in stages.items()}
