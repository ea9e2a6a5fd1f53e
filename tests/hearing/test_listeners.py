"""Listeners with an audiogram: what an experiment may state, and the models that take it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from psysim import human
from psysim.errors import SpecError
from psysim.experiments import loads
from psysim.experiments.engine import make_observer
from psysim.hearing import (
    Audiogram,
    age_audiogram,
    as_audiogram,
    hearing_loss_options,
    loudness_losses,
    nerve_losses,
    read_audiograms,
)
from psysim.models import Moore2016, Saddler2024, Saddler2025, registry

TEXT = """
title = "x"
[stimulus]
kind = "tone"
[procedure]
tracks = "level_db_spl"
level_start = 60.0
steps = [2.0]
[[observers]]
model = "moore2016"
decision = "loudness"
audiogram = {audiogram}
[run]
fs = 32000
"""


def test_an_audiogram_by_name_as_a_table_or_as_it_is() -> None:
    given = Audiogram([500.0, 4000.0], [20.0, 60.0])
    assert as_audiogram(given) is given
    assert as_audiogram({"frequency_hz": [500.0, 4000.0], "level_db_hl": [20.0, 60.0]}) == given
    assert as_audiogram("N3").at(1000.0).item() == 40.0


@pytest.mark.parametrize(
    "given", [3.0, {"frequency_hz": [500.0]}, {"frequency_hz": [1.0], "level_db_hl": [1.0], "x": 1}]
)
def test_anything_else_is_refused(given: object) -> None:
    with pytest.raises(SpecError, match="name of a standard one"):
        as_audiogram(given)


def test_a_model_without_a_rule_says_which_have_one() -> None:
    model = registry.get("dau1997")(fs=16000)
    with pytest.raises(
        SpecError,
        match="known for: glasberg2002, moore2016, paulick2024, saddler2024, saddler2025",
    ):
        hearing_loss_options("dau1997", model, as_audiogram("N3"))


def test_the_observer_of_an_experiment_has_the_loss_of_its_audiogram() -> None:
    observer = make_observer(loads(TEXT.format(audiogram='"N4"')), 0)
    expected = loudness_losses(as_audiogram("N4"), Moore2016().fc)
    assert isinstance(observer.model, Moore2016)
    torch.testing.assert_close(observer.model.specific_loudness.ohc_loss_db, expected["ohc_loss_db"])
    torch.testing.assert_close(observer.model.specific_loudness.ihc_loss_db, expected["ihc_loss_db"])


@pytest.mark.parametrize(("audiogram", "message"), [('"N9"', "'N9' is not known"), ("[1.0]", "name of a standard one")])
def test_a_wrong_audiogram_in_a_file_is_named(audiogram: str, message: str) -> None:
    with pytest.raises(SpecError, match=r"observers\[0\].audiogram") as error:
        loads(TEXT.format(audiogram=audiogram))
    assert message in str(error.value)


def test_casp_loses_outer_hair_cells_first_and_keeps_its_other_options() -> None:
    """N4: 60 dB HL at 2 kHz; what the gain of the outer hair cells does not hold goes to the inner ones."""
    name, options = "paulick2024", {"n_channels": 6, "ihc_kwargs": {}}
    normal = registry.get(name)(fs=44100, **options)
    loss = hearing_loss_options(name, normal, as_audiogram("N4"))
    outer, inner = (
        torch.tensor(loss[a][b]) for a, b in (("drnl_kwargs", "ohc_loss_db"), ("ihc_kwargs", "ihc_loss_db"))
    )
    expected = torch.as_tensor(as_audiogram("N4").at(normal.drnl.fc.numpy()))
    torch.testing.assert_close(outer + inner, expected.to(outer.dtype), rtol=0, atol=1e-4)
    assert bool((outer <= normal.drnl.max_ohc_loss_db.to(outer.dtype) + 1e-6).all())
    impaired = type(normal)(fs=44100, **{**options, **loss})
    x = 2e-3 * torch.randn(1, 2000, generator=torch.Generator().manual_seed(1))
    assert float(impaired.represent(x).values.abs().sum()) < 0.8 * float(normal.represent(x).values.abs().sum())


def test_medians_by_age_are_those_of_the_standard() -> None:
    """Every frequency and both sexes, from the constants of the table; none at 18."""
    table = human.load("iso7029_2017")
    for sex in ("male", "female"):
        rows = table[table["sex"] == sex]
        a, b = (rows[rows["measure"] == m].set_index("frequency_hz")["value"] for m in ("a", "b"))
        assert len(a) == 11
        for age in (18.0, 45.0, 80.0):
            levels = age_audiogram(age, sex).at(a.index.to_numpy(float))
            assert levels == pytest.approx((a * (age - 18.0) ** b).to_numpy(float), abs=1e-9)
    for wrong in ({"age": 17, "sex": "male"}, {"age": 85, "sex": "male"}, {"age": 40, "sex": "mail"}):
        with pytest.raises(SpecError, match=r"years|Did you mean 'male'"):
            as_audiogram(wrong)
    assert as_audiogram({"age": 60, "sex": "female"}) == age_audiogram(60, "female")


CSV = """frequency_hz,level_db_hl,ear
4000,50,left
500,10,left
500,20,right
4000,60,right
"""


def test_audiograms_of_both_ears_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "kim.csv"
    file.write_text(CSV, encoding="utf-8")
    ears = read_audiograms(file)
    assert {ear: list(a.level_db_hl) for ear, a in ears.items()} == {"left": [10.0, 50.0], "right": [20.0, 60.0]}
    assert as_audiogram({"file": str(file), "ear": "right"}) == ears["right"]
    with pytest.raises(SpecError, match="Choose one of: left, right"):
        as_audiogram({"file": str(file)})
    spec = loads(TEXT.format(audiogram='{ file = "kim.csv", ear = "left" }'), folder=tmp_path)
    observer = make_observer(spec, 0)
    expected = loudness_losses(ears["left"], Moore2016().fc)
    torch.testing.assert_close(observer.model.specific_loudness.ohc_loss_db, expected["ohc_loss_db"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("frequency,level_db_hl\n500,1", "Did you mean 'frequency'"),
        ("frequency_hz,level_db_hl\n", "no row"),
        ("frequency_hz,level_db_hl\n500,loud", "line 2"),
        ("frequency_hz,level_db_hl,ear\n500,10,middle", "left or right"),
        ("frequency_hz,level_db_hl\n500,10\n500,20", "rising"),
        (None, "cannot be read"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "x.csv"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match=message) as error:
        read_audiograms(file)
    assert str(file) in str(error.value)


@pytest.mark.parametrize(
    ("name", "groups"), [("saddler2025", (0.0, 80.0)), ("saddler2024", ((0.0, 12.0, 28.0), (20.0, 40.0, 80.0)))]
)
def test_nerve_models_lose_thresholds_and_range_and_keep_their_tuning(name: str, groups: tuple[Any, Any]) -> None:
    kind: Any = {"saddler2024": Saddler2024, "saddler2025": Saddler2025}[name]
    normal = kind(20e3, bw_mult=2.0)
    loss = hearing_loss_options(name, normal, as_audiogram("N3"))
    expected = nerve_losses(as_audiogram("N3"), normal.fc, *groups)
    assert set(loss) == {"threshold_db_spl", "dynamic_range_db"}
    for key, value in loss.items():
        torch.testing.assert_close(value, expected[key])
    kind(20e3, bw_mult=2.0, **loss)
    with pytest.raises(SpecError, match="no parameter of a nerve model"):
        hearing_loss_options(name, normal, as_audiogram("N3"), ohc_share=0.5)


def test_the_share_of_outer_hair_cells() -> None:
    """From the experiment to the loudness model; CASP: half of N2 at every channel, below its maximum."""
    text = TEXT.format(audiogram='"N4"\nohc_share = 0.3')
    observer = make_observer(loads(text), 0)
    expected = loudness_losses(as_audiogram("N4"), Moore2016().fc, 0.3)
    torch.testing.assert_close(observer.model.specific_loudness.ohc_loss_db, expected["ohc_loss_db"])
    normal = registry.get("paulick2024")(fs=44100, n_channels=6)
    loss = hearing_loss_options("paulick2024", normal, as_audiogram("N2"), ohc_share=0.5)
    outer, inner = torch.tensor(loss["drnl_kwargs"]["ohc_loss_db"]), torch.tensor(loss["ihc_kwargs"]["ihc_loss_db"])
    torch.testing.assert_close(outer, inner)
    for wrong in ("1.5", '"half"'):
        with pytest.raises(SpecError, match="ohc_share"):
            loads(TEXT.format(audiogram=f'"N4"\nohc_share = {wrong}'))
