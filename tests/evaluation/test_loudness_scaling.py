"""Categorical loudness scaling: boundaries, growth of loudness, recruitment."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from psysim.errors import SpecError
from psysim.evaluation.loudness_scaling import CATEGORIES, category_boundaries, scale_loudness
from psysim.hearing import loudness_losses, standard_audiogram
from psysim.models import Moore2016
from psysim.observers import LoudnessObserver
from psysim.stimuli import tone

LEVELS = np.arange(0.0, 111.0, 5.0)


def tones(level_db: torch.Tensor) -> torch.Tensor:
    return tone(frequency_hz=1000.0, level_db_spl=level_db, duration_s=0.5, ramp_s=0.02, fs=32000)


def listener(hearing: str) -> LoudnessObserver:
    model = Moore2016()
    if hearing != "normal":
        model = Moore2016(**loudness_losses(standard_audiogram(hearing), model.fc))
    observer = LoudnessObserver(LoudnessObserver.Settings(internal_noise_std=0.07), model)
    observer.calibrate()
    return observer


def test_sone_is_the_third_power_of_categorical_units() -> None:
    edges = category_boundaries(80.0)
    assert len(edges) == len(CATEGORIES) - 1
    assert np.cbrt(edges / 80.0)[[0, 9]] * 50.0 == pytest.approx([2.5, 47.5])
    with pytest.raises(SpecError, match="too_loud_sone"):
        category_boundaries(0.0)


def test_growth_of_normal_hearing_and_recruitment() -> None:
    normal = scale_loudness(listener("normal"), tones, LEVELS, n_trials=20)
    assert normal.category.shape == (23, 20)
    assert bool((np.diff(normal.sone) > 0).all())
    assert bool((np.diff(normal.categorical_units) >= -0.3).all())
    at = dict(zip(LEVELS, normal.categorical_units, strict=True))
    assert at[75.0] == pytest.approx(25.0, abs=2.5)  # 8 times less loud than 105 dB SPL: 30 phon
    assert at[105.0] == pytest.approx(50.0, abs=1.0)
    assert at[0.0] == 0.0
    # Half of the judgements are above a boundary where the loudness, without noise, is that of the boundary
    edges = category_boundaries(listener("normal").loudness_of_tone(105.0))
    expected = np.interp(np.log(edges), np.log(normal.sone), LEVELS)
    np.testing.assert_allclose(normal.boundary_level_db[1:], expected[1:], atol=1.5)
    impaired = scale_loudness(listener("N4"), tones, LEVELS, n_trials=20)
    slope = np.diff(impaired.boundary_level_db[[1, 4]]) / np.diff(normal.boundary_level_db[[1, 4]])
    assert float(slope[0]) < 0.75  # from very soft to medium within fewer decibels
    assert impaired.categorical_units[LEVELS == 40.0] < 1.0  # N4 has 55 dB HL at 1 kHz
    shift = impaired.boundary_level_db - normal.boundary_level_db
    assert 45.0 < shift[1] < 60.0  # very soft to soft: about the hearing loss
    assert shift[6] < 0.55 * shift[1]  # recruitment


def test_wrong_arguments_are_named() -> None:
    observer = listener("normal")
    with pytest.raises(SpecError, match="levels that rise"):
        scale_loudness(observer, tones, [40.0, 30.0])
    with pytest.raises(SpecError, match="n_trials"):
        scale_loudness(observer, tones, [30.0], n_trials=0)
