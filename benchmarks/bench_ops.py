"""Speed of the operators, beside the limits of the machine.

asv-style classes (``time_*``, ``track_*``; in op_classes.py), and runnable alone:

    python benchmarks/bench_ops.py [--seconds 0.5] [--batch 8] [--ops NAME ...] [--device cpu] [--json PATH]

prints nanoseconds per sample and channel (wall clock, all threads), forward and backward, and how far the forward pass
is from the limits of the machine (roofline.py): ``memory`` is the time that its bytes take at the bandwidth, ``arith.``
the time that its operations take at the full rate, each as a share of the time measured; a star marks the one that
binds. Peak memory is what the process grows by, outputs included. Nothing is written unless ``--json`` is given. Run it
on an idle machine: numbers are the best of several repetitions, but a busy second core still halves them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from measure import write_json
from op_classes import BENCHMARKS, Operator
from roofline import limits, summary

HEADER = (
    f"{'':<18}{'dtype':<9}{'forward':>9}{'backward':>9}{'ratio':>7}{'x real time':>13}"
    f"{'memory':>9}{'arith.':>9}{'MB fwd':>9}{'MB grad':>9}"
)


def measure(kind: type[Operator], dtype: str, machine: dict[str, Any]) -> dict[str, Any]:
    """Return one row of the table."""
    bench = kind()
    bench.setup(dtype)
    forward = bench.seconds_forward(dtype)
    row: dict[str, Any] = {"op": kind.op, "dtype": dtype, "forward_ns": 1e9 * forward / bench.items}
    row["times_real_time"] = bench.batch * bench.seconds / forward
    rate = machine["flops_float64" if kind.wide else f"flops_{dtype}"]
    row |= {"bytes": bench.bytes, "flops": kind.flops * bench.items}
    row["memory_share"] = row["bytes"] / machine["bytes_per_second"] / forward
    row["arithmetic_share"] = row["flops"] / rate / forward
    row["bound_by"] = "memory" if row["memory_share"] > row["arithmetic_share"] else "arithmetic"
    row["forward_megabytes"] = bench.track_forward_megabytes(dtype)
    if kind.differentiable:
        backward = bench.seconds_backward(dtype)
        row |= {"backward_ns": 1e9 * backward / bench.items, "backward_per_forward": backward / forward}
        row["gradient_megabytes"] = bench.track_gradient_megabytes(dtype)
    return row


def line(row: dict[str, Any]) -> str:
    """Return a row as text."""

    def number(name: str, width: int, digits: int) -> str:
        value = row.get(name)
        return f"{'-':>{width}}" if value is None else f"{value:{width}.{digits}f}"

    def share(name: str) -> str:
        return f"{100 * row[name + '_share']:6.1f} %" + ("*" if row["bound_by"] == name else " ")

    speeds = number("forward_ns", 9, 2) + number("backward_ns", 9, 2) + number("backward_per_forward", 7, 1)
    memory = number("forward_megabytes", 8, 0) + number("gradient_megabytes", 9, 0)
    real_time = number("times_real_time", 13, 0)
    return f"{row['op']:<18}{row['dtype']:<9}{speeds}{real_time}{share('memory')}{share('arithmetic')}{memory}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=Operator.seconds)
    parser.add_argument("--batch", type=int, default=Operator.batch)
    parser.add_argument("--ops", nargs="+", metavar="NAME", help="operators; default: all")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args(argv)
    Operator.seconds, Operator.batch, Operator.device = options.seconds, options.batch, options.device
    machine = limits(options.device)
    print(summary(machine))
    print(f"batch {options.batch}, {options.seconds:g} s; ns per sample and channel, {torch.get_num_threads()} threads")
    print(HEADER)
    rows = []
    for kind in BENCHMARKS:
        if options.ops and kind.op not in options.ops:
            continue
        for dtype in kind.params:
            rows.append(measure(kind, dtype, machine))
            print(line(rows[-1]), flush=True)
    write_json(options.json, limits=machine, batch=options.batch, seconds=options.seconds, rows=rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
