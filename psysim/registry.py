"""Registries: named implementations of one interface, built in or added by plug-ins.

A room keeps one `Registry`; an implementation joins it with a decorator. Other packages can add
implementations through the entry-point group of the same name (for instance ``psysim.observers``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from psysim.errors import SpecError, did_you_mean

__all__ = ["Registry"]

T = TypeVar("T")


class Registry(Generic[T]):
    """Names mapped to implementations.

    Parameters
    ----------
    kind : str
        What is registered, in the user's words ("observer"): used in messages.
    group : str
        Entry-point group that plug-ins use ("psysim.observers").
    builtin : tuple of str
        Modules that register the built-in implementations, imported at the first look-up.
    """

    def __init__(self, kind: str, group: str, builtin: tuple[str, ...] = ()) -> None:
        self.kind = kind
        self.group = group
        self._builtin = builtin
        self._items: dict[str, T] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that registers an implementation under ``name``.

        Raises
        ------
        SpecError
            If another implementation has that name already.
        """

        def add(item: T) -> T:
            present = self._items.get(name)
            if present is not None and getattr(present, "__qualname__", present) != getattr(item, "__qualname__", item):
                raise SpecError(f"A {self.kind} named '{name}' is registered already; choose another name.")
            self._items[name] = item
            return item

        return add

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        for module in self._builtin:
            import_module(module)
        for point in entry_points(group=self.group):
            if point.name not in self._items:
                self.register(point.name)(point.load())

    def get(self, name: str) -> T:
        """Return the implementation called ``name``.

        Raises
        ------
        SpecError
            If there is none; the message lists the names and the nearest one.
        """
        self._load()
        if name not in self._items:
            known = ", ".join(sorted(self._items))
            hint = did_you_mean(name, self._items)
            raise SpecError(f"There is no {self.kind} named '{name}'. Known: {known}.{hint}")
        return self._items[name]

    def names(self) -> list[str]:
        """Return all names, sorted."""
        self._load()
        return sorted(self._items)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._items
