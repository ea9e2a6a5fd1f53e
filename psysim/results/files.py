"""Files that are either complete or absent, and the lock that keeps a run to one process."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

from psysim.errors import StoreError

__all__ = ["sync_file", "take_lock", "write_atomically"]


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it exists either completely or not at all, also after a power cut."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes it private; results are shared like any other file
        os.rename(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_file(path.parent)


def sync_file(path: Path) -> None:
    """Force a file, or the entries of a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def take_lock(path: Path) -> int:
    """Take the lock of a ``.partial`` folder and return its file descriptor."""
    try:
        import fcntl
    except ImportError as error:
        raise StoreError(
            "Running an experiment needs a POSIX system (Linux, macOS): there is no flock here."
        ) from error
    handle = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The holder may have finished and removed the folder between our open and our lock.
        if not (path / "lock").exists() or not os.path.samestat(os.fstat(handle), os.stat(path / "lock")):
            raise StoreError(f"{path} was finished by another process at this moment. Look at its result.")
    except BlockingIOError as error:
        holder = os.read(handle, 200).decode(errors="replace") or "another process"
        os.close(handle)
        raise StoreError(
            f"{path} is being written by {holder}. Wait until it has ended, stop it and use --resume, "
            "or choose another --out."
        ) from error
    except BaseException:
        os.close(handle)
        raise
    os.ftruncate(handle, 0)
    os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
    return handle
