"""Supervised classification of any dataset, encoder and model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.nn import functional

from spikecore.datasets import CutMix, Mix, Mixup, mix_batch
from spikecore.errors import OptionError
from spikecore.interfaces import Batch, Task
from spikecore.trainers import LOSS, READOUT, over_own_steps, readout_of
from spikecore_training.loop import Loop
from spikecore_training.meters import ClassMeter, Meter
from spikecore_training.options import LoopConfig, NotNegative, Share, idle_loop_options


class Supervised(Loop):
    """Trains a classifier; every optimizer step is a safe point, so it resumes anywhere with bit-identical results.

    Sources: Szegedy et al., Rethinking the Inception architecture (CVPR 2016), label smoothing; Zhang et al., mixup
    (ICLR 2018); Yun et al., CutMix (ICCV 2019); Polyak and Juditsky (1992), averaging of weights.
    """

    @dataclass(frozen=True)
    class Config(LoopConfig):
        """
        Args:
            loss: of the output over time and the labels; its mean over the samples is minimised.
            readout: the scores whose largest is the answer; `auto` takes the one that suits the loss.
            label_smoothing: share of a label that is spread evenly over all classes; for any loss.
            mixup: parameter of the Beta distribution that samples are mixed by; 0 for none.
            cutmix: of the size of the boxes that samples exchange, over all their steps; 0 for none. With both, each
                batch is mixed by one of the two.
        """

        loss: Annotated[Any, LOSS] = "rate_cross_entropy"
        readout: Annotated[Any, READOUT] = "auto"
        label_smoothing: Share = 0.0
        mixup: NotNegative = 0.0
        cutmix: NotNegative = 0.0

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._readout = readout_of(self.config.loss, self.config.readout)
        self._mixes: list[Mix] = []
        if self.config.mixup:
            self._mixes.append(Mixup(alpha=self.config.mixup))
        if self.config.cutmix:
            self._mixes.append(CutMix(alpha=self.config.cutmix))

    @classmethod
    def option_problems(cls, config: Any) -> Any:
        """Labels are smoothed once."""
        yield from super().option_problems(config)
        own = getattr(getattr(config.loss, "config", None), "label_smoothing", 0.0)
        if own and config.label_smoothing:
            yield "label_smoothing", f"is given twice: the loss has label_smoothing = {own:g}; leave one of them out"

    @classmethod
    def idle_options(cls, config: Any) -> Any:
        """Options without effect beside the others."""
        return idle_loop_options(config)

    def remarks(self, task: Task) -> list[str]:
        """Classes of which a split has no sample, where its labels are known without reading the samples."""
        remarks = []
        for name, split in task.splits.items():
            labels = getattr(split, "labels", None)
            if labels is None:
                continue
            present = {int(label) for label in labels}
            missing = [number for number in range(task.num_outputs) if number not in present]
            if missing:
                remarks.append(_missing_text(name, missing, task))
        return remarks

    def meter(self, task: Task, device: torch.device) -> Meter:
        """Accuracy, top 5, confusion matrix."""
        return ClassMeter(task, device)

    def answer(self, out: Tensor, mask: Tensor | None) -> Tensor:
        """Scores `[B, C, ...]`."""
        return over_own_steps(self._readout, out, mask)

    def training_batch(self, task: Task, batch: Batch, generator: torch.Generator) -> Batch:
        """Mixed and smoothed; labels are then shares of the classes."""
        num_classes = task.num_outputs
        if self._mixes:
            if batch.stacked.is_floating_point():
                raise OptionError(
                    "mixup and cutmix take whole labels, and this dataset has mixed its samples already: set "
                    "trainer.mixup and trainer.cutmix to 0, or the dataset's own mixing"
                )
            batch = mix_batch(batch, self._mixes, num_classes, task.is_sequence, generator)
        smoothing = self.config.label_smoothing
        if smoothing:
            label = batch.stacked
            shares = label if label.is_floating_point() else functional.one_hot(label, num_classes).float()
            batch = batch._replace(label=shares * (1 - smoothing) + smoothing / num_classes)
        return batch


def _missing_text(split: str, missing: list[int], task: Task) -> str:
    names = [repr(task.classes[number]) if number < len(task.classes) else str(number) for number in missing]
    listed = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    effect = "they cannot be learned" if split == "train" else "its metrics say nothing of them"
    return (
        f"the split {split!r} has no sample of {len(missing)} of {task.num_outputs} classes ({listed}): {effect}; add "
        "samples, split the data anew, or leave these classes out"
    )
