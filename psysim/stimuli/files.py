"""Recorded sounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from psysim.errors import SpecError, did_you_mean
from psysim.rng import Keys, Purpose, uniform
from psysim.stimuli.base import GatedStimulus, StimulusParameters, TrackedVariable, register
from psysim.stimuli.batch import Number, Rows, by_blocks, groups, round_samples
from psysim.stimuli.gating import check_ramps, gate, steady_part
from psysim.stimuli.levels import MAX_LEVEL_DB_SPL, token_gain
from psysim.units import db_spl_to_pascal

__all__ = ["FromFile", "from_file", "read_recording"]


def read_recording(path: str | Path, fs: float, channel: int = 0) -> Tensor:
    """Return one channel of a sound file at a sampling rate.

    Parameters
    ----------
    path : str or Path
        File in a format of libsndfile (WAV, FLAC, OGG ...).
    fs : float
        Sampling rate in Hz of the result; other rates are converted by a polyphase filter (scipy ``resample_poly``,
        Kaiser window, beta 5).
    channel : int
        Channel, from 0.

    Returns
    -------
    Tensor
        (T,) float64, full scale = 1.

    Raises
    ------
    SpecError
        If the file is missing or unreadable, the channel does not exist, or the rates have no small ratio.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        names = [p.name for p in file.parent.iterdir()] if file.parent.is_dir() else []
        raise SpecError(f"There is no sound file '{file}'.{did_you_mean(file.name, names)}")
    stat = file.stat()
    return torch.from_numpy(_read(str(file.resolve()), stat.st_mtime_ns, stat.st_size, float(fs), channel).copy())


@lru_cache(maxsize=32)
def _read(path: str, _changed_ns: int, _size: int, fs: float, channel: int) -> NDArray[np.float64]:
    """Read and convert; the time stamp and the size are there so that a changed file is read again."""
    try:
        data, rate = soundfile.read(path, dtype="float64", always_2d=True)
    except (RuntimeError, OSError) as error:
        raise SpecError(f"The sound file '{path}' cannot be read: {error}") from error
    if not 0 <= channel < data.shape[1]:
        raise SpecError(f"channel = {channel} does not exist in '{path}'. Allowed: 0 to {data.shape[1] - 1}.")
    x: NDArray[np.float64] = np.ascontiguousarray(data[:, channel])
    if rate == fs:
        return x
    ratio = Fraction(fs / rate).limit_denominator(4096)
    if abs(float(ratio) * rate / fs - 1) > 1e-9:
        raise SpecError(f"'{path}' has {rate} Hz; conversion to fs = {fs:g} Hz needs a ratio of whole numbers.")
    from scipy.signal import resample_poly  # 0.6 s to import, and rarely needed

    return np.asarray(resample_poly(x, ratio.numerator, ratio.denominator))


def from_file(
    path: str | Path,
    *,
    fs: float,
    level_db_spl: Number | None = None,
    full_scale_db_spl: Number | None = None,
    start_s: Number | None = 0.0,
    duration_s: Number | None = None,
    channel: int = 0,
    keys: Keys | None = None,
    ramp_s: Number = 0.0,
    ramp_shape: str = "raised_cosine",
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return excerpts of a recording.

    Level: with ``level_db_spl`` the rms of each excerpt over its steady part (between the ramps), before ramps, is set
    to that level. With ``full_scale_db_spl`` the file's own calibration is kept: a signal whose rms is 1 (full scale)
    has that level. Exactly one of them must be given.

    Parameters
    ----------
    path : str or Path
        Sound file, see `read_recording`.
    fs : float
        Sampling rate in Hz of the result.
    level_db_spl : float or (B,), optional
        Level in dB SPL of each excerpt.
    full_scale_db_spl : float or (B,), optional
        Level in dB SPL of a signal whose rms is 1 in the file.
    start_s : float or (B,) or None
        Start in s of the excerpt; None draws it at random from the keys.
    duration_s : float or (B,), optional
        Duration in s of the excerpt; default: to the end of the file.
    channel : int
        Channel of the file, from 0.
    keys : Keys, optional
        Random keys, (B,) or (), for random starts.
    ramp_s, ramp_shape
        Ramps, see `psysim.stimuli.gating.ramp`.
    dtype : torch.dtype
        Type of the result.
    device : device, optional
        Where the result lives; default: the device of the keys.

    Returns
    -------
    Tensor
        (B, T) pascal.

    Raises
    ------
    SpecError
        If the file cannot be read, an excerpt reaches beyond its end or is silent, or not exactly one level is given.
    """
    if (level_db_spl is None) == (full_scale_db_spl is None):
        raise SpecError("Give exactly one of level_db_spl and full_scale_db_spl.")
    if start_s is None and (keys is None or duration_s is None):
        raise SpecError("A random start (start_s = None) needs keys and duration_s.")
    values = {
        "level_db_spl": level_db_spl,
        "full_scale_db_spl": full_scale_db_spl,
        "start_s": start_s,
        "duration_s": duration_s,
        "ramp_s": ramp_s,
    }
    p = Rows(values, keys, device)
    p.check("full_scale_db_spl", -200.0, 300.0, unit="dB SPL", optional=True)
    p.check("level_db_spl", high=MAX_LEVEL_DB_SPL, unit="dB SPL", optional=True)
    p.check("start_s", 0.0, 1e6, "s", optional=True)
    p.check("duration_s", 0.0, 1e6, "s", low_open=True, optional=True)
    p.check("ramp_s", 0.0, 1800.0, "s")
    recording = read_recording(path, fs, channel).to(p.device)
    _place_excerpts(p, recording, fs, str(path))
    check_ramps(p["length"].long(), p.length(fs, "ramp_s"))

    def make(rows: Rows) -> Tensor:
        length, start, n_ramp = rows["length"].long(), rows["start"].long(), rows.length(fs, "ramp_s")
        index = start[:, None] + torch.arange(int(length.max()), device=p.device)
        sound = recording[index.clamp(max=len(recording) - 1)]
        if level_db_spl is None:
            gain = db_spl_to_pascal(rows["full_scale_db_spl"])
        else:
            gain = token_gain(sound, rows["level_db_spl"], *steady_part(length, n_ramp))
        return sound * gain[:, None] * gate(length, n_ramp, ramp_shape)

    return by_blocks(make, p, int(p["length"].max()), dtype)


def _place_excerpts(p: Rows, recording: Tensor, fs: float, path: str) -> None:
    """Add start and length in samples of each row to ``p``."""
    total = len(recording)
    if p["start_s"] is None:
        length = p.length(fs)
        room = (total - length + 1).clamp(min=1)
        start = (uniform(p.keys, Purpose.TOKEN, 1)[:, 0] * room).floor().long()
    else:
        start = round_samples(p["start_s"], fs)
        length = (total - start) if p["duration_s"] is None else p.length(fs)
    bad = (length < 1) | (start + length > total)
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise SpecError(
            f"The excerpt from {int(start[row]) / fs:g} s, {int(length[row]) / fs:g} s long, does not lie in '{path}', "
            f"which lasts {total / fs:g} s (row {row})."
        )
    p.values["start"], p.values["length"] = start.double(), length.double()


@register("from_file")
class FromFile(GatedStimulus):
    """A recorded sound."""

    class Parameters(StimulusParameters):
        """Parameters of a recorded sound."""

        path: str = Field(description="Sound file (WAV, FLAC, OGG).")
        channel: int = Field(0, ge=0, le=255, description="Channel of the file, from 0.")
        level_db_spl: float | None = Field(
            None, le=MAX_LEVEL_DB_SPL, description="Level in dB SPL of the excerpt; none: the file's calibration."
        )
        full_scale_db_spl: float = Field(
            100.0, ge=0, le=200, description="Level in dB SPL of an rms of 1 in the file, if level_db_spl is not given."
        )
        level_increment_db: float = Field(0.0, ge=-100, le=100, description="Level in dB added.")
        start_s: float | None = Field(0.0, ge=0, le=1e6, description="Start in s of the excerpt; none: at random.")
        duration_s: float = Field(0.5, gt=0, le=600, description="Duration in s of the excerpt.")
        ramp_s: float = Field(0.0, ge=0, le=30, description="Duration in s of each ramp.")
        ramp_shape: Literal["raised_cosine", "linear"] = Field("raised_cosine", description="Shape of the ramps.")
        silence_before_s: float = Field(0.0, ge=0, le=60, description="Silence in s before the sound.")
        silence_after_s: float = Field(0.0, ge=0, le=60, description="Silence in s after the sound.")

    description: ClassVar[str] = "Recorded sound: detection, level discrimination"
    tracked: ClassVar[Mapping[str, TrackedVariable]] = {
        "level_db_spl": TrackedVariable("dB SPL", "Level (dB SPL)", -math.inf, -60.0, 120.0, -1),
        "level_increment_db": TrackedVariable("dB", "Level increment (dB)", 0.0, 0.0, 60.0, -1),
    }

    def waveform(self, p: Rows, keys: Keys, fs: float) -> Tensor:
        """Return the excerpts, (B, T) float64."""
        out = torch.zeros(len(p), int(p.length(fs).max()), dtype=torch.float64, device=p.device)
        for index, (channel,) in groups(p["channel"].long()):
            rows = p.take(index)
            kept = rows["level_db_spl"] is None  # the file's calibration
            level = rows["full_scale_db_spl" if kept else "level_db_spl"] + rows["level_increment_db"]
            sound = from_file(
                p["path"],
                fs=fs,
                level_db_spl=None if kept else level,
                full_scale_db_spl=level if kept else None,
                channel=channel,
                keys=rows.keys,
                **{name: rows[name] for name in ("start_s", "duration_s", "ramp_s", "ramp_shape")},
                dtype=torch.float64,
            )
            out[index, : sound.shape[1]] = sound
        return out
