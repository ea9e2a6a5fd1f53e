from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from psysim.errors import SpecError, StoreError
from psysim.results import DIMS, FIELDS, STATUS, document, empty_dataset, factors, validate

VARIABLES = [f for f in FIELDS if f.role == "variable"]


def make(**changes):
    arguments = {
        "conditions": {"rate_hz": [4, 8]},
        "observers": ["ideal"],
        "n_tracks": 2,
        "n_trials": 5,
        "n_intervals": 3,
        "level_unit": "dB",
        "level_long_name": "Modulation depth",
    }
    return empty_dataset(**{**arguments, **changes})


def test_empty_dataset_has_all_fields_types_units_and_missing_values():
    ds = make()
    for field in VARIABLES:
        assert ds[field.name].dims == field.dims
        assert str(ds[field.name].dtype) == field.dtype
        assert ds[field.name].attrs["units"] == ("dB" if field.unit == "tracked" else "1")
        expected = float(field.missing)
        np.testing.assert_array_equal(ds[field.name].values, np.full(ds[field.name].shape, expected))
    assert ds["status"].attrs["flag_meanings"].split() == list(STATUS)
    assert ds.attrs["complete"] == 0
    assert factors(ds) == ["rate_hz"]


@pytest.mark.parametrize(
    ("values", "dtype"),
    [([4, 8], "int64"), ([4, 8.5], "float64"), ([True, False], "bool"), (["a", "b"], "object")],
)
def test_factor_types(values, dtype):
    ds = make(conditions={"f": values})
    assert ds["f"].dtype == dtype
    assert ds["f"].values.tolist() == values


def test_mixed_and_list_factors_become_text():
    ds = make(conditions={"carrier": ["broadband", 1000], "notch_hz": [[900, 1100], [800, 1200]]})
    assert ds["carrier"].values.tolist() == ["broadband", "1000"]
    assert ds["notch_hz"].values.tolist() == ["[900, 1100]", "[800, 1200]"]


def test_a_factor_that_is_not_set_everywhere():
    ds = make(
        conditions={"bandwidth_hz": [3, None], "carrier": [None, "tone"], "flag": [None, True], "none": [None, None]}
    )
    np.testing.assert_array_equal(ds["bandwidth_hz"].values, [3.0, np.nan])
    assert ds["carrier"].values.tolist() == ["", "tone"]
    assert ds["flag"].values.tolist() == ["", "true"]
    assert ds["none"].values.tolist() == ["", ""]


def test_no_factor_is_one_condition():
    assert make(conditions={}).sizes["condition"] == 1


def test_factor_units_follow_their_names():
    ds = make(conditions={"level_db_spl": [60, 70], "depth_m": [0.1, 0.2], "ramp_s": [0.1, 0.2]})
    assert [ds[f].attrs["units"] for f in factors(ds)] == ["dB SPL", "1", "s"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"conditions": {"a": [1], "b": [1, 2]}}, "one value per condition"),
        ({"conditions": {"level": [1]}}, "name of the results schema"),
        ({"conditions": {"ci_low": [1]}}, "name of the results schema"),
        ({"conditions": {"a b": [1]}}, "not a valid factor name"),
        ({"conditions": {"a": []}}, "at least one condition"),
        ({"observers": []}, "number of observers is 0"),
        ({"n_tracks": 0}, "number of tracks is 0"),
    ],
)
def test_empty_dataset_refuses(changes, message):
    with pytest.raises(SpecError, match=message):
        make(**changes)


# ------------------------------------------------------------ validate
def test_validate_accepts_filled_and_returns_it(filled):
    ds = filled()
    assert validate(ds) is ds


def test_extra_variables_and_attributes_are_allowed(filled):
    ds = filled()
    ds["slope"] = ds["threshold"] * 2
    ds.attrs["note"] = "mine"
    validate(ds)


@pytest.mark.parametrize("field", VARIABLES, ids=lambda f: f.name)
def test_every_variable_is_required_with_its_type_dims_and_unit(field, filled):
    ds = filled()
    with pytest.raises(StoreError, match=f"variable '{field.name}' is missing"):
        validate(ds.drop_vars(field.name))
    wrong = ds.assign({field.name: ds[field.name].astype("complex64")})
    with pytest.raises(StoreError, match=f"variable '{field.name}' is complex64, must be {field.dtype}"):
        validate(wrong)
    with pytest.raises(StoreError, match=f"variable '{field.name}' has dimensions"):
        validate(ds.assign({field.name: ds[field.name].transpose()}))
    del ds[field.name].attrs["units"]
    with pytest.raises(StoreError, match=f"variable '{field.name}' has no attribute 'units'"):
        validate(ds)


@pytest.mark.parametrize("field", [f for f in FIELDS if f.role == "attribute"], ids=lambda f: f.name)
def test_every_attribute_is_required(field, filled):
    ds = filled()
    del ds.attrs[field.name]
    with pytest.raises(StoreError, match=f"attribute '{field.name}' is missing"):
        validate(ds)


@pytest.mark.parametrize("dim", DIMS)
def test_every_coordinate_is_required(dim, filled):
    with pytest.raises(StoreError, match=f"coordinate '{dim}' is missing"):
        validate(filled().drop_vars(dim))


def test_all_problems_are_listed_with_the_nearest_name(filled):
    ds = filled().rename({"threshold_sem": "treshold_sem"})
    ds.attrs["spec_toml"] = "title ="
    ds.attrs["provenance"] = "[1]"
    ds.attrs["extra"] = {"a": 1}
    ds["level"].attrs["units"] = "Hz"
    with pytest.raises(StoreError) as error:
        validate(ds, "runs/x.zarr")
    text = str(error.value)
    assert text.startswith("runs/x.zarr does not follow results schema 1 (5 problems):")
    for part in (
        "variable 'threshold_sem' is missing",
        "Did you mean 'treshold_sem'?",
        "'spec_toml' is not valid TOML",
        "'provenance' must be a JSON object",
        "attribute 'extra' is a dict",
        "must have the same units, got ['Hz', 'dB']",
    ):
        assert part in text


def test_another_schema_version_says_so(filled):
    ds = filled()
    ds.attrs["psysim_schema"] = "7"
    with pytest.raises(StoreError, match="has results schema '7', this psysim reads schema '1'"):
        validate(ds)


def _set(name, index, value):
    def change(ds):
        ds[name].values[index] = value

    return change


FIRST = (0, 0, 0, 0)
RULES = {
    "n_trials differs": _set("n_trials", (0, 0, 0), 99),
    "level has a gap": lambda ds: (_set("level", FIRST, np.nan)(ds), _set("level", (0, 0, 0, 1), 1.0)(ds)),
    "response outside": _set("response", FIRST, 3),
    "target_interval outside": _set("target_interval", FIRST, -2),
    "correct is not -1, 0 or 1": _set("correct", FIRST, 2),
    "reversal is not 0 or 1": _set("reversal", FIRST, -1),
    "correct is stated without a response": _set("response", FIRST, -1),
    "status is not a known code": _set("status", (0, 0, 0), 6),
    "a converged track has no threshold": _set("threshold", (0, 0, 0), np.nan),
    "threshold_sem is negative": _set("threshold_sem", (0, 0, 0), -0.1),
    "coordinate 'observer' has repeated values": lambda ds: ds.coords.update({"observer": ["a", "a"]}),
}


@pytest.mark.parametrize("message", RULES)
def test_value_rules(message, filled):
    ds = filled(n_observers=2)
    changed = RULES[message](ds)
    with pytest.raises(StoreError, match=message):
        validate(changed if hasattr(changed, "dims") else ds)


@pytest.mark.parametrize(
    ("name", "value"),
    [("response", 0), ("target_interval", 0), ("correct", 0), ("reversal", 1), ("decision_variable", 0.0)],
)
def test_nothing_may_be_stated_where_there_was_no_trial(name, value):
    ds = make()
    ds[name].values[0, 0, 0, 0] = value
    with pytest.raises(StoreError, match=f"{name} (is stated )?without a trial"):
        validate(ds)


def test_yes_no_target_absent_is_allowed_with_one_interval_only():
    ds = make(n_intervals=1)
    for name, value in (("level", -3.0), ("target_interval", -2), ("response", 1), ("correct", 0)):
        ds[name].values[0, 0, 0, 0] = value
    ds["n_trials"].values[0, 0, 0] = 1
    validate(ds)


def test_invalid_output_has_a_level_but_no_response():
    ds = make()
    ds["level"].values[0, 0, 0, 0] = -3.0
    ds["target_interval"].values[0, 0, 0, 0] = 2
    ds["n_trials"].values[0, 0, 0] = 1
    ds["status"].values[0, 0, 0] = STATUS.index("invalid_output")
    validate(ds)


# ------------------------------------------------------------ published document
def test_published_document_is_up_to_date():
    path = Path(__file__).parents[2] / "docs" / "reference" / "results_schema.md"
    assert path.read_text(encoding="utf-8") == document() + "\n"


def test_document_names_every_field():
    text = document()
    for field in FIELDS:
        assert field.meaning in text


def test_status_codes_are_those_of_the_procedures():
    from psysim.procedures import Status

    assert {s.value: s.name.lower() for s in Status} == dict(enumerate(STATUS))


def test_importing_the_rooms_is_light():
    code = (
        "import sys, psysim.results, psysim.human, psysim.evaluation; "
        "print([m for m in ('torch', 'xarray', 'pandas', 'scipy', 'zarr') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
