from __future__ import annotations

import math

import pytest
import torch

from psysim.errors import SpecError
from psysim.rng import Keys
from psysim.stimuli import clicks, registry

FS = 44100


def test_train() -> None:
    x = clicks(pressure_pa=0.1, width_s=2 / FS, n_clicks=4, rate_hz=300.0, delay_s=0.001, duration_s=0.02, fs=FS)
    onsets = [math.floor((0.001 + k / 300) * FS + 0.5) for k in range(4)]
    assert x.nonzero()[:, 1].tolist() == [n + j for n in onsets for j in (0, 1)]
    assert x[x != 0].unique().tolist() == [pytest.approx(0.1)]


def test_alternating_polarity() -> None:
    x = clicks(pressure_pa=0.1, width_s=1 / FS, n_clicks=4, rate_hz=300.0, duration_s=0.02, alternating=True, fs=FS)
    assert (x[x != 0].sign()).tolist() == [1, -1, 1, -1]


def test_rows_differ_in_everything() -> None:
    x = clicks(
        pressure_pa=[0.1, -0.2, 0.0],
        width_s=[1e-4, 2e-4, 1e-4],
        n_clicks=[1, 3, 2],
        rate_hz=[100.0, 200.0, 50.0],
        delay_s=[0.0, 0.001, 0.0],
        duration_s=[0.01, 0.02, 0.05],
        fs=FS,
    )
    assert x.shape == (3, 2205)
    assert [int((row != 0).sum()) for row in x] == [4, 27, 0]
    assert float(x[1].min()) == pytest.approx(-0.2)


def test_a_pulse_has_at_least_one_sample() -> None:
    assert int((clicks(pressure_pa=1.0, width_s=1e-6, fs=FS) != 0).sum()) == 1


def test_kind_peak_level() -> None:
    x = registry.get("click")().generate({"peak_level_db_spl": torch.tensor([80.0, -math.inf])}, Keys.make(1), FS)
    assert float(x[0].max()) == pytest.approx(0.2)  # 20 uPa times 10^4
    assert not x[1].any()
    assert int(x[0].nonzero()[0]) == 441  # 10 ms of silence before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_clicks": 3, "rate_hz": 20000.0}, "The clicks overlap"),
        ({"delay_s": 0.05}, "The last click ends at 0.0500.* s, after the sound of 0.05 s"),
        ({"n_clicks": 30}, "The last click ends"),
        ({"n_clicks": 0}, "n_clicks = 0 is out of range"),
        ({"width_s": 0.0}, "width_s = 0 s is out of range"),
        ({"pressure_pa": math.nan}, "pressure_pa = nan Pa"),
    ],
)
def test_errors(change, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        clicks(**{"pressure_pa": 0.1, "fs": FS, **change})
