"""Running what is not psysim's own: functions and programs that may crash or hang."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from tempfile import TemporaryFile
from typing import Any

import torch

from psysim.errors import PsysimError, check_option

__all__ = ["FAILURES", "CandidateError", "run_command", "within"]

FAILURES = ("crash", "time_out", "length", "not_finite", "clipped", "missing")
"""What may be wrong with a candidate: `CandidateError.reason`."""
SHOWN = 400
"""Characters of a command's last words that a message shows."""


class CandidateError(PsysimError):
    """A candidate failed: it crashed, hung, or gave an output that is no aided sound.

    Parameters
    ----------
    reason : str
        One of `FAILURES`.
    message : str
        What happened.

    Examples
    --------
    >>> CandidateError("length", "99 samples for 100.").reason
    'length'
    """

    def __init__(self, reason: str, message: str) -> None:
        check_option("reason", reason, FAILURES)
        super().__init__(f"The candidate failed ({reason}): {message}")
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (self.reason, str(self))


def _rebuilt(reason: str, text: str) -> CandidateError:
    error = CandidateError(reason, "")
    error.args = (text,)
    return error


def within(seconds: float, function: Callable[[], Any]) -> Any:
    """Return ``function()``; what it raises, or no answer in time, becomes a `CandidateError`.

    A thread cannot be stopped: one that hangs stays behind, idle or not, until the program ends.
    """
    box: dict[str, Any] = {}
    grad = torch.is_grad_enabled()

    def work() -> None:
        try:
            with torch.set_grad_enabled(grad):
                box["answer"] = function()
        except BaseException as error:
            box["error"] = error

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise CandidateError("time_out", f"no answer within {seconds:g} s.")
    if "error" in box:
        error = box["error"]
        raise CandidateError("crash", f"{type(error).__name__}: {error}") from error
    return box["answer"]


def run_command(parts: Sequence[str], folder: str, timeout_s: float) -> tuple[int, str]:
    """Run a command and return its exit status and its last words.

    At the time-out the command ends with all that it started. Its words go to a file: a pipe that a program left behind
    holds open would be waited for.
    """
    with TemporaryFile() as words:
        try:
            process = subprocess.Popen(
                parts, cwd=folder, stdin=subprocess.DEVNULL, stdout=words, stderr=words, start_new_session=True
            )
        except (OSError, ValueError) as error:
            raise CandidateError("crash", f"{parts[0]} cannot be started ({error}).") from error
        try:
            status = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise CandidateError("time_out", f"{parts[0]} did not end within {timeout_s:g} s.") from None
        finally:
            if process.poll() is None:  # a time-out, or the user's interrupt
                end_group(process)
        words.seek(0)
        return status, words.read().decode(errors="replace").strip()[-SHOWN:]


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and those that it started."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
