"""Sequences: values, or a class, for each step of each sample."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from spikecore.errors import OptionError
from spikecore.interfaces import Range, Task, TrainerCapabilities
from spikecore.trainers import SEQUENCE_LOSS
from spikecore_training.loop import Loop
from spikecore_training.meters import Meter, StepMeter, ValueMeter
from spikecore_training.options import LoopConfig


class Sequence(Loop):
    """Trains a net whose output in each step is compared with that step's target.

    With classes (`sequence_loss.cross_entropy`) the score is the accuracy over all steps, with values the negative mean
    squared error.
    """

    capabilities: ClassVar[TrainerCapabilities] = TrainerCapabilities(
        extendable=("epochs",), multi_process=True, task="sequence"
    )
    label_axis = 1

    @dataclass(frozen=True)
    class Config(LoopConfig):
        """
        Args:
            loss: of the output and the targets, step by step; its mean over the samples is minimised.
            lr: peak learning rate.
        """

        loss: Annotated[Any, SEQUENCE_LOSS] = "mse"
        lr: Annotated[float, Range(gt=0.0, lt=math.inf)] = 0.01

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._has_classes = bool(self.config.loss.has_classes)
        self.score_name = "accuracy" if self._has_classes else "mse"
        self.is_error = not self._has_classes

    def remarks(self, task: Task) -> list[str]:
        """None; but the labels must be what the loss takes.

        Raises:
            OptionError: the labels are classes, and the loss takes values; or the other way round.
        """
        label = task.split("train")[0][1]
        are_classes = isinstance(label, Tensor) and not label.is_floating_point()
        if are_classes != self._has_classes:
            kinds = {True: "a class for each step", False: "values for each step"}
            cure = "cross_entropy" if are_classes else "mse"
            raise OptionError(
                f"the labels are {kinds[are_classes]}, and the loss {type(self.config.loss).__name__} takes "
                f"{kinds[self._has_classes]}: set trainer.loss = {cure!r}"
            )
        return super().remarks(task)

    def meter(self, task: Task, device: torch.device) -> Meter:
        """Accuracy of classes, errors of values."""
        return StepMeter(task, device) if self._has_classes else ValueMeter(task, device)

    def answer(self, out: Tensor, mask: Tensor | None) -> Tensor:
        """The output itself, `[T, B, C, ...]`."""
        return out.float()
