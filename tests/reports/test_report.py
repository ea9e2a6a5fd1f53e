"""The page and its files: complete, self-contained, inert, the same every time, and never over someone else's file."""

from __future__ import annotations

import base64
import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from io import BytesIO, StringIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tomli_w
from PIL import Image

from psysim import results
from psysim.errors import SpecError, StoreError
from psysim.evaluation import compare, match_points
from psysim.reports import methods, report
from psysim.results import STATUS

FEW = {"rate_hz": [4, 64, 256]}
SECTIONS = ["thresholds", "human", "tracks", "methods", "provenance", "experiment"]


def page_of(path):
    """Return the page as a tree: it is written as well-formed XML."""
    return ET.fromstring(path.read_text(encoding="utf-8").split("\n", 1)[1])


def text_of(node):
    return re.sub(r"\s+", " ", "".join(node.itertext())).strip()


def rows_of(table):
    return [[text_of(cell) for cell in row] for row in table.iter("tr")]


def tables_of(page):
    return {text_of(table.find("caption")): rows_of(table) for table in page.iter("table")}


@pytest.fixture(scope="module")
def written(tmtf, tmp_path_factory):
    return report(tmtf, tmp_path_factory.mktemp("report") / "tmtf.html")


@pytest.fixture(scope="module")
def hard_page(hard, tmp_path_factory):
    return report(hard, tmp_path_factory.mktemp("hard") / "hard.html")


# ------------------------------------------------------------ the page
def test_page_is_well_formed_with_one_title_and_ordered_headings(written, hard_page):
    for path in (written, hard_page):
        page = page_of(path)
        levels = [int(node.tag[1]) for node in page.iter() if re.fullmatch("h[1-6]", node.tag)]
        assert levels.count(1) == 1
        assert levels[0] == 1
        assert all(b <= a + 1 for a, b in pairwise(levels))
        ids = [node.get("id") for node in page.iter() if node.get("id")]
        assert len(ids) == len(set(ids))


def test_html_parser_sees_every_tag_closed(written):
    class Checker(HTMLParser):
        def __init__(self):
            super().__init__()
            self.open = []

        def handle_starttag(self, tag, attrs):
            self.open.append(tag)

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    checker = Checker()
    checker.feed(written.read_text(encoding="utf-8"))
    assert checker.open == []


def test_all_sections_are_there_and_linked(written):
    page = page_of(written)
    assert [node.get("id") for node in page.iter("section") if node.get("id") != "warnings"] == SECTIONS
    assert [a.get("href") for a in page.find("body/header/nav").iter("a")] == [f"#{name}" for name in SECTIONS]


def test_page_needs_nothing_from_elsewhere(written):
    html = written.read_text(encoding="utf-8")
    page = page_of(written)
    assert not list(page.iter("script"))
    assert not list(page.iter("link"))
    assert not list(page.iter("iframe"))
    for node in page.iter():
        for name, value in node.attrib.items():
            if name in ("src", "srcset"):
                assert value.startswith("data:image/svg+xml;base64,")
            assert not name.startswith("on")
            if name == "href":
                assert value.startswith(("#", "tmtf_files/"))
    style = "".join(node.text for node in page.iter("style"))
    assert "url(" not in style
    assert "@import" not in style
    assert not re.search(r"https?://", re.sub(r"base64,[A-Za-z0-9+/=]+", "", html))


def test_figures_have_alternative_text_captions_and_a_drawing_for_phones(written):
    page = page_of(written)
    figures = list(page.iter("figure"))
    assert len(figures) == 2
    for figure in figures:
        image = figure.find(".//img")
        assert len(image.get("alt")) > 40
        assert len(text_of(figure.find("figcaption"))) > 40
        narrow = figure.find(".//source")
        assert "max-width" in narrow.get("media")
        assert int(narrow.get("width")) <= 390 < int(image.get("width"))
        for address in (image.get("src"), narrow.get("srcset")):
            drawing = ET.fromstring(base64.b64decode(address.partition(",")[2]))
            assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
    assert "not measured points" in text_of(figures[0])


def test_wide_tables_scroll_inside_their_own_box(written):
    page = page_of(written)
    parents = {child: parent for parent in page.iter() for child in parent}
    tables = list(page.iter("table"))
    assert tables
    for table in tables:
        box = parents[table]
        assert box.get("class") == "scroll"
        assert box.get("tabindex") == "0"
    assert re.search(r"\.scroll \{[^}]*overflow-x: auto", "".join(n.text for n in page.iter("style")))


def test_threshold_table_equals_the_results(written, tmtf):
    (rows,) = [r for caption, r in tables_of(page_of(written)).items() if "at threshold" in caption]
    stated = results.thresholds(tmtf)
    assert rows[0][0] == "Modulation rate (Hz)"
    assert rows[0][1] == "Threshold (dB)"
    for row, expected in zip(rows[1:], stated.itertuples(), strict=True):
        assert row[0] == str(expected.rate_hz)
        assert row[1] == f"{expected.threshold:.2f}".replace("-", "−")
        assert row[2] == f"{expected.ci_low:.2f} … {expected.ci_high:.2f}".replace("-", "−")
        assert row[4] == "8 of 8"


def test_comparison_states_the_numbers_of_the_evaluation(written, tmtf):
    rows = tables_of(page_of(written))["Model thresholds against human thresholds"]
    (expected,) = compare(tmtf).to_dict("records")
    cells = dict(zip(rows[0], rows[1], strict=True))
    assert cells["Human data"] == expected["label"]
    assert cells["Confidence in the data"] == "medium"
    assert cells["RMS difference (dB)"] == f"{expected['rmse']:.2f}"
    assert cells["Bias, model minus human (dB)"].replace("−", "-") == f"{expected['bias']:+.2f}"
    assert cells["Pearson r"] == f"{expected['pearson_r']:.2f}"
    peaks = f"{expected['model_peak_sensitivity_db']:.1f} / {expected['human_peak_sensitivity_db']:.1f}"
    assert cells["Peak sensitivity (dB): model / human"].replace("−", "-") == peaks
    cutoffs = f"{expected['model_cutoff_hz']:.0f} / {expected['human_cutoff_hz']:.0f}"
    assert cells["Cutoff (Hz): model / human"] == cutoffs


def test_largest_deviation_is_the_largest(written, tmtf):
    points = match_points(tmtf)
    worst = points.iloc[int(points["deviation"].abs().to_numpy().argmax())]
    text = text_of(page_of(written))
    assert f"at modulation rate {worst['rate_hz']} Hz: model {worst['model']:.2f} dB".replace("-", "−") in text


def test_human_data_state_where_they_come_from(written):
    rows = tables_of(page_of(written))["Human data set tmtf_parameters"]
    facts = dict(rows)
    assert facts["Confidence"] == "medium"
    assert "Morimoto" in facts["Source"]
    assert "not measured thresholds" in facts["Caveat"]
    assert facts["Origin of the numbers"] == "quoted in secondary code; abstract; curve computed here"


def test_provenance_methods_and_description_are_in_full(written, tmtf):
    page = page_of(written)
    facts = dict(tables_of(page)["What this run was made with"])
    stated = json.loads(tmtf.attrs["provenance"])
    for name, key in (("psysim", "psysim"), ("Seed", "seed"), ("Device", "device"), ("Date of the run", "created")):
        assert facts[name] == str(stated[key])
    assert facts["Calibration of dau1997"] == "Calibrated; internal noise std 4.2"
    assert text_of(page.find(".//p[@class='methods']")) == methods(tmtf)
    assert list(page.iter("pre"))[-1].text == tmtf.attrs["spec_toml"]
    assert list(page.iter("details"))


# ------------------------------------------------------------ difficult runs
def test_users_text_is_inert(make, tmp_path):
    evil = "<script>alert('x')</script> & \"quoted\" ]]>"
    ds = make(title=evil, observers=(evil,), factors=FEW, n_tracks=2, human=["tmtf_parameters"])
    path = report(ds, tmp_path / "a <b> & c.html")
    page = page_of(path)
    assert not list(page.iter("script"))
    assert text_of(page.find(".//h1")) == evil
    assert page.find("head/title").text == evil
    assert "<script" not in path.read_text(encoding="utf-8")
    for link in page.find(".//ul[@class='files']").iter("a"):
        assert " " not in link.get("href")
        assert "<" not in link.get("href")


def test_tracks_at_a_limit_are_named(hard_page, hard):
    found = tables_of(page_of(hard_page))
    held = hard["status"].values == STATUS.index("at_ceiling")
    assert dict(zip(*[found["Number of tracks by the way they ended"][i] for i in (0, 2)], strict=True))[
        "At the upper limit"
    ] == str(held.sum())
    rows = found["Tracks that did not converge, by name"][1:]
    assert len(rows) == held.any(axis=2).sum()
    for row, (c, o) in zip(rows, np.argwhere(held.any(axis=2)), strict=True):
        assert row[0] == hard["observer"].values[o]
        assert row[1] == f"modulation rate {hard['rate_hz'].values[c]} Hz"
        assert row[4] == ", ".join(str(t) for t in np.flatnonzero(held[c, o]))
    assert "tracks were held at a limit" in text_of(page_of(hard_page).find(".//section[@id='warnings']"))


def test_uncalibrated_observers_are_a_warning_before_anything_else(hard_page, hard):
    page = page_of(hard_page)
    first = next(iter(page.find("body/main")))
    assert first.get("id") == "warnings"
    assert f"The internal noise of '{hard['observer'].values[1]}' was not calibrated" in text_of(first)
    assert "'dau1997' was not" not in text_of(first)


def test_without_human_data_the_page_says_how_to_get_some(hard_page):
    page = page_of(hard_page)
    assert "names no human data" in text_of(page.find(".//section[@id='human']"))
    assert not [caption for caption in tables_of(page) if caption.startswith("Human data set")]


def test_a_good_run_has_no_warnings(written):
    assert page_of(written).find(".//section[@id='warnings']") is None


def test_unfinished_runs_and_few_tracks_say_so(make, tmp_path):
    ds = make(factors=FEW, n_tracks=2).assign_attrs(complete=0)
    ds["status"].values[:, :, 1] = STATUS.index("running")
    ds["threshold"].values[:, :, 1] = np.nan
    text = text_of(page_of(report(ds, tmp_path / "r.html")))
    assert "This run is not finished: 3 of 6 tracks have ended" in text
    assert "With 2 tracks per condition" in text


def test_low_confidence_and_impossible_comparisons_say_so(make, tmp_path):
    ds = make(factors=FEW, n_tracks=2, human=["psylab_sam_example"])
    warnings = text_of(page_of(report(ds, tmp_path / "r.html")).find(".//section[@id='warnings']"))
    assert "Confidence in the human data 'psylab_sam_example' is low to medium" in warnings
    assert "'psylab_sam_example' was not compared: the run does not state carrier_hz" in warnings


def test_human_data_that_are_gone_are_a_warning_but_a_wrong_argument_is_an_error(make, tmp_path):
    ds = make(factors=FEW, n_tracks=2, human=["of_a_colleague", "tmtf_parameters"])
    page = page_of(report(ds, tmp_path / "r.html"))
    assert "'of_a_colleague', named by the experiment, are not known" in text_of(page)
    assert "Human data set tmtf_parameters" in tables_of(page)
    with pytest.raises(SpecError, match="of_a_colleague"):
        report(ds, tmp_path / "s.html", human="of_a_colleague")
    assert not (tmp_path / "s.html").exists()


@pytest.mark.parametrize("name", ["single", "bandwidths", "tone"])
def test_other_runs_make_complete_reports(name, request, tmp_path):
    path = report(request.getfixturevalue(name), tmp_path / "r.html")
    page = page_of(path)
    assert [n.get("id") for n in page.iter("section") if n.get("id") != "warnings"] == SECTIONS
    text = text_of(page)
    assert "nan" not in re.sub(r"[a-z]nan|nan[a-z]", "", text)
    assert "None" not in text


def test_nothing_converged(make, tmp_path):
    ds = make(factors=FEW, n_tracks=2)
    ds["status"].values[:] = STATUS.index("max_trials")
    ds["threshold"].values[:] = np.nan
    text = text_of(page_of(report(ds, tmp_path / "r.html")))
    assert "No track converged, so there is no threshold" in text
    assert "3 of 3 thresholds are missing" in text


def test_a_run_without_trials_or_description(tmp_path):
    ds = results.empty_dataset({"rate_hz": [4]}, ["a"], 1, 1, 3, "dB", "Modulation depth")
    text = text_of(page_of(report(ds, tmp_path / "r.html")))
    assert "No trial has been run yet" in text
    assert "Untitled experiment" in text


# ------------------------------------------------------------ the files
def test_files_beside_the_page(written, tmtf):
    folder = written.parent / "tmtf_files"
    present = {path.name for path in folder.iterdir()}
    assert {"tmtf.svg", "tmtf.png", "example_tracks.svg", "example_tracks.png", "methods.txt"} <= present
    listed = {
        a.get("href").removeprefix("tmtf_files/") for a in page_of(written).find(".//ul[@class='files']").iter("a")
    }
    assert listed == present - {"report.json"}
    table = pd.read_csv(folder / "threshold_table.csv")
    pd.testing.assert_frame_equal(table, results.thresholds(tmtf), check_dtype=False)
    numbers = pd.read_csv(folder / "tmtf_figure.csv")
    np.testing.assert_allclose(
        numbers[numbers["kind"] == "model"]["threshold"], results.thresholds(tmtf)["threshold"], rtol=1e-15
    )
    assert (folder / "methods.txt").read_text().strip() == methods(tmtf)
    assert (folder / "experiment.toml").read_text() == tmtf.attrs["spec_toml"]
    assert pd.read_csv(StringIO((folder / "comparison.csv").read_text()))["n_points"].tolist() == [8]
    assert round(Image.open(BytesIO((folder / "tmtf.png").read_bytes())).info["dpi"][0]) == 150


def test_report_is_small(written, hard_page):
    for path in (written, hard_page):
        files = [path, *path.with_name(f"{path.stem}_files").iterdir()]
        assert sum(file.stat().st_size for file in files) < 1_000_000


def test_same_run_gives_the_same_bytes(tmtf, written, tmp_path):
    again = report(tmtf, tmp_path / "tmtf.html")
    assert again.read_bytes() == written.read_bytes()
    for path in (written.parent / "tmtf_files").iterdir():
        assert (tmp_path / "tmtf_files" / path.name).read_bytes() == path.read_bytes()


def test_stored_runs_give_the_same_report(tmtf, written, tmp_path):
    store = results.save(tmtf, tmp_path / "tmtf.zarr")
    path = report(store)
    assert path == tmp_path / "tmtf.html"
    assert path.read_bytes() == written.read_bytes()
    with pytest.raises(StoreError, match="no result"):
        report(tmp_path / "other.zarr")


def test_factors_are_in_the_order_of_the_description_whatever_the_store_did(make, tmp_path):
    factors = {"zeta_hz": [1000, 2000], "alpha": ["x", "y"], "beta_s": [0.1, 0.2]}
    ds = make(factors=factors, threshold=lambda **_: -20.0, n_tracks=1)
    order = ["beta_s", "zeta_hz", "alpha"]
    shuffled = ds.drop_vars(order).assign_coords({name: ds[name].variable for name in order})
    assert results.factors(shuffled) == order
    pages = [report(run, tmp_path / f"{i}" / "r.html") for i, run in enumerate((ds, shuffled))]
    assert pages[0].read_bytes() == pages[1].read_bytes()
    (rows,) = [r for caption, r in tables_of(page_of(pages[0])).items() if "at threshold" in caption]
    assert rows[0][:3] == ["Zeta (Hz)", "Alpha", "Beta (s)"]


def test_own_report_is_replaced_and_old_files_go(tiny, tmp_path):
    path = report(tiny, tmp_path / "r.html")
    own = tmp_path / "r_files" / "my_notes.txt"
    own.write_text("mine")
    assert (tmp_path / "r_files" / "comparison.csv").exists()
    report(tiny, path, human=[])
    assert not (tmp_path / "r_files" / "comparison.csv").exists()
    assert own.read_text() == "mine"
    assert not list(tmp_path.rglob(".*"))


def test_the_finished_run_replaces_the_report_of_the_unfinished_one(tiny, tmp_path):
    facts = json.loads(tiny.attrs["provenance"]) | {"created": "2026-01-01T00:00:00+00:00", "calibration": {}}
    path = report(tiny.assign_attrs(complete=0, provenance=json.dumps(facts)), tmp_path / "r.html", human=[])
    text = path.read_text(encoding="utf-8")
    assert "not finished" in text
    assert "does not say how the internal noise of &#39;dau1997&#39; was set" in text
    assert "not finished" not in report(tiny, path, human=[]).read_text(encoding="utf-8")
    with pytest.raises(StoreError, match="another run"):
        report(tiny.assign_attrs(provenance=json.dumps(facts | {"psysim": "0.0.9"})), path)


def test_other_reports_and_other_files_are_kept(tiny, tone, tmp_path):
    path = report(tiny, tmp_path / "r.html")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(StoreError, match="another run"):
        report(tone, path)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    foreign = tmp_path / "thesis.html"
    foreign.write_text("<html></html>")
    for overwrite in (False, True):
        with pytest.raises(StoreError, match="no psysim report"):
            report(tone, foreign, overwrite=overwrite)
    (tmp_path / "data_files").mkdir()
    with pytest.raises(StoreError, match="holds no psysim report"):
        report(tone, tmp_path / "data.html")
    assert not (tmp_path / "data.html").exists()
    report(tone, path, overwrite=True)
    assert "Tone in noise" in path.read_text(encoding="utf-8")
    assert not (tmp_path / "r_files" / "tmtf.svg").exists()


def test_a_failure_leaves_the_old_page(tiny, tmp_path, monkeypatch):
    path = report(tiny, tmp_path / "r.html")
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(StoreError, match="No space left on device"):
        report(tiny, path)
    assert path.read_bytes() == before
    assert not list(tmp_path.rglob(".*"))


def test_names_of_reports(tiny, tmp_path):
    with pytest.raises(SpecError, match=r"end in \.html"):
        report(tiny, tmp_path / "report.pdf")
    with pytest.raises(SpecError, match="out is missing"):
        report(tiny)
    assert report(tiny, str(tmp_path / "new" / "folder" / "r.html"), human=[]).exists()


def test_a_manifest_cannot_reach_outside_its_folder(tiny, tmp_path):
    report(tiny, tmp_path / "r.html")
    precious = tmp_path / "precious.txt"
    precious.write_text("x")
    manifest = tmp_path / "r_files" / "report.json"
    facts = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(facts | {"files": ["../precious.txt", str(precious)]}))
    report(tiny, tmp_path / "r.html")
    assert precious.exists()


def test_datasets_that_break_the_schema_are_refused(tmtf, tmp_path):
    with pytest.raises(StoreError, match="threshold"):
        report(tmtf.drop_vars("threshold"), tmp_path / "r.html")


def test_description_with_profile_and_lists_survives(make, tmp_path):
    ds = make(factors=FEW, n_tracks=1)
    text = tomli_w.dumps({"title": "t", "x": ["<a>", "&b;"]})
    page = page_of(report(ds.assign_attrs(spec_toml=text), tmp_path / "r.html"))
    assert list(page.iter("pre"))[-1].text == text


def test_importing_the_room_is_light():
    import subprocess
    import sys

    code = "import sys, psysim.reports; print([m for m in ('matplotlib', 'torch', 'jinja2') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert done.stdout.strip() == "[]"
