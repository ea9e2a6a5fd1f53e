"""Binaural loudness of time-varying sounds, Moore, Glasberg, Varathanathan & Schlittenlacher (2016)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from psysim.errors import SpecError, check_option
from psysim.models.base import Model, Representation, register
from psysim.stages.base import check_keys
from psysim.stages.loudness_ear import LoudnessEarFilter, LoudnessResampler
from psysim.stages.loudness_spectrum import N_FFT
from psysim.stages.loudness_tables import FS
from psysim.stages.moore2016_excitation import Matrices, Moore2016ExcitationPattern
from psysim.stages.moore2016_loudness import (
    Moore2016AGC,
    Moore2016BinauralLoudness,
    Moore2016SpecificLoudness,
    sone_to_phon,
)
from psysim.stages.moore2016_spectrum import Moore2016Spectrum

__all__ = ["Moore2016"]

EAR_KEYS = ("field_type", "compensation_type", "transfer")
SPECTRUM_KEYS = ("db_max", "hop_length", "n_windows", "segment_duration")
EXCITATION_KEYS = ("erb_lower", "erb_upper", "erb_step", "spreading_limit_octaves")
SPECIFIC_KEYS = ("C",)
INTEGRATION_KEYS = ("stl_attack", "stl_release", "ltl_attack", "ltl_release", "attack_alpha", "release_alpha")
BINAURAL_KEYS = ("kernel_width", "sigma", "p")
AGC_KEYS = ("attack_alpha", "release_alpha")
SIDES = ("left", "right")
BLOCK = 256  # frames
SHAPES = "(B, 2, T), (2, T) or (T,)"


@register("moore2016")
class Moore2016(Model):
    """Binaural loudness model for time-varying sounds: sound at both ears in pascal to loudness in sone.

    Outer and middle ear, sparse running spectrum (six windows, every millisecond), excitation pattern, specific
    loudness, smoothing in time, inhibition between the ears, long-term loudness. 1 kHz at 40 dB SPL in the free field,
    heard with both ears, is 1 sone.

    Parameters
    ----------
    fs : int
        Sampling rate of the sound, a whole number of Hz. Other rates than 32000 are resampled at the door.
    learnable : bool
        Make the published constants of every stage trainable (float64 parameters).
    return_stages : bool
        `forward` also returns a dictionary of the intermediate stages.
    dtype : torch.dtype
        torch.float32 or torch.float64. The ear filter is computed in float64 in both.
    outer_middle_ear_kwargs : dict, optional
        ``field_type`` (``"free"``, ``"diffuse"``, ``"eardrum"``), ``transfer`` (a table of frequency in Hz and gain in
        dB up to the eardrum, in place of the field), ``compensation_type`` (``"tfOuterMiddle2007"`` only).
    spectrum_kwargs : dict, optional
        ``db_max``, ``hop_length`` or ``segment_duration``, ``n_windows``: see `psysim.stages.Moore2016Spectrum`.
    excitation_kwargs : dict, optional
        ``erb_lower``, ``erb_upper``, ``erb_step`` (channels of all stages), ``spreading_limit_octaves``: see
        `psysim.stages.Moore2016ExcitationPattern`.
    specific_loudness_kwargs : dict, optional
        ``C``: see `psysim.stages.Moore2016SpecificLoudness`.
    temporal_integration_kwargs : dict, optional
        ``stl_attack``, ``stl_release`` (or ``attack_alpha``, ``release_alpha``), ``ltl_attack``, ``ltl_release``:
        shares per millisecond; see `psysim.stages.Moore2016TemporalIntegration`.
    binaural_loudness_kwargs : dict, optional
        ``kernel_width``, ``sigma``, ``p``: see `psysim.stages.Moore2016BinauralLoudness`.
    ltl_agc_kwargs : dict, optional
        ``attack_alpha``, ``release_alpha`` of the long-term loudness; these win over ``temporal_integration_kwargs``.
    ohc_loss_db, ihc_loss_db : float or sequence, optional
        Loss of outer and inner hair cells in dB: one for all channels, one per channel (F,), or one per ear, (2,) or
        (2, F), left first. `psysim.hearing.loudness_losses` makes them from an audiogram.

    Attributes
    ----------
    fc : Tensor (F,)
        Centre frequencies of the channels, Hz.
    resampler, ear, spectrum, excitation, specific_loudness, stl_agc, binaural, ltl_agc : Module
        The stages (resampler None at 32 kHz).

    Raises
    ------
    SpecError
        If an argument is out of range or an option is not known.

    References
    ----------
    Moore, Glasberg, Varathanathan & Schlittenlacher (2016), Trends Hear. 20, 1-16; releases of Moore, Jervis, Harries &
    Schlittenlacher (2018), J. Acoust. Soc. Am. 143, 1504-1513.

    Examples
    --------
    >>> import math, torch
    >>> tone = math.sqrt(2) * 2e-3 * torch.sin(2e3 * math.pi * torch.arange(32000) / 32000)  # 1 kHz, 40 dB SPL
    >>> short, long, maximum = Moore2016()(torch.stack([tone, tone])[None])
    >>> short.shape, round(short[0, 500].item(), 2), round(maximum.item(), 2)
    (torch.Size([1, 1001]), 1.0, 1.0)
    """

    def __init__(
        self,
        fs: int = 32000,
        learnable: bool = False,
        return_stages: bool = False,
        dtype: torch.dtype | str = torch.float32,
        outer_middle_ear_kwargs: dict[str, Any] | None = None,
        spectrum_kwargs: dict[str, Any] | None = None,
        excitation_kwargs: dict[str, Any] | None = None,
        specific_loudness_kwargs: dict[str, Any] | None = None,
        temporal_integration_kwargs: dict[str, Any] | None = None,
        binaural_loudness_kwargs: dict[str, Any] | None = None,
        ltl_agc_kwargs: dict[str, Any] | None = None,
        *,
        ohc_loss_db: float | Sequence[float] | Sequence[Sequence[float]] | Tensor | None = None,
        ihc_loss_db: float | Sequence[float] | Sequence[Sequence[float]] | Tensor | None = None,
    ) -> None:
        super().__init__(fs, learnable=learnable, dtype=dtype)
        self.return_stages = bool(return_stages)
        self.outer_middle_ear_kwargs = check_keys("outer_middle_ear_kwargs", outer_middle_ear_kwargs, EAR_KEYS)
        self.spectrum_kwargs = check_keys("spectrum_kwargs", spectrum_kwargs, SPECTRUM_KEYS)
        self.excitation_kwargs = check_keys("excitation_kwargs", excitation_kwargs, EXCITATION_KEYS)
        self.specific_loudness_kwargs = check_keys("specific_loudness_kwargs", specific_loudness_kwargs, SPECIFIC_KEYS)
        self.temporal_integration_kwargs = check_keys(
            "temporal_integration_kwargs", temporal_integration_kwargs, INTEGRATION_KEYS
        )
        self.binaural_loudness_kwargs = check_keys("binaural_loudness_kwargs", binaural_loudness_kwargs, BINAURAL_KEYS)
        self.ltl_agc_kwargs = check_keys("ltl_agc_kwargs", ltl_agc_kwargs, AGC_KEYS)
        self.ohc_loss_db, self.ihc_loss_db = ohc_loss_db, ihc_loss_db
        self._build()

    def _build(self) -> None:
        common: dict[str, Any] = {"learnable": self.learnable, "dtype": self.dtype}
        self.resampler = None if self.fs == FS else LoudnessResampler(self.fs, dtype=self.dtype)
        ear = dict(self.outer_middle_ear_kwargs)
        check_option("compensation_type", ear.pop("compensation_type", "tfOuterMiddle2007"), ("tfOuterMiddle2007",))
        self.ear = LoudnessEarFilter(field=ear.pop("field_type", "free"), **ear, **common)
        self.spectrum = Moore2016Spectrum(**self.spectrum_kwargs, **common)
        self.excitation = Moore2016ExcitationPattern(**self.excitation_kwargs, **common)
        channels = {k: v for k, v in self.excitation_kwargs.items() if k.startswith("erb_")}
        losses: dict[str, Any] = {"ohc_loss_db": self.ohc_loss_db, "ihc_loss_db": self.ihc_loss_db}
        self.specific_loudness = Moore2016SpecificLoudness(
            **self.specific_loudness_kwargs, **channels, **losses, **common
        )
        frames: dict[str, Any] = {"hop_length": self.spectrum.hop_length}
        given = self.temporal_integration_kwargs
        for short, name in (("attack_alpha", "stl_attack"), ("release_alpha", "stl_release")):
            if short in given and name in given:
                raise SpecError(f"temporal_integration_kwargs: {short} and {name} say the same thing: give one.")
        attack = given.get("stl_attack", given.get("attack_alpha", 0.045))
        release = given.get("stl_release", given.get("release_alpha", 0.033))
        long = {"attack_alpha": given.get("ltl_attack", 0.01), "release_alpha": given.get("ltl_release", 0.00133)}
        self.stl_agc = Moore2016AGC(attack, release, **frames, **common)
        step = self.excitation.erb_step
        self.binaural = Moore2016BinauralLoudness(**self.binaural_loudness_kwargs, erb_step=step, **common)
        self.ltl_agc = Moore2016AGC(**(long | self.ltl_agc_kwargs), **frames, **common)

    @property
    def fc(self) -> Tensor:
        """Centre frequencies (F,), Hz, float64."""
        return self.excitation.fc

    @property
    def fs_out(self) -> float:
        """Rate of the frames, Hz."""
        return FS / self.spectrum.hop_length

    def get_parameters(self) -> dict[str, Tensor]:
        """Return the trainable parameters by name; an empty dictionary unless ``learnable``."""
        return dict(self.named_parameters())

    def forward(
        self, audio: Tensor
    ) -> tuple[Tensor, Tensor, Tensor] | tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """Return short-term, long-term and maximum long-term loudness.

        Parameters
        ----------
        audio : Tensor (B, 2, T), (2, T) or (T,)
            Sound in pascal, left ear first; (B, 1, T) and (T,) are heard by both ears. A sample that is not finite
            makes its own sound's output NaN.

        Returns
        -------
        short_term, long_term : Tensor (B, frames), or (frames,) without B
            Loudness, sone, every millisecond; frame k belongs to k ms, there are T // 32 + 1 at 32 kHz.
        maximum : Tensor (B,), or ()
            Maximum over frames of the long-term loudness, sone.
        dict of str to Tensor
            Only with ``return_stages``; every name ends in ``_left`` and in ``_right``: ``filtered`` (B, T + 2048),
            pascal; ``freqs``, ``levels`` (B, frames, 960), Hz and dB, 0 and -inf where a component is not kept;
            ``excitation`` (B, frames, F), dB; ``inst_spec_loud``, ``stl_spec_loud`` (B, frames, F), sone/Cam, before
            the inhibition; ``stl_loud``, ``ltl_loud`` (B, frames), the ear's part of the loudness, sone.

        Raises
        ------
        SpecError
            If ``audio`` is no floating tensor of such a shape with at least one sample.
        """
        batch = self.enter(audio, (1, 2, 3), SHAPES, "audio")
        single = batch.ndim < 3
        batch = batch.reshape((1,) * (3 - batch.ndim) + tuple(batch.shape))
        stages: dict[str, list[Tensor]] | None = {} if self.return_stages else None
        parts = self._parts(batch, stages)
        long_parts = self.ltl_agc.along_last(parts)
        short, long = parts[:, 0] + parts[:, 1], long_parts[:, 0] + long_parts[:, 1]
        outputs = tuple(value[0] if single else value for value in (short, long, long.amax(-1)))
        if stages is None:
            return outputs  # type: ignore[return-value]
        both = {name: torch.stack(value) for name, value in stages.items()}
        both |= {"stl_loud": parts, "ltl_loud": long_parts}
        named = {f"{name}_{side}": value[:, i] for name, value in both.items() for i, side in enumerate(SIDES)}
        return *outputs, {k: v[0] if single else v for k, v in named.items()}  # type: ignore[return-value]

    def loudness(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Return short-term and long-term loudness (B, frames), sone, for ``audio`` (B, T), diotic, or (B, 2, T)."""
        parts = self._parts(self._diotic(audio), None)
        return parts.sum(1), self.ltl_agc.along_last(parts).sum(1)

    def represent(self, audio: Tensor) -> Representation:
        """Return the short-term specific loudness of both ears together (B, F, 1, frames), sone/Cam.

        Its sum over channels times the distance of channels (0.25 Cam) is the short-term loudness. ``audio`` is
        (B, 2, T), or (B, T) or (T,) for sounds heard by both ears, in pascal: unlike `forward`, which takes two
        dimensions as the two ears.
        """
        values = torch.stack([ears.sum(0).T for ears in self._sounds(self._diotic(audio), None)]).unsqueeze(2)
        valid = torch.ones(len(self.fc), 1, dtype=torch.bool, device=self.device)
        return Representation(values, valid, self.fc, self.fc.new_zeros(1), self.fs_out)

    def _diotic(self, audio: Tensor) -> Tensor:
        batch = self.enter(audio, (1, 2, 3), "(B, 2, T), (B, T) or (T,)", "audio")
        return batch if batch.ndim == 3 else batch.reshape(-1, 1, batch.shape[-1])

    def _parts(self, x: Tensor, stages: dict[str, list[Tensor]] | None) -> Tensor:
        """Return the short-term loudness from each ear (B, 2, frames), sone."""
        return torch.stack([self.excitation.erb_step * ears.sum(-1) for ears in self._sounds(x, stages)])

    def _sounds(self, x: Tensor, stages: dict[str, list[Tensor]] | None) -> Iterator[Tensor]:
        """Give the inhibited short-term specific loudness (2, frames, F) of each sound of ``x`` (B, 1 or 2, T).

        One sound at a time, and of it `BLOCK` frames: the spectra of a second would take 8 MB per ear in float64, and a
        sound's bits do not depend on the batch.
        """
        if x.shape[1] not in (1, 2):
            raise SpecError(f"audio has shape {tuple(x.shape)}, but must have shape {SHAPES}.")
        bases, matrices = self.spectrum.bases(), self.excitation.matrices()
        for row in x:
            yield self._sound(row, bases, matrices, stages)

    def _sound(
        self,
        x: Tensor,
        bases: list[Tensor],
        matrices: Matrices,
        stages: dict[str, list[Tensor]] | None,
    ) -> Tensor:
        """Return the inhibited short-term specific loudness (2, frames, F) of one sound (1 or 2, T)."""
        x = x.clone(memory_format=torch.contiguous_format)
        x = x if self.resampler is None else self.resampler(x)
        y = self.ear.filtered(x)
        padded = y.to(self.dtype)
        n_frames, hop = self.spectrum.n_frames(x.shape[-1]), self.spectrum.hop_length
        blocks, spectra = [], []
        for first in range(0, n_frames, BLOCK):  # what is in work stays in the second-level cache
            samples = (min(BLOCK, n_frames - first) - 1) * hop + N_FFT
            part = self.spectrum.intensities(padded[:, first * hop : first * hop + samples], bases)
            blocks.append(self.excitation.of_bins(part.flatten(0, 1), matrices).reshape(*part.shape[:2], -1))
            if stages is not None:
                spectra.append(part)
        excitation = torch.cat(blocks, dim=1)
        specific = self.specific_loudness.of_excitation(excitation)
        short = self.stl_agc.along_last(specific.transpose(1, 2).contiguous()).transpose(1, 2)
        short = short.expand(2, -1, -1)  # one channel: both ears hear it
        if stages is not None:
            freqs, levels = self.spectrum.components(torch.cat(spectra, dim=1))
            values = {"filtered": padded, "freqs": freqs, "levels": levels}
            values |= {"excitation": self.excitation.level_db(excitation), "inst_spec_loud": specific}
            for name, value in (values | {"stl_spec_loud": short}).items():
                stages.setdefault(name, []).append(value.expand(2, *value.shape[1:]))
        return torch.stack(self.binaural.specific(short[0], short[1]))

    def compute_loudness_level(self, loudness: Tensor) -> Tensor:
        """Return the loudness level in phon of ``loudness`` in sone (any shape), by the model's table."""
        return sone_to_phon(self.enter(loudness, tuple(range(9)), "any", "loudness"))

    def bytes_per_interval(self, n_samples: int) -> int:
        """Return an estimate of the memory in bytes that `represent` needs per row of ``n_samples``.

        The spectrum is not in it: it exists for one sound at a time.
        """
        frames = n_samples / self.fs * self.fs_out
        size = 8 if self.dtype == torch.float64 else 4
        return math.ceil(size * (6 * (frames + 1e-9) * len(self.fc) + 2 * n_samples))
