"""Moore2016 beside the standards: ISO 226:2003, ISO 389-7, and the contours of the published model itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from psysim.hearing import match_loudness
from psysim.models import Moore2016

DATA = Path(__file__).parents[1] / "reference" / "data"
FS = 32000
FRAME = 200  # ms: the short-term loudness is within 1e-4 of its end


def table(name: str) -> pd.DataFrame:
    return pd.read_csv(DATA / f"{name}.csv", comment="#")


@pytest.fixture(scope="module")
def model() -> Moore2016:
    return Moore2016()


def matched(model: Moore2016, frequency_hz: np.ndarray, sone: float) -> np.ndarray:
    """Return the levels, dB SPL, of steady tones of a loudness, heard by both ears in the free field."""
    time = torch.arange(int(FS * (FRAME + 40) / 1000), dtype=torch.float64) / FS
    waves = torch.sin(2 * torch.pi * torch.tensor(frequency_hz)[:, None] * time)[:, None]

    def loudness(level: Tensor) -> Tensor:
        sounds = 2**0.5 * 20e-6 * 10 ** (level / 20)[:, None, None] * waves
        return model(sounds)[0][:, FRAME]

    return match_loudness(loudness, torch.full((len(frequency_hz),), sone), tolerance_db=0.05).numpy()


def of_1_khz(model: Moore2016, level_db: float) -> float:
    time = torch.arange(int(FS * (FRAME + 40) / 1000), dtype=torch.float64) / FS
    sound = 2**0.5 * 20e-6 * 10 ** (level_db / 20) * torch.sin(2e3 * torch.pi * time)
    with torch.no_grad():
        return float(model(sound[None])[0][FRAME])


@pytest.mark.parametrize("phon", [40, 60])
def test_equal_loudness_contours(model: Moore2016, phon: int) -> None:
    """100 Hz to 8 kHz: within 5 dB rms of ISO 226:2003, and within 0.5 dB of the published model's own contour."""
    contours = table("loudness_iso226_contours_and_models")
    contours = contours[contours["frequency_hz"].between(100.0, 8000.0)].iloc[::2]
    ours = matched(model, contours["frequency_hz"].to_numpy(), of_1_khz(model, phon))
    away = ours - contours[f"iso226_2003_{phon}phon"].to_numpy()
    assert np.sqrt(np.mean(away**2)) <= 5.0
    np.testing.assert_allclose(ours, contours[f"moore2016_{phon}phon"], rtol=0, atol=0.5)


def test_absolute_thresholds(model: Moore2016) -> None:
    """80 Hz to 12.5 kHz: within 1.5 dB of ISO 389-7 at the loudness of 1 kHz at 2.4 dB SPL (0.00176 sone)."""
    thresholds = table("loudness_iso389_7_and_models")
    thresholds = thresholds[thresholds["frequency_hz"].between(80.0, 12500.0)].iloc[::2]
    sone = of_1_khz(model, 2.4)
    assert sone == pytest.approx(0.00176, rel=0.02)
    ours = matched(model, thresholds["frequency_hz"].to_numpy(), sone)
    np.testing.assert_allclose(ours, thresholds["iso389_7_2005_free_db"], rtol=0, atol=1.5)
