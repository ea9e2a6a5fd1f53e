"""What this machine can do at best: bytes per second to and from memory, and floating-point operations per second.

    python benchmarks/roofline.py [--device cpu]

prints both limits; `limits` returns them, so that a benchmark can say how far from them an operator is. An operator
cannot be faster than its bytes over the bandwidth, nor than its operations over the rate.

Memory: a copy of an array that no cache holds, all threads; the bytes read and the bytes written count once each (a
processor that fetches a line before it overwrites it moves half as many again, which an operator does as well).
Arithmetic: fused multiply-additions on vectors in registers, as many independent chains as run fastest, all threads;
each counts as two operations. Results are of the moment: on a busy machine they are low like everything else.
"""

# mypy: disable-error-code="no-untyped-def"
# Compiled functions are typed by numba.

from __future__ import annotations

import argparse
import sys
from functools import cache, partial
from typing import Any

import torch
from measure import best_of

from psysim.ops.cpu.simd import LANES, load, store
from psysim.ops.cpu.tiles import flat, kernel, run_blocks

__all__ = ["limits", "summary"]

COPY_BYTES = 1 << 28  # 256 MiB each way: eight times the largest last-level cache at hand
STEPS = 1 << 18  # multiply-additions per chain and call: a millisecond, a thousand times the call


@kernel
def _two_chains(block, steps, factor, values):
    at = block * 2 * LANES
    c = load(factor, 0)
    a0, a1 = load(values, at), load(values, at + LANES)
    for _ in range(steps):
        a0, a1 = a0 * c + c, a1 * c + c
    store(values, at, a0 + a1)


@kernel
def _three_chains(block, steps, factor, values):
    at = block * 3 * LANES
    c = load(factor, 0)
    a0, a1, a2 = load(values, at), load(values, at + LANES), load(values, at + 2 * LANES)
    for _ in range(steps):
        a0, a1, a2 = a0 * c + c, a1 * c + c, a2 * c + c
    store(values, at, a0 + a1 + a2)


@kernel
def _six_chains(block, steps, factor, values):
    at = block * 6 * LANES
    c = load(factor, 0)
    a0, a1, a2 = load(values, at), load(values, at + LANES), load(values, at + 2 * LANES)
    a3, a4, a5 = load(values, at + 3 * LANES), load(values, at + 4 * LANES), load(values, at + 5 * LANES)
    for _ in range(steps):
        a0, a1, a2 = a0 * c + c, a1 * c + c, a2 * c + c
        a3, a4, a5 = a3 * c + c, a4 * c + c, a5 * c + c
    store(values, at, a0 + a1 + a2 + a3 + a4 + a5)


_CHAINS = {2: _two_chains, 3: _three_chains, 6: _six_chains}  # registers of 16 to 64 bytes, 16 or 32 of them


def _rate_cpu(dtype: torch.dtype) -> float:
    """Multiply-additions on all threads, in operations per second."""
    blocks = 4 * torch.get_num_threads()  # a thread that is held up leaves its share to the others
    factor = flat(torch.full((LANES,), 0.5, dtype=dtype))
    best = 0.0
    for chains, function in _CHAINS.items():
        values = flat(torch.ones(blocks * chains * LANES, dtype=dtype))
        function(0, 1, factor, values)  # compile
        took = best_of(partial(run_blocks, function, blocks, STEPS, factor, values), 25)
        best = max(best, 2.0 * LANES * chains * STEPS * blocks / took)
    return best


def _bandwidth(device: str) -> float:
    """Bytes read and written per second by a copy."""
    source = torch.ones(COPY_BYTES // 4, dtype=torch.float32, device=device)
    target = torch.zeros_like(source)
    return 2.0 * COPY_BYTES / best_of(lambda: target.copy_(source), 15)


def _rate_cuda(dtype: torch.dtype, device: str) -> float:
    """Multiply-additions on a card, in Triton: torch's own would go to memory after every operation."""
    from roofline_cuda import CHAINS, LANES_PER_PROGRAM, multiply_add

    programs = 64 * torch.cuda.get_device_properties(device).multi_processor_count
    values = torch.ones(programs * LANES_PER_PROGRAM, dtype=dtype, device=device)

    def work() -> None:
        multiply_add[(programs,)](values, STEPS // 64)

    work()  # compile
    return 2.0 * CHAINS * (STEPS // 64) * values.numel() / best_of(work, 25)


@cache
def limits(device: str = "cpu") -> dict[str, Any]:
    """Return the limits of ``device``; measured once per process.

    Parameters
    ----------
    device : str
        ``"cpu"`` or a CUDA device.

    Returns
    -------
    dict
        ``device`` (name of the card, or the number of CPU threads), ``bytes_per_second`` (read and written), and
        ``flops_float32``, ``flops_float64``: operations per second.
    """
    cuda = torch.device(device).type == "cuda"
    rate = partial(_rate_cuda, device=device) if cuda else _rate_cpu
    return {
        "device": torch.cuda.get_device_name(device) if cuda else f"{torch.get_num_threads()} CPU threads",
        "bytes_per_second": _bandwidth(device),
        "flops_float32": rate(torch.float32),
        "flops_float64": rate(torch.float64),
    }


def summary(found: dict[str, Any]) -> str:
    """Return the limits as a line of text."""
    return (
        f"{found['device']}: {found['bytes_per_second'] / 1e9:.1f} GB/s read and written, "
        f"{found['flops_float32'] / 1e9:.0f} GFLOP/s in float32, {found['flops_float64'] / 1e9:.0f} in float64"
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    print(summary(limits(parser.parse_args(argv).device)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
