"""Maskers of speech: noise with a speaker's long-term spectrum, stationary or modulated, and babble."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from psysim.errors import SpecError
from psysim.rng import Keys, Purpose, normal, uniform
from psysim.stimuli.bands import grids
from psysim.stimuli.batch import Number, Rows, by_blocks, groups, mean_square
from psysim.stimuli.corpus import Corpus
from psysim.stimuli.fourier import fast_length, inverse_real, real_spectrum
from psysim.stimuli.gating import check_ramps, gate, steady_part
from psysim.stimuli.levels import MAX_LEVEL_DB_SPL, level_gain
from psysim.stimuli.tones import check_times

__all__ = ["ENVELOPE_HZ", "SPLIT_HZ", "low_pass_gain", "speech_shaped_noise", "talkers", "unit_shaped_noise"]

SPLIT_HZ = (850.0, 2500.0)
"""Edges in Hz between the bands whose envelopes modulate speech-like noise (Dreschler et al. 2001)."""
ENVELOPE_HZ = 32.0
"""Cut-off in Hz of these envelopes: above the modulations that carry words, below the pitch of every speaker."""
_MARGIN_S = 0.05


def _lines(spectrum: NDArray[np.float64], frequency_hz: Tensor) -> Tensor:
    """Return the power density of a long-term spectrum at frequencies, linear in between, 0 above its end."""
    known, density = (torch.as_tensor(x, dtype=torch.float64, device=frequency_hz.device) for x in spectrum)
    right = torch.searchsorted(known, frequency_hz).clamp(1, len(known) - 1)
    share = (frequency_hz - known[right - 1]) / (known[right] - known[right - 1])
    out = density[right - 1] * (1.0 - share) + density[right] * share
    return torch.where(frequency_hz <= known[-1], out, 0.0)


def unit_shaped_noise(keys: Keys, spectrum: NDArray[np.float64], length: Tensor, fs: float, purpose: int) -> Tensor:
    """Return (B, T) float64 Gaussian noise with a long-term spectrum, of mean square 1 on average, without ramps."""
    out = torch.zeros(len(length), int(length.max()), dtype=torch.float64, device=length.device)
    low = torch.zeros(len(length), dtype=torch.float64, device=length.device)
    high = low + min(fs / 2, float(spectrum[0, -1]))
    for grid in grids(length, low, high, fs, None):
        lines = torch.arange(grid.first, grid.first + grid.n_bins, dtype=torch.float64, device=length.device)
        weights = _lines(spectrum, lines * (fs / grid.n_fft))
        rows = keys[grid.index]
        draws = torch.view_as_complex(normal(rows, purpose, 2 * grid.n_bins).reshape(rows.shape[0], grid.n_bins, 2))
        full = torch.zeros(rows.shape[0], grid.n_fft // 2 + 1, dtype=torch.complex128, device=length.device)
        full[:, grid.first : grid.first + grid.n_bins] = draws * (grid.n_fft / 2.0 * (weights / weights.sum()).sqrt())
        out[grid.index, : grid.n] = inverse_real(full, grid.n_fft)[:, : grid.n]
    return out


def speech_shaped_noise(
    keys: Keys,
    *,
    spectrum: NDArray[np.float64],
    level_db_spl: Number,
    duration_s: Number = 2.0,
    fs: float,
    normalise: str = "expected",
    ramp_s: Number = 0.0,
    ramp_shape: str = "raised_cosine",
    purpose: int = Purpose.MASKER,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return stationary Gaussian noise with a long-term spectrum of speech, of any duration.

    Lines 1/duration apart with independent complex Gaussian amplitudes, as `psysim.stimuli.noise`; their power follows
    the spectrum, interpolated linearly.

    Parameters
    ----------
    keys : Keys
        Random keys, (B,) or (); a row depends on its own key and parameters only.
    spectrum : ndarray
        (2, n): frequency in Hz, and power density in any unit, as of `Corpus.spectrum`. Nothing above its last
        frequency.
    level_db_spl : float or (B,)
        Level in dB SPL, -inf gives silence.
    duration_s : float or (B,)
        Duration in s, ramps included.
    fs : float
        Sampling rate in Hz.
    normalise : str
        "expected": the level on average over tokens; "token": each token's own rms between the ramps.
    ramp_s, ramp_shape
        Ramps, see `psysim.stimuli.gating.ramp`.
    purpose : Purpose
        Random stream.
    dtype : torch.dtype
        Type of the result; computed in float64.

    Returns
    -------
    Tensor
        (B, T) pascal.

    Raises
    ------
    SpecError
        If a parameter is out of range.

    Examples
    --------
    >>> from psysim.stimuli import load_corpus
    >>> spectrum = load_corpus().spectrum("low")
    >>> speech_shaped_noise(Keys.make(seed=1), spectrum=spectrum, level_db_spl=65.0, duration_s=0.5, fs=20000).shape
    torch.Size([1, 10000])
    """
    p = Rows({"level_db_spl": level_db_spl, "duration_s": duration_s, "ramp_s": ramp_s}, keys)
    check_times(p, fs)
    p.check("level_db_spl", high=MAX_LEVEL_DB_SPL, unit="dB SPL")
    check_ramps(p.length(fs), p.length(fs, "ramp_s"))

    def make(rows: Rows) -> Tensor:
        length, n_ramp = rows.length(fs), rows.length(fs, "ramp_s")
        sound = unit_shaped_noise(rows.keys, spectrum, length, fs, purpose)
        one = torch.ones_like(rows["level_db_spl"])
        limits = steady_part(length, n_ramp)
        gain = level_gain(sound, rows["level_db_spl"], *limits, normalise=normalise, expected_power=one)
        return sound * gain[:, None] * gate(length, n_ramp, ramp_shape)

    return by_blocks(make, p, int(p.length(fs).max()), dtype)


def talkers(
    keys: Keys, corpus: Corpus, length: Tensor, n_talkers: Tensor, fs: float, *, speaker: str | None, purpose: int
) -> Tensor:
    """Return running speech of several talkers, (B, T) float64, each talker of mean square 1 while he speaks.

    Every talker says randomly drawn sentences of one speaker, one after the other without pauses (from the first onset
    to the last offset), from a random moment of the first one on.

    Parameters
    ----------
    keys : Keys
        (B,).
    corpus : Corpus
        What is spoken.
    length : Tensor
        (B,) int64, samples needed.
    n_talkers : Tensor
        (B,) number of talkers, at least 1.
    fs : float
        Sampling rate in Hz.
    speaker : str, optional
        Speaker of all talkers; None draws one for each.
    purpose : Purpose
        Random stream.

    Returns
    -------
    Tensor
        (B, T) on the CPU.
    """
    counts, lengths = n_talkers.long().tolist(), length.tolist()
    shortest = min(b - a for a, b in (s.span_s for s in corpus.sentences)) * fs - 2.0
    if shortest < 1:
        raise SpecError(f"Babble needs sentences with a duration; '{corpus.folder}' has one without.")
    turns = [2 + int(n / shortest) for n in lengths]
    most = max(count * (2 + turn) for count, turn in zip(counts, turns, strict=True))
    draws = uniform(keys, purpose, most).cpu()
    out = torch.zeros(len(lengths), max(lengths), dtype=torch.float64)
    for row, (count, n) in enumerate(zip(counts, lengths, strict=True)):
        for talker in range(count):
            who, when, *what = draws[row, talker::count].tolist()
            name = corpus.speakers[int(who * len(corpus.speakers))] if speaker is None else speaker
            found = corpus.select(name)
            pieces, have = [], 0
            for u in what:
                pieces.append(_unit_speech(corpus, found[int(u * len(found))], fs))
                if not have:
                    pieces[0] = pieces[0][int(when * len(pieces[0])) :]
                have += len(pieces[-1])
                if have >= n:
                    break
            out[row, :n] += torch.cat(pieces)[:n]
    return out


def _unit_speech(corpus: Corpus, index: int, fs: float) -> Tensor:
    """Return a sentence from the first onset to the last offset with mean square 1."""
    start, stop = (round(t * fs) for t in corpus.sentences[index].span_s)
    sound = corpus.sound(index, fs).double()[start:stop]
    power = float(mean_square(sound[None], torch.tensor([0]), torch.tensor([len(sound)])))
    if power == 0.0:
        raise SpecError(f"'{corpus.sentences[index].file}' is silent, so it cannot be brought to a level.")
    return sound / power**0.5


def low_pass_gain(frequency_hz: Tensor, cutoff_hz: Tensor | float, order: int) -> Tensor:
    """Return the magnitude of a Butterworth low-pass filter, -3.01 dB at the cut-off; used without its phase."""
    return (1.0 + (frequency_hz / cutoff_hz) ** (2 * order)) ** -0.5


def speech_modulated_noise(
    keys: Keys, corpus: Corpus, spectrum: NDArray[np.float64], length: Tensor, fs: float, *, speaker: str | None
) -> Tensor:
    """Return noise with a long-term spectrum whose three bands have the envelopes of a single talker, (B, T) float64.

    The bands meet at `SPLIT_HZ`. The envelope of a band of running speech (magnitude of the analytic signal, low-pass
    filtered at `ENVELOPE_HZ`) multiplies the noise of the band, which is then limited to the band again. The bands keep
    the powers that they have in the spectrum, so that its long-term shape stays.

    References
    ----------
    Dreschler, Verschuure, Ludvigsen and Westermann (2001), Audiology 40, 148-157 (ICRA noise 5, made by another method:
    there the signs of speech samples are random).
    """
    one = torch.ones_like(length)
    speech = talkers(keys, corpus, length, one, fs, speaker=speaker, purpose=Purpose.MODULATOR).to(length.device)
    noise = unit_shaped_noise(keys, spectrum, length, fs, Purpose.MASKER)
    out = torch.zeros_like(noise)
    margin = round(_MARGIN_S * fs)
    for index, (n,) in groups(length):
        n_fft = fast_length(n + margin)
        frequency = torch.arange(n_fft // 2 + 1, dtype=torch.float64, device=length.device) * (fs / n_fft)
        spectra = [real_spectrum(_padded(x[index], n, n_fft)) for x in (noise, speech)]
        smooth = low_pass_gain(frequency, ENVELOPE_HZ, 4)
        edges = (0.0, *SPLIT_HZ, float("inf"))
        weights = _lines(spectrum, frequency)
        total = torch.zeros(spectra[0].shape[0], n, dtype=torch.float64, device=length.device)
        for low, high in pairwise(edges):
            inside = (frequency >= low) & (frequency < high)
            if not bool((weights * inside).any()):
                continue
            band, voice = (torch.where(inside, spectrum_, 0.0) for spectrum_ in spectra)
            envelope = inverse_real(real_spectrum(envelope_of(voice, n_fft)) * smooth, n_fft).clamp(min=0.0)
            shaped = inverse_real(band, n_fft) * envelope
            shaped = inverse_real(torch.where(inside, real_spectrum(shaped), 0.0), n_fft)[:, :n]
            stop = torch.full((len(shaped),), n, device=length.device)
            power = mean_square(shaped, torch.zeros_like(stop), stop).clamp(min=1e-30)
            share = (weights * inside).sum() / weights.sum()
            total += shaped * (share / power).sqrt()[:, None]
        out[index, :n] = total
    return out


def _padded(x: Tensor, n: int, n_fft: int) -> Tensor:
    return torch.nn.functional.pad(x[:, :n], (0, n_fft - n))


def envelope_of(spectrum: Tensor, n: int, signal: Tensor | None = None) -> Tensor:
    """Return the Hilbert envelope (B, n) of the signal with a one-sided spectrum: magnitude of its analytic signal."""
    signal = inverse_real(spectrum, n) if signal is None else signal
    quadrature = spectrum * -1j
    quadrature[:, 0] = 0.0
    if n % 2 == 0:
        quadrature[:, -1] = 0.0
    # not torch.hypot, which takes 10 times as long to guard against overflow
    return inverse_real(quadrature, n).square_().add_(signal.square()).sqrt_()
