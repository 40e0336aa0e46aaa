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

import torch
from torch import Tensor, nn

from spikecore.nn import NetNode
from spikecore_ann2snn.neurons import SpikingReLU
from spikecore_ann2snn.operations import SYNAPSES
from spikecore_ann2snn.preparation import Prepared, names_in

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
        after = _layers_after(given, replaced, name, per_channel=bool(module.threshold.dim()))
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


def _layers_after(given: Prepared, replaced: Mapping[str, nn.Module], name: str, per_channel: bool) -> list[NetNode]:
    """The layers that read the neuron, all of them; empty where something else reads it too."""
    graph, layers = given.graph, list[NetNode]()
    if _is_output(given, name):
        return []
    for user in graph.users(name):
        if user.name in replaced and not isinstance(replaced[user.name], nn.Identity):
            return []
        if per_channel and not _reads_channels(given, user):
            return []
        if _is_own_layer(given, user):
            layers.append(user)
            continue
        is_identity = isinstance(replaced.get(user.name), nn.Identity)
        if not (is_identity or _is_transparent(user)):
            return []
        further = _layers_after(given, replaced, user.name, per_channel)
        if not further:
            return []
        layers += further
    return layers


def _reads_channels(given: Prepared, node: NetNode) -> bool:
    """Whether axis 1 of its input means channels to a call, and still does in its result, perhaps with all axes flat.

    A linear layer over the last of several axes, or pooling of `[B, N]`, which takes that for one sample `[C, L]`, run
    across what has a threshold of its own.
    """
    before, after = given.graph[node.inputs[0]].shape or (), node.shape or ()
    module = node.module
    if isinstance(module, nn.Linear):
        return len(before) == 2
    rank = next((axes + 2 for kind, axes in _AXES.items() if isinstance(module, kind)), len(before))
    is_flat = len(after) == 2
    keeps = after[:2] == before[:2] or isinstance(module, SYNAPSES)
    return len(before) == rank >= 2 and (is_flat or keeps)


_AXES = {
    **dict.fromkeys((nn.Conv1d, nn.ConvTranspose1d, nn.AvgPool1d, nn.AdaptiveAvgPool1d), 1),
    **dict.fromkeys((nn.Conv2d, nn.ConvTranspose2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.ZeroPad2d), 2),
    **dict.fromkeys((nn.Conv3d, nn.ConvTranspose3d, nn.AvgPool3d, nn.AdaptiveAvgPool3d), 3),
}
"""Kind → axes that it runs over, beside batch and channels."""


def _is_transparent(node: NetNode) -> bool:
    if node.kind == "module":
        return isinstance(node.module, _TRANSPARENT)
    if node.kind == "method":
        return str(node.target) in _TRANSPARENT_METHODS
    return node.target in _FLATTENING


def _is_output(given: Prepared, name: str) -> bool:
    return name in names_in(given.graph.output)


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
