"""The commands suite and compare as a user calls them."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner

from psysim.cli.main import app

EXPERIMENT = """
title = "Simulated listener"
human = ["tmtf_parameters"]
[stimulus]
kind = "am_noise"
level_db_spl = 65.0
duration_s = 0.05
ramp_s = 0.01
[conditions]
rate_hz = [32, 64, 128]
[procedure]
tracks = "depth_db"
level_start = -3.0
steps = [4.0, 2.0]
n_reversals = 4
[[observers]]
decision = "simulated_listener"
threshold = -20.0
slope = 0.1
[run]
n_tracks = 4
seed = {seed}
fs = 8000
[profiles.quick]
"run.n_tracks" = 2
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PSYSIM_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PSYSIM_CACHE_DIR", str(tmp_path / "cache"))
    for seed in (1, 2):
        (tmp_path / f"e{seed}.toml").write_text(EXPERIMENT.format(seed=seed))
    return [tmp_path / "e1.toml", tmp_path / "e2.toml"]


def call(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.output


def test_suite_makes_reports_and_a_scoreboard(files: list[Path]) -> None:
    files = files[:1]
    output = call("suite", *files, "--profile", "quick", "--out", "out")
    assert "Total time" in output
    page = Path("out/scoreboard.html").read_text()
    assert 'href="reports/e1.html"' in page
    assert Path("out/reports/e1.html").is_file()
    assert "--resume" in call("suite", *files, "--profile", "quick", "--out", "out", code=2)
    call("suite", *files, "--profile", "quick", "--out", "out", "--resume")
    assert Path("out/scoreboard.html").read_text() == page


def test_plan_runs_nothing(files: list[Path]) -> None:
    output = call("suite", *files, "--plan", "--out", "out")
    assert output.splitlines()[1].split("\t") == ["e1", "3", "simulated_listener", "12", "tmtf_parameters"]
    assert not Path("out").exists()


def test_a_missing_profile_is_named(files: list[Path]) -> None:
    assert "Did you mean 'quick'" in call("suite", *files, "--profile", "quik", code=2)


def test_ctrl_c_is_kept_and_resumed(files: list[Path]) -> None:
    """In a process of its own: the interruption comes from outside, at any place."""
    arguments = ["suite", *map(str, files), "--set", "run.n_tracks=400", "--set", "engine.batch=1", "--out", "out"]
    code = f"import sys; sys.argv = ['psysim', *{arguments!r}]\nfrom psysim.cli.main import main\nmain()"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list(Path().glob("out/*.partial/*")):
        time.sleep(0.02)
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "--resume" in errors


def test_compare_prints_rows_and_the_matrix(files: list[Path]) -> None:
    call("suite", *files, "--profile", "quick", "--out", "out", "--no-reports")
    assert not Path("out/reports").exists()
    rows = [line.split("\t") for line in call("compare", "out/e1.zarr", "out/e2.zarr").splitlines()]
    assert rows[0][:4] == ["experiment", "observer", "label", "n_points"]
    assert [row[0] for row in rows[1:]] == ["e1", "e2"]
    table = call("compare", "out/e1.zarr", "out/e2.zarr", "--table", "--csv", "matrix.csv")
    head, line = (text.split("\t") for text in table.splitlines()[:2])
    assert head == ["observer", "e1: Morimoto et al. 2019 (fit)", "e2: Morimoto et al. 2019 (fit)"]
    with Path("matrix.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row[head[1]]) == pytest.approx(float(line[1]), abs=6e-4)


def test_compare_takes_other_data_and_refuses_what_makes_no_sense(files: list[Path]) -> None:
    call("suite", files[0], "--profile", "quick", "--out", "out", "--no-reports")
    result = Path("out/e1.zarr")
    other = call("compare", result, "--data", "psylab_sam_example").splitlines()
    assert other[0].split("\t")[:3] == ["experiment", "observer", "label"]
    assert "carrier_hz" in other[1]  # the noise of the run has none: said in the note
    assert "Did you mean" in call("compare", result, "--data", "psylab_sam_exampel", code=2)
    assert "no such result" in call("compare", "out/e3.zarr", code=2)
    assert "Did you mean 'rmse'" in call("compare", result, "--table", "--value", "rsme", code=2)
    assert "exclude each other" in call("compare", result, "--table", "--data", "tmtf_parameters", code=2)
    call("compare", result, "--csv", "a.csv")
    assert "there already" in call("compare", result, "--csv", "a.csv", code=2)
