"""From a configuration to what a run works with: trainer, task and context, all from the seed; nothing is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from spikecore.errors import ConfigError
from spikecore.interfaces.task import Task
from spikecore.interfaces.trainer import Trainer
from spikecore.registry import build, use
from spikecore.run.config import Resolved
from spikecore.run.context import Context, seed_everything
from spikecore.run.parts import Parts
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

    def __str__(self) -> str:
        """In one line, for people."""
        parts = [f"{sum(parameter.numel() for parameter in self.task.model.parameters())} parameters"]
        parts[0] += f" on {self.context.device}"
        if self.task.train is not None:
            parts.append(f"{len(self.task.train)} training samples")
        if self.task.val is not None:
            parts.append(f"{len(self.task.val)} validation samples")
        return ", ".join(parts)


def prepare(resolved: Resolved, device: torch.device | None = None) -> Prepared:
    """Build the trainer and, through it, what it trains.

    Args:
        resolved: the configuration.
        device: instead of the configuration's.
    """
    options = resolved.tables["run"]
    device = device or device_of(options.device)
    with use(resolved.registry):
        seed_everything(options.seed)
        parts = Parts(resolved, device)
        trainer: Any = build("trainer", resolved.names["trainer"], resolved.tables["trainer"])
        task: Task = trainer.prepare(parts)
    dtype: torch.dtype = getattr(torch, options.precision)
    context = Context(device, dtype, torch.Generator().manual_seed(options.seed), task.model)
    return Prepared(task, trainer, context, parts.nets(task.model))


def device_of(name: str) -> torch.device:
    """The device that `run.device` names.

    Raises:
        ConfigError: it is not here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"run.device: {name!r} was asked for, but there is no usable GPU here; use 'auto' or 'cpu'")
    return torch.device(name)
