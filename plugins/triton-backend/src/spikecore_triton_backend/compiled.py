"""Kernels on the GPU: how they are compiled and launched."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import triton
from triton.language.extra import libdevice as LIBDEVICE

from spikecore.backends.kit import BackwardPlan, ForwardPlan
from spikecore.errors import BackendError

__all__ = ["LIBDEVICE", "OPTIONS", "compiled", "largest_block", "launch_shape"]

OPTIONS = {"enable_fp_fusion": False, "enable_reflect_ftz": False, "num_stages": 1}
"""No fused multiply-add, no flushing of denormals in libdevice: eager torch has neither. There is nothing to pipeline
through shared memory."""
SHAPES = ((512, 4), (256, 4), (128, 4), (64, 2), (32, 1))
"""Lanes and warps of a block, from large to small."""


def largest_block(plan: ForwardPlan | BackwardPlan, is_double: bool) -> int:
    """Lanes of the largest block for a kernel: 16 bytes for each thread and step, half in a backward pass, whose
    registers hold a whole segment."""
    largest = 512 if isinstance(plan, ForwardPlan) else 256
    return largest // 2 if is_double else largest


@cache
def num_multiprocessors(device: int) -> int:
    """Of a GPU."""
    return torch.cuda.get_device_properties(device).multi_processor_count


def launch_shape(num_lanes: int, multiprocessors: int, largest: int = 512) -> tuple[int, int]:
    """`(lanes, warps)` of a block: the largest of which every multiprocessor gets several.

    Args:
        num_lanes: elements of one step.
        multiprocessors: of the GPU.
        largest: lanes of the largest block, see `largest_block`.
    """
    shapes = [shape for shape in SHAPES if shape[0] <= largest]
    for block, warps in shapes:
        if num_lanes >= 4 * multiprocessors * block:
            return block, warps
    # Few lanes: as many multiprocessors as possible have some.
    return shapes[-1] if num_lanes <= 64 * multiprocessors else shapes[-2]


def compiled(function: Callable[..., None], largest: int) -> Callable[..., None]:
    """A launcher `(*arguments, num_lanes)` of a kernel.

    Args:
        function: the kernel; its first argument is a tensor of the device.
        largest: lanes of the largest block.

    Raises:
        BackendError: triton does not compile it.
    """
    # Triton would compile again for integers that are 1 or multiples of 16.
    integers = [name for name in inspect.signature(function).parameters if not name.endswith("_ptr")]
    kernel: Any = triton.JITFunction(function, do_not_specialize=integers[:-1])

    def launch(*arguments: Any, num_lanes: int) -> None:
        device = arguments[0].device
        block, warps = launch_shape(num_lanes, num_multiprocessors(device.index), largest)
        grid = (-(-num_lanes // block),)
        # Triton launches on the current device and its current stream.
        with torch.cuda.device(device):
            try:
                kernel[grid](*arguments, BLOCK=block, num_warps=warps, **OPTIONS)
            except triton.CompilationError as error:  # its text has the line of the kernel
                raise BackendError(f"triton does not compile a kernel: {error}") from error

    return launch
