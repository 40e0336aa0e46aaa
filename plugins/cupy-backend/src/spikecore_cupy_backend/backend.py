"""The backend `cupy`: prints a program as CUDA C kernels, compiled on first use."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from spikecore.backends.kit import (
    BackendCapabilities,
    BackwardPlan,
    ForwardPlan,
    FusedBackend,
    Launch,
    Support,
    arguments,
)
from spikecore.dynamics import Program
from spikecore.errors import PluginUnavailable
from spikecore_cupy_backend.kernels import is_vectorisable, launch_shape, most_lanes, print_kernel
from spikecore_cupy_backend.printer import CUDAPrinter

DRIVER = "install NVIDIA's driver and a CUDA build of torch; to run kernels on the CPU: --set on_host=true"
OLDEST = (8, 0)
"""The oldest compute capability: it has conversions to bfloat16, and minima that keep NaN."""


class CuPyBackend(FusedBackend):
    """Every neuron as a fused CUDA C kernel.

    Raises:
        PluginUnavailable: cupy is not installed, or torch sees no NVIDIA GPU.
    """

    # Below the priority of the Triton backend, whose kernels load vectors.
    capabilities: ClassVar[BackendCapabilities] = BackendCapabilities(
        priority=90, devices=("cuda",), affine_neuron=True, norm_neuron=True
    )

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            on_host: compile the kernels as C++ and run them on CPU tensors, for tests without a GPU.
            fast_exp: compute exp, sigmoid and tanh of float32 by the GPU's approximate instructions. Membrane
                potentials of neurons that have them, and gradients of surrogates that have them, then differ from eager
                torch's in the last bits; so do, rarely, spikes.
        """

        on_host: bool = False
        fast_exp: bool = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if self.config.on_host:
            from spikecore_cupy_backend.on_host import HostCompiler

            self._host = HostCompiler()
            self.capabilities = replace(type(self).capabilities, devices=("cpu",))  # type: ignore[misc]
        else:
            check_cupy()
            check_device()
        self._kernels: dict[tuple[Any, ...], Callable[..., None]] = {}

    @property
    def operators(self) -> Collection[str]:
        """Those of the printer."""
        return CUDAPrinter.operations

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

    def source(self, program: Program, plan: ForwardPlan | BackwardPlan, dtype: torch.dtype, lanes: int = 1) -> str:
        """The text of a kernel whose threads have so many lanes. One for the CPU is compared with torch there."""
        return print_kernel(program, plan, dtype, not self.config.on_host, lanes, self.config.fast_exp)

    def launch(self, launch: Launch) -> None:
        """See `FusedBackend.launch`."""
        program, plan = launch.program, launch.plan
        lanes = self._lanes_of_thread(launch)
        # Programs of one structure differ in the values of numbers, and perhaps in the names of their states.
        key = (program.structure, program.states, program.params, program.record, launch.dtype, plan, lanes)
        kernel = self._kernels.get(key)
        if kernel is None:
            kernel = self._kernels[key] = self._make(program, plan, launch.dtype, lanes)
        kernel(
            [launch.tensors[name] for name in arguments(program, plan)[0]],
            list(launch.integers.values()),
            program.numbers,
            launch.num_lanes,
        )

    def _lanes_of_thread(self, launch: Launch) -> int:
        addresses = {name: tensor.data_ptr() for name, tensor in launch.tensors.items()}
        if not is_vectorisable(launch.plan, addresses):
            return 1
        most = most_lanes(launch.plan, launch.dtype)
        if self.config.on_host:
            return most
        from spikecore_cupy_backend.on_device import num_multiprocessors

        return launch_shape(launch.num_lanes, num_multiprocessors(launch.device.index), most)[0]

    def _make(
        self, program: Program, plan: ForwardPlan | BackwardPlan, dtype: torch.dtype, lanes: int
    ) -> Callable[..., None]:
        source, is_double = self.source(program, plan, dtype, lanes), dtype == torch.float64
        if self.config.on_host:
            return self._host.launcher(source, program, plan, is_double, lanes)
        from spikecore_cupy_backend.on_device import launcher

        return launcher(source, is_double, lanes)


def check_cupy() -> None:
    """Raises PluginUnavailable if cupy is not installed."""
    if importlib.util.find_spec("cupy") is None:
        major = (torch.version.cuda or "13").split(".")[0]
        raise PluginUnavailable("cupy is not installed", f"pip install cupy-cuda{major}x")


def check_device() -> None:
    """Raises PluginUnavailable if torch sees no NVIDIA GPU."""
    if torch.version.hip is not None:
        raise PluginUnavailable("this build of torch is for AMD GPUs; kernels are tested on NVIDIA's", DRIVER)
    if not torch.cuda.is_available():
        reason = "torch sees no GPU" if torch.version.cuda else "this build of torch has no CUDA"
        raise PluginUnavailable(reason, DRIVER)
