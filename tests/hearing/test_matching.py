"""Matches of a function with a known inverse, and searches that have no answer."""

import pytest
import torch

from psysim.errors import SpecError
from psysim.hearing import match_loudness


def test_every_sound_has_its_own_match() -> None:
    gain = torch.tensor([0.0, 6.0, -20.0], dtype=torch.float64)
    found = match_loudness(lambda level: level + gain, [10.0, 50.0, 60.0], tolerance_db=1e-3)
    torch.testing.assert_close(found, torch.tensor([10.0, 44.0, 80.0], dtype=torch.float64), rtol=0, atol=1e-3)


def test_out_of_reach_is_not_a_number() -> None:
    found = match_loudness(lambda level: level, [-5.0, 50.0, 200.0], low_db=0.0, high_db=100.0)
    assert found.isnan().tolist() == [True, False, True]


def test_bad_input() -> None:
    with pytest.raises(SpecError, match="high_db"):
        match_loudness(lambda level: level, 1.0, low_db=10.0, high_db=5.0)
    with pytest.raises(SpecError, match="returned shape"):
        match_loudness(lambda level: level.sum(), [1.0, 2.0])
