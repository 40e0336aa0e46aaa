"""Recipes: what becomes of each call of a trained net.

    max, percentile            rectifiers become neurons; thresholds from the activations, per layer or channel
    threshold_balancing        the same, with thresholds that balance clipping against rounding
    qcfs                       a net trained with `QCFS` becomes one of neurons with the trained thresholds
    few_spike                  the same, exactly: mean outputs are those of the quantized net, for T >= L
    temporal_difference        everything that is not linear by temporal differences: transformers, exactly

A recipe gives each role a `Plan`. All share the treatment of what is linear, of batch norms, dropout and max pooling.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from spikecore.interfaces import Outcome
from spikecore.nn import NetNode
from spikecore_ann2snn.calibration import Balancing, Largest, Magnitudes, Observer, Percentile, sane
from spikecore_ann2snn.neurons import FewSpikeReLU, SpikingLeakyReLU, SpikingReLU
from spikecore_ann2snn.operations import bounds, slope_of
from spikecore_ann2snn.preparation import ChannelAffine, Prepared, scale_and_shift, uses_functional_norm
from spikecore_ann2snn.qcfs import QCFS
from spikecore_ann2snn.temporal import Call, TemporalDifference

RECIPES = ("max", "percentile", "threshold_balancing", "qcfs", "few_spike", "temporal_difference")
WITHOUT_DATA = ("qcfs", "few_spike", "temporal_difference")
"""Recipes that need no calibration."""


_OVER_TIME = (SpikingReLU, SpikingLeakyReLU, FewSpikeReLU, TemporalDifference)
"""Replacements that see time."""
_LEAKY = (
    "a leaky ReLU has negative outputs, spikes have none: leaky_relu='signed' takes a second neuron for them, "
    "leaky_relu='relu' drops its slope"
)


@dataclass(frozen=True)
class Plan:
    """What becomes of one call.

    Args:
        outcome: `became`, `kept` or `refused`.
        reason: in words.
        module: in its place; None where it stays.
        threshold: of the neuron.
        is_neuron: whether its mean output is compared with the given net's activation.
    """

    outcome: Outcome
    reason: str
    module: nn.Module | None = None
    threshold: Tensor | None = None
    is_neuron: bool = False


@dataclass(frozen=True, eq=False)
class Recipe:
    """One conversion.

    Args:
        config: of the converter.
        given: the prepared net.
        folded: norm → the layer that it was folded into.
        observers: filled by `observe`, read by `plan`.
    """

    config: Any
    given: Prepared
    folded: Mapping[str, str]
    observers: dict[str, Observer] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.config.recipe)

    def observe(self) -> Mapping[str, Observer]:
        """Observers for the layers whose thresholds come from data."""
        makers: dict[str, Callable[[], Observer]] = {
            "max": lambda: Largest(self.config.per, self.config.scale),
            "percentile": lambda: Percentile(self.config.per, self.config.percentile),
            "threshold_balancing": lambda: Balancing(self.config.per, self.config.updates),
        }
        if self.name not in makers:
            return {}
        for node in self.given.graph.layers:
            role = self.given.role(node)
            if role in ("relu", "leaky_relu"):
                self.observers[node.name] = makers[self.name]()
            if role == "leaky_relu":
                # Without its slope a leaky ReLU is compared by its positive side alone.
                slope = (slope_of(node) or 0.0) if self.config.leaky_relu == "signed" else 0.0
                self.observers[node.name] = Magnitudes(self.observers[node.name], slope)
        return self.observers

    def plan(self, node: NetNode) -> Plan:
        """What becomes of a call; an outcome `refused` that no option allows is an error."""
        if node.name in self.folded:
            return Plan("became", f"folded into {self.folded[node.name]}", nn.Identity())
        attention = node.module
        if isinstance(attention, nn.MultiheadAttention) and not attention.batch_first:
            return Plan("refused", "the batch is not its first axis: make the attention with batch_first=True")
        problem = self.given.problem(node)
        if problem:
            return Plan("refused", problem)
        role = self.given.role(node)
        if role is None:
            return Plan("refused", f"{node.operation} is no operation that a conversion knows, with these arguments")
        treat: dict[str, Callable[[NetNode], Plan]] = {
            "relu": self._relu,
            "leaky_relu": self._leaky_relu,
            "quantized": self._quantized,
            "norm": self._norm,
            "max_pool": self._max_pool,
            "dropout": self._dropout,
            "smooth": self._smooth,
        }
        if role in treat:
            plan = treat[role](node)
            if isinstance(plan.module, _OVER_TIME) and not (self.given.has_batch_first(node)):
                return Plan("refused", "the batch is not the first axis of its input, so it cannot be told from time")
            return plan
        kept = {
            "synapse": "linear in its input",
            "linear": "linear in its input",
            "shape": "moves values, does not change them",
            "size": "does not depend on the values of the input",
        }
        if role in kept:
            return Plan("kept", kept[role])
        return Plan(
            "refused",
            f"{node.operation} has state: it is a spiking layer already; give the net with ReLUs (`spike run` with "
            "neuron.name=relu and encoder.num_steps=1 trains one)",
        )

    def _relu(self, node: NetNode) -> Plan:
        if self.name == "temporal_difference":
            return self._difference(node)
        if self.name in ("qcfs", "few_spike"):
            return Plan(
                "refused",
                f"recipe {self.name} takes nets that were trained with QCFS (neuron qcfs, or with_quantized_relus); "
                "this is a plain rectifier: choose max, percentile or threshold_balancing",
            )
        limits = bounds(node)
        ceiling = limits[1] if limits is not None else float("inf")
        threshold, remark = sane(self.observers[node.name].threshold().clamp(max=ceiling), node)
        module = SpikingReLU(threshold, self.config.v_init)
        reason = f"IF with soft reset, spikes of height θ{f' <= {ceiling:g}' if ceiling < float('inf') else ''}"
        return Plan("became", f"{reason}; {remark}" if remark else reason, module, threshold, is_neuron=True)

    def _leaky_relu(self, node: NetNode) -> Plan:
        if self.name == "temporal_difference":
            return self._difference(node)
        if self.config.leaky_relu == "signed" and self.name not in WITHOUT_DATA:
            return self._signed(node)
        if self.config.leaky_relu == "relu":
            plan = self._relu(node)
            return Plan(
                plan.outcome,
                f"{plan.reason}; approximated: the negative slope is left out",
                plan.module,
                plan.threshold,
                plan.is_neuron,
            )
        return Plan("refused", _LEAKY)

    def _signed(self, node: NetNode) -> Plan:
        slope = slope_of(node)
        if slope is None or slope < 0:
            return Plan("refused", f"its negative slope is {slope}, expected a number of 0 or more")
        threshold, remark = sane(self.observers[node.name].threshold(), node)
        module = SpikingLeakyReLU(threshold, slope, self.config.v_init)
        reason = f"two IF with soft reset, spikes of height θ and {-slope:g} θ"
        return Plan("became", f"{reason}; {remark}" if remark else reason, module, threshold, is_neuron=True)

    def _quantized(self, node: NetNode) -> Plan:
        neuron = node.module
        assert isinstance(neuron, QCFS)
        threshold, levels = neuron.threshold(), neuron.config.levels
        if self.name == "temporal_difference":
            return self._difference(node)
        if bool((threshold <= 0).any()):
            lowest = float(threshold.min())
            return Plan("refused", f"its trained threshold is {lowest:g}, and a neuron's must be above 0")
        if self.name == "few_spike":
            few = FewSpikeReLU(threshold, levels, neuron.config.shift)
            return Plan("became", f"few-spike neuron of {levels} levels, T >= {levels}", few, threshold, True)
        if self.name != "qcfs":
            return Plan(
                "refused",
                f"the activation is quantized: recipe {self.name} would ignore its levels; choose qcfs or few_spike",
            )
        module = SpikingReLU(threshold, neuron.config.shift)
        return Plan("became", f"IF with soft reset and the trained threshold; {levels} levels", module, threshold, True)

    def _norm(self, node: NetNode) -> Plan:
        if uses_functional_norm(node):
            return Plan("refused", "a functional batch norm: use the layer torch.nn.BatchNorm")
        scale, shift = scale_and_shift(node.module)
        dtype = next((value.dtype for value in node.module.buffers() if value.is_floating_point()), torch.float32)  # type: ignore[union-attr]
        return Plan("became", "scale and shift per channel", ChannelAffine(scale.to(dtype), shift.to(dtype)))

    def _max_pool(self, node: NetNode) -> Plan:
        if self.config.max_pool == "average":
            average = _average_of(node)
            if average is None:
                return Plan("refused", "has no average pooling of the same form; max_pool='rate' takes it")
            return Plan("became", "average pooling of the same windows, by option", average)
        return Plan(
            "became", "max pooling of the sums over time: exact in the mean", self._module(node, is_homogeneous=True)
        )

    def _dropout(self, node: NetNode) -> Plan:
        return Plan("became", "removed: it does nothing in evaluation mode", nn.Identity())

    def _smooth(self, node: NetNode) -> Plan:
        if self.name != "temporal_difference":
            return Plan("refused", f"{node.operation} is not linear in its input; recipe temporal_difference takes it")
        return self._difference(node)

    def _difference(self, node: NetNode) -> Plan:
        module = self._module(node)
        return Plan("became", "temporal difference: exact in the mean", module, is_neuron=True)

    def _module(self, node: NetNode, is_homogeneous: bool = False) -> TemporalDifference:
        has_time = [name in self.given.timed for name in node.inputs]
        return TemporalDifference(Call(node, self.given.graph), has_time, is_homogeneous)


def _average_of(node: NetNode) -> nn.Module | None:
    """Average pooling over the windows of a max pooling; None where there is none."""
    module = node.module
    kinds = {nn.MaxPool1d: nn.AvgPool1d, nn.MaxPool2d: nn.AvgPool2d, nn.MaxPool3d: nn.AvgPool3d}
    for maximum, average in kinds.items():
        if isinstance(module, maximum) and module.dilation in (1, (1,), (1, 1), (1, 1, 1)):
            return average(module.kernel_size, module.stride, module.padding, module.ceil_mode)
    adaptive = {
        nn.AdaptiveMaxPool1d: nn.AdaptiveAvgPool1d,
        nn.AdaptiveMaxPool2d: nn.AdaptiveAvgPool2d,
        nn.AdaptiveMaxPool3d: nn.AdaptiveAvgPool3d,
    }
    for maximum, average in adaptive.items():
        if isinstance(module, maximum):
            return average(module.output_size)
    by_rank = {"max_pool1d": nn.AvgPool1d, "max_pool2d": nn.AvgPool2d, "max_pool3d": nn.AvgPool3d}
    name = getattr(node.target, "__name__", "")
    dilation = node.kwargs.get("dilation", 1)
    is_plain = set(dilation if isinstance(dilation, tuple | list) else (dilation,)) == {1}
    if name in by_rank and is_plain and not node.kwargs.get("return_indices", False):
        sizes = [node.kwargs.get(key) for key in ("kernel_size", "stride", "padding")]
        given = list(node.args[1:4])
        sizes = [given[place] if place < len(given) else value for place, value in enumerate(sizes)]
        if len(node.args) <= 4 and not any(hasattr(value, "name") for value in sizes):
            return by_rank[name](sizes[0], sizes[1], sizes[2] or 0, bool(node.kwargs.get("ceil_mode", False)))
    return None
