"""Kernels on the CPU, in Triton's interpreter: what a kernel computes can be proved without a GPU.

The interpreter evaluates a kernel's operations with numpy. Functions of libdevice it does not know; torch's own take
their place, which are what the reference uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import triton
from torch import Tensor
from triton import language as tl
from triton.runtime.errors import InterpreterError
from triton.runtime.interpreter import InterpretedFunction, TensorHandle, interpreter_builder

from spikecore.errors import BackendError

LARGEST_BLOCK = 1 << 15
_RUNNING = Lock()
"""The interpreter patches `triton.language` while it runs."""


def _on_blocks(function: Callable[[Tensor], Tensor]) -> Callable[[Any], Any]:
    """A function of tensors as one of the interpreter's blocks."""

    def call(block: Any) -> Any:
        values = function(torch.from_numpy(block.handle.data)).numpy()
        return tl.tensor(TensorHandle(values, block.handle.dtype), block.type)

    return call


LIBDEVICE = SimpleNamespace(
    rint=_on_blocks(torch.round),
    exp=_on_blocks(torch.exp),
    log=_on_blocks(torch.log),
    tanh=_on_blocks(torch.tanh),
    sin=_on_blocks(torch.sin),
    cos=_on_blocks(torch.cos),
    atan=_on_blocks(torch.atan),
    erf=_on_blocks(torch.erf),
)


@contextmanager
def _rounds_to_nearest() -> Iterator[None]:
    """Inside, the interpreter rounds float32 to bfloat16 as a GPU does, halves to even; otherwise it truncates."""
    builder: Any = interpreter_builder
    convert = builder.cast_impl

    def cast(source: Any, dtype: Any) -> Any:
        if source.dtype.scalar == tl.float32 and dtype.scalar == tl.bfloat16:
            rounded = torch.from_numpy(np.ascontiguousarray(source.data)).to(torch.bfloat16)
            return TensorHandle(rounded.view(torch.int16).numpy().view(np.uint16), tl.bfloat16)
        return convert(source, dtype)

    builder.cast_impl = cast
    try:
        yield
    finally:
        del builder.cast_impl  # the method of its class again


def interpreted(function: Callable[..., None]) -> Callable[..., None]:
    """A launcher `(*arguments, num_lanes)` of a kernel that runs in the interpreter.

    Raises:
        BackendError: the interpreter fails.
    """
    kernel: Any = InterpretedFunction(function)

    def launch(*arguments: Any, num_lanes: int) -> None:
        block = min(1 << max(num_lanes - 1, 1).bit_length(), LARGEST_BLOCK)
        try:
            # Infinities and NaN are results like others.
            with _RUNNING, _rounds_to_nearest(), np.errstate(all="ignore"):
                kernel[(-(-num_lanes // block),)](*arguments, BLOCK=block)
        except InterpreterError as error:
            raise BackendError(
                f"the interpreter of triton {triton.__version__} fails with numpy {np.__version__}: "
                f"{error}. That of triton 3.6 does with numpy 2.4, that of triton 3.9 does not"
            ) from error

    return launch
