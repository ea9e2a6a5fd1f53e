"""A diagonal linear state-space layer: damped complex exponentials per channel, after Gu et al. (2022)."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from psysim.models.neural import scan_kernels
from psysim.models.neural.causal import Causal, Dense, State, uniform
from psysim.ops.cpu.simd import LANES
from psysim.ops.cpu.tiles import flat, run_blocks

__all__ = ["DiagonalStateSpace", "diagonal_scan"]


class _Diagonal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, ar: Tensor, ai: Tensor, cr: Tensor, ci: Tensor, real: Tensor, imag: Tensor) -> Any:
        (batch, frames, channels), order = x.shape, len(ar)
        y, end_r, end_i = torch.empty_like(x), torch.empty_like(real), torch.empty_like(imag)
        arrays = flat(x), flat(ar), flat(ai), flat(cr), flat(ci), channels, order, frames, flat(real), flat(imag)
        run_blocks(scan_kernels.diagonal_forward, batch, *arrays, flat(y), flat(end_r), flat(end_i))
        ctx.save_for_backward(x, ar, ai, cr, ci, real, imag)
        return y, end_r, end_i

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_r: Tensor, grad_i: Tensor) -> Any:
        x, ar, ai, cr, ci, real, imag = ctx.saved_tensors
        (batch, frames, channels), order = x.shape, len(ar)
        of_x, of_matrices = torch.empty_like(x), x.new_empty(batch, 4, order, channels)
        of_begin = x.new_empty(2, batch, order, channels)
        arrays = flat(grad), flat(grad_r), flat(grad_i), flat(x), flat(ar), flat(ai), flat(cr), flat(ci)
        sizes = channels, order, frames, flat(real), flat(imag)
        run_blocks(
            scan_kernels.diagonal_backward, batch, *arrays, *sizes, flat(of_x), flat(of_matrices), flat(of_begin)
        )
        return of_x, *of_matrices.sum(0), *of_begin


_diagonal: Any = _Diagonal.apply


def diagonal_scan(x: Tensor, a: Tensor, c: Tensor, first: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Run diagonal state spaces over time: h[t] = a h[t-1] + x[t], y = Re(sum over n of c h).

    Parameters
    ----------
    x : Tensor
        Input, (B, T, H).
    a, c : Tensor
        Factor per frame and weight of each state, (H, N), complex.
    first : Tensor, optional
        State before the first frame, (B, H, N), complex; zeros by default.

    Returns
    -------
    Tensor (B, T, H), Tensor (B, H, N)
        Output, and the state at the end.

    Examples
    --------
    >>> half = torch.tensor([[0.5 + 0.0j]])
    >>> diagonal_scan(torch.ones(1, 3, 1), half, torch.ones_like(half))[0].flatten()
    tensor([1.0000, 1.5000, 1.7500])
    """
    start = a.new_zeros(len(x), *a.shape) if first is None else first
    if x.is_cuda:
        return _parallel_scan(x, a, c, start)
    channels = x.shape[-1]
    more = -channels % LANES
    parts = [F.pad(part.mT, (0, more)).contiguous() for m in (a, c, start) for part in (m.real, m.imag)]
    y, real, imag = _diagonal(F.pad(x, (0, more)).contiguous(), *parts)
    return y[..., :channels], torch.complex(real, imag)[..., :channels].mT


def _parallel_scan(x: Tensor, a: Tensor, c: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """Do the same as a convolution by FFT, and the state at the end as a sum over frames."""
    frames = x.shape[1]
    powers = a[..., None] ** torch.arange(frames + 1, device=x.device)
    kernel = torch.einsum("hn,hnt->ht", c, powers[..., :-1]).real
    size = 2 * frames
    y = torch.fft.irfft(torch.fft.rfft(x.mT, size) * torch.fft.rfft(kernel, size), size)[..., :frames]
    y = y + torch.einsum("hn,bhn,hnt->bht", c, first, powers[..., 1:]).real
    end = torch.einsum("bth,hnt->bhn", x.to(a.dtype), powers[..., :-1].flip(-1)) + first * powers[..., -1]
    return y.mT, end


class DiagonalStateSpace(Causal):
    """Diagonal linear state space per channel, a smooth rectifier, and a gated mixture of the channels.

        h = exp(dt A) h + (exp(dt A) - 1) / A x,   y = 2 Re(sum C h) + D x

    then GELU, a linear layer H -> 2 H, and its first half gated with the sigmoid of the second.

    Parameters
    ----------
    units : int
        Channels H.
    order : int
        Complex pole pairs per channel N; A starts at -1/2 + i pi n.
    shortest, longest : float
        Range of the initial steps dt, frames**-1, uniform in the logarithm.

    References
    ----------
    Gu, A., Gupta, A., Goel, K. and Re, C. (2022). On the parameterization and initialization of diagonal state space
    models. NeurIPS 35.
    """

    def __init__(self, units: int, order: int = 32, shortest: float = 1e-3, longest: float = 0.1) -> None:
        super().__init__()
        self.steps = (math.log(shortest), math.log(longest))
        self.log_dt = nn.Parameter(torch.empty(units))
        self.log_A_real = nn.Parameter(torch.full((units, order), math.log(0.5)))
        self.A_imag = nn.Parameter((math.pi * torch.arange(float(order))).repeat(units, 1))
        self.C = nn.Parameter(torch.empty(units, order, 2))
        self.D = nn.Parameter(torch.empty(units))
        self.output_linear = nn.Sequential(Dense(units, 2 * units), nn.GLU())

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the steps, C with unit variance, and D."""
        uniform(self.log_dt, *self.steps, generator)
        for parameter in (self.C, self.D):
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.data.copy_(drawn * (math.sqrt(0.5) if parameter is self.C else 1.0))

    def system(self) -> tuple[Tensor, Tensor]:
        """Return factors per frame and weights of the states, (H, N), complex."""
        rate = torch.complex(-torch.exp(self.log_A_real), self.A_imag)
        a = torch.exp(rate * torch.exp(self.log_dt)[:, None])
        return a, 2 * torch.view_as_complex(self.C) * (a - 1) / rate

    def stream(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Return (B, H, T) for a block (B, H, T), and the state of the channels."""
        y, end = diagonal_scan(x.mT, *self.system(), state)
        return self.mix(y.mT, x), end

    def mix(self, filtered: Tensor, x: Tensor) -> Tensor:
        """Return the output (B, H, T) for the state space's output and its input, both (B, H, T)."""
        direct = filtered.mT + self.D * x.mT
        return self.output_linear(F.gelu(direct)).mT
