"""Find every mistake of an experiment description, and say where it is and how to mend it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pydantic

from psysim.errors import PsysimError, did_you_mean
from psysim.experiments.conditions import each_case, each_factor, identification_problems, standard_problems
from psysim.experiments.messages import pydantic_problems, show, unknown_key
from psysim.experiments.observer_checks import checked_observers
from psysim.experiments.spec import (
    STANDARD,
    EngineSettings,
    ExperimentSpec,
    Problem,
    RunSettings,
    SpecProblems,
    TaskSpec,
)

__all__ = ["validate"]

TOP_LEVEL = (
    "title",
    "description",
    "human",
    "comparison",
    "stimulus",
    "conditions",
    "cases",
    "task",
    "standard",
    "procedure",
    "observers",
    "run",
    "engine",
    "profiles",
)
REQUIRED = ("title", "stimulus", "procedure", "observers")
TABLES = ("comparison", "stimulus", "conditions", "task", "standard", "procedure", "run", "engine", "profiles")
COMPARISON = {  # its keys, with an example of each
    "relative_to": "masker_level_db_spl = -inf",
    "same": 'level_db_sl = "level_db_spl"',
    "where": "frequency_hz = 500.0",
}


class _Checker:
    """Collects problems while the parts of a description are checked one after another."""

    def __init__(self, tables: dict[str, Any], source: str, folder: Path) -> None:
        self.tables = tables
        self.source = source
        self.folder = folder
        self.problems: list[Problem] = []

    def add(self, key: str, message: str) -> None:
        self.problems.append(Problem(key, message))

    def table(self, name: str) -> dict[str, Any]:
        value = self.tables.get(name, {})
        return dict(value) if isinstance(value, dict) else {}

    def settings(self, model: type[pydantic.BaseModel], values: Mapping[str, Any], prefix: str) -> Any:
        try:
            return model.model_validate(dict(values))
        except pydantic.ValidationError as error:
            self.problems += pydantic_problems(error, prefix, model)
            return None

    def kind(self, table: str, default: str | None, registry: Any) -> Any:
        """Return the registered implementation named by ``kind`` in a table."""
        name = self.table(table).get("kind", default)
        if name is None:
            self.add(f"{table}.kind", f"is missing. Known: {', '.join(registry.names())}.")
        elif name not in registry:
            self.add(
                f"{table}.kind",
                f"= {show(name)} is not known. Known: {', '.join(registry.names())}."
                f"{did_you_mean(name, registry.names())}",
            )
        else:
            return registry.get(name)
        return None

    # each part of the file ------------------------------------------------------------------------------------------

    def top_level(self) -> None:
        for key in self.tables:
            if key not in TOP_LEVEL:
                self.add(key, unknown_key(key, TOP_LEVEL))
        for key in REQUIRED:
            if key not in self.tables:
                self.add(key, "is missing.")
        for key in TABLES:
            if key in self.tables and not isinstance(self.tables[key], dict):
                self.add(key, f"must be a table, written [{key}].")
        for key in ("title", "description"):
            if not isinstance(self.tables.get(key, ""), str):
                self.add(key, f"= {show(self.tables[key])} must be a text in quotes.")

    def human(self) -> tuple[str, ...]:
        from psysim import human

        names = self.tables.get("human", [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            self.add("human", 'must be a list of data-set names, for instance ["tmtf_parameters"].')
            return ()
        known = human.names() if names else []
        for i, name in enumerate(names):
            if name not in known:
                hint = did_you_mean(name, known) or " 'psysim list human' shows the names."
                self.add(f"human[{i}]", f"there is no data set '{name}'.{hint}")
        return tuple(names)

    def comparison(self, names: tuple[str, ...], fields: list[str], conditions: list[dict[str, Any]]) -> None:
        """Check the table that says how the run is compared with the human data; the evaluation reads it."""
        table = self.table("comparison")
        for key in table:
            if key not in COMPARISON:
                self.add(f"comparison.{key}", unknown_key(key, COMPARISON))
            elif not isinstance(table[key], dict):
                self.add(f"comparison.{key}", f"must be a table, for instance {{ {COMPARISON[key]} }}.")
        same, where, relative_to = (self.tables_of(table, key) for key in ("same", "where", "relative_to"))
        if same or where:
            from psysim import human

            theirs = list(dict.fromkeys(c for name in names for c in human.as_thresholds(name).columns))
            known = {"same": theirs, "where": [*theirs, *fields]}
            for key, values in (("same", same), ("where", where)):
                for name in values:
                    if name not in known[key]:
                        self.add(f"comparison.{key}.{name}", unknown_key(name, known[key]))
        for name, ours in same.items():
            if ours not in fields:
                self.add(f"comparison.same.{name}", unknown_key(str(ours), fields))
        factors = list(conditions[0])
        unknown = [name for name in relative_to if name not in factors]
        for name in unknown:
            self.add(f"comparison.relative_to.{name}", f"{unknown_key(name, factors)} It must be a condition.")
        if relative_to and not unknown:
            found = [c for c in conditions if all(c[name] == value for name, value in relative_to.items())]
            if len(found) in (0, len(conditions)):
                whose = "no" if not found else "every"
                self.add("comparison.relative_to", f"{whose} condition has {show(relative_to)}: some must have it.")

    @staticmethod
    def tables_of(table: dict[str, Any], key: str) -> dict[str, Any]:
        value = table.get(key, {})
        return value if isinstance(value, dict) else {}

    def varied_name(self, name: str, key: str, fields: Iterable[str], tracks: object) -> bool:
        """Check the name of a parameter that is to vary between conditions."""
        if name not in fields:
            self.add(key, f"{unknown_key(name, fields)} Conditions vary a parameter of the stimulus.")
        elif name == tracks:
            self.add(key, "is the tracked variable: it cannot be a condition too. Remove it here.")
        elif name in self.table("stimulus"):
            self.add(f"stimulus.{name}", f"is also in [conditions] or [[cases]]: remove one of the two '{name}'.")
        else:
            return True
        return False

    def factors(self, fields: Iterable[str], tracks: object) -> dict[str, list[Any]]:
        factors: dict[str, list[Any]] = {}
        for name, values in self.table("conditions").items():
            key = f"conditions.{name}"
            if not self.varied_name(name, key, fields, tracks):
                continue
            if not isinstance(values, list) or not values:
                self.add(key, "must be a list of one or more values, for instance [4, 16, 64].")
            elif len({repr(v) for v in values}) != len(values):
                self.add(key, "holds the same value twice. Give each value once; run.n_tracks repeats conditions.")
            else:
                factors[name] = values
        return factors

    def cases(self, fields: Iterable[str], tracks: object) -> list[dict[str, Any]]:
        """Return the cases: parameters that vary together."""
        cases = self.tables.get("cases", [])
        if not isinstance(cases, list) or not all(isinstance(case, dict) for case in cases):
            self.add("cases", "must be one or more tables of parameters that vary together, each written [[cases]].")
            return []
        for i, case in enumerate(cases):
            for name in case:
                if self.varied_name(name, f"cases[{i}].{name}", fields, tracks) and name in self.table("conditions"):
                    self.add(f"cases[{i}].{name}", f"is also in [conditions]: remove one of the two '{name}'.")
        return cases

    def stimulus(
        self, factors: Mapping[str, list[Any]], cases: list[dict[str, Any]], tracks: object, level: float
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Check the parameters together with the values of every condition.

        Returns
        -------
        parameters : dict
            Those shared by all conditions, defaults filled in.
        cases : list of dict
            With the same names in every case.
        """
        kind = self.kind("stimulus", None, self.registries["stimulus"])
        given = {k: v for k, v in self.table("stimulus").items() if k != "kind"}
        if kind is None:
            return {}, []
        if tracks in given:
            self.add(f"stimulus.{tracks}", "is the tracked variable: the procedure sets it. Remove it here.")
            given.pop(str(tracks))
        if isinstance(given.get("path"), str):
            given["path"] = str(self.folder / given["path"])
        if isinstance(tracks, str) and tracks in kind.tracked and math.isfinite(level):
            given[tracks] = level
        base: dict[str, Any] = {}
        for varied, keys in [*each_case(cases, factors), *each_factor(cases, factors)]:
            try:
                base = kind.Parameters.model_validate(given | varied).model_dump()
            except pydantic.ValidationError as error:
                for problem in pydantic_problems(error, "stimulus", kind.Parameters, skip=[str(tracks)]):
                    key = keys.get(problem.key.removeprefix("stimulus."), problem.key)
                    if Problem(key, problem.message) not in self.problems:
                        self.add(key, problem.message)
        fields = kind.Parameters.model_fields
        together = [name for name in dict.fromkeys(name for case in cases for name in case) if name in fields]
        complete = [{name: case.get(name, fields[name].default) for name in together} for case in cases]
        varies = {*factors, *together, tracks}
        return {name: value for name, value in base.items() if name not in varies}, complete

    def task(self) -> TaskSpec:
        kind = self.kind("task", "afc", self.registries["task"])
        values = self.table("task")
        shared = {
            k: values.pop(k) for k in list(values) if k in TaskSpec.model_fields and k not in ("kind", "settings")
        }
        name = values.pop("kind", "afc")
        task: TaskSpec | None = self.settings(TaskSpec, shared, "task")
        if kind is None:
            return TaskSpec()
        if not kind.in_experiments:
            able = [
                other for other in self.registries["task"].names() if self.registries["task"].get(other).in_experiments
            ]
            self.add(
                "task.kind",
                f"= {show(name)} cannot be run in an experiment yet, only with your own responder "
                f"(psysim.procedures). Experiments run: {', '.join(able)}.",
            )
        names = [*kind.Settings.model_fields, *(f for f in TaskSpec.model_fields if f != "settings")]
        for key in [key for key in values if key not in kind.Settings.model_fields]:
            self.add(f"task.{key}", unknown_key(key, names))
            values.pop(key)
        settings = self.settings(kind.Settings, values, "task")
        if task is None or settings is None:
            return TaskSpec()
        return task.model_copy(update={"kind": name, "settings": settings.model_dump()})

    def tracked(self, kind: Any, tracks: object) -> Any:
        if kind is None:
            return None
        names = ", ".join(kind.tracked)
        if tracks is None:
            self.add("procedure.tracks", f"is missing: which variable is tracked? This stimulus offers: {names}.")
        elif tracks not in kind.tracked:
            hint = did_you_mean(tracks, kind.tracked)
            self.add("procedure.tracks", f"= {show(tracks)} cannot be tracked. This stimulus offers: {names}.{hint}")
        else:
            return kind.tracked[tracks]
        return None

    def procedure(self, tracked: Any) -> dict[str, Any]:
        kind = self.kind("procedure", "up_down", self.registries["procedure"])
        if kind is None:
            return {}
        values = {k: v for k, v in self.table("procedure").items() if k != "kind"}
        if tracked is not None:
            unit = f" {tracked.unit}" if tracked.unit else ""
            for name in ("level_start", "level_min", "level_max"):
                value = values.get(name)
                if isinstance(value, int | float) and not tracked.minimum <= value <= tracked.maximum:
                    self.add(
                        f"procedure.{name}",
                        f"= {value:g}{unit} is outside the physical limits of {values.get('tracks')} "
                        f"({tracked.minimum:g} to {tracked.maximum:g}{unit}).",
                    )
            values.setdefault("level_min", tracked.minimum)
            values.setdefault("level_max", tracked.maximum)
            values.setdefault("harder", tracked.harder)
        if "seed" in kind.Settings.model_fields:
            run = self.table("run")
            values.setdefault("seed", run.get("seed", RunSettings.model_fields["seed"].default))
        settings = self.settings(kind.Settings, values, "procedure")
        # the limits of the stimulus are part of the rule; other defaults are left to the rule itself
        return settings.model_dump(exclude_unset=True) if settings is not None else {}

    def chance(self, task: TaskSpec, procedure: dict[str, Any]) -> None:
        """Refuse a rule that settles where a listener who hears nothing is as good."""
        name = self.table("procedure").get("kind", "up_down")
        try:
            target = self.registries["procedure"].get(name)(**procedure).target_proportion
        except PsysimError as error:
            self.add("procedure", str(error))
            return
        chance = task.make().chance_level
        if target <= chance:
            self.add(
                "procedure",
                f"{name} settles at {100 * target:.3g} % correct here, which guessing reaches in this task "
                f"({100 * chance:.3g} %): no threshold would come of it. Choose a rule or settings with a higher "
                "target, or a task with more alternatives.",
            )

    @property
    def registries(self) -> dict[str, Any]:
        from psysim.observers import registry as observers
        from psysim.procedures import registry as procedures
        from psysim.procedures.tasks import registry as tasks
        from psysim.stimuli import registry as stimuli

        return {"observer": observers, "procedure": procedures, "stimulus": stimuli, "task": tasks}


def _number(value: object, default: float) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else default


def validate(tables: dict[str, Any], source: str, folder: Path) -> ExperimentSpec:
    """Return the validated experiment, or raise `SpecProblems` that lists every mistake."""
    check = _Checker(tables, source, folder)
    check.top_level()
    run = check.settings(RunSettings, check.table("run"), "run") or RunSettings()
    engine = check.settings(EngineSettings, check.table("engine"), "engine") or EngineSettings()
    task = check.task()
    procedure_table = check.table("procedure")
    tracks = procedure_table.get("tracks")
    registry = check.registries["stimulus"]
    kind_name = check.table("stimulus").get("kind")
    kind = registry.get(kind_name) if isinstance(kind_name, str) and kind_name in registry else None
    tracked = check.tracked(kind, tracks)
    fields = list(kind.Parameters.model_fields) if kind is not None else list(check.table("conditions"))
    every = [*fields, *(STANDARD + name for name in fields)]
    factors = check.factors(every, tracks)
    own = {name: values for name, values in factors.items() if not name.startswith(STANDARD)}
    of_standard = {name.removeprefix(STANDARD): v for name, v in factors.items() if name not in own}
    level = _number(procedure_table.get("level_start"), math.nan)
    if tracked is not None and not tracked.minimum <= level <= tracked.maximum:
        level = math.nan  # reported with the procedure's limits
    stimulus, cases = check.stimulus(own, check.cases(fields, tracks), tracks, level)
    standard = check.table("standard")
    if kind is not None:
        check.problems += standard_problems(task, kind, standard, of_standard, tracks)
    procedure = check.procedure(tracked)
    if not check.problems:
        check.chance(task, procedure)
    human = check.human()
    conditions = [
        {**case, **dict(zip(factors, values, strict=True))}
        for case in cases or [{}]
        for values in itertools.product(*factors.values())
    ]
    if not check.problems:
        check.comparison(human, [*fields, *factors], conditions)
        assert kind is not None
        check.problems += identification_problems(task, kind, stimulus, conditions)
    observers = checked_observers(check, run.fs, task)
    if check.problems:
        raise SpecProblems(source, check.problems)
    spec = ExperimentSpec(
        title=tables["title"],
        description=tables.get("description", ""),
        human=human,
        stimulus_kind=str(kind_name),
        stimulus=stimulus,
        conditions=conditions,
        task=task,
        standard=standard,
        procedure_kind=procedure_table.get("kind", "up_down"),
        procedure=procedure,
        tracks=str(tracks),
        observers=observers,
        run=run,
        engine=engine,
        source=source,
        tables=tables,
    )
    _listen_once(spec)
    return spec


def _listen_once(spec: ExperimentSpec) -> None:
    """Generate one target and one reference of every condition: what a generator refuses is found here.

    Raises
    ------
    SpecProblems
        With the generator's message.
    """
    from psysim.experiments.sounds import Sounds

    try:
        sounds = Sounds(spec)
        sounds.check()
    except SpecProblems:
        raise
    except PsysimError as error:
        raise SpecProblems(spec.source, [Problem("stimulus", str(error))]) from None
