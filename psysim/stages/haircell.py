"""The inner hair cell as half-wave rectification and a lowpass, in its published variants."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from psysim import ops
from psysim.errors import SpecError, check_option, check_range
from psysim.ops.steps import HalfWave, Sections, Step
from psysim.stages.base import AuditoryModule, per_row
from psysim.stages.filters import analytic_signal, butterworth_lowpass, check_below_nyquist

__all__ = ["METHODS", "HairCellMethod", "IHCEnvelope"]


@dataclass(frozen=True)
class HairCellMethod:
    """One published hair cell: what happens before the lowpass, its order, cutoff in Hz and number of passes."""

    before: str
    order: int
    cutoff_hz: float
    passes: int


METHODS = {
    "dau1996": HairCellMethod("halfwave", 1, 1000.0, 1),
    "breebaart2001": HairCellMethod("halfwave", 1, 2000.0, 5),
    "king2019": HairCellMethod("halfwave", 1, 1000.0, 1),
    "lindemann1986": HairCellMethod("halfwave", 1, 800.0, 1),
    "relanoiborra2019": HairCellMethod("halfwave", 2, 1000.0, 1),
    "jepsen2008": HairCellMethod("halfwave", 2, 1000.0, 1),
    "bernstein1999": HairCellMethod("compressed", 2, 425.0, 1),
    "hilbert": HairCellMethod("envelope", 0, 0.0, 0),
    "none": HairCellMethod("nothing", 0, 0.0, 0),
}
ALIASES = {"lindemann": "lindemann1986"}


class IHCEnvelope(AuditoryModule):
    """Hair-cell envelope: rectification and Butterworth lowpass of every channel.

    ================  =============================================  =====  ===========  ======
    method            before the filter                              order  cutoff (Hz)  passes
    ================  =============================================  =====  ===========  ======
    dau1996           max(x, 0)                                      1      1000         1
    breebaart2001     max(x, 0)                                      1      2000         5
    king2019          max(x, 0)                                      1      1000         1
    lindemann1986     max(x, 0)                                      1      800          1
    relanoiborra2019  max(x, 0); also under the name jepsen2008      2      1000         1
    bernstein1999     max(a^-0.77 x, 0)^2, a = Hilbert envelope      2      425          1
    hilbert           a                                              none
    none              x (the stage is switched off)                  none
    ================  =============================================  =====  ===========  ======

    The five passes of breebaart2001 together have their -3-dB point at 771 Hz. ``hilbert`` and ``bernstein1999`` use
    the FFT of the whole signal, so they are not causal; ``bernstein1999`` is undefined (NaN) in digital silence.

    Parameters
    ----------
    fs : float
        Sampling rate, Hz.
    cutoff : float, optional
        Cutoff of one pass, Hz, in place of the method's.
    order : int, optional
        Number of passes, in place of the method's.
    method : str
        A name of the table.
    learnable : bool
        Make the cutoff (``cutoff_hz``) trainable.
    dtype : torch.dtype
        torch.float32 or torch.float64.
    minlvl : float, optional
        Lower limit of the output, in the unit of the input (default: none).

    Attributes
    ----------
    cutoff : float
        Cutoff of one pass in Hz, as constructed; its current value is the tensor ``cutoff_hz``.
    order, iterations : int
        Number of passes.
    b, a : Tensor
        Coefficients of one pass, numerator and denominator, float64.

    Raises
    ------
    SpecError
        If the method is unknown, or the cutoff is not below fs/2.

    References
    ----------
    Dau, Pueschel & Kohlrausch (1996), JASA 99, 3615-3622; Breebaart, van de Par & Kohlrausch (2001), JASA 110,
    1074-1088; Bernstein, van de Par & Trahiotis (1999), JASA 105, 3248-3261; Lindemann (1986), JASA 80, 1608-1622;
    Relano-Iborra, Zaar & Dau (2019), JASA 146, 3306-3317.

    Examples
    --------
    >>> import torch
    >>> ihc = IHCEnvelope(fs=44100.0, method="breebaart2001")
    >>> ihc(torch.zeros(2, 31, 441)).shape
    torch.Size([2, 31, 441])
    """

    cutoff_hz: Tensor

    def __init__(
        self,
        fs: float,
        cutoff: float | None = None,
        order: int | None = None,
        method: str = "dau1996",
        learnable: bool = False,
        dtype: torch.dtype | str = torch.float32,
        *,
        minlvl: float | None = None,
    ) -> None:
        super().__init__(fs, learnable=learnable, dtype=dtype)
        method = ALIASES.get(method, method)
        check_option("method", method, METHODS)
        self.method = method
        self.preset = METHODS[method]
        if self.preset.passes == 0 and (cutoff is not None or order is not None):
            raise SpecError(f"method = {method!r} has no lowpass: cutoff and order do not apply to it.")
        self.order = self.preset.passes if order is None else int(order)
        if order is not None:
            check_range("order", order, 1, 100)
        self.iterations = self.order
        self.cutoff = float(self.preset.cutoff_hz if cutoff is None else cutoff)
        self.minlvl = None if minlvl is None else float(minlvl)
        if self.iterations:
            check_below_nyquist("cutoff", self.cutoff, self.fs)
            self.constant("cutoff_hz", self.cutoff)

    @property
    def sos(self) -> Tensor:
        """Second-order sections of all passes (S, 6), float64."""
        one = butterworth_lowpass(self.cutoff_hz, self.fs, self.preset.order)
        return one.expand(self.iterations, 6)

    @property
    def b(self) -> Tensor:
        """Numerator of one pass, float64."""
        return self.sos[0, : self.preset.order + 1]

    @property
    def a(self) -> Tensor:
        """Denominator of one pass, float64."""
        return self.sos[0, 3 : self.preset.order + 4]

    def forward(self, x: Tensor) -> Tensor:
        """Return the envelope of ``x`` ((T,), (F, T) or (B, F, T)), of the same shape."""
        x = self.enter(x, (1, 2, 3), "(T,), (F, T) or (B, F, T)")
        y = x.reshape((1,) * (3 - x.ndim) + tuple(x.shape))
        y = self._before(y)
        if self.iterations:
            y = ops.sosfilt(y, self.sos)
        if self.minlvl is not None:
            y = torch.clamp(y, min=self.minlvl)
        return y.reshape(x.shape)

    def steps(self) -> list[Step] | None:
        """Return the hair cell as steps; None where it uses the Hilbert envelope or a lower limit of the output."""
        if self.preset.before not in ("halfwave", "nothing") or self.minlvl is not None:
            return None
        before: list[Step] = [HalfWave()] if self.preset.before == "halfwave" else []
        return [*before, Sections(self.sos)] if self.iterations else before

    def _before(self, x: Tensor) -> Tensor:
        if self.preset.before == "halfwave":
            return torch.relu(x)
        if self.preset.before == "nothing":
            return x
        return per_row(_compressed if self.preset.before == "compressed" else _envelope, x)


def _envelope(row: Tensor) -> Tensor:
    return analytic_signal(row.double()).abs().to(row.dtype)


def _compressed(row: Tensor) -> Tensor:
    x = row.double()
    return (torch.relu(analytic_signal(x).abs() ** -0.77 * x) ** 2).to(row.dtype)
