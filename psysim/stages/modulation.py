"""The modulation filterbank: the envelope of each auditory channel, analysed by modulation rate."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from psysim import ops
from psysim.errors import PsysimWarning, SpecError, check_option, check_range
from psysim.ops.steps import Bank, Sections, Step
from psysim.stages.base import AuditoryModule
from psysim.stages.filters import butterworth_lowpass, check_below_nyquist
from psysim.stages.modulation_butterworth import butterworth_bandpasses, check_edges, filter_butterworth

__all__ = ["PRESETS", "ModulationFilterbank", "ModulationPreset", "modulation_centres"]

PHASE_LIMIT_HZ = 10.0
"""Highest modulation centre frequency at which the phase of the modulation is kept."""
LOW_BANDWIDTH_HZ = 5.0
FIRST_CENTRE_HZ = 5.0
HIGHEST_CENTRE_HZ = 1000.0
GAIN_CUTOFF_HZ = 150.0
GAIN_GRID = 8192


@dataclass(frozen=True)
class ModulationPreset:
    """One published setting.

    ``limited``: upper limit min(fc/4, cap) in place of the cap; ``lowpass_cutoff_hz``: first-order lowpass before the
    bank (None: none); ``att_factor``: factor on the envelopes above 10 Hz; ``gain_correction``: bandpass outputs times
    the gain of the 150-Hz lowpass at their centre; ``integrator_tau_s``: time constant of the leaky integrator that
    stands in place of the whole bank (None: a bank).
    """

    limited: bool
    lowpass_cutoff_hz: float | None
    att_factor: float
    gain_correction: bool
    integrator_tau_s: float | None = None


PRESETS = {
    "dau1996": ModulationPreset(False, None, 1.0, False, integrator_tau_s=0.02),
    "dau1997": ModulationPreset(False, None, 1.0, False),
    "verhey1999": ModulationPreset(True, None, 1.0, False),
    "jepsen2008": ModulationPreset(True, 150.0, math.sqrt(0.5), False),
    "osses2021_att_gain": ModulationPreset(True, None, math.sqrt(0.5), True),
}


def modulation_centres(upper_hz: float, Q: float = 2.0) -> list[float]:
    """Return the centre frequencies in Hz up to about ``upper_hz``, beginning with 0 (the lowpass).

    5 Hz apart up to 10 Hz, then in the ratio (1 + 1/(2Q)) / (1 - 1/(2Q)), 5/3 for Q = 2. The counts are truncated
    towards zero, as published: one filter is made even if it lies above ``upper_hz``, so 16.7 Hz is there for 11 Hz.

    Examples
    --------
    >>> [round(f, 1) for f in modulation_centres(20.0)]
    [0.0, 5.0, 10.0, 16.7]
    """
    half = 1.0 / (2.0 * Q)
    low = [FIRST_CENTRE_HZ + LOW_BANDWIDTH_HZ * i for i in range(math.trunc((min(upper_hz, 10.0) - 5.0) / 5.0) + 1)]
    if not low:
        return [0.0]
    ratio = (1.0 + half) / (1.0 - half)
    first = (low[-1] + LOW_BANDWIDTH_HZ / 2.0) / (1.0 - half)
    high = [first * ratio**i for i in range(math.trunc(math.log(upper_hz / first) / math.log(ratio)) + 1)]
    return [0.0, *low, *high]


class ModulationFilterbank(AuditoryModule):
    r"""Modulation filterbank: adapted envelope (B, F, T) to one signal per modulation filter.

    Filter 0 is a second-order Butterworth lowpass of 2.5 Hz. The others are complex one-pole bandpasses
    :math:`y[n] = (1 - g) x[n] + g e^{i\omega} y[n-1]`, :math:`g = e^{-\pi b/f_s}`, of bandwidth b = 5 Hz below 10 Hz
    and centre/Q above, times 2. Up to 10 Hz the real part is returned, above it the envelope ``att_factor |y|``:
    listeners hear the phase of slow modulation only.

    Preset dau1996 is the model before the bank: one leaky integrator, :math:`y[n] = (1 - a) x[n] + a y[n-1]`,
    :math:`a = e^{-1/(0.02 f_s)}` (8 Hz), in place of filter 0, and no bandpass.

    ==================  ==================  ===================  =============  ===============
    preset              upper limit U (Hz)  150-Hz lowpass first  att_factor     gain correction
    ==================  ==================  ===================  =============  ===============
    dau1996             no bandpass         no                   1              no
    dau1997             1000                no                   1              no
    verhey1999          min(fc/4, 1000)     no                   1              no
    jepsen2008          min(fc/4, 1000)     yes                  1/sqrt(2)      no
    osses2021_att_gain  min(fc/4, 1000)     no                   1/sqrt(2)      yes
    ==================  ==================  ===================  =============  ===============

    Parameters
    ----------
    fs : float
        Sampling rate of the input, Hz.
    fc : Tensor or sequence
        Centre frequencies of the auditory channels (F,), Hz: they set the upper limits.
    Q : float
        Quality factor of the filters from 10 Hz on, above 0.5.
    max_mfc : float, optional
        Cap of the upper limit in Hz, in place of the preset's 1000 (150: eight filters, 0 to 128.6 Hz).
    lp_cutoff : float
        Cutoff of filter 0, Hz.
    att_factor : float, optional
        Factor on the envelopes, in place of the preset's.
    use_upper_limit : bool, optional
        Limit U to a quarter of fc, in place of the preset's choice.
    preset : str, optional
        A name of the table (default jepsen2008); explicit arguments win over it.
    filter_type : str
        ``"efilt"`` (published), or ``"butterworth"``: an extension without a published counterpart for this bank,
        real four-pole Butterworth bandpasses of the same centres and bandwidths, with the FFT envelope above 10 Hz.
    learnable : bool
        Make ``mfc_hz``, ``bandwidth_hz``, the cutoffs and the attenuation factor trainable.
    dtype : torch.dtype
        torch.float32 or torch.float64.
    lowpass_cutoff : float or str, optional
        Cutoff in Hz of the first-order lowpass before the bank; None or ``"off"``: no lowpass; ``"preset"`` (default):
        as the preset says.
    phase_insens : bool
        False returns the complex filter outputs without the factor 2 and without attenuation (butterworth: the
        real filter outputs).

    Attributes
    ----------
    mfc : list of F Tensors (M_i,)
        Centre frequencies of the filters of each channel, Hz.
    mfc_all : Tensor (M,)
        Centre frequencies along the dense modulation axis, Hz.
    valid : Tensor (F, M) of bool
        Which filters a channel has.
    Q, max_mfc, att_factor, use_upper_limit, use_lp150_prefilter, preset, filter_type
        As constructed, or as the preset says.

    Raises
    ------
    SpecError
        If an argument is out of range.

    Warns
    -----
    PsysimWarning
        If a filter lies at or above fs/2: it is aliased, as it would be in the published code.

    References
    ----------
    Dau, Pueschel & Kohlrausch (1996), JASA 99, 3615-3622;
    Dau, Kollmeier & Kohlrausch (1997), JASA 102, 2892-2905; Verhey, Dau & Kollmeier (1999), JASA 106, 2733-2745;
    Kohlrausch, Fassel & Dau (2000), JASA 108, 723-734; Jepsen, Ewert & Dau (2008), JASA 124, 422-438;
    Osses Vecchi & Kohlrausch (2021), JASA 149, 3534-3552, Appendix C.

    Examples
    --------
    >>> import torch
    >>> bank = ModulationFilterbank(fs=4000.0, fc=torch.tensor([100.0, 4000.0]))
    >>> [tuple(y.shape) == (1, len(mfc), 400) for y, mfc in zip(bank(torch.zeros(1, 2, 400)), bank.mfc)]
    [True, True]
    """

    fc: Tensor
    valid: Tensor
    mfc_hz: Tensor
    bandwidth_hz: Tensor
    lp_cutoff_hz: Tensor
    lowpass_cutoff_hz: Tensor
    attenuation: Tensor
    gain: Tensor
    _envelope: Tensor

    def __init__(
        self,
        fs: float,
        fc: Tensor | Sequence[float],
        Q: float = 2.0,
        max_mfc: float | None = None,
        lp_cutoff: float = 2.5,
        att_factor: float | None = None,
        use_upper_limit: bool | None = None,
        preset: str | None = None,
        filter_type: str = "efilt",
        learnable: bool = False,
        dtype: torch.dtype | str = torch.float32,
        *,
        lowpass_cutoff: float | str | None = "preset",
        phase_insens: bool = True,
    ) -> None:
        super().__init__(fs, learnable=learnable, dtype=dtype)
        self.preset = "jepsen2008" if preset is None else preset
        check_option("preset", self.preset, PRESETS)
        check_option("filter_type", filter_type, ("efilt", "butterworth"))
        published = PRESETS[self.preset]
        check_range("Q", Q, 0.5, 1e6, low_open=True)
        self.Q = float(Q)
        self._integrator_tau_s = published.integrator_tau_s
        highest = HIGHEST_CENTRE_HZ if self._integrator_tau_s is None else 0.0
        self.max_mfc = highest if max_mfc is None else float(max_mfc)
        check_range("max_mfc", self.max_mfc, 0.0, 1e6, unit="Hz")
        self.use_upper_limit = published.limited if use_upper_limit is None else bool(use_upper_limit)
        self.att_factor = published.att_factor if att_factor is None else float(att_factor)
        check_range("att_factor", self.att_factor, 0.0, 1e6)
        self.filter_type = filter_type
        self.phase_insens = bool(phase_insens)
        self.lowpass_cutoff = _lowpass_option(lowpass_cutoff, published.lowpass_cutoff_hz)
        self._set_channels(fc)
        self._set_filters(float(lp_cutoff), published.gain_correction)

    def _set_channels(self, fc: Tensor | Sequence[float]) -> None:
        centres = torch.as_tensor(fc, dtype=torch.float64).detach().reshape(-1)
        if centres.numel() == 0 or not bool((centres >= 0).all() & centres.isfinite().all()):
            raise SpecError(
                "fc must hold the centre frequency of each auditory channel: finite numbers of Hz, at least 0."
            )
        upper = [min(f / 4.0, self.max_mfc) if self.use_upper_limit else self.max_mfc for f in centres.tolist()]
        lists = [modulation_centres(u, self.Q) for u in upper]
        # The dense axis is the longest list; a channel below 40 Hz can, for Q other than 2, have a filter that is in
        # no other channel: such filters come last, so that every other channel stays a prefix, and its output a view.
        axis = list(lists[int(np.argmax([len(mfc) for mfc in lists]))])
        axis += sorted({f for mfc in lists for f in mfc} - set(axis))
        self._filters = [[axis.index(f) for f in mfc] for mfc in lists]
        valid = torch.zeros(len(lists), len(axis), dtype=torch.bool)
        for channel, index in enumerate(self._filters):
            valid[channel, index] = True
        self.register_buffer("fc", centres.clone(), persistent=False)
        self._constants.append("fc")
        self.register_buffer("valid", valid, persistent=False)
        self.constant("mfc_hz", axis[1:])

    def _set_filters(self, lp_cutoff_hz: float, gain_correction: bool) -> None:
        check_below_nyquist("lp_cutoff", lp_cutoff_hz, self.fs)
        self.constant("lp_cutoff_hz", lp_cutoff_hz)
        if self.lowpass_cutoff is not None:
            check_below_nyquist("lowpass_cutoff", self.lowpass_cutoff, self.fs)
            self.constant("lowpass_cutoff_hz", self.lowpass_cutoff)
        self.constant("attenuation", self.att_factor, learnable=self.learnable and self.phase_insens)
        centres = self.mfc_hz.detach()
        too_high = centres >= self.fs / 2
        if bool(too_high.any()):
            warnings.warn(
                f"Modulation filters from {centres[too_high].min():g} Hz on lie above half the rate of the "
                f"representation ({self.fs:g} Hz) and are aliased: "
                f"raise subfs, or set max_mfc below {self.fs / 2:g} Hz.",
                PsysimWarning,
                stacklevel=2,
            )
        width = torch.where(centres < PHASE_LIMIT_HZ, LOW_BANDWIDTH_HZ, centres / self.Q)
        if self.filter_type == "butterworth":
            check_edges(centres, width, self.fs)
        self.constant("bandwidth_hz", width)
        self.register_buffer("_envelope", centres > PHASE_LIMIT_HZ, persistent=False)
        gain = _lowpass_gain(centres, self.fs) if gain_correction else torch.ones_like(centres)
        self.constant("gain", gain, learnable=False)

    @property
    def use_lp150_prefilter(self) -> bool:
        """Whether a lowpass precedes the bank."""
        return self.lowpass_cutoff is not None

    @property
    def mfc_all(self) -> Tensor:
        """Centre frequencies along the dense modulation axis (M,), Hz, float64; 0 is the lowpass."""
        return torch.cat([self.mfc_hz.new_zeros(1), self.mfc_hz])

    @property
    def mfc(self) -> list[Tensor]:
        """Centre frequencies of the filters of each channel: F tensors (M_i,), Hz, float64."""
        return self._per_channel(self.mfc_all)

    @property
    def num_filters(self) -> list[int]:
        """Number of filters M_i of each channel."""
        return [len(index) for index in self._filters]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Filter ``x`` ((F, T) or (B, F, T)) into a list of F tensors (M_i, T) or (B, M_i, T): views of `dense`."""
        return self.split(self.dense(x))

    def split(self, dense: Tensor) -> list[Tensor]:
        """Return the outputs of each channel, F tensors (B, M_i, T) or (M_i, T), as views of ``dense``.

        (Copies for the rare channel whose filters are not the first M_i of the axis: fc below 40 Hz, Q not 2.)
        """
        channels = dense.unbind(-3)
        out = []
        for channel, index in zip(channels, self._filters, strict=True):
            prefix = index == list(range(len(index)))
            out.append(channel[..., : len(index), :] if prefix else channel[..., index, :])
        return out

    def _per_channel(self, axis: Tensor) -> list[Tensor]:
        return [axis[: len(i)] if i == list(range(len(i))) else axis[i] for i in self._filters]

    def dense(self, x: Tensor) -> Tensor:
        """Filter ``x`` ((F, T) or (B, F, T)) into (F, M, T) or (B, F, M, T); 0 where `valid` (F, M) is False.

        Complex if ``phase_insens`` is off (filter type efilt).
        """
        x = self.enter(x, (2, 3), "(F, T) or (B, F, T)")
        if x.shape[-2] != len(self._filters):
            raise SpecError(f"x has {x.shape[-2]} channels, but fc has {len(self._filters)} entries.")
        y = x.unsqueeze(0) if x.ndim == 2 else x
        if self.lowpass_cutoff is not None:
            y = ops.sosfilt(y, butterworth_lowpass(self.lowpass_cutoff_hz, self.fs))
        lowpass = self._lowpass()
        if self.filter_type == "butterworth":
            sos = butterworth_bandpasses(self.mfc_hz, self.bandwidth_hz, self.fs)
            envelope = self._envelope if self.phase_insens else None
            z = filter_butterworth(y, lowpass, sos, self.valid, envelope, self._scale())
        else:
            z = ops.modulation_bank(
                y,
                lowpass,
                *self._poles(),
                self._envelope,
                self._scale(),
                self.valid,
                phase_insensitive=self.phase_insens,
            )
        return z.squeeze(0) if x.ndim == 2 else z

    def steps(self) -> list[Step] | None:
        """Return the lowpass before the bank and the bank as steps; None for Butterworth filters or complex output."""
        if self.filter_type == "butterworth" or not self.phase_insens:
            return None
        bank = Bank(self._lowpass(), *self._poles(), self._envelope, self._scale(), self.valid)
        if self.lowpass_cutoff is None:
            return [bank]
        return [Sections(butterworth_lowpass(self.lowpass_cutoff_hz, self.fs)), bank]

    def _poles(self) -> tuple[Tensor, Tensor]:
        """Radius and angle of the pole of each bandpass (M - 1,)."""
        return torch.exp(-math.pi / self.fs * self.bandwidth_hz), 2.0 * math.pi / self.fs * self.mfc_hz

    def _lowpass(self) -> Tensor:
        """Return filter 0 as second-order sections (1, 6)."""
        if self._integrator_tau_s is None:
            return butterworth_lowpass(self.lp_cutoff_hz, self.fs, order=2)
        a = math.exp(-1.0 / (self._integrator_tau_s * self.fs))
        return self.lp_cutoff_hz.new_tensor([[1.0 - a, 0.0, 0.0, 1.0, -a, 0.0]])

    def _scale(self) -> Tensor:
        """Factor on each bandpass output (M-1,): 2 (efilt only), attenuation of the envelopes, gain correction."""
        if not self.phase_insens:
            return self.gain
        two = 1.0 if self.filter_type == "butterworth" else 2.0
        return two * self.gain * torch.where(self._envelope, self.attenuation, torch.ones_like(self.gain))


def _lowpass_option(given: float | str | None, preset: float | None) -> float | None:
    if isinstance(given, str):
        check_option("lowpass_cutoff", given, ("preset", "off"))
        return preset if given == "preset" else None
    return None if given is None else float(given)


def _lowpass_gain(centres: Tensor, fs: float) -> Tensor:
    """Gain of the first-order 150-Hz lowpass at ``centres``, interpolated linearly in dB on the published grid."""
    check_below_nyquist("the cutoff of the gain correction", GAIN_CUTOFF_HZ, fs)
    b0, _, _, _, a1, _ = butterworth_lowpass(torch.tensor(GAIN_CUTOFF_HZ, dtype=torch.float64), fs)[0].tolist()
    k = np.arange(GAIN_GRID)
    z = np.exp(-1j * np.pi * k / GAIN_GRID)
    level_db = 20.0 * np.log10(np.abs(b0 * (1.0 + z) / (1.0 + a1 * z)))
    return torch.as_tensor(10.0 ** (np.interp(centres.numpy(), k * fs / 2.0 / GAIN_GRID, level_db) / 20.0))
