"""The observer of King et al. (2019) against NumPy and SciPy code that shares nothing with it: model, template, noise.

The published noise levels make the observer much less sensitive than listeners. This shows that the reason is not in
the code: written down a second time, from the specification and in the unit of the published levels (a sine of
amplitude 1 is 0 dB SPL), the same d' comes out.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import signal

from psysim.experiments import loads
from psysim.experiments.engine import make_observer
from psysim.experiments.sounds import Sounds
from psysim.observers import King2019Observer

FS = 16000.0
RMS_OF_1_DB_SPL = 3.0
Array = NDArray[np.float64]

EXPERIMENT = """
title = "Detection of modulation"
[stimulus]
kind = "{kind}"
carrier_hz = {carrier}
level_db_spl = 65.0
rate_hz = {rate}
duration_s = 0.5
ramp_s = 0.02
[task]
kind = "afc"
n_intervals = 3
[procedure]
tracks = "{tracks}"
level_start = {start}
n_up = 1
n_down = 2
steps = [4.0, 2.0]
n_reversals = 4
[[observers]]
decision = "king2019"
model = "king2019"
template_tokens = 1
model_options = {{ basef = {carrier}, dtype = "float64" }}
[run]
seed = 3
fs = 16000
"""


def represent(pascal: Array, centre_hz: float) -> Array:
    """Return the representation (F, M, T) of SPEC_king2019, sections 1 to 6."""
    x = pascal / 20e-6 * 10 ** (-RMS_OF_1_DB_SPL / 20)
    knee = 10 ** ((30.0 - RMS_OF_1_DB_SPL) / 20)
    number = 9.2645 * math.log(1 + 0.00437 * centre_hz)
    lowpass = signal.butter(1, 1000.0, fs=FS, output="sos")
    highpass = signal.butter(1, 3.0, "high", fs=FS, output="sos")
    channels = []
    for fc in (np.exp((number + np.arange(-2, 3)) / 9.2645) - 1) / 0.00437:
        decay = 2 * math.pi * (36 * 64 / (720 * math.pi)) * (24.7 + fc / 9.265) / FS
        y = x.astype(complex)
        for _ in range(4):
            y = signal.lfilter([1 - math.exp(-decay)], [1, -np.exp(-decay - 2j * math.pi * fc / FS)], y)
        y = 2 * y.real
        y = np.sign(y) * np.where(np.abs(y) <= knee, np.abs(y), np.abs(y) ** 0.3 * knee**0.7)
        y = signal.sosfilt(highpass, signal.sosfilt(lowpass, np.maximum(y, 0.0)))
        ratio = (math.sqrt(5) + 1) / (math.sqrt(5) - 1)
        channels.append([modulation_filter(y, 2.0 * ratio**k) for k in range(5)])
    return np.array(channels)


def modulation_filter(y: Array, centre_hz: float) -> Array:
    """Return the output of one bandpass of Q = 1; above 10 Hz its envelope at the output's rms."""
    edges = [centre_hz * (math.sqrt(5) + sign) / 2 for sign in (-1, 1)]
    z: Array = signal.sosfilt(signal.butter(2, edges, "band", fs=FS, output="sos"), y)
    if centre_hz <= 10.0:
        return z
    envelope = np.abs(signal.hilbert(z))
    return envelope * math.sqrt(np.mean(z**2) / np.mean(envelope**2))


def sensitivity(reference: Array, target: Array, clear: Array) -> float:
    """Return d' of one target interval, with noise of SPEC_king2019, section 8, on every sample."""
    template = clear - reference
    template /= math.sqrt(np.sum(template**2))
    n = template.shape[-1]
    before_end = (n - np.arange(n)) / FS
    variance = 425.0**2 + 50.0**2 * np.sum(template**2 * np.exp(2 * before_end / 1.2))
    multiplicative = (10 ** (1 / 20) - 1) ** 2 * np.mean(target**2, axis=-1)
    variance += np.sum(multiplicative[..., None] * template**2)
    return float(np.sum((target - reference) * template) / math.sqrt(variance))


@pytest.mark.parametrize(
    ("kind", "carrier", "rate", "tracks", "start", "level"),
    [
        ("am_tone", 1000.0, 4.0, "depth_db", -6.0, -8.0),
        ("am_tone", 1000.0, 16.0, "depth_db", -6.0, -12.0),
        ("fm_tone", 500.0, 2.0, "deviation_hz", 50.0, 30.0),
        ("fm_tone", 5000.0, 20.0, "deviation_hz", 250.0, 200.0),
    ],
)
def test_d_prime_of_a_second_implementation(
    kind: str, carrier: float, rate: float, tracks: str, start: float, level: float
) -> None:
    spec = loads(EXPERIMENT.format(kind=kind, carrier=carrier, rate=rate, tracks=tracks, start=start))
    observer, sounds = make_observer(spec, 0), Sounds(spec)
    assert isinstance(observer, King2019Observer)
    observer.prepare(sounds)
    zero = torch.zeros(1, dtype=torch.int64)
    target = sounds.target(zero, zero, level)
    with torch.no_grad():
        value, std = observer.evaluate(target[:, None], zero)
    waves = (sounds.reference(zero, zero), target, sounds.target(zero, zero, start))
    reference, shallow, clear = (represent(x[0].double().numpy(), carrier) for x in waves)
    expected = sensitivity(reference, shallow, clear)
    # 1e-3: the sound is made in float32
    assert float(value / std) == pytest.approx(expected, rel=1e-3)
    assert 0.05 < expected < 5.0
