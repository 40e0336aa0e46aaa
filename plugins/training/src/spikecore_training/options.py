"""The options that all trainers of this plugin share."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from spikecore.interfaces import Range
from spikecore.trainers import OPTIMIZER, SCHEDULE
from spikecore_training.schedules import Plateau

Count = Annotated[int, Range(ge=1)]
NotNegative = Annotated[float, Range(ge=0.0, lt=math.inf)]
Share = Annotated[float, Range(ge=0.0, lt=1.0)]
Whole = Annotated[int, Range(ge=0)]


@dataclass(frozen=True)
class LoopConfig:
    """
    Args:
        epochs: passes over the training split.
        batch_size: samples of a batch, of all processes together.
        accumulate: batches of one optimizer step; their mean gradient is that of one batch of all their samples.
        optimizer: of torch.optim, with its options.
        lr: peak learning rate.
        schedule: of the learning rate; `cosine` falls to zero over the whole training.
        schedule_per: what the schedule counts: epochs, or optimizer steps.
        warmup_epochs: over so many epochs the learning rate rises to what the schedule says, step by step.
        warmup_start: factor of the learning rate at the first step of the warm-up.
        decay: weight decay acts on weights only, or on all parameters, also norms, biases and neurons.
        clip_norm: the gradient is scaled down to this norm where it is larger; 0 never.
        clip_value: each element of the gradient is held within ± this value; 0 never.
        ema: decay of a moving average of the weights, which is what is evaluated and loaded; 0 for none.
        truncate: steps after which the gradient through time is cut, with one backward pass per part; 0 never.
        memory: what is kept for the backward pass: `fast`: all; `balanced`: spikes as bits; `save`: spikes as bits, and
            only the inputs of the parts of the net, which run twice. The results are the same to the last bit.
        rate_penalty: times the mean over spiking layers of (firing rate - rate_target)², added to the loss.
        rate_target: spikes per neuron and step.
        patience: training stops after so many epochs without a better score; 0 never.
        min_delta: by which a score must be better to count.
        workers: processes that read samples ahead; 0 reads between the steps.
        prefetch: batches that each worker keeps ready.
        channels_last: memory format of weights and of steps `[C, H, W]`.
        compile: `torch.compile` the net for training.
        compile_backend: of `torch.compile`.
        deterministic: refuse operators of torch that are not deterministic.
        parallel: how several processes share a net: `ddp`: all hold the whole net; `fsdp`: each holds its part of the
            weights, of their gradients and of the optimizer's state, with more exchange. The results are the same.
        sync_batch_norm: batch norms of several processes share their statistics.
        firing_rates: measure the firing rate of each layer whenever the net is evaluated.
        log_every: also log every so many optimizer steps; 0 logs epochs only.
        tensorboard: write events for TensorBoard into the run directory.
        val_share: of each class of the training split, held back to compare models on while they are trained, where
            the dataset has no split `val`; 0 trains without validation.
    """

    epochs: Annotated[int, Range(ge=0)] = 20
    batch_size: Count = 64
    accumulate: Count = 1
    optimizer: Annotated[Any, OPTIMIZER] = "adamw"
    lr: Annotated[float, Range(gt=0.0, lt=math.inf)] = 0.005
    schedule: Annotated[Any, SCHEDULE] = "cosine"
    schedule_per: Literal["epoch", "step"] = "epoch"
    warmup_epochs: NotNegative = 0.0
    warmup_start: Annotated[float, Range(gt=0.0, le=1.0)] = 0.01
    decay: Literal["weights", "all"] = "weights"
    clip_norm: NotNegative = 0.0
    clip_value: NotNegative = 0.0
    ema: Share = 0.0
    truncate: Whole = 0
    memory: Literal["fast", "balanced", "save"] = "fast"
    rate_penalty: NotNegative = 0.0
    rate_target: Share = 0.1
    patience: Whole = 0
    min_delta: NotNegative = 0.0
    workers: Whole = 0
    prefetch: Count = 2
    channels_last: bool = False
    compile: bool = False
    compile_backend: str = "inductor"
    deterministic: bool = False
    parallel: Literal["ddp", "fsdp"] = "ddp"
    sync_batch_norm: bool = False
    firing_rates: bool = False
    log_every: Whole = 0
    tensorboard: bool = False
    val_share: Share = 0.1


def loop_problems(config: Any) -> Iterable[tuple[str, str]]:
    """Rules about several of these options, and what must be installed."""
    if config.tensorboard and importlib.util.find_spec("tensorboard") is None:
        yield "tensorboard", "needs the package tensorboard: pip install 'spikecore-training[tensorboard]'"
    if config.schedule_per == "step" and isinstance(config.schedule, Plateau):
        yield "schedule_per", "must be 'epoch' for the schedule 'plateau', which follows the score of each epoch"
    if config.memory == "save":
        for name, value, why in (
            ("truncate", config.truncate, "runs parts of the net again, which need the state of parts of a sequence"),
            ("rate_penalty", config.rate_penalty, "runs neurons again, whose spikes would be counted twice"),
            ("sync_batch_norm", config.sync_batch_norm, "runs norms again, which would exchange their sums twice"),
        ):
            if value:
                yield "memory", f"'save' {why}: set trainer.memory = 'balanced', or leave out {name}"
    if config.parallel == "fsdp":
        yield from _sharding_problems(config)
    if config.warmup_epochs > config.epochs > 0:
        yield "warmup_epochs", f"must be at most epochs = {config.epochs}, got {config.warmup_epochs:g}"


def _sharding_problems(config: Any) -> Iterable[tuple[str, str]]:
    again = "set trainer.parallel = 'ddp', or"
    if config.ema:
        yield "parallel", f"'fsdp' has no moving average of the weights: {again} leave out ema"
    if config.channels_last:
        yield "parallel", f"'fsdp' divides contiguous weights only: {again} leave out channels_last"
    if config.compile:
        yield "parallel", f"'fsdp': torch's compiler does not take a spiking net in parts: {again} leave out compile"
    if not config.optimizer.can_shard:
        name = type(config.optimizer).__name__
        yield "parallel", f"'fsdp': torch's {name} takes whole weights only: {again} choose another optimizer"


def idle_loop_options(config: Any) -> Iterable[tuple[str, str]]:
    """Options without effect beside the others."""
    if not config.warmup_epochs:
        yield "warmup_start", "has no effect without warmup_epochs"
    if not config.rate_penalty:
        yield "rate_target", "has no effect without rate_penalty"
    if not config.patience:
        yield "min_delta", "has no effect without patience"
    if not config.workers:
        yield "prefetch", "has no effect without workers"
    if not config.compile:
        yield "compile_backend", "has no effect without compile"
