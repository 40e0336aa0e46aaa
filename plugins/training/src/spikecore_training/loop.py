"""The loop that all trainers of this plugin share: epochs, evaluation, resuming; `passes` has a single step.

At the end of an epoch come its line, its end, and the safe point that counts it as done, in this order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from spikecore.analysis import RateMeter
from spikecore.errors import OptionError, RunError
from spikecore.interfaces import Batch, Parts, RunContext, Split, Table, Task, TrainerCapabilities
from spikecore.nn import synchronize_batch_norms
from spikecore.trainers import (
    Trainer,
    begin_epoch,
    in_batches,
    load_optimizer_state,
    make_optimizer,
    optimizer_state,
    settle,
    unaugmented,
)
from spikecore_training.average import Average
from spikecore_training.groups import parameter_groups
from spikecore_training.limits import deterministic_algorithms, explained_memory
from spikecore_training.loader import Loader
from spikecore_training.memory import MemoryMeter, checkpointed
from spikecore_training.meters import Meter
from spikecore_training.options import LoopConfig, idle_loop_options, loop_problems
from spikecore_training.passes import Passes, autocast, sequence_of
from spikecore_training.penalty import RatePenalty
from spikecore_training.rates import LearningRates
from spikecore_training.state import Progress, sum_dtype
from spikecore_training.watch import gradient_warnings


class Loop(Trainer):
    """Base: trains, evaluates, resumes; what a label is, and how answers are measured, subclasses say."""

    capabilities: ClassVar[TrainerCapabilities] = TrainerCapabilities(extendable=("epochs",), multi_process=True)
    renamed: ClassVar[Mapping[str, str]] = {
        "weight_decay": "the optimizer's: optimizer.weight_decay",
        "momentum": "the optimizer's: optimizer.momentum",
        "tbptt": "truncate",
        "clip_grad_norm": "clip_norm",
        "model_ema": "ema",
        "precision": "run.precision",
        "amp": "run.precision = 'bfloat16' or 'float16'",
    }
    Config = LoopConfig
    score_name: ClassVar[str] = "accuracy"
    """The metric of the validation split that is the score."""
    is_error: ClassVar[bool] = False
    """The score is better where it is lower."""
    label_axis: ClassVar[int] = 0
    """Of the labels of a batch, the axis of the samples; where it is 1, time is axis 0."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._progress = Progress()
        self._optimizer: torch.optim.Optimizer | None = None
        self._scaler: torch.amp.GradScaler | None = None
        self._average: Average | None = None
        self._passes: Passes | None = None
        self._pending: dict[str, Any] | None = None
        self._told: set[str] = set()

    @classmethod
    def option_problems(cls, config: Any) -> Any:
        """Rules about several options."""
        return loop_problems(config)

    @classmethod
    def idle_options(cls, config: Any) -> Any:
        """Options without effect beside the others."""
        return idle_loop_options(config)

    # What subclasses say

    def meter(self, task: Task, device: torch.device) -> Meter:
        """Of one evaluation."""
        raise NotImplementedError(f"{type(self).__name__} must implement meter(task, device)")

    def answer(self, out: Tensor, mask: Tensor | None) -> Tensor:
        """What the meter compares with the labels, from the output `[T, B, C, ...]`."""
        raise NotImplementedError(f"{type(self).__name__} must implement answer(out, mask)")

    def remarks(self, task: Task) -> list[str]:
        """What the user should know of the data before they are trained on."""
        return []

    def training_batch(self, task: Task, batch: Batch, generator: torch.Generator) -> Batch:
        """A training batch as the loss takes it: mixed and smoothed, where that is wanted."""
        return batch

    # The contract of trainers

    def prepare(self, parts: Parts) -> Task:
        """See `spikecore.interfaces.trainer`.

        Raises:
            OptionError: a batch is larger than the training split.
        """
        task = super().prepare(parts)
        num = len(task.split("train"))
        if self.config.batch_size > num:
            raise OptionError(
                f"batch_size = {self.config.batch_size} is larger than the training split, which has {num} samples: "
                f"set trainer.batch_size to at most {num}"
            )
        return task

    def fit(self, task: Task, context: RunContext) -> dict[str, float]:
        """Train to the last epoch, or until the score no longer rises; returns the metrics of validation and test."""
        config = self.config
        with (
            deterministic_algorithms(config.deterministic),
            explained_memory(config.batch_size, config.accumulate, config.truncate, config.memory),
            checkpointed(task.model, config.memory == "save"),
            MemoryMeter(context.device) as memory,
        ):
            for text in self.remarks(task):
                context.note(text)
            passes = self._begin(task, context)
            remaining = range(self._progress.epoch, config.epochs)
            for _ in context.progress(remaining, "training", len(remaining)):
                if config.patience and self._progress.num_without_gain >= config.patience:
                    context.note(
                        f"stopped after epoch {self._progress.epoch}: the score has not risen by more than "
                        f"{config.min_delta:g} for {config.patience} epochs (best {self._progress.best:.4g})"
                    )
                    break
                self._run_epoch(task, context, passes)
            metrics = self._progress.metrics
            if task.val is not None and not metrics:  # no epoch was trained
                metrics = self.evaluate(task, context, "val")
            context.show("peak memory", memory.table())
            return {**metrics, **self.evaluate(task, context, "test")}

    def evaluate(self, task: Task, context: RunContext, split: str = "test") -> dict[str, float]:
        """Metrics of the net, or of the moving average of its weights where this trainer has one, on a split."""
        is_averaged = self._average is not None and self._average.source is task.model
        model = self._average.model if self._average is not None and is_averaged else task.model
        return self._evaluate(task, model, context, split)

    def state_dict(self) -> dict[str, Any]:
        """Optimizer, scaler of the loss, moving average, and where the loop stands.

        Raises:
            RunError: a loss since the last check was no number, so that the weights are none either.
        """
        if self._passes is not None:
            self._passes.require_numbers()
        parts = self._pending or {"optimizer": None, "scaler": {}, "average": None}
        if self._optimizer is not None and self._scaler is not None:
            parts = {
                "optimizer": optimizer_state(self._optimizer),
                "scaler": self._scaler.state_dict(),
                "average": None if self._average is None else self._average.state_dict(),
            }
        return {**parts, "progress": self._progress.to_plain()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state` in the next `fit`."""
        self._optimizer = self._scaler = self._average = self._passes = self._pending = None
        if state["optimizer"] is not None:
            self._pending = {name: state[name] for name in ("optimizer", "scaler", "average")}
        self._progress = Progress.from_plain(state["progress"])

    # The parts of `fit`

    def _begin(self, task: Task, context: RunContext) -> Passes:
        config, model = self.config, task.model
        if config.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if config.sync_batch_norm and context.world_size > 1:
            synchronize_batch_norms(model)
            context.note("batch norms share their statistics between the processes; blocks with one run unfused")
        is_sharded = config.parallel == "fsdp" and context.world_size > 1
        trained = context.fully_shard(model) if is_sharded else model
        self._average = Average(model, config.ema) if config.ema else None
        with context.timed("building"):  # torch imports its compiler for the first optimizer
            groups = parameter_groups(trained, config.decay == "all")
            self._optimizer = make_optimizer(config.optimizer, groups, config.lr)
        settle(self._optimizer)
        self._scaler = torch.amp.GradScaler(context.device.type, enabled=context.dtype == torch.float16)
        if self._pending is not None:
            load_optimizer_state(self._optimizer, self._pending["optimizer"])
            self._scaler.load_state_dict(self._pending["scaler"])
            if self._average is not None and self._pending["average"] is not None:
                self._average.load_state_dict(self._pending["average"])
            self._pending = None
        self._progress.loss_sum = self._progress.loss_sum.to(context.device, sum_dtype(context.device))
        net = trained if is_sharded else context.wrap(model)
        if config.compile:
            net = torch.compile(net, backend=config.compile_backend)  # type: ignore[assignment]
        penalty = RatePenalty(trained, config.rate_penalty, config.rate_target) if config.rate_penalty else None
        self._passes = Passes(
            task=replace(task, model=trained),
            context=context,
            net=net,
            loss=config.loss,
            optimizer=self._optimizer,
            scaler=self._scaler,
            truncate=config.truncate,
            clip_norm=config.clip_norm,
            clip_value=config.clip_value,
            penalty=penalty,
            label_axis=self.label_axis,
            channels_last=config.channels_last,
            packs=config.memory != "fast",
        )
        return self._passes

    def _run_epoch(self, task: Task, context: RunContext, passes: Passes) -> None:
        progress, config = self._progress, self.config
        num_before, steps_before = progress.num_samples, progress.steps
        passes.begin_epoch()
        self._train_epoch(task, context, passes)
        self._warn_of_overflows(passes.num_overflows(), progress.steps - steps_before, context)
        if passes.task.model is not task.model:
            context.share_buffers(task.model)  # a net that was trained in parts is whole again
        loss, num_trained = progress.mean_loss, progress.num_samples - num_before
        self._warn_of_gradients(passes.task.model, context)
        metrics = {} if task.val is None else self._measured(task, context)
        self._warn_of_metrics(metrics, context)
        name = f"val_{self.score_name}"
        score = -loss
        if name in metrics:
            score = -metrics[name] if self.is_error else metrics[name]
        progress.metrics = metrics
        progress.epoch += 1
        progress.start_epoch(None, context.device)
        progress.score(score, config.min_delta)
        context.log(epoch=progress.epoch, train_loss=loss, **metrics)
        context.epoch_end(progress.epoch, {"train_loss": loss, **metrics}, num_epochs=config.epochs, count=num_trained)
        context.checkpoint(score, self._weights())

    def _measured(self, task: Task, context: RunContext) -> dict[str, float]:
        """Metrics on the validation split; with a moving average also those of the weights themselves."""
        metrics = self.evaluate(task, context, "val")
        if self._average is not None:
            own = self._evaluate(task, task.model, context, "val", is_shown=False)
            metrics |= {f"{name}_without_ema": value for name, value in own.items()}
        return metrics

    def _train_epoch(self, task: Task, context: RunContext, passes: Passes) -> None:
        progress, config = self._progress, self.config
        train = task.split("train")
        begin_epoch(train, progress.epoch)
        batches = self._draw(train, context)
        groups = [batches[at : at + config.accumulate] for at in range(0, len(batches), config.accumulate)]
        rates = LearningRates(config, len(groups), progress.scores)
        remaining = groups[progress.steps :]
        shards = [[context.shard(batch) for batch in group] for group in remaining]
        smallest = min((len(batch) for batch in batches), default=0)
        if config.sync_batch_norm and smallest < context.world_size:
            error = RunError(
                f"sync_batch_norm: a batch has {smallest} samples, fewer samples than there are processes "
                f"({context.world_size}), and one without a sample has no statistics: choose a batch_size whose last "
                "batch is larger"
            )
            error.is_told = context.rank > 0  # all processes raise it
            raise error
        loader = Loader(train, task.is_sequence, context.device, config.workers, config.prefetch)
        reader = loader.batches([shard.index for own in shards for shard in own], context.rank_generator)
        passes.net.train()
        for group, own in zip(remaining, shards, strict=True):
            assert self._optimizer is not None
            rates.set(self._optimizer, progress.epoch, progress.steps)
            size = sum(len(batch) for batch in group)
            passes.begin_step(progress.epoch, progress.steps)
            for place, (batch_index, shard) in enumerate(zip(group, own, strict=True)):
                with context.timed("data"):
                    batch = self.training_batch(task, next(reader), context.rank_generator)
                is_last = place + 1 == len(group)
                passes.add(batch, shard.weight * len(batch_index) / size, is_last)
            loss = passes.end_step()
            if self._average is not None:
                self._average.update()
            progress.loss_sum += loss * size
            progress.num_samples += size
            progress.steps += 1
            if config.log_every and progress.steps % config.log_every == 0:
                self._log_step(context, loss, len(groups))
            context.checkpoint(weights=self._weights())
        passes.require_numbers()

    def _draw(self, split: Split, context: RunContext) -> Sequence[Any]:
        """The epoch's batches; in the middle of an epoch those that it began with."""
        generator = context.generator
        if self._progress.order is None:
            self._progress.start_epoch(generator.get_state(), context.device)
        else:
            generator = torch.Generator()
            generator.set_state(self._progress.order)
        return in_batches(split, self.config.batch_size, generator)

    def _log_step(self, context: RunContext, loss: Tensor, num_steps: int) -> None:
        progress = self._progress
        assert self._optimizer is not None
        context.log(
            step=progress.epoch * num_steps + progress.steps,
            epoch=progress.epoch + progress.steps / num_steps,
            step_loss=float(loss),
            lr=float(self._optimizer.param_groups[0]["lr"]),
        )

    def _weights(self) -> Mapping[str, Tensor] | None:
        return None if self._average is None else self._average.weights

    def _warn_of_gradients(self, model: nn.Module, context: RunContext) -> None:
        """Of the last step of the epoch; each layer is told once."""
        for key, text in gradient_warnings(model).items():
            if key not in self._told:
                self._told.add(key)
                context.note(f"epoch {self._progress.epoch + 1}: {text}")

    def _warn_of_overflows(self, num_overflows: int, num_steps: int, context: RunContext) -> None:
        if num_steps and num_overflows == num_steps:
            context.note(
                f"epoch {self._progress.epoch + 1}: with float16 the gradient was not finite in any of its "
                f"{num_steps} steps, so no weight moved. The first steps of a run may be so, until the scale of the "
                "loss is small enough; in later epochs set run.precision = 'bfloat16' or 'float32'"
            )

    def _warn_of_metrics(self, metrics: Mapping[str, float], context: RunContext) -> None:
        """The weights are finite here; an output in evaluation mode need not be."""
        bad = [name for name, value in metrics.items() if not math.isfinite(value)]
        if bad and "metrics" not in self._told:
            self._told.add("metrics")
            context.note(
                f"epoch {self._progress.epoch + 1}: not finite: {', '.join(bad)}. The loss of training is finite, so "
                "look at what differs in evaluation: the validation data, and layers such as batch norms, whose "
                "running statistics may be of too few batches"
            )

    def _evaluate(
        self, task: Task, model: nn.Module, context: RunContext, split: str, is_shown: bool = True
    ) -> dict[str, float]:
        config = self.config
        model.eval()
        context.share_buffers(model)
        samples = unaugmented(task.split(split))
        generator = torch.Generator(context.device).manual_seed(context.rank)
        meter = self.meter(task, context.device)
        shards = [context.shard(index) for index in torch.split(torch.arange(len(samples)), config.batch_size)]
        loader = Loader(samples, task.is_sequence, context.device, config.workers, config.prefetch)
        rate_meter = RateMeter(model) if config.firing_rates else None
        with torch.no_grad(), context.timed("evaluate"), rate_meter or nullcontext():
            for batch in loader.batches([shard.index for shard in shards if shard.weight]):
                if rate_meter is not None:
                    rate_meter.own_steps(batch.mask)
                with autocast(context):
                    out = model(sequence_of(task, batch, generator, config.channels_last))
                label = batch.stacked.to(out.device)
                losses = config.loss.each(out, label, batch.mask)
                own_steps = batch.mask if self.label_axis else None
                meter.update(self.answer(out, batch.mask), label, losses, own_steps)
        metrics = meter.compute(context, split)
        if is_shown:
            for name, value in meter.shown(split).items():
                context.show(name, value)
        if rate_meter is not None:
            metrics |= _shown_rates(rate_meter, context, split, is_shown)
        return metrics


def _shown_rates(meter: RateMeter, context: RunContext, split: str, is_shown: bool) -> dict[str, float]:
    """Mean firing rate, silent and saturated share of all neurons; those of each layer as a table."""
    rows: list[tuple[str, float | None, float | None, float | None]] = []
    sums, num_neurons = torch.zeros(3, dtype=torch.float64), 0
    rates_of = meter.rates
    sizes = torch.zeros(len(rates_of), context.world_size, dtype=torch.int64)
    sizes[:, context.rank] = torch.tensor([layer.num_neurons for layer in rates_of.values()], dtype=torch.int64)
    # A process without a sample has seen no neuron; it must add as many zeros as the others have neurons.
    largest = context.all_sum(sizes).amax(1).tolist()
    for (name, layer), size in zip(rates_of.items(), largest, strict=True):
        own = (layer.per_neuron * layer.num_steps).nan_to_num().flatten().to(context.device)
        counts = context.all_sum(own if len(own) == size else own.new_zeros(size))
        num_steps = int(context.all_sum(torch.tensor(layer.num_steps)))
        if not num_steps:
            rows.append((name, None, None, None))
            continue
        rates = counts / num_steps
        shares = torch.stack([rates.sum(), (counts == 0).sum(), (counts >= num_steps).sum()]).double().cpu()
        sums += shares
        num_neurons += rates.numel()
        row = (shares / max(rates.numel(), 1)).tolist()
        rows.append((name, *(round(value, 6) for value in row)))  # type: ignore[arg-type]
    if is_shown and rows:
        caption = f"Spikes per neuron and step; {split} split."
        context.show("firing rates", Table(("layer", "rate", "silent", "saturated"), rows, caption=caption))
    rate, silent, saturated = (sums / max(num_neurons, 1)).tolist()
    if not num_neurons or not math.isfinite(rate):
        return {}
    return {f"{split}_firing_rate": rate, f"{split}_silent": silent, f"{split}_saturated": saturated}
