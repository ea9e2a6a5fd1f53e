"""Aids with trainable filters: gains of a half-cosine filterbank, and a free impulse response (Saddler's tutorial)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from psysim.errors import SpecError
from psysim.hearing.aids.base import HearingAid, State, filtered, register
from psysim.stages import AudioFIR, HalfCosineFilterbank

__all__ = ["FilterbankGains", "LearnableFIR"]


@register("filterbank_gains")
class FilterbankGains(HearingAid):
    """A gain for each channel of a zero-phase half-cosine filterbank: the aid that Saddler's tutorial fits.

    The filters overlap and their sum is up to sqrt(2): with all gains 0 dB, the level between centres rises by up to
    3 dB. The filterbank counts the sound as periodic and needs all of it at once.

    Parameters
    ----------
    fs : float
        Sampling rate, Hz.
    gain_db : sequence of float, optional
        Gains (F,), dB, from the lowest channel to the highest. Default: 0 in all.
    cf_low, cf_high : float, optional
        First and last centre, Hz; the last is fs/2 by default.
    cf_num : int
        Number of channels F.
    scale : str
        ``"log"``, ``"erb"`` or ``"linear"``.
    learnable : bool
        Make ``gain_db`` trainable; the filters stay.
    dtype : torch.dtype
        torch.float32 or torch.float64.

    Attributes
    ----------
    gain_db : Tensor (F,)
        Gains, dB, float64.
    bank : HalfCosineFilterbank

    Raises
    ------
    SpecError
        If there is not one gain for each channel, or the filterbank's arguments are out of range.

    References
    ----------
    Saddler (2025), tutorial on differentiable auditory models.

    Examples
    --------
    >>> import torch
    >>> aid = FilterbankGains(20000.0, gain_db=[20.0] * 7)
    >>> aid(torch.ones(2, 100)).shape, aid.streams
    (torch.Size([2, 100]), False)
    """

    gain_db: Tensor
    streams = False

    def __init__(
        self,
        fs: float,
        gain_db: Sequence[float] | Tensor | None = None,
        cf_low: float = 20.0,
        cf_high: float | None = None,
        cf_num: int = 7,
        scale: str = "log",
        learnable: bool = False,
        dtype: torch.dtype | str = torch.float32,
    ) -> None:
        super().__init__(fs, learnable=learnable, dtype=dtype)
        high = self.fs / 2 if cf_high is None else cf_high
        self.bank = HalfCosineFilterbank(self.fs, cf_low, high, cf_num, scale, dtype=self.dtype)
        gains = torch.zeros(int(cf_num)) if gain_db is None else torch.as_tensor(gain_db, dtype=torch.float64)
        if gains.shape != (int(cf_num),) or not bool(gains.isfinite().all()):
            raise SpecError(f"gain_db of shape {tuple(gains.shape)} must be {cf_num} finite numbers, one a channel.")
        self.constant("gain_db", gains)

    def _process(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        channels = self.bank(x.reshape(-1, x.shape[-1]))
        gain = (10.0 ** (self.gain_db / 20.0)).to(x.dtype)
        return (gain[:, None] * channels).sum(-2).reshape(x.shape), {}


@register("fir")
class LearnableFIR(HearingAid):
    """A free impulse response.

    Parameters
    ----------
    fs : float
        Sampling rate, Hz.
    fir_dur : float
        Duration of the impulse response, s, if it is drawn.
    taps : sequence of float, optional
        Impulse response (N,) to start from. Default: uniform random numbers within 1/sqrt(N), as in the tutorial.
    seed : int
        Seed of the random taps.
    delay : int
        Samples by which these taps delay the sound: what is to be said of them, 0 for minimum phase.
    learnable : bool
        Make ``impulse_response`` trainable.
    dtype : torch.dtype
        torch.float32 or torch.float64.

    Attributes
    ----------
    impulse_response : Tensor (N,)
        Taps, float64.

    Raises
    ------
    SpecError
        If the taps are no list of finite numbers, or the delay is not one of theirs.

    References
    ----------
    Saddler (2025), tutorial on differentiable auditory models.

    Examples
    --------
    >>> import torch
    >>> LearnableFIR(20000.0, taps=[0.0, 2.0], delay=1)(torch.tensor([1.0, 2.0, 3.0])).round(decimals=4).tolist()
    [0.0, 2.0, 4.0]
    """

    impulse_response: Tensor

    def __init__(
        self,
        fs: float,
        fir_dur: float = 0.01,
        taps: Sequence[float] | Tensor | None = None,
        seed: int = 0,
        delay: int = 0,
        learnable: bool = False,
        dtype: torch.dtype | str = torch.float32,
    ) -> None:
        super().__init__(fs, learnable=learnable, dtype=dtype)
        self.constant("impulse_response", AudioFIR(self.fs, fir_dur, taps, seed).impulse_response)
        if not 0 <= int(delay) < len(self.impulse_response):
            raise SpecError(f"delay = {delay} is out of range: there are {len(self.impulse_response)} taps.")
        self._delay = int(delay)

    @property
    def delay(self) -> int:
        """Samples by which the output lags the input, as stated."""
        return self._delay

    def _process(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        y, past = filtered(x, self.impulse_response[None], None if state is None else state["past"])
        return y.squeeze(-2), {"past": past}
