"""Candidates that users bring: a Python function, a TorchScript file, a command, a folder of processed wav files."""

from __future__ import annotations

import hashlib
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from psysim.errors import SpecError, check_range
from psysim.hearing.aids.base import HearingAid, State
from psysim.hearing.aids.outside import CandidateError, run_command, within

__all__ = [
    "CANDIDATES",
    "CommandCandidate",
    "FolderCandidate",
    "PythonCandidate",
    "TorchScriptCandidate",
    "UserCandidate",
    "sound_name",
]


def sound_name(x: Tensor, fs: float) -> str:
    """Return the name of a sound: the first 16 hexadecimal digits of the SHA-256 of its float32 samples and rate.

    Parameters
    ----------
    x : Tensor (T,) or (2, T)
        Sound in pascal.
    fs : float
        Sampling rate, Hz.

    Examples
    --------
    >>> len(sound_name(torch.zeros(10), 16000.0))
    16
    """
    samples = x.detach().cpu().to(torch.float32).contiguous().numpy().astype("<f4")
    return hashlib.sha256(f"{float(fs):g} {samples.shape} ".encode() + samples.tobytes()).hexdigest()[:16]


class UserCandidate(HearingAid):
    """A hearing aid that psysim knows only from outside; each sound is processed whole and what comes back is checked.

    Parameters
    ----------
    fs : float
        Sampling rate, Hz.
    full_scale_pa : float
        Pressure of full scale, Pa. Files hold pascal divided by it, and output that reaches it counts as clipped.
    timeout_s : float
        Longest time for one sound (for one batch, where the candidate takes batches), s.
    delay : int
        Samples by which the output lags the input, as its maker states it.
    learnable : bool
        Without effect.
    dtype : torch.dtype
        torch.float32 or torch.float64.

    Raises
    ------
    CandidateError
        While processing: see `FAILURES`.
    SpecError
        If an argument is out of range.
    """

    streams = False

    def __init__(
        self,
        fs: float,
        full_scale_pa: float = 20.0,
        timeout_s: float = 60.0,
        delay: int = 0,
        learnable: bool = False,
        dtype: torch.dtype | str = torch.float32,
    ) -> None:
        super().__init__(fs, learnable=learnable, dtype=dtype)
        check_range("full_scale_pa", full_scale_pa, 0.0, 1e4, unit="Pa", low_open=True)
        check_range("timeout_s", timeout_s, 0.0, 1e5, unit="s", low_open=True)
        check_range("delay", delay, 0, 10_000_000)
        self.full_scale_pa, self.timeout_s, self._delay = float(full_scale_pa), float(timeout_s), int(delay)

    @property
    def delay(self) -> int:
        """Samples by which the output lags the input, as stated."""
        return self._delay

    @abstractmethod
    def _run(self, x: Tensor) -> Tensor:
        """Return what the candidate gives for sound (B, E, T) in pascal, unchecked."""

    def _process(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        peak = float(x.detach().abs().max())
        if peak >= self.full_scale_pa:
            raise CandidateError(
                "clipped", f"the input has {peak:.3g} Pa already, full scale is {self.full_scale_pa:g} Pa."
            )
        y = self._run(x)
        if not isinstance(y, Tensor) or not y.dtype.is_floating_point:
            raise CandidateError("crash", f"it gave {type(y).__name__}, not a floating tensor.")
        if y.shape != x.shape:
            raise CandidateError("length", f"its output has shape {tuple(y.shape)}, its input {tuple(x.shape)}.")
        if not bool(torch.isfinite(y).all()):
            raise CandidateError("not_finite", "its output has samples that are NaN or infinite.")
        peak = float(y.detach().abs().max())
        if peak >= self.full_scale_pa * (1.0 - 1e-4):
            raise CandidateError(
                "clipped", f"its output reaches {peak:.4g} Pa, and full scale is {self.full_scale_pa:g} Pa."
            )
        return y.to(x.dtype), {}


class PythonCandidate(UserCandidate):
    """A Python function ``function(x, fs)`` from sound (B, E, T) in pascal to sound of the same shape.

    Parameters
    ----------
    fs : float
        Sampling rate, Hz.
    function : str
        ``"package.module:name"``.
    full_scale_pa, timeout_s, delay, learnable, dtype
        See `UserCandidate`.

    Raises
    ------
    SpecError
        If the function cannot be imported.
    CandidateError
        While processing: see `FAILURES`.

    Examples
    --------
    >>> aid = PythonCandidate(16000.0, function="torch:mul")  # x times fs: far beyond full scale
    >>> aid(torch.ones(1, 4))
    Traceback (most recent call last):
    psysim.hearing.aids.outside.CandidateError: The candidate failed (clipped): its output reaches 1.6e+04 Pa, ...
    """

    def __init__(self, fs: float, function: str, **options: Any) -> None:
        super().__init__(fs, **options)
        module, _, name = str(function).partition(":")
        try:
            self._function = getattr(import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise SpecError(f"function = '{function}' cannot be imported as package.module:name ({error}).") from error
        if not callable(self._function):
            raise SpecError(f"function = '{function}' is not a function.")

    def _run(self, x: Tensor) -> Tensor:
        answer: Tensor = within(self.timeout_s, lambda: self._function(x.clone(), self.fs))
        return answer


class TorchScriptCandidate(UserCandidate):
    """A TorchScript file whose module takes sound (B, E, T) in pascal and gives sound of the same shape.

    Parameters
    ----------
    fs : float
        Sampling rate, Hz.
    file : str
        The file, as `torch.jit.save` writes it.
    folder : str
        What ``file`` is relative to.
    full_scale_pa, timeout_s, delay, learnable, dtype
        See `UserCandidate`.

    Raises
    ------
    SpecError
        If the file cannot be read.
    CandidateError
        While processing: see `FAILURES`.
    """

    def __init__(self, fs: float, file: str, folder: str = ".", **options: Any) -> None:
        super().__init__(fs, **options)
        path = Path(folder) / file
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".*torch.jit", DeprecationWarning)  # there are files in use
                self.script = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        except (OSError, RuntimeError, ValueError) as error:
            raise SpecError(f"{path}: this is not a TorchScript file that can be read ({error}).") from error

    def _run(self, x: Tensor) -> Tensor:
        answer: Tensor = within(self.timeout_s, lambda: self.script(x.clone()))
        return answer


def write_sound(path: Path, x: Tensor, fs: float, full_scale_pa: float) -> None:
    """Write sound (E, T) in pascal as a float32 wav file."""
    import soundfile

    samples = (x.detach().cpu().double() / full_scale_pa).T.numpy()
    soundfile.write(str(path), samples, round(fs), subtype="FLOAT")


def read_sound(path: Path, fs: float, full_scale_pa: float) -> Tensor:
    """Read sound (E, T) in pascal."""
    import soundfile

    try:
        samples, rate = soundfile.read(str(path), dtype="float64", always_2d=True)
    except (OSError, RuntimeError) as error:
        raise CandidateError("missing", f"{path.name} cannot be read ({error}).") from error
    if rate != round(fs):
        raise CandidateError("length", f"{path.name} has a sampling rate of {rate} Hz, not {fs:g} Hz.")
    return torch.from_numpy(np.ascontiguousarray(samples.T)) * full_scale_pa


def stacked(rows: Sequence[Tensor], x: Tensor) -> Tensor:
    """Return processed sounds (E, T) as a batch like ``x`` (B, E, T)."""
    for row in rows:
        if row.shape != x.shape[1:]:
            raise CandidateError("length", f"its output has shape {tuple(row.shape)}, its input {tuple(x.shape[1:])}.")
    return torch.stack(list(rows)).to(x)


class CommandCandidate(UserCandidate):
    """An external command that turns a wav file into a wav file, run once for each sound.

    Parameters
    ----------
    fs : float
        Sampling rate, Hz; a whole number.
    command : sequence of str
        The program and its arguments; ``{input}`` and ``{output}`` stand for the files. No shell is involved.
    folder : str
        Folder where it runs.
    full_scale_pa, timeout_s, delay, learnable, dtype
        See `UserCandidate`.

    Raises
    ------
    SpecError
        If the command does not name both files.
    CandidateError
        While processing: see `FAILURES`. A command that ends with another status than 0 crashed; its last words are
        shown.

    Examples
    --------
    >>> aid = CommandCandidate(16000.0, command=["cp", "{input}", "{output}"])
    >>> aid(torch.tensor([0.5, -0.25]))
    tensor([ 0.5000, -0.2500])
    """

    def __init__(self, fs: float, command: Sequence[str], folder: str = ".", **options: Any) -> None:
        super().__init__(fs, **options)
        if isinstance(command, str) or not all(isinstance(part, str) for part in command):
            raise SpecError('command must be a list of texts, such as ["my-aid", "{input}", "{output}"].')
        for place in ("{input}", "{output}"):
            if not any(place in part for part in command):
                raise SpecError(f"command must contain {place}, where the wav file's name goes.")
        if self.fs != round(self.fs):
            raise SpecError(f"fs = {self.fs:g} Hz: a wav file needs a whole number of Hz.")
        self.command, self.folder = list(command), str(folder)

    def _run(self, x: Tensor) -> Tensor:
        return stacked([self._one(row) for row in x], x)

    def _one(self, x: Tensor) -> Tensor:
        with TemporaryDirectory() as temporary:
            source, result = (Path(temporary) / name for name in ("input.wav", "output.wav"))
            write_sound(source, x, self.fs, self.full_scale_pa)
            parts = [p.replace("{input}", str(source)).replace("{output}", str(result)) for p in self.command]
            status, words = run_command(parts, self.folder, self.timeout_s)
            if status:
                raise CandidateError("crash", f"{parts[0]} ended with status {status}: {words}")
            if not result.exists():
                raise CandidateError("missing", f"{parts[0]} wrote no output file.")
            return read_sound(result, self.fs, self.full_scale_pa)


class FolderCandidate(UserCandidate):
    """A folder of processed wav files: for each sound, the one with the name that `sound_name` gives.

    Parameters
    ----------
    fs : float
        Sampling rate, Hz.
    folder : str
        The folder. `export` writes the sounds to be processed, under the same names.
    full_scale_pa, timeout_s, delay, learnable, dtype
        See `UserCandidate`.

    Raises
    ------
    SpecError
        If there is no such folder.
    CandidateError
        While processing: see `FAILURES`; ``missing`` if there is no file for a sound.
    """

    def __init__(self, fs: float, folder: str, **options: Any) -> None:
        super().__init__(fs, **options)
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise SpecError(f"folder = '{folder}' is not a folder.")

    def export(self, x: Tensor, folder: str | Path) -> list[Path]:
        """Write sounds (B, T) or (B, 2, T) in pascal to a folder, for the candidate to process; return the files."""
        rows, _ = self._rows(x)
        paths = [Path(folder) / f"{sound_name(row, self.fs)}.wav" for row in rows]
        for path, row in zip(paths, rows, strict=True):
            write_sound(path, row, self.fs, self.full_scale_pa)
        return paths

    def _run(self, x: Tensor) -> Tensor:
        paths = [self.folder / f"{sound_name(row, self.fs)}.wav" for row in x]
        for path in paths:
            if not path.exists():
                raise CandidateError("missing", f"there is no file {path.name} in its folder.")
        return stacked([read_sound(path, self.fs, self.full_scale_pa) for path in paths], x)


CANDIDATES: dict[str, type[UserCandidate]] = {
    "python": PythonCandidate,
    "torchscript": TorchScriptCandidate,
    "command": CommandCandidate,
    "folder": FolderCandidate,
}
"""Kinds of candidates by name, as in TOML files of aids."""
