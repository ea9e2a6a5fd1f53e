"""Excitation pattern of the binaural loudness model: rounded-exponential filters over spectral components."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from psysim import ops
from psysim.errors import SpecError, check_range
from psysim.stages.base import SignalModule
from psysim.stages.moore2016_spectrum import BIN_HZ, N_COMPONENTS
from psysim.units import erb_hz_glasberg1990_program, erb_number_glasberg1990_program_to_hz

__all__ = ["Moore2016ExcitationPattern", "channel_cams"]

LEVEL_SLOPE = 0.35
REFERENCE_DB = 51.0
LOWEST_INTENSITY = 1e-3
"""Components that are kept have more (-30 dB)."""
DB_PER_OCTAVE = 10.0 * math.log10(2.0)
"""Level of a factor of two in intensity, dB."""
FARTHEST = 230.0
"""exp(-z) beyond is below -1000 dB: about to be denormal, which makes products many times as slow."""


FILTERS = 48
"""Filters in one product with their upper sides: 0.24 ms for 512 spectra, one product with the zeros too 0.43 ms."""

Matrices: TypeAlias = tuple[Tensor, list[tuple[slice, Tensor]]]


def channel_cams(erb_lower: float, erb_upper: float, erb_step: float) -> Tensor:
    """Return the ERB numbers (F,) of the channels in Cam, from ``erb_lower`` in steps up to ``erb_upper`` inclusive."""
    check_range("erb_lower", erb_lower, 0.1, 41.0, unit="Cam")
    check_range("erb_upper", erb_upper, erb_lower, 41.0, unit="Cam")
    check_range("erb_step", erb_step, 0.01, 4.0, unit="Cam")
    count = int(np.floor((erb_upper - erb_lower) / erb_step + 1e-9)) + 1
    return erb_lower + erb_step * torch.arange(count, dtype=torch.float64)


class Moore2016ExcitationPattern(SignalModule):
    """Excitation level in every channel for the components of a spectrum.

    The upper side of a filter is fixed; the lower side becomes shallower with the level per ERB at the component.

    Parameters
    ----------
    erb_lower, erb_upper, erb_step : float
        ERB numbers of the channels, Cam: 1.75, 2.00 ... 39.00 make 150 channels from 47.5 to 15084 Hz.
    spreading_limit_octaves : float
        Largest relative distance (f - fc)/fc of a component above the centre of a filter; 4. It is no number of
        octaves, but the name is documented.
    learnable : bool
        Make the change of slope per dB and its reference level trainable.
    dtype : torch.dtype
        torch.float32 or torch.float64.

    Attributes
    ----------
    fc : Tensor (F,)
        Centre frequencies, Hz.

    Raises
    ------
    SpecError
        If an argument is out of range.

    References
    ----------
    Moore, Glasberg, Varathanathan & Schlittenlacher (2016), Trends Hear. 20, 1-16, with the authors' program; filters
    of Glasberg & Moore (1990), Hear. Res. 47, 103-138.

    Examples
    --------
    >>> import torch
    >>> excitation = Moore2016ExcitationPattern()(torch.tensor([[1000.0]]), torch.tensor([[60.0]]))
    >>> excitation.shape, round(excitation.amax().item(), 1)
    (torch.Size([1, 150]), 59.8)
    """

    fc: Tensor
    cams: Tensor
    level_slope: Tensor
    reference_db: Tensor
    _spread: Tensor
    _upper: Tensor
    _distance: Tensor
    _floor: Tensor
    _count: Tensor

    def __init__(
        self,
        erb_lower: float = 1.75,
        erb_upper: float = 39.0,
        erb_step: float = 0.25,
        spreading_limit_octaves: float = 4.0,
        learnable: bool = False,
        dtype: torch.dtype | str = torch.float32,
    ) -> None:
        super().__init__(learnable=learnable, dtype=dtype)
        check_range("spreading_limit_octaves", spreading_limit_octaves, 0.0, 1e6, low_open=True)
        cams = channel_cams(erb_lower, erb_upper, erb_step)
        self.erb_step, self.limit = float(erb_step), float(spreading_limit_octaves)
        self.constant("level_slope", LEVEL_SLOPE)
        self.constant("reference_db", REFERENCE_DB)
        fc = torch.from_numpy(erb_number_glasberg1990_program_to_hz(cams.numpy()))
        f = BIN_HZ * torch.arange(1, N_COMPONENTS + 1, dtype=torch.float64)
        self._table("fc", fc)
        self._table("cams", cams)
        self._table("_spread", _weights(f, f, self.limit))
        upper = torch.where(f[:, None] >= fc, _weights(fc, f, self.limit, at_filter=True), 0.0)
        self._table("_upper", upper)
        self._table("_distance", (_p(fc) / fc)[:, None] * (fc[:, None] - f))
        self._table("_floor", torch.full_like(fc, -torch.inf))
        self.register_buffer("_count", (f < fc[:, None]).sum(1), persistent=False)

    def _table(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value, persistent=False)
        self._constants.append(name)

    def forward(self, freqs: Tensor, levels: Tensor) -> Tensor:
        """Return the excitation levels (..., F) in dB of components (..., N).

        Parameters
        ----------
        freqs : Tensor (..., N)
            Frequencies, Hz; an entry of 0 Hz is no component.
        levels : Tensor (..., N)
            Levels, dB.

        Returns
        -------
        Tensor (..., F)
            dB; -inf without any component.
        """
        levels = self.enter(levels, (1, 2, 3), "(..., N)", "levels")
        freqs = self.enter(freqs, (1, 2, 3), "(..., N)", "freqs")
        if freqs.shape != levels.shape:
            raise SpecError(f"freqs has shape {tuple(freqs.shape)}, but levels has shape {tuple(levels.shape)}.")
        present = (freqs > 0) & (levels > -300.0) | levels.isnan() | freqs.isnan()
        intensity = torch.where(present, 10.0 ** (torch.where(present, levels, 0.0) / 10.0), 0.0)
        rows, f = intensity.reshape(-1, levels.shape[-1]), freqs.reshape(-1, levels.shape[-1])
        excitation = torch.cat([self._any_frequencies(i[None], g[None]) for i, g in zip(rows, f, strict=True)])
        return self.level_db(excitation).reshape(*levels.shape[:-1], len(self.fc))

    def level_db(self, excitation: Tensor) -> Tensor:
        """Return levels in dB of excitations (power ratios); 0 becomes -inf, with a gradient of 0."""
        absent = excitation == 0
        return torch.where(absent, -torch.inf, 10.0 * torch.log10(torch.where(absent, 1.0, excitation)))

    def _steepness(self, per_erb: Tensor) -> Tensor:
        """Return the slope of the lower side relative to that at 51 dB, for intensities per ERB at the components."""
        share = self.level_slope / float(_p(torch.tensor(1000.0, dtype=torch.float64)))
        level, dtype = torch.log2(per_erb.clamp(min=LOWEST_INTENSITY)), per_erb.dtype
        return level * (-DB_PER_OCTAVE * share).to(dtype) + (1.0 + share * self.reference_db).to(dtype)

    def matrices(self) -> Matrices:
        """Return the weights of spreading (960, 960) and of the upper sides in the dtype of the signals.

        The upper sides are blocks of `FILTERS` filters: first and last component that they take, and their weights.
        """
        spread, upper = self._spread, self._upper
        if self.dtype != torch.float64:
            small = torch.finfo(torch.float32).tiny * 1e6
            spread, upper = (torch.where(m > small, m, 0.0).to(self.dtype) for m in (spread, upper))
        blocks = []
        for block in torch.split(upper, FILTERS, dim=1):
            taken = block.amax(1).nonzero().flatten().tolist() or [0]
            blocks.append((slice(taken[0], taken[-1] + 1), block[taken[0] : taken[-1] + 1].contiguous()))
        return spread, blocks

    def of_bins(self, intensity: Tensor, matrices: Matrices) -> Tensor:
        """Return the excitation (N, F), a power ratio, of intensities (N, 960) at the bins of `Moore2016Spectrum`."""
        spread, upper = matrices
        slope = self._steepness(intensity @ spread)
        lower = ops.roex_spread(intensity, slope, self._distance, self._floor, self._count)
        return lower + torch.cat([intensity[:, taken] @ weights for taken, weights in upper], dim=1)

    def _any_frequencies(self, intensity: Tensor, f: Tensor) -> Tensor:
        """Return the excitation (1, F) of components (1, N) at any frequencies."""
        x, f = intensity[0].double(), f[0].double()
        f = torch.where(f > 0, f, 1000.0)
        slope = self._steepness(x @ _weights(f, f, self.limit))
        p, g = _p(self.fc), (f[:, None] - self.fc) / self.fc
        z = torch.where(g >= 0, p, p * slope[:, None]) * g.abs()
        weight = torch.where(g <= self.limit, (1.0 + z) * torch.exp(-z), 0.0)
        return (x @ weight)[None].to(intensity.dtype)


def _p(f: Tensor) -> Tensor:
    return 4.0 * f / erb_hz_glasberg1990_program(f)


def _weights(to: Tensor, of: Tensor, limit: float, at_filter: bool = False) -> Tensor:
    """Return weights (components ``of``, places ``to``) with the filter shape of the component or of the place."""
    centre = to[None, :] if at_filter else of[:, None]
    g = ((of[:, None] - to) if at_filter else (to - of[:, None])) / centre
    z = _p(centre) * g.abs()
    return torch.where((g <= limit) & (z < FARTHEST), (1.0 + z) * torch.exp(-z), 0.0)
