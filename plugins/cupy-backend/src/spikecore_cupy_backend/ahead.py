"""Compilation ahead of time, without a GPU: what NVRTC makes of a kernel for an architecture.

CuPy hands sources to the same library, but asks for a device first; here it is called directly.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
from collections.abc import Callable, Sequence
from ctypes.util import find_library
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from spikecore.backends.kit import BackwardPlan, ForwardPlan
from spikecore.dynamics import Program
from spikecore.errors import BackendError, PluginUnavailable
from spikecore_cupy_backend.kernels import OPTIONS, SOURCE_FILE, explain_log, print_kernel

INSTALL = "pip install nvidia-cuda-nvrtc"


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
    program: Program,
    plan: ForwardPlan | BackwardPlan,
    dtype: torch.dtype,
    architecture: int,
    lanes: int = 1,
    fast_exp: bool = False,
) -> Compiled:
    """Compile a kernel of a program.

    Args:
        program: the program.
        plan: what the kernel is printed for.
        dtype: of x.
        architecture: compute capability, such as 90.
        lanes: of a thread, up to `most_lanes`.
        fast_exp: as of the backend.

    Raises:
        PluginUnavailable: NVRTC is not installed.
        BackendError: it refuses the kernel or the architecture; the message has the lines of the source.
    """
    source = print_kernel(program, plan, dtype, lanes=lanes, fast_exp=fast_exp)
    ptx, log = compile_source(source, architecture)
    numbers = {}
    for name, pattern in (
        ("registers", r"Used (\d+) registers"),
        ("stack", r"(\d+) bytes stack frame"),
        ("spilled", r"(\d+) bytes spill stores"),
    ):
        match = re.search(pattern, log)
        if match is None:
            raise BackendError(f"NVRTC does not say how many {name} a kernel uses: {log}")
        numbers[name] = int(match[1])
    return Compiled(source, ptx, numbers["registers"], numbers["stack"], numbers["spilled"])


def compile_source(source: str, architecture: int) -> tuple[str, str]:
    """`(PTX, log)` of a kernel's source; the log says what registers and memory it uses.

    Raises:
        PluginUnavailable: NVRTC is not installed.
        BackendError: it refuses the source or the architecture.
    """
    library = load_nvrtc()
    program = ctypes.c_void_p()
    given = (source.encode(), SOURCE_FILE.encode(), 0, None, None)
    _check(library, library.nvrtcCreateProgram(ctypes.byref(program), *given))
    try:
        flags = [f"--gpu-architecture=sm_{architecture}", *OPTIONS, "--ptxas-options=-v"]
        options = (ctypes.c_char_p * len(flags))(*[flag.encode() for flag in flags])
        failed = library.nvrtcCompileProgram(program, len(flags), options)
        log = _read(library, program, library.nvrtcGetProgramLogSize, library.nvrtcGetProgramLog)
        if failed:
            raise BackendError(f"NVRTC refuses a kernel for sm_{architecture}: {explain_log(log, source)}")
        return _read(library, program, library.nvrtcGetPTXSize, library.nvrtcGetPTX), log
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


@cache
def load_nvrtc() -> Any:
    """The library, from NVIDIA's wheel or from the system.

    Raises:
        PluginUnavailable: there is none.
    """
    for folder in _wheel_folders():
        libraries = sorted(folder.glob("libnvrtc.so.*"))
        if libraries:
            # NVRTC opens its builtins by name when it compiles: they have to be here by then.
            for builtins in folder.glob("libnvrtc-builtins.so.*"):
                ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
            return ctypes.CDLL(str(libraries[-1]))
    name = find_library("nvrtc")
    if name is None:
        raise PluginUnavailable("NVRTC is not installed", INSTALL)
    return ctypes.CDLL(name)


def _wheel_folders() -> Sequence[Path]:
    """Where NVIDIA's wheels for CUDA 13 and 12 keep their libraries, whether or not they are there."""
    spec = importlib.util.find_spec("nvidia")
    if spec is None or spec.submodule_search_locations is None:
        return []
    roots = [Path(root) for root in spec.submodule_search_locations]
    return [root / inner for root in roots for inner in ("cu13/lib", "cuda_nvrtc/lib")]


def _read(library: Any, program: Any, size: Callable[..., int], get: Callable[..., int]) -> str:
    """A text that NVRTC holds."""
    num_bytes = ctypes.c_size_t()
    _check(library, size(program, ctypes.byref(num_bytes)))
    text = ctypes.create_string_buffer(num_bytes.value)
    _check(library, get(program, text))
    return text.value.decode(errors="replace")


def _check(library: Any, status: int) -> None:
    if status:
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        raise BackendError(f"NVRTC: {library.nvrtcGetErrorString(status).decode()}")
