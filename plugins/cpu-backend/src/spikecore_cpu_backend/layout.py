"""How tensors lie in memory, as the driver wants to hear it."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from spikecore.dynamics import Program
from spikecore.errors import BackendError


class Zero:
    """A number in memory that is zero in every dtype: what a gradient that does not arrive is read from.

    No tensor, since one that is made under a transform or for another default device has no memory here.
    """

    _memory = ctypes.c_double(0.0)

    def data_ptr(self) -> int:
        """As of a tensor."""
        return ctypes.addressof(self._memory)


Readable = Tensor | Zero
_ZERO = Zero()


def sequence(x: Tensor | None) -> tuple[Readable, int, int]:
    """`(tensor, step, lanes)` of `[T, ...]`: element (t, n) stands at t * step + n, or at t * step where lanes is 0.

    Repeated steps and numbers that stand for all lanes are read where they are; other strides are copied.
    """
    if x is None:
        return _ZERO, 0, 0
    if x.is_contiguous():
        return x, x.numel() // x.shape[0] if x.shape[0] else 0, 1
    strides = x.stride()
    if not any(stride for size, stride in zip(x.shape[1:], strides[1:], strict=True) if size > 1):
        return x, strides[0], 0
    if x[0].is_contiguous():
        return x, strides[0], 1
    x = x.contiguous()
    return x, x.numel() // x.shape[0], 1


def state(tensor: Tensor | None) -> tuple[Readable, int, int]:
    """The same for one step `[B, ...]`."""
    if tensor is None:
        return _ZERO, 0, 0
    if tensor.is_contiguous():
        return tensor, 0, 1
    strides = tensor.stride()
    if not any(strides) or not any(stride for size, stride in zip(tensor.shape, strides, strict=True) if size > 1):
        return tensor, 0, 0
    return tensor.contiguous(), 0, 1


def channels(program: Program, shape: Sequence[int], params: Sequence[Tensor]) -> tuple[int, int]:
    """`(inner, channels)`: lane n belongs to channel n // inner % channels.

    Raises:
        BackendError: a per-channel parameter does not fit axis 2.
    """
    found = (1, 1)
    for param, value in zip(program.params, params, strict=True):
        size = value.numel()
        if param.per_channel:
            if len(shape) < 3 or shape[2] != size:
                raise BackendError(
                    f"{program.name}.{param.name} has {size} values, x is {tuple(shape)}: axis 2 differs"
                )
            inner = 1
            for length in shape[3:]:
                inner *= length
            found = (max(inner, 1), max(size, 1))
        elif size != 1:
            raise BackendError(f"{program.name}.{param.name} is one number, got {size}")
    return found


def checked(
    program: Program, lanes: int, dtype: torch.dtype, states: Sequence[Tensor], params: Sequence[Tensor]
) -> None:
    """What C code cannot ask any more.

    Raises:
        BackendError: a state or parameter has another size, dtype or device than the program wants.
    """
    if len(states) != len(program.states) or len(params) != len(program.params):
        raise BackendError(
            f"{program.name} has {len(program.states)} states and {len(program.params)} tensor parameters, "
            f"got {len(states)} and {len(params)}"
        )
    for value in states:
        if value.numel() != lanes:
            raise BackendError(f"a state of {program.name} has {value.numel()} elements, a step of x has {lanes}")
    for value in (*states, *params):
        if value.dtype != dtype or not value.is_cpu:
            raise BackendError(
                f"{program.name} needs states and parameters as {dtype} on the CPU, got {value.dtype} on {value.device}"
            )
