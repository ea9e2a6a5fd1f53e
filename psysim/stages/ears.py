"""Outer ear (headphone) and middle ear: linear-phase and minimum-phase FIR filters from published tables."""

from __future__ import annotations

import math
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from psysim.errors import SpecError, check_option
from psysim.stages.base import AuditoryModule, per_row

__all__ = [
    "EarFilter",
    "HeadphoneFilter",
    "MiddleEarFilter",
    "OuterMiddleEarFilter",
    "frequency_sampling",
    "minimum_phase",
    "peak_gain_db",
]

GRID = 512
"""Number of intervals from 0 to fs/2 on which the frequency-sampling design interpolates the break points."""
P_REF_PA = 20e-6


@cache
def _table(name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return frequencies in Hz and the second column of a table of the package."""
    with (files("psysim.stages") / "data" / name).open(encoding="utf-8") as file:
        table = np.loadtxt(file, delimiter=",", skiprows=1, usecols=(0, 1))
    return table[:, 0], table[:, 1]


def frequency_sampling(
    frequency: NDArray[np.float64], gain: NDArray[np.float64], order: int = 512
) -> NDArray[np.float64]:
    """Design a linear-phase FIR filter with ``order + 1`` taps by frequency sampling.

    The gain is interpolated linearly between the break points at the 513 points k/512 of the band (1 is fs/2),
    transformed back, delayed by order/2 samples and multiplied by a Hamming window.

    Parameters
    ----------
    frequency : ndarray
        Break points, rising from 0 to 1 (fs/2).
    gain : ndarray
        Amplitude at the break points.
    order : int
        Even, 2 to 1022.
    """
    target = np.interp(np.arange(GRID + 1) / GRID, frequency, gain)
    response = np.fft.irfft(target, 2 * GRID)
    taps = np.arange(order + 1)
    window = 0.54 - 0.46 * np.cos(2.0 * np.pi * taps / order)
    return response[(taps - order // 2) % (2 * GRID)] * window


def minimum_phase(taps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the minimum-phase filter of the same length and magnitude, by the real cepstrum on len(taps) bins."""
    magnitude = np.abs(np.fft.fft(taps))
    n = len(taps)
    weight = np.zeros(n)
    weight[0] = 1.0
    weight[1 : (n + 1) // 2] = 2.0
    if n % 2 == 0:
        weight[n // 2] = 1.0
    phase = -np.imag(np.fft.ifft(np.fft.fft(np.log(magnitude)) * weight))
    return np.real(np.fft.ifft(magnitude * np.exp(1j * phase)))


def peak_gain_db(taps: NDArray[np.float64]) -> float:
    """Return the largest gain in dB on the 8192 points from 0 towards fs/2."""
    response = np.fft.rfft(taps, 2 * 8192)[:8192]
    return float(20.0 * np.log10(np.abs(response).max()))


class EarFilter(AuditoryModule):
    """An ear as an FIR filter: sound (..., T) to sound of the same shape.

    ``delay_compensation`` says how many samples the output is moved forward in time, zeros being appended to the input:

    * ``"amt"`` (default): ceil(513/2) = 257 samples for every filter, as the published software does. The linear-phase
      filters (true delay 256) come out one sample early; the minimum-phase middle ear comes out about 248 samples
      (5.6 ms at 44.1 kHz) early, and the response to the first 257 samples of the sound is almost lost. Put at least
      257 samples of silence in front of sounds, or choose ``"exact"``.
    * ``"exact"``: order/2 for linear phase, 0 for minimum phase.
    * ``"none"``: 0.
    """

    taps: Tensor

    def __init__(
        self,
        fs: float,
        taps: NDArray[np.float64],
        phase_type: str,
        compensate_delay: bool,
        delay_compensation: str | None,
        learnable: bool,
        dtype: torch.dtype | str,
    ) -> None:
        super().__init__(fs, learnable=learnable, dtype=dtype)
        if delay_compensation is None:
            delay_compensation = "amt" if compensate_delay else "none"
        check_option("delay_compensation", delay_compensation, ("amt", "exact", "none"))
        self.delay_compensation = delay_compensation
        self.compensate_delay = delay_compensation != "none"
        self.phase_type = phase_type
        self.order = len(taps) - 1
        linear = self.order // 2 if phase_type == "zero" else 0
        self.delay = {"amt": math.ceil(len(taps) / 2), "exact": linear, "none": 0}[delay_compensation]
        self.constant("taps", taps)

    def forward(self, x: Tensor) -> Tensor:
        """Filter sound ``x`` ((T,), (B, T) or (B, C, T)) along time; same shape. Computed in float64."""
        x = self.enter(x, (1, 2, 3), "(T,), (B, T) or (B, C, T)")
        n = x.shape[-1] + self.delay + self.order
        n_fft = 1 << (n - 1).bit_length()
        response = torch.fft.rfft(self.taps, n_fft)

        def convolve(row: Tensor) -> Tensor:
            y = torch.fft.irfft(torch.fft.rfft(row.double(), n_fft) * response, n_fft)
            return y[..., self.delay : self.delay + row.shape[-1]].to(row.dtype)

        return per_row(convolve, x.reshape(-1, x.shape[-1])).reshape(x.shape)

    def get_frequency_response(self, nfft: int = 8192) -> tuple[Tensor, Tensor]:
        """Return frequencies in Hz and the complex response, (nfft // 2 + 1,) each."""
        response = torch.fft.rfft(self.taps, nfft)
        return torch.arange(len(response), dtype=torch.float64, device=self.device) * (self.fs / nfft), response

    def get_parameters(self) -> dict[str, object]:
        """Return the settings of the filter."""
        names = ("fs", "order", "phase_type", "delay_compensation", "delay")
        return {name: getattr(self, name) for name in names}


class HeadphoneFilter(EarFilter):
    """Headphone and outer ear: sound in a circumaural headphone to sound at the eardrum.

    Gain 1 up to 500 Hz, 9 dB near 2.7 kHz. The published filter is linear phase in every model that uses it.

    Parameters
    ----------
    fs : float
        Sampling rate, Hz. (At 20 kHz and below, the rows of the table from fs/2 on are left out.)
    order : int
        Number of taps minus 1, even, 2 to 1022.
    phase_type : str
        ``"zero"`` (published: linear phase with the delay taken off) or ``"minimum"`` (an extension).
    learnable : bool
        Make the taps trainable.
    compensate_delay : bool
        False is short for ``delay_compensation="none"``.
    dtype : torch.dtype
        torch.float32 or torch.float64.
    delay_compensation : str, optional
        ``"amt"`` (default), ``"exact"`` or ``"none"``: see `EarFilter`.
    filter_type : str
        ``"pralong1996"``, the only table.

    References
    ----------
    Pralong & Carlile (1996), JASA 100, 3785-3793.

    Examples
    --------
    >>> import torch
    >>> HeadphoneFilter(fs=44100.0)(torch.zeros(2, 1000)).shape
    torch.Size([2, 1000])
    """

    def __init__(
        self,
        fs: float,
        order: int = 512,
        phase_type: str = "zero",
        learnable: bool = False,
        compensate_delay: bool = True,
        dtype: torch.dtype | str = torch.float32,
        *,
        delay_compensation: str | None = None,
        filter_type: str = "pralong1996",
    ) -> None:
        check_option("filter_type", filter_type, ("pralong1996",))
        check_option("phase_type", phase_type, ("zero", "minimum"))
        frequency, gain = _rows_below_nyquist(*_table("headphone_pralong1996.csv"), fs)
        taps = _design(frequency, gain, fs, _check_order(order))
        if phase_type == "minimum":
            taps = minimum_phase(taps)
        super().__init__(fs, taps, phase_type, compensate_delay, delay_compensation, learnable, dtype)
        self.filter_type = filter_type


class MiddleEarFilter(EarFilter):
    """Middle ear: sound at the eardrum to stapes velocity, or, with normalised gain, to sound again.

    Parameters
    ----------
    fs : float
        Sampling rate, Hz.
    filter_type : str
        ``"lopezpoveda2001"`` (stapes velocity) or ``"jepsen2008"`` (stapes impedance).
    order : int
        Number of taps minus 1, even, 2 to 1022.
    phase_type : str, optional
        ``"minimum"`` (default of lopezpoveda2001) or ``"zero"`` (linear phase with the delay taken off; default of
        jepsen2008, for which minimum phase is an extension).
    normalize_gain : bool
        Divide by the peak gain, so that it becomes 0 dB.
    learnable : bool
        Make the taps trainable.
    compensate_delay : bool
        False is short for ``delay_compensation="none"``.
    dtype : torch.dtype
        torch.float32 or torch.float64.
    delay_compensation : str, optional
        ``"amt"`` (default), ``"exact"`` or ``"none"``: see `EarFilter`. With ``"amt"`` and minimum phase the output
        comes out about 248 samples early.

    Attributes
    ----------
    gain_db : float
        Peak gain before normalisation, dB.

    References
    ----------
    Lopez-Poveda & Meddis (2001), JASA 110, 3107-3118; Goode, Killion, Nakamura & Nishihara (1994),
    Am. J. Otol. 15, 145-154; Jepsen, Ewert & Dau (2008), JASA 124, 422-438.

    Examples
    --------
    >>> import torch
    >>> MiddleEarFilter(fs=44100.0)(torch.zeros(2, 1000)).shape
    torch.Size([2, 1000])
    """

    def __init__(
        self,
        fs: float,
        filter_type: str = "lopezpoveda2001",
        order: int = 512,
        phase_type: str | None = None,
        normalize_gain: bool = True,
        learnable: bool = False,
        compensate_delay: bool = True,
        dtype: torch.dtype | str = torch.float32,
        *,
        delay_compensation: str | None = None,
    ) -> None:
        check_option("filter_type", filter_type, ("lopezpoveda2001", "jepsen2008"))
        if phase_type is None:
            phase_type = "minimum" if filter_type == "lopezpoveda2001" else "zero"
        check_option("phase_type", phase_type, ("minimum", "zero"))
        order = _check_order(order)
        taps = _stapes_velocity(fs, order) if filter_type == "lopezpoveda2001" else _stapes_impedance(fs, order)
        if phase_type == "minimum":
            taps = minimum_phase(taps)
        gain_db = peak_gain_db(taps)
        if normalize_gain:
            taps = taps * 10.0 ** (-gain_db / 20.0)
        super().__init__(fs, taps, phase_type, compensate_delay, delay_compensation, learnable, dtype)
        self.filter_type = filter_type
        self.normalize_gain = bool(normalize_gain)
        self.gain_db = gain_db


class OuterMiddleEarFilter(AuditoryModule):
    """Headphone, outer and middle ear of the CASP models: sound in pascal to stapes velocity in m/s.

    `HeadphoneFilter` (linear phase, delayed by order/2 samples) and `MiddleEarFilter` (stapes velocity, minimum phase,
    gain not normalised) one after another. The output is later than the sound by order/2 samples (5.8 ms at 44.1 kHz),
    as published.

    Parameters
    ----------
    fs : float
        Sampling rate, Hz.
    compensation_type, field_type : str, optional
        Documented names of other packages for other filters (``"tfOuterMiddle1997"``, ``"free"``): refused.
    order : int
        Number of taps minus 1 of each filter, even, 2 to 1022.
    learnable : bool
        Make the taps of both filters trainable.
    dtype : torch.dtype
        torch.float32 or torch.float64.
    outer_ear : bool
        False leaves the headphone filter out: the input is the pressure at the eardrum.
    middle_ear : bool
        False leaves the middle ear out: the output has the unit of the input, the stages behind take m/s.

    Attributes
    ----------
    headphone, middleear : Module or None
        The two filters; None where left out.

    Raises
    ------
    SpecError
        If an argument is out of range, or ``compensation_type`` or ``field_type`` is given.

    References
    ----------
    Pralong & Carlile (1996), JASA 100, 3785-3793; Lopez-Poveda & Meddis (2001), JASA 110, 3107-3118;
    Goode, Killion, Nakamura & Nishihara (1994), Am. J. Otol. 15, 145-154.

    Examples
    --------
    >>> import torch
    >>> OuterMiddleEarFilter(fs=44100.0)(torch.zeros(2, 1000)).shape
    torch.Size([2, 1000])
    """

    def __init__(
        self,
        fs: float,
        compensation_type: str | None = None,
        field_type: str | None = None,
        *,
        order: int = 512,
        learnable: bool = False,
        dtype: torch.dtype | str = torch.float32,
        outer_ear: bool = True,
        middle_ear: bool = True,
    ) -> None:
        super().__init__(fs, learnable=learnable, dtype=dtype)
        for name, value in (("compensation_type", compensation_type), ("field_type", field_type)):
            if value is not None:
                raise SpecError(
                    f"{name} = {value!r} is not available: the published CASP models have one outer ear (headphone of "
                    "Pralong & Carlile 1996) and one middle ear (stapes velocity). Leave it out."
                )
        common: dict[str, Any] = {"learnable": learnable, "dtype": dtype, "delay_compensation": "none"}
        self.headphone = HeadphoneFilter(fs, order, **common) if outer_ear else None
        self.middleear = MiddleEarFilter(fs, order=order, normalize_gain=False, **common) if middle_ear else None

    @property
    def filters(self) -> list[EarFilter]:
        """The filters that are on, in order."""
        return [ear for ear in (self.headphone, self.middleear) if ear is not None]

    def forward(self, x: Tensor) -> Tensor:
        """Filter sound ``x`` ((T,), (B, T) or (B, C, T)) along time; same shape."""
        y = self.enter(x, (1, 2, 3), "(T,), (B, T) or (B, C, T)")
        for ear in self.filters:
            y = ear(y)
        return y

    def get_frequency_response(self, nfft: int = 8192) -> tuple[Tensor, Tensor]:
        """Return frequencies in Hz and the complex response of both filters, (nfft // 2 + 1,) each."""
        frequency = torch.arange(nfft // 2 + 1, dtype=torch.float64, device=self.device) * (self.fs / nfft)
        response = torch.ones_like(frequency, dtype=torch.complex128)
        for ear in self.filters:
            response = response * ear.get_frequency_response(nfft)[1]
        return frequency, response

    def get_transfer_function(self) -> tuple[Tensor, Tensor]:
        """Return frequencies in Hz and the gain in dB (with the middle ear: dB re 1 m/s per Pa), (4097,) each."""
        frequency, response = self.get_frequency_response()
        return frequency, 20.0 * torch.log10(response.abs())


def _check_order(order: int) -> int:
    if int(order) != order or order % 2 or not 2 <= order <= 2 * GRID - 2:
        raise SpecError(f"order = {order!r} is out of range: it must be an even whole number from 2 to {2 * GRID - 2}.")
    return int(order)


def _rows_below_nyquist(
    frequency: NDArray[np.float64], value: NDArray[np.float64], fs: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Leave out the rows from fs/2 on; above 20 kHz the published rule keeps them all (the tables end at 10 kHz)."""
    keep = frequency < fs / 2 if fs <= 20000 else np.ones(len(frequency), dtype=bool)
    if keep.sum() < 2:
        raise SpecError(f"fs = {fs:g} Hz is too low for an ear filter: its table begins at {frequency[0]:g} Hz.")
    return frequency[keep], value[keep]


def _design(frequency: NDArray[np.float64], gain: NDArray[np.float64], fs: float, order: int) -> NDArray[np.float64]:
    """Design with zero gain at 0 and at fs/2."""
    points = np.concatenate([[0.0], frequency * 2.0 / fs, [1.0]])
    return frequency_sampling(points, np.concatenate([[0.0], gain, [0.0]]), order)


def _stapes_velocity(fs: float, order: int) -> NDArray[np.float64]:
    """Stapes velocity (m/s) per reference pressure; the table is continued to fs/2, falling by a factor 1.1 per kHz."""
    frequency, velocity = _rows_below_nyquist(*_table("middle_ear_stapes_velocity.csv"), fs)
    if fs > 20000:
        steps = np.arange(1, math.floor((fs / 2 - 10000) / 1000) + 1)
        frequency = np.concatenate([frequency, 10000.0 + 1000.0 * steps])
        velocity = np.concatenate([velocity, velocity[-1] / 1.1**steps])
    if frequency[-1] != fs / 2:
        last = velocity[-1] / (1.0 + (fs / 2 - frequency[-1]) * 0.1 / 1000.0)
        frequency, velocity = np.append(frequency, fs / 2), np.append(velocity, last)
    points = np.concatenate([[0.0], frequency * 2.0 / fs])
    return frequency_sampling(points, np.concatenate([[0.0], velocity]), order) / P_REF_PA


def _stapes_impedance(fs: float, order: int) -> NDArray[np.float64]:
    """Inverse of the stapes impedance, scaled to a fixed peak on the bins of the taps' own FFT."""
    frequency, impedance = _rows_below_nyquist(*_table("middle_ear_jepsen2008_impedance.csv"), fs)
    taps = _design(frequency, 1.0 / impedance, fs, order)
    return taps * (1e-8 * 10.0 ** (104.0 / 20.0) / np.abs(np.fft.fft(taps)).max())
