"""Prescriptions and linear aids."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from psysim import human
from psysim.errors import SpecError
from psysim.hearing import STANDARD_AUDIOGRAMS, Audiogram, standard_audiogram
from psysim.hearing.aids import PRESCRIPTION_FREQUENCIES_HZ, PRESCRIPTIONS, LinearAid, insertion_gains


def constants(formula: str) -> pd.DataFrame:
    table = human.load("nal_formulas")
    return table[table["formula"] == formula]


def number(table: pd.DataFrame, measure: str) -> float:
    return float(table.loc[table["measure"] == measure, "value"].iloc[0])


def nal_r(ear: Audiogram) -> dict[float, float]:
    """Gains from the constants of the table alone."""
    c = constants("NAL-R")
    total = float(ear.at([500.0, 1000.0, 2000.0]).sum())
    x = number(c, "x_factor_slope_sum3") * total
    if total > 180:
        x = number(c, "x_factor_constant_above_180") + number(c, "x_factor_slope_above_180") * (total - 180)
    offsets = c[c["measure"] == "frequency_offset"]
    slope = number(c, "gain_slope_htl")
    f = offsets["frequency_hz"].to_numpy(float)
    gain = slope * ear.at(f) + x + offsets["value"].to_numpy(float)
    return dict(zip(f.tolist(), np.maximum(gain, 0).tolist(), strict=True))


def nal_rp(ear: Audiogram) -> dict[float, float]:
    c = constants("NAL-RP")
    mean = float(ear.at([500.0, 1000.0, 2000.0]).mean())
    extra = number(c, "x_factor_extra_slope_above_60") * max(mean - 60, 0)
    offsets = c[c["measure"] == "frequency_offset"]
    f = offsets["frequency_hz"].to_numpy(float)
    gain = number(c, "gain_slope_htl") * ear.at(f) + number(c, "x_factor_slope_3fa") * mean + extra
    gain += offsets["value"].to_numpy(float)
    severe = c[c["measure"] == "severe_loss_correction"]
    rows = severe[severe["htl_2khz_db_hl"] == float(ear.at(2000.0))]
    if len(rows):
        gain += rows.set_index("frequency_hz")["value"].loc[f].to_numpy(float)
    return dict(zip(f.tolist(), np.maximum(gain, 0).tolist(), strict=True))


@pytest.mark.parametrize("name", STANDARD_AUDIOGRAMS)
@pytest.mark.parametrize(("rule", "reference"), [("NAL-R", nal_r), ("NAL-RP", nal_rp)])
def test_gains_are_those_of_the_table(name: str, rule: str, reference: Any) -> None:
    given = insertion_gains(standard_audiogram(name), rule)
    gains = dict(zip(given["frequency_hz"], given["gain_db"], strict=True))
    for f, expected in reference(standard_audiogram(name)).items():
        assert gains[f] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("level", [95.0, 100.0, 105.0, 110.0, 115.0, 120.0])
def test_corrections_of_severe_losses(level: float) -> None:
    """Every row of the table; half-way between 90 and 95 dB HL half of the first."""
    ear = Audiogram([500.0, 1000.0, 2000.0], [70.0, 80.0, level])
    gains = insertion_gains(ear, "NAL-RP")["gain_db"]
    assert gains == pytest.approx(list(nal_rp(ear).values()), abs=1e-9)


def test_corrections_begin_at_90() -> None:
    def at(level: float) -> float:
        ear = Audiogram([500.0, 1000.0, 2000.0], [70.0, 80.0, level])
        mean = (150.0 + level) / 3
        return insertion_gains(ear, "NAL-RP")["gain_db"][2] - 0.31 * 80 - 0.15 * mean - 0.2 * (mean - 60) - 1

    ear = Audiogram([500.0, 1000.0, 2000.0], [70.0, 80.0, 92.5])
    low = insertion_gains(ear, "NAL-RP")["gain_db"][0]
    mean = 242.5 / 3
    assert low == pytest.approx(0.31 * 70 + 0.15 * mean + 0.2 * (mean - 60) - 17 + 2.0, abs=1e-9)
    assert at(90.0) == pytest.approx(0.0, abs=1e-9)


def test_half_gain() -> None:
    gains = insertion_gains(standard_audiogram("N3"), "half-gain")["gain_db"]
    assert gains == pytest.approx((standard_audiogram("N3").at(PRESCRIPTION_FREQUENCIES_HZ) / 2).tolist())


@pytest.mark.parametrize("fs", [16000.0, 44100.0])
@pytest.mark.parametrize("rule", PRESCRIPTIONS)
def test_a_tone_gets_the_prescribed_gain(fs: float, rule: str) -> None:
    """Measured with tones: within 0.1 dB of the prescription, delay as stated."""
    aid = LinearAid(fs, prescription=rule, audiogram="N4", dtype=torch.float64)
    f = torch.tensor(aid.frequency_hz, dtype=torch.float64)
    t = torch.arange(round(0.1 * fs), dtype=torch.float64) / fs
    x = 0.02 * torch.sin(2 * torch.pi * f[:, None] * t)
    steady = slice(aid.n_taps, None)
    y = aid(x)
    measured = 10 * torch.log10(y[:, steady].square().mean(-1) / x[:, steady].square().mean(-1))
    expected = torch.tensor(insertion_gains(standard_audiogram("N4"), rule)["gain_db"], dtype=torch.float64)
    torch.testing.assert_close(measured, expected, rtol=0, atol=0.1)
    delayed = torch.nn.functional.pad(x, (aid.delay, 0))[:, : len(t)] * 10 ** (expected[:, None] / 20)
    assert float((y - delayed)[:, steady].abs().max()) < 0.02 * float(delayed.abs().max())


def test_gains_above_half_the_sampling_rate_are_left_out() -> None:
    aid = LinearAid(8000.0, prescription="NAL-R", audiogram="N3")
    assert aid.gain_at([2000.0]).item() == pytest.approx(20.75, abs=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either a prescription"),
        ({"prescription": "NAL-R", "audiogram": "N3", "gain_db": [1.0]}, "either a prescription"),
        ({"prescription": "NAL-R"}, "needs an audiogram"),
        ({"prescription": "NAL-S", "audiogram": "N3"}, "Did you mean 'NAL-R"),
        ({"frequency_hz": [100.0]}, "needs frequency_hz and gain_db"),
        ({"frequency_hz": [100.0, 200.0], "gain_db": [1.0]}, "2 frequencies but 1 gains"),
        ({"frequency_hz": [200.0, 100.0], "gain_db": [1.0, 1.0]}, "rising"),
        ({"frequency_hz": [200.0], "gain_db": [140.0]}, "at most 100 dB"),
        ({"frequency_hz": [200.0], "gain_db": [float("nan")]}, "out of range"),
        ({"frequency_hz": [200.0], "gain_db": [1.0], "duration_s": 1.0}, "at most 0.1 s"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        LinearAid(16000.0, **options)


def test_the_filter_follows_its_gains() -> None:
    """The impulse response is kept between calls, until a gain changes."""
    aid = LinearAid(16000.0, frequency_hz=[500.0, 2000.0], gain_db=[0.0, 10.0])
    first = aid.taps
    assert aid.taps is first
    aid.gain_db += 6.0
    assert aid.gain_at([500.0, 2000.0]).tolist() == pytest.approx([6.0, 16.0], abs=0.05)
