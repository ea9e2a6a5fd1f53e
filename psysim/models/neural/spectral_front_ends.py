"""Front-ends with fixed filters: mel bands, gammatone filters (FIR), and the gammatonegram (IIR)."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from psysim import ops
from psysim.errors import SpecError, check_option, check_range
from psysim.models.neural.causal import State
from psysim.models.neural.configuration import register
from psysim.models.neural.front_end import COMPRESSIONS, FrontEnd, check_band, mel_frequencies, pcen, root, with_past

__all__ = ["GammatoneFrontEnd", "Gammatonegram", "MelFrontEnd"]


@register("front_end", "mel")
class MelFrontEnd(FrontEnd):
    """Mel bands of short-time spectra: Hann window, triangular filters of unit peak.

    Parameters
    ----------
    audio_fs, dt_ms
        See `FrontEnd`.
    n_mels : int
        Bands F.
    win_ms : float
        Window, ms, at least a frame.
    f_min, f_max : float
        Lowest and highest edge, Hz; None for half the sampling rate.
    compression : {"log", "log_offset", "cubic", "log1p", "none"}
        log(max(m, log_floor)), log(m + log_floor), cube root, log(1 + m), or none.
    magnitude : {"amplitude", "power"}
        Of the spectra.
    log_floor : float
        For "log" and "log_offset".

    Examples
    --------
    >>> front = MelFrontEnd(16000, 5.0, n_mels=24, f_min=300, f_max=7000)
    >>> front(torch.zeros(2, 1, 3200)).shape
    torch.Size([2, 1, 24, 40])
    """

    window: Tensor
    filters: Tensor

    def __init__(
        self,
        audio_fs: float = 48000.0,
        dt_ms: float = 5.0,
        n_mels: int = 34,
        win_ms: float = 10.0,
        f_min: float = 500.0,
        f_max: float | None = 22627.0,
        compression: str = "log",
        magnitude: str = "amplitude",
        log_floor: float = 1e-4,
    ) -> None:
        super().__init__(audio_fs, dt_ms, n_mels)
        check_option("compression", compression, [*COMPRESSIONS, "log_offset"])
        check_option("magnitude", magnitude, ("amplitude", "power"))
        check_range("log_floor", log_floor, 0.0, low_open=True)
        top = check_band(f_min, f_max, audio_fs)
        size = round(audio_fs * win_ms / 1000)
        if size < self.hop:
            raise SpecError(f"win_ms = {win_ms:g} ms must be at least a frame, {dt_ms:g} ms.")
        self.compression, self.magnitude, self.log_floor = compression, magnitude, log_floor
        edges = mel_frequencies(n_mels + 2, f_min, top)
        bins = torch.linspace(0, audio_fs / 2, size // 2 + 1, dtype=torch.float64)[:, None]
        rise, fall = (bins - edges[:-2]) / edges.diff()[:-1], (edges[2:] - bins) / edges.diff()[1:]
        filters = torch.minimum(rise, fall).clamp_min(0)
        if bool((filters.amax(0) == 0).any()):
            raise SpecError(
                f"{n_mels} bands from {f_min:g} to {top:g} Hz are too narrow for windows of {win_ms:g} ms: some hold "
                "no frequency of the spectrum. Take fewer bands or a longer window."
            )
        window = torch.hann_window(size, periodic=False, dtype=torch.float64)
        self.register_buffer("window", window.float(), persistent=False)
        self.register_buffer("filters", filters.float(), persistent=False)

    def analyse(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the spectrogram (B, F, T) of a block, and the samples the next block needs."""
        size = len(self.window)
        longer, after = with_past(x[:, 0], size - self.hop, state)
        spectra = torch.fft.rfft(longer.unfold(-1, size, self.hop) * self.window)
        power = spectra.real**2 + spectra.imag**2
        bands = (root(power) if self.magnitude == "amplitude" else power) @ self.filters
        if self.compression == "log":
            return torch.log(bands.clamp_min(self.log_floor)).mT, after
        if self.compression == "log_offset":
            return torch.log(bands + self.log_floor).mT, after
        return COMPRESSIONS[self.compression](bands).mT, after


@register("front_end", "gammatone")
class GammatoneFrontEnd(FrontEnd):
    """Gammatone filters as impulse responses, rectification, average, compression.

    Parameters
    ----------
    audio_fs, dt_ms
        See `FrontEnd`.
    n_filters : int
        Bands F, equally spaced on the ERB-number scale from ``f_min`` to ``f_max``.
    f_min, f_max : float
        Hz; None for half the sampling rate.
    kernel_ms : float
        Length of the impulse responses, ms.
    rectify : {"halfwave", "full"}
        Rectification.
    env_window_ms : float, optional
        Average of the rectified output before the end of a frame, ms; two frames by default.
    compression : {"log", "cuberoot", "pcen", "none"}
        Of the average; "pcen" normalises each band by its own past.
    time_reversed : bool
        Run the impulse responses backwards in time, as deepSTRF 0.1.0 does: with the same magnitudes, but a slow rise
        before a sudden end, and a delay of nearly ``kernel_ms``.

    References
    ----------
    Glasberg, B. R. and Moore, B. C. J. (1990). Derivation of auditory filter shapes from notched-noise data. Hear. Res.
    47, 103-138.

    Examples
    --------
    >>> front = GammatoneFrontEnd(16000, 5.0, n_filters=24, f_min=300, f_max=7000)
    >>> front(torch.zeros(2, 1, 3200)).shape
    torch.Size([2, 1, 24, 40])
    """

    kernels: Tensor
    frequencies_hz: Tensor

    def __init__(
        self,
        audio_fs: float = 48000.0,
        dt_ms: float = 5.0,
        n_filters: int = 34,
        f_min: float = 500.0,
        f_max: float | None = 22627.0,
        kernel_ms: float = 20.0,
        rectify: str = "halfwave",
        env_window_ms: float | None = None,
        compression: str = "log",
        time_reversed: bool = False,
    ) -> None:
        super().__init__(audio_fs, dt_ms, n_filters)
        check_option("rectify", rectify, ("halfwave", "full"))
        check_option("compression", compression, ("log", "cuberoot", "pcen", "none"))
        top = check_band(f_min, f_max, audio_fs)
        self.rectify, self.compression = rectify, compression
        self.average = 2 * self.hop if env_window_ms is None else round(audio_fs * env_window_ms / 1000)
        if self.average < 1:
            raise SpecError(f"env_window_ms = {env_window_ms} is shorter than a sample.")
        scale = [21.4 * math.log10(0.00437 * f + 1) for f in (f_min, top)]
        f = (10 ** (torch.linspace(scale[0], scale[1], n_filters, dtype=torch.float64) / 21.4) - 1) / 0.00437
        b = 1.019 * 24.7 * (0.00437 * f + 1)
        length = max(self.hop, round(audio_fs * kernel_ms / 1000))
        t = torch.arange(length, dtype=torch.float64) / audio_fs
        kernels = t**3 * torch.exp(-2 * math.pi * b[:, None] * t) * torch.cos(2 * math.pi * f[:, None] * t)
        peak = torch.fft.rfft(kernels, max(4096, 2 ** math.ceil(math.log2(2 * length)))).abs().amax(1, keepdim=True)
        taps = kernels / peak
        self.register_buffer("frequencies_hz", f, persistent=False)
        self.register_buffer("kernels", (taps if time_reversed else taps.flip(1))[:, None].float(), persistent=False)
        constants = torch.tensor([0.025, 0.98, 2.0, 0.5])
        self.register_buffer("constants", constants, persistent=False)

    def analyse(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the spectrogram (B, F, T) of a block, and what the next block needs."""
        sound, envelope, mean = (None, None, None) if state is None else state
        longer, sound = with_past(x, self.kernels.shape[-1] - 1, sound)
        filtered = F.conv1d(longer, self.kernels)
        rectified = torch.relu(filtered) if self.rectify == "halfwave" else filtered.abs()
        past = max(0, self.average - self.hop)
        longer, envelope = with_past(rectified, past, envelope)
        frames = F.avg_pool1d(longer[..., max(0, self.hop - self.average) :], self.average, self.hop)
        if self.compression == "pcen":
            smoother, alpha, delta, power = self.get_buffer("constants")[:, None, None].unbind()
            frames, mean = pcen(frames, smoother, alpha, delta, power, mean)
        else:
            frames = COMPRESSIONS[{"cuberoot": "cubic"}.get(self.compression, self.compression)](frames)
        return frames, (sound, envelope, mean)


@register("front_end", "gammatonegram")
class Gammatonegram(FrontEnd):
    """Root mean square of recursive gammatone filters at the beginning of each frame, log(1 + y), Slaney (1993).

    Parameters
    ----------
    audio_fs, dt_ms
        See `FrontEnd`.
    n_filters : int
        Bands F.
    window_ms : float
        Part of a frame that is averaged, ms, at most a frame.
    f_min, f_max : float
        Hz; None for half the sampling rate.
    compression : {"log1p", "log", "cubic", "none"}
        Of the root mean square.

    References
    ----------
    Slaney, M. (1993). An efficient implementation of the Patterson-Holdsworth auditory filter bank. Apple Technical
    Report 35.

    Examples
    --------
    >>> front = Gammatonegram(16000, 5.0, n_filters=24, f_min=300, f_max=7000)
    >>> front(torch.zeros(2, 1, 3200)).shape
    torch.Size([2, 1, 24, 40])
    """

    sections: Tensor

    def __init__(
        self,
        audio_fs: float = 48000.0,
        dt_ms: float = 5.0,
        n_filters: int = 50,
        window_ms: float = 2.5,
        f_min: float = 1000.0,
        f_max: float | None = 8000.0,
        compression: str = "log1p",
    ) -> None:
        super().__init__(audio_fs, dt_ms, n_filters)
        check_option("compression", compression, COMPRESSIONS)
        top = check_band(f_min, f_max, audio_fs, low=1.0)
        self.compression = compression
        self.size = round(audio_fs * window_ms / 1000)
        if not 1 <= self.size <= self.hop:
            raise SpecError(
                f"window_ms = {window_ms:g} ms must be at least a sample and at most a frame, {dt_ms:g} ms."
            )
        self.register_buffer("sections", slaney_sections(n_filters, f_min, top, audio_fs), persistent=False)

    def _apply(self, fn: Any, recurse: bool = True) -> Gammatonegram:
        """Move the filters, and keep them in float64: rounding their poles first would change them."""
        exact = self.sections
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.sections = exact.to(self.sections.device)
        return self

    def analyse(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the spectrogram (B, F, T) of a block, and the state of the filters."""
        channels = x.expand(-1, self.out_channels, -1).contiguous()
        filtered, after = ops.sosfilt(channels, self.sections, state=state, return_state=True)
        frames = filtered.view(*filtered.shape[:2], -1, self.hop)[..., : self.size]
        return COMPRESSIONS[self.compression](root(frames.square().mean(-1))), after


def slaney_sections(n_filters: int, f_min: float, f_max: float, fs: float) -> Tensor:
    """Return Slaney's gammatone filters as four second-order sections each, from low to high, (F, 4, 6), float64."""
    quality, width = 9.26449, 24.7
    low = quality * width
    i = torch.arange(1, n_filters + 1, dtype=torch.float64)
    ratio = math.log(f_min + low) - math.log(f_max + low)
    f = (-low + torch.exp(i / n_filters * ratio) * (f_max + low)).flip(0)
    b = 2 * math.pi * 1.019 * (f / quality + width)
    theta, e = 2 * math.pi * f / fs, torch.exp(-b / fs)
    roots = [math.sqrt(3 + 2**1.5), -math.sqrt(3 + 2**1.5), math.sqrt(3 - 2**1.5), -math.sqrt(3 - 2**1.5)]
    k = torch.stack([torch.cos(theta) + r * torch.sin(theta) for r in roots], 1)
    z, p = torch.exp(2j * theta), torch.exp(1j * theta - b / fs)
    last = (1 / fs) / e / (1 - e + z * (1 - 1 / e))
    gain = ((z[:, None] - p[:, None] * k).prod(1) * last**4).abs()
    sections = torch.zeros(n_filters, 4, 6, dtype=torch.float64)
    sections[..., 0], sections[..., 1] = 1 / fs, -e[:, None] * k / fs
    sections[..., 3], sections[..., 4], sections[..., 5] = 1.0, (-2 * e * torch.cos(theta))[:, None], (e**2)[:, None]
    sections[:, 0, :3] /= gain[:, None]
    return sections
