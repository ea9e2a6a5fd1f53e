"""Causal modules: what they answer to the past is kept in an explicit state, so that a sound can come in blocks.

Every module with a memory along time is a `Causal`. Its state is what it needs of the past: None before the first
frame, then whatever the module returned, a tensor or a (nested) tuple of tensors. ``forward`` is one block from the
beginning.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from psysim.models.neural.norm_kernels import norm_backward, norm_forward
from psysim.ops.cpu.tiles import flat, run_blocks

__all__ = ["Causal", "CausalSequential", "ChannelNorm", "Dense", "State", "detached", "initialise", "stream", "uniform"]

State: TypeAlias = Any
"""None, a tensor, or a (nested) tuple or dict of states."""


class Causal(nn.Module, ABC):
    """A module whose output at a frame depends on this frame and earlier ones."""

    @abstractmethod
    def stream(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Return the output for a block of frames, and the state after it.

        Parameters
        ----------
        x : Tensor
            Block of frames, time last.
        state : State
            As returned for the block before; None at the beginning of a sound.

        Returns
        -------
        Tensor
            Output for the block, time last.
        State
            What the next block needs of this one and of those before.
        """

    def forward(self, x: Tensor) -> Tensor:
        """Return the output for a whole sound."""
        return self.stream(x)[0]


def stream(module: nn.Module, x: Tensor, state: State = None) -> tuple[Tensor, State]:
    """Return the output of a module for a block, and its state: None for a module without a memory."""
    return module.stream(x, state) if isinstance(module, Causal) else (module(x), None)


def detached(state: State) -> State:
    """Return a state without the graph behind it: gradients end at the block's beginning."""
    if isinstance(state, Tensor):
        return state.detach()
    if isinstance(state, dict):
        return {name: detached(part) for name, part in state.items()}
    if isinstance(state, tuple):
        return tuple(detached(part) for part in state)
    return state


class CausalSequential(nn.Sequential, Causal):
    """Modules one after the other; its state is the tuple of theirs."""

    def stream(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Return the output for a block of frames, and the states of all modules after it."""
        states = [None] * len(self) if state is None else state
        after = []
        for module, before in zip(self, states, strict=True):
            x, end = stream(module, x, before)
            after.append(end)
        return x, tuple(after)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output for a whole sound."""
        for module in self:
            x = module(x)
        return x


class _Norm(torch.autograd.Function):
    """LayerNorm over axis 1 of (O, C, I) on the CPU: torch's own is slow where the last axis is another."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        outer, channels, positions = x.shape
        x = x.contiguous()
        y, means, scales = torch.empty_like(x), x.new_empty(outer, positions), x.new_empty(outer, positions)
        arrays = flat(x), flat(weight), flat(bias), channels, positions, eps, flat(y), flat(means), flat(scales)
        run_blocks(norm_forward, outer, *arrays)
        ctx.save_for_backward(x, weight, means, scales)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, means, scales = ctx.saved_tensors
        outer, channels, positions = x.shape
        slope, of_weight, of_bias = torch.empty_like(x), x.new_empty(outer, channels), x.new_empty(outer, channels)
        arrays = flat(grad), flat(x), flat(weight), channels, positions, flat(means), flat(scales)
        run_blocks(norm_backward, outer, *arrays, flat(slope), flat(of_weight), flat(of_bias))
        return slope, of_weight.sum(0), of_bias.sum(0), None


_norm: Any = _Norm.apply


class ChannelNorm(nn.Module):
    """LayerNorm over one axis at every other position alone, so that it never mixes frames.

    Parameters
    ----------
    channels : int
        Size of the axis.
    axis : int
        Which axis, 1 by default: (B, C, ...).
    """

    def __init__(self, channels: int, axis: int = 1) -> None:
        super().__init__()
        self.axis = axis
        self.ln = nn.LayerNorm(channels, eps=1e-5)  # weights of 1, biases of 0: nothing random

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` with mean 0 and variance 1 along the axis, then scaled and shifted per channel."""
        if x.is_cuda:
            return self.ln(x.movedim(self.axis, -1)).movedim(-1, self.axis)
        first = x.movedim(self.axis, 1)
        y = _norm(first.flatten(2), self.ln.weight, self.ln.bias, self.ln.eps)
        return y.view(first.shape).movedim(1, self.axis)


class Dense(nn.Module):
    """A linear layer over the last axis, initialised from the model's own seed: uniform within 1/sqrt(inputs).

    Parameters
    ----------
    inputs, outputs : int
        Sizes of the last axis.
    bias : bool
        Whether it has a bias.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None

    def initialise(self, generator: torch.Generator) -> None:
        """Draw new weights."""
        bound = 1 / math.sqrt(self.weight.shape[1])
        uniform(self.weight, -bound, bound, generator)
        if self.bias is not None:
            uniform(self.bias, -bound, bound, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., outputs) for ``x`` (..., inputs)."""
        return F.linear(x, self.weight, self.bias)


def uniform(parameter: Tensor, low: float, high: float, generator: torch.Generator) -> None:
    """Fill a parameter with uniform numbers, the same for float32 and float64, on any device."""
    drawn = torch.rand(parameter.shape, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        parameter.copy_(low + (high - low) * drawn)


def initialise(module: nn.Module, seed: int) -> None:
    """Draw the weights of a module and all its parts from a seed, without any global random generator.

    Parameters
    ----------
    module : torch.nn.Module
        Its parts that have a method ``initialise(generator)`` are initialised in their order.
    seed : int
        Seed: the same weights for the same module.
    """
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        draw = getattr(part, "initialise", None)
        if draw is not None:
            draw(generator)
