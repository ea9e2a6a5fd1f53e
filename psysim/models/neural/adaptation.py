"""Adaptation in front of a core: each band is seen against its own recent past.

The past is a running average with a time constant per band,

    e[t] = a e[t-1] + (1 - a) x[t-1],   e[0] = x[0],   a = exp(-dt / tau(f))

that is, before the first frame the sound is taken to have stood at its first frame for ever.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from psysim.errors import SpecError, check_option, check_range
from psysim.models.neural.causal import Causal, State
from psysim.models.neural.configuration import Configured, register
from psysim.models.neural.leaky import leaky_from_constant

__all__ = ["SCALES", "AdapTrans", "Adaptation", "ICAdaptation", "adaptation_time_constant_ms", "band_frequencies"]

SCALES = ("mel", "greenwood")
SHORTEST_MS = 5.0


def band_frequencies(n_frequency_bands: int, min_freq: float, max_freq: float, scale: str = "mel") -> Tensor:
    """Return centre frequencies, equally spaced on a scale, both ends included.

    Parameters
    ----------
    n_frequency_bands : int
        Number of bands F.
    min_freq, max_freq : float
        Lowest and highest, Hz.
    scale : {"mel", "greenwood"}
        2595 log10(1 + f / 700), or the place in the human cochlea, f = 165.4 (10^(2.1 x) - 0.88).

    Returns
    -------
    Tensor
        (F,), Hz, float64.

    Raises
    ------
    SpecError
        If an argument is out of range.

    References
    ----------
    Greenwood, D. D. (1990). A cochlear frequency-position function for several species: 29 years later. J. Acoust. Soc.
    Am. 87, 2592-2605.

    Examples
    --------
    >>> band_frequencies(3, 200, 8000).round()
    tensor([ 200., 2098., 8000.], dtype=torch.float64)
    """
    check_option("scale", scale, SCALES)
    check_range("min_freq", min_freq, 0.0, unit="Hz", low_open=True)
    check_range("max_freq", max_freq, min_freq, unit="Hz", low_open=True)
    if n_frequency_bands < 1:
        raise SpecError(f"n_frequency_bands = {n_frequency_bands} must be at least 1.")
    ends = torch.tensor([min_freq, max_freq], dtype=torch.float64)
    places = torch.log10(1 + ends / 700) if scale == "mel" else torch.log10(ends / 165.4 + 0.88)
    between = torch.linspace(float(places[0]), float(places[1]), n_frequency_bands, dtype=torch.float64)
    return 700 * (10**between - 1) if scale == "mel" else 165.4 * (10**between - 0.88)


def adaptation_time_constant_ms(frequency_hz: Tensor) -> Tensor:
    """Return the time constant of adaptation to mean level in the inferior colliculus, Willmore et al. (2016).

    Parameters
    ----------
    frequency_hz : Tensor
        Best frequencies, Hz.

    Returns
    -------
    Tensor
        500 - 105 log10(f), ms; not below 5 ms, which it would reach at 52 kHz.

    Examples
    --------
    >>> adaptation_time_constant_ms(torch.tensor([500.0, 20000.0]))
    tensor([216.6082,  48.3918])
    """
    return (500 - 105 * torch.log10(frequency_hz)).clamp_min(SHORTEST_MS)


class Adaptation(Configured, Causal):
    """What the prefilters share.

    Attributes
    ----------
    out_channels : int
        Channels of the output.
    n_taps : int or None
        Length of the memory, frames; None for an infinite one.
    softness : float
        0 for a rectifier; otherwise softness * softplus(x / softness) takes its place (`STRF_gradmap` sets it).
    """

    family = "prefilter"
    out_channels: int

    def __init__(
        self, n_frequency_bands: int, dt_ms: float, min_freq: float, max_freq: float, scale: str, n_taps: int | None
    ) -> None:
        super().__init__()
        check_range("dt_ms", dt_ms, 0.0, unit="ms", low_open=True)
        if n_taps is not None and n_taps < 2:
            raise SpecError(f"n_taps = {n_taps} must be at least 2 frames, or None for an infinite memory.")
        self.dt_ms, self.n_taps, self.softness = dt_ms, n_taps, 0.0
        self.frequencies_hz = band_frequencies(n_frequency_bands, min_freq, max_freq, scale)
        self.tau_ms = adaptation_time_constant_ms(self.frequencies_hz)

    def initial_factor(self) -> Tensor:
        """Return exp(-dt / tau) per band, (F,), float64."""
        return torch.exp(-self.dt_ms / self.tau_ms)

    def rectify(self, x: Tensor) -> Tensor:
        """Return max(x, 0), or its smooth form."""
        return F.softplus(x / self.softness) * self.softness if self.softness > 0 else torch.relu(x)

    def past(self, x: Tensor, a: Tensor, state: State) -> tuple[Tensor, State]:
        """Return the running average of the past.

        Parameters
        ----------
        x : Tensor
            Frames before those of the output, (B, F, T).
        a : Tensor
            Factor per frame and band, (F,), float64.
        state : State
            State of the average.

        Returns
        -------
        Tensor
            (B, F, T).
        State
            State after it.
        """
        if self.n_taps is None:
            return leaky_from_constant(x, a, 1 - a, torch.ones_like(a), state)
        gain = (1 - a) / (1 - a ** (self.n_taps - 1))
        return leaky_from_constant(x, a, gain, gain / (1 - a), state, self.n_taps - 1)


def late(x: Tensor, state: State) -> Tensor:
    """Return ``x`` one frame later; its first frame is that of the block before, or without one its own."""
    return torch.cat([x[..., :1] if state is None else state, x[..., :-1]], -1)


def logit_root(value: Tensor) -> Tensor:
    """Return d with 1 / (1 + d^2) = value."""
    return torch.sqrt(1 / value - 1)


@register("prefilter", "ic_adaptation")
class ICAdaptation(Adaptation):
    """Adaptation to mean sound level in the midbrain, Willmore et al. (2016): max(x - e, 0).

    Parameters
    ----------
    n_frequency_bands : int
        Bands F.
    dt_ms : float
        Duration of a frame, ms.
    min_freq, max_freq : float
        Lowest and highest centre frequency, Hz.
    scale : {"mel", "greenwood"}
        Their spacing: see `band_frequencies`.
    n_taps : int, optional
        Cut the memory after so many frames, and scale the weights of the past to a sum of 1; it is infinite by default.

    References
    ----------
    Willmore, B. D. B., Schoppe, O., King, A. J., Schnupp, J. W. H. and Harper, N. S. (2016). Incorporating midbrain
    adaptation to mean sound level improves models of auditory cortical processing. J. Neurosci. 36, 280-289.

    Examples
    --------
    >>> steady = torch.ones(1, 1, 34, 100)
    >>> float(ICAdaptation(n_frequency_bands=34, dt_ms=5.0)(steady).abs().max())
    0.0
    """

    out_channels = 1
    a: Tensor

    def __init__(
        self,
        n_frequency_bands: int = 34,
        dt_ms: float = 5.0,
        min_freq: float = 500.0,
        max_freq: float = 20000.0,
        scale: str = "mel",
        n_taps: int | None = None,
    ) -> None:
        super().__init__(n_frequency_bands, dt_ms, min_freq, max_freq, scale, n_taps)
        self.register_buffer("a", self.initial_factor().float())

    def stream(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Return (B, 1, F, T) for a block of spectrograms (B, 1, F, T), and the state after it."""
        frames = x.squeeze(1)
        last, average = (None, None) if state is None else state
        past, after = self.past(late(frames, last), self.a.double(), average)
        return self.rectify(frames - past)[:, None], (frames[..., -1:], after)


@register("prefilter", "adaptrans")
class AdapTrans(Adaptation):
    """Transients of both directions beside what stays of a steady sound, Rancon et al. (2024).

        ON = max(x - w e_on, 0),   OFF = max(e_off - w x, 0)

    Each band learns its weight w = 1 / (1 + p^2) and its time constants, a = 1 / (1 + d^2) per frame: with w = 0 ON is
    the sound itself, with w = 1 a steady sound gives nothing. A steady sound comes out with the factor 1 - w.

    Parameters
    ----------
    n_frequency_bands, dt_ms, min_freq, max_freq, scale, n_taps
        See `ICAdaptation`; the time constants start there.
    init_w : float
        Initial weight of the past, above 0 and at most 1.
    learnable : bool
        Learn d_on, d_off and p; without it they are fixed.

    References
    ----------
    Rancon, U., Masquelier, T. and Cottereau, B. R. (2024). Temporal recurrence as a general mechanism to explain neural
    responses in the auditory system. PLoS Comput. Biol. 20, e1012288.

    Examples
    --------
    >>> steady = torch.ones(1, 1, 34, 100)
    >>> AdapTrans(n_frequency_bands=34, dt_ms=5.0)(steady)[0, :, 0, 99].detach()
    tensor([0.2500, 0.2500])
    """

    out_channels = 2
    d_on: Tensor
    d_off: Tensor
    p: Tensor

    def __init__(
        self,
        n_frequency_bands: int = 34,
        dt_ms: float = 5.0,
        min_freq: float = 500.0,
        max_freq: float = 20000.0,
        scale: str = "mel",
        init_w: float = 0.75,
        learnable: bool = True,
        n_taps: int | None = None,
    ) -> None:
        super().__init__(n_frequency_bands, dt_ms, min_freq, max_freq, scale, n_taps)
        check_range("init_w", init_w, 0.0, 1.0, low_open=True)
        d = logit_root(self.initial_factor())
        p = torch.full_like(d, math.sqrt(1 / init_w - 1))
        for name, value in (("d_on", d), ("d_off", d), ("p", p)):
            if learnable:
                self.register_parameter(name, nn.Parameter(value.float()))
            else:
                self.register_buffer(name, value.float())

    def stream(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        """Return ON and OFF (B, 2, F, T) for a block of spectrograms (B, 1, F, T), and the state after it."""
        frames = x.squeeze(1)
        last, on, off = (None, None, None) if state is None else state
        before = late(frames, last)
        past_on, on = self.past(before, 1 / (1 + self.d_on.double() ** 2), on)
        past_off, off = self.past(before, 1 / (1 + self.d_off.double() ** 2), off)
        w = (1 / (1 + self.p**2))[:, None]
        both = torch.stack([frames - w * past_on, past_off - w * frames], 1)
        return self.rectify(both), (frames[..., -1:], on, off)
