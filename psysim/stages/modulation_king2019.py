"""The modulation filterbank of King, Varnet & Lorenzi (2019): Butterworth bandpasses of constant Q."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from psysim import ops
from psysim.errors import SpecError, check_range
from psysim.stages.base import AuditoryModule, per_row
from psysim.stages.filters import analytic_signal, butterworth_lowpass, check_below_nyquist
from psysim.stages.modulation_butterworth import butterworth_bandpasses, check_edges

__all__ = ["King2019ModulationFilterbank", "king2019_centres"]

PHASE_LIMIT_HZ = 10.0
"""Highest modulation centre frequency at which the phase of the modulation is kept."""


def king2019_centres(mflow: float, mfhigh: float, qfactor: float = 1.0, nmod: int | None = None) -> Tensor:
    """Return the centre frequencies in Hz (M,), float64.

    Without ``nmod``: from ``mflow`` on, neighbours in the ratio (s + 1) / (s - 1), s = sqrt(4 Q^2 + 1), 2.618 for
    Q = 1, as long as they do not exceed ``mfhigh``. With it: that many, equally spaced in log frequency, from ``mflow``
    to ``mfhigh``.

    Examples
    --------
    >>> [round(f, 1) for f in king2019_centres(2.0, 150.0).tolist()]
    [2.0, 5.2, 13.7, 35.9, 94.0]
    """
    low, high = math.log(mflow), math.log(mfhigh)
    if nmod is not None:
        return torch.exp(torch.linspace(low, high, nmod, dtype=torch.float64))
    s = math.sqrt(4.0 * qfactor**2 + 1.0)
    step = math.log((s + 1.0) / (s - 1.0))
    count = math.floor((high - low) / step + 1e-9)  # a centre at mfhigh itself is in, whatever the rounding
    return torch.exp(low + step * torch.arange(count + 1, dtype=torch.float64))


class King2019ModulationFilterbank(AuditoryModule):
    """Modulation filterbank: adapted envelope (B, F, T) to one signal per modulation filter (B, F, M, T).

    Filter m is a Butterworth bandpass with four poles (prototype of second order), causal, of bandwidth mfc/Q between
    two edges whose geometric mean is mfc. Up to 10 Hz its output is returned as it is; above, by the Hilbert envelope
    of it, scaled to the rms of the output: listeners hear the phase of slow modulation only. The envelope comes from
    the FFT of the whole signal, so it is not causal and depends on the length of the sound.

    Parameters
    ----------
    fs : float
        Sampling rate of the input, Hz.
    mflow, mfhigh : float
        Lowest centre frequency and upper limit of the others, Hz.
    qfactor : float
        Quality factor Q, 0.1 to 100.
    nmod : int, optional
        Number of filters (2 or more), spaced from ``mflow`` to ``mfhigh`` inclusive; default: spaced by Q.
    learnable : bool
        Make ``mfc_hz`` and ``bandwidth_hz`` (and the lowpass cutoff, if there is one) trainable.
    dtype : torch.dtype
        torch.float32 or torch.float64. The filters run in float64 in any case.
    phase_insens : bool
        False returns the bandpass output also above 10 Hz.
    lowpass_cutoff : float, optional
        Cutoff in Hz of a first-order lowpass before the bank (published option: 150 Hz).

    Attributes
    ----------
    mfc : Tensor (M,)
        Centre frequencies, Hz, float64.
    num_filters : int
        M.
    filters : Tensor (M, 2, 6)
        Second-order sections of the bandpasses, float64.
    mflow, mfhigh, qfactor, nmod, phase_insens, lowpass_cutoff
        As constructed.

    Raises
    ------
    SpecError
        If an argument is out of range, or a filter reaches fs/2.

    References
    ----------
    King, Varnet & Lorenzi (2019), J. Acoust. Soc. Am. 145, 2277-2293.

    Examples
    --------
    >>> import torch
    >>> bank = King2019ModulationFilterbank(fs=16000.0)
    >>> bank(torch.zeros(2, 31, 1600)).shape
    torch.Size([2, 31, 5, 1600])
    """

    mfc_hz: Tensor
    bandwidth_hz: Tensor
    lowpass_cutoff_hz: Tensor
    _envelope: Tensor

    def __init__(
        self,
        fs: float,
        mflow: float = 2.0,
        mfhigh: float = 150.0,
        qfactor: float = 1.0,
        nmod: int | None = None,
        learnable: bool = False,
        dtype: torch.dtype | str = torch.float32,
        *,
        phase_insens: bool = True,
        lowpass_cutoff: float | None = None,
    ) -> None:
        super().__init__(fs, learnable=learnable, dtype=dtype)
        check_range("mflow", mflow, 0.0, self.fs / 2, unit="Hz", low_open=True)
        check_range("mfhigh", mfhigh, mflow, self.fs / 2, unit="Hz")
        check_range("qfactor", qfactor, 0.1, 100.0)
        if nmod is not None and (isinstance(nmod, bool) or int(nmod) != nmod or nmod < 2):
            raise SpecError(
                f"nmod = {nmod!r} must be a whole number from 2 on: the filters go from mflow to mfhigh. "
                "For one filter set mfhigh = mflow and leave nmod out."
            )
        self.mflow, self.mfhigh, self.qfactor = float(mflow), float(mfhigh), float(qfactor)
        self.nmod = None if nmod is None else int(nmod)
        self.phase_insens = bool(phase_insens)
        self.lowpass_cutoff = None if lowpass_cutoff is None else float(lowpass_cutoff)
        centres = king2019_centres(self.mflow, self.mfhigh, self.qfactor, self.nmod)
        check_edges(centres, centres / self.qfactor, self.fs, "mfhigh")
        self.constant("mfc_hz", centres)
        self.constant("bandwidth_hz", centres / self.qfactor)
        self.register_buffer("_envelope", centres > PHASE_LIMIT_HZ, persistent=False)
        if self.lowpass_cutoff is not None:
            check_below_nyquist("lowpass_cutoff", self.lowpass_cutoff, self.fs)
            self.constant("lowpass_cutoff_hz", self.lowpass_cutoff)

    @property
    def mfc(self) -> Tensor:
        """Centre frequencies (M,), Hz, float64."""
        return self.mfc_hz

    @property
    def num_filters(self) -> int:
        """Number of filters M."""
        return self.mfc_hz.numel()

    @property
    def filters(self) -> Tensor:
        """Second-order sections of the bandpasses (M, 2, 6), float64."""
        return butterworth_bandpasses(self.mfc_hz, self.bandwidth_hz, self.fs)

    def forward(self, x: Tensor) -> Tensor:
        """Filter ``x`` ((F, T) or (B, F, T)) into (F, M, T) or (B, F, M, T)."""
        x = self.enter(x, (2, 3), "(F, T) or (B, F, T)")
        dense = torch.stack(list(self.each(x.unsqueeze(0) if x.ndim == 2 else x)), dim=2)
        return dense.squeeze(0) if x.ndim == 2 else dense

    def each(self, x: Tensor) -> Iterator[Tensor]:
        """Filter ``x`` (B, F, T) and yield the output (B, F, T) of one filter after the other."""
        if self.lowpass_cutoff is not None:
            x = ops.sosfilt(x, butterworth_lowpass(self.lowpass_cutoff_hz, self.fs))
        for sos, envelope in zip(self.filters.unbind(0), self._envelope.tolist(), strict=True):
            y = ops.sosfilt(x, sos)
            yield per_row(_matched_envelope, y) if envelope and self.phase_insens else y


def _matched_envelope(row: Tensor) -> Tensor:
    """Return the Hilbert envelope of each channel of ``row`` (F, T), scaled to the channel's rms; silence stays so."""
    y = row.double()
    envelope = analytic_signal(y).abs()
    power, power_envelope = (z.square().mean(-1, keepdim=True) for z in (y, envelope))
    silent = power_envelope == 0
    ratio = torch.where(silent, 1.0, power) / torch.where(silent, 1.0, power_envelope)
    return (envelope * ratio.sqrt()).to(row.dtype)
