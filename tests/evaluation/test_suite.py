"""Suites: validation, running, and that an interruption changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from psysim.errors import SpecError, StoreError
from psysim.evaluation import load_suite, open_suite, run_suite
from psysim.reports import scoreboard_report
from psysim.results import load

EXPERIMENT = """
title = "{title}"
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
n_up = 1
n_down = {n_down}
level_start = -3.0
steps = [4.0, 2.0]
n_reversals = 4
[[observers]]
name = "easy"
decision = "simulated_listener"
threshold = -20.0
slope = 0.1
[[observers]]
name = "hard"
decision = "simulated_listener"
threshold = -15.0
slope = 0.1
[run]
n_tracks = 4
seed = 3
fs = 8000
[profiles.quick]
"run.n_tracks" = 2
"""

NO_TEMPLATE = """
title = "A template of an increment of 0 dB: target and reference are the same"
[stimulus]
kind = "tone"
duration_s = 0.05
ramp_s = 0.01
[procedure]
tracks = "level_increment_db"
level_start = 4.0
steps = [1.0]
n_reversals = 2
[[observers]]
model = "dau1997"
decision = "optimal_detector"
internal_noise_std = 1.0
template_level = 0.0
template_tokens = 1
[observers.model_options]
flow = 900.0
fhigh = 1100.0
[run]
n_tracks = 1
fs = 8000
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PSYSIM_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PSYSIM_CACHE_DIR", str(tmp_path / "cache"))
    for name, n_down in (("first", 2), ("second", 3)):
        (tmp_path / f"{name}.toml").write_text(EXPERIMENT.format(title=name, n_down=n_down))
    return tmp_path


def suite_file(folder: Path, text: str) -> Path:
    path = folder / "suite.toml"
    path.write_text(text)
    return path


def test_experiment_files_are_a_suite(folder: Path) -> None:
    suite = load_suite([folder / "first.toml", folder / "second.toml"], profile="quick", overrides=["run.seed=5"])
    assert list(suite.experiments) == ["first", "second"]
    assert [spec.run.n_tracks for spec in suite.experiments.values()] == [2, 2]
    assert [spec.run.seed for spec in suite.experiments.values()] == [5, 5]


def test_a_suite_file_names_experiments_settings_and_observers(folder: Path) -> None:
    text = """
title = "Two"
profile = "quick"
experiments = ["first.toml", {file = "second.toml", set = {"run.n_tracks" = 3}, observers = ["ha*"]}]
[[observers]]
name = "added"
decision = "simulated_listener"
threshold = -10.0
slope = 0.1
experiments = ["sec*"]
"""
    suite = load_suite(suite_file(folder, text))
    first, second = suite.experiments.values()
    assert [o.name for o in first.observers] == ["easy", "hard"]
    assert [o.name for o in second.observers] == ["hard", "added"]
    assert second.run.n_tracks == 3
    assert (
        load_suite(suite_file(folder, "own_observers = false\n" + text.replace('"sec*"', '"*"')))
        .experiments["first"]
        .observers[0]
        .name
        == "added"
    )


def test_the_answer_rule_of_casp_follows_the_procedure(folder: Path) -> None:
    text = """
own_observers = false
experiments = ["first.toml", "second.toml"]
[[observers]]
model = "paulick2024"
decision = "casp"
"""
    suite = load_suite(suite_file(folder, text), overrides={"run.fs": 44100})
    assert [spec.observers[0].settings["n_down"] for spec in suite.experiments.values()] == [2, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("experiments = []", "experiments"),
        ('experiment = ["first.toml"]\nexperiments = ["first.toml"]', "Did you mean 'experiments'"),
        ('experiments = ["frist.toml"]', "Did you mean .*first.toml"),
        ('experiments = ["first.toml", "./first.toml"]', "two experiments are named 'first'"),
        ('experiments = [{file = "first.toml", observers = ["eazy"]}]', "Did you mean 'easy'"),
        ('experiments = ["first.toml"]\nprofile = "quik"', "Did you mean 'quick'"),
        ('experiments = ["first.toml"]\nown_observers = false', "no observer left"),
        ('experiments = ["first.toml"]\n[[observers]]\nname = "x"\nexperiments = ["z*"]', "fits none"),
    ],
)
def test_mistakes_are_found_before_anything_runs(folder: Path, text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load_suite(suite_file(folder, text))


def test_no_file_at_all() -> None:
    with pytest.raises(SpecError, match="at least one"):
        load_suite([])


def test_results_are_those_of_single_runs(folder: Path) -> None:
    import psysim

    done = run_suite(load_suite([folder / "first.toml", folder / "second.toml"]), folder / "out")
    assert list(done.results) == ["first", "second"]
    assert not done.failures
    alone = psysim.run(psysim.load(folder / "second.toml"))
    np.testing.assert_array_equal(load(done.results["second"])["level"], alone["level"])
    assert list(open_suite(folder / "out").results) == ["first", "second"]


def scoreboard_bytes(folder: Path) -> dict[str, bytes]:
    """Return everything that a scoreboard is, by name."""
    page = scoreboard_report(open_suite(folder).load(), folder / "scoreboard.html")
    files = [page, *sorted((folder / "scoreboard_files").iterdir())]
    return {path.name: path.read_bytes() for path in files}


@pytest.mark.parametrize("stop_after", [1, 9, 40])
def test_an_interrupted_and_resumed_suite_gives_the_same_scoreboard(folder: Path, stop_after: int) -> None:
    suite = load_suite([folder / "first.toml", folder / "second.toml"])
    whole = run_suite(suite, folder / "whole")
    steps = 0

    def stop(name: str, progress: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == stop_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_suite(suite, folder / "part", progress=stop)
    assert open_suite(folder / "part").failures
    with pytest.raises(StoreError, match="--resume"):
        run_suite(suite, folder / "part")
    resumed = run_suite(suite, folder / "part", resume=True)
    assert list(resumed.results) == list(whole.results)
    assert scoreboard_bytes(folder / "part") == scoreboard_bytes(folder / "whole")


def test_an_experiment_that_fails_does_not_stop_the_others(folder: Path) -> None:
    (folder / "bad.toml").write_text(NO_TEMPLATE)
    done = run_suite(load_suite([folder / "bad.toml", folder / "second.toml"]), folder / "out")
    assert list(done.results) == ["second"]
    assert "there is no template" in done.failures["bad"]
    assert done.failures["bad"].startswith("CalibrationError")


def test_folders_of_others_are_left_alone(folder: Path) -> None:
    suite = load_suite([folder / "first.toml"])
    (folder / "mine").mkdir()
    (folder / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(StoreError, match="holds no suite"):
        run_suite(suite, folder / "mine")
    run_suite(suite, folder / "out")
    with pytest.raises(StoreError, match="another suite: first differ"):
        run_suite(load_suite([folder / "first.toml"], overrides=["run.seed=9"]), folder / "out", resume=True)
    with pytest.raises(StoreError, match="another suite: first differ"):
        run_suite(load_suite([folder / "second.toml"]), folder / "out", resume=True)
    with pytest.raises(StoreError, match="holds no suite"):
        open_suite(folder / "nowhere")


def test_experiments_can_be_added_to_a_suite(folder: Path) -> None:
    run_suite(load_suite([folder / "first.toml"]), folder / "out")
    before = (folder / "out" / "first.zarr" / "zarr.json").read_bytes()
    done = run_suite(load_suite([folder / "first.toml", folder / "second.toml"]), folder / "out", resume=True)
    assert list(done.results) == ["first", "second"]
    assert list(open_suite(folder / "out").results) == ["first", "second"]
    assert (folder / "out" / "first.zarr" / "zarr.json").read_bytes() == before
