"""Front-ends that are learnt: band-pass filters with learnt edges (SincNet), Gabor filters and normalisation (LEAF)."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from psysim.errors import SpecError, check_option
from psysim.models.neural.causal import State
from psysim.models.neural.configuration import register
from psysim.models.neural.front_end import FrontEnd, check_band, logarithmic, mel_frequencies, pcen, with_past

__all__ = ["LEAF", "SincFilters", "SincNet"]


class SincFilters(nn.Module):
    """Windowed band-pass filters with learnt edges.

    Parameters
    ----------
    n_filters, kernel_size : int
        Filters; taps K.
    f_min, f_max, audio_fs : float
        Range of the initial edges, equally spaced in mel; sampling rate; Hz.
    """

    window: Tensor

    def __init__(self, n_filters: int, kernel_size: int, f_min: float, f_max: float, audio_fs: float) -> None:
        super().__init__()
        self.audio_fs = audio_fs
        edges = mel_frequencies(n_filters + 1, f_min, f_max)
        self.low_hz_ = nn.Parameter(edges[:-1].float())
        self.band_hz_ = nn.Parameter(edges.diff().float())
        window = torch.hamming_window(kernel_size, periodic=False, dtype=torch.float64)
        self.register_buffer("window", window.float(), persistent=False)

    def edges_hz(self) -> tuple[Tensor, Tensor]:
        """Return lower and upper edges (F,), Hz."""
        low = self.low_hz_.abs().clamp(1, self.audio_fs / 2 - 1)
        return low, (low + self.band_hz_.abs()).clamp_max(self.audio_fs / 2)

    def forward(self) -> Tensor:
        """Return the impulse responses (F, K)."""
        size, fs = len(self.window), self.audio_fs
        n = torch.arange(size, dtype=self.window.dtype, device=self.window.device) - (size - 1) / 2
        low, high = (edge[:, None] for edge in self.edges_hz())
        # 2 f / fs sinc(2 f n / fs) = sin(2 pi f n / fs) / (pi n), finite at n = 0
        return (
            2 * high / fs * torch.sinc(2 * high * n / fs) - 2 * low / fs * torch.sinc(2 * low * n / fs)
        ) * self.window


@register("front_end", "sincnet")
class SincNet(FrontEnd):
    """Band-pass filters with learnt edges, Ravanelli and Bengio (2018).

    The filters are symmetric and delayed to be causal: by (kernel_size - 1) / 2 samples.

    Parameters
    ----------
    audio_fs, dt_ms
        See `FrontEnd`.
    n_filters : int
        Bands F.
    kernel_size : int
        Taps K.
    f_min, f_max : float
        Range of the initial edges, Hz; None for half the sampling rate.
    activation : {"logabs", "symlog", "none"}
        log(1 + abs(x)), sign(x) log(1 + abs(x)), or none.
    envelope : bool
        Average of the magnitude of every sample; without it one sample of the filters' output per frame.
    env_window_ms : float, optional
        Average before the end of a frame, ms; one frame by default.

    References
    ----------
    Ravanelli, M. and Bengio, Y. (2018). Speaker recognition from raw waveform with SincNet. IEEE SLT.

    Examples
    --------
    >>> front = SincNet(16000, 5.0, n_filters=24, f_min=300, f_max=7000)
    >>> front(torch.zeros(2, 1, 3200)).shape
    torch.Size([2, 1, 24, 40])
    """

    published_names: ClassVar[dict[str, str]] = {"low_hz_": "sinc.low_hz_", "band_hz_": "sinc.band_hz_"}

    def __init__(
        self,
        audio_fs: float = 48000.0,
        dt_ms: float = 5.0,
        n_filters: int = 34,
        kernel_size: int = 251,
        f_min: float = 500.0,
        f_max: float | None = 22627.0,
        activation: str = "logabs",
        envelope: bool = False,
        env_window_ms: float | None = None,
    ) -> None:
        super().__init__(audio_fs, dt_ms, n_filters)
        check_option("activation", activation, ("logabs", "symlog", "none"))
        top = check_band(f_min, f_max, audio_fs)
        self.activation, self.envelope = activation, envelope
        self.average = self.hop if env_window_ms is None else round(audio_fs * env_window_ms / 1000)
        if kernel_size < 2 or self.average < self.hop:
            raise SpecError(f"kernel_size = {kernel_size} must be 2 or more, and the average at least a frame.")
        self.sinc = SincFilters(n_filters, kernel_size, f_min, top, audio_fs)

    def analyse(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the spectrogram (B, F, T) of a block, and the samples that the next block needs."""
        kernels = self.sinc()[:, None]
        sound, magnitude = (None, None) if state is None else state
        if self.envelope:
            longer, sound = with_past(x, kernels.shape[-1] - 1, sound)
            longer, magnitude = with_past(F.conv1d(longer, kernels).abs(), self.average - self.hop, magnitude)
            y = F.avg_pool1d(longer, self.average, self.hop)
        else:
            longer, sound = with_past(x, max(0, kernels.shape[-1] - self.hop), sound)
            y = F.conv1d(longer, kernels, stride=self.hop)
        if self.activation == "none":
            return y, (sound, magnitude)
        return logarithmic(y if self.activation == "symlog" else y.abs()), (sound, magnitude)


@register("front_end", "leaf")
class LEAF(FrontEnd):
    """Learnt Gabor filters, Gaussian averages and normalisation per channel, Zeghidour et al. (2021).

    Parameters
    ----------
    audio_fs, dt_ms
        See `FrontEnd`.
    n_filters : int
        Bands F.
    f_min, f_max : float
        Range of the initial centre frequencies, equally spaced in mel, Hz; None for half the sampling rate.
    kernel_ms : float
        Length of the filters, ms; they are delayed by half of it.
    pool_hops : int
        Length of the averages, frames.

    References
    ----------
    Zeghidour, N., Teboul, O., de Chaumont Quitry, F. and Tagliasacchi, M. (2021). LEAF: a learnable frontend for audio
    classification. ICLR.

    Examples
    --------
    >>> front = LEAF(16000, 5.0, n_filters=24, f_max=7000)
    >>> front(torch.zeros(2, 1, 3200)).shape
    torch.Size([2, 1, 24, 40])
    """

    def __init__(
        self,
        audio_fs: float = 48000.0,
        dt_ms: float = 5.0,
        n_filters: int = 34,
        f_min: float = 60.0,
        f_max: float | None = 22627.0,
        kernel_ms: float = 15.0,
        pool_hops: int = 4,
    ) -> None:
        super().__init__(audio_fs, dt_ms, n_filters)
        top = check_band(f_min, f_max, audio_fs)
        if pool_hops < 1:
            raise SpecError(f"pool_hops = {pool_hops} must be at least 1.")
        self.size = 2 * (round(audio_fs * kernel_ms / 1000) // 2) + 1
        self.pool = pool_hops * self.hop
        f = mel_frequencies(n_filters, f_min, top)
        width = 24.7 * (0.00437 * f + 1)
        initial = {
            "center_freq_": 2 * math.pi * f / audio_fs,
            "gabor_sigma_raw": inverse_softplus(audio_fs / (2 * math.pi * width)),
            "pool_sigma_raw": inverse_softplus(torch.full_like(f, self.pool / 4)),
            "pcen_alpha_raw": inverse_softplus(torch.full_like(f, 0.96)),
            "pcen_delta_raw": inverse_softplus(torch.full_like(f, 2.0)),
            "pcen_root_raw": inverse_softplus(torch.full_like(f, 0.5)),
            "pcen_s_logit": torch.full_like(f, 0.04).logit(),
        }
        for name, value in initial.items():
            self.register_parameter(name, nn.Parameter(value.float()))

    def gabor_filters(self) -> tuple[Tensor, Tensor]:
        """Return real and imaginary parts of the impulse responses, (F, 1, K)."""
        w = self.get_parameter("center_freq_").clamp(0.01, math.pi)[:, None]
        sigma = F.softplus(self.get_parameter("gabor_sigma_raw")).clamp_min(1)[:, None]
        n = torch.arange(self.size, dtype=w.dtype, device=w.device) - self.size // 2
        window = torch.exp(-0.5 * (n / sigma) ** 2)
        window = window / window.sum(1, keepdim=True)
        return (window * torch.cos(w * n))[:, None], (window * torch.sin(w * n))[:, None]

    def analyse(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the spectrogram (B, F, T) of a block, and what the next block needs."""
        sound, magnitude, mean = (None, None, None) if state is None else state
        longer, sound = with_past(x, self.size - 1, sound)
        real, imag = F.conv1d(longer, torch.cat(self.gabor_filters())).chunk(2, 1)
        longer, magnitude = with_past(torch.sqrt(real**2 + imag**2 + 1e-9), self.pool - self.hop, magnitude)
        scale = F.softplus(self.get_parameter("pool_sigma_raw")).clamp_min(0.5)[:, None]
        distance = torch.arange(self.pool - 1, -1, -1, dtype=scale.dtype, device=scale.device)
        weight = torch.exp(-0.5 * (distance / scale) ** 2)
        weight = weight / weight.sum(1, keepdim=True)
        energy = F.conv1d(longer, weight[:, None], stride=self.hop, groups=self.out_channels)
        alpha, delta, power = (
            F.softplus(self.get_parameter(f"pcen_{k}_raw"))[:, None] for k in ("alpha", "delta", "root")
        )
        smoother = torch.sigmoid(self.get_parameter("pcen_s_logit"))
        y, mean = pcen(energy, smoother, alpha, delta, power, mean)
        return y, (sound, magnitude, mean)


def inverse_softplus(value: Tensor) -> Tensor:
    """Return x with softplus(x) = value."""
    return value + torch.log(-torch.expm1(-value))
