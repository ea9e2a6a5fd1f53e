"""``psysim train`` as a user calls it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from psysim.cli.main import app

RECIPE = """
title = "Tones"
fs = 4000
layers = [{ type = "flatten" }]
[stimulus]
kind = "tone"
duration_s = 0.05
ramp_s = 0.005
[vary]
frequency_hz = { low = 200.0, high = 1600.0, scale = "log" }
[heads.frequency]
kind = "value"
parameter = "frequency_hz"
n_classes = 4
[nerve]
limit_hz = 300
fs_out = 1000
num_cf = 6
max_cf = 1900
[training]
batch = 8
n_steps = 10
validate_every = 5
n_validation = 8
n_test = 16
"""


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["train", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_a_recipe_becomes_a_network(tmp_path: Path) -> None:
    (tmp_path / "tones.toml").write_text(RECIPE)
    code, text = run(tmp_path / "tones.toml", "--out", tmp_path / "out")
    assert code == 0
    assert "step 5: validation loss" in text
    assert "frequency: " in text
    assert "correct of 16 test sounds" in text
    assert (tmp_path / "out" / "model.safetensors").is_file()
    code, text = run(tmp_path / "tones.toml", "--out", tmp_path / "out", "--resume")
    assert code == 0
    assert "step 5" not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing.toml", "--out", "x"), "nothing.toml: cannot be read"),
        (("tone_in_nose", "--out", "x"), "tone_in_nose: cannot be read"),
        (("tones.toml", "--out", "x", "--device", "gpu"), "--device"),
    ],
)
def test_wrong_input_is_one_sentence(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from psysim.errors import SpecError

    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["train", *arguments])
    text = str(result.exception) if isinstance(result.exception, SpecError) else result.output
    assert message in text
    assert not (tmp_path / "x").exists()
