"""A net → the file that the device loads, and the device's simulation.

The device runs a chain of matrices and cells. Everything else is refused, with the reason and a cure.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from acme_npu.neuron import AcmeCell
from spikecore import nn
from spikecore.files import write_file
from spikecore.interfaces import (
    Artefact,
    Configurable,
    DeployerCapabilities,
    OperatorRecord,
    make_config,
    require_mapped,
)

FLATTENS = (".flatten()", "flatten", "Flatten")
MATRICES = (torch.nn.Linear, nn.Linear)
CELLS = (AcmeCell, nn.IF)
"""Mapped by their own type: a subclass may compute something else."""
OPTIONS = ("keep", "limit", "v_threshold", "v_reset", "v_init", "reset", "fires")
TRAINING = ("surrogate", "detach_reset", "learnable")
"""Options that change gradients only."""
NO_LIMIT = float("inf")


class AcmeDeployer(Configurable):
    """Chains of linear layers, IF and acme_cell, as a JSON file for acme-npu."""

    api_version: ClassVar[int] = 2
    capabilities: ClassVar[DeployerCapabilities] = DeployerCapabilities(simulates=True, bit_exact=True)
    config: Any

    def __init__(self, **options: Any) -> None:
        self.config = make_config(type(self), options)

    def check(self, model: torch.nn.Module, example_input: Tensor) -> tuple[OperatorRecord, ...]:
        """What becomes of every operator of the net."""
        return tuple(record for record, _ in _planned(model, example_input))

    def export(self, model: torch.nn.Module, example_input: Tensor, path: Path) -> Artefact:
        """Write the file `path`, whole or not at all.

        Raises:
            ConversionError: an operator is refused; names all of them.
        """
        planned = _planned(model, example_input)
        records = tuple(record for record, _ in planned)
        require_mapped(records, "acme")
        layers = [{"name": record.name, "type": record.target, **values} for record, values in planned]
        write_file(path, json.dumps({"device": "acme-npu", "layers": layers}))
        return Artefact(path, records)

    def simulate(self, artefact: Artefact, x: Tensor) -> Tensor:
        """Run the file over `x` `[T, B, ...]`."""
        return _run(artefact.path, x)[0]

    def trace(self, artefact: Artefact, x: Tensor) -> dict[str, Tensor]:
        """The spikes of every neuron layer, `[T, B, ...]`."""
        return _run(artefact.path, x)[1]


def _planned(model: torch.nn.Module, example_input: Tensor) -> list[tuple[OperatorRecord, dict[str, Any]]]:
    """Every operator with what is written of it."""
    net = copy.deepcopy(model).eval()  # the given net is left as it is
    nn.set_step_mode(net, "multi")
    graph = nn.trace_net(net, example_input)
    nodes = [node for node in graph.layers if node.value is None]  # the others are numbers, such as `x.dim()`
    planned = []
    before = graph.inputs[0].name
    for node in nodes:
        tensors = [name for name in node.inputs if graph[name].value is None]
        if tensors != [before]:
            cure = "write the net as a chain"
            planned.append(_refused(node, f"it takes {tensors}, not only {before!r}, the one before it", cure))
        else:
            planned.append(_operator(node))
        before = node.name
    if planned and graph.output != nn.Ref(before):
        planned[-1] = _refused(nodes[-1], "the net returns something else than its last layer", "return that alone")
    return planned


def _operator(node: nn.NetNode) -> tuple[OperatorRecord, dict[str, Any]]:
    layer = node.module
    if node.operation in FLATTENS and node.shape is not None and len(node.shape) == 3:
        return _mapped(node, "flatten", {})
    if type(layer) in MATRICES:
        bias = None if layer.bias is None else layer.bias.tolist()
        return _mapped(node, "matrix", {"weight": layer.weight.tolist(), "bias": bias})
    if type(layer) in CELLS:
        return _cell(node, layer)
    return _refused(node, f"acme-npu has no {node.operation}", "use Linear, Flatten, IF and acme_cell")


def _cell(node: nn.NetNode, neuron: Any) -> tuple[OperatorRecord, dict[str, Any]]:
    values = nn.option_values(neuron)
    unknown = sorted(values.keys() - {*OPTIONS, *TRAINING})
    if unknown:
        return _refused(node, f"acme-npu does not know the options {unknown}", "use IF or acme_cell")
    if values["reset"] not in ("hard", "soft"):
        return _refused(node, f"acme-npu has no reset {values['reset']!r}", 'use reset="hard" or "soft"')
    known = {name: values[name] for name in OPTIONS if name in values}
    if known.get("v_init") is None:
        known["v_init"] = known["v_reset"]
    return _mapped(node, "cell", {"keep": 1.0, "limit": NO_LIMIT, **known})


def _mapped(node: nn.NetNode, target: str, values: dict[str, Any]) -> tuple[OperatorRecord, dict[str, Any]]:
    return OperatorRecord(node.name, node.operation, "mapped", target), values


def _refused(node: nn.NetNode, reason: str, cure: str) -> tuple[OperatorRecord, dict[str, Any]]:
    return OperatorRecord(node.name, node.operation, "refused", "", reason, cure), {}


def _run(path: Path, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The output, and the spikes of every neuron layer; nothing but the file is read."""
    spikes = {}
    for layer in json.loads(path.read_text(encoding="utf-8"))["layers"]:
        if layer["type"] == "flatten":
            x = x.flatten(2)
        elif layer["type"] == "matrix":
            bias = None if layer["bias"] is None else torch.tensor(layer["bias"], dtype=x.dtype)
            x = torch.nn.functional.linear(x, torch.tensor(layer["weight"], dtype=x.dtype), bias)
        else:
            x = spikes[layer["name"]] = _cells(layer, x)
    return x, spikes


def _cells(layer: dict[str, Any], x: Tensor) -> Tensor:
    """A layer of cells over time."""

    def value(name: str) -> Tensor:
        """One for all, one per channel of a step `[B, C, ...]`, or one per neuron."""
        numbers = torch.tensor(layer[name], dtype=x.dtype)
        return numbers.reshape(-1, *[1] * (x.dim() - 3)) if numbers.dim() == 1 else numbers

    keep, limit, threshold, rest = value("keep"), value("limit"), value("v_threshold"), value("v_reset")
    v = value("v_init").expand(x.shape[1:])
    spikes = torch.empty_like(x)
    for t, current in enumerate(x):
        h = torch.maximum(torch.minimum(keep * v + current, limit), -limit)
        spikes[t] = h >= threshold if layer["fires"] == "at" else h > threshold
        v = torch.where(spikes[t] > 0, rest, h) if layer["reset"] == "hard" else h - spikes[t] * threshold
    return spikes
