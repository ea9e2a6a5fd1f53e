"""The loudness observer: what it is calibrated for, thresholds beside ISO 389-7, hearing loss, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from psysim import stimuli
from psysim.errors import SpecError
from psysim.experiments import loads
from psysim.experiments.prediction import predict_threshold
from psysim.hearing import loudness_losses, standard_audiogram
from psysim.models import Dau1997, Glasberg2002, Moore2016, registry
from psysim.observers import LoudnessObserver
from psysim.procedures.sdt import d_prime_mafc

TONE = """
title = "{title}"
[stimulus]
kind = "tone"
duration_s = 0.5
ramp_s = 0.01
{stimulus}
[conditions]
{conditions}
[task]
kind = "{task}"
[procedure]
tracks = "{tracks}"
n_down = {n_down}
{procedure}
[[observers]]
model = "{model}"
decision = "loudness"
[run]
fs = 32000
"""


def thresholds(model: str, *, detection: bool, conditions: str, task: str = "afc") -> np.ndarray:
    text = TONE.format(
        title="Detection" if detection else "Intensity discrimination",
        stimulus="" if detection else "frequency_hz = 1000.0",
        conditions=conditions,
        task=task,
        tracks="level_db_spl" if detection else "level_increment_db",
        n_down=2,
        procedure="level_start = 50.0\nsteps = [4.0, 1.0]" if detection else "level_start = 6.0\nsteps = [1.0, 0.1]",
        model=model,
    )
    return predict_threshold(loads(text), n_tokens=3)["threshold"].values[:, 0, 0]


@pytest.mark.parametrize("model", ["moore2016", "glasberg2002"])
def test_a_level_difference_of_1_db_is_just_noticeable(model: str) -> None:
    """1 kHz at 60 dB SPL, 3-AFC, 70.7 %: what the noise is calibrated for; at 30 dB SPL what loudness makes of it."""
    found = thresholds(model, detection=False, conditions="level_db_spl = [30.0, 60.0]")
    assert found[1] == pytest.approx(1.0, abs=0.02)
    listener = LoudnessObserver(LoudnessObserver.Settings(), registry.get(model)(fs=32000))
    listener.calibrate()
    levels = np.linspace(30.0, 33.0, 31)
    tones = stimuli.tone(frequency_hz=1000, level_db_spl=levels.tolist(), duration_s=0.5, ramp_s=0.01, fs=32000)
    with torch.no_grad():
        values = listener.decision_variable(tones[None], torch.zeros(1, dtype=torch.int64))[0].numpy()
    wanted = values[0] + float(d_prime_mafc(2**-0.5, 3)) * listener.internal_noise_std
    assert found[0] == pytest.approx(np.interp(wanted, values, levels) - 30.0, abs=0.02)


def test_absolute_thresholds() -> None:
    """Tones of 0.5 s, 3-AFC: the threshold of 1 kHz is 2.4 dB SPL; others within 2 dB of ISO 389-7."""
    frequency = [125.0, 500.0, 1000.0, 4000.0, 8000.0]
    found = thresholds("moore2016", detection=True, conditions=f"frequency_hz = {frequency}")
    assert found[2] == pytest.approx(2.4, abs=0.3)
    np.testing.assert_allclose(found, [22.1, 4.4, 2.4, -5.4, 12.6], atol=2.0)


def test_the_floor_makes_the_threshold_just_noticeable() -> None:
    """ln((Nt + N0) / N0) = d' sigma, with d' of 70.7 % in 3-AFC."""
    observer = LoudnessObserver(LoudnessObserver.Settings(internal_noise_std=0.1, threshold_sone=0.002), Glasberg2002())
    step = math.log(1 + 0.002 / observer.floor_sone)
    assert step == pytest.approx(float(d_prime_mafc(2**-0.5, 3)) * 0.1)
    condition = torch.zeros(1, dtype=torch.int64)
    assert float(observer.criterion(condition)) == pytest.approx(math.log(0.002 + observer.floor_sone))


def test_the_decision_variable_is_the_logarithm_of_the_maximum() -> None:
    model = Moore2016(dtype="float64")
    sounds = stimuli.tone(
        frequency_hz=1000, level_db_spl=[40.0, 60.0], duration_s=0.2, ramp_s=0.01, fs=32000, dtype=torch.float64
    )
    for quantity, place in (("short_term", 0), ("long_term", 1)):
        settings = LoudnessObserver.Settings(internal_noise_std=0.1, threshold_sone=0.002, quantity=quantity)
        observer = LoudnessObserver(settings, model)
        with torch.no_grad():
            expected = torch.log(model(sounds[:, None])[place].amax(-1) + observer.floor_sone)
            found = observer.decision_variable(sounds[None], torch.zeros(1, dtype=torch.int64))[0]
        torch.testing.assert_close(found, expected)


def test_softer_is_the_other_end() -> None:
    sounds = stimuli.tone(frequency_hz=1000, level_db_spl=[40.0, 60.0], duration_s=0.1, ramp_s=0.01, fs=32000)[None]
    values = []
    for criterion in ("louder", "softer"):
        settings = LoudnessObserver.Settings(internal_noise_std=0.1, threshold_sone=0.002, criterion=criterion)
        with torch.no_grad():
            values.append(
                LoudnessObserver(settings, Glasberg2002()).decision_variable(sounds, torch.zeros(1, dtype=torch.int64))
            )
    torch.testing.assert_close(values[0], -values[1])


def test_the_threshold_is_that_of_normal_hearing() -> None:
    """A listener with a loss is judged by the loudness at which normal ears hear, so the loss raises the threshold."""
    normal = Moore2016()
    impaired = Moore2016(**loudness_losses(standard_audiogram("N3"), normal.fc))
    found = []
    for model in (normal, impaired):
        observer = LoudnessObserver(LoudnessObserver.Settings(), model)
        observer.calibrate()
        found.append((observer.threshold_sone, observer.internal_noise_std))
    assert found[0][0] == pytest.approx(0.00176, rel=0.03)
    assert found[0] == pytest.approx(found[1], rel=1e-9)


def test_wrong_models_and_settings() -> None:
    with pytest.raises(SpecError, match="of loudness, not Dau1997"):
        LoudnessObserver(LoudnessObserver.Settings(), Dau1997(fs=16000))
    with pytest.raises(SpecError, match="must be above 0"):
        LoudnessObserver(LoudnessObserver.Settings(threshold_sone=0.0), Glasberg2002())
