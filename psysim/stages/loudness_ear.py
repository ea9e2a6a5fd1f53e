"""Outer and middle ear of the loudness models as one FIR filter at 32 kHz."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from torch import Tensor

from psysim import ops
from psysim.errors import SpecError, check_option
from psysim.stages.base import AuditoryModule, per_row
from psysim.stages.loudness_tables import FIR_DELAY, FS, amt_ear_taps, ear_taps

__all__ = ["LoudnessEarFilter", "LoudnessResampler", "convolve"]


def convolve(x: Tensor, taps: Tensor) -> Tensor:
    """Return the full convolution of ``x`` (B, T) with ``taps`` (N,), (B, T + N - 1), by FFT in float64."""
    n = x.shape[-1] + len(taps) - 1
    n_fft = next_fast_len(n, real=True)
    response = torch.fft.rfft(taps, n_fft)
    return per_row(lambda row: torch.fft.irfft(torch.fft.rfft(row.double(), n_fft) * response, n_fft)[..., :n], x)


class LoudnessResampler(AuditoryModule):
    """Sound at another rate to 32 kHz, flat within 0.01 dB up to 15 kHz (or to 0.95 of half the rate of the sound).

    Parameters
    ----------
    fs : float
        Sampling rate of the sound, a whole number of Hz.
    dtype : torch.dtype
        torch.float32 or torch.float64.

    Raises
    ------
    SpecError
        If the rate is not a whole number of Hz.

    Examples
    --------
    >>> import torch
    >>> LoudnessResampler(fs=44100)(torch.zeros(2, 441)).shape
    torch.Size([2, 320])
    """

    taps: Tensor

    def __init__(self, fs: float, dtype: torch.dtype | str = torch.float32) -> None:
        super().__init__(fs, dtype=dtype)
        if self.fs != int(self.fs):
            raise SpecError(f"fs = {fs:g} Hz: only whole numbers of Hz can be resampled to 32000 Hz.")
        ratio = Fraction(int(FS), int(self.fs))
        self.up, self.down = ratio.numerator, ratio.denominator
        self.constant("taps", ops.resampling_taps(self.up, self.down, half_length=50, beta=8.0), learnable=False)

    def forward(self, x: Tensor) -> Tensor:
        """Resample ``x`` ((T,), (B, T) or (B, C, T)) along time, to ceil(T 32000/fs) samples."""
        x = self.enter(x, (1, 2, 3), "(T,), (B, T) or (B, C, T)")
        y = ops.resample(x.reshape(-1, 1, x.shape[-1]), self.up, self.down, self.taps)
        return y.reshape(*x.shape[:-1], y.shape[-1])


class LoudnessEarFilter(AuditoryModule):
    """Sound pressure in a field, or at the eardrum, to the input of the cochlea: an FIR filter of 4097 taps at 32 kHz.

    Gain 0 dB at 1 kHz for a frontal sound in the free field: the output is a pressure in pascal, too. It is computed
    in float64.

    Parameters
    ----------
    field : str
        Where the sound pressure is given: ``"free"`` (frontal), ``"diffuse"`` or ``"eardrum"``.
    middle_ear : str
        ``"ansi_s34_2007"`` or ``"glasberg2002"`` (differs at 1250, 1500 and 1600 Hz).
    transfer : sequence of (frequency in Hz, gain in dB), optional
        Transfer function from where the sound pressure is given to the eardrum, in place of that of ``field``: an
        earphone, a measured ear canal. Linear in Hz between its frequencies, held beyond.
    learnable : bool
        Make the taps trainable.
    dtype : torch.dtype
        torch.float32 or torch.float64.
    rule : str
        ``"published"``, or ``"amt"``: the filter of the Auditory Modeling Toolbox's ``glasberg2002``, which applies a
        power gain as an amplitude, forward and backward (four times the gain in dB). For comparison only; no
        ``transfer`` then.

    Attributes
    ----------
    taps : Tensor (4097,)
        Impulse response; linear phase, delay 2048 samples.

    Raises
    ------
    SpecError
        For an unknown option or an unusable transfer function.

    References
    ----------
    ANSI S3.4-2007; Glasberg & Moore (2006), JASA 120, 585-588; Moore et al. (2016), Trends Hear. 20, 1-16.

    Examples
    --------
    >>> import torch
    >>> LoudnessEarFilter(field="diffuse")(torch.zeros(2, 3200)).shape
    torch.Size([2, 5248])
    """

    taps: Tensor

    def __init__(
        self,
        field: str = "free",
        middle_ear: str = "ansi_s34_2007",
        transfer: Sequence[Sequence[float]] | NDArray[np.float64] | None = None,
        learnable: bool = False,
        dtype: torch.dtype | str = torch.float32,
        *,
        rule: str = "published",
    ) -> None:
        super().__init__(FS, learnable=learnable, dtype=dtype)
        check_option("rule", rule, ("published", "amt"))
        if rule == "amt" and transfer is not None:
            raise SpecError('rule = "amt" knows no transfer function of your own: leave transfer out.')
        self.field, self.middle_ear, self.transfer, self.rule = field, middle_ear, transfer, rule
        taps = amt_ear_taps(field, middle_ear) if rule == "amt" else ear_taps(field, middle_ear, transfer)
        self.constant("taps", taps)

    def forward(self, x: Tensor) -> Tensor:
        """Filter sound ``x`` ((T,), (B, T) or (B, C, T)) in pascal.

        Returns
        -------
        Tensor (..., T + 2048)
            Sample n belongs to the time (n - 1024)/fs of the sound: half a spectral window more at both ends.
            With ``rule="amt"``: (..., T), sample n to n/fs.
        """
        x = self.enter(x, (1, 2, 3), "(T,), (B, T) or (B, C, T)")
        return self.filtered(x).to(x.dtype)

    def filtered(self, x: Tensor) -> Tensor:
        """Return what `forward` does, in float64 and unchecked."""
        rows = x.reshape(-1, x.shape[-1])
        cut = FIR_DELAY // 2
        y = self._forward_backward(rows) if self.rule == "amt" else convolve(rows, self.taps)[..., cut:-cut]
        return y.reshape(*x.shape[:-1], -1)

    def _forward_backward(self, x: Tensor) -> Tensor:
        """Filter with zero phase: odd reflection at both ends, filters started in the steady state of their input."""
        taps = len(self.taps)
        edge = 3 * (taps - 1)
        if x.shape[-1] <= edge:
            raise SpecError(f'rule = "amt" needs sounds of more than {edge} samples at 32 kHz; this has {x.shape[-1]}.')
        y = x.double()
        before, after = y[:, 1 : edge + 1].flip(-1), y[:, -edge - 1 : -1].flip(-1)
        y = torch.cat([2 * y[:, :1] - before, y, 2 * y[:, -1:] - after], dim=-1)
        for _ in range(2):  # forward, then backward
            started = torch.cat([y[:, :1].expand(-1, taps - 1), y], dim=-1)
            y = convolve(started, self.taps)[:, taps - 1 : started.shape[-1]].flip(-1)
        return y[:, edge:-edge]

    def get_frequency_response(self, nfft: int = 8192) -> tuple[Tensor, Tensor]:
        """Return frequencies in Hz and the complex response of the taps, (nfft // 2 + 1,) each."""
        response = torch.fft.rfft(self.taps, nfft)
        return torch.arange(len(response), dtype=torch.float64, device=self.device) * (FS / nfft), response

    def get_parameters(self) -> dict[str, Any]:
        """Return the settings of the filter."""
        return {name: getattr(self, name) for name in ("field", "middle_ear", "transfer", "rule")}
