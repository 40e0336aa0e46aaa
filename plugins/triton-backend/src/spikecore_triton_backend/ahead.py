"""Compilation ahead of time, without a GPU: what a kernel becomes on an architecture."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from spikecore.backends.kit import (
    INTEGERS,
    OF_INPUT_DTYPE,
    BackwardPlan,
    ForwardPlan,
    arguments,
    integer_arguments,
    pointer,
)
from spikecore.dynamics import Program
from spikecore.errors import BackendError
from spikecore_triton_backend.backend import define
from spikecore_triton_backend.compiled import LIBDEVICE, OPTIONS, largest_block
from spikecore_triton_backend.kernels import print_kernel
from spikecore_triton_backend.printer import NUMBER

WARP_SIZE = 32
_TYPES = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32", torch.float64: "fp64"}


@dataclass(frozen=True)
class Compiled:
    """What became of a kernel.

    Args:
        source: its text in Triton.
        ptx: its text in PTX.
        registers: 32-bit registers of a thread.
        stack_bytes: of a thread; more than 0 if registers did not suffice.
        local_bytes: local memory of a thread, likewise.
    """

    source: str
    ptx: str
    registers: int
    stack_bytes: int
    local_bytes: int


def compile_ahead(
    program: Program,
    plan: ForwardPlan | BackwardPlan,
    dtype: torch.dtype,
    architecture: int,
    warps: int = 4,
    fast_exp: bool = False,
) -> Compiled:
    """Compile a kernel of a program.

    Args:
        program: the program.
        plan: what the kernel is printed for.
        dtype: of x.
        architecture: compute capability, such as 90.
        warps: of a block, which has as many lanes as the largest one.
        fast_exp: as of the backend.

    Raises:
        BackendError: it does not compile.
    """
    is_double = dtype == torch.float64
    source = print_kernel(program, plan, is_double, fast_exp=fast_exp)
    kernel = triton.JITFunction(define(program.name, source, LIBDEVICE))
    tensors, _ = arguments(program, plan)
    signature: dict[str, str] = {}
    for name in tensors:
        element = dtype if name in OF_INPUT_DTYPE else (torch.float64 if is_double else torch.float32)
        signature[pointer(program, name)] = f"*{_TYPES[element]}"
    attributes = {(index,): [["tt.divisibility", 16]] for index in range(len(tensors))}
    signature |= dict.fromkeys([*integer_arguments(program, plan), *INTEGERS], "i64")
    signature |= {f"{NUMBER}{slot}": "i64" if is_double else "fp32" for slot in range(len(program.numbers))}
    signature["BLOCK"] = "constexpr"
    target = GPUTarget("cuda", architecture, WARP_SIZE)
    try:
        code = triton.compile(
            ASTSource(kernel, signature, {"BLOCK": largest_block(plan, is_double)}, attributes),
            target=target,
            options={"num_warps": warps, **OPTIONS},
        )
    except Exception as error:
        raise BackendError(f"triton does not compile {program.name} for sm_{architecture}: {error}") from error
    return Compiled(source, code.asm["ptx"], *_resources(code.asm["cubin"]))


def _resources(cubin: bytes) -> tuple[int, int, int]:
    """Registers, bytes of stack and of local memory of a thread, as Triton's own `cuobjdump` prints them."""
    with tempfile.TemporaryDirectory(prefix="spikecore-") as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)
        command = [knobs.nvidia.cuobjdump.path, "-res-usage", str(path)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    usage = {key: int(value) for key, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", text)}
    return usage["REG"], usage["STACK"], usage["LOCAL"]
