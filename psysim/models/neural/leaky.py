"""Leaky units: exponential decay with a learnt time constant per unit, Rahman et al. (2019)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from psysim import ops
from psysim.errors import SpecError, check_range
from psysim.models.neural.causal import Causal, State

__all__ = ["ExponentialDecay", "leaky_from_constant"]


class ExponentialDecay(Causal):
    r"""Leaky integration per unit with a time constant of tau = 1 + d^2 frames.

        y[t] = k y[t-1] + x[t] / tau,   k = 1 - 1 / tau

    Before the first frame the input is taken to have been that of the first frame for ever.

    Parameters
    ----------
    units : int
        Number of units H.
    init_tau : float
        Initial time constant, frames, above 1. All units start there.
    decay_input : bool
        Divide the input by tau, for a gain of 1 at 0 Hz; without it the gain is tau.
    n_taps : int, optional
        Cut the impulse response after so many frames, as a convolution would; by default it is infinite. A cut response
        loses k ** n_taps of its gain: 23 % for tau = 10 and 14 frames.

    Raises
    ------
    SpecError
        If ``init_tau`` is not above 1.
    """

    def __init__(self, units: int, init_tau: float = 2.0, decay_input: bool = True, n_taps: int | None = None) -> None:
        super().__init__()
        check_range("init_tau", init_tau, 1.0, unit="frames", low_open=True)
        if n_taps is not None and n_taps < 1:
            raise SpecError(f"n_taps = {n_taps} must be at least 1 frame, or None for an infinite response.")
        self.decay_input, self.n_taps = decay_input, n_taps
        self.d = nn.Parameter(torch.full((units,), math.sqrt(init_tau - 1)))

    @property
    def tau(self) -> Tensor:
        """Time constants (H,), frames."""
        return 1 + self.d**2

    def stream(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Return (B, H, T) or (B, H, 1, T) as the input ``x`` of a block, and the state of the units."""
        flat = x.flatten(1, -2)
        tau = 1 + self.d.double() ** 2
        gain = 1 / tau if self.decay_input else torch.ones_like(tau)
        y, end = leaky_from_constant(flat, 1 - 1 / tau, gain, gain * tau, state, self.n_taps)
        return y.reshape(x.shape), end


def leaky_from_constant(
    x: Tensor, decay: Tensor, gain: Tensor, steady: Tensor, state: State = None, n_taps: int | None = None
) -> tuple[Tensor, State]:
    """Integrate ``x`` as if its first frame had stood there for ever before.

    Parameters
    ----------
    x : Tensor
        Input, (B, H, T).
    decay, gain : Tensor
        Per unit, (H,), float64.
    steady : Tensor
        gain / (1 - decay), (H,), float64: the gain of an infinite response for a constant input.
    state : State
        As returned for the block before.
    n_taps : int, optional
        Length of the impulse response; infinite by default.

    Returns
    -------
    Tensor
        (B, H, T).
    State
        Output at the last frame, and with ``n_taps`` the last ``n_taps`` frames of the input.
    """
    if n_taps is None:
        start = x[..., :1].double() * steady[:, None] if state is None else state
        return ops.leaky(x, decay, gain, state=start, return_state=True)
    lost = decay**n_taps
    first = x[..., :1]
    if state is None:
        start, past = first.double() * (steady * (1 - lost))[:, None], first.expand(*x.shape[:-1], n_taps)
    else:
        start, past = state
    late = torch.cat([past, x], -1)
    # What entered n_taps frames ago has come down to decay ** n_taps, and is taken out there.
    cut = x - lost.to(x.dtype)[:, None] * late[..., : x.shape[-1]]
    y, end = ops.leaky(cut, decay, gain, state=start, return_state=True)
    return y, (end, late[..., late.shape[-1] - n_taps :])
