"""How near a converted net is to the given one, step by step: what a converter puts into its report.

    a      activation of a layer of the given net, for an input x
    m(t)   mean output of the same layer of the new net over the steps 1 .. t, with x at every step

    correlation(t)   Pearson's, of a and m(t), over all samples and neurons
    agreement(t)     share of the samples whose largest mean score after t steps is that of the given net
    accuracy(t)      share of the samples whose largest mean score after t steps is the label
    rate             share of the layer's outputs that are not 0, over all steps

Batches are read once and let go: memory is that of one batch, however many there are and however long T is.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from spikecore.errors import OptionError, ShapeError
from spikecore.interfaces.converter import ConversionReport, Points
from spikecore.nn.graph import NetGraph
from spikecore.nn.node import NetNode
from spikecore.nn.state import reset_state, set_step_mode
from spikecore.nn.tracing import trace_net

Batches = Iterable[Tensor | tuple[Tensor, Tensor]]
CONSTANT = 1e-9
"""What varies less, relative to its mean, is constant: the values are float32 at best."""


@dataclass(frozen=True)
class ConversionFidelity:
    """What `compare_conversion` measured.

    Args:
        correlation: layer → its correlation after 1, 2, ... steps; 0 where either side is constant.
        rates: layer → its rate.
        agreement: after 1, 2, ... steps; empty where the output is not one row of scores per sample.
        accuracy: after 1, 2, ... steps; empty without labels.
        given_accuracy: of the given net; None without labels.
        num_samples: that were compared.
    """

    correlation: dict[str, tuple[float, ...]]
    rates: dict[str, float]
    agreement: tuple[float, ...]
    accuracy: tuple[float, ...]
    given_accuracy: float | None
    num_samples: int

    def added_to(self, report: ConversionReport) -> ConversionReport:
        """The report with the correlation and rate of each layer, and the curves `agreement over T`, `accuracy over T`
        and `accuracy of the given net` as far as they were measured."""
        layers = []
        for layer in report.layers:
            if layer.name in self.correlation:
                layer = replace(layer, correlation=self.correlation[layer.name], rate=self.rates[layer.name])
            layers.append(layer)
        curves = dict(report.curves)
        if self.agreement:
            curves["agreement over T"] = _points(self.agreement)
        if self.accuracy and self.given_accuracy is not None:
            curves["accuracy over T"] = _points(self.accuracy)
            curves["accuracy of the given net"] = _points([self.given_accuracy] * len(self.accuracy))
        return replace(report, layers=tuple(layers), curves=curves)


def compare_conversion(
    given: nn.Module, made: nn.Module, batches: Batches, num_steps: int, layers: Sequence[str]
) -> ConversionFidelity:
    """Run both nets over the batches, in evaluation mode, and compare them after every step.

    Copies run: the nets, their modes and their state do not change. No random numbers are drawn.

    Args:
        given: takes `[B, ...]`; has no state.
        made: what a converter made of it; its graph has the same names (as that of a `GraphNet` has).
        batches: inputs `[B, ...]`, or pairs of inputs and class labels `[B]`; read once.
        num_steps: T.
        layers: names of nodes in both graphs, such as `report.names("became")`.

    Returns:
        What was measured.

    Raises:
        OptionError: a layer is not in one of the graphs, `num_steps` is less than 1, or there are no batches.
        ShapeError: a layer's outputs have another shape than in the given net, or labels are not `[B]`.
        NetTraceError: a net cannot be traced.

    Example:
        >>> from spikecore.nn import IF, GraphNet
        >>> ann = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU())
        >>> _ = ann[0].weight.data.fill_(1.0)
        >>> snn = GraphNet(trace_net(ann), {"1": IF(reset="soft")})
        >>> x = torch.tensor([[0.0], [0.25], [0.5], [1.0]])
        >>> fidelity = compare_conversion(ann, snn, [x], num_steps=4, layers=["1"])
        >>> [round(value, 3) for value in fidelity.correlation["1"]]
        [0.878, 0.968, 0.966, 1.0]
    """
    if num_steps < 1:
        raise OptionError(f"num_steps must be at least 1, got {num_steps}")
    right, ours = _graph(given), _graph(made)
    for graph, whose in ((right, "given"), (ours, "new")):
        if missing := [name for name in layers if name not in graph]:
            there = ", ".join(node.name for node in graph.layers)
            raise OptionError(f"the graph of the {whose} net has no {', '.join(map(repr, missing))}; it has {there}")
    moments: dict[str, list[_Moments]] = {}
    for name in layers:
        moments[name] = [_Moments() for _ in range(num_steps)]
    rates = dict.fromkeys(layers, 0.0)
    scores = _Scores(num_steps)
    num_batches = 0
    with torch.no_grad():
        for batch in batches:
            x, labels = batch if isinstance(batch, tuple | list) else (batch, None)
            reset_state(ours.net)
            activations, out = _values(right, x, layers)
            sums: dict[str, Tensor] = {}
            total: Any = 0.0
            for t in range(num_steps):
                values, step = _values(ours, x, layers)
                for name, value in values.items():
                    if value.shape != activations[name].shape:
                        raise ShapeError(
                            f"layer {name!r}: expected {tuple(activations[name].shape)} as in the given net, got "
                            f"{tuple(value.shape)}"
                        )
                    sums[name] = sums[name] + value if name in sums else value.clone()
                    # Of the sum and of the mean the correlation is the same.
                    moments[name][t].add(activations[name], sums[name])
                    rates[name] += float((value != 0).double().mean()) * len(x) / num_steps
                total = total + step
                scores.add(t, out, total, labels)
            scores.num_samples += len(x)
            scores.num_labels += 0 if labels is None else len(x)
            num_batches += 1
    if not num_batches:
        raise OptionError("there are no batches: nothing was compared")
    given_accuracy = scores.share([scores.given_right], scores.num_labels)
    return ConversionFidelity(
        correlation={name: tuple(at.correlation for at in steps) for name, steps in moments.items()},
        rates={name: rate / scores.num_samples for name, rate in rates.items()},
        agreement=scores.share(scores.agreeing, scores.num_samples),
        accuracy=scores.share(scores.right, scores.num_labels),
        given_accuracy=given_accuracy[0] if given_accuracy else None,
        num_samples=scores.num_samples,
    )


def _graph(net: nn.Module) -> NetGraph:
    """Of a copy in evaluation mode, which takes single steps."""
    twin = copy.deepcopy(net).eval()
    set_step_mode(twin, "single")
    reset_state(twin)
    return trace_net(twin)


def _values(graph: NetGraph, x: Tensor, layers: Sequence[str]) -> tuple[dict[str, Tensor], Any]:
    """What some layers put out, and the output of the net."""
    kept: dict[str, Tensor] = {}

    def call(node: NetNode, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        value = graph.call(node, args, kwargs)
        if node.name in layers:
            kept[node.name] = value.clone()  # a layer after it may write to it in place
        return value

    out = graph.run(x, call=call)
    return kept, out


class _Moments:
    """Means and central moments of pairs, batch by batch: sums of squares would cancel where the mean is large.

    Source: Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm for computing sample variances (1979).
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean_a = self.mean_m = 0.0
        self.aa = self.mm = self.am = 0.0

    def add(self, a: Tensor, m: Tensor) -> None:
        """More pairs."""
        a, m = a.double().flatten(), m.double().flatten()
        mean_a, mean_m = float(a.mean()), float(m.mean())
        a, m = a - mean_a, m - mean_m
        new, old = a.numel(), self.count
        shift_a, shift_m = mean_a - self.mean_a, mean_m - self.mean_m
        weight = old * new / (old + new)
        self.aa += float(a @ a) + weight * shift_a * shift_a
        self.mm += float(m @ m) + weight * shift_m * shift_m
        self.am += float(a @ m) + weight * shift_a * shift_m
        self.count = old + new
        self.mean_a += shift_a * new / self.count
        self.mean_m += shift_m * new / self.count

    @property
    def correlation(self) -> float:
        """Pearson's; 0 where either side is constant, but for rounding."""
        for squares, mean in ((self.aa, self.mean_a), (self.mm, self.mean_m)):
            if squares <= self.count * (CONSTANT * mean) ** 2:
                return 0.0
        return max(-1.0, min(1.0, self.am / math.sqrt(self.aa * self.mm)))


class _Scores:
    """Counts decisions after every step."""

    def __init__(self, num_steps: int) -> None:
        self.agreeing, self.right = [0] * num_steps, [0] * num_steps
        self.given_right = self.num_samples = self.num_labels = 0
        self.are_decisions = True

    def add(self, t: int, given: Any, total: Any, labels: Tensor | None) -> None:
        """The scores of both nets after step t; the new one's are summed, which decides as their mean."""
        is_row = isinstance(given, Tensor) and given.dim() == 2 and isinstance(total, Tensor)
        if not is_row or total.shape != given.shape:
            self.are_decisions = False
            return
        decided, ours = given.argmax(-1), total.argmax(-1)
        self.agreeing[t] += int((decided == ours).sum())
        if labels is not None:
            if labels.shape != ours.shape:  # `[B, 1]` would be compared with every decision
                raise ShapeError(f"expected one label for each of {len(ours)} samples, got {tuple(labels.shape)}")
            labels = labels.to(ours.device)
            self.right[t] += int((ours == labels).sum())
            self.given_right += int((decided == labels).sum()) if t == 0 else 0

    def share(self, counts: Sequence[int], number: int) -> tuple[float, ...]:
        """Of all samples, or none."""
        return tuple(count / number for count in counts) if self.are_decisions and number else ()


def _points(values: Sequence[float]) -> Points:
    return tuple((float(t), value) for t, value in enumerate(values, start=1))
