"""Thresholds folded into weights, so that layers exchange plain spikes.

    W x / θ_out → (W diag(θ_in) / θ_out) s        b → b / θ_out

A `SpikingReLU` between two synapse layers becomes the plain `IF` inside it, which every backend fuses and every
deployer knows. Between them may be whatever treats all values of a channel alike and is linear without a constant:
pooling, flatten, dropout that was removed, upsampling. Where a layer sums or joins several paths, or is called twice,
the `SpikingReLU` stays as it is. What is folded depends on the graph alone, never on the data.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from spikecore.nn import NetNode, Ref
from spikecore_ann2snn.neurons import SpikingReLU
from spikecore_ann2snn.operations import SYNAPSES
from spikecore_ann2snn.preparation import Prepared

_TRANSPARENT = (
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AvgPool3d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
    nn.Upsample,
    nn.ZeroPad2d,
    nn.Identity,
    nn.Flatten,
)
_TRANSPARENT_METHODS = ("contiguous", "flatten")
_FLATTENING = (torch.flatten,)


def fold_thresholds(given: Prepared, replaced: Mapping[str, nn.Module]) -> tuple[dict[str, nn.Module], list[str]]:
    """Fold what can be folded.

    Args:
        given: the prepared net; it is left as it is.
        replaced: node name → module, as for `GraphNet`; its modules are left as they are.

    Returns:
        Replacements with plain neurons and scaled layers, and the names of the neurons that are plain now.
    """
    result = dict(replaced)
    layers: dict[str, nn.Module] = {}
    plain: list[str] = []
    for name, module in replaced.items():
        if not isinstance(module, SpikingReLU):
            continue
        before = _layer_before(given, replaced, name)
        after = _layers_after(given, replaced, name)
        if before is None or not after:
            continue
        threshold = module.threshold
        for layer in (before, *after):
            layers.setdefault(layer.name, copy.deepcopy(layer.module))  # type: ignore[arg-type]
        _divide_outputs(layers[before.name], threshold)
        for layer in after:
            _multiply_inputs(layers[layer.name], threshold)
        result[name] = module.neuron
        plain.append(name)
    return {**result, **layers}, plain


def _is_own_layer(given: Prepared, node: NetNode) -> bool:
    """A synapse layer of `nn.Module`s that is called once."""
    is_synapse = node.kind == "module" and isinstance(node.module, SYNAPSES)
    return is_synapse and sum(other.module is node.module for other in given.graph.layers) == 1


def _layer_before(given: Prepared, replaced: Mapping[str, nn.Module], name: str) -> NetNode | None:
    graph = given.graph
    node = graph[graph[name].inputs[0]]
    while isinstance(replaced.get(node.name), nn.Identity) and len(graph.users(node.name)) == 1:
        node = graph[node.inputs[0]]  # a norm that has been folded, or dropout
    is_sole_use = len(graph.users(node.name)) == 1
    has_channels = not isinstance(node.module, nn.Linear) or len(node.shape or ()) == 2
    return node if is_sole_use and has_channels and _is_own_layer(given, node) else None


def _layers_after(given: Prepared, replaced: Mapping[str, nn.Module], name: str) -> list[NetNode]:
    """The layers that read the neuron, all of them; empty where something else reads it too."""
    graph, layers = given.graph, list[NetNode]()
    if _is_output(given, name):
        return []
    for user in graph.users(name):
        if user.name in replaced and not isinstance(replaced[user.name], nn.Identity):
            return []
        if _is_own_layer(given, user):
            layers.append(user)
            continue
        is_identity = isinstance(replaced.get(user.name), nn.Identity)
        if not (is_identity or _is_transparent(user)):
            return []
        further = _layers_after(given, replaced, user.name)
        if not further:
            return []
        layers += further
    return layers


def _is_transparent(node: NetNode) -> bool:
    if node.kind == "module":
        return isinstance(node.module, _TRANSPARENT)
    if node.kind == "method":
        return str(node.target) in _TRANSPARENT_METHODS
    return node.target in _FLATTENING


def _is_output(given: Prepared, name: str) -> bool:
    return name in _names(given.graph.output)


def _names(value: Any) -> list[str]:
    """Of all nodes that a net's output refers to."""
    if isinstance(value, Ref):
        return [value.name]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, tuple | list) else ()
    return [name for part in parts for name in _names(part)]


def _divide_outputs(layer: nn.Module, threshold: Tensor) -> None:
    weight, bias = layer.weight, layer.bias
    with torch.no_grad():
        if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
            rows = weight.unflatten(0, (layer.groups, -1))  # type: ignore[operator]
            shape = (layer.groups, 1, -1, *([1] * (weight.dim() - 2)))  # type: ignore[operator]
            factor = threshold.expand(layer.out_channels).reshape(shape)
            weight.copy_((rows / factor).flatten(0, 1))  # type: ignore[operator]
        else:
            weight.div_(threshold.reshape(-1, *([1] * (weight.dim() - 1))) if threshold.dim() else threshold)  # type: ignore[operator]
        if bias is not None:
            bias.div_(threshold)  # type: ignore[operator]


def _multiply_inputs(layer: nn.Module, threshold: Tensor) -> None:
    weight: Tensor = layer.weight  # type: ignore[assignment]
    with torch.no_grad():
        if not threshold.dim():
            weight.mul_(threshold)
            return
        if isinstance(layer, nn.Linear):
            # After a flatten every channel has its H * W inputs side by side.
            weight.mul_(threshold.repeat_interleave(weight.shape[1] // len(threshold)))
            return
        groups = int(layer.groups)  # type: ignore[arg-type]
        tail = [1] * (weight.dim() - 2)
        if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
            weight.mul_(threshold.reshape(-1, 1, *tail))
            return
        # [out, in / groups, ...]: the rows of a group read that group's inputs.
        rows = weight.unflatten(0, (groups, -1))
        weight.copy_((rows * threshold.reshape(groups, 1, -1, *tail)).flatten(0, 1))
