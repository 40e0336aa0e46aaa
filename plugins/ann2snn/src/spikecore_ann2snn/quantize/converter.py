"""`Quantize`: the converter `quantize`, from a trained net to one with integer weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from spikecore import nn as snn
from spikecore.errors import ConversionError
from spikecore.interfaces import (
    Configurable,
    ConversionReport,
    ConverterCapabilities,
    LayerReport,
    Range,
    make_config,
)
from spikecore.nn import GraphNet, NetNode, Stateful, set_step_mode
from spikecore_ann2snn.calibration import Observer, Percentile, calibrate, sane
from spikecore_ann2snn.onnx_source import OnnxSource
from spikecore_ann2snn.operations import SYNAPSES, bounds
from spikecore_ann2snn.preparation import Prepared, fold_norms
from spikecore_ann2snn.qcfs import QCFS
from spikecore_ann2snn.quantize.fixed_point import FixedPointLIF
from spikecore_ann2snn.quantize.integers import (
    channel_axis,
    initial_state,
    integer_scale,
    layer_record,
    neuron_record,
    write_weights,
)
from spikecore_ann2snn.quantize.training import QuantizedWeight


class Quantize(OnnxSource, Configurable):
    """Quantizes weights, activations and neurons of a trained net after training, or prepares it for more training.

    * Batch norms are folded. Every synapse layer gets weights that are whole multiples of a scale, and a
      `QuantizedLayer` record with the integers.
    * Rectifiers become `QCFS` activations of 2^activation_bits - 1 levels, with calibrated range.
    * Neurons IF and LIF behind such a layer get a `QuantizedNeuron` record; with `neurons="fixed_point"` they are
      replaced by `FixedPointLIF`, which computes in these integers, bit by bit.
    * With `train=True` weights pass a learned step size and stay trainable; `finish_training` writes the records.

    Raises (of `convert`):
        ConversionError: calibration data are missing or unfit; numbers do not fit their bits.
        NetTraceError: the net cannot be followed.
    """

    api_version = 2
    capabilities: ClassVar[ConverterCapabilities] = ConverterCapabilities(
        layers=(
            *(f"torch.nn.{kind.__name__}" for kind in SYNAPSES),
            *("torch.nn.ReLU", "torch.nn.ReLU6", "torch.nn.Hardtanh", "spikecore.nn.ReLU"),
            *("torch.nn.functional.relu", "torch.nn.functional.relu6", "torch.relu", "torch.Tensor.relu"),
            *("torch.clamp", "torch.Tensor.clamp", "torch.nn.functional.hardtanh"),
            *(f"torch.nn.BatchNorm{axes}d" for axes in (1, 2, 3)),
            *("spikecore.nn.IF", "spikecore.nn.LIF"),
        ),
        num_steps=4,
        tolerance=0.35,  # of spiking nets: one spike that moves moves others
        reads=(".onnx",),
    )

    @dataclass(frozen=True)
    class Config:
        """
        Args:
            weight_bits: width of weights, the sign included.
            activation_bits: width of the activations that rectifiers become.
            per: one weight scale per layer, or per output channel.
            method: scale from the largest magnitude, or with the least squared error.
            percentile: of activations that the calibrated range covers, zeros included.
            neurons: `float` leaves IF and LIF and writes their integers down; `fixed_point` replaces them.
            decay_bits: fractional bits of decays in records.
            state_bits: width of neuron states.
            train: leave weights trainable, behind a learned step size.
        """

        weight_bits: Annotated[int, Range(ge=2, le=16)] = 8
        activation_bits: Annotated[int, Range(ge=1, le=16)] = 8
        per: Literal["layer", "channel"] = "channel"
        method: Literal["max", "mse"] = "max"
        percentile: Annotated[float, Range(gt=0.0, le=100.0)] = 100.0
        neurons: Literal["float", "fixed_point"] = "float"
        decay_bits: Annotated[int, Range(ge=1, le=16)] = 12
        state_bits: Annotated[int, Range(ge=2, le=24)] = 24
        train: bool = False

    config: Config

    def __init__(self, **options: Any) -> None:
        self.config = make_config(type(self), options)

    @classmethod
    def option_problems(cls, config: Any) -> Iterable[tuple[str, str]]:
        if config.neurons == "fixed_point" and config.decay_bits != 12:
            yield "decay_bits", "must be 12 with neurons='fixed_point', which computes decays in 4096ths"
        if config.neurons == "fixed_point" and config.train:
            yield "neurons", "must be 'float' with train=True: integers have no gradient"

    def convert(
        self, model: nn.Module, example_input: Tensor, calibration: Iterable[Tensor] = ()
    ) -> tuple[nn.Module, ConversionReport]:
        """See `spikecore.interfaces.converter.Converter`.

        Of a net with state, example and batches may be sequences `[T, B, ...]`: its step mode tells.
        """
        example, batches = self._steps(model, example_input, calibration)
        given, folded = fold_norms(Prepared.of(model, example))
        given.check()
        observers: dict[str, Observer] = {
            node.name: Percentile("layer", self.config.percentile)
            for node in given.graph.layers
            if given.role(node) == "relu"
        }
        count, _ = calibrate(given.graph, example, batches, observers)
        if not count:
            raise ConversionError("calibration batches are missing: ranges of activations come from a few inputs")
        replaced: dict[str, nn.Module] = {name: nn.Identity() for name in folded}
        reports = {
            node.name: LayerReport(node.name, "became", f"folded into {folded[node.name]}")
            if node.name in folded
            else LayerReport(node.name, "kept", "computes as it did")
            for node in given.graph.layers
        }
        for name, observer in observers.items():
            self._quantize_relu(given.graph[name], observer, replaced, reports)
        scales = self._quantize_layers(given, replaced, reports)
        self._quantize_neurons(given, replaced, reports, scales)
        taken = [
            LayerReport(name, "kept", f"{kind}, taken apart: its parts are listed by themselves")
            for name, kind in given.taken_apart.items()
        ]
        net = GraphNet(given.graph, replaced).eval()
        set_step_mode(net, "multi")
        return net, ConversionReport((*taken, *reports.values()))

    def _steps(
        self, model: nn.Module, example: Tensor, calibration: Iterable[Tensor]
    ) -> tuple[Tensor, Iterable[Tensor]]:
        """Single steps: ranges are those of steps; a net with state sees each as the first one."""
        modes = {part.step_mode for part in model.modules() if isinstance(part, Stateful) and part.state_names != ()}
        if "multi" not in modes:
            return example, calibration
        return example[0], (step for batch in calibration for step in batch[:1])

    def _quantize_relu(
        self, node: NetNode, observer: Observer, replaced: dict[str, nn.Module], reports: dict[str, LayerReport]
    ) -> None:
        limits = bounds(node)
        ceiling = float("inf") if limits is None else limits[1]
        threshold, remark = sane(observer.threshold().clamp(max=ceiling), node)
        levels = 2**self.config.activation_bits - 1
        made = QCFS(levels=levels, v_threshold=1.0)
        with torch.no_grad():
            made.param_v_threshold.fill_(float(threshold))  # type: ignore[operator]
        replaced[node.name] = made
        reason = f"QCFS of {levels} levels"
        reports[node.name] = LayerReport(
            node.name, "became", f"{reason}; {remark}" if remark else reason, float(threshold)
        )

    def _quantize_layers(
        self, given: Prepared, replaced: dict[str, nn.Module], reports: dict[str, LayerReport]
    ) -> dict[str, Tensor]:
        """Name of a layer → unit of its sums, `[]` or `[C]`."""
        scales: dict[str, Tensor] = {}
        done: dict[int, Tensor] = {}
        wrapped: dict[int, QuantizedWeight] = {}
        for node in given.graph.layers:
            layer = node.module
            if node.kind != "module" or not isinstance(layer, SYNAPSES):
                continue
            if id(layer) not in done:
                done[id(layer)] = self._quantize_layer(given, node, layer, replaced)
            scales[node.name] = done[id(layer)]
            if self.config.train:
                replaced[node.name] = wrapped.setdefault(id(layer), self._trainable(layer, done[id(layer)]))
            how = "learned step" if self.config.train else f"scale by {self.config.method}"
            reason = f"weights of {self.config.weight_bits} bits, one {how} per {self.config.per}"
            reports[node.name] = LayerReport(node.name, "became", reason)
        return scales

    def _quantize_layer(
        self, given: Prepared, node: NetNode, layer: nn.Module, replaced: dict[str, nn.Module]
    ) -> Tensor:
        axis = channel_axis(layer) if self.config.per == "channel" else None
        if getattr(layer, "groups", 1) > 1 and axis == 1:
            axis = None  # the channels of its groups share indices
        scale = integer_scale(layer.weight, self.config.weight_bits, axis, self.config.method)  # type: ignore[arg-type]
        if self.config.train:
            return scale
        # Of a layer that is called more than once, with inputs of several units, there is no one unit.
        calls = [other for other in given.graph.layers if other.module is layer]
        units = {_unit(replaced.get(_source(given, call.inputs[0]))) for call in calls}
        input_scale = units.pop() if len(units) == 1 else 1.0
        record = layer_record(layer, self.config.weight_bits, scale, axis, input_scale)
        write_weights(layer, record)
        return scale

    def _trainable(self, layer: nn.Module, scale: Tensor) -> QuantizedWeight:
        axis = channel_axis(layer) if scale.dim() else None
        made = QuantizedWeight(layer, self.config.weight_bits, axis, "learned")
        with torch.no_grad():
            made.quantizer.step_size.copy_(scale)  # type: ignore[operator]
        return made

    def _quantize_neurons(
        self,
        given: Prepared,
        replaced: dict[str, nn.Module],
        reports: dict[str, LayerReport],
        scales: dict[str, Tensor],
    ) -> None:
        for node in given.graph.layers:
            neuron = node.module
            if given.role(node) != "state" or neuron is None:
                continue
            scale = scales.get(_source(given, node.inputs[0]))
            record = None
            if scale is not None:
                record = neuron_record(neuron, scale, self.config.decay_bits, self.config.state_bits)
            if record is None:
                if self.config.neurons == "fixed_point":
                    raise ConversionError(
                        f"{node} has no form in integers: it is no IF or LIF directly behind a layer with weights"
                    )
                reports[node.name] = LayerReport(node.name, "kept", "no record: not IF or LIF behind a synapse layer")
                continue
            if self.config.neurons == "float":
                snn.quantized.attach(neuron, record)
                reports[node.name] = LayerReport(node.name, "became", "float dynamics, with a record of its integers")
                continue
            made = _fixed_point(neuron, record, scale, self.config.state_bits)
            snn.quantized.attach(made, record)
            replaced[node.name] = made
            threshold: Any = tuple(record.threshold.tolist()) if record.threshold.dim() else float(record.threshold)
            reports[node.name] = LayerReport(node.name, "became", "FixedPointLIF", threshold)


def _source(given: Prepared, name: str) -> str:
    """The node whose values arrive, perhaps through what moves or drops values."""
    node = given.graph[name]
    while node.is_call and node.inputs and (given.role(node) in ("shape", "dropout") or _is_identity(node)):
        node = given.graph[node.inputs[0]]
    return node.name


def _unit(source: nn.Module | None) -> float:
    """Of what a quantized activation gives; 1 of all else."""
    return float(source.threshold()) / source.config.levels if isinstance(source, QCFS) else 1.0


def _is_identity(node: NetNode) -> bool:
    return isinstance(node.module, nn.Identity)


def _fixed_point(neuron: nn.Module, record: Any, scale: Any, state_bits: int) -> FixedPointLIF:
    """Its numbers are parameters, so that they are saved; they have no gradient.

    One unit of the state stands for `record.scale`, one of the input for the layer's `scale`: they differ where the
    neuron scales its input.
    """
    config = neuron.config
    names = ("v_threshold", "v_reset", "v_init", "scale", "decay")
    values = {
        "v_threshold": record.threshold,
        "v_reset": torch.zeros(()) if record.v_reset is None else record.v_reset,
        "v_init": initial_state(neuron, record.scale),
        "scale": scale,
        "decay": record.decays["v"],
    }
    options = {
        name: [1.0] * len(value) if isinstance(value, Tensor) and value.dim() else 1.0 for name, value in values.items()
    }
    made = FixedPointLIF(
        **options,
        reset=config.reset,
        fires=config.fires,
        surrogate=config.surrogate,
        state_bits=state_bits,
        learnable=names,
    )
    with torch.no_grad():
        for name, value in values.items():
            getattr(made, f"param_{name}").copy_(value)
    set_step_mode(made, "multi")
    return made
