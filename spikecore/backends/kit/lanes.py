"""The memory layout of tensors for compiled code: an address, a stride of steps and a stride of lanes.

A step of N elements is a row of N lanes. What repeats in memory (stride 0) is read where it is, as one number or one
row; other strides are copied once.
"""

from __future__ import annotations

from torch import Tensor

Lanes = tuple[Tensor, int, int]
"""`(tensor, step, lane)`: element (t, n) stands t * step + n * lane elements behind the tensor's first.

`step` is 0 where all steps are the same, `lane` is 0 where one number stands for all lanes of a step, else 1. A copy
must be kept alive until the call has ended (on an accelerator its allocator sees to that).
"""


def read_sequence(x: Tensor) -> Lanes:
    """A sequence `[T, ...]`."""
    if x.is_contiguous():
        return x, x.numel() // x.shape[0] if x.shape[0] else 0, 1
    strides = x.stride()
    if not any(stride for size, stride in zip(x.shape[1:], strides[1:], strict=True) if size > 1):
        return x, strides[0], 0
    if x[0].is_contiguous():
        return x, strides[0], 1
    x = x.contiguous()
    return x, x.numel() // x.shape[0], 1


def read_state(tensor: Tensor) -> Lanes:
    """One step `[B, ...]`."""
    if tensor.is_contiguous():
        return tensor, 0, 1
    strides = tensor.stride()
    if not any(strides) or not any(stride for size, stride in zip(tensor.shape, strides, strict=True) if size > 1):
        return tensor, 0, 0
    return tensor.contiguous(), 0, 1
