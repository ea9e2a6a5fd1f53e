"""State-space layers: the Legendre memory unit, a selective one (Mamba), and a diagonal linear one."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from psysim.models.neural import gated_kernels, scan_kernels
from psysim.models.neural.causal import Causal, Dense, State, uniform
from psysim.models.neural.recurrent import before, packed, weight_gradient
from psysim.ops.cpu.simd import LANES
from psysim.ops.cpu.tiles import flat, run_blocks

__all__ = ["LMU", "Mamba", "legendre_memory", "selective_scan"]


def legendre_memory(order: int, theta: float) -> tuple[Tensor, Tensor]:
    """Return the discrete state space that keeps the last ``theta`` frames as Legendre coefficients.

    Parameters
    ----------
    order : int
        Number of coefficients d.
    theta : float
        Length of the memory, frames.

    Returns
    -------
    Tensor (d, d), Tensor (d, 1)
        A and B of m[t] = A m[t-1] + B u[t], float64: zero-order hold with a step of one frame.

    References
    ----------
    Voelker, A., Kajic, I. and Eliasmith, C. (2019). Legendre memory units: continuous-time representation in recurrent
    neural networks. NeurIPS 32.

    Examples
    --------
    >>> a, b = legendre_memory(4, 99.0)
    >>> a.shape, b.shape
    (torch.Size([4, 4]), torch.Size([4, 1]))
    """
    i = torch.arange(order, dtype=torch.float64)
    sign = torch.where(i[:, None] < i, -1.0, (-1.0) ** (i[:, None] - i + 1))
    a = (2 * i[:, None] + 1) / theta * sign
    b = (2 * i + 1) * (-1.0) ** i / theta
    whole = torch.zeros(order + 1, order + 1, dtype=torch.float64)
    whole[:order, :order], whole[:order, order] = a, b
    held = torch.linalg.matrix_exp(whole)
    return held[:order, :order].clone(), held[:order, order:].clone()


class _Lmu(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, given: Tensor, share: Tensor, e_h: Tensor, e_m: Tensor, w_h: Tensor, w_m: Tensor, *rest: Tensor
    ) -> Any:
        a, b, first, first_memory = rest
        (batch, frames, units), order = given.shape, len(b)
        out, memory = torch.empty_like(given), given.new_empty(batch, frames, order)
        weights = packed(a.mT), flat(b), flat(e_h), flat(e_m), packed(w_h.mT), packed(w_m.mT)
        arrays = flat(given), flat(share), *weights, units, order, frames, flat(first), flat(first_memory)
        run_blocks(gated_kernels.lmu_forward, batch, *arrays, flat(out), flat(memory))
        ctx.save_for_backward(e_h, e_m, w_h, w_m, *rest, out, memory)
        return out, memory[:, -1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_memory: Tensor) -> Any:
        e_h, e_m, w_h, w_m, a, b, first, first_memory, out, memory = ctx.saved_tensors
        (batch, frames, units), order = out.shape, len(b)
        slope, slope_u = torch.empty_like(out), out.new_empty(batch, frames)
        begin, past = torch.zeros_like(out[:, 0]), torch.zeros_like(memory[:, 0])
        weights = packed(a), flat(b), flat(e_h), flat(e_m), packed(w_h), packed(w_m)
        arrays = flat(grad), flat(grad_memory), *weights, units, order, frames, flat(out)
        run_blocks(gated_kernels.lmu_backward, batch, *arrays, flat(slope), flat(slope_u), flat(begin), flat(past))
        earlier, remembered = before(first, out), before(first_memory, memory)
        of_e = [weight_gradient(slope_u[..., None], values)[0] for values in (earlier, remembered)]
        of_w = [weight_gradient(slope, values) for values in (earlier, memory)]
        return slope, slope_u, *of_e, *of_w, None, None, begin, past


_lmu: Any = _Lmu.apply


class LMU(Causal):
    """Legendre memory unit: tanh units beside a linear memory of one signal, Voelker et al. (2019).

        u = e_x x + e_h h + e_m m,   m = A m + B u,   h = tanh(W_x x + W_h h + W_m m)

    Parameters
    ----------
    inputs, units : int
        Sizes.
    order : int
        Coefficients of the memory.
    theta : float
        Length of the memory, frames.
    """

    A: Tensor
    B: Tensor

    def __init__(self, inputs: int, units: int, order: int = 128, theta: float = 99.0) -> None:
        super().__init__()
        self.cell = nn.Module()
        for name, shape in (
            ("e_x", (1, inputs)),
            ("e_h", (1, units)),
            ("e_m", (1, order)),
            ("W_x", (units, inputs)),
            ("W_h", (units, units)),
            ("W_m", (units, order)),
        ):
            self.cell.register_parameter(name, nn.Parameter(torch.empty(shape)))
        for name, value in zip("AB", legendre_memory(order, theta), strict=True):
            self.cell.register_buffer(name, value.float())

    def initialise(self, generator: torch.Generator) -> None:
        """Draw new weights: LeCun-uniform e_x and e_h, e_m = 0, Xavier-normal matrices."""
        for name, parameter in self.cell.named_parameters():
            if name == "e_m":
                nn.init.zeros_(parameter)
            elif name.startswith("e_"):
                bound = math.sqrt(3 / parameter.shape[1])
                uniform(parameter, -bound, bound, generator)
            else:
                drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.data.copy_(drawn * math.sqrt(2 / sum(parameter.shape)))

    def stream(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Return (B, H, T) for a block (B, inputs, T), and the states of units and memory."""
        cell: Any = self.cell
        units, order = cell.W_m.shape
        more, extra = -units % LANES, -order % LANES
        x = x.mT
        given, share = F.linear(x, cell.W_x), F.linear(x, cell.e_x)[..., 0]
        first = x.new_zeros(len(x), units) if state is None else state[0]
        memory = x.new_zeros(len(x), order) if state is None else state[1]
        if x.is_cuda:
            return self._frames(given, share, first, memory)
        wide, e_h = F.pad(given, (0, more)), F.pad(cell.e_h[0], (0, more))
        e_m, w_h = F.pad(cell.e_m[0], (0, extra)), F.pad(cell.W_h, (0, more, 0, more))
        w_m, a = F.pad(cell.W_m, (0, extra, 0, more)), F.pad(cell.A, (0, extra, 0, extra))
        starts = F.pad(first, (0, more)), F.pad(memory, (0, extra))
        y, end = _lmu(wide, share, e_h, e_m, w_h, w_m, a, F.pad(cell.B[:, 0], (0, extra)), *starts)
        y = y[..., :units]
        return y.mT, (y[:, -1], end[:, :order])

    def _frames(self, given: Tensor, share: Tensor, h: Tensor, m: Tensor) -> tuple[Tensor, State]:
        """Do the same frame by frame in torch: the definition, and what runs on a GPU, slowly."""
        cell: Any = self.cell
        frames = []
        for x, e in zip(given.unbind(1), share.unbind(1), strict=True):
            u = e[:, None] + h @ cell.e_h.mT + m @ cell.e_m.mT
            m = m @ cell.A.mT + u * cell.B[:, 0]
            h = torch.tanh(x + h @ cell.W_h.mT + m @ cell.W_m.mT)
            frames.append(h)
        return torch.stack(frames, -1), (h, m)


class _Selective(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, first: Tensor) -> Any:
        (batch, frames, channels), order = u.shape, len(a)
        y, end = torch.empty_like(u), torch.empty_like(first)
        arrays = flat(u), flat(dt), flat(a), flat(b), flat(c), channels, order, frames, flat(first)
        run_blocks(scan_kernels.selective_forward, batch, *arrays, flat(y), flat(end))
        ctx.save_for_backward(u, dt, a, b, c, first)
        return y, end

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_end: Tensor) -> Any:
        u, dt, a, b, c, first = ctx.saved_tensors
        (batch, frames, channels), order = u.shape, len(a)
        of_u, of_dt, of_first = torch.empty_like(u), torch.empty_like(dt), torch.empty_like(first)
        of_a, of_b, of_c = (
            u.new_zeros(batch, n, order, w) for n, w in ((1, channels), (frames, LANES), (frames, LANES))
        )
        arrays = flat(grad), flat(grad_end), flat(u), flat(dt), flat(a), flat(b), flat(c), channels, order, frames
        results = flat(of_u), flat(of_dt), flat(of_a), flat(of_b), flat(of_c), flat(of_first)
        run_blocks(scan_kernels.selective_backward, batch, *arrays, flat(first), *results)
        return of_u, of_dt, of_a.sum((0, 1)), of_b.sum(-1), of_c.sum(-1), of_first


_selective: Any = _Selective.apply


def selective_scan(
    u: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, first: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Run a selective state space over time: h[t] = exp(dt a) h[t-1] + dt u b, y = sum over n of c h.

    Parameters
    ----------
    u, dt : Tensor
        Input and step per channel, (B, T, C).
    a : Tensor
        Rates, (C, N), negative.
    b, c : Tensor
        What the channels share, (B, T, N).
    first : Tensor, optional
        State before the first frame, (B, N, C); zeros by default.

    Returns
    -------
    Tensor (B, T, C), Tensor (B, N, C)
        Output, and the state at the end.

    Examples
    --------
    >>> one = torch.ones(1, 3, 1)
    >>> selective_scan(one, one, torch.zeros(1, 1), one, one)[0].flatten()
    tensor([1., 2., 3.])
    """
    batch, _, channels = u.shape
    start = u.new_zeros(batch, a.shape[1], channels) if first is None else first
    if u.is_cuda:
        return _parallel_scan(u, dt, a, b, c, start)
    more = -channels % LANES
    y, end = _selective(
        *(F.pad(part, (0, more)).contiguous() for part in (u, dt, a.mT)), b, c, F.pad(start, (0, more)).contiguous()
    )
    return y[..., :channels], end[..., :channels]


def _parallel_scan(u: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """Do the same by doubling, in log2(T) passes of torch over (B, T, N, C)."""
    decay = torch.exp(dt[:, :, None] * a.mT)
    h = (dt * u)[:, :, None] * b[..., None]
    h = torch.cat([h[:, :1] + decay[:, :1] * first[:, None], h[:, 1:]], 1)
    step = 1
    while step < h.shape[1]:
        h = torch.cat([h[:, :step], h[:, step:] + decay[:, step:] * h[:, :-step]], 1)
        decay = torch.cat([decay[:, :step], decay[:, step:] * decay[:, :-step]], 1)
        step *= 2
    return torch.einsum("btnc,btn->btc", h, c), h[:, -1]


class Mamba(Causal):
    """Selective state space with a short convolution and a gate, Gu and Dao (2023), without norm and bypass.

    Parameters
    ----------
    units : int
        Size H of input and output.
    order : int
        States per channel.
    expansion : int
        Channels per unit.
    taps : int
        Frames of the convolution.

    References
    ----------
    Gu, A. and Dao, T. (2023). Mamba: linear-time sequence modeling with selective state spaces. arXiv:2312.00752.
    """

    def __init__(self, units: int, order: int = 16, expansion: int = 2, taps: int = 4) -> None:
        super().__init__()
        channels = expansion * units
        self.order, self.rank = order, math.ceil(units / 16)
        self.A_log = nn.Parameter(torch.log(torch.arange(1.0, order + 1)).repeat(channels, 1))
        self.D = nn.Parameter(torch.ones(channels))
        self.in_proj = Dense(units, 2 * channels, bias=False)
        self.conv1d: Any = nn.Module()
        self.conv1d.weight = nn.Parameter(torch.empty(channels, 1, taps))
        self.conv1d.bias = nn.Parameter(torch.empty(channels))
        self.x_proj = Dense(channels, self.rank + 2 * order, bias=False)
        self.dt_proj = Step(self.rank, channels)
        self.out_proj = Dense(channels, units, bias=False)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the convolution, uniform within 1/sqrt(taps), and reset what is not random."""
        for parameter in self.conv1d.parameters():
            bound = 1 / math.sqrt(self.conv1d.weight.shape[-1])
            uniform(parameter, -bound, bound, generator)

    def stream(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Return (B, H, T) for a block (B, H, T), and the last frames and states of the channels."""
        u, z = self.in_proj(x.mT).chunk(2, -1)
        weight, bias = self.conv1d.weight, self.conv1d.bias
        past = weight.shape[-1] - 1
        late = F.pad(u, (0, 0, past, 0)) if state is None else torch.cat([state[0], u], 1)
        frames = u.shape[1]
        mixed = bias + sum(weight[:, 0, i] * late[:, i : i + frames] for i in range(past + 1))
        u = F.silu(mixed)
        dt, b, c = self.x_proj(u).split([self.rank, self.order, self.order], -1)
        y, end = selective_scan(u, self.dt_proj(dt), -torch.exp(self.A_log), b, c, None if state is None else state[1])
        return self.out_proj((y + self.D * u) * F.silu(z)).mT, (late[:, late.shape[1] - past :], end)


class Step(Dense):
    """Step size of a selective state space: softplus of a linear layer."""

    def initialise(self, generator: torch.Generator) -> None:
        """Draw weights within 1/sqrt(inputs), and biases for steps from 0.001 to 0.1, uniform in their logarithm."""
        super().initialise(generator)
        assert self.bias is not None
        uniform(self.bias, math.log(1e-3), math.log(0.1), generator)
        with torch.no_grad():
            steps = self.bias.exp()
            self.bias.copy_(steps + torch.log(-torch.expm1(-steps)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the steps (..., outputs)."""
        return F.softplus(super().forward(x))
