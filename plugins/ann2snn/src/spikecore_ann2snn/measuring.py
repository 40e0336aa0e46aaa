"""How well a converted net follows the given one, step by step, on a few inputs.

For each neuron the correlation, over all values of all inputs, between the given net's activation and the mean output
after 1, 2, ... T steps; the share of equal decisions; firing rates; operations and energy.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spikecore.analysis import ConversionFidelity, compare_conversion
from spikecore.nn import GraphNet, NetGraph, NetNode, set_step_mode, trace_net
from spikecore_ann2snn.operations import SYNAPSES

MAC_PJ, AC_PJ = 4.6, 0.9
"""Energy of one multiplication with addition, and of one addition, in 45 nm; Horowitz, ISSCC 2014."""


def measure(
    graph: NetGraph, net: nn.Module, neurons: Sequence[str], x: Tensor, num_steps: int, is_whole: bool
) -> tuple[ConversionFidelity, dict[str, float]]:
    """Compare both nets on `x`, shown at every step.

    Args:
        graph: of the given net.
        net: the new one.
        neurons: names of the nodes whose activations are compared.
        x: `[B, ...]`.
        num_steps: T.
        is_whole: the net takes whole sequences only; then it is compared after T steps alone.

    Returns:
        Correlations, rates and agreement; operations and energy per sample, by the names that a report has.
    """
    made = copy.deepcopy(net).eval()
    neurons = [name for name in neurons if graph[name].shape is not None]  # of tuples there is no correlation
    counter = _Counter(made, neurons)
    if is_whole:
        fidelity = _compare_whole(graph, made, neurons, x, num_steps)
    else:
        given = GraphNet(graph, {}, "single")
        fidelity = compare_conversion(given, made, [x], num_steps, neurons)
    macs, synops, analog = _macs(graph, x[:1]), counter.synops / len(x), counter.analog / len(x)
    return fidelity, {
        "MACs of the given net": macs,
        f"SynOps of the new net, T = {num_steps}": synops,
        f"MACs of the new net, T = {num_steps}": analog,
        "energy of the given net (J)": macs * MAC_PJ * 1e-12,
        f"energy of the new net (J), T = {num_steps}": (analog * MAC_PJ + synops * AC_PJ) * 1e-12,
    }


def _compare_whole(
    graph: NetGraph, made: nn.Module, neurons: Sequence[str], x: Tensor, num_steps: int
) -> ConversionFidelity:
    """As `compare_conversion`, after the last step alone."""
    right, scores = _values(graph, neurons, x)
    set_step_mode(made, "multi")
    ours, sequence = _values(trace_net(made), neurons, x.expand(num_steps, *x.shape))
    correlations, rates = {}, {}
    for name, value in ours.items():
        steps = value if value.shape[:2] == (num_steps, len(x)) else value.unflatten(0, (num_steps, -1))
        correlations[name] = (correlation(right[name], steps.mean(0)),)
        rates[name] = float((steps != 0).double().mean())
    agreement: tuple[float, ...] = ()
    if isinstance(scores, Tensor) and scores.dim() == 2 and isinstance(sequence, Tensor):
        agreement = (float((scores.argmax(-1) == sequence.mean(0).argmax(-1)).double().mean()),)
    return ConversionFidelity(correlations, rates, agreement, (), None, len(x))


def _values(graph: NetGraph, names: Sequence[str], x: Tensor) -> tuple[dict[str, Tensor], Any]:
    values: dict[str, Tensor] = {}

    def call(node: NetNode, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        value = graph.call(node, args, kwargs)
        if node.name in names and isinstance(value, Tensor):
            values[node.name] = value
        return value

    with torch.no_grad():
        return values, graph.run(x, call=call)


def correlation(first: Tensor, second: Tensor) -> float:
    """Pearson's, -1 to 1, over all values; 0 where either side is constant."""
    a, b = (value.detach().double().flatten() for value in (first, second))
    a, b = a - a.mean(), b - b.mean()
    norm = float(a.norm() * b.norm())
    return max(-1.0, min(1.0, float(a @ b) / norm)) if norm > 0 else 0.0


class _Counter:
    """Operations of the synapse layers of a net, counted by hooks: additions behind neurons, multiplications before."""

    def __init__(self, made: nn.Module, neurons: Sequence[str]) -> None:
        self.synops = self.analog = 0.0
        after: set[str] = set()
        hooked: set[int] = set()
        for node in trace_net(made):
            if node.name in neurons or any(name in after for name in node.inputs):
                after.add(node.name)
            if isinstance(node.module, SYNAPSES) and id(node.module) not in hooked:
                hooked.add(id(node.module))
                node.module.register_forward_pre_hook(self._hook(any(name in after for name in node.inputs)))

    def _hook(self, gets_spikes: bool) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def count(layer: nn.Module, args: tuple[Any, ...]) -> None:
            x = args[0]
            macs = macs_of(layer, x)
            if gets_spikes:
                # A spike costs an addition for each weight it meets; silence costs nothing.
                self.synops += macs * (float((x != 0).float().mean()) if x.numel() else 0.0)
            else:
                self.analog += macs

        return count


def macs_of(layer: nn.Module, x: Tensor) -> float:
    """Multiplications of a synapse layer for an input `[B, ...]`."""
    if isinstance(layer, nn.Linear):
        return float(x.numel() * layer.out_features)
    weight: Tensor = layer.weight  # type: ignore[assignment]
    if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        return float(x.numel() * weight[0].numel())
    size = 1
    for axis, length in enumerate(x.shape[2:]):
        padding = layer.padding if isinstance(layer.padding, tuple) else (0,) * (x.dim() - 2)
        kernel = layer.dilation[axis] * (layer.kernel_size[axis] - 1) + 1  # type: ignore[index, operator]
        size *= (length + 2 * padding[axis] - kernel) // layer.stride[axis] + 1  # type: ignore[index, operator]
    return float(x.shape[0] * size * weight.numel())


def _macs(graph: NetGraph, x: Tensor) -> float:
    total = 0.0

    def call(node: NetNode, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        nonlocal total
        if isinstance(node.module, SYNAPSES):
            total += macs_of(node.module, args[0])
        return graph.call(node, args, kwargs)

    with torch.no_grad():
        graph.run(x, call=call)
    return total
