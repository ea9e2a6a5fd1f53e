"""A bank of half-cosine filters by FFT: channels whose powers add up to the sound's."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from psysim.errors import check_option, check_range
from psysim.stages.base import AuditoryModule, per_row
from psysim.stages.fir import complex_dtype
from psysim.units import erb_number, erb_number_to_hz

__all__ = ["HalfCosineFilterbank"]


def _same(f: Tensor) -> Tensor:
    return f


SCALES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "erb": (erb_number, erb_number_to_hz),
    "log": (torch.log, torch.exp),
    "linear": (_same, _same),
}


class HalfCosineFilterbank(AuditoryModule):
    r"""Zero-phase filters that overlap by half on a frequency scale g: sound (B, T) to (B, F, T).

    :math:`H_i(f) = \cos(\pi (g(f) - c_i)/W)` within half a width W of the centre c_i, 0 elsewhere; W is twice the
    distance of centres. The squares of all filters add up to 1 between the outer centres, with both ends everywhere;
    the filters themselves add up to between 1 and sqrt(2), half-way between centres. The FFT is of exactly T points:
    the sound counts as periodic.

    Parameters
    ----------
    fs : float
        Sampling rate, Hz.
    cf_low, cf_high : float
        First and last centre, Hz.
    cf_num : int
        Number of channels F. One channel has no width: it passes everything.
    scale : str
        g: ``"erb"`` (ERB number), ``"log"`` or ``"linear"``.
    include_lowpass, include_highpass : bool
        The first channel passes everything below its centre, the last everything above.
    learnable : bool
        Make ``centre`` and ``width`` trainable.
    dtype : torch.dtype
        torch.float32 or torch.float64.

    Attributes
    ----------
    centre : Tensor (F,)
        Centres c_i in units of the scale, float64.
    width : Tensor ()
        W in units of the scale, float64.

    Raises
    ------
    SpecError
        If an argument is out of range.

    References
    ----------
    Saddler (2025), tutorial on differentiable auditory models.

    Examples
    --------
    >>> import torch
    >>> bank = HalfCosineFilterbank(fs=20000.0, cf_low=20.0, cf_high=10000.0, cf_num=7)
    >>> x = torch.randn(2, 401, generator=torch.Generator().manual_seed(1))
    >>> bank(x).shape, round(float(bank(x).square().sum() / x.square().sum()), 2)
    (torch.Size([2, 7, 401]), 1.0)
    """

    centre: Tensor
    width: Tensor

    def __init__(
        self,
        fs: float,
        cf_low: float = 20.0,
        cf_high: float = 8000.0,
        cf_num: int = 7,
        scale: str = "log",
        include_lowpass: bool = True,
        include_highpass: bool = True,
        learnable: bool = False,
        dtype: torch.dtype | str = torch.float32,
    ) -> None:
        super().__init__(fs, learnable=learnable, dtype=dtype)
        check_option("scale", scale, SCALES)
        check_range("cf_low", cf_low, 0.0, self.fs / 2, unit="Hz", low_open=scale == "log")
        check_range("cf_num", cf_num, 1, 100_000)
        check_range("cf_high", cf_high, cf_low, self.fs / 2, unit="Hz", low_open=cf_num > 1)
        self.scale, self.include_lowpass, self.include_highpass = scale, bool(include_lowpass), bool(include_highpass)
        low, high = SCALES[scale][0](torch.tensor([cf_low, cf_high], dtype=torch.float64)).tolist()
        self.constant("centre", torch.linspace(low, high, int(cf_num), dtype=torch.float64))
        self.constant("width", 2.0 * (high - low) / (cf_num - 1) if cf_num > 1 else math.inf, learnable=None)

    @property
    def fc(self) -> Tensor:
        """Centre frequencies (F,), Hz, float64."""
        return SCALES[self.scale][1](self.centre)

    @property
    def num_channels(self) -> int:
        """Number of channels F."""
        return len(self.centre)

    def transfer(self, n_samples: int) -> Tensor:
        """Return the transfer functions (F, n_samples // 2 + 1) at the frequencies of an FFT, float64."""
        k = torch.arange(n_samples // 2 + 1, dtype=torch.float64, device=self.device)
        g = SCALES[self.scale][0](k * (self.fs / n_samples))
        distance = g - self.centre[:, None]
        inside = distance.abs() < 0.5 * self.width
        h = torch.where(inside, torch.cos(math.pi * torch.where(inside, distance, 0.0) / self.width), 0.0)
        channel = torch.arange(self.num_channels, device=self.device)[:, None]
        if self.include_lowpass:
            h = torch.where((channel == 0) & (distance < 0), 1.0, h)
        if self.include_highpass:
            h = torch.where((channel == self.num_channels - 1) & (distance > 0), 1.0, h)
        return h

    def forward(self, x: Tensor) -> Tensor:
        """Split sound ``x`` (T,) or (B, T) into (F, T) or (B, F, T)."""
        x = self.enter(x, (1, 2), "(T,) or (B, T)")
        n = x.shape[-1]
        h = self.transfer(n).to(complex_dtype(self.dtype))
        y = per_row(lambda row: torch.fft.irfft(torch.fft.rfft(row) * h, n), x.unsqueeze(0) if x.ndim == 1 else x)
        return y.squeeze(0) if x.ndim == 1 else y
