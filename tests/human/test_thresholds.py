from __future__ import annotations

import math

import numpy as np
import pytest

from psysim import human

COMMON = ["tracks", "measure", "value", "unit", "error_low", "error_high", "error_kind", "kind"]
COMMON += ["listener_group", "n_listeners", "note"]


def one(table, **where):
    for column, value in where.items():
        table = table[table[column] == value]
    assert len(table) == 1
    return table.iloc[0]


@pytest.mark.parametrize("name", [n for kind in human.KINDS[:3] for n in human.names(kind)])
def test_every_data_set_has_the_common_form(name):
    table = human.as_thresholds(name)
    assert list(table.columns[:2]) == ["dataset", "label"]
    assert list(table.columns[-11:]) == COMMON
    assert len(table) > 0
    assert set(table["kind"]) <= {"points", "fitted_curve", "bound"}
    assert np.isfinite(table["value"]).all()
    given = table["error_low"].notna()
    assert (given == table["error_high"].notna()).all()
    assert (table["error_low"][given] <= table["value"][given]).all()
    assert (table["error_high"][given] >= table["value"][given]).all()
    assert (table["label"].str.len() > 0).all()
    assert not {"run", "listener", "modulation_rate_hz", "mean_age_years"} & set(table.columns)
    assert table.attrs["name"] == name


def test_tmtf_parameters_are_a_fitted_curve_with_its_parameters():
    table = human.as_thresholds("tmtf_parameters")
    assert table["rate_hz"].tolist() == [2, 4, 8, 16, 32, 64, 128, 256, 512]
    assert set(table["kind"]) == {"fitted_curve"}
    assert set(table["tracks"]) == {"depth_db"}
    assert set(table["unit"]) == {"dB"}
    assert set(table["label"]) == {"Morimoto et al. 2019 (fit)"}
    assert table.attrs["tmtf"] == {"peak_sensitivity_db": -22.6, "cutoff_hz": 127.3}
    assert table["note"].str.startswith("carrier not read (presumably broadband noise)").all()
    # the rows are rounded to 0.01 dB
    formula = -22.6 + 10 * np.log10(1 + (table["rate_hz"] / 127.3) ** 2)
    np.testing.assert_allclose(table["value"], formula, atol=0.0051)


def test_psylab_runs_are_averaged_per_carrier_and_rate():
    table = human.as_thresholds("psylab_sam_example")
    assert len(table) == 8
    row = one(table, carrier_hz=400, rate_hz=16)  # -31, -32, -31
    assert row["value"] == pytest.approx(-94 / 3)
    sd = math.sqrt(((1 / 3) ** 2 * 2 + (2 / 3) ** 2) / 2)
    assert row["error_high"] - row["value"] == pytest.approx(sd)
    assert row["value"] - row["error_low"] == pytest.approx(sd)
    assert row["error_kind"] == "SD over runs of one listener"
    single = one(table, carrier_hz=1600, rate_hz=4)
    assert single["value"] == -34
    assert math.isnan(single["error_low"])
    assert single["error_kind"] == ""
    assert set(table["n_listeners"]) == {1}


def test_noisysam_leaves_out_runs_that_ran_out_of_trials():
    table = human.as_thresholds("noisysam_pilot")
    row = one(table, background="continuous")  # L27 -7 (its -11 ran out of trials), SR -9.75
    assert row["value"] == -8.375
    assert row["n_listeners"] == 2
    assert row["error_kind"] == "SD across listeners"
    assert row["error_high"] - row["value"] == pytest.approx(2.75 / math.sqrt(2))
    assert row["note"] == "1 run(s) that ran out of trials left out"
    assert (row["low_hz"], row["high_hz"], row["rate_hz"]) == (3750, 4250, 20)
    pulsed = one(table, background="pulsed with the bursts")
    assert (pulsed["value"], pulsed["n_listeners"]) == (-13, 1)


def test_conversions_by_hand():
    jesteadt = one(human.as_thresholds("jesteadt1977_intensity"), frequency_hz=200, level_db_sl=5)
    assert jesteadt["tracks"] == "level_increment_db"
    assert jesteadt["value"] == pytest.approx(10 * math.log10(1.407))
    guest = one(human.as_thresholds("guestrajappa2024_level_discrimination"), low_hz=300, high_hz=798)
    assert guest["value"] == pytest.approx(20 * math.log10(1 + 10 ** (-12.8314 / 20)))
    assert guest["error_high"] == pytest.approx(20 * math.log10(1 + 10 ** ((-12.8314 + 3.4371) / 20)))
    gap = human.as_thresholds("gap_detection").iloc[0]
    assert (gap["tracks"], gap["unit"]) == ("gap_s", "s")
    assert gap["value"] == pytest.approx(0.00567)
    moore = human.as_thresholds("moore1973_fdl").iloc[0]
    assert (moore["tracks"], moore["unit"]) == ("frequency_increment_percent", "%")
    assert moore["value"] == pytest.approx(0.2638164)
    wier = one(human.as_thresholds("wier1977_fdl"), frequency_hz=200, level_db_sl=5)
    assert (wier["tracks"], wier["value"], wier["unit"]) == ("frequency_increment_hz", 8.5, "Hz")


def test_fm_thresholds_are_averaged_in_db_over_listeners_and_given_in_hertz():
    raw = human.load("borjigin_fm_itd")
    left = raw[(raw["task"] == "FM") & (raw["ear"] == "left")]
    row = one(human.as_thresholds("borjigin_fm_itd"), task="FM", ear="left")
    assert (row["tracks"], row["unit"], row["n_listeners"]) == ("deviation_hz", "Hz", len(left))
    assert row["value"] == pytest.approx(10 ** (left["value"].mean() / 20))
    assert row["error_low"] == pytest.approx(10 ** ((left["value"].mean() - left["value"].std()) / 20))


@pytest.mark.parametrize("name", [n for kind in human.KINDS[:3] for n in human.names(kind)])
def test_psysim_names_are_parameters_of_a_stimulus(name):
    """A tracked variable that psysim has must belong to a stimulus with the renamed factors."""
    from psysim.stimuli import registry as stimuli

    renamed = {"rate_hz", "signal_hz", "bandwidth_hz", "probe_hz", "masker_hz", "gap_s"}
    table = human.as_thresholds(name)
    for tracks, rows in table.groupby("tracks"):
        owners = [s for s in map(stimuli.get, stimuli) if tracks in s.tracked]
        if tracks in rows["measure"].tolist():
            continue  # a measure that psysim does not track
        assert owners, tracks
        used = renamed & {c for c in rows if rows[c].notna().any()}
        assert any(used <= set(s.Parameters.model_fields) for s in owners), (tracks, used)


def test_times_are_in_seconds_and_frequencies_in_hertz():
    assert human.as_thresholds("jepsen2008_tone_in_noise_duration")["signal_duration_s"].min() == pytest.approx(0.005)
    assert human.as_thresholds("tuning_qerb")["frequency_hz"].max() == pytest.approx(17000)


def test_means_of_the_source_are_preferred_to_single_listeners():
    raw = human.load("schairer2008_forward_masking")
    table = human.as_thresholds("schairer2008_forward_masking")
    assert len(table) == (raw["listener"] == "mean").sum()
    first = table.iloc[0]
    assert (first["probe_hz"], first["masker_hz"], first["masker_level_db_spl"]) == (250, 250, 50)
    assert first["tracks"] == "probe_level_db_spl"
    assert math.isnan(first["gap_s"])  # "default": the paper's delay was not read
    assert table["gap_s"].max() == pytest.approx(0.005)
    assert (first["value"], first["error_low"]) == (44.88, pytest.approx(43.80))


def test_single_listeners_are_averaged():
    raw = human.load("brughera2013_itd")
    row = one(human.as_thresholds("brughera2013_itd"), frequency_hz=500.0)
    values = raw["value"][raw["frequency_hz"] == 500]
    assert row["value"] == pytest.approx(values.mean())
    assert row["n_listeners"] == len(values) == 3


def test_bounds_are_flagged():
    mills = human.as_thresholds("mills1958_maa")
    assert (mills["kind"] == "bound").sum() == (human.load("mills1958_maa")["censored"] == "yes").sum() > 0
    profile = human.as_thresholds("guestrajappa2024_profile_analysis")
    assert set(profile["kind"][profile["note"].str.contains("; 0 % of runs")]) == {"points"}
    assert set(profile["kind"][~profile["note"].str.contains("; 0 % of runs")]) == {"bound"}


def test_one_statistic_per_condition():
    table = human.as_thresholds("alexis106_noise")
    assert not table.duplicated(["task", "group", "measure"]).any()
    assert set(table["note"]) == {"arithmetic mean"}


def test_geometric_error_bars_are_factors():
    """No table keeps such rows, so take them from the raw one."""
    from psysim.human.thresholds import _limits

    raw = human.load("alexis106_noise")
    rows = raw[raw["error_kind"] == "geometric SD (factor)"]
    low, high = _limits(rows)
    assert low[0] == pytest.approx(1.791 / 1.552)
    assert high[0] == pytest.approx(1.791 * 1.552)


def test_models_and_sources_that_differ_between_rows_stay_columns():
    heinz = human.as_thresholds("heinz2001_ideal_observer_fdl")
    assert set(heinz["model"]) == set(heinz["label"])
    assert "model" not in human.as_thresholds("breebaart2001_bmld")
