"""What the classes of a head mean: directions, words, voices."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from psysim.errors import SpecError, did_you_mean

__all__ = ["LOCATION_HEAD", "allowed_locations", "label_of", "location_of", "read_labels"]

LOCATION_HEAD = "label_loc_int"
N_AZIMUTHS, AZIMUTH_STEP = 72, 5.0  # degrees
N_ELEVATIONS, ELEVATION_STEP = 7, 10.0
N_LOCATIONS = N_AZIMUTHS * N_ELEVATIONS


def location_of(label: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the direction of each class of a localisation network.

    Parameters
    ----------
    label : array_like of int
        Classes of ``label_loc_int``, 0 to 503.

    Returns
    -------
    azimuth, elevation : ndarray
        Degrees; azimuth 0 to 355 in steps of 5, elevation 0 to 60 in steps of 10. `wrap_degrees` gives -180 to 180.

    Raises
    ------
    SpecError
        If a label is no such class.

    Examples
    --------
    >>> azimuth, elevation = location_of([0, 1, 73])
    >>> azimuth.tolist(), elevation.tolist()
    ([0.0, 5.0, 5.0], [0.0, 0.0, 10.0])
    """
    labels = np.asarray(label)
    if labels.size and (labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= N_LOCATIONS):
        raise SpecError(f"label holds something else than the classes 0 to {N_LOCATIONS - 1} of {LOCATION_HEAD}.")
    return AZIMUTH_STEP * (labels % N_AZIMUTHS), ELEVATION_STEP * (labels // N_AZIMUTHS)


def label_of(azimuth: ArrayLike, elevation: ArrayLike = 0.0) -> NDArray[np.int64]:
    """Return the class of a localisation network for directions on its grid.

    Parameters
    ----------
    azimuth : array_like
        Degrees, multiples of 5; any turn.
    elevation : array_like
        Degrees, 0 to 60, multiples of 10.

    Returns
    -------
    ndarray of int
        Classes of ``label_loc_int``.

    Raises
    ------
    SpecError
        If a direction is not on the grid.

    Examples
    --------
    >>> label_of([-5, 180], [0, 20]).tolist()
    [71, 180]
    """
    steps, rows = np.broadcast_arrays(np.asarray(azimuth) / AZIMUTH_STEP, np.asarray(elevation) / ELEVATION_STEP)
    on_grid = (steps == np.round(steps)) & (rows == np.round(rows)) & (rows >= 0) & (rows < N_ELEVATIONS)
    if not np.all(on_grid):
        raise SpecError(
            "A direction is not on the grid: azimuth in steps of 5 degrees, elevation 0 to 60 in steps of 10."
        )
    return (N_AZIMUTHS * rows + steps % N_AZIMUTHS).astype(np.int64)


#: The sets of directions of the published experiments
SETS = ("front_horizontal", "loudspeaker_array", "speech_in_reverb", "median_plane")


def allowed_locations(name: str) -> NDArray[np.bool_]:
    """Return which classes of a localisation network a published experiment allows as responses.

    Parameters
    ----------
    name : str
        ``front_horizontal``: -90 to 90 degrees at elevation 0 (37 classes); ``loudspeaker_array``: azimuths in steps of
        10, elevations 0 to 40, front (95); ``speech_in_reverb``: azimuths in steps of 20 at elevation 0, front (9);
        ``median_plane``: azimuth 0 or 180 (14).

    Returns
    -------
    ndarray (504,) of bool
        True where allowed.

    Raises
    ------
    SpecError
        If there is no set of that name.

    Examples
    --------
    >>> {name: int(allowed_locations(name).sum()) for name in SETS}
    {'front_horizontal': 37, 'loudspeaker_array': 95, 'speech_in_reverb': 9, 'median_plane': 14}
    """
    azimuth, elevation = location_of(np.arange(N_LOCATIONS))
    front = (azimuth <= 90) | (azimuth >= 270)
    if name == "front_horizontal":
        return front & (elevation == 0)
    if name == "loudspeaker_array":
        return front & (azimuth % 10 == 0) & (elevation <= 40)
    if name == "speech_in_reverb":
        return front & (azimuth % 20 == 0) & (elevation == 0)
    if name == "median_plane":
        return (azimuth == 0) | (azimuth == 180)
    raise SpecError(f"There is no set of directions '{name}'. Known: {', '.join(SETS)}.{did_you_mean(name, SETS)}")


def check_labels(labels: Mapping[str, Sequence[str]], n_classes: Mapping[str, int]) -> dict[str, list[str]]:
    """Return label sets as lists, or raise `SpecError` unless each belongs to a head and names each class once."""
    checked = {}
    for head, names in labels.items():
        if head not in n_classes:
            raise SpecError(f"There are labels for '{head}', but no such head.{did_you_mean(head, n_classes)}")
        if isinstance(names, str) or not all(isinstance(name, str) for name in names):
            raise SpecError(f"The labels of {head} must be a list of texts, one per class.")
        if len(names) != n_classes[head]:
            raise SpecError(f"{head} has {n_classes[head]} classes, but {len(names)} labels.")
        if len(set(names)) != len(names):
            twice = next(name for name in names if list(names).count(name) > 1)
            raise SpecError(f"The labels of {head} name '{twice}' twice.")
        checked[head] = list(names)
    return checked


def read_labels(path: str | Path, n_classes: Mapping[str, int]) -> dict[str, list[str]]:
    """Return the label sets of a labels.json.

    Parameters
    ----------
    path : path
        File with ``{head: [text of class 0, text of class 1, ...]}``.
    n_classes : mapping of str to int
        Number of classes of each head.

    Returns
    -------
    dict of str to list of str
        The labels by head.

    Raises
    ------
    SpecError
        If the file cannot be read, a head is unknown, or its labels are too many, too few or not unique.
    """
    return check_labels(read_json(path), n_classes)


def read_json(path: str | Path) -> dict[str, Any]:
    """Return the JSON object in a file, or raise `SpecError`."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise SpecError(f"{path} must hold a JSON object.")
    return value
