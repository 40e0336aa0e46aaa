"""A net → a network of populations, with a record of what became of every operator."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from spikecore import nn
from spikecore.interfaces import OperatorRecord
from spikecore.nn import NetGraph, NetNode, NetWalker, RefusedError, graph_for_deployment
from spikecore_deploy_lava.integers import exact_weights, factor_of, held, rounded_weights
from spikecore_deploy_lava.network import (
    ALIGN,
    INPUT,
    MAX_BIAS,
    MAX_VTH,
    STATE_LIMIT,
    Doubles,
    Layer,
    Model,
    Network,
    Population,
    Shape,
)
from spikecore_deploy_lava.neurons import READERS, Dynamics, decay, dynamics_of
from spikecore_deploy_lava.start import start_after, start_before
from spikecore_deploy_lava.synapses import (
    ADAPTIVE,
    CONVOLUTIONS,
    LINEAR,
    NORMS,
    POOL_CURE,
    POOLS,
    Pending,
    Pooling,
    bias_of,
    checked,
    convolution,
    linear,
    normed,
    pooling_of,
)

MAX_SUM = STATE_LIMIT // ALIGN
"""Of a sum of weights: what is beyond wraps round."""


@dataclass(frozen=True)
class Plan:
    """What is written, and why."""

    records: tuple[OperatorRecord, ...]
    network: Network
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Signal:
    """A value of the net.

    Args:
        source: index of the layer whose spikes it is made of, or `INPUT`.
        shape: of it, without T and B.
        pooling: between source and value.
        pending: weights between source and value.
    """

    source: int
    shape: Shape
    pooling: Pooling | None = None
    pending: Pending | None = None


def planned(model: torch.nn.Module, example_input: Tensor, precision: Model) -> Plan:
    """Go through the net.

    Args:
        model: left as it is.
        example_input: `[T, B, ...]`.
        precision: of the process models.

    Raises:
        NetTraceError: the net cannot be traced.
    """
    graph = graph_for_deployment(model, example_input)
    lead = (int(example_input.shape[0]), int(example_input.shape[1]))
    planner = _Planner(graph, lead, precision, example_input)
    shape = tuple(example_input.shape[2:])
    output = planner.walk(Signal(INPUT, shape))
    if output is not None:
        planner.end(output)
    network = Network(precision, shape, tuple(planner.layers))
    return Plan(tuple(planner.records), network, tuple(dict.fromkeys(planner.notes)))


class _Planner(NetWalker[Signal]):
    def __init__(self, net: NetGraph, lead: tuple[int, int], precision: Model, example: Tensor) -> None:
        super().__init__(net, lead)
        self.precision: Model = precision
        self.layers: list[Layer] = []
        self.notes: list[str] = []
        self.input_shape = tuple(example.shape[2:])
        self.largest_input = max(1.0, float(example.abs().max()))
        whole = example == example.round()
        self.odd_input = None if bool(whole.all()) else float(example[~whole][0])

    def shape(self, value: Signal) -> Shape:
        return value.shape

    def unknown(self, name: str, shape: Shape, value: Signal | None) -> Signal:
        return Signal(INPUT if value is None else value.source, shape)

    def flat(self, name: str, operator: str, value: Signal) -> Signal:
        if value.pending is not None:
            raise RefusedError(
                "it lies between a weight and its neuron, whose population has the shape of the weight's output",
                "flatten behind the neuron",
            )
        self.folded(name, operator, "Dense", "the next matrix takes the source in this order")
        return replace(value, shape=(math.prod(value.shape),))

    def layer(self, name: str, module: torch.nn.Module, value: Signal, node: NetNode | None) -> Signal | None:
        kind = type(module)
        if kind in (*LINEAR, *CONVOLUTIONS):
            return self.weight(name, module, value)
        if kind in (*POOLS, *ADAPTIVE):
            return self.pool(name, module, value)
        if kind in NORMS:
            return self.norm(name, module, value, node)
        if isinstance(module, nn.Neuron):
            return self.neuron(name, module, value)
        if isinstance(module, nn.Recurrent):
            return self.loop(name, module, value)
        if kind in (torch.nn.Conv1d, nn.Conv1d):
            raise RefusedError("Lava's Conv has two spatial axes", "use Conv2d with a kernel (1, k) on [C, 1, L]")
        raise RefusedError(
            f"Lava has no {kind.__name__} that computes the same",
            "use Linear, Conv2d, AvgPool2d, SumPool2d, Flatten, batch norm after a weight, and neurons",
        )

    def weight(self, name: str, module: torch.nn.Module, value: Signal) -> Signal:
        if value.pending is not None:
            raise RefusedError("there is no neuron between it and the weight before it", "put one between them")
        if value.source == INPUT and self.odd_input is not None:
            raise RefusedError(
                f"its input holds {self.odd_input:g}; Lava sends spikes, which are whole numbers",
                "encode the input as spikes: encoder poisson or latency",
            )
        if type(module) in LINEAR:
            source = self.input_shape if value.source == INPUT else self.layers[value.source].shape
            pending = linear(name, module, value.shape, source, value.pooling)
        else:
            pending = convolution(name, module, value.shape, value.pooling)
        if self.precision == "fixed_pt":
            weights = rounded_weights(pending.weights)
            self.mapped(name, type(module).__name__, self.target(pending), weights.inexact)
        else:
            self.mapped(name, type(module).__name__, self.target(pending))
        return Signal(value.source, pending.shape, None, pending)

    def target(self, pending: Pending) -> str:
        return "Conv" if pending.synapses.is_kernel else "Dense"

    def pool(self, name: str, module: torch.nn.Module, value: Signal) -> Signal:
        if value.pending is not None or value.pooling is not None:
            raise RefusedError("it does not follow spikes", POOL_CURE)
        pooling = pooling_of(module, value.shape)
        self.folded(name, type(module).__name__, "weights", "the weights behind it take every place of its windows")
        return Signal(value.source, pooling.pooled, pooling)

    def norm(self, name: str, module: torch.nn.Module, value: Signal, node: NetNode | None) -> Signal:
        cure = "put it right after a Linear or convolution that nothing else uses"
        if value.pending is None:
            raise RefusedError("there is no weight before it that it could be folded into", cure)
        if node is not None and len(self.net.users(node.inputs[0])) > 1:
            raise RefusedError("what it takes is used elsewhere, without norm", cure)
        pending = normed(value.pending, module)
        self.folded(name, type(module).__name__, self.target(pending), "its scale and shift are in weights and bias")
        if self.precision == "fixed_pt":
            self.correct(pending)
        return replace(value, pending=pending)

    def correct(self, pending: Pending) -> None:
        """The record of weights whose integers are those behind a norm now."""
        weights = rounded_weights(pending.weights)
        for index, record in enumerate(self.records):
            if record.name == pending.name:
                outcome = "approximated" if weights.inexact else "mapped"
                self.records[index] = OperatorRecord(
                    record.name, record.operator, outcome, record.target, weights.inexact
                )

    # populations

    def loop(self, name: str, container: nn.Recurrent, value: Signal) -> Signal:
        """A neuron that takes its own spikes of the step before: a population linked to itself, a step later."""
        neuron, kind = container.module, type(container)
        if type(neuron) not in READERS or not isinstance(neuron, nn.Neuron):
            raise RefusedError(f"it has a {type(neuron).__name__} in its loop", "put a single neuron of Lava into it")
        if value.pending is None or len(value.shape) != 1:
            raise RefusedError(
                f"it takes steps of the shape {value.shape}, on Lava a loop follows a matrix", "put a Linear before it"
            )
        back, bias = np.eye(value.shape[0]), np.zeros(value.shape[0])
        if kind is nn.LateralRecurrent and isinstance(container, nn.LateralRecurrent):
            if type(container.lateral) not in LINEAR:
                raise RefusedError(f"its lateral is a {type(container.lateral).__name__}", "use a Linear there")
            back, bias = checked(container.lateral).value, bias_of(container.lateral, len(bias))
        elif not (isinstance(container, nn.ElementwiseRecurrent) and container.combine is torch.add):
            raise RefusedError(f"Lava has no {kind.__name__} that computes the same", "use LateralRecurrent")
        pending = value.pending
        # Both matrices get one scale, since a population has one threshold for the sum of them.
        both = exact_weights(np.concatenate([pending.weights.value, back], 1))
        joined = replace(pending, weights=both, bias=pending.bias + bias)
        if self.precision == "fixed_pt":
            self.correct(joined)
        result = self.neuron(f"{name}.module", neuron, replace(value, pending=joined), back.shape[0])
        operator = "Linear" if kind is nn.LateralRecurrent else "add"
        inexact = rounded_weights(both).inexact if self.precision == "fixed_pt" else ""
        self.mapped(f"{name}.{'lateral' if operator == 'Linear' else 'feedback'}", operator, "Dense", inexact)
        return result

    def neuron(self, name: str, neuron: nn.Neuron, value: Signal, num_back: int = 0) -> Signal:
        """A population; the last `num_back` columns of its weights take its own spikes."""
        dynamics = dynamics_of(neuron)
        if value.pending is None:
            raise RefusedError(
                "there is no weight before it; populations are linked by weights", "put a weight before it"
            )
        pending = value.pending
        bias = pending.bias * float(dynamics.gain) + np.asarray(dynamics.bias)
        lag = self.lag(value.source) + 1
        if self.precision == "fixed_pt":
            layer, inexact = self.fixed(name, dynamics, value, pending, lag)
        else:
            layer, inexact = self.floating(name, dynamics, value, pending, bias, lag)
        if dynamics.u_loss != 1 and np.any(pending.bias):
            raise RefusedError(
                "the bias of its weights passes its current, on Loihi a bias acts on the potential",
                "use bias=False there, or the option bias of loihi_lif",
            )
        population = layer.population
        assert population is not None
        unit = self.units(dynamics, pending)[1] * ALIGN if self.precision == "fixed_pt" else Fraction(1)
        wanted = np.array([float(start * unit) for start in dynamics.start])
        if self.precision == "fixed_pt":
            wanted = np.rint(wanted)
        start = start_before(wanted, layer.bias, population.dv, population.vth, lag, self.precision)
        reached, fires = start_after(start, layer.bias, population.dv, population.vth, lag, self.precision)
        if fires:
            raise RefusedError(
                f"its bias alone makes it fire in the {lag} steps before spikes arrive",
                "train with a smaller bias, or without",
            )
        if not np.allclose(reached, wanted, rtol=1e-12, atol=1e-12):
            level = max(population.vth, 1) * ALIGN if self.precision == "fixed_pt" else population.vth
            off = float(np.abs(reached - wanted).max() / level)
            inexact.append(
                f"its bias acts {lag} steps before spikes arrive; the potential starts up to {off:.2g} thresholds away"
            )
        layer = replace(layer, population=replace(population, v=start))
        if num_back:
            forward, back = np.split(layer.synapses.weight, [-num_back], axis=1)
            layer = replace(layer, synapses=replace(layer.synapses, weight=forward), recurrent=back)
        self.layers.append(layer)
        self.mapped(name, type(neuron).__name__, "LIF", "; ".join(inexact))
        return Signal(len(self.layers) - 1, value.shape)

    def lag(self, source: int) -> int:
        return 0 if source == INPUT else self.lag(self.layers[source].source) + 1

    def units(self, dynamics: Dynamics, pending: Pending) -> tuple[Doubles, Fraction, list[str]]:
        """(whole-number weights, units of a sum in 1 of the potential, what is inexact)."""
        if dynamics.scale is not None:
            wanted = pending.weights.value * dynamics.scale
            weights, saturated = held(wanted)
            moved = int((weights != wanted).sum())
            inexact = []
            if moved:
                inexact.append(
                    f"{moved} of {wanted.size} weights before it are no numbers that a synapse has with its scale "
                    f"{dynamics.scale}; {saturated} of them saturate"
                )
            return weights, Fraction(dynamics.scale), inexact
        weights8 = rounded_weights(pending.weights)
        assert weights8.integers is not None
        factor = factor_of(weights8.integers)
        unit = Fraction(factor) / Fraction(weights8.step) / dynamics.gain
        while (
            factor > 1
            and unit * dynamics.threshold > MAX_VTH
            and np.array_equal(held(weights8.integers * (factor // 2))[0], weights8.integers * (factor // 2))
        ):
            factor, unit = factor // 2, unit / 2
        return weights8.integers * factor, unit, []

    def fixed(
        self, name: str, dynamics: Dynamics, value: Signal, pending: Pending, lag: int
    ) -> tuple[Layer, list[str]]:
        """Whole numbers."""
        weights, unit, inexact = self.units(dynamics, pending)
        du, dv = decay(dynamics.u_loss, "current", 1), decay(dynamics.v_loss, "potential", 0)
        inexact += [text for text in (du.inexact, dv.inexact) if text]
        level = dynamics.threshold * unit
        # Lava fires above the threshold: where the net fires at it, it is the next whole number below.
        vth = math.floor(level) if dynamics.is_strict else math.ceil(level) - 1
        if not 0 <= vth <= MAX_VTH:
            raise RefusedError(
                f"its threshold is {float(level):.6g} units of the sums before it, a register has 0 to {MAX_VTH}",
                "scale weights and threshold, or quantize with fewer bits",
            )
        exact = (pending.bias * float(dynamics.gain) + np.asarray(dynamics.bias)) * float(unit)
        bias = np.rint(exact)
        if np.abs(bias).max(initial=0) > MAX_BIAS:
            raise RefusedError(
                f"a bias is {float(np.abs(exact).max()):.6g} units of the sums, a register has up to {MAX_BIAS}",
                "train with smaller biases, or scale them with the weights",
            )
        if float(np.abs(exact - bias).max(initial=0)) > 1e-6:
            inexact.append(f"its bias is rounded to whole units (the threshold is {float(level):.4g} units)")
        if dynamics.scale is None and any(0 < loss < 1 for loss in (dynamics.u_loss, dynamics.v_loss)):
            # loihi_lif computes the same in the net; others decay without rounding.
            inexact.append(
                f"decays are rounded towards zero, to 1/{ALIGN} of a unit (the threshold is {float(level):.4g} units)"
            )
        highest = max(abs(start) for start in dynamics.start)
        if highest * unit * ALIGN >= STATE_LIMIT:
            raise RefusedError(f"it starts at {float(highest):g}, beyond 24 bits", "start nearer to 0")
        count = self.largest_input if value.source == INPUT else 1.0
        largest = count * float(np.abs(weights).reshape(len(weights), -1).sum(1).max(initial=0))
        if largest > MAX_SUM:
            self.notes.append(
                f"Layer {name}: sums of up to {largest:.0f} are possible and wrap round beyond {MAX_SUM}, if that many "
                + ("inputs spike at once." if count == 1 else f"inputs of {count:g} arrive at once: send smaller ones.")
            )
        synapses = replace(pending.synapses, weight=weights)
        population = Population(du.value, dv.value, vth, np.zeros(1))
        return Layer(name, value.source, value.shape, synapses, _channels(bias, value.shape), population), inexact

    def floating(
        self, name: str, dynamics: Dynamics, value: Signal, pending: Pending, bias: Doubles, lag: int
    ) -> tuple[Layer, list[str]]:
        """Doubles, in units of the net."""
        threshold = float(dynamics.threshold)
        vth = threshold if dynamics.is_strict else math.nextafter(threshold, -math.inf)
        synapses = replace(pending.synapses, weight=pending.weights.value * float(dynamics.gain))
        population = Population(float(dynamics.u_loss), float(dynamics.v_loss), vth, np.zeros(1))
        inexact = ["sums and states are doubles"] if dynamics.scale is None else ["states are doubles, not integers"]
        return Layer(name, value.source, value.shape, synapses, _channels(bias, value.shape), population), inexact

    def end(self, output: Signal) -> None:
        """A weight at the end is read out as it is; a population at the end gives spikes."""
        if any(record.outcome == "refused" for record in self.records):
            return
        if output.pending is None:
            is_last = output.source == len(self.layers) - 1 and output.source != INPUT
            if is_last and output.pooling is None and output.shape == self.layers[-1].shape:
                return
            last = self.records.pop() if self.records else OperatorRecord("net", "net", "mapped", "net")
            reason = "the net returns neither the spikes of its last neurons nor sums of weights"
            self.refuse(last.name, last.operator, reason, "end with a weight or a neuron")
            return
        pending = output.pending
        unit, weights = 1.0, pending.weights.value
        if self.precision == "fixed_pt":
            weights8 = rounded_weights(pending.weights)
            assert weights8.integers is not None
            factor = factor_of(weights8.integers)
            weights, unit = weights8.integers * factor, weights8.step / factor
        synapses = replace(pending.synapses, weight=weights)
        bias = _channels(pending.bias, output.shape)
        self.layers.append(Layer(pending.name, output.source, output.shape, synapses, bias, None, unit))


def _channels(bias: Doubles, shape: Shape) -> Doubles:
    """One for each channel."""
    return np.array(np.broadcast_to(bias, (shape[0],)), dtype=np.float64)
