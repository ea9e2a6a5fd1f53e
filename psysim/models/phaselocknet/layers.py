"""The layers as torch modules; no constructor draws random numbers or runs data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.signal import firwin
from torch import Tensor, nn

from psysim.errors import SpecError, check_option
from psysim.models.phaselocknet import grammar
from psysim.models.phaselocknet.grammar import Layer, Shape, Windowed
from psysim.rng import Keys, Purpose, uniform

__all__ = ["NORMALISATIONS", "Dropout", "Normalisation", "make_module", "normalisation"]

#: A convolution in float64 on the CPU copies its input once per kernel point; longer copies are made in parts.
COPY_BYTES = 2**28


@dataclass(frozen=True)
class Normalisation:
    """Constants of layer and batch normalisation where an architecture file gives none.

    Attributes
    ----------
    eps : float
        Added to every variance.
    ddof : int
        1 divides the variance of a layer normalisation by N - 1, 0 by N.
    keep : float
        Share of a batch-normalisation's running statistics that a training batch leaves.
    keras_momentum : bool
        Whether ``momentum`` in a file is that share (as in Keras), or the share that is replaced (as in torch).
    """

    eps: float
    ddof: int
    keep: float
    keras_momentum: bool


#: "keras": the framework in which the published weights were trained; "port": the torch port of its authors.
NORMALISATIONS = {
    "keras": Normalisation(eps=1e-3, ddof=0, keep=0.99, keras_momentum=True),
    "port": Normalisation(eps=1e-5, ddof=1, keep=0.9, keras_momentum=False),
}


def normalisation(preset: str | Normalisation) -> Normalisation:
    """Return the preset of that name, or ``preset`` itself."""
    if isinstance(preset, Normalisation):
        return preset
    check_option("normalisation", preset, NORMALISATIONS)
    return NORMALISATIONS[preset]


class _Weighted(nn.Module):
    """A module with the parameters and buffers that the layer names, not yet filled."""

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(self, layer: Layer, shape: Shape, dtype: torch.dtype) -> None:
        super().__init__()
        shapes = layer.parameters(shape)
        for name in ("weight", "bias"):
            value = nn.Parameter(torch.empty(shapes[name], dtype=dtype)) if name in shapes else None
            self.register_parameter(name, value)
        for name, size in layer.buffers(shape).items():
            self.register_buffer(name, torch.empty(size, dtype=dtype))


def _padded(x: Tensor, layer: Windowed, value: float = 0.0) -> Tensor:
    frequency, time = layer.pads(tuple(x.shape[1:]))
    return F.pad(x, (*time, *frequency), value=value) if any((*frequency, *time)) else x


class Conv(_Weighted):
    """Cross-correlation (B, C, F, T) -> (B, filters, F', T')."""

    def __init__(self, layer: grammar.Conv, shape: Shape, dtype: torch.dtype) -> None:
        super().__init__(layer, shape, dtype)
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Return the cross-correlation with every kernel, plus bias."""
        layer, x = self.layer, _padded(x, self.layer)
        kernel, stride = layer.window()[1], layer.strides[1]
        n_times = (x.shape[-1] - kernel) // stride + 1
        copy = 8 * x.shape[1] * x.shape[2] * layer.kernel_size[0] * layer.kernel_size[1]  # bytes per output time
        part = max(1, COPY_BYTES // copy)
        if n_times <= part or x.dtype != torch.float64 or x.device.type != "cpu":
            return self._convolved(x)
        starts = range(0, n_times, part)
        ends = ((min(start + part, n_times) - 1) * stride + kernel for start in starts)
        return torch.cat([self._convolved(x[..., a * stride : b]) for a, b in zip(starts, ends, strict=True)], dim=-1)

    def _convolved(self, x: Tensor) -> Tensor:
        layer = self.layer
        weight, bias = self.weight, self.bias
        return F.conv2d(x, weight, bias, layer.strides, 0, layer.dilation_rate, layer.groups)  # type: ignore[arg-type]


class Dense(_Weighted):
    """Affine map (B, U) -> (B, units)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` times the weights, plus bias."""
        return F.linear(x, self.weight, self.bias)  # type: ignore[arg-type]


class Dropout(nn.Module):
    """Units set to zero while training, by keyed random numbers."""

    def __init__(self, layer: grammar.Dropout, path: str, index: int) -> None:
        super().__init__()
        self.rate, self.path, self.index = layer.rate, path, index

    def forward(self, x: Tensor, keys: Keys | None = None) -> Tensor:
        """Return ``x`` (B, ...) without a random share of its units; unchanged unless training.

        Raises
        ------
        SpecError
            If training without keys (B,).
        """
        if not self.training or self.rate == 0.0:
            return x
        if keys is None or keys.shape != x.shape[:1]:
            raise SpecError(f"{self.path} drops units at random while training: give the network keys, one per row.")
        draws = uniform(keys.replace(interval=self.index), Purpose.DROPOUT, x[0].numel())
        return x * (draws.reshape(x.shape) >= self.rate).to(x) / (1.0 - self.rate)


class BatchNorm(_Weighted):
    """Normalisation by running statistics, or by the batch's own while training."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, layer: grammar.BatchNorm, shape: Shape, dtype: torch.dtype, preset: Normalisation) -> None:
        super().__init__(layer, shape, dtype)
        self.eps = preset.eps if layer.eps is None else layer.eps
        given = layer.momentum
        self.momentum = 1.0 - preset.keep if given is None else 1.0 - given if preset.keras_momentum else given

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` (B, C, ...) normalised channel by channel."""
        statistics = self.running_mean, self.running_var
        weight, bias = self.weight, self.bias
        return F.batch_norm(x, *statistics, weight, bias, self.training, self.momentum, self.eps)


class LayerNorm(_Weighted):
    """Normalisation of each example over channels (axis 1), or over all axes."""

    def __init__(self, layer: grammar.LayerNorm, shape: Shape, dtype: torch.dtype, preset: Normalisation) -> None:
        super().__init__(layer, shape, dtype)
        self.axes = (1,) if layer.axis == (-1,) else layer.axis
        self.eps = preset.eps if layer.eps is None else layer.eps
        self.ddof = preset.ddof

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` (B, C, ...) with mean 0 and variance 1, then scaled and shifted channel by channel."""
        variance, mean = torch.var_mean(x, dim=self.axes, correction=self.ddof, keepdim=True)
        y = (x - mean) * (variance + self.eps).rsqrt()
        per_channel = (-1,) + (1,) * (x.ndim - 2)
        y = y if self.weight is None else y * self.weight.reshape(per_channel)
        return y if self.bias is None else y + self.bias.reshape(per_channel)


class MaxPool(nn.Module):
    """Largest value in a window; what padding adds is never the largest."""

    def __init__(self, layer: grammar.MaxPool) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Return the maxima (B, C, F', T')."""
        x = _padded(x, self.layer, -torch.inf)
        if self.layer.window() == self.layer.step() == (1, 1):
            return x
        return F.max_pool2d(x, self.layer.window(), self.layer.step())


class HannPool(nn.Module):
    """Sum weighted by the outer product of two Hann windows, each applied along its own axis."""

    frequency: Tensor
    time: Tensor

    def __init__(self, layer: grammar.HannPool, dtype: torch.dtype) -> None:
        super().__init__()
        self.layer = layer
        for name, n in zip(("frequency", "time"), layer.pool_size, strict=True):
            window = np.hanning(n) if n > 1 else np.ones(1)
            window = np.sqrt(window) if layer.sqrt_window else window
            window = window / window.sum() if layer.normalize else window
            self.register_buffer(name, torch.as_tensor(window, dtype=dtype), persistent=False)

    @property
    def weight(self) -> Tensor:
        """The kernel (1, 1, frequency, time) as some weight files hold it."""
        return torch.outer(self.frequency, self.time)[None, None]

    def forward(self, x: Tensor) -> Tensor:
        """Return the sums (B, C, F', T')."""
        x = _padded(x, self.layer)
        channels = x.shape[1]
        for kernel, stride in (
            (self.time[None, None, None, :], (1, self.layer.strides[1])),
            (self.frequency[None, None, :, None], (self.layer.strides[0], 1)),
        ):
            if kernel.numel() == 1:
                x = x[..., :: stride[0], :: stride[1]] * kernel
            else:
                x = F.conv2d(x, kernel.expand(channels, 1, -1, -1), stride=stride, groups=channels)
        return x


class Resample(nn.Module):
    """Causal windowed-sinc lowpass along the last axis, and decimation."""

    fir: Tensor

    def __init__(self, layer: grammar.Resample, dtype: torch.dtype) -> None:
        super().__init__()
        self.stride = layer.stride()
        window = layer.kwargs_fir_lowpass_filter["window"]
        taps = firwin(layer.n_taps(), layer.cutoff(), window=window, fs=layer.sr_input)
        self.register_buffer("fir", torch.as_tensor(taps, dtype=dtype), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return every ``stride``-th sample of the filtered ``x`` (..., T), from the first."""
        rows = F.pad(x.reshape(-1, 1, x.shape[-1]), (len(self.fir) - 1, 0))
        return F.conv1d(rows, self.fir.flip(0)[None, None], stride=self.stride).reshape(*x.shape[:-1], -1)


class Rearranged(nn.Module):
    """A layer without weights that only moves or rectifies values."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Return the values in their new order."""
        return self.function(x)


def _channels_last(x: Tensor) -> Tensor:
    return x.movedim(1, -1).flatten(1)


def make_module(
    layer: Layer, path: str, index: int, shape: Shape, dtype: torch.dtype, preset: Normalisation
) -> nn.Module:
    """Return the module of ``layer``, the ``index``-th of its network, for an input of ``shape`` without the batch."""
    simple: dict[type[Layer], Callable[[Any], nn.Module]] = {
        grammar.Flatten: lambda _: Rearranged(_channels_last),
        grammar.Relu: lambda _: Rearranged(F.relu),
        grammar.Branch: lambda _: nn.Identity(),
        grammar.Reshape: lambda _: nn.Identity(),
        grammar.Permute: lambda a: Rearranged(lambda x: x.permute(0, *a.dims)),
        grammar.Unsqueeze: lambda a: Rearranged(lambda x: x.unsqueeze(a.place(shape))),
        grammar.ExpandLastDimension: lambda a: Rearranged(lambda x: x.reshape(*x.shape, *(1,) * (a.num_dims - x.ndim))),
        grammar.Dropout: lambda a: Dropout(a, path, index),
        grammar.MaxPool: MaxPool,
        grammar.HannPool: lambda a: HannPool(a, dtype),
        grammar.Resample: lambda a: Resample(a, dtype),
        grammar.Conv: lambda a: Conv(a, shape, dtype),
        grammar.Dense: lambda a: Dense(a, shape, dtype),
        grammar.BatchNorm: lambda a: BatchNorm(a, shape, dtype, preset),
        grammar.LayerNorm: lambda a: LayerNorm(a, shape, dtype, preset),
    }
    return simple[type(layer)](layer)
