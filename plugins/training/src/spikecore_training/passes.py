"""One optimizer step: the forward and backward passes of its batches, clipping, and the check that losses are numbers.

On a GPU nothing here waits for the device, but for the scaler of float16, which has to.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from spikecore.errors import RunError
from spikecore.interfaces import Batch, RunContext, Task
from spikecore.nn import detach_state, packed_spikes, streaming
from spikecore.trainers import Loss, total_norm, trusted_values
from spikecore_training.penalty import RatePenalty
from spikecore_training.watch import first_bad_layer


@dataclass
class Passes:
    """The steps of one call of `fit`.

    Args:
        task: what is trained.
        context: of the run.
        net: the net to call: connected with the other processes, compiled.
        loss: reduced here.
        optimizer, scaler: see torch.
        truncate: steps after which the graph through time is cut; 0 for never.
        clip_norm, clip_value: bounds of the gradient; 0 for none.
        penalty: on firing rates.
        label_axis: axis of the samples in the labels of a batch; where it is 1, time is axis 0.
        channels_last: memory format of steps `[C, H, W]`.
        packs: keep spikes as bits for the backward pass.
    """

    task: Task
    context: RunContext
    net: nn.Module
    loss: Loss
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    truncate: int = 0
    clip_norm: float = 0.0
    clip_value: float = 0.0
    penalty: RatePenalty | None = None
    label_axis: int = 0
    channels_last: bool = False
    packs: bool = False
    _loss_sum: Tensor = field(init=False)
    _place: tuple[int, int] = (0, 0)
    """Epoch and step, from 0."""
    _first_bad: Tensor = field(init=False)
    """Number of the first step whose loss was no number, kept on the device; infinite for none."""
    _batch: Batch | None = None
    _num_overflows: Tensor = field(init=False)
    """Of the steps of this epoch, those whose gradient was not finite; kept on the device."""

    def __post_init__(self) -> None:
        self._first_bad = torch.full((), float("inf"), device=self.context.device)
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Count the steps that float16 skips from 0."""
        self._num_overflows = torch.zeros((), dtype=torch.int64, device=self.context.device)

    def begin_step(self, epoch: int, step: int) -> None:
        """A step of an epoch begins, both counted from 0."""
        self._place = epoch, step
        self._loss_sum = torch.zeros((), device=self.context.device)
        self.optimizer.zero_grad()

    def add(self, batch: Batch, weight: float, is_last: bool = True) -> None:
        """Forward and backward pass of a batch.

        Args:
            batch: on the device.
            weight: of its mean loss.
            is_last: of this step, so that the processes exchange their gradients.
        """
        self._batch = batch
        is_checked = self._place[1] == 0  # once an epoch; the labels of splits are checked when they are read
        trust = nullcontext() if is_checked else trusted_values()
        with self._exchange(is_last), trust:
            loss = self._pass(batch, weight)
        self._loss_sum = loss if self._loss_sum is None else self._loss_sum + loss

    def end_step(self) -> Tensor:
        """Clip the gradient, and move the weights; returns the mean loss of the step over all processes.

        Raises:
            RunError: it, or a gradient, is no number (on a GPU `require_numbers` says so later).
        """
        context = self.context
        loss = context.all_sum(self._loss_sum) / context.world_size
        with context.timed("backward"):
            if self.clip_norm or self.clip_value:
                self.scaler.unscale_(self.optimizer)
            parameters = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
            norm = total_norm(p.grad for p in parameters if p.grad is not None)
            self._check(loss, norm)
            self._num_overflows += ~norm.isfinite()
            if self.clip_value:
                nn.utils.clip_grad_value_(parameters, self.clip_value)
                norm = total_norm(p.grad for p in parameters if p.grad is not None)
            if self.clip_norm:
                nn.utils.clip_grads_with_norm_(parameters, self.clip_norm, norm)
            self.scaler.step(self.optimizer)  # leaves the weights alone where a gradient overflowed
            self.scaler.update()
        return loss

    def require_numbers(self) -> None:
        """Wait for the device, and look whether a loss was no number.

        Raises:
            RunError: with the first step of which that is so.
        """
        first = float(self._first_bad)
        if first < float("inf"):
            raise self._error(int(first), "it was looked for after the fact, since a GPU runs ahead")

    def num_overflows(self) -> int:
        """Steps of this epoch that the scaler of float16 skipped; waits for the device."""
        return int(self._num_overflows) if self.scaler.is_enabled() else 0

    def _check(self, loss: Tensor, norm: Tensor) -> None:
        """A spike hides what is no number: a neuron that gets nan is silent, and only the gradient shows it."""
        step = self._place[1]
        # With float16 a gradient overflows now and then: the scaler skips that step, and lowers its scale.
        is_good = loss.isfinite() if self.scaler.is_enabled() else loss.isfinite() & norm.isfinite()
        if loss.device.type != "cpu":
            infinite = self._first_bad.new_full((), float("inf"))
            here = self._first_bad.new_full((), float(step))
            self._first_bad = torch.minimum(self._first_bad, torch.where(is_good, infinite, here))
            return
        if not is_good:
            raise self._error(step, self._origin())

    def _origin(self) -> str:
        """Where it starts; the weights are still those from before this step."""
        batch = self._batch
        assert batch is not None
        if self.context.world_size > 1:
            # A layer that talks to the others (a synchronised norm) would wait for them.
            return "it starts in the part of this process" if not self._loss_sum.isfinite() else "in another process"

        def call() -> None:
            with autocast(self.context):
                self.task.model(sequence_of(self.task, batch, self.context.device_generator, self.channels_last))

        return first_bad_layer(self.task.model, call)

    def _error(self, step: int, where: str) -> RunError:
        error = RunError(
            f"the loss or a gradient is no number (nan or infinite) in epoch {self._place[0] + 1}, step {step + 1}: "
            f"{where}. No checkpoint was written since, so the latest one is good. Lower trainer.lr, set "
            "trainer.clip_norm = 1 or trainer.warmup_epochs, look for such values in the data, and with float16 try "
            "run.precision = 'bfloat16'"
        )
        error.is_told = self.context.rank > 0  # all processes raise it
        return error

    def _exchange(self, is_last: bool) -> AbstractContextManager[Any]:
        """Between accumulated batches the processes need not wait for each other."""
        no_sync = getattr(self.net, "no_sync", None)
        return nullcontext() if is_last or no_sync is None else no_sync()

    def _pass(self, batch: Batch, weight: float) -> Tensor:
        context, model = self.context, self.task.model
        with context.timed("forward"):
            x = sequence_of(self.task, batch, context.device_generator, self.channels_last)
            label, mask = batch.stacked.to(x.device), batch.mask
            if self.truncate and self.task.is_sequence and context.world_size > 1:
                x, label, mask = self._as_long_as_others(x, label, mask)
        length = self.truncate or len(x)
        is_cut = length < len(x)
        total = torch.zeros((), device=x.device)
        with ExitStack() as stack:
            if self.penalty is not None:
                stack.enter_context(self.penalty.watching())
            if is_cut:
                stack.enter_context(streaming(model))
            for start in range(0, len(x), length):
                steps = slice(start, min(start + length, len(x)))
                with context.timed("forward"):
                    part = label[steps] if self.label_axis else label
                    loss = self._part_loss(x[steps], part, mask, steps, len(x)) * weight
                with context.timed("backward"):
                    self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                    if is_cut:
                        detach_state(model)
                total = total + loss.detach()
        return total

    def _as_long_as_others(self, x: Tensor, label: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """The batch, padded to the longest one of all processes: each part of a sequence is an exchange of gradients,
        so all processes must have as many parts."""
        context = self.context
        lengths = torch.zeros(context.world_size, dtype=torch.int64)
        lengths[context.rank] = len(x)
        num_more = int(context.all_sum(lengths).max()) - len(x)
        if not num_more:
            return x, label, mask
        own = torch.ones(x.shape[:2], dtype=torch.bool) if mask is None else mask
        return _padded(x, num_more), _padded(label, num_more) if self.label_axis else label, _padded(own, num_more)

    def _part_loss(self, x: Tensor, label: Tensor, mask: Tensor | None, steps: slice, num_steps: int) -> Tensor:
        """Mean loss of the samples over some steps, times the share that these are of all steps of a sample."""
        with autocast(self.context), packed_spikes() if self.packs else nullcontext():
            out: Tensor = self.net(x)
        if len(x) == num_steps:
            return self._losses(out, label, mask).mean()
        if mask is None:
            return self._losses(out, label, None).mean() * (len(x) / num_steps)
        own = mask[steps]
        counts = own.sum(0)
        which = counts.nonzero().squeeze(1)  # of a short sample the last parts are padding only
        if not len(which):
            return out.sum() * 0.0
        share = (counts / mask.sum(0))[which].to(out.device)
        chosen = which.to(out.device)
        if self.penalty is not None:
            self.penalty.choose(chosen)
        losses = self._losses(out[:, chosen], label.index_select(self.label_axis, chosen), own[:, which])
        per_sample = losses.flatten(1).mean(1) if losses.dim() > 1 else losses
        return (per_sample * share).sum() / len(counts)

    def _losses(self, out: Tensor, label: Tensor, mask: Tensor | None) -> Tensor:
        """Of each sample `[B, ...]`."""
        losses = self.loss.each(out, label, mask)
        if self.penalty is None:
            return losses
        penalty = self.penalty.take(mask)
        return losses + penalty.view(-1, *[1] * (losses.dim() - 1))


def _padded(tensor: Tensor, num_steps: int) -> Tensor:
    """With further steps of zeros."""
    return torch.cat([tensor, tensor.new_zeros(num_steps, *tensor.shape[1:])])


def autocast(context: RunContext) -> torch.autocast:
    """Compute in the run's precision."""
    return torch.autocast(context.device.type, context.dtype, enabled=context.dtype != torch.float32)


def sequence_of(task: Task, batch: Batch, generator: torch.Generator, channels_last: bool = False) -> Tensor:
    """The batch as the net takes it, `[T, B, ...]`; a static one is encoded, on its device."""
    x = batch.x.to(generator.device)
    x = x if task.is_sequence else task.sequence(x, generator)
    if channels_last and x.dim() == 5:
        x = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, x.shape[:2])
    return x
