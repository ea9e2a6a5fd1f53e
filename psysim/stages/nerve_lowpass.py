"""The lowpass of the inner hair cell that limits phase locking, with decimation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from psysim import ops
from psysim.errors import SpecError, check_option, check_range
from psysim.stages.band_limited import band_limited_taps, rate_ratio
from psysim.stages.base import check_sample_rate, per_row
from psysim.stages.fir import MATRIX_TAPS, FIRModule, banded_matrix, by_blocks, fft_length, folded, significant
from psysim.stages.nerve_filters import whole_taps

__all__ = ["PhaseLockingFilter", "cutoff_of"]

VARIANTS = ("published", "corrected")
MINUS_3_DB = 10.0**0.3


def cutoff_of(taps: Tensor, fs: float) -> float:
    """Return the lowest frequency in Hz at which the gain of ``taps`` (N,) is 3 dB below that at 0 Hz, or inf."""
    h = taps.detach().to("cpu", torch.float64).numpy()
    n = np.arange(len(h))

    def power(hz: float) -> float:
        return float(np.abs(h @ np.exp(-2j * np.pi * hz / fs * n)) ** 2)

    limit = power(0.0) / MINUS_3_DB
    grid = np.abs(np.fft.rfft(h, 16 * len(h))) ** 2
    below = np.flatnonzero(grid < limit)
    if len(below) == 0:
        return math.inf
    step = fs / (16 * len(h))
    low, high = (below[0] - 1) * step, below[0] * step
    while high - low > 1e-12 * high:
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        low, high = (middle, high) if power(middle) >= limit else (low, middle)
    return float(0.5 * (low + high))


def aliased_cascade(cutoff_hz: Tensor, fs: float, order: int, count: int) -> Tensor:
    """Return the published recursion: s_k[m] = c1 s_k[m-1] + 2 c2 s_{k-1}[m], s_k[0] = c2^k; s_order, without c2^order.

    In closed form c1^m times a polynomial p_k(m) with p_k(m) = p_k(m-1) + 2 p_{k-1}(m).
    """
    c1 = (fs - 2.0 * math.pi * cutoff_hz) / (fs + 2.0 * math.pi * cutoff_hz)
    polynomial = torch.ones(count, dtype=torch.float64, device=cutoff_hz.device)
    for _ in range(order - 1):
        polynomial = 2.0 * polynomial.cumsum(0) - 1.0
    return c1 ** torch.arange(count, dtype=torch.float64, device=cutoff_hz.device) * polynomial


def true_cascade(cutoff_hz: Tensor, fs: float, order: int, count: int) -> Tensor:
    """Return the response of ``order`` equal first-order lowpasses that together have -3 dB at ``cutoff_hz``.

    Bilinear transform with prewarping: gain^2 = (1 + (tan(pi f/fs)/k)^2)^-order.
    """
    k = torch.tan(math.pi * cutoff_hz / fs) / math.sqrt(MINUS_3_DB ** (1.0 / order) - 1.0)
    b, one, zero = k / (1.0 + k), torch.ones_like(k), torch.zeros_like(k)
    section = torch.stack([b, b, zero, one, (k - 1.0) / (k + 1.0), zero])
    impulse = torch.zeros(1, 1, count, dtype=torch.float64, device=cutoff_hz.device)
    impulse[..., 0] = 1.0
    return ops.sosfilt(impulse, section.expand(order, 6))[0, 0]


class PhaseLockingFilter(FIRModule):
    """Lowpass of the hair cell and decimation: (..., T) at ``fs`` to (..., ceil(T fs_out/fs)) at ``fs_out``.

    An FIR filter with gain 1 at 0 Hz; only the samples that are kept, every (fs/fs_out)-th from the first on, are
    computed.

    Parameters
    ----------
    fs : float
        Sampling rate of the input, Hz.
    fs_out : float
        Sampling rate of the output, Hz; fs is a whole multiple of it.
    cutoff_hz : float
        Nominal cutoff, the phase-locking limit, Hz, below fs/2.
    order : int
        Number of first-order stages, 1 to 16.
    fir_dur : float
        Duration of the impulse response, s.
    variant : str
        ``"published"``: the recursion that the published models were trained with. It is not the cascade that it names:
        each stage reads its already updated predecessor, the constant of the bilinear transform is off by 2, and a Hann
        window that rises from the first sample changes the rest, so that the true cutoff (`cutoff_3db_hz`) is 31, 182,
        593 and 3779 Hz at 20 kHz, and 1818 Hz at 50 kHz, for 50, 320, 1000, 3000 and 3000 Hz. ``"corrected"``: a
        cascade whose -3-dB frequency is ``cutoff_hz`` at any rate.
    design_fs : float, optional
        Only published: make the response at this rate, and resample it to ``fs`` (the tutorial: 100 kHz).
    taps : Tensor or sequence (N,), optional
        An impulse response in place of the one designed; the cutoff, order and variant are then not used.
    learnable : bool
        Make ``cutoff_hz`` (or the given taps) trainable.
    dtype : torch.dtype
        torch.float32 or torch.float64.

    Attributes
    ----------
    cutoff_hz : Tensor ()
        Nominal cutoff, Hz, float64.
    stride : int
        fs / fs_out.

    Raises
    ------
    SpecError
        If the ratio of the rates is not whole, or an argument is out of range.

    References
    ----------
    Saddler & McDermott (2024), Nat. Commun. 15, 10590. Saddler (2025), tutorial on differentiable auditory models.

    Examples
    --------
    >>> import torch
    >>> PhaseLockingFilter(fs=20000.0, fs_out=10000.0)(torch.zeros(2, 50, 201)).shape
    torch.Size([2, 50, 101])
    >>> [round(PhaseLockingFilter(20e3, 10e3, 3000.0, variant=v).cutoff_3db_hz) for v in ("published", "corrected")]
    [3779, 3000]
    """

    cutoff_hz: Tensor
    given: Tensor

    def __init__(
        self,
        fs: float,
        fs_out: float,
        cutoff_hz: float = 3000.0,
        order: int = 7,
        fir_dur: float = 0.05,
        variant: str = "published",
        design_fs: float | None = None,
        taps: Tensor | Sequence[float] | None = None,
        learnable: bool = False,
        dtype: torch.dtype | str = torch.float32,
    ) -> None:
        super().__init__(fs, learnable=learnable, dtype=dtype)
        check_option("variant", variant, VARIANTS)
        if isinstance(order, bool) or int(order) != order:
            raise SpecError(f"order = {order!r} is not a filter order: it must be a whole number.")
        check_range("order", order, 1, 16)
        self.fs_out = check_sample_rate(fs_out)
        ratio = self.fs / self.fs_out
        self.stride = round(ratio)
        if self.stride < 1 or abs(ratio - self.stride) > 1e-9 * ratio:
            raise SpecError(f"fs = {self.fs:g} Hz must be a whole multiple of fs_out = {self.fs_out:g} Hz.")
        self.order, self.fir_dur, self.variant = int(order), float(fir_dur), variant
        self.design_fs = None if design_fs is None else check_sample_rate(design_fs)
        self.has_taps = taps is not None
        if taps is not None:
            given = torch.as_tensor(taps, dtype=torch.float64).detach()
            if given.ndim != 1 or len(given) == 0 or not bool(given.isfinite().all()):
                raise SpecError(f"taps of shape {tuple(given.shape)} must be a list of finite numbers.")
            self.constant("given", given)
            return
        check_range("cutoff_hz", cutoff_hz, 0.0, self.fs / 2, unit="Hz", low_open=True)
        self._design_length()
        self.constant("cutoff_hz", float(cutoff_hz))

    def _design_length(self) -> tuple[float, int, int]:
        """Return the rate of the design in Hz, its number of samples, and the number of taps, which is odd."""
        if self.design_fs is None or self.variant == "corrected":
            count = int(whole_taps(self.fir_dur, self.fs))
            count += 1 - count % 2
            return self.fs, count, count
        samples = int(whole_taps(self.fir_dur, self.design_fs))
        while (count := math.floor(samples * self.fs / self.design_fs + 0.5)) % 2 == 0:
            samples += 1
        return self.design_fs, samples, count

    @property
    def taps(self) -> Tensor:
        """Impulse response (N,), float64."""
        if self.has_taps:
            return self.given
        rate, samples, count = self._design_length()
        if self.variant == "corrected":
            h = true_cascade(self.cutoff_hz, rate, self.order, samples)
            return h / h.sum()
        h = aliased_cascade(self.cutoff_hz, rate, self.order, samples)
        h = h * torch.hann_window(samples, periodic=False, dtype=torch.float64, device=self.device)
        if rate != self.fs:
            up, down = rate_ratio(rate, self.fs)
            kernel = band_limited_taps(up, down).to(self.device)
            h = ops.resample((h / h.sum())[None, None], up, down, kernel)[0, 0, :count].clamp(min=0.0)
        return h / h.sum()

    @property
    def cutoff_3db_hz(self) -> float:
        """Frequency at which the gain is -3 dB, Hz; inf if it is so nowhere."""
        return cutoff_of(self.taps, self.fs)

    def forward(self, x: Tensor) -> Tensor:
        """Filter and decimate ``x`` (T,), (F, T) or (B, F, T) along time."""
        x = self.enter(x, (1, 2, 3), "(T,), (F, T) or (B, F, T)")
        run = self.prepare(x.shape[-1])
        y = per_row(run, x.reshape((1,) * (3 - x.ndim) + tuple(x.shape)))
        return y.reshape(*x.shape[:-1], -1)

    def prepare(self, n_samples: int) -> FilterRun:
        """Return the filter made ready for signals (C, n_samples)."""
        return FilterRun(self, n_samples)


class FilterRun:
    """A `PhaseLockingFilter` ready for signals of one length.

    Parameters
    ----------
    stage : PhaseLockingFilter
        The filter.
    n_samples : int
        Length of the signals.
    """

    def __init__(self, stage: PhaseLockingFilter, n_samples: int) -> None:
        self.stride = stage.stride
        self.n_out = -(-n_samples // stage.stride)
        taps = stage.derived("taps", lambda: stage.taps)
        count = stage.derived(("count", stage.dtype), lambda: significant(taps, stage.dtype))
        self.matrix: Tensor | None = None
        if count <= MATRIX_TAPS:
            name = ("matrix", stage.dtype)
            self.matrix = stage.derived(name, lambda: banded_matrix(taps[:count], stage.stride).to(stage.dtype))
            return
        self.n_fft = fft_length(n_samples + count - 1, stage.stride)
        self.response = stage.response(self.n_fft)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the filtered and decimated ``x`` (C, n_samples)."""
        if self.matrix is not None:
            return by_blocks(x, self.matrix, self.n_out)
        spectrum = torch.fft.rfft(x, self.n_fft) * self.response
        return torch.fft.irfft(folded(spectrum, self.stride, self.n_fft), self.n_fft // self.stride)[..., : self.n_out]
