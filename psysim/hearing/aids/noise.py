"""Noise reduction by Wiener filtering or spectral subtraction, and the benefit of a directional microphone."""

from __future__ import annotations

import torch
from torch import Tensor

from psysim.errors import SpecError, check_option, check_range
from psysim.hearing.aids.base import HearingAid, State, register
from psysim.ops import smooth
from psysim.stages.base import per_row

__all__ = ["Directional", "NoiseReduction"]

RULES = ("wiener", "spectral_subtraction")
REFERENCE_PA = 20e-6


@register("noise_reduction")
class NoiseReduction(HearingAid):
    """Single-microphone noise reduction in short-time spectra.

    Frames of twice ``hop_s`` with a square-root Hann window before and after. In each frequency bin the power in dB is
    smoothed, and the noise is what follows the smoothed power slowly upwards and fast downwards. With s the
    smoothed power over that of the noise, Wiener's gain is (s - 1)/s and that of spectral subtraction its square root,
    neither below ``floor_db``.

    Parameters
    ----------
    fs : float
        Sampling rate, Hz.
    rule : str
        ``"wiener"`` or ``"spectral_subtraction"``.
    floor_db : float
        Lowest gain, dB, -60 to 0: how much noise is taken away at most.
    hop_s : float
        Step of the frames, s, 0.001 to 0.05; the delay is twice as much.
    smoothing_s : float
        Time constant of the power, s.
    rise_s, fall_s : float
        Time constants of the noise upwards and downwards, s.
    bias_db : float
        What is added to the noise, dB: the estimate lies below the mean power of the noise.
    learnable : bool
        Make ``floor_db`` and ``bias_db`` trainable.
    dtype : torch.dtype
        torch.float32 or torch.float64.

    Attributes
    ----------
    floor_db, bias_db : Tensor ()
        Settings, dB, float64.

    Raises
    ------
    SpecError
        If a setting is out of range.

    Notes
    -----
    At the start no noise is known and nothing is taken away. The rule is simple on purpose: a candidate to
    compare others with, not the state of the art.

    References
    ----------
    Boll (1979), IEEE Trans. Acoust. Speech Signal Process. 27, 113-120. Lim & Oppenheim (1979), Proc. IEEE 67,
    1586-1604.

    Examples
    --------
    >>> import torch
    >>> aid = NoiseReduction(16000.0, floor_db=-10.0)
    >>> noise = 0.01 * torch.randn(1, 32000, generator=torch.Generator().manual_seed(1))
    >>> kept = aid(noise)[:, 16000:].square().mean() / noise.square().mean()
    >>> bool(kept < 0.25), aid.delay
    (True, 128)
    """

    floor_db: Tensor
    bias_db: Tensor
    _window: Tensor

    def __init__(
        self,
        fs: float,
        rule: str = "wiener",
        floor_db: float = -10.0,
        hop_s: float = 0.004,
        smoothing_s: float = 0.04,
        rise_s: float = 0.5,
        fall_s: float = 0.03,
        bias_db: float = 3.0,
        learnable: bool = False,
        dtype: torch.dtype | str = torch.float32,
    ) -> None:
        super().__init__(fs, learnable=learnable, dtype=dtype)
        check_option("rule", rule, RULES)
        check_range("floor_db", floor_db, -60.0, 0.0, unit="dB")
        check_range("bias_db", bias_db, -20.0, 20.0, unit="dB")
        check_range("hop_s", hop_s, 0.001, 0.05, unit="s")
        for name, value in (("smoothing_s", smoothing_s), ("rise_s", rise_s), ("fall_s", fall_s)):
            check_range(name, value, 0.0, 60.0, unit="s", low_open=True)
        self.rule, self.hop = rule, round(hop_s * self.fs)
        self.constant("floor_db", floor_db)
        self.constant("bias_db", bias_db)
        window = torch.hann_window(2 * self.hop, periodic=True, dtype=torch.float64).sqrt()
        self.register_buffer("_window", window, persistent=False)
        times = torch.tensor([[smoothing_s], [rise_s], [fall_s]], dtype=torch.float64)
        self.register_buffer("_steps", 1.0 - torch.exp(-self.hop / (times * self.fs)), persistent=False)
        self._constants += ["_window", "_steps"]

    @property
    def delay(self) -> int:
        """Samples by which the output lags the input."""
        return 2 * self.hop

    def gain(self, power: Tensor, noise: Tensor) -> Tensor:
        """Return the gains for the power and the power of the noise, both of any one shape."""
        ratio = noise * 10.0 ** (self.bias_db / 10.0) / power.clamp_min(1e-30)
        floor = 10.0 ** (self.floor_db / 20.0)
        if self.rule == "wiener":
            return torch.maximum(1.0 - ratio, floor)
        return torch.maximum(1.0 - ratio, floor.square()).sqrt()

    def _spectra(self, frames: Tensor) -> Tensor:
        window = self._window.to(frames.dtype)
        return per_row(lambda row: torch.fft.rfft(row * window), frames)

    def _process(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        shape, hop = x.shape, self.hop
        x = x.flatten(0, 1)
        if state is None:
            state = {
                "past": x.new_zeros(len(x), hop),
                "ready": x.new_zeros(len(x), hop),
                "tail": x.new_zeros(len(x), hop),
                "power": None,
                "noise": None,
            }
        past = torch.cat([state["past"], x], -1)
        ready, tail, power, noise = state["ready"], state["tail"], state["power"], state["noise"]
        n_frames = past.shape[-1] // hop - 1
        if n_frames > 0:
            spectra = self._spectra(past.unfold(-1, 2 * hop, hop))  # (B, frames, bins)
            level = 10.0 * torch.log10((spectra.real.square() + spectra.imag.square()).mT / REFERENCE_PA**2 + 1.0)
            quick, rise, fall = self._steps  # type: ignore[misc]
            level, power = smooth(level, quick, quick, state=power, return_state=True)
            under, noise = smooth(level, rise, fall, state=noise, return_state=True)
            linear = [10.0 ** (v.double() / 10.0) for v in (level, under)]
            gain = self.gain(*linear).mT.to(x.dtype)
            frames = per_row(lambda row: torch.fft.irfft(row, 2 * hop), spectra * gain) * self._window.to(x.dtype)
            first = torch.cat([tail[:, None], frames[:, :-1, hop:]], 1)
            ready = torch.cat([ready, (first + frames[:, :, :hop]).flatten(1)], -1)
            tail, past = frames[:, -1, hop:], past[:, n_frames * hop :]
        n = x.shape[-1]
        end = {"past": past, "ready": ready[:, n:], "tail": tail, "power": power, "noise": noise}
        return ready[:, :n].reshape(shape), end


@register("directional")
class Directional(HearingAid):
    """A directional microphone as what it does to the signal-to-noise ratio: the noise becomes weaker.

    It acts on target and noise given apart (`mix`), not on a mixture.

    Parameters
    ----------
    fs : float
        Sampling rate, Hz.
    benefit_db : float
        Change of the signal-to-noise ratio, dB, -20 to 20.
    learnable : bool
        Make ``benefit_db`` trainable.
    dtype : torch.dtype
        torch.float32 or torch.float64.

    Attributes
    ----------
    benefit_db : Tensor ()
        Change of the signal-to-noise ratio, dB, float64.

    Raises
    ------
    SpecError
        If the benefit is out of range, or a mixture is given.

    Examples
    --------
    >>> import torch
    >>> Directional(16000.0, benefit_db=20.0).mix(torch.ones(2), torch.ones(2))
    tensor([1.1000, 1.1000])
    """

    benefit_db: Tensor
    needs_sources = True

    def __init__(
        self, fs: float, benefit_db: float = 3.0, learnable: bool = False, dtype: torch.dtype | str = torch.float32
    ) -> None:
        super().__init__(fs, learnable=learnable, dtype=dtype)
        check_range("benefit_db", benefit_db, -20.0, 20.0, unit="dB")
        self.constant("benefit_db", benefit_db)

    def mix(self, target: Tensor, noise: Tensor) -> Tensor:
        """Return target and weakened noise, both (T,), (B, T) or (B, 2, T) in pascal."""
        rows, shape = self._rows(target)
        other, _ = self._rows(noise)
        factor = (10.0 ** (-self.benefit_db / 20.0)).to(rows.dtype)
        return (rows + factor * other).reshape(shape)

    def _process(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        raise SpecError("A directional microphone needs target and noise apart: use mix(target, noise).")
