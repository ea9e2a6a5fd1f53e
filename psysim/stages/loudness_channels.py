"""Channels of the loudness models: equally spaced on their ERB scale."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from psysim.errors import check_option, check_range
from psysim.stages.base import AuditoryModule
from psysim.stages.loudness_spectrum import RULES, check_loudness_rate
from psysim.units import erb_number_glasberg1990_program, erb_number_glasberg1990_program_to_hz

__all__ = ["LoudnessChannels", "channel_numbers"]


def channel_numbers(f_min: float, f_max: float, erb_step: float, n_bands: int | None, rule: str) -> NDArray[np.float64]:
    """Return the ERB numbers (F,) of the channels, equally spaced.

    Published: ``n_bands`` (default: the fewest whose distance is at most ``erb_step``) from ``f_min`` to ``f_max``
    inclusive. AMT: from ``f_min`` on in steps of exactly ``erb_step``.
    """
    check_range("f_min", f_min, 20.0, 15000.0, unit="Hz")
    check_range("f_max", f_max, f_min, 15000.0, unit="Hz", low_open=True)
    check_range("erb_step", erb_step, 0.01, 4.0, unit="Cam")
    low, high = (float(erb_number_glasberg1990_program(float(f))) for f in (f_min, f_max))
    if rule == "amt":
        return low + erb_step * np.arange(math.floor((high - low) / erb_step + 1e-9) + 1, dtype=np.float64)
    if n_bands is None:
        n_bands = math.ceil((high - low) / erb_step - 1e-9) + 1
    check_range("n_bands", n_bands, 2, 2000)
    return np.linspace(low, high, int(n_bands))


class LoudnessChannels(AuditoryModule):
    """Centre frequencies on the ERB scale of the loudness models."""

    def __init__(
        self,
        fs: int,
        f_min: float,
        f_max: float,
        erb_step: float,
        learnable: bool,
        n_bands: int | None,
        dtype: torch.dtype | str,
        rule: str,
    ) -> None:
        super().__init__(fs, learnable=learnable, dtype=dtype)
        check_loudness_rate(self.fs)
        check_option("rule", rule, RULES)
        self.rule = rule
        self.f_min, self.f_max = float(f_min), float(f_max)
        self.erb_number = channel_numbers(f_min, f_max, erb_step, n_bands, rule)
        self.erb_step = float(self.erb_number[1] - self.erb_number[0])
        self.frequency_hz = erb_number_glasberg1990_program_to_hz(self.erb_number)
        self.table("fc_erb", self.frequency_hz)

    def table(self, name: str, value: object, dtype: torch.dtype = torch.float64) -> None:
        """Register a table that follows from the arguments: kept out of the state dict."""
        self.register_buffer(name, torch.as_tensor(value).to(dtype), persistent=False)
        if dtype == torch.float64:
            self._constants.append(name)

    @property
    def n_erb_bands(self) -> int:
        """Number of channels F."""
        return len(self.erb_number)
