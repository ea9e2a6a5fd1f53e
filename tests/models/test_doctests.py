"""The examples in the documentation of the stages and models run."""

from __future__ import annotations

import doctest
from importlib import import_module
from pkgutil import iter_modules

import pytest

import psysim.models
import psysim.stages

PACKAGES = (psysim.stages, psysim.models)
MODULES = [f"{package.__name__}.{m.name}" for package in PACKAGES for m in iter_modules(package.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    results = doctest.testmod(import_module(name))
    assert results.failed == 0


def test_there_are_examples() -> None:
    assert sum(doctest.testmod(import_module(name)).attempted for name in MODULES) >= 20
