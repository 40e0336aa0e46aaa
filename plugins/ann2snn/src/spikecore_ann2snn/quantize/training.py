"""Training with quantized weights: norms folded, weights quantized on the way, records at the end.

net = prepare_training(net, example, bits=4)        # LearnedStep on every weight
... train net ...
finish_training(net)                                # plain weights of whole steps, and records
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from spikecore.errors import ConversionError, OptionError
from spikecore.nn import GraphNet, set_step_mode
from spikecore_ann2snn.operations import SYNAPSES
from spikecore_ann2snn.preparation import Prepared, fold_norms
from spikecore_ann2snn.quantize import straight_through
from spikecore_ann2snn.quantize.integers import channel_axis, layer_record, write_weights
from spikecore_ann2snn.quantize.quantizers import LearnedStep, MinMax


def prepare_training(
    net: nn.Module,
    example: Tensor,
    bits: int = 8,
    per: Literal["layer", "channel"] = "channel",
    quantizer: Literal["learned", "max"] = "learned",
) -> GraphNet:
    """A copy of a net, spiking or not, whose weights are quantized in every forward pass.

    Batch norms are folded into the layers before them first: what is trained is what the chip computes. Weight norm,
    spectral norm and pruning end here: weights start from what they computed, as plain parameters.

    Args:
        net: takes a batch `[B, ...]` in single-step mode.
        example: such a batch.
        bits: of weights.
        per: one scale per layer, or per output channel.
        quantizer: a learned step size, or the largest magnitude of each forward pass.

    Returns:
        A net that takes `[T, B, ...]`, in training mode; the parameters are float weights, biases and step sizes.

    Raises:
        ConversionError: a call does not treat samples one by one, or the output has not the batch first.
        NetTraceError: the net cannot be traced.
        OptionError: `bits` is out of range, `per` or `quantizer` has no such choice.
    """
    for option, value, choices in (("per", per, ("layer", "channel")), ("quantizer", quantizer, ("learned", "max"))):
        if value not in choices:
            raise OptionError(f"{option} must be {' or '.join(map(repr, choices))}, got {value!r}")
    given, folded = fold_norms(Prepared.of(net, example))
    given.check()
    replaced: dict[str, nn.Module] = {name: nn.Identity() for name in folded}
    wrapped: dict[int, QuantizedWeight] = {}
    for node in given.graph.layers:
        layer = node.module
        if layer is None or not isinstance(layer, SYNAPSES):
            continue
        if id(layer) not in wrapped:
            axis = channel_axis(layer) if per == "channel" else None
            wrapped[id(layer)] = QuantizedWeight(layer, bits, axis, quantizer)
        replaced[node.name] = wrapped[id(layer)]
    made = GraphNet(given.graph, replaced)
    set_step_mode(made, "multi")
    return made.train()


class QuantizedWeight(nn.Module):
    """A layer whose weight passes a quantizer in every forward pass; `layer` holds the float weight.

    The bias is rounded to the unit of the layer's sums, as integers will have it, with the gradient straight through.
    A transposed convolution with groups has one scale: the channels of its groups share indices.
    """

    def __init__(self, layer: nn.Module, bits: int, axis: int | None, quantizer: str) -> None:
        super().__init__()
        if getattr(layer, "groups", 1) > 1 and axis == 1:
            axis = None
        weight: Tensor = layer.weight  # type: ignore[assignment]
        self.layer = layer
        self.quantizer = LearnedStep(weight, bits, axis=axis) if quantizer == "learned" else MinMax(bits, axis)

    def forward(self, *args: Any) -> Any:
        """What the layer makes of its input with the quantized weight."""
        weight: Tensor = self.layer.weight  # type: ignore[assignment]
        tensors = {"weight": self.quantizer(weight)}
        if isinstance(self.layer.bias, Tensor):
            tensors["bias"] = straight_through.step(self.layer.bias, self.quantizer.scale_of(weight))
        return torch.func.functional_call(self.layer, tensors, args)


def finish_training(net: nn.Module) -> list[str]:
    """Put plain layers with the quantized weights in place, and write the integers as records.

    Returns:
        The names of the layers.

    Raises:
        ConversionError: the net has no quantized weights.
    """
    names = []
    for name, module in list(net.named_modules()):
        if not isinstance(module, QuantizedWeight):
            continue
        layer, quantizer = module.layer, module.quantizer
        scale = quantizer.scale_of(layer.weight).detach().clone()  # type: ignore[arg-type]
        write_weights(layer, layer_record(layer, quantizer.bits, scale, quantizer.axis))
        owner, _, own = name.rpartition(".")
        net.get_submodule(owner).add_module(own, layer)
        names.append(name)
    if not names:
        raise ConversionError(f"{type(net).__name__} has no quantized weights: call prepare_training before training")
    return names
