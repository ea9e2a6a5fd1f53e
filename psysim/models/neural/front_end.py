"""What the front-ends share: waveforms (B, 1, T_audio) to spectrograms (B, 1, F, T), strictly causal.

Frame t depends on the samples before (t + 1) hop only. All have finite gradients on digital silence.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from psysim import ops
from psysim.errors import SpecError, check_range
from psysim.models.neural.causal import Causal, State
from psysim.models.neural.configuration import Configured

__all__ = ["COMPRESSIONS", "FrontEnd", "check_band", "logarithmic", "mel_frequencies", "pcen", "root", "with_past"]

TINY = 1e-20
"""Power below which a square root is taken to be constant: an amplitude of 1e-10."""


class FrontEnd(Configured, Causal):
    """A front-end.

    Parameters
    ----------
    audio_fs : float
        Sampling rate, Hz.
    dt_ms : float
        Duration of a frame, ms: hop = round(audio_fs dt_ms / 1000) samples.
    out_channels : int
        Bands F.

    Attributes
    ----------
    hop : int
        Samples per frame. A waveform is a whole number of them.

    Raises
    ------
    SpecError
        If an argument is out of range.
    """

    family = "front_end"

    def __init__(self, audio_fs: float, dt_ms: float, out_channels: int) -> None:
        super().__init__()
        check_range("audio_fs", audio_fs, 0.0, unit="Hz", low_open=True)
        check_range("dt_ms", dt_ms, 0.0, unit="ms", low_open=True)
        self.audio_fs, self.dt_ms, self.out_channels = audio_fs, dt_ms, out_channels
        self.hop = round(audio_fs * dt_ms / 1000)
        if self.hop < 1 or out_channels < 1:
            raise SpecError(
                f"A frame of {dt_ms:g} ms at {audio_fs:g} Hz has {self.hop} samples, for {out_channels} bands: both "
                "must be 1 or more."
            )

    def stream(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Return the spectrogram (B, 1, F, T) of a block (B, 1, T hop), and what the next block needs.

        Raises
        ------
        SpecError
            If the block is not a whole number of frames.
        """
        if x.ndim != 3 or x.shape[1] != 1 or x.shape[2] % self.hop:
            raise SpecError(
                f"The waveform has the shape {tuple(x.shape)}; expected (B, 1, T_audio) with T_audio a multiple "
                f"of the hop of {self.hop} samples."
            )
        y, after = self.analyse(x, state)
        return y[:, None], after

    @abstractmethod
    def analyse(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the spectrogram (B, F, T) of a block (B, 1, T hop), and what the next block needs."""


def with_past(x: Tensor, past: int, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return ``x`` behind the ``past`` samples before it (at first zeros), and the last ``past`` samples of that."""
    longer = F.pad(x, (past, 0)) if state is None else torch.cat([state, x], -1)
    return longer, longer[..., longer.shape[-1] - past :]


def mel_frequencies(count: int, f_min: float, f_max: float) -> Tensor:
    """Return frequencies equally spaced on 2595 log10(1 + f / 700), both ends included, Hz, float64."""
    ends = torch.log10(1 + torch.tensor([f_min, f_max], dtype=torch.float64) / 700)
    return 700 * (10 ** torch.linspace(float(ends[0]), float(ends[1]), count, dtype=torch.float64) - 1)


def check_band(f_min: float, f_max: float | None, audio_fs: float, low: float = 0.0) -> float:
    """Return the upper frequency (half the sampling rate for None); refuse what is not below it in order."""
    top = audio_fs / 2 if f_max is None else f_max
    check_range("f_max", top, 0.0, audio_fs / 2, unit="Hz", low_open=True)
    check_range("f_min", f_min, low, unit="Hz")
    if f_min >= top:
        raise SpecError(f"f_min = {f_min:g} Hz must be below f_max = {top:g} Hz.")
    return top


def root(power: Tensor) -> Tensor:
    """Return the square root; at silence its gradient is 0."""
    return power.clamp_min(TINY).sqrt()


def logarithmic(x: Tensor) -> Tensor:
    """Return sign(x) log(1 + abs(x)), with its gradient of 1 at 0."""
    positive = x >= 0
    zero = torch.zeros_like(x)
    return torch.where(
        positive, torch.log1p(torch.where(positive, x, zero)), -torch.log1p(torch.where(positive, zero, -x))
    )


def pcen(
    energy: Tensor, smoother: Tensor, alpha: Tensor, delta: Tensor, power: Tensor, state: State
) -> tuple[Tensor, State]:
    """Normalise energy per channel by its own slow average, Wang et al. (2017).

    Parameters
    ----------
    energy : Tensor
        (B, F, T), not negative.
    smoother, alpha, delta, power : Tensor
        Weight of a frame in the average M, exponents and offset, (F, 1) or (1, 1).
    state : State
        Average before the first frame: 0 by default.

    Returns
    -------
    Tensor
        (energy / (1e-6 + M)^alpha + delta)^power - delta^power.
    State
        Average at the last frame.
    """
    weight = smoother.flatten().double()
    mean, after = ops.leaky(energy, 1 - weight, weight, state=state, return_state=True)
    return (energy / (1e-6 + mean) ** alpha + delta) ** power - delta**power, after


def _cube_root(x: Tensor) -> Tensor:
    return x.clamp_min(1e-15) ** (1 / 3)


COMPRESSIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "log": lambda x: torch.log(x.clamp_min(1e-4)),
    "cubic": _cube_root,
    "log1p": torch.log1p,
    "none": lambda x: x,
}
