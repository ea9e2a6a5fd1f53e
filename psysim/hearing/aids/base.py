"""The interface of a hearing aid: sound in pascal in, sound in pascal out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from psysim.errors import SpecError
from psysim.registry import Registry
from psysim.stages.base import AuditoryModule, per_row
from psysim.stages.fir import complex_dtype, fft_length

__all__ = ["HearingAid", "State", "filtered", "register", "registry"]

BUILTIN = tuple(
    f"psysim.hearing.aids.{name}" for name in ("passthrough", "linear", "compression", "noise", "gains", "chain")
)

registry: Registry[type[HearingAid]] = Registry("hearing aid", "psysim.hearing_aids", BUILTIN)
register = registry.register

State = dict[str, Any]
"""What an aid remembers from one block of sound to the next: tensors by name (nested in chains)."""

SHAPES = "(T,), (B, T) or (B, 2, T)"


class HearingAid(AuditoryModule, ABC):
    """A hearing aid, or one stage of one.

    An aid takes sound in pascal and gives sound in pascal of the same shape: (T,), (B, T), or (B, 2, T) for two ears.
    It is differentiable, keeps no state of its own, and treats every row of a batch on its own. What it remembers is
    handed in and out by `process`, so that blocks of a sound give what the whole sound gives.

    Parameters
    ----------
    fs : float
        Sampling rate, Hz.
    learnable : bool
        Whether the settings become trainable parameters (float64) instead of buffers.
    dtype : torch.dtype
        dtype of the signals, torch.float32 or torch.float64.

    Attributes
    ----------
    streams : bool
        Whether sound may come in blocks. An aid that needs the whole sound at once says False.
    delay : int
        Samples by which the output lags the input.
    """

    streams: bool = True
    needs_sources: bool = False
    """Whether the aid acts on target and noise apart, and so cannot take a mixture."""

    @property
    def delay(self) -> int:
        """Samples by which the output lags the input."""
        return 0

    @abstractmethod
    def _process(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Return the output for ``x`` (B, E, T) and the state at its end; ``state`` is None at the start."""

    def process(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Process one block of sound.

        Parameters
        ----------
        x : Tensor (T,), (B, T) or (B, 2, T)
            Sound in pascal.
        state : dict, optional
            As returned for the block before; None at the start of a sound.

        Returns
        -------
        Tensor
            Sound in pascal, the shape of ``x``; it lags by ``delay`` samples.
        dict
            State for the next block.

        Raises
        ------
        SpecError
            For a wrong shape, or a state given to an aid that needs the whole sound at once.
        """
        if state is not None and not self.streams:
            raise SpecError(f"{type(self).__name__} needs the whole sound at once: it cannot take it in blocks.")
        rows, shape = self._rows(x)
        y, end = self._process(rows, state)
        return y.reshape(shape), end

    def forward(self, x: Tensor) -> Tensor:
        """Return the aided sound of ``x`` (T,), (B, T) or (B, 2, T), pascal, silence before it."""
        return self.process(x)[0]

    def mix(self, target: Tensor, noise: Tensor) -> Tensor:
        """Return the aided sound of a target in noise, both (T,), (B, T) or (B, 2, T) in pascal, given apart."""
        return self(target + noise)

    def _rows(self, x: Tensor) -> tuple[Tensor, torch.Size]:
        x = self.enter(x, (1, 2, 3), SHAPES)
        if x.ndim == 3 and x.shape[1] != 2:
            raise SpecError(f"x has shape {tuple(x.shape)}, but must have shape {SHAPES}.")
        return x if x.ndim == 3 else x.reshape(-1, 1, x.shape[-1]), x.shape


def filtered(x: Tensor, taps: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
    """Filter sound causally by FFT, block by block.

    Parameters
    ----------
    x : Tensor (B, E, T)
        Sound.
    taps : Tensor (F, K)
        Impulse responses, real or complex.
    past : Tensor (B, E, K - 1) or None
        The samples before ``x``; None: silence.

    Returns
    -------
    Tensor (B, E, F, T)
        Every impulse response applied to every ear; complex for complex taps.
    Tensor (B, E, K - 1)
        The samples before the next block.
    """
    n_taps, n = taps.shape[-1], x.shape[-1]
    if past is None:
        past = x.new_zeros(*x.shape[:-1], n_taps - 1)
    whole = torch.cat([past, x], -1)
    n_fft = fft_length(n + n_taps - 1)
    spectral = complex_dtype(x.dtype)
    if taps.is_complex():
        response = torch.fft.fft(taps, n_fft).to(spectral)
        y = per_row(lambda row: torch.fft.ifft(torch.fft.fft(row, n_fft)[:, None] * response), whole)
    else:
        response = torch.fft.rfft(taps, n_fft).to(spectral)
        y = per_row(lambda row: torch.fft.irfft(torch.fft.rfft(row, n_fft)[:, None] * response, n_fft), whole)
    # Circular: what is wrapped round falls on the first K - 1 samples, which are dropped
    return y[..., n_taps - 1 : n_taps - 1 + n], whole[..., n:]
