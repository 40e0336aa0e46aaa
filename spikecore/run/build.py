"""From a configuration to its parts: data, net, trainer and context, all from the seed; nothing is written."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from spikecore.backends.selection import AUTO, REFERENCE, configure_backend
from spikecore.errors import ConfigError
from spikecore.interfaces.dataset import Split
from spikecore.interfaces.trainer import Task
from spikecore.registry import create, use
from spikecore.registry import load as load_component
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
    dataset = create("dataset", resolved.names["dataset"], **resolved.options("dataset"))
    encoder = create("encoder", resolved.names["encoder"], **resolved.options("encoder"))
    backend = resolved.names["backend"]
    if backend not in (AUTO, REFERENCE):
        configure_backend(backend, **resolved.options("backend"))

    def make_neuron() -> nn.Module:
        made: nn.Module = create("neuron", resolved.names["neuron"], backend=backend, **resolved.options("neuron"))
        return made

    train, test = dataset.split("train"), dataset.split("test")
    model = load_component("model", resolved.names["model"])(
        make_neuron, _input_shape(dataset, encoder, train), dataset.num_classes, **resolved.options("model")
    ).to(device)
    trainer = create("trainer", resolved.names["trainer"], **resolved.options("trainer"))
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
