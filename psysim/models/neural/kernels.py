"""Receptive fields over frequency and time: the causal convolution, and three forms of its kernel."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from psysim.errors import check_option
from psysim.models.neural.causal import Causal, State, uniform

__all__ = ["KERNELS", "CausalSTRF", "FullKernel", "GaussianMixtureKernel", "Kernel", "SeparableKernel", "make_kernel"]


class Kernel(nn.Module, ABC):
    """A kernel over frequency and time; index T - 1 of its time axis is the present frame, index 0 the oldest.

    Attributes
    ----------
    shape : tuple of int
        (C_out, C_in, F, T).
    bias : Parameter (C_out,)
        What the convolution adds.
    """

    bias: nn.Parameter

    def __init__(self, out_channels: int, in_channels: int, n_frequency_bands: int, n_frames: int) -> None:
        super().__init__()
        self.shape = (out_channels, in_channels, n_frequency_bands, n_frames)

    @abstractmethod
    def values(self) -> Tensor:
        """Return the kernel (C_out, C_in, F, T)."""

    @abstractmethod
    def initialise(self, generator: torch.Generator) -> None:
        """Draw new weights."""

    def forward(self) -> Tensor:
        """Return the kernel (C_out, C_in, F, T)."""
        return self.values()


class FullKernel(Kernel):
    """One weight per frequency and frame; all uniform within 1/sqrt(C_in F T) at first."""

    def __init__(self, out_channels: int, in_channels: int, n_frequency_bands: int, n_frames: int) -> None:
        super().__init__(out_channels, in_channels, n_frequency_bands, n_frames)
        self.weight = nn.Parameter(torch.empty(self.shape))
        self.bias = nn.Parameter(torch.empty(out_channels))

    def initialise(self, generator: torch.Generator) -> None:
        """Draw new weights."""
        bound = 1 / math.sqrt(math.prod(self.shape[1:]))
        uniform(self.weight, -bound, bound, generator)
        uniform(self.bias, -bound, bound, generator)

    def values(self) -> Tensor:
        """Return the kernel (C_out, C_in, F, T)."""
        return self.weight


class SeparableKernel(Kernel):
    """A product of a spectral and a temporal weighting (rank 1) per channel pair."""

    def __init__(self, out_channels: int, in_channels: int, n_frequency_bands: int, n_frames: int) -> None:
        super().__init__(out_channels, in_channels, n_frequency_bands, n_frames)
        self.weight_f = nn.Parameter(torch.empty(out_channels, in_channels, n_frequency_bands, 1))
        self.weight_t = nn.Parameter(torch.empty(out_channels, in_channels, 1, n_frames))
        self.bias = nn.Parameter(torch.empty(out_channels))

    def initialise(self, generator: torch.Generator) -> None:
        """Draw new weights: uniform with the variance 2 / fan-in (Kaiming); biases within 1."""
        for weight in (self.weight_f, self.weight_t):
            bound = math.sqrt(6 / math.prod(weight.shape[1:]))
            uniform(weight, -bound, bound, generator)
        uniform(self.bias, -1, 1, generator)

    def values(self) -> Tensor:
        """Return the kernel (C_out, C_in, F, T)."""
        return self.weight_f * self.weight_t


class GaussianMixtureKernel(Kernel):
    """A weighted sum of Gaussians with learnt centres and widths ("dilated convolution with learnable spacings").

        K(f, t) = sum_g weight_g ghat_g(f, t),   ghat ~ exp(-((f - P_0) / s_f)^2 / 2 - ((t - P_1) / s_t)^2 / 2)

    with s = abs(SIG) + 0.27 bands or frames, and a sum of ghat over the grid of 1. Centres that leave the grid are
    taken at its edge: outside, the Gaussian would lose its mass, and with it the gradient that could bring it back.

    Parameters
    ----------
    out_channels, in_channels, n_frequency_bands, n_frames : int
        Shape of the kernel.
    n_gaussians : int
        Gaussians per pair of channels.

    References
    ----------
    Khalfaoui-Hassani, I., Pellegrini, T. and Masquelier, T. (2023). Dilated convolution with learnable spacings: beyond
    bilinear interpolation. ICML workshop on differentiable almost everything.
    """

    def __init__(
        self, out_channels: int, in_channels: int, n_frequency_bands: int, n_frames: int, n_gaussians: int = 1
    ) -> None:
        super().__init__(out_channels, in_channels, n_frequency_bands, n_frames)
        self.P = nn.Parameter(torch.empty(2, out_channels, in_channels, n_gaussians))
        self.SIG = nn.Parameter(torch.ones(2, out_channels, in_channels, n_gaussians))
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, n_gaussians))
        self.bias = nn.Parameter(torch.empty(out_channels))

    def initialise(self, generator: torch.Generator) -> None:
        """Draw new centres (uniform on the grid), weights (within 1/sqrt(C_in G)) and biases (within 1)."""
        for axis in range(2):
            uniform(self.P.data[axis], 0, self.shape[2 + axis] - 1, generator)
        bound = 1 / math.sqrt(math.prod(self.weight.shape[1:]))
        uniform(self.weight, -bound, bound, generator)
        uniform(self.bias, -1, 1, generator)
        with torch.no_grad():
            self.SIG.fill_(1.0)

    def values(self) -> Tensor:
        """Return the kernel (C_out, C_in, F, T)."""
        profiles = [self._profile(axis) for axis in range(2)]
        weight = self.weight / (profiles[0].sum(-1) * profiles[1].sum(-1) + 1e-7)
        return torch.einsum("ncg,ncgf,ncgt->ncft", weight, *profiles)

    def _profile(self, axis: int) -> Tensor:
        size = self.shape[2 + axis]
        position = self.P[axis]
        inside = position.clamp(0, size - 1)
        # The value is that at the edge; the gradient is that of the position, so that a centre outside can come back.
        centre = position + (inside - position).detach()
        grid = torch.arange(size, dtype=position.dtype, device=position.device)
        return torch.exp(-0.5 * ((grid - centre[..., None]) / (self.SIG[axis].abs() + 0.27)[..., None]) ** 2)


KERNELS: dict[str, type[Kernel]] = {
    "full": FullKernel,
    "separable": SeparableKernel,
    "gaussian": GaussianMixtureKernel,
}


def make_kernel(
    kind: str, out_channels: int, in_channels: int, n_frequency_bands: int, n_frames: int, n_gaussians: int = 1
) -> Kernel:
    """Return a kernel by name.

    Parameters
    ----------
    kind : {"full", "separable", "gaussian"}
        Form of the kernel.
    out_channels, in_channels, n_frequency_bands, n_frames : int
        Its shape.
    n_gaussians : int
        Gaussians per pair of channels, for "gaussian".

    Returns
    -------
    Kernel
        Its weights are not yet drawn.

    Raises
    ------
    SpecError
        For an unknown name.
    """
    check_option("kernel", kind, KERNELS)
    shape = (out_channels, in_channels, n_frequency_bands, n_frames)
    return GaussianMixtureKernel(*shape, n_gaussians) if kind == "gaussian" else KERNELS[kind](*shape)


class CausalSTRF(Causal):
    """Convolution of spectrograms with kernels over all frequencies, with silence before the first frame.

        y[b, n, t] = bias_n + sum_{c, f, i} K[n, c, f, i] x[b, c, f, t - (T - 1) + i]

    Parameters
    ----------
    kernel : Kernel
        Kernels (C_out, C_in, F, T).
    """

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        self.kernel = kernel

    def stream(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Return (B, C_out, T) for a block (B, C_in, F, T), and the last frames, (B, C_in F, T_kernel - 1)."""
        weight = self.kernel.values().flatten(1, 2)
        x = x.flatten(1, 2)
        past = weight.shape[-1] - 1
        padded = F.pad(x, (past, 0)) if state is None else torch.cat([state, x], -1)
        after = padded[..., padded.shape[-1] - past :]
        if padded.requires_grad:
            return F.conv1d(padded, weight, self.kernel.bias), after
        # Without a gradient of the input torch is faster in two dimensions, with it four times slower.
        return F.conv2d(padded[:, None], weight[:, None], self.kernel.bias)[:, :, 0], after
