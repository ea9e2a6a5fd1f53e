"""The dual-resonance nonlinear (DRNL) filterbank of the CASP models, for normal and impaired hearing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from psysim.errors import SpecError, check_option, check_range
from psysim.ops.steps import Drnl, Step
from psysim.stages.base import AuditoryModule
from psysim.stages.filters import butterworth_lowpass
from psysim.stages.haircell import loss_per_channel
from psysim.units import erb_number, erb_number_to_hz

__all__ = ["STRUCTURES", "SUBJECTS", "DRNLFilterbank", "DrnlStructure", "erb_points", "hair_cell_losses"]

SUBJECTS = ("NH", "HIx")


@dataclass(frozen=True)
class DrnlStructure:
    """Numbers of sections: gammatone of the linear path, its lowpass; one gammatone of the nonlinear path, its lowpass.

    The gammatone of the nonlinear path stands before the compression and again after it.
    """

    linear_order: int
    linear_lowpass: int
    nonlinear_order: int
    nonlinear_lowpass: int


STRUCTURES = {"paulick2024": DrnlStructure(2, 4, 2, 1), "jepsen2008": DrnlStructure(3, 4, 3, 3)}

# Each frequency and gain is 10^(p + q log10 fc): (p, q)
_LINEAR_CENTRE, _LINEAR_BANDWIDTH, _LINEAR_LOWPASS = (-0.06762, 1.01679), (0.03728, 0.75), (-0.06762, 1.01)
_NONLINEAR_CENTRE, _NONLINEAR_BANDWIDTH = (-0.05252, 1.01650), (-0.03193, 0.77)
_LINEAR_GAIN, _A, _B, _C = (4.20405, -0.47909), (1.40298, 0.81916), (1.61912, -0.81867), 10.0**-0.60206
_JUMP_HZ, _HELD_HZ = 1000.0, 1500.0
"""Above the first frequency, a and b of normal hearing are those of the second one."""


def erb_points(flow_hz: float, fhigh_hz: float, count: int) -> list[float]:
    """Return ``count`` frequencies in Hz, equally spaced in ERB numbers, with both bounds among them exactly.

    Parameters
    ----------
    flow_hz, fhigh_hz : float
        Bounds in Hz, 0 <= flow < fhigh; the same for ``count = 1``.
    count : int
        Number of frequencies, at least 1.

    Raises
    ------
    SpecError
        If the bounds are out of order, or do not fit to ``count``.

    Examples
    --------
    >>> [round(f) for f in erb_points(250.0, 8000.0, 3)]
    [250, 1756, 8000]
    """
    if isinstance(count, bool) or int(count) != count or count < 1:
        raise SpecError(f"n_channels = {count!r} is not a number of channels: it must be a whole number from 1 on.")
    flow, fhigh = float(flow_hz), float(fhigh_hz)
    check_range("flow", flow, 0.0, unit="Hz")
    one = int(count) == 1
    if not math.isfinite(fhigh) or (flow != fhigh if one else not flow < fhigh):
        need = "one channel needs flow = fhigh" if one else "flow must be below fhigh"
        raise SpecError(f"flow = {flow:g} Hz and fhigh = {fhigh:g} Hz do not fit to n_channels = {count}: {need}.")
    numbers = np.linspace(erb_number(flow), erb_number(fhigh), int(count))
    return [flow] if one else [flow, *erb_number_to_hz(numbers)[1:-1].tolist(), fhigh]


class DRNLFilterbank(AuditoryModule):
    r"""Basilar membrane as a dual-resonance nonlinear filterbank: stapes velocity (B, T) to velocities (B, F, T), m/s.

    Each channel sums a linear path (gain, gammatone, lowpass) and a nonlinear one: gammatone, the broken stick
    :math:`\mathrm{sign}(v)\,\min(a |v|, b |v|^c)`, the same gammatone, lowpass. Soft sounds at the centre frequency
    pass through the nonlinear path, 19 dB (250 Hz) to 45 dB (8 kHz) above the linear one; loud sounds through the
    linear path, which is tuned a little lower.

    Parameters
    ----------
    fc : Tensor, sequence or (flow, fhigh)
        Centre frequencies in Hz; or a tuple of two: the bounds of ``n_channels`` frequencies, equally spaced in ERB
        numbers, both bounds included.
    fs : float
        Sampling rate, Hz. All filters must lie below fs/2: at 8 kHz the highest cutoff is 8222 Hz.
    n_channels : int
        Number of channels between bounds; not used for a list of centre frequencies.
    subject : str
        ``"NH"`` (normal hearing) or ``"HIx"`` (the published listener without compression: a = 0, linear path only).
    model : str
        ``"paulick2024"`` or ``"jepsen2008"``: the orders of the filters (`STRUCTURES`).
    learnable : bool
        Make the gains, the constants a, b and c, the centre frequencies, bandwidths and cutoffs of both paths, and
        ``ohc_loss_db`` where it was given, trainable.
    dtype : torch.dtype
        torch.float32 or torch.float64.
    ohc_loss_db : float or sequence, optional
        Loss of outer hair cells, one number or one per channel (F,), dB: by how much the response to a soft tone at
        the centre frequency falls, from 0 to `max_ohc_loss_db`, where only the linear path is left. It lowers a, so
        that the knee of the broken stick moves up and loud sounds keep their response. Only for NH and paulick2024 (in
        jepsen2008 the two paths partly cancel, so that a does not say how large their sum is).

    Attributes
    ----------
    fc : Tensor (F,)
        Centre frequencies, Hz, float64.
    linear_gain, a, b, c : Tensor (F,)
        Gain of the linear path, and the constants of the broken stick, in units of m/s.
    linear_centre_hz, linear_bandwidth_hz, linear_lowpass_hz : Tensor (F,)
        Filters of the linear path, Hz.
    nonlinear_centre_hz, nonlinear_bandwidth_hz, nonlinear_lowpass_hz : Tensor (F,)
        Filters of the nonlinear path, Hz.
    max_ohc_loss_db : Tensor (F,)
        What the nonlinear path adds to the response to a soft tone at the centre frequency, dB.
    num_channels : int
        F.

    Raises
    ------
    SpecError
        If a filter does not lie below fs/2, or an argument is out of range.

    Notes
    -----
    ``ohc_loss_db`` is a construction of this package in the spirit of Jepsen & Dau (2011), who fitted a, b and c to
    every listener; the published software has the two subjects only.

    References
    ----------
    Lopez-Poveda & Meddis (2001), JASA 110, 3107-3118; Jepsen, Ewert & Dau (2008), JASA 124, 422-438; Jepsen & Dau
    (2011), JASA 129, 262-281; Paulick, Relano-Iborra & Dau (2024), bioRxiv.

    Examples
    --------
    >>> import torch
    >>> bank = DRNLFilterbank((250.0, 8000.0), fs=44100.0)
    >>> bank(torch.zeros(2, 441)).shape, bank.num_channels
    (torch.Size([2, 50, 441]), 50)
    >>> impaired = DRNLFilterbank((250.0, 8000.0), fs=44100.0, ohc_loss_db=15.0)
    >>> bool((impaired.active_a < bank.a).all())
    True
    """

    fc: Tensor
    linear_gain: Tensor
    a: Tensor
    b: Tensor
    c: Tensor
    linear_centre_hz: Tensor
    linear_bandwidth_hz: Tensor
    linear_lowpass_hz: Tensor
    nonlinear_centre_hz: Tensor
    nonlinear_bandwidth_hz: Tensor
    nonlinear_lowpass_hz: Tensor
    ohc_loss_db: Tensor

    def __init__(
        self,
        fc: Tensor | Sequence[float] | tuple[float, float],
        fs: float,
        n_channels: int = 50,
        subject: str = "NH",
        model: str = "paulick2024",
        learnable: bool = False,
        dtype: torch.dtype | str = torch.float64,
        *,
        ohc_loss_db: float | Sequence[float] | Tensor | None = None,
    ) -> None:
        super().__init__(fs, learnable=learnable, dtype=dtype)
        check_option("subject", subject, SUBJECTS)
        check_option("model", model, STRUCTURES)
        self.subject, self.model, self.structure = subject, model, STRUCTURES[model]
        if isinstance(fc, tuple) and len(fc) == 2:
            fc = erb_points(*fc, n_channels)
        centres = torch.as_tensor(fc, dtype=torch.float64).detach().reshape(-1)
        if centres.numel() == 0 or not bool(((centres > 0) & centres.isfinite()).all()):
            raise SpecError("fc must hold the centre frequency of each channel: finite numbers of Hz, above 0.")
        self.num_channels = centres.numel()
        self.constant("fc", centres, learnable=False)
        self._set_filters(centres)
        self._set_stick(centres)
        self.has_ohc_loss = ohc_loss_db is not None
        if ohc_loss_db is not None:
            self._set_ohc_loss(ohc_loss_db)

    def _set_filters(self, fc: Tensor) -> None:
        filters = {
            "linear_centre_hz": _power(fc, _LINEAR_CENTRE),
            "linear_lowpass_hz": _power(fc, _LINEAR_LOWPASS),
            "nonlinear_centre_hz": _power(fc, _NONLINEAR_CENTRE),
            "nonlinear_lowpass_hz": _power(fc, _NONLINEAR_CENTRE),
        }
        highest = max(float(values.max()) for values in filters.values())
        if not highest < self.fs / 2:
            raise SpecError(
                f"fc = {float(fc.max()):g} Hz is out of range at fs = {self.fs:g} Hz: its channel has a filter at "
                f"{highest:.6g} Hz, which must be below fs/2 = {self.fs / 2:g} Hz. Lower fhigh or raise fs."
            )
        for name, values in filters.items():
            self.constant(name, values)
        self.constant("linear_bandwidth_hz", _power(fc, _LINEAR_BANDWIDTH))
        self.constant("nonlinear_bandwidth_hz", _power(fc, _NONLINEAR_BANDWIDTH))

    def _set_stick(self, fc: Tensor) -> None:
        normal = self.subject == "NH"
        reach = torch.where(fc > _JUMP_HZ, _HELD_HZ, fc) if normal else fc
        self.constant("linear_gain", _power(fc, _LINEAR_GAIN))
        self.constant("a", _power(reach, _A) if normal else torch.zeros_like(fc))
        self.constant("b", _power(reach, _B))
        self.constant("c", torch.full_like(fc, _C))

    def _set_ohc_loss(self, given: float | Sequence[float] | Tensor) -> None:
        if self.subject != "NH":
            raise SpecError(f"ohc_loss_db needs subject = 'NH': {self.subject} has no outer hair cells to lose.")
        loss = loss_per_channel("ohc_loss_db", given, self.num_channels)
        straight, bent = self._soft_responses()
        cancels = (straight.conj() * bent).real < 0
        if bool(cancels.any()):
            raise SpecError(
                f"ohc_loss_db cannot be given for model = {self.model!r} at {float(self.fc[cancels][0]):g} Hz: the two "
                "paths partly cancel there, and the response to soft sounds does not fall steadily with a."
            )
        limit = self.max_ohc_loss_db.detach()
        over = loss > limit + 1e-9
        if bool(over.any()):
            i = int(over.nonzero()[0])
            raise SpecError(
                f"ohc_loss_db = {float(loss[i]):.6g} dB at {float(self.fc[i]):.6g} Hz is out of range: it must be at "
                f"most {float(limit[i]):.6g} dB, what the nonlinear path adds. The rest is a loss of inner hair cells."
            )
        self.constant("ohc_loss_db", torch.minimum(loss, limit))

    @property
    def max_ohc_loss_db(self) -> Tensor:
        """Largest loss of outer hair cells of each channel (F,), dB, float64; 0 for HIx."""
        straight, bent = self._soft_responses()
        return 20.0 * torch.log10((straight + bent).abs() / straight.abs())

    @property
    def active_a(self) -> Tensor:
        """The a in use (F,): that of the subject, lowered by the loss of outer hair cells."""
        if not self.has_ohc_loss:
            return self.a
        # |straight + k bent| = 10^(-loss/20) |straight + bent|, solved for k
        straight, bent = self._soft_responses()
        size = bent.abs() ** 2
        both = (straight.conj() * bent).real
        excess = 10.0 ** (-self.ohc_loss_db / 10.0) * (straight + bent).abs() ** 2 - straight.abs() ** 2
        return self.a * torch.relu((torch.sqrt(torch.relu(both**2 + size * excess)) - both) / size)

    def _soft_responses(self) -> tuple[Tensor, Tensor]:
        """Return the responses (F,) of both paths to a tone at fc below the knee, without loss, complex128."""
        linear, before, after = self._cascades()
        return _response(linear, self.fc, self.fs), self.a * _response(torch.cat([before, after], 1), self.fc, self.fs)

    def _cascades(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the sections of the linear path, and of the nonlinear path before and after the compression."""
        s = self.structure
        section = _gammatone(self.linear_centre_hz, self.linear_bandwidth_hz, self.fs)
        amplified = torch.cat([section[..., :3] * self.linear_gain[:, None, None], section[..., 3:]], -1)
        lowpass = _lowpass(self.linear_lowpass_hz, self.fs)
        linear = torch.cat([amplified] + [section] * (s.linear_order - 1) + [lowpass] * s.linear_lowpass, 1)
        section = _gammatone(self.nonlinear_centre_hz, self.nonlinear_bandwidth_hz, self.fs)
        lowpass = _lowpass(self.nonlinear_lowpass_hz, self.fs)
        before = torch.cat([section] * s.nonlinear_order, 1)
        return linear, before, torch.cat([before] + [lowpass] * s.nonlinear_lowpass, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Filter stapes velocity ``x`` (T,) or (B, T), m/s, into (F, T) or (B, F, T)."""
        x = self.enter(x, (1, 2), "(T,) or (B, T)")
        y = self.steps()[0].run(x.unsqueeze(0) if x.ndim == 1 else x)
        return y.squeeze(0) if x.ndim == 1 else y

    def steps(self) -> list[Step]:
        """Return the filterbank as a step."""
        linear, before, after = self._cascades()
        return [Drnl(linear, before, self.active_a, self.b, self.c, after)]


def hair_cell_losses(
    bank: DRNLFilterbank,
    frequency_hz: Sequence[float] | Tensor,
    loss_db_hl: Sequence[float] | Tensor,
    ohc_share: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Divide an audiogram into losses of outer and of inner hair cells, for each channel of a filterbank.

    The audiogram is interpolated over log frequency and held beyond its ends. Outer hair cells take ``ohc_share`` of
    it, but at most the gain that they give, `DRNLFilterbank.max_ohc_loss_db`; inner hair cells take the rest.

    Parameters
    ----------
    bank : DRNLFilterbank
        The filterbank of the model, for normal hearing.
    frequency_hz : sequence (N,)
        Audiometric frequencies, rising, Hz.
    loss_db_hl : sequence (N,)
        Hearing loss, dB HL; a negative loss counts as 0.
    ohc_share : float
        Share of the loss that is due to outer hair cells as long as these have gain to lose, 0 to 1.

    Returns
    -------
    Tensor (F,)
        Loss of outer hair cells, dB: the argument ``ohc_loss_db`` of `DRNLFilterbank`.
    Tensor (F,)
        Loss of inner hair cells, dB: the argument ``ihc_loss_db`` of the hair cell.

    Raises
    ------
    SpecError
        If the audiogram or the share is not usable.

    Notes
    -----
    A construction of this package after Jepsen & Dau (2011), who measured the division for every listener.

    References
    ----------
    Jepsen & Dau (2011), JASA 129, 262-281.

    Examples
    --------
    >>> bank = DRNLFilterbank([500.0, 4000.0], fs=44100.0)
    >>> ohc, ihc = hair_cell_losses(bank, [250.0, 1000.0, 4000.0], [10.0, 30.0, 60.0])
    >>> [round(x, 1) for x in ohc.tolist()], [round(x, 1) for x in ihc.tolist()]
    ([20.0, 42.2], [0.0, 17.8])
    """
    check_range("ohc_share", ohc_share, 0.0, 1.0)
    frequency = torch.as_tensor(frequency_hz, dtype=torch.float64).detach().cpu().reshape(-1).numpy()
    loss = torch.as_tensor(loss_db_hl, dtype=torch.float64).detach().cpu().reshape(-1).numpy()
    if len(frequency) == 0 or len(frequency) != len(loss):
        raise SpecError(f"An audiogram needs one loss per frequency; got {len(loss)} for {len(frequency)} frequencies.")
    if not (frequency > 0).all() or not (np.diff(frequency) > 0).all() or not np.isfinite(loss).all():
        raise SpecError("An audiogram needs rising frequencies above 0 Hz and finite losses in dB HL.")
    centres = bank.fc.cpu().numpy()
    total = torch.as_tensor(np.maximum(0.0, np.interp(np.log(centres), np.log(frequency), loss)), device=bank.device)
    ohc = torch.minimum(ohc_share * total, bank.max_ohc_loss_db.detach())
    return ohc, total - ohc


def _power(fc: Tensor, law: tuple[float, float]) -> Tensor:
    return 10.0 ** (law[0] + law[1] * torch.log10(fc))


def _gammatone(centre_hz: Tensor, bandwidth_hz: Tensor, fs: float) -> Tensor:
    """One pole-zero section of each gammatone, (F, 1, 6), with a gain of 1 at its centre.

    Pole p = exp(-2 pi (bandwidth + i centre) / fs) and its conjugate, zero at Re p. Cascaded, not multiplied out: that
    costs the reference up to 1e-7.
    """
    theta, phi = 2.0 * math.pi / fs * centre_hz, 2.0 * math.pi / fs * bandwidth_hz
    real, square = torch.exp(-phi) * torch.cos(theta), torch.exp(-2.0 * phi)
    one, zero = torch.ones_like(real), torch.zeros_like(real)
    shape = torch.stack([one, -real, zero, one, -2.0 * real, square], -1)[:, None]
    gain = 1.0 / _response(shape, centre_hz, fs).abs()
    return torch.cat([shape[..., :3] * gain[:, None, None], shape[..., 3:]], -1)


def _lowpass(cutoff_hz: Tensor, fs: float) -> Tensor:
    """One second-order Butterworth section of each channel, (F, 1, 6)."""
    return butterworth_lowpass(cutoff_hz, fs, order=2).permute(2, 0, 1)


def _response(sos: Tensor, frequency_hz: Tensor, fs: float) -> Tensor:
    """Return the response (F,) of the cascades ``sos`` (F, S, 6), each at its own frequency."""
    angle = 2.0 * math.pi / fs * frequency_hz
    delay = torch.polar(torch.ones_like(angle), -angle)[:, None]
    powers = torch.stack([torch.ones_like(delay), delay, delay * delay], -1)
    return ((sos[..., :3] * powers).sum(-1) / (sos[..., 3:] * powers).sum(-1)).prod(-1)
