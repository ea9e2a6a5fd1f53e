"""Cases: parameters that vary together between conditions."""

from __future__ import annotations

import pytest
import torch

from psysim.errors import SpecError
from psysim.experiments import loads
from psysim.experiments.sounds import Sounds

TEXT = """
title = "Cases"
[stimulus]
kind = "am_noise"
centre_hz = 2000.0
duration_s = 0.1
[[cases]]
bandwidth_hz = 31.0
[[cases]]
bandwidth_hz = 314.0
band_limit = "after"
[conditions]
rate_hz = [8, 32]
[procedure]
tracks = "depth_db"
level_start = 0.0
steps = [2.0]
[[observers]]
decision = "simulated_listener"
threshold = -10.0
[run]
fs = 8000
"""


def test_cases_are_crossed_with_conditions() -> None:
    spec = loads(TEXT)
    assert spec.conditions == [
        {"bandwidth_hz": 31.0, "band_limit": "before", "rate_hz": 8},
        {"bandwidth_hz": 31.0, "band_limit": "before", "rate_hz": 32},
        {"bandwidth_hz": 314.0, "band_limit": "after", "rate_hz": 8},
        {"bandwidth_hz": 314.0, "band_limit": "after", "rate_hz": 32},
    ]
    assert spec.factors == ["bandwidth_hz", "band_limit", "rate_hz"]


def test_rows_of_different_options_are_made_as_if_alone() -> None:
    sounds = Sounds(loads(TEXT), dtype=torch.float64)
    condition = torch.tensor([3, 0, 2, 1, 0])
    token = torch.arange(5)
    together = sounds.target(condition, token, -3.0)
    for row in range(5):
        assert torch.equal(together[row], sounds.target(condition[row : row + 1], token[row : row + 1], -3.0)[0])


@pytest.mark.parametrize(
    ("old", "new", "snippet"),
    [
        (
            "bandwidth_hz = 31.0",
            "bandwith_hz = 31.0",
            "cases[0].bandwith_hz: unknown key. Did you mean 'bandwidth_hz'?",
        ),
        ("bandwidth_hz = 31.0", "bandwidth_hz = -31.0", "cases[0].bandwidth_hz"),
        ('band_limit = "after"', 'band_limit = "afterwards"', "cases[1].band_limit"),
        ('band_limit = "after"', "rate_hz = 4", "cases[1].rate_hz: is also in [conditions]"),
        ('band_limit = "after"', "centre_hz = 4000.0", "stimulus.centre_hz: is also in [conditions] or [[cases]]"),
        ('band_limit = "after"', "depth_db = -4.0", "cases[1].depth_db: is the tracked variable"),
    ],
)
def test_wrong_cases(old: str, new: str, snippet: str) -> None:
    with pytest.raises(SpecError) as caught:
        loads(TEXT.replace(old, new))
    assert snippet in str(caught.value)
