"""The types of a layer's arguments, each with the function that checks a value from a file and converts it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

__all__ = ["ALIASES", "PADDED_AXES", "Misfit", "Pair"]

Pair = tuple[int, int]

#: Axes (frequency, time) that a padding pads with zeros so that strides alone shorten them.
PADDED_AXES = {
    "VALID": (False, False),
    "SAME": (True, True),
    "SAME_FREQ": (True, False),
    "VALID_TIME": (True, False),
    "SAME_TIME": (False, True),
    "VALID_FREQ": (False, True),
}


class Misfit(ValueError):
    """An argument, or a shape that a layer cannot take; `Architecture` says which layer and raises `SpecError`."""


def _whole(value: Any, low: int, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value) or value < low:
        raise Misfit(f"must be {what}")
    return int(value)


def _count(value: Any) -> int:
    return _whole(value, 1, "a whole number from 1")


def _pair(value: Any) -> Pair:
    values = [value, value] if isinstance(value, int) else value
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != 2:
        raise Misfit("must be a whole number or a pair [frequency, time]")
    first, second = (_whole(v, 1, "a whole number or a pair [frequency, time], each from 1") for v in values)
    return first, second


def _pair_or_none(value: Any) -> Pair | None:
    return None if value is None else _pair(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Misfit("must be true or false")
    return value


def _positive(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise Misfit("must be a number above 0")
    return float(value)


def _positive_or_none(value: Any) -> float | None:
    return None if value is None else _positive(value)


def _share(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise Misfit("must be a number from 0 to less than 1")
    return float(value)


def _share_or_none(value: Any) -> float | None:
    return None if value is None else _share(value)


def _linear(value: Any) -> None:
    if value not in (None, "linear"):
        raise Misfit('must be null: give the nonlinearity its own layer, e.g. "relu"')


def _padding(value: Any) -> str | Pair:
    if isinstance(value, str):
        if value.upper() not in PADDED_AXES:
            raise Misfit(f"must be one of {', '.join(PADDED_AXES)}, or a whole number or pair of samples")
        return value.upper()
    values = [value, value] if isinstance(value, int) else value
    if not isinstance(values, Sequence) or len(values) != 2:
        raise Misfit(f"must be one of {', '.join(PADDED_AXES)}, or a whole number or pair of samples")
    first, second = (_whole(v, 0, "a name, or a whole number or pair of samples from 0") for v in values)
    return first, second


def _axes(value: Any) -> tuple[int, ...]:
    axes = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    if axes not in ((-1,), (1, 2, 3)):
        raise Misfit("must be -1 (channels) or [1, 2, 3] (everything)")
    return axes


def _channels_last(value: Any) -> None:
    if value not in (-1, [-1]):
        raise Misfit("must be -1 (channels)")


def _dims(value: Any) -> tuple[int, ...]:
    if not isinstance(value, Sequence) or sorted(value) != list(range(1, len(value) + 1)):
        raise Misfit("must list every axis but the batch once, counted from 1, e.g. [1, 3, 2]")
    return tuple(value)


def _index(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value == 0:
        raise Misfit("must be the number of an axis other than the batch (0)")
    return value


def _target(value: Any) -> tuple[int, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise Misfit("must be a list of lengths, e.g. [50, 20000, -1]")
    return tuple(int(v) for v in value)


def _window(value: Any) -> str | tuple[str, float]:
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence) and len(value) == 2 and isinstance(value[0], str):
        return value[0], float(value[1])
    raise Misfit('must be the name of a window or a pair, e.g. ["kaiser", 5.0]')


def _lowpass(value: Any) -> Mapping[str, Any]:
    given = dict(value) if isinstance(value, Mapping) else {}
    unknown = sorted(set(given) - {"fir_dur", "cutoff", "window"})
    if unknown or "fir_dur" not in given:
        raise Misfit("must have fir_dur, and may have cutoff and window" + (f", not {unknown}" if unknown else ""))
    return {
        "fir_dur": _positive(given["fir_dur"]),
        "cutoff": _positive_or_none(given.get("cutoff")),
        "window": _window(given.get("window") or ("kaiser", 5.0)),
    }


Count = Annotated[int, _count]
TwoCounts = Annotated[Pair, _pair]
Flag = Annotated[bool, _flag]
Padding = Annotated[str | Pair, _padding]
Linear = Annotated[None, _linear]
Positive = Annotated[float, _positive]
PairOrNone = Annotated[Pair | None, _pair_or_none]
PositiveOrNone = Annotated[float | None, _positive_or_none]
Share = Annotated[float, _share]
ShareOrNone = Annotated[float | None, _share_or_none]
ChannelsLast = Annotated[None, _channels_last]
Axes = Annotated[tuple[int, ...], _axes]
Dims = Annotated[tuple[int, ...], _dims]
Index = Annotated[int, _index]
Lowpass = Annotated[Mapping[str, Any], _lowpass]
Target = Annotated[tuple[int, ...], _target]

#: Other names of arguments
ALIASES = {"bias": "use_bias", "dilation": "dilation_rate", "epsilon": "eps"}
