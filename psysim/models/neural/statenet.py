"""StateNet: a spectral encoder per frame and one recurrent layer, Rancon et al. (2025)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from psysim.errors import SpecError, check_option
from psysim.models.neural.activations import make_activation
from psysim.models.neural.base import AudioEncodingModel, register
from psysim.models.neural.causal import Causal, CausalSequential, ChannelNorm, Dense, uniform
from psysim.models.neural.diagonal import DiagonalStateSpace
from psysim.models.neural.readouts import LinearReadout
from psysim.models.neural.recurrent import GRU, LSTM, RNN
from psysim.models.neural.state_space import LMU, Mamba

__all__ = ["CONNECTIVITIES", "RECURRENT", "LocallyConnected1d", "StateNet"]

CONNECTIVITIES = ("LC", "FC", "CONV")
RECURRENT: dict[str, Callable[[int], Causal]] = {
    "GRU": lambda units: GRU(units, units),
    "LSTM": lambda units: LSTM(units, units),
    "RNN": lambda units: RNN(units, units),
    "LMU": lambda units: LMU(units, units),
    "Mamba": Mamba,
    "Diagonal": DiagonalStateSpace,
}


class LocallyConnected1d(nn.Module):
    """A one-dimensional convolution with weights of its own at every position.

    Parameters
    ----------
    input_size : int
        Size S of the axis.
    in_channels, out_channels : int
        Channels.
    kernel_size, stride : int
        Of the convolution: L = floor((S - kernel_size) / stride) + 1 positions.

    Raises
    ------
    SpecError
        If the kernel is wider than the axis.

    Examples
    --------
    >>> LocallyConnected1d(34, 2, 4, 7, 3)(torch.zeros(3, 2, 34)).shape
    torch.Size([3, 4, 10])
    """

    def __init__(self, input_size: int, in_channels: int, out_channels: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        positions = positions_of(input_size, kernel_size, stride)
        self.kernel_size, self.stride = kernel_size, stride
        self.weights = nn.Parameter(torch.zeros(out_channels, in_channels * kernel_size, positions))
        self.biases = nn.Parameter(torch.zeros(out_channels, positions))

    def initialise(self, generator: torch.Generator) -> None:
        """Draw new weights and biases, uniform within 1/sqrt(fan-in)."""
        bound = 1 / math.sqrt(self.weights.shape[1])
        uniform(self.weights, -bound, bound, generator)
        uniform(self.biases, -bound, bound, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C_out, L) for ``x`` (B, C_in, S)."""
        return self.every_frame(x[..., None]).permute(2, 1, 0)

    def every_frame(self, x: Tensor) -> Tensor:
        """Return (L, C_out, B T) for ``x`` (B, C_in, S, T)."""
        local = patches(x, self.kernel_size, self.stride)
        return torch.baddbmm(self.biases.T[..., None], self.weights.permute(2, 0, 1), local)


def patches(x: Tensor, kernel_size: int, stride: int) -> Tensor:
    """Return the inputs of each position, (L, C_in kernel_size, B T), of ``x`` (B, C_in, S, T)."""
    return x.unfold(2, kernel_size, stride).permute(2, 1, 4, 0, 3).flatten(3).flatten(1, 2)


def positions_of(size: int, kernel_size: int, stride: int) -> int:
    """Return how many positions a kernel has on an axis, or raise `SpecError` if it has none."""
    if min(kernel_size, stride) < 1 or kernel_size > size:
        raise SpecError(f"kernel_size = {kernel_size} and stride = {stride} must be 1 or more, and fit {size} bands.")
    return (size - kernel_size) // stride + 1


class Full(nn.Module):
    """All bands to all positions: (B, C_in, F, T) to (L, C, B T)."""

    def __init__(self, inputs: int, channels: int, positions: int) -> None:
        super().__init__()
        self.channels = channels
        self.dense = Dense(inputs, channels * positions)

    def forward(self, x: Tensor) -> Tensor:
        """Return (L, C, B T) for ``x`` (B, C_in, F, T)."""
        y = self.dense(x.permute(0, 3, 1, 2).flatten(2).flatten(0, 1))
        return y.view(len(y), self.channels, -1).permute(2, 1, 0)


class Shared(nn.Module):
    """The same kernel at all positions: (B, C_in, F, T) to (L, C, B T)."""

    def __init__(self, inputs: int, channels: int, kernel_size: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(channels, inputs, kernel_size))
        self.bias = nn.Parameter(torch.empty(channels))

    def initialise(self, generator: torch.Generator) -> None:
        """Draw new weights, uniform within 1/sqrt(fan-in)."""
        bound = 1 / math.sqrt(self.weight[0].numel())
        uniform(self.weight, -bound, bound, generator)
        uniform(self.bias, -bound, bound, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Return (L, C, B T) for ``x`` (B, C_in, F, T)."""
        local = patches(x, self.weight.shape[2], self.stride)
        return torch.matmul(self.weight.flatten(1), local) + self.bias[:, None]


class SpectralEncoder(nn.Module):
    """Every frame alone: connections over frequency, LayerNorm, sigmoid; (B, C_in, F, T) to (B, C L, T)."""

    def __init__(self, connections: nn.Module, channels: int) -> None:
        super().__init__()
        self.connections = connections
        self.norm = ChannelNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C L, T)."""
        batch, frames = x.shape[0], x.shape[3]
        connect = self.connections.every_frame if isinstance(self.connections, LocallyConnected1d) else self.connections
        y = torch.sigmoid(self.norm(connect(x)))
        return y.view(*y.shape[:2], batch, frames).permute(2, 1, 0, 3).flatten(1, 2)


@register("model", "statenet")
class StateNet(AudioEncodingModel):
    """Connections over frequency in every frame, one recurrent layer over frames, and neurons that sum its units.

    Parameters
    ----------
    n_frequency_bands : int
        Bands F.
    out_neurons : int
        Neurons N.
    connectivity : {"LC", "FC", "CONV"}
        Over frequency: locally connected, fully connected, convolution.
    kernel_size, stride : int
        Bands of a local connection, and between two: L = floor((F - kernel_size) / stride) + 1 positions.
    hidden_channels : int
        Channels C; there are H = C L recurrent units.
    rnn_type : {"GRU", "LSTM", "RNN", "LMU", "Mamba", "Diagonal"}
        Recurrent layer; "Diagonal" is a linear diagonal state space with a gated mixture.
    activation : {"softplus", "sigmoid", "double_exponential"} or None
        Output nonlinearity.
    **options
        See `Linear`.

    References
    ----------
    Rancon, U., Masquelier, T. and Cottereau, B. R. (2025). Temporal recurrence as a general mechanism to explain neural
    responses in the auditory system. Commun. Biol. 8, doi 10.1038/s42003-025-08858-3.

    Examples
    --------
    >>> model = StateNet(n_frequency_bands=34, out_neurons=5, rnn_type="GRU")
    >>> model(torch.zeros(2, 1, 34, 50)).shape
    torch.Size([2, 5, 1, 50])
    """

    published_names: ClassVar[dict[str, str]] = {
        "encoder_layers.0.": "core.0.connections.",
        "encoder_layers.1.ln.": "core.0.norm.ln.",
        "encoder_layers.1.weight": "core.0.connections.dense.weight",
        "encoder_layers.1.bias": "core.0.connections.dense.bias",
        "encoder_layers.3.": "core.0.norm.",
        "rnn.": "core.1.",
    }

    def __init__(
        self,
        n_frequency_bands: int = 34,
        out_neurons: int = 1,
        *,
        connectivity: str = "LC",
        kernel_size: int = 7,
        stride: int = 3,
        hidden_channels: int = 7,
        rnn_type: str = "GRU",
        activation: str | None = "softplus",
        **options: Any,
    ) -> None:
        super().__init__(n_frequency_bands, 1, out_neurons, **options)
        check_option("connectivity", connectivity, CONNECTIVITIES)
        check_option("rnn_type", rnn_type, RECURRENT)
        positions = positions_of(self.F, kernel_size, stride)
        connections: nn.Module
        if connectivity == "LC":
            connections = LocallyConnected1d(self.F, self.C_in, hidden_channels, kernel_size, stride)
        elif connectivity == "FC":
            connections = Full(self.C_in * self.F, hidden_channels, positions)
        else:
            connections = Shared(self.C_in, hidden_channels, kernel_size, stride)
        self.H = hidden_channels * positions
        self._positive("H")
        self.core = CausalSequential(SpectralEncoder(connections, hidden_channels), RECURRENT[rnn_type](self.H))
        self.readout = LinearReadout(self.H, self.O, make_activation(activation, self.O))
        self.finish()
