from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.signal import butter, hilbert, sosfiltfilt

from psysim.errors import SpecError
from psysim.rng import Keys
from psysim.stimuli import matrix_sentence, registry, tone, vocode, vocoder_edges
from psysim.units import erb_number_glasberg1990

F64 = torch.float64
FS = 20000
KIND = registry.get("vocoded_speech")()


def keys(n: int) -> Keys:
    return Keys.make(seed=9, trial=torch.arange(n))


@pytest.fixture(scope="module")
def sentences() -> torch.Tensor:
    return matrix_sentence(keys(6), fs=FS, level_db_spl=60.0, dtype=F64)


def test_edges() -> None:
    log = vocoder_edges(4, 100.0, 1600.0, "log")
    np.testing.assert_allclose(log[::2], [100, 200, 400, 800, 1600], rtol=1e-12)
    np.testing.assert_allclose(log[1::2], np.sqrt(2) * np.array([100, 200, 400, 800]), rtol=1e-12)
    erb = erb_number_glasberg1990(vocoder_edges(8, 80.0, 6000.0, "erb").numpy())
    np.testing.assert_allclose(np.diff(erb), (erb[-1] - erb[0]) / 16, rtol=1e-9)
    cochlea = np.log10(vocoder_edges(8, 80.0, 6000.0, "greenwood").numpy() / 165.4 + 0.88) / 2.1
    np.testing.assert_allclose(np.diff(cochlea), (cochlea[-1] - cochlea[0]) / 16, rtol=1e-9)
    for spacing in ("greenwood", "erb", "log"):
        assert vocoder_edges(3, 80.0, 6000.0, spacing)[[0, -1]].tolist() == [80.0, 6000.0]
    with pytest.raises(SpecError, match="must be below"):
        vocoder_edges(4, 500.0, 100.0)
    with pytest.raises(SpecError, match=r"spacing = 'grenwood' is not known.*Did you mean 'greenwood'"):
        vocoder_edges(4, 100.0, 500.0, "grenwood")


@pytest.mark.parametrize("carrier", ["noise", "tone"])
def test_envelopes_are_kept_and_fine_structure_is_replaced(sentences: torch.Tensor, carrier: str) -> None:
    y = vocode(
        sentences, keys(6), fs=FS, n_channels=8, carrier=carrier, envelope_cutoff_hz=50.0, filter_order=24, dtype=F64
    )
    f = np.fft.rfftfreq(y.shape[1], 1 / FS)
    for low, high in pairwise(vocoder_edges(8, 100.0, 8000.0).tolist()[::2]):
        inside = (f >= low) & (f < high)
        bands = [np.fft.irfft(np.fft.rfft(x.numpy()) * inside, y.shape[1]) for x in (sentences, y)]
        slow = [sosfiltfilt(butter(2, 16.0, fs=FS, output="sos"), np.abs(hilbert(band))) for band in bands]
        envelopes = np.corrcoef(np.ravel(slow[0]), np.ravel(slow[1]))[0, 1]
        # measured: 0.984 to 0.999 and 0.944 to 0.993; noise has fluctuations of its own, most in the narrowest band
        assert envelopes > (0.97 if carrier == "tone" else 0.92), (low, high)
        fine = [np.cos(np.angle(hilbert(band))) for band in bands]
        assert abs(np.corrcoef(np.ravel(fine[0]), np.ravel(fine[1]))[0, 1]) < 0.2, (low, high)


@pytest.mark.parametrize("carrier", ["noise", "tone"])
def test_energy_of_the_sound_and_of_its_bands(sentences: torch.Tensor, carrier: str) -> None:
    y = vocode(sentences, keys(6), fs=FS, carrier=carrier, filter_order=32, dtype=F64)
    torch.testing.assert_close(y.square().mean(1), sentences.square().mean(1), rtol=1e-9, atol=0)
    edges = vocoder_edges(8, 100.0, 8000.0).tolist()[::2]
    f = np.fft.rfftfreq(y.shape[1], 1 / FS)
    spectra = [np.abs(np.fft.rfft(x.numpy())) ** 2 for x in (sentences, y)]
    for low, high in pairwise(edges):
        before, after = (s[:, (f >= low) & (f < high)].sum() for s in spectra)
        assert 10 * math.log10(after / before) == pytest.approx(0.0, abs=1.0), (low, high)


def test_a_tone_becomes_its_channel(sentences: torch.Tensor) -> None:
    """A tone in one band leaves that band's noise or centre tone; the flanks fall with the order."""
    edges = vocoder_edges(8, 100.0, 8000.0).tolist()
    x = tone(frequency_hz=edges[9], level_db_spl=60.0, duration_s=1.0, fs=FS, dtype=F64)
    f = np.fft.rfftfreq(FS, 1 / FS)
    y = vocode(x, keys(1), fs=FS, carrier="noise", filter_order=24, dtype=F64)
    spectrum = np.abs(np.fft.rfft(y[0].numpy())) ** 2
    assert spectrum[(f >= edges[8]) & (f < edges[10])].sum() > 0.97 * spectrum.sum()
    half = spectrum[(f >= edges[8]) & (f < edges[9])].sum() / spectrum.sum()
    assert 0.2 < half < 0.7  # spread over the band
    y = vocode(x, keys(1), fs=FS, carrier="tone", filter_order=24, dtype=F64)
    spectrum = np.abs(np.fft.rfft(y[0].numpy())) ** 2
    assert f[spectrum.argmax()] == pytest.approx(edges[9], abs=1.0)


def test_band_edges_are_3_db_down() -> None:
    """A tone on the edge of two channels goes to both alike."""
    edges = vocoder_edges(4, 200.0, 6000.0, "log").tolist()
    x = tone(frequency_hz=edges[4], level_db_spl=60.0, duration_s=1.0, fs=FS, dtype=F64)
    y = vocode(
        x,
        keys(1),
        fs=FS,
        n_channels=4,
        low_hz=200.0,
        high_hz=6000.0,
        spacing="log",
        carrier="tone",
        filter_order=12,
        dtype=F64,
    )
    spectrum = np.abs(np.fft.rfft(y[0].numpy())) ** 2
    f = np.fft.rfftfreq(FS, 1 / FS)
    at = [spectrum[np.abs(f - edges[i]) < 20].sum() for i in (3, 5)]
    assert 10 * math.log10(at[0] / at[1]) == pytest.approx(0.0, abs=0.1)
    assert sum(at) > 0.99 * spectrum.sum()


def test_envelope_cutoff() -> None:
    """Modulation of a tone passes below the cut-off and is lost above it."""
    t = torch.arange(FS, dtype=F64) / FS
    for rate, kept in ((10.0, True), (160.0, False)):
        x = ((1 + torch.sin(2 * math.pi * rate * t)) * torch.sin(2 * math.pi * 2500 * t))[None]
        y = vocode(x, keys(1), fs=FS, n_channels=2, carrier="tone", envelope_cutoff_hz=40.0, dtype=F64)[0].numpy()
        envelope = np.abs(hilbert(y))[2000:-2000]
        n = len(envelope)
        depth = 2 * abs((envelope * np.exp(-2j * np.pi * rate * np.arange(n) / FS)).mean()) / envelope.mean()
        assert (depth > 0.9) == kept
        assert (depth < 0.02) != kept


def test_rows_silence_and_types(sentences: torch.Tensor) -> None:
    channels = torch.tensor([1, 4, 16, 32, 4, 1])
    y = vocode(sentences, keys(6), fs=FS, n_channels=channels, envelope_cutoff_hz=300.0)
    assert y.dtype == torch.float32
    for row in range(6):
        alone = vocode(sentences[row], keys(6)[row], fs=FS, n_channels=int(channels[row]), envelope_cutoff_hz=300.0)
        assert torch.equal(alone[0], y[row])
    assert not vocode(torch.zeros(1, 1000), keys(1), fs=FS).any()
    many = vocode(sentences[0], keys(3), fs=FS)  # one sound, three tokens
    assert many.shape[0] == 3
    assert not torch.equal(many[0], many[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"high_hz": 12000.0}, "high_hz = 12000 Hz is out of range"),
        ({"low_hz": 9000.0}, "low_hz = 9000 Hz must be below"),
        ({"n_channels": 0}, "n_channels = 0 is out of range"),
        ({"carrier": "pulse"}, "carrier = 'pulse' is not known"),
        ({"envelope_cutoff_hz": 0.0}, "envelope_cutoff_hz"),
        ({"n_channels": [1, 2, 3, 4]}, "do not form one batch"),
    ],
)
def test_errors(sentences: torch.Tensor, change, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        vocode(sentences, keys(6), fs=FS, **change)


def test_kind() -> None:
    """In quiet: the sentence at its level; with a masker: the mixture, at the same levels."""
    quiet = KIND.generate({"level_db_spl": 70.0, "speaker": "high"}, keys(4), FS, F64)
    times = KIND.label_times_s({"speaker": "high"}, keys(4))
    plain = registry.get("matrix_sentence")()
    assert torch.equal(KIND.labels({}, keys(4)), plain.labels({}, keys(4)))
    assert torch.equal(times, plain.label_times_s({"speaker": "high"}, keys(4)))
    for row in range(4):
        start, stop = (round(float(t) * FS) for t in (times[row, 0, 0], times[row, -1, 1]))
        level = 10 * math.log10(float(quiet[row, start:stop].square().mean())) + 20 * math.log10(1 / 2e-5)
        assert level == pytest.approx(70.0, abs=0.1)  # the smoothed envelope reaches a little beyond the speech
    given = {"masker": "babble", "snr_db": -3.0, "lead_s": 0.2}
    mixture = registry.get("speech_in_noise")().generate(given, keys(4), FS, F64)
    vocoded = KIND.generate(given, keys(4), FS, F64)
    torch.testing.assert_close(vocoded.square().mean(1), mixture.square().mean(1), rtol=1e-9, atol=0)
    assert torch.equal(vocoded, vocode(mixture, keys(4), fs=FS, dtype=F64))
