"""Running spectrum of the binaural loudness model: sparse spectra of both ears every millisecond."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from psysim.errors import SpecError, check_range
from psysim.stages.base import AuditoryModule
from psysim.stages.loudness_spectrum import CALIBRATION_DB, FIRST_BINS, HOP, N_FFT, WINDOWS, check_loudness_rate
from psysim.units import P_REF

__all__ = ["BIN_HZ", "DB_MAX", "N_COMPONENTS", "Moore2016Spectrum"]

BIN_HZ = 15.625
N_COMPONENTS = 960
"""Bins 1 to 960, 15.625 to 15000 Hz."""
DB_MAX = -20.0 * math.log10(math.sqrt(2.0) * P_REF)
"""Level in dB SPL of a sinusoid with a peak of 1 Pa: 90.969 dB."""
LOWEST_MAXIMUM = 1e3
"""The strongest component counts as at least 30 dB: nothing below -30 dB is kept."""
RANGE = 1e-6


class Moore2016Spectrum(AuditoryModule):
    """Levels of the spectral components of both ears, by six Hann windows of 64 to 2 ms with a common centre.

    A component is kept if it is less than 60 dB below the strongest of both ears in its frame, and above -30 dB SPL.

    Parameters
    ----------
    fs : int
        32000 Hz.
    segment_duration : float
        Distance of frames, ms.
    db_max : float
        Level in dB SPL of a sinusoid with a peak of 1 in the unit of the input; 90.969 for pascal. The Auditory
        Modeling Toolbox has 93.98, 3.01 dB too much.
    learnable : bool
        Make ``db_max`` trainable.
    dtype : torch.dtype
        torch.float32 or torch.float64.
    n_windows : int
        6, the only number published.
    hop_length : int, optional
        Distance of frames in samples, in place of ``segment_duration``.

    Raises
    ------
    SpecError
        If an argument is out of range.

    References
    ----------
    Moore, Glasberg, Varathanathan & Schlittenlacher (2016), Trends Hear. 20, 1-16, with the authors' program.

    Examples
    --------
    >>> import torch
    >>> freqs, levels, _, _ = Moore2016Spectrum()(torch.zeros(1, 2, 3200 + 2048))
    >>> levels.shape, levels.amax().item()
    (torch.Size([1, 101, 960]), -inf)
    """

    db_max: Tensor

    def __init__(
        self,
        fs: int = 32000,
        segment_duration: float = 1,
        db_max: float = DB_MAX,
        learnable: bool = False,
        dtype: torch.dtype | str = torch.float32,
        *,
        n_windows: int = 6,
        hop_length: int | None = None,
    ) -> None:
        super().__init__(fs, learnable=learnable, dtype=dtype)
        check_loudness_rate(self.fs)
        check_range("db_max", db_max, -300.0, 300.0, unit="dB SPL")
        if n_windows != len(WINDOWS):
            raise SpecError(f"n_windows = {n_windows!r} is not supported: the model has {len(WINDOWS)} windows.")
        hop = segment_duration * HOP if hop_length is None else hop_length
        if isinstance(hop, bool) or hop != int(hop) or not 1 <= hop <= N_FFT:
            raise SpecError(f"The distance of frames must be 1 to {N_FFT} whole samples, but is {hop}.")
        self.hop_length = int(hop)
        self.constant("db_max", float(db_max))
        first = FIRST_BINS["published"]
        for i, length in enumerate(WINDOWS):
            self.register_buffer(f"_basis{i}", _basis(i, length, range(first[i], first[i + 1])), persistent=False)
            self._constants.append(f"_basis{i}")
        frequency = BIN_HZ * torch.arange(1, N_COMPONENTS + 1, dtype=torch.float64)
        self.register_buffer("component_hz", frequency, persistent=False)
        self._constants.append("component_hz")

    component_hz: Tensor

    def n_frames(self, n_samples: int) -> int:
        """Return the number of frames of a sound of ``n_samples``, T // hop + 1."""
        return n_samples // self.hop_length + 1

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the components of ``x``.

        Parameters
        ----------
        x : Tensor (B, 2, T + 2048)
            Output of the ear filter, left and right: 1024 samples before and after the sound.

        Returns
        -------
        freqs_left, levels_left, freqs_right, levels_right : Tensor (B, frames, 960)
            Frequency in Hz and level in dB of each component; 0 Hz and -inf dB where it is not kept.
        """
        x = self.enter(x, (3,), "(B, 2, T + 2048)")
        if x.shape[1] != 2 or x.shape[2] <= N_FFT:
            raise SpecError(f"x has shape {tuple(x.shape)}, but must have shape (B, 2, T + {N_FFT}).")
        bases = self.bases()
        parts = [self.components(self.intensities(row, bases)) for row in x]
        freqs, levels = (torch.stack(part) for part in zip(*parts, strict=True))
        return freqs[:, 0], levels[:, 0], freqs[:, 1], levels[:, 1]

    def bases(self) -> list[Tensor]:
        """Return window times (cosine, sine) of each window's bins, (2, length/2, bins), scaled to ``db_max``."""
        scale = 10.0 ** (self.db_max / 20.0)
        return [(getattr(self, f"_basis{i}") * scale).to(self.dtype) for i in range(len(WINDOWS))]

    def intensities(self, ears: Tensor, bases: list[Tensor]) -> Tensor:
        """Return the intensities (2, frames, 960) of one sound (2, T + 2048), 0 where a component is not kept."""
        parts = []
        n_frames, longest = self.n_frames(ears.shape[-1] - N_FFT), N_FFT // 2
        # Even and odd part about the common centre of the windows: half the multiplications of the plain product.
        early = ears.unfold(-1, longest, self.hop_length)[:, :n_frames]
        late = ears[:, longest:].unfold(-1, longest, self.hop_length)[:, :n_frames].flip(-1)
        even, odd = early + late, early - late
        for basis, length in zip(bases, WINDOWS, strict=True):
            first = longest - length // 2
            re, im = even[..., first:] @ basis[0], odd[..., first:] @ basis[1]
            parts.append(torch.addcmul(re.square(), im, im))
        intensity = torch.cat(parts, dim=-1)
        limit = RANGE * intensity.detach().amax((0, 2), keepdim=True).clamp(min=LOWEST_MAXIMUM)
        return torch.where(intensity <= limit, 0.0, intensity)  # in this order NaN stays

    def components(self, intensity: Tensor) -> tuple[Tensor, Tensor]:
        """Return frequencies (Hz; 0: not kept) and levels (dB; -inf: not kept), shapes of ``intensity`` (..., 960)."""
        absent = intensity == 0
        level = torch.where(absent, -torch.inf, 10.0 * torch.log10(torch.where(absent, 1.0, intensity)))
        return torch.where(absent, 0.0, self.component_hz.to(intensity.dtype)), level


def _basis(number: int, length: int, bins: range) -> Tensor:
    half = length // 2
    window = torch.hann_window(length, periodic=False, dtype=torch.float64)[:half, None]
    times = torch.arange(half, dtype=torch.float64)[:, None] - (length - 1) / 2
    phase = times * torch.tensor(bins, dtype=torch.float64) * (2.0 * math.pi / N_FFT)
    scale = 2.0 / N_FFT * math.sqrt(10.0 ** (CALIBRATION_DB / 10.0) * 2.0**number)
    return scale * window * torch.stack([phase.cos(), phase.sin()])
