"""Running statistics of batch norms, updated as torch updates them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def uses_batch_statistics(norm: Any) -> bool:
    """Does the norm take mean and variance from its input? In training, and in eval mode if it has no running ones."""
    return norm.training or norm.running_mean is None


@torch.no_grad()
def update_running(norm: Any, mean: Tensor, unbiased_var: Tensor) -> None:
    """Count a batch and move the running statistics towards its own, as `torch.nn.BatchNorm2d.forward` does.

    running = momentum * new + (1 - momentum) * running, in double precision; momentum None: the mean of all batches.

    Args:
        norm: in training mode; without `track_running_stats` nothing changes.
        mean: of the batch, `[C]`.
        unbiased_var: of the batch, `[C]`.
    """
    if not (norm.training and norm.track_running_stats):
        return
    momentum = 0.0 if norm.momentum is None else norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if norm.momentum is None:
            momentum = 1.0 / norm.num_batches_tracked.double()
    for running, new in ((norm.running_mean, mean), (norm.running_var, unbiased_var)):
        if running is not None:
            running.copy_(running.double() * (1.0 - momentum) + new.double() * momentum)
