from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from psysim.errors import SpecError
from psysim.rng import Keys
from psysim.stimuli import gap_window, noise, registry

F64 = torch.float64
FS = 16000


@given(st.integers(1, 400), st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_silent_gap_has_exactly_its_duration_and_is_centred(gap: int, ramp: int) -> None:
    w = gap_window(gap_s=gap / FS, duration_s=0.1, gap_ramp_s=ramp / FS, fs=FS)[0].numpy()
    zeros = np.flatnonzero(w == 0)
    assert len(zeros) == gap
    assert zeros[-1] - zeros[0] == gap - 1
    assert abs((zeros[0] + zeros[-1]) / 2 - 799.5) <= 0.5
    assert np.count_nonzero(w < 1) == gap + 2 * ramp
    assert (np.diff(w[: zeros[0]]) <= 0).all()
    assert (np.diff(w[zeros[-1] + 1 :]) >= 0).all()
    first, last = zeros[0], zeros[-1]  # the two ramps mirror each other
    np.testing.assert_allclose(w[first - ramp : first], w[last + 1 : last + 1 + ramp][::-1], atol=1e-12)


@pytest.mark.parametrize("shape", ["raised_cosine", "linear"])
def test_half_amplitude_gap(shape: str) -> None:
    w = gap_window(
        gap_s=0.01, duration_s=0.1, gap_ramp_s=0.002, gap_definition="half_amplitude", ramp_shape=shape, fs=FS
    )[0]
    assert int((w < 0.5).sum()) == 160  # between the half-amplitude points
    assert int((w == 0).sum()) == 160 - 32  # one ramp less of silence


def test_half_amplitude_gap_shorter_than_its_ramps_only_dips() -> None:
    w = gap_window(gap_s=0.001, duration_s=0.1, gap_ramp_s=0.004, gap_definition="half_amplitude", fs=FS)[0]
    assert 0 < float(w.min()) < 0.5
    assert int((w < 0.5).sum()) == 16


def test_gap_position() -> None:
    w = gap_window(gap_s=0.01, duration_s=0.1, gap_delay_s=0.02, fs=FS)[0]
    assert torch.nonzero(w == 0).flatten().tolist() == list(range(320, 480))


def test_no_gap_is_no_gap() -> None:
    assert torch.equal(
        gap_window(gap_s=[0.0, 0.002], duration_s=0.1, gap_ramp_s=0.001, fs=FS)[0], torch.ones(1600, dtype=F64)
    )


def test_kind_multiplies_the_noise() -> None:
    kind = registry.get("gap_in_noise")()
    keys = Keys.make(seed=2, trial=torch.arange(3))
    parameters = {"high_hz": 6000.0, "level_db_spl": 75.0, "duration_s": 0.15, "ramp_s": 0.01, "gap_ramp_s": 0.001}
    gap = torch.tensor([0.0, 0.002, 0.05], dtype=F64)
    x = kind.generate({**parameters, "gap_s": gap}, keys, 44100, F64)
    plain = noise(keys, level_db_spl=75.0, high_hz=6000.0, duration_s=0.15, ramp_s=0.01, fs=44100, dtype=F64)
    w = gap_window(gap_s=gap, duration_s=0.15, gap_ramp_s=0.001, fs=44100)
    assert torch.equal(x, plain * w)
    assert torch.equal(x[0], plain[0])
    assert int((x[2] == 0).sum()) >= 2205


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gap_s": 0.2}, "The gap of 0.2 s with its ramps does not fit into the sound of 0.1 s"),
        ({"gap_s": 0.09, "gap_ramp_s": 0.01}, "does not fit"),
        ({"gap_delay_s": 0.095}, "does not fit"),
        ({"gap_s": -0.01}, "gap_s = -0.01 s is out of range"),
        ({"gap_definition": "visible"}, "gap_definition = 'visible' is not known. Allowed: 'silent', 'half_amplitude'"),
        ({"ramp_shape": "cubic"}, "ramp_shape = 'cubic'"),
    ],
)
def test_errors(change, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        gap_window(**{"gap_s": 0.01, "duration_s": 0.1, "fs": FS, **change})
