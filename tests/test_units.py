from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from psysim import units
from psysim.errors import SpecError

DATA = Path(__file__).parent / "reference" / "data"
GOLDEN = np.load(DATA / "common_gammatone.npz")

LEVELS = st.floats(-100, 140)
FREQUENCIES = st.floats(0.1, 20000)
PAIRS = [
    (units.erb_number, units.erb_number_to_hz),
    (units.erb_number_glasberg1990, units.erb_number_glasberg1990_to_hz),
    (units.erb_number_glasberg1990_program, units.erb_number_glasberg1990_program_to_hz),
    (units.erb_number_moore1983, units.erb_number_moore1983_to_hz),
]


def test_levels() -> None:
    assert units.pascal_to_db_spl(20e-6) == 0.0
    assert units.db_spl_to_pascal(0.0) == 20e-6
    assert units.db_spl_to_pascal(93.97940008672037) == pytest.approx(1.0, rel=1e-15)
    assert units.db_spl_to_pascal(-math.inf) == 0.0
    assert units.pascal_to_db_spl(0.0) == -math.inf


def test_depth() -> None:
    assert units.depth_db_to_m(-math.inf) == 0.0
    assert units.depth_m_to_db(0.0) == -math.inf
    assert units.depth_db_to_m(-20.0) == pytest.approx(0.1, rel=1e-15)


@given(LEVELS)
def test_level_round_trip(level: float) -> None:
    assert units.pascal_to_db_spl(units.db_spl_to_pascal(level)) == pytest.approx(level, abs=1e-12)


@pytest.mark.parametrize(("to_number", "to_hz"), PAIRS)
@given(frequency=FREQUENCIES)
def test_erb_scales_invert(to_number, to_hz, frequency: float) -> None:
    # the 1983 scale is flat at high frequencies: its inverse loses about three digits there
    assert to_hz(to_number(frequency)) == pytest.approx(frequency, rel=1e-11)


def test_golden_scale_and_bandwidth() -> None:
    frequency = GOLDEN["freq_hz"]
    # relative to 1 Hz / 1 Cam: rounding of one logarithm or exponential
    np.testing.assert_allclose(units.erb_number(frequency), GOLDEN["erbrate_freqtoaud"], rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(units.gammatone_bandwidth_hz(frequency), GOLDEN["audfiltbw_hz"], rtol=1e-14)
    np.testing.assert_allclose(units.erb_number_to_hz(GOLDEN["erb_number"]), GOLDEN["audtofreq_hz"], rtol=1e-14)


@pytest.mark.parametrize(
    ("function", "frequency", "value"),
    [
        (units.erb_number, 80.0, 2.777574),
        (units.erb_number, 8000.0, 33.189212),
        (units.erb_hz_glasberg1990, 1000.0, 132.639),
        (units.erb_number_glasberg1990, 1000.0, 21.4 * math.log10(5.37)),
        (units.erb_hz_glasberg1990_program, 1000.0, 24.673 * 5.368),
        (units.erb_number_glasberg1990_program, 1000.0, 21.366 * math.log10(5.368)),
        (units.erb_number_moore1983, 1000.0, 11.17 * math.log(1312 / 15675) + 43.0),
    ],
)
def test_values_of_the_scales(function, frequency: float, value: float) -> None:
    assert function(frequency) == pytest.approx(value, abs=5e-7)


def test_erb_number_is_odd() -> None:
    assert units.erb_number(-1000.0) == -units.erb_number(1000.0)
    assert units.erb_number_to_hz(-5.0) == -units.erb_number_to_hz(5.0)


@pytest.mark.parametrize("i", range(13))
def test_erb_space_golden(i: int) -> None:
    base = GOLDEN["space_basef"][i]
    centres = units.erb_space(
        GOLDEN["space_flow"][i],
        GOLDEN["space_fhigh"][i],
        GOLDEN["space_bw"][i],
        None if np.isnan(base) else base,
    )
    expected = np.atleast_1d(GOLDEN[f"space_fc_{i:02d}"])
    assert centres.shape == expected.shape
    np.testing.assert_allclose(centres, expected, rtol=1e-12)


@given(st.floats(20, 500), st.floats(600, 20000), st.floats(0.1, 3))
def test_erb_space_properties(low: float, high: float, spacing: float) -> None:
    centres = units.erb_space(low, high, spacing)
    numbers = units.erb_number(centres)
    np.testing.assert_allclose(np.diff(numbers), spacing, rtol=1e-9)
    below, above = numbers[0] - units.erb_number(low), units.erb_number(high) - numbers[-1]
    assert below == pytest.approx(above, abs=1e-9)  # centred between the bounds
    assert below + 1e-9 >= 0
    assert below < spacing / 2 + 1e-9


@given(st.floats(50, 500), st.floats(600, 20000), st.floats(0.0, 1.0))
def test_erb_space_hits_the_base_frequency(low: float, high: float, part: float) -> None:
    base = low + part * (high - low)
    assert np.min(np.abs(units.erb_space(low, high, 1.0, base) / base - 1)) < 1e-12


FUNCTIONS = [getattr(units, name) for name in units.__all__ if name not in ("P_REF", "erb_space")]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_kind_in_is_kind_out(function) -> None:
    number = function(12.0)
    assert type(number) is float
    assert type(function(12)) is float
    array = function(np.array([12.0, 1.0]))
    assert isinstance(array, np.ndarray)
    assert array.dtype == np.float64
    tensor = function(torch.tensor([12.0, 1.0], dtype=torch.float64))
    assert isinstance(tensor, torch.Tensor)
    assert tensor.dtype == torch.float64
    assert function(torch.tensor([12.0])).dtype == torch.float32
    assert function(torch.tensor([12])).dtype == torch.float64
    np.testing.assert_allclose(array, tensor.numpy(), rtol=1e-15)
    assert array[0] == pytest.approx(number, rel=1e-15)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_gradient(function) -> None:
    x = torch.tensor([3.0, 20.0, 700.0][: 2 if "db_to" in function.__name__ else 3], dtype=torch.float64)
    x = x.clamp(max=40.0) if "to_hz" in function.__name__ else x
    assert torch.autograd.gradcheck(function, x.requires_grad_())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((80.0, 8000.0, 0.0), "spacing = 0 ERB numbers is out of range"),
        ((-1.0, 8000.0), "flow_hz = -1 Hz is out of range"),
        ((8000.0, 80.0), "fhigh_hz = 80 Hz must be finite and at least flow_hz = 8000 Hz"),
        (
            (80.0, 8000.0, 1.0, 9000.0),
            "basef_hz = 9000 Hz is out of range: it must be at least 80 Hz",
        ),
        ((80.0, math.inf), "must be finite"),
        ((80.0, 8000.0, math.nan), "spacing = nan"),
    ],
)
def test_erb_space_errors(arguments, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        units.erb_space(*arguments)
