"""Compile every Triton kernel that the operators start for an H100, without a GPU; print what each needs.

Run as a program (not in Triton's interpreter): ``python tests/ops/compile_cuda.py [--all] [operator ...]``. Every
operator's forward and backward pass is called on small CPU tensors with the launch replaced: the kernel is compiled for
compute capability 9.0 instead of started. One line of JSON per kernel: registers, bytes of stack (spills), shared
memory, and the instructions of its longest loop (docs/explanation/operators.md estimates durations from them). With
``--all`` also for float64 and for all options of the cases: minutes.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from psysim import ops
from psysim.ops.base import using
from psysim.ops.cuda import tiles
from psysim.ops.cuda.tuning import Shape

POINTERS = {
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.int32: "*i32",
    torch.int64: "*i64",
    torch.bool: "*i1",
    torch.uint8: "*u8",
}
TARGET = GPUTarget("cuda", 90, 32)
DONE: set[str] = set()


SORTS = {
    "fp64": ("DADD", "DMUL", "DFMA", "DSETP", "DMNMX"),
    "fp32": ("FADD", "FMUL", "FFMA", "FSETP", "FMNMX", "FSEL", "FCHK"),
    "special": ("MUFU", "F2F", "I2F", "F2I"),
    "memory": ("LDG", "STG", "LDS", "STS", "LDC", "LDL", "STL"),
}


def _dump(cubin: bytes, option: str) -> str:
    """Return what the disassembler that comes with Triton says."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([tool, option, file.name], check=True, capture_output=True, text=True).stdout


def usage(cubin: bytes) -> dict[str, int]:
    """Return registers and bytes of stack per thread."""
    text = _dump(cubin, "-res-usage")
    return {name.lower(): int(re.findall(rf"{name}:(\d+)", text)[-1]) for name in ("REG", "STACK")}


def longest_loop(cubin: bytes) -> dict[str, int]:
    """Count the instructions of the longest loop that has no loop inside: most often eight samples of a row."""
    code = [(int(at, 16), text) for at, text in re.findall(r"/\*([0-9a-f]{4,})\*/\s+([^;]+);", _dump(cubin, "-sass"))]
    jumps = [(int(m.group(1), 16), at) for at, text in code if (m := re.search(r"BRA.*?0x([0-9a-f]+)", text))]
    loops = [(first, last) for first, last in jumps if first < last]
    inner = [p for p in loops if not any(q != p and p[0] <= q[0] and q[1] <= p[1] for q in loops)]
    bodies = [[text for at, text in code if first <= at <= last] for first, last in inner]
    names = [
        re.sub(r"^@!?U?P\w+\s+", "", text).split()[0].partition(".")[0] for text in max(bodies, key=len, default=[])
    ]
    counts = {sort: sum(name in members for name in names) for sort, members in SORTS.items()}
    return counts | {"other": len(names) - sum(counts.values())}


def compile_only(kernel: Any, shape: Shape, rows: int, args: Sequence[Any], constants: Mapping[str, Any]) -> None:
    """Stand in for `psysim.ops.cuda.tiles.start`."""
    constants = {**constants, "BLOCK": 32}
    shown = str(constants)
    values = [*args, rows]
    signature: dict[str, str] = {}
    for name in kernel.arg_names:
        if name in constants:
            signature[name] = "constexpr"
            continue
        value = values.pop(0)
        if type(value) is int and value == 1:  # Triton makes a constant of it
            signature[name], constants[name] = "constexpr", 1
            continue
        scalar = "fp64" if isinstance(value, float) else "i32"
        signature[name] = POINTERS[value.dtype] if isinstance(value, Tensor) else scalar
    assert not values
    key = f"{kernel.__module__}.{kernel.__name__} {constants} {signature}"
    if key in DONE:
        return
    DONE.add(key)
    compiled = triton.compile(ASTSource(kernel, signature, constants), target=TARGET, options={"num_warps": 1})
    facts = {"kernel": f"{kernel.__module__.rpartition('.')[2]}.{kernel.__name__}", "constants": shown}
    facts |= usage(compiled.asm["cubin"])
    facts |= {"shared": compiled.metadata.shared, "loop": longest_loop(compiled.asm["cubin"])}
    print(json.dumps(facts), flush=True)


def main(names: Sequence[str], everything: bool) -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    from op_cases import CASES

    tiles.start = compile_only
    for case in CASES.values():
        if names and case.op not in names:
            continue
        for dtype in (torch.float32, torch.float64) if everything else (torch.float32,):
            for options in case.options if everything else case.options[:1]:
                inputs = case.inputs(np.random.default_rng(7), 2, 3, 20, dtype) | options
                leaves = {name: inputs[name].clone().requires_grad_() for name in case.differentiable}
                with using("triton"):
                    y = case.run(**(inputs | leaves))
                    y = torch.view_as_real(y) if y.is_complex() else y
                    y.sum().backward()
    if not names or "chunked" in names:
        from psysim.ops.cuda import chunked

        chunked.SHORTEST, chunked.LENGTH = 1, 8
        case = CASES["sosfilt"]
        with using("triton"):
            case.run(**case.inputs(np.random.default_rng(7), 2, 3, 40, torch.float32))
    if not names or "chain_products" in names:
        from test_chain import inputs

        with using("triton"):
            ops.chain_products(**inputs("model", 2, 3, 20, torch.float32), moments=True)


if __name__ == "__main__":
    main([name for name in sys.argv[1:] if name != "--all"], "--all" in sys.argv)
