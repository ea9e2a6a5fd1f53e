"""Binaural interaction: excitation-inhibition elements, after Breebaart, van de Par and Kohlrausch (2001)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from psysim.errors import SpecError, check_range
from psysim.stages.base import AuditoryModule, per_row

__all__ = ["ExcitationInhibition", "double_exponential", "framed"]


def framed(x: Tensor, length: int) -> Tensor:
    """Return the means of ``x`` (..., T) over frames of ``length`` samples, (..., T // length); a rest is left out."""
    n = x.shape[-1] // length
    return x[..., : n * length].reshape(*x.shape[:-1], n, length).mean(dim=-1)


def double_exponential(x: Tensor, frame_s: float, window_s: Tensor | float) -> Tensor:
    """Return ``x`` (B, ..., T') smoothed over time by exp(-abs(t) / window_s), of unit area.

    The window reaches as far into the future as into the past. Beyond the ends there is silence. ``frame_s`` is the
    step of the time axis in s.
    """
    lag = torch.arange(x.shape[-1], dtype=torch.float64, device=x.device)
    decay = torch.exp(-frame_s / torch.as_tensor(window_s, dtype=torch.float64, device=x.device))
    kernel = ((1.0 - decay) / (1.0 + decay) * decay ** (lag[:, None] - lag[None, :]).abs()).to(x.dtype)
    return per_row(lambda row: row @ kernel, x)


DELAYS_S = (0.0, -0.0005, 0.0005, -0.001, 0.001, -0.002, 0.002, -0.004, 0.004)


class ExcitationInhibition(AuditoryModule):
    r"""Excitation-inhibition elements: what is left of one ear when the other, delayed and scaled, is subtracted.

    For every channel, internal delay tau and internal gain alpha

    .. math:: E(t) = [10^{\alpha/40} L(t + \tau/2) - 10^{-\alpha/40} R(t - \tau/2)]^2

    is averaged over frames, smoothed by the double-sided exponential window of 30 ms and compressed:
    ``10^(-|tau| / 5 ms) log(1 + E / knee)``. An element is silent where its delay and gain cancel the sound in its
    channel; any interaural difference excites it. Delays are rounded to samples; the whole delay is given to the right
    ear, which moves the element in time by half of it.

    Parameters
    ----------
    fs : float
        Sampling rate, Hz.
    fc : Tensor or sequence of float (F,)
        Centre frequencies of the channels, Hz.
    delays_s : sequence of float
        Internal delays tau, s, of every channel; above 0: the right ear is delayed. By default 0 and plus and minus
        0.5, 1, 2 and 4 ms, half periods of 1000, 500, 250 and 125 Hz.
    gains_db : sequence of float
        Internal gains alpha, dB. All delays go with all gains: K elements per channel.
    window_s : float
        Time constant of the window, s.
    knee : float
        E above which the output grows with its logarithm only, (model units)^2. 5e4 is 1 / 0.00002 of the publication
        (recalled, as are the two time constants: the paper was not at hand).
    delay_weight_s : float
        Delay in s at which an element has a tenth of the weight.
    frame_s : float
        Step of the output, s.
    learnable : bool
        Make window, knee and weight trainable.
    dtype : torch.dtype
        torch.float32 or torch.float64.

    Attributes
    ----------
    shifts : list of int
        The delays in samples.
    gains_db : tuple of float
    weights : Tensor (K,)

    Raises
    ------
    SpecError
        If an argument is out of range.

    References
    ----------
    Breebaart, van de Par & Kohlrausch (2001a), J. Acoust. Soc. Am. 110, 1074-1088.

    Examples
    --------
    >>> import torch
    >>> stage = ExcitationInhibition(8000.0, [500.0, 1000.0])
    >>> same = torch.rand(1, 1, 2, 800).expand(1, 2, 2, 800)
    >>> out = stage(same)
    >>> out.shape, bool((out[:, :, 0] == 0).all())  # the element without delay is silent
    (torch.Size([1, 2, 9, 10]), True)
    """

    window_s: Tensor
    knee: Tensor
    delay_weight_s: Tensor

    def __init__(
        self,
        fs: float,
        fc: Tensor | Sequence[float],
        delays_s: Sequence[float] = DELAYS_S,
        gains_db: Sequence[float] = (0.0,),
        window_s: float = 0.03,
        knee: float = 5e4,
        delay_weight_s: float = 0.005,
        frame_s: float = 0.01,
        learnable: bool = False,
        dtype: torch.dtype | str = torch.float32,
    ) -> None:
        super().__init__(fs, learnable=learnable, dtype=dtype)
        centre = torch.as_tensor(fc, dtype=torch.float64).reshape(-1)
        if len(centre) == 0 or not bool((centre > 0).all()) or not bool(centre.isfinite().all()):
            raise SpecError(f"fc must hold centre frequencies above 0 Hz, got {centre.tolist()}.")
        if not delays_s or not gains_db:
            raise SpecError("delays_s and gains_db must hold at least one value each.")
        for name, value in (("window_s", window_s), ("knee", knee), ("delay_weight_s", delay_weight_s)):
            check_range(name, value, 0.0, low_open=True)
            self.constant(name, value)
        check_range("frame_s", frame_s, 1.0 / self.fs, 1.0, unit="s")
        self.frame = max(1, round(frame_s * self.fs))
        for gain in gains_db:
            check_range("gains_db", gain, -60.0, 60.0, unit="dB")
        for delay in delays_s:
            check_range("delays_s", delay, -1.0, 1.0, unit="s")
        self.gains_db = tuple(float(g) for g in gains_db)
        self.delays_s = tuple(float(d) for d in delays_s)
        self.shifts = [round(delay * self.fs) for delay in self.delays_s]
        self.n_channels = len(centre)

    @property
    def fs_out(self) -> float:
        """Rate of the output, Hz."""
        return self.fs / self.frame

    @property
    def weights(self) -> Tensor:
        """Weight of each element (K,): a tenth for every ``delay_weight_s`` of delay."""
        delay = torch.tensor(self.delays_s, dtype=torch.float64, device=self.device).abs()
        return torch.exp(-math.log(10.0) * delay / self.delay_weight_s).repeat_interleave(len(self.gains_db))

    def forward(self, x: Tensor) -> Tensor:
        """Return the elements' output (B, F, K, T') for the two ears ``x`` (B, 2, F, T), or without B."""
        x = self.enter(x, (3, 4), "(2, F, T) or (B, 2, F, T)")
        batch = x if x.ndim == 4 else x.unsqueeze(0)
        if batch.shape[1] != 2 or batch.shape[2] != self.n_channels:
            raise SpecError(
                f"x has shape {tuple(x.shape)}, but two ears and {self.n_channels} channels are needed: (B, 2, F, T)."
            )
        left, right = batch.unbind(1)
        elements = torch.stack(self._elements(left, right), dim=2)
        smooth = double_exponential(elements, self.frame / self.fs, self.window_s)
        y = self.weights.to(x.dtype)[:, None] * torch.log1p(smooth / self.knee.to(x.dtype))
        return y if x.ndim == 4 else y.squeeze(0)

    def _elements(self, left: Tensor, right: Tensor) -> list[Tensor]:
        """Return the frames (B, F, T') of every element, before smoothing."""
        found = []
        for shift in self.shifts:
            delayed = shifted(right, shift)
            for gain in self.gains_db:
                rest = 10 ** (gain / 40) * left - 10 ** (-gain / 40) * delayed
                found.append(framed(rest.square(), self.frame))
        return found


def shifted(x: Tensor, samples: int) -> Tensor:
    """Return ``x`` (..., T) delayed by ``samples`` (below 0: advanced), with zeros where nothing was."""
    if samples == 0:
        return x
    n = x.shape[-1]
    kept = min(abs(samples), n)
    pad = (kept, 0) if samples > 0 else (0, kept)
    part = x[..., : n - kept] if samples > 0 else x[..., kept:]
    return torch.nn.functional.pad(part, pad)
