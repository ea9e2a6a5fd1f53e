"""One file per operator; every `Case` found here is tested by all of tests/ops/test_all_ops.py."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from .base import Case

CASES: dict[str, Case] = {
    case.name: case
    for module in iter_modules(__path__)
    for case in vars(import_module(f"{__name__}.{module.name}")).values()
    if isinstance(case, Case)
}
