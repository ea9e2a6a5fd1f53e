"""What Dau1997 and Osses2021 share: gammatone filterbank, hair cell, adaptation loops, modulation filterbank."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from psysim.errors import SpecError, check_range
from psysim.models.base import Model, Representation
from psysim.ops.steps import Step
from psysim.stages import (
    AdaptLoop,
    AuditoryModule,
    FFTResampler,
    GammatoneFilterbank,
    HeadphoneFilter,
    IHCEnvelope,
    MiddleEarFilter,
    ModulationFilterbank,
)
from psysim.stages.base import check_keys, check_sample_rate
from psysim.stages.resampling import resampled_length

__all__ = [
    "ADAPTATION_KEYS",
    "DBOFFSET_PASCAL",
    "FILTERBANK_KEYS",
    "HEADPHONE_KEYS",
    "IHC_KEYS",
    "MIDDLEEAR_KEYS",
    "MODULATION_KEYS",
    "AdaptationModel",
    "one_name",
]

DBOFFSET_PASCAL = 93.97940008672037
"""Level in dB SPL of an rms of 1 Pa: 20 log10(1 / 20e-6)."""

FILTERBANK_KEYS = ("n", "betamul", "erb_scale", "bandwidth_factor", "basef", "spacing")
IHC_KEYS = ("method", "cutoff", "order", "minlvl")
ADAPTATION_KEYS = ("preset", "tau", "limit", "minspl", "minlvl_per_channel", "num_loops")
MODULATION_KEYS = (
    "preset",
    "Q",
    "max_mfc",
    "lp_cutoff",
    "lowpass_cutoff",
    "att_factor",
    "use_upper_limit",
    "filter_type",
    "phase_insens",
)
HEADPHONE_KEYS = ("filter_type", "order", "phase_type", "delay_compensation", "compensate_delay")
MIDDLEEAR_KEYS = (*HEADPHONE_KEYS, "normalize_gain")


def one_name(parameter: str, options: dict[str, Any], other: str, name: str) -> dict[str, Any]:
    """Return ``options`` with the key ``other`` under its ``name``; both at once raise `SpecError`."""
    if other not in options:
        return options
    if name in options:
        raise SpecError(f"{parameter}: {other} and {name} are two names of one option: give one.")
    return {name if key == other else key: value for key, value in options.items()}


class AdaptationModel(Model):
    """Level convention, ears, gammatone filterbank, hair cell, adaptation, resampling, modulation filterbank.

    A model of this family names its arguments and its defaults, and hands them to `_build`.

    Attributes
    ----------
    fc : Tensor (F,)
        Auditory centre frequencies, Hz.
    num_channels : int
        F.
    filterbank, ihc, adaptation, modulation, headphone, middleear, resampler : Module
        The stages (the last three None where off).
    """

    def __init__(
        self,
        fs: float,
        flow: float,
        fhigh: float,
        learnable: bool,
        return_stages: bool,
        dtype: torch.dtype | str,
        filterbank_kwargs: dict[str, Any] | None,
        ihc_kwargs: dict[str, Any] | None,
        adaptation_kwargs: dict[str, Any] | None,
        modulation_kwargs: dict[str, Any] | None,
        dboffset: float,
        subfs: float | None,
    ) -> None:
        super().__init__(fs, learnable=learnable, dtype=dtype)
        self.flow, self.fhigh = float(flow), float(fhigh)
        self.return_stages = bool(return_stages)
        self.dboffset = float(dboffset)
        check_range("dboffset", self.dboffset, -300.0, 300.0, unit="dB SPL")
        self.filterbank_kwargs = check_keys("filterbank_kwargs", filterbank_kwargs, FILTERBANK_KEYS)
        self.ihc_kwargs = check_keys("ihc_kwargs", ihc_kwargs, IHC_KEYS)
        self.adaptation_kwargs = check_keys("adaptation_kwargs", adaptation_kwargs, ADAPTATION_KEYS)
        self.modulation_kwargs = check_keys("modulation_kwargs", modulation_kwargs, MODULATION_KEYS)
        self.subfs = None if subfs is None else check_sample_rate(subfs)

    def _build(
        self,
        headphone: dict[str, Any] | None,
        middleear: dict[str, Any] | None,
        ihc: dict[str, Any],
        adaptation: dict[str, Any],
    ) -> None:
        """Make the stages from their options; None: an ear stage is off."""
        common: dict[str, Any] = {"learnable": self.learnable, "dtype": self.dtype}
        self.headphone = None if headphone is None else HeadphoneFilter(self.fs, **headphone, **common)
        self.middleear = None if middleear is None else MiddleEarFilter(self.fs, **middleear, **common)
        options = one_name("filterbank_kwargs", self.filterbank_kwargs, "erb_scale", "bandwidth_factor")
        self.filterbank = GammatoneFilterbank((self.flow, self.fhigh), self.fs, **options, **common)
        self.ihc = IHCEnvelope(self.fs, **ihc, **common)
        self.adaptation = AdaptLoop(self.fs, **adaptation, **common, fc=self.filterbank.fc)
        resample = self.subfs is not None and self.subfs != self.fs
        self.resampler = FFTResampler(self.fs, self.subfs or self.fs, dtype=self.dtype) if resample else None
        self.modulation = ModulationFilterbank(self.fs_out, self.filterbank.fc, **self.modulation_kwargs, **common)

    @property
    def fs_out(self) -> float:
        """Rate of the representation, Hz."""
        return self.fs if self.subfs is None else self.subfs

    @property
    def fc(self) -> Tensor:
        """Auditory centre frequencies (F,), Hz, float64."""
        return self.filterbank.fc

    @property
    def num_channels(self) -> int:
        """Number of auditory channels F."""
        return self.filterbank.num_channels

    @property
    def input_gain(self) -> float:
        """Factor at the door: from the unit of the input to the unit in which an rms of 1 is 100 dB SPL."""
        if self.dboffset == DBOFFSET_PASCAL:
            return 0.5
        return 10.0 ** ((self.dboffset - 100.0) / 20.0)

    def forward(self, audio: Tensor) -> list[Tensor] | tuple[list[Tensor], dict[str, Tensor]]:
        """Return the outputs of the modulation filterbank, in model units.

        Parameters
        ----------
        audio : Tensor (T,) or (B, T)
            Sound in pascal (or as ``dboffset`` says). A sample that is not finite makes its own row NaN from there on.

        Returns
        -------
        list of F Tensors (B, M_i, T), or (M_i, T) for audio (T,)
            One per auditory channel: views of the dense representation, which `represent` returns.
        dict of str to Tensor
            Only with ``return_stages``: ``filterbank``, ``ihc`` (amplitude re the 100-dB convention) and ``adaptation``
            (model units), each (B, F, T); and, where the stage is on, ``headphone`` and ``middleear`` (B, T) and
            ``resampled`` (B, F, T'). Without B for audio (T,).

        Raises
        ------
        SpecError
            If ``audio`` is no floating tensor of one or two dimensions with at least one sample.
        """
        batch = self.enter(audio, (1, 2), "(T,) or (B, T)", "audio")
        single = batch.ndim == 1
        stages: dict[str, Tensor] = {}
        dense = self._analyse(batch.unsqueeze(0) if single else batch, stages if self.return_stages else None)
        channels = self.modulation.split(dense.squeeze(0) if single else dense)
        if not self.return_stages:
            return channels
        return channels, {name: y.squeeze(0) if single else y for name, y in stages.items()}

    def represent(self, audio: Tensor) -> Representation:
        """Return the dense internal representation of ``audio`` (B, T) in pascal; (T,) counts as one row."""
        batch = self.enter(audio, (1, 2), "(T,) or (B, T)", "audio")
        values = self._analyse(batch.unsqueeze(0) if batch.ndim == 1 else batch, None)
        return Representation(values, self.modulation.valid, self.fc, self.modulation.mfc_all, self.fs_out)

    def adapted(self, audio: Tensor) -> Tensor:
        """Return the signals behind the adaptation loops (B, F, T), in model units, for ``audio`` (B, T) in pascal."""
        y = self.enter(audio, (2,), "(B, T)", "audio") * self.input_gain
        for _, stage in self._periphery():
            y = stage(y)
        return y

    def _analyse(self, x: Tensor, stages: dict[str, Tensor] | None) -> Tensor:
        """Return the dense output (B, F, M, T) for ``x`` (B, T), in one pass unless stages or a gradient are wanted."""
        dense = self._one_pass(x) if stages is None else None
        if dense is not None:
            return dense
        y = x * self.input_gain
        for name, stage in self._periphery():
            y = stage(y)
            if stages is not None:
                stages[name] = y
        return self.modulation.dense(y)

    def fused(self, audio: Tensor) -> tuple[Tensor, list[Step]] | None:
        """Return the sound behind the ears and the steps from the filterbank on; None with ``subfs`` (an FFT)."""
        y = self.enter(audio, (2,), "(B, T)", "audio") * self.input_gain
        steps: list[Step] = []
        for name, stage in [*self._periphery(), ("modulation", self.modulation)]:
            if name in ("headphone", "middleear"):
                y = stage(y)
                continue
            some = stage.steps()
            if some is None:
                return None
            steps += some
        return y, steps

    def _periphery(self) -> list[tuple[str, AuditoryModule]]:
        """Return the stages that are on, in the order of the sound's way, up to the modulation filterbank."""
        chain = (
            ("headphone", self.headphone),
            ("middleear", self.middleear),
            ("filterbank", self.filterbank),
            ("ihc", self.ihc),
            ("adaptation", self.adaptation),
            ("resampled", self.resampler),
        )
        return [(name, stage) for name, stage in chain if stage is not None]

    def bytes_per_interval(self, n_samples: int) -> int:
        """Return an estimate of the memory in bytes that `represent` needs at its peak per row of ``n_samples``."""
        n_out = resampled_length(n_samples, self.fs, self.fs_out)
        filters = self.modulation.valid.shape[1] * (1 if self.modulation.phase_insens else 2)
        # The dense output and its lowpassed input, and three signals of the periphery alive at once, if it does not run
        # in one pass.
        samples = self.num_channels * ((filters + 2) * n_out + 3 * n_samples)
        return samples * (8 if self.dtype == torch.float64 else 4)

    def restricted(self, frequency_hz: float) -> Self:
        """Return the same model with the one auditory channel at ``frequency_hz``, on the same device."""
        arguments = self.parameters_dict() | {"flow": frequency_hz, "fhigh": frequency_hz}
        arguments["filterbank_kwargs"] = arguments["filterbank_kwargs"] | {"basef": frequency_hz}
        return type(self)(**arguments).to(self.device)

    def distribute_gradients(self) -> None:
        """Do nothing: no constant of this model is shared between parameters. Kept for interchangeability."""
