"""Read-outs: from the output of a core to the responses of the neurons, (B, N, 1, T)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from psysim.models.neural.causal import Causal, Dense, State
from psysim.models.neural.kernels import CausalSTRF, Kernel

__all__ = ["LinearReadout", "NeuronNorm", "STRFReadout"]


class NeuronNorm(nn.Module):
    """Batch normalisation per neuron over the valid frames of a batch, (B, N, T).

    In training, frames that are only padding take no part in mean and variance, so padding a batch changes nothing.
    Running variances are unbiased; in evaluation the layer is an affine map with the running statistics.

    Parameters
    ----------
    n_neurons : int
        Number of neurons.
    eps : float
        Added to the variance.
    momentum : float
        Weight of a batch in the running statistics.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, n_neurons: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(n_neurons))
        self.bias = nn.Parameter(torch.zeros(n_neurons))
        self.register_buffer("running_mean", torch.zeros(n_neurons))
        self.register_buffer("running_var", torch.ones(n_neurons))

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return ``x`` (B, N, T) normalised; ``valid`` (B, T) marks the frames that count, all by default."""
        if not self.training or valid is None:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, self.training, self.momentum, self.eps
            )
        weight = valid[:, None].to(x.dtype)
        count = weight.sum()
        kept = torch.where(valid[:, None], x, 0)
        mean = kept.sum((0, 2)) / count
        deviation = torch.where(valid[:, None], x - mean[:, None], 0)
        variance = deviation.square().sum((0, 2)) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean.detach(), self.momentum)
            self.running_var.lerp_(variance.detach() * count / (count - 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return torch.addcmul((self.bias - mean * scale)[:, None], x, scale[:, None])


class STRFReadout(Causal):
    """Receptive field of each neuron, normalisation per neuron, output nonlinearity.

    Parameters
    ----------
    kernel : Kernel
        Receptive fields (N, C_in, F, T).
    activation : torch.nn.Module
        From (..., N) to (..., N).
    """

    takes_valid = True

    def __init__(self, kernel: Kernel, activation: nn.Module) -> None:
        super().__init__()
        self.strf = CausalSTRF(kernel)
        self.bn = NeuronNorm(kernel.shape[0])
        self.activation = activation

    def stream(self, x: Tensor, state: State = None, valid: Tensor | None = None) -> tuple[Tensor, State]:
        """Return the responses (B, N, 1, T) to a block (B, C_in, F, T), and the frames that the next block needs."""
        drive, end = self.strf.stream(x, state)
        return respond(self.bn(drive, valid), self.activation), end

    def folded_kernel(self) -> Tensor:
        """Return the receptive fields (N, C_in, F, T) as they act in evaluation: with the normalisation's factor."""
        factor = self.bn.weight * torch.rsqrt(self.bn.running_var + self.bn.eps)
        return self.strf.kernel.values() * factor[:, None, None, None]


class LinearReadout(nn.Module):
    """Weighted sums of features at each frame, optionally over a hidden layer, and an output nonlinearity.

    Parameters
    ----------
    features : int
        Size of the axis of features.
    n_neurons : int
        Number of neurons.
    activation : torch.nn.Module
        From (..., N) to (..., N).
    hidden : int, optional
        Units of a hidden layer, rectified with a slope of 0.1 below 0; without it there is none.
    """

    def __init__(self, features: int, n_neurons: int, activation: nn.Module, hidden: int | None = None) -> None:
        super().__init__()
        self.fc: nn.Module
        if hidden is None:
            self.fc = Dense(features, n_neurons)
        else:
            self.fc = nn.Sequential(Dense(features, hidden), nn.LeakyReLU(0.1), Dense(hidden, n_neurons))
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Return the responses (B, N, 1, T) to features (B, C, T) or (B, C, 1, T)."""
        x = x.squeeze(2) if x.ndim == 4 else x
        return self.activation(self.fc(x.mT)).mT[:, :, None]


def respond(drive: Tensor, activation: nn.Module) -> Tensor:
    """Return the responses (B, N, 1, T) to the drive (B, N, T)."""
    if not isinstance(activation, nn.Identity):
        drive = activation(drive.mT).mT
    return drive[:, :, None]
