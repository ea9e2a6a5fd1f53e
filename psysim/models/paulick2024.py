"""The CASP models: Paulick, Relano-Iborra & Dau (2024), and their predecessor, Jepsen, Ewert & Dau (2008).

Known deviations stand in docs/model_cards/paulick2024.md; the numbers follow the version published in the Auditory
Modeling Toolbox. The decision stage is an observer's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from psysim.errors import SpecError, check_option
from psysim.models.adaptation_model import ADAPTATION_KEYS, MODULATION_KEYS
from psysim.models.base import Representation, register
from psysim.models.casp_decisions import CaspDecisions
from psysim.ops.steps import Step
from psysim.stages import (
    AdaptLoop,
    AuditoryModule,
    Decimator,
    DRNLFilterbank,
    IHCJepsen2008,
    IHCPaulick2024,
    ModulationFilterbank,
    OuterMiddleEarFilter,
)
from psysim.stages.base import check_keys
from psysim.stages.drnl import STRUCTURES

__all__ = ["Jepsen2008", "Paulick2024", "PublishedPaulick2024"]

PUBLISHED_FLOW_HZ = 250.0
OUTEREAR_KEYS = ("order", "middle_ear", "compensation_type", "field_type")
DRNL_KEYS = ("subject", "model", "ohc_loss_db")
IHC_KEYS = ("ihc_loss_db",)


class _Default(float):
    """A default that a preset replaces; a number that the caller gives wins over the preset, even the same one."""


class Paulick2024(CaspDecisions):
    """CASP: sound in pascal to model units in every auditory and modulation channel, with a nonlinear basilar membrane.

    Headphone and middle ear, dual-resonance nonlinear filterbank, inner hair cell, five adaptation loops, resampling by
    1/4, modulation filterbank.

    Parameters
    ----------
    fs : float
        Sampling rate of the sound, Hz. fs/2 must be above 8222 Hz for channels up to 8 kHz.
    flow, fhigh : float
        Lowest and highest centre frequency, Hz. The default 125 is the documented one of other packages; the published
        model begins at 250 Hz (``preset="published"``).
    n_channels : int
        Number of auditory channels, equally spaced in ERB numbers, both ends included.
    use_outerear : bool
        False: the input is the pressure at the eardrum. The middle ear stays on, since the filterbank takes the
        velocity of the stapes; ``outerear_kwargs={"middle_ear": False}`` takes it off as well (input in m/s).
    learnable : bool
        Make the published constants of every stage trainable (float64 parameters).
    return_stages : bool
        `forward` also returns a dictionary of the intermediate stages.
    filter_type : str
        Modulation filters: ``"efilt"`` (published), or ``"butterworth"``, an extension.
    dtype : torch.dtype
        torch.float32 or torch.float64; sound is converted to it.
    outerear_kwargs : dict, optional
        ``order`` (512), ``middle_ear`` (True): see `psysim.stages.OuterMiddleEarFilter`. The documented
        ``compensation_type`` and ``field_type`` are refused.
    drnl_kwargs : dict, optional
        ``subject`` (``"NH"``, or ``"HIx"``: no compression), ``ohc_loss_db`` (dB, one number or one per channel): see
        `psysim.stages.DRNLFilterbank`; ``model``: another name of ``variant``.
    ihc_kwargs : dict, optional
        ``ihc_loss_db`` (dB, one number or one per channel): see `psysim.stages.IHCPaulick2024`.
    adaptation_kwargs : dict, optional
        ``preset``, ``tau``, ``limit``, ``minspl``, ``minlvl_per_channel``, ``num_loops``: see
        `psysim.stages.AdaptLoop`. The minimum levels are in the unit of the hair cell's output (paulick2024: volts).
    modulation_kwargs : dict, optional
        ``preset`` (jepsen2008), ``Q``, ``max_mfc``, ``lp_cutoff``, ``lowpass_cutoff``, ``att_factor``,
        ``use_upper_limit``, ``phase_insens``: see `psysim.stages.ModulationFilterbank`.
    preset : str, optional
        ``"published"``: where ``flow`` is not given, 250 Hz.
    variant : str, optional
        ``"paulick2024"`` or ``"jepsen2008"``: filterbank, hair cell, expansion and adaptation together.

    Attributes
    ----------
    fc : Tensor (F,)
        Auditory centre frequencies, Hz.
    num_channels : int
        F.
    resample_factor : int
        4.
    fs_resampled : float
        Rate of the representation, fs/4, Hz.
    outerear, drnl, ihc, adaptation, resampler, modulation : Module
        The stages.

    Raises
    ------
    SpecError
        If an argument is out of range or an option is not known.

    References
    ----------
    Paulick, Relano-Iborra & Dau (2024). The computational auditory signal processing and perception model (CASP): a
    revised version. bioRxiv. Jepsen, Ewert & Dau (2008), J. Acoust. Soc. Am. 124, 422-438.

    Examples
    --------
    >>> import torch
    >>> model = Paulick2024(fs=44100, return_stages=True)
    >>> channels, stages = model(torch.zeros(2, 882))
    >>> len(channels) == model.num_channels == 50
    True
    >>> all(y.shape == (2, len(mfc), 220) for y, mfc in zip(channels, model.modulation.mfc))
    True
    >>> {name: tuple(y.shape) for name, y in stages.items()} == {
    ...     "outerear": (2, 882), "drnl": (2, 50, 882), "ihc": (2, 50, 882), "adaptation": (2, 50, 882),
    ...     "resampled": (2, 50, 220)}
    True

    A listener with a flat loss of 40 dB:

    >>> from psysim.stages import hair_cell_losses
    >>> ohc, ihc = hair_cell_losses(model.drnl, [1000.0], [40.0])
    >>> impaired = Paulick2024(drnl_kwargs={"ohc_loss_db": ohc}, ihc_kwargs={"ihc_loss_db": ihc})
    """

    default_preset: ClassVar[str | None] = None
    default_variant: ClassVar[str] = "paulick2024"
    resample_factor: ClassVar[int] = 4

    def __init__(
        self,
        fs: float = 44100,
        flow: float = _Default(125.0),
        fhigh: float = 8000.0,
        n_channels: int = 50,
        use_outerear: bool = True,
        learnable: bool = False,
        return_stages: bool = False,
        filter_type: str = "efilt",
        dtype: torch.dtype | str = torch.float32,
        outerear_kwargs: dict[str, Any] | None = None,
        drnl_kwargs: dict[str, Any] | None = None,
        ihc_kwargs: dict[str, Any] | None = None,
        adaptation_kwargs: dict[str, Any] | None = None,
        modulation_kwargs: dict[str, Any] | None = None,
        *,
        preset: str | None = None,
        variant: str | None = None,
    ) -> None:
        super().__init__(fs, learnable=learnable, dtype=dtype)
        self.preset = self.default_preset if preset is None else preset
        check_option("preset", self.preset, (None, "published"))
        published = self.preset == "published" and isinstance(flow, _Default)
        self.flow, self.fhigh = PUBLISHED_FLOW_HZ if published else float(flow), float(fhigh)
        self.n_channels = n_channels
        self.use_outerear = bool(use_outerear)
        self.return_stages = bool(return_stages)
        self.filter_type = filter_type
        self.outerear_kwargs = check_keys("outerear_kwargs", outerear_kwargs, OUTEREAR_KEYS)
        self.drnl_kwargs = check_keys("drnl_kwargs", drnl_kwargs, DRNL_KEYS)
        self.ihc_kwargs = check_keys("ihc_kwargs", ihc_kwargs, IHC_KEYS)
        self.adaptation_kwargs = check_keys("adaptation_kwargs", adaptation_kwargs, ADAPTATION_KEYS)
        keys = [key for key in MODULATION_KEYS if key != "filter_type"]
        self.modulation_kwargs = check_keys("modulation_kwargs", modulation_kwargs, keys)
        self.variant = self._variant(variant)
        self._build()

    def _variant(self, given: str | None) -> str:
        """Return the variant, which `drnl_kwargs` may name as well."""
        other = self.drnl_kwargs.pop("model", None)
        if given is not None and other is not None and given != other:
            raise SpecError(
                f"variant = {given!r} and drnl_kwargs['model'] = {other!r} contradict each other: give one."
            )
        variant = next((name for name in (given, other) if name is not None), self.default_variant)
        check_option("variant", variant, STRUCTURES)
        return variant

    def _build(self) -> None:
        common: dict[str, Any] = {"learnable": self.learnable, "dtype": self.dtype}
        self.outerear = OuterMiddleEarFilter(self.fs, outer_ear=self.use_outerear, **self.outerear_kwargs, **common)
        bounds = (self.flow, self.fhigh)
        self.drnl = DRNLFilterbank(bounds, self.fs, self.n_channels, model=self.variant, **self.drnl_kwargs, **common)
        hair_cell = IHCPaulick2024 if self.variant == "paulick2024" else IHCJepsen2008
        self.ihc = hair_cell(self.fs, **self.ihc_kwargs, **common)
        loops = {"preset": self.variant} | self.adaptation_kwargs
        self.adaptation = AdaptLoop(self.fs, **loops, **common, fc=self.drnl.fc)
        self.resampler = Decimator(self.fs, self.resample_factor, dtype=self.dtype)
        options = {"preset": "jepsen2008"} | self.modulation_kwargs
        self.modulation = ModulationFilterbank(
            self.fs_resampled, self.drnl.fc, filter_type=self.filter_type, **options, **common
        )
        for name, values in (("ihc_loss_db", self.ihc.ihc_loss_db), ("minlvl_per_channel", self.adaptation.minlvl)):
            if len(values) not in (1, self.num_channels):
                raise SpecError(f"{name} has {len(values)} entries, but there are {self.num_channels} channels.")

    @property
    def fc(self) -> Tensor:
        """Auditory centre frequencies (F,), Hz, float64."""
        return self.drnl.fc

    @property
    def num_channels(self) -> int:
        """Number of auditory channels F."""
        return self.drnl.num_channels

    @property
    def fs_resampled(self) -> float:
        """Rate of the representation, Hz."""
        return self.fs / self.resample_factor

    def forward(self, audio: Tensor) -> list[Tensor] | tuple[list[Tensor], dict[str, Tensor]]:
        """Return the outputs of the modulation filterbank, in model units.

        Parameters
        ----------
        audio : Tensor (T,) or (B, T)
            Sound in pascal, at least four samples. A sample that is not finite makes its own row NaN.

        Returns
        -------
        list of F Tensors (B, M_i, T // 4), or (M_i, T // 4) for audio (T,)
            One per auditory channel: views of the dense representation, which `represent` returns.
        dict of str to Tensor
            Only with ``return_stages``: ``outerear`` (B, T), stapes velocity in m/s; ``drnl`` (m/s), ``ihc`` (V;
            jepsen2008: after the square) and ``adaptation`` (model units), each (B, F, T); ``resampled``
            (B, F, T // 4). Without B for audio (T,).

        Raises
        ------
        SpecError
            If ``audio`` is no floating tensor of one or two dimensions with at least four samples.
        """
        batch = self._enter(audio)
        stages: dict[str, Tensor] = {}
        dense = self._analyse(batch, stages if self.return_stages else None)
        single = audio.ndim == 1
        channels = self.modulation.split(dense.squeeze(0) if single else dense)
        if not self.return_stages:
            return channels
        return channels, {name: y.squeeze(0) if single else y for name, y in stages.items()}

    def represent(self, audio: Tensor) -> Representation:
        """Return the dense internal representation of ``audio`` (B, T) in pascal; (T,) counts as one row."""
        values = self._analyse(self._enter(audio), None)
        return Representation(values, self.modulation.valid, self.fc, self.modulation.mfc_all, self.fs_resampled)

    def _enter(self, audio: object) -> Tensor:
        batch = self.enter(audio, (1, 2), "(T,) or (B, T)", "audio")
        if batch.shape[-1] < self.resample_factor:
            raise SpecError(f"audio has {batch.shape[-1]} samples: at least {self.resample_factor} are needed.")
        return batch.unsqueeze(0) if batch.ndim == 1 else batch

    def _analyse(self, y: Tensor, stages: dict[str, Tensor] | None) -> Tensor:
        """Return the dense output (B, F, M, T') for ``y`` (B, T), in one pass unless stages or gradients are wanted."""
        dense = self._one_pass(y) if stages is None else None
        if dense is not None:
            return dense
        for name, stage in self._stages()[:-1]:
            y = stage(y)
            if stages is not None:
                stages[name] = y
        return self.modulation.dense(y)

    def fused(self, audio: Tensor) -> tuple[Tensor, list[Step]] | None:
        """Return what enters the first step, and the steps: from the filterbank on.

        None if the modulation filterbank is no step (Butterworth, complex output).
        """
        y = self._enter(audio)
        stages = [stage for _, stage in self._stages()]
        steps = [stage.steps() for stage in stages]
        first = max(i for i, some in enumerate(steps) if some is None) + 1
        if first == len(stages):
            return None
        for stage in stages[:first]:
            y = stage(y)
        return y, [step for some in steps[first:] if some is not None for step in some]

    def _stages(self) -> list[tuple[str, AuditoryModule]]:
        """Return the stages in the order of the sound's way, under their documented names."""
        return [
            ("outerear", self.outerear),
            ("drnl", self.drnl),
            ("ihc", self.ihc),
            ("adaptation", self.adaptation),
            ("resampled", self.resampler),
            ("modulation", self.modulation),
        ]

    def bytes_per_interval(self, n_samples: int) -> int:
        """Return an estimate of the memory in bytes that `represent` needs at its peak per row of ``n_samples``."""
        filters = self.modulation.valid.shape[1] * (1 if self.modulation.phase_insens else 2)
        # The dense output and its lowpassed input, and three signals of the periphery alive at once, if it does not run
        # in one pass.
        samples = self.num_channels * ((filters + 2) * (n_samples // self.resample_factor) + 3 * n_samples)
        return samples * (8 if self.dtype == torch.float64 else 4)

    def restricted(self, frequency_hz: float) -> Self:
        """Return the same model with the one auditory channel at ``frequency_hz``, on the same device.

        A loss or a minimum level given per channel is interpolated over log frequency.
        """
        arguments = self.parameters_dict() | {"flow": frequency_hz, "fhigh": frequency_hz, "n_channels": 1}
        for name, key in (
            ("drnl_kwargs", "ohc_loss_db"),
            ("ihc_kwargs", "ihc_loss_db"),
            ("adaptation_kwargs", "minlvl_per_channel"),
        ):
            given = arguments[name].get(key)
            if isinstance(given, Sequence) and len(given) > 1:
                value = float(np.interp(np.log(frequency_hz), np.log(self.fc.cpu().numpy()), given))
                if key == "ohc_loss_db":  # between two channels less may be there to lose
                    value = min(value, float(DRNLFilterbank([frequency_hz], self.fs).max_ohc_loss_db))
                arguments[name] = arguments[name] | {key: value}
        return type(self)(**arguments).to(self.device)


@register("paulick2024")
class PublishedPaulick2024(Paulick2024):
    """CASP of Paulick et al. (2024): `Paulick2024` with ``preset="published"``, in experiment files ``paulick2024``.

    Examples
    --------
    >>> PublishedPaulick2024(fs=44100).fc[0].item(), Paulick2024(fs=44100).fc[0].item()
    (250.0, 125.0)
    """

    default_preset = "published"


@register("jepsen2008")
class Jepsen2008(Paulick2024):
    """CASP of Jepsen et al. (2008): `Paulick2024` with ``variant="jepsen2008"`` and ``preset="published"``.

    The same ears, resampling and modulation filterbank; filters of a higher order in the filterbank, hair cell by
    rectification, lowpass and square, and the adaptation of Dau et al. (1997).

    References
    ----------
    Jepsen, Ewert & Dau (2008), J. Acoust. Soc. Am. 124, 422-438.

    Examples
    --------
    >>> Jepsen2008(fs=44100).variant
    'jepsen2008'
    """

    default_preset = "published"
    default_variant = "jepsen2008"
