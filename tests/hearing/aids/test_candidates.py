"""Users' candidates: the good ones, and every way of failing."""

from __future__ import annotations

import pickle
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from torch import Tensor

from psysim.errors import SpecError
from psysim.hearing.aids import CANDIDATES, FAILURES, CandidateError, FolderCandidate, HearingAid, make_aid, sound_name

FS = 16000.0
HERE = "tests.hearing.aids.test_candidates"


def sound(*shape: int) -> Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def twice(x: Tensor, fs: float) -> Tensor:
    assert fs == FS
    return 2 * x


def crash(x: Tensor, fs: float) -> Tensor:
    raise ValueError("no such band")


def hang(x: Tensor, fs: float) -> Tensor:
    time.sleep(3.0)
    return x


def short(x: Tensor, fs: float) -> Tensor:
    return x[..., 1:]


def not_a_number(x: Tensor, fs: float) -> Tensor:
    y = x.clone()
    y[..., 5] = float("nan")
    return y


def clipped(x: Tensor, fs: float) -> Tensor:
    return (1e6 * x).clamp(-20.0, 20.0)


def no_sound(x: Tensor, fs: float) -> Any:
    return None


def changed(x: Tensor, fs: float) -> Tensor:
    return x.mul_(2)


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, HERE, sys.modules[__name__])


def python(name: str, **options: Any) -> HearingAid:
    return make_aid({"kind": "python", "function": f"{HERE}:{name}", **options}, FS)


SCRIPT = """
import sys, time
import numpy as np, soundfile
what, source, result = sys.argv[1:]
x, fs = soundfile.read(source, always_2d=True)
if what == "crash":
    sys.exit("no licence")
if what == "hang":
    time.sleep(30)
if what == "length":
    x = x[1:]
if what == "not_finite":
    x[3] = np.nan
if what == "clipped":
    x = np.clip(1e6 * x, -1, 1)
if what == "other_rate":
    fs //= 2
if what != "missing":
    soundfile.write(result, x * 2 if what == "twice" else x, fs, subtype="PCM_16" if what == "clipped" else "FLOAT")
"""


def command(folder: Path, what: str, **options: Any) -> HearingAid:
    (folder / "aid.py").write_text(SCRIPT, encoding="utf-8")
    parts = [sys.executable, "aid.py", what, "{input}", "{output}"]
    return make_aid({"kind": "command", "command": parts, **options}, FS, folder=folder)


@pytest.mark.parametrize("shape", [(300,), (2, 300), (2, 2, 300)], ids=str)
def test_a_function(shape: tuple[int, ...]) -> None:
    x = sound(*shape)
    torch.testing.assert_close(python("twice")(x), 2 * x)


def test_a_function_that_writes_into_its_input_does_not_change_it() -> None:
    x = sound(1, 50)
    before = x.clone()
    torch.testing.assert_close(python("changed")(x), 2 * before)
    assert torch.equal(x, before)


def test_gradients_pass_through_a_function() -> None:
    x = sound(1, 20).requires_grad_()
    python("twice")(x).sum().backward()
    assert x.grad is not None
    assert bool((x.grad == 2).all())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("crash", "crash"),
        ("no_sound", "crash"),
        ("hang", "time_out"),
        ("short", "length"),
        ("not_a_number", "not_finite"),
        ("clipped", "clipped"),
    ],
)
def test_a_function_that_fails(name: str, reason: str) -> None:
    device = python(name, timeout_s=0.2 if name == "hang" else 60.0)
    with pytest.raises(CandidateError) as error:
        device(sound(2, 300))
    assert error.value.reason == reason
    assert reason in FAILURES


@pytest.mark.parametrize("shape", [(300,), (2, 300), (1, 2, 300)], ids=str)
def test_a_command(tmp_path: Path, shape: tuple[int, ...]) -> None:
    x = sound(*shape)
    torch.testing.assert_close(command(tmp_path, "twice")(x), 2 * x, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("what", "reason", "words"),
    [
        ("crash", "crash", "no licence"),
        ("hang", "time_out", "within 2 s"),
        ("length", "length", "299"),
        ("other_rate", "length", "8000 Hz"),
        ("not_finite", "not_finite", "NaN"),
        ("clipped", "clipped", "full scale"),
        ("missing", "missing", "no output file"),
    ],
)
def test_a_command_that_fails(tmp_path: Path, what: str, reason: str, words: str) -> None:
    device = command(tmp_path, what, timeout_s=2.0 if what == "hang" else 60.0)
    with pytest.raises(CandidateError, match=words) as error:
        device(sound(300))
    assert error.value.reason == reason


def test_what_a_hanging_command_started_ends_with_it(tmp_path: Path) -> None:
    """A program that starts another, which holds its output open and would write a file later."""
    child = "import time; time.sleep(4); open('late', 'w')"
    text = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(30)"
    (tmp_path / "parent.py").write_text(text, encoding="utf-8")
    parts = [sys.executable, "parent.py", "{input}", "{output}"]
    device = make_aid({"kind": "command", "command": parts, "timeout_s": 2.0}, FS, folder=tmp_path)
    with pytest.raises(CandidateError) as error:
        device(sound(10))
    assert error.value.reason == "time_out"
    time.sleep(3.0)
    assert not (tmp_path / "late").exists()


def test_a_command_that_does_not_exist() -> None:
    device = make_aid({"kind": "command", "command": ["no-such-program", "{input}", "{output}"]}, FS)
    with pytest.raises(CandidateError, match="cannot be started") as error:
        device(sound(10))
    assert error.value.reason == "crash"


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_torchscript_file(tmp_path: Path) -> None:
    module = torch.jit.trace(torch.nn.Threshold(-1e9, 0.0), sound(1, 1, 10))
    torch.jit.save(module, str(tmp_path / "aid.pt"))
    device = make_aid({"kind": "torchscript", "file": "aid.pt"}, FS, folder=tmp_path)
    x = sound(2, 300)
    torch.testing.assert_close(device(x), x)
    (tmp_path / "bad.pt").write_text("x", encoding="utf-8")
    with pytest.raises(SpecError, match="TorchScript"):
        make_aid({"kind": "torchscript", "file": "bad.pt"}, FS, folder=tmp_path)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_torchscript_file_that_crashes(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.PixelShuffle(3)), str(tmp_path / "aid.pt"))
    with pytest.raises(CandidateError) as error:
        make_aid({"kind": "torchscript", "file": "aid.pt"}, FS, folder=tmp_path)(sound(2, 300))
    assert error.value.reason == "crash"


def test_a_folder_of_processed_files(tmp_path: Path) -> None:
    device = make_aid({"kind": "folder", "folder": "."}, FS, folder=tmp_path)
    assert isinstance(device, FolderCandidate)
    x = sound(2, 2, 200)
    with pytest.raises(CandidateError, match=sound_name(x[0], FS)) as error:
        device(x)
    assert error.value.reason == "missing"
    for path in device.export(x, tmp_path):
        samples, fs = soundfile.read(path)
        soundfile.write(path, 0.5 * samples, fs, subtype="FLOAT")
    torch.testing.assert_close(device(x), 0.5 * x, rtol=1e-6, atol=1e-9)
    other = sound(2, 2, 201)
    with pytest.raises(CandidateError):
        device(other)


def test_input_beyond_full_scale_is_not_passed_on() -> None:
    with pytest.raises(CandidateError, match="the input has 30 Pa already"):
        python("twice")(30 * torch.ones(1, 5))


def test_errors_survive_a_trip_to_another_process() -> None:
    error = pickle.loads(pickle.dumps(CandidateError("length", "99 for 100.")))
    assert error.reason == "length"
    assert str(error) == "The candidate failed (length): 99 for 100."


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"kind": "python", "function": "no_such_module:f"}, "cannot be imported"),
        ({"kind": "python", "function": "torch:no_such"}, "cannot be imported"),
        ({"kind": "python", "function": "torch:__version__"}, "not a function"),
        ({"kind": "python"}, "function"),
        ({"kind": "command", "command": "my-aid {input} {output}"}, "list of texts"),
        ({"kind": "command", "command": ["my-aid", "{input}"]}, "must contain {output}"),
        ({"kind": "folder", "folder": "no_such_folder"}, "is not a folder"),
        ({"kind": "python", "function": "torch:mul", "timeout_s": 0.0}, "above 0 s"),
        ({"kind": "python", "function": "torch:mul", "timeout": 1.0}, "Did you mean 'timeout_s'"),
    ],
)
def test_wrong_arguments_are_named(table: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        make_aid(table, FS)


def test_every_kind_is_tested_here() -> None:
    assert list(CANDIDATES) == ["python", "torchscript", "command", "folder"]
