"""From the potential of hair cells to firing rates of groups of auditory-nerve fibres."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from psysim import ops
from psysim.errors import SpecError, check_range
from psysim.stages.base import SignalModule, per_row
from psysim.units import P_REF

__all__ = ["KneeCompression", "RateLevelFunction"]

Values = float | Sequence[float] | Sequence[Sequence[float]] | Tensor
FLOOR_PA = {torch.float32: 1e-18, torch.float64: 1e-150}
"""Up to it (-266 dB SPL in float32) there is no evoked activity and no gradient. Its square can be represented."""
SAMPLES_AT_ONCE = 2**18
"""Samples of all channels that are in work together where no gradient is wanted (measured)."""
NARROWEST_DB = 1e-6
"""A dynamic range of 0 dB is a step; so narrow it is one in float64, and has a slope."""


class KneeCompression(SignalModule):
    """Broken-stick compression in pascal with a lower and an upper knee: (F, T) or (B, F, T), same shape.

    The magnitude a becomes a m^(c-1) below the lower knee m, a^c between the knees and stays a from the upper knee M
    on; the sign is kept. As a^c is taken in pascal the curve is continuous at M only for M = 1 Pa (93.98 dB SPL).

    Parameters
    ----------
    power : float or sequence
        Exponent c, one for all channels or (F,); above 0, at most 1.
    lower_knee_db_spl, upper_knee_db_spl : float, optional
        Knees, dB SPL; None: no such knee.
    learnable : bool
        Make ``power`` trainable.
    dtype : torch.dtype
        torch.float32 or torch.float64.

    Raises
    ------
    SpecError
        If an argument is out of range.

    References
    ----------
    Saddler & McDermott (2024), Nat. Commun. 15, 10590.

    Examples
    --------
    >>> import torch
    >>> stick = KneeCompression(0.5, lower_knee_db_spl=53.9794, upper_knee_db_spl=93.9794)  # 0.01 Pa and 1 Pa
    >>> [round(y, 6) for y in stick(torch.tensor([[1e-4, -0.25, 2.0]]))[0].tolist()]
    [0.001, -0.5, 2.0]
    """

    power: Tensor

    def __init__(
        self,
        power: float | Sequence[float] | Tensor = 0.3,
        lower_knee_db_spl: float | None = None,
        upper_knee_db_spl: float | None = None,
        learnable: bool = False,
        dtype: torch.dtype | str = torch.float32,
    ) -> None:
        super().__init__(learnable=learnable, dtype=dtype)
        exponents = torch.as_tensor(power, dtype=torch.float64).detach().reshape(-1)
        if len(exponents) == 0 or not bool(((exponents > 0) & (exponents <= 1)).all()):
            raise SpecError(f"power = {exponents.tolist()} is out of range: each must be above 0 and at most 1.")
        knees = [-math.inf if lower_knee_db_spl is None else float(lower_knee_db_spl)]
        knees += [math.inf if upper_knee_db_spl is None else float(upper_knee_db_spl)]
        check_range("upper_knee_db_spl", knees[1], knees[0], unit="dB SPL")
        self.lower_knee_db_spl, self.upper_knee_db_spl = lower_knee_db_spl, upper_knee_db_spl
        self.lower, self.upper = (P_REF * 10.0 ** (knee / 20.0) for knee in knees)
        self.constant("power", exponents)

    def forward(self, x: Tensor) -> Tensor:
        """Compress ``x`` (F, T) or (B, F, T), pascal."""
        x = self.enter(x, (2, 3), "(F, T) or (B, F, T)")
        if len(self.power) not in (1, x.shape[-2]):
            raise SpecError(f"x has {x.shape[-2]} channels, but there are {len(self.power)} powers.")
        # The smaller of the line and the power law is the line below the knee
        line = self.lower ** (self.power - 1.0) if self.lower > 0 else torch.full_like(self.power, torch.inf)
        y = ops.compress(x.reshape(-1, *x.shape[-2:]), line, torch.ones_like(self.power), self.power).reshape(x.shape)
        return y if self.upper == math.inf else torch.where(x.abs() >= self.upper, x, y)


class RateLevelFunction(SignalModule):
    r"""Sigmoid rate-level functions of G groups of fibres: (F, T) or (B, F, T) in pascal to (B, G, F, T) in spikes/s.

    :math:`S(L) = 1/(1 + e^{-k(L - x_0)})` rises from (1 - q)/2 at the threshold to (1 + q)/2 at the threshold plus the
    dynamic range. In envelope mode L is the level of the Hilbert envelope e (FFT of the whole signal) and the rate is
    rate_spont + (rate_max - rate_spont) S(L) x/e; otherwise L is the level of the sample, and there is no x/e.

    Parameters
    ----------
    threshold_db_spl, dynamic_range_db, rate_spont, rate_max : float or sequence
        Threshold, dB SPL; dynamic range, dB, at least 0; spontaneous and maximum rate, spikes/s. One number, one for
        each group (G,), or one for each group and channel (G, F).
    interval : float
        q, between 0 and 1.
    envelope_mode : bool
        Level of the envelope (phase locking saturates less than the rate), or of every sample.
    power : float or sequence, optional
        Compression: L is the level of e^power (of x^power); one number or one per channel (F,).
    base_power : float or None
        Only with ``power``: thresholds and dynamic ranges are moved as if they were of this power, so that only other
        powers change the response.
    learnable : bool
        Make thresholds, dynamic ranges, rates and power trainable.
    dtype : torch.dtype
        torch.float32 or torch.float64.

    Attributes
    ----------
    threshold_db_spl, dynamic_range_db, rate_spont, rate_max : Tensor (G, 1) or (G, F)
        As given, float64.
    n_groups : int
        G.

    Raises
    ------
    SpecError
        If shapes do not fit, a dynamic range is negative or a maximum rate below the spontaneous one.

    Notes
    -----
    Gradients are finite everywhere. The derivative at silence, which may be infinite (S rises with a power below 1 of
    the pressure where the dynamic range exceeds 64 dB), is defined as 0.

    References
    ----------
    Saddler & McDermott (2024), Nat. Commun. 15, 10590. Saddler (2025), tutorial on differentiable auditory models.

    Examples
    --------
    >>> import torch
    >>> rates = RateLevelFunction([0.0, 12.0, 28.0], [20.0, 40.0, 80.0])(torch.full((2, 50, 100), 0.02))
    >>> rates.shape, [round(float(r)) for r in rates[0, :, 0, 0]]
    (torch.Size([2, 3, 50, 100]), [250, 249, 81])
    """

    threshold_db_spl: Tensor
    dynamic_range_db: Tensor
    rate_spont: Tensor
    rate_max: Tensor
    power: Tensor

    def __init__(
        self,
        threshold_db_spl: Values = 0.0,
        dynamic_range_db: Values = 80.0,
        rate_spont: Values = 0.0,
        rate_max: Values = 250.0,
        interval: float = 0.95,
        envelope_mode: bool = True,
        power: float | Sequence[float] | Tensor | None = None,
        base_power: float | None = 0.3,
        learnable: bool = False,
        dtype: torch.dtype | str = torch.float32,
    ) -> None:
        super().__init__(learnable=learnable, dtype=dtype)
        check_range("interval", interval, 0.0, 1.0, low_open=True)
        if interval == 1.0:
            raise SpecError("interval = 1 is out of range: it must be below 1.")
        self.interval, self.envelope_mode, self.base_power = float(interval), bool(envelope_mode), base_power
        given = {"threshold_db_spl": threshold_db_spl, "dynamic_range_db": dynamic_range_db}
        given |= {"rate_spont": rate_spont, "rate_max": rate_max}
        tensors = {name: as_groups(name, value) for name, value in given.items()}
        sizes = [{t.shape[axis] for t in tensors.values()} - {1} for axis in (0, 1)]
        if max(len(size) for size in sizes) > 1:
            shapes = ", ".join(f"{name} {tuple(t.shape)}" for name, t in tensors.items())
            raise SpecError(f"Groups and channels do not agree: {shapes}.")
        groups = max(sizes[0] | {1})
        tensors = {name: t.expand(groups, -1) for name, t in tensors.items()}
        if not bool((tensors["dynamic_range_db"] >= 0).all()):
            raise SpecError("dynamic_range_db must be at least 0 dB everywhere.")
        if not bool((tensors["rate_spont"] >= 0).all()) or not bool(
            (tensors["rate_max"] >= tensors["rate_spont"]).all()
        ):
            raise SpecError("rate_spont must be at least 0, and rate_max at least rate_spont, in every group.")
        for name, tensor in tensors.items():
            self.constant(name, tensor)
        self.n_groups = groups
        self.has_power = power is not None
        if power is not None:
            powers = torch.as_tensor(power, dtype=torch.float64).detach().reshape(-1)
            if len(powers) == 0 or not bool(((powers > 0) & powers.isfinite()).all()):
                raise SpecError(f"power = {powers.tolist()} is out of range: each must be above 0.")
            self.constant("power", powers)

    @property
    def threshold(self) -> Tensor:
        """Thresholds that L is compared with (G, 1) or (G, F), dB SPL: moved if there is a compression."""
        if not self.has_power or self.base_power is None:
            return self.threshold_db_spl
        return self.base_power * self.threshold_db_spl + 20.0 * math.log10(P_REF ** (self.base_power - 1.0))

    @property
    def dynamic_range(self) -> Tensor:
        """Dynamic ranges of L (G, 1) or (G, F), dB."""
        scale = self.base_power if self.has_power and self.base_power is not None else 1.0
        return (scale * self.dynamic_range_db).clamp(min=NARROWEST_DB)

    @property
    def slope(self) -> Tensor:
        """K of the sigmoids (G, 1) or (G, F), 1/dB."""
        return 2.0 * math.log(2.0 / (1.0 - self.interval) - 1.0) / self.dynamic_range

    @property
    def midpoint(self) -> Tensor:
        """x0 of the sigmoids (G, 1) or (G, F), dB SPL."""
        return self.threshold + 0.5 * self.dynamic_range

    def forward(self, x: Tensor) -> Tensor:
        """Return rates (G, F, T) for ``x`` (F, T), (B, G, F, T) for (B, F, T)."""
        x = self.enter(x, (2, 3), "(F, T) or (B, F, T)")
        channels = {self.threshold_db_spl.shape[1], self.dynamic_range_db.shape[1], self.rate_spont.shape[1]}
        channels |= {self.rate_max.shape[1], len(self.power) if self.has_power else 1}
        if not channels <= {1, x.shape[-2]}:
            raise SpecError(f"x has {x.shape[-2]} channels, but there are values for {max(channels)}.")
        run = self.prepare()
        y = per_row(run, x.unsqueeze(0) if x.ndim == 2 else x)
        return y.squeeze(0) if x.ndim == 2 else y

    def prepare(self) -> RateRun:
        """Return the functions made ready for signals (F, T)."""
        return RateRun(self)


class RateRun:
    """A `RateLevelFunction` ready for signals of any length.

    Parameters
    ----------
    stage : RateLevelFunction
        The functions.
    """

    def __init__(self, stage: RateLevelFunction) -> None:
        self.envelope_mode, self.floor = stage.envelope_mode, FLOOR_PA[stage.dtype]
        # k (20 log10(e^c / p0) - x0) = factor ln e + offset; of the envelope there is the square
        slope = stage.slope
        factor = 20.0 / math.log(10.0) * slope * (stage.power if stage.has_power else 1.0)
        factor = 0.5 * factor if self.envelope_mode else factor
        offset = -slope * (stage.midpoint + 20.0 * math.log10(P_REF))
        values = (factor, offset, stage.rate_spont, stage.rate_max - stage.rate_spont)
        self.values = tuple(v.unsqueeze(-1).to(stage.dtype) for v in values)
        self.spontaneous = stage.learnable or bool((stage.rate_spont != 0).any())

    def __call__(self, x: Tensor, first: int = 0, out: Tensor | None = None) -> Tensor:
        """Return the rates (G, F', T) of ``x`` (F', T), the channels from ``first`` on, written to ``out`` if given.

        With ``out`` there is no gradient, and ``x`` may be overwritten.
        """
        last = first + x.shape[0]
        values = [v if v.shape[1] == 1 else v[:, first:last] for v in self.values]
        if out is None:
            level, fine = self._level(x)
            factor, offset, spont, span = values
            y = torch.sigmoid(torch.addcmul(offset, level, factor)) * fine * span
            return y + spont if self.spontaneous else y
        for channels in range(0, x.shape[0], step := max(1, SAMPLES_AT_ONCE // x.shape[1])):
            part = slice(channels, channels + step)
            level, fine = self._level(x[part])
            for g, y in enumerate(out):
                factor, offset, spont, span = (v[g] if v.shape[1] == 1 else v[g, part] for v in values)
                y = torch.addcmul(offset, level, factor, out=y[part]).sigmoid_().mul_(fine).mul_(span)
                if self.spontaneous:
                    y.add_(spont)
        return out

    def _level(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logarithm of the magnitude, or of the squared envelope, and what the sigmoid is multiplied by."""
        if not self.envelope_mode:
            # NaN where the sample is not finite
            return x.clamp(min=self.floor).log(), (x > self.floor) + 0.0 * x.detach()
        hilbert = quadrature(x)
        square = torch.addcmul(x.square(), hilbert, hilbert).clamp(min=self.floor**2)
        fine = x * square.rsqrt()
        if x.requires_grad:  # below the floor there is nothing to be seen of this, but in the gradient
            fine = torch.where(square > self.floor**2, fine, 0.0)
        return square.log(), fine


def quadrature(x: Tensor) -> Tensor:
    """Return the Hilbert transform of ``x`` (..., T), by the FFT of exactly T points."""
    n = x.shape[-1]
    spectrum = torch.fft.rfft(x)
    turn = torch.full((n // 2 + 1,), -1.0j, dtype=spectrum.dtype, device=x.device)
    turn[0] = 0.0
    if n % 2 == 0:
        turn[-1] = 0.0
    return torch.fft.irfft(spectrum * turn, n)


def as_groups(name: str, value: Values) -> Tensor:
    """Return ``value`` as (G, 1) or (G, F), float64."""
    tensor = torch.as_tensor(value, dtype=torch.float64).detach()
    if tensor.ndim < 2:
        tensor = tensor.reshape(-1, 1)
    if tensor.ndim > 2 or tensor.numel() == 0 or not bool(tensor.isfinite().all()):
        raise SpecError(
            f"{name} of shape {tuple(tensor.shape)} must be a number, or finite numbers for each group (G,) or for "
            "each group and channel (G, F)."
        )
    return tensor
