"""The commands as a user calls them: output, exit codes, no tracebacks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from psysim.cli.main import app
from psysim.experiments import engine
from psysim.results import store

EXPERIMENT = """
title = "Simulated listener"
human = ["tmtf_parameters"]
[stimulus]
kind = "am_noise"
level_db_spl = 65.0
duration_s = 0.05
ramp_s = 0.01
[conditions]
rate_hz = [32, 64]
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
seed = 3
fs = 8000
[profiles.quick]
"run.n_tracks" = 2
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PSYSIM_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PSYSIM_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "experiment.toml"
    path.write_text(EXPERIMENT)
    return path


def call(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.output


def test_help_imports_no_torch() -> None:
    for arguments in (["--help"], ["run", "--help"], ["design", "--help"], ["list", "--help"]):
        code = (
            f"import sys; sys.argv = ['psysim', *{arguments!r}]\n"
            "from psysim.cli.main import main\n"
            "try:\n    main()\nexcept SystemExit:\n    pass\n"
            "heavy = {'torch', 'numba', 'pandas', 'xarray', 'matplotlib', 'scipy'} & set(sys.modules)\n"
            "assert not heavy, heavy"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_run_report_info(file: Path) -> None:
    out = call("run", file)
    assert "Thresholds" in out
    result = Path("runs/experiment.zarr")
    assert store.state_of(result) == "complete"
    shown = call("info", result)
    assert "Simulated listener" in shown
    assert "complete" in shown
    page = call("report", result)
    assert "runs/experiment.html" in page
    assert "<html" in Path("runs/experiment.html").read_text()


def test_export(file: Path) -> None:
    call("run", file, "--tracks", 1)
    assert call("export", "runs/experiment.zarr", "all.nc").strip() == "all.nc"
    tables = call("export", "runs/experiment.zarr", "all.csv").split()
    assert all(Path(table).read_text().startswith("condition") for table in tables)
    assert "exists" in call("export", "runs/experiment.zarr", "all.nc", code=2)
    assert "'.nc'" in call("export", "runs/experiment.zarr", "all.xlsx", code=2)


def test_out_may_be_a_folder_or_a_name(file: Path) -> None:
    call("run", file, "--out", "elsewhere", "--tracks", 1)
    assert store.state_of("elsewhere/experiment.zarr") == "complete"
    call("run", file, "--out", "other/name.zarr", "--tracks", 1, "--seed", 7)
    assert json.loads(store.load("other/name.zarr").attrs["provenance"])["seed"] == 7


def test_an_existing_result_is_refused_and_resume_keeps_it(file: Path) -> None:
    call("run", file, "--profile", "quick")
    assert "another --out" in call("run", file, "--profile", "quick", code=2)
    assert "complete already" in call("run", file, "--profile", "quick", "--resume")
    assert "another experiment description" in call("run", file, "--resume", code=2)


@pytest.mark.parametrize("option", ["--plan", "--dry-run"])
def test_plan_runs_nothing(file: Path, option: str) -> None:
    out = call("run", file, option)
    assert "2 conditions x 1 observers x 4 tracks = 8 tracks" in out
    assert "Nothing was run" in out
    assert not Path("runs").exists()


def test_check(file: Path) -> None:
    assert "valid" in call("check", file)
    assert "2 tracks" in call("check", file, "--profile", "quick")


@pytest.mark.parametrize(
    ("what", "name"),
    [
        ("models", "dau1997"),
        ("stimuli", "am_noise"),
        ("procedures", "up_down"),
        ("observers", "optimal_detector"),
        ("human", "tmtf_parameters"),
    ],
)
def test_list(file: Path, what: str, name: str) -> None:
    assert name in call("list", what)


def test_list_experiments(file: Path) -> None:
    Path("experiments").mkdir()
    file.rename(Path("experiments") / file.name)
    assert "Simulated listener" in call("list", "experiments")


@pytest.mark.parametrize(
    ("arguments", "snippet"),
    [
        (["list", "modles"], "Did you mean 'models'?"),
        (["info", "runs/nothing.zarr"], "no such result"),
        (["report", "runs/nothing.zarr"], "no such result"),
        (["run", "experiment.toml", "--device", "gpu"], "'cuda'"),
        (["run", "experiment.toml", "--profile", "slow"], "quick"),
        (["run", "experiment.toml", "--nonsense"], "--nonsense"),
        (["human", "add", "nothing.csv"], "nothing.csv"),
        (["human", "add", "experiment.toml"], "experiment.toml"),
        (["report", "experiment.toml"], "not a psysim result"),
    ],
)
def test_wrong_calls(file: Path, arguments: list[str], snippet: str) -> None:
    assert snippet in call(*arguments, code=2)


def test_cuda_without_a_device_says_so(file: Path) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    assert "no CUDA device" in call("run", file, "--device", "cuda", code=2)


def test_calibrate(file: Path) -> None:
    text = EXPERIMENT.replace(
        'decision = "simulated_listener"\nthreshold = -20.0\nslope = 0.1',
        'model = "dau1997"\ndecision = "optimal_detector"\nmodel_options = { flow = 900.0, fhigh = 1100.0 }',
    )
    file.write_text(text.replace("fs = 8000", "fs = 16000"))
    out = call("calibrate", file)
    assert "calibrated" in out
    assert "1.000 dB" in out  # the level difference at 60 dB SPL that calibration is about


def test_doctor(file: Path) -> None:
    out = call("doctor")
    assert "Philox 4x32-10 as published" in out
    assert "NOT WORKING" not in out


def test_version() -> None:
    from psysim import __version__

    assert call("--version").strip() == f"psysim {__version__}"


def test_ctrl_c_keeps_every_trial_and_says_how_to_go_on(file: Path) -> None:
    file.write_text(EXPERIMENT.replace("n_tracks = 4", "n_tracks = 100000"))
    command = [sys.executable, "-m", "psysim", "run", str(file), "--set", "engine.batch=8"]
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs start with it ignored
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=os.environ, preexec_fn=heed
    )
    journal = Path("runs/experiment.zarr.partial/journal.bin")
    while process.poll() is None and not (journal.exists() and journal.stat().st_size > 5000):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    try:
        message = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == 130, message
    assert "--resume" in message
    assert "Traceback" not in message
    assert journal.stat().st_size > 5000
    assert "not complete" in call("info", "runs/experiment.zarr")


def test_ctrl_c_is_heard_although_compiled_code_loses_the_exception(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, steps, before = engine.run, [], signal.getsignal(signal.SIGINT)

    def lossy(*arguments: Any, progress: Callable[[Any], None], **options: Any) -> Any:
        def step(state: Any) -> None:
            steps.append(state)
            if len(steps) == 2:
                with suppress(KeyboardInterrupt):
                    signal.raise_signal(signal.SIGINT)
            progress(state)

        return run(*arguments, progress=step, **options)

    monkeypatch.setattr(engine, "run", lossy)
    assert "--resume" in call("run", str(file), code=130)
    assert len(steps) == 2
    assert signal.getsignal(signal.SIGINT) is before
