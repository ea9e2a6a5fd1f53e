"""Aids as tables and TOML files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from psysim.errors import SpecError
from psysim.hearing.aids import Chain, LinearAid, insertion_gains, load_aid, make_aid
from psysim.hearing.audiograms import standard_audiogram

FS = 16000.0
TEXT = """
title = "Noise reduction before NAL-R"
[[stages]]
kind = "noise_reduction"
floor_db = -6.0
[[stages]]
kind = "linear"
prescription = "NAL-R"
"""


def test_a_chain_in_a_file_takes_the_listeners_audiogram(tmp_path: Path) -> None:
    file = tmp_path / "aid.toml"
    file.write_text(TEXT, encoding="utf-8")
    aid = load_aid(file, FS, audiogram="N4")
    assert isinstance(aid, Chain)
    linear = aid.stages[1]
    assert isinstance(linear, LinearAid)
    assert linear.gain_db.tolist() == pytest.approx(insertion_gains(standard_audiogram("N4"))["gain_db"])
    assert aid.delay == aid.stages[0].delay + linear.delay
    assert not list(aid.parameters())
    names = {name for name, _ in load_aid(file, FS, audiogram="N4", learnable=True).named_parameters()}
    assert names == {"stages.0.floor_db", "stages.0.bias_db", "stages.1.gain_db"}


def test_a_chain_is_its_stages_one_after_the_other() -> None:
    x = 0.01 * torch.randn(2, 500, generator=torch.Generator().manual_seed(1))
    tables: list[dict[str, Any]] = [
        {"kind": "linear", "frequency_hz": [500.0], "gain_db": [6.0]},
        {"kind": "noise_reduction"},
    ]
    first, second = (make_aid(table, FS) for table in tables)
    assert torch.equal(make_aid({"stages": tables}, FS)(x), second(first(x)))


def test_an_audiogram_of_its_own_comes_first() -> None:
    aid = make_aid({"kind": "linear", "prescription": "half-gain", "audiogram": "N2"}, FS, audiogram="N4")
    assert aid.gain_db.tolist() == pytest.approx(insertion_gains(standard_audiogram("N2"), "half-gain")["gain_db"])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"kind": "liner"}, "Did you mean 'linear'"),
        ({"gain_db": 1.0}, "kind = None is no hearing aid"),
        ({"kind": "gain", "gain": 1.0}, "Did you mean 'gain_db'"),
        ({"kind": "gain", "gain_db": "loud"}, "The aid 'gain'"),
        ({"kind": "gain", "fs": 8000.0}, "has no 'fs'"),
        ({"kind": "linear", "prescription": "NAL-R"}, "needs an audiogram"),
        ({"stages": []}, "at least one aid"),
        ({"stages": [{"kind": "gain"}, {"kind": "gian"}]}, "Did you mean 'gain'"),
        ({"stages": ["gain"]}, "An aid is a table"),
        ("gain", "An aid is a table"),
    ],
)
def test_wrong_tables_are_named(table: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        make_aid(table, FS)


@pytest.mark.parametrize(
    ("text", "message"), [("kind = ", "not valid TOML"), ('kind = "x"', "no hearing aid"), (None, "cannot be read")]
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "aid.toml"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match=message) as error:
        load_aid(file, FS)
    assert str(error.value).startswith(str(file))


def test_stages_of_another_rate_are_refused() -> None:
    with pytest.raises(SpecError, match="the chain for 16000 Hz"):
        Chain(FS, [make_aid({"kind": "gain"}, 8000.0)])
