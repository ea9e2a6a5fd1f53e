"""The design command's terminal side: which rules, which listener, the table, the figure."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from psysim.cli import tables
from psysim.errors import SpecError, check_option, check_range, did_you_mean

if TYPE_CHECKING:
    from psysim.procedures import Design, Procedure, PsychometricFunction

__all__ = ["Context", "design"]

FIGURES = (".png", ".svg", ".pdf")
N_TRACKS = 10_000
N_TRACKS_BAYES = 1000
EASY = 0.95
"""Tracks start, if not told where, at the level where the listener is this part of the way from guessing to the top."""

SHARED = ("level_start", "level_min", "level_max", "step_unit", "harder")
"""Settings that a rule given beside an experiment's own takes over from it."""


@dataclass
class Context:
    """What the rules have in common.

    Parameters
    ----------
    kind : str or None
        Rule of the experiment file.
    settings : dict
        Its settings.
    chance_level : float
        Guess rate of the task.
    unit, label : str
        Unit and name of the tracked variable.
    """

    kind: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    chance_level: float = 1 / 3
    unit: str = ""
    label: str = "Level"


def design(
    file: Path | None,
    profile: str | None,
    rules: list[str],
    shared: list[str],
    listener: Mapping[str, Any],
    task: str | None,
    n_tracks: int | None,
    seed: int,
    unit: str | None,
    figure: Path | None,
    json_file: Path | None,
) -> None:
    """Simulate the rules, print the table, write the files asked for."""
    from psysim.procedures import BayesRule, simulate_design

    if file is None and not rules:
        raise SpecError('Name an experiment file or a rule, for instance --rule "up_down: n_down=3 steps=[4,2,1]".')
    if figure is not None:
        check_option("--figure suffix", figure.suffix, FIGURES)
    if n_tracks is not None:
        check_range("--tracks", n_tracks, 2)
    check_range("--seed", seed, 0, 2**64 - 1)
    context = _context(file, profile)
    if task is not None:
        context.chance_level = _chance_level(task)
    if unit is not None:
        context.unit = unit
    function = _listener(listener, context)
    made, notes = _rules(rules, shared, context, function)
    units = {getattr(rule.settings, "step_unit", "level") for rule in made.values()}
    if len(units) > 1:
        raise SpecError(
            "Rules with step_unit = 'db' have their errors in dB, the others in the unit of the level: compare them in "
            "two calls, or give all of them the same step_unit."
        )
    designs = {}
    for name, rule in made.items():
        usual = N_TRACKS_BAYES if isinstance(rule, BayesRule) else N_TRACKS
        designs[name] = simulate_design(rule, function, n_tracks or usual, seed)
    _show(designs, function, context, notes)
    if json_file is not None:
        _write(json_file, json.dumps(_numbers(designs, function, context, seed), indent=2) + "\n")
    if figure is not None:
        from psysim.reports.design_figure import design_figure
        from psysim.reports.style import pdf, png, svg

        drawn, _ = design_figure(designs, label=context.label, unit=context.unit)
        _write(figure, {".png": png, ".svg": svg, ".pdf": pdf}[figure.suffix](drawn))


# -- what is asked for ---------------------------------------------------------------------------------------------


def _context(file: Path | None, profile: str | None) -> Context:
    """Return rule, task and unit of an experiment file, or the defaults."""
    if file is None:
        if profile is not None:
            raise SpecError(f"--profile {profile}: profiles belong to an experiment file; name the file too.")
        return Context()
    from psysim.experiments import load
    from psysim.stimuli import registry as stimuli

    spec = load(file, profile=profile)
    tracked = stimuli.get(spec.stimulus_kind).tracked[spec.tracks]
    return Context(
        spec.procedure_kind, dict(spec.procedure), spec.task.make().chance_level, tracked.unit or "", tracked.label
    )


def _chance_level(task: str) -> float:
    """Return the guess rate of ``3afc``, ``yes_no``, ..."""
    from psysim.procedures import AFC, YesNo

    forced = re.fullmatch(r"(\d+)afc", task)
    if forced:
        return AFC(n_intervals=int(forced[1])).chance_level
    if task != "yes_no":
        known = ["2afc", "3afc", "4afc", "yes_no"]
        raise SpecError(
            f"--task {task} is not known. Allowed: Nafc with N from 2 to 16, as 3afc, or yes_no."
            f"{did_you_mean(task, known)}"
        )
    return YesNo().chance_level


def _listener(given: Mapping[str, Any], context: Context) -> PsychometricFunction:
    from psysim.procedures import PsychometricFunction

    unit = f" {context.unit}" if context.unit else ""
    for name, what, example in (
        ("threshold", "the level at the middle of the listener's psychometric function", "--threshold -20"),
        ("slope", f"how much the proportion correct rises there, per{unit or ' unit of the level'}", "--slope 0.05"),
    ):
        if given[name] is None:
            raise SpecError(f"--{name} is missing: {what}, for instance {example}.")
        if not math.isfinite(given[name]):
            raise SpecError(f"--{name} {given[name]} must be a finite number.")
    guess_rate = context.chance_level if given["guess_rate"] is None else given["guess_rate"]
    return PsychometricFunction(
        given["threshold"], given["slope"], guess_rate, given["lapse_rate"], shape=given["shape"]
    )


def _rules(
    rules: list[str], shared: list[str], context: Context, listener: PsychometricFunction
) -> tuple[dict[str, Procedure], list[str]]:
    """Return the rules by label, and sentences on what was filled in."""
    from psysim.procedures import registry

    asked: list[tuple[str, str, dict[str, Any]]] = []
    if context.kind is not None:
        asked.append((f"{context.kind} (experiment)", context.kind, {}))
    for text in rules:
        kind, _, settings = text.partition(":")
        kind = kind.strip()
        asked.append((" ".join(text.split()), kind, _settings(settings, f"--rule {kind}")))
    common = dict(_pair(text.removeprefix("procedure."), "--set") for text in shared)
    fields = {kind: registry.get(kind).Settings.model_fields for _, kind, _ in asked}
    for name in common:
        known = sorted({k for f in fields.values() for k in f})
        if name not in known:
            raise SpecError(
                f"--set {name}: none of the rules ({', '.join(fields)}) has this setting.{did_you_mean(name, known)}"
            )
    made: dict[str, Procedure] = {}
    notes: dict[str, list[str]] = {}
    for label, kind, own in asked:
        if label in made:
            raise SpecError(f"--rule {label}: given twice.")
        inherited = context.settings if label.endswith("(experiment)") else _inherited(context)
        values = {k: v for k, v in (inherited | common).items() if k in fields[kind]} | own
        for note in _fill_in(values, fields[kind], listener):
            notes.setdefault(note, []).append(label)
        try:
            made[label] = registry.get(kind)(**values)
        except SpecError as error:
            raise SpecError(f"{label}: {error}") from None
    some = len(made) > 1
    return made, [
        f"{note}, for {'; '.join(labels)}" if some and len(labels) < len(made) else note
        for note, labels in notes.items()
    ]


def _inherited(context: Context) -> dict[str, Any]:
    return {name: context.settings[name] for name in SHARED if name in context.settings}


def _fill_in(values: dict[str, Any], fields: Iterable[str], listener: PsychometricFunction) -> list[str]:
    """Give settings that follow from the listener where they are not given; return what was done."""
    notes = []
    if "harder" in fields:
        values.setdefault("harder", -1 if listener.slope > 0 else 1)
    if "guess_rate" in fields and "guess_rate" not in values:
        values["guess_rate"] = listener.guess_rate
        notes.append(f"guess_rate = {listener.guess_rate:.4g} (not given: that of the task)")
    if "level_start" in fields and "level_start" not in values and "rules" not in values and "levels" not in values:
        top = 1.0 - listener.lapse_rate
        easy = float(listener.inverse(listener.guess_rate + EASY * (top - listener.guess_rate)))
        low, high = values.get("level_min", -math.inf), values.get("level_max", math.inf)
        values["level_start"] = float(f"{min(max(easy, low), high):.4g}")
        notes.append(
            f"level_start = {values['level_start']:g} (not given: where the listener is {100 * EASY:.0f} % of the way "
            "from guessing to the top)"
        )
    return notes


def _settings(text: str, where: str) -> dict[str, Any]:
    """Return the settings in ``n_down=3 steps=[4, 2]``: TOML values, separated by blanks or commas."""
    starts = [m.start() for m in re.finditer(r"(?<![\w.])[A-Za-z_]\w*\s*=", text) if _outside(text[: m.start()])]
    if text.strip() and (not starts or text[: starts[0]].strip()):
        starts = [0, *starts]
    parts = [text[a:b].strip().rstrip(",").strip() for a, b in pairwise([*starts, len(text)])]
    return dict(_pair(part, where) for part in parts)


def _outside(before: str) -> bool:
    """Return whether a text ends outside brackets and quotes."""
    bare = re.sub(r"'[^']*'|\"[^\"]*\"", "", before)
    depth = sum(bare.count(c) for c in "[{") - sum(bare.count(c) for c in "]}")
    return depth == 0 and not re.search("['\"]", bare)


def _pair(text: str, where: str) -> tuple[str, Any]:
    key, separator, value = (part.strip() for part in text.partition("="))
    if not separator or not key or not value:
        raise SpecError(f"{where} {text}: give key=value, for instance n_down=3.")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value  # a bare word is a string
    return key, parsed


# -- what is said --------------------------------------------------------------------------------------------------


def _show(designs: Mapping[str, Design], listener: PsychometricFunction, context: Context, notes: list[str]) -> None:
    unit = f" {context.unit}" if context.unit else ""
    typer.echo(
        f"Listener: {listener.shape}, threshold {listener.threshold:g}{unit}, slope {listener.slope:g} per"
        f"{unit or ' unit of the level'}, guess rate {listener.guess_rate:.4g}, lapse rate {listener.lapse_rate:g}"
    )
    for note in notes:
        typer.echo(note)
    rows = []
    for name, found in designs.items():
        shares = found.shares
        others = [f"{k} {100 * v:.2f} %" for k, v in shares.items() if k != "converged"]
        error_unit = " dB" if found.in_db else unit
        rows.append(
            {
                "rule": name,
                "target": f"{found.procedure.target_proportion:.4g}",
                f"level of target{_in(unit)}": f"{found.level_target:.4g}",
                f"bias{_in(error_unit)}": f"{found.bias:+.3f}",
                "± SE": f"{found.bias_sem:.3f}",
                f"SD{_in(error_unit)}": f"{found.std:.3f}",
                f"RMSE{_in(error_unit)}": f"{found.rmse:.3f}",
                "trials": f"{found.mean_trials:.1f}",
                "10-90 %": f"{found.trials_percentile(10):.0f}-{found.trials_percentile(90):.0f}",
                "tracks": str(len(found.status)),
                "not converged": ", ".join(others) or "0 %",
            }
        )
    tables.show(rows)


def _in(unit: str) -> str:
    return f" ({unit.strip()})" if unit.strip() else ""


def _numbers(
    designs: Mapping[str, Design], listener: PsychometricFunction, context: Context, seed: int
) -> dict[str, Any]:
    """Return everything that was found, for a JSON file; what is not a number there is null."""
    rows = [
        {
            "rule": name,
            "settings": json.loads(found.procedure.settings.model_dump_json(exclude_unset=True)),
            "target_proportion": found.procedure.target_proportion,
            "level_target": found.level_target,
            "unit_of_errors": "dB" if found.in_db else context.unit,
            "bias": found.bias,
            "bias_sem": found.bias_sem,
            "std": found.std,
            "rmse": found.rmse,
            "mean_trials": found.mean_trials,
            "trials_percentiles": {str(p): found.trials_percentile(p) for p in (10, 50, 90)},
            "n_tracks": len(found.status),
            "shares": found.shares,
        }
        for name, found in designs.items()
    ]
    clean = [{k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()} for row in rows]
    about = {name: getattr(listener, name) for name in ("threshold", "slope", "guess_rate", "lapse_rate", "shape")}
    return {"listener": about, "unit": context.unit, "seed": seed, "rules": clean}


def _write(path: Path, content: str | bytes) -> None:
    try:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    except OSError as error:
        raise SpecError(f"{path} cannot be written: {error.strerror}.") from None
    typer.echo(f"Written: {path}", err=True)
