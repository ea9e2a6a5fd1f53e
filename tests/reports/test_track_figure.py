"""Example tracks: every trial of the chosen tracks, with answers, reversals and threshold."""

from __future__ import annotations

import numpy as np
import pytest

from psysim.errors import SpecError
from psysim.reports import tracks_figure
from psysim.reports.style import png, svg
from psysim.reports.track_figure import choose_tracks
from psysim.results import STATUS


def test_plotted_trials_are_those_of_the_dataset(hard):
    figure, numbers = tracks_figure(hard, 6)
    assert numbers["panel"].nunique() == 6
    for _, panel in numbers.groupby("panel"):
        first = panel.iloc[0]
        track = hard.sel(condition=first["condition"], observer=first["observer"], track=first["track"])
        n = int(track["n_trials"])
        assert len(panel) == n
        np.testing.assert_array_equal(panel["level"], track["level"].values[:n])
        np.testing.assert_array_equal(panel["correct"], track["correct"].values[:n] == 1)
        np.testing.assert_array_equal(panel["reversal"], track["reversal"].values[:n] == 1)
        assert first["status"] == STATUS[int(track["status"])]
    axes = [ax for ax in figure.get_axes() if ax.axison]
    assert len(axes) == 6
    for ax, (_, panel) in zip(axes, numbers.groupby("panel"), strict=True):
        correct, wrong, reversal = (
            next(line for line in ax.lines if line.get_label() == name) for name in ("correct", "wrong", "reversal")
        )
        assert len(correct.get_xdata()) == panel["correct"].sum()
        assert len(wrong.get_xdata()) == (~panel["correct"]).sum()
        assert len(reversal.get_xdata()) == panel["reversal"].sum()


def test_tracks_that_did_not_converge_are_among_the_examples(hard):
    chosen = choose_tracks(hard, 6)
    assert len(set(chosen)) == 6
    assert "at_ceiling" in {STATUS[int(hard["status"].values[p])] for p in chosen}
    figure, _ = tracks_figure(hard, 6)
    assert any("at the upper limit" in ax.get_title(loc="left") for ax in figure.get_axes())


def test_all_observers_and_ends_of_the_conditions_are_covered(bandwidths):
    chosen = choose_tracks(bandwidths, 6)
    assert {o for _, o, _ in chosen} == {0, 1}
    assert {0, bandwidths.sizes["condition"] - 1} <= {c for c, _, _ in chosen}


def test_fewer_tracks_than_asked_for(make):
    ds = make(factors={"rate_hz": [4]}, n_tracks=2)
    assert choose_tracks(ds, 6) == [(0, 0, 0), (0, 0, 1)]


def test_a_run_without_trials_gives_an_empty_figure(make):
    from psysim.results import empty_dataset

    ds = empty_dataset({"rate_hz": [4]}, ["a"], 1, 1, 3, "dB", "Modulation depth, 20 log m (dB)")
    figure, numbers = tracks_figure(ds, 3)
    assert len(numbers) == 0
    assert png(figure)


@pytest.mark.parametrize("n", [0, 25])
def test_the_number_of_panels_is_bounded(tmtf, n):
    with pytest.raises(SpecError, match="n = "):
        tracks_figure(tmtf, n)


def test_files_are_the_same_every_time(tmtf):
    assert svg(tracks_figure(tmtf, 4)[0]) == svg(tracks_figure(tmtf, 4)[0])


def test_the_axis_names_the_tracked_variable(tone):
    figure, _ = tracks_figure(tone, 2, compact=True)
    assert [part.get_supylabel() for part in figure.subfigs if part.get_supylabel()] == ["Signal level (dB SPL)"]
