"""What a module was built with: kept by every module of the zoo, so that a checkpoint can build it again."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar, Self

from torch import nn

from psysim.errors import SpecError
from psysim.models.base import jsonable
from psysim.registry import Registry

__all__ = ["Configured", "build", "front_ends", "prefilters", "register", "registry"]

ROOM = "psysim.models.neural"


class Configured(nn.Module):
    """A module that remembers the arguments it was built with."""

    kind: ClassVar[str] = ""
    """Name in its registry."""
    family: ClassVar[str] = ""
    """Which registry: "model", "prefilter" or "front_end"."""
    _given: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Record the arguments; copies and unpickled modules bring their own record."""
        module = super().__new__(cls)
        signature = inspect.signature(cls.__init__)
        try:
            bound = signature.bind_partial(module, *args, **kwargs)
        except TypeError:
            return module  # the constructor says what is wrong
        bound.apply_defaults()
        given = dict(list(bound.arguments.items())[1:])
        for name, parameter in signature.parameters.items():
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                given |= given.pop(name, {})
        object.__setattr__(module, "_given", given)
        return module

    def configuration(self) -> dict[str, Any]:
        """Return what `build` needs to build the module's twin, with other weights: JSON-able.

        Raises
        ------
        SpecError
            If an argument is a module that is in no registry.
        """
        arguments = {}
        for name, value in self._given.items():
            if isinstance(value, nn.Module) and not isinstance(value, Configured):
                raise SpecError(
                    f"{name} of {type(self).__name__} is a {type(value).__name__}, which cannot be stored: derive it "
                    "from psysim.models.neural.Configured and register it."
                )
            arguments[name] = value.configuration() if isinstance(value, Configured) else jsonable(value)
        return {"family": self.family, "kind": self.kind, "arguments": arguments}


registry: Registry[type[Configured]] = Registry(
    "neural response model",
    "psysim.neural_models",
    tuple(f"{ROOM}.{name}" for name in ("convolutional", "icnet", "linear", "networks", "statenet", "transformer")),
)
prefilters: Registry[type[Configured]] = Registry("prefilter", "psysim.neural_prefilters", (f"{ROOM}.adaptation",))
front_ends: Registry[type[Configured]] = Registry(
    "front-end",
    "psysim.neural_front_ends",
    tuple(f"{ROOM}.{name}" for name in ("auditory_front_end", "icnet", "learnt_front_ends", "spectral_front_ends")),
)
FAMILIES = {"model": registry, "prefilter": prefilters, "front_end": front_ends}


def register(family: str, kind: str) -> Any:
    """Return a decorator that registers a class.

    Parameters
    ----------
    family : {"model", "prefilter", "front_end"}
        Which registry.
    kind : str
        Name in it.

    Returns
    -------
    callable
        Decorator of the class.
    """

    def add(cls: type[Configured]) -> type[Configured]:
        cls.family, cls.kind = family, kind
        return FAMILIES[family].register(kind)(cls)

    return add


def build(configuration: dict[str, Any]) -> Configured:
    """Build a module from what `Configured.configuration` returned.

    Parameters
    ----------
    configuration : dict
        With the keys "family", "kind" and "arguments"; an argument may itself be a configuration.

    Returns
    -------
    Configured
        The module with new weights.

    Raises
    ------
    SpecError
        For an unknown kind or argument.
    """
    arguments = {
        name: build(value) if isinstance(value, dict) and {"family", "kind"} <= set(value) else value
        for name, value in configuration["arguments"].items()
    }
    cls = FAMILIES[configuration["family"]].get(configuration["kind"])
    try:
        return cls(**arguments)
    except TypeError as error:
        raise SpecError(f"{configuration['kind']} cannot be built from {sorted(arguments)}: {error}") from None
