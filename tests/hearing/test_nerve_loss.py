"""From audiograms to the nerve models; the golden tables are in tests/reference/test_saddler2025_golden.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from psysim.errors import SpecError
from psysim.hearing import Audiogram, example_audiogram, nerve_losses
from psysim.models import Saddler2024

GROUPS = {"threshold_db_spl": [0.0, 12.0, 28.0], "dynamic_range_db": [20.0, 40.0, 80.0]}


def test_one_group() -> None:
    ear = Audiogram([500.0, 1000.0, 2000.0], [-10.0, 30.0, 100.0])
    found = nerve_losses(ear, [250.0, 500.0, 750.0, 1500.0, 9000.0])
    assert found["threshold_db_spl"].tolist() == [0.0, 0.0, 15.0, 55.0, 80.0]
    assert found["dynamic_range_db"].tolist() == [80.0, 80.0, 65.0, 25.0, 0.0]
    assert found["bw_mult"].tolist() == [1.0] * 5


def test_several_groups_keep_the_highest_level_and_their_order() -> None:
    ear = Audiogram([1000.0], [54.0])
    found = nerve_losses(ear, [1000.0, 4000.0], **GROUPS)
    threshold, width = found["threshold_db_spl"][:, 0], found["dynamic_range_db"][:, 0]
    assert threshold.tolist() == [54.0, 60.0, 68.0]  # of 108 dB, half is left
    assert width.tolist() == [10.0, 20.0, 40.0]
    assert float((threshold + width).max()) == 108.0
    assert torch.equal(found["threshold_db_spl"][:, 1], threshold)
    nothing = nerve_losses(example_audiogram("ref"), [1000.0], **GROUPS)
    assert nothing["threshold_db_spl"][:, 0].tolist() == GROUPS["threshold_db_spl"]
    deaf = nerve_losses(Audiogram([1000.0], [130.0]), [1000.0], **GROUPS)
    assert deaf["threshold_db_spl"][:, 0].tolist() == [108.0] * 3
    assert deaf["dynamic_range_db"][:, 0].tolist() == [0.0] * 3


def test_the_arguments_fit_the_model() -> None:
    normal = Saddler2024(20e3)
    ear = example_audiogram("moderate_severe")
    factors = np.linspace(1.0, 2.0, 15)
    losses = nerve_losses(ear, normal.fc, **GROUPS, bw_mult=factors)
    impaired = Saddler2024(20e3, **losses)
    assert torch.equal(impaired.rates.threshold_db_spl, losses["threshold_db_spl"])
    ratio = impaired.filterbank.bandwidth_hz / normal.filterbank.bandwidth_hz
    expected = np.interp(normal.fc.numpy(), ear.frequency_hz, factors)
    np.testing.assert_allclose(ratio.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold_db_spl": [0.0, 1.0], "dynamic_range_db": [1.0, 2.0, 3.0]}, "each group"),
        ({"bw_mult": [1.0, 2.0]}, "bw_mult"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        nerve_losses(example_audiogram("mild"), [1000.0], **options)


def test_a_wrong_name_gets_the_nearest() -> None:
    with pytest.raises(SpecError, match="Did you mean 'moderate'"):
        example_audiogram("modrate")
