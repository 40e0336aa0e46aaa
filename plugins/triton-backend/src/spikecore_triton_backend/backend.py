"""The backend `triton`: prints a program as Triton kernels, compiled on first use."""

from __future__ import annotations

import importlib.util
import linecache
import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, ClassVar

import torch

from spikecore.backends.kit import (
    ALIGNMENT,
    BackendCapabilities,
    BackwardPlan,
    ForwardPlan,
    FusedBackend,
    Launch,
    Support,
    arguments,
    is_distance,
)
from spikecore.dynamics import Program
from spikecore.errors import PluginUnavailable
from spikecore_triton_backend.kernels import KERNEL, print_kernel
from spikecore_triton_backend.printer import OPERATIONS, SINGLE

INSTALL = "pip install triton"
DRIVER = "install NVIDIA's driver and a CUDA build of torch; to run kernels slowly on the CPU: --set interpret=true"
OLDEST = (8, 0)
"""The oldest compute capability: it has conversions to bfloat16, and minima that keep NaN."""


class TritonBackend(FusedBackend):
    """Every neuron as a fused Triton kernel.

    Raises:
        PluginUnavailable: triton is not installed, or torch sees no NVIDIA GPU.
    """

    capabilities: ClassVar[BackendCapabilities] = BackendCapabilities(
        priority=100, devices=("cuda",), affine_neuron=True, norm_neuron=True
    )

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            interpret: run the kernels in Triton's interpreter, on CPU tensors: slow, for tests without a GPU.
            fast_exp: compute exp, sigmoid and tanh of float32 by the GPU's approximate instructions. Membrane
                potentials of neurons that have them, and gradients of surrogates that have them, then differ from eager
                torch's in the last bits; so do, rarely, spikes.
        """

        interpret: bool = False
        fast_exp: bool = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        check_triton()
        if self.config.interpret:
            self.capabilities = replace(type(self).capabilities, devices=("cpu",))  # type: ignore[misc]
        else:
            check_device()
        self._kernels: dict[tuple[Any, ...], Callable[..., None]] = {}

    @property
    def operators(self) -> Collection[str]:
        """Those of the printer."""
        return {*OPERATIONS, *SINGLE}

    def supports(self, program: Program, device: torch.device, dtype: torch.dtype) -> Support:
        """See `FusedBackend.supports`; GPUs from Ampere on."""
        support = super().supports(program, device, dtype)
        if support and device.type == "cuda":
            capability = torch.cuda.get_device_capability(device)
            if capability < OLDEST:
                needs, has = (".".join(map(str, version)) for version in (OLDEST, capability))
                return Support(
                    False, f"needs compute capability {needs}, {torch.cuda.get_device_name(device)} has {has}"
                )
        return support

    def source(self, program: Program, plan: ForwardPlan | BackwardPlan, dtype: torch.dtype) -> str:
        """The text of a kernel."""
        # The interpreter is compared with torch on the CPU.
        reciprocals = not self.config.interpret
        return print_kernel(program, plan, dtype == torch.float64, reciprocals, self.config.fast_exp)

    def launch(self, launch: Launch) -> None:
        """See `FusedBackend.launch`."""
        program, plan = launch.program, launch.plan
        is_double = launch.dtype == torch.float64
        # Programs of one structure differ in the values of numbers, and perhaps in the names of their states.
        key = (program.structure, program.states, program.params, program.record, is_double, plan)
        kernel = self._kernels.get(key)
        if kernel is None:
            kernel = self._kernels[key] = self._make(program, plan, launch.dtype)
        integers = launch.integers
        if plan.aligned:
            integers = {name: n // ALIGNMENT if is_distance(name) else n for name, n in integers.items()}
        numbers = [_bits(number) for number in program.numbers] if is_double else program.numbers
        kernel(
            *(launch.tensors[name] for name in arguments(program, plan)[0]),
            *integers.values(),
            *numbers,
            num_lanes=launch.num_lanes,
        )

    def _make(self, program: Program, plan: ForwardPlan | BackwardPlan, dtype: torch.dtype) -> Callable[..., None]:
        source = self.source(program, plan, dtype)
        if self.config.interpret:
            from spikecore_triton_backend import interpreted

            return interpreted.interpreted(define(program.name, source, interpreted.LIBDEVICE))
        from spikecore_triton_backend import compiled

        kernel = define(program.name, source, compiled.LIBDEVICE)
        return compiled.compiled(kernel, compiled.largest_block(plan, dtype == torch.float64))


def define(name: str, source: str, libdevice: Any) -> Callable[..., None]:
    """The function that a kernel's source defines; tracebacks and Triton's errors show its lines.

    Args:
        name: of the neuron.
        source: from `print_kernel`.
        libdevice: the module of functions that it calls.
    """
    from triton import language

    file = f"<triton kernel of {name}, {sha256(source.encode()).hexdigest()[:12]}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    names: dict[str, Any] = {"tl": language, "libdevice": libdevice, "__name__": "spikecore_triton_backend.generated"}
    exec(compile(source, file, "exec"), names)
    function: Callable[..., None] = names[KERNEL]
    return function


def check_triton() -> None:
    """Raises PluginUnavailable if triton is not installed."""
    if importlib.util.find_spec("triton") is None:
        raise PluginUnavailable("triton is not installed", INSTALL)


def check_device() -> None:
    """Raises PluginUnavailable if torch sees no NVIDIA GPU."""
    if torch.version.hip is not None:
        raise PluginUnavailable("this build of torch is for AMD GPUs; kernels are tested on NVIDIA's", DRIVER)
    if not torch.cuda.is_available():
        reason = "torch sees no GPU" if torch.version.cuda else "this build of torch has no CUDA"
        raise PluginUnavailable(reason, DRIVER)


def _bits(number: float) -> int:
    """The bits of a float64 as an integer: Triton passes Python's floats as float32."""
    bits: int = struct.unpack("<q", struct.pack("<d", number))[0]
    return bits
