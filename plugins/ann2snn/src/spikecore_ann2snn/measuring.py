"""How well a converted net follows the given one, step by step, on a few inputs.

For each neuron the correlation, over the values of all inputs, between the given net's activation and the mean output
after 1, 2, ... T steps; the share of equal decisions; firing rates; operations and energy. One pass gives all of it:
operations are counted while the outputs are compared, many steps at a time, with the memory of one batch. Of a large
layer `ENOUGH` values are compared, spread evenly over inputs, channels and places: the error of a correlation
r is about (1 - r²) / sqrt(ENOUGH), below 0.0002 at 0.99.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import torch
from torch import Tensor, nn

from spikecore.analysis import ENERGY_MODELS, ConversionFidelity, OperationCounter
from spikecore.nn import NetGraph, NetNode, streaming, trace_net
from spikecore_ann2snn.neurons import SpikingReLU

CONSTANT = 1e-6
"""What varies less, relative to its mean, is constant: the values are float32 at best."""
ENOUGH = 1 << 14
"""Values of one layer that are compared."""


def measure(
    graph: NetGraph,
    net: nn.Module,
    neurons: Sequence[str],
    x: Tensor,
    num_steps: int,
    is_whole: bool,
    at_once: int | None = None,
) -> tuple[ConversionFidelity, dict[str, float]]:
    """Compare both nets on `x`, shown at every step.

    Args:
        graph: of the given net.
        net: the new one, in evaluation and multi-step mode, without state.
        neurons: names of the nodes whose activations are compared.
        x: `[B, ...]`.
        num_steps: T.
        is_whole: the net takes whole sequences only; then it is compared after T steps alone.
        at_once: inputs, over samples and steps, that the memory has room for; None for those of all steps.

    Returns:
        Correlations, rates and agreement; operations and energy per sample, by the names that a report has.
    """
    neurons = [name for name in neurons if graph[name].shape is not None]  # of tuples there is no correlation
    with torch.no_grad(), OperationCounter(graph.net) as counter:
        right, scores = _values(graph, neurons, x)
    given = counter.operations(len(x))
    ours = trace_net(net)
    behind = _behind_neurons(ours, neurons)
    counter = OperationCounter(net, lambda layer, by_value: by_value or layer in behind)
    inside = {name: f"{ours[name].target}.neuron" for name in neurons if isinstance(ours[name].module, SpikingReLU)}
    following = _Following(right, scores, len(x), counted=set(inside))
    chunk = num_steps if is_whole or at_once is None else min(num_steps, max(1, at_once // len(x)))
    with torch.no_grad(), contextlib.nullcontext() if is_whole else streaming(net):
        for start in range(0, num_steps, chunk):
            size = min(chunk, num_steps - start)
            with counter:  # not around the products of the comparison
                values, sequence = _values(ours, neurons, x.expand(size, *x.shape))
            following.add(values, sequence, size)
    done = counter.operations(len(x), num_steps)
    for name, neuron in inside.items():
        # Each of its spikes is one of the layer's outputs.
        following.active[name] = round((done[neuron].spikes or 0) * len(x))
    model = ENERGY_MODELS["horowitz-fp32"]
    macs = given.total("dense")
    return following.fidelity(last_alone=is_whole), {
        "MACs of the given net": macs,
        f"SynOps of the new net, T = {num_steps}": done.total("acs"),
        f"MACs of the new net, T = {num_steps}": done.total("macs"),
        "energy of the given net (J)": model.mac_pj * macs * 1e-12,
        f"energy of the new net (J), T = {num_steps}": done.energy_pj(model) * 1e-12,
    }


class _Following:
    """Takes the new net's outputs, a few steps at a time, and compares their sums with the given net's activations.

    Args:
        right: node name → activation `[B, ...]` of the given net.
        scores: its output.
        num_samples: B.
        counted: neurons whose spikes somebody else counts, into `active`.
    """

    def __init__(self, right: dict[str, Tensor], scores: Any, num_samples: int, counted: AbstractSet[str]) -> None:
        self.scores, self.num_samples, self.counted = scores, num_samples, counted
        self.centred: dict[str, Tensor] = {}
        self.strides = {name: _stride(value.numel()) for name, value in right.items()}
        self.correlation: dict[str, list[float]] = {}
        for name, value in right.items():
            flat = value.detach().flatten()[:: self.strides[name]]
            mean = flat.mean()
            centred = flat - mean
            is_constant = float(centred.norm()) <= CONSTANT * float(mean.abs()) * flat.numel() ** 0.5
            self.centred[name] = torch.zeros_like(centred) if is_constant else centred / centred.norm()
            self.correlation[name] = []
        self.sums: dict[str, Tensor] = {}
        self.active = dict.fromkeys(right, 0)
        self.outputs = dict.fromkeys(right, 0)
        self.total: Tensor | None = None
        self.agreement: list[float] = []
        self.decides = isinstance(scores, Tensor) and scores.dim() == 2

    def add(self, values: dict[str, Tensor], sequence: Any, num_steps: int) -> None:
        """The values of some steps, `[T, B, ...]` or with both axes as one, and the output."""
        for name, value in values.items():
            # Of the sum and of the mean the correlation is the same.
            sums = value.reshape(num_steps, -1)[:, :: self.strides[name]].cumsum(0)
            if name in self.sums:
                sums += self.sums[name]
            self.sums[name] = sums[-1].clone()
            mean = sums.mean(1)
            norm = torch.linalg.vector_norm(sums - mean.unsqueeze(1), dim=1)
            shared = (sums @ self.centred[name]) / norm
            varies = norm > CONSTANT * mean.abs() * sums.shape[1] ** 0.5
            self.correlation[name] += torch.where(varies, shared, 0.0).clamp(-1, 1).tolist()
            if name not in self.counted:
                self.active[name] += int(torch.count_nonzero(value))
            self.outputs[name] += value.numel()
        self.decides = self.decides and isinstance(sequence, Tensor) and sequence.shape[1:] == self.scores.shape
        if self.decides:
            # Summed scores decide as their mean does.
            totals = sequence.cumsum(0) if self.total is None else sequence.cumsum(0) + self.total
            self.total = totals[-1].clone()
            is_same = totals.argmax(-1) == self.scores.argmax(-1)
            self.agreement += is_same.double().mean(1).tolist()

    def fidelity(self, last_alone: bool) -> ConversionFidelity:
        """What was compared, after every step or after the last one alone."""
        kept = slice(-1, None) if last_alone else slice(None)
        return ConversionFidelity(
            correlation={name: tuple(values[kept]) for name, values in self.correlation.items()},
            rates={name: self.active[name] / max(self.outputs[name], 1) for name in self.active},
            agreement=tuple(self.agreement[kept]) if self.decides else (),
            accuracy=(),
            given_accuracy=None,
            num_samples=self.num_samples,
        )


def _stride(num_values: int) -> int:
    """Every how many-th value is compared, such that they lie at all places of all channels."""
    stride = max(1, num_values // ENOUGH)
    while math.gcd(stride, num_values) > 1:
        stride += 1
    return stride


def _values(graph: NetGraph, names: Sequence[str], x: Tensor) -> tuple[dict[str, Tensor], Any]:
    values: dict[str, Tensor] = {}

    def call(node: NetNode, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        value = graph.call(node, args, kwargs)
        if node.name in names and isinstance(value, Tensor):
            values[node.name] = value
        return value

    return values, graph.run(x, call=call)


def _behind_neurons(graph: NetGraph, neurons: Sequence[str]) -> set[str]:
    """Modules that take what neurons put out: spikes, whatever their height, which belongs to the weights."""
    after: set[str] = set()
    names: set[str] = set()
    for node in graph:
        is_behind = any(name in after for name in node.inputs)
        if node.name in neurons or is_behind:
            after.add(node.name)
        if is_behind and node.kind == "module":
            names.add(str(node.target))
    return names
