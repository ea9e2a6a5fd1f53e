"""Receptive fields as gradients: of responses with respect to spectrograms or waveforms.

All is computed on a copy of the model in float64 and in evaluation mode, so that neither weights nor gradients nor
running statistics of the model itself change.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from psysim.errors import PsysimWarning, SpecError, check_option, check_range

if TYPE_CHECKING:
    from psysim.models.neural.base import AudioEncodingModel

__all__ = ["REDUCTIONS", "strf_gradient_map", "waveform_gradient_map"]

REDUCTIONS = ("last", "peak", "sum")


def strf_gradient_map(
    model: AudioEncodingModel,
    n_frames: int | None = None,
    *,
    baseline: float | Tensor = 0.0,
    neurons: Sequence[int] | None = None,
    softness: float = 0.0,
    chunk: int = 16,
) -> Tensor:
    """Return the receptive fields of neurons: the gradients of their responses at the last frame of a spectrogram.

    For a linear model this is its kernel; for others it depends on the spectrogram around which it is taken.

    Parameters
    ----------
    model : AudioEncodingModel
        Model; it is not changed. The map is in the space of its spectrogram also if it has a front-end.
    n_frames : int, optional
        Frames of the spectrogram T; by default those of the baseline, or the model's ``T``.
    baseline : float or Tensor
        Spectrogram at which the gradient is taken: a number for all of it, one per band (F,), a spectrogram (F, T), or
        several (K, F, T), whose maps are averaged. 0 by default, which is the kink of a rectifying prefilter, where its
        derivative is 0: give such a model a spectrogram with sound in it, or a ``softness``.
    neurons : sequence of int, optional
        Neurons; all by default.
    softness : float
        Replaces the rectifier r(x) of a prefilter by softness * softplus(x / softness), whose derivative at 0 is 1/2.
    chunk : int
        Neurons computed at a time.

    Returns
    -------
    Tensor
        (N, 1, F, T), float64: + d response / d spectrogram, so an excitatory field is positive.

    Raises
    ------
    SpecError
        If an argument is out of range or does not fit.

    Examples
    --------
    >>> from psysim.models.neural import Linear
    >>> model = Linear(n_frequency_bands=6, temporal_window_size=4, out_neurons=2)
    >>> strf_gradient_map(model).shape
    torch.Size([2, 1, 6, 4])
    """
    check_range("softness", softness, 0.0)
    chosen = list(range(model.O)) if neurons is None else [check_neuron(model, n) for n in neurons]
    twin = _twin(model)
    if softness > 0:
        for module in twin.modules():
            if hasattr(module, "softness"):
                setattr(module, "softness", softness)  # noqa: B010
    spectrograms = _baselines(model, baseline, n_frames).to(next(twin.parameters()).device)
    maps = []
    for begin in range(0, len(chosen), max(1, chunk)):
        part = torch.tensor(chosen[begin : begin + max(1, chunk)], device=spectrograms.device)
        total: Any = 0.0
        for spectrogram in spectrograms:  # a few excerpts, each a batch over neurons
            x = spectrogram.expand(len(part), 1, *spectrogram.shape).clone().requires_grad_()
            last = twin(x)[torch.arange(len(part), device=x.device), part, 0, -1]
            total = total + _gradient(last.sum(), x)
        maps.append(total / len(spectrograms))
    fields = torch.cat(maps)
    silent = [neuron for neuron, field in zip(chosen, fields, strict=True) if not bool(field.any())]
    if silent:
        warnings.warn(
            f"The gradient map is zero everywhere for {len(silent)} of {len(chosen)} neurons (the first: {silent[0]}): "
            "at this baseline a rectifier lets nothing through. Give a spectrogram with sound in it, or a softness.",
            PsysimWarning,
            stacklevel=3,
        )
    return fields


def waveform_gradient_map(
    model: AudioEncodingModel, stimulus: Tensor, neuron: int | None = None, reduce: str = "last"
) -> Tensor:
    """Return the gradient of a response with respect to the waveform.

    Parameters
    ----------
    model : AudioEncodingModel
        Model with a front-end; it is not changed.
    stimulus : Tensor
        Waveform in the front-end's unit, (T_audio,), (1, T_audio) or (1, 1, T_audio).
    neuron : int, optional
        Which neuron; the sum over all by default.
    reduce : {"last", "peak", "sum"}
        Of the response: its last frame, its maximum over time, its sum over time.

    Returns
    -------
    Tensor
        (T_audio,), float64.

    Raises
    ------
    SpecError
        If the model has no front-end, or an argument does not fit.
    """
    check_option("reduce", reduce, REDUCTIONS)
    if not model.has_front_end:
        raise SpecError(f"This {type(model).__name__} takes spectrograms: a map of waveforms needs a wav2spec.")
    if stimulus.numel() != stimulus.shape[-1] or stimulus.ndim > 3:
        raise SpecError(
            f"stimulus has the shape {tuple(stimulus.shape)}; expected (T_audio,), (1, T_audio) or (1, 1, T_audio)."
        )
    chosen = None if neuron is None else check_neuron(model, neuron)
    twin = _twin(model)
    x = stimulus.detach().double().reshape(1, 1, -1).clone().requires_grad_()
    response = twin(x)[0, :, 0] if chosen is None else twin(x)[0, chosen : chosen + 1, 0]
    goal = {"last": response[:, -1], "peak": response.amax(-1), "sum": response.sum(-1)}[reduce]
    return _gradient(goal.sum(), x).reshape(-1)


def check_neuron(model: AudioEncodingModel, neuron: int) -> int:
    """Return the index of a neuron, or raise `SpecError` if the model has no such one."""
    if isinstance(neuron, bool) or not 0 <= int(neuron) < model.O:
        raise SpecError(f"neuron = {neuron} is not there: the model has the neurons 0 to {model.O - 1}.")
    return int(neuron)


def _twin(model: AudioEncodingModel) -> AudioEncodingModel:
    twin = copy.deepcopy(model).double().eval()
    return twin.requires_grad_(False)


def _gradient(goal: Tensor, x: Tensor) -> Tensor:
    with torch.backends.cudnn.flags(enabled=False):  # its recurrent layers have no gradient in evaluation mode
        return torch.autograd.grad(goal, x)[0].detach()


def _baselines(model: AudioEncodingModel, baseline: float | Tensor, n_frames: int | None) -> Tensor:
    """Return the spectrograms (K, F, T) around which the map is taken."""
    value = torch.as_tensor(baseline, dtype=torch.float64)
    if value.ndim > 3 or (value.ndim > 0 and value.shape[0 if value.ndim == 1 else -2] != model.F):
        raise SpecError(
            f"baseline has the shape {tuple(value.shape)}; expected a number, (F,), (F, T) or (K, F, T), F = {model.F}."
        )
    if value.ndim < 2:
        frames = model.T if n_frames is None else n_frames
        if frames < 1:
            raise SpecError(f"n_frames = {frames} must be at least 1.")
        return value.reshape(-1, 1).expand(model.F, frames)[None]
    if n_frames is not None and n_frames != value.shape[-1]:
        raise SpecError(f"n_frames = {n_frames}, but the baseline has {value.shape[-1]} frames: leave n_frames out.")
    return value.reshape(-1, *value.shape[-2:])
