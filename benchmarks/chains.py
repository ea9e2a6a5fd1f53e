"""Chains of operators that are not (yet) a model of the package, for timing.

`casp` is the chain of Paulick, Relano-Iborra and Dau (2024), sections of the published software: dual-resonance
nonlinear filterbank, hair-cell circuit, adaptation loops, resampling by 1/4, modulation filterbank; 50 channels from
250 to 8000 Hz, normal hearing. The ear filters before it are left out: it takes velocities of the stapes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from psysim import ops
from psysim.ops.steps import Decimate, Drnl, HairCell, Step
from psysim.stages import AdaptLoop, ModulationFilterbank
from psysim.stages.filters import butterworth_lowpass

__all__ = ["STAPES_RMS", "Chain", "casp", "centre_frequencies", "drnl_arguments"]

STAPES_RMS = 5e-6
"""Velocity of the stapes in m/s for noise at about 60 dB SPL: 5e-9 m/s per 20 uPa around 1.5 kHz."""


@dataclass(frozen=True)
class Chain:
    """Steps by name, from sound (B, T) to the representation (B, F, M, T')."""

    steps: dict[str, Step]

    def step_by_step(self, sound: Tensor) -> Tensor:
        """Return the representation by way of everything before it: the form that has a gradient."""
        y = sound
        for step in self.steps.values():
            y = step.run(y)
        return y

    def represent(self, sound: Tensor) -> Tensor:
        """Return the representation, in one pass unless a gradient is wanted."""
        if torch.is_grad_enabled() and sound.requires_grad:
            return self.step_by_step(sound)
        return ops.chain_forward(sound, list(self.steps.values()))

    def products(self, sound: Tensor, templates: Tensor, index: Tensor) -> Tensor:
        """Return (B, F, M, K) without the representation in memory."""
        return ops.chain_products(sound, list(self.steps.values()), templates, index)


def centre_frequencies(channels: int = 50, low_hz: float = 250.0, high_hz: float = 8000.0) -> Tensor:
    """Return frequencies equally spaced in ERB numbers, both ends included, (F,)."""
    number = 9.2645 * torch.log1p(0.00437 * torch.tensor([low_hz, high_hz], dtype=torch.float64))
    steps = torch.linspace(float(number[0]), float(number[1]), channels, dtype=torch.float64)
    return torch.expm1(steps / 9.2645) / 0.00437


def _power(fc: Tensor, offset: float, slope: float) -> Tensor:
    return 10.0 ** (offset + slope * torch.log10(fc))


def _gammatone_section(fc: Tensor, bandwidth: Tensor, fs: float) -> Tensor:
    """One pole pair and one zero with a gain of 1 at ``fc``, (F, 1, 6)."""
    theta, phi = 2 * math.pi * fc / fs, 2 * math.pi * bandwidth / fs
    real, square = torch.exp(-phi) * torch.cos(theta), torch.exp(-2 * phi)
    turn = torch.polar(torch.ones_like(theta), -theta)
    gain = ((1 - 2 * real * turn + square * turn**2) / (1 - real * turn)).abs()
    zero, one = torch.zeros_like(gain), torch.ones_like(gain)
    return torch.stack([gain, -gain * real, zero, one, -2 * real, square], -1)[:, None]


def _lowpass(cutoff: Tensor, fs: float) -> Tensor:
    return torch.stack([butterworth_lowpass(hz, fs, 2) for hz in cutoff])


def drnl_arguments(fc: Tensor, fs: float) -> tuple[Tensor, ...]:
    """Return what `ops.drnl` takes after the sound: sections (F, 6 or 2 or 3, 6), and linear, gain, exponent (F,)."""
    linear = _gammatone_section(_power(fc, -0.06762, 1.01679), _power(fc, 0.03728, 0.75), fs)
    lowpass = _lowpass(_power(fc, -0.06762, 1.01), fs)
    path = torch.cat([linear] * 2 + [lowpass] * 4, 1)
    path[:, 0, :3] *= _power(fc, 4.20405, -0.47909)[:, None]
    centre = _power(fc, -0.05252, 1.01650)
    section = _gammatone_section(centre, _power(fc, -0.03193, 0.77), fs)
    after = torch.cat([section, section, _lowpass(centre, fs)], 1)
    reach = torch.where(fc > 1000.0, torch.full_like(fc, 1500.0), fc)
    exponent = torch.full_like(fc, 10.0**-0.60206)
    before = torch.cat([section, section], 1)
    return path, before, _power(reach, 1.40298, 0.81916), _power(reach, 1.61912, -0.81867), exponent, after


def casp(fs: float = 44100.0, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Chain:
    """Return the chain for velocities of the stapes (B, T) in m/s; (B, 50, 12, T/4)."""
    fc = centre_frequencies()
    loops = AdaptLoop(fs, preset="paulick2024", fc=fc, dtype=dtype).to(device)
    bank = ModulationFilterbank(fs / 4, fc, preset="jepsen2008", dtype=dtype).to(device)
    lowpass, filters = bank.steps() or ()
    return Chain(
        {
            "drnl": Drnl(*(value.to(device) for value in drnl_arguments(fc, fs))),
            "hair cell": HairCell(ops.HairCellCircuit().tensor(device), fs),
            "loops": loops.steps()[0],
            "resampling": Decimate(ops.resampling_taps(1, 4).to(device), 4),
            "lowpass": lowpass,
            "modulation": filters,
        }
    )
