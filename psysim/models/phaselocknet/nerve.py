"""The auditory nerve in front of the network, and the part of its activity that the network gets."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from psysim.errors import SpecError
from psysim.models.base import registry
from psysim.models.phaselocknet.config import Configuration
from psysim.rng import Keys, Purpose, uniform

__all__ = ["crop", "make_nerve"]


def make_nerve(configuration: Configuration, dtype: torch.dtype) -> nn.Module:
    """Return the nerve model that a configuration describes, from the registry of models.

    Parameters
    ----------
    configuration : Configuration
        Of a model that takes sound or rates.
    dtype : torch.dtype
        torch.float32 or torch.float64.

    Returns
    -------
    Module
        Called with sound (N, T) in pascal, or rates, and keys (N,), it returns spike counts (N, groups, F, T').

    Raises
    ------
    SpecError
        If there is no nerve model ``saddler2024``, or it does not know an option.
    """
    return registry.get("saddler2024").from_cochlea(configuration.cochlea, dtype=dtype)  # type: ignore[attr-defined]


def crop(activity: Tensor, buffer: tuple[int, int], size: tuple[int, int], keys: Keys) -> Tensor:
    """Return a window of the nerve activity.

    Parameters
    ----------
    activity : Tensor (B, C, F, T)
        Spike counts of all groups of both ears.
    buffer : tuple of int
        Frequency channels and samples that are cut off at both ends.
    size : tuple of int
        Frequency channels and samples of the window, at a random place in what is left; the same place for all channels
        of a sound.
    keys : Keys (B,)
        Names of the random places.

    Returns
    -------
    Tensor (B, C, *size)
        The windows.

    Raises
    ------
    SpecError
        If the window is larger than what is left.
    """
    room = [n - 2 * b - s for n, b, s in zip(activity.shape[-2:], buffer, size, strict=True)]
    if min(room) < 0:
        raise SpecError(
            f"The nerve activity of {activity.shape[-2]} channels and {activity.shape[-1]} samples is too small: "
            f"{size} are needed after {buffer} at both ends."
        )
    if max(room) == 0:
        (f, t), (n, m) = buffer, size
        return activity[..., f : f + n, t : t + m]
    draws = uniform(keys, Purpose.CROP, 2).cpu()
    windows = []
    for row, (first, second) in zip(activity, draws.tolist(), strict=True):
        f, t = buffer[0] + int(first * (room[0] + 1)), buffer[1] + int(second * (room[1] + 1))
        windows.append(row[..., f : f + size[0], t : t + size[1]])
    return torch.stack(windows)
