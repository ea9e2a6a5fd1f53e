"""Loudness of time-varying sounds, Glasberg & Moore (2002)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from psysim.errors import SpecError, check_option, check_range
from psysim.models.base import Model, Representation, register
from psysim.stages.base import check_keys
from psysim.stages.loudness import LoudnessIntegration, SpecificLoudness
from psysim.stages.loudness_ear import LoudnessEarFilter, LoudnessResampler
from psysim.stages.loudness_excitation import ERBIntegration, ExcitationPattern, excitation_level_db
from psysim.stages.loudness_spectrum import N_FFT, RULES, MultiResolutionFFT
from psysim.stages.loudness_tables import FS
from psysim.units import P_REF, db_spl_to_pascal

__all__ = ["Glasberg2002"]

FFT_KEYS = ("window_lengths", "hop_fraction", "hop_length", "calibration_db")
ERB_KEYS = ("f_min", "f_max", "erb_step", "n_bands", "bandwidth_scale")
EXCITATION_KEYS = ("upper_slope_base", "upper_slope_per_db", "lower_slope_base", "lower_slope_per_db")
SPECIFIC_KEYS = ("C", "alpha", "E0", "high_level")
INTEGRATION_KEYS = ("tau_attack", "tau_release", "stl_tau_attack", "stl_tau_release", "presentation")
EAR_KEYS = ("field", "middle_ear", "transfer")
STEVENS = "stevens"
BLOCK = 128  # frames
Weights = tuple[Tensor, Tensor | None] | None


@register("glasberg2002")
class Glasberg2002(Model):
    """Loudness model for time-varying sounds: sound in pascal to long-term loudness in sone.

    Outer and middle ear, running spectrum (six windows, every millisecond), level per ERB, excitation pattern, specific
    loudness, sum over channels and ears, short-term and long-term loudness. A sound with one channel is heard by both
    ears. 1 kHz at 40 dB SPL in the free field is 0.993 sone.

    Parameters
    ----------
    fs : int
        Sampling rate of the sound, a whole number of Hz. Other rates than 32000 are resampled at the door.
    learnable : bool
        Make the published constants of every stage trainable (float64 parameters).
    return_stages : bool
        `forward` also returns a dictionary of the intermediate stages.
    multi_fft_kwargs : dict, optional
        ``window_lengths``, ``hop_fraction`` or ``hop_length``, ``calibration_db``: see
        `psysim.stages.MultiResolutionFFT`.
    erb_kwargs : dict, optional
        ``f_min``, ``f_max``, ``erb_step`` or ``n_bands`` (channels of all stages), ``bandwidth_scale``: see
        `psysim.stages.ERBIntegration`.
    excitation_kwargs : dict, optional
        ``upper_slope_base``, ``upper_slope_per_db``, ``lower_slope_base``, ``lower_slope_per_db``: see
        `psysim.stages.ExcitationPattern`.
    specific_loudness_kwargs : dict, optional
        ``C``, ``alpha``, ``high_level``: see `psysim.stages.SpecificLoudness`.
    loudness_integration_kwargs : dict, optional
        ``tau_attack``, ``tau_release``, ``stl_tau_attack``, ``stl_tau_release`` in s, ``presentation`` (``"diotic"`` or
        ``"monotic"``): see `psysim.stages.LoudnessIntegration`.
    ear_kwargs : dict, optional
        ``field`` (``"free"``, ``"diffuse"``, ``"eardrum"``), ``middle_ear``, ``transfer`` (a table of frequency in Hz
        and gain in dB up to the eardrum): see `psysim.stages.LoudnessEarFilter`.
    ohc_loss_db, ihc_loss_db : float or sequence, optional
        Loss of outer and inner hair cells in dB, one for all channels or one per channel; `psysim.hearing` makes them
        from an audiogram.
    dead_regions_hz : sequence of (low, high), optional
        Ranges of centre frequencies without inner hair cells.
    preset : str
        ``"published"``, or ``"amt"``: the arithmetic of the Auditory Modeling Toolbox's ``glasberg2002``, which misses
        the reference pressure and yields loudness of 1e-20 sone; for comparison only.
    dtype : torch.dtype
        torch.float32 or torch.float64. The spectrum is computed in float64 in both.

    Attributes
    ----------
    fc : Tensor (F,)
        Centre frequencies of the channels, Hz.
    resampler, ear, multi_fft, erb_integration, excitation, specific_loudness, integration : Module
        The stages (resampler None at 32 kHz).

    Raises
    ------
    SpecError
        If an argument is out of range or an option is not known.

    References
    ----------
    Glasberg & Moore (2002), J. Audio Eng. Soc. 50, 331-342; Moore, Glasberg & Baer (1997), J. Audio Eng. Soc. 45,
    224-240; ANSI S3.4-2007.

    Examples
    --------
    >>> import math, torch
    >>> tone = math.sqrt(2) * 2e-3 * torch.sin(2e3 * math.pi * torch.arange(32000) / 32000)  # 1 kHz, 40 dB SPL
    >>> model = Glasberg2002(return_stages=True)
    >>> loudness, stages = model(tone[None])
    >>> loudness.shape, round(stages["stl"][0, 500].item(), 2)
    (torch.Size([1, 1001]), 0.99)
    >>> list(stages)
    ['stl', 'specific_loudness', 'excitation', 'erb_excitation', 'psd', 'freqs']
    >>> round(model.compute_loudness_level(stages["stl"])[0, 500].item(), 1)
    40.0
    """

    def __init__(
        self,
        fs: int = 32000,
        learnable: bool = False,
        return_stages: bool = False,
        multi_fft_kwargs: dict[str, Any] | None = None,
        erb_kwargs: dict[str, Any] | None = None,
        excitation_kwargs: dict[str, Any] | None = None,
        specific_loudness_kwargs: dict[str, Any] | None = None,
        loudness_integration_kwargs: dict[str, Any] | None = None,
        *,
        ear_kwargs: dict[str, Any] | None = None,
        ohc_loss_db: float | Sequence[float] | Tensor | None = None,
        ihc_loss_db: float | Sequence[float] | Tensor | None = None,
        dead_regions_hz: Sequence[Sequence[float]] | None = None,
        preset: str = "published",
        dtype: torch.dtype | str = torch.float32,
    ) -> None:
        super().__init__(fs, learnable=learnable, dtype=dtype)
        check_option("preset", preset, RULES)
        self.preset = preset
        self.return_stages = bool(return_stages)
        self.multi_fft_kwargs = check_keys("multi_fft_kwargs", multi_fft_kwargs, FFT_KEYS)
        self.erb_kwargs = check_keys("erb_kwargs", erb_kwargs, ERB_KEYS)
        self.excitation_kwargs = check_keys("excitation_kwargs", excitation_kwargs, EXCITATION_KEYS)
        self.specific_loudness_kwargs = check_keys("specific_loudness_kwargs", specific_loudness_kwargs, SPECIFIC_KEYS)
        self.loudness_integration_kwargs = check_keys(
            "loudness_integration_kwargs", loudness_integration_kwargs, INTEGRATION_KEYS
        )
        self.ear_kwargs = check_keys("ear_kwargs", ear_kwargs, EAR_KEYS)
        self.ohc_loss_db, self.ihc_loss_db, self.dead_regions_hz = ohc_loss_db, ihc_loss_db, dead_regions_hz
        self._build()
        self._steady: tuple[Any, float, float] | None = None

    def _build(self) -> None:
        common: dict[str, Any] = {"learnable": self.learnable, "dtype": self.dtype, "rule": self.preset}
        self.resampler = None if self.fs == FS else LoudnessResampler(self.fs, dtype=self.dtype)
        self.ear = LoudnessEarFilter(**({"middle_ear": "glasberg2002"} | self.ear_kwargs), **common)
        self.multi_fft = MultiResolutionFFT(**self.multi_fft_kwargs, **common)
        channels = {key: value for key, value in self.erb_kwargs.items() if key != "bandwidth_scale"}
        self.erb_integration = ERBIntegration(**self.erb_kwargs, **common)
        self.excitation = ExcitationPattern(**channels, **self.excitation_kwargs, **common)
        losses = {"ohc_loss_db": self.ohc_loss_db, "ihc_loss_db": self.ihc_loss_db}
        losses["dead_regions_hz"] = self.dead_regions_hz  # type: ignore[assignment]
        self.specific_loudness = SpecificLoudness(**channels, **self.specific_loudness_kwargs, **losses, **common)  # type: ignore[arg-type]
        frames: dict[str, Any] = {"hop_length": self.multi_fft.hop_length, "erb_step": self.erb_integration.erb_step}
        self.integration = LoudnessIntegration(**self.loudness_integration_kwargs, **frames, **common)

    @property
    def fc(self) -> Tensor:
        """Centre frequencies (F,), Hz, float64."""
        return self.erb_integration.fc_erb

    def get_erb_frequencies(self) -> Tensor:
        """Return the centre frequencies of the channels (F,), Hz, float64."""
        return self.fc

    @property
    def fs_out(self) -> float:
        """Rate of the frames, Hz."""
        return FS / self.multi_fft.hop_length

    def get_learnable_parameters(self) -> dict[str, Tensor]:
        """Return the trainable parameters by name; an empty dictionary unless ``learnable``."""
        return dict(self.named_parameters())

    def reset_state(self) -> None:
        """Do nothing: no state is kept from one call to the next."""

    def forward(self, audio: Tensor) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Return the long-term loudness.

        Parameters
        ----------
        audio : Tensor (T,) or (B, T)
            Sound in pascal. A sample that is not finite makes its own row NaN.

        Returns
        -------
        Tensor (B, frames), or (frames,) for audio (T,)
            Long-term loudness, sone, every millisecond; frame k belongs to k ms, there are T // 32 + 1 at 32 kHz.
        dict of str to Tensor
            Only with ``return_stages``: ``stl`` (B, frames), short-term loudness, sone; ``specific_loudness``
            (B, frames, F), one ear, sone/Cam; ``excitation`` and ``erb_excitation`` (B, frames, F), dB; ``psd``
            (B, frames, 1025), Pa^2/Hz; ``freqs`` (1025,), Hz. For audio (T,) without B.

        Raises
        ------
        SpecError
            If ``audio`` is no floating tensor of one or two dimensions with at least one sample.
        """
        batch = self.enter(audio, (1, 2), "(T,) or (B, T)", "audio")
        single = batch.ndim == 1
        stages: dict[str, list[Tensor]] | None = {} if self.return_stages else None
        specific = self._analyse(batch.unsqueeze(0) if single else batch, stages)
        stl, ltl = self.integration.smooth(self.integration.instantaneous(specific))
        if stages is None:
            return ltl[0] if single else ltl
        out = {"stl": stl, "specific_loudness": specific}
        out |= {name: torch.stack(stages[name]) for name in ("excitation", "erb_excitation", "psd")}
        out = {name: value[0] if single else value for name, value in out.items()}
        return ltl[0] if single else ltl, out | {"freqs": self.multi_fft.freqs}

    def represent(self, audio: Tensor) -> Representation:
        """Return the specific loudness of one ear (B, F, 1, frames), sone/Cam; (T,) counts as one row."""
        batch = self.enter(audio, (1, 2), "(T,) or (B, T)", "audio")
        values = self._analyse(batch.unsqueeze(0) if batch.ndim == 1 else batch, None)
        values = values.transpose(1, 2).contiguous().unsqueeze(2)
        valid = self.specific_loudness.alive[:, None]
        return Representation(values, valid, self.fc, self.fc.new_zeros(1), self.fs_out)

    def loudness(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Return short-term and long-term loudness (B, frames), sone, for ``audio`` (B, T) in pascal."""
        batch = self.enter(audio, (2,), "(B, T)", "audio")
        return self.integration.smooth(self.integration.instantaneous(self._analyse(batch, None)))

    def _analyse(self, x: Tensor, stages: dict[str, list[Tensor]] | None) -> Tensor:
        """Return the specific loudness (B, frames, F) for ``x`` (B, T); put other outputs into ``stages``, row by row.

        One row at a time, and of it `BLOCK` frames: what is in work stays in the second-level cache (a density of one
        second has 8 MB), and a row's bits do not depend on the batch.
        """
        weights = self.excitation.upper_weights()
        return torch.stack([self._row(row[None], weights, stages) for row in x])

    def _row(
        self, x: Tensor, weights: tuple[Tensor, Tensor | None] | None, stages: dict[str, list[Tensor]] | None
    ) -> Tensor:
        x = x if self.resampler is None else self.resampler(x)
        frames, hop = self.multi_fft.n_frames(x.shape[-1]), self.multi_fft.hop_length
        y = self.ear.filtered(x)[0]
        y = torch.nn.functional.pad(y, (0, N_FFT)) if self.preset == "amt" else y
        blocks = [
            self._block(y[first * hop :], min(BLOCK, frames - first), weights) for first in range(0, frames, BLOCK)
        ]
        excitation, levels, psd = (
            torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*blocks, strict=True)
        )
        if stages is not None:
            outputs = {"excitation": excitation_level_db(excitation, self.preset), "erb_excitation": levels, "psd": psd}
            for name, value in outputs.items():
                stages.setdefault(name, []).append(value.to(self.dtype))
        return self.specific_loudness.of_excitation(excitation * (P_REF**2 if self.preset == "amt" else 1.0))

    def _block(
        self, y: Tensor, frames: int, weights: tuple[Tensor, Tensor | None] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return excitation and levels per ERB (frames, F), and, for the stages, the density (frames, 1025)."""
        psd = self.multi_fft.spectra(y, frames)
        levels = self.erb_integration.band_levels(psd)
        return self.excitation.spread(levels, psd, weights), levels, psd if self.return_stages else psd[:, :0]

    def compute_loudness_level(self, loudness: Tensor, method: str = "inversion") -> Tensor:
        """Return the loudness level in phon of loudness in sone.

        Parameters
        ----------
        loudness : Tensor
            Loudness (any shape), sone.
        method : str
            ``"inversion"``: the level of the steady 1-kHz tone, frontal in the free field, that is as loud to a normal
            hearing listener with the constants of this model, who hears it with both ears; -inf below its loudness at
            -10 dB SPL, inf above that at 130 dB SPL. ``"stevens"``: 40 + 10 log2(loudness), an approximation
            that is right around 40 phon only (11.8 phon at 20 dB SPL).

        Returns
        -------
        Tensor
            Phon, same shape.

        Raises
        ------
        SpecError
            If ``method`` is not known, or the preset is ``"amt"``, whose loudness has no meaning.
        """
        check_option("method", method, ("inversion", STEVENS))
        loudness = self.enter(loudness, tuple(range(9)), "any", "loudness")
        if method == STEVENS:
            return 40.0 + 10.0 * torch.log2(loudness)
        if self.preset == "amt":
            raise SpecError('preset = "amt" has no loudness level: its loudness lacks the reference pressure.')
        curve, low, high = self._steady_function()
        sone = loudness.detach().double().cpu().numpy()
        inside = np.clip(sone, low, high)
        phon = np.asarray(curve(np.log(inside)))
        phon = np.where(sone < low, -np.inf, np.where(sone > high, np.inf, phon))
        phon = np.where(np.isnan(sone), np.nan, phon)
        return torch.as_tensor(phon, dtype=self.dtype, device=self.device)

    def _steady_function(self) -> tuple[Any, float, float]:
        """Return level (dB SPL) as a function of the logarithm of loudness, and the range of loudness it holds for."""
        if self._steady is None or self.learnable:
            levels = np.arange(-10.0, 130.5, 1.0)
            steady = self._listener().steady_loudness(1000.0, torch.from_numpy(levels))
            log_sone = steady.log().numpy()
            self._steady = PchipInterpolator(log_sone, levels), math.exp(log_sone[0]), math.exp(log_sone[-1])
        return self._steady

    @torch.no_grad()
    def steady_loudness(self, frequency_hz: float, level_db_spl: Tensor) -> Tensor:
        """Return the instantaneous loudness in the middle of long tones, what short- and long-term loudness approach.

        Parameters
        ----------
        frequency_hz : float
            Frequency of the tones, Hz, up to 16000.
        level_db_spl : Tensor (B,)
            Their levels, dB SPL.

        Returns
        -------
        Tensor (B,)
            Sone. Without a gradient.

        Raises
        ------
        SpecError
            If the frequency is out of range, or the preset is ``"amt"``.
        """
        check_range("frequency_hz", frequency_hz, 0.0, FS / 2, unit="Hz", low_open=True)
        if self.preset == "amt":
            raise SpecError('preset = "amt" has no steady loudness: its loudness lacks the reference pressure.')
        level = self.enter(level_db_spl, (1,), "(B,)", "level_db_spl")
        time = torch.arange(4 * N_FFT, dtype=torch.float64, device=self.device) / FS
        tone = math.sqrt(2.0) * torch.sin(2.0 * math.pi * frequency_hz * time)
        y = self.ear.filtered(db_spl_to_pascal(level.double())[:, None] * tone)
        middle = y[:, 2 * N_FFT : 3 * N_FFT]
        psd = torch.cat([self.multi_fft.spectra(row, 1) for row in middle])
        excitation = self.excitation.spread(self.erb_integration.band_levels(psd), psd, self.excitation.upper_weights())
        return self.integration.instantaneous(self.specific_loudness.of_excitation(excitation)[:, None])[:, 0]

    def _listener(self) -> Glasberg2002:
        """Return a listener with normal hearing and the constants of this model, for whom phon is defined."""
        arguments = self.parameters_dict() | {"fs": 32000, "learnable": False, "dtype": "float64"}
        arguments |= {"ohc_loss_db": None, "ihc_loss_db": None, "dead_regions_hz": None}
        arguments["ear_kwargs"] = {k: v for k, v in arguments["ear_kwargs"].items() if k == "middle_ear"}
        integration = {k: v for k, v in arguments["loudness_integration_kwargs"].items() if k != "presentation"}
        arguments["loudness_integration_kwargs"] = integration
        twin = Glasberg2002(**arguments)
        if self.learnable:
            skip = ("ear.", "specific_loudness.ohc_loss_db", "specific_loudness.ihc_loss_db")
            state = {k: v for k, v in self.state_dict().items() if not k.startswith(skip)}
            twin.load_state_dict(state, strict=False)
        return twin.to("cpu")

    def bytes_per_interval(self, n_samples: int) -> int:
        """Return an estimate of the memory in bytes that `represent` needs per row of ``n_samples``.

        The spectrum is not in it: it exists for one block of frames at a time.
        """
        # The output and its copy with channels first, the row's sound at the door.
        frames = n_samples / self.fs * self.fs_out
        size = 8 if self.dtype == torch.float64 else 4
        return math.ceil(size * (3 * (frames + 1e-9) * len(self.fc) + n_samples))
