"""A temporal gap in noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from psysim.errors import SpecError, check_option
from psysim.rng import Keys
from psysim.stimuli.base import GatedStimulus, TrackedVariable, register
from psysim.stimuli.batch import Number, Rows, round_samples
from psysim.stimuli.gating import RAMP_SHAPES
from psysim.stimuli.noise import NoiseParameters, noise, noise_arguments

__all__ = ["GapInNoise", "gap_window"]

DEFINITIONS = ("silent", "half_amplitude")


def gap_window(
    *,
    gap_s: Number,
    duration_s: Number,
    gap_delay_s: Number | None = None,
    gap_ramp_s: Number = 0.0,
    gap_definition: str = "silent",
    ramp_shape: str = "raised_cosine",
    fs: float,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return windows that are 1 outside a gap and 0 inside, with ramps at its edges.

    The gap replaces part of the sound: the duration stays. ``gap_s`` is the time of complete silence between the two
    ramps ("silent") or the time between the half-amplitude points of the ramps ("half_amplitude"); in samples it is
    exact in the first case. A gap of 0 leaves the window at 1, ramps included.

    Parameters
    ----------
    gap_s : float or (B,)
        Duration in s of the gap, rounded to samples.
    duration_s : float or (B,)
        Duration in s of the sound.
    gap_delay_s : float or (B,), optional
        Start in s of the gap, as ``gap_s`` counts it; default: the gap is centred in the sound.
    gap_ramp_s : float or (B,)
        Duration in s of the ramp into the gap, and of the ramp out of it.
    gap_definition : str
        "silent" or "half_amplitude".
    ramp_shape : str
        "raised_cosine" or "linear".
    fs : float
        Sampling rate in Hz.
    device : device, optional
        Where to compute; default: where the first tensor given is.

    Returns
    -------
    Tensor
        (B, T) float64, T the longest duration.

    Raises
    ------
    SpecError
        If the gap and its ramps do not fit into the sound.

    Examples
    --------
    >>> gap_window(gap_s=0.003, duration_s=0.01, fs=1000).tolist()
    [[1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0]]
    """
    check_option("gap_definition", gap_definition, DEFINITIONS)
    check_option("ramp_shape", ramp_shape, RAMP_SHAPES)
    p = Rows(
        {"gap_s": gap_s, "duration_s": duration_s, "gap_delay_s": gap_delay_s, "gap_ramp_s": gap_ramp_s}, device=device
    )
    p.check("gap_s", 0.0, 3600.0, "s")
    p.check("gap_delay_s", 0.0, 3600.0, "s", optional=True)
    p.check("gap_ramp_s", 0.0, 1800.0, "s")
    length, gap, n_ramp = p.length(fs), p.length(fs, "gap_s"), p.length(fs, "gap_ramp_s")
    start = (length - gap + 1) // 2 if p["gap_delay_s"] is None else round_samples(p["gap_delay_s"], fs)
    outside = n_ramp.double() * (1.0 if gap_definition == "silent" else 0.5)
    bad = (gap > 0) & ((start - outside < 0) | (start + gap + outside > length))
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise SpecError(
            f"The gap of {float(p['gap_s'][row]):g} s with its ramps does not fit into the sound of "
            f"{float(p['duration_s'][row]):g} s (row {row})."
        )
    index = torch.arange(int(length.max()), dtype=torch.float64, device=p.device) + 0.5
    falling = 1.0 - _rise((index - (start - outside)[:, None]), n_ramp, ramp_shape)
    rising = _rise(index - (start + gap + outside - n_ramp)[:, None], n_ramp, ramp_shape)
    return torch.where((gap > 0)[:, None], torch.maximum(falling, rising), 1.0)


def _rise(position: Tensor, n_ramp: Tensor, shape: str) -> Tensor:
    """Return a ramp from 0 to 1 at ``position`` samples (B, T) after its start; a step if it has no samples."""
    n = n_ramp.double()[:, None]
    part = torch.where(n > 0, position / n, torch.where(position >= 0, 1.0, 0.0)).clamp(0.0, 1.0)
    return part if shape == "linear" else 0.5 * (1.0 - torch.cos(torch.pi * part))


@register("gap_in_noise")
class GapInNoise(GatedStimulus):
    """A gap in noise."""

    class Parameters(NoiseParameters):
        """Parameters of a gap in noise."""

        gap_s: float = Field(0.005, ge=0, le=60, description="Duration in s of the gap.")
        gap_ramp_s: float = Field(0.001, ge=0, le=30, description="Duration in s of each ramp of the gap.")
        gap_delay_s: float | None = Field(None, ge=0, le=60, description="Start in s of the gap; none: centred.")
        gap_definition: Literal["silent", "half_amplitude"] = Field(
            "silent", description="Whether gap_s is the silent time or the time between half-amplitude points."
        )

    description: ClassVar[str] = "Gap in noise: gap detection"
    tracked: ClassVar[Mapping[str, TrackedVariable]] = {
        "gap_s": TrackedVariable("s", "Gap duration (s)", 0.0, 0.0, 10.0, -1),
    }

    def waveform(self, p: Rows, keys: Keys, fs: float) -> Tensor:
        """Return the noise with its gap, (B, T) float64; the level is that of the noise without gap."""
        sound = noise(keys, **noise_arguments(p), fs=fs, dtype=torch.float64)
        names = ("gap_s", "duration_s", "gap_delay_s", "gap_ramp_s", "gap_definition", "ramp_shape")
        return sound.mul_(gap_window(**{name: p[name] for name in names}, fs=fs))
