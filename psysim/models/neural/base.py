"""The interface of a model of neural responses: sound in, predicted firing of N neurons out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from psysim.errors import SpecError
from psysim.models.neural.causal import Causal, State, detached, initialise, stream
from psysim.models.neural.configuration import Configured, register, registry
from psysim.models.neural.gradient_maps import strf_gradient_map, waveform_gradient_map

__all__ = ["AudioEncodingModel", "InputScale", "NeuralModel", "register", "registry"]

PUBLISHED_CONSTANTS = ("num_batches_tracked", "div_term", "_n", "_window", "_mel_fb", "_pool_j", "_fc", "_kernels")
SLOTS = ("wav2spec", "prefiltering", "core", "readout")


class NeuralModel(Configured):
    """A model of the responses of N neurons, in four slots: ``readout(core(prefiltering(wav2spec(x))))``.

    Slots that a model does not fill are the identity; ``readout`` must be filled. A model is causal: the response at a
    frame depends on this frame and earlier ones, so padding at the end changes nothing before it.

    Attributes
    ----------
    O : int
        Number of neurons N.
    wav2spec : torch.nn.Module
        From waveforms (B, 1, T_audio) to spectrograms (B, 1, F, T).
    prefiltering : torch.nn.Module
        From spectrograms to (B, C_in, F, T).
    core : torch.nn.Module
        From there to features, (B, C, T) or (B, C, 1, T).
    readout : torch.nn.Module
        From features to responses (B, N, 1, T).
    """

    family = "model"
    shift_invariant: ClassVar[bool] = True
    """Whether a sound that starts k frames later has its response k frames later (after a warm-up)."""
    published_names: ClassVar[dict[str, str]] = {}
    """Beginnings of the names of weights in published checkpoints, and what they are here."""

    def __init__(self, out_neurons: int) -> None:
        super().__init__()
        self.O = out_neurons
        self.wav2spec: nn.Module = nn.Identity()
        self.prefiltering: nn.Module = nn.Identity()
        self.core: nn.Module = nn.Identity()
        self.readout: nn.Module = Unset()

    @property
    def out_neurons(self) -> int:
        """Number of neurons N, the same as ``O``."""
        return self.O

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return the responses to whole sounds.

        Parameters
        ----------
        x : Tensor
            Spectrograms (B, 1, F, T), or waveforms (B, 1, T_audio) if the model has a front-end.
        valid : Tensor, optional
            Frames that are not padding, (B, T) of bool. In training, padding then takes no part in the statistics of a
            normalisation, and may hold anything, NaN as well. All frames by default.

        Returns
        -------
        Tensor
            (B, N, 1, T).

        Raises
        ------
        SpecError
            If the shape does not fit.
        """
        return self._run(x, None, valid)[0]

    def stream(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Return the responses to a block of a long sound, and the state for the next block.

        Parameters
        ----------
        x : Tensor
            Block of spectrograms (B, 1, F, T) or waveforms (B, 1, T_audio), a whole number of frames.
        state : State
            As returned for the block before; None at the beginning.

        Returns
        -------
        Tensor
            (B, N, 1, T). All blocks together are the response to the whole sound.
        State
            State of all slots; `detach` cuts the graph behind it.
        """
        return self._run(x, state, None)

    def _run(self, x: Tensor, state: State, valid: Tensor | None) -> tuple[Tensor, State]:
        before = dict.fromkeys(SLOTS) if state is None else state
        after: dict[str, State] = {}
        x, after["wav2spec"] = self._spectrogram(x, before["wav2spec"])
        if valid is not None:
            if valid.shape != (x.shape[0], x.shape[-1]) or valid.dtype != torch.bool:
                raise SpecError(
                    f"valid has the shape {tuple(valid.shape)} and dtype {valid.dtype}; expected (B, T) = "
                    f"({x.shape[0]}, {x.shape[-1]}) of torch.bool."
                )
            x = torch.where(valid[:, None, None], x, 0)
        x, after["prefiltering"] = stream(self.prefiltering, self._scale(x), before["prefiltering"])
        x, after["core"] = stream(self.core, x, before["core"])
        options = {} if valid is None or not _takes_valid(self.readout) else {"valid": valid}
        if isinstance(self.readout, Causal):
            y, after["readout"] = self.readout.stream(x, before["readout"], **options)
        else:
            y, after["readout"] = self.readout(x, **options), None
        return y, after

    def _spectrogram(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the input as spectrograms (B, 1, F, T)."""
        return stream(self.wav2spec, x, state)

    def _scale(self, x: Tensor) -> Tensor:
        return x

    def detach(self, state: State = None) -> State:
        """Return a state without the graph behind it; a model keeps none itself, so without one nothing happens."""
        return detached(state)

    def count_trainable_params(self) -> int:
        """Return the number of weights that can be learnt."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def load_published(self, weights: Mapping[str, Tensor]) -> None:
        """Load weights with the names of a published checkpoint (deepSTRF 0.1.0).

        Parameters
        ----------
        weights : mapping of str to Tensor
            All weights of the model under their published names.

        Raises
        ------
        SpecError
            If weights are missing, unknown or of another shape.
        """
        front = getattr(self.wav2spec, "published_names", {})
        names = self.published_names | {f"wav2spec.{old}": f"wav2spec.{new}" for old, new in front.items()}
        renamed = {}
        for name, value in weights.items():
            if name.rpartition(".")[2] in PUBLISHED_CONSTANTS:
                continue
            begin = max((b for b in names if name.startswith(b)), key=len, default="")
            renamed[names.get(begin, "") + name.removeprefix(begin)] = value
        own = {name: value for name, value in self.state_dict().items() if not name.startswith("input_scale.")}
        wrong = sorted(set(own) ^ set(renamed)) or [n for n in own if own[n].shape != renamed[n].shape]
        if wrong:
            raise SpecError(
                f"The weights are not those of this {type(self).__name__}: {', '.join(wrong[:5])} do not fit."
            )
        self.load_state_dict(renamed, strict=False)

    def validate(self) -> None:
        """Check that the model is complete.

        Raises
        ------
        SpecError
            If a number is not a positive integer, or a slot is no module or not filled.
        """
        self._positive("O")
        for slot in SLOTS:
            if not isinstance(getattr(self, slot, None), nn.Module):
                raise SpecError(f"{slot} of {type(self).__name__} must be a torch.nn.Module.")
        if isinstance(self.readout, Unset):
            raise SpecError(f"readout of {type(self).__name__} is not set: a model needs one.")

    def _positive(self, name: str) -> None:
        value = getattr(self, name, None)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise SpecError(f"{name} of {type(self).__name__} is {value!r}: it must be a positive integer.")


class Unset(nn.Module):
    """Place of a slot that must be filled."""


class InputScale(nn.Module):
    """Mean and standard deviation of each frequency band, taken out of the spectrogram: part of a model's weights.

    Parameters
    ----------
    n_frequency_bands : int
        Number of bands F.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, n_frequency_bands: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_frequency_bands))
        self.register_buffer("std", torch.ones(n_frequency_bands))

        self.active = False

    def update(self) -> None:
        """Note whether there is anything to do."""
        self.active = bool((self.mean != 0).any() or (self.std != 1).any())

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        """Load mean and standard deviation."""
        super()._load_from_state_dict(*args, **kwargs)
        self.update()

    def forward(self, x: Tensor) -> Tensor:
        """Return the spectrogram (B, 1, F, T) less its mean, over its standard deviation."""
        return (x - self.mean[:, None]) / self.std[:, None] if self.active else x


class AudioEncodingModel(NeuralModel):
    """A model of neural responses to sound.

    Parameters
    ----------
    n_frequency_bands : int
        Bands of the spectrogram F.
    temporal_window_size : int
        Frames of the receptive field T (informative for models whose memory is not a window).
    out_neurons : int
        Number of neurons N.
    prefiltering : torch.nn.Module, optional
        Adaptation in front of the core, with an attribute ``out_channels``.
    wav2spec : torch.nn.Module, optional
        Front-end, with an attribute ``out_channels`` of F. Without one the model takes spectrograms only.
    dt_ms : float, optional
        Duration of a frame, ms; that of the front-end if there is one.
    full_scale_db_spl : float, optional
        Level in dB SPL of a waveform of RMS 1 in the front-end's unit. It ties the model to sounds in pascal: an
        observer refuses a model without it.
    seed : int
        Seed of the initial weights: no global random generator takes part.

    Attributes
    ----------
    F, T, O, C_in : int
        Bands, frames of the receptive field, neurons, channels after prefiltering.

    Raises
    ------
    SpecError
        If an argument is out of range, or the slots do not fit each other.
    """

    def __init__(
        self,
        n_frequency_bands: int = 34,
        temporal_window_size: int = 9,
        out_neurons: int = 1,
        *,
        prefiltering: nn.Module | None = None,
        wav2spec: nn.Module | None = None,
        dt_ms: float | None = None,
        full_scale_db_spl: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(out_neurons)
        self.F, self.T, self.seed = n_frequency_bands, temporal_window_size, seed
        self.full_scale_db_spl = full_scale_db_spl
        self.dt_ms = getattr(wav2spec, "dt_ms", None) if dt_ms is None else dt_ms
        self.C_in = 1
        if prefiltering is not None:
            self.C_in = getattr(prefiltering, "out_channels", 0)
            if not isinstance(self.C_in, int) or self.C_in < 1:
                raise SpecError(f"prefiltering ({type(prefiltering).__name__}) needs a positive integer out_channels.")
            self.prefiltering = prefiltering
        if wav2spec is not None:
            bands = getattr(wav2spec, "out_channels", None)
            if bands != self.F:
                raise SpecError(
                    f"wav2spec ({type(wav2spec).__name__}) has out_channels = {bands}, but n_frequency_bands = "
                    f"{self.F}: they must be equal."
                )
            self.wav2spec = wav2spec
        for name in ("F", "T", "O", "C_in"):
            self._positive(name)
        self.input_scale = InputScale(self.F)

    def finish(self) -> None:
        """Draw the initial weights and check the model; the last line of every constructor."""
        for slot in (self.core, self.readout):
            self._draw(slot)
        self.validate()

    def _draw(self, slot: nn.Module) -> None:
        position = SLOTS.index("core") if slot is self.core else SLOTS.index("readout")
        initialise(slot, self.seed * len(SLOTS) + position)

    @property
    def has_front_end(self) -> bool:
        """Whether the model takes waveforms."""
        return not isinstance(self.wav2spec, nn.Identity)

    def validate(self) -> None:
        """Check that the model is complete: see `NeuralModel.validate`; F, T and C_in are positive integers."""
        super().validate()
        for name in ("F", "T", "C_in"):
            self._positive(name)

    def standardise(self, mean: Tensor | Sequence[float], std: Tensor | Sequence[float]) -> None:
        """Set the mean and standard deviation of the training spectrograms, which the model takes out of its input.

        They are stored with the weights, so that the model means the same wherever it is loaded.

        Parameters
        ----------
        mean, std : Tensor or sequence of float
            Per band, (F,).

        Raises
        ------
        SpecError
            If the size is not F, or a value is not finite, or a standard deviation is not positive.
        """
        for name, given in (("mean", mean), ("std", std)):
            value = torch.as_tensor(given, dtype=torch.float64)
            if (
                value.shape != (self.F,)
                or not bool(value.isfinite().all())
                or (name == "std" and bool((value <= 0).any()))
            ):
                raise SpecError(f"{name} must be {self.F} finite numbers, one per band, and a std positive.")
            getattr(self.input_scale, name).copy_(value)
        self.input_scale.update()

    def _scale(self, x: Tensor) -> Tensor:
        return self.input_scale(x)

    def _spectrogram(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return waveforms (B, 1, T_audio) or spectrograms (B, 1, F, T) as spectrograms."""
        if x.ndim == 3 and x.shape[1] == 1 and self.has_front_end:
            return stream(self.wav2spec, x, state)
        if x.ndim != 4 or x.shape[1] != 1 or x.shape[2] != self.F:
            waveform = "waveforms (B, 1, T_audio) or " if self.has_front_end else ""
            raise SpecError(
                f"The input of {type(self).__name__} has the shape {tuple(x.shape)}; expected {waveform}spectrograms "
                f"(B, 1, F, T) with F = {self.F}."
            )
        return x, None

    def STRF_gradmap(
        self,
        n_frames: int | None = None,
        *,
        baseline: float | Tensor = 0.0,
        neurons: Sequence[int] | None = None,
        softness: float = 0.0,
        chunk: int = 16,
    ) -> Tensor:
        """Return the receptive fields as gradients of the responses at the last frame with respect to a spectrogram.

        Parameters
        ----------
        n_frames, baseline, neurons, softness, chunk
            See `psysim.models.neural.strf_gradient_map`.

        Returns
        -------
        Tensor
            (N, 1, F, T), float64: + d response / d spectrogram.
        """
        return strf_gradient_map(self, n_frames, baseline=baseline, neurons=neurons, softness=softness, chunk=chunk)

    def waveform_gradmap(self, stimulus: Tensor, neuron: int | None = None, reduce: str = "last") -> Tensor:
        """Return the gradient of a response with respect to a waveform.

        Parameters
        ----------
        stimulus, neuron, reduce
            See `psysim.models.neural.waveform_gradient_map`.

        Returns
        -------
        Tensor
            (T_audio,), float64.
        """
        return waveform_gradient_map(self, stimulus, neuron, reduce)


def _takes_valid(module: Any) -> bool:
    return getattr(module, "takes_valid", False)
