"""Neural adaptation: a chain of feedback loops that divide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from psysim import ops
from psysim.errors import SpecError, check_option, check_range
from psysim.ops.steps import Loops, Step
from psysim.stages.base import AuditoryModule

__all__ = ["PRESETS", "AdaptLoop", "AdaptationPreset", "minimum_levels_paulick2024"]

DAU_TAU_S = (0.005, 0.050, 0.129, 0.253, 0.500)
LINEAR_TAU_S = (0.005, 0.12875, 0.2525, 0.37625, 0.5)
FULL_SCALE_DB = 100.0
"""Level in dB of an rms of 1 in the unit that the loops think in."""


@dataclass(frozen=True)
class AdaptationPreset:
    """One published setting: time constants, overshoot limit (0: none), minimum level (None: one per channel)."""

    tau_s: tuple[float, ...]
    limit: float
    minspl_db: float | None


PRESETS = {
    "dau1996": AdaptationPreset(DAU_TAU_S, 0.0, 0.0),
    "dau1997": AdaptationPreset(DAU_TAU_S, 10.0, 0.0),
    "jepsen2008": AdaptationPreset(DAU_TAU_S, 10.0, 0.0),
    "osses2021": AdaptationPreset(DAU_TAU_S, 5.0, 0.0),
    "relanoiborra2019": AdaptationPreset(DAU_TAU_S, 10.0, FULL_SCALE_DB + 20.0 * float(np.log10(2e-7))),
    "puschel1988": AdaptationPreset(LINEAR_TAU_S, 0.0, 0.0),
    "breebaart2001": AdaptationPreset(LINEAR_TAU_S, 0.0, 0.0),
    "paulick2024": AdaptationPreset((0.007, 0.0318, 0.0878, 0.2143, 0.5), 10.0, None),
}
ALIASES = {"puschel": "puschel1988"}


@cache
def _paulick_table() -> NDArray[np.float64]:
    with (files("psysim.stages") / "data" / "minimum_levels_paulick2024.csv").open(encoding="utf-8") as file:
        return np.loadtxt(file, delimiter=",", skiprows=1)


def minimum_levels_paulick2024(fc: Tensor | None = None) -> Tensor:
    """Return the minimum level of each channel (F,), in volts, of Paulick, Relano-Iborra & Dau (2024).

    Parameters
    ----------
    fc : Tensor, optional
        Centre frequencies in Hz; each takes the row of the table that is nearest in Hz (the first on a tie).
        Default: the 50 rows of the table.
    """
    table = _paulick_table()
    if fc is None:
        return torch.as_tensor(table[:, 2].copy())
    distance = np.abs(fc.detach().cpu().double().numpy().reshape(-1, 1) - table[:, 1])
    return torch.as_tensor(table[distance.argmin(axis=1), 2])


class AdaptLoop(AuditoryModule):
    r"""Adaptation loops: envelope (B, F, T) to model units (MU), 0 at rest.

    The input, at least the minimum level m, passes N loops in series. Each divides by its state, which follows the
    result with time constant tau; an overshoot limit bends the onset response. Steady sound at level m gives 0 MU,
    an input of 1 gives 100 MU. All states start at the steady state of m, so silence gives 0.

    ==========================  =================================  =====  ====================
    preset                      tau (s)                            limit  minimum level
    ==========================  =================================  =====  ====================
    dau1997 (also jepsen2008)   0.005, 0.050, 0.129, 0.253, 0.500  10     0 dB
    dau1996                     the same                           none   0 dB
    osses2021                   the same                           5      0 dB
    relanoiborra2019            the same                           10     -33.98 dB
    puschel1988, breebaart2001  0.005 ... 0.5, equally spaced      none   0 dB
    paulick2024                 0.007, 0.0318, 0.0878, 0.2143,     10     per channel (volts)
                                0.5
    ==========================  =================================  =====  ====================

    Parameters
    ----------
    fs : float
        Sampling rate, Hz.
    tau : sequence of float, optional
        Time constants of the loops, s.
    limit : float, optional
        Overshoot limit of each loop, as a multiple of its steady-state range; 1 or less: no limit.
    minspl : float, optional
        Minimum level in dB, with an rms of 1 at 100 dB. Always dB, also between 0 and 1.
    minlvl_per_channel : sequence of float, optional
        Minimum level of each channel in the unit of the input, linear, (F,); excludes ``minspl``.
    preset : str, optional
        A name of the table (default dau1997); explicit arguments win over it.
    learnable : bool
        Make ``tau_s``, ``limit_factor`` (if there is a limit) and ``minimum_db`` trainable.
    dtype : torch.dtype
        torch.float32 or torch.float64.
    num_loops : int, optional
        Number of loops; if it differs from the preset's and ``tau`` is absent, tau is spaced linearly
        from 0.005 to 0.5 s.
    fc : Tensor, optional
        Centre frequencies in Hz, used by the preset paulick2024 to look its minimum levels up
        (default: that model's own 50 channels).

    Attributes
    ----------
    num_loops, limit
        As constructed.
    a1, b0 : Tensor (N,)
        exp(-1/(tau fs)) and 1 minus it.
    minlvl : Tensor (1,) or (F,)
        Minimum level, linear; ``minlvl_per_channel`` is the same or None, ``use_freq_specific_minlvl`` says which.

    Raises
    ------
    SpecError
        If an argument is out of range, or two contradict each other.

    References
    ----------
    Pueschel (1988), thesis, Goettingen; Dau, Pueschel & Kohlrausch (1996), JASA 99, 3615-3622;
    Dau, Kollmeier & Kohlrausch (1997), JASA 102, 2892-2905; Osses Vecchi & Kohlrausch (2021), JASA 149, 3534-3552.

    Examples
    --------
    >>> import torch
    >>> loops = AdaptLoop(fs=16000.0)
    >>> steady = loops(torch.full((1, 80000), 1e-2))[0, -1]     # 60 dB for 5 s
    >>> round(float(steady), 1)
    55.6
    """

    tau_s: Tensor
    minimum_db: Tensor
    limit_factor: Tensor

    def __init__(
        self,
        fs: float,
        tau: Tensor | Sequence[float] | None = None,
        limit: float | None = None,
        minspl: float | None = None,
        minlvl_per_channel: Tensor | Sequence[float] | None = None,
        preset: str | None = None,
        learnable: bool = False,
        dtype: torch.dtype | str = torch.float32,
        *,
        num_loops: int | None = None,
        fc: Tensor | None = None,
    ) -> None:
        super().__init__(fs, learnable=learnable, dtype=dtype)
        name = "dau1997" if preset is None else ALIASES.get(preset, preset)
        check_option("preset", name, PRESETS)
        self.preset = name
        published = PRESETS[name]
        self.constant("tau_s", _time_constants(tau, num_loops, published.tau_s))
        self.num_loops = self.tau_s.numel()
        self.limit = published.limit if limit is None else float(limit)
        check_range("limit", self.limit, 0.0, 1e6)
        if self.limit > 1.0:
            self.constant("limit_factor", self.limit)
        if minspl is None and minlvl_per_channel is None and published.minspl_db is None:
            minlvl_per_channel = minimum_levels_paulick2024(fc)
        self.use_freq_specific_minlvl = minlvl_per_channel is not None
        self.constant("minimum_db", _minimum_db(minspl, minlvl_per_channel, published.minspl_db))

    @property
    def a1(self) -> Tensor:
        """exp(-1/(tau fs)) of each loop (N,), float64."""
        return torch.exp(-1.0 / (self.tau_s * self.fs))

    @property
    def b0(self) -> Tensor:
        """1 - exp(-1/(tau fs)) of each loop (N,), float64."""
        return -torch.expm1(-1.0 / (self.tau_s * self.fs))

    @property
    def minlvl(self) -> Tensor:
        """Minimum level (1,) or (F,), linear, float64."""
        return 10.0 ** ((self.minimum_db - FULL_SCALE_DB) / 20.0)

    @property
    def minlvl_per_channel(self) -> Tensor | None:
        """Minimum level of each channel (F,), linear; None if all channels share one."""
        return self.minlvl if self.use_freq_specific_minlvl else None

    def forward(self, x: Tensor) -> Tensor:
        """Adapt ``x`` ((T,), (F, T) or (B, F, T), amplitude re the 100-dB convention); same shape, model units."""
        x = self.enter(x, (1, 2, 3), "(T,), (F, T) or (B, F, T)")
        channels = 1 if x.ndim == 1 else x.shape[-2]
        minimum = self.minlvl
        if minimum.numel() not in (1, channels):
            raise SpecError(
                f"x has {channels} channels, but there are minimum levels for {minimum.numel()}: "
                "pass minlvl_per_channel (or fc, with preset 'paulick2024') with one entry per channel."
            )
        y = ops.adaptation_loops(x.reshape((1,) * (3 - x.ndim) + tuple(x.shape)), self.a1, minimum, self._limit())
        return y.reshape(x.shape)

    def steps(self) -> list[Step]:
        """Return the loops as a step."""
        return [Loops(self.a1, self.minlvl, float(self._limit()))]

    def _limit(self) -> Tensor | float:
        return self.limit_factor if self.limit > 1.0 else 0.0


def _time_constants(
    tau: Tensor | Sequence[float] | None, num_loops: int | None, published: tuple[float, ...]
) -> Tensor:
    if num_loops is not None:
        check_range("num_loops", num_loops, 1, 64)
    if tau is None:
        if num_loops in (None, len(published)):
            return torch.tensor(published, dtype=torch.float64)
        return torch.linspace(0.005, 0.5, int(num_loops), dtype=torch.float64) if num_loops else torch.empty(0)
    values = torch.as_tensor(tau, dtype=torch.float64).detach().reshape(-1)
    if values.numel() == 0 or not bool((values > 0).all() & values.isfinite().all()):
        raise SpecError(f"tau = {values.tolist()} is not usable: time constants must be positive numbers of seconds.")
    if num_loops is not None and num_loops != values.numel():
        raise SpecError(f"tau has {values.numel()} entries, but num_loops = {num_loops}: give one of them.")
    return values


def _minimum_db(minspl: float | None, linear: Tensor | Sequence[float] | None, published: float | None) -> Tensor:
    if linear is not None:
        if minspl is not None:
            raise SpecError("minspl (dB, all channels) and minlvl_per_channel (linear) exclude each other: give one.")
        levels = torch.as_tensor(linear, dtype=torch.float64).detach().reshape(-1)
        if levels.numel() == 0 or not bool(((levels > 0) & (levels < 1)).all()):
            raise SpecError("minlvl_per_channel must hold one level per channel, each above 0 and below 1 (linear).")
        return FULL_SCALE_DB + 20.0 * torch.log10(levels)
    value = published if minspl is None else float(minspl)
    if value is None:
        raise SpecError("minspl is missing.")
    check_range("minspl", value, -300.0, 99.0, unit="dB")
    return torch.tensor([value], dtype=torch.float64)
