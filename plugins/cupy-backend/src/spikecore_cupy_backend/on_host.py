"""Kernels as C++ on the CPU: what a kernel computes can be proved without a GPU.

The text of a kernel is the same; host.h defines CUDA's words. Compiled kernels are kept like those of other backends.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from spikecore.backends.kit import (
    INTEGERS,
    BackwardPlan,
    ForwardPlan,
    KernelStore,
    arguments,
    cache_folder,
    integer_arguments,
    open_library,
)
from spikecore.dynamics import Program
from spikecore.errors import BackendError, PluginUnavailable
from spikecore_cupy_backend.kernels import KERNEL, THREADS, parameters, read_text

FLAGS = ("-O1", "-std=c++17", "-fPIC", "-shared", "-ffp-contract=off", "-fno-math-errno", "-w")
RUN = "sc_run"


@cache
def find_compiler() -> tuple[str, str]:
    """`(path, version)` of the C++ compiler.

    Raises:
        PluginUnavailable: there is none.
    """
    for name in ("c++", "g++", "clang++"):
        path = shutil.which(name)
        if path is not None:
            version = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
            return path, version.splitlines()[0] if version else ""
    raise PluginUnavailable("no C++ compiler (c++, g++ or clang++) for kernels on the CPU", "apt install g++")


def host_source(source: str, program: Program, plan: ForwardPlan | BackwardPlan) -> str:
    """A kernel's source with a function that calls it for blocks `first` to `end` - 1 of `THREADS` threads."""
    types = parameters(program, plan)
    declared = ", ".join(f"{kind} {name}" for name, kind in types.items())
    return (
        "#define SC_ON_HOST\n"
        + source.replace('#include "host.h"', read_text("host.h")).replace('extern "C" __global__', "__global__")
        + f'\nextern "C" void {RUN}(long long first, long long end, {declared})\n{{\n'
        + f"    blockDim.x = {THREADS};\n"
        + "    for (long long block = first; block < end; block++)\n"
        + f"        for (unsigned thread = 0; thread < {THREADS}; thread++) {{\n"
        + "            blockIdx.x = (unsigned)block;\n            threadIdx.x = thread;\n"
        + f"            {KERNEL}({', '.join(types)});\n        }}\n}}\n"
    )


class HostCompiler:
    """Compiles and loads kernels for the CPU."""

    def __init__(self) -> None:
        self.path, self.version = find_compiler()
        self._store: KernelStore[ctypes.CDLL] = KernelStore(cache_folder("cupy-backend"), open_library)

    def load(self, source: str, program: Program, plan: ForwardPlan | BackwardPlan, is_double: bool) -> Any:
        """The function `sc_run(first, end, *arguments)` of a kernel; see `host_source`.

        Raises:
            BackendError: the compiler refuses it.
        """
        text = host_source(source, program, plan)
        identity = "\n".join([self.path, self.version, *FLAGS, text])
        library = self._store.get(identity, lambda: self._compile(text))
        run = getattr(library, RUN)
        tensors, _ = arguments(program, plan)
        num_integers = len(integer_arguments(program, plan)) + len(INTEGERS)
        number = ctypes.c_double if is_double else ctypes.c_float
        run.argtypes = [
            *[ctypes.c_longlong] * 2,
            *[ctypes.c_void_p] * len(tensors),
            *[ctypes.c_longlong] * num_integers,
            *[number] * len(program.numbers),
        ]
        run.restype = None
        return run

    def launcher(
        self, source: str, program: Program, plan: ForwardPlan | BackwardPlan, is_double: bool, lanes: int
    ) -> Callable[[Sequence[Tensor], Sequence[int], Sequence[float], int], None]:
        """A function `(tensors, integers, numbers, num_lanes)` that runs a kernel whose threads have so many lanes."""
        run = self.load(source, program, plan, is_double)

        def launch(
            tensors: Sequence[Tensor], integers: Sequence[int], numbers: Sequence[float], num_lanes: int
        ) -> None:
            pointers = [tensor.data_ptr() for tensor in tensors]
            run(0, -(-num_lanes // (THREADS * lanes)), *pointers, *integers, *numbers)

        return launch

    def _compile(self, text: str) -> bytes:
        with tempfile.TemporaryDirectory(prefix="spikecore-") as folder:
            source, library = Path(folder, "kernel.cpp"), Path(folder, "kernel.so")
            source.write_text(text)
            command = [self.path, *FLAGS, str(source), "-o", str(library), "-lm"]
            outcome = subprocess.run(command, capture_output=True, text=True, check=False)
            if outcome.returncode:
                raise BackendError(f"{self.path} refuses a kernel: {outcome.stderr[-2000:]}")
            return library.read_bytes()
