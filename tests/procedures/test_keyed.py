"""Keyed numbers of the tracking rules: the streams of psysim.rng; roved variables; starts drawn from a range."""

import math

import numpy as np
import pytest
import torch

from psysim import rng
from psysim.errors import SpecError
from psysim.procedures import Pest, UpDown, keyed_order, keyed_uniform, registry, rove
from psysim.procedures.keyed import ORDER, PROCEDURE, ROVE


def test_the_streams_are_those_of_the_library():
    keys = rng.Keys.make(seed=2**63 + 5, track=torch.tensor([0, 9, 2**32 - 1]), trial=3, interval=7)
    lane = [0, 9, 2**32 - 1]
    want = rng.uniform(keys, rng.Purpose.PROCEDURE, 9).numpy()
    np.testing.assert_array_equal(keyed_uniform(2**63 + 5, lane, 9, trial=3, stream=7), want)
    order = rng.permutation(keys, rng.Purpose.ORDER, 9).numpy()
    np.testing.assert_array_equal(keyed_order(2**63 + 5, lane, 9, trial=3, stream=7), order)
    assert (rng.Purpose.ROVE, rng.Purpose.ORDER, rng.Purpose.PROCEDURE) == (ROVE, ORDER, PROCEDURE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, r"seed = -1 is out of range"),
        ({"seed": 0.5}, r"seed = 0\.5 is out of range"),
        ({"lane": [0.5]}, r"lane must be a 1-D array of whole numbers"),
        ({"lane": [-1]}, r"lane = -1 is out of range"),
        ({"trial": 2**24}, r"trial = 16777216 is out of range: .* less than 16777216"),
        ({"stream": 256}, r"stream = 256 is out of range"),
    ],
)
def test_names_are_checked(arguments, message):
    with pytest.raises(SpecError, match=message):
        keyed_uniform(**{"seed": 0, "lane": [0]} | arguments)


def test_roved_levels():
    trials = np.arange(4000)
    lane = np.zeros(4000, np.int64)
    levels = rove(3, lane, trials, width=20.0, center=70.0, n_intervals=2)
    assert levels.shape == (4000, 2)
    assert levels.min() >= 60 and levels.max() <= 80  # noqa: PT018
    # 8000 uniform numbers: the mean has a standard error of 0.065 dB, the standard deviation one of 0.03 dB
    assert abs(levels.mean() - 70) < 4 * 0.065
    assert abs(levels.std() - 20 / math.sqrt(12)) < 4 * 0.03
    assert abs(np.corrcoef(levels.T)[0, 1]) < 4 / math.sqrt(4000)
    normal = rove(3, lane, trials, width=2.0, distribution="normal")
    assert abs(normal.std() - 2) < 4 * 2 / math.sqrt(2 * 4000)
    np.testing.assert_array_equal(rove(3, [0, 5], 17, [1.0, 2.0], [0.0, 9.0])[1], rove(3, [5], 17, 2.0, 9.0)[0])
    assert np.all(rove(3, [0, 1], 0, width=0.0, center=[4.0, 5.0])[:, 0] == [4.0, 5.0])
    for wrong in ({"width": -1.0}, {"width": 1.0, "distribution": "unifrom"}):
        with pytest.raises(SpecError, match=r"width = -1|distribution = 'unifrom'.*Did you mean 'uniform'"):
            rove(3, [0], 0, **wrong)


WITH_RANGE = [kind for kind in registry.names() if "level_start_range" in registry.get(kind).Settings.model_fields]


@pytest.mark.parametrize("kind", WITH_RANGE)
def test_starts_are_spread_over_the_range(kind):
    cls = registry.get(kind)
    given = dict(cls.example_settings) | {"level_start": -10.0, "level_start_range": 8.0}
    starts = cls(**given).init(2000).level
    assert starts.min() >= -14 and starts.max() <= -6  # noqa: PT018
    # 2000 uniform numbers: the mean has a standard error of 0.05, the standard deviation one of 0.023
    assert abs(starts.mean() + 10) < 4 * 0.052
    assert abs(starts.std() - 8 / math.sqrt(12)) < 4 * 0.023
    np.testing.assert_array_equal(cls(**given).init(5).level, starts[:5])
    assert not np.array_equal(cls(**given | {"seed": 1}).init(2000).level, starts)
    assert np.all(cls(**given).init(3, level_start=[-1.0, -2.0, -3.0]).level == [-1.0, -2.0, -3.0])
    assert "drawn at random from a range of 8 around it" in cls(**given).describe()


def test_a_range_of_factors():
    rule = UpDown(level_start=100.0, level_start_range=12.0, steps=[2.0], step_unit="db")
    decibels = 20 * np.log10(rule.init(1000).level / 100)
    assert decibels.min() < -5 and decibels.max() > 5  # noqa: PT018
    assert np.abs(decibels).max() <= 6


@pytest.mark.parametrize("cls", [UpDown, Pest])
def test_a_range_beyond_the_limits(cls):
    settings = {"steps": [1.0]} if cls is UpDown else {"step_start": 2.0, "step_min": 1.0}
    with pytest.raises(SpecError, match=r"level_start_range = 8 reaches from -6 to 2, beyond the limits"):
        cls(level_start=-2.0, level_max=0.0, level_start_range=8.0, **settings)
