"""The page of a scoreboard: what it says, and that it says the same thing every time."""

from __future__ import annotations

import csv
import re
import xml.etree.ElementTree as ET

import pytest
import tomli_w

from psysim.errors import SpecError, StoreError
from psysim.evaluation import scoreboard
from psysim.reports import report, scoreboard_figure, scoreboard_report
from psysim.reports.runs import read_spec


@pytest.fixture
def runs(make):
    calibrated = {"status": "calibrated", "internal_noise_std": 2.0}
    return {
        "broad": make(n_tracks=2, human=["tmtf_parameters"], observers=("a", "b"), calibration={"a": calibrated}),
        "narrow": make(n_tracks=2, human=["tmtf_parameters"], observers=("a",), calibration={"a": calibrated}, seed=2),
    }


def test_the_page_names_everything_and_is_well_formed(runs, tmp_path):
    page = scoreboard_report(
        runs,
        tmp_path / "board.html",
        title="All <together>",
        reports={"broad": "reports/broad.html"},
        failures={"lost": "CalibrationError: no template"},
    )
    text = page.read_text()
    ET.fromstring(text.replace("<!DOCTYPE html>", ""))
    for wanted in ("All &lt;together&gt;", "reports/broad.html", "lost", "no template", "Morimoto", "Noise ceiling"):
        assert wanted in text
    assert not re.search(r"(src|href)=\"https?:", text)
    names = {path.name for path in (tmp_path / "board_files").iterdir()}
    assert {"scoreboard.csv", "matrix_rmse.csv", "observers.csv", "details.csv", "scoreboard.svg"} <= names
    with (tmp_path / "board_files" / "scoreboard.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["experiment"], row["observer"]) for row in rows] == [("broad", "a"), ("broad", "b"), ("narrow", "a")]


def test_the_page_says_what_to_be_careful_about(runs, tmp_path):
    text = scoreboard_report(runs, tmp_path / "board.html").read_text()
    assert "Fewer than four tracks" in text
    assert re.search(r"calibrated</td>", text)


def test_the_same_runs_give_the_same_bytes(runs, tmp_path):
    first = scoreboard_report(runs, tmp_path / "one" / "s.html") if (tmp_path / "one").mkdir() is None else None
    (tmp_path / "two").mkdir()
    second = scoreboard_report(runs, tmp_path / "two" / "s.html")
    assert first.read_bytes() == second.read_bytes()
    scoreboard_report(runs, first)  # again, in its place
    assert first.read_bytes() == second.read_bytes()


def test_other_files_are_never_replaced(runs, tmp_path):
    (tmp_path / "s.html").write_text("<p>my page</p>")
    with pytest.raises(StoreError, match="no psysim report"):
        scoreboard_report(runs, tmp_path / "s.html")
    with pytest.raises(SpecError, match=r"\.html"):
        scoreboard_report(runs, tmp_path / "s.txt")


def test_without_comparison_there_is_a_page_without_figure(make, tmp_path):
    runs = {"broad": make(n_tracks=2)}
    text = scoreboard_report(runs, tmp_path / "s.html").read_text()
    assert "No experiment of this suite could be compared" in text
    with pytest.raises(SpecError, match="nothing to draw"):
        scoreboard_figure(scoreboard(runs))


def test_the_figure_shows_the_numbers_of_the_board(runs):
    board = scoreboard(runs)
    figure, shown = scoreboard_figure(board)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert len(texts) == len(shown) == 3
    assert [float(t) for t in texts] == pytest.approx(board["rmse"].tolist(), rel=0.06)
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["a", "b"]


def test_a_single_report_states_noise_ceiling_and_published_predictions(make, tmp_path):
    levels = {"interaural_condition": ["NpiS0"], "signal_hz": [1000.0], "bandwidth_hz": [5.0, 10.0]}
    about = {"unit": "dB", "long_name": "Signal-to-noise ratio (dB)", "n_tracks": 2, "stimulus": {"kind": "noise"}}
    bmld = make(levels, tracks="snr_db", threshold=lambda **_: -16.0, human=["vandepar1999_bmld"], **about)
    text = report(bmld, tmp_path / "b.html").read_text()
    # people -16 and -17.5, the published model -15 and -17.5
    assert "breebaart2001: RMS difference 0.71" in text
    assert "Noise ceiling" not in text  # these data state no spread
    listeners = {"human": ["guestrajappa2024_profile_analysis"], "comparison": {"where": {"level_rove": "no"}}}
    factors = {"n_components": [3, 9, 15], "low_hz": [300.0], "high_hz": [798.0]}
    profile = make(factors, tracks="increment_db", threshold=lambda **_: -6.0, **about, **listeners)
    text = report(profile, tmp_path / "p.html").read_text()
    assert "Noise ceiling: spread of the listeners (dB)" in text
    # SDs 3.69, 3.05 and 3.37 dB: their RMS
    assert "3.38 (SD across listeners)" in text


def test_a_report_separates_fitted_from_predicted_data(make, tmp_path):
    ds = make(n_tracks=2, human=["tmtf_parameters", "psylab_sam_example"])
    spec = read_spec(ds)
    spec["observers"][0]["fitted_to"] = ["tmtf_parameters"]
    text = report(ds.assign_attrs(spec_toml=tomli_w.dumps(spec)), tmp_path / "f.html").read_text()
    assert "were fitted to tmtf_parameters: here it describes tmtf_parameters. It predicts psylab_sam_example." in text
