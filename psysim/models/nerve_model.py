"""What the two auditory-nerve models share: from sound to firing rates, some channels at a time."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from psysim.errors import SpecError, check_range
from psysim.models.base import Model, Representation
from psysim.stages.band_limited import BandLimitedResampler
from psysim.stages.base import check_sample_rate
from psysim.stages.fir import fft_length
from psysim.stages.nerve_filters import FIRFilterbank, erb_spaced
from psysim.stages.nerve_lowpass import PhaseLockingFilter
from psysim.stages.nerve_rates import KneeCompression, RateLevelFunction

__all__ = ["NerveModel", "centre_frequencies"]

SAMPLES_AT_ONCE = 2**20
"""Samples of all channels that are in work together: more fall out of the cache, fewer cost calls (measured)."""


def centre_frequencies(cfs: object, num_cf: int, min_cf: float, max_cf: float) -> Tensor:
    """Return the centre frequencies (F,), Hz: ``cfs`` where given, else equally spaced in ERB number."""
    if cfs is None:
        return erb_spaced(min_cf, max_cf, num_cf)
    return torch.as_tensor(cfs, dtype=torch.float64).detach().reshape(-1)


class NerveModel(Model):
    """Filterbank, compression (optional), rectification, lowpass with decimation, rectification, rate-level functions.

    Parameters
    ----------
    fs : float
        Sampling rate of the sound, Hz.
    fs_model : float
        Rate at which the model runs, Hz; sound at another rate is resampled at the door.
    fs_out : float
        Rate of the firing rates, Hz.
    learnable : bool
        Make the published constants of every stage trainable.
    return_stages : bool
        `forward` also returns the intermediate stages.
    dtype : torch.dtype
        torch.float32 or torch.float64.
    """

    filterbank: FIRFilterbank
    compression: KneeCompression | None
    ihc: PhaseLockingFilter
    rates: RateLevelFunction

    def __init__(
        self,
        fs: float,
        fs_model: float,
        fs_out: float,
        learnable: bool,
        return_stages: bool,
        dtype: torch.dtype | str,
    ) -> None:
        super().__init__(fs, learnable=learnable, dtype=dtype)
        self.fs_model, self.fs_out = check_sample_rate(fs_model), check_sample_rate(fs_out)
        self.return_stages = bool(return_stages)
        self.resampler = None
        if self.fs != self.fs_model:
            self.resampler = BandLimitedResampler(self.fs, self.fs_model, dtype=self.dtype)

    @property
    def fc(self) -> Tensor:
        """Centre frequencies (F,), Hz, float64."""
        return self.filterbank.fc

    @property
    def num_channels(self) -> int:
        """Number of channels F."""
        return self.filterbank.num_channels

    @property
    def n_groups(self) -> int:
        """Number of groups of fibres."""
        return self.rates.n_groups

    @property
    def cutoff_3db_hz(self) -> float:
        """The real phase-locking limit: frequency at which the lowpass has -3 dB, Hz."""
        return self.ihc.cutoff_3db_hz

    def represent(self, audio: Tensor) -> Representation:
        """Return the firing rates (B, F, M, T'), spikes/s, of ``audio`` (B, T) in pascal; (T,) counts as one row.

        M are the groups of fibres; ``mfc`` is 0. For two ears, audio (B, 2, T): the groups of the left ear, then those
        of the right.
        """
        batch = self.enter(audio, (1, 2, 3), self._shapes(), "audio")
        values = self._analyse(batch, None).transpose(1, 2).contiguous()
        valid = torch.ones(values.shape[1:3], dtype=torch.bool, device=self.device)
        return Representation(values, valid, self.fc, self.fc.new_zeros(values.shape[2]), self.fs_out)

    def _shapes(self) -> str:
        return "(T,), (B, T) or (B, 2, T)"

    def _analyse(self, x: Tensor, stages: dict[str, list[Tensor]] | None) -> Tensor:
        """Return rates (B, ears x G, F, T') of ``x`` (T,), (B, T) or (B, 2, T); put other stages into ``stages``."""
        if x.ndim == 3 and x.shape[1] != 2:
            raise SpecError(f"audio has shape {tuple(x.shape)}, but must have shape {self._shapes()}.")
        ears = 2 if x.ndim == 3 else 1
        rows = x.reshape(-1, x.shape[-1])
        rows = rows if self.resampler is None else self.resampler(rows)
        rates = self._rates(rows, stages)
        return rates.reshape(-1, ears * self.n_groups, *rates.shape[2:])

    def _rates(self, rows: Tensor, stages: dict[str, list[Tensor]] | None) -> Tensor:
        """Return rates (R, G, F, T') of sounds (R, T) at ``fs_model``."""
        n = rows.shape[-1]
        bank, lowpass, to_rates = self.filterbank, self.ihc.prepare(n), self.rates.prepare()
        responses = bank.response(fft_length(n + bank.n_taps - 1))
        step = max(1, SAMPLES_AT_ONCE // (2 * responses.shape[-1])) if self.compression is None else self.num_channels
        whole = None if self._gradient_wanted(rows) else rows.new_empty(len(rows), *self._shape_of(n))
        collected = []
        for i, row in enumerate(rows):
            spectrum = bank.spectrum(row.clone())
            parts = []
            for first in range(0, self.num_channels, step):
                y = bank.channels(spectrum, responses[first : first + step], n)
                kept = {"subbands": y}
                y = torch.relu(y if self.compression is None else self.compression(y))
                # Rounding makes small negative numbers of zeros, and a corrected lowpass may have negative taps
                y = torch.relu(lowpass(y))
                kept["ihc"] = y
                parts.append(to_rates(y, first, None if whole is None else whole[i, :, first : first + step]))
                for name, value in kept.items() if stages is not None else ():
                    stages.setdefault(name, []).append(value)  # type: ignore[union-attr]
            if whole is None:
                collected.append(torch.cat(parts, dim=1))
        for name, blocks in stages.items() if stages is not None else ():
            each = len(blocks) // len(rows)
            stages[name] = [torch.stack([torch.cat(blocks[i : i + each]) for i in range(0, len(blocks), each)])]  # type: ignore[index]
        return torch.stack(collected) if whole is None else whole

    def _shape_of(self, n_samples: int) -> tuple[int, int, int]:
        """Return the shape of the rates (G, F, T') of a sound of ``n_samples`` at ``fs_model``."""
        return self.n_groups, self.num_channels, -(-n_samples // self.ihc.stride)

    def bytes_per_interval(self, n_samples: int) -> int:
        """Return an estimate of the memory in bytes that `represent` needs at its peak per row of ``n_samples``."""
        seconds = n_samples / self.fs
        # The rates twice, once in another order, and four signals at the rate of the model
        samples = self.num_channels * seconds * (2.0 * self.n_groups * self.fs_out + 4.0 * self.fs_model)
        return round(samples * (8 if self.dtype == torch.float64 else 4)) + 1

    def restricted(self, frequency_hz: float) -> Self:
        """Return the same model with the one channel at ``frequency_hz``, on the same device."""
        check_range("frequency_hz", frequency_hz, 0.0, self.fs_model / 2, unit="Hz", low_open=True)
        arguments: dict[str, Any] = self.parameters_dict()
        wide = self._wide(arguments)
        if wide:
            raise SpecError(
                f"One value per channel ({', '.join(wide)}): the model cannot be restricted to one channel."
            )
        arguments["cfs"] = [float(frequency_hz)]
        return type(self)(**arguments).to(self.device)

    def _wide(self, arguments: dict[str, Any]) -> list[str]:
        """Return the names of the ``arguments``, JSON-able, that have one value per channel."""
        names = ("bw_mult", "threshold_db_spl", "dynamic_range_db", "rate_spont", "rate_max")
        return [name for name in names if isinstance(arguments[name], list) and len(arguments[name]) > 1]
