"""Threshold figures: what is drawn is what the table says, in the right direction, with nothing dropped."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from psysim.errors import SpecError
from psysim.evaluation import fit_tmtf, lowpass_db
from psysim.human import as_thresholds
from psysim.reports import threshold_figure, tmtf_figure
from psysim.reports.series import threshold_numbers
from psysim.reports.style import png, svg
from psysim.results import STATUS, thresholds

COMPACT = pytest.mark.parametrize("compact", [False, True], ids=["page", "phone"])


def axes_of(figure):
    return [ax for ax in figure.get_axes() if ax.axison]


def texts_of(figure):
    found = [text.get_text() for part in figure.subfigs for legend in part.legends for text in legend.get_texts()]
    return [text.replace("\n", " ") for text in found]


def drawn_points(ax):
    """Return every finite (x, y) of the lines of an axes."""
    points = np.concatenate(
        [np.column_stack([np.asarray(line.get_xdata(), float), line.get_ydata()]) for line in ax.lines]
    )
    return points[np.isfinite(points).all(axis=1)]


@COMPACT
def test_plotted_numbers_are_the_threshold_table(tmtf, compact):
    figure, numbers = tmtf_figure(tmtf, compact=compact)
    table = thresholds(tmtf)
    model = numbers[numbers["kind"] == "model"].reset_index(drop=True)
    assert model["rate_hz"].tolist() == table["rate_hz"].tolist()
    for drawn, stated in (("threshold", "threshold"), ("low", "ci_low"), ("high", "ci_high"), ("n", "n_converged")):
        np.testing.assert_array_equal(model[drawn].to_numpy(float), table[stated].to_numpy(float))
    (ax,) = axes_of(figure)
    drawn = {(round(x, 6), y) for x, y in drawn_points(ax)}
    assert {(float(r), t) for r, t in zip(table["rate_hz"], table["threshold"], strict=True)} <= drawn


def test_two_observers_are_drawn_at_their_thresholds_shifted_by_under_five_percent(hard):
    figure, _ = tmtf_figure(hard, [], fits=False)
    (ax,) = axes_of(figure)
    points = drawn_points(ax)
    for row in thresholds(hard).itertuples():
        if np.isfinite(row.threshold):
            near = points[points[:, 1] == row.threshold][:, 0] / row.rate_hz
            assert ((near > 0.95) & (near < 1.05)).any()


@COMPACT
def test_better_sensitivity_is_up_and_the_axis_says_so(tmtf, compact):
    figure, _ = tmtf_figure(tmtf, compact=compact)
    (ax,) = axes_of(figure)
    bottom, top = ax.get_ylim()
    assert top == -30.0
    assert bottom >= 0.0
    (label,) = [part.get_supylabel() for part in figure.subfigs if part.get_supylabel()]
    assert "Modulation depth, 20 log m (dB)" in label.replace("\n", " ")
    assert "better sensitivity upwards" in label


def test_rates_are_the_ticks_of_a_logarithmic_axis(tmtf):
    figure, _ = tmtf_figure(tmtf)
    (ax,) = axes_of(figure)
    assert ax.get_xscale() == "log"
    assert ax.get_xlabel() == "Modulation rate (Hz)"
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["4", "8", "16", "32", "64", "128", "256", "512"]
    assert not len(ax.xaxis.get_minorticklocs())


def test_close_ticks_are_thinned_but_keep_both_ends(make):
    rates = [4, 5, 6, 7, 8, 9, 10, 100, 101, 102, 1000]
    ds = make(factors={"rate_hz": rates}, n_tracks=2)
    (ax,) = axes_of(tmtf_figure(ds, compact=True)[0])
    shown = [tick.get_text() for tick in ax.get_xticklabels()]
    assert shown[0] == "4"
    assert shown[-1] == "1000"
    assert len(shown) < len(rates)


def test_a_fitted_human_curve_is_a_curve_and_is_called_one(tmtf):
    figure, numbers = tmtf_figure(tmtf)
    curve = numbers[numbers["kind"] == "human_curve"]
    published = as_thresholds("tmtf_parameters").attrs["tmtf"]
    expected = lowpass_db(curve["rate_hz"].to_numpy(float), published["peak_sensitivity_db"], published["cutoff_hz"])
    np.testing.assert_allclose(curve["threshold"].to_numpy(float), expected, rtol=0, atol=1e-12)
    assert len(curve) > 20
    (text,) = [t for t in texts_of(figure) if "Morimoto" in t]
    assert "curve of fitted mean parameters, not measured points" in text
    (ax,) = axes_of(figure)
    (line,) = [line for line in ax.lines if len(line.get_xdata()) == len(curve) and line.get_color() == "#222222"]
    assert line.get_marker() in ("None", "", None)


def test_low_pass_fits_are_those_of_the_evaluation(hard):
    _, numbers = tmtf_figure(hard, [])
    for row in fit_tmtf(hard).itertuples():
        curve = numbers[(numbers["kind"] == "lowpass_fit") & (numbers["source"] == row.observer)]
        expected = lowpass_db(curve["rate_hz"].to_numpy(float), row.peak_sensitivity_db, row.cutoff_hz)
        np.testing.assert_array_equal(curve["threshold"].to_numpy(float), expected)
    assert "lowpass_fit" not in set(tmtf_figure(hard, [], fits=False)[1]["kind"])


def test_tracks_at_a_limit_are_shown_never_dropped(hard):
    figure, numbers = tmtf_figure(hard, [])
    held = numbers[numbers["kind"] == "at_ceiling"]
    expected = (hard["status"] == STATUS.index("at_ceiling")).sum("track").values
    assert int(held["n"].sum()) == expected.sum() > 0
    assert set(held["threshold"]) == {0.0}
    (ax,) = axes_of(figure)
    assert sum(line.get_marker() == "v" for line in ax.lines) == (expected > 0).sum() == len(held)
    assert {t.get_text() for t in ax.texts} == {f"{n}/{hard.sizes['track']}" for n in expected[expected > 0]}
    assert any("upper limit" in text for text in texts_of(figure))


def test_a_threshold_that_is_not_a_number_leaves_a_gap(make):
    ds = make(n_tracks=2)
    ds["status"].values[3] = STATUS.index("max_trials")
    ds["threshold"].values[3] = np.nan
    figure, numbers = tmtf_figure(ds, [])
    model = numbers[numbers["kind"] == "model"]
    assert model["threshold"].isna().tolist() == [i == 3 for i in range(8)]
    assert png(figure)


def test_one_track_has_no_interval(single):
    figure, numbers = tmtf_figure(single)
    assert numbers[numbers["kind"] == "model"][["low", "high"]].isna().all(axis=None)
    assert not [c for ax in axes_of(figure) for c in ax.containers]
    titles = [legend.get_title().get_text() for part in figure.subfigs for legend in part.legends]
    assert titles == ["One track each"]


@COMPACT
def test_each_group_gets_a_panel_and_each_observer_keeps_its_marker(bandwidths, compact):
    figure, _ = tmtf_figure(bandwidths, compact=compact)
    panels = axes_of(figure)
    assert [ax.get_title(loc="left") for ax in panels] == ["Bandwidth 3 Hz", "Bandwidth 31 Hz", "Bandwidth 314 Hz"]
    table = thresholds(bandwidths)
    for ax, bandwidth in zip(panels, (3, 31, 314), strict=True):
        markers = {}
        for observer, rows in table[table["bandwidth_hz"] == bandwidth].groupby("observer"):
            for line in ax.lines:
                if np.array_equal(line.get_ydata(), rows["threshold"]):
                    markers[observer] = line.get_marker()
        assert markers == {"dau1997": "o", "paulick2024": "s"}


def test_few_groups_of_one_observer_share_a_panel(bandwidths):
    figure, _ = tmtf_figure(bandwidths.isel(observer=[0]))
    assert len(axes_of(figure)) == 1
    assert [t for t in texts_of(figure) if "bandwidth" in t] == [f"dau1997, bandwidth {b} Hz" for b in (3, 31, 314)]


def test_human_points_go_to_the_panel_of_their_condition_with_error_bars(make):
    ds = make(
        factors={"carrier_hz": [400.0, 1600.0], "rate_hz": [4, 16, 64, 256]},
        threshold=lambda **_: -25.0,
        human=["psylab_sam_example"],
        n_tracks=2,
    )
    figure, numbers = tmtf_figure(ds)
    human = numbers[numbers["kind"] == "human_points"]
    source = as_thresholds("psylab_sam_example")
    assert sorted(human["threshold"]) == pytest.approx(sorted(source["value"]))
    assert sorted(human["low"].dropna()) == pytest.approx(sorted(source["error_low"].dropna()))
    for ax, carrier in zip(axes_of(figure), (400.0, 1600.0), strict=True):
        expected = set(source[source["carrier_hz"] == carrier]["value"].round(6))
        assert expected <= {round(y, 6) for _, y in drawn_points(ax)}


def test_only_human_data_of_the_condition_that_the_run_fixes(make):
    stimulus = {"kind": "am_tone", "carrier_hz": 1600.0, "level_db_spl": 60.0}
    ds = make(human=["psylab_sam_example"], stimulus=stimulus, n_tracks=2)
    human = tmtf_figure(ds)[1].query("kind == 'human_points'")
    source = as_thresholds("psylab_sam_example").query("carrier_hz == 1600")
    assert sorted(human["threshold"]) == pytest.approx(sorted(source["value"]))


def test_human_tables_may_be_given_and_left_out(tmtf):
    table = as_thresholds("tmtf_parameters")
    pd.testing.assert_frame_equal(tmtf_figure(tmtf, table)[1], tmtf_figure(tmtf)[1])
    assert not tmtf_figure(tmtf, [])[1]["kind"].str.startswith("human").any()
    with pytest.raises(SpecError, match="lacks the columns"):
        tmtf_figure(tmtf, pd.DataFrame({"value": [1.0]}))
    with pytest.raises(SpecError, match="tmtf_parameters"):
        tmtf_figure(tmtf, "tmtf_parameter")


def test_human_thresholds_of_another_variable_are_not_drawn(tone):
    assert set(threshold_figure(tone, "tmtf_parameters")[1]["kind"]) == {"model"}


def test_a_run_that_is_no_tmtf_is_refused_with_the_way_out(tone):
    with pytest.raises(SpecError, match="threshold_figure"):
        tmtf_figure(tone)


@COMPACT
def test_general_figure_has_a_logarithmic_frequency_axis_and_upright_levels(tone, compact):
    figure, numbers = threshold_figure(tone, compact=compact)
    (ax,) = axes_of(figure)
    assert ax.get_xscale() == "log"
    assert ax.get_xlabel() == "Frequency (Hz)"
    assert ax.get_ylim()[0] < ax.get_ylim()[1]
    assert [part.get_supylabel() for part in figure.subfigs if part.get_supylabel()] == ["Signal level (dB SPL)"]
    assert numbers["threshold"].tolist() == thresholds(tone)["threshold"].tolist()


def test_less_than_a_decade_stays_linear(make):
    ds = make(factors={"gap_hz": [100, 200, 300]}, threshold=lambda **_: -20.0, n_tracks=2)
    assert axes_of(threshold_figure(ds)[0])[0].get_xscale() == "linear"


def test_text_factors_and_single_conditions_can_be_drawn(make):
    words = make(factors={"carrier": ["noise", "tone"]}, threshold=lambda **_: -20.0, n_tracks=2)
    (ax,) = axes_of(threshold_figure(words)[0])
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["noise", "tone"]
    alone = make(factors={}, threshold=lambda **_: -20.0, n_tracks=2)
    figure, numbers = threshold_figure(alone)
    assert png(figure)
    assert len(numbers) == 1


def test_a_factor_that_follows_the_abscissa_makes_no_panels(make):
    widths = [0.0, 0.1, 0.2, 0.3]
    both = make({"notch_lower_relative": widths, "notch_upper_relative": widths}, threshold=lambda **_: -10.0)
    figure, numbers = threshold_figure(both.isel(condition=[0, 5, 10, 15]))
    (ax,) = axes_of(figure)
    assert sorted(set(drawn_points(ax)[:, 0].round(6))) == widths
    assert numbers["notch_upper_relative"].tolist() == widths
    assert threshold_numbers(both.isel(condition=[0, 1, 2, 4, 5, 6])).x == "notch_upper_relative"  # three values to two


def test_a_level_of_minus_infinity_is_a_name(make):
    run = make({"am_depth_db": [-np.inf, -6.0], "am_rate_hz": [2.0, 8.0]}, threshold=lambda **_: -10.0)
    (ax,) = axes_of(threshold_figure(run)[0])
    assert ax.get_xlabel() == "AM rate (Hz)"
    (ax,) = axes_of(threshold_figure(run, x="am_depth_db")[0])
    assert len(ax.get_xticklabels()) == 2


def test_the_abscissa_can_be_chosen(bandwidths):
    figure, _ = threshold_figure(bandwidths, x="bandwidth_hz")
    assert {ax.get_xlabel() for ax in axes_of(figure)} <= {"Bandwidth (Hz)", ""}
    with pytest.raises(SpecError, match="Did you mean 'bandwidth_hz'"):
        threshold_figure(bandwidths, x="bandwith_hz")


def test_small_differences_do_not_fill_the_axis(make):
    ds = make(factors={"frequency_hz": [500, 1000]}, threshold=lambda **_: -20.0, n_tracks=2)
    low, high = axes_of(threshold_figure(ds)[0])[0].get_ylim()
    assert high - low >= 6.0


def test_names_are_printed_as_they_are(make):
    ds = make(observers=("$\\frac{", "a_b^c"), n_tracks=2)
    figure, _ = tmtf_figure(ds, [])
    assert {"$\\frac{", "a_b^c"} <= set(texts_of(figure))
    assert png(figure)


def test_files_are_the_same_every_time_and_carry_no_date(tmtf):
    first, second = tmtf_figure(tmtf)[0], tmtf_figure(tmtf)[0]
    for write in (svg, png):
        assert write(first) == write(second) == write(first)
    text = svg(first).decode()
    assert "<dc:date>" not in text
    assert "Matplotlib" not in text


def test_matplotlib_settings_are_left_alone(tmtf):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    svg(tmtf_figure(tmtf)[0])
    assert dict(mpl.rcParams) == before


def test_nothing_is_drawn_outside_the_figure(hard, bandwidths):
    for ds in (hard, bandwidths):
        for compact in (False, True):
            figure, _ = tmtf_figure(ds, "tmtf_parameters", compact=compact)
            width, height = figure.get_size_inches()
            inside = figure.get_tightbbox()
            assert inside.x0 >= -0.01
            assert inside.y0 >= -0.01
            assert inside.x1 <= width + 0.01
            assert inside.y1 <= height + 0.01


def test_the_factor_with_the_most_values_is_the_abscissa(make):
    factors = {"masker_hz": [2400.0, 4000.0], "masker_level_db_spl": [40.0, 60.0, 80.0]}
    growth = make(factors, threshold=lambda **_: -20.0)
    assert threshold_numbers(growth).x == "masker_level_db_spl"
    assert threshold_numbers(growth).groups == ["masker_hz"]
    assert threshold_numbers(growth, x="masker_hz").x == "masker_hz"


@pytest.mark.parametrize(
    ("unit", "hardest", "scale"), [("db", 4.0, "log"), ("db", 60.0, "linear"), ("level", 4.0, "linear")]
)
def test_levels_that_were_multiplied_have_a_logarithmic_axis(make, unit, hardest, scale):
    rule = {"n_down": 2, "level_start": 150.0, "level_min": 0.1, "steps": [2.0], "step_unit": unit, "n_reversals": 4}
    thresholds_hz = {2.0: 100.0, 20.0: hardest}
    run = make(
        {"carrier_hz": [2.0, 20.0]}, threshold=lambda carrier_hz: thresholds_hz[carrier_hz], tracks="deviation_hz",
        unit="Hz", long_name="Deviation", rule=rule, n_tracks=2,
    )  # fmt: skip
    (ax,) = axes_of(threshold_figure(run)[0])
    assert ax.get_yscale() == scale


def test_human_points_without_the_factor_stand_where_the_experiment_says(make):
    columns = {"label": "X", "tracks": "depth_db", "value": -20.0, "error_low": -22.0, "error_high": -18.0}
    human = pd.DataFrame([columns | {"kind": "mean"}])
    somewhere = make({"rate_hz": [2.0, 5.0]}, comparison={"where": {"rate_hz": 5.0}})
    table = threshold_numbers(somewhere, [human]).table
    assert table[table["kind"] == "human_points"]["rate_hz"].tolist() == [5.0]
    nowhere = threshold_numbers(make({"rate_hz": [2.0, 5.0]}), [human]).table
    assert not nowhere["kind"].str.startswith("human").any()
