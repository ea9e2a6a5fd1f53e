"""Gated and plain recurrent layers, with their weights named as in torch.nn: GRU, LSTM, RNN.

On the CPU each is one operator over all frames; on a GPU they are those of torch.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from psysim.models.neural import gated_kernels as kernels
from psysim.models.neural.causal import Causal, State, uniform
from psysim.ops.cpu.simd import LANES
from psysim.ops.cpu.tiles import flat, run_blocks

__all__ = ["GRU", "LSTM", "RNN", "before", "packed", "padded", "weight_gradient"]


def padded(matrix: Tensor, groups: int, inputs: int) -> Tensor:
    """Return a matrix (G H, K) with zeros for units that fill up H and K to multiples of `LANES`.

    Parameters
    ----------
    matrix : Tensor
        (G H, K): G gates of H units.
    groups : int
        Number of gates G.
    inputs : int
        Wanted size of the last axis; K for none.

    Returns
    -------
    Tensor
        (G H', inputs).
    """
    units = matrix.shape[0] // groups
    parts = matrix.reshape(groups, units, matrix.shape[1])
    return F.pad(parts, (0, inputs - matrix.shape[1], 0, -units % LANES)).flatten(0, 1)


def packed(matrix: Tensor) -> Any:
    """Return a matrix (K, J) of K inputs and J outputs as the kernels read it: flat, (J / LANES, K, LANES)."""
    return flat(matrix.reshape(len(matrix), -1, LANES).transpose(0, 1))


def before(first: Tensor, out: Tensor) -> Tensor:
    """Return the states before each frame, (B, T, H), from the first (B, H) and those after each frame."""
    return torch.cat([first[:, None], out[:, :-1]], 1)


def weight_gradient(slope: Tensor, inputs: Tensor) -> Tensor:
    """Return the gradient (G, K) of a matrix applied to ``inputs`` (B, T, K), given that of its output (B, T, G)."""
    return slope.flatten(0, 1).mT @ inputs.flatten(0, 1)


class _Rnn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, given: Tensor, weight: Tensor, first: Tensor) -> Tensor:
        batch, frames, units = given.shape
        out = torch.empty_like(given, memory_format=torch.contiguous_format)
        arrays = flat(given), packed(weight.mT), units, frames, flat(first), flat(out)
        run_blocks(kernels.rnn_forward, -(-batch // kernels.ROWS), *arrays)
        ctx.save_for_backward(weight, first, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        weight, first, out = ctx.saved_tensors
        batch, frames, units = out.shape
        slope, begin = torch.empty_like(out), torch.zeros_like(first, memory_format=torch.contiguous_format)
        arrays = flat(grad), packed(weight), units, frames, flat(out), flat(slope), flat(begin)
        run_blocks(kernels.rnn_backward, -(-batch // kernels.ROWS), *arrays)
        return slope, weight_gradient(slope, before(first, out)), begin


class _Gru(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, given: Tensor, weight: Tensor, bias: Tensor, first: Tensor) -> Tensor:
        batch, frames, units = given.shape[0], given.shape[1], given.shape[2] // 3
        out, gates = given.new_empty(batch, frames, units), given.new_empty(batch, frames, 4 * units)
        arrays = flat(given), packed(weight.mT), flat(bias), units, frames, flat(first), flat(out), flat(gates)
        run_blocks(kernels.gru_forward, -(-batch // kernels.ROWS), *arrays)
        ctx.save_for_backward(weight, first, out, gates)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        weight, first, out, gates = ctx.saved_tensors
        batch, frames, units = out.shape
        slope, slope_q = out.new_empty(batch, frames, 3 * units), torch.empty_like(out)
        begin = torch.zeros_like(first, memory_format=torch.contiguous_format)
        arrays = flat(grad), packed(weight), units, frames, flat(first), flat(out), flat(gates)
        run_blocks(kernels.gru_backward, -(-batch // kernels.ROWS), *arrays, flat(slope), flat(slope_q), flat(begin))
        earlier = before(first, out)
        of_weight = torch.cat([weight_gradient(slope[..., : 2 * units], earlier), weight_gradient(slope_q, earlier)])
        return slope, of_weight, slope_q.sum((0, 1)), begin


class _Lstm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, given: Tensor, weight: Tensor, first: Tensor, first_cell: Tensor) -> tuple[Tensor, Tensor]:
        batch, frames, units = given.shape[0], given.shape[1], given.shape[2] // 4
        out, cells = given.new_empty(batch, frames, units), given.new_empty(batch, frames, units)
        gates = given.new_empty(batch, frames, 4 * units)
        arrays = flat(given), packed(weight.mT), units, frames, flat(first), flat(first_cell)
        run_blocks(kernels.lstm_forward, -(-batch // kernels.ROWS), *arrays, flat(out), flat(cells), flat(gates))
        ctx.save_for_backward(weight, first, first_cell, out, cells, gates)
        return out, cells[:, -1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_cell: Tensor) -> tuple[Tensor, ...]:
        weight, first, first_cell, out, cells, gates = ctx.saved_tensors
        batch, frames, units = out.shape
        slope = torch.empty_like(gates)
        begin, begin_cell = (torch.zeros_like(s, memory_format=torch.contiguous_format) for s in (first, first_cell))
        arrays = flat(grad), flat(grad_cell), packed(weight), units, frames, flat(first_cell), flat(cells), flat(gates)
        run_blocks(
            kernels.lstm_backward, -(-batch // kernels.ROWS), *arrays, flat(slope), flat(begin), flat(begin_cell)
        )
        return slope, weight_gradient(slope, before(first, out)), begin, begin_cell


_rnn: Any = _Rnn.apply
_gru: Any = _Gru.apply
_lstm: Any = _Lstm.apply


class Recurrent(Causal):
    """One recurrent layer of as many units as inputs or other.

    Parameters
    ----------
    inputs : int
        Features of the input.
    units : int
        Hidden units H.
    """

    gates: ClassVar[int]

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.units = units
        self.weight_ih_l0 = nn.Parameter(torch.empty(self.gates * units, inputs))
        self.weight_hh_l0 = nn.Parameter(torch.empty(self.gates * units, units))
        self.bias_ih_l0 = nn.Parameter(torch.empty(self.gates * units))
        self.bias_hh_l0 = nn.Parameter(torch.empty(self.gates * units))

    def initialise(self, generator: torch.Generator) -> None:
        """Draw new weights and biases, uniform within 1/sqrt(H)."""
        bound = 1 / math.sqrt(self.units)
        for parameter in self.parameters():
            uniform(parameter, -bound, bound, generator)

    def stream(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Return (B, H, T) for a block (B, inputs, T), and the hidden state (B, H), for LSTM with its cell state."""
        y, after = self._gpu(x.mT, state) if x.is_cuda else self._cpu(x.mT, state)
        return y.mT, after

    def _given(self, x: Tensor, hidden_bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the input's share of the gates, (B, T, G H'), and the hidden weights (G H', H'), both padded."""
        wide = self.units + -self.units % LANES
        weight = padded(self.weight_ih_l0, self.gates, self.weight_ih_l0.shape[1])
        bias = self.bias_ih_l0 + (self.bias_hh_l0 if hidden_bias is None else hidden_bias)
        given = F.linear(x, weight, padded(bias[:, None], self.gates, 1)[:, 0])
        return given, padded(self.weight_hh_l0, self.gates, wide)

    def _first(self, state: Tensor | None, given: Tensor) -> Tensor:
        """Return a state (B, H'), zeros at the beginning."""
        if state is None:
            return given.new_zeros(given.shape[0], given.shape[-1] // self.gates)
        return F.pad(state, (0, -self.units % LANES))

    def _weights(self) -> list[Tensor]:
        return [self.weight_ih_l0, self.weight_hh_l0, self.bias_ih_l0, self.bias_hh_l0]

    @abstractmethod
    def _cpu(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return (B, T, H) and the state, computed by the kernels."""

    @abstractmethod
    def _gpu(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Return (B, T, H) and the state, computed by torch."""


def _torch_layer(layer: Any, x: Tensor, first: Any, weights: list[Tensor], training: bool) -> Any:
    """Call a recurrent layer of torch: with biases, one layer, no dropout, one direction, batch first."""
    return layer(x, first, weights, True, 1, 0.0, training, False, True)


class RNN(Recurrent):
    """Plain recurrent layer: h = tanh(W_i x + b_i + W_h h + b_h)."""

    gates = 1

    def _cpu(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        given, weight = self._given(x)
        y = _rnn(given, weight, self._first(state, given))[..., : self.units]
        return y, y[:, -1]

    def _gpu(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        first = x.new_zeros(1, len(x), self.units) if state is None else state[None]
        y, end = _torch_layer(torch.rnn_tanh, x, first, self._weights(), self.training)
        return y, end[0]


class GRU(Recurrent):
    """Gated recurrent unit: n = tanh(W_in x + b_in + r (W_hn h + b_hn)), h = (1 - z) n + z h."""

    gates = 3

    def _cpu(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        gated = 2 * self.units
        shared = torch.cat([self.bias_hh_l0[:gated], torch.zeros_like(self.bias_hh_l0[gated:])])
        given, weight = self._given(x, shared)
        bias = F.pad(self.bias_hh_l0[gated:], (0, -self.units % LANES))
        y = _gru(given, weight, bias, self._first(state, given))[..., : self.units]
        return y, y[:, -1]

    def _gpu(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        first = x.new_zeros(1, len(x), self.units) if state is None else state[None]
        y, end = _torch_layer(torch.gru, x, first, self._weights(), self.training)
        return y, end[0]


class LSTM(Recurrent):
    """Long short-term memory: c = f c + i g, h = o tanh(c), gates in the order i, f, g, o."""

    gates = 4

    def _cpu(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        given, weight = self._given(x)
        first = [self._first(None if state is None else part, given) for part in (state or (None, None))]
        y, cell = _lstm(given, weight, *first)
        y = y[..., : self.units]
        return y, (y[:, -1], cell[:, : self.units])

    def _gpu(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        zeros = x.new_zeros(1, len(x), self.units)
        first = [zeros, zeros] if state is None else [part[None] for part in state]
        y, end, cell = _torch_layer(torch.lstm, x, first, self._weights(), self.training)
        return y, (end[0], cell[0])
