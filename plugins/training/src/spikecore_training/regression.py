"""Regression: some values for each sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from spikecore.interfaces import Task, TrainerCapabilities
from spikecore.trainers import READOUT, VALUE_LOSS, over_own_steps, readout_of
from spikecore_training.loop import Loop
from spikecore_training.meters import Meter, ValueMeter
from spikecore_training.options import LoopConfig


class Regression(Loop):
    """Trains a net whose output over time stands for values; the score is the negative mean squared error."""

    capabilities: ClassVar[TrainerCapabilities] = TrainerCapabilities(
        extendable=("epochs",), multi_process=True, task="value"
    )
    score_name = "mse"
    is_error = True

    @dataclass(frozen=True)
    class Config(LoopConfig):
        """
        Args:
            loss: of the output over time and the values; its mean over the samples is minimised.
            readout: what the output stands for; `auto` takes what suits the loss.
        """

        loss: Annotated[Any, VALUE_LOSS] = "mse"
        readout: Annotated[Any, READOUT] = "auto"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._readout = readout_of(self.config.loss, self.config.readout)

    def meter(self, task: Task, device: torch.device) -> Meter:
        """Squared and absolute error."""
        return ValueMeter(task, device)

    def answer(self, out: Tensor, mask: Tensor | None) -> Tensor:
        """Values `[B, C, ...]`."""
        return over_own_steps(self._readout, out, mask)
