from __future__ import annotations

import numpy as np
import pytest
import torch

from psysim import human
from psysim.errors import SpecError
from psysim.hearing import STANDARD_AUDIOGRAMS, Audiogram, loudness_losses, standard_audiogram
from psysim.models import Glasberg2002


@pytest.mark.parametrize("name", sorted(STANDARD_AUDIOGRAMS))
def test_standard_audiograms_are_the_published_ones(name: str) -> None:
    """The table of the package's human data, read in another program."""
    published = human.load("bisgaard2010_standard_audiograms")
    rows = published[published["audiogram"] == name]
    ours = standard_audiogram(name)
    assert list(ours.frequency_hz) == rows["frequency_hz"].tolist()
    assert list(ours.level_db_hl) == rows["value"].tolist()
    assert ours.name == name


def test_there_are_ten() -> None:
    assert sorted(STANDARD_AUDIOGRAMS) == ["N1", "N2", "N3", "N4", "N5", "N6", "N7", "S1", "S2", "S3"]
    with pytest.raises(SpecError, match=r"'N33' is not known.*Did you mean 'N3'"):
        standard_audiogram("N33")


def test_between_the_points() -> None:
    ear = Audiogram([500, 1000, 2000], [0, 30, 60])
    assert ear.at(np.sqrt(2.0) * 500).item() == pytest.approx(15.0)
    assert ear.at([100.0, 9000.0]).tolist() == [0.0, 60.0]
    assert ear.pure_tone_average() == pytest.approx(37.5)


@pytest.mark.parametrize(
    ("frequency", "level", "message"),
    [
        ([500.0, 1000.0], [10.0], "2 frequencies but 1 levels"),
        ([], [], "0 frequencies"),
        ([1000.0, 500.0], [10.0, 20.0], "rising"),
        ([0.0], [10.0], "above 0"),
        ([500.0], [140.0], "140 dB HL"),
        ([500.0], [float("nan")], "dB HL"),
        (["a"], [10.0], "audiogram"),
        (None, [10.0], "audiogram"),
    ],
)
def test_wrong_audiograms(frequency: object, level: object, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Audiogram(frequency, level)


def test_split() -> None:
    ear = Audiogram([500.0, 1000.0, 4000.0], [-5.0, 40.0, 90.0])
    at = [500.0, 1000.0, 4000.0]
    split = loudness_losses(ear, at)
    assert split["ohc_loss_db"].tolist() == pytest.approx([0.0, 32.0, 57.6])
    assert split["ihc_loss_db"].tolist() == pytest.approx([0.0, 8.0, 32.4])
    for share in (0.0, 1.0, [0.2, 0.5, 0.9]):
        losses = loudness_losses(ear, torch.tensor(at), share)
        assert (losses["ohc_loss_db"] + losses["ihc_loss_db"]).tolist() == pytest.approx([0.0, 40.0, 90.0])
    for wrong in (1.5, -0.1, [0.5, 0.5], float("nan")):
        with pytest.raises(SpecError, match="ohc_share"):
            loudness_losses(ear, at, wrong)
    with pytest.raises(SpecError, match="above 0"):
        loudness_losses(ear, [0.0])


def test_a_listener_with_an_audiogram() -> None:
    """N3 (40 dB HL at 1 kHz), all of it outer hair cells: hardly heard at 50 dB SPL, recruitment up to 105 dB SPL.

    With a fifth of it inner hair cells, loudness stays below half the normal one.
    """
    time = torch.arange(6400) / 32000
    tone = 2e-5 * 2**0.5 * torch.sin(2e3 * torch.pi * time) * 10.0 ** (torch.tensor([[50.0], [105.0]]) / 20)
    normal = Glasberg2002()
    for share, high in ((1.0, 0.54), (0.8, 0.31)):
        impaired = Glasberg2002(**loudness_losses(standard_audiogram("N3"), normal.fc, share))
        ratio = impaired.loudness(tone)[0].amax(1) / normal.loudness(tone)[0].amax(1)
        assert ratio[0] < 0.03
        assert ratio[1].item() == pytest.approx(high, abs=0.02)
