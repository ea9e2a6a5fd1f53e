"""The aid that changes nothing, and the one that only changes the level."""

from __future__ import annotations

import torch
from torch import Tensor

from psysim.errors import check_range
from psysim.hearing.aids.base import HearingAid, State, register

__all__ = ["PassThrough", "ScalarGain"]


@register("pass_through")
class PassThrough(HearingAid):
    """An aid that gives the sound unchanged: the unaided ear, as a candidate beside others.

    Parameters
    ----------
    fs : float
        Sampling rate, Hz.
    learnable : bool
        Without effect: there is nothing to learn.
    dtype : torch.dtype
        torch.float32 or torch.float64.

    Examples
    --------
    >>> import torch
    >>> PassThrough(16000.0)(torch.tensor([1.0, -1.0]))
    tensor([ 1., -1.])
    """

    def _process(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        return x, {}


@register("gain")
class ScalarGain(HearingAid):
    """An aid with one gain at all frequencies and levels.

    Parameters
    ----------
    fs : float
        Sampling rate, Hz.
    gain_db : float
        Gain, dB, -100 to 100.
    learnable : bool
        Make ``gain_db`` trainable.
    dtype : torch.dtype
        torch.float32 or torch.float64.

    Raises
    ------
    SpecError
        If the gain is out of range.

    References
    ----------
    Saddler (2025), tutorial on differentiable auditory models: the first of its aids.

    Examples
    --------
    >>> import torch
    >>> ScalarGain(16000.0, gain_db=20.0)(torch.tensor([1.0, -1.0]))
    tensor([ 10., -10.])
    """

    gain_db: Tensor

    def __init__(
        self, fs: float, gain_db: float = 0.0, learnable: bool = False, dtype: torch.dtype | str = torch.float32
    ) -> None:
        super().__init__(fs, learnable=learnable, dtype=dtype)
        check_range("gain_db", gain_db, -100.0, 100.0, unit="dB")
        self.constant("gain_db", gain_db)

    def _process(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        return x * (10.0 ** (self.gain_db / 20.0)).to(x.dtype), {}
