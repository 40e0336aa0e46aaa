"""Supervised classification by backpropagation through time.

out = the model's output [T, B, num_classes];  loss, readout: by name, of `spikecore.nn.losses` and `readouts`
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from spikecore.interfaces.component import Configurable, Range, make_config
from spikecore.interfaces.dataset import Split
from spikecore.interfaces.trainer import RunContext, Task, TrainerCapabilities
from spikecore.nn.losses import LOSSES, LossName, ReadoutName, readout_of


class Classify(Configurable):
    """Trains a classifier; resumes between epochs (its state holds the epoch and the optimizer)."""

    capabilities: ClassVar[TrainerCapabilities] = TrainerCapabilities(resumable=False)

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            epochs: passes over the training split.
            batch_size: samples per step.
            optimizer: of torch.optim.
            lr: peak learning rate.
            weight_decay: of the optimizer.
            schedule: `cosine` falls to zero over all epochs.
            loss: of the output over time and the labels, with its default options.
            readout: the scores whose largest is the answer; `auto` takes the one that suits the loss.
        """

        epochs: Annotated[int, Range(ge=0)] = 20
        batch_size: Annotated[int, Range(ge=1)] = 64
        optimizer: Literal["adamw", "sgd"] = "adamw"
        lr: Annotated[float, Range(gt=0.0)] = 0.005
        weight_decay: Annotated[float, Range(ge=0.0)] = 0.0001
        schedule: Literal["cosine", "constant"] = "cosine"
        loss: LossName = "rate_cross_entropy"
        readout: ReadoutName = "auto"

    def __init__(self, **options: Any) -> None:
        self.config = make_config(type(self), options)
        self._loss, self._sum = (LOSSES[self.config.loss](reduction=reduction) for reduction in ("mean", "sum"))
        self._readout = readout_of(self._loss, self.config.readout)
        self._epoch = 0
        self._optimizer: torch.optim.Optimizer | None = None
        self._pending: dict[str, Any] | None = None

    def fit(self, task: Task, context: RunContext) -> dict[str, float]:
        """Train to the last epoch; returns the metrics on the test split."""
        config = self.config
        kind = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[config.optimizer]
        self._optimizer = kind(task.model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        if self._pending is not None:
            self._optimizer.load_state_dict(self._pending)
            self._pending = None
        metrics: dict[str, float] = {}
        for epoch in context.progress(range(self._epoch, config.epochs), "training", config.epochs - self._epoch):
            if config.schedule == "cosine":
                fraction = torch.tensor(epoch / config.epochs * torch.pi)
                for group in self._optimizer.param_groups:
                    group["lr"] = config.lr * float(1 + torch.cos(fraction)) / 2
            loss = self._train_epoch(task, context)
            metrics = self.evaluate(task, context)
            self._epoch = epoch + 1
            context.log(epoch=self._epoch, train_loss=loss, **metrics)
            context.epoch_end(self._epoch, {"train_loss": loss, **metrics})
            context.checkpoint(metrics["test_accuracy"])
        return metrics or self.evaluate(task, context)

    def evaluate(self, task: Task, context: RunContext) -> dict[str, float]:
        """`test_accuracy` in 0 .. 1 and `test_loss`."""
        task.model.eval()
        right, total, loss = 0, 0, 0.0
        with torch.no_grad(), context.timed("evaluate"):
            for x, label in _batches(task.test, self.config.batch_size, None):
                out = _output(task, context, x)
                target = label.to(out.device)
                loss += float(self._sum(out, target))
                right += int((self._readout(out).argmax(-1) == target).sum())
                total += len(label)
        return {"test_accuracy": right / max(total, 1), "test_loss": loss / max(total, 1)}

    def state_dict(self) -> dict[str, Any]:
        """The next epoch and the optimizer."""
        return {"epoch": self._epoch, "optimizer": self._optimizer.state_dict() if self._optimizer else None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state` in the next `fit`."""
        self._epoch, self._pending = int(state["epoch"]), state["optimizer"]

    def _train_epoch(self, task: Task, context: RunContext) -> float:
        assert self._optimizer is not None
        task.model.train()
        total, count = 0.0, 0
        for x, label in _batches(task.train, self.config.batch_size, context.generator):
            with context.timed("forward"):
                out = _output(task, context, x)
                loss: Tensor = self._loss(out, label.to(out.device))
            with context.timed("backward"):
                self._optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                self._optimizer.step()
            total += float(loss.detach()) * len(label)
            count += len(label)
        return total / max(count, 1)


def _output(task: Task, context: RunContext, x: Tensor) -> Tensor:
    with torch.autocast(context.device.type, context.dtype, enabled=context.dtype != torch.float32):
        sequence = x.transpose(0, 1) if task.is_sequence else task.encoder(x, context.generator)
        out: Tensor = task.model(sequence.to(context.device))
    return out


def _batches(split: Split, size: int, generator: torch.Generator | None) -> Iterator[tuple[Tensor, Tensor]]:
    order = torch.arange(len(split)) if generator is None else torch.randperm(len(split), generator=generator)
    for index in torch.split(order, size):
        samples = [split[int(i)] for i in index]
        yield torch.stack([x for x, _ in samples]), torch.tensor([label for _, label in samples])
