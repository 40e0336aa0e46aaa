"""From a configuration to what a run works with: trainer, task and context, all from the seed; nothing is written."""

from __future__ import annotations

import hashlib
from collections.abc import Sized
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from spikecore.errors import ConfigError, ContractError
from spikecore.interfaces.task import Task
from spikecore.interfaces.trainer import Trainer
from spikecore.registry import build, use
from spikecore.run.blame import naming_layers
from spikecore.run.clock import Clock
from spikecore.run.config import Resolved
from spikecore.run.console import Console, Mute
from spikecore.run.context import Context
from spikecore.run.parts import Parts
from spikecore.run.processes import Group
from spikecore.run.randomness import seed_everything
from spikecore.run.record import NetRecord


@dataclass(frozen=True)
class Prepared:
    """What a run works with.

    Args:
        task: what is trained.
        trainer: trains it.
        context: of the run; without a directory until it has one, so that it writes nothing.
        nets: how the task's model was built; see `Parts.nets`.
    """

    task: Task
    trainer: Trainer
    context: Context
    nets: dict[str, NetRecord]

    @property
    def num_samples(self) -> dict[str, int]:
        """Split → how many samples it holds."""
        return {name: len(split) for name, split in self.task.splits.items()}

    @property
    def label_sums(self) -> dict[str, str]:
        """Split → SHA-256 of its labels in their order, of splits that know them without reading a sample."""
        known = {name: getattr(split, "labels", None) for name, split in self.task.splits.items()}
        return {name: _sum_of(labels) for name, labels in known.items() if labels is not None}

    def __str__(self) -> str:
        """In one line, for people."""
        parts = [f"{sum(parameter.numel() for parameter in self.task.model.parameters())} parameters"]
        parts[0] += f" on {self.context.device}"
        if self.task.train is not None:
            parts.append(f"{len(self.task.train)} training samples")
        if self.task.val is not None:
            parts.append(f"{len(self.task.val)} validation samples")
        for name, how in self.nets.items():
            if how.weights is not None:
                whose = f"{name} starts" if name else "starts"
                parts.append(f"{whose} from the weights {how.weights.name!r} (sha256 {how.weights.sha256[:12]})")
        return ", ".join(parts)


def _sum_of(labels: Any) -> str:
    numbers = torch.as_tensor(labels, dtype=torch.int64).contiguous()
    return hashlib.sha256(numbers.numpy().tobytes()).hexdigest()


@dataclass(frozen=True)
class Output:
    """What a run tells its user with.

    Args:
        clock: runs already, where something was done for the run before.
        console: prints.
    """

    clock: Clock = field(default_factory=Clock)
    console: Console = field(default_factory=Console)


def prepare(
    resolved: Resolved,
    device: torch.device | None = None,
    output: Output | None = None,
    processes: Group | None = None,
    *,
    with_weights: bool = True,
) -> Prepared:
    """Build the trainer and, through it, what it trains.

    Args:
        resolved: the configuration.
        device: instead of the configuration's.
        output: clock and console of the run; None for new ones.
        processes: that train together; None for this one alone.
        with_weights: nets start from the weights that the configuration names; False where a checkpoint is loaded
            anyway, so that their files are not needed.

    Raises:
        ConfigError: the trainer works in one process only, or there is no GPU for this one.
    """
    options = resolved.tables["run"]
    processes, output = processes or Group(), output or Output()
    device = device or device_of(options.device, processes)
    with output.clock.timed("building"), use(resolved.registry):
        seed_everything(options.seed)
        parts = Parts(resolved, device, with_weights)
        trainer: Any = build("trainer", resolved.names["trainer"], resolved.tables["trainer"])
        if processes.world_size > 1 and not trainer.capabilities.multi_process:
            raise ConfigError(
                f"trainer {resolved.names['trainer']!r} trains in one process only (its capabilities.multi_process is "
                f"False), and {processes.world_size} were started: start it without torchrun"
            )
        with naming_layers():
            task = _checked_task(trainer, trainer.prepare(parts))
    dtype: torch.dtype = getattr(torch, options.precision)
    generator = torch.Generator().manual_seed(options.seed)
    console = output.console if processes.is_first else Mute()
    context = Context(device, dtype, generator, task.model, clock=output.clock, console=console, processes=processes)
    return Prepared(task, trainer, context, parts.nets(task.model))


def _checked_task(trainer: object, task: object) -> Task:
    """What `prepare` of a trainer returned.

    Raises:
        ContractError: it is no task, its model is no net, or one of its splits is empty.
    """
    who = f"{type(trainer).__name__}.prepare must return a spikecore.interfaces.Task"
    if not isinstance(task, Task):
        raise ContractError(f"{who}, as in `return Task(parts.model(input_shape, num_outputs))`, got {task!r:.80}")
    if not isinstance(task.model, nn.Module):
        raise ContractError(
            f"{who} whose model is a torch.nn.Module, such as parts.model(input_shape, num_outputs) or an "
            f"nn.ModuleDict of several, got {task.model!r:.80}"
        )
    for name, split in task.splits.items():
        if not isinstance(split, Sized) or len(split) == 0:
            what = "an empty one" if isinstance(split, Sized) else f"{split!r:.80}"
            raise ContractError(
                f"{who} whose split {name!r} has samples, got {what}; None stands for a split that there is not"
            )
    return task


def device_of(name: str, processes: Group | None = None) -> torch.device:
    """The device that `run.device` names; of several processes on a machine each has a GPU of its own.

    Raises:
        ConfigError: it is not here.
    """
    if processes is not None and processes.world_size > 1:
        return _own_device(name, processes)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"run.device: {name!r} was asked for, but there is no usable GPU here; use 'auto' or 'cpu'")
    index = name.partition(":")[2]
    num_gpus = torch.cuda.device_count() if index else 0
    if index and int(index) >= num_gpus:
        raise ConfigError(
            f"run.device: {name!r} was asked for, and the GPUs here are cuda:0 to cuda:{num_gpus - 1}: name one of them"
        )
    return torch.device(name)


def _own_device(name: str, processes: Group) -> torch.device:
    if name not in ("auto", "cuda"):
        if name != "cpu":
            raise ConfigError(
                f"run.device: {name!r} is one GPU, and {processes.world_size} processes were started: use 'cuda', "
                "which gives each of them its own"
            )
        return torch.device(name)
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if num_gpus == 0:
        return device_of(name)
    if processes.local_rank >= num_gpus:
        raise ConfigError(
            f"run.device: process {processes.rank} needs a GPU of its own, and this machine has {num_gpus}: start "
            f"at most {num_gpus} here (torchrun --nproc-per-node {num_gpus}), or set run.device = 'cpu'"
        )
    device = torch.device("cuda", processes.local_rank)
    torch.cuda.set_device(device)  # for what asks for the current GPU, such as NCCL
    return device
