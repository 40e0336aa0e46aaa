"""Builds what a configuration names, on request: see `interfaces.task.Parts`."""

from __future__ import annotations

import hashlib
import importlib
import operator
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spikecore.backends.selection import AUTO, REFERENCE, configure_backend
from spikecore.errors import ConfigError, ContractError, SpikeError
from spikecore.nn.weights import load_weights, weights_file
from spikecore.registry import build
from spikecore.run.config import WEIGHTS, Resolved
from spikecore.run.record import NetRecord, WeightsRecord
from spikecore.run.roles import ROLES, Role

FILES = (".safetensors", ".pth", ".pt")
"""Endings of a file of weights; what has another is a name."""


class Parts:
    """The parts of one run. It remembers how each net was built, so that it can be built again without the trainer.

    Args:
        resolved: the configuration.
        device: where nets go.
        with_weights: nets start from the weights that the configuration names; False where others are loaded anyway.
    """

    def __init__(self, resolved: Resolved, device: torch.device, with_weights: bool = True) -> None:
        self.resolved = resolved
        self.device = device
        self.weights = resolved.weights if with_weights else {}
        self.seed: int = resolved.tables["run"].seed
        self._nets: list[tuple[nn.Module, NetRecord]] = []
        self.backend = resolved.names.get("backend", AUTO)
        if self.backend not in (AUTO, REFERENCE):
            configure_backend(self.backend, config=resolved.tables["backend"])

    def dataset(self) -> Any:
        """The dataset of `[dataset]`."""
        return self.build("dataset")

    def encoder(self) -> nn.Module:
        """The encoder of `[encoder]`."""
        encoder: nn.Module = self.build("encoder")
        return encoder

    def make_neuron(self) -> nn.Module:
        """A new layer of the neurons of `[neuron]`, on the backend of `[backend]`."""
        layer: nn.Module = self.build("neuron")
        return layer

    def model(self, input_shape: Sequence[int], num_outputs: int) -> nn.Module:
        """The net of `[model]`, on the device."""
        net: nn.Module = self.build("model", input_shape, num_outputs)
        return net

    def build(self, role: str, *arguments: Any) -> Any:
        """What fills the role, as its row in `roles.ROLES` says.

        Raises:
            ContractError: the trainer does not name this role, or it is not built by itself.
        """
        self._expect(role)
        module, _, function = ROLES[role].build.partition(":")
        if not module:
            raise ContractError(f"the role {role!r} is not built by itself; parts.options({role!r}) has its options")
        return getattr(importlib.import_module(module), function)(self, ROLES[role], *arguments)

    def options(self, role: str) -> Any:
        """The checked `Config` of the role's table.

        Raises:
            ContractError: the trainer does not name this role.
        """
        self._expect(role)
        return self.resolved.tables[role]

    def keep(self, net: nn.Module, how: NetRecord) -> None:
        """Remember how a net was built."""
        self._nets.append((net, how))

    def nets(self, model: nn.Module) -> dict[str, NetRecord]:
        """How to build a task's model again: name in it → how that net was built.

        Empty where the parts alone do not tell it: the trainer made the net, or put more into it.
        """
        built = {id(net): how for net, how in self._nets}
        if id(model) in built:
            return {"": built[id(model)]}
        children = dict(model.named_children())
        if type(model) is nn.ModuleDict and children and all(id(child) in built for child in children.values()):
            return {name: built[id(child)] for name, child in children.items()}
        return {}

    def _expect(self, role: str) -> None:
        if role not in ROLES or role not in self.resolved.tables:
            roles = [table for table in self.resolved.tables if table in ROLES]
            trainer = self.resolved.names.get("trainer", "this one")
            raise ContractError(
                f"trainer {trainer!r} asked for the role {role!r}, which its capabilities.roles do not name "
                f"(they bring: {', '.join(roles) or 'none'})"
            )


def component(parts: Parts, role: Role) -> Any:
    """A component that takes nothing but its options; an encoder goes to the device, where it is to draw."""
    made = build(str(role.kind), parts.resolved.names[role.name], parts.resolved.tables[role.name])
    return made.to(parts.device) if isinstance(made, nn.Module) else made


def neuron(parts: Parts, role: Role) -> Any:
    """A neuron, which gets its backend too."""
    name, config = parts.resolved.names[role.name], parts.resolved.tables[role.name]
    return build(str(role.kind), name, config, backend=parts.backend)


def model(parts: Parts, role: Role, input_shape: Sequence[int], num_outputs: int) -> nn.Module:
    """A net, from the run's neurons, for inputs and outputs of this size.

    Raises:
        ContractError: the trainer gave no sizes.
    """
    how = NetRecord(role.name, *_sizes(input_shape, num_outputs))
    name, config = parts.resolved.names[role.name], parts.resolved.tables[role.name]
    net: nn.Module = build(str(role.kind), name, config, parts.make_neuron, how.input_shape, how.num_outputs)
    if role.name in parts.weights:
        how = replace(how, weights=_start_from(net, parts.weights[role.name], role.name, name))
    net = net.to(parts.device)
    parts.keep(net, how)
    return net


MOST_SIZE = 1 << 31
"""Of an axis of a net's input or output."""


def _sizes(input_shape: object, num_outputs: object) -> tuple[tuple[int, ...], int]:
    call = "parts.model(input_shape, num_outputs)"
    try:
        shape = tuple(map(operator.index, input_shape))  # type: ignore[call-overload]  # also integers of NumPy
    except TypeError:
        raise ContractError(
            f"{call}: input_shape must be a tuple of ints, the shape of one step of one sample without T and B, as in "
            f"(2, 32, 32) or (64,); got {input_shape!r:.80}"
        ) from None
    try:
        size = operator.index(num_outputs)  # type: ignore[arg-type]
    except TypeError:
        raise ContractError(f"{call}: num_outputs must be an int, got {num_outputs!r:.80}") from None
    for number in (*shape, size):
        if not 0 <= number < MOST_SIZE:
            raise ContractError(f"{call}: sizes must be from 0 to {MOST_SIZE - 1}, got {number!r:.80}")
    return shape, size


def _start_from(net: nn.Module, weights: str, table: str, name: str) -> WeightsRecord:
    """Load what the table's key `weights` names.

    Raises:
        ConfigError: there is no such name or file, it is damaged, or it is of another net.
    """
    given = Path(weights) if Path(weights).suffix in FILES else weights
    try:
        file = weights_file(net, given, name)
        load_weights(net, file, name)
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    except (SpikeError, OSError) as error:
        raise ConfigError(f"{table}.{WEIGHTS}: {error}") from error
    return WeightsRecord(weights, sha256)


def rebuild_model(parts: Parts, nets: dict[str, NetRecord]) -> nn.Module:
    """A task's model as `Parts.nets` said it was built, with new weights."""
    built = {name: parts.build(how.role, how.input_shape, how.num_outputs) for name, how in nets.items()}
    return built[""] if "" in built else nn.ModuleDict(built)
