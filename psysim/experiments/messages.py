"""What is said about a mistake: the key, what was given, what is meant, the nearest valid name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

import pydantic

from psysim.experiments.spec import Problem

__all__ = ["pydantic_problems", "show", "unknown_key"]

#: Unit suffixes that may end a key, for hints such as duration_ms -> duration_s.
UNITS = ("db_spl", "db_hl", "db_sl", "khz", "hz", "ms", "us", "s", "db", "pa", "rad", "deg", "percent", "m")
UNIT_NAMES = {"s": "seconds", "hz": "Hz", "db": "dB", "db_spl": "dB SPL", "rad": "radians", "pa": "pascal"}


def _stem(key: str) -> str:
    return re.sub(rf"_({'|'.join(UNITS)})$", "", key)


def unknown_key(key: str, allowed: Iterable[str]) -> str:
    """Return the message for a key that is not known: the same quantity in another unit, or the nearest name."""
    names = list(allowed)
    same = [name for name in names if _stem(name) == _stem(key) and name != key]
    if same:
        unit = UNIT_NAMES.get(same[0][len(_stem(same[0])) + 1 :], "")
        return f"unknown key. Use '{same[0]}'" + (f" and give the value in {unit}." if unit else ".")
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.55)
    if near:
        return f"unknown key. Did you mean '{near[0]}'?"
    return f"unknown key. Allowed: {', '.join(names)}."


def pydantic_problems(
    error: pydantic.ValidationError, prefix: str, model: type[pydantic.BaseModel], skip: Iterable[str] = ()
) -> list[Problem]:
    """Return one problem per wrong key of a table, in the user's words.

    Parameters
    ----------
    error : pydantic.ValidationError
    prefix : str
        Key of the table.
    model : type
        The model that refused it: its field names and descriptions.
    skip : iterable of str
        Fields that are not offered as alternatives.
    """
    problems = []
    allowed = [name for name in model.model_fields if name not in set(skip)]
    for item in error.errors():
        location = [str(part) for part in item["loc"]]
        name = location[0] if location else ""
        key = ".".join(p for p in [prefix, *location[:1], *(f"[{q}]" for q in location[1:] if q.isdigit())] if p)
        key = key.replace(".[", "[")
        known = model.model_fields.get(name)
        meaning = f" ({known.description.rstrip('.')})" if known is not None and known.description else ""
        if item["type"] == "extra_forbidden":
            message = unknown_key(name, allowed)
        elif item["type"] == "missing":
            message = f"is missing{meaning}."
        else:
            text = item["msg"].removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
            given = "" if isinstance(item["input"], dict) else f"= {show(item['input'])} "
            message = f"{given}{text}{meaning}."
        problems.append(Problem(key, message))
    return _merge_unions(problems)


def _merge_unions(problems: list[Problem]) -> list[Problem]:
    """Keep one problem per key: a union of types reports one error for each member."""
    merged: dict[str, Problem] = {}
    for problem in problems:
        merged.setdefault(problem.key, problem)
    return list(merged.values())


def show(value: object) -> str:
    """Return a value as text of at most 40 characters."""
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
