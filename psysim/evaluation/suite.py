"""Suites: a list of experiments with their observers, run one after another into one folder, resumable as a whole."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic

from psysim.errors import PsysimError, SpecError, StoreError, did_you_mean

if TYPE_CHECKING:
    import xarray as xr

    from psysim.experiments import ExperimentSpec
    from psysim.experiments.engine import Progress

__all__ = ["Suite", "SuiteRun", "load_suite", "open_suite", "run_suite"]

MANIFEST = "suite.json"


class _Entry(pydantic.BaseModel):
    """One experiment of a suite."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    file: str = pydantic.Field(description="TOML file, relative to the suite's")
    set: dict[str, Any] = pydantic.Field(default_factory=dict, description="settings that replace the file's")
    observers: list[str] | None = pydantic.Field(
        default=None, description="names (with * for any text) of the experiment's own observers to keep; default: all"
    )


class _File(pydantic.BaseModel):
    """A suite as it is written down."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    title: str = "Suite of experiments"
    description: str = ""
    profile: str | None = pydantic.Field(default=None, description="profile of every experiment")
    experiments: list[str | _Entry] = pydantic.Field(min_length=1)
    own_observers: bool = pydantic.Field(default=True, description="whether the experiments' own observers take part")
    observers: list[dict[str, Any]] = pydantic.Field(
        default_factory=list, description="observers added to every experiment, or to those in their list experiments"
    )


@dataclass(frozen=True)
class Suite:
    """Validated experiments by name.

    Attributes
    ----------
    title, description : str
    experiments : dict of str to ExperimentSpec
        In the order in which they run; the name is that of the file, without folder and ending.
    profile : str or None
        Profile applied to all of them.
    """

    title: str
    description: str
    experiments: dict[str, ExperimentSpec]
    profile: str | None = None

    @property
    def identity(self) -> dict[str, str]:
        """Digest of every experiment's description: two suites with the same ones give the same results."""
        return {
            name: hashlib.sha256(spec.to_toml().encode()).hexdigest()[:24] for name, spec in self.experiments.items()
        }


@dataclass
class SuiteRun:
    """What a suite left behind.

    Attributes
    ----------
    folder : Path
    results : dict of str to Path
        Complete results by the name of the experiment.
    failures : dict of str to str
        Experiments that ended with an error, and its message.
    seconds : dict of str to float
        Time that each experiment took in this execution.
    """

    folder: Path
    results: dict[str, Path] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def load(self) -> dict[str, xr.Dataset]:
        """Return the complete results by the name of the experiment."""
        from psysim.results import load

        return {name: load(path) for name, path in self.results.items()}


def load_suite(
    files: str | Path | Sequence[str | Path],
    *,
    profile: str | None = None,
    overrides: Mapping[str, Any] | Iterable[str] = (),
) -> Suite:
    """Read and validate a suite: a suite file, or any number of experiment files.

    Parameters
    ----------
    files : path or sequence of path
        One TOML file with a list ``experiments``, or experiment files.
    profile : str, optional
        Profile of every experiment, in place of the suite's.
    overrides : mapping or iterable of str
        Settings that replace those of every experiment, as ``{"run.n_tracks": 2}`` or ``["run.n_tracks=2"]``.

    Returns
    -------
    Suite

    Raises
    ------
    SpecError
        If a file cannot be read or anything in any of them is wrong, a pattern fits no observer, or two experiments
        have the same name.

    Examples
    --------
    >>> suite = load_suite(["experiments/simulated_listener.toml"])  # doctest: +SKIP
    """
    paths = [Path(files)] if isinstance(files, str | Path) else [Path(f) for f in files]
    if not paths:
        raise SpecError("Name a suite file or at least one experiment file.")
    pairs = _pairs(overrides)
    if len(paths) == 1 and (tables := _suite_tables(paths[0])) is not None:
        described, folder, source = _described(tables, paths[0]), paths[0].parent, str(paths[0])
    else:
        described, folder, source = _File(experiments=[str(p) for p in paths]), Path(), "the suite"
    used = profile or described.profile
    experiments: dict[str, ExperimentSpec] = {}
    for item in described.experiments:
        entry = _Entry(file=item) if isinstance(item, str) else item
        path = folder / entry.file
        if path.stem in experiments:
            raise SpecError(f"{source}: two experiments are named '{path.stem}': rename one of the files.")
        experiments[path.stem] = _experiment(path, entry, described, used, pairs, source)
    for observer in described.observers:
        wanted = observer.get("experiments", ["*"])
        if not any(fnmatch.fnmatch(name, pattern) for name in experiments for pattern in wanted):
            raise SpecError(f"{source}: observers '{observer.get('name')}': experiments = {wanted} fits none of them.")
    return Suite(described.title, described.description, experiments, used)


def _suite_tables(path: Path) -> dict[str, Any] | None:
    """Return the tables of a suite file, or None if the file is not one (an experiment, or not readable)."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return None  # the reader of experiments says what is wrong
    return tables if "experiments" in tables and "stimulus" not in tables else None


def _described(tables: dict[str, Any], path: Path) -> _File:
    try:
        return _File.model_validate(tables)
    except pydantic.ValidationError as error:
        known = list(_File.model_fields)
        lines = []
        for problem in error.errors():
            key = ".".join(map(str, problem["loc"]))
            hint = did_you_mean(problem["loc"][0], known) if problem["type"] == "extra_forbidden" else ""
            allowed = f" Allowed: {', '.join(known)}." if problem["type"] == "extra_forbidden" else ""
            lines.append(f"  - {key}: {problem['msg']}.{allowed}{hint}")
        raise SpecError(f"{path}: not a valid suite:\n" + "\n".join(lines)) from None


def _pairs(overrides: Mapping[str, Any] | Iterable[str]) -> dict[str, Any]:
    from psysim.experiments.overrides import parse_override

    if isinstance(overrides, Mapping):
        return dict(overrides)
    return dict(parse_override(text) for text in overrides)


def _experiment(
    path: Path, entry: _Entry, described: _File, profile: str | None, pairs: Mapping[str, Any], source: str
) -> ExperimentSpec:
    """Return one experiment with the observers that the suite gives it."""
    from psysim.experiments import load

    own = load(path, profile=profile, overrides={**entry.set, **pairs})
    tables = [dict(t) for t in own.tables["observers"]] if described.own_observers else []
    if entry.observers is not None and described.own_observers:
        tables = _kept(tables, entry.observers, own, f"{source}: {path.name}")
    names = [o.name for o in own.observers]
    added = [
        _for_experiment(observer, own)
        for observer in described.observers
        if any(fnmatch.fnmatch(path.stem, pattern) for pattern in observer.get("experiments", ["*"]))
    ]
    if not added and len(tables) == len(names):
        return own
    if not tables and not added:
        raise SpecError(f"{source}: {path.name} has no observer left.")
    return load(path, profile=profile, overrides={**entry.set, **pairs, "observers": [*tables, *added]})


def _kept(tables: list[dict[str, Any]], patterns: list[str], spec: ExperimentSpec, where: str) -> list[dict[str, Any]]:
    names = [o.name for o in spec.observers]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            hint = did_you_mean(pattern, names)
            raise SpecError(f"{where}: observers: '{pattern}' fits none of {', '.join(map(repr, names))}.{hint}")
    return [t for t, name in zip(tables, names, strict=True) if any(fnmatch.fnmatch(name, p) for p in patterns)]


def _for_experiment(observer: Mapping[str, Any], spec: ExperimentSpec) -> dict[str, Any]:
    """Return a suite's observer as an experiment states it: the rule of the answer follows that of the procedure."""
    from psysim.observers import registry

    table = {k: v for k, v in observer.items() if k != "experiments"}
    decision = table.get("decision")
    if decision in registry and "n_down" in registry.get(str(decision)).Settings.model_fields:
        drawn = table.get("response_rule") == "drawn"
        if "n_down" not in table and "n_down" in spec.procedure and not drawn:
            table["n_down"] = spec.procedure["n_down"]
    return table


# ------------------------------------------------------------ running
def run_suite(
    suite: Suite,
    out: str | Path,
    *,
    device: str | None = None,
    resume: bool = False,
    progress: Callable[[str, Progress], None] | None = None,
) -> SuiteRun:
    """Run the experiments of a suite one after another, each into ``out/<name>.zarr``.

    An experiment that ends with an error does not stop the others; an interruption does, and nothing is lost.

    Parameters
    ----------
    suite : Suite
        From `load_suite`.
    out : str or Path
        Folder of the results.
    device : {"auto", "cpu", "cuda"}, optional
        Default: what the experiments say.
    resume : bool
        Continue an interrupted suite: complete results are kept, an unfinished one goes on at its last trial.
        Experiments may have been added to the suite.
    progress : callable, optional
        Called with the name of the experiment and its `psysim.experiments.Progress` after every step.

    Returns
    -------
    SuiteRun

    Raises
    ------
    StoreError
        If the folder holds another suite or other files, or a suite that was begun and ``resume`` is False.
    """
    from psysim.experiments.engine import run

    folder = Path(out)
    _claim(suite, folder, resume)
    done = SuiteRun(folder)
    for name, spec in suite.experiments.items():
        path, began = folder / f"{name}.zarr", time.monotonic()
        step = None if progress is None else (lambda p, name=name: progress(name, p))
        try:
            run(spec, path, device=device, resume=True, progress=step)
        except StoreError:
            raise
        except (PsysimError, RuntimeError, MemoryError) as error:
            done.failures[name] = f"{type(error).__name__}: {error}"
        else:
            done.results[name] = path
        done.seconds[name] = time.monotonic() - began
    return done


def open_suite(out: str | Path) -> SuiteRun:
    """Return the complete results in the folder of a suite.

    Parameters
    ----------
    out : str or Path
        Folder that `run_suite` wrote.

    Returns
    -------
    SuiteRun
        Experiments that are not complete are among its failures.

    Raises
    ------
    StoreError
        If the folder holds no suite.
    """
    from psysim.results import state_of

    folder = Path(out)
    found = SuiteRun(folder)
    for name in _manifest(folder)["experiments"]:
        path = folder / f"{name}.zarr"
        if state_of(path) == "complete":
            found.results[name] = path
        else:
            found.failures[name] = "not complete"
    return found


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise StoreError(
            f"{folder} holds no suite (no {MANIFEST}). 'psysim suite FILES --out FOLDER' makes one."
        ) from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{folder / MANIFEST} cannot be read: {error}.") from error


def _claim(suite: Suite, folder: Path, resume: bool) -> None:
    """Write the manifest of a new suite, or check that the folder holds this one."""
    if not (folder / MANIFEST).exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise StoreError(f"{folder} exists and holds no suite: nothing is written there. Choose another --out.")
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / MANIFEST, _content(suite))
        return
    before = _manifest(folder)["experiments"]
    changed = [name for name, digest in before.items() if suite.identity.get(name) != digest]
    if changed:
        raise StoreError(
            f"{folder} holds another suite: {', '.join(changed)} differ or are not in this one. Use the same files, "
            "--profile and --set as before, or another --out."
        )
    if not resume:
        raise StoreError(f"{folder} holds this suite already. Add --resume to continue it, or choose another --out.")
    _write(folder / MANIFEST, _content(suite))  # experiments may have been added


def _content(suite: Suite) -> dict[str, Any]:
    return {"title": suite.title, "profile": suite.profile, "experiments": suite.identity}


def _write(path: Path, content: Mapping[str, Any]) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=1) + "\n")
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
