"""An architecture file, read strictly: layers in order, heads, and all shapes without running anything."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, get_type_hints

from psysim.errors import SpecError, did_you_mean
from psysim.models.phaselocknet.arguments import ALIASES, Misfit
from psysim.models.phaselocknet.grammar import LAYER_TYPES, Branch, Dense, Layer, Shape

__all__ = ["Architecture", "Place", "published_architecture", "published_names"]

PREFIXES = ("tf.layers.", "tf.keras.layers.", "tf.nn.", "")


@dataclass(frozen=True)
class Place:
    """A layer where it stands in a network.

    Attributes
    ----------
    path : str
        ``body.<layer>`` or ``head.<head>.<layer>``: the beginning of the names of its weights.
    layer : Layer
        The layer.
    input_shape, output_shape : tuple of int
        Without the batch.
    """

    path: str
    layer: Layer
    input_shape: Shape
    output_shape: Shape


@dataclass(frozen=True)
class Architecture:
    """Layers of a network, its input and its heads; every shape is checked when it is made.

    Parameters
    ----------
    layers : tuple of Layer
        In order. Layers after the first branch exist once per head; ``fc_output`` of each head follows by itself.
    input_shape : tuple of int
        Shape of the input without the batch: (C, F, T).
    n_classes : mapping of str to int
        Number of classes of each head; kept in alphabetical order.

    Raises
    ------
    SpecError
        If two layers have one name, a layer cannot take its input, or a head has fewer than two classes.

    Examples
    --------
    >>> layers = [{"layer_type": "conv2d", "args": {"name": "c", "filters": 8, "kernel_size": [3, 5]}},
    ...           {"layer_type": "flatten", "args": {"name": "f"}}]
    >>> small = Architecture.parse(layers, input_shape=(3, 50, 100), n_classes={"label_word_int": 10})
    >>> small.n_parameters
    369018
    >>> [(place.path, place.output_shape) for place in small.places()]  # doctest: +NORMALIZE_WHITESPACE
    [('body.c', (8, 48, 96)), ('body.f', (36864,)), ('head.label_word_int.fc_output', (10,))]
    """

    layers: tuple[Layer, ...]
    input_shape: Shape
    n_classes: Mapping[str, int]

    def __post_init__(self) -> None:
        _check_names([layer.name for layer in self.layers], "layers")
        if not self.n_classes:
            raise SpecError("The architecture has no head: name at least one with its number of classes.")
        _check_names(list(self.n_classes), "heads")
        for head, n in self.n_classes.items():
            if isinstance(n, bool) or not isinstance(n, int) or n < 2:
                raise SpecError(f"Head '{head}' has {n!r} classes, but must have a whole number from 2.")
        object.__setattr__(self, "n_classes", dict(sorted(self.n_classes.items())))
        object.__setattr__(self, "input_shape", tuple(int(n) for n in self.input_shape))
        object.__setattr__(self, "_places", tuple(self._infer()))

    @classmethod
    def parse(
        cls, layers: str | Sequence[Mapping[str, Any]], input_shape: Sequence[int], n_classes: Mapping[str, int]
    ) -> Architecture:
        """Return the architecture that the content of an arch.json describes.

        Parameters
        ----------
        layers : str or sequence of mappings
            JSON text, or the list of ``{"layer_type": ..., "args": {...}}`` that it holds.
        input_shape, n_classes
            As for the class.

        Raises
        ------
        SpecError
            If it is no such list, or a layer type or an argument is not known (with the nearest name).
        """
        if isinstance(layers, str):
            try:
                layers = json.loads(layers)
            except json.JSONDecodeError as error:
                raise SpecError(f"The architecture is not JSON: {error}.") from error
        if not isinstance(layers, list):
            raise SpecError("The architecture must be a list of layers.")
        return cls(tuple(_layer(i, entry) for i, entry in enumerate(layers)), tuple(input_shape), dict(n_classes))

    @classmethod
    def read(cls, path: str | Path, input_shape: Sequence[int], n_classes: Mapping[str, int]) -> Architecture:
        """Return the architecture of the file ``path``; arguments and errors as for `parse`."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise SpecError(f"{path} cannot be read: {error.strerror}.") from error
        try:
            return cls.parse(text, input_shape, n_classes)
        except SpecError as error:
            raise SpecError(f"{path}: {error}") from error

    def to_json(self) -> str:
        """Return the architecture as the text of an arch.json, arguments that have their default left out."""
        return json.dumps([_entry(layer) for layer in self.layers])

    def places(self) -> tuple[Place, ...]:
        """Return every layer where it stands: the body in order, then each head."""
        return self._places  # type: ignore[attr-defined]

    @property
    def n_parameters(self) -> int:
        """Number of trained parameters."""
        return sum(math.prod(s) for p in self.places() for s in p.layer.parameters(p.input_shape).values())

    @property
    def n_macs(self) -> int:
        """Multiplications with parameters per example (convolutions and affine maps)."""
        return sum(p.layer.n_macs(p.input_shape) for p in self.places())

    def _infer(self) -> Iterator[Place]:
        split = next((i for i, layer in enumerate(self.layers) if isinstance(layer, Branch)), len(self.layers))
        shape = self.input_shape
        if not shape or min(shape) < 1:
            raise SpecError(f"input_shape = {shape} is not a shape: it must list lengths from 1, e.g. (3, 50, 20000).")
        for layer in self.layers[: split + 1]:
            yield (place := _placed("body", layer, shape))
            shape = place.output_shape
        for head, n in self.n_classes.items():
            rest = shape
            for layer in (*self.layers[split + 1 :], Dense(name="fc_output", units=n)):
                yield (place := _placed(f"head.{head}", layer, rest))
                rest = place.output_shape


def _placed(part: str, layer: Layer, shape: Shape) -> Place:
    try:
        return Place(f"{part}.{layer.name}", layer, shape, layer.output_shape(shape))
    except Misfit as error:
        raise SpecError(f"Layer '{layer.name}' ({layer.types[0]}) {error}.") from error


def _check_names(names: list[str], what: str) -> None:
    for name in names:
        if not isinstance(name, str) or not name or "." in name or name == "fc_output":
            raise SpecError(f"{name!r} cannot be among the names of {what}: it is empty, has a dot or is reserved.")
        if names.count(name) > 1:
            raise SpecError(f"Two {what} have the name '{name}'; weights could not be told apart.")


def _layer(index: int, entry: Any) -> Layer:
    """Return the layer of one entry of an arch.json."""
    if not isinstance(entry, Mapping) or set(entry) - {"layer_type", "args"} or "layer_type" not in entry:
        raise SpecError(f'Layer {index} must be {{"layer_type": ..., "args": {{...}}}}, but is {entry!r}.')
    kind = _kind(index, entry["layer_type"])
    args = entry.get("args") or {}
    if not isinstance(args, Mapping) or "name" not in args:
        raise SpecError(f"Layer {index} ({entry['layer_type']}) has no name among its args.")
    where = f"Layer {index} '{args['name']}' ({entry['layer_type']})"
    checks = _checks(kind)
    known = {"name", *checks} | {alias for alias, full in ALIASES.items() if full in checks}
    values: dict[str, Any] = {"name": args["name"]}
    for key, value in args.items():
        if key not in known:
            raise SpecError(
                f"{where} has no argument '{key}'. Allowed: {', '.join(sorted(known))}.{did_you_mean(key, known)}"
            )
        if key == "name":
            continue
        full = ALIASES.get(str(key), str(key))
        if full in values:
            raise SpecError(f"{where}: {full} is given twice, by its two names.")
        try:
            values[full] = checks[full](value)
        except (Misfit, TypeError, ValueError) as error:
            raise SpecError(f"{where}: {key} = {value!r} {error}.") from error
    missing = [f.name for f in fields(kind) if f.default is MISSING and f.name not in values]
    if missing:
        raise SpecError(f"{where} lacks {', '.join(missing)}.")
    return kind(**values)


def _checks(kind: type[Layer]) -> dict[str, Callable[[Any], Any]]:
    """Return the function that checks each argument of a kind of layer."""
    hints = get_type_hints(kind, include_extras=True)
    return {f.name: hints[f.name].__metadata__[0] for f in fields(kind) if f.name != "name"}


def _kind(index: int, layer_type: Any) -> type[Layer]:
    name = str(layer_type).lower()
    prefix = next(p for p in PREFIXES if name.startswith(p))
    name = name[len(prefix) :].replace("_", "")
    if name not in LAYER_TYPES:
        known = ", ".join(sorted(LAYER_TYPES))
        raise SpecError(
            f"Layer {index} has the type {layer_type!r}, which is not known. Known: {known}, also after "
            f"{', '.join(PREFIXES[:-1])}.{did_you_mean(name, LAYER_TYPES)}"
        )
    return LAYER_TYPES[name]


def _entry(layer: Layer) -> dict[str, Any]:
    values = {f.name: getattr(layer, f.name) for f in fields(layer) if getattr(layer, f.name) != f.default}
    return {"layer_type": layer.types[0], "args": values}


@cache
def _published() -> dict[str, Any]:
    text = files("psysim.models.phaselocknet").joinpath("data", "architectures.json").read_text(encoding="utf-8")
    return json.loads(text)


def published_names() -> list[str]:
    """Return the names of the 30 published architectures.

    Examples
    --------
    >>> published_names()[0], len(published_names())
    ('loc_arch01', 30)
    """
    return sorted(_published())


def published_architecture(name: str) -> Architecture:
    """Return one of the 30 published architectures.

    Parameters
    ----------
    name : str
        ``word_arch0_0000`` ... (words and voices), ``loc_arch01`` ... (localisation), ``loc_delayed_arch01`` ...
        (localisation, the ears kept apart in the first layers).

    Raises
    ------
    SpecError
        If there is none of that name.

    Examples
    --------
    >>> word = published_architecture("word_arch0_0000")
    >>> word.n_parameters, word.n_classes
    (55146475, {'label_speaker_int': 433, 'label_word_int': 794})
    """
    table = _published()
    if name not in table:
        raise SpecError(f"There is no published architecture '{name}'.{did_you_mean(name, table)}")
    entry = table[name]
    return Architecture.parse(entry["layers"], entry["input_shape"], entry["n_classes"])
