"""The text of kernels in CUDA C. A thread has one lane, or several side by side as a vector."""

from __future__ import annotations

import re
from collections.abc import Mapping
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
"""Threads of the largest block."""
VECTOR_BYTES = 16
"""Of the largest vector: of the state in a forward pass. In a backward pass registers hold a whole segment, so half."""
OPTIONS = ("--std=c++17", "--fmad=false", "--prec-div=true", "--prec-sqrt=true", "--ftz=false", "-w")
"""Of NVRTC: no fused multiply-add, exact division and square root, denormals as they are, as in eager torch. Functions
of the prelude that a kernel does not call are not worth a warning."""
SOURCE_FILE = "spikecore_kernel.cu"
"""How a kernel's source is called in NVRTC's messages."""
LINES_AROUND = 2
_READ = ("x", "state", "param", "row", "grad.out", "grad.state", "grad.recorded")
_ELEMENTS = {torch.float16: 16, torch.bfloat16: 17, torch.float32: 0, torch.float64: 0}


def print_kernel(
    program: Program,
    plan: ForwardPlan | BackwardPlan,
    dtype: torch.dtype,
    reciprocals: bool = True,
    lanes: int = 1,
    fast_exp: bool = False,
) -> str:
    """The source of a kernel, a function named `sc_kernel`, with all that it needs.

    Args:
        program: the program.
        plan: the kernel's form.
        dtype: of x.
        reciprocals: it divides by numbers as torch does on a GPU; otherwise as on a CPU.
        lanes: of a thread; more than 1 needs what `is_vectorisable` asks for.
        fast_exp: exp, sigmoid and tanh of float32 are approximate.
    """
    return _CUDAText(program, plan, dtype, reciprocals, lanes, fast_exp).source()


def most_lanes(plan: ForwardPlan | BackwardPlan, dtype: torch.dtype) -> int:
    """Lanes of a thread for a kernel on many lanes."""
    num_bytes = VECTOR_BYTES if isinstance(plan, ForwardPlan) else VECTOR_BYTES // 2
    return num_bytes // (8 if dtype == torch.float64 else 4)


def least_blocks(plan: ForwardPlan | BackwardPlan, lanes: int) -> int:
    """Blocks of `THREADS` that have to fit on a multiprocessor: a thread has 128 registers, or 168 in a backward pass
    with vectors (with 128, glif and klif spill on sm_100). Without a number the compiler aims at fewer and spills.

    Args:
        plan: the kernel's form.
        lanes: of a thread.
    """
    return 3 if lanes > 1 and isinstance(plan, BackwardPlan) else 4


def is_vectorisable(plan: ForwardPlan | BackwardPlan, addresses: Mapping[str, int]) -> bool:
    """Can a thread load and store several lanes at once? What it reads or writes so begins at a multiple of 16 bytes.

    There is no rest to be computed one by one: in an aligned plan the number of lanes is a multiple of 16, and in
    another one the second step of a sequence would begin within a vector.

    Args:
        plan: the kernel's form.
        addresses: of the tensors, by name.
    """
    single = ("param.", *plan.uniform)
    by_lane = [address for name, address in addresses.items() if not name.startswith(single)]
    return plan.aligned and all(address % VECTOR_BYTES == 0 for address in by_lane)


def launch_shape(num_lanes: int, multiprocessors: int, most: int) -> tuple[int, int]:
    """`(lanes of a thread, threads of a block)`: the most of which every multiprocessor gets several blocks.

    Args:
        num_lanes: elements of one step.
        multiprocessors: of the GPU.
        most: lanes of a thread, see `most_lanes`; 1 where there are no vectors.
    """
    lanes = most
    while lanes > 1 and num_lanes < 4 * multiprocessors * lanes * THREADS:
        lanes //= 2
    threads = THREADS
    # Few lanes: as many multiprocessors as possible have some.
    while threads > 32 and num_lanes < 4 * multiprocessors * lanes * threads:
        threads //= 2
    return lanes, threads


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
        self,
        program: Program,
        plan: ForwardPlan | BackwardPlan,
        dtype: torch.dtype,
        reciprocals: bool,
        lanes: int,
        fast_exp: bool,
    ) -> None:
        super().__init__(program, plan, CUDAPrinter(dtype == torch.float64), reciprocals)
        self.dtype, self.lanes, self.fast_exp = dtype, lanes, fast_exp and dtype != torch.float64

    def statement(self, text: str) -> str:
        return f"{text};"

    def declare(self, name: str, text: str) -> str:
        return f"auto {name} = {text};"

    def load(self, name: str, address: str, index: str) -> str:
        if not index:
            return f"real {name} = sc_load({address});"
        if index == "channel":
            return f"reals {name} = sc_load_channels({address}, lanes, inner, channels);"
        return f"reals {name} = sc_load_lanes({address} + {index});"

    def store(self, address: str, value: str) -> str:
        return f"sc_store_lanes({address} + lanes, {value});"

    def of_lanes(self, value: str) -> str:
        return f"reals({value})"

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
        blocks = least_blocks(self.plan, self.lanes)
        comments = [f"    /* {pointer(self.program, name)}: {name} */" for name in tensors if "." in name]
        parts = [
            f"#define SC_REAL {'double' if self.dtype == torch.float64 else 'float'}",
            f"#define SC_ELEMENT {_ELEMENTS[self.dtype]}",
            f"#define SC_LANES {self.lanes}",
            f"#define SC_FAST_EXP {int(self.fast_exp)}",
            read_text("prelude.cuh"),
            f'extern "C" __global__ void __launch_bounds__({THREADS}, {blocks}) {KERNEL}(',
            ",\n".join(f"    {kind} {name}" for name, kind in names.items()) + ")",
            "{",
            *comments,
            "    const long long lanes = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * SC_LANES;",
            "    if (lanes >= num_lanes)",
            "        return;",
            *self.print_body(),
            "}",
        ]
        return "\n".join(parts) + "\n"
