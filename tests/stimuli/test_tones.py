from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from psysim.errors import SpecError
from psysim.stimuli import am_tone, clicks, silence, tone
from psysim.units import pascal_to_db_spl

DATA = Path(__file__).parents[1] / "reference" / "data"
F64 = torch.float64


def level(x: torch.Tensor) -> torch.Tensor:
    return pascal_to_db_spl((x**2).mean(-1).sqrt())


@pytest.mark.parametrize(
    ("name", "make"),
    [
        (
            "dau1997_tone1k_60dB",
            lambda fs: tone(frequency_hz=1000.0, level_db_spl=60.0, duration_s=0.1, ramp_s=0.005, fs=fs, dtype=F64),
        ),
        (
            "dau1997_tone1k_100dB",
            lambda fs: tone(frequency_hz=1000.0, level_db_spl=100.0, duration_s=0.1, ramp_s=0.005, fs=fs, dtype=F64),
        ),
        (
            "dau1997_fs48000_tone500_65dB",
            lambda fs: tone(frequency_hz=500.0, level_db_spl=65.0, duration_s=0.1, ramp_s=0.01, fs=fs, dtype=F64),
        ),
        (
            "dau1997_am4k_16Hz_70dB",
            lambda fs: am_tone(
                carrier_hz=4000.0,
                rate_hz=16.0,
                depth_db=20 * math.log10(0.5),
                level_db_spl=70.0,
                duration_s=0.125,
                ramp_s=0.005,
                fs=fs,
                dtype=F64,
            ),
        ),
        ("dau1997_click", lambda fs: clicks(pressure_pa=0.2, width_s=4 / fs, delay_s=0.01, fs=fs, dtype=F64)),
    ],
)
def test_golden_stimuli(name: str, make) -> None:
    golden = np.load(DATA / f"{name}.npz")
    x = golden["x"]
    y = make(float(golden["fs"]))
    assert y.shape == (1, x.size)
    # the same formula in float64: rounding of the sine's argument (4000 Hz, 0.125 s: 3e3 rad) stays below 1e-12
    np.testing.assert_allclose(y[0].numpy(), x, rtol=0, atol=1e-12 * np.abs(x).max())


@given(
    st.floats(-20, 120),
    st.integers(1, 99),
    st.floats(0, 2 * math.pi),
)
@settings(max_examples=30)
def test_level_of_whole_periods(db: float, periods: int, phase: float) -> None:
    x = tone(frequency_hz=periods * 10.0, level_db_spl=db, duration_s=0.1, phase_rad=phase, fs=20000, dtype=F64)
    assert float(level(x)) == pytest.approx(db, abs=1e-9)


def test_level_of_the_steady_part_with_ramps() -> None:
    x = tone(frequency_hz=1000.0, level_db_spl=[20.0, 60.0], duration_s=0.2, ramp_s=0.05, fs=44100, dtype=F64)
    steady = x[:, 2205:-2205]
    torch.testing.assert_close(level(steady), torch.tensor([20.0, 60.0], dtype=F64), rtol=0, atol=1e-9)


def test_ramps_and_durations_per_row() -> None:
    x = tone(
        frequency_hz=1000.0,
        level_db_spl=60.0,
        duration_s=[0.1, 0.05, 0.02],
        ramp_s=[0.01, 0.0, 0.01],
        phase_rad=math.pi / 2,
        fs=16000,
        dtype=F64,
    )
    assert x.shape == (3, 1600)
    assert not x[1, 800:].any()
    assert not x[2, 320:].any()
    peak = math.sqrt(2) * 0.02
    assert float(x[1, 0]) == pytest.approx(peak)  # no ramp
    assert float(x[0, 0]) == 0.0
    assert float(x[0, 80]) == pytest.approx(0.5 * peak)  # half way up
    assert float(x[0, 160]) == pytest.approx(peak)


def test_minus_infinity_is_silence() -> None:
    x = tone(frequency_hz=1000.0, level_db_spl=[-math.inf, 0.0], fs=16000)
    assert not x[0].any()
    assert x[1].any()


def test_dtype_is_rounded_from_float64() -> None:
    arguments = {"frequency_hz": 997.0, "level_db_spl": 70.0, "fs": 44100}
    assert torch.equal(tone(**arguments), tone(**arguments, dtype=F64).float())
    assert tone(**arguments).dtype == torch.float32


def test_silence() -> None:
    assert silence(duration_s=[0.1, 0.2], fs=1000).shape == (2, 200)
    assert not silence(duration_s=0.1, fs=1000).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frequency_hz": 9000.0}, "frequency_hz = 9000 Hz is out of range: it must be above 0 Hz and at most 8000 Hz"),
        ({"frequency_hz": [1000.0, -5.0]}, "frequency_hz = -5 Hz"),
        ({"frequency_hz": math.nan}, "frequency_hz = nan"),
        ({"level_db_spl": 200.0}, "level_db_spl = 200 dB SPL is out of range: it must be at most 160 dB SPL"),
        ({"duration_s": 0.0}, "duration_s = 0 s is out of range: it must be above 0 s"),
        ({"ramp_s": 0.3}, "ramp_s is too long: two ramps of 4800 samples do not fit into a sound of 8000"),
        ({"ramp_shape": "hann"}, "ramp_shape = 'hann' is not known. Allowed: 'raised_cosine', 'linear'"),
        ({"fs": 0.0}, "fs = 0 Hz is out of range"),
        ({"phase_rad": math.inf}, "phase_rad = inf rad"),
        (
            {"frequency_hz": [1.0, 2.0], "level_db_spl": [1.0, 2.0, 3.0]},
            r"lengths differ: frequency_hz \(2\), level_db_spl \(3\)",
        ),
        ({"frequency_hz": "high"}, "frequency_hz = 'high' must be a number in Hz"),
        ({"frequency_hz": None}, "frequency_hz is needed"),
        ({"level_db_spl": [60.0, None]}, "is not a number or one number per row"),
        (
            {"frequency_hz": torch.ones(2, 2)},
            r"frequency_hz must be one number or one per row \(B,\), but its shape is \(2, 2\)",
        ),
        ({"frequency_hz": []}, "The batch is empty"),
    ],
)
def test_errors(change, message: str) -> None:
    arguments = {"frequency_hz": 1000.0, "level_db_spl": 60.0, "fs": 16000, **change}
    with pytest.raises(SpecError, match=message):
        tone(**arguments)
