"""Replace settings of an experiment description: named profiles, and key=value pairs."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from psysim.errors import SpecError, did_you_mean

__all__ = ["apply_overrides"]


def apply_overrides(
    tables: dict[str, Any], profile: str | None, overrides: Mapping[str, Any] | Iterable[str], source: str
) -> dict[str, Any]:
    """Return a copy of ``tables`` with a profile and overrides applied, in this order.

    Raises
    ------
    SpecError
        If the profile does not exist or an override has no ``key=value`` form or a path that leads nowhere.
    """
    tables = copy.deepcopy(tables)
    if profile is not None:
        profiles = tables.get("profiles", {})
        if not isinstance(profiles, dict) or profile not in profiles:
            known = ", ".join(profiles) if isinstance(profiles, dict) and profiles else "none"
            hint = did_you_mean(profile, profiles)
            raise SpecError(f"{source}: there is no profile '{profile}'. Profiles of this file: {known}.{hint}")
        for key, value in profiles[profile].items():
            _assign(tables, key, value, f"{source}: profiles.{profile}")
    pairs = overrides.items() if isinstance(overrides, Mapping) else [parse_override(text) for text in overrides]
    for key, value in pairs:
        _assign(tables, key, value, "--set")
    return tables


def parse_override(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise SpecError(f"--set {text}: give key=value, for instance --set run.n_tracks=4.")
    try:
        return key.strip(), tomllib.loads(f"value = {value.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()  # a bare word is a string


def _assign(tables: dict[str, Any], dotted: str, value: Any, where: str) -> None:
    node: Any = tables
    *path, last = dotted.split(".")
    for part in path:
        if isinstance(node, list):
            node = _list_item(node, part, dotted, where)
        elif isinstance(node, dict):
            node = node.setdefault(part, {})
        else:
            raise SpecError(f"{where} {dotted}: '{part}' is not inside a table.")
    if isinstance(node, list):
        _list_item(node, last, dotted, where)
        node[int(last)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise SpecError(f"{where} {dotted}: there is no table to put '{last}' into.")


def _list_item(node: list[Any], part: str, dotted: str, where: str) -> Any:
    if not part.isdigit() or int(part) >= len(node):
        raise SpecError(f"{where} {dotted}: '{part}' must be an index from 0 to {len(node) - 1}.")
    return node[int(part)]
