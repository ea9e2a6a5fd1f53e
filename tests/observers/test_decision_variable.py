"""The metric observer: its numbers, its calibration, its criterion."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from psysim import stimuli
from psysim.errors import CalibrationError, SpecError
from psysim.experiments import loads
from psysim.models import Dau1997, Model, registry
from psysim.models.casp_decisions import METRICS
from psysim.observers import DecisionVariable
from psysim.procedures.sdt import d_prime_mafc

EXPERIMENT = """
title = "Tone in quiet"
[stimulus]
kind = "tone"
duration_s = 0.05
[procedure]
tracks = "level_db_spl"
level_start = 40.0
steps = [4.0, 2.0]
[[observers]]
decision = "decision_variable"
model = "dau1997"
model_options = { flow = 900.0, fhigh = 1100.0 }
metric = "rms"
[run]
fs = 8000
"""


def model() -> Dau1997:
    return Dau1997(fs=16000, flow=900.0, fhigh=1100.0, filterbank_kwargs={"basef": 1000.0})


def tones(level_db_spl: list[float], fs: float = 16000.0) -> torch.Tensor:
    return stimuli.tone(frequency_hz=1000, level_db_spl=level_db_spl, duration_s=0.05, ramp_s=0.01, fs=fs)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", registry.names())
def test_numbers_of_every_model(name: str, metric: str) -> None:
    """Against NumPy, over the filters that exist."""
    listener: Model = registry.get(name)(fs=32000.0)
    observer = DecisionVariable(DecisionVariable.Settings(metric=metric, internal_noise_std=0.0), listener)
    sounds = tones([40.0, 60.0], 32000.0)[:, None]
    zero = torch.zeros(2, dtype=torch.int64)
    with torch.no_grad():
        found = observer.decision_variable(sounds, zero)[:, 0]
        r = listener.represent(sounds[:, 0])
    for row, value in zip(r.values, found, strict=True):
        x = row[r.valid].double().numpy()
        expected = {"rms": np.sqrt((x**2).mean()), "mean": x.mean(), "max": x.max(), "l2": np.sqrt((x**2).sum())}
        # sums in float64 of float32 squares formed in float64
        assert float(value) == pytest.approx(expected[metric], rel=1e-12, abs=1e-12 * np.abs(x).max())


def test_less_turns_the_sign() -> None:
    sounds, zero = tones([40.0, 60.0])[None], torch.zeros(1, dtype=torch.int64)
    with torch.no_grad():
        greater, less = (
            DecisionVariable(DecisionVariable.Settings(criterion=c), model()).decision_variable(sounds, zero)
            for c in ("greater", "less")
        )
    assert torch.equal(greater, -less)


def test_calibration_makes_one_db_just_noticeable(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PSYSIM_CACHE_DIR", str(tmp_path))
    observer = DecisionVariable(DecisionVariable.Settings(), model())
    assert observer.calibration["status"] == "not calibrated"
    observer.calibrate()
    assert observer.calibration["status"] == "calibrated"
    sounds = stimuli.tone(frequency_hz=1000, level_db_spl=[60.0, 61.0], duration_s=0.5, ramp_s=0.01, fs=16000)
    with torch.no_grad():
        low, high = observer.decision_variable(sounds[None], torch.zeros(1, dtype=torch.int64))[0]
    d_prime = float(high - low) / observer.internal_noise_std
    assert d_prime == pytest.approx(float(d_prime_mafc(2**-0.5, 3)), rel=1e-6)
    again = DecisionVariable(DecisionVariable.Settings(), model())
    again.calibrate()
    assert again.internal_noise_std == observer.internal_noise_std
    assert len(list((tmp_path / "calibration").glob("*.json"))) == 1


def test_what_falls_with_the_level_cannot_be_calibrated(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PSYSIM_CACHE_DIR", str(tmp_path))
    with pytest.raises(CalibrationError, match="Give internal_noise_std as a number"):
        DecisionVariable(DecisionVariable.Settings(criterion="less"), model()).calibrate()


class _Training:
    """One condition: the reference is a tone of a level that its token gives."""

    n_conditions = 1
    n_intervals = 1
    frozen = False

    def reference(self, condition, token):
        return tones([50.0 + float(t) for t in token])


def test_the_yes_no_criterion_lies_above_the_references() -> None:
    settings = DecisionVariable.Settings(internal_noise_std=0.3, reference_tokens=5, criterion_sd=0.5)
    observer = DecisionVariable(settings, model())
    observer.prepare(_Training())
    zero = torch.zeros(1, dtype=torch.int64)
    with torch.no_grad():
        values = observer.decision_variable(tones([50.0, 51.0, 52.0, 53.0, 54.0])[None], zero)
    expected = values.mean() + 0.5 * (values.var() + 0.3**2).sqrt()
    assert float(observer.criterion(zero)) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('metric = "median"', "'rms', 'mean', 'max' or 'l2'"),
        ('criterion = "larger"', "'greater' or 'less'"),
        ("internal_noise_std = -1.0", "a number of at least 0, or 'calibrated'"),
        ('metrc = "rms"', "Did you mean 'metric'"),
    ],
)
def test_a_wrong_setting_is_found_in_the_file(line: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        loads(EXPERIMENT.replace('metric = "rms"', line))
