"""Compilation ahead of time with nvcc, without a GPU: what a kernel becomes on an architecture."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from spikecore.backends.kit import BackwardPlan, ForwardPlan
from spikecore.dynamics import Program
from spikecore.errors import BackendError
from spikecore_cupy_backend.kernels import print_kernel

FLAGS = ("-std=c++17", "-fmad=false", "-prec-div=true", "-prec-sqrt=true", "-ftz=false", "-w")


@dataclass(frozen=True)
class Compiled:
    """What became of a kernel.

    Args:
        source: its text in CUDA C.
        ptx: its text in PTX.
        registers: 32-bit registers of a thread.
        stack_bytes: of a thread; more than 0 if registers did not suffice.
        spilled_bytes: likewise.
    """

    source: str
    ptx: str
    registers: int
    stack_bytes: int
    spilled_bytes: int


def compile_ahead(
    program: Program, plan: ForwardPlan | BackwardPlan, dtype: torch.dtype, architecture: int
) -> Compiled:
    """Compile a kernel of a program.

    Args:
        program: the program.
        plan: what the kernel is printed for.
        dtype: of x.
        architecture: compute capability, such as 90.

    Raises:
        BackendError: nvcc is missing, or refuses the kernel; the message has the line of the source.
    """
    source = print_kernel(program, plan, dtype)
    with tempfile.TemporaryDirectory(prefix="spikecore-") as folder:
        text, ptx = Path(folder, "kernel.cu"), Path(folder, "kernel.ptx")
        text.write_text(source)
        _nvcc(f"-arch=sm_{architecture}", "-ptx", str(text), "-o", str(ptx))
        cubin = str(Path(folder, "kernel.cubin"))
        log = _nvcc(f"-arch=sm_{architecture}", "-cubin", "-Xptxas", "-v", str(ptx), "-o", cubin)
        numbers = {}
        for name, pattern in (
            ("registers", r"Used (\d+) registers"),
            ("stack", r"(\d+) bytes stack frame"),
            ("spilled", r"(\d+) bytes spill stores"),
        ):
            match = re.search(pattern, log)
            if match is None:
                raise BackendError(f"nvcc does not say how many {name} a kernel uses: {log}")
            numbers[name] = int(match[1])
        return Compiled(source, ptx.read_text(), numbers["registers"], numbers["stack"], numbers["spilled"])


def _nvcc(*arguments: str) -> str:
    """The messages of nvcc."""
    path = shutil.which("nvcc")
    if path is None:
        raise BackendError("nvcc is not on the PATH: install the CUDA toolkit, or nvidia-cuda-nvcc with pip")
    flags = FLAGS if "-ptx" in arguments else ()
    outcome = subprocess.run([path, *flags, *arguments], capture_output=True, text=True, check=False)
    if outcome.returncode:
        raise BackendError(f"nvcc refuses a kernel: {outcome.stderr[-2000:]}")
    return outcome.stderr + outcome.stdout
