"""Kernels on the GPU: how they are compiled and launched."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import triton
from triton.language.extra import libdevice as LIBDEVICE

__all__ = ["LIBDEVICE", "OPTIONS", "compiled", "launch_shape"]

OPTIONS = {"enable_fp_fusion": False, "enable_reflect_ftz": False, "num_stages": 1}
"""No fused multiply-add, no flushing of denormals in libdevice: eager torch has neither. There is nothing to pipeline
through shared memory."""
LANES_OF_THREAD = 4
SHAPES = ((512, 4), (256, 4), (128, 4), (64, 2), (32, 1))
"""Lanes and warps of a block, from large to small."""


@cache
def num_multiprocessors(device: int) -> int:
    """Of a GPU."""
    return torch.cuda.get_device_properties(device).multi_processor_count


def launch_shape(num_lanes: int, multiprocessors: int) -> tuple[int, int]:
    """`(lanes, warps)` of a block: the largest of which every multiprocessor gets several."""
    for block, warps in SHAPES:
        if num_lanes >= 4 * multiprocessors * block:
            return block, warps
    # Few lanes: as many multiprocessors as possible, whatever a block holds.
    return SHAPES[-1] if num_lanes <= 64 * multiprocessors else SHAPES[-2]


def compiled(function: Callable[..., None]) -> Callable[..., None]:
    """A launcher `(*arguments, num_lanes)` of a kernel; the first argument is a tensor of the device."""
    kernel: Any = triton.jit(function)
    names = [name for name in kernel.arg_names if not name.endswith("_ptr") and name != "BLOCK"]
    kernel = triton.JITFunction(function, do_not_specialize=names)

    def launch(*arguments: Any, num_lanes: int) -> None:
        device = arguments[0].device
        block, warps = launch_shape(num_lanes, num_multiprocessors(device.index))
        grid = (-(-num_lanes // block),)
        # Triton launches on the current device and its current stream.
        with torch.cuda.device(device):
            kernel[grid](*arguments, BLOCK=block, num_warps=warps, **OPTIONS)

    return launch
