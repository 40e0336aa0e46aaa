"""A batch norm that takes its statistics from the batch: what a backend needs to run it, and what it leaves behind."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from spikecore.nn.layers.fold import fold
from spikecore.torch_internals import check_norm_input


def uses_batch_statistics(norm: Any) -> bool:
    """Does the norm take mean and variance from its input? In training mode, and without running ones also else."""
    return norm.training or norm.running_mean is None


class BatchStatistics:
    """The norm of one call, for `Neuron.forward`.

    Args:
        norm: a batch norm that `uses_batch_statistics`.
        is_multi: the input has T in front.
        owner: whose norm it is, for messages.
    """

    def __init__(self, norm: nn.Module, is_multi: bool, owner: str) -> None:
        self.norm: Any = norm
        self.is_multi, self.owner = is_multi, owner

    def gamma_beta(self, dtype: torch.dtype) -> tuple[Tensor | None, Tensor | None]:
        """Weight and bias in this dtype; None where the norm has none."""
        gamma, beta = self.norm.weight, self.norm.bias
        return None if gamma is None else gamma.to(dtype), None if beta is None else beta.to(dtype)

    def check(self, y: Tensor) -> None:
        """Refuse what the norm refuses, in its words.

        Raises:
            ValueError: y has another number of axes than the norm takes.
        """
        check_norm_input(self.norm, y[0] if self.is_multi else y)

    def alone(self, y: Tensor) -> Tensor:
        """The normed y, by torch."""
        normed: Tensor = fold(self.norm, (y,), {}, self.owner) if self.is_multi else self.norm(y)
        return normed

    def update(self, mean: Tensor, var: Tensor, count: int) -> None:
        """Update the running statistics as torch does; see `update_running`."""
        if self.norm.training and self.norm.track_running_stats:
            update_running(self.norm, mean, var * (count / (count - 1)))


@torch.no_grad()
def update_running(norm: Any, mean: Tensor, unbiased_var: Tensor) -> None:
    """Count a batch and move the running statistics towards its own, as `torch.nn.BatchNorm2d.forward` does.

    running = momentum * new + (1 - momentum) * running, in double precision; momentum None: the mean of all batches.

    Args:
        norm: in training mode, with `track_running_stats`.
        mean: of the batch, `[C]`.
        unbiased_var: of the batch, `[C]`.
    """
    momentum = 0.0 if norm.momentum is None else norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if norm.momentum is None:
            momentum = 1.0 / norm.num_batches_tracked.double()
    for running, new in ((norm.running_mean, mean), (norm.running_var, unbiased_var)):
        if running is not None:
            running.copy_(running.double() * (1.0 - momentum) + new.double() * momentum)
