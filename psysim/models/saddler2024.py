"""The auditory nerve in front of PhaseLockNet, Saddler & McDermott (2024).

Known deviations stand in docs/model_cards/saddler2024.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from psysim.errors import SpecError, check_option
from psysim.models.base import register
from psysim.models.nerve_model import NerveModel, centre_frequencies
from psysim.rng import Keys
from psysim.stages.base import check_keys
from psysim.stages.nerve_filters import SlaneyFIRFilterbank
from psysim.stages.nerve_lowpass import PhaseLockingFilter
from psysim.stages.nerve_rates import KneeCompression, RateLevelFunction, Values
from psysim.stages.spikes import SPIKE_MODES, SpikeGenerator, crop_activity

__all__ = ["Saddler2024"]

PRESETS: dict[str, dict[str, Any]] = {
    "word": {"fs_model": 20e3, "max_cf": 8000.0, "crop": ((0, 0), (50, 20000))},
    "localisation": {"fs_model": 50e3, "max_cf": 16000.0, "crop": ((0, 1000), (50, 10000))},
}
RIGHT_EAR = 128
"""What is added to the interval of a key for the spikes of the right ear."""


@register("saddler2024")
class Saddler2024(NerveModel):
    """Auditory nerve of PhaseLockNet: sound in pascal to rates or spike counts of three groups of fibres.

    Gammatone filters (a cascade cut at 50 ms), half-wave rectification, lowpass of the hair cell with decimation (the
    phase-locking limit), rectification, sigmoid rate-level functions of the Hilbert envelope, and, where wanted, spikes
    of all fibres of a group together and a window in time.

    Parameters
    ----------
    fs : float
        Sampling rate of the sound, Hz.
    preset : str
        ``"word"`` (20 kHz, channels up to 8 kHz) or ``"localisation"`` (50 kHz, up to 16 kHz); settles ``fs_model`` and
        ``max_cf`` where they are None.
    limit_hz : float
        Nominal phase-locking limit, Hz; published: 50, 320, 1000, 3000.
    variant : str
        ``"published"``, the limit as the published weights embody it, or ``"corrected"``: see
        `psysim.stages.PhaseLockingFilter`. ``model.cutoff_3db_hz`` says where the limit really is.
    spikes : str
        ``"none"`` (rates), ``"approx"`` (as published), ``"exact"`` or ``"additive"``: see
        `psysim.stages.SpikeGenerator`.
    fs_model : float, optional
        Rate at which the model runs, Hz; sound at another rate is resampled at the door.
    fs_out : float
        Rate of the output, Hz; ``fs_model`` is a whole multiple of it.
    num_cf : int
        Number of channels, equally spaced in ERB number from ``min_cf`` to ``max_cf``.
    min_cf, max_cf : float
        First and last centre frequency, Hz.
    cfs : sequence of float, optional
        The centre frequencies, in place of the three arguments before.
    fir_dur : float
        Duration of all impulse responses, s.
    bw_mult : float or sequence
        Factor on the bandwidths, one for all or (F,): above 1 for the broader tuning of impaired ears.
    threshold_db_spl, dynamic_range_db, rate_spont, rate_max : sequence
        Threshold, dB SPL; dynamic range, dB; spontaneous and maximum rate, spikes/s: one for each group (G,), or for
        each group and channel (G, F). See `psysim.hearing.nerve_losses` for a hearing loss.
    n_fibers : sequence of int
        Fibres in each group (G,), or in each group and channel (G, F); fewer are a synaptopathy.
    envelope_mode : bool
        Level of the Hilbert envelope (published), or of every sample.
    compression_kwargs : dict, optional
        Compression before the rectification: ``power``, ``lower_knee_db_spl``, ``upper_knee_db_spl``; see
        `psysim.stages.KneeCompression`. Published: none.
    filterbank_kwargs : dict, optional
        ``ear_q``, ``min_bw``, ``erb_order``: see `psysim.stages.SlaneyFIRFilterbank`.
    crop_buffer, crop_size : sequence of int, optional
        Channels and samples cut off at both ends, and those of the window kept; see
        `psysim.stages.crop_activity`. Published for localisation: (0, 1000) and (50, 10000) from 1.2 s of sound.
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
    filterbank, compression, ihc, rates, spike_generator : Module
        The stages (compression and spike_generator None where off).

    Raises
    ------
    SpecError
        If an argument is out of range, or groups and channels do not agree.

    References
    ----------
    Saddler & McDermott (2024), Models optimized for real-world tasks reveal the task-dependent necessity of precise
    temporal coding in hearing. Nat. Commun. 15, 10590.

    Examples
    --------
    >>> import torch
    >>> from psysim.rng import Keys
    >>> Saddler2024(fs=20000.0)(torch.zeros(2, 1000)).shape
    torch.Size([2, 3, 50, 500])
    >>> ears = Saddler2024(fs=50000.0, preset="localisation", spikes="exact")
    >>> ears(torch.zeros(1, 2, 1000), Keys.make(seed=1, trial=[0])).shape
    torch.Size([1, 6, 50, 200])
    """

    def __init__(
        self,
        fs: float,
        preset: str = "word",
        limit_hz: float = 3000.0,
        variant: str = "published",
        spikes: str = "none",
        fs_model: float | None = None,
        fs_out: float = 10e3,
        num_cf: int = 50,
        min_cf: float = 60.0,
        max_cf: float | None = None,
        cfs: Sequence[float] | Tensor | None = None,
        fir_dur: float = 0.05,
        bw_mult: float | Sequence[float] | Tensor = 1.0,
        threshold_db_spl: Values = (0.0, 12.0, 28.0),
        dynamic_range_db: Values = (20.0, 40.0, 80.0),
        rate_spont: Values = 0.0,
        rate_max: Values = 250.0,
        n_fibers: Sequence[int] | Sequence[Sequence[int]] | Tensor = (384, 160, 96),
        envelope_mode: bool = True,
        compression_kwargs: Mapping[str, Any] | None = None,
        filterbank_kwargs: Mapping[str, Any] | None = None,
        crop_buffer: Sequence[int] = (0, 0),
        crop_size: Sequence[int] | None = None,
        learnable: bool = False,
        return_stages: bool = False,
        dtype: torch.dtype | str = torch.float32,
    ) -> None:
        check_option("preset", preset, PRESETS)
        check_option("spikes", spikes, ("none", *SPIKE_MODES))
        rate = PRESETS[preset]["fs_model"] if fs_model is None else fs_model
        super().__init__(fs, rate, fs_out, learnable=learnable, return_stages=return_stages, dtype=dtype)
        self.preset, self.limit_hz, self.variant, self.spikes = preset, limit_hz, variant, spikes
        self.num_cf, self.min_cf, self.cfs = num_cf, min_cf, cfs
        self.max_cf = float(PRESETS[preset]["max_cf"] if max_cf is None else max_cf)
        self.fir_dur, self.bw_mult = fir_dur, bw_mult
        self.threshold_db_spl, self.dynamic_range_db = threshold_db_spl, dynamic_range_db
        self.rate_spont, self.rate_max, self.n_fibers = rate_spont, rate_max, n_fibers
        self.envelope_mode = bool(envelope_mode)
        knees = ("power", "lower_knee_db_spl", "upper_knee_db_spl")
        self.compression_kwargs = None
        if compression_kwargs is not None:
            self.compression_kwargs = check_keys("compression_kwargs", compression_kwargs, knees)
        self.filterbank_kwargs = check_keys("filterbank_kwargs", filterbank_kwargs, ("ear_q", "min_bw", "erb_order"))
        self.crop_buffer = (int(crop_buffer[0]), int(crop_buffer[1]))
        self.crop_size = None if crop_size is None else (int(crop_size[0]), int(crop_size[1]))
        self._build()

    def _build(self) -> None:
        common: dict[str, Any] = {"learnable": self.learnable, "dtype": self.dtype}
        centres = centre_frequencies(self.cfs, self.num_cf, self.min_cf, self.max_cf)
        self.filterbank = SlaneyFIRFilterbank(
            centres, self.fs_model, self.fir_dur, bw_mult=self.bw_mult, **self.filterbank_kwargs, **common
        )
        self.compression = None
        if self.compression_kwargs is not None:
            self.compression = KneeCompression(**self.compression_kwargs, **common)
        self.ihc = PhaseLockingFilter(
            self.fs_model, self.fs_out, self.limit_hz, fir_dur=self.fir_dur, variant=self.variant, **common
        )
        self.rates = RateLevelFunction(
            self.threshold_db_spl,
            self.dynamic_range_db,
            self.rate_spont,
            self.rate_max,
            envelope_mode=self.envelope_mode,
            **common,
        )
        channels = {self.rates.threshold_db_spl.shape[1], self.rates.dynamic_range_db.shape[1]}
        channels |= {self.rates.rate_spont.shape[1], self.rates.rate_max.shape[1]}
        mode = "approx" if self.spikes == "none" else self.spikes
        fibers = SpikeGenerator(self.fs_out, self.n_fibers, mode, dtype=self.dtype)
        groups, columns = fibers.n_fibers.shape
        if not channels | {columns} <= {1, self.num_channels} or groups != self.n_groups:
            raise SpecError(
                f"There are {self.n_groups} groups and {self.num_channels} channels, but n_fibers has shape "
                f"({groups}, {columns}) and the rate-level functions are for {max(channels)} channels."
            )
        self.spike_generator = None if self.spikes == "none" else fibers

    @staticmethod
    def published_crop(preset: str) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return ``crop_buffer`` and ``crop_size`` of the published networks for ``"word"`` or ``"localisation"``."""
        check_option("preset", preset, PRESETS)
        return PRESETS[preset]["crop"]

    def forward(self, audio: Tensor, keys: Keys | None = None) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Return firing rates, or spike counts if the model has spikes.

        Parameters
        ----------
        audio : Tensor (T,), (B, T) or (B, 2, T)
            Sound in pascal; (B, 2, T) for two ears, left first. A sample that is not finite makes its own row NaN.
        keys : Keys (B,), optional
            Names of the random numbers of spikes and of a crop with more than one place, one per row; () for (T,).

        Returns
        -------
        Tensor (B, G, F, T'), (G, F, T') for (T,), (B, 2 G, F, T') for two ears
            Rates in spikes/s, or counts per sample, at ``fs_out``; with two ears the groups of the left, then of the
            right.
        dict of str to Tensor
            Only with ``return_stages``: ``subbands`` (B, F, T) at ``fs_model`` and ``ihc`` (B, F, T'), pascal, with two
            ears (B, 2, ...); ``rates``, all before the crop.

        Raises
        ------
        SpecError
            If ``audio`` is no floating tensor of such a shape with at least one sample, or keys are wrong or missing.
        """
        batch = self.enter(audio, (1, 2, 3), self._shapes(), "audio")
        single = batch.ndim == 1
        batch = batch.unsqueeze(0) if single else batch
        names = keys.reshape(1) if keys is not None and single and keys.shape == () else keys
        if names is not None and names.shape != batch.shape[:1]:
            raise SpecError(f"keys have shape {tuple(names.shape)}, but there must be one per row: ({len(batch)},).")
        stages: dict[str, list[Tensor]] | None = {} if self.return_stages else None
        rates = self._analyse(batch, stages)
        output = rates if self.spike_generator is None else self._spikes(self.spike_generator, rates, names)
        if self.crop_size is not None:
            output = crop_activity(output, self.crop_buffer, self.crop_size, names)
        output = output.squeeze(0) if single else output
        if stages is None:
            return output
        named = {name: y.reshape(*batch.shape[:-1], *y.shape[-2:]) for name, (y,) in stages.items()} | {"rates": rates}
        return output, {name: y.squeeze(0) if single else y for name, y in named.items()}

    def _spikes(self, generator: SpikeGenerator, rates: Tensor, keys: Keys | None) -> Tensor:
        """Return counts for rates (B, ears x G, F, T'); the right ear's keys have other intervals."""
        if keys is None:
            raise SpecError(f'A model with spikes = "{self.spikes}" needs keys: one per row (psysim.rng.Keys).')
        ears = rates.shape[1] // self.n_groups
        interval = keys.interval[:, None] + RIGHT_EAR * torch.arange(ears, device=keys.device)
        names = keys.unsqueeze(-1).replace(interval=interval).flatten()
        counts = generator(rates.reshape(-1, self.n_groups, *rates.shape[2:]), names)
        return counts.reshape(rates.shape)

    def _wide(self, arguments: dict[str, Any]) -> list[str]:
        grouped = ("threshold_db_spl", "dynamic_range_db", "rate_spont", "rate_max", "n_fibers")
        wide = [name for name in grouped if isinstance(arguments[name], list) and isinstance(arguments[name][0], list)]
        for name, value in (("bw_mult", self.bw_mult), ("power", (self.compression_kwargs or {}).get("power"))):
            if value is not None and torch.as_tensor(value).numel() > 1:
                wide.append(name)
        return wide
