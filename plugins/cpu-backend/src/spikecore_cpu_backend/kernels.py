"""Compiled programs, ready to be called."""

from __future__ import annotations

import ctypes
import struct
from dataclasses import dataclass
from typing import Any

import torch

from spikecore.dynamics import Program
from spikecore_cpu_backend.cache import KernelCache
from spikecore_cpu_backend.kept import keeping
from spikecore_cpu_backend.source import kernel_source, runtime_source

ELEMENTS = {torch.float32: 0, torch.float64: 0, torch.bfloat16: 1, torch.float16: 2}
"""Input dtype → element type as in driver.c."""
HEAD = 12
INPUT = 3
ARRIVES = 2


@dataclass(frozen=True)
class Entry:
    """A function of the driver: `quick` keeps Python's lock, which pays for small work; `free` lets it go."""

    quick: Any
    free: Any


@dataclass(frozen=True)
class Kernel:
    """One program for one input dtype.

    Args:
        program: its equations.
        library: keeps the code loaded.
        address: of the table that the driver gets.
        element: the input's element type.
        element_bytes: its size.
        state_dtype: of states and parameters.
        forward: of the driver, for the precision of the state.
        backward: the same.
        pack_forward: the numbers that `forward` takes, as bytes.
        pack_backward: those that `backward` takes.
        num_states: of the program.
        is_simple: no tensor parameters, nothing recorded.
        can_keep: u is enough for the backward pass (see kept.py).
    """

    program: Program
    library: Any
    address: int
    element: int
    element_bytes: int
    state_dtype: torch.dtype
    forward: Entry
    backward: Entry
    pack_forward: Any
    pack_backward: Any
    num_states: int
    is_simple: bool
    can_keep: bool


class Runtime:
    """The driver with its threads; makes kernels for it.

    Raises:
        BackendError: it does not compile or load.
    """

    def __init__(self, cache: KernelCache) -> None:
        self.cache = cache
        self.library = cache.load(runtime_source())
        self.has_float16 = bool(self.library.sc_has_float16())
        self.library.sc_copy.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int]
        self.library.sc_copy.restype = None
        self._entries = {
            (name, bits): self._entry(f"sc_{name}_{bits}") for name in ("forward", "backward") for bits in (32, 64)
        }

    def _entry(self, name: str) -> Entry:
        address = ctypes.cast(getattr(self.library, name), ctypes.c_void_p).value
        assert address is not None
        free, quick = (make(ctypes.c_int, ctypes.c_char_p)(address) for make in (ctypes.CFUNCTYPE, ctypes.PYFUNCTYPE))
        return Entry(quick, free)

    def kernel(self, program: Program, dtype: torch.dtype) -> Kernel:
        """Compile a program, or find it in the cache.

        Raises:
            BackendError: it does not compile or load.
        """
        is_double = dtype == torch.float64
        bits = 64 if is_double else 32
        library = self.cache.load(kernel_source(program, is_double))
        address = ctypes.addressof(ctypes.c_char.in_dll(library, "sc_program"))
        states, params, recorded = len(program.states), len(program.params), len(program.record)
        forward = HEAD + INPUT + 1 + states * (INPUT + 1) + recorded + params
        backward = HEAD + 2 * INPUT + 1 + states * (2 * INPUT + 1) + recorded * INPUT + ARRIVES + 2 * params
        return Kernel(
            program,
            library,
            address,
            ELEMENTS[dtype],
            dtype.itemsize,
            torch.float64 if is_double else torch.float32,
            self._entries["forward", bits],
            self._entries["backward", bits],
            struct.Struct(f"{forward}q").pack,
            struct.Struct(f"{backward}q").pack,
            states,
            not params and not recorded,
            keeping(program) is not None,
        )
