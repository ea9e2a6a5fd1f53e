"""Aids as TOML files and tables."""

from __future__ import annotations

import difflib
import inspect
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from psysim.errors import SpecError, did_you_mean
from psysim.hearing.aids.base import HearingAid, registry
from psysim.hearing.aids.candidates import CANDIDATES, UserCandidate

__all__ = ["load_aid", "make_aid", "read_aid"]

TEXTS = ("title", "description")
OWN = ("self", "fs", "learnable", "dtype")


def arguments_of(made: type[HearingAid]) -> list[str]:
    """Return the arguments that a table may state for an aid."""
    names = list(inspect.signature(made).parameters)
    if issubclass(made, UserCandidate):
        names += list(inspect.signature(UserCandidate.__init__).parameters)
        names.remove("options")  # stands for the arguments of UserCandidate
    return [name for name in dict.fromkeys(names) if name not in OWN]


def make_aid(
    table: Mapping[str, Any],
    fs: float,
    audiogram: object = None,
    folder: str | Path = ".",
    learnable: bool = False,
    dtype: torch.dtype | str = torch.float32,
) -> HearingAid:
    """Return the aid that a table describes.

    Parameters
    ----------
    table : mapping
        ``kind`` and the arguments of that aid, or ``stages``, a list of such tables; ``title`` and ``description`` are
        for people.
    fs : float
        Sampling rate, Hz.
    audiogram : Audiogram, str or mapping, optional
        The listener's: for aids with a prescription that state no audiogram of their own.
    folder : str or Path
        What files in the table are relative to.
    learnable : bool
        Make the settings trainable.
    dtype : torch.dtype
        torch.float32 or torch.float64.

    Raises
    ------
    SpecError
        If a name or an argument is not known (with the nearest one), or a value is not usable.

    Examples
    --------
    >>> make_aid({"kind": "gain", "gain_db": 20.0}, fs=16000.0).gain_db.item()
    20.0
    >>> make_aid({"kind": "linear", "prescription": "NAL-R"}, fs=16000.0, audiogram="N3").delay
    128
    """
    if not isinstance(table, Mapping):
        raise SpecError("An aid is a table with kind and its arguments, or with stages.")
    options = {key: value for key, value in table.items() if key not in TEXTS}
    kind = options.pop("kind", "chain" if "stages" in options else None)
    known = [*registry.names(), *CANDIDATES]
    if kind not in known:
        raise SpecError(f"kind = {kind!r} is no hearing aid. Known: {', '.join(known)}.{did_you_mean(kind, known)}")
    made = CANDIDATES[kind] if kind in CANDIDATES else registry.get(kind)
    allowed = arguments_of(made)
    for key in options:
        if key not in allowed:
            raise SpecError(
                f"The aid '{kind}' has no '{key}'. Allowed: {', '.join(allowed)}.{did_you_mean(key, allowed)}"
            )
    if options.get("prescription") is not None and "audiogram" not in options and audiogram is not None:
        options["audiogram"] = audiogram
    if "folder" in allowed and kind in CANDIDATES:
        options["folder"] = str(Path(folder) / str(options.get("folder", ".")))
    if kind == "chain" and isinstance(options.get("stages"), list):
        options["stages"] = [
            stage if isinstance(stage, HearingAid) else make_aid(stage, fs, audiogram, folder, learnable, dtype)
            for stage in options["stages"]
        ]
    try:
        return made(fs, **options, learnable=learnable, dtype=dtype)
    except SpecError:
        raise
    except (TypeError, ValueError) as error:
        raise SpecError(f"The aid '{kind}': {error}") from error


def load_aid(
    path: str | Path,
    fs: float,
    audiogram: object = None,
    learnable: bool = False,
    dtype: torch.dtype | str = torch.float32,
) -> HearingAid:
    r"""Return the aid that a TOML file describes.

    Parameters
    ----------
    path : str or Path
        File with ``kind`` and the arguments of that aid, or a list of ``[[stages]]``.
    fs : float
        Sampling rate, Hz.
    audiogram : Audiogram, str or mapping, optional
        The listener's: for aids with a prescription that state no audiogram of their own.
    learnable : bool
        Make the settings trainable.
    dtype : torch.dtype
        torch.float32 or torch.float64.

    Raises
    ------
    SpecError
        If the file cannot be read, or does not describe an aid; the message begins with the file.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     file = Path(folder) / "aid.toml"
    ...     _ = file.write_text('kind = "gain"\ngain_db = 20.0', encoding="utf-8")
    ...     load_aid(file, fs=16000.0).gain_db.item()
    20.0
    """
    path = Path(path)
    try:
        return make_aid(read_aid(path), fs, audiogram, path.parent, learnable, dtype)
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from None


def read_aid(path: str | Path) -> dict[str, Any]:
    """Return the table of a TOML file.

    Raises
    ------
    SpecError
        If the file cannot be read, or is not valid TOML.
    """
    path = Path(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.toml")], n=1)
        hint = f" Did you mean '{near[0]}'?" if near and not path.exists() else ""
        raise SpecError(f"The file cannot be read ({error}).{hint}") from None
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"This is not valid TOML: {error}.") from None
