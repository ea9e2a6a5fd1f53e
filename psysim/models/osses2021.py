"""The model of Osses Vecchi & Kohlrausch (2021): Dau1997's chain behind both ear filters, with less overshoot.

Known deviations stand in docs/model_cards/osses2021.md; the numbers follow the version published in the Auditory
Modeling Toolbox.
"""

from __future__ import annotations

from typing import Any

import torch

from psysim.errors import check_option
from psysim.models.adaptation_model import (
    DBOFFSET_PASCAL,
    HEADPHONE_KEYS,
    MIDDLEEAR_KEYS,
    AdaptationModel,
    one_name,
)
from psysim.models.base import register
from psysim.stages.base import check_keys

__all__ = ["Osses2021"]


@register("osses2021")
class Osses2021(AdaptationModel):
    """Modulation-filterbank model with outer and middle ear: sound in pascal to model units in every channel.

    Level convention, headphone and middle-ear filters, gammatone filterbank, hair cell (half-wave, five 2-kHz lowpasses
    in series: 771 Hz together), five adaptation loops with overshoot limit 5, optional resampling, modulation
    filterbank.

    The ear filters move sounds forward in time by 257 samples, as published: the response to the first 257 samples of a
    sound is almost lost. Put at least that much silence in front (`stimuli`: ``silence_before_s``), or choose
    ``delay_compensation="exact"`` for both ears.

    Parameters
    ----------
    fs : float
        Sampling rate of the sound, Hz.
    flow, fhigh : float
        Bounds of the auditory centre frequencies, Hz. 80 to 8000 Hz in steps of 1 ERB: 31 channels,
        86.9 ... 7819.2 Hz. For one channel: flow = fhigh = basef.
    phase_type : str
        Middle ear lopezpoveda2001: ``"minimum"`` (published default) or ``"zero"``, the symmetric FIR of the same
        magnitude. The headphone filter and the middle ear jepsen2008 are linear phase in any case.
    learnable : bool
        Make the published constants of every stage trainable (float64 parameters).
    return_stages : bool
        `forward` also returns a dictionary of the intermediate stages, here ``headphone`` and ``middleear`` (B, T),
        ``filterbank``, ``ihc`` and ``adaptation`` (B, F, T).
    dtype : torch.dtype
        torch.float32 or torch.float64; sound is converted to it.
    headphone_kwargs, middleear_kwargs : dict, optional
        Options of `psysim.stages.HeadphoneFilter` and `psysim.stages.MiddleEarFilter`: ``filter_type`` (middle ear:
        ``"lopezpoveda2001"`` or ``"jepsen2008"``), ``order``, ``phase_type``, ``delay_compensation``,
        ``compensate_delay``; middle ear also ``normalize_gain`` or ``normalize``. ``{"enabled": False}``: stage off.
    filterbank_kwargs : dict, optional
        ``n``, ``betamul``, ``bandwidth_factor`` or ``erb_scale``, ``basef``, ``spacing``: see
        `psysim.stages.GammatoneFilterbank`.
    ihc_kwargs : dict, optional
        ``method`` (breebaart2001), ``cutoff``, ``order``, ``minlvl``: see `psysim.stages.IHCEnvelope`.
    adaptation_kwargs : dict, optional
        ``preset`` (osses2021), ``tau``, ``limit`` (5.0), ``minspl`` (0.0 dB), ``minlvl_per_channel``, ``num_loops``:
        see `psysim.stages.AdaptLoop`.
    modulation_kwargs : dict, optional
        ``preset`` (jepsen2008; osses2021_att_gain is the variant of the paper's Appendix C), ``Q``, ``max_mfc``,
        ``lp_cutoff``, ``lowpass_cutoff``, ``att_factor``, ``use_upper_limit``, ``filter_type``, ``phase_insens``: see
        `psysim.stages.ModulationFilterbank`.
    dboffset : float
        Level in dB SPL of an input with an rms of 1; the default means pascal, 100 that 1 is 100 dB SPL.
    subfs : float, optional
        Rate in Hz to which the adapted signals are resampled before the modulation filterbank (the paper: 16000).

    Attributes
    ----------
    fc : Tensor (F,)
        Auditory centre frequencies, Hz.
    num_channels : int
        F.
    headphone, middleear, filterbank, ihc, adaptation, resampler, modulation : Module
        The stages (ears and resampler None where off).

    Raises
    ------
    SpecError
        If an argument is out of range or an option is not known.

    References
    ----------
    Osses Vecchi & Kohlrausch (2021), J. Acoust. Soc. Am. 149, 3534-3552.

    Examples
    --------
    >>> import torch
    >>> model = Osses2021(fs=44100.0, return_stages=True)
    >>> channels, stages = model(torch.zeros(2, 882))
    >>> len(channels), channels[0].shape, channels[-1].shape
    (31, torch.Size([2, 4, 882]), torch.Size([2, 12, 882]))
    >>> list(stages)
    ['headphone', 'middleear', 'filterbank', 'ihc', 'adaptation']
    """

    def __init__(
        self,
        fs: float,
        flow: float = 80.0,
        fhigh: float = 8000.0,
        phase_type: str = "minimum",
        learnable: bool = False,
        return_stages: bool = False,
        dtype: torch.dtype | str = torch.float32,
        headphone_kwargs: dict[str, Any] | None = None,
        middleear_kwargs: dict[str, Any] | None = None,
        filterbank_kwargs: dict[str, Any] | None = None,
        ihc_kwargs: dict[str, Any] | None = None,
        adaptation_kwargs: dict[str, Any] | None = None,
        modulation_kwargs: dict[str, Any] | None = None,
        *,
        dboffset: float = DBOFFSET_PASCAL,
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
        check_option("phase_type", phase_type, ("minimum", "zero"))
        self.phase_type = phase_type
        self.headphone_kwargs = check_keys("headphone_kwargs", headphone_kwargs, (*HEADPHONE_KEYS, "enabled"))
        middleear_keys = (*MIDDLEEAR_KEYS, "normalize", "enabled")
        self.middleear_kwargs = check_keys("middleear_kwargs", middleear_kwargs, middleear_keys)
        headphone = dict(self.headphone_kwargs)
        middleear = one_name("middleear_kwargs", dict(self.middleear_kwargs), "normalize", "normalize_gain")
        if middleear.get("filter_type", "lopezpoveda2001") == "lopezpoveda2001":
            middleear = {"phase_type": phase_type} | middleear
        self._build(
            headphone if headphone.pop("enabled", True) else None,
            middleear if middleear.pop("enabled", True) else None,
            {"method": "breebaart2001"} | self.ihc_kwargs,
            {"preset": "osses2021"} | self.adaptation_kwargs,
        )
