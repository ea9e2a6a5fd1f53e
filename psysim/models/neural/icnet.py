"""ICNet: a convolutional encoder of waveforms for the inferior colliculus, after Drakopoulos et al. (2025)."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from psysim.errors import SpecError
from psysim.models.neural.base import AudioEncodingModel, register
from psysim.models.neural.causal import CausalSequential, Dense, State, initialise, uniform
from psysim.models.neural.front_end import FrontEnd, check_band, logarithmic, with_past
from psysim.models.neural.learnt_front_ends import SincFilters

__all__ = ["ICNet", "ICNetEncoder", "factors"]


def factors(hop: int, layers: int) -> list[int]:
    """Return strides whose product is ``hop``: as many twos as divide it, the rest last.

    Parameters
    ----------
    hop : int
        Samples per frame.
    layers : int
        Number of strides.

    Returns
    -------
    list of int
        The strides.

    Examples
    --------
    >>> factors(240, 5)
    [2, 2, 2, 2, 15]
    """
    strides = []
    for _ in range(layers - 1):
        strides.append(2 if hop % 2 == 0 else 1)
        hop //= strides[-1]
    return [*strides, hop]


class Block(nn.Module):
    """A strided convolution with a rectifier of learnt slope per channel."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.stride, self.past = stride, max(0, kernel_size - stride)
        self.conv: Any = nn.Module()
        self.conv.weight = nn.Parameter(torch.empty(outputs, inputs, kernel_size))
        self.conv.bias = nn.Parameter(torch.empty(outputs))
        self.activation: Any = nn.Module()
        self.activation.weight = nn.Parameter(torch.full((outputs,), 0.25))

    def initialise(self, generator: torch.Generator) -> None:
        """Draw new weights, uniform within 1/sqrt(fan-in)."""
        bound = 1 / math.sqrt(self.conv.weight[0].numel())
        uniform(self.conv.weight, -bound, bound, generator)
        uniform(self.conv.bias, -bound, bound, generator)

    def stream(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return (B, outputs, T / stride) for (B, inputs, T), and the samples that the next block needs."""
        longer, after = with_past(x, self.past, state)
        y = F.conv1d(longer, self.conv.weight, self.conv.bias, self.stride)
        return F.prelu(y, self.activation.weight), after


@register("front_end", "icnet")
class ICNetEncoder(FrontEnd):
    """Learnt band-pass filters and strided convolutions, from a waveform to a bottleneck.

    Parameters
    ----------
    audio_fs, dt_ms
        See `FrontEnd`.
    n_filters, sincnet_kernel_size : int
        Band-pass filters and their taps.
    encoder_channels, encoder_kernel_size, n_encoder_layers : int
        Strided convolutions.
    bottleneck_channels : int
        Channels of the output.
    seed : int
        Seed of the initial weights.

    Raises
    ------
    SpecError
        If a frame does not divide into strides, or a number is out of range.
    """

    def __init__(
        self,
        audio_fs: float = 24000.0,
        dt_ms: float = 5.0,
        n_filters: int = 48,
        sincnet_kernel_size: int = 64,
        encoder_channels: int = 128,
        encoder_kernel_size: int = 64,
        n_encoder_layers: int = 5,
        bottleneck_channels: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__(audio_fs, dt_ms, bottleneck_channels)
        if min(n_filters, sincnet_kernel_size - 1, encoder_channels, encoder_kernel_size, n_encoder_layers) < 1:
            raise SpecError("Filters, channels, layers and kernels of an encoder must be at least 1, sinc kernels 2.")
        top = check_band(300.0, None, audio_fs)
        self.sincnet = SincFilters(n_filters, sincnet_kernel_size, 300.0, top, audio_fs)
        strides = factors(self.hop, n_encoder_layers)
        if strides[-1] > encoder_kernel_size:
            raise SpecError(
                f"A frame of {self.hop} samples needs a stride of {strides[-1]}, more than the kernel of "
                f"{encoder_kernel_size}: samples would be left out. Take more layers or another frame."
            )
        sizes = [n_filters, *[encoder_channels] * n_encoder_layers]
        self.encoder = nn.ModuleList(
            Block(inputs, encoder_channels, encoder_kernel_size, stride)
            for inputs, stride in zip(sizes[:-1], strides, strict=True)
        )
        self.bottleneck = Block(encoder_channels, bottleneck_channels, encoder_kernel_size, 1)
        initialise(self, seed)

    def analyse(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the bottleneck (B, C, T) of a block, and the samples that the next block needs."""
        states = (None,) * (len(self.encoder) + 2) if state is None else state
        kernels = self.sincnet()[:, None]
        longer, after = with_past(x, kernels.shape[-1] - 1, states[0])
        y = logarithmic(F.conv1d(longer, kernels))
        ends = [after]
        for block, before in zip([*self.encoder, self.bottleneck], states[1:], strict=True):
            assert isinstance(block, Block)
            y, after = block.stream(y, before)
            ends.append(after)
        return y, tuple(ends)


class Features(nn.Module):
    """Spectrograms (B, 1, C, T) as features (B, C, T)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, T)."""
        return x.flatten(1, 2)


class Decoder(Dense):
    """Non-negative responses, softplus of weighted sums: (B, C, T) to (B, N, 1, T)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the responses."""
        return F.softplus(super().forward(x.mT)).mT[:, :, None]


@register("model", "icnet")
class ICNet(AudioEncodingModel):
    """Waveform to responses in the inferior colliculus; all of it is learnt.

    Parameters
    ----------
    out_neurons : int
        Neurons N.
    audio_fs, dt_ms, n_filters, sincnet_kernel_size, encoder_channels, encoder_kernel_size, n_encoder_layers
        See `ICNetEncoder`.
    bottleneck_channels : int
        Channels between encoder and neurons; they take the place of the bands F.
    **options
        ``prefiltering``, ``full_scale_db_spl``, ``seed``: see `AudioEncodingModel`.

    References
    ----------
    Drakopoulos, F., Pellegrini, L., Sabesan, S., Xia, Y., Fragner, A. and Lesica, N. A. (2025). Modelling neural
    coding in the auditory midbrain with high resolution and accuracy. Nat. Mach. Intell. 7.

    Examples
    --------
    >>> model = ICNet(5, audio_fs=16000, dt_ms=2.0, n_filters=8, encoder_channels=8, encoder_kernel_size=16)
    >>> model(torch.zeros(2, 1, 768)).shape
    torch.Size([2, 5, 1, 24])
    """

    published_names: ClassVar[dict[str, str]] = {"decoder.": "readout."}

    def __init__(
        self,
        out_neurons: int = 1,
        *,
        audio_fs: float = 24000.0,
        dt_ms: float = 5.0,
        n_filters: int = 48,
        sincnet_kernel_size: int = 64,
        encoder_channels: int = 128,
        encoder_kernel_size: int = 64,
        n_encoder_layers: int = 5,
        bottleneck_channels: int = 64,
        **options: Any,
    ) -> None:
        encoder = ICNetEncoder(
            audio_fs,
            dt_ms,
            n_filters,
            sincnet_kernel_size,
            encoder_channels,
            encoder_kernel_size,
            n_encoder_layers,
            bottleneck_channels,
            options.get("seed", 0),
        )
        super().__init__(bottleneck_channels, 1, out_neurons, wav2spec=encoder, **options)
        self.core = CausalSequential(Features())
        self.readout = Decoder(self.C_in * bottleneck_channels, self.O)
        self.finish()
