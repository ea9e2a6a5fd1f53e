"""Instantaneous compression above a knee: the broken stick, and the power law through the knee."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from psysim import ops
from psysim.errors import SpecError, check_option, check_range
from psysim.stages.base import SignalModule

__all__ = ["BrokenStickCompression", "PowerCompression"]


class PowerCompression(SignalModule):
    r"""Power law on the signed amplitude: :math:`y = \mathrm{sign}(x)\,(|x|/k)^n\,k` with the knee k left in place.

    Amplitudes below the knee are expanded, those above compressed. k is the amplitude 10^((knee_db - dboffset)/20): a
    sample as large as the rms of a sound of ``knee_db``. No rectification: the sign is kept.

    Parameters
    ----------
    knee_db : float
        Level of the knee, dB SPL.
    exponent : float or sequence
        Exponent n, one for all channels or (F,); above 0, at most 1.
    dboffset : float
        Level in dB SPL of an input with an rms of 1; 93.979 for pascal.
    num_channels : int, optional
        Number of channels F: makes one exponent per channel of a single ``exponent``.
    learnable : bool
        Make ``knee_db`` and ``exponent`` trainable.
    dtype : torch.dtype
        torch.float32 or torch.float64.
    channel_dim : int
        Where the channels are if there is an exponent for each: -1, last (documented interface), or -2, before time
        (what all other stages have).

    Attributes
    ----------
    knee_db : Tensor ()
        Level of the knee, dB SPL, float64; also under the name ``knee_db_param``.
    exponent : Tensor (1,) or (F,)
        Exponents, float64.
    knee : Tensor ()
        Amplitude of the knee, float64.
    dboffset, channel_dim
        As constructed.

    Raises
    ------
    SpecError
        If an argument is out of range, or the number of exponents differs from ``num_channels``.

    References
    ----------
    King, Varnet & Lorenzi (2019), J. Acoust. Soc. Am. 145, 2277-2293.

    Examples
    --------
    >>> import torch
    >>> power = PowerCompression(knee_db=40.0, exponent=0.5, dboffset=100.0)  # knee: 1e-3
    >>> power(torch.tensor([1e-5, -1e-1]))
    tensor([ 1.0000e-04, -1.0000e-02])
    """

    knee_db: Tensor
    exponent: Tensor
    linear = float("inf")
    """Slope of the straight line below the knee."""

    def __init__(
        self,
        knee_db: float = 30.0,
        exponent: float | Sequence[float] | Tensor = 0.3,
        dboffset: float = 100.0,
        num_channels: int | None = None,
        learnable: bool = False,
        *,
        dtype: torch.dtype | str = torch.float32,
        channel_dim: int = -1,
    ) -> None:
        super().__init__(learnable=learnable, dtype=dtype)
        check_range("knee_db", knee_db, -300.0, 300.0, unit="dB SPL")
        check_range("dboffset", dboffset, -300.0, 300.0, unit="dB SPL")
        check_option("channel_dim", channel_dim, (-1, -2))
        exponents = torch.as_tensor(exponent, dtype=torch.float64).detach().reshape(-1)
        if num_channels is not None:
            check_range("num_channels", num_channels, 1)
            if len(exponents) not in (1, num_channels):
                raise SpecError(f"exponent has {len(exponents)} entries, but num_channels = {num_channels}.")
            exponents = exponents.expand(int(num_channels))
        if len(exponents) == 0 or not bool(((exponents > 0) & (exponents <= 1)).all()):
            raise SpecError(f"exponent = {exponents.tolist()} is out of range: each must be above 0 and at most 1.")
        self.dboffset = float(dboffset)
        self.channel_dim = channel_dim
        self.per_channel = num_channels is not None or len(exponents) > 1
        self.constant("knee_db", float(knee_db))
        self.constant("exponent", exponents)

    @property
    def knee_db_param(self) -> Tensor:
        """The level of the knee under its second documented name."""
        return self.knee_db

    @property
    def knee(self) -> Tensor:
        """Amplitude of the knee, float64."""
        return 10.0 ** ((self.knee_db - self.dboffset) / 20.0)

    def get_parameters(self) -> dict[str, object]:
        """Return the settings with their present values."""
        return {
            "knee_db": self.knee_db.item(),
            "exponent": self.exponent.tolist(),
            "dboffset": self.dboffset,
            "learnable": self.learnable,
        }

    def forward(self, x: Tensor) -> Tensor:
        """Compress ``x``, same shape.

        With one exponent ``x`` has one to three dimensions of any meaning. With one per channel: (F,), (B, F) or
        (B, T, F) for ``channel_dim`` -1; (F, T) or (B, F, T) for -2.
        """
        x = self.enter(x, (1, 2, 3), "of one to three dimensions")
        y = self._channels_second(x) if self.per_channel else x.reshape((1,) * (3 - x.ndim) + tuple(x.shape))
        linear = self.exponent.new_full((1,), self.linear)
        y = ops.compress(y, linear, self.knee ** (1.0 - self.exponent), self.exponent)
        last = self.per_channel and self.channel_dim == -1 and x.ndim == 3
        return y.transpose(1, 2) if last else y.reshape(x.shape)

    def _channels_second(self, x: Tensor) -> Tensor:
        """Return ``x`` as (B, F, T) for the operator; refuse another number of channels than there are exponents."""
        channels = 1 if x.ndim < -self.channel_dim else x.shape[self.channel_dim]
        if channels != len(self.exponent):
            other = -3 - self.channel_dim
            raise SpecError(
                f"x has shape {tuple(x.shape)}, so {channels} channels in dimension {self.channel_dim}, but there are "
                f"{len(self.exponent)} exponents. If the channels are in dimension {other}, set channel_dim={other}."
            )
        if self.channel_dim == -2:
            return x.reshape((1,) * (3 - x.ndim) + tuple(x.shape))
        return x.transpose(1, 2) if x.ndim == 3 else x.reshape(-1, channels, 1)


class BrokenStickCompression(PowerCompression):
    r"""Broken stick on the signed amplitude: unchanged up to the knee k, :math:`\mathrm{sign}(x)|x|^n k^{1-n}` above.

    Parameters, attributes and shapes are those of `PowerCompression`: ``knee_db`` (30 dB SPL), ``exponent`` (0.3),
    ``dboffset`` (100 dB SPL), ``num_channels``, ``learnable``, ``dtype``, ``channel_dim``.

    References
    ----------
    King, Varnet & Lorenzi (2019), J. Acoust. Soc. Am. 145, 2277-2293.

    Examples
    --------
    >>> import torch
    >>> stick = BrokenStickCompression(knee_db=40.0, exponent=0.5, dboffset=100.0)  # knee: 1e-3
    >>> stick(torch.tensor([1e-5, -1e-1]))
    tensor([ 1.0000e-05, -1.0000e-02])
    """

    linear = 1.0
