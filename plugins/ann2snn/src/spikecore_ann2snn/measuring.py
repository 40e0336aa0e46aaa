"""How well a converted net follows the given one, step by step, on a few inputs.

For each neuron the correlation, over all values of all inputs, between the given net's activation and the mean output
after 1, 2, ... T steps; the share of equal decisions; firing rates; operations and energy.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from spikecore.nn import NetGraph, NetNode, reset_state, set_step_mode, trace_net
from torch import Tensor, nn

from spikecore_ann2snn.operations import SYNAPSES

MAC_PJ, AC_PJ = 4.6, 0.9
"""Energy of one multiplication with addition, and of one addition, in 45 nm; Horowitz, ISSCC 2014."""


@dataclass
class Measured:
    """What was seen.

    Args:
        correlation: node → one number per step; only the last one where a net needs its sequences whole.
        agreement: step → share of equal decisions; empty where the output is not one row of scores per sample.
        rates: node → spikes per neuron and step.
        operations: `macs`: of the given net per sample; `synops`: additions for spikes, and `analog_macs`:
            multiplications for values that are no spikes, of the new one after all T steps.
    """

    correlation: dict[str, list[float]] = field(default_factory=dict)
    agreement: dict[int, float] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    operations: dict[str, float] = field(default_factory=dict)

    def numbers(self) -> dict[str, float]:
        """Operations and energy per sample, by the names that a report has."""
        if not self.operations:
            return {}
        macs, synops, analog = (self.operations[name] for name in ("macs", "synops", "analog_macs"))
        given, new = macs * MAC_PJ * 1e-12, (analog * MAC_PJ + synops * AC_PJ) * 1e-12
        return {
            "MACs of the given net": macs,
            "SynOps of the new net": synops,
            "MACs of the new net": analog,
            "energy of the given net (J)": given,
            "energy of the new net (J)": new,
        }


def measure(
    graph: NetGraph, net: nn.Module, neurons: Sequence[str], x: Tensor, num_steps: int, is_whole: bool
) -> Measured:
    """Compare both nets on `x`, shown at every step.

    Args:
        graph: of the given net.
        net: the new one.
        neurons: names of the nodes whose activations are compared.
        x: `[B, ...]`.
        num_steps: T.
        is_whole: the net takes whole sequences only; then it is compared after T steps alone.
    """
    wanted, right = _activations(graph, neurons, x)
    made = copy.deepcopy(net).eval()
    measured, counter = Measured(), _Counter(neurons)
    with torch.no_grad():
        if is_whole:
            set_step_mode(made, "multi")
            sums = {}

            def call_multi(node: NetNode, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
                counter.see(node, args)
                value = own.call(node, args, kwargs)
                if node.name in wanted:
                    # [T, B, ...] for what sees time, [T * B, ...] for all else.
                    sequence = value if value.shape[:2] == (num_steps, len(x)) else value.unflatten(0, (num_steps, -1))
                    sums[node.name] = sequence.sum(0)
                    measured.rates[node.name] = float((sequence != 0).float().mean())
                return value

            own = trace_net(made)
            out = own.run(x.expand(num_steps, *x.shape), call=call_multi)
            _compare(measured, wanted, sums, right, out.sum(0) if isinstance(out, Tensor) else None, num_steps)
        else:
            _step_by_step(measured, made, wanted, right, x, num_steps, counter)
    measured.operations = {"macs": _macs(graph, x) / len(x), **counter.per_sample(len(x))}
    return measured


def _activations(graph: NetGraph, neurons: Sequence[str], x: Tensor) -> tuple[dict[str, Tensor], Any]:
    values: dict[str, Tensor] = {}

    def call(node: NetNode, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        value = graph.call(node, args, kwargs)
        if node.name in neurons and isinstance(value, Tensor):
            values[node.name] = value
        return value

    with torch.no_grad():
        return values, graph.run(x, call=call)


def _step_by_step(
    measured: Measured, made: nn.Module, wanted: Mapping[str, Tensor], right: Any, x: Tensor, num_steps: int,
    counter: _Counter,
) -> None:
    set_step_mode(made, "single")
    reset_state(made)
    own = trace_net(made)
    sums: dict[str, Tensor] = {}
    spikes: dict[str, float] = {}

    def call(node: NetNode, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        counter.see(node, args)
        value = own.call(node, args, kwargs)
        if node.name in wanted:
            sums[node.name] = sums[node.name] + value if node.name in sums else value
            spikes[node.name] = spikes.get(node.name, 0.0) + float((value != 0).float().mean())
        return value

    total: Tensor | None = None
    for step in range(1, num_steps + 1):
        out = own.run(x, call=call)
        if isinstance(out, Tensor):
            total = out if total is None else total + out
        _compare(measured, wanted, sums, right, total, step)
    measured.rates = {name: count / num_steps for name, count in spikes.items()}


def _compare(
    measured: Measured, wanted: Mapping[str, Tensor], sums: Mapping[str, Tensor], right: Any, total: Any, step: int
) -> None:
    for name, value in wanted.items():
        if name in sums:
            measured.correlation.setdefault(name, []).append(correlation(value, sums[name] / step))
    if isinstance(right, Tensor) and isinstance(total, Tensor) and right.dim() == 2 and right.shape == total.shape:
        measured.agreement[step] = float((right.argmax(-1) == total.argmax(-1)).float().mean())


def correlation(first: Tensor, second: Tensor) -> float:
    """Pearson's, -1 to 1, over all values; for constant ones 1 if both are, else 0."""
    a, b = (value.detach().double().flatten() for value in (first, second))
    a, b = a - a.mean(), b - b.mean()
    norms = a.norm(), b.norm()
    if not norms[0] > 0 or not norms[1] > 0:
        return float(bool(norms[0] == norms[1]))
    return max(-1.0, min(1.0, float(a @ b / (norms[0] * norms[1]))))


class _Counter:
    """Operations of the synapse layers of a net that is run."""

    def __init__(self, neurons: Sequence[str]) -> None:
        self.neurons, self.after_neurons = set(neurons), set[str]()
        self.synops = self.analog = 0.0

    def see(self, node: NetNode, args: tuple[Any, ...]) -> None:
        """Add a call: additions where neurons feed it, else multiplications."""
        if node.name in self.neurons or any(name in self.after_neurons for name in node.inputs):
            self.after_neurons.add(node.name)
        if not isinstance(node.module, SYNAPSES) or not args or not isinstance(args[0], Tensor):
            return
        x = args[0]
        macs = macs_of(node.module, x)
        if any(name in self.after_neurons for name in node.inputs):
            self.synops += macs * (float((x != 0).float().mean()) if x.numel() else 0.0)
        else:
            self.analog += macs

    def per_sample(self, batch: int) -> dict[str, float]:
        return {"synops": self.synops / batch, "analog_macs": self.analog / batch}


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
