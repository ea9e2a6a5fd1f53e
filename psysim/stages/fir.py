"""FIR filters of the auditory nerve models: by FFT, and decimating ones with few taps as matrix products.

Measured on two cores for one second of sound in 50 channels, float32 (benchmarks/bench_nerve.py has the whole models):
1000-tap bandpasses at 20 kHz take 1.3 ms by FFT of the whole sound and 10.7 ms as direct convolution (more by
overlap-add: blocks of 4096 samples transform a third more samples). A decimating lowpass is a product with a banded
matrix while its taps are few: below `MATRIX_TAPS`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from psysim.stages.base import AuditoryModule

__all__ = ["FIRModule", "banded_matrix", "by_blocks", "complex_dtype", "fft_length", "folded", "significant"]

MATRIX_TAPS = 400
"""Up to so many taps a decimating filter runs as a matrix product."""


def fft_length(n: int, multiple: int = 1) -> int:
    """Return a length of at least ``n`` samples that FFTs are fast at: even, and a whole number of ``multiple``."""
    step = multiple if multiple % 2 == 0 else 2 * multiple
    parts = next_fast_len(-(-n // step), real=True)
    return int(parts) * step


def complex_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the complex dtype with the precision of ``dtype``."""
    return torch.complex128 if dtype == torch.float64 else torch.complex64


def significant(taps: Tensor, dtype: torch.dtype) -> int:
    """Return how many taps there are before the end that does not count in ``dtype``.

    The taps left out sum to less than an eighth of the rounding unit of the taps kept.
    """
    size = taps.detach().abs()
    tail = size.flip(-1).cumsum(-1)
    small = int((tail < size.sum() * torch.finfo(dtype).eps / 8).sum())
    return max(1, len(taps) - small)


def banded_matrix(taps: Tensor, stride: int) -> Tensor:
    """Return the matrix that blocks of samples are multiplied with.

    Parameters
    ----------
    taps : Tensor (K,)
        Impulse response.
    stride : int
        Every ``stride``-th output is kept.

    Returns
    -------
    Tensor (S, 2 R)
        For S = stride R samples in (at least K - 1, and 64) R samples out, and R further ones that are what the block
        adds to the outputs of the next.
    """
    rows = max(-(-max(len(taps) - 1, 64) // stride), 1)
    samples = rows * stride
    lag = stride * torch.arange(2 * rows, device=taps.device) - torch.arange(samples, device=taps.device)[:, None]
    padded = torch.nn.functional.pad(taps, (0, 2 * samples + 1 - len(taps)))  # the last entry is 0
    return padded[torch.where(lag >= 0, lag, 2 * samples)]


def by_blocks(x: Tensor, matrix: Tensor, n_out: int) -> Tensor:
    """Return ``n_out`` samples of ``x`` (C, T) filtered and decimated by a `banded_matrix`."""
    samples, rows = matrix.shape[0], matrix.shape[1] // 2
    padded = torch.nn.functional.pad(x, (0, -x.shape[-1] % samples))
    z = (padded.reshape(-1, samples) @ matrix).reshape(x.shape[0], -1, 2 * rows)
    later = torch.nn.functional.pad(z[:, :-1, rows:], (0, 0, 1, 0))
    return (z[..., :rows] + later).flatten(1)[:, :n_out]


def folded(spectrum: Tensor, stride: int, n_fft: int) -> Tensor:
    """Return the half spectrum of every ``stride``-th sample, from the half spectrum (..., n_fft // 2 + 1) of all.

    ``n_fft`` is even and a whole number of ``stride``.
    """
    if stride == 1:
        return spectrum
    n_out, half = n_fft // stride, n_fft // 2
    bins = n_out // 2 + 1
    total = spectrum[..., :bins]
    for image in range(1, stride):
        first = image * n_out
        direct = max(0, min(bins, half - first + 1))  # bins not above half; those above are conjugates of ones below
        parts = [spectrum[..., first : first + direct]]
        if direct < bins:
            low, high = n_fft - first - bins + 1, n_fft - first - direct + 1
            parts.append(spectrum[..., low:high].flip(-1).conj())
        total = total + torch.cat(parts, dim=-1)
    return total / stride


class FIRModule(AuditoryModule):
    """A stage with an impulse response that follows from its constants.

    What follows from the constants is computed once and kept until one of them changes, or computed at every call while
    gradients are wanted.
    """

    _kept: tuple[list[tuple[Tensor, int]], dict[Any, Any]] | None = None

    @property
    @abstractmethod
    def taps(self) -> Tensor:
        """Impulse responses (..., N), float64."""

    def derived(self, name: object, make: Callable[[], Any]) -> Any:
        """Return ``make()``, from memory if the constants are still those that it was made of."""
        constants = [getattr(self, constant) for constant in self._constants]
        wanted = torch.is_grad_enabled() and any(c.requires_grad for c in constants)
        if wanted or any(c.is_inference() for c in constants):
            return make()
        kept = self._kept
        same = kept is not None and all(
            a is b and version == b._version for (a, version), b in zip(kept[0], constants, strict=True)
        )
        if kept is None or not same:
            kept = ([(c, c._version) for c in constants], {})
            self._kept = kept
        if name not in kept[1]:
            if len(kept[1]) >= 12:  # sounds of many lengths: the oldest goes
                kept[1].pop(next(iter(kept[1])))
            with torch.no_grad(), torch.inference_mode(False):
                kept[1][name] = make()
        return kept[1][name]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": None}

    def response(self, n_fft: int) -> Tensor:
        """Return the spectra of the taps (..., n_fft // 2 + 1) in the complex dtype of the signals."""
        dtype = complex_dtype(self.dtype)
        return self.derived((n_fft, dtype), lambda: torch.fft.rfft(self.taps, n_fft).to(dtype))
