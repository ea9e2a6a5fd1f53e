"""Listeners with an audiogram: what an experiment may state, and the models that take it."""

from __future__ import annotations

import pytest
import torch

from psysim.errors import SpecError
from psysim.experiments import loads
from psysim.experiments.engine import make_observer
from psysim.hearing import Audiogram, as_audiogram, hearing_loss_options, loudness_losses
from psysim.models import Moore2016, registry

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
    with pytest.raises(SpecError, match=r"'dau1997'\. Rules are known for: glasberg2002, moore2016, paulick2024"):
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
