"""The validated experiment description: a TOML file in which every mistake is found before anything runs."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pydantic
import tomli_w

from psysim.errors import SpecError

if TYPE_CHECKING:
    from psysim.procedures.tasks import Task

__all__ = [
    "STANDARD",
    "EngineSettings",
    "ExperimentSpec",
    "ObserverSpec",
    "Problem",
    "RunSettings",
    "SpecProblems",
    "TaskSpec",
    "load",
    "loads",
]


class _Table(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=False)


class RunSettings(_Table):
    """How much is run."""

    n_tracks: int = pydantic.Field(default=20, ge=1, le=2**31, description="tracks per condition and observer")
    seed: int = pydantic.Field(default=1, ge=0, lt=2**63, description="seed of every random number of the run")
    fs: float = pydantic.Field(default=44100.0, ge=1000, le=400_000, description="sampling rate in Hz")


class EngineSettings(_Table):
    """How it is executed; nothing here changes a result."""

    batch: int | None = pydantic.Field(
        default=None, ge=1, description="lanes per step; default: as many as the memory budget allows, at most 256"
    )
    memory_fraction: float = pydantic.Field(
        default=0.25, gt=0, le=0.9, description="share of the free memory that one step may use"
    )
    device: Literal["auto", "cpu", "cuda"] = pydantic.Field(default="auto", description="where models run")


class TaskSpec(_Table):
    """What the listener is asked, and what all tasks share."""

    kind: str = pydantic.Field(default="afc", description="name of the task")
    settings: dict[str, Any] = pydantic.Field(default_factory=dict, description="settings of that kind of task")
    noise: Literal["running", "frozen"] = pydantic.Field(
        default="running", description="fresh noise in every interval, or one token in all of them"
    )
    rove_db: float = pydantic.Field(default=0.0, ge=0, le=60, description="range of the level rove in dB")
    rove_per: Literal["interval", "trial"] = pydantic.Field(default="interval", description="when the rove is drawn")

    def make(self) -> Task:
        """Return the task."""
        from psysim.procedures.tasks import registry

        return registry.get(self.kind)(**self.settings)


class ObserverSpec(_Table):
    """One observer: a model, a decision stage and their settings; with an audiogram, a listener with a hearing loss.

    The aid is the table of its file; files that it names are relative to ``aid_folder``.
    """

    name: str
    decision: str
    model: str | None = None
    model_options: dict[str, Any] = pydantic.Field(default_factory=dict)
    audiogram: str | dict[str, Any] | None = None
    ohc_share: float | None = None
    aid: dict[str, Any] | None = None
    aid_folder: str = "."
    settings: dict[str, Any] = pydantic.Field(default_factory=dict)


STANDARD = "standard_"
"""Conditions whose names begin so vary a parameter of the standard."""


@dataclass(frozen=True)
class Problem:
    """One mistake in an experiment description: where, what, and the remedy."""

    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.key}: {self.message}" if self.key else self.message


class SpecProblems(SpecError):
    """All mistakes of one experiment description."""

    shown = 12

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = list(problems)
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        lines = [f"{source}: {count}", *(f"  - {p}" for p in problems[: self.shown])]
        if len(problems) > self.shown:
            lines.append(f"  ... and {len(problems) - self.shown} more")
        super().__init__("\n".join(lines))


@dataclass(frozen=True)
class ExperimentSpec:
    """A validated experiment.

    Attributes
    ----------
    title, description : str
    human : tuple of str
        Names of the human data sets that the experiment is compared with.
    stimulus_kind : str
    stimulus : dict
        Parameters shared by all conditions, defaults filled in.
    conditions : list of dict
        Values of the varied parameters in every condition: each case with every combination of the factors, the last
        factor varying fastest; one empty condition if nothing varies.
    task : TaskSpec
    standard : dict
        Parameters of the standard that differ from those of the variable sound; conditions named ``standard_...`` add
        to them. Empty unless the task has a standard.
    procedure_kind : str
    procedure : dict
        Settings of the tracking rule, defaults filled in, limits of the tracked variable included.
    tracks : str
        Name of the tracked variable.
    observers : tuple of ObserverSpec
    run, engine : RunSettings, EngineSettings
    source : str
        Where the description came from.
    tables : dict
        The description as plain tables, profile and overrides applied: what is stored with the result.
    """

    title: str
    description: str
    human: tuple[str, ...]
    stimulus_kind: str
    stimulus: dict[str, Any]
    conditions: list[dict[str, Any]]
    task: TaskSpec
    procedure_kind: str
    procedure: dict[str, Any]
    tracks: str
    observers: tuple[ObserverSpec, ...]
    run: RunSettings
    engine: EngineSettings
    standard: dict[str, float] = field(default_factory=dict)
    source: str = "<text>"
    tables: dict[str, Any] = field(default_factory=dict)

    @property
    def factors(self) -> list[str]:
        """Names of the parameters that vary between conditions."""
        return list(self.conditions[0])

    @property
    def n_lanes(self) -> int:
        """Number of tracks of the whole run: conditions x observers x tracks."""
        return len(self.conditions) * len(self.observers) * self.run.n_tracks

    def to_toml(self) -> str:
        """Return everything that results depend on as TOML text, profile and overrides applied.

        Execution settings are left out; `loads` of the text gives the same experiment.
        """
        return tomli_w.dumps({k: v for k, v in self.tables.items() if k not in ("engine", "profiles")})


def load(
    path: str | Path,
    *,
    profile: str | None = None,
    overrides: Mapping[str, Any] | Iterable[str] = (),
) -> ExperimentSpec:
    """Read and validate an experiment file.

    Parameters
    ----------
    path : str or Path
        A TOML file.
    profile : str, optional
        Name of one of the file's ``[profiles.NAME]`` tables of overrides.
    overrides : mapping or iterable of str
        Settings that replace the file's, as ``{"run.n_tracks": 4}`` or ``["run.n_tracks=4"]``.

    Returns
    -------
    ExperimentSpec

    Raises
    ------
    SpecError
        If the file cannot be read or anything in it is wrong: all mistakes are listed with file and key.

    Examples
    --------
    >>> import psysim
    >>> experiment = psysim.load("experiments/demo_tmtf.toml")  # doctest: +SKIP
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        folder = path.parent if path.parent.is_dir() else Path()
        near = difflib.get_close_matches(path.name, [p.name for p in folder.glob("*.toml")], n=1)
        hint = f" Did you mean '{folder / near[0]}'?" if near else " 'psysim list experiments' shows what is there."
        raise SpecError(f"{path}: there is no such file.{hint}") from None
    except IsADirectoryError:
        raise SpecError(f"{path}: this is a folder; give the TOML file of an experiment.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read as a TOML text file ({error}).") from None
    return loads(text, source=str(path), folder=path.parent, profile=profile, overrides=overrides)


def loads(
    text: str,
    *,
    source: str = "<text>",
    folder: Path | None = None,
    profile: str | None = None,
    overrides: Mapping[str, Any] | Iterable[str] = (),
) -> ExperimentSpec:
    """Validate an experiment description given as TOML text; see `load`."""
    from psysim.experiments.overrides import apply_overrides
    from psysim.experiments.validation import validate

    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{source}: this is not valid TOML: {error}. Strings need quotes, numbers none.") from None
    tables = apply_overrides(tables, profile, overrides, source)
    return validate(tables, source, folder or Path())
