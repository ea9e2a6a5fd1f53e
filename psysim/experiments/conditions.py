"""What varies between the sounds of an experiment: the values of cases and factors, and the standard of a matching."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pydantic

from psysim.experiments.messages import pydantic_problems, show, unknown_key
from psysim.experiments.spec import STANDARD, Problem, TaskSpec

if TYPE_CHECKING:
    from psysim.stimuli.base import Stimulus

__all__ = ["each_case", "each_factor", "identification_problems", "standard_problems"]


def each_case(
    cases: list[dict[str, Any]], factors: Mapping[str, list[Any]]
) -> list[tuple[dict[str, Any], dict[str, str]]]:
    """Return every case with the first values of all factors, and the key of each value."""
    first = {name: values[0] for name, values in factors.items()}
    keys = {name: f"conditions.{name}[0]" for name in factors}
    return [
        (first | case, keys | {name: f"cases[{i}].{name}" for name in case}) for i, case in enumerate(cases or [{}])
    ]


def each_factor(
    cases: list[dict[str, Any]], factors: Mapping[str, list[Any]]
) -> list[tuple[dict[str, Any], dict[str, str]]]:
    """Return the first case with one factor at a time run through its values, and the key of each value."""
    varied, keys = each_case(cases, factors)[0]
    return [
        (varied | {name: value}, keys | {name: f"conditions.{name}[{i}]"})
        for name, values in factors.items()
        for i, value in enumerate(values)
        if i
    ]


def standard_problems(
    task: TaskSpec, kind: type[Stimulus], given: Mapping[str, Any], varied: Mapping[str, list[Any]], tracks: object
) -> list[Problem]:
    """Return the mistakes in the parameters of the standard: the table ``given``, and conditions ``standard_...``."""
    keys = {name: f"standard.{name}" for name in given} | {name: f"conditions.{STANDARD}{name}" for name in varied}
    if not task.make().has_standard:
        has_none = f"the task '{task.kind}' has no standard; the task 'matching' has one."
        return [Problem(key, has_none) for key in keys.values()]
    problems = [
        Problem(f"standard.{name}", f"is also in [conditions], as '{STANDARD}{name}': remove one of the two.")
        for name in given
        if name in varied
    ]
    if tracks not in keys:
        missing = f"is missing: the value of {tracks} in the standard, to which the variable sound is matched."
        problems.append(Problem(f"standard.{tracks}", missing))
    for name, value in [*given.items(), *((name, v) for name, values in varied.items() for v in values)]:
        if name not in kind.Parameters.model_fields:
            problems.append(Problem(keys[name], unknown_key(name, kind.Parameters.model_fields)))
        elif not isinstance(value, int | float) or isinstance(value, bool):
            alike = "must be a number: the standard and the variable sound share all options."
            problems.append(Problem(keys[name], f"= {show(value)} {alike}"))
        else:
            problems += _refused(kind, name, value, keys[name])
    return problems


def identification_problems(
    task: TaskSpec, kind: type[Stimulus], stimulus: Mapping[str, Any], conditions: list[dict[str, Any]]
) -> list[Problem]:
    """Return the mistakes of an identification: a stimulus without labels, or with another number of them."""
    from psysim.procedures.tasks_closed_set import Identification
    from psysim.stimuli.labelled import LabelledStimulus

    made = task.make()
    if not isinstance(made, Identification):
        return []
    if not issubclass(kind, LabelledStimulus):
        return [Problem("task.kind", "= 'identification' needs a stimulus with labels, as speech_in_noise.")]
    sets = {kind().alternatives({**stimulus, **condition}) for condition in conditions}
    if len(sets) > 1:
        return [Problem("conditions", "must all have the same labels to be identified.")]
    (alternatives,) = sets
    if made.place is not None and made.place > len(alternatives):
        return [Problem("task.place", f"= {made.place}, but the sounds have {len(alternatives)} labels.")]
    asked = alternatives if made.place is None else alternatives[made.place - 1 : made.place]
    sizes = sorted({len(names) for names in asked})
    if sizes != [made.n_alternatives]:
        number = " or ".join(map(str, sizes))
        return [Problem("task.n_alternatives", f"= {made.n_alternatives}, but the sounds have {number} alternatives.")]
    return []


def _refused(kind: type[Stimulus], name: str, value: float, key: str) -> list[Problem]:
    """Return why a stimulus refuses the value of one parameter."""
    try:
        kind.Parameters.model_validate({name: value})
    except pydantic.ValidationError as error:
        found = pydantic_problems(error, "standard", kind.Parameters)
        return [Problem(key, problem.message) for problem in found if problem.key == f"standard.{name}"]
    return []
