"""Every public name is documented, and its documented parameters are those of its signature."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re

import pytest

import psysim

ROOMS = (
    "psysim.errors",
    "psysim.evaluation",
    "psysim.evaluation.networks",
    "psysim.evaluation.neural_data",
    "psysim.evaluation.neural_metrics",
    "psysim.evaluation.sound_sets",
    "psysim.experiments",
    "psysim.hearing",
    "psysim.hearing.aids",
    "psysim.human",
    "psysim.models",
    "psysim.models.neural",
    "psysim.models.phaselocknet",
    "psysim.observers",
    "psysim.ops",
    "psysim.procedures",
    "psysim.procedures.sdt",
    "psysim.procedures.tasks",
    "psysim.procedures.psychometric",
    "psysim.reports",
    "psysim.results",
    "psysim.rng",
    "psysim.stages",
    "psysim.stimuli",
    "psysim.testing",
    "psysim.units",
)

PUBLIC = sorted(
    {
        (room, name)
        for room in ROOMS
        for name in importlib.import_module(room).__all__
        if callable(getattr(importlib.import_module(room), name))
    }
)


@pytest.mark.parametrize(("room", "name"), PUBLIC, ids=lambda value: value)
def test_documented(room: str, name: str) -> None:
    item = getattr(importlib.import_module(room), name)
    text = inspect.getdoc(item)
    assert text, f"{room}.{name} has no docstring"
    documented = _parameters(text)
    if documented is None or not inspect.isfunction(item):
        return
    signature = [p.lstrip("*") for p in inspect.signature(item).parameters]
    unknown = [p for p in documented if p not in signature]
    missing = [p for p in signature if p not in documented]
    assert not unknown, f"{room}.{name} documents parameters that it does not have: {unknown}"
    assert not missing, f"{room}.{name} does not document: {missing}"


def _parameters(text: str) -> list[str] | None:
    """Return the names in the Parameters section, or None without one."""
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\w[^\n]*\n-{3,}|\Z)", text, re.S | re.M)
    if section is None:
        return None
    names: list[str] = []
    for line in section.group(1).splitlines():
        if line and not line.startswith(" "):
            names += [name.strip().lstrip("*") for name in line.split(" :")[0].split(",")]
    return names


def test_all_names_exist() -> None:
    for module in pkgutil.walk_packages(psysim.__path__, "psysim."):
        if module.name.endswith("__main__"):
            continue
        loaded = importlib.import_module(module.name)
        for name in getattr(loaded, "__all__", ()):
            assert hasattr(loaded, name), f"{module.name}.__all__ names {name}, which is not there"


def test_the_package_lists_its_rooms() -> None:
    for name in psysim.__all__:
        assert getattr(psysim, name) is not None
    assert "run" in dir(psysim)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = psysim.nonsense
