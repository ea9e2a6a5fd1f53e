"""``psysim phaselocknet`` as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import xarray as xr
from typer.testing import CliRunner

from psysim.cli.main import app
from psysim.models import phaselocknet as pl

HEAD = "label_word_int"
LAYERS = [
    {"layer_type": "conv2d", "args": {"name": "conv", "filters": 4, "kernel_size": [2, 20], "strides": [1, 10]}},
    {"layer_type": "relu", "args": {"name": "relu"}},
    {"layer_type": "flatten", "args": {"name": "flat"}},
]


def config() -> dict:
    """A small model in the form of the published ones: 0.1 s at 20 kHz, six auditory channels, five words."""
    out = pl.published_config("word", 3000) | {"n_classes_dict": {HEAD: 5}}
    out["kwargs_cochlea"]["config_filterbank"]["num_cf"] = 6
    return out | {"psysim": {"n_samples": 2000, "size": [6, 1000]}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model and a folder of sounds with a manifest."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(config()))
    (model / "arch.json").write_text(json.dumps(LAYERS))
    (model / "labels.json").write_text(json.dumps({HEAD: list("abcde")}))
    conf = pl.Configuration.parse(config())
    network = pl.Network(pl.Architecture.parse(LAYERS, conf.input_shape, conf.n_classes), seed=1)
    pl.save_weights(network, model / "weights.safetensors")
    (tmp_path / "sounds").mkdir()
    rng = np.random.default_rng(1)
    for i in range(5):
        soundfile.write(tmp_path / "sounds" / f"s{i}.flac", 0.1 * rng.standard_normal(2000), 20000)
    lines = "\n".join(f"s{i}.flac,{'abcde'[i]}" for i in range(5))
    (tmp_path / "sounds" / "manifest.csv").write_text(f"file,{HEAD}\n{lines}")
    return tmp_path


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["phaselocknet", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_evaluate(folder: Path) -> None:
    out = folder / "out.zarr"
    arguments = ("evaluate", folder / "model", folder / "sounds", "--level-db-spl", 60, "--batch-size", 2, "--out", out)
    code, text = run(*arguments, "--device", "cpu", "--repeats", 2)
    assert code == 0, text
    assert f"{HEAD}: " in text
    assert f"Result: {out}" in text
    with xr.open_zarr(out) as ds:
        assert dict(ds.sizes) == {"stimulus": 5, "repeat": 2, f"class_{HEAD}": 5}
        assert bool(np.isfinite(ds[f"logits_{HEAD}"]).all())
        first = ds[f"logits_{HEAD}"].values
    code, text = run(*arguments)
    assert (code, "exists" in text) == (2, True)
    # The same from one file, and with the default device
    code, text = run("convert", folder / "model", folder / "one.safetensors")
    assert (code, text) == (0, f"Model: {folder / 'one.safetensors'}\n")
    code, text = run(
        "evaluate", folder / "one.safetensors", folder / "sounds", "--level-db-spl", 60, "--out", folder / "one.nc"
    )
    assert code == 0, text
    with xr.open_dataset(folder / "one.nc") as ds:
        np.testing.assert_allclose(ds[f"logits_{HEAD}"].values[:, 0], first[:, 0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--level-db-spl": None}, "exactly one of level_db_spl"),
        ({"--out": "out.csv"}, "ends in .zarr"),
        ({"--normalisation": "kears"}, "Did you mean 'keras'"),
        ({"--weights": "nothing.safetensors"}, "There is no weight file"),
        ({"--device": "gpu"}, "--device = 'gpu' is not known"),
        ({"--batch-size": 0}, "batch_size = 0 is out of range"),
    ],
)
def test_mistakes_are_user_errors(folder: Path, change: dict, message: str) -> None:
    options = {"--level-db-spl": 60, "--out": folder / "out.nc", "--device": "cpu"} | change
    given = [item for key, value in options.items() if value is not None for item in (key, value)]
    code, text = run("evaluate", folder / "model", folder / "sounds", *given)
    assert code == 2
    assert message in text
    assert "Traceback" not in text


def test_an_unknown_layer_is_a_user_error(folder: Path) -> None:
    (folder / "model" / "arch.json").write_text(json.dumps([{"layer_type": "relus", "args": {"name": "r"}}]))
    code, text = run("evaluate", folder / "model", folder / "sounds", "--level-db-spl", 60, "--out", folder / "o.nc")
    assert code == 2
    assert "arch.json: Layer 0 has the type 'relus', which is not known" in text


def test_an_interruption_can_be_resumed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from psysim.evaluation import networks

    arguments = ("evaluate", folder / "model", folder / "sounds", "--level-db-spl", 60, "--out", folder / "out.nc")
    arguments += ("--batch-size", 2, "--device", "cpu")
    present, calls = networks._present, []

    def interrupted(*args: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return present(*args)

    monkeypatch.setattr(networks, "_present", interrupted)
    code, text = run(*arguments)
    assert code == 130
    assert "continue with --resume" in text
    code, text = run(*arguments, "--resume")
    assert code == 0, text
    assert len(calls) == 2 + 2  # of three batches one was done


def test_help_loads_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys; from psysim.cli.main import app; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
