from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from psysim.errors import SpecError
from psysim.rng import Keys
from psysim.stimuli import from_file, read_recording, registry
from psysim.units import pascal_to_db_spl

F64 = torch.float64
FS = 16000


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Two channels, 1 s: a 500-Hz tone of amplitude 0.5, and noise."""
    t = np.arange(FS) / FS
    data = np.stack([0.5 * np.sin(2 * np.pi * 500 * t), 0.1 * np.random.default_rng(1).standard_normal(FS)], axis=1)
    path = tmp_path / "two channels.wav"
    soundfile.write(path, data, FS, subtype="DOUBLE")
    return path


def level(x: torch.Tensor) -> torch.Tensor:
    return pascal_to_db_spl((x**2).mean(-1).sqrt())


def test_calibration_of_the_file(recording: Path) -> None:
    x = from_file(recording, fs=FS, full_scale_db_spl=100.0, dtype=F64)
    t = torch.arange(FS, dtype=F64) / FS
    torch.testing.assert_close(x[0], 2.0 * 0.5 * torch.sin(2 * math.pi * 500 * t), rtol=0, atol=1e-9)
    assert float(level(x)[0]) == pytest.approx(100 + 20 * math.log10(0.5 / math.sqrt(2)), abs=1e-9)


def test_level_of_the_steady_part(recording: Path) -> None:
    x = from_file(
        recording,
        fs=FS,
        channel=1,
        level_db_spl=[60.0, 70.0],
        start_s=[0.0, 0.5],
        duration_s=0.4,
        ramp_s=0.1,
        dtype=F64,
    )
    assert x.shape == (2, 6400)
    torch.testing.assert_close(level(x[:, 1600:-1600]), torch.tensor([60.0, 70.0], dtype=F64), rtol=0, atol=1e-9)


def test_excerpts_to_the_end(recording: Path) -> None:
    x = from_file(recording, fs=FS, full_scale_db_spl=94.0, start_s=[0.25, 0.75])
    assert x.shape == (2, 12000)
    assert not x[1, 4000:].any()


def test_random_excerpts_depend_on_the_keys_only(recording: Path) -> None:
    keys = Keys.make(seed=1, trial=torch.arange(20))
    x = from_file(recording, fs=FS, full_scale_db_spl=94.0, channel=1, start_s=None, duration_s=0.1, keys=keys)
    assert len({tuple(row[:3].tolist()) for row in x}) == 20
    y = from_file(recording, fs=FS, full_scale_db_spl=94.0, channel=1, start_s=None, duration_s=0.1, keys=keys[7])
    assert torch.equal(x[7], y[0])


@pytest.mark.parametrize("fs", [8000, 22050, 44100])
def test_resampling_keeps_tones(recording: Path, fs: int) -> None:
    x = read_recording(recording, fs)
    assert len(x) == fs
    middle = x[fs // 4 : -fs // 4].numpy()
    t = (np.arange(len(middle)) + fs // 4) / fs
    # resample_poly's filter: ripple below 1e-3
    np.testing.assert_allclose(middle, 0.5 * np.sin(2 * np.pi * 500 * t), rtol=0, atol=1e-3)


def test_a_changed_file_is_read_again(recording: Path) -> None:
    first = read_recording(recording, FS)
    first += 1.0  # what is returned is a copy
    soundfile.write(recording, np.zeros((FS // 2, 2)), FS)
    assert read_recording(recording, FS).shape == (FS // 2,)


def test_kind(recording: Path) -> None:
    kind = registry.get("from_file")()
    parameters = {"path": str(recording), "duration_s": 0.2, "level_db_spl": torch.tensor([60.0, 60.0, -math.inf])}
    x = kind.generate({**parameters, "level_increment_db": torch.tensor([0.0, 3.0, 0.0])}, Keys.make(1), FS, dtype=F64)
    assert level(x)[:2].tolist() == pytest.approx([60.0, 63.0], abs=1e-9)
    assert not x[2].any()
    kept = kind.generate({"path": str(recording), "level_increment_db": 3.0}, Keys.make(1), FS, dtype=F64)
    assert float(level(kept)[0]) == pytest.approx(103 + 20 * math.log10(0.5 / math.sqrt(2)), abs=1e-9)
    with pytest.raises(SpecError, match="needs the parameter 'path'"):
        kind.generate({}, Keys.make(1), FS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"level_db_spl": None}, "exactly one of level_db_spl and full_scale_db_spl"),
        ({"full_scale_db_spl": 100.0}, "exactly one of level_db_spl and full_scale_db_spl"),
        ({"start_s": 0.9, "duration_s": 0.2}, "The excerpt from 0.9 s, 0.2 s long, does not lie in .* lasts 1 s"),
        ({"channel": 2}, "channel = 2 does not exist .* Allowed: 0 to 1"),
        ({"start_s": None}, "A random start .* needs keys and duration_s"),
        ({"fs": 16000.123}, "needs a ratio of whole numbers"),
        ({"ramp_s": 0.6}, "ramp_s is too long"),
        ({"start_s": -0.1}, "start_s = -0.1 s"),
    ],
)
def test_errors(recording: Path, change, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        from_file(recording, **{"fs": FS, "level_db_spl": 60.0, **change})


def test_missing_and_unreadable_files(tmp_path: Path, recording: Path) -> None:
    with pytest.raises(SpecError, match=r"There is no sound file .* Did you mean 'two channels.wav'"):
        from_file(tmp_path / "two channel.wav", fs=FS, level_db_spl=60.0)
    text = tmp_path / "text.wav"
    text.write_text("not a sound")
    with pytest.raises(SpecError, match="cannot be read"):
        from_file(text, fs=FS, level_db_spl=60.0)
    silent = tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(100), FS)
    with pytest.raises(SpecError, match="The level of row 0 cannot be set: the sound is silent"):
        from_file(silent, fs=FS, level_db_spl=60.0)
