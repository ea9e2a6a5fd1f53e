"""Fitting one parameter: a value that is known is found, and what was left out is predicted."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from psysim import human
from psysim.cli.main import app
from psysim.errors import SpecError
from psysim.evaluation import fit_observer, load_suite
from psysim.experiments import load
from psysim.experiments.prediction import predict_threshold
from psysim.results import thresholds

EXPERIMENT = """
title = "AM of a tone at {level} dB SPL"
human = ["{human}"]
[stimulus]
kind = "am_tone"
carrier_hz = 1000.0
level_db_spl = {level}
duration_s = 0.2
ramp_s = 0.02
[conditions]
rate_hz = [10, 20, 40]
[procedure]
tracks = "depth_db"
n_up = 1
n_down = 2
level_start = -3.0
steps = [4.0, 2.0]
n_reversals = 4
[[observers]]
name = "one channel"
model = "dau1997"
decision = "optimal_detector"
internal_noise_std = 3.0
template_tokens = 1
[observers.model_options]
flow = 1000.0
fhigh = 1000.0
filterbank_kwargs = {{ basef = 1000.0 }}
[run]
n_tracks = 1
fs = 8000
"""
HEADER = "dataset,experiment,rate_hz,measure,value,unit,error,error_kind,listener_group,n_listeners,origin,note\n"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two experiments whose data are the thresholds of the observer itself with an internal noise of 3."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PSYSIM_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PSYSIM_CACHE_DIR", str(tmp_path / "cache"))
    paths = []
    for level in (50, 65):
        path = tmp_path / f"am{level}.toml"
        path.write_text(EXPERIMENT.format(level=level, human="tmtf_parameters"))
        found = thresholds(predict_threshold(load(path), n_tokens=3))
        text = HEADER
        for row in found.to_dict("records"):
            about = f"model{level},test,{row['rate_hz']},am_detection_threshold"
            text += f"{about},{row['threshold']},dB,,,NH,1,raw,\n"
        (tmp_path / f"model{level}.csv").write_text(text)
        human.add(tmp_path / f"model{level}.csv")
        path.write_text(EXPERIMENT.format(level=level, human=f"model{level}"))
        paths.append(path)
    return paths


def test_the_value_that_made_the_data_is_found_and_predicts_what_was_left_out(files: list[Path]) -> None:
    fit = fit_observer(load_suite(files), "one channel", "internal_noise_std", [1.0, 3.0, 9.0], n_tokens=3)
    assert fit.value == 3.0
    assert fit.fitted_to == ["model50", "model65"]
    assert fit.held_out["experiment"].tolist() == ["am50", "am65"]
    assert fit.held_out["value"].tolist() == [3.0, 3.0]
    assert fit.held_out["rmse"].tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
    errors = fit.errors.pivot_table(index="value", columns="experiment", values="error")
    assert (errors.loc[[1.0, 9.0]].to_numpy() > 1.0).all()  # worse than the mean of the data
    assert not fit.left_out


def test_the_command_prints_the_lines_for_an_experiment_file(files: list[Path]) -> None:
    arguments = ["--observer", "one channel", "--parameter", "internal_noise_std", "--low", "1", "--high", "9"]
    result = CliRunner().invoke(app, ["fit-observer", *map(str, files), *arguments, "--steps", "3", "--csv", "e.csv"])
    assert result.exit_code == 0, result.output
    assert 'internal_noise_std = 3\nfitted_to = ["model50", "model65"]' in result.output
    assert len(Path("e.csv").read_text().splitlines()) == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observer": "one chanel"}, "Did you mean 'one channel'"),
        ({"parameter": "internal_noise"}, "Did you mean 'internal_noise_std'"),
        ({"values": [1.0]}, "at least two different values"),
    ],
)
def test_mistakes_are_named(files: list[Path], change: dict, message: str) -> None:
    given = {"observer": "one channel", "parameter": "internal_noise_std", "values": [1.0, 2.0], **change}
    with pytest.raises(SpecError, match=message):
        fit_observer(load_suite(files), **given, n_tokens=3)


def test_one_experiment_is_not_enough(files: list[Path]) -> None:
    with pytest.raises(SpecError, match="needs two experiments"):
        fit_observer(load_suite(files[:1]), "one channel", "internal_noise_std", [1.0, 3.0], n_tokens=3)
