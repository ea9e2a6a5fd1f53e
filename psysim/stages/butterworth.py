"""A Butterworth filter as a stage."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from psysim import ops
from psysim.errors import SpecError, check_option, check_range
from psysim.ops.steps import Sections, Step
from psysim.stages.base import AuditoryModule
from psysim.stages.filters import butterworth_sections, check_below_nyquist

__all__ = ["ButterworthFilter"]

CUTOFFS = {"low": 1, "high": 1, "band": 2, "stop": 2}
ALIASES = {"lowpass": "low", "highpass": "high", "bandpass": "band", "bandstop": "stop"}


class ButterworthFilter(AuditoryModule):
    """Causal Butterworth filter along time, in second-order sections with float64 states whatever the dtype.

    Parameters
    ----------
    order : int
        Order of the lowpass prototype, 1 to 32; bandpass and bandstop have twice as many poles.
    cutoff : float or (float, float)
        -3-dB frequency in Hz, or both edges of a band, rising; above 0 and below fs/2.
    fs : float
        Sampling rate, Hz.
    btype : str
        ``"low"``, ``"high"``, ``"band"`` or ``"stop"``, also with ``pass`` behind (``bandstop``).
    learnable : bool
        Make the cutoffs (``cutoff_hz``) trainable.
    dtype : torch.dtype
        torch.float32 or torch.float64.

    Attributes
    ----------
    order, btype
        As constructed (``btype``: the short name).
    cutoff_hz : Tensor (1,) or (2,)
        -3-dB frequencies, Hz, float64.

    Raises
    ------
    SpecError
        If an argument is out of range, or the number of cutoffs does not fit the type.

    References
    ----------
    Bilinear transform of the prototype with prewarped cutoffs, as everywhere. King, Varnet & Lorenzi (2019),
    J. Acoust. Soc. Am. 145, 2277-2293, adapt with the first-order highpass of 3 Hz.

    Examples
    --------
    >>> import torch
    >>> highpass = ButterworthFilter(1, 3.0, fs=44100.0, btype="high")
    >>> highpass(torch.ones(2, 31, 441)).shape
    torch.Size([2, 31, 441])
    """

    cutoff_hz: Tensor

    def __init__(
        self,
        order: int,
        cutoff: float | Sequence[float],
        fs: float,
        btype: str = "low",
        learnable: bool = False,
        dtype: torch.dtype | str = torch.float32,
    ) -> None:
        super().__init__(fs, learnable=learnable, dtype=dtype)
        self.btype = ALIASES.get(btype, btype)
        check_option("btype", self.btype, CUTOFFS)
        if isinstance(order, bool) or int(order) != order:
            raise SpecError(f"order = {order!r} is not a filter order: it must be a whole number.")
        check_range("order", order, 1, 32)
        self.order = int(order)
        edges = torch.as_tensor(cutoff, dtype=torch.float64).detach().reshape(-1)
        if len(edges) != CUTOFFS[self.btype] or bool((edges.diff() <= 0).any()):
            wanted = "one cutoff" if CUTOFFS[self.btype] == 1 else "two cutoffs, rising"
            raise SpecError(f"cutoff = {edges.tolist()} Hz does not fit btype = {self.btype!r}: it needs {wanted}.")
        for edge in edges.tolist():
            check_below_nyquist("cutoff", edge, self.fs)
        self.constant("cutoff_hz", edges)

    @property
    def sos(self) -> Tensor:
        """Second-order sections (S, 6), float64."""
        return butterworth_sections(self.cutoff_hz, self.fs, self.order, self.btype)

    def forward(self, x: Tensor) -> Tensor:
        """Filter ``x`` ((T,), (F, T) or (B, F, T)) along time; same shape."""
        x = self.enter(x, (1, 2, 3), "(T,), (F, T) or (B, F, T)")
        return ops.sosfilt(x.reshape((1,) * (3 - x.ndim) + tuple(x.shape)), self.sos).reshape(x.shape)

    def steps(self) -> list[Step]:
        """Return the filter as a step."""
        return [Sections(self.sos)]
