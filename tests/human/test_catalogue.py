from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest

from psysim import human
from psysim.errors import SpecError
from psysim.human import tables

DATA = Path(human.__file__).parent / "data"
BUILTIN = [name for kind in human.KINDS[:3] for name in human.names(kind)]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Keep the tests away from the user's own data."""
    monkeypatch.setenv("PSYSIM_DATA_DIR", str(tmp_path / "home"))
    return tmp_path


# ------------------------------------------------------------ the built-in data
def test_the_files_are_the_collected_ones_unedited():
    lines = (Path(__file__).parent / "checksums.txt").read_text().split("\n")[:-1]
    expected = {name: checksum for checksum, name in (line.split("  ") for line in lines)}
    found = {
        path.relative_to(DATA).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in DATA.rglob("*")
        if path.is_file()
    }
    assert found == expected


def test_names_by_kind():
    kinds = {kind: human.names(kind) for kind in human.KINDS}
    assert "tmtf_parameters" in kinds["data"]
    assert "iso226_2003" in kinds["reference"]
    assert "breebaart2001_bmld" in kinds["model_predictions"]
    assert kinds["user"] == []
    assert human.names() == sorted(name for names in kinds.values() for name in names)


def test_an_unknown_kind_or_name_is_refused_with_the_nearest():
    with pytest.raises(SpecError, match="Did you mean 'reference'"):
        human.names("references")
    for use in (human.load, human.provenance, human.as_thresholds):
        with pytest.raises(SpecError, match="Did you mean 'tmtf_parameters'"):
            use("tmtf_parameter")


@pytest.mark.parametrize("name", BUILTIN)
def test_every_table_is_complete_and_typed(name):
    table = human.load(name)
    facts = human.provenance(name)
    assert len(table) == facts.n_points
    assert set(tables.COLUMNS) <= set(table.columns)
    assert set(table["dataset"]) == {name}
    assert table["value"].dtype == np.float64
    assert np.isfinite(table["value"]).all()
    assert set(table["listener_group"]) <= set(tables.LISTENER_GROUPS)
    assert (table["origin"] != "").all()
    for column in ("error", "n_listeners", *(c for c in table if c.endswith("frequency_hz"))):
        assert table[column].dtype.kind in "if", column
    for column in ("experiment", "measure", "unit", "note"):
        assert all(isinstance(cell, str) for cell in table[column])


@pytest.mark.parametrize("name", BUILTIN)
def test_every_table_has_its_provenance(name):
    facts = human.provenance(name)
    assert facts.name == name
    for text in (facts.source, facts.read_in, facts.origin, facts.confidence, facts.experiment):
        assert text
    assert human.load(name).attrs["source"] == facts.source
    assert (facts.kind == "model_predictions") == (set(human.load(name)["listener_group"]) == {"MODEL"})


def test_provenance_by_hand():
    facts = human.provenance("schairer2008_forward_masking")
    assert facts.kind == "data"
    assert facts.file == "data/schairer2008_forward_masking.csv"
    assert facts.doi == "10.1121/1.2968686"
    assert facts.confidence == "high"
    assert facts.withheld is True
    assert facts.experiment.startswith(
        "**schairer2008_forward_masking.** Thresholds and psychometric slopes per listener"
    )
    assert human.provenance("fletcher_munson1933_loudness").withheld is False


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("guestrajappa2024_profile_analysis", "A complex of 1, 3, 5, 9 or 15"),  # second name of a shared heading
        ("tuning_qerb", "Q_ERB is centre frequency over ERB"),
        ("iso7029_2017", "Age shift dH"),
        ("nal_formulas", "NAL-RP gain"),
        ("iso226_2003", "Level at N phon for the 2003 parameters"),
    ],
)
def test_experiment_descriptions_of_shared_paragraphs(name, part):
    assert part in human.provenance(name).experiment


def test_empty_is_not_zero():
    table = human.load("tmtf_parameters")
    assert math.isnan(table["error"][0])
    assert math.isnan(table["modulation_rate_hz"][0])
    assert table["error_kind"][0] == ""


def test_a_mixed_column_stays_text():
    delays = human.load("schairer2008_forward_masking")["masker_signal_delay_ms"]
    assert set(delays) == {"default", "5"}


# ------------------------------------------------------------ the user's own data
HEADER = "dataset,experiment,rate_hz,measure,value,unit,error,error_kind,listener_group,n_listeners,origin,note"
GOOD = f"""{HEADER}
my_tmtf,AM detection,4,am_detection_threshold,-25.5,dB (20 log10 m),1.5,SD across listeners,NH,12,raw,
my_tmtf,AM detection,64,am_detection_threshold,-20,dB (20 log10 m),,,NH,12,raw,"quoted, with comma"
"""


def write(folder, text=GOOD, name="mine.csv"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_added_tables_are_known_by_name(folder):
    assert human.add(write(folder)) == "my_tmtf"
    assert human.names("user") == ["my_tmtf"]
    assert "my_tmtf" in human.names()
    table = human.load("my_tmtf")
    assert table["value"].tolist() == [-25.5, -20.0]
    assert table["rate_hz"].tolist() == [4, 64]
    facts = human.provenance("my_tmtf")
    assert (facts.kind, facts.n_points, facts.confidence) == ("user", 2, "not stated")
    assert human.as_thresholds("my_tmtf")["tracks"].tolist() == ["depth_db", "depth_db"]
    assert human.user_folder() == folder / "home" / "human"
    assert Path(facts.file) == folder / "home" / "human" / "my_tmtf.csv"


@pytest.mark.parametrize("start", ["", "[my_tmtf]\n"])
def test_provenance_beside_the_table_is_kept(folder, start):
    path = write(folder)
    sheet = 'source = "Own laboratory 2024"\nconfidence = "high"\nwithheld = true\nexperiment = "3AFC"\n'
    path.with_suffix(".toml").write_text(start + sheet)
    human.add(path)
    facts = human.provenance("my_tmtf")
    assert (facts.source, facts.confidence, facts.withheld) == ("Own laboratory 2024", "high", True)
    assert human.load("my_tmtf").attrs["experiment"] == "3AFC"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("confidense = 'high'", "Did you mean 'confidence'"),
        ("confidence = 1", "must be a text in quotes"),
        ("withheld = 'yes'", "must be true or false"),
        ("confidence =", "not valid TOML"),
    ],
)
def test_wrong_provenance_is_refused_and_nothing_registered(folder, text, message):
    path = write(folder)
    path.with_suffix(".toml").write_text(text)
    with pytest.raises(SpecError, match=message):
        human.add(path)
    assert human.names("user") == []


def test_a_name_is_never_replaced(folder):
    human.add(write(folder))
    with pytest.raises(SpecError, match=r"registered already.*or delete .*my_tmtf\.csv first"):
        human.add(write(folder, GOOD.replace("-25.5", "-1"), "other.csv"))
    assert human.load("my_tmtf")["value"][0] == -25.5
    with pytest.raises(SpecError, match="'gap_detection' is a built-in data set"):
        human.add(write(folder, GOOD.replace("my_tmtf", "gap_detection"), "gap.csv"))
    assert [p.name for p in human.user_folder().iterdir()] == ["my_tmtf.csv"]


def test_a_registered_table_that_was_edited_into_nonsense_is_refused(folder):
    human.add(write(folder))
    (human.user_folder() / "my_tmtf.csv").write_text(GOOD.replace("-25.5", "loud"))
    with pytest.raises(SpecError, match="line 2, column 'value': 'loud' is not a number"):
        human.load("my_tmtf")


def test_without_the_variable_the_platform_folder_is_used(monkeypatch):
    monkeypatch.delenv("PSYSIM_DATA_DIR")
    assert human.user_folder().name == "human"
    assert human.user_folder().parent.name == "psysim"
