"""Batch norm whose statistics come from all processes, on the CPU too.

    m = 1/N Σ x,   v = 1/N Σ (x - m)²          sums over time, batch, space and processes; N numbers in all

torch's `SyncBatchNorm` does this on GPUs, and refuses tensors on the CPU. `ProcessBatchNorm` exchanges the sums; every
other operation is torch's own, so autograd differentiates it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function

from spikecore.errors import ShapeError
from spikecore.nn.half import HALF
from spikecore.nn.layers.fold import FoldsTime
from spikecore.torch_internals import BatchNorm, check_norm_input


class AllSum(Function):
    """y = Σ_processes x.  Every process uses y, so the gradient of x is the sum of their gradients of y."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        return total


class ProcessBatchNorm(BatchNorm):
    """A batch norm over the batches of all processes, on any device; channels are axis 1.

    Alone, and in eval mode, it is the batch norm of torch. It is no `torch.nn.SyncBatchNorm`, because
    `DistributedDataParallel` refuses nets on the CPU that have one.
    """

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, ...]` → the same shape."""
        if self.training and is_connected():
            check_norm_input(self, x)
            return self._together(x)
        normed: Tensor = super().forward(x)
        return normed

    def _check_input_dim(self, x: Tensor) -> None:
        if x.dim() < 2:
            raise ShapeError(f"{type(self).__name__} takes [B, C, ...], got {tuple(x.shape)}")

    def _together(self, x: Tensor) -> Tensor:
        wide = x.float() if x.dtype in HALF else x
        axes = [axis for axis in range(x.dim()) if axis != 1]
        shape = [1, -1, *[1] * (x.dim() - 2)]
        count = wide.new_tensor([x.numel() // x.shape[1]])
        sums: Tensor = AllSum.apply(torch.cat([wide.sum(axes), count]))  # type: ignore[no-untyped-call]
        num = sums[-1].detach()
        mean = sums[:-1] / num
        centred = wide - mean.view(shape)
        squares: Tensor = AllSum.apply(centred.square().sum(axes))  # type: ignore[no-untyped-call]
        var = squares / num
        self._update(mean.detach(), var.detach(), num)
        normed = centred * torch.rsqrt(var + self.eps).view(shape)
        if self.weight is not None:
            normed = normed * self.weight.view(shape) + self.bias.view(shape)
        return normed.to(x.dtype)

    @torch.no_grad()
    def _update(self, mean: Tensor, var: Tensor, num: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or not self.track_running_stats:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        factor = self._factor()
        unbiased = var * (num / (num - 1).clamp(min=1))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), factor)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), factor)

    def _factor(self) -> float:
        if self.momentum is not None:
            return self.momentum
        return 1.0 / float(self.num_batches_tracked) if self.num_batches_tracked is not None else 0.0


class FoldingProcessBatchNorm(FoldsTime, ProcessBatchNorm):
    """`ProcessBatchNorm` over `[T, B, C, ...]`."""

    ranks = range(2, 64)


def is_connected() -> bool:
    """Whether this process may have others to share statistics with."""
    return dist.is_available() and dist.is_initialized()


def is_synchronised(module: nn.Module) -> bool:
    """Whether a norm takes its statistics from all processes."""
    return isinstance(module, nn.SyncBatchNorm | ProcessBatchNorm)
