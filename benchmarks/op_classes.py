"""One class per operator: its input, its coefficients, and what it must move and compute at the least.

``flops``: floating-point operations per sample and channel of the input, counted in the CPU kernel's forward loop:
multiplication and addition 1 each (fused: 2), comparison, division and square root 1, exponential and logarithm 15.
Divisions cost more than 1 and exponentials run at less than the full rate, so the share of the arithmetic limit that
an operator with many of them can reach is well below 1. ``wide``: arithmetic is float64 whatever the signal's dtype.
Bytes: signals and templates read once, outputs written once, as the tensors of the call have them.
"""

from __future__ import annotations

import math
from dataclasses import fields
from functools import cache
from typing import Any, ClassVar

import numpy as np
import scipy.signal
import torch
from measure import FS, best_of, noise, peak_memory
from torch import Tensor

from psysim import ops
from psysim.ops import steps
from psysim.stages import DRNLFilterbank, ExcitationPattern

__all__ = ["BENCHMARKS", "Operator"]

F64 = torch.float64
CENTRES_HZ = np.geomspace(87.0, 7820.0, 31)
CHANNELS = len(CENTRES_HZ)
MFC_HZ = np.array([5, 10, 50 / 3, 27.77778, 46.2963, 77.16049, 128.60082, 214.33471, 357.22451, 595.37418, 992.2903])
MODULATION_FLOPS_REAL, MODULATION_FLOPS_ENVELOPE, SECTION_FLOPS = 11, 15, 9


@cache
def gammatone_coefficients() -> tuple[Tensor, Tensor]:
    fc = torch.from_numpy(CENTRES_HZ)
    return torch.exp(-2 * math.pi * 1.0185916 * (24.7 + fc / 9.265) / FS), 2 * math.pi * fc / FS


def section(order: int, cutoff_hz: float) -> Tensor:
    return torch.from_numpy(scipy.signal.butter(order, cutoff_hz, fs=FS, output="sos"))


def loop_coefficients() -> tuple[Any, ...]:
    tau = torch.tensor([0.005, 0.050, 0.129, 0.253, 0.500], dtype=F64)
    return torch.exp(-1 / (tau * FS)), torch.tensor([1e-5], dtype=F64), 10.0


def modulation_coefficients() -> tuple[Tensor, ...]:
    mfc = torch.from_numpy(MFC_HZ)
    bandwidth = torch.where(mfc < 10, torch.full_like(mfc, 5.0), mfc / 2)
    limit = torch.from_numpy(np.minimum(CENTRES_HZ / 4, 1000.0))
    decay, angle = torch.exp(-math.pi * bandwidth / FS), 2 * math.pi * mfc / FS
    valid = torch.cat([torch.zeros(1, dtype=F64), mfc]) <= limit[:, None]
    return section(2, 2.5), decay, angle, mfc > 10, torch.full_like(mfc, 2.0), valid


def constant(*values: float) -> Tensor:
    return torch.tensor(values, dtype=F64)


class Operator:
    """One operator at batch x 31 channels x 0.5 s. A subclass gives the coefficients, and another input if it needs."""

    params: ClassVar = ["float32", "float64"]
    param_names: ClassVar = ["dtype"]
    batch, seconds, device = 8, 0.5, "cpu"
    op: ClassVar[str] = ""
    flops: ClassVar[float] = 0.0
    wide: ClassVar[bool] = True
    differentiable: ClassVar[bool] = True
    channels: ClassVar[int] = CHANNELS

    def setup(self, dtype: str) -> None:
        self.dtype = getattr(torch, dtype)
        self.samples = round(self.seconds * FS)
        self.x = self.signal()
        self.coefficients = tuple(c.to(self.device) if isinstance(c, Tensor) else c for c in self.constants())
        y = self.call(self.x)  # also compiles, or reads the compiled kernels
        moved = [self.x, y, *(c for c in self.coefficients if isinstance(c, Tensor))]
        self.bytes = sum(tensor.numel() * tensor.element_size() for tensor in moved)
        if self.differentiable:
            self.learning = self.x.clone().requires_grad_()
            self.cotangent = torch.ones_like(y)
            self.time_gradient(dtype)

    def sound(self) -> Tensor:
        """Noise at about 60 dB SPL (full scale 100 dB), (B, T)."""
        return noise(self.batch, self.samples, self.dtype, 0.01, self.device)

    def signal(self) -> Tensor:
        """Return envelopes as a hair cell gives them, (B, F, T)."""
        poles = tuple(value.to(self.device) for value in gammatone_coefficients())
        return ops.sosfilt(ops.gammatone(self.sound(), *poles).relu_(), section(1, 1000.0).to(self.device))

    def constants(self) -> tuple[Any, ...]:
        """Return the arguments after the signal."""
        raise TypeError("a subclass gives the coefficients")

    def call(self, x: Tensor) -> Tensor:
        return getattr(ops, self.op)(x, *self.coefficients)

    def time_forward(self, dtype: str) -> Tensor:
        return self.call(self.x)

    def time_gradient(self, dtype: str) -> tuple[Tensor, ...]:
        """Forward and backward with respect to the signal."""
        return torch.autograd.grad(self.call(self.learning), self.learning, self.cotangent)

    def seconds_forward(self, dtype: str) -> float:
        return best_of(lambda: self.time_forward(dtype))

    def seconds_backward(self, dtype: str) -> float:
        """Backward alone: one graph, walked several times."""
        y = self.call(self.learning)
        return best_of(lambda: torch.autograd.grad(y, self.learning, self.cotangent, retain_graph=True), 5)

    def track_forward_ns(self, dtype: str) -> float:
        return self.seconds_forward(dtype) / self.items * 1e9

    track_forward_ns.unit = "ns per sample and channel"  # type: ignore[attr-defined]

    def track_forward_megabytes(self, dtype: str) -> float | None:
        return _megabytes(peak_memory(lambda: self.time_forward(dtype)))

    def track_gradient_megabytes(self, dtype: str) -> float | None:
        return _megabytes(peak_memory(lambda: self.time_gradient(dtype)))

    @property
    def items(self) -> int:
        """Samples times channels of the input."""
        return self.batch * self.samples * self.channels


def _megabytes(size: int | None) -> float | None:
    return None if size is None else size / 1e6


class Gammatone(Operator):
    """Fourth order, real output: two products of complex and real or complex numbers per stage; times 2."""

    op, flops = "gammatone", 4 * 10 + 1

    def signal(self) -> Tensor:
        return self.sound()

    def constants(self) -> tuple[Any, ...]:
        return gammatone_coefficients()


class Sosfilt(Operator):
    """One second-order section, shared by all channels."""

    op, flops = "sosfilt", SECTION_FLOPS

    def constants(self) -> tuple[Any, ...]:
        return (section(2, 1000.0),)


class Iirfilt(Operator):
    """One fourth-order filter in direct form, shared by all channels: 4 K + 1 operations for order K."""

    op, flops = "iirfilt", 4 * 4 + 1

    def constants(self) -> tuple[Any, ...]:
        b, a = scipy.signal.butter(4, 1000.0, fs=FS)
        return torch.from_numpy(b)[None], torch.from_numpy(a)[None]


class Leaky(Operator):
    """A time constant of 20 ms in every channel."""

    op, flops = "leaky", 3

    def constants(self) -> tuple[Any, ...]:
        decay = math.exp(-1 / (0.02 * FS))
        return constant(decay), constant(1 - decay)


class Smooth(Operator):
    """Attack 5 ms, release 50 ms: a difference, a comparison, a multiplication and an addition."""

    op, flops = "smooth", 4

    def constants(self) -> tuple[Any, ...]:
        return constant(1 - math.exp(-1 / (0.005 * FS))), constant(1 - math.exp(-1 / (0.05 * FS)))


class Compress(Operator):
    """Broken stick with exponent 0.25: magnitude, both branches (logarithm, exponential) and the smaller of them."""

    op, flops = "compress", 1 + 1 + 15 + 1 + 15 + 1 + 1

    def constants(self) -> tuple[Any, ...]:
        return constant(1.0), constant(1e-3), constant(0.25)


class Drnl(Operator):
    """50 channels, 6 sections in the linear path and 5 in the other, and the broken stick between them."""

    op, flops, channels = "drnl", 11 * SECTION_FLOPS + Compress.flops + 1, 50

    def signal(self) -> Tensor:
        return 5e-4 * self.sound()  # velocity of the stapes in m/s: 5e-6

    def constants(self) -> tuple[Any, ...]:
        step: Any = DRNLFilterbank((250.0, 8000.0), FS).steps()[0]
        return tuple(getattr(step, field.name) for field in fields(step))


class HairCell(Operator):
    """The circuit of Paulick et al. (2024): two exponentials, a quotient and about twenty other operations."""

    op, flops, wide = "hair_cell", 2 * 15 + 1 + 21, False

    def signal(self) -> Tensor:
        return 0.1 * super().signal()  # m/s: millivolts at the output

    def constants(self) -> tuple[Any, ...]:
        return ops.HairCellCircuit().tensor(), FS


class AdaptationLoops(Operator):
    """Five loops with the limiter at 10.

    Per loop a quotient and an increment of the state, 4. Not counted: the compensation of that sum in float32 (3), and
    the limiter (20), which works at onsets only.
    """

    op, flops, wide = "adaptation_loops", 5 * 4 + 3, False

    def constants(self) -> tuple[Any, ...]:
        return loop_coefficients()


class ModulationBank(Operator):
    """Up to 12 filters per channel (dense output), as many as fc/4 allows: 281 of 372.

    11 operations for a filter with real output, 15 with its envelope, 9 for the lowpass; the average over channels.
    """

    op = "modulation_bank"
    flops = SECTION_FLOPS + float(
        modulation_coefficients()[-1][:, 1:].double().mean(0)
        @ torch.where(modulation_coefficients()[3], MODULATION_FLOPS_ENVELOPE, MODULATION_FLOPS_REAL).double()
    )

    def signal(self) -> Tensor:
        decay, minimum, limit = loop_coefficients()
        return ops.adaptation_loops(super().signal(), decay.to(self.device), minimum.to(self.device), limit)

    def constants(self) -> tuple[Any, ...]:
        return modulation_coefficients()


class RoexSpread(Operator):
    """Spectra of 1025 components, one every millisecond, into 150 filters with 227 components on their low side.

    "Samples" are frames, "channels" components. Per component and filter: the larger slope, two products, a sum, an
    exponential, a product and a sum.
    """

    op, wide, channels = "roex_spread", False, 1025
    flops = 34020 / 1025 * (1 + 1 + 1 + 1 + 15 + 2)

    def signal(self) -> Tensor:
        self.samples = round(self.seconds * 1000)
        return noise(self.batch * self.samples, self.channels, self.dtype, 1e3, self.device).square_()

    def constants(self) -> tuple[Any, ...]:
        pattern = ExcitationPattern()
        tables = pattern._lower * pattern.lower_slope_base, pattern._lowest, pattern._count
        return torch.full_like(self.x, 0.8), *tables


class Resample(Operator):
    """To a quarter of the rate with 81 taps: 81 multiply-additions per output, a quarter of them per input."""

    op, flops = "resample", 2 * 81 / 4

    def constants(self) -> tuple[Any, ...]:
        return 1, 4, ops.resampling_taps(1, 4)


class TemplateProduct(Operator):
    """One value of a representation: divide by 12 to compare with the others."""

    op, flops = "template_product", 2

    def signal(self) -> Tensor:
        return noise(self.batch, self.channels * self.samples, self.dtype, 1.0, self.device)

    def constants(self) -> tuple[Any, ...]:
        return self.x[:1], torch.zeros(self.batch, dtype=torch.int64)


class ChainForward(Operator):
    """The chain of Dau et al. (1997) to its representation in one pass: the sum of its steps.

    All of it counts as float64; for float32 signals the loops, a tenth of the operations, are float32.
    """

    op, differentiable = "chain_forward", False
    flops = Gammatone.flops + 1 + 2 * SECTION_FLOPS + AdaptationLoops.flops + ModulationBank.flops

    def signal(self) -> Tensor:
        return self.sound()

    def constants(self) -> tuple[Any, ...]:
        chain = [
            steps.Gammatone(*gammatone_coefficients(), 4),
            steps.HalfWave(),
            steps.Sections(section(1, 1000.0)),
            steps.Loops(*loop_coefficients()),
            steps.Sections(section(1, 150.0)),
            steps.Bank(*modulation_coefficients()),
        ]
        return ([type(s).rebuild([t.to(self.device) for t in s.tensors], s.numbers) for s in chain],)


class ChainProducts(ChainForward):
    """The same with one template for all rows, without the representation in memory."""

    op, flops = "chain_products", ChainForward.flops + 2 * 281 / CHANNELS

    def constants(self) -> tuple[Any, ...]:
        templates = noise(CHANNELS * (len(MFC_HZ) + 1), self.samples, self.dtype, 1.0)
        shape = (1, 1, CHANNELS, len(MFC_HZ) + 1, self.samples)
        return *super().constants(), templates.reshape(shape), torch.zeros(self.batch, dtype=torch.int64)


BENCHMARKS: tuple[type[Operator], ...] = (
    Gammatone,
    Sosfilt,
    Iirfilt,
    Leaky,
    Smooth,
    Compress,
    Drnl,
    HairCell,
    AdaptationLoops,
    Resample,
    RoexSpread,
    ModulationBank,
    TemplateProduct,
    ChainForward,
    ChainProducts,
)
