"""A convolutional network over spectrograms, after Pennington and David (2023)."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from psysim.errors import SpecError
from psysim.models.neural.activations import make_activation
from psysim.models.neural.base import AudioEncodingModel, register
from psysim.models.neural.causal import Causal, ChannelNorm, State, uniform
from psysim.models.neural.readouts import LinearReadout

__all__ = ["ConvNet2D"]

LAYERS = 3


class Convolution2D(nn.Module):
    """Two-dimensional convolution without padding, its weights drawn from the model's seed."""

    def __init__(
        self, inputs: int, outputs: int, kernel_size: tuple[int, int], stride: tuple[int, int] = (1, 1)
    ) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(outputs, inputs, *kernel_size))
        self.bias = nn.Parameter(torch.empty(outputs))

    def initialise(self, generator: torch.Generator) -> None:
        """Draw new weights, uniform within 1/sqrt(fan-in)."""
        bound = 1 / math.sqrt(math.prod(self.weight.shape[1:]))
        uniform(self.weight, -bound, bound, generator)
        uniform(self.bias, -bound, bound, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, F', T') for ``x`` (B, inputs, F, T)."""
        if x.requires_grad and x.shape[1] > 1:  # with a gradient of the input torch is twice as fast so
            x = x.contiguous(memory_format=torch.channels_last)
        return F.conv2d(x, self.weight, self.bias, self.stride)


class Stack(nn.Sequential, Causal):
    """Layers behind one zero padding of ``past`` frames; its state is so many last frames of the input."""

    def __init__(self, past: int, *modules: nn.Module) -> None:
        super().__init__(nn.Identity(), *modules)
        self.past = past

    def stream(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Return the features (B, C F', T) for a block (B, C_in, F, T), and the frames that the next block needs."""
        padded = F.pad(x, (self.past, 0)) if state is None else torch.cat([state, x], -1)
        after = padded[..., padded.shape[-1] - self.past :]
        for module in self:
            padded = module(padded)
        return padded.flatten(1, 2), after

    def forward(self, x: Tensor) -> Tensor:
        """Return the features (B, C F', T) for whole sounds (B, C_in, F, T)."""
        return self.stream(x)[0]


@register("model", "convnet2d")
class ConvNet2D(AudioEncodingModel):
    """Three convolutions over frequency and time, and a hidden layer in the read-out.

    The receptive field is T = 3 (K_T - 1) + 1 frames. Silence is put in front of the first convolution only, so that in
    the later ones the time before the sound is what the first makes of silence.

    Parameters
    ----------
    n_frequency_bands : int
        Bands F.
    out_neurons : int
        Neurons N.
    kernel_size : tuple of int
        Bands K_F and frames K_T of each kernel.
    c_hidden : int
        Channels of each convolution.
    n_hidden : int
        Hidden units of the read-out.
    activation : {"softplus", "sigmoid", "double_exponential"} or None
        Output nonlinearity.
    **options
        See `Linear`.

    Raises
    ------
    SpecError
        If the bands are too few for three kernels.

    References
    ----------
    Pennington, J. R. and David, S. V. (2023). A convolutional neural network provides a generalizable model of natural
    sound coding by neural populations in auditory cortex. PLoS Comput. Biol. 19, e1011110.

    Examples
    --------
    >>> import torch
    >>> model = ConvNet2D(n_frequency_bands=18, out_neurons=5)
    >>> model(torch.zeros(2, 1, 18, 50)).shape
    torch.Size([2, 5, 1, 50])
    """

    def __init__(
        self,
        n_frequency_bands: int = 34,
        out_neurons: int = 1,
        *,
        kernel_size: tuple[int, int] = (3, 9),
        c_hidden: int = 10,
        n_hidden: int = 20,
        activation: str | None = "softplus",
        **options: Any,
    ) -> None:
        if len(kernel_size) != 2 or min(kernel_size) < 1:
            raise SpecError(f"kernel_size = {kernel_size!r} must be two positive integers: bands and frames.")
        bands, frames = kernel_size
        past = LAYERS * (frames - 1)
        super().__init__(n_frequency_bands, past + 1, out_neurons, **options)
        left = self.F - LAYERS * (bands - 1)
        if left < 1:
            raise SpecError(
                f"{self.F} bands are too few for {LAYERS} kernels of {bands} bands: {LAYERS * (bands - 1) + 1} or more."
            )
        self.H = n_hidden
        layers: list[nn.Module] = []
        for inputs in (self.C_in, *[c_hidden] * (LAYERS - 1)):
            layers += [Convolution2D(inputs, c_hidden, (bands, frames)), ChannelNorm(c_hidden), nn.LeakyReLU(0.1)]
        self.core = Stack(past, *layers)
        self.readout = LinearReadout(c_hidden * left, self.O, make_activation(activation, self.O), hidden=n_hidden)
        self.finish()
