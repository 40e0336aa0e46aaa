"""The moving average of a net's weights: torch's `AveragedModel`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class Average:
    """avg ← decay · avg + (1 - decay) · weights after each step; the first step copies. Buffers are those of the net.

    Args:
        model: its weights are averaged.
        decay: see above.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.source = model
        self._averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
        for parameter in self._averaged.parameters():
            parameter.requires_grad_(False)
        self.weights: Mapping[str, Tensor] = self.model.state_dict()
        """Of the averaged net, alive: they change with every step."""

    @property
    def model(self) -> nn.Module:
        """The net with the averaged weights."""
        averaged: nn.Module = self._averaged.module
        return averaged

    @torch.no_grad()
    def update(self) -> None:
        """After an optimizer step."""
        self._averaged.update_parameters(self.source)

    def state_dict(self) -> dict[str, Any]:
        """Weights, and how many steps were averaged."""
        return dict(self._averaged.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self._averaged.load_state_dict(state)
