"""Cells and sentences: numbers as people read them, machine names in words, nothing left out."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from psysim.evaluation import compare, fit_tmtf, match_points
from psysim.reports import sentences, tables
from psysim.reports.html import unbroken
from psysim.reports.labels import Labeller
from psysim.results import thresholds


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (-23.456, "dB", "−23.46"),
        (-0.001, "dB", "0.00"),
        (65.0, "dB SPL", "65.00"),
        (0.00234, "s", "0.00234"),
        (math.nan, "dB", "none"),
        (math.inf, "dB", "∞"),
    ],
)
def test_fixed(value, unit, text):
    assert tables.fixed(value, unit) == text


def test_signed_and_quantity():
    assert [tables.signed(v, "dB") for v in (1.5, -1.5, 0.0)] == ["+1.50", "−1.50", "0.00"]
    assert tables.quantity(1.5, "dB") == "1.50 dB"
    assert tables.quantity(1.5, "") == "1.5"


def test_every_row_has_a_cell_for_every_column(make, tmtf, hard, bandwidths, tone):
    human = make(
        factors={"carrier_hz": [400.0, 1600.0], "rate_hz": [4, 64]},
        threshold=lambda **_: -20.0,
        human=["psylab_sam_example", "wier1977_fdl"],
        n_tracks=2,
    )
    for ds in (tmtf, hard, bandwidths, tone, human):
        label = Labeller.of(ds)
        found = [tables.threshold_table(thresholds(ds), label), tables.status_table(ds), tables.limit_table(ds, label)]
        if "rate_hz" in ds.coords:
            found.append(tables.fit_table(fit_tmtf(ds), label))
        if ds is tmtf or ds is human:
            found.append(tables.comparison_table(compare(ds), label))
        for table in filter(None, found):
            assert {len(row) for row in table.rows} == {len(table.columns)}
            assert all(isinstance(cell, str) and cell for row in table.rows for cell in row)


def test_notes_of_the_evaluation_are_put_into_words_but_code_stays_code(make):
    ds = make(human=["psylab_sam_example", "tmtf_parameters"], n_tracks=2)
    notes = tables.comparison_notes(compare(ds), Labeller.of(ds))
    assert any("modulation rate interpolated on log rate" in note for note in notes)
    (refused,) = [note for note in notes if "not compared" in note]
    assert "the run does not state carrier frequency (400, 1600)" in refused
    assert "where={'carrier_hz': 400}" in refused


def test_headline_names_fit_agreement_and_lost_tracks(tmtf, hard, tone, bandwidths):
    text = sentences.headline(tmtf, thresholds(tmtf), fit_tmtf(tmtf), compare(tmtf))
    fit, comparison = fit_tmtf(tmtf).iloc[0], compare(tmtf).iloc[0]
    assert f"peak sensitivity of {fit['peak_sensitivity_db']:.2f} dB".replace("-", "−") in text
    assert f"cutoff of {fit['cutoff_hz']:.0f} Hz" in text
    assert f"RMS difference from Morimoto et al. 2019 (fit) is {comparison['rmse']:.2f} dB over 8 points" in text
    assert text.endswith("points.")
    lost = int((hard["status"].values != 1).sum())
    assert f"{lost} of 128 tracks did not converge." in sentences.headline(hard, thresholds(hard), fit_tmtf(hard), None)
    assert "lie between" in sentences.headline(tone, thresholds(tone), None, None)
    many = sentences.headline(bandwidths, thresholds(bandwidths), fit_tmtf(bandwidths), None)
    assert "The thresholds of the observers lie between" in many


def test_headline_does_not_quote_a_cutoff_that_was_not_measured(make):
    ds = make(factors={"rate_hz": [2, 4, 8]}, n_tracks=2)
    assert "no cutoff within the rates" in sentences.headline(ds, thresholds(ds), fit_tmtf(ds), None)


def test_largest_deviation_has_one_sentence_per_observer_and_data_set(make):
    ds = make(observers=("a", "b"), human=["tmtf_parameters"], n_tracks=2)
    found = sentences.largest_deviation(match_points(ds), Labeller.of(ds))
    assert [text.split()[0] for text in found] == ["a", "b"]
    assert sentences.largest_deviation(pd.DataFrame(columns=["observer", "label", "model"]), Labeller.of(ds)) == []


def test_a_table_without_losses_has_no_column_for_them(tmtf, hard):
    heads = [
        {column.label for column in tables.threshold_table(thresholds(ds), Labeller.of(ds)).columns}
        for ds in (tmtf, hard)
    ]
    assert "Tracks not used" not in heads[0]
    assert "Tracks not used" in heads[1]
    assert "Observer" not in heads[0]


def test_numbers_and_units_stay_on_one_line():
    assert (
        unbroken("at 4 Hz and −3 dB SPL, 95 % of 20 ms") == "at 4\u00a0Hz and −3\u00a0dB SPL, 95\u00a0% of 20\u00a0ms"
    )
    assert unbroken("4 Hzen 5 stairs") == "4 Hzen 5 stairs"


def test_provenance_of_unknown_form_is_shown(tmtf):
    table = tables.provenance_table({"psysim": "0.1.0", "cuda_driver": {"version": 13}, "calibration": {"a": "by ear"}})
    assert dict(table.rows) == {"psysim": "0.1.0", "Cuda driver": '{"version": 13}', "Calibration of a": "by ear"}
    assert tables.provenance_table({}).rows == [["Provenance", "not stated"]]


def test_thresholds_of_the_table_are_rounded_not_cut(single):
    table = thresholds(single).assign(threshold=-20.005001)
    rows = tables.threshold_table(table, Labeller.of(single)).rows
    assert {row[1] for row in rows} == {"−20.01"}
    assert np.isnan(table["ci_low"]).all()
    assert {row[2] for row in rows} == {"–"}
