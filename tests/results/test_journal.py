from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psysim.errors import StoreError
from psysim.results import Journal, empty_dataset, fill, read_journal, record_dtype, validate

DIMS = {"condition": 2, "observer": 1, "track": 3, "trial": 50, "interval": 3}
HEADER = {"spec_toml": 'title = "Demo"', "dims": DIMS}


def block(n, start=0):
    """Return columns of n trials whose contents follow from their number."""
    number = np.arange(start, start + n)
    return {
        "lane": number % 6,
        "trial": number // 6,
        "level": -number / 8,
        "target_interval": number % 3,
        "response": (number // 2) % 3,
        "correct": (number % 3 == (number // 2) % 3).astype(int),
        "reversal": number % 2,
        "decision_variable": number[:, None] + np.array([0.0, 0.25, 0.5]),
    }


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run.zarr.partial"


def assert_records(records, n):
    expected = block(n)
    assert len(records) == n
    for name, values in expected.items():
        np.testing.assert_array_equal(records[name], values)


# ------------------------------------------------------------ write and reopen
def test_records_come_back_in_order(folder):
    with Journal.create(folder, HEADER) as journal:
        journal.append(**block(5))
        journal.append(**block(0))
        journal.append(**block(4, start=5))
        assert journal.n_records == 9
        assert_records(journal.records(), 9)
    with Journal.open(folder) as journal:
        assert journal.cut_bytes == 0
        journal.append(**block(3, start=9))
    header, records = read_journal(folder)
    assert_records(records, 12)
    assert header["spec_toml"] == HEADER["spec_toml"]
    assert header["psysim_schema"] == "1"


def test_the_format_is_the_documented_one(folder):
    """The file can be read with NumPy and zlib alone."""
    import zlib

    with Journal.create(folder, HEADER) as journal:
        journal.append(**block(2))
    data = (folder / "journal.bin").read_bytes()
    assert len(data) == 2 * 42
    assert record_dtype(3).names[-1] == "crc32"
    for start in (0, 42):
        assert int.from_bytes(data[start + 38 : start + 42], "little") == zlib.crc32(data[start : start + 38])
    assert np.frombuffer(data[12:20], "<f8")[0] == 0.0
    assert np.frombuffer(data[42 + 12 : 42 + 20], "<f8")[0] == -1 / 8


def test_one_append_is_one_write(folder, monkeypatch):
    journal = Journal.create(folder, HEADER)
    written, real = [], os.write
    monkeypatch.setattr(os, "write", lambda fd, data: written.append(len(data)) or real(fd, data))
    journal.append(**block(30))
    assert written == [30 * 42]
    journal.close()


def test_n_intervals_alone_is_enough_in_the_header(folder):
    with Journal.create(folder, {"spec_toml": "", "n_intervals": 3}) as journal:
        journal.append(**block(7))
    assert_records(read_journal(folder)[1], 7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lane": np.array([0, 6])}, "lane 6 is outside 0 ... 5"),
        ({"trial": np.array([-1, 0])}, "trial -1 is outside 0 ... 49"),
        ({"response": np.array([1])}, "response"),
        ({"decision_variable": np.zeros((2, 2))}, "decision_variable"),
    ],
)
def test_append_refuses_what_does_not_fit(folder, change, message):
    with Journal.create(folder, HEADER) as journal:
        with pytest.raises(StoreError, match=message):
            journal.append(**{**block(2), **change})
        assert journal.n_records == 0


@pytest.mark.parametrize(
    "header", [{}, {"spec_toml": ""}, {"spec_toml": "", "dims": {"interval": 3}}, {"spec_toml": "", "n_intervals": 0}]
)
def test_create_refuses_an_incomplete_header(folder, header):
    with pytest.raises(StoreError):
        Journal.create(folder, header)
    assert not folder.exists()


def test_create_refuses_an_existing_run_and_leaves_it_alone(folder):
    with Journal.create(folder, HEADER) as journal:
        journal.append(**block(5))
    with pytest.raises(StoreError, match="--resume"):
        Journal.create(folder, HEADER)
    assert_records(read_journal(folder)[1], 5)


def test_create_takes_over_a_folder_without_a_header(folder):
    """A process killed before the header was in place has recorded nothing that could be used."""
    folder.mkdir()
    (folder / "journal.bin").write_bytes(b"rubbish")
    with Journal.create(folder, HEADER) as journal:
        assert len(journal.records()) == 0


def test_open_without_a_run_says_what_to_do(tmp_path):
    with pytest.raises(StoreError, match="without --resume"):
        Journal.open(tmp_path)


def test_a_full_disk_loses_nothing(folder, monkeypatch):
    journal = Journal.create(folder, HEADER)
    journal.append(**block(5))
    real = os.write
    answers = iter([100])  # first a part is written, then the disk is full

    def full(fd, data):
        try:
            return real(fd, data[: next(answers)])
        except StopIteration:
            raise OSError(28, "No space left on device") from None

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StoreError, match=r"No space left on device.*--resume"):
        journal.append(**block(5, start=5))
    monkeypatch.undo()
    assert_records(journal.records(), 5)
    journal.append(**block(2, start=5))
    assert_records(journal.records(), 7)
    journal.close()


def test_remove_closes_and_deletes(folder):
    journal = Journal.create(folder, HEADER)
    journal.remove()
    journal.close()
    assert not folder.exists()


# ------------------------------------------------------------ damage
@pytest.mark.parametrize("cut", range(1, 42))
def test_a_torn_record_is_cut_off(folder, cut):
    with Journal.create(folder, HEADER) as journal:
        journal.append(**block(4))
    path = folder / "journal.bin"
    path.write_bytes(path.read_bytes()[:-cut])
    assert_records(read_journal(folder)[1], 3)  # reading alone changes nothing
    assert path.stat().st_size == 4 * 42 - cut
    with Journal.open(folder) as journal:
        assert journal.cut_bytes == 42 - cut
        assert path.stat().st_size == 3 * 42
        journal.append(**block(2, start=3))
    assert_records(read_journal(folder)[1], 5)


def test_a_tail_of_zeros_is_cut_off(folder):
    """After a power cut a file can be longer than what was written to it."""
    with Journal.create(folder, HEADER) as journal:
        journal.append(**block(4))
    with (folder / "journal.bin").open("ab") as file:
        file.write(bytes(3 * 42 + 7))
    with Journal.open(folder) as journal:
        assert_records(journal.records(), 4)


@given(position=st.integers(0, 3 * 42 - 1), change=st.integers(1, 255))
@settings(max_examples=60, deadline=None)
def test_a_changed_byte_in_the_middle_is_an_error(tmp_path_factory, position, change):
    folder = tmp_path_factory.mktemp("damage") / "run.partial"
    with Journal.create(folder, HEADER) as journal:
        journal.append(**block(4))
    path = folder / "journal.bin"
    data = bytearray(path.read_bytes())
    data[position] ^= change
    path.write_bytes(data)
    for use in (Journal.open, read_journal):
        with pytest.raises(StoreError, match=rf"record {position // 42} of 4 .*wrong checksum"):
            use(folder)
    assert path.read_bytes() == data


def test_records_of_another_layout_are_not_thrown_away(folder):
    with Journal.create(folder, HEADER) as journal:
        journal.append(**block(4))
    header = json.loads((folder / "header.json").read_text())
    header["dims"]["interval"] = 2
    (folder / "header.json").write_text(json.dumps(header))
    with pytest.raises(StoreError, match="wrong checksum"):
        Journal.open(folder)
    assert (folder / "journal.bin").stat().st_size == 4 * 42


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "other"}'])
def test_a_damaged_header_is_an_error(folder, text):
    Journal.create(folder, HEADER).close()
    (folder / "header.json").write_text(text)
    with pytest.raises(StoreError, match=r"header\.json"):
        Journal.open(folder)


# ------------------------------------------------------------ kill -9, locks
WRITER = """
import sys
sys.path.insert(0, {tests!r})
from test_journal import block, np
from psysim.results import Journal
journal = Journal.open({folder!r}, sync_interval_s=1e9)
rng = np.random.default_rng(journal.n_records)
while True:
    journal.append(**block(int(rng.integers(1, 40)), start=journal.n_records))
    print(journal.n_records, flush=True)  # the trials up to here are promised to be safe
"""


def _start(folder):
    code = WRITER.format(tests=os.path.dirname(__file__), folder=str(folder))
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_kill_9_at_random_moments_loses_nothing_promised(folder):
    """A writer is killed again and again; each time every acknowledged trial is there and the run goes on."""
    Journal.create(folder, {"spec_toml": "", "n_intervals": 3}).close()
    rng = np.random.default_rng(0)
    promised = 0
    for _ in range(8):
        writer = _start(folder)
        assert int(writer.stdout.readline()) > promised  # it continued where the last one was killed
        time.sleep(rng.uniform(0, 0.03))
        os.kill(writer.pid, signal.SIGKILL)
        lines = writer.stdout.read().split("\n")[:-1]  # the last line may be torn
        assert writer.wait() == -signal.SIGKILL
        promised = max([promised, *(int(line) for line in lines)])
        with Journal.open(folder) as journal:  # the lock of the killed process is gone
            assert journal.n_records >= promised
            assert_records(journal.records(), journal.n_records)
            promised = journal.n_records
    assert promised > 100


def test_two_processes_cannot_write_the_same_run(folder):
    Journal.create(folder, HEADER).close()
    code = "from psysim.results import Journal\nj = Journal.open({folder!r})\nprint(1, flush=True)\ninput()"
    writer = subprocess.Popen(
        [sys.executable, "-c", code.format(folder=str(folder))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert writer.stdout.readline() == "1\n"
        for use in (Journal.open, lambda path: Journal.create(path, HEADER)):
            with pytest.raises(StoreError, match=rf"being written by process {writer.pid} on .*another --out"):
                use(folder)
        assert len(read_journal(folder)[1]) == 0  # reading needs no lock
    finally:
        writer.communicate("\n")
    Journal.open(folder).close()


def test_the_same_process_cannot_open_a_run_twice(folder):
    with Journal.create(folder, HEADER), pytest.raises(StoreError, match="being written"):
        Journal.open(folder)


# ------------------------------------------------------------ fill
def empty():
    return empty_dataset({"rate_hz": [4, 8]}, ["a"], 3, 50, 3, "dB", "Modulation depth")


def records(folder, *blocks):
    with Journal.create(folder, HEADER) as journal:
        for columns in blocks:
            journal.append(**columns)
        return journal.records()


def test_fill_puts_every_trial_in_its_place(folder):
    ds = empty()
    full = fill(ds, records(folder, block(20)))
    validate(full)
    assert int(ds["n_trials"].sum()) == 0  # the input is unchanged
    assert full["n_trials"].values.ravel().tolist() == [4, 4, 3, 3, 3, 3]
    # number 16 is lane 4 = (condition 1, observer 0, track 1), trial 2
    one = full.isel(condition=1, observer=0, track=1, trial=2)
    assert float(one["level"]) == -2.0
    assert (int(one["target_interval"]), int(one["response"]), int(one["correct"])) == (1, 2, 0)
    assert one["decision_variable"].values.tolist() == [16.0, 16.25, 16.5]


def test_fill_is_independent_of_the_order_and_of_repetition(folder, tmp_path):
    once = fill(empty(), records(folder, block(20)))
    again = fill(empty(), records(tmp_path / "b", block(8, start=12), block(15), block(20)))
    assert once.identical(again)


def test_fill_refuses_two_different_records_of_one_trial(folder):
    twice = block(5)
    other = {**block(5), "level": block(5)["level"] + [0, 0, 0, 0, 1]}
    with pytest.raises(StoreError, match="two different records of lane 4, trial 0"):
        fill(empty(), records(folder, twice, other))


def test_fill_refuses_another_experiment(folder):
    small = empty_dataset({}, ["a"], 3, 50, 3, "dB", "Modulation depth")
    with pytest.raises(StoreError, match="another experiment"):
        fill(small, records(folder, block(5)))
