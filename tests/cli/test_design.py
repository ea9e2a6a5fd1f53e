"""psysim design as a user calls it: tables, files, and what wrong calls say."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from psysim.cli.design import _settings
from psysim.cli.main import app
from psysim.procedures import PsychometricFunction, UpDown, simulate_design

EXPERIMENT = """
title = "Simulated listener"
[stimulus]
kind = "am_noise"
level_db_spl = 65.0
duration_s = 0.05
ramp_s = 0.01
[task]
kind = "afc"
n_intervals = 2
[conditions]
rate_hz = [32]
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
fs = 8000
[profiles.slow]
"procedure.n_down" = 3
"""
LISTENER = ("--threshold", "-20", "--slope", "0.05")
QUICK = (*LISTENER, "--tracks", "200")
THREE = "up_down: n_down=3 steps=[4,2,1]"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("experiment.toml").write_text(EXPERIMENT)


def call(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["design", *(str(a) for a in arguments)])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.output


def table(out: str) -> list[dict[str, str]]:
    lines = [line.split("\t") for line in out.splitlines() if "\t" in line]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]


def test_the_table_shows_what_the_library_finds() -> None:
    out = call("--rule", THREE, *QUICK, "--set", "level_start=-8", "--unit", "dB", "--seed", 4)
    rule = UpDown(n_down=3, steps=[4.0, 2.0, 1.0], level_start=-8.0)
    found = simulate_design(rule, PsychometricFunction(-20.0, 0.05, 1 / 3), n_tracks=200, seed=4)
    (row,) = table(out)
    assert row["rule"] == THREE
    assert float(row["target"]) == pytest.approx(0.7937, abs=1e-4)
    assert float(row["level of target (dB)"]) == pytest.approx(found.level_target, abs=0.01)
    assert float(row["bias (dB)"]) == pytest.approx(found.bias, abs=6e-4)
    assert float(row["± SE"]) == pytest.approx(found.bias_sem, abs=6e-4)
    assert float(row["SD (dB)"]) == pytest.approx(found.std, abs=6e-4)
    assert float(row["RMSE (dB)"]) == pytest.approx(found.rmse, abs=6e-4)
    assert float(row["trials"]) == pytest.approx(found.mean_trials, abs=0.06)
    assert row["10-90 %"] == f"{found.trials_percentile(10):.0f}-{found.trials_percentile(90):.0f}"
    assert row["not converged"] == "0 %"
    assert "slope 0.05 per dB" in out
    assert "not given" not in out


def test_rules_side_by_side_and_what_was_filled_in() -> None:
    out = call("--rule", THREE, "--rule", "weighted_up_down: steps = [2, 1], target_proportion = 0.75", *QUICK)
    assert [row["target"] for row in table(out)] == ["0.7937", "0.75"]
    start = re.search(r"level_start = (\S+) \(not given", out)
    assert start is not None
    listener = PsychometricFunction(-20.0, 0.05, 1 / 3)
    assert listener(float(start[1])) == pytest.approx(1 / 3 + 0.95 * 2 / 3, abs=1e-3)
    limited = call("--rule", THREE, "--rule", f"{THREE} level_max=-15", *QUICK)
    assert "level_start = -15 (not given" in limited
    assert f"for {THREE} level_max=-15" in limited


def test_other_kinds_of_rules_take_their_guess_rate_from_the_task() -> None:
    quest = "quest: level_min=-60 level_max=10 level_step=2 threshold_prior_mean=-15 threshold_prior_sd=15 n_trials=20"
    out = call("--rule", quest, "--rule", "pest: step_start=8 step_min=2", *LISTENER, "--tracks", 30, "--task", "4afc")
    assert "guess_rate = 0.25 (not given: that of the task)" in out
    assert [row["tracks"] for row in table(out)] == ["30", "30"]


def test_a_slope_below_zero_turns_the_rule() -> None:
    up = table(call("--rule", THREE, "--threshold", 20, "--slope", -0.05, "--tracks", 300))[0]
    down = table(call("--rule", THREE, *LISTENER, "--tracks", 300))[0]
    assert float(up["bias"]) == pytest.approx(-float(down["bias"]), abs=2e-3)
    assert up["SD"] == down["SD"]


def test_shares_of_tracks_that_do_not_converge() -> None:
    row = table(call("--rule", f"{THREE} max_trials=50 level_max=-15", *QUICK))[0]
    assert re.search(r"max_trials \d+\.\d\d %", row["not converged"])
    every = table(call("--rule", f"{THREE} max_trials=9", *QUICK))[0]
    assert every["not converged"] == "max_trials 100.00 %"
    assert every["SD"] == "nan"


def test_rule_and_task_of_an_experiment() -> None:
    out = call("experiment.toml", *QUICK)
    (row,) = table(out)
    found = simulate_design(
        UpDown(level_start=-3.0, steps=[4.0, 2.0], n_reversals=4, level_max=0.0),
        PsychometricFunction(-20.0, 0.05, 0.5),
        n_tracks=200,
    )
    assert row["rule"] == "up_down (experiment)"
    assert "guess rate 0.5" in out
    assert float(row["bias (dB)"]) == pytest.approx(found.bias, abs=6e-4)
    assert float(row["trials"]) == pytest.approx(found.mean_trials, abs=0.06)
    both = table(
        call("experiment.toml", "--profile", "slow", "--rule", THREE, *QUICK, "--set", "procedure.n_reversals=6")
    )
    assert [row["target"] for row in both] == ["0.7937", "0.7937"]
    assert both[0]["trials"] != both[1]["trials"]  # other steps, the same start and limits


def test_steps_in_db_are_judged_in_db() -> None:
    settings = ["--shape", "log_logistic", "--threshold", 0.1, "--slope", 4, "--unit", "s", "--tracks", 200]
    rule = "up_down: n_down=2 steps=[4,2] step_unit=db"
    (row,) = table(call("--rule", rule, *settings))
    assert {"level of target (s)", "bias (dB)", "SD (dB)"} <= set(row)
    assert "two calls" in call("--rule", rule, "--rule", "up_down: steps=[0.01]", *settings, code=2)


def test_json_holds_the_numbers() -> None:
    call("--rule", f"{THREE} max_trials=9", "--rule", THREE, *QUICK, "--json", "out.json")
    content = json.loads(Path("out.json").read_text())
    none, some = content["rules"]
    assert none["std"] is None
    assert none["shares"] == {"max_trials": 1.0}
    assert some["shares"] == {"converged": 1.0}
    assert np.hypot(some["bias"], some["std"]) == pytest.approx(some["rmse"], rel=0.01)
    assert some["settings"]["steps"] == [4.0, 2.0, 1.0]
    assert content["listener"]["slope"] == 0.05


@pytest.mark.parametrize(("name", "start"), [("f.png", b"\x89PNG"), ("f.svg", b"<?xml"), ("f.pdf", b"%PDF")])
def test_figures_are_files_of_their_kind(name: str, start: bytes) -> None:
    call("--rule", THREE, *QUICK, "--figure", name)
    first = Path(name).read_bytes()
    assert first.startswith(start)
    call("--rule", THREE, *QUICK, "--figure", name)
    assert Path(name).read_bytes() == first


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("", {}),
        (" n_down=3", {"n_down": 3}),
        ("n_down=3,steps=[4, 2],stop=trials", {"n_down": 3, "steps": [4, 2], "stop": "trials"}),
        ("rules=[{kind='up_down', n_down=2}] seed=1", {"rules": [{"kind": "up_down", "n_down": 2}], "seed": 1}),
        ("steps = [4.0,2]  even_reversals=false", {"steps": [4.0, 2], "even_reversals": False}),
        ("level_min=-inf tracks='depth db'", {"level_min": -np.inf, "tracks": "depth db"}),
        (
            "threshold={min=-50.0, max=20.0, n=71} n_down=2",
            {"threshold": {"min": -50.0, "max": 20.0, "n": 71}, "n_down": 2},
        ),
    ],
)
def test_settings_as_text(text: str, settings: dict) -> None:
    assert _settings(text, "--rule x") == settings


def test_the_example_of_the_help_runs() -> None:
    out = " ".join(call("--help").split())
    example = re.search(r"psysim design (--rule .*? --task 3afc)", out)
    assert example is not None
    assert len(table(call(*shlex.split(example[1]), "--tracks", 50))) == 1


@pytest.mark.parametrize(
    ("arguments", "snippet"),
    [
        ([], "Name an experiment file or a rule"),
        (["--rule", THREE, "--slope", "0.1"], "--threshold is missing"),
        (["--rule", THREE, "--threshold", "-20"], "--slope is missing"),
        (["--rule", "up_dwn: steps=[4]", *LISTENER], "Did you mean 'up_down'?"),
        (["--rule", "up_down: n_dwn=3 steps=[4]", *LISTENER], "Did you mean 'n_down'?"),
        (["--rule", "up_down: 3", *LISTENER], "give key=value"),
        (["--rule", "up_down", *LISTENER], "procedure.steps is missing"),
        (["--rule", THREE, "--rule", THREE, *LISTENER], "given twice"),
        (["--rule", THREE, *LISTENER, "--set", "stepz=[1]"], "Did you mean 'steps'?"),
        (["--rule", THREE, *LISTENER, "--set", "steps"], "give key=value"),
        (["--rule", THREE, *LISTENER, "--task", "3-afc"], "Did you mean '3afc'?"),
        (["--rule", THREE, *LISTENER, "--task", "1afc"], "n_intervals"),
        (["--rule", THREE, *LISTENER, "--shape", "logistics"], "Did you mean 'logistic'?"),
        (["--rule", THREE, "--threshold", "-20", "--slope", "0"], "must be finite and not 0"),
        (["--rule", THREE, "--threshold", "nan", "--slope", "1"], "finite"),
        (["--rule", THREE, *LISTENER, "--lapse-rate", "0.9"], "sum below 1"),
        (["--rule", THREE, *LISTENER, "--lapse-rate", "0.3"], "never reaches"),
        (["--rule", "up_down: n_down=1 steps=[4]", *LISTENER, "--task", "2afc"], "never reaches"),
        (["--rule", THREE, *LISTENER, "--tracks", "1"], "--tracks = 1 is out of range"),
        (["--rule", THREE, *LISTENER, "--seed", "-1"], "--seed = -1"),
        (["--rule", THREE, *LISTENER, "--tracks", "many"], "Invalid value for '--tracks'"),
        (["--rule", THREE, *LISTENER, "--figure", "f.jpg"], "'.png'"),
        (["--rule", THREE, *QUICK, "--json", "nowhere/f.json"], "nowhere/f.json cannot be written"),
        (["--rule", THREE, *LISTENER, "--profile", "slow"], "profiles belong to an experiment file"),
        (["nothing.toml", *LISTENER], "nothing.toml"),
        (["experiment.toml", *LISTENER, "--profile", "slwo"], "Profiles of this file: slow"),
    ],
)  # fmt: skip
def test_wrong_calls(arguments: list[str], snippet: str) -> None:
    out = call(*arguments, code=2)
    assert snippet in out
    assert "\t" not in out.splitlines()[-1]
