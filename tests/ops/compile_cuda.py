"""Compile every Triton kernel that the operators start for an H100, without a GPU; print what each needs.

Run as a program (not in Triton's interpreter): ``python tests/ops/compile_cuda.py [case ...]``. Every operator's
forward and backward pass is called on small CPU tensors with the launch replaced: the kernel is compiled for
compute capability 9.0 instead of started. One line of JSON per kernel: registers, bytes of stack (spills), shared
memory.
"""

from __future__ import annotations

import itertools
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


def usage(cubin: bytes) -> dict[str, int]:
    """Return registers and bytes of stack per thread, as the disassembler that comes with Triton reports them."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([tool, "-res-usage", file.name], check=True, capture_output=True, text=True).stdout
    return {name.lower(): int(re.findall(rf"{name}:(\d+)", text)[-1]) for name in ("REG", "STACK")}


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
    compiled = triton.compile(ASTSource(kernel, signature, constants), target=TARGET, options={"num_warps": 1})
    facts = {"kernel": f"{kernel.__module__.rpartition('.')[2]}.{kernel.__name__}", "constants": shown}
    print(json.dumps(facts | usage(compiled.asm["cubin"]) | {"shared": compiled.metadata.shared}), flush=True)


def main(names: Sequence[str]) -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    from op_cases import CASES

    tiles.start = compile_only
    for case in CASES.values():
        if names and case.op not in names:
            continue
        for dtype, shape in itertools.product((torch.float32, torch.float64), ((2, 3, 20), (1, 1, 1))):
            for options in case.options:
                inputs = case.inputs(np.random.default_rng(7), *shape, dtype) | options
                leaves = {name: inputs[name].clone().requires_grad_() for name in case.differentiable}
                with using("triton"):
                    y = case.run(**(inputs | leaves))
                    y = torch.view_as_real(y) if y.is_complex() else y
                    y.sum().backward()
    if not names or "chain_products" in names:
        from test_chain import inputs

        for dtype in (torch.float32, torch.float64):
            with using("triton"):
                ops.chain_products(**inputs("model", 2, 3, 20, dtype), moments=True)


if __name__ == "__main__":
    main(sys.argv[1:])
