"""Many runs against human data: hand-made runs, so that every number is known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import tomli_w

from psysim import human
from psysim.errors import SpecError
from psysim.evaluation import (
    compare,
    lowpass_db,
    observer_table,
    published_predictions,
    scoreboard,
    scoreboard_details,
    scoreboard_matrix,
)
from psysim.results import STATUS, empty_dataset

RATES = [4.0, 16.0, 64.0, 256.0]
HEADER = "dataset,experiment,rate_hz,measure,value,unit,error,error_kind,listener_group,n_listeners,origin,note\n"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PSYSIM_DATA_DIR", str(tmp_path / "home"))
    return tmp_path


def run(offsets, names=("tmtf_parameters",), noise=None, tracks="depth_db", conditions=None, level=None, **entries):
    """Return a run whose thresholds are the published TMTF plus an offset per observer."""
    conditions = {"rate_hz": RATES} if conditions is None else conditions
    base = lowpass_db(RATES, -22.6, 127.3) if level is None else level
    observers = [{"name": o, "model": "dau1997", "decision": "optimal_detector", **entries} for o in offsets]
    spec = {
        "human": list(names),
        "stimulus": {"kind": "am_noise"},
        "procedure": {"tracks": tracks},
        "observers": observers,
    }
    calibration = {o: {"status": "calibrated", "internal_noise_std": noise or 2.0} for o in offsets}
    attrs = {"spec_toml": tomli_w.dumps(spec), "provenance": json.dumps({"calibration": calibration}), "complete": 1}
    ds = empty_dataset(conditions, list(offsets), 2, 10, 3, "dB", "Threshold", attrs)
    for i, offset in enumerate(offsets.values()):
        ds["threshold"].values[:, i, :] = (base + offset)[:, None] + [-0.5, 0.5]
    ds["status"].values[...] = STATUS.index("converged")
    return ds


def add_human(folder, name, rows):
    text = HEADER
    for rate, value, sd, group in rows:
        text += f"{name},test,{rate},am_detection_threshold,{value},dB,{sd},SD across listeners,{group},10,raw,\n"
    (folder / f"{name}.csv").write_text(text)
    human.add(folder / f"{name}.csv")


def test_every_number_of_a_row_by_hand(folder):
    # deviations 1, 3, -1: mean square 11 / 3; people -25, -20, -12 have the variance 86 / 3; SDs 2, 2, 1
    add_human(folder, "mine", [(4, -25, 2, "NH"), (16, -20, 2, "NH"), (64, -12, 1, "NH")])
    level = [-24.0, -17.0, -13.0, 0.0]
    board = scoreboard({"e": run({"a": 0.0}, ["mine"], level=np.array(level))})
    (row,) = board.to_dict("records")
    assert (row["experiment"], row["observer"], row["kind"], row["n_points"]) == ("e", "a", "model", 3)
    assert row["rmse"] == pytest.approx(math.sqrt(11 / 3))
    assert row["bias"] == pytest.approx(1.0)
    assert row["variance_explained"] == pytest.approx(1 - (11 / 3) / (86 / 3))
    assert (row["n_within_error"], row["n_with_error"]) == (2, 3)
    assert row["human_spread"] == pytest.approx(math.sqrt(3.0))
    assert row["spread_over"] == "SD across listeners"
    assert row["rmse_over_spread"] == pytest.approx(math.sqrt(11) / 3)


def test_listeners_with_a_loss_are_not_pooled_with_others(folder):
    add_human(folder, "both", [(4, -20, 1, "NH"), (16, -20, 1, "NH"), (4, 0, 1, "HI"), (16, 0, 1, "HI")])
    board = scoreboard({"e": run({"a": 0.0}, ["both"], level=np.array([-20.0, -20.0, 0.0, 0.0]))})
    assert board[["n_points", "rmse"]].values.tolist() == [[2, 0.0]]
    add_human(folder, "only_hi", [(4, -18, 1, "HI"), (16, -18, 1, "HI")])
    board = scoreboard({"e": run({"a": 0.0}, ["only_hi"], level=np.array([-20.0, -20.0, 0.0, 0.0]))})
    assert board[["n_points", "bias"]].values.tolist() == [[2, -2.0]]


def test_the_matrix_has_observers_by_experiments_and_gaps():
    board = scoreboard({"one": run({"a": 0.5, "b": 2.0}), "two": run({"b": -1.0})})
    matrix = scoreboard_matrix(board, "bias")
    assert list(matrix.index) == ["a", "b"]
    assert [name for name, _ in matrix.columns] == ["one", "two"]
    values = matrix.to_numpy()
    assert values[0, 0] == pytest.approx(0.5, abs=0.01)
    assert math.isnan(values[0, 1])
    assert values[1].tolist() == pytest.approx([2.0, -1.0], abs=0.01)
    with pytest.raises(SpecError, match=r"value = 'rsme'.*rmse"):
        scoreboard_matrix(board, "rsme")


def test_conditions_without_a_threshold_are_counted():
    ds = run({"a": 0.0, "b": 0.0})
    ds["status"].values[3, 0, :] = STATUS.index("at_ceiling")
    board = scoreboard({"e": ds})
    assert board[["n_points", "n_left_out"]].values.tolist() == [[3, 1], [4, 0]]


def test_runs_without_human_data_stay_in_the_board():
    board = scoreboard({"e": run({"a": 0.0}, [])})
    assert board[["observer", "n_points", "note"]].values.tolist() == [["a", 0, "no human data"]]
    assert scoreboard_matrix(board).size == 0
    with pytest.raises(SpecError, match="no run"):
        scoreboard({})


def test_an_answer_without_sound_is_no_model():
    ds = run({"a": 0.0})
    ds.attrs["spec_toml"] = ds.attrs["spec_toml"].replace("optimal_detector", "simulated_listener")
    assert scoreboard({"e": ds})["kind"].tolist() == ["simulated"]


def test_a_listener_with_a_loss_is_told_from_the_others():
    assert scoreboard({"e": run({"a": 0.0}, audiogram="N2")})["kind"].tolist() == ["hearing loss"]
    assert scoreboard({"e": run({"a": 0.0}, audiogram="N2", aid="x.toml")})["kind"].tolist() == ["hearing loss"]
    assert scoreboard({"e": run({"a": 0.0}, aid="x.toml")})["kind"].tolist() == ["aided"]


def test_details_are_the_comparisons():
    ds = run({"a": 0.5})
    details = scoreboard_details({"e": ds})
    assert details["experiment"].tolist() == ["e"]
    assert details["bias"].tolist() == compare(ds)["bias"].tolist()


def test_fitted_rows_say_so():
    board = scoreboard({"e": run({"a": 0.0}, fitted_to=["tmtf_parameters"])})
    assert board["fitted"].tolist() == ["tmtf_parameters"]


def test_one_observer_with_two_noises_or_settings_is_not_one():
    same = observer_table({"one": run({"a": 0.0}), "two": run({"a": 0.0}, template_level=-3.0)})
    assert same[["n_internal_noises", "differs", "consistent"]].values.tolist() == [[1, "", True]]
    noises = observer_table({"one": run({"a": 0.0}), "two": run({"a": 0.0}, noise=3.0)})
    assert noises[["n_internal_noises", "consistent"]].values.tolist() == [[2, False]]
    repeated = observer_table({"one": run({"a": 0.0}, noise=3.0), "two": run({"a": 0.0}, noise=3.03)})
    assert repeated["n_internal_noises"].tolist() == [1]  # a sampling rate makes 1 %
    settings = observer_table({"one": run({"a": 0.0}), "two": run({"a": 0.0}, model_options={"flow": 100.0})})
    assert settings[["differs", "consistent"]].values.tolist() == [["two", False]]
    assert same["internal_noise"].tolist() == ["calibrated"]


# ------------------------------------------------------------ published predictions
def test_published_bmld_predictions_by_hand():
    # 1000 Hz, NpiS0, bandwidths 5 and 10 Hz: people -16 and -17.5, model -15 and -17.5
    where = {"signal_hz": 1000, "interaural_condition": "NpiS0", "bandwidth_hz": [5, 10]}
    (row,) = published_predictions("vandepar1999_bmld", where).to_dict("records")
    assert row["n_points"] == 2
    assert row["bias"] == pytest.approx(0.5)
    assert row["rmse"] == pytest.approx(math.sqrt(0.5))


def test_predictions_are_interpolated_on_the_log_of_the_frequency():
    table = published_predictions("moore1973_fdl").set_index("model")
    assert table.loc["rate_place_computational", "n_points"] == 7
    assert published_predictions("moore1973_fdl", {"frequency_hz": 250.4906622})["n_points"].tolist() == [0, 0, 0, 0]


def test_predictions_that_do_not_say_for_which_points_they_are_are_not_compared():
    """The stored predictions of this model do not state the phase of the signal, which the data vary."""
    assert len(published_predictions("encke_dietz2022_noise_itd")) == 0
    assert len(published_predictions("encke_dietz2022_noise_itd", {"signal_phase": "pi"})) == 5
    assert len(published_predictions("jesteadt1977_intensity")) == 0
    with pytest.raises(SpecError, match="no human data set"):
        published_predictions("jesteadt1978")


def test_published_predictions_stand_beside_the_run():
    conditions = {
        "bandwidth_hz": [5.0, 10.0],
        "interaural_condition": ["NpiS0", "NpiS0"],
        "signal_hz": [1000.0, 1000.0],
    }
    ds = run({"a": 0.0}, ["vandepar1999_bmld"], tracks="snr_db", conditions=conditions, level=np.array([-16.0, -17.5]))
    board = scoreboard({"e": ds})
    assert board[["observer", "kind", "n_points"]].values.tolist() == [
        ["a", "model", 2],
        ["breebaart2001 (published)", "published", 2],
    ]
    assert board["rmse"].tolist() == pytest.approx([0.0, math.sqrt(0.5)])
