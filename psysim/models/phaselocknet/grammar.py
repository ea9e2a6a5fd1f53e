"""The layers that an architecture file may name: their arguments, output shapes and parameters. No torch in here.

Shapes leave out the batch: (C, F, T) for channels, frequencies and times, (U,) after flattening. Architecture files
were written for channels last, but their pairs are (frequency, time) in both orders.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from psysim.models.phaselocknet.arguments import (
    PADDED_AXES,
    Axes,
    ChannelsLast,
    Count,
    Dims,
    Flag,
    Index,
    Linear,
    Lowpass,
    Misfit,
    Padding,
    Pair,
    PairOrNone,
    Positive,
    PositiveOrNone,
    Share,
    ShareOrNone,
    Target,
    TwoCounts,
)

__all__ = [
    "LAYER_TYPES",
    "BatchNorm",
    "Branch",
    "Conv",
    "Dense",
    "Dropout",
    "ExpandLastDimension",
    "Flatten",
    "HannPool",
    "Layer",
    "LayerNorm",
    "MaxPool",
    "Permute",
    "Relu",
    "Resample",
    "Reshape",
    "Shape",
    "Unsqueeze",
    "Windowed",
]

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer of an architecture.

    Attributes
    ----------
    name : str
        Name of the layer, also in weight files.
    """

    types: ClassVar[tuple[str, ...]] = ()  # names in files, lower case, without prefix and underscores
    name: str

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of the output for an input of ``shape``."""
        return shape

    def parameters(self, shape: Shape) -> dict[str, Shape]:
        """Return the shapes of the trained parameters by name."""
        return {}

    def buffers(self, shape: Shape) -> dict[str, Shape]:
        """Return the shapes of what is learnt but no parameter: running statistics."""
        return {}

    def n_macs(self, shape: Shape) -> int:
        """Return the number of multiplications with parameters per example."""
        return 0


@dataclass(frozen=True, kw_only=True)
class Windowed(Layer):
    """A layer that moves a window over frequency and time."""

    padding: Padding = "VALID"

    def window(self) -> Pair:
        """Return the extent of the window (frequency, time)."""
        raise NotImplementedError

    def step(self) -> Pair:
        """Return the strides (frequency, time)."""
        raise NotImplementedError

    def pads(self, shape: Shape) -> tuple[Pair, Pair]:
        """Return the padding before and after, for frequency and for time."""
        _, *lengths = _four_axes(shape)
        if isinstance(self.padding, tuple):
            first, second = self.padding
            return (first, first), (second, second)
        pads = []
        for padded, n, k, s in zip(PADDED_AXES[self.padding], lengths, self.window(), self.step(), strict=True):
            total = max(0, (math.ceil(n / s) - 1) * s + k - n) if padded else 0
            pads.append((total // 2, total - total // 2))
        return pads[0], pads[1]

    def _moved(self, shape: Shape) -> Pair:
        _, *lengths = _four_axes(shape)
        out = []
        axes = zip(("frequency", "time"), lengths, self.window(), self.step(), self.pads(shape), strict=True)
        for axis, n, k, s, pad in axes:
            out.append((n + sum(pad) - k) // s + 1)
            if out[-1] < 1:
                raise Misfit(f"its window of {k} is longer than the {n + sum(pad)} samples along {axis}")
        return out[0], out[1]

    def output_shape(self, shape: Shape) -> Shape:
        """Return (C, F', T')."""
        return (shape[0], *self._moved(shape))


def _four_axes(shape: Shape) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise Misfit(f"needs an input (C, F, T), but gets {shape}")
    return shape[0], shape[1], shape[2]


@dataclass(frozen=True, kw_only=True)
class Conv(Windowed):
    """Cross-correlation over frequency and time."""

    types = ("conv", "conv2d")
    filters: Count
    kernel_size: TwoCounts
    strides: TwoCounts = (1, 1)
    dilation_rate: TwoCounts = (1, 1)
    groups: Count = 1
    use_bias: Flag = True
    activation: Linear = None

    def window(self) -> Pair:
        """Return the extent of the dilated kernel."""
        (f, t), (df, dt) = self.kernel_size, self.dilation_rate
        return (f - 1) * df + 1, (t - 1) * dt + 1

    def step(self) -> Pair:
        """Return the strides."""
        return self.strides

    def output_shape(self, shape: Shape) -> Shape:
        """Return (filters, F', T')."""
        moved = self._moved(shape)
        for what, n in (("input channels", shape[0]), ("filters", self.filters)):
            if n % self.groups:
                raise Misfit(f"its {n} {what} cannot be divided into {self.groups} groups")
        return (self.filters, *moved)

    def parameters(self, shape: Shape) -> dict[str, Shape]:
        """Return weight (out, in / groups, frequency, time) and bias."""
        weight = {"weight": (self.filters, shape[0] // self.groups, *self.kernel_size)}
        return weight | ({"bias": (self.filters,)} if self.use_bias else {})

    def n_macs(self, shape: Shape) -> int:
        """Return the products of all kernels at all places."""
        return math.prod(self.output_shape(shape)) * math.prod(self.parameters(shape)["weight"][1:])


@dataclass(frozen=True, kw_only=True)
class Dense(Layer):
    """Affine map of all units."""

    types = ("dense",)
    units: Count
    use_bias: Flag = True
    activation: Linear = None

    def output_shape(self, shape: Shape) -> Shape:
        """Return (units,)."""
        if len(shape) != 1:
            raise Misfit(f"needs an input (U,), but gets {shape}: put a flatten layer before it")
        return (self.units,)

    def parameters(self, shape: Shape) -> dict[str, Shape]:
        """Return weight (out, in) and bias."""
        return {"weight": (self.units, shape[0])} | ({"bias": (self.units,)} if self.use_bias else {})

    def n_macs(self, shape: Shape) -> int:
        """Return the number of weights."""
        return self.units * shape[0]


@dataclass(frozen=True, kw_only=True)
class Dropout(Layer):
    """Units set to zero at random while training."""

    types = ("dropout",)
    rate: Share


@dataclass(frozen=True, kw_only=True)
class Flatten(Layer):
    """All axes as one, channels last."""

    types = ("flatten",)

    def output_shape(self, shape: Shape) -> Shape:
        """Return (U,)."""
        return (math.prod(shape),)


@dataclass(frozen=True, kw_only=True)
class MaxPool(Windowed):
    """Largest value in a window."""

    types = ("maxpool", "maxpool2d", "maxpooling2d")
    pool_size: TwoCounts
    strides: PairOrNone = None

    def window(self) -> Pair:
        """Return the pool size."""
        return self.pool_size

    def step(self) -> Pair:
        """Return the strides; the pool size if there are none."""
        return self.strides or self.pool_size

    def output_shape(self, shape: Shape) -> Shape:
        """Return (C, F', T')."""
        if isinstance(self.padding, tuple) and any(p >= k for p, k in zip(self.padding, self.pool_size, strict=True)):
            raise Misfit("has a padding as long as its pool_size: a window would hold nothing but padding")
        return super().output_shape(shape)


@dataclass(frozen=True, kw_only=True)
class HannPool(Windowed):
    """Sum weighted by a Hann window, for each channel."""

    types = ("hpool",)
    pool_size: TwoCounts
    strides: TwoCounts = (1, 1)
    sqrt_window: Flag = False
    normalize: Flag = False

    def window(self) -> Pair:
        """Return the pool size."""
        return self.pool_size

    def step(self) -> Pair:
        """Return the strides."""
        return self.strides

    def output_shape(self, shape: Shape) -> Shape:
        """Return (C, F', T')."""
        if 2 in self.pool_size:
            raise Misfit("has a pool_size of 2, but both points of such a Hann window are zero")
        return super().output_shape(shape)


@dataclass(frozen=True, kw_only=True)
class _Norm(Layer):
    scale: Flag = True
    center: Flag = True
    eps: PositiveOrNone = None  # None: that of the preset

    def parameters(self, shape: Shape) -> dict[str, Shape]:
        """Return weight if scaled, bias if centred, one per channel."""
        one: Shape = (shape[0],)
        return ({"weight": one} if self.scale else {}) | ({"bias": one} if self.center else {})


@dataclass(frozen=True, kw_only=True)
class BatchNorm(_Norm):
    """Normalisation of each channel by its mean and variance in the training data."""

    types = ("batchnorm", "batchnorm2d", "batchnormalization")
    momentum: ShareOrNone = None  # as the preset understands it
    axis: ChannelsLast = None

    def buffers(self, shape: Shape) -> dict[str, Shape]:
        """Return the running statistics, one per channel."""
        return {"running_mean": (shape[0],), "running_var": (shape[0],)}


@dataclass(frozen=True, kw_only=True)
class LayerNorm(_Norm):
    """Normalisation of each example over channels, or over everything."""

    types = ("layernorm", "layernormalization")
    axis: Axes = (-1,)

    def output_shape(self, shape: Shape) -> Shape:
        """Return ``shape``."""
        if len(self.axis) == 3:
            _four_axes(shape)
        return shape


@dataclass(frozen=True, kw_only=True)
class Permute(Layer):
    """Axes in another order."""

    types = ("permute",)
    dims: Dims

    def output_shape(self, shape: Shape) -> Shape:
        """Return the lengths in the new order."""
        if len(shape) != len(self.dims):
            raise Misfit(f"names {len(self.dims)} axes, but its input {shape} has {len(shape)}")
        return tuple(shape[d - 1] for d in self.dims)


@dataclass(frozen=True, kw_only=True)
class Unsqueeze(Layer):
    """One more axis of length 1; axis 0 is the batch."""

    types = ("unsqueeze",)
    dim: Index

    def place(self, shape: Shape) -> int:
        """Return the number of the new axis, counted from the batch."""
        n = len(shape) + 2
        place = self.dim + n if self.dim < 0 else self.dim
        if not 1 <= place < n:
            raise Misfit(f"has dim = {self.dim}, but its input {shape} allows 1 to {n - 1} and -{n - 1} to -1")
        return place

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape with the new axis."""
        place = self.place(shape) - 1
        return (*shape[:place], 1, *shape[place:])


@dataclass(frozen=True, kw_only=True)
class ExpandLastDimension(Layer):
    """Axes of length 1 appended until there are ``num_dims`` with the batch."""

    types = ("expandlastdimension",)
    num_dims: Count

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape with the new axes."""
        missing = self.num_dims - 1 - len(shape)
        if missing < 0:
            raise Misfit(f"has num_dims = {self.num_dims}, but its input {shape} has {len(shape) + 1} with the batch")
        return shape + (1,) * missing


@dataclass(frozen=True, kw_only=True)
class Resample(Layer):
    """Causal windowed-sinc lowpass and decimation of the last axis."""

    types = ("resample",)
    sr_input: Positive
    sr_output: Positive
    kwargs_fir_lowpass_filter: Lowpass

    def stride(self) -> int:
        """Return the decimation."""
        ratio = self.sr_input / self.sr_output
        if ratio != int(ratio):
            raise Misfit(f"has rates of {self.sr_input:g} and {self.sr_output:g} Hz, but their ratio must be whole")
        return int(ratio)

    def n_taps(self) -> int:
        """Return the length of the filter, an odd number."""
        n = int(self.sr_input * self.kwargs_fir_lowpass_filter["fir_dur"])
        return n + 1 - n % 2

    def cutoff(self) -> float:
        """Return the cut-off in Hz; half of the new rate unless given."""
        cutoff = self.kwargs_fir_lowpass_filter["cutoff"] or self.sr_output / 2
        if cutoff >= self.sr_input / 2:
            raise Misfit(f"has a cutoff of {cutoff:g} Hz, which must be below half of sr_input")
        return float(cutoff)

    def output_shape(self, shape: Shape) -> Shape:
        """Return (..., ceil(T / stride))."""
        self.cutoff()
        return (*shape[:-1], math.ceil(shape[-1] / self.stride()))


@dataclass(frozen=True, kw_only=True)
class Relu(Layer):
    """Half-wave rectification."""

    types = ("relu",)


@dataclass(frozen=True, kw_only=True)
class Reshape(Layer):
    """Only the identity: the shipped target names the axes that the input has already."""

    types = ("reshape",)
    target_shape: Target

    def output_shape(self, shape: Shape) -> Shape:
        """Return ``shape`` if the target, channels last, is the same."""
        last = (*shape[1:], shape[0])
        same = len(self.target_shape) == len(last) and self.target_shape.count(-1) <= 1
        if not same or any(t not in (-1, n) for t, n in zip(self.target_shape, last, strict=True)):
            raise Misfit(
                f"has target_shape = {list(self.target_shape)}, but its input is {list(last)}, channels last: "
                "only a reshape that changes nothing is supported"
            )
        return shape


@dataclass(frozen=True, kw_only=True)
class Branch(Layer):
    """The place where the heads part: every layer after it exists once per head."""

    types = ("branch", "fctop", "multifctopclassification")
    activation: Linear = None


LAYER_TYPES: dict[str, type[Layer]] = {
    name: kind
    for kind in (
        Conv,
        Dense,
        Dropout,
        Flatten,
        MaxPool,
        HannPool,
        BatchNorm,
        LayerNorm,
        Permute,
        Unsqueeze,
        ExpandLastDimension,
        Resample,
        Relu,
        Branch,
        Reshape,
    )
    for name in kind.types
}
