r"""Change of the sampling rate by up/down with a polyphase filter.

    y[m] = sum_k h[k] x[(m down - k) / up]     over the k = -half ... half that make (m down - k) / up a whole number

with x zero outside its samples. The filter is centred: no delay. Outputs m, m + up, m + 2 up ... use the same taps (a
phase), with x shifted by ``down`` each.

Shapes: ``x`` (B, F, T), ``taps`` (2 half + 1,), output (B, F, ceil(T up / down)), state (B, F, n): the last n inputs.
There is no recurrence: the state is part of the input, so the operator itself has none. Sums are float64 from the
first input to the last whatever the dtype of the signal and whatever block an output belongs to: blocks equal one pass
bit by bit. Float32 sums would have taken 0.6 instead of 0.8 ns per input sample and channel for 1/4 with 81 taps.
"""

# ruff: noqa: ARG001
# The registered functions take what torch.library passes.

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, overload

import numpy as np
import torch
from torch import Tensor

from psysim.errors import SpecError, check_range
from psysim.ops.base import check_coefficient, check_signal, forms_of

__all__ = ["FORMS", "Phases", "phases_of", "reference", "resample", "resampling_taps"]

FORMS = forms_of("resample", "resample")


def resampling_taps(up: int, down: int, half_length: int = 10, beta: float = 5.0) -> Tensor:
    """Design the usual filter for `resample`: a sinc under a Kaiser window.

    Parameters
    ----------
    up, down : int
        Ratio of the sampling rates, in lowest terms.
    half_length : int
        Zero crossings of the sinc on each side; the filter has 2 half_length max(up, down) + 1 taps.
    beta : float
        Shape of the Kaiser window; 5 puts the side lobes of the window at -37 dB.

    Returns
    -------
    Tensor
        (2 half_length max(up, down) + 1,), float64; cutoff (-6 dB) at half of the lower sampling rate, gain 1 at 0 Hz
        (the taps sum to ``up``).

    Raises
    ------
    SpecError
        If the ratio is not in lowest terms, or a number is out of range.

    Notes
    -----
    As the defaults of MATLAB's ``resample`` and of `scipy.signal.resample_poly`.

    References
    ----------
    Oppenheim, A. V. and Schafer, R. W. (2010). Discrete-Time Signal Processing, 3rd ed., sections 4.6 and 7.5.

    Examples
    --------
    >>> resampling_taps(1, 4).shape
    torch.Size([81])
    """
    _check_ratio("resampling_taps", up, down)
    check_range("resampling_taps: half_length", half_length, 1)
    check_range("resampling_taps: beta", beta, 0)
    rate = max(up, down)
    n = np.arange(-half_length * rate, half_length * rate + 1)
    taps = np.sinc(n / rate) * np.kaiser(len(n), beta)
    return torch.from_numpy(up * taps / taps.sum())


@overload
def resample(
    x: Tensor, up: int, down: int, taps: Tensor, *, state: Tensor | None = ..., return_state: Literal[False] = ...
) -> Tensor: ...
@overload
def resample(
    x: Tensor, up: int, down: int, taps: Tensor, *, state: Tensor | None = ..., return_state: Literal[True]
) -> tuple[Tensor, Tensor]: ...
def resample(
    x: Tensor, up: int, down: int, taps: Tensor, *, state: Tensor | None = None, return_state: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Change the sampling rate by up/down.

    Parameters
    ----------
    x : Tensor
        Signals, (B, F, T), float32 or float64.
    up, down : int
        Ratio of the new to the old sampling rate, in lowest terms.
    taps : Tensor
        Impulse response at ``up`` times the old rate, centred, (2 half + 1,), float64; see `resampling_taps`.
    state : Tensor, optional
        What was returned for the block before, (B, F, n), float64; without it the sound begins here.
    return_state : bool
        More sound will follow: return the outputs whose inputs are all there, and the state. T must then be a multiple
        of ``down``. Without it the sound ends here and all outputs that are left are returned; T is arbitrary, with a
        ``state`` even 0.

    Returns
    -------
    Tensor
        The dtype of ``x``; differentiable with respect to ``x``, ``taps`` and ``state``. For a whole sound
        (B, F, ceil(T up / down)). For blocks, the same samples in pieces: each block but the last gives T up / down
        of them, later by floor(half / down), which the first block lacks (it may give none) and the last has more.
    Tensor
        Only with ``return_state``: the last samples of the sound that later outputs need, (B, F, n), float64. n is
        max(1, floor((floor(half / down) down + half) / up)), fewer until so many have come.

    Raises
    ------
    SpecError
        For a wrong shape or dtype, a ratio that is not in lowest terms, a block or a state of a length that cannot be,
        or a device without an implementation.

    Notes
    -----
    With `resampling_taps` the same as `scipy.signal.resample_poly` along the last axis.

    References
    ----------
    Crochiere, R. E. and Rabiner, L. R. (1983). Multirate Digital Signal Processing. Section 3.3.

    Examples
    --------
    >>> import torch
    >>> halves = torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64)
    >>> resample(torch.tensor([[[8.0, 8.0, 0.0, 4.0, 8.0]]]), 1, 2, halves)
    tensor([[[6., 3., 5.]]])
    >>> block, state = resample(torch.tensor([[[8.0, 8.0, 0.0, 4.0]]]), 1, 2, halves, return_state=True)
    >>> block, resample(torch.tensor([[[8.0]]]), 1, 2, halves, state=state)
    (tensor([[[6., 3.]]]), tensor([[[5.]]]))
    """
    _check_ratio("ops.resample", up, down)
    ends_without_sound = (
        isinstance(x, Tensor) and x.ndim == 3 and x.shape[-1] == 0 and state is not None and not return_state
    )
    if not ends_without_sound:
        check_signal("resample", x, ("B", "F", "T"))
    check_coefficient("resample", "taps", taps, [(-1,)], x)
    if len(taps) % 2 == 0:
        raise SpecError(f"ops.resample: taps must be an odd number, one of them in the middle; got {len(taps)}.")
    if return_state and x.shape[-1] % down:
        raise SpecError(
            f"ops.resample: a block that others follow must be a multiple of down = {down} samples, got {x.shape[-1]}."
        )
    blocks = _Blocks(up, down, len(taps) // 2)
    if state is not None:
        check_coefficient("resample", "state", state, [(*x.shape[:2], -1)], x)
        blocks.check(state.shape[-1])
        x = torch.cat([state.to(x.dtype), x], -1)
    start, count = blocks.outputs(0 if state is None else state.shape[-1], x.shape[-1], return_state)
    y = _op(x, taps, up, down, start, count) if count else x[..., :0]
    return (y, x[..., -blocks.held :].to(torch.float64)) if return_state else y


class _Blocks(NamedTuple):
    """Which outputs a block gives, and what it leaves to the next."""

    up: int
    down: int
    half: int

    @property
    def held(self) -> int:
        """Number of inputs that the next block needs, once there are so many."""
        late = self.half // self.down
        return max(1, (late * self.down + self.half) // self.up)

    def check(self, size: int) -> None:
        """Raise `SpecError` unless a state can have ``size`` samples."""
        if size != self.held and (size > self.held or size % self.down):
            fewer = f"or a smaller multiple of {self.down} " if self.down < self.held else ""
            raise SpecError(f"ops.resample: the state has {size} samples; it must be {self.held} {fewer}long.")

    def outputs(self, held: int, samples: int, more: bool) -> tuple[int, int]:
        """Return where the first output lies and how many there are.

        ``samples`` are there, the first ``held`` of them from the state. The place is counted from the first sample,
        in steps of 1/up sample; outputs are ``down`` steps apart.
        """
        start = held * self.up - self.half // self.down * self.down if held else 0
        if held < self.held:  # the samples held are the sound from its beginning
            start = max(0, start)
        stop = samples * self.up - (self.half if more else 0)
        return start, max(0, -((start - stop) // self.down))


def _check_ratio(op: str, up: int, down: int) -> None:
    for name, value in (("up", up), ("down", down)):
        if not isinstance(value, int):
            raise SpecError(f"{op}: {name} = {value!r} must be a whole number.")
        check_range(f"{op}: {name}", value, 1)
    common = math.gcd(up, down)
    if common > 1:
        raise SpecError(f"{op}: up/down = {up}/{down} must be in lowest terms: {up // common}/{down // common}.")


class Phases(NamedTuple):
    """The taps, sorted by phase: output i = q up + r uses the inputs ``q down + first[r] + j``, 0 <= j < size[r]."""

    weights: Tensor  # (up, width), in the order of the inputs; zero from size[r] on
    first: Tensor  # (up,), int64
    size: Tensor  # (up,), int64
    places: Tensor  # (up, width): which tap each weight is; one past the last where there is none

    def taps(self, weights: Tensor, size: int) -> Tensor:
        """Put values for each weight (up, width) back into the order of the ``size`` taps."""
        return weights.new_zeros(size + 1).scatter_(0, self.places.flatten(), weights.flatten())[:size]


def phases_of(taps: Tensor, up: int, down: int, start: int) -> Phases:
    """Sort the taps by phase, for outputs at the places ``start + i down``, in steps of 1/up input sample."""
    half = len(taps) // 2
    place = start + down * torch.arange(up, device=taps.device)
    first, last = -((half - place) // up), (half + place) // up
    j = torch.arange(2 * half // up + 1, device=taps.device)
    index = half + place[:, None] - up * (first[:, None] + j)
    places = torch.where(index >= 0, index, len(taps))
    weights = torch.cat([taps.detach(), taps.new_zeros(1)])[places]
    return Phases(weights, first, last - first + 1, places)


def reference(
    x: Tensor, up: int, down: int, taps: Tensor, *, state: Tensor | None = None, return_state: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Definition of `resample`: zeros between the samples, then one sum per output; float64, differentiable, slow."""
    signal, half = x.to(torch.float64), len(taps) // 2
    blocks = _Blocks(up, down, half)
    if state is not None:
        signal = torch.cat([state, signal], -1)
    samples = signal.shape[-1]
    start, count = blocks.outputs(samples - x.shape[-1], samples, return_state)
    between = torch.cat([signal[..., None], signal.new_zeros(*signal.shape, up - 1)], -1).flatten(-2)
    around = half + down + abs(start)
    padded = torch.nn.functional.pad(between, (around, around))
    places = [around + start + i * down for i in range(count)]
    outputs = [(padded[..., p - half : p + half + 1] * taps.flip(0)).sum(-1) for p in places]
    y = (torch.stack(outputs, -1) if outputs else signal[..., :0]).to(x.dtype)
    return (y, signal[..., -blocks.held :]) if return_state else y


@torch.library.custom_op("psysim::resample", mutates_args=())
def _op(x: Tensor, taps: Tensor, up: int, down: int, start: int, count: int) -> Tensor:
    """Return ``count`` outputs; the first lies at ``start``, in steps of 1/up sample from the first input."""
    return FORMS.select(x).forward(x, taps, up, down, start, count)


@torch.library.custom_op("psysim::resample_backward", mutates_args=())
def _op_backward(
    grad: Tensor, x: Tensor, taps: Tensor, up: int, down: int, start: int, learn: bool
) -> tuple[Tensor, Tensor]:
    return FORMS.select(x).backward(grad, x, taps, up, down, start, learn)


@_op.register_fake
def _fake(x: Tensor, taps: Tensor, up: int, down: int, start: int, count: int) -> Tensor:
    return x.new_empty((*x.shape[:2], count))


@_op_backward.register_fake
def _fake_backward(
    grad: Tensor, x: Tensor, taps: Tensor, up: int, down: int, start: int, learn: bool
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), taps.new_empty(taps.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.numbers = inputs[2:5]


def _gradient(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    learn = ctx.needs_input_grad[1]
    grad_x, grad_taps = _op_backward(grad, *ctx.saved_tensors, *ctx.numbers, learn)
    return grad_x, grad_taps if learn else None, None, None, None, None


_op.register_autograd(_gradient, setup_context=_save)
