"""Running spectrum of the loudness models: six windows of different length, each for its range of frequencies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from psysim.errors import SpecError, check_option, check_range
from psysim.stages.base import AuditoryModule, per_row
from psysim.stages.loudness_tables import FS

__all__ = ["N_BINS", "N_FFT", "RULES", "MultiResolutionFFT", "check_loudness_rate"]

N_FFT = 2048
N_BINS = N_FFT // 2 + 1
WINDOWS = (2048, 1024, 512, 256, 128, 64)
RULES = ("published", "amt")
# First bin of the range of each window, from 20, 80, 500, 1250, 2540 and 4050 Hz on, and the bin after the last.
FIRST_BINS = {"published": (1, 5, 32, 80, 162, 259, 961), "amt": (0, 5, 32, 80, 163, 259, 1025)}
HOP = 32
CALIBRATION_DB = 3.32
"""Correction for the Hann window in the authors' program; the one that keeps the power of a tone is 4.26 dB."""


def check_loudness_rate(fs: float) -> None:
    """Raise `SpecError` unless ``fs`` is 32 kHz, the rate that windows and bins belong to."""
    if fs != FS:
        raise SpecError(f"fs = {fs:g} Hz: this stage works at 32000 Hz; resample first (the models do it themselves).")


def _window(n: int) -> Tensor:
    """Return the symmetric Hann window of ``n`` samples, float64."""
    return torch.hann_window(n, periodic=False, dtype=torch.float64)


class MultiResolutionFFT(AuditoryModule):
    """Power spectral density of a sound every millisecond, by six Hann windows of 64 to 2 ms with a common centre.

    Long windows serve the low frequencies, short ones the high: 64 ms for 20 to 80 Hz, 32 ms to 500 Hz, 16 ms to
    1250 Hz, 8 ms to 2540 Hz, 4 ms to 4050 Hz, 2 ms to 15 kHz. Bins outside are 0. Computed in float64.

    Parameters
    ----------
    fs : int
        32000 Hz.
    window_lengths : list of int, optional
        Six lengths in samples, even, at most 2048; default 2048, 1024, 512, 256, 128, 64.
    hop_fraction : float, optional
        Distance of frames in units of 2048 samples; default: by ``hop_length``.
    learnable : bool
        Make ``calibration_db`` trainable.
    hop_length : int, optional
        Distance of frames in samples; default 32 (1 ms), to which all published constants belong.
    calibration_db : float, optional
        Gain on the power, dB. Default 3.32 dB less the power-correct correction of the 64-ms window, -0.94 dB: it makes
        up for the broadening of a tone's excitation pattern by the window, and puts 1 kHz at 40 dB SPL to 0.99 sone.
    dtype : torch.dtype
        torch.float32 or torch.float64.
    rule : str
        ``"published"``, or ``"amt"``: windows that start together, other limits of the ranges and no calibration, as
        the Auditory Modeling Toolbox has them; for comparison only.

    Attributes
    ----------
    freqs : Tensor (1025,)
        Frequencies of the bins, Hz.

    Raises
    ------
    SpecError
        If an argument is out of range.

    References
    ----------
    Glasberg & Moore (2002), J. Audio Eng. Soc. 50, 331-342; program of Moore et al. (2016), Trends Hear. 20, 1-16.

    Examples
    --------
    >>> import torch
    >>> psd, freqs = MultiResolutionFFT()(torch.zeros(2, 3200))
    >>> psd.shape, freqs.shape
    (torch.Size([2, 101, 1025]), torch.Size([1025]))
    """

    calibration_db: Tensor
    freqs: Tensor

    def __init__(
        self,
        fs: int = 32000,
        window_lengths: Sequence[int] | None = None,
        hop_fraction: float | None = None,
        learnable: bool = False,
        *,
        hop_length: int | None = None,
        calibration_db: float | None = None,
        dtype: torch.dtype | str = torch.float32,
        rule: str = "published",
    ) -> None:
        super().__init__(fs, learnable=learnable, dtype=dtype)
        check_loudness_rate(self.fs)
        check_option("rule", rule, RULES)
        self.rule = rule
        self.window_lengths = _checked_lengths(window_lengths)
        self.hop_length = _checked_hop(hop_fraction, hop_length)
        if calibration_db is None:
            correct = -10.0 * math.log10(float(_window(N_FFT).square().mean()))
            calibration_db = CALIBRATION_DB - correct if rule == "published" else 0.0
        check_range("calibration_db", calibration_db, -300.0, 300.0, unit="dB")
        self.constant("calibration_db", float(calibration_db))
        self._fixed("freqs", torch.arange(N_BINS, dtype=torch.float64) * (self.fs / N_FFT))
        for i, bins in enumerate(self.bin_ranges()):
            self._fixed(f"_basis{i}", self._basis(self.window_lengths[i], bins))

    def _fixed(self, name: str, value: Tensor) -> None:
        """Register a float64 table that follows from the arguments: kept out of the state dict."""
        self.register_buffer(name, value, persistent=False)
        self._constants.append(name)

    def bin_ranges(self) -> list[range]:
        """Return the bins that each window serves."""
        first = FIRST_BINS[self.rule]
        return [range(a, b) for a, b in pairwise(first)]

    def _basis(self, length: int, bins: range) -> Tensor:
        """Return window times cosine and sine of the bins, (length, 2 bins), scaled to the root of the density."""
        window = _window(length)
        times = torch.arange(length, dtype=torch.float64)[:, None]
        phase = times * torch.tensor(bins, dtype=torch.float64) * (2.0 * math.pi / N_FFT)
        scale = torch.sqrt(2.0 / (self.fs * window.square().sum()))
        return torch.cat([phase.cos(), phase.sin()], dim=1) * (scale * window)[:, None]

    def n_frames(self, n_samples: int) -> int:
        """Return the number of frames of a sound of ``n_samples``."""
        if self.rule == "amt":
            return -(-n_samples // self.hop_length)
        return n_samples // self.hop_length + 1

    def get_window_selection_map(self) -> Tensor:
        """Return the length in samples of the window that serves each bin, (1025,), int64; 0: none."""
        chosen = torch.zeros(N_BINS, dtype=torch.int64)
        for length, bins in zip(self.window_lengths, self.bin_ranges(), strict=True):
            chosen[bins.start : bins.stop] = length
        return chosen

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the running spectrum of ``x`` ((T,) or (B, T)) in pascal.

        Returns
        -------
        psd : Tensor (B, frames, 1025), or (frames, 1025)
            Power spectral density, Pa^2/Hz. Frame k is centred on sample k hop; frames = T // hop + 1.
        freqs : Tensor (1025,)
            Frequencies of the bins, Hz, float64.
        """
        x = self.enter(x, (1, 2), "(T,) or (B, T)")
        half = N_FFT // 2
        padding = (0, N_FFT) if self.rule == "amt" else (half, half)
        return self.analyse(torch.nn.functional.pad(x, padding), self.n_frames(x.shape[-1])).to(x.dtype), self.freqs

    def analyse(self, padded: Tensor, n_frames: int) -> Tensor:
        """Return the density (..., n_frames, 1025), float64; frame k spans 2048 samples of ``padded`` from k hop on."""
        rows = per_row(lambda row: self.spectra(row.double(), n_frames), padded.reshape(-1, padded.shape[-1]))
        return rows.reshape(*padded.shape[:-1], n_frames, N_BINS)

    def spectra(self, row: Tensor, n_frames: int) -> Tensor:
        """Return the density (n_frames, 1025) of one row, float64 (T,)."""
        first = FIRST_BINS[self.rule]
        parts = [row.new_zeros(n_frames, first[0])]
        # A matrix product with the few bins that a window serves is cheaper than an FFT: 0.28 million multiplications
        # per frame for all six, and no copies of 2048 samples for windows of 64.
        for i, length in enumerate(self.window_lengths):
            offset = 0 if self.rule == "amt" else (N_FFT - length) // 2
            frames = row[offset:].unfold(0, length, self.hop_length)[:n_frames]
            re, im = (frames @ getattr(self, f"_basis{i}")).chunk(2, dim=-1)
            parts.append(re.square() + im.square())
        parts.append(row.new_zeros(n_frames, N_BINS - first[-1]))
        return torch.cat(parts, dim=-1) * 10.0 ** (self.calibration_db / 10.0)


def _checked_lengths(given: Sequence[int] | None) -> tuple[int, ...]:
    lengths = tuple(WINDOWS if given is None else given)
    if len(lengths) != len(WINDOWS) or any(int(n) != n or n % 2 or not 4 <= n <= N_FFT for n in lengths):
        raise SpecError(f"window_lengths must be six even numbers of samples from 4 to {N_FFT}, but is {lengths}.")
    return tuple(int(n) for n in lengths)


def _checked_hop(fraction: float | None, length: int | None) -> int:
    if fraction is not None and length is not None:
        raise SpecError("hop_fraction and hop_length say the same thing: give one.")
    hop = HOP if fraction is None and length is None else (length if length is not None else fraction * N_FFT)  # type: ignore[operator]
    if isinstance(hop, bool) or not hop == int(hop) or not 1 <= hop <= N_FFT:
        raise SpecError(f"The distance of frames must be a whole number of samples from 1 to {N_FFT}, but is {hop}.")
    return int(hop)
