from __future__ import annotations

import pytest

from psysim.errors import SpecError
from psysim.human import tables

HEADER = ",".join(("dataset", "experiment", "rate_hz", *tables.COLUMNS[2:]))
ROW = "mine,AM detection,4,am_detection_threshold,-25.5,dB,1.5,SD across listeners,NH,12,raw,"


def problems(tmp_path, *lines):
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(SpecError) as error:
        tables.check_table(path)
    return str(error.value)


def test_a_good_table_gives_its_name(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_bytes(f"\ufeff{HEADER}\r\n{ROW}\r\n\r\n".encode())  # as spreadsheets write it
    name, text = tables.check_table(path)
    assert name == "mine"
    assert text.startswith("dataset,")
    table = tables.read_table(text)
    assert len(table) == 1
    assert table["note"][0] == ""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("-25.5", "", "line 3, column 'value' is empty; delete the row"),
        ("-25.5", "-25.5 dB", "line 3, column 'value': '-25.5 dB' is not a number"),
        ("-25.5", "nan", "line 3, column 'value': 'nan' is not a number"),
        ("-25.5", '"-25,5"', "line 3, column 'value': '-25,5' is not a number; write a decimal point"),
        (",4,", ",4O,", "line 3, column 'rate_hz': '4O' is not a number"),
        (",dB,", ",,", "line 3, column 'unit' is empty; write the unit, or 1"),
        (",dB,", ",%,", "column 'unit': measure 'am_detection_threshold' has the units %, dB; use one unit"),
        (",raw,", ", ,", "line 3, column 'origin' is empty; say where the number comes from"),
        (",1.5,", ",-1.5,", "line 3, column 'error': -1.5 is negative"),
        ("SD across listeners", "", "line 3, column 'error_kind' is empty; say what error is"),
        (",NH,", ",normal,", "line 3, column 'listener_group': 'normal' is not known; use NH, HI, NH+HI, MODEL"),
        (",12,", ",0,", "line 3, column 'n_listeners': 0 is not a whole number above 0"),
        (",12,", ",2.5,", "line 3, column 'n_listeners': 2.5 is not a whole number above 0"),
        ("mine,", "yours,", "column 'dataset' holds 2 names (mine, yours); use one file for each"),
        (",raw,", ",raw", "line 3: 11 cells, the header has 12"),
        ("-25.5", "-25,5", "line 3: 13 cells, the header has 12; put a cell that contains a comma in double quotes"),
    ],
)
def test_wrong_cells_are_named_with_line_column_and_remedy(tmp_path, old, new, message):
    assert old in ROW
    assert message in problems(tmp_path, HEADER, ROW, ROW.replace(old, new, 1))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            HEADER.replace("origin", "orgin"),
            "column 'origin' is missing; add it, with empty cells where nothing is known. ",
        ),
        (HEADER.replace("origin", "orgin"), "Did you mean 'orgin'?"),
        (HEADER.replace("rate_hz", "value"), "column 'value' appears twice; rename one"),
        (HEADER.replace("rate_hz", "Rate (Hz)"), "column 'Rate (Hz)': use lower-case letters"),
        (HEADER.replace(",", ";"), "line 1: the cells are not separated by commas"),
        ("", "column 'dataset' is missing"),
    ],
)
def test_wrong_headers(tmp_path, header, message):
    assert message in problems(tmp_path, header, ROW)


def test_all_problems_are_listed_together_with_a_limit(tmp_path):
    bad = ROW.replace("-25.5", "x").replace(",raw,", ",,")
    text = problems(tmp_path, HEADER, *[bad] * 15)
    assert "(30 problems)" in text
    assert "line 2, column 'value'" in text
    assert "... and 10 more" in text


def test_no_rows_a_bad_name_and_no_condition(tmp_path):
    assert "there are no rows of data" in problems(tmp_path, HEADER)
    assert "'My data' is not a valid name" in problems(tmp_path, HEADER, ROW.replace("mine", "My data"))
    plain = ROW.replace(",4,", ",", 1)
    assert "no column for the condition" in problems(tmp_path, HEADER.replace(",rate_hz", ""), plain, plain)


def test_files_that_are_no_text(tmp_path):
    with pytest.raises(SpecError, match="There is no file"):
        tables.check_table(tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes(b"dataset,\xe9")
    with pytest.raises(SpecError, match="UTF-8"):
        tables.check_table(tmp_path / "latin.csv")


def test_column_types():
    text = "carrier,rate_hz,n,empty_hz,note,value\nbroadband,4,1,,,1\n1000,4.5,2,,,2\n"
    table = tables.read_table(text)
    kinds = {name: table[name].dtype.kind for name in table}
    assert kinds == {"carrier": "O", "rate_hz": "f", "n": "i", "empty_hz": "f", "note": "O", "value": "f"}
