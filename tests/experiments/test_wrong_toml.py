"""Wrong experiment files: each mistake gives one screen that names file, key and remedy, and exit code 2."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from psysim.cli.main import app
from psysim.experiments import SpecProblems, loads

VALID = """
title = "AM detection"
human = ["tmtf_parameters"]

[stimulus]
kind = "am_noise"
level_db_spl = 70.0
duration_s = 0.1
ramp_s = 0.02

[conditions]
rate_hz = [4, 16]

[task]
kind = "afc"
n_intervals = 3

[procedure]
kind = "up_down"
tracks = "depth_db"
n_up = 1
n_down = 2
level_start = -4.0
steps = [4.0, 2.0, 1.0]
n_reversals = 8
max_trials = 200

[[observers]]
model = "dau1997"
decision = "optimal_detector"

[run]
n_tracks = 2
seed = 1
fs = 16000

[profiles.quick]
"run.n_tracks" = 1
"""

# name: (text to replace, replacement, key that must be named, remedy that must be named)
ABOVE = "[stimulus]\nkind"
MISTAKES = {
    # how to compare
    "comparison key": (ABOVE, f"[comparison]\nsmae = {{}}\n{ABOVE}", "comparison.smae", "'same'"),
    "comparison not a table": (
        ABOVE,
        f'[comparison]\nwhere = "rate_hz"\n{ABOVE}',
        "comparison.where",
        "frequency_hz = 500",
    ),
    "comparison human factor": (
        ABOVE,
        f"[comparison]\nsame = {{ rat_hz = 'rate_hz' }}\n{ABOVE}",
        "comparison.same.rat_hz",
        "'rate_hz'",
    ),
    "comparison own factor": (
        ABOVE,
        f"[comparison]\nsame = {{ rate_hz = 'rte_hz' }}\n{ABOVE}",
        "comparison.same.rate_hz",
        "'rate_hz'",
    ),
    "comparison where": (
        ABOVE,
        f"[comparison]\nwhere = {{ rat_hz = 4 }}\n{ABOVE}",
        "comparison.where.rat_hz",
        "'rate_hz'",
    ),
    "comparison reference no condition": (
        ABOVE,
        f"[comparison]\nrelative_to = {{ rat_hz = 4 }}\n{ABOVE}",
        "comparison.relative_to.rat_hz",
        "'rate_hz'",
    ),
    "comparison reference not there": (
        ABOVE,
        f"[comparison]\nrelative_to = {{ rate_hz = 5 }}\n{ABOVE}",
        "comparison.relative_to",
        "no condition",
    ),
    # observers
    "fitted to data that are not there": (
        'decision = "optimal_detector"',
        'decision = "optimal_detector"\nfitted_to = ["tmtf_parametres"]',
        "observers[0].fitted_to",
        "'tmtf_parameters'",
    ),
    "fitted to no list": (
        'decision = "optimal_detector"',
        'decision = "optimal_detector"\nfitted_to = "tmtf_parameters"',
        "observers[0].fitted_to",
        "must be a list",
    ),
    # misspelt keys
    "misspelt table": ("[procedure]", "[proceedure]", "proceedure", "'procedure'"),
    "misspelt stimulus key": ("level_db_spl = 70.0", "levl_db_spl = 70.0", "stimulus.levl_db_spl", "'level_db_spl'"),
    "misspelt procedure key": ("n_down = 2", "n_dwon = 2", "procedure.n_dwon", "'n_down'"),
    "misspelt run key": ("n_tracks = 2\n", "ntracks = 2\n", "run.ntracks", "'n_tracks'"),
    "misspelt task key": ("n_intervals = 3", "n_interval = 3", "task.n_interval", "'n_intervals'"),
    "misspelt condition": ("rate_hz = [4, 16]", "rates_hz = [4, 16]", "conditions.rates_hz", "'rate_hz'"),
    "misspelt observer key": (
        'decision = "optimal_detector"',
        'decision = "optimal_detector"\ntemplate_levl = -6',
        "observers[0].template_levl",
        "'template_level'",
    ),
    "misspelt model option": (
        'decision = "optimal_detector"',
        'decision = "optimal_detector"\nmodel_options = { flwo = 100.0 }',
        "observers[0].model_options.flwo",
        "'flow'",
    ),
    "misspelt inner model option": (
        'decision = "optimal_detector"',
        'decision = "optimal_detector"\nmodel_options = { modulation_kwargs = { prest = "dau1997" } }',
        "observers[0].model_options",
        "preset",
    ),
    # wrong units
    "milliseconds": ("duration_s = 0.1", "duration_ms = 100", "stimulus.duration_ms", "'duration_s'"),
    "kilohertz": ("rate_hz = [4, 16]", "rate_khz = [0.004]", "conditions.rate_khz", "'rate_hz'"),
    "level without reference": ("level_db_spl = 70.0", "level_db = 70.0", "stimulus.level_db", "'level_db_spl'"),
    "sampling rate given in kHz": ("fs = 16000", "fs = 16.0", "run.fs", "in Hz"),
    "sampling rate in kHz": ("fs = 16000", "fs_khz = 16", "run.fs_khz", "'fs'"),
    # impossible ranges
    "level in pascal squared": ("level_db_spl = 70.0", "level_db_spl = 7000.0", "stimulus.level_db_spl", "less than"),
    "negative duration": ("duration_s = 0.1", "duration_s = -0.1", "stimulus.duration_s", "greater than"),
    "positive depth": ("level_start = -4.0", "level_start = 4.0", "procedure.level_start", "physical limits"),
    "ramps longer than the sound": ("ramp_s = 0.02", "ramp_s = 0.2", "stimulus", "ramp"),
    "ascending steps": ("[4.0, 2.0, 1.0]", "[1.0, 2.0, 4.0]", "procedure", "largest"),
    "no steps": ("[4.0, 2.0, 1.0]", "[]", "procedure", "steps"),
    "no tracks": ("n_tracks = 2\n", "n_tracks = 0\n", "run.n_tracks", "greater than"),
    "one interval": ("n_intervals = 3", "n_intervals = 1", "task.n_intervals", "greater than"),
    "limits exchanged": (
        "level_start = -4.0",
        "level_start = -4.0\nlevel_min = -2.0\nlevel_max = -20.0",
        "procedure",
        "level_min",
    ),
    "negative seed": ("seed = 1", "seed = -1", "run.seed", "greater than"),
    "channel above Nyquist": (
        'decision = "optimal_detector"',
        'decision = "optimal_detector"\nmodel_options = { flow = 9000.0, fhigh = 9000.0 }',
        "observers[0].model_options",
        "fs",
    ),
    "aliased modulation filters": (
        'decision = "optimal_detector"',
        'decision = "optimal_detector"\nmodel_options = { subfs = 1000.0 }',
        "observers[0].model_options",
        "raise subfs",
    ),
    # unknown names
    "unknown stimulus": ('kind = "am_noise"', 'kind = "am_noize"', "stimulus.kind", "'am_noise'"),
    "unknown model": ('model = "dau1997"', 'model = "dau1979"', "observers[0].model", "'dau1997'"),
    "unknown decision": ('"optimal_detector"', '"optimal_detectr"', "observers[0].decision", "'optimal_detector'"),
    "unknown procedure": ('kind = "up_down"', 'kind = "updown"', "procedure.kind", "'up_down'"),
    "unknown tracked variable": ('tracks = "depth_db"', 'tracks = "depth_dB"', "procedure.tracks", "'depth_db'"),
    "unknown human data": ('["tmtf_parameters"]', '["tmtf_parameter"]', "human[0]", "'tmtf_parameters'"),
    "unknown task": ('kind = "afc"', 'kind = "3afc"', "task.kind", "'afc'"),
    # missing things
    "missing title": ('title = "AM detection"', "", "title", "missing"),
    "missing steps": ("steps = [4.0, 2.0, 1.0]", "", "procedure.steps", "missing"),
    "missing decision": ('decision = "optimal_detector"', "", "observers[0].decision", "optimal_detector"),
    "missing model": ('model = "dau1997"', "", "observers[0].model", "dau1997"),
    "missing tracked variable": ('tracks = "depth_db"', "", "procedure.tracks", "depth_db"),
    # wrong types
    "text for a number": ("level_db_spl = 70.0", 'level_db_spl = "loud"', "stimulus.level_db_spl", "number"),
    "number for a list": ("rate_hz = [4, 16]", "rate_hz = 4", "conditions.rate_hz", "list"),
    "fraction of a track": ("n_tracks = 2\n", "n_tracks = 2.5\n", "run.n_tracks", "integer"),
    "observer as a plain table": ("[[observers]]", "[observers]", "observers", "[[observers]]"),
    "value twice": ("rate_hz = [4, 16]", "rate_hz = [4, 4]", "conditions.rate_hz", "twice"),
    "empty list": ("rate_hz = [4, 16]", "rate_hz = []", "conditions.rate_hz", "one or more"),
    "tracked variable as condition": (
        "rate_hz = [4, 16]",
        "rate_hz = [4, 16]\ndepth_db = [-6]",
        "conditions.depth_db",
        "tracked",
    ),
    "tracked variable in the stimulus": (
        "duration_s = 0.1",
        "duration_s = 0.1\ndepth_db = -6",
        "stimulus.depth_db",
        "tracked",
    ),
    "given twice": ("duration_s = 0.1", "duration_s = 0.1\nrate_hz = 8", "stimulus.rate_hz", "conditions"),
}


def _wrong(name: str) -> str:
    old, new, _, _ = MISTAKES[name]
    assert old in VALID
    return VALID.replace(old, new)


def test_the_valid_file_is_valid() -> None:
    assert loads(VALID).n_lanes == 4


def test_there_are_at_least_thirty_kinds() -> None:
    assert len(MISTAKES) >= 30


@pytest.mark.parametrize("name", MISTAKES)
def test_one_screen_names_file_key_and_remedy(name: str, tmp_path) -> None:
    file = tmp_path / "experiment.toml"
    file.write_text(_wrong(name))
    result = CliRunner().invoke(app, ["check", str(file)])
    assert result.exit_code == 2
    text = result.output
    _, _, key, remedy = MISTAKES[name]
    assert str(file) in text
    assert f"- {key}" in text, text
    assert remedy in text, text
    assert "Traceback" not in text
    assert len(text.splitlines()) <= 15, text


@pytest.mark.parametrize(
    ("content", "snippet"),
    [
        (None, "no such file"),
        ("title = AM detection\n", "not valid TOML"),
        ("title = 'x'\ntitle = 'y'\n", "not valid TOML"),
    ],
    ids=["missing file", "no quotes", "key twice"],
)
def test_unreadable_files(content: str | None, snippet: str, tmp_path) -> None:
    file = tmp_path / "experiment.toml"
    if content is not None:
        file.write_text(content)
    result = CliRunner().invoke(app, ["run", str(file)])
    assert result.exit_code == 2
    assert str(file) in result.output
    assert snippet in result.output
    assert "Traceback" not in result.output


def test_a_near_file_name_is_suggested(tmp_path) -> None:
    (tmp_path / "tmtf.toml").write_text(VALID)
    result = CliRunner().invoke(app, ["run", str(tmp_path / "tmft.toml")])
    assert result.exit_code == 2
    assert f"Did you mean '{tmp_path / 'tmtf.toml'}'" in result.output


def test_all_mistakes_are_reported_together() -> None:
    text = VALID
    for name in ("misspelt stimulus key", "no tracks", "unknown model", "misspelt procedure key", "unknown human data"):
        old, new, _, _ = MISTAKES[name]
        text = text.replace(old, new)
    with pytest.raises(SpecProblems) as caught:
        loads(text, source="experiment.toml")
    keys = {problem.key for problem in caught.value.problems}
    expected = {"stimulus.levl_db_spl", "run.n_tracks", "observers[0].model", "procedure.n_dwon", "human[0]"}
    assert expected <= keys


@pytest.mark.parametrize(
    ("override", "snippet"),
    [
        ("run.n_tracks", "key=value"),
        ("run.n_trakcs=3", "n_tracks"),
        ("observers.3.model=dau1997", "index from 0 to 0"),
        ("title.deep.er=1", "not inside a table"),
    ],
)
def test_wrong_overrides(override: str, snippet: str, tmp_path) -> None:
    file = tmp_path / "experiment.toml"
    file.write_text(VALID)
    result = CliRunner().invoke(app, ["check", str(file), "--set", override])
    assert result.exit_code == 2
    assert snippet in result.output


def test_profiles() -> None:
    assert loads(VALID, profile="quick").run.n_tracks == 1
    with pytest.raises(ValueError, match=re.escape("Profiles of this file: quick. Did you mean 'quick'?")):
        loads(VALID, profile="quik")


def test_spec_round_trip() -> None:
    spec = loads(VALID, overrides={"run.n_tracks": 7})
    again = loads(spec.to_toml())
    assert again.to_toml() == spec.to_toml()
    assert again.run.n_tracks == 7
