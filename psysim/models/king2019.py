"""The modulation-filterbank model of King, Varnet & Lorenzi (2019), made for frequency and amplitude modulation.

Known deviations stand in docs/model_cards/king2019.md; the numbers follow the version published in the Auditory
Modeling Toolbox.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from psysim.errors import SpecError, check_option, check_range
from psysim.models.adaptation_model import DBOFFSET_PASCAL, FILTERBANK_KEYS, IHC_KEYS, one_name
from psysim.models.base import Model, Representation, register
from psysim.stages import (
    BrokenStickCompression,
    ButterworthFilter,
    FFTResampler,
    GammatoneFilterbank,
    IHCEnvelope,
    King2019ModulationFilterbank,
    PowerCompression,
)
from psysim.stages.base import check_keys, check_sample_rate
from psysim.stages.resampling import resampled_length
from psysim.units import erb_number, erb_number_to_hz

__all__ = ["King2019"]

COMPRESSIONS: dict[str, type[PowerCompression] | None] = {
    "brokenstick": BrokenStickCompression,
    "power": PowerCompression,
    "none": None,
}
FLOW_HZ, FHIGH_HZ = 80.0, 8000.0


@register("king2019")
class King2019(Model):
    """Modulation-filterbank model with compression: sound in pascal to every auditory and modulation channel.

    Gammatone filterbank, instantaneous compression (broken stick), hair cell (half-wave, 1-kHz lowpass), adaptation
    (highpass of 3 Hz), modulation filterbank (Butterworth bandpasses), optional resampling.

    Parameters
    ----------
    fs : float
        Sampling rate of the sound, Hz.
    flow, fhigh : float
        Bounds of the auditory centre frequencies, Hz. 80 to 8000 Hz in steps of 1 ERB: 31 channels,
        86.9 ... 7819.2 Hz.
    basef : float, optional
        Centre of the analysis, Hz. With the default bounds: five channels, 1 ERB apart, around ``basef``. With other
        bounds: the channels between them of which one is at ``basef`` (for the bounds 80 and 8000 Hz themselves:
        ``filterbank_kwargs={"basef": ...}``).
    compression_type : str
        ``"brokenstick"``, ``"power"`` or ``"none"``.
    compression_n : float or sequence
        Exponent above the knee, one for all channels or (F,); above 0, at most 1.
    compression_knee_db : float
        Knee, dB SPL.
    dboffset : float
        Level in dB SPL of an rms of 1 in the unit of all outputs; the input is pascal whatever it is. 93.979: outputs
        in pascal.
    adt_hp_fc : float
        Cutoff of the adaptation, a Butterworth highpass, Hz.
    adt_hp_order : int
        Order of the adaptation.
    mflow, mfhigh : float
        Lowest modulation centre frequency and upper limit of the others, Hz.
    modbank_nmod : int, optional
        Number of modulation filters, from ``mflow`` to ``mfhigh`` inclusive; default: as Q spaces them (5).
    modbank_qfactor : float
        Quality factor of the modulation filters.
    lp_150hz : bool
        First-order lowpass of 150 Hz before the modulation filterbank.
    subfs : float, optional
        Rate in Hz to which the output is resampled (published default: 16000).
    learnable : bool
        Make the published constants of every stage trainable (float64 parameters).
    return_stages : bool
        `forward` also returns a dictionary of the intermediate stages.
    dtype : torch.dtype
        torch.float32 or torch.float64; sound is converted to it.
    filterbank_kwargs : dict, optional
        ``n`` (order, 4), ``betamul``, ``bandwidth_factor`` or ``erb_scale``, ``basef``, ``spacing``: see
        `psysim.stages.GammatoneFilterbank`.
    compression_kwargs : dict, optional
        ``knee_db``, ``exponent``, ``num_channels``: see `psysim.stages.BrokenStickCompression`. Here and below a key
        wins over the argument of the same meaning.
    ihc_kwargs : dict, optional
        ``method`` (king2019), ``cutoff``, ``order``, ``minlvl``: see `psysim.stages.IHCEnvelope`.
    adaptation_kwargs : dict, optional
        ``cutoff``, ``order``: see `psysim.stages.ButterworthFilter`.
    modulation_kwargs : dict, optional
        ``mflow``, ``mfhigh``, ``qfactor``, ``nmod``, ``lowpass_cutoff``, ``phase_insens`` (False: no envelope above
        10 Hz): see `psysim.stages.King2019ModulationFilterbank`.

    Attributes
    ----------
    fc : Tensor (F,)
        Auditory centre frequencies, Hz.
    num_channels : int
        F.
    filterbank, compression, ihc, adaptation, modulation, resampler : Module
        The stages (compression and resampler None where off).

    Raises
    ------
    SpecError
        If an argument is out of range or an option is not known.

    References
    ----------
    King, Varnet & Lorenzi (2019), J. Acoust. Soc. Am. 145, 2277-2293.

    Examples
    --------
    >>> import torch
    >>> model = King2019(fs=44100.0, basef=1000.0, return_stages=True)
    >>> [round(f, 1) for f in model.fc.tolist()]
    [761.4, 874.3, 1000.0, 1140.1, 1296.1]
    >>> output, stages = model(torch.zeros(2, 882))
    >>> output.shape  # time, auditory channels, modulation filters
    torch.Size([2, 882, 5, 5])
    >>> list(stages)
    ['gtone_response', 'compressed_response', 'ihc', 'adapted_response']
    """

    def __init__(
        self,
        fs: float,
        flow: float = FLOW_HZ,
        fhigh: float = FHIGH_HZ,
        basef: float | None = None,
        compression_type: str = "brokenstick",
        compression_n: float | Sequence[float] = 0.3,
        compression_knee_db: float = 30.0,
        dboffset: float = 100.0,
        adt_hp_fc: float = 3.0,
        adt_hp_order: int = 1,
        mflow: float = 2.0,
        mfhigh: float = 150.0,
        modbank_nmod: int | None = None,
        modbank_qfactor: float = 1.0,
        lp_150hz: bool = False,
        subfs: float | None = None,
        learnable: bool = False,
        return_stages: bool = False,
        dtype: torch.dtype | str = torch.float32,
        filterbank_kwargs: dict[str, Any] | None = None,
        compression_kwargs: dict[str, Any] | None = None,
        ihc_kwargs: dict[str, Any] | None = None,
        adaptation_kwargs: dict[str, Any] | None = None,
        modulation_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(fs, learnable=learnable, dtype=dtype)
        check_option("compression_type", compression_type, COMPRESSIONS)
        check_range("dboffset", dboffset, -300.0, 300.0, unit="dB SPL")
        self.flow, self.fhigh = float(flow), float(fhigh)
        self.basef = None if basef is None else float(basef)
        self.compression_type = compression_type
        self.compression_n, self.compression_knee_db = compression_n, compression_knee_db
        self.dboffset = float(dboffset)
        self.adt_hp_fc, self.adt_hp_order = adt_hp_fc, adt_hp_order
        self.mflow, self.mfhigh = mflow, mfhigh
        self.modbank_nmod, self.modbank_qfactor = modbank_nmod, modbank_qfactor
        self.lp_150hz = bool(lp_150hz)
        self.subfs = None if subfs is None else check_sample_rate(subfs)
        self.return_stages = bool(return_stages)
        self.filterbank_kwargs = check_keys("filterbank_kwargs", filterbank_kwargs, FILTERBANK_KEYS)
        self.compression_kwargs = check_keys(
            "compression_kwargs", compression_kwargs, ("knee_db", "exponent", "num_channels")
        )
        self.ihc_kwargs = check_keys("ihc_kwargs", ihc_kwargs, IHC_KEYS)
        self.adaptation_kwargs = check_keys("adaptation_kwargs", adaptation_kwargs, ("cutoff", "order"))
        self.modulation_kwargs = check_keys(
            "modulation_kwargs",
            modulation_kwargs,
            ("mflow", "mfhigh", "qfactor", "nmod", "lowpass_cutoff", "phase_insens"),
        )
        self._build()

    def _build(self) -> None:
        common: dict[str, Any] = {"learnable": self.learnable, "dtype": self.dtype}
        bounds, channels = self._channels()
        self.filterbank = GammatoneFilterbank(bounds, self.fs, **channels, **common)
        self.compression: PowerCompression | None = None
        kind = COMPRESSIONS[self.compression_type]
        if kind is not None:
            options = {"knee_db": self.compression_knee_db, "exponent": self.compression_n} | self.compression_kwargs
            self.compression = kind(**options, dboffset=self.dboffset, channel_dim=-2, **common)
            count = self.compression.exponent.numel()
            if count not in (1, self.num_channels):
                raise SpecError(f"compression_n has {count} exponents, but there are {self.num_channels} channels.")
        self.ihc = IHCEnvelope(self.fs, **({"method": "king2019"} | self.ihc_kwargs), **common)
        adaptation = {"order": self.adt_hp_order, "cutoff": self.adt_hp_fc} | self.adaptation_kwargs
        self.adaptation = ButterworthFilter(fs=self.fs, btype="high", **adaptation, **common)
        modulation: dict[str, Any] = {"mflow": self.mflow, "mfhigh": self.mfhigh, "qfactor": self.modbank_qfactor}
        modulation |= {"nmod": self.modbank_nmod, "lowpass_cutoff": 150.0 if self.lp_150hz else None}
        self.modulation = King2019ModulationFilterbank(self.fs, **(modulation | self.modulation_kwargs), **common)
        resample = self.subfs is not None and self.subfs != self.fs
        self.resampler = FFTResampler(self.fs, self.subfs or self.fs, dtype=self.dtype) if resample else None

    def _channels(self) -> tuple[tuple[float, float], dict[str, Any]]:
        """Return the bounds of the centre frequencies in Hz, and the other options of the filterbank."""
        options = one_name("filterbank_kwargs", self.filterbank_kwargs, "erb_scale", "bandwidth_factor")
        if self.basef is None:
            return (self.flow, self.fhigh), options
        if "basef" in options:
            raise SpecError("basef is given twice, as an argument and in filterbank_kwargs: give one.")
        options = options | {"basef": self.basef}
        if (self.flow, self.fhigh) != (FLOW_HZ, FHIGH_HZ):
            return (self.flow, self.fhigh), options
        check_range("basef", self.basef, 0.0, self.fs / 2, unit="Hz", low_open=True)
        base = erb_number(self.basef)
        low, high = math.floor(erb_number_to_hz(base - 2.0)), math.ceil(erb_number_to_hz(base + 2.0))
        return (max(0.0, float(low)), float(high)), options

    @property
    def fs_out(self) -> float:
        """Rate of the representation, Hz."""
        return self.fs if self.subfs is None else self.subfs

    @property
    def fc(self) -> Tensor:
        """Auditory centre frequencies (F,), Hz, float64."""
        return self.filterbank.fc

    @property
    def mfc(self) -> Tensor:
        """Modulation centre frequencies (M,), Hz, float64."""
        return self.modulation.mfc

    @property
    def num_channels(self) -> int:
        """Number of auditory channels F."""
        return self.filterbank.num_channels

    @property
    def input_gain(self) -> float:
        """Factor at the door: from pascal to the unit in which an rms of 1 has the level ``dboffset``."""
        return 10.0 ** ((DBOFFSET_PASCAL - self.dboffset) / 20.0)

    def forward(self, audio: Tensor) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Return the outputs of the modulation filterbank.

        Parameters
        ----------
        audio : Tensor (T,) or (B, T)
            Sound in pascal. A sample that is not finite makes its own row NaN.

        Returns
        -------
        Tensor (B, T', F, M), or (T', F, M) for audio (T,)
            In the unit of ``dboffset``: a view of the dense representation, which `represent` returns. T' = T unless
            ``subfs`` is set.
        dict of str to Tensor
            Only with ``return_stages``: ``gtone_response``, ``compressed_response``, ``ihc`` and ``adapted_response``,
            each (B, F, T), or (F, T).

        Raises
        ------
        SpecError
            If ``audio`` is no floating tensor of one or two dimensions with at least one sample.
        """
        batch = self.enter(audio, (1, 2), "(T,) or (B, T)", "audio")
        single = batch.ndim == 1
        stages: dict[str, Tensor] = {}
        dense = self._analyse(batch.unsqueeze(0) if single else batch, stages)
        output = dense.permute(0, 3, 1, 2)
        output = output.squeeze(0) if single else output
        if not self.return_stages:
            return output
        return output, {name: y.squeeze(0) if single else y for name, y in stages.items()}

    def represent(self, audio: Tensor) -> Representation:
        """Return the dense internal representation of ``audio`` (B, T) in pascal; (T,) counts as one row."""
        batch = self.enter(audio, (1, 2), "(T,) or (B, T)", "audio")
        values = self._analyse(batch.unsqueeze(0) if batch.ndim == 1 else batch, None)
        valid = torch.ones(values.shape[1:3], dtype=torch.bool, device=self.device)
        return Representation(values, valid, self.fc, self.mfc, self.fs_out)

    def _analyse(self, x: Tensor, stages: dict[str, Tensor] | None) -> Tensor:
        """Return the dense output (B, F, M, T') for ``x`` (B, T); put the other outputs into ``stages``."""
        y = x * self.input_gain
        chain = (
            ("gtone_response", self.filterbank),
            ("compressed_response", self.compression),
            ("ihc", self.ihc),
            ("adapted_response", self.adaptation),
        )
        for name, stage in chain:
            y = y if stage is None else stage(y)
            if stages is not None:
                stages[name] = y
        filtered = self.modulation.each(y)
        return torch.stack([z if self.resampler is None else self.resampler(z) for z in filtered], dim=2)

    def bytes_per_interval(self, n_samples: int) -> int:
        """Return an estimate of the memory in bytes that `represent` needs at its peak per row of ``n_samples``."""
        n_out = resampled_length(n_samples, self.fs, self.fs_out)
        # The dense output and its parts, and four signals at the full rate alive at once.
        samples = self.num_channels * (2 * self.modulation.num_filters * n_out + 4 * n_samples)
        return samples * (8 if self.dtype == torch.float64 else 4)

    def restricted(self, frequency_hz: float) -> Self:
        """Return the same model with the one auditory channel at ``frequency_hz``, on the same device."""
        if self.compression is not None and self.compression.exponent.numel() > 1:
            raise SpecError("A model with one compression exponent per channel cannot be restricted to one channel.")
        arguments = self.parameters_dict()
        arguments |= {"flow": frequency_hz, "fhigh": frequency_hz, "basef": frequency_hz}
        arguments["filterbank_kwargs"].pop("basef", None)
        return type(self)(**arguments).to(self.device)
