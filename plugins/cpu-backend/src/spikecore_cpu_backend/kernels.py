"""Compiled programs, ready to be called."""

from __future__ import annotations

import ctypes
import hashlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from spikecore.backends.kit import BoundedDict
from spikecore.dynamics import Program, gives_spikes, keep_distance
from spikecore_cpu_backend.cache import KernelCache
from spikecore_cpu_backend.call import BackwardCall, ForwardCall, Pack
from spikecore_cpu_backend.source import kernel_source, runtime_source

ELEMENTS = {torch.float32: 0, torch.float64: 0, torch.bfloat16: 1, torch.float16: 2}
"""Input dtype → element type as in driver.c."""
MOST_CODES = 256
"""Structures whose code is held in memory; one that was dropped is loaded again from its file."""
SMALL_BLOCK = 1024
"""Lanes of a block in a small call."""


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
        owned: keeps code and numbers in memory.
        address: of the table that the driver gets.
        numbers: address of the program's numbers, as the driver reads them.
        element: the input's element type.
        element_bytes: its size.
        state_dtype: of states and parameters.
        forward: of the driver, for the precision of the state.
        backward: the same.
        norm_forward: of the driver, for batch norm and neuron.
        norm_backward: the same.
        pack_forward: packs a `ForwardCall`.
        pack_backward: packs a `BackwardCall`.
        small: the first bytes of the packed forward call of a small input, which are the same for all of them.
        pack_small: packs the rest, from `num_steps` on.
        num_states: of the program.
        is_simple: no tensor parameters, nothing recorded.
        can_keep: u is enough for the backward pass (see `dynamics.keep_distance`).
        writes_bits: its rows write spikes as bits too.
    """

    program: Program
    owned: Any
    address: int
    numbers: int
    element: int
    element_bytes: int
    state_dtype: torch.dtype
    forward: Entry
    backward: Entry
    norm_forward: Entry
    norm_backward: Entry
    pack_forward: Pack
    pack_backward: Pack
    small: bytes
    pack_small: Pack
    num_states: int
    is_simple: bool
    can_keep: bool
    writes_bits: bool


class Code(NamedTuple):
    """Compiled code of one structure in one precision; fields as of `Kernel`."""

    library: ctypes.CDLL
    address: int
    can_keep: bool


class Runtime:
    """The driver with its threads; makes kernels for it.

    Attributes:
        identity: of the driver's text.

    Raises:
        BackendError: it does not compile or load.
    """

    def __init__(self, cache: KernelCache) -> None:
        self.cache = cache
        self._codes: BoundedDict[tuple[str, bool, str], Code] = BoundedDict(MOST_CODES)
        source = runtime_source()
        self.identity = hashlib.sha256(source.encode()).hexdigest()
        self.library = cache.load(source)
        self.has_float16 = bool(self.library.sc_has_float16())
        self.has_bits = bool(self.library.sc_has_bits())
        self.library.sc_copy.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int]
        self.library.sc_copy.restype = None
        self._entries = {
            (name, bits): self._entry(f"sc_{name}_{bits}")
            for name in ("forward", "backward", "norm_forward", "norm_backward")
            for bits in (32, 64)
        }

    def _entry(self, name: str) -> Entry:
        address = ctypes.cast(getattr(self.library, name), ctypes.c_void_p).value
        assert address is not None
        free, quick = (make(ctypes.c_int, ctypes.c_char_p)(address) for make in (ctypes.CFUNCTYPE, ctypes.PYFUNCTYPE))
        return Entry(quick, free)

    def code(self, program: Program, is_double: bool, normed: str = "") -> Code:
        """The compiled code, which programs that differ in their numbers alone share; `normed` as of `print_program`.

        Held by its callers for as long as they use its address: it is unloaded when nobody holds it.

        Raises:
            BackendError: it does not compile or load.
        """
        code = self._codes.get((program.structure, is_double, normed))
        if code is None:
            library = self.cache.load(kernel_source(program, is_double, normed))
            address = ctypes.addressof(ctypes.c_char.in_dll(library, "sc_program"))
            code = self._codes[program.structure, is_double, normed] = Code(
                library, address, keep_distance(program) is not None
            )
        return code

    def kernel(self, program: Program, dtype: torch.dtype) -> Kernel:
        """Compile a program, or find it in the cache.

        Raises:
            BackendError: it does not compile or load.
        """
        is_double = dtype == torch.float64
        bits = 64 if is_double else 32
        code = self.code(program, is_double)
        real = ctypes.c_double if is_double else ctypes.c_float
        numbers = (real * len(program.numbers))(*program.numbers)  # rounds to the nearest, as the printer does
        pack_forward = ForwardCall.packer(program)
        small = ForwardCall(
            program=code.address,
            numbers=ctypes.addressof(numbers),
            num_threads=1,
            inner=1,
            channels=1,
            io=ELEMENTS[dtype],
            streams=0,
            block=SMALL_BLOCK,
            kept=0,
            kept_io=0,
            bits=0,
            num_steps=0,
            num_lanes=0,
            x=(0, 0, 0),
            out=0,
            states=[0, 0, 0] * len(program.states),
            finals=[0] * len(program.states),
            recorded=[0] * len(program.record),
            params=[0] * len(program.params),
        ).pack(pack_forward)
        return Kernel(
            program,
            (code.library, numbers),
            code.address,
            ctypes.addressof(numbers),
            ELEMENTS[dtype],
            dtype.itemsize,
            torch.float64 if is_double else torch.float32,
            self._entries["forward", bits],
            self._entries["backward", bits],
            self._entries["norm_forward", bits],
            self._entries["norm_backward", bits],
            pack_forward,
            BackwardCall.packer(program),
            small[: ForwardCall.offset("num_steps")],
            ForwardCall.packer(program, start="num_steps"),
            len(program.states),
            not program.params and not program.record,
            code.can_keep,
            self.has_bits and not is_double and gives_spikes(program.forward, "out"),
        )
