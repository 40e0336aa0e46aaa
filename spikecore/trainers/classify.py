"""Supervised classification by backpropagation through time.

out = the model's output [T, B, num_outputs];  loss, readout, optimizer, schedule: choices, which plugins may add to
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from spikecore.errors import ContractError
from spikecore.interfaces.component import Range
from spikecore.interfaces.dataset import Batch, Split
from spikecore.interfaces.task import Task
from spikecore.interfaces.trainer import RunContext, TrainerCapabilities
from spikecore.nn.losses import LOSS, READOUT, readout_of
from spikecore.nn.readouts import over_own_steps
from spikecore.trainers.base import Trainer
from spikecore.trainers.batches import assemble, begin_epoch, in_batches
from spikecore.trainers.confusion import confusion
from spikecore.trainers.optimizers import OPTIMIZER, AdamW, make_optimizer
from spikecore.trainers.schedules import SCHEDULE, Cosine, factors_of
from spikecore.trainers.splits import unaugmented


class Classify(Trainer):
    """Trains a classifier; every step is a safe point, so it resumes anywhere with bit-identical results.

    It shows the confusion matrix of its latest evaluation, and the share of each class that it recognised.
    """

    capabilities: ClassVar[TrainerCapabilities] = TrainerCapabilities(extendable=("epochs",), multi_process=True)
    renamed: ClassVar[Mapping[str, str]] = {"weight_decay": "the optimizer's: optimizer.weight_decay"}

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            epochs: passes over the training split.
            batch_size: samples per step.
            optimizer: of torch.optim, with its options.
            lr: peak learning rate.
            schedule: of the learning rate; `cosine` falls to zero over all epochs.
            loss: of the output over time and the labels; its mean over the samples is minimised.
            readout: the scores whose largest is the answer; `auto` takes the one that suits the loss.
            val_share: of each class of the training split, held back to compare models on while they are trained, where
                the dataset has no split `val`; 0 trains without validation, and `best` is then the lowest training
                loss.
        """

        epochs: Annotated[int, Range(ge=0)] = 20
        batch_size: Annotated[int, Range(ge=1)] = 64
        optimizer: Annotated[Any, OPTIMIZER] = AdamW()  # noqa: RUF009  (immutable)
        lr: Annotated[float, Range(gt=0.0, lt=math.inf)] = 0.005
        schedule: Annotated[Any, SCHEDULE] = Cosine()  # noqa: RUF009
        loss: Annotated[Any, LOSS] = "rate_cross_entropy"
        readout: Annotated[Any, READOUT] = "auto"
        val_share: Annotated[float, Range(ge=0.0, lt=1.0)] = 0.1

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._loss = self.config.loss
        self._readout = readout_of(self._loss, self.config.readout)
        self._optimizer: torch.optim.Optimizer | None = None
        self._scaler: torch.amp.GradScaler | None = None
        self._pending: dict[str, Any] | None = None
        self._epoch, self._metrics = 0, dict[str, float]()
        self._start_epoch(None)

    def fit(self, task: Task, context: RunContext) -> dict[str, float]:
        """Train to the last epoch; returns the final metrics on the validation split and on the test split."""
        config = self.config
        with context.timed("building"):  # torch imports its compiler for the first optimizer
            self._optimizer = make_optimizer(config.optimizer, task.model.parameters(), config.lr)
        self._scaler = torch.amp.GradScaler(context.device.type, enabled=context.dtype == torch.float16)
        if self._pending is not None:
            self._optimizer.load_state_dict(self._pending["optimizer"])
            self._scaler.load_state_dict(self._pending["scaler"])
            self._pending = None
        net, factors = context.wrap(task.model), factors_of(config.schedule, config.epochs)
        for epoch in context.progress(range(self._epoch, config.epochs), "training", config.epochs - self._epoch):
            for group in self._optimizer.param_groups:
                group["lr"] = config.lr * factors[epoch]
            loss = self._train_epoch(task, net, context)
            self._metrics = {} if task.val is None else self.evaluate(task, context, "val")
            self._epoch, num_trained = epoch + 1, self._num_trained
            self._start_epoch(None)
            context.log(epoch=self._epoch, train_loss=loss, **self._metrics)
            context.epoch_end(
                self._epoch,
                {"train_loss": loss, **self._metrics},
                num_epochs=config.epochs,
                count=num_trained,
            )
            context.checkpoint(self._metrics.get("val_accuracy", -loss))
        if task.val is not None and not self._metrics:  # no epoch was trained
            self._metrics = self.evaluate(task, context, "val")
        return {**self._metrics, **self.evaluate(task, context, "test")}

    def evaluate(self, task: Task, context: RunContext, split: str = "test") -> dict[str, float]:
        """`test_accuracy` in 0 .. 1 and `test_loss`; of another split under its name."""
        task.model.eval()
        context.share_buffers(task.model)
        samples = unaugmented(task.split(split))
        generator = torch.Generator(context.device).manual_seed(context.rank)
        loss = 0.0
        # Cell `label * num_outputs + answer` of the confusion matrix counts the samples of a label with this answer.
        cells = torch.zeros(task.num_outputs * task.num_outputs, dtype=torch.int64)
        with torch.no_grad(), context.timed("evaluate"):
            for index in torch.split(torch.arange(len(samples)), self.config.batch_size):
                shard = context.shard(index)
                if not shard.weight:  # the first sample once more, which another process counts
                    continue
                batch = assemble(samples, shard.index, task.is_sequence)
                label = batch.stacked
                out = _output(task, task.model, context, batch, generator)
                loss += float(self._loss.each(out, label.to(out.device), batch.mask).sum())
                scores = over_own_steps(self._readout, out, batch.mask)
                if scores.shape != out.shape[1:]:
                    name = getattr(self._readout, "__name__", type(self._readout).__name__)
                    raise ContractError(
                        f"the readout {name!r} must give scores of the shape {tuple(out.shape[1:])}, one for each "
                        f"sample and class, got {tuple(scores.shape)}"
                    )
                cell = label * task.num_outputs + scores.argmax(-1).cpu()
                cells += torch.bincount(cell, minlength=len(cells))
        loss = float(context.all_sum(torch.tensor(loss, dtype=torch.float64)))
        counts = context.all_sum(cells).reshape(task.num_outputs, task.num_outputs)
        for name, value in confusion(counts, task.classes, split).items():
            context.show(name, value)
        right, total = int(counts.trace()), int(counts.sum())
        return {f"{split}_accuracy": right / max(total, 1), f"{split}_loss": loss / max(total, 1)}

    def state_dict(self) -> dict[str, Any]:
        """Optimizer, scaler of the loss, epoch, and how far it has come in the epoch."""
        optimizers = self._pending or {"optimizer": None, "scaler": {}}
        if self._optimizer is not None and self._scaler is not None:
            optimizers = {"optimizer": self._optimizer.state_dict(), "scaler": self._scaler.state_dict()}
        return {
            **optimizers,
            "epoch": self._epoch,
            "order": self._order,
            "steps": self._steps,
            "loss_sum": self._loss_sum,
            "num_samples": self._num_samples,
            "metrics": self._metrics,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state` in the next `fit`."""
        self._optimizer = self._scaler = self._pending = None
        if state["optimizer"] is not None:
            self._pending = {"optimizer": state["optimizer"], "scaler": state["scaler"]}
        self._epoch, self._metrics = int(state["epoch"]), dict(state["metrics"])
        self._order, self._steps = state["order"], int(state["steps"])
        self._loss_sum, self._num_samples = float(state["loss_sum"]), int(state["num_samples"])

    def _start_epoch(self, order: Tensor | None) -> None:
        self._order = order
        """The generator's state that the epoch's order of samples was drawn from; None between epochs."""
        self._steps, self._loss_sum, self._num_samples = 0, 0.0, 0
        self._num_trained = 0
        """Samples of this epoch that this process trained on: of a resumed epoch the rest only."""

    def _train_epoch(self, task: Task, net: nn.Module, context: RunContext) -> float:
        assert self._optimizer is not None
        assert self._scaler is not None
        net.train()
        train = task.split("train")
        begin_epoch(train, self._epoch)
        for index in self._draw(train, context.generator)[self._steps :]:
            with context.timed("data"):
                shard = context.shard(index)
                batch = assemble(train, shard.index, task.is_sequence, context.rank_generator)
            with context.timed("forward"):
                out = _output(task, net, context, batch, context.device_generator)
                label = batch.stacked.to(out.device)
                loss: Tensor = self._loss.each(out, label, batch.mask).mean() * shard.weight
            with context.timed("backward"):
                self._optimizer.zero_grad()
                self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                self._scaler.step(self._optimizer)  # leaves the weights alone where a gradient overflowed
                self._scaler.update()
            self._loss_sum += float(context.all_sum(loss.detach()) / context.world_size) * len(index)
            self._num_samples += len(index)
            self._num_trained += len(index)
            self._steps += 1
            context.checkpoint()
        return self._loss_sum / max(self._num_samples, 1)

    def _draw(self, split: Split, generator: torch.Generator) -> Sequence[Any]:
        """The epoch's batches; in the middle of an epoch those that it began with."""
        if self._order is None:
            self._start_epoch(generator.get_state())
        else:
            generator = torch.Generator()
            generator.set_state(self._order)
        return in_batches(split, self.config.batch_size, generator)


def _output(task: Task, net: nn.Module, context: RunContext, batch: Batch, generator: torch.Generator) -> Tensor:
    """The net's output `[T, B, num_outputs]`; the encoder works on the device, and draws there.

    Raises:
        ContractError: the output has another shape: scores of classes that there are not would be counted as others.
    """
    x = batch.x.to(context.device)
    with torch.autocast(context.device.type, context.dtype, enabled=context.dtype != torch.float32):
        out: Tensor = net(x if task.is_sequence else task.sequence(x, generator))
    if out.dim() != 3 or out.shape[-1] != task.num_outputs:
        raise ContractError(
            f"the model {type(task.model).__name__} must give [T, B, {task.num_outputs}], a number for each step, "
            f"sample and class, got {tuple(out.shape)}: build it with parts.model(input_shape, num_outputs)"
        )
    return out
