"""Labels: every figure and table takes its words from here."""

from __future__ import annotations

import math

import numpy as np
import pytest

from psysim.reports.labels import NAMES, STATUS_WORDS, Labeller, number
from psysim.results import STATUS


@pytest.mark.parametrize(
    ("machine", "axis"),
    [
        ("rate_hz", "Modulation rate (Hz)"),
        ("depth_db", "Modulation depth, 20 log m (dB)"),
        ("level_db_spl", "Level (dB SPL)"),
        ("fs", "Sampling rate (Hz)"),
        ("silence_ms", "Silence (ms)"),
        ("angle_deg", "Angle (°)"),
        ("itd_us", "Itd (µs)"),
        ("share_percent", "Share (%)"),
        ("my_own_factor", "My own factor"),
    ],
)
def test_axis_label_has_a_unit(machine, axis):
    assert Labeller().axis(machine) == axis


def test_the_dataset_names_its_tracked_variable(tone):
    label = Labeller.of(tone)
    assert (
        label.axis("level") == label.axis("threshold") == label.axis("signal_level_db_spl") == "Signal level (dB SPL)"
    )
    assert label.name("level") == "Signal level"


def test_unit_is_not_stated_twice(tmtf):
    assert Labeller.of(tmtf).axis("level") == "Modulation depth, 20 log m (dB)"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("rate_hz", 64, "64 Hz"),
        ("rate_hz", np.float64(4), "4 Hz"),
        ("ramp_s", 0.05, "50 ms"),
        ("duration_s", 2.0, "2 s"),
        ("depth_db", -6.5, "−6.5 dB"),
        ("angle_deg", 90, "90°"),
        ("carrier", "broadband", "broadband"),
        ("compensate_level", True, "yes"),
        ("compensate_level", np.False_, "no"),
        ("steps_db", [4.0, 2.0], "4 dB, 2 dB"),
    ],
)
def test_values_carry_their_unit(name, value, text):
    assert Labeller().value(name, value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(44100.0, "44100"), (-3.25, "−3.25"), (0.0001, "0.0001"), (1e-9, "0"), (1e7, "10000000"), (math.inf, "∞")],
)
def test_numbers_have_no_exponents(value, text):
    assert number(value) == text


def test_point_names_every_factor():
    assert Labeller().point({"bandwidth_hz": 31, "rate_hz": 4}) == "bandwidth 31 Hz, modulation rate 4 Hz"


def test_every_status_has_words():
    assert set(STATUS_WORDS) == set(STATUS)


def test_names_hold_no_units():
    assert [name for name, label in NAMES.items() if "(dB)" in label or "(Hz)" in label] == []
