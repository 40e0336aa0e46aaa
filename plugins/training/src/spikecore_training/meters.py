"""What an evaluation measures, counted by torchmetrics on the device and summed over the processes at the end."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from spikecore import trainers
from spikecore.interfaces import RunContext, Shown, Task

TOP = 5


class Meter:
    """Base: the mean loss, and the metrics in `metrics`.

    Args:
        task: what is evaluated.
        device: where outputs are.
    """

    def __init__(self, task: Task, device: torch.device) -> None:
        self.task = task
        self.metrics: dict[str, Metric] = {}
        self._loss = torch.zeros((), dtype=torch.float64 if device.type != "mps" else torch.float32, device=device)
        self._count = 0

    def add(self, name: str, metric: Metric, device: torch.device) -> None:
        """Count a metric of torchmetrics; its states must be sums."""
        metric.sync_on_compute = False  # summed over the processes by the run, all at once
        self.metrics[name] = metric.to(device)

    def update(self, scores: Tensor, label: Tensor, losses: Tensor, own_steps: Tensor | None = None) -> None:
        """A batch: the readout's scores, labels, and the loss of each sample.

        Args:
            scores: `[B, C, ...]`; of sequences `[T, B, C, ...]`.
            label: as of the target.
            losses: `[B, ...]`.
            own_steps: of padded sequences, bool `[T, B]`.
        """
        self._loss += losses.double().sum().to(self._loss.dtype)
        self._count += losses.numel()

    def compute(self, context: RunContext, split: str) -> dict[str, float]:
        """All metrics, named after the split; all processes must call it."""
        self._sum_over_processes(context)
        values = {f"{split}_{name}": float(metric.compute()) for name, metric in self.metrics.items()}
        loss = float(self._loss) / max(self._count, 1)
        return {**values, f"{split}_loss": loss}

    def shown(self, split: str) -> Mapping[str, Shown]:
        """What the report is to show; after `compute`."""
        return {}

    def _sum_over_processes(self, context: RunContext) -> None:
        totals = context.all_sum(torch.stack([self._loss, torch.tensor(self._count).to(self._loss)]))
        self._loss, self._count = totals[0], int(totals[1])
        if context.world_size == 1:
            return
        for metric in self.all_metrics():
            for name in metric.metric_state:
                setattr(metric, name, context.all_sum(getattr(metric, name)))

    def all_metrics(self) -> list[Metric]:
        """Those whose states are summed."""
        return list(self.metrics.values())


class ClassMeter(Meter):
    """Accuracy, the share whose class is among the five highest scores, and the confusion matrix."""

    def __init__(self, task: Task, device: torch.device) -> None:
        super().__init__(task, device)
        num = max(task.num_outputs, 2)  # torchmetrics knows no single class
        self.add("accuracy", MulticlassAccuracy(num, average="micro", validate_args=False), device)
        if task.num_outputs > TOP:
            self.add(
                f"top{TOP}_accuracy", MulticlassAccuracy(num, top_k=TOP, average="micro", validate_args=False), device
            )
        self._confusion = MulticlassConfusionMatrix(num, validate_args=False).to(device)
        self._confusion.sync_on_compute = False

    def update(self, scores: Tensor, label: Tensor, losses: Tensor, own_steps: Tensor | None = None) -> None:
        super().update(scores, label, losses, own_steps)
        answers = scores.argmax(1)  # the first of equal scores, for all metrics alike
        for name, metric in self.metrics.items():
            metric.update(answers if name == "accuracy" else scores, label)
        self._confusion.update(answers, label)

    def all_metrics(self) -> list[Metric]:
        return [*super().all_metrics(), self._confusion]

    def shown(self, split: str) -> Mapping[str, Shown]:
        """Confusion matrix and recall of each class, as `classify` shows them."""
        num = self.task.num_outputs
        return trainers.confusion(self.counts()[:num, :num], self.task.classes, split)

    def counts(self) -> Tensor:
        """`[N, N]`: rows are the true classes."""
        matrix: Tensor = self._confusion.compute()
        return matrix.long().cpu()


class ValueMeter(Meter):
    """Mean squared and mean absolute error."""

    def __init__(self, task: Task, device: torch.device) -> None:
        super().__init__(task, device)
        self.add("mse", MeanSquaredError(), device)
        self.add("mae", MeanAbsoluteError(), device)

    def update(self, scores: Tensor, label: Tensor, losses: Tensor, own_steps: Tensor | None = None) -> None:
        super().update(scores, label, losses, own_steps)
        if own_steps is not None:
            own = own_steps.to(scores.device)
            scores, label = scores[own], label[own]
        for metric in self.metrics.values():
            metric.update(scores.flatten(), label.to(scores.dtype).flatten())


class StepMeter(Meter):
    """Accuracy over all own steps of sequences with a class for each step."""

    def __init__(self, task: Task, device: torch.device) -> None:
        super().__init__(task, device)
        self.add("accuracy", MulticlassAccuracy(max(task.num_outputs, 2), average="micro", validate_args=False), device)

    def update(self, scores: Tensor, label: Tensor, losses: Tensor, own_steps: Tensor | None = None) -> None:
        super().update(scores, label, losses, own_steps)
        answers = scores.argmax(2)
        if own_steps is not None:
            own = own_steps.to(scores.device)
            answers, label = answers[own], label[own]
        self.metrics["accuracy"].update(answers.flatten(), label.flatten())
