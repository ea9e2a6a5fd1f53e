from __future__ import annotations

import math

import numpy as np
import pytest

import psysim
from psysim import human
from psysim.errors import SpecError
from psysim.evaluation import compare, deviation_statistics, lowpass_db, match_points
from psysim.results import STATUS, empty_dataset

SPEC = """
human = ["tmtf_parameters"]
[stimulus]
kind = "{kind}"
level_db_spl = 70.0
{extra}
[procedure]
kind = "up_down"
tracks = "{tracks}"
"""
HEADER = "dataset,experiment,{factors},measure,value,unit,error,error_kind,listener_group,n_listeners,origin,note\n"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PSYSIM_DATA_DIR", str(tmp_path / "home"))
    return tmp_path


def run(conditions, thresholds, observers=("model",), tracks="depth_db", kind="am_noise", extra="", unit="dB"):
    """Return a run of two tracks per condition with given means, (conditions,) or (conditions, observers)."""
    spec = SPEC.format(tracks=tracks, kind=kind, extra=extra)
    ds = empty_dataset(conditions, observers, 2, 10, 3, unit, "Threshold", {"spec_toml": spec})
    means = np.reshape(np.asarray(thresholds, dtype=float), (ds.sizes["condition"], -1))
    ds["threshold"].values[...] = means[..., None] + [-0.5, 0.5]
    ds["status"].values[...] = STATUS.index("converged")
    return ds


def add_human(folder, name, factors, rows, measure="am_detection_threshold", unit="dB"):
    """Register human data; each row is (factor values ..., value, error, listener group)."""
    text = HEADER.format(factors=factors)
    for *values, value, error, group in rows:
        cells = ",".join(str(v) for v in values)
        kind = "SD across listeners" if error != "" else ""
        text += f"{name},test,{cells},{measure},{value},{unit},{error},{kind},{group},10,raw,\n"
    (folder / f"{name}.csv").write_text(text)
    human.add(folder / f"{name}.csv")


def only(table):
    assert len(table) == 1
    return table.iloc[0]


# ------------------------------------------------------------ statistics
def test_statistics_by_hand():
    # deviations 2, 1, 3: mean 2, mean square 14 / 3
    result = deviation_statistics([-20, -18, -10], [-22, -19, -13])
    assert result["n_points"] == 3
    assert result["bias"] == 2
    assert result["rmse"] == pytest.approx(math.sqrt(14 / 3))
    # centred: model -4, -2, 6; human -4, -1, 5; products 16 + 2 + 30; squares 56 and 42
    assert result["pearson_r"] == pytest.approx(48 / math.sqrt(56 * 42))


@pytest.mark.parametrize(
    ("model", "human_values"), [([1.0, 2.0], [1.0, 3.0]), ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]), ([1, 2, 3], [2, 2, 2])]
)
def test_a_correlation_that_means_nothing_is_not_given(model, human_values):
    assert math.isnan(deviation_statistics(model, human_values)["pearson_r"])


def test_statistics_of_nothing_and_of_unequal_lengths():
    assert deviation_statistics([], [])["n_points"] == 0
    assert math.isnan(deviation_statistics([], [])["rmse"])
    with pytest.raises(SpecError, match="same length"):
        deviation_statistics([1.0], [1.0, 2.0])


# ------------------------------------------------------------ a fitted human curve
def test_the_named_human_curve_is_compared_by_interpolation():
    # 4 and 64 Hz are in the table (-22.60, -21.62); sqrt(64 * 128) lies half-way on log rate between -21.62 and -19.57;
    # 1 and 1024 Hz are outside the curve
    rates = [1, 4, 64, math.sqrt(64 * 128), 1024]
    row = only(compare(run({"rate_hz": rates}, [-30, -23.6, -20.62, -21.595, 0])))
    assert (row["observer"], row["human"], row["label"]) == ("model", "tmtf_parameters", "Morimoto et al. 2019 (fit)")
    assert row["n_points"] == 3
    assert row["bias"] == pytest.approx((-1 + 1 - 1) / 3)
    assert row["rmse"] == pytest.approx(1)
    assert row["unit"] == "dB"
    assert row["matching"] == "rate_hz interpolated on log rate"
    assert row["confidence"] == "medium"
    assert row["n_with_error"] == 0


def test_interpolation_on_log_rate_is_within_a_quarter_of_a_db_of_the_formula():
    """The curve is given in octaves; between them a straight line on log rate is off by at most 0.25 dB."""
    rates = np.geomspace(2, 512, 200)
    points = match_points(run({"rate_hz": rates.tolist()}, lowpass_db(rates, -22.6, 127.3)))
    assert len(points) == 200
    assert 0.1 < points["deviation"].abs().max() < 0.25


def test_peak_sensitivity_and_cutoff_are_compared_with_the_published_ones():
    rates = [4, 16, 64, 256, 1024]
    row = only(compare(run({"rate_hz": rates}, lowpass_db(rates, -25, 60))))
    assert row["human_peak_sensitivity_db"] == -22.6
    assert row["human_cutoff_hz"] == 127.3
    assert row["model_peak_sensitivity_db"] == pytest.approx(-25, abs=1e-4)
    assert row["peak_sensitivity_difference_db"] == pytest.approx(-2.4, abs=1e-4)
    assert row["model_cutoff_hz"] == pytest.approx(60, abs=1e-3)
    assert row["cutoff_difference_hz"] == pytest.approx(-67.3, abs=1e-3)


def test_a_model_without_roll_off_gets_no_cutoff_difference():
    row = only(compare(run({"rate_hz": [4, 8, 16, 32]}, [-25, -25, -25, -25])))
    assert row["peak_sensitivity_difference_db"] == pytest.approx(-2.4, abs=0.01)
    assert math.isnan(row["cutoff_difference_hz"])
    assert "model cutoff above the highest measured rate (32 Hz)" in row["note"]


def test_two_rates_are_too_few_for_a_cutoff():
    row = only(compare(run({"rate_hz": [4, 64]}, [-25, -20])))
    assert row["n_points"] == 2
    assert math.isnan(row["model_cutoff_hz"])
    assert "fewer than three rates" in row["note"]


def test_the_largest_deviation_is_named():
    row = only(compare(run({"rate_hz": [4, 256]}, [-23, -18])))
    assert row["largest_deviation"] == pytest.approx(-18 + 15.57)
    assert row["largest_at"] == "rate_hz = 256: model -18.00, human -15.57"


# ------------------------------------------------------------ measured points
def test_points_match_exactly_or_nearest_within_the_tolerance(folder):
    add_human(
        folder, "mine", "rate_hz", [(4, -25, 1, "NH"), (100, -20, 2, "NH"), (500, -10, "", "NH"), (9, -5, "", "NH")]
    )
    ds = run({"rate_hz": [4, 101, 99.5, 511]}, [-24.5, -1, -17, -2])
    row = only(compare(ds, "mine"))
    # 4 exactly; 100 by 99.5 (0.5 %), not 101 (1 %); 500 has 511 at 2.2 %, too far; 9 has none
    assert row["n_points"] == 2
    assert row["n_human"] == 4
    assert row["bias"] == pytest.approx((0.5 + 3) / 2)
    assert row["rmse"] == pytest.approx(math.sqrt((0.25 + 9) / 2))
    assert (row["n_within_error"], row["n_with_error"]) == (1, 2)
    assert row["matching"] == "rate_hz equal or nearest within 2 % (dB and text: equal)"
    assert only(compare(ds, "mine", tolerance=0.03))["n_points"] == 3
    assert only(compare(ds, "mine", tolerance=0.0))["n_points"] == 1


def test_points_are_not_interpolated(folder):
    add_human(folder, "mine", "rate_hz", [(4, -25, "", "NH"), (16, -25, "", "NH")])
    row = only(compare(run({"rate_hz": [8]}, [-25]), "mine"))
    assert row["n_points"] == 0
    assert "no condition of the run meets the human data" in row["note"]


def test_levels_in_db_must_be_equal(folder):
    add_human(folder, "mine", "level_db_spl", [(70, -25, "", "NH")])
    assert only(compare(run({"rate_hz": [8]}, [-25]), "mine"))["n_points"] == 1  # 70 dB SPL is fixed in the run
    other = run({"level_db_spl": [71]}, [-25])  # 1.4 % more would match as a frequency
    assert only(compare(other, "mine"))["n_points"] == 0


def test_the_carrier_must_match_where_it_exists():
    tone = {"kind": "am_tone", "extra": "carrier_hz = 1600"}
    row = only(compare(run({"rate_hz": [4, 16, 64]}, [-33, -33.25, -29.5], **tone), "psylab_sam_example"))
    # the means at 1600 Hz are -34, -34.25, -30.5
    assert row["n_points"] == 3
    assert row["bias"] == pytest.approx(1)
    assert row["rmse"] == pytest.approx(1)
    assert "several curves" not in row["note"]
    assert (
        only(compare(run({"rate_hz": [4]}, [-30], kind="am_tone", extra="carrier_hz = 999"), "psylab_sam_example"))[
            "n_points"
        ]
        == 0
    )


def test_a_noise_is_not_compared_with_tones_unless_the_user_says_so():
    noise = run({"rate_hz": [4, 16]}, [-30, -30])
    row = only(compare(noise, "psylab_sam_example"))
    assert row["n_points"] == 0
    assert row["note"] == "the run does not state carrier_hz (400, 1600): choose with where={'carrier_hz': 400}"
    chosen = only(compare(noise, "psylab_sam_example", where={"carrier_hz": 1600}))
    assert chosen["bias"] == pytest.approx((4 + 4.25) / 2)


def test_several_curves_share_statistics_but_not_a_cutoff():
    conditions = {"carrier_hz": [400, 400, 400, 1600, 1600, 1600], "rate_hz": [4, 16, 64] * 2}
    ds = run(conditions, [-28, -31, -37, -34, -34, -30], kind="am_tone")
    both = only(compare(ds, "psylab_sam_example"))
    assert both["n_points"] == 6
    assert math.isnan(both["model_cutoff_hz"])
    assert "several curves: choose carrier_hz with where" in both["note"]
    one = only(compare(ds, "psylab_sam_example", where={"carrier_hz": 1600}))
    assert one["n_points"] == 3
    assert not math.isnan(one["model_peak_sensitivity_db"])
    # the listener's thresholds fall at 256 Hz (resolved sidebands), so there is no cutoff to compare
    assert math.isnan(one["cutoff_difference_hz"])
    assert "human cutoff above the highest measured rate" in one["note"]


def test_where_takes_lists_and_human_columns(folder):
    add_human(folder, "mine", "rate_hz", [(4, -25, "", "NH"), (8, -25, "", "NH"), (4, -20, "", "HI")])
    ds = run({"rate_hz": [4, 8, 16]}, [-25, -24, -23])
    assert compare(ds, "mine")["listener_group"].tolist() == ["NH", "HI"]
    assert only(compare(ds, "mine", where={"listener_group": "HI"}))["bias"] == -5
    assert only(compare(ds, "mine", where={"listener_group": "NH", "rate_hz": [8, 16]}))["n_points"] == 1


def test_an_unknown_factor_in_where_is_refused_with_the_nearest():
    with pytest.raises(SpecError, match=r"no factor 'carrier'.*Did you mean 'carrier_hz'"):
        compare(run({"rate_hz": [4]}, [-25]), ["tmtf_parameters", "psylab_sam_example"], where={"carrier": 1600})


def test_where_that_leaves_nothing_says_so():
    ds = run({"rate_hz": [4, 6]}, [-25, -25])
    row = only(compare(ds, where={"rate_hz": 5}))
    assert (row["n_points"], row["note"]) == (0, "no conditions of the run left after where")
    row = only(compare(ds, where={"listener_group": "HI"}))
    assert (row["n_points"], row["note"]) == (0, "no human data left after where")
    assert only(compare(ds, where={"rate_hz": 6}))["n_points"] == 1  # the human curve has no 6 Hz, but is interpolated


def test_factors_and_words_of_one_side_split_the_comparison(folder):
    rows = [(4, "quiet", -25, "", "NH"), (4, "noise", -20, "", "NH")]
    add_human(folder, "mine", "rate_hz,background", rows)
    ds = run({"rate_hz": [4, 4], "bandwidth_hz": [3, 300]}, [[-25, -10], [-22, -11]], observers=("a", "b"))
    table = compare(ds, "mine").set_index(["observer", "model_conditions", "human_conditions"])
    assert len(table) == 8
    assert table.loc[("a", "bandwidth_hz = 3", "background = quiet"), "bias"] == 0
    assert table.loc[("a", "bandwidth_hz = 300", "background = noise"), "bias"] == -2
    assert table.loc[("b", "bandwidth_hz = 3", "background = noise"), "bias"] == 10
    points = match_points(ds, "mine")
    assert len(points) == 8
    assert points["condition"].tolist().count(0) == 4


def test_the_user_can_declare_two_factors_to_be_the_same():
    conditions = {"level_db_spl": [20, 40, 60], "frequency_hz": [1000, 1000, 1000]}
    ds = run(conditions, [1, 1, 1], tracks="level_increment_db", kind="tone")
    assert "does not state level_db_sl" in only(compare(ds, "jesteadt1977_intensity"))["note"]
    row = only(compare(ds, "jesteadt1977_intensity", same={"level_db_sl": "level_db_spl"}))
    raw = human.load("jesteadt1977_intensity")
    at_1000 = raw[(raw["frequency_hz"] == 1000) & raw["level_db_sl"].isin([20, 40, 60])]
    assert row["n_points"] == len(at_1000) > 0
    assert row["bias"] == pytest.approx(1 - (10 * np.log10(1 + at_1000["value"])).mean())
    assert "level_db_sl taken as level_db_spl" in row["note"]
    with pytest.raises(SpecError, match=r"same .*Did you mean 'level_db_sl'"):
        compare(ds, "jesteadt1977_intensity", same={"level_db_s": "level_db_spl"})
    with pytest.raises(SpecError, match=r"same \(factors of the run\): there is no factor 'level'"):
        compare(ds, "jesteadt1977_intensity", same={"level_db_sl": "level"})


def test_a_factor_that_is_not_set_everywhere_splits_too():
    ds = run({"rate_hz": [4, 4], "bandwidth_hz": [None, 300]}, [-24.6, -20.6])
    table = compare(ds)
    assert table["model_conditions"].tolist() == ["bandwidth_hz = nan", "bandwidth_hz = 300"]
    assert table["bias"].tolist() == pytest.approx([-2, 2])


# ------------------------------------------------------------ what is not comparable
def test_another_tracked_variable_is_not_compared():
    row = only(compare(run({"frequency_hz": [1000]}, [1.0], tracks="level_increment_db", kind="tone")))
    assert row["n_points"] == 0
    assert row["note"] == "its thresholds are of depth_db, the run's of level_increment_db"


def test_another_unit_is_not_compared(folder):
    row = only(compare(run({"rate_hz": [4]}, [5.0], unit="%")))
    assert row["note"] == "its unit is dB, the run's %"
    add_human(folder, "mine", "rate_hz", [(4, 5, "", "NH")], unit="%")  # depth in per cent is not depth_db
    assert "am_detection_threshold" in only(compare(run({"rate_hz": [4]}, [-25]), "mine"))["note"]


def test_bounds_are_left_out():
    ds = run({"frequency_hz": [250], "azimuth_deg": [0]}, [1.0], tracks="minimum_audible_angle", unit="degrees")
    row = only(compare(ds, "mills1958_maa"))
    assert row["note"] == "13 bounds left out"
    assert row["n_points"] == 1


def test_conditions_without_a_converged_track_are_counted():
    ds = run({"rate_hz": [4, 64]}, [-25, -20])
    ds["status"].values[1] = STATUS.index("at_ceiling")
    row = only(compare(ds))
    assert row["n_points"] == 1
    assert "1 condition(s) of the run without a converged track" in row["note"]


def test_a_single_condition_can_meet_data_without_a_shared_factor():
    ds = run({}, [2.0], tracks="level_increment_db", kind="noise")
    table = compare(ds, "alexis106_noise", where={"listener_group": "NH"})
    assert only(table)["bias"] == pytest.approx(2.0 - 1.965)
    assert only(table)["matching"] == "one condition, no factors"
    several = run({"level_db_spl": [50, 70]}, [2.0, 1.0], tracks="level_increment_db", kind="noise")
    assert "choose one with where" in compare(several, "alexis106_noise")["note"][0]
    assert (
        only(compare(several, "alexis106_noise", where={"listener_group": "NH", "level_db_spl": 50}))["n_points"] == 1
    )


# ------------------------------------------------------------ doors
def test_runs_without_names_or_with_unknown_ones_are_refused():
    ds = run({"rate_hz": [4]}, [-25])
    with pytest.raises(SpecError, match="Did you mean 'tmtf_parameters'"):
        compare(ds, ["tmtf_parameter"])
    ds.attrs["spec_toml"] = '[procedure]\ntracks = "depth_db"'
    with pytest.raises(SpecError, match=r"names no human data. Give human_names"):
        compare(ds)
    ds.attrs["spec_toml"] = ""
    with pytest.raises(SpecError, match="does not say which variable was tracked"):
        compare(ds, "tmtf_parameters")
    assert only(compare(ds, "tmtf_parameters", tracks="depth_db"))["n_points"] == 1
    ds.attrs["tracked_variable"] = "depth_db"
    assert only(compare(ds, "tmtf_parameters"))["n_points"] == 1


@pytest.mark.parametrize("tolerance", [-0.1, 0.6, math.nan])
def test_a_tolerance_outside_its_range_is_refused(tolerance):
    with pytest.raises(SpecError, match="tolerance"):
        compare(run({"rate_hz": [4]}, [-25]), tolerance=tolerance)


def test_one_row_per_observer_and_data_set():
    ds = run({"rate_hz": [4, 64]}, [[-25, -20], [-22, -17]], observers=("a", "b"))
    table = compare(ds, ["tmtf_parameters", "wier1977_fdl"])
    assert table[["observer", "human"]].values.tolist() == [
        ["a", "tmtf_parameters"],
        ["b", "tmtf_parameters"],
        ["a", "wier1977_fdl"],
        ["b", "wier1977_fdl"],
    ]
    assert table["n_points"].tolist() == [2, 2, 0, 0]
    points = match_points(ds, ["tmtf_parameters", "wier1977_fdl"])
    assert points["deviation"].tolist() == pytest.approx([-2.4, -0.38, 2.6, 4.62])
    assert (points["model_ci_low"] < points["model"]).all()


def test_no_pairs_give_an_empty_table():
    assert len(match_points(run({"rate_hz": [4]}, [-25]), "wier1977_fdl")) == 0


def test_compare_is_at_the_top_of_the_package():
    assert psysim.compare is compare


@pytest.mark.parametrize("name", [n for kind in human.KINDS[:3] for n in human.names(kind)])
def test_every_data_set_can_be_asked_for(name):
    """Whatever the data set, the answer is numbers or a reason."""
    table = compare(run({"rate_hz": [4, 16, 64]}, [-25, -24, -20], extra="carrier_hz = 1600"), name)
    assert len(table) >= 1
    assert ((table["n_points"] > 0) | (table["note"] != "")).all()


# ------------------------------------------------------------ what the experiment's [comparison] says
MASKING = {"masker_level_db_spl": [-math.inf] * 3 + [45.0] * 3, "probe_hz": [750.0, 1000.0, 1250.0] * 2}


def with_comparison(ds, text):
    """Put human data and the table [comparison] into a run's description."""
    spec = ds.attrs["spec_toml"].replace('human = ["tmtf_parameters"]', 'human = ["moore1998_spectral_masking"]')
    ds.attrs["spec_toml"] = spec.replace("[stimulus]", f"[comparison]\n{text}\n[stimulus]", 1)
    return ds


def masking_run(comparison):
    levels = [8.0, 5.0, 7.0, 13.0, 43.0, 12.0]  # without masker, then with: it raises thresholds by 5, 38, 5 dB
    ds = run(MASKING, levels, tracks="probe_level_db_spl", kind="masked_tone", unit="dB SPL")
    ds.attrs["spec_toml"] = ds.attrs["spec_toml"].replace("level_db_spl = 70.0\n", "")
    return with_comparison(ds, comparison)


def test_thresholds_relative_to_a_condition():
    points = match_points(masking_run("relative_to = { masker_level_db_spl = -inf }"))
    assert points["probe_hz"].tolist() == [750.0, 1000.0, 1250.0]
    np.testing.assert_allclose(points["model"], [5.0, 38.0, 5.0])
    np.testing.assert_allclose(points["human_value"], [4.7, 38.77, 2.87])
    # each mean has the bootstrap interval +-0.5: errors of a difference add in squares
    np.testing.assert_allclose(points["model_ci_high"] - points["model"], math.hypot(0.5, 0.5))


def test_amounts_of_masking_are_not_compared_with_levels():
    row = only(compare(masking_run("")))
    assert row["n_points"] == 0
    assert "relative_to" in row["note"]


def test_one_reference_serves_conditions_that_differ_in_a_gap():
    conditions = {"masker_level_db_spl": [-math.inf, 40.0, 40.0, 40.0], "gap_s": [0.01, 0.01, 0.02, 0.04]}
    extra = "probe_hz = 1000.0\nmasker_hz = 1000.0"
    ds = run(conditions, [10.0, 25.0, 22.0, 18.0], tracks="probe_level_db_spl", unit="dB SPL", extra=extra)
    ds.attrs["spec_toml"] = ds.attrs["spec_toml"].replace("tmtf_parameters", "jesteadt1982_forward_masking_fit")
    ds = with_comparison(ds, "relative_to = { masker_level_db_spl = -inf }")
    row = only(compare(ds))
    assert row["n_points"] == 3
    assert row["bias"] == pytest.approx((15.0 - 15.59 + 12.0 - 11.92 + 8.0 - 8.25) / 3)


def test_same_and_where_of_the_experiment(folder):
    add_human(folder, "steps", "level_db_sl,carrier_hz", [(20, 500, 1.0, "", "NH"), (40, 1000, 2.0, "", "NH")])
    ds = run({"level_db_spl": [20.0, 40.0]}, [1.5, 1.0])
    ds.attrs["spec_toml"] = ds.attrs["spec_toml"].replace("level_db_spl = 70.0", "")
    text = 'same = { level_db_sl = "level_db_spl" }\nwhere = { carrier_hz = 500 }'
    row = only(compare(with_comparison(ds, text), "steps"))
    assert (row["n_points"], row["bias"]) == (1, 0.5)
    assert "level_db_sl taken as level_db_spl" in row["note"]
    row = only(compare(ds, "steps", where={"carrier_hz": 1000}))  # the caller's word goes first
    assert (row["n_points"], row["bias"]) == (1, -1.0)


def test_a_human_factor_named_condition_is_not_the_number_of_the_condition():
    where = {"high_hz": 6000.0, "source": "Snell & Hu 1995", "condition": "gap 60 ms after burst onset"}
    ds = run({"high_hz": [1000.0, 6000.0]}, [0.01, 0.003], tracks="gap_s", kind="gap_in_noise", unit="s")
    row = only(compare(ds, "gap_detection", where=where))
    assert row["n_points"] == 1
    assert row["bias"] == pytest.approx(0.003 - 0.00201)
