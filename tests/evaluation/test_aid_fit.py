"""Aids fitted by gradient: what counts, that it falls, what stays within limits, interruption."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from psysim.errors import SpecError, StoreError
from psysim.evaluation.aid_fit import AidFitSettings, SpeechSounds, aid_distances, distances, excess_db, fit_aid
from psysim.evaluation.descent import DescentProgress
from psysim.hearing import as_audiogram
from psysim.hearing.aids import LinearAid, PassThrough

FS = 20000.0
FREQUENCIES = [250.0, 1000.0, 4000.0]
SETTINGS = AidFitSettings(
    batch=2, n_steps=8, validate_every=4, n_validation=4, duration_s=0.3, learning_rate=3.0, schedule="constant"
)


def aid(gain_db: float = 0.0, dtype: str = "float32") -> LinearAid:
    table = {"frequency_hz": FREQUENCIES, "gain_db": [gain_db] * 3}
    return LinearAid(FS, **table, learnable=True, dtype=getattr(torch, dtype))


def test_training_and_held_out_sentences_are_of_other_lists_and_levels_are_as_asked() -> None:
    sounds = SpeechSounds(FS, AidFitSettings(duration_s=2.0, snr_db=(100.0,)))
    number = torch.arange(6)
    x = sounds.make("training", number)
    assert x.shape == (6, 40000)
    level = 10 * torch.log10(x.square().mean(1) / 4e-10)
    assert level[1] - level[0] == pytest.approx(15.0, abs=3.5)  # other sentences, cut
    torch.testing.assert_close(sounds.make("training", number[3:4])[0], x[3], rtol=0, atol=0)
    assert not torch.equal(sounds.make("held out", number), x)
    with pytest.raises(SpecError, match="split"):
        sounds.make("test", number)


@pytest.mark.parametrize("target", ["representation", "loudness"])
def test_gradient_of_the_distance_agrees_with_finite_differences(target: str) -> None:
    terms = distances(target, as_audiogram("N2"), FS, "saddler2025", "glasberg2002")
    (term,) = terms
    term.normal, term.impaired = term.normal.double(), term.impaired.double()
    x = SpeechSounds(FS, SETTINGS).make("held out", torch.arange(1)).double()
    linear = aid(5.0, "float64")
    wanted = term.wanted(x)

    def value() -> torch.Tensor:
        return term.between(linear(x), wanted).sum()

    value().backward()
    gradient = linear.gain_db.grad.clone()
    for k in range(3):
        step = 1e-3
        with torch.no_grad():
            linear.gain_db[k] += step
            above = value()
            linear.gain_db[k] -= 2 * step
            below = value()
            linear.gain_db[k] += step
        assert float(gradient[k]) == pytest.approx(float(above - below) / (2 * step), rel=2e-3, abs=1e-6)


def test_the_distance_falls_on_held_out_speech_and_gains_stay_within_limits(tmp_path: Path) -> None:
    seen: list[DescentProgress] = []
    fitted = fit_aid(aid(), "N3", tmp_path / "a", settings=SETTINGS, progress=seen.append)
    shares = aid_distances({"none": PassThrough(FS), "fitted": fitted}, "N3", FS, settings=SETTINGS)
    assert shares["none"] == pytest.approx(1.0)
    assert shares["fitted"] < 0.9
    assert seen[-1].validation["loss"] == pytest.approx(shares["fitted"], rel=1e-4)
    kept = json.loads((tmp_path / "a" / "aid.json").read_text())
    torch.testing.assert_close(
        torch.tensor(kept["parameters"]["gain_db"], dtype=torch.float64), fitted.gain_db.detach()
    )
    limited = SETTINGS.model_copy(update={"gain_limits_db": (-5.0, 2.0)})
    fitted = fit_aid(aid(), "N3", tmp_path / "b", settings=limited)
    assert float(fitted.gain_db.detach().max()) <= 2.0
    assert float(fitted.gain_db.detach().min()) >= -5.0


def test_interrupted_and_continued_is_the_same(tmp_path: Path) -> None:
    def stop(now: DescentProgress) -> None:
        if now.step == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_aid(aid(), "N3", tmp_path / "a", settings=SETTINGS, progress=stop)
    with pytest.raises(StoreError, match="--resume"):
        fit_aid(aid(), "N3", tmp_path / "a", settings=SETTINGS)
    with pytest.raises(StoreError, match="another recipe"):
        fit_aid(aid(), "N4", tmp_path / "a", settings=SETTINGS, resume=True)
    resumed = fit_aid(aid(), "N3", tmp_path / "a", settings=SETTINGS, resume=True)
    whole = fit_aid(aid(), "N3", tmp_path / "b", settings=SETTINGS)
    torch.testing.assert_close(resumed.gain_db, whole.gain_db, rtol=0, atol=0)
    again = fit_aid(aid(), "N3", tmp_path / "a", settings=SETTINGS, resume=True)
    torch.testing.assert_close(again.gain_db, whole.gain_db, rtol=0, atol=0)


def test_output_above_the_limit_counts() -> None:
    loud = 20e-6 * 10 ** (100 / 20) * torch.ones(1, 8000)
    assert float(excess_db(loud, 8000.0, 90.0)) == pytest.approx(100.0, rel=1e-3)
    assert float(excess_db(loud, 8000.0, 100.5)) == 0.0


def test_nothing_to_learn_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="learnable=True"):
        fit_aid(PassThrough(FS), "N3", tmp_path / "a")
    with pytest.raises(SpecError, match="target"):
        fit_aid(aid(), "N3", tmp_path / "b", target="loudnes")
