"""From the excitation pattern to loudness: specific loudness, its sum over channels, and smoothing in time."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from psysim import ops
from psysim.errors import PsysimWarning, SpecError, check_option, check_range
from psysim.stages.base import AuditoryModule, per_row
from psysim.stages.haircell import loss_per_channel
from psysim.stages.loudness_channels import LoudnessChannels, channel_numbers
from psysim.stages.loudness_spectrum import HOP, RULES, check_loudness_rate
from psysim.stages.loudness_tables import (
    DB_AT_THRESHOLD,
    FS,
    HIGH_LEVEL_RULES,
    a_of_gain,
    alpha_of_gain,
    impaired_constants,
    specific_loudness,
    threshold_excitation_db,
)
from psysim.units import P_REF

__all__ = ["PRESENTATIONS", "LoudnessIntegration", "SpecificLoudness"]

C_SONE = 0.046871
PRESENTATIONS = {"diotic": 2.0, "monotic": 1.0}
"""Number of ears that hear the sound; the loudness of two equal ears is twice that of one in this model."""
SHARES = {"stl_attack": 0.045, "stl_release": 0.02, "ltl_attack": 0.01, "ltl_release": 0.0005}
"""Shares of the way to the input per millisecond (Glasberg & Moore 2002)."""

Loss = float | Sequence[float] | Tensor | None


class SpecificLoudness(LoudnessChannels):
    """Excitation level to specific loudness of one ear, in sone per Cam (ERB number), with or without hearing loss.

    With E the excitation, T the excitation at threshold and B = (G E + A)^alpha - A^alpha: C (2E/(E + T))^1.5 B below
    threshold, C B above, and a plain power law above 100 dB. Silence gives exactly 0.

    Parameters
    ----------
    fs : int
        32000 Hz.
    f_min, f_max, erb_step, n_bands : float
        Channels, as for `ERBIntegration`.
    learnable : bool
        Make C, the threshold (with which the gain G goes), A and alpha trainable; with a hearing loss, from which A and
        alpha follow, the losses that are given in their place.
    C : float
        Sone per Cam.
    alpha : float
        Exponent where the gain is 0 dB (500 Hz and above); those of lower channels are scaled with it. Not together
        with a hearing loss.
    E0 : float, optional
        Another package's threshold level. The published model has none: a warning is given, nothing changes.
    high_level : str
        Above 100 dB: ``"1997"``, C (E/1.04e6)^0.5, or ``"2007"``, C (E/1.0707)^0.2 (ANSI S3.4-2007).
    ohc_loss_db, ihc_loss_db : float or sequence, optional
        Loss of outer and of inner hair cells in dB, one for all channels or (F,); 0 is no loss, but the derived tables
        of A and alpha in place of the published ones. Outer: less gain, so a raised threshold
        and recruitment; what exceeds the gain that there is (57.6 dB, less below 500 Hz) counts as inner. Inner: the
        excitation is attenuated. `psysim.hearing.loudness_losses` makes both from an audiogram.
    dead_regions_hz : sequence of (low, high), optional
        Channels with centre frequencies in these ranges contribute nothing.
    dtype : torch.dtype
        torch.float32 or torch.float64.
    tables : str
        ``"glasberg2002"`` or ``"ansi_s34_2007"``: threshold and alpha interpolated linearly, finer table of A.
    rule : str
        ``"published"`` or ``"amt"`` (excitation in Pa^2, without the reference pressure; for comparison only).

    Attributes
    ----------
    fc_erb : Tensor (F,)
        Centre frequencies, Hz.
    threshold_db : Tensor (F,)
        Excitation level at threshold of normal hearing, dB.
    alive : Tensor (F,) of bool
        Which channels lie in no dead region.

    Raises
    ------
    SpecError
        If an argument is out of range.

    References
    ----------
    Moore, Glasberg & Baer (1997), J. Audio Eng. Soc. 45, 224-240, equations 5 to 10; ANSI S3.4-2007; hearing loss after
    Moore & Glasberg (1997), Aud. Neurosci. 3, 289-311, and (2004), Hear. Res. 188, 70-88.

    Examples
    --------
    >>> import torch
    >>> levels = torch.full((1, 1, 150), 40.0)
    >>> [round(model(levels)[0, 0, 75].item(), 3) for model in (SpecificLoudness(), SpecificLoudness(ohc_loss_db=30.0))]
    [0.232, 0.019]
    """

    fc_erb: Tensor
    C: Tensor
    threshold_db: Tensor
    a: Tensor
    alpha: Tensor
    ohc_loss_db: Tensor
    ihc_loss_db: Tensor
    alive: Tensor

    def __init__(
        self,
        fs: int = 32000,
        f_min: float = 50.0,
        f_max: float = 15000.0,
        erb_step: float = 0.25,
        learnable: bool = False,
        *,
        n_bands: int | None = None,
        C: float = C_SONE,
        alpha: float = 0.2,
        E0: float | None = None,
        high_level: str = "1997",
        ohc_loss_db: Loss = None,
        ihc_loss_db: Loss = None,
        dead_regions_hz: Sequence[Sequence[float]] | None = None,
        dtype: torch.dtype | str = torch.float32,
        tables: str = "glasberg2002",
        rule: str = "published",
    ) -> None:
        super().__init__(fs, f_min, f_max, erb_step, learnable, n_bands, dtype, rule)
        check_option("tables", tables, ("glasberg2002", "ansi_s34_2007"))
        check_range("C", C, 0.0, low_open=True)
        check_range("alpha", alpha, 0.0, 1.0, low_open=True)
        check_option("high_level", high_level, HIGH_LEVEL_RULES)
        if E0 is not None:
            warnings.warn(
                "E0 is ignored: the published model has no threshold level of its own; excitation at threshold follows "
                "frequency (threshold_db).",
                PsysimWarning,
                stacklevel=2,
            )
        self.high_level = high_level
        self.tables = tables
        threshold = threshold_excitation_db(self.frequency_hz, tables)
        gain = DB_AT_THRESHOLD[tables] - threshold
        self.constant("C", float(C))
        self.constant("threshold_db", threshold)
        self.impaired = ohc_loss_db is not None or ihc_loss_db is not None
        if self.impaired and alpha != 0.2:
            raise SpecError(f"alpha = {alpha:g} cannot be set together with a hearing loss, from which alpha follows.")
        published = self.learnable and not self.impaired
        self.constant("a", a_of_gain(gain, tables), learnable=published)
        exponents = alpha_of_gain(gain, "pchip" if tables == "glasberg2002" else "linear")
        self.constant("alpha", exponents * (alpha / 0.2), learnable=published)
        for name, given in (("ohc_loss_db", ohc_loss_db), ("ihc_loss_db", ihc_loss_db)):
            loss = loss_per_channel(name, 0.0 if given is None else given, self.n_erb_bands)
            self.constant(name, loss, learnable=self.learnable and given is not None)
        self.table("alive", alive_channels(self.frequency_hz, dead_regions_hz), torch.bool)

    def channel_constants(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return excitation at threshold, gain (power ratios), A, alpha and the attenuation of the excitation, (F,)."""
        gain_db = DB_AT_THRESHOLD[self.tables] - self.threshold_db
        threshold_db, a, alpha, lost = self.threshold_db, self.a, self.alpha, torch.zeros_like(gain_db)
        if self.impaired:
            # All channels from the derived tables, so that loudness is continuous in the loss. They agree with the
            # published ones from 500 Hz up; at 250 Hz loudness differs by up to 0.13 %.
            lost, a, alpha = impaired_constants(gain_db, self.ohc_loss_db)
            threshold_db = threshold_db + lost
        attenuation_db = self.ihc_loss_db + (self.ohc_loss_db - lost)
        threshold, gain = 10.0 ** (threshold_db / 10.0), 10.0 ** ((gain_db - lost) / 10.0)
        return threshold, gain, a, alpha, 10.0 ** (-attenuation_db / 10.0)

    def forward(self, excitation_db: Tensor) -> Tensor:
        """Return specific loudness, sone/Cam, for excitation levels (B, frames, F) or (..., F) in dB; same shape."""
        x = self.enter(excitation_db, (1, 2, 3, 4), "(..., F)", "excitation_db")
        if x.shape[-1] != self.n_erb_bands:
            raise SpecError(f"excitation_db has shape {tuple(x.shape)}, but there are {self.n_erb_bands} channels.")
        # Row by row: where the threads share a batch out, the last bits of powers depend on the place in it.
        return per_row(self._of_level, x) if x.ndim > 2 else self._of_level(x)

    def _of_level(self, x: Tensor) -> Tensor:
        # Below -300 dB there is nothing: so that the gradient of 10^(-inf/10) is 0 and not NaN.
        ratio = torch.where(x < -300.0, torch.zeros_like(x), 10.0 ** (x.clamp(min=-300.0) / 10.0))
        return self.of_excitation(ratio * (P_REF**2 if self.rule == "amt" else 1.0))

    def of_excitation(self, excitation: Tensor) -> Tensor:
        """Return specific loudness for excitations (..., F) as power ratios."""
        threshold, gain, a, alpha, attenuation = self.channel_constants()
        excitation = excitation * attenuation.to(excitation.dtype) if self.impaired else excitation
        loudness = specific_loudness(excitation, threshold, gain, a, alpha, self.C, self.high_level)
        return loudness if bool(self.alive.all()) else loudness * self.alive.to(loudness.dtype)


def alive_channels(fc: np.ndarray[tuple[int], np.dtype[np.float64]], regions: object) -> Tensor:
    """Return which channels (F,) lie in no dead region."""
    alive = torch.ones(len(fc), dtype=torch.bool)
    try:
        bounds = [(float(low), float(high)) for low, high in (regions or ())]  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        bounds = [(1.0, 0.0)]
    for low, high in bounds:
        if not 0.0 <= low < high < math.inf:
            raise SpecError(
                f"dead_regions_hz must be pairs (low, high) in Hz with 0 <= low < high, but is {regions!r}."
            )
        alive &= torch.from_numpy(~((fc >= low) & (fc <= high)))
    return alive


class LoudnessIntegration(AuditoryModule):
    """Specific loudness of one ear to the loudness of the sound: sum over channels and ears, then smoothing in time.

    Short-term loudness follows the instantaneous loudness, long-term loudness the short-term loudness; both rise faster
    than they fall and begin at 0. Calls are independent.

    Parameters
    ----------
    fs : int
        32000 Hz.
    learnable : bool
        Make the four shares trainable.
    tau_attack, tau_release : float, optional
        Time constants of the long-term loudness, s; published 0.0995 and 1.9995 (shares 0.01 and 0.0005 per ms).
    stl_tau_attack, stl_tau_release : float, optional
        Time constants of the short-term loudness, s; published 0.0217 and 0.0495 (shares 0.045 and 0.02 per ms).
    hop_length : int
        Distance of frames in samples; shares of other distances than 1 ms follow from those per millisecond.
    erb_step : float, optional
        Distance of channels in Cam; default that of 150 channels from 50 to 15000 Hz, 0.2491.
    presentation : str
        ``"diotic"`` (both ears hear the sound, twice the loudness of one) or ``"monotic"``.
    dtype : torch.dtype
        torch.float32 or torch.float64.
    rule : str
        ``"published"`` or ``"amt"`` (loudness stays 0 in frame 0).

    Attributes
    ----------
    stl_attack, stl_release, ltl_attack, ltl_release : Tensor (1,)
        Shares of the way to the input, per millisecond.

    Raises
    ------
    SpecError
        If an argument is out of range.

    References
    ----------
    Glasberg & Moore (2002), J. Audio Eng. Soc. 50, 331-342.

    Examples
    --------
    >>> import torch
    >>> integration = LoudnessIntegration(dtype=torch.float64)
    >>> ltl, stl = integration(torch.full((1, 100, 150), 0.1), return_stl=True)
    >>> ltl.shape, round(stl[0, -1].item(), 3)  # 2 ears, 150 channels, 0.249 Cam: 7.473 sone in the end
    (torch.Size([1, 100]), 7.398)
    """

    stl_attack: Tensor
    stl_release: Tensor
    ltl_attack: Tensor
    ltl_release: Tensor

    def __init__(
        self,
        fs: int = 32000,
        learnable: bool = False,
        *,
        tau_attack: float | None = None,
        tau_release: float | None = None,
        stl_tau_attack: float | None = None,
        stl_tau_release: float | None = None,
        hop_length: int = HOP,
        erb_step: float | None = None,
        presentation: str = "diotic",
        dtype: torch.dtype | str = torch.float32,
        rule: str = "published",
    ) -> None:
        super().__init__(fs, learnable=learnable, dtype=dtype)
        check_loudness_rate(self.fs)
        check_option("presentation", presentation, PRESENTATIONS)
        check_option("rule", rule, RULES)
        check_range("hop_length", hop_length, 1, 32000, unit="samples")
        self.presentation, self.rule, self.hop_length = presentation, rule, int(hop_length)
        if erb_step is None:
            numbers = channel_numbers(50.0, 15000.0, 0.25, None, "published")
            erb_step = float(numbers[1] - numbers[0])
        check_range("erb_step", erb_step, 0.0, 4.0, unit="Cam", low_open=True)
        self.erb_step = float(erb_step)
        given = dict(zip(SHARES, (stl_tau_attack, stl_tau_release, tau_attack, tau_release), strict=True))
        for name, share in SHARES.items():
            self.constant(name, [_share(name, given[name], share)])

    def forward(self, specific: Tensor, return_stl: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Integrate specific loudness (B, frames, F) of one ear, sone/Cam.

        Returns
        -------
        Tensor (B, frames)
            Long-term loudness, sone.
        Tensor (B, frames)
            Only with ``return_stl``: short-term loudness, sone.
        """
        x = self.enter(specific, (3,), "(B, frames, F)", "specific")
        stl, ltl = self.smooth(self.instantaneous(x))
        return (ltl, stl) if return_stl else ltl

    def instantaneous(self, specific: Tensor) -> Tensor:
        """Return the instantaneous loudness (B, frames), sone: the sum over channels and ears."""
        factor = self.erb_step * PRESENTATIONS[self.presentation]
        return factor * per_row(lambda row: row.sum(-1), specific)

    def smooth(self, instantaneous: Tensor) -> tuple[Tensor, Tensor]:
        """Return short-term and long-term loudness (B, frames) for the instantaneous loudness (B, frames)."""
        y = instantaneous[:, None, :]
        if self.rule == "amt":
            y = torch.cat([torch.zeros_like(y[..., :1]), y[..., 1:]], dim=-1)
        stl = ops.smooth(y, self._per_hop(self.stl_attack), self._per_hop(self.stl_release))
        ltl = ops.smooth(stl, self._per_hop(self.ltl_attack), self._per_hop(self.ltl_release))
        return stl[:, 0], ltl[:, 0]

    def _per_hop(self, share: Tensor) -> Tensor:
        if self.hop_length == HOP:
            return share
        return 1.0 - (1.0 - share) ** (self.hop_length / HOP)

    def reset_state(self) -> None:
        """Do nothing: no state is kept from one call to the next."""


def _share(name: str, tau_s: float | None, default: float) -> float:
    if tau_s is None:
        return default
    tau_name = ("stl_tau_" if name.startswith("stl") else "tau_") + name.split("_")[1]
    check_range(tau_name, tau_s, 0.0, 1e6, unit="s", low_open=True)
    return -math.expm1(-HOP / FS / tau_s)
