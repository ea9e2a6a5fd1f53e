"""The modulation-filterbank model of Dau, Kollmeier & Kohlrausch (1997).

Known deviations from the papers stand in docs/model_cards/dau1997.md; the numbers follow the version published in the
Auditory Modeling Toolbox, whose default modulation filterbank is the one of Jepsen et al. (2008).
"""

from __future__ import annotations

from typing import Any

import torch

from psysim.models.adaptation_model import DBOFFSET_PASCAL, HEADPHONE_KEYS, MIDDLEEAR_KEYS, AdaptationModel
from psysim.models.base import register
from psysim.stages.base import check_keys

__all__ = ["Dau1997"]


def _ear_options(name: str, given: dict[str, Any] | None, keys: tuple[str, ...]) -> dict[str, Any] | None:
    """Return the options of an ear stage, or None if the stage is off."""
    if given is None:
        return None
    return check_keys(name, given, keys)


@register("dau1997")
class Dau1997(AdaptationModel):
    """Modulation-filterbank model: sound in pascal to model units in every auditory and modulation channel.

    Level convention, optional headphone and middle-ear filters, gammatone filterbank, hair cell (half-wave, 1-kHz
    lowpass), five adaptation loops, optional resampling, modulation filterbank.

    Parameters
    ----------
    fs : float
        Sampling rate of the sound, Hz.
    flow, fhigh : float
        Bounds of the auditory centre frequencies, Hz. 80 to 8000 Hz in steps of 1 ERB: 31 channels,
        86.9 ... 7819.2 Hz. For one channel: flow = fhigh = basef.
    learnable : bool
        Make the published constants of every stage trainable (float64 parameters).
    return_stages : bool
        `forward` also returns a dictionary of the intermediate stages.
    dtype : torch.dtype
        torch.float32 or torch.float64; sound is converted to it.
    filterbank_kwargs : dict, optional
        ``n`` (order, 4), ``betamul`` (None: exact), ``bandwidth_factor`` or ``erb_scale`` (factor on beta, 1.0),
        ``basef`` (Hz; None), ``spacing`` (ERB numbers, 1.0). ``{"basef": 1000.0}`` gives the published default bank.
    ihc_kwargs : dict, optional
        ``method``, ``cutoff``, ``order``, ``minlvl``: see `psysim.stages.IHCEnvelope`.
    adaptation_kwargs : dict, optional
        ``preset``, ``tau``, ``limit`` (10.0), ``minspl`` (0.0 dB), ``minlvl_per_channel``, ``num_loops``:
        see `psysim.stages.AdaptLoop`.
    modulation_kwargs : dict, optional
        ``preset`` (jepsen2008; dau1997 is the bank of the papers), ``Q``, ``max_mfc``, ``lp_cutoff``,
        ``lowpass_cutoff``, ``att_factor``, ``use_upper_limit``, ``filter_type``, ``phase_insens``: see
        `psysim.stages.ModulationFilterbank`.
    dboffset : float
        Level in dB SPL of an input with an rms of 1; the default means pascal, 100 that 1 is 100 dB SPL.
    headphone_kwargs, middleear_kwargs : dict, optional
        None: stage off. A dictionary, also an empty one: stage on, with options of `psysim.stages.HeadphoneFilter` and
        `psysim.stages.MiddleEarFilter`.
    subfs : float, optional
        Rate in Hz to which the adapted signals are resampled before the modulation filterbank.

    Attributes
    ----------
    fc : Tensor (F,)
        Auditory centre frequencies, Hz.
    num_channels : int
        F.
    filterbank, ihc, adaptation, modulation, headphone, middleear, resampler : Module
        The stages (the last three None where off).

    Raises
    ------
    SpecError
        If an argument is out of range or an option is not known.

    References
    ----------
    Dau, Kollmeier & Kohlrausch (1997a), J. Acoust. Soc. Am. 102, 2892-2905; (1997b) 102, 2906-2919.

    Examples
    --------
    >>> import torch
    >>> model = Dau1997(fs=44100.0, return_stages=True)
    >>> audio = torch.zeros(2, 441)
    >>> channels, stages = model(audio)
    >>> len(channels) == model.num_channels == len(model.fc)
    True
    >>> all(y.shape == (2, len(mfc), 441) for y, mfc in zip(channels, model.modulation.mfc))
    True
    >>> {name: tuple(y.shape) for name, y in stages.items()} == dict.fromkeys(
    ...     ("filterbank", "ihc", "adaptation"), (2, model.num_channels, 441))
    True
    """

    def __init__(
        self,
        fs: float,
        flow: float = 80.0,
        fhigh: float = 8000.0,
        learnable: bool = False,
        return_stages: bool = False,
        dtype: torch.dtype | str = torch.float32,
        filterbank_kwargs: dict[str, Any] | None = None,
        ihc_kwargs: dict[str, Any] | None = None,
        adaptation_kwargs: dict[str, Any] | None = None,
        modulation_kwargs: dict[str, Any] | None = None,
        dboffset: float = DBOFFSET_PASCAL,
        *,
        headphone_kwargs: dict[str, Any] | None = None,
        middleear_kwargs: dict[str, Any] | None = None,
        subfs: float | None = None,
    ) -> None:
        super().__init__(
            fs,
            flow,
            fhigh,
            learnable,
            return_stages,
            dtype,
            filterbank_kwargs,
            ihc_kwargs,
            adaptation_kwargs,
            modulation_kwargs,
            dboffset,
            subfs,
        )
        self.headphone_kwargs = _ear_options("headphone_kwargs", headphone_kwargs, HEADPHONE_KEYS)
        self.middleear_kwargs = _ear_options("middleear_kwargs", middleear_kwargs, MIDDLEEAR_KEYS)
        self._build(self.headphone_kwargs, self.middleear_kwargs, self.ihc_kwargs, self.adaptation_kwargs)
