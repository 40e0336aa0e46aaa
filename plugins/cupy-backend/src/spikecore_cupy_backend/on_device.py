"""Kernels on the GPU: compiled by NVRTC through CuPy, launched on torch's current stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import cupy
import numpy as np
import torch
from torch import Tensor

from spikecore.errors import BackendError
from spikecore_cupy_backend.kernels import KERNEL, OPTIONS, explain_log, launch_shape


@cache
def num_multiprocessors(device: int) -> int:
    """Of a GPU."""
    return torch.cuda.get_device_properties(device).multi_processor_count


def launcher(
    source: str, is_double: bool, lanes: int
) -> Callable[[Sequence[Tensor], Sequence[int], Sequence[float], int], None]:
    """A function `(tensors, integers, numbers, num_lanes)` that enqueues a kernel; it is compiled on first use.

    Args:
        source: of the kernel.
        is_double: its numbers are float64.
        lanes: of a thread.

    Raises:
        BackendError: NVRTC refuses the source; the message has its log, with the lines of the source.
    """
    module = cupy.RawModule(code=source, options=OPTIONS)
    functions: dict[int, Any] = {}
    real = np.float64 if is_double else np.float32

    def launch(tensors: Sequence[Tensor], integers: Sequence[int], numbers: Sequence[float], num_lanes: int) -> None:
        device = tensors[0].device.index
        _, threads = launch_shape(num_lanes, num_multiprocessors(device), lanes)
        # `cupy.cuda.Device` would leave another device current than torch's; torch's own guard does not.
        with torch.cuda.device(device):
            if device not in functions:
                try:
                    functions[device] = module.get_function(KERNEL)
                except cupy.cuda.compiler.CompileException as error:
                    raise BackendError(f"NVRTC refuses a kernel: {explain_log(str(error), source)}") from None
            stream = torch.cuda.current_stream(device).cuda_stream
            arguments = (
                *(np.uint64(tensor.data_ptr()) for tensor in tensors),
                *(np.int64(integer) for integer in integers),
                *(real(number) for number in numbers),
            )
            with cupy.cuda.ExternalStream(stream, device):
                functions[device]((-(-num_lanes // (threads * lanes)),), (threads,), arguments)

    return launch
