"""A batch norm that takes its statistics from the batch: what a backend needs to run it, and what it leaves behind."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from spikecore.nn.layers.fold import fold
from spikecore.nn.running_statistics import update_running
from spikecore.torch_internals import check_norm_input


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

    def norm_alone(self, y: Tensor) -> Tensor:
        """The normed y, by torch, without the neuron."""
        normed: Tensor = fold(self.norm, (y,), {}, self.owner, self.norm) if self.is_multi else self.norm(y)
        return normed

    def update(self, mean: Tensor, var: Tensor, count: int) -> None:
        """Update the running statistics as torch does; see `update_running`.

        Args:
            mean: of the batch, `[C]`.
            var: of the batch, `[C]`, divided by `count`.
            count: values of each channel, at least 2.
        """
        update_running(self.norm, mean, var * (count / (count - 1)))
