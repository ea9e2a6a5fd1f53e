"""The auditory filterbank: complex all-pole gammatone filters of equal ERB spacing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from psysim import ops
from psysim.errors import SpecError, check_option, check_range
from psysim.ops.steps import Gammatone, Step
from psysim.stages.base import AuditoryModule
from psysim.units import erb_space, gammatone_bandwidth_hz

__all__ = ["GammatoneFilterbank", "gammatone_bandwidth_factor"]


def gammatone_bandwidth_factor(order: int) -> float:
    """Return k with beta = k ERB: the gammatone of this order then has the equivalent rectangular bandwidth ERB.

    Examples
    --------
    >>> round(gammatone_bandwidth_factor(4), 7)
    1.0185916
    """
    n = order - 1
    return math.factorial(n) ** 2 / (math.pi * math.factorial(2 * n) * 2.0 ** (-2 * n))


class GammatoneFilterbank(AuditoryModule):
    r"""Gammatone filterbank: sound (B, T) to one band-passed signal per channel (B, F, T).

    Channel f is :math:`2\,\mathrm{Re}(H x)` with
    :math:`H(z) = ((1 - r) / (1 - r e^{-i\theta} z^{-1}))^n`, :math:`r = e^{-2\pi\beta/f_s}`,
    :math:`\theta = 2\pi f_c/f_s`, :math:`\beta = k\,(24.7 + f_c/9.265)` Hz. A tone at fc passes with gain 1
    (1.0012 at 80 Hz). Computed as a cascade of n first-order complex sections: multiplied out, the filter is unstable
    in float32. Phase is causal; low channels lag high ones.

    Parameters
    ----------
    fc : Tensor, sequence or (flow, fhigh)
        Centre frequencies in Hz, each above 0 and below fs/2; or a tuple of two: the bounds of channels spaced on the
        ERB-number scale by the rule of `psysim.units.erb_space`.
    fs : float
        Sampling rate, Hz.
    n : int
        Order (number of sections), 1 to 16.
    betamul : float, optional
        Factor on the ERB in beta, in place of the k that makes the ERB of the filter equal to the formula.
    learnable : bool
        Make ``fc`` and ``bandwidth_hz`` (beta) trainable.
    dtype : torch.dtype
        torch.float32 or torch.float64.
    implementation : str
        ``"sos"``, the cascade of sections; there is no other.
    basef : float, optional
        With bounds: one channel lies exactly here (Hz).
    spacing : float
        With bounds: distance of the channels in ERB numbers.
    bandwidth_factor : float
        Additional factor on beta (1: normal hearing's ERB).
    peak_phase : bool
        Rotate the carrier of each impulse response to phase zero at the peak of its envelope.
    complex_output : bool
        Return 2 H x, complex, in place of its real part.

    Attributes
    ----------
    fc : Tensor (F,)
        Centre frequencies, Hz, float64.
    bandwidth_hz : Tensor (F,)
        beta of each channel, Hz, float64.
    num_channels, n, betamul
        As constructed (``betamul``: the factor in use).

    Raises
    ------
    SpecError
        If a centre frequency is not below fs/2, or an argument is out of range.

    References
    ----------
    Patterson, Nimmo-Smith, Holdsworth & Rice (1987); Glasberg & Moore (1990), Hear. Res. 47, 103-138 (bandwidths).

    Examples
    --------
    >>> import torch
    >>> bank = GammatoneFilterbank((80.0, 8000.0), fs=44100.0)
    >>> tuple(bank(torch.zeros(2, 441)).shape) == (2, bank.num_channels, 441)
    True
    """

    fc: Tensor
    bandwidth_hz: Tensor

    def __init__(
        self,
        fc: Tensor | Sequence[float] | tuple[float, float],
        fs: float,
        n: int = 4,
        betamul: float | None = None,
        learnable: bool = False,
        dtype: torch.dtype | str = torch.float32,
        implementation: str = "sos",
        *,
        basef: float | None = None,
        spacing: float = 1.0,
        bandwidth_factor: float = 1.0,
        peak_phase: bool = False,
        complex_output: bool = False,
    ) -> None:
        super().__init__(fs, learnable=learnable, dtype=dtype)
        check_option("implementation", implementation, ("sos",))
        if isinstance(n, bool) or int(n) != n:
            raise SpecError(f"n = {n!r} is not a filter order: it must be a whole number.")
        check_range("n", n, 1, 16)
        check_range("bandwidth_factor", bandwidth_factor, 0.0, low_open=True)
        centres = self._centres(fc, basef, spacing)
        self.n = int(n)
        self.betamul = gammatone_bandwidth_factor(self.n) if betamul is None else float(betamul)
        check_range("betamul", self.betamul, 0.0, low_open=True)
        self.bandwidth_factor = float(bandwidth_factor)
        self.implementation = implementation
        self.peak_phase = bool(peak_phase)
        self.complex_output = bool(complex_output)
        self.num_channels = centres.numel()
        self.constant("fc", centres)
        self.constant("bandwidth_hz", self.betamul * self.bandwidth_factor * gammatone_bandwidth_hz(centres))

    def _centres(self, fc: Tensor | Sequence[float], basef: float | None, spacing: float) -> Tensor:
        if isinstance(fc, tuple) and len(fc) == 2:
            fc = torch.as_tensor(erb_space(float(fc[0]), float(fc[1]), spacing, basef))
        elif basef is not None or spacing != 1.0:
            raise SpecError(
                "basef and spacing need fc = (flow, fhigh); they do not apply to a list of centre frequencies."
            )
        centres = torch.as_tensor(fc, dtype=torch.float64).detach().reshape(-1)
        if centres.numel() == 0:
            raise SpecError("fc is empty: a filterbank needs at least one centre frequency.")
        outside = ~((centres > 0) & (centres < self.fs / 2))
        if bool(outside.any()):
            raise SpecError(
                f"fc = {float(centres[outside][0]):g} Hz is out of range at fs = {self.fs:g} Hz: "
                f"centre frequencies must be above 0 Hz and below fs/2 = {self.fs / 2:g} Hz. Lower fhigh or raise fs."
            )
        return centres

    @property
    def decay(self) -> Tensor:
        """Radius r of the poles (F,), float64."""
        return torch.exp(-2.0 * math.pi / self.fs * self.bandwidth_hz)

    @property
    def angle(self) -> Tensor:
        """Angle theta of the poles (F,), radian per sample, float64; the pole is r exp(-i theta)."""
        return 2.0 * math.pi / self.fs * self.fc

    @property
    def poles(self) -> Tensor:
        """The n-fold pole of each channel (F,), complex128."""
        return torch.polar(self.decay, -self.angle)

    @property
    def gains(self) -> Tensor:
        """Numerator (1 - r)^n of each channel (F,), float64."""
        return (1.0 - self.decay) ** self.n

    @property
    def delay_s(self) -> Tensor:
        """Time 3 / (2 pi beta) near which the envelope of the impulse response peaks (F,), s."""
        return 3.0 / (2.0 * math.pi * self.bandwidth_hz)

    def forward(self, x: Tensor) -> Tensor:
        """Filter sound ``x`` (T,) or (B, T) into (F, T) or (B, F, T)."""
        x = self.enter(x, (1, 2), "(T,) or (B, T)")
        batch = x.unsqueeze(0) if x.ndim == 1 else x
        if self.peak_phase or self.complex_output:
            y = self._complex(batch)
        else:
            y = ops.gammatone(batch, self.decay, self.angle, order=self.n)
        return y.squeeze(0) if x.ndim == 1 else y

    def steps(self) -> list[Step] | None:
        """Return the filterbank as a step; None for complex or phase-shifted output."""
        return None if self.peak_phase or self.complex_output else [Gammatone(self.decay, self.angle, self.n)]

    def _complex(self, x: Tensor) -> Tensor:
        y = 2.0 * ops.gammatone(x, self.decay, self.angle, order=self.n, complex_output=True)
        if self.peak_phase:
            phase = 2.0 * math.pi * self.fc * self.delay_s
            y = y * torch.polar(torch.ones_like(phase), phase).to(y.dtype).unsqueeze(-1)
        return y if self.complex_output else y.real
