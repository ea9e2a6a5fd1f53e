"""The inner hair cell: as half-wave rectification and a lowpass in published variants, and as an electrical circuit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from psysim import ops
from psysim.errors import SpecError, check_option, check_range
from psysim.ops.steps import HairCell, HalfWave, Sections, Square, Step
from psysim.stages.base import AuditoryModule, per_row
from psysim.stages.filters import analytic_signal, butterworth_lowpass, check_below_nyquist

__all__ = ["METHODS", "HairCellMethod", "IHCEnvelope", "IHCJepsen2008", "IHCPaulick2024", "loss_per_channel"]

CIRCUIT_UNITS = {
    "g_max": ("ns", 1e-9),
    "x0": ("nm", 1e-9),
    "s0": ("nm", 1e-9),
    "s1": ("nm", 1e-9),
    "capacitance": ("pf", 1e-12),
    "g_rest": ("ns", 1e-9),
    "g_kf": ("ns", 1e-9),
    "g_ks": ("ns", 1e-9),
    "e_p": ("mv", 1e-3),
    "e_kf": ("mv", 1e-3),
    "e_ks": ("mv", 1e-3),
}
"""Unit in which the circuit keeps each constant, and its size in SI units: numbers that an optimiser can step in."""
JEPSEN_GAIN_DB = 50.0
"""Gain before the square in the hair cell of Jepsen et al. (2008), dB."""


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


def loss_per_channel(parameter: str, given: float | Sequence[float] | Tensor, count: int | None = None) -> Tensor:
    """Return a hearing loss in dB as (1,) or (F,), float64, or as (count,) where the number of channels is known.

    Raises
    ------
    SpecError
        Unless it holds finite numbers, at least 0, one for all channels or one for each.
    """
    loss = torch.as_tensor(given, dtype=torch.float64).detach().reshape(-1)
    if count is not None and loss.numel() not in (1, count):
        raise SpecError(f"{parameter} has {loss.numel()} entries, but there are {count} channels: give 1 or {count}.")
    if loss.numel() == 0 or not bool(((loss >= 0) & loss.isfinite()).all()):
        raise SpecError(f"{parameter} must hold finite losses in dB, at least 0.")
    return loss if count is None else loss.expand(count)


def _register_loss(stage: AuditoryModule, given: float | Sequence[float] | Tensor | None) -> None:
    """Register ``ihc_loss_db``, trainable only where a loss was given."""
    loss = loss_per_channel("ihc_loss_db", 0.0 if given is None else given)
    stage.constant("ihc_loss_db", loss, learnable=stage.learnable and given is not None)


class IHCPaulick2024(AuditoryModule):
    """Inner hair cell as an electrical circuit: velocity of the basilar membrane (m/s) to membrane voltage (V re rest).

    The velocity moves the hairs, their channels open by a two-state Boltzmann function, and the current charges the
    membrane through its potassium conductances (`psysim.ops.hair_cell` gives the equations). Neither rectification nor
    a lowpass follows; the membrane's own time constant is 0.29 ms at rest.

    Parameters
    ----------
    fs : float
        Sampling rate, Hz; above 2.8 kHz, where the integration is stable.
    learnable : bool
        Make the twelve constants of the circuit trainable, and ``ihc_loss_db`` where it was given.
    dtype : torch.dtype
        torch.float32 or torch.float64.
    ihc_loss_db : float or sequence, optional
        Loss of inner hair cells, one number or one per channel (F,), dB: the velocity must be larger by this much for
        the same voltage.

    Attributes
    ----------
    displacement_db : Tensor
        Displacement of the hairs per velocity of the membrane, dB re 1 m per m/s (-105).
    g_max_ns, g_rest_ns, g_kf_ns, g_ks_ns : Tensor
        Conductances: transduction channels all open, at rest, fast and slow potassium channels, nS.
    x0_nm, s0_nm, s1_nm : Tensor
        Displacement at half activation, and its two widths, nm.
    capacitance_pf : Tensor
        Capacitance of the membrane, pF.
    e_p_mv, e_kf_mv, e_ks_mv : Tensor
        Endocochlear potential and reversal potentials of the potassium channels, mV.

    Raises
    ------
    SpecError
        If the sampling rate is too low, or the loss is not usable.

    Notes
    -----
    In silence the voltage drifts to 8.35e-9 V, because the published resting conductance is rounded. ``ihc_loss_db``
    is a construction of this package; the published software has no loss of inner hair cells.

    References
    ----------
    Lopez-Poveda & Eustaquio-Martin (2006), J. Assoc. Res. Otolaryngol. 7, 218-235; Paulick, Relano-Iborra & Dau (2024),
    bioRxiv.

    Examples
    --------
    >>> import torch
    >>> ihc = IHCPaulick2024(fs=44100.0)
    >>> ihc(torch.zeros(2, 50, 441)).shape
    torch.Size([2, 50, 441])
    """

    ihc_loss_db: Tensor
    displacement_db: Tensor

    def __init__(
        self,
        fs: float,
        learnable: bool = False,
        dtype: torch.dtype | str = torch.float32,
        *,
        ihc_loss_db: float | Sequence[float] | Tensor | None = None,
    ) -> None:
        super().__init__(fs, learnable=learnable, dtype=dtype)
        circuit = asdict(ops.HairCellCircuit())
        lowest = (circuit["g_max"] + circuit["g_kf"] + circuit["g_ks"]) / (2.0 * circuit["capacitance"])
        check_range("fs", self.fs, lowest, unit="Hz", low_open=True)
        self.constant("displacement_db", 20.0 * torch.log10(torch.tensor(circuit["displacement"], dtype=torch.float64)))
        for name, (unit, size) in CIRCUIT_UNITS.items():
            self.constant(f"{name}_{unit}", circuit[name] / size)
        _register_loss(self, ihc_loss_db)

    @property
    def circuit(self) -> Tensor:
        """The constants of the circuit in SI units, (12,), or (F, 12) with a loss per channel: for `ops.hair_cell`."""
        constants = [getattr(self, f"{name}_{unit}") * size for name, (unit, size) in CIRCUIT_UNITS.items()]
        moved = 10.0 ** ((self.displacement_db - self.ihc_loss_db) / 20.0)
        rows = torch.cat([moved[:, None], torch.stack(constants).expand(len(moved), -1)], 1)
        return rows[0] if len(rows) == 1 else rows

    def forward(self, x: Tensor) -> Tensor:
        """Return the voltage for velocities ``x`` ((T,), (F, T) or (B, F, T)), of the same shape."""
        x = self.enter(x, (1, 2, 3), "(T,), (F, T) or (B, F, T)")
        return self.steps()[0].run(x.reshape((1,) * (3 - x.ndim) + tuple(x.shape))).reshape(x.shape)

    def steps(self) -> list[Step]:
        """Return the circuit as a step."""
        return [HairCell(self.circuit, self.fs)]


class IHCJepsen2008(IHCEnvelope):
    """Hair cell of Jepsen et al. (2008) with the expansion after it: (10^(50/20) envelope)^2.

    The envelope is that of `IHCEnvelope` with the method jepsen2008: half-wave rectification and a second-order lowpass
    of 1000 Hz. The result is what the adaptation loops of that model take.

    Parameters
    ----------
    fs : float
        Sampling rate, Hz.
    learnable : bool
        Make ``cutoff_hz`` and ``gain_db`` trainable, and ``ihc_loss_db`` where it was given.
    dtype : torch.dtype
        torch.float32 or torch.float64.
    ihc_loss_db : float or sequence, optional
        Loss of inner hair cells, one number or one per channel (F,), dB: an attenuation before the square. A
        construction of this package.

    References
    ----------
    Jepsen, Ewert & Dau (2008), JASA 124, 422-438.

    Examples
    --------
    >>> import torch
    >>> IHCJepsen2008(fs=44100.0)(torch.zeros(2, 50, 441)).shape
    torch.Size([2, 50, 441])
    """

    gain_db: Tensor
    ihc_loss_db: Tensor

    def __init__(
        self,
        fs: float,
        learnable: bool = False,
        dtype: torch.dtype | str = torch.float32,
        *,
        ihc_loss_db: float | Sequence[float] | Tensor | None = None,
    ) -> None:
        super().__init__(fs, method="jepsen2008", learnable=learnable, dtype=dtype)
        self.constant("gain_db", JEPSEN_GAIN_DB)
        _register_loss(self, ihc_loss_db)

    def forward(self, x: Tensor) -> Tensor:
        """Return the expanded envelope of ``x`` ((T,), (F, T) or (B, F, T)), of the same shape."""
        envelope = super().forward(x)
        gain = self._gain.to(envelope.dtype)
        if len(gain) > 1 and (envelope.ndim == 1 or envelope.shape[-2] != len(gain)):
            raise SpecError(f"x has shape {tuple(x.shape)}, but ihc_loss_db has {len(gain)} channels.")
        return torch.square(envelope * (gain[:, None] if len(gain) > 1 else gain))

    def steps(self) -> list[Step] | None:
        """Return the hair cell as steps, with the square as the last."""
        before = super().steps()
        return None if before is None else [*before, Square(self._gain)]

    @property
    def _gain(self) -> Tensor:
        """Factor before the square, (1,) or (F,), float64."""
        return 10.0 ** ((self.gain_db - self.ihc_loss_db).reshape(-1) / 20.0)
