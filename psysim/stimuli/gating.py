"""Onset and offset ramps."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from psysim.errors import SpecError, check_option
from psysim.stimuli.batch import groups

__all__ = ["RAMP_SHAPES", "gate", "ramp", "steady_part"]

RAMP_SHAPES = ("raised_cosine", "linear")


def ramp(n: int, shape: str = "raised_cosine", device: torch.device | str = "cpu") -> Tensor:
    """Return a rising ramp of ``n`` samples.

    Parameters
    ----------
    n : int
        Number of samples; 0 gives an empty ramp. The first sample is 0, the sample after the last would be 1.
    shape : str
        "raised_cosine": 0.5 (1 - cos(pi k/n)); "linear": k/n; k = 0 .. n - 1.
    device : device
        Where to compute.

    Returns
    -------
    Tensor
        (n,) float64.

    Raises
    ------
    SpecError
        If the shape is not known.

    Examples
    --------
    >>> ramp(4, "linear").tolist()
    [0.0, 0.25, 0.5, 0.75]
    """
    check_option("ramp_shape", shape, RAMP_SHAPES)
    k = torch.arange(n, dtype=torch.float64, device=device)
    return k / n if shape == "linear" else 0.5 * (1.0 - torch.cos(math.pi * k / n))


def gate(length: Tensor, n_ramp: Tensor, shape: str = "raised_cosine", total: int | None = None) -> Tensor:
    """Return gating windows: a rising ramp, 1, the mirrored ramp, then zeros.

    Parameters
    ----------
    length : Tensor
        (B,) int64, samples of each sound, ramps included.
    n_ramp : Tensor
        (B,) int64, samples of each ramp.
    shape : str
        See `ramp`.
    total : int, optional
        Samples of the result, at least the longest ``length`` (the default).

    Returns
    -------
    Tensor
        (B, total) float64; a view of one window if all rows agree.

    Raises
    ------
    SpecError
        If the two ramps are longer than the sound, or the shape is not known.
    """
    check_option("ramp_shape", shape, RAMP_SHAPES)
    check_ramps(length, n_ramp)
    total = int(length.max()) if total is None else total
    kinds = list(groups(length, n_ramp))
    window = torch.zeros(len(length) if len(kinds) > 1 else 1, total, dtype=torch.float64, device=length.device)
    for index, (n, k) in kinds:
        one = torch.zeros(total, dtype=torch.float64, device=length.device)
        one[:n] = 1.0
        if k:
            rise = ramp(k, shape, device=length.device)
            one[:k] = rise
            one[n - k : n] = rise.flip(0)
        window[index] = one
    return window.expand(len(length), total)


def check_ramps(length: Tensor, n_ramp: Tensor) -> None:
    """Raise `SpecError` if the two ramps of a row are longer than its sound."""
    too_long = 2 * n_ramp > length
    if bool(too_long.any()):
        row = int(too_long.nonzero()[0])
        raise SpecError(
            f"ramp_s is too long: two ramps of {int(n_ramp[row])} samples do not fit into a sound of "
            f"{int(length[row])} samples (row {row}). Allowed: at most half the duration."
        )


def steady_part(length: Tensor, n_ramp: Tensor) -> tuple[Tensor, Tensor]:
    """Return first sample and end (B,) of the part between the ramps; the whole sound if nothing is between them."""
    none = 2 * n_ramp >= length
    return torch.where(none, 0, n_ramp), torch.where(none, length, length - n_ramp)
