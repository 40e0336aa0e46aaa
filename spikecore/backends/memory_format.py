"""Memory formats: steps that lie in memory channels last are computed as they lie.

    channels last    a step [B, C, H, W] lies in memory as [B, H, W, C]; also with one or three spatial axes
    rows             a view of it as [B * H * W, C]: contiguous, with the channels still on axis 1

To a backend rows are a neuron's input like any other: the neurons of a step are independent of each other, and what has
one value per channel follows the same axis. So every backend keeps the format without knowing of it, nothing is
copied, and each value goes through the same arithmetic as in the contiguous format.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def is_channels_last(x: Tensor, batch: int) -> bool:
    """Whether each step of `x` is dense in memory with the channels innermost, and is not contiguous as well.

    The steps themselves may lie in any order and at any distance, or all be the same one (stride 0).

    Args:
        x: a sequence `[T, B, C, ...]` or one step `[B, C, ...]`.
        batch: axis of the batch: 1 for a sequence, 0 for one step.
    """
    channels = batch + 1
    if x.is_contiguous() or x.dim() < channels + 2 or x.stride(channels) != 1:
        return False
    expected = x.shape[channels]
    for axis in (*range(x.dim() - 1, channels, -1), batch):
        size = x.shape[axis]
        # The stride along an axis of one element means nothing.
        if size != 1 and x.stride(axis) != expected:
            return False
        expected *= size
    return True


def to_rows(x: Tensor, batch: int) -> Tensor:
    """`[..., B, C, H, W]` → `[..., B * H * W, C]`; a view where `x` lies channels last, else a copy."""
    return x.movedim(batch + 1, -1).flatten(batch, -2)


def from_rows(rows: Tensor, shape: Sequence[int], batch: int) -> Tensor:
    """The view of `rows` `[..., B * H * W, C]` that has this shape `[..., B, C, H, W]`: channels last.

    Args:
        rows: one step, or a sequence.
        shape: of the result, from the batch on.
        batch: axis of the batch.
    """
    size, num_channels, *space = shape
    return rows.reshape(*rows.shape[:batch], size, *space, num_channels).movedim(-1, batch + 1)


def one_step(x: Tensor) -> Tensor:
    """What a step of `[T, B, ...]` looks like: shape, dtype, device and memory format; without gradient."""
    if not x.shape[0]:
        return x.new_empty(x.shape[1:])
    return (x.detach() if x.requires_grad else x)[0]


def unbind_steps(x: Tensor) -> Sequence[Tensor]:
    """The steps of a sequence `[T, B, ...]`, as `x.unbind(0)` gives them.

    The gradient of x keeps the memory format of x; that of `unbind` would be contiguous.
    """
    if not is_channels_last(x, 1):
        return x.unbind(0)
    return [step.movedim(-1, 1) for step in x.movedim(2, -1).unbind(0)]


def stack_steps(steps: Sequence[Tensor]) -> Tensor:
    """The sequence `[T, B, ...]` of these steps, in the memory format of the first; `torch.stack` is contiguous."""
    if not is_channels_last(steps[0], 0):
        return torch.stack(list(steps))
    return torch.stack([step.movedim(1, -1) for step in steps]).movedim(-1, 2)


def formatted_like(out: Tensor, x: Tensor, batch: int) -> Tensor:
    """`out` in the memory format of `x`, if that is channels-last and they have the same shape; copied if need be."""
    if out.shape != x.shape or not is_channels_last(x, batch):
        return out
    return out.movedim(batch + 1, -1).contiguous().movedim(-1, batch + 1)


def filled_like(x: Tensor, value: float | Tensor, dtype: torch.dtype) -> Tensor:
    """A new tensor of the shape, device and memory format of the step `x` `[B, ...]`.

    Args:
        x: only looked at.
        value: a number, or a tensor that broadcasts to `x`; then the result has its dtype, and a gradient.
        dtype: of the result, for a number.
    """
    if not is_channels_last(x, 0):
        if isinstance(value, Tensor):
            return value.expand(x.shape).clone(memory_format=torch.contiguous_format)
        return torch.full(x.shape, value, dtype=dtype, device=x.device)
    if isinstance(value, Tensor):
        last = value.expand(x.shape).movedim(1, -1).clone(memory_format=torch.contiguous_format)
    else:
        last = torch.full(x.movedim(1, -1).shape, value, dtype=dtype, device=x.device)
    return last.movedim(-1, 1)
