"""The text of kernels in CUDA C. A thread is a lane."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

import torch

from spikecore.backends.kit import (
    INTEGERS,
    OF_INPUT_DTYPE,
    BackwardPlan,
    ForwardPlan,
    KernelText,
    arguments,
    integer_arguments,
    pointer,
)
from spikecore.dynamics import Program
from spikecore_cupy_backend.printer import NUMBER, CUDAPrinter

KERNEL = "sc_kernel"
THREADS = 128
"""Threads of a block."""
OPTIONS = ("--std=c++17", "--fmad=false", "--prec-div=true", "--prec-sqrt=true", "--ftz=false", "-w")
"""Of NVRTC: no fused multiply-add, exact division and square root, denormals as they are, as in eager torch. Functions
of the prelude that a kernel does not call are not worth a warning."""
SOURCE_FILE = "spikecore_kernel.cu"
"""How a kernel's source is called in NVRTC's messages."""
LINES_AROUND = 2
_READ = ("x", "state", "param", "row", "grad.out", "grad.state", "grad.recorded")
_ELEMENTS = {torch.float16: 16, torch.bfloat16: 17, torch.float32: 0, torch.float64: 0}


def print_kernel(
    program: Program, plan: ForwardPlan | BackwardPlan, dtype: torch.dtype, reciprocals: bool = True
) -> str:
    """The source of a kernel, a function named `sc_kernel`, with all that it needs.

    Args:
        program: the program.
        plan: the kernel's form.
        dtype: of x.
        reciprocals: it divides by numbers as torch does on a GPU; otherwise as on a CPU.
    """
    return _CUDAText(program, plan, dtype, reciprocals).source()


def is_read(name: str, plan: ForwardPlan | BackwardPlan) -> bool:
    """Is this tensor of a launch only read? Rows are written by forward kernels, read by backward kernels."""
    if name.startswith("row."):
        return isinstance(plan, BackwardPlan)
    return name in _READ or name.rsplit(".", 1)[0] in _READ


def parameters(program: Program, plan: ForwardPlan | BackwardPlan) -> dict[str, str]:
    """The parameters of a kernel: name → type."""
    tensors, _ = arguments(program, plan)
    types: dict[str, str] = {}
    for name in tensors:
        kind = "element" if name in OF_INPUT_DTYPE else "real"
        constant = "const " if is_read(name, plan) else ""
        types[pointer(program, name)] = f"{constant}{kind} *__restrict__"
    types |= dict.fromkeys([*integer_arguments(program, plan), *INTEGERS], "long long")
    types |= {f"{NUMBER}{slot}": "real" for slot in range(len(program.numbers))}
    return types


def explain_log(log: str, source: str) -> str:
    """A compiler's log, and the lines of a kernel's source that it names, with those around them."""
    lines = source.splitlines()
    named = {int(match[1]) for match in re.finditer(r"\((\d+)\): (?:catastrophic )?error", log)}
    shown = {
        number
        for line in named
        for number in range(line - LINES_AROUND, line + LINES_AROUND + 1)
        if 1 <= number <= len(lines)
    }
    excerpt = [f"{'>' if number in named else ' '}{number:5} {lines[number - 1]}" for number in sorted(shown)]
    return "\n".join([log.strip(), *excerpt])


@cache
def read_text(name: str) -> str:
    """A file of this package."""
    return files("spikecore_cupy_backend").joinpath(name).read_text()


class _CUDAText(KernelText):
    def __init__(
        self, program: Program, plan: ForwardPlan | BackwardPlan, dtype: torch.dtype, reciprocals: bool
    ) -> None:
        super().__init__(program, plan, CUDAPrinter(dtype == torch.float64), reciprocals)
        self.dtype = dtype

    def statement(self, text: str) -> str:
        return f"{text};"

    def declare(self, name: str, text: str) -> str:
        return f"auto {name} = {text};"

    def load(self, name: str, address: str, index: str) -> str:
        where = f"{address} + {index}" if index else address
        return f"real {name} = sc_load({where});"

    def store(self, address: str, value: str) -> str:
        return f"sc_store({address} + lanes, {value});"

    def loop(self, variable: str, count: str) -> tuple[str, str]:
        return f"for (long long {variable} = 0; {variable} < {count}; {variable}++) {{", "}"

    def scope(self) -> tuple[str, str]:
        return "{", "}"

    def quotient(self, dividend: str, divisor: str) -> str:
        return f"{dividend} / {divisor}"

    def source(self) -> str:
        """The prelude and the kernel."""
        tensors, _ = arguments(self.program, self.plan)
        names = parameters(self.program, self.plan)
        comments = [f"    /* {pointer(self.program, name)}: {name} */" for name in tensors if "." in name]
        parts = [
            f"#define SC_REAL {'double' if self.dtype == torch.float64 else 'float'}",
            f"#define SC_ELEMENT {_ELEMENTS[self.dtype]}",
            read_text("prelude.cuh"),
            f'extern "C" __global__ void __launch_bounds__({THREADS}) {KERNEL}(',
            ",\n".join(f"    {kind} {name}" for name, kind in names.items()) + ")",
            "{",
            *comments,
            "    const long long lanes = (long long)blockIdx.x * blockDim.x + threadIdx.x;",
            "    if (lanes >= num_lanes)",
            "        return;",
            *self.print_body(),
            "}",
        ]
        return "\n".join(parts) + "\n"
