from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from psysim.errors import StoreError
from psysim.results import (
    Journal,
    empty_dataset,
    export_csv,
    export_netcdf,
    finish,
    load,
    partial_path,
    save,
    state_of,
    validate,
)
from psysim.results import store as store_module


# ------------------------------------------------------------ round trips
def _assert_same(a, b):
    xr.testing.assert_identical(a, b)
    for name in a.variables:
        assert a[name].dtype == b[name].dtype, name
        for key, value in a[name].attrs.items():
            assert type(b[name].attrs[key]) is type(value), (name, key)
    assert {k: type(v) for k, v in a.attrs.items()} == {k: type(v) for k, v in b.attrs.items()}


text = st.text(st.characters(codec="utf-8", exclude_characters="\x00", exclude_categories=["Cs"]), max_size=6)
names = st.from_regex(r"[a-z][a-z0-9]{0,5}(_hz|_db|_s)?", fullmatch=True).map(lambda n: f"f_{n}")
finite = st.floats(allow_nan=False, width=64)


@st.composite
def datasets(draw):
    """Return a valid dataset of small size with any factors and values."""
    n = draw(st.integers(1, 3))
    values = st.one_of(
        *(st.lists(kind, min_size=n, max_size=n) for kind in (st.integers(-5, 5), finite, st.booleans(), text))
    )
    observers = draw(st.lists(text.filter(bool), min_size=1, max_size=2, unique=True))
    n_tracks = draw(st.integers(1, 3))
    n_trials, n_intervals = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    attrs = {"title": draw(text), "note": draw(text), "number": draw(finite), "complete": draw(st.integers(0, 1))}
    factors = draw(st.dictionaries(names, values, max_size=3))
    ds = empty_dataset(factors, observers, n_tracks, n_trials, n_intervals, draw(text), draw(text), attrs)
    shape = ds["n_trials"].shape
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    count = rng.integers(0, n_trials + 1, shape)
    run = np.arange(n_trials) < count[..., None]
    ds["n_trials"].values[...] = count
    ds["level"].values[run] = rng.choice([-np.inf, -20.5, 1e-300, 3.0], run.sum())
    ds["decision_variable"].values[run] = rng.normal(size=(run.sum(), n_intervals))
    for name, high in (
        ("target_interval", n_intervals),
        ("response", max(2, n_intervals)),
        ("correct", 2),
        ("reversal", 2),
    ):
        ds[name].values[run] = rng.integers(0, high, run.sum())
    ds["threshold"].values[...] = rng.normal(size=shape)
    ds["status"].values[...] = rng.integers(0, 6, shape)
    return validate(ds)


@given(ds=datasets())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_zarr_and_netcdf_round_trips_are_identical(tmp_path_factory, ds):
    folder = tmp_path_factory.mktemp("round")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = load(save(ds, folder / "a.zarr"))
        two = load(export_netcdf(one, folder / "a.nc"))
        three = load(save(two, folder / "b.zarr"))
    for other in (one, two, three):
        _assert_same(ds, other)


PLAIN = """
import sys, xarray as xr
zarr, netcdf = xr.open_zarr(sys.argv[1]).load(), xr.open_dataset(sys.argv[2]).load()
assert not any(name.startswith("psysim") for name in sys.modules)
for ds in (zarr, netcdf):
    print(ds.sizes["track"], ds.rate_hz.values.tolist(), ds.level.units, ds.carrier.values.tolist())
    mean = float(ds.threshold.sel(condition=1).mean("track").item())
    print(ds.attrs["spec_toml"], ds.status.flag_meanings.split()[1], mean)
"""


def test_stores_open_with_plain_xarray_without_psysim_or_warnings(tmp_path, filled):
    ds = filled()
    paths = [str(save(ds, tmp_path / "a.zarr")), str(export_netcdf(ds, tmp_path / "a.nc"))]
    done = subprocess.run([sys.executable, "-W", "error", "-c", PLAIN, *paths], capture_output=True, text=True)
    assert done.stderr == ""
    mean = ds["threshold"].values[1].mean()
    assert done.stdout == 2 * f"3 [4, 8] dB ['broadband', 'broadband']\ntitle = \"Demo\" converged {mean}\n"


# ------------------------------------------------------------ never overwriting
@pytest.mark.parametrize(("write", "name"), [(save, "a.zarr"), (export_netcdf, "a.nc")])
def test_an_existing_result_is_refused_and_untouched(tmp_path, filled, write, name):
    first = filled(seed=1)
    write(first, tmp_path / name)
    with pytest.raises(StoreError, match=r"exists: use --resume .*or another --out"):
        write(filled(seed=2), tmp_path / name)
    _assert_same(load(tmp_path / name), first)
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(("write", "name"), [(save, "a.zarr"), (export_netcdf, "a.nc")])
def test_a_result_that_appears_meanwhile_is_not_replaced(tmp_path, filled, write, name, monkeypatch):
    theirs = tmp_path / name
    real = store_module.sync_file

    def another_process_finishes(path):
        if not theirs.exists():
            if write is save:
                theirs.mkdir()
                (theirs / "zarr.json").write_text("theirs")
            else:
                theirs.write_text("theirs")
        real(path)

    monkeypatch.setattr(store_module, "sync_file", another_process_finishes)
    with pytest.raises(StoreError, match="exists"):
        write(filled(), theirs)
    assert (theirs / "zarr.json" if write is save else theirs).read_text() == "theirs"
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_failed_write_leaves_nothing(tmp_path, filled, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(xr.Dataset, "to_zarr", full)
    with pytest.raises(StoreError, match="No space left"):
        save(filled(), tmp_path / "a.zarr")
    assert list(tmp_path.iterdir()) == []


def test_a_killed_save_leaves_no_result(tmp_path, filled):
    """Killed just before the rename: the name does not exist, so the run is still resumable from its journal."""
    ds = filled()
    save(ds, tmp_path / "source.zarr")
    code = (
        "import os, signal, sys\nfrom psysim.results import load, save\n"
        "os.rename = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
        "save(load(sys.argv[1]), sys.argv[2])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "source.zarr"), str(tmp_path / "a.zarr")])
    assert done.returncode == -9
    assert state_of(tmp_path / "a.zarr") == "absent"
    _assert_same(load(save(ds, tmp_path / "a.zarr")), ds)


def test_save_refuses_invalid_data_and_names(tmp_path, filled):
    with pytest.raises(StoreError, match="variable 'level' is missing"):
        save(filled().drop_vars("level"), tmp_path / "a.zarr")
    with pytest.raises(StoreError, match=r"ends in \.zarr"):
        save(filled(), tmp_path / "a")
    with pytest.raises(StoreError, match=r"end in \.nc"):
        export_netcdf(filled(), tmp_path / "a.zarr")
    assert list(tmp_path.iterdir()) == []


def test_missing_parent_folders_are_made(tmp_path, filled):
    assert save(filled(), tmp_path / "deep" / "er" / "a.zarr").is_dir()


# ------------------------------------------------------------ load
def test_load_names_the_nearest_result(tmp_path, filled):
    save(filled(), tmp_path / "tmtf_broadband.zarr")
    with pytest.raises(StoreError, match=r"Did you mean 'tmtf_broadband\.zarr'\?"):
        load(tmp_path / "tmtf_brodband.zarr")
    with pytest.raises(StoreError, match="There is no result"):
        load(tmp_path / "no" / "such.zarr")


def test_load_of_an_unfinished_run_says_how_to_continue(tmp_path):
    Journal.create(partial_path(tmp_path / "a.zarr"), {"spec_toml": "", "n_intervals": 2}).close()
    with pytest.raises(StoreError, match=r"not finished .*--resume"):
        load(tmp_path / "a.zarr")


def test_load_refuses_what_is_not_a_result(tmp_path, filled):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(StoreError, match="is not a result"):
        load(tmp_path / "a.txt")
    (tmp_path / "a.nc").write_text("x")
    with pytest.raises(StoreError, match="cannot be read"):
        load(tmp_path / "a.nc")
    filled().drop_vars("level").to_netcdf(tmp_path / "b.nc")
    with pytest.raises(StoreError, match=r"b\.nc does not follow results schema 1"):
        load(tmp_path / "b.nc")


# ------------------------------------------------------------ layout while running
def test_states_from_start_to_finish(tmp_path, filled):
    out, ds = tmp_path / "a.zarr", filled()
    assert state_of(out) == "absent"
    partial_path(out).mkdir()
    assert state_of(out) == "absent"  # nothing can be resumed from an empty folder
    journal = Journal.create(partial_path(out), {"spec_toml": "", "n_intervals": 3})
    assert state_of(out) == "partial"
    assert finish(journal, ds, out) == out
    assert state_of(out) == "complete"
    assert not partial_path(out).exists()
    _assert_same(load(out), ds)


def test_a_failed_finish_keeps_the_journal(tmp_path, filled):
    out = tmp_path / "a.zarr"
    save(filled(), out)
    with Journal.create(partial_path(out), {"spec_toml": "", "n_intervals": 3}) as journal:
        with pytest.raises(StoreError, match="exists"):
            finish(journal, filled(), out)
        assert (partial_path(out) / "journal.bin").exists()


def test_something_else_of_that_name_is_an_error(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(StoreError, match="not a psysim result"):
        state_of(tmp_path / "a.zarr")


# ------------------------------------------------------------ CSV
def test_csv_tables(tmp_path, filled):
    ds = filled(n_observers=2)
    thresholds_csv, trials_csv = export_csv(ds, tmp_path / "run.csv")
    assert (thresholds_csv.name, trials_csv.name) == ("run_thresholds.csv", "run_trials.csv")
    summary, trials = pd.read_csv(thresholds_csv), pd.read_csv(trials_csv)
    assert len(summary) == 4
    assert set(summary["unit"]) == {"dB"}
    assert len(trials) == int(ds["n_trials"].sum())
    row = trials.iloc[-1]
    one = ds.isel(condition=-1, observer=-1, track=-1).isel(trial=int(row["trial"]))
    assert row["level"] == float(one["level"])
    assert row["decision_variable_2"] == pytest.approx(float(one["decision_variable"][2]), rel=1e-6)
    assert (row["rate_hz"], row["observer"], row["track_status"]) == (8, "observer 1", "converged")


def test_csv_refuses_to_replace_either_file(tmp_path, filled):
    (tmp_path / "run_trials.csv").write_text("mine")
    with pytest.raises(StoreError, match="exists"):
        export_csv(filled(), tmp_path / "run.csv")
    assert [p.name for p in tmp_path.iterdir()] == ["run_trials.csv"]
    assert (tmp_path / "run_trials.csv").read_text() == "mine"
