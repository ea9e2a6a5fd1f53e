"""Channel vocoder: speech whose temporal envelopes are kept in a few bands and whose fine structure is replaced."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from psysim.errors import SpecError, check_option, check_range
from psysim.rng import Keys, Purpose, normal, uniform
from psysim.stimuli.base import TrackedVariable, register
from psysim.stimuli.batch import Number, Rows, by_blocks, groups, mean_square, time_s
from psysim.stimuli.fourier import fast_length, inverse_real, real_spectrum
from psysim.stimuli.speech import LEVEL, spoken
from psysim.stimuli.speech_in_noise import SNR, SpeechInNoise, SpeechInNoiseParameters
from psysim.stimuli.speech_maskers import envelope_of, low_pass_gain
from psysim.units import erb_number_glasberg1990, erb_number_glasberg1990_to_hz

__all__ = ["CARRIERS", "SPACINGS", "VocodedSpeech", "vocode", "vocoder_edges"]

SPACINGS = ("greenwood", "erb", "log")
CARRIERS = ("noise", "tone")
ENVELOPE_ORDER = 4
_GREENWOOD = (165.4, 2.1, 0.88)
_MARGIN_S = 0.1  # zeros behind the sound, so that no filter's ringing comes round to its start
_NUMBERS = ("n_channels", "low_hz", "high_hz", "envelope_cutoff_hz", "filter_order")


def vocoder_edges(n_channels: int, low_hz: float, high_hz: float, spacing: str = "greenwood") -> Tensor:
    """Return the edges of the bands of a vocoder and their centres on the same scale.

    Parameters
    ----------
    n_channels : int
        Number of bands, at least 1.
    low_hz, high_hz : float
        Lowest and highest edge in Hz.
    spacing : str
        Equal steps "greenwood": along the human cochlea, f = 165.4 (10^(2.1 x) - 0.88); "erb": in ERB number (Glasberg
        and Moore 1990); "log": in log frequency.

    Returns
    -------
    Tensor
        (2 n_channels + 1,) float64 in Hz: edge, centre, edge, centre, ... edge.

    Raises
    ------
    SpecError
        If the spacing is not known or the edges do not rise.

    References
    ----------
    Greenwood (1990), J. Acoust. Soc. Am. 87, 2592-2605.

    Examples
    --------
    >>> vocoder_edges(2, 100.0, 1600.0, "log").round(decimals=3).tolist()[::2]
    [100.0, 400.0, 1600.0]
    """
    check_option("spacing", spacing, SPACINGS)
    check_range("n_channels", n_channels, 1, 1000)
    check_range("low_hz", low_hz, 0.0, unit="Hz", low_open=True)
    if not low_hz < high_hz:
        raise SpecError(f"low_hz = {low_hz:g} Hz must be below high_hz = {high_hz:g} Hz.")
    ends = torch.tensor([low_hz, high_hz], dtype=torch.float64)
    steps = torch.linspace(0.0, 1.0, 2 * int(n_channels) + 1, dtype=torch.float64)
    scale, exponent, shift = _GREENWOOD
    if spacing == "greenwood":
        place = torch.log10(ends / scale + shift) / exponent
        edges = scale * (10.0 ** (exponent * (place[0] + steps * (place[1] - place[0]))) - shift)
    elif spacing == "erb":
        place = erb_number_glasberg1990(ends)
        edges = erb_number_glasberg1990_to_hz(place[0] + steps * (place[1] - place[0]))
    else:
        edges = 10.0 ** (torch.log10(ends[0]) + steps * torch.log10(ends[1] / ends[0]))
    edges[0], edges[-1] = ends[0], ends[1]
    return edges


def vocode(
    sound: Tensor,
    keys: Keys,
    *,
    fs: float,
    n_channels: Number = 8,
    low_hz: Number = 100.0,
    high_hz: Number = 8000.0,
    spacing: str = "greenwood",
    carrier: str = "noise",
    envelope_cutoff_hz: Number = 160.0,
    filter_order: Number = 6,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return sounds with the envelopes of their bands on noise or tone carriers.

    All filters act on the spectrum and have no phase, so nothing is delayed. The sound is divided into bands by
    Butterworth magnitudes (-3 dB at the edges); the envelope of each band (magnitude of the analytic signal) is
    low-pass filtered (Butterworth magnitude of order 4, -3 dB at the cut-off); it multiplies Gaussian noise, which is
    then limited to the band, or a tone at the band's centre, with a random phase. Each band gets the energy that it
    had, and the sum the energy of the input.

    Parameters
    ----------
    sound : Tensor
        (B, T) or (T,), any sound.
    keys : Keys
        Random keys, (B,) or ().
    fs : float
        Sampling rate in Hz.
    n_channels : int or (B,)
        Number of bands, 1 to 128.
    low_hz, high_hz : float or (B,)
        Lowest and highest edge in Hz, up to fs/2.
    spacing : str
        "greenwood", "erb" or "log", see `vocoder_edges`.
    carrier : str
        "noise" or "tone".
    envelope_cutoff_hz : float or (B,)
        Cut-off in Hz of the envelopes.
    filter_order : int or (B,)
        Order of each flank of the bands, 1 to 64: about 6 dB per octave each.
    dtype : torch.dtype
        Type of the result; computed in float64.

    Returns
    -------
    Tensor
        (B, T), in the unit of the input.

    Raises
    ------
    SpecError
        If a parameter is out of range.

    References
    ----------
    Shannon, Zeng, Kamath, Wygonski and Ekelid (1995), Science 270, 303-304 (noise); Dorman, Loizou and Rainey (1997),
    J. Acoust. Soc. Am. 102, 2403-2411 (tones).

    Examples
    --------
    >>> vocode(torch.randn(2, 4000, generator=torch.Generator().manual_seed(1)), Keys.make(1), fs=20000).shape
    torch.Size([2, 4000])
    """
    check_option("carrier", carrier, CARRIERS)
    check_option("spacing", spacing, SPACINGS)
    sound = sound.reshape(-1, sound.shape[-1])
    row = torch.arange(len(sound), device=keys.device)
    numbers = (n_channels, low_hz, high_hz, envelope_cutoff_hz, filter_order)
    p = Rows({**dict(zip(_NUMBERS, numbers, strict=True)), "row": row}, keys)
    p.check("n_channels", 1, 128)
    p.check("low_hz", 0.0, fs / 2, "Hz", low_open=True)
    p.check("high_hz", 0.0, fs / 2, "Hz", low_open=True)
    p.check("envelope_cutoff_hz", 0.0, fs / 2, "Hz", low_open=True)
    p.check("filter_order", 1, 64)
    if len(sound) not in (1, len(p)):
        raise SpecError(f"The sounds ({len(sound)}) and the keys or parameters ({len(p)}) do not form one batch.")

    def make(rows: Rows) -> Tensor:
        x = sound[rows["row"].long().to(sound.device)].double().to(rows.device)
        out = torch.zeros_like(x)
        for index, values in groups(*(rows[name] for name in _NUMBERS)):
            out[index] = _vocoded(x[index], rows.keys[index], values, fs, spacing, carrier)
        return out

    with torch.no_grad():
        return by_blocks(make, p, sound.shape[1], dtype)


def _vocoded(x: Tensor, keys: Keys, values: tuple[float, ...], fs: float, spacing: str, carrier: str) -> Tensor:
    """Return vocoded rows (R, T) that share their parameters."""
    count, low_hz, high_hz, cutoff_hz, order = values
    rows, n = x.shape
    edges = vocoder_edges(int(count), low_hz, high_hz, spacing).tolist()
    n_fft = fast_length(n + round(_MARGIN_S * fs))
    spectrum = real_spectrum(torch.nn.functional.pad(x, (0, n_fft - n)))
    gains, smooth = _gains(tuple(edges[::2]), cutoff_hz, int(order), n_fft, fs, x.device)
    start = torch.zeros(rows, dtype=torch.int64, device=x.device)
    stop = start + n
    noise = real_spectrum(normal(keys, Purpose.CARRIER, n_fft)) if carrier == "noise" else None
    phase = 2.0 * math.pi * uniform(keys, Purpose.PHASE, int(count)) if carrier == "tone" else None
    out = torch.zeros_like(x)
    for channel in range(int(count)):
        gain, centre = gains[channel], edges[2 * channel + 1]
        band = spectrum * gain
        signal = inverse_real(band, n_fft)
        power = mean_square(signal[:, :n], start, stop)
        envelope = inverse_real(real_spectrum(envelope_of(band, n_fft, signal)) * smooth, n_fft).clamp_(min=0.0)
        if noise is not None:
            carried = envelope * inverse_real(noise * gain, n_fft)
            carried = inverse_real(real_spectrum(carried) * gain, n_fft)[:, :n]
        else:
            assert phase is not None
            tone = torch.sin(2.0 * math.pi * centre * time_s(n, fs, x.device) + phase[:, channel : channel + 1])
            carried = envelope[:, :n] * tone
        out += carried * _ratio(power, mean_square(carried, start, stop))[:, None]
    return out * _ratio(mean_square(x, start, stop), mean_square(out, start, stop))[:, None]


@lru_cache(maxsize=16)  # blocks of a batch share them: raising 50,000 frequencies to a power costs more than a row
def _gains(
    edges: tuple[float, ...], cutoff_hz: float, order: int, n_fft: int, fs: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the magnitudes of the bands (C, F) and of the low-pass filter of the envelopes (F,)."""
    frequency = torch.arange(n_fft // 2 + 1, dtype=torch.float64, device=device) * (fs / n_fft)
    rising = [torch.where(frequency > 0, low / frequency.clamp(min=1e-9), math.inf) for low in edges[:-1]]
    bands = [
        (1.0 + ratio ** (2 * order)) ** -0.5 * low_pass_gain(frequency, high, order)
        for ratio, high in zip(rising, edges[1:], strict=True)
    ]
    return torch.stack(bands), low_pass_gain(frequency, cutoff_hz, ENVELOPE_ORDER)


def _ratio(wanted: Tensor, power: Tensor) -> Tensor:
    """Return the factor (R,) that gives a signal of ``power`` the power ``wanted``; 0 for silence."""
    return torch.where(power > 0, wanted / power.clamp(min=1e-300), 0.0).sqrt()


@register("vocoded_speech")
class VocodedSpeech(SpeechInNoise):
    """A vocoded sentence, in quiet or in a masker that is vocoded with it.

    Without a masker the sentence alone is presented at ``level_db_spl``; what belongs to the masker has no effect.
    """

    class Parameters(SpeechInNoiseParameters):
        """Parameters of a vocoded sentence."""

        masker: Literal["none", "stationary", "modulated", "speech_modulated", "babble"] = Field(  # type: ignore[assignment]
            "none", description="None, or the masker that is added before the vocoder, as of speech_in_noise."
        )
        path: str | None = Field(
            None, description="Folder of your own corpus, or a sound file; none: matrix sentences."
        )
        n_channels: int = Field(8, ge=1, le=128, description="Number of channels.")
        low_hz: float = Field(100.0, gt=0, le=100e3, description="Lowest edge of the bands in Hz.")
        high_hz: float = Field(8000.0, gt=0, le=100e3, description="Highest edge of the bands in Hz.")
        spacing: Literal["greenwood", "erb", "log"] = Field("greenwood", description="Scale with equally wide bands.")
        carrier: Literal["noise", "tone"] = Field("noise", description="What carries the envelopes.")
        envelope_cutoff_hz: float = Field(160.0, gt=0, le=20e3, description="Cut-off in Hz of the envelopes.")
        filter_order: int = Field(6, ge=1, le=64, description="Order of the flanks of the bands, 6 dB per octave each.")

    description: ClassVar[str] = "Noise- or tone-vocoded sentence, in quiet or in a masker: speech reception threshold"
    tracked: ClassVar[Mapping[str, TrackedVariable]] = {"snr_db": SNR, "level_db_spl": LEVEL}

    def onset_s(self, p: Rows) -> Any:
        """Return the start in s of the sentence in the sound."""
        return 0.0 * p["lead_s"] if p["masker"] == "none" else p["lead_s"]

    def sound_s(self, parameters: Mapping[str, Any]) -> Any:
        """Return the duration in s of the masker, or of the longest sentence in quiet."""
        if parameters["masker"] == "none":
            return super(SpeechInNoise, self).sound_s(parameters)
        return super().sound_s(parameters)

    def waveform(self, p: Rows, keys: Keys, fs: float) -> Tensor:
        """Return the vocoded sentences, (B, T) float64."""
        sound = self._alone(p, fs) if p["masker"] == "none" else super().waveform(p, keys, fs)
        arguments = {name: p[name] for name in _NUMBERS}
        options = {name: p[name] for name in ("spacing", "carrier")}
        return vocode(sound, keys, fs=fs, **arguments, **options, dtype=torch.float64)

    def _alone(self, p: Rows, fs: float) -> Tensor:
        """Return the sentences in quiet, all as long as the longest that may be drawn."""
        total = int(Rows({"s": self.sound_s(p.values)}).length(fs, "s").max())
        sound = spoken(p, self.corpus(p.values), fs)[0][:, :total]
        return torch.nn.functional.pad(sound, (0, total - sound.shape[1]))
