"""How well a converted net follows the given one, step by step, on a few inputs.

For each neuron the correlation, over all values of all inputs, between the given net's activation and the mean output
after 1, 2, ... T steps; the share of equal decisions; firing rates; operations and energy.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spikecore.analysis import (
    ENERGY_MODELS,
    ConversionFidelity,
    OperationCounter,
    Operations,
    compare_conversion,
)
from spikecore.nn import GraphNet, NetGraph, NetNode, set_step_mode, trace_net


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
    if is_whole:
        fidelity = _compare_whole(graph, made, neurons, x, num_steps)
    else:
        given = GraphNet(graph, {}, "single")
        fidelity = compare_conversion(given, made, [x], num_steps, neurons)
    right, ours = _count_given(graph, x[:1]), _count(made, neurons, x, num_steps, is_whole)
    model = ENERGY_MODELS["horowitz-fp32"]
    macs, acs, analog = right.total("dense"), ours.total("acs"), ours.total("macs")
    return fidelity, {
        "MACs of the given net": macs,
        f"SynOps of the new net, T = {num_steps}": acs,
        f"MACs of the new net, T = {num_steps}": analog,
        "energy of the given net (J)": model.mac_pj * macs * 1e-12,
        f"energy of the new net (J), T = {num_steps}": ours.energy_pj(model) * 1e-12,
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


def _count(made: nn.Module, neurons: Sequence[str], x: Tensor, num_steps: int, is_whole: bool) -> Operations:
    """What the new net does. Layers behind neurons take spikes, whatever the amplitude: it belongs to the weights."""
    after: set[str] = set()
    takes_spikes: set[str] = set()
    for node in trace_net(made):
        is_behind = any(name in after for name in node.inputs)
        if node.name in neurons or is_behind:
            after.add(node.name)
        if is_behind and node.kind == "module":
            takes_spikes.add(str(node.target))
    twin = copy.deepcopy(made)
    set_step_mode(twin, "multi" if is_whole else "single")
    counter = OperationCounter(twin, lambda layer, by_value: by_value or layer in takes_spikes)
    with torch.no_grad(), counter:
        if is_whole:
            twin(x.expand(num_steps, *x.shape))
        else:
            for _ in range(num_steps):
                twin(x)
    return counter.operations(len(x), num_steps)


def _count_given(graph: NetGraph, x: Tensor) -> Operations:
    with torch.no_grad(), OperationCounter(graph.net) as counter:
        graph.run(x)
    return counter.operations(len(x))
