"""The listener with two ears: what it hears, its calibration, and the release from masking."""

from __future__ import annotations

import pytest
import torch

from psysim.errors import CalibrationError, SpecError
from psysim.experiments import SpecProblems, loads
from psysim.experiments.engine import make_observer, run
from psysim.experiments.sounds import Sounds
from psysim.models import registry as models
from psysim.observers import BinauralDetector, DelayTask
from psysim.testing import assert_same_run

EXPERIMENT = """
title = "Tone in noise for two ears, small"
[stimulus]
kind = "dichotic_tone_in_noise"
level_db_spl = 65.0
centre_hz = 500.0
bandwidth_hz = 100.0
duration_s = 0.2
ramp_s = 0.02
signal_hz = 500.0
signal_duration_s = 0.15
signal_ramp_s = 0.02
[conditions]
interaural_condition = ["N0S0", "N0Spi", "NpiS0"]
[procedure]
tracks = "snr_db"
n_up = 1
n_down = 2
level_start = 0.0
level_max = 20.0
steps = [8.0, 4.0]
n_reversals = 4
max_trials = 40
[[observers]]
{observer}
[observers.model_options]
flow = 400.0
fhigh = 620.0
ihc_kwargs = {{ method = "breebaart2001" }}
adaptation_kwargs = {{ preset = "breebaart2001" }}
[run]
n_tracks = 2
seed = 3
fs = 12000
"""
BINAURAL = """
name = "two ears"
model = "dau1997"
decision = "binaural"
monaural_noise_std = 8.6
binaural_noise_std = 0.042
template_tokens = 12
"""


def experiment(observer: str = BINAURAL) -> str:
    return EXPERIMENT.format(observer=observer)


def test_an_inverted_tone_or_noise_is_heard_at_lower_levels() -> None:
    """van de Par and Kohlrausch (1999): -3, -23 and -18 dB for longer sounds; here the order and more than 10 dB."""
    result = run(loads(experiment()))
    diotic, tone_inverted, noise_inverted = result["threshold"].mean("track").values[:, 0]
    assert tone_inverted < diotic - 12
    assert noise_inverted < diotic - 8


def test_tracks_do_not_depend_on_the_batch() -> None:
    one, many = (run(loads(experiment(), overrides={"engine.batch": n})) for n in (1, 64))
    assert_same_run(one, many)


def model(**options):
    own = {"ihc_kwargs": {"method": "breebaart2001"}, "adaptation_kwargs": {"preset": "breebaart2001"}, **options}
    return models.get("dau1997")(fs=16000.0, **own)


def test_calibration_makes_both_differences_just_noticeable(tmp_path, monkeypatch) -> None:
    """d' of the weighted sum, computed here from the representation, is that of the task at its difference."""
    monkeypatch.setenv("PSYSIM_CACHE_DIR", str(tmp_path))
    observer = BinauralDetector(BinauralDetector.Settings(), model(flow=400.0, fhigh=1200.0))
    assert observer.calibration == {"status": "not calibrated"}
    observer.calibrate()
    assert observer.calibration["status"] == "calibrated"
    assert observer.calibration["binaural_noise_std_task"]["jnd_us"] == 28.7
    from psysim.rng import Keys
    from psysim.stimuli import registry as stimuli

    task = DelayTask()
    itd = torch.tensor([0.0, task.jnd_us, 100.0], dtype=torch.float64)
    about = {"frequency_hz": 500.0, "level_db_spl": 70.0, "duration_s": 0.4, "ramp_s": 0.02, "itd_us": itd}
    sounds = stimuli.get("dichotic_tone")().generate(about, Keys.make(0), 16000.0)
    values = observer._represent(sounds).double()[:, :, 2]  # the element without delay, silent for a diotic tone
    assert float(values[0].abs().max()) == 0.0
    variance = observer.noise["binaural_noise_std"] ** 2 * 100.0  # frames of 10 ms
    weight = (values[2] - values[0]) / variance
    d_prime = ((values[1] - values[0]) * weight).sum() / (weight.square().sum() * variance).sqrt()
    assert float(d_prime) == pytest.approx(task.d_prime, rel=1e-6)
    assert task.d_prime == pytest.approx(1.16, abs=0.01)  # 79.4 % in 2AFC


def test_a_calibration_without_a_channel_at_its_tone_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PSYSIM_CACHE_DIR", str(tmp_path))
    observer = BinauralDetector(BinauralDetector.Settings(), model(flow=3000.0, fhigh=4000.0))
    with pytest.raises(CalibrationError, match="no channel at 1000 Hz, so monaural_noise_std"):
        observer.calibrate()
    with pytest.raises(CalibrationError, match="no internal noise yet"):
        observer.prepare(Sounds(loads(experiment())))


def test_noises_given_are_used_and_said_to_be_given() -> None:
    observer = make_observer(loads(experiment()), 0)
    observer.calibrate()
    assert observer.calibration == {"status": "given", "monaural_noise_std": 8.6, "binaural_noise_std": 0.042}


def test_sounds_for_one_ear_are_heard_by_both() -> None:
    observer = BinauralDetector(BinauralDetector.Settings(), model(flow=400.0, fhigh=600.0))
    x = 0.02 * torch.randn(2, 3200, generator=torch.Generator().manual_seed(1))
    assert torch.equal(observer._represent(x), observer._represent(torch.stack([x, x], dim=1)))


def test_a_template_that_is_not_audible_is_refused() -> None:
    text = experiment(BINAURAL + "template_level = -100.0\n").replace("level_db_spl = 65.0", "level_db_spl = -100.0")
    observer = make_observer(loads(text), 0)
    with pytest.raises(CalibrationError, match="there is no template"):
        observer.prepare(Sounds(loads(text)))


def test_one_ear_cannot_take_part_and_says_so_before_anything_runs() -> None:
    one_ear = 'model = "dau1997"\ndecision = "optimal_detector"\n'
    with pytest.raises(SpecProblems, match="hears one ear"):
        loads(experiment(one_ear))


def test_models_without_adaptation_loops_are_refused() -> None:
    with pytest.raises(SpecError, match="adaptation loops"):
        BinauralDetector(BinauralDetector.Settings(), models.get("king2019")(fs=16000.0))
