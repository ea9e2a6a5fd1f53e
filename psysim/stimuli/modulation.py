"""Sinusoidal modulators."""

from __future__ import annotations

import math

from torch import Tensor

from psysim.stimuli.batch import Rows, distinct, place, time_s
from psysim.stimuli.gating import gate
from psysim.units import depth_db_to_m

__all__ = ["am_factor", "check_am"]

_TIMING = (
    "rate_hz",
    "modulator_phase_rad",
    "modulation_delay_s",
    "modulation_duration_s",
    "modulation_ramp_s",
)


def check_am(p: Rows, fs: float) -> None:
    """Check the parameters of `am_factor` in ``p``."""
    p.check("rate_hz", 0.0, fs / 2, "Hz", low_open=True)
    p.check("depth_db", high=0.0, unit="dB")
    p.check("modulator_phase_rad", -1e6, 1e6, "rad")
    p.check("modulation_delay_s", 0.0, 3600.0, "s")
    p.check("modulation_duration_s", 0.0, 3600.0, "s", optional=True)
    p.check("modulation_ramp_s", 0.0, 1800.0, "s", optional=True)


def am_factor(p: Rows, n: int, fs: float) -> Tensor:
    """Return (B, n) float64 1 + m g(t) sin(2 pi rate (t - delay) + phase).

    ``g`` is 1, or a window of ``modulation_duration_s`` with ramps of ``modulation_ramp_s`` that starts at
    ``modulation_delay_s``. A depth of -inf dB gives exactly 1.
    """
    alike = distinct(*(v for v in (p[name] for name in _TIMING) if v is not None))
    if alike is None:
        wave = _wave(p, n, fs)
    else:  # the intervals of a trial share their modulator: one sine for all of them
        wave = _wave(p.take(alike[0]), n, fs)
        wave = wave[alike[1]] if len(alike[0]) > 1 else wave
    return (depth_db_to_m(p["depth_db"])[:, None] * wave).add_(1.0)


def _wave(p: Rows, n: int, fs: float) -> Tensor:
    """Return g(t) sin(2 pi rate (t - delay) + phase), (B, n)."""
    t = time_s(n, fs, p.device)
    delay = p["modulation_delay_s"][:, None]
    delayed = bool(delay.any())
    wave = (2.0 * math.pi * p["rate_hz"])[:, None] * (t - delay if delayed else t)
    wave.add_(p["modulator_phase_rad"][:, None]).sin_()
    if p["modulation_duration_s"] is not None:
        window = gate(p.length(fs, "modulation_duration_s"), p.length(fs, "modulation_ramp_s"))
        wave.mul_(place(window, p.length(fs, "modulation_delay_s"), n))
    elif delayed:
        wave.mul_(t >= delay)
    return wave
