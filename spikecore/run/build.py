"""From a configuration to its parts: data, net, trainer and context, all from the seed; nothing is written."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from spikecore.backends.selection import AUTO, REFERENCE, configure_backend
from spikecore.errors import ConfigError
from spikecore.interfaces.dataset import Split
from spikecore.interfaces.trainer import Task
from spikecore.registry import build, use
from spikecore.run.config import Resolved
from spikecore.run.context import Context, seed_everything


def prepare(resolved: Resolved, device: torch.device | None = None) -> tuple[Task, Any, Context]:
    """Build data, net and trainer, all from the seed; writes nothing.

    Args:
        resolved: the configuration.
        device: instead of the configuration's.
    """
    with use(resolved.registry):
        return _prepare(resolved, device)


def _prepare(resolved: Resolved, device: torch.device | None) -> tuple[Task, Any, Context]:
    options = resolved.tables["run"]
    device = device or _device(options.device)
    seed_everything(options.seed)
    dataset = build("dataset", resolved.names["dataset"], resolved.tables["dataset"])
    encoder = build("encoder", resolved.names["encoder"], resolved.tables["encoder"])
    backend = resolved.names["backend"]
    if backend not in (AUTO, REFERENCE):
        configure_backend(backend, config=resolved.tables["backend"])

    def make_neuron() -> nn.Module:
        made: nn.Module = build("neuron", resolved.names["neuron"], resolved.tables["neuron"], backend=backend)
        return made

    train, test = dataset.split("train"), dataset.split("test")
    shape = _input_shape(dataset, encoder, train)
    model = build(
        "model", resolved.names["model"], resolved.tables["model"], make_neuron, shape, dataset.num_classes
    ).to(device)
    trainer = build("trainer", resolved.names["trainer"], resolved.tables["trainer"])
    task = Task(model, encoder, train, test, dataset.num_classes, dataset.is_sequence, tuple(dataset.info.classes))
    dtype: torch.dtype = getattr(torch, options.precision)
    return task, trainer, Context(device, dtype, torch.Generator().manual_seed(options.seed), model)


def _input_shape(dataset: Any, encoder: Any, train: Split) -> tuple[int, ...]:
    """Of one step of one sample, as the model gets it: that of the dataset, unless the encoder widens it."""
    if dataset.is_sequence or encoder.capabilities.keeps_shape or not len(train):
        return tuple(dataset.sample_shape)
    with torch.no_grad():
        return tuple(encoder(train[0][0].unsqueeze(0), torch.Generator()).shape[2:])


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"run.device: {name!r} was asked for, but there is no usable GPU here; use 'auto' or 'cpu'")
    return torch.device(name)
